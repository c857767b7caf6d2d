//! Tests of the kallsyms search on tables of all layouts, whole and damaged.

use proptest::prelude::*;

use super::{RawSymbol, find};
use crate::fixture::{LAYOUTS, Layout, kallsyms};

const BASE: u64 = 0xffff_ffff_8100_0000;

/// `count` symbols with some shared names, some shared addresses, one long name, and per-CPU ones where the layout has
/// them.
fn symbols(layout: Layout, count: u64) -> Vec<(u64, char, String)> {
    let per_cpu = if layout == Layout::BehindUnsigned { vec![] } else { vec![(0, 'A', "percpu_start".to_owned())] };
    let text = (0..count).map(|index| {
        let name = match index {
            0 => "_text".to_owned(),
            3 => "long_".repeat(40),
            index if index % 7 == 0 => "sys_shared".to_owned(),
            index => format!("do_{index}_init.isra.0"),
        };
        (BASE + index / 2 * 64, if index % 3 == 0 { 'T' } else { 't' }, name)
    });
    per_cpu.into_iter().chain(text).collect()
}

fn raw(symbols: &[(u64, char, String)]) -> Vec<RawSymbol> {
    let raw = |(address, letter, name): &(u64, char, String)| RawSymbol {
        address: *address,
        letter: *letter as u8,
        name: name.as_str().into(),
    };
    symbols.iter().map(raw).collect()
}

/// What the caller would check: the text is where it belongs.
fn anchored(symbols: &[RawSymbol]) -> bool {
    symbols.iter().any(|symbol| &*symbol.name == "_text" && symbol.address == BASE)
}

#[test]
fn every_layout_reads_back() {
    for layout in LAYOUTS {
        for count in [8, 255, 256, 257, 1000] {
            let symbols = symbols(layout, count);
            let mut blob = vec![0xaa; 4096];
            blob.extend(kallsyms(layout, BASE, &symbols));
            blob.extend([0x55; 1024]);
            assert_eq!(find(&blob, anchored), Some(raw(&symbols)), "{layout:?} with {count} symbols");
        }
    }
}

#[test]
fn a_decoy_of_digits_is_passed_over() {
    let symbols = symbols(Layout::Behind, 300);
    let mut blob = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00".repeat(100);
    blob.resize(blob.len().next_multiple_of(8), 0);
    blob.extend(kallsyms(Layout::Behind, BASE, &symbols));
    assert_eq!(find(&blob, anchored), Some(raw(&symbols)));
}

#[test]
fn an_implausible_reading_is_not_taken() {
    let blob = kallsyms(Layout::Behind, BASE, &symbols(Layout::Behind, 300));
    assert_eq!(find(&blob, |_| false), None);
}

#[test]
fn a_wrong_marker_is_noticed() {
    let symbols = symbols(Layout::Behind, 300);
    let blob = kallsyms(Layout::Behind, BASE, &symbols);
    // The names take more than 256 bytes, so the second marker is the only number of its value with zeros before it.
    let first: usize = symbols.iter().take(256).map(|(_, _, name)| encoded_len(name)).sum();
    let marker: Vec<u8> = [0u32.to_le_bytes(), (first as u32).to_le_bytes()].concat();
    let at = memchr::memmem::find(&blob, &marker).expect("the fixture has markers");
    let mut damaged = blob.clone();
    damaged[at + 4] ^= 1;
    assert!(find(&blob, anchored).is_some());
    assert_eq!(find(&damaged, anchored), None);
}

fn encoded_len(name: &str) -> usize {
    let tokens = 1 + name.replace("sys_", "1").replace("_init", "1").len();
    tokens + if tokens > 127 { 2 } else { 1 }
}

proptest! {
    #[test]
    fn names_and_addresses_survive(
        names in proptest::collection::vec("[a-z_][a-z0-9_.$]{0,60}", 8..600),
        layout in proptest::sample::select(&LAYOUTS[..]),
    ) {
        let mut symbols: Vec<_> = (0..).zip(names).map(|(index, name)| (BASE + index * 16, 't', name)).collect();
        symbols.insert(0, (BASE, 'T', "_text".into()));
        let blob = kallsyms(layout, BASE, &symbols);
        prop_assert_eq!(find(&blob, anchored), Some(raw(&symbols)));
    }

    #[test]
    fn damage_never_panics(
        layout in proptest::sample::select(&LAYOUTS[..]),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
    ) {
        let mut blob = kallsyms(layout, BASE, &symbols(layout, 300));
        for (at, value) in flips {
            let at = at.index(blob.len());
            blob[at] = value;
        }
        if truncate {
            blob.truncate(cut.index(blob.len()));
        }
        // Damage may go unnoticed in a name, but what is read is consistent.
        if let Some(symbols) = find(&blob, anchored) {
            prop_assert!(symbols.is_sorted_by_key(|symbol| symbol.address));
        }
    }
}
