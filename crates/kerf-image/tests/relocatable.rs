//! Object files and modules: synthetic addresses, relocations, refusals.

mod common;

use kerf_image::{Binding, Image, ImageKind, PatchKind, SymbolKind, Target};

const UNIT: &str = r#"
    extern int elsewhere(const char *);
    int counter = 5;
    static long table[4] __attribute__((aligned(16384))) = { 1, 2, 3, 4 };
    static volatile char buffer[100];
    __attribute__((noinline)) static int twice(int x) { asm volatile(""); return 2 * x + buffer[x]; }
    int entry(int x) { return elsewhere("text") + twice(x) + counter + table[x & 3]; }
    __attribute__((weak)) void maybe(void) { }
"#;

const R_X86_64_PLT32: u32 = 4;

fn unit(flags: &[&str]) -> Image {
    let all = [&["-O2", "-mcmodel=kernel", "-fno-pic", "-fcf-protection=none"], flags].concat();
    Image::parse("unit.o", common::object("c", UNIT, &all)).expect("the compiler's output is sound")
}

#[test]
fn sections_do_not_overlap() {
    let image = unit(&["-ffunction-sections", "-fdata-sections"]);
    assert_eq!(image.kind(), ImageKind::Object);
    assert_eq!((image.build_id(), image.release()), (None, None));
    let mut end = 0x1_0000;
    for section in image.sections().iter().filter(|section| section.alloc) {
        assert!(section.address >= end, "{} begins before {end:#x}", section.name);
        assert_eq!(section.address % 4096, 0, "{}", section.name);
        end = section.end();
    }
    assert!(image.sections().iter().filter(|section| section.alloc && section.exec && section.size > 0).count() >= 3);
    assert!(image.sections().iter().filter(|section| !section.alloc).all(|section| section.address == 0));
    let (_, table) = image.section_named(".data.table").or(image.section_named(".rodata.table")).expect("it is there");
    assert_eq!(table.address % 16384, 0);
}

#[test]
fn symbols_are_given_in_those_addresses() {
    let image = unit(&[]);
    let named = |name: &str| image.symbols_named(name).next().expect("it is defined");
    let entry = named("entry");
    assert_eq!((entry.kind, entry.binding), (SymbolKind::Function, Binding::Global));
    assert_eq!(named("maybe").binding, Binding::Weak);
    assert_eq!((named("twice").kind, named("twice").binding), (SymbolKind::Function, Binding::Local));
    assert_eq!((named("buffer").kind, named("buffer").size), (SymbolKind::Data, Some(100)));
    assert_eq!(image.bytes(named("counter").address, 4).as_deref(), Some(&[5, 0, 0, 0][..]));
    assert_eq!(image.bytes(named("buffer").address, 100).as_deref(), Some(&[0; 100][..]));
    assert_eq!(image.symbols_named("elsewhere").count(), 0);
    assert!(image.symbols().is_sorted_by_key(|symbol| symbol.address));
    assert_eq!(image.function_at(entry.end() - 1), Some(entry));
    for function in image.functions() {
        assert_eq!(
            function.section.and_then(|index| image.sections().get(index)).map(|section| section.exec),
            Some(true)
        );
    }
}

#[test]
fn relocations_name_what_they_refer_to() {
    let image = unit(&[]);
    let (text, section) = image.section_named(".text").expect("it is there");
    let relocations = image.relocations(text);
    assert!(relocations.is_sorted_by_key(|relocation| relocation.address));
    assert!(relocations.iter().all(|relocation| section.contains(relocation.address)));
    let call = relocations.iter().find(|relocation| &*relocation.symbol == "elsewhere").expect("it is called");
    assert_eq!((call.r_type, call.addend, call.target, call.value()), (R_X86_64_PLT32, -4, Target::Undefined, None));
    assert_eq!(image.bytes(call.address - 1, 1).as_deref(), Some(&[0xe8][..]));
    let counter = image.symbols_named("counter").next().expect("it is defined");
    let use_of_counter = relocations.iter().find(|relocation| &*relocation.symbol == "counter").expect("it is used");
    assert_eq!(use_of_counter.target, Target::Address(counter.address));
    // A section symbol stands for its section, by name.
    let text_of = |relocation: &&kerf_image::Relocation| relocation.symbol.starts_with(".rodata.str");
    let string = relocations.iter().find(text_of).and_then(|relocation| relocation.value()).expect("it is used");
    assert_eq!(image.bytes(string, 5).as_deref(), Some(&b"text\0"[..]));
    assert_eq!(image.relocations(usize::MAX), []);
}

