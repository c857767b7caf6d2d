//! Damaged files of every kind: errors, never panics, never much memory or time.

mod common;

use std::sync::LazyLock;

use common::tables::Layout;
use common::{ALT_NOW, PACKINGS};
use kerf_image::Image;
use proptest::prelude::*;
use proptest::sample::Index;

/// Sound files, small ones, of all kinds.
static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let unit =
        "static int helper(int x) { return x * 3; } int counter; int entry(int x) { return helper(x) + counter; }";
    let stripped = common::stripped_kernel(Layout::Behind);
    let mut seeds = vec![
        common::object("c", unit, &["-O0", "-g"]),
        common::tables_object(ALT_NOW),
        common::kernel(ALT_NOW),
        common::stripped_kernel(Layout::Addresses),
        common::pack(common::Packing::Xz, &common::tables_object(ALT_NOW)),
    ];
    seeds.extend(PACKINGS.into_iter().map(|packing| common::boot_image(packing, &stripped)));
    seeds.push(stripped);
    seeds
});

/// One change to a file.
#[derive(Clone, Debug)]
enum Damage {
    /// Another byte.
    Byte(Index, u8),
    /// A field that becomes extreme.
    Word(Index, u64),
    /// A part that is copied over another.
    Splice { from: Index, to: Index, len: usize },
    /// The end is cut off.
    Truncate(Index),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len();
        match self {
            Damage::Byte(at, value) => bytes[at.index(len)] = *value,
            Damage::Word(at, value) => {
                // Fields of headers are aligned.
                let at = at.index(len) & !7;
                let end = len.min(at + 8);
                bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
            }
            Damage::Splice { from, to, len: part } => {
                let part = bytes[from.index(len)..].iter().take(*part).copied().collect::<Vec<_>>();
                let to = to.index(len);
                let end = len.min(to + part.len());
                bytes[to..end].copy_from_slice(&part[..end - to]);
            }
            Damage::Truncate(at) => bytes.truncate(at.index(len)),
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let extreme = prop_oneof![
        Just(0),
        Just(u64::MAX),
        Just(i64::MAX as u64),
        Just(1 << 32),
        (0u32..64).prop_map(|shift| 1u64 << shift),
        any::<u64>(),
    ];
    prop_oneof![
        8 => (any::<Index>(), any::<u8>()).prop_map(|(at, value)| Damage::Byte(at, value)),
        4 => (any::<Index>(), extreme).prop_map(|(at, value)| Damage::Word(at, value)),
        2 => (any::<Index>(), any::<Index>(), 1usize..600).prop_map(|(from, to, len)| Damage::Splice { from, to, len }),
        1 => any::<Index>().prop_map(Damage::Truncate),
    ]
}

/// Opens a file and asks everything that there is to ask.
fn exercise(bytes: Vec<u8>) {
    let Ok(image) = Image::parse("fuzzed", bytes) else { return };
    let _ = (image.kind(), image.build_id().map(ToString::to_string), image.release(), image.btf());
    for (index, section) in image.sections().iter().enumerate() {
        let _ = (image.section_bytes(index), image.relocations(index).iter().filter_map(|row| row.value()).max());
        if section.alloc {
            let _ = image.bytes(section.address, section.size.min(64) as usize);
            let _ = image.bytes(section.end().wrapping_sub(1), 1);
        }
    }
    for symbol in image.symbols() {
        let _ =
            (image.function_at(symbol.address), image.bytes(symbol.address, symbol.size.unwrap_or(1).min(64) as usize));
    }
    let _ = (image.functions().count(), image.symbols_named("entry").count(), image.similar_symbols("entri", 3));
    if let Ok(sites) = image.patch_sites() {
        let _ = sites.overlapping(0..u64::MAX);
    }
}

#[test]
fn seeds_are_sound() {
    for (number, seed) in SEEDS.iter().enumerate() {
        let image = Image::parse("seed", seed.clone()).unwrap_or_else(|error| panic!("seed {number}: {error}"));
        image.patch_sites().unwrap_or_else(|error| panic!("seed {number}: {error}"));
    }
}

#[test]
fn every_truncation_is_handled() {
    for seed in SEEDS.iter() {
        for len in (0..seed.len()).step_by(seed.len() / 400 + 1) {
            exercise(seed[..len].to_vec());
        }
    }
}

proptest! {
    // PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(3000), ..ProptestConfig::default() })]

    #[test]
    fn damage_never_panics(seed in any::<Index>(), damages in proptest::collection::vec(damage(), 1..8)) {
        let mut bytes = SEEDS[seed.index(SEEDS.len())].clone();
        damages.iter().for_each(|damage| damage.apply(&mut bytes));
        exercise(bytes);
    }

    /// Most of a small file is code; damage to the headers in front and behind finds more.
    #[test]
    fn damaged_headers_never_panic(
        seed in any::<Index>(),
        at_end in any::<bool>(),
        damages in proptest::collection::vec(damage(), 1..5),
    ) {
        let mut bytes = SEEDS[seed.index(SEEDS.len())].clone();
        let size = 1536.min(bytes.len());
        let start = if at_end { bytes.len() - size } else { 0 };
        let mut part = bytes[start..start + size].to_vec();
        damages.iter().for_each(|damage| damage.apply(&mut part));
        bytes.splice(start..start + size, part);
        exercise(bytes);
    }

    #[test]
    fn noise_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(Image::parse("noise", bytes).is_err());
    }
}
