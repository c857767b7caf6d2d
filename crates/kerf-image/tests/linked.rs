//! Linked kernels: sections, symbols from both sources, bytes, and the places that the kernel patches.

mod common;

use common::tables::{LAYOUTS, Layout};
use common::{ALT_NOW, ALT_OLD, AltLayout, TEXT};
use kerf_image::{Binding, Image, ImageKind, PatchKind, SymbolKind, SymbolSource};

fn kernel() -> Image {
    Image::parse("vmlinux", common::kernel(ALT_NOW)).expect("the fixture is sound")
}

#[test]
fn identity_is_read() {
    let image = kernel();
    assert_eq!(image.kind(), ImageKind::Vmlinux);
    assert_eq!(image.release(), Some("6.99.0-kerf"));
    assert_eq!(image.build_id().map(ToString::to_string).as_deref(), Some("0123456789abcdef"));
    assert_eq!("0123456789ABCDEF".parse().ok().as_ref(), image.build_id());
    assert_eq!(image.symbol_source(), &SymbolSource::ElfTable);
}

#[test]
fn functions_have_ranges() {
    let image = kernel();
    let start = image.symbols_named("start_kernel").next().expect("it is there");
    assert_eq!((start.address, start.kind, start.binding), (TEXT, SymbolKind::Function, Binding::Global));
    let last = start.end() - 1;
    assert_eq!(image.function_at(last), Some(start));
    assert_eq!(image.function_at(start.end()).map(|function| &*function.name), Some("helper"));
    assert_eq!(image.function_at(TEXT - 1), None);
    assert_eq!(image.function_at(u64::MAX), None);
    let names: Vec<_> = image.functions().map(|function| &*function.name).collect();
    assert_eq!(names, ["start_kernel", "helper", "__fentry__", "thunk", "__SCT__helper"]);
}

#[test]
fn bytes_stop_at_the_section() {
    let image = kernel();
    assert_eq!(image.bytes(TEXT, 4).as_deref(), Some(&[0xf3, 0x0f, 0x1e, 0xfa][..]));
    let (_, text) = image.section_named(".text").expect("it is there");
    assert!(image.bytes(text.address, text.size as usize).is_some());
    assert_eq!(image.bytes(text.address, text.size as usize + 1), None);
    assert_eq!(image.bytes(text.address - 1, 2), None);
    assert_eq!(image.bytes(0, 1), None);
    assert_eq!(image.bytes(u64::MAX, 1), None);
    assert_eq!(image.bytes(TEXT, usize::MAX), None);
    let zeros = image.symbols_named("zeros").next().expect("it is there");
    assert_eq!(image.bytes(zeros.address, 64).as_deref(), Some(&[0; 64][..]));
    let counter = image.symbols_named("counter").next().expect("it is there");
    assert_eq!(image.bytes(counter.address, 8).as_deref(), Some(&7u64.to_le_bytes()[..]));
}

#[test]
fn kallsyms_agree_with_the_symbol_table() {
    let symbols = |image: &Image| -> Vec<(u64, Box<str>, Binding)> {
        let mut symbols: Vec<_> = image
            .symbols()
            .iter()
            .filter(|symbol| symbol.kind != SymbolKind::Section && symbol.address >= TEXT)
            .map(|symbol| (symbol.address, symbol.name.clone(), symbol.binding))
            .collect();
        symbols.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        symbols
    };
    let with_table = kernel();
    for layout in LAYOUTS {
        let image = Image::parse("vmlinux", common::stripped_kernel(layout)).expect("the fixture is sound");
        assert_eq!(image.symbol_source(), &SymbolSource::EmbeddedKallsyms, "{layout:?}");
        assert_eq!(symbols(&image), symbols(&with_table), "{layout:?}");
        assert_eq!(image.release(), with_table.release());
    }
}

#[test]
fn kallsyms_symbols_get_sizes_and_kinds() {
    let image = Image::parse("vmlinux", common::stripped_kernel(Layout::Behind)).expect("the fixture is sound");
    let helper = image.symbols_named("helper").next().expect("it is there");
    assert_eq!((helper.size, helper.kind, helper.binding), (Some(8), SymbolKind::Function, Binding::Local));
    // To the next symbol, not beyond the section.
    let text = image.section_named(".text").expect("it is there").1;
    let trampoline = image.symbols_named("__SCT__helper").next().expect("it is there");
    assert_eq!(trampoline.end(), text.end());
    assert_eq!(image.symbols_named("counter").next().map(|symbol| symbol.kind), Some(SymbolKind::Data));
}

#[test]
fn a_kernel_without_symbols_says_so() {
    let image = Image::parse("vmlinux", common::mute_kernel()).expect("the file is sound");
    assert_eq!(image.symbols(), []);
    assert_eq!(image.release(), Some("6.99.0-kerf"));
    let SymbolSource::Missing(why) = image.symbol_source() else { panic!("there are no symbols") };
    assert!(why.contains("CONFIG_KALLSYMS"), "{why}");
    let sites = image.patch_sites().expect("the tables are sound");
    let missing: Vec<_> = sites.unavailable().iter().map(|table| table.name).collect();
    assert_eq!(missing, ["__jump_table", ".static_call_sites", "__mcount_loc"]);
    assert_eq!(sites.of_kind(PatchKind::LockPrefix).count(), 1);
}