#[test]
fn debug_information_is_there_but_has_no_address() {
    let image = unit(&["-g"]);
    let (index, section) = image.section_named(".debug_info").expect("it is there");
    assert!(!section.alloc);
    assert_eq!(image.section_bytes(index).len() as u64, section.size);
    assert_eq!(image.relocations(index), []);
    assert!(image.symbols().iter().all(|symbol| symbol.section != Some(index)));
}

#[test]
fn modules_say_what_they_are_for() {
    let source = r#"
        __attribute__((section(".modinfo"), used)) static const char name[] = "name=test";
        __attribute__((section(".modinfo"), used)) static const char magic[] = "vermagic=6.99.0-kerf SMP preempt ";
        __attribute__((section(".gnu.linkonce.this_module"))) char this_module[64];
    "#;
    let image = Image::parse("test.ko", common::object("c", source, &["-O2"])).expect("the fixture is sound");
    assert_eq!(image.kind(), ImageKind::Module);
    assert_eq!(image.release(), Some("6.99.0-kerf"));
}

#[test]
fn what_is_foreign_is_refused_by_name() {
    let message = |bytes: Vec<u8>| Image::parse("file", bytes).expect_err("it is foreign").to_string();
    let program = std::fs::read(std::env::current_exe().expect("we run")).expect("we are a file");
    let mut arm = program.clone();
    arm[18..20].copy_from_slice(&183u16.to_le_bytes());
    insta::assert_snapshot!(message(arm), @"file: built for 64-bit Arm, and only 64-bit x86 is supported; use an amd64 kernel");
    let mut big = program.clone();
    big[5] = 2;
    big[18..20].copy_from_slice(&22u16.to_be_bytes());
    insta::assert_snapshot!(message(big), @"file: built for S/390, and only 64-bit x86 is supported; use an amd64 kernel");
    let mut core = program;
    core[16] = 4;
    insta::assert_snapshot!(message(core), @"file: ELF file type 4 is not supported; use a linked vmlinux, a module or an object file");
    insta::assert_snapshot!(message(b"#!/bin/sh\n".to_vec()), @"file: not a kernel image: it begins with 23212f62696e2f73; expected a bzImage (vmlinuz), an ELF file (vmlinux, .ko, .o), or one of these compressed with xz, zstd or gzip");
    insta::assert_snapshot!(message(vec![]), @"file: not a kernel image: it begins with nothing, it is empty; expected a bzImage (vmlinuz), an ELF file (vmlinux, .ko, .o), or one of these compressed with xz, zstd or gzip");
    insta::assert_snapshot!(message(b"\x7fELF\x02\x01".to_vec()), @"file: the ELF header reaches to byte 0x40, but there are only 0x6; the file is truncated or damaged, fetch it again");
}

#[test]
fn user_space_programs_are_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (source, program) = (dir.path().join("main.c"), dir.path().join("main"));
    std::fs::write(&source, "int main(void) { return 0; }").expect("a temporary file");
    let status = std::process::Command::new("gcc").arg(&source).arg("-o").arg(&program).status();
    assert!(status.expect("gcc is installed").success());
    let error = Image::open(&program).expect_err("it is no kernel").to_string();
    assert!(error.contains("a user-space program is not supported"), "{error}");
}

#[test]
fn a_broken_table_is_an_error() {
    // Three relocations make a record of 16 bytes; here the second record misses one.
    let source = r#"
        .text
    site: .byte 0x66, 0x90
        .section __jump_table, "aw"
        .long site - ., site - .
        .quad site - .
        .long site - ., 0
        .quad site - .
    "#;
    let image = Image::parse("unit.o", common::object("S", source, &[])).expect("the file itself is sound");
    let error = image.patch_sites().expect_err("the table is broken").to_string();
    assert!(error.contains("section __jump_table"), "{error}");
    // A table of alternatives whose replacements' lengths are nowhere in the records.
    let source = r#"
        .text
    site: nop
        .section .altinstr_replacement, "ax"
    new: nop
        .section .altinstructions, "a"
        .long site - ., new - .
        .skip 4, 0x77
    "#;
    let image = Image::parse("unit.o", common::object("S", source, &[])).expect("the file itself is sound");
    let sites = image.patch_sites().expect("the table is only not understood");
    let missing: Vec<_> = sites.unavailable().iter().map(|table| (table.name, table.kind)).collect();
    assert_eq!(missing, [(".altinstructions", PatchKind::Alternative)]);
}