#[test]
fn near_names_are_suggested() {
    let image = kernel();
    assert_eq!(image.similar_symbols("start_kernal", 3), ["start_kernel"]);
    assert_eq!(image.similar_symbols("Helper", 1), ["helper"]);
    assert_eq!(image.similar_symbols("entirely_different", 3), [""; 0]);
    assert_eq!(image.similar_symbols("helper", 0), [""; 0]);
}

/// The sites of an image as text: kind, function and offset, length.
fn sites(image: &Image) -> String {
    let sites = image.patch_sites().expect("the tables are sound");
    assert_eq!(sites.unavailable(), []);
    let line = |site: &kerf_image::PatchSite| {
        let function = image.function_at(site.address).expect("sites are in functions");
        format!("{}+{:#x} {} ({})\n", function.name, site.address - function.address, site.len, site.kind)
    };
    sites.all().iter().map(line).collect()
}

#[test]
fn every_table_is_read() {
    insta::assert_snapshot!(sites(&kernel()), @r"
    start_kernel+0x0 4 (sealed endbr)
    start_kernel+0x4 5 (fentry)
    start_kernel+0x9 2 (static key)
    start_kernel+0xb 5 (static key)
    start_kernel+0x10 5 (static call)
    start_kernel+0x15 1 (lock prefix)
    start_kernel+0x18 3 (alternative)
    start_kernel+0x1b 6 (alternative)
    start_kernel+0x21 6 (retpoline)
    start_kernel+0x29 8 (runtime constant)
    start_kernel+0x34 1 (runtime constant)
    start_kernel+0x35 6 (paravirt)
    start_kernel+0x3b 5 (call thunk)
    start_kernel+0x40 5 (return thunk)
    __SCT__helper+0x0 5 (static call trampoline)
    ");
    let stripped = Image::parse("vmlinux", common::stripped_kernel(Layout::Behind)).expect("the fixture is sound");
    assert_eq!(stripped.patch_sites().expect("sound").all(), kernel().patch_sites().expect("sound").all());
}

#[test]
fn a_lock_behind_another_prefix_is_left_alone() {
    let source = r#"
        .text
    one: lock cmpxchgw %bx, (%rdi)
    two: lock incl (%rdi)
        .section .smp_locks, "a"
        .long one - ., two - .
    "#;
    let image = Image::parse("unit.o", common::object("S", source, &[])).expect("the fixture is sound");
    let (_, text) = image.section_named(".text").expect("it is there");
    assert_eq!(image.bytes(text.address, 2).as_deref(), Some(&[0x66, 0xf0][..]));
    let sites: Vec<_> = image.patch_sites().expect("the table is sound").all().to_vec();
    assert_eq!(sites.iter().map(|site| site.address - text.address).collect::<Vec<_>>(), [5]);
}

#[test]
fn record_sizes_come_from_the_types() {
    let old = Image::parse("vmlinux", common::kernel(ALT_OLD)).expect("the fixture is sound");
    assert_eq!(sites(&old), sites(&kernel()));
    let odd = Image::parse("vmlinux", common::kernel(AltLayout { pad: 7, tail: 3 })).expect("the fixture is sound");
    assert_eq!(sites(&odd), sites(&kernel()));
}

#[test]
fn objects_show_the_same_sites_as_the_kernel() {
    for alt in [ALT_NOW, ALT_OLD, AltLayout { pad: 7, tail: 0 }] {
        let object = Image::parse("unit.o", common::tables_object(alt)).expect("the fixture is sound");
        assert_eq!(object.kind(), ImageKind::Object);
        assert_eq!(sites(&object), sites(&kernel()), "{alt:?}");
    }
}

#[test]
fn without_types_structured_tables_are_missing() {
    let image = Image::parse("vmlinux", common::kernel_without_types()).expect("the fixture is sound");
    let sites = image.patch_sites().expect("the other tables are sound");
    let missing: Vec<_> = sites.unavailable().iter().map(|table| (table.name, table.reason.as_str())).collect();
    assert_eq!(
        missing.iter().map(|table| table.0).collect::<Vec<_>>(),
        ["__jump_table", ".static_call_sites", ".altinstructions", ".parainstructions"]
    );
    assert!(missing.iter().all(|table| table.1.contains("CONFIG_DEBUG_INFO_BTF")));
    assert_eq!(sites.of_kind(PatchKind::Fentry).count(), 1);
}

#[test]
fn overlapping_is_exact() {
    let image = kernel();
    let sites = image.patch_sites().expect("the tables are sound");
    let all = |range: std::ops::Range<u64>| -> Vec<_> {
        sites.all().iter().filter(|site| site.address < range.end && range.start < site.range().end).copied().collect()
    };
    let end = sites.all().last().map_or(TEXT, |site| site.range().end) + 2;
    for start in TEXT - 1..end {
        for stop in start..end {
            let expected = if start == stop { vec![] } else { all(start..stop) };
            assert_eq!(*sites.overlapping(start..stop), *expected, "{start:#x}..{stop:#x}");
        }
    }
}
