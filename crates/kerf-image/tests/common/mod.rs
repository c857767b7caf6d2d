//! Fixtures: small kernels, modules and objects that the tests build with the system's compiler.

#![allow(dead_code, reason = "every test uses its own part of the fixtures")]

pub mod tables;

use std::path::Path;
use std::process::Command;

use kerf_image::{Image, ImageKind, SymbolKind};

/// Where the small kernel's code begins.
pub const TEXT: u64 = 0xffff_ffff_8100_0000;

/// The small kernel's code and self-patching tables. `ALT_PAD` is the bytes between a record's distances and its
/// lengths, `ALT_TAIL` those behind.
const KERNEL: &str = r#"
    .text
    .globl _text
_text:
    .globl start_kernel
    .type start_kernel, @function
start_kernel:
    endbr64
fentry_1:
    call __fentry__
key_short:
    .byte 0x66, 0x90
key_long:
    .byte 0x0f, 0x1f, 0x44, 0, 0
static_1:
    call helper
lock_1:
    lock incl (%rdi)
alt_1:
    lfence
alt_2:
    call helper
    nop
retpoline_1:
    .byte 0x2e
    call thunk
constant_1:
    movabs $0x1122334455667788, %rax
    shr $12, %rax
paravirt_1:
    call *counter(%rip)
call_1:
    call helper
return_1:
    {disp32} jmp thunk
    .size start_kernel, . - start_kernel

    .type helper, @function
helper:
    .nops 7
    ret
    .size helper, . - helper
    .globl __fentry__
    .type __fentry__, @function
__fentry__:
    ret
    .size __fentry__, . - __fentry__
    .type thunk, @function
thunk:
    int3
    .size thunk, . - thunk
    .balign 16
    .globl __SCT__helper
    .type __SCT__helper, @function
__SCT__helper:
    jmp helper
    .size __SCT__helper, . - __SCT__helper

    .section .altinstr_replacement, "ax"
new_1:
    nop
new_2:
    .nops 5
new_end:

    .data
    .globl counter
    .type counter, @object
counter:
    .quad 7
    .size counter, 8
    .balign 8

    .section .rodata, "a"
    .type linux_banner, @object
    .globl linux_banner
linux_banner:
    .asciz "Linux version 6.99.0-kerf (test) #1"
    .size linux_banner, . - linux_banner

    .bss
    .type zeros, @object
zeros:
    .skip 64
    .size zeros, 64
"#;

/// The tables, with the bounds that the linker script of a kernel would set.
const TABLES: &str = r#"
    .section JUMP_TABLE
    .balign 8
    .globl __start___jump_table
__start___jump_table:
    .long key_short - ., helper - .
    .quad counter - .
    .long key_long - ., helper - .
    .quad counter - .
    .globl __stop___jump_table
__stop___jump_table:

    .section STATIC_CALLS
    .globl __start_static_call_sites
__start_static_call_sites:
    .long static_1 - ., counter - .
    .globl __stop_static_call_sites
__stop_static_call_sites:

    .section .altinstructions, "a"
    .globl __alt_instructions
__alt_instructions:
    .long alt_1 - ., new_1 - .
    .skip ALT_PAD
    .byte 3, 1
    .skip ALT_TAIL
    .long alt_2 - ., new_2 - .
    .skip ALT_PAD
    .byte 6, 5
    .skip ALT_TAIL
    .globl __alt_instructions_end
__alt_instructions_end:

    .section .parainstructions, "a"
    .balign 8
    .quad paravirt_1
    .byte 1, 6
    .skip 6

    .section .call_sites, "a"
    .long call_1 - .
    .section .retpoline_sites, "a"
    .long retpoline_1 - .
    .section .return_sites, "a"
    .long return_1 - .
    .section .smp_locks, "a"
    .long lock_1 - .
    .section MCOUNT
    .globl __start_mcount_loc
__start_mcount_loc:
    .quad fentry_1
    .globl __stop_mcount_loc
__stop_mcount_loc:
    .section .ibt_endbr_seal, "a"
    .long start_kernel - .
    .section runtime_ptr_counter, "a"
    .long constant_1 + 2 - .
    .section runtime_shift_counter, "a"
    .long constant_1 + 13 - .
"#;

/// How `struct alt_instr` looks: the bytes before the two lengths, and behind them.
#[derive(Clone, Copy, Debug)]
pub struct AltLayout {
    pub pad: u32,
    pub tail: u32,
}

/// Today's: 14 bytes.
pub const ALT_NOW: AltLayout = AltLayout { pad: 4, tail: 0 };
/// An older one: 13 bytes.
pub const ALT_OLD: AltLayout = AltLayout { pad: 2, tail: 1 };

/// Compiles C (`c`) or assembler (`S`) to an object file. Panics with the compiler's words if that fails.
pub fn object(extension: &str, source: &str, flags: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (input, output) = (dir.path().join(format!("unit.{extension}")), dir.path().join("unit.o"));
    std::fs::write(&input, source).expect("a temporary file");
    run(Command::new("gcc").args(flags).arg("-c").arg(&input).arg("-o").arg(&output));
    std::fs::read(output).expect("gcc wrote it")
}

fn run(command: &mut Command) {
    let output = command.output().expect("gcc is installed (apt install gcc)");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn source(alt: AltLayout, linked: bool, btf: Option<&Path>, kallsyms: Option<&Path>) -> String {
    // A kernel's linker script puts these tables into its data.
    let section = |name: &str, home: &str| format!("{}, \"aw\"", if linked { home } else { name });
    let tables = TABLES
        .replace("JUMP_TABLE", &section("__jump_table", ".data"))
        .replace("STATIC_CALLS", &section(".static_call_sites", ".data"))
        .replace("MCOUNT", &section("__mcount_loc", ".init.data"))
        .replace("ALT_PAD", &alt.pad.to_string())
        .replace("ALT_TAIL", &alt.tail.to_string());
    let mut source = format!("{KERNEL}{tables}");
    for (section, file) in [(".BTF", btf), (".kallsyms", kallsyms)] {
        if let Some(file) = file {
            source += &format!("    .section {section}, \"a\"\n    .balign 8\n    .incbin \"{}\"\n", file.display());
        }
    }
    source
}

/// The code and tables as an object file.
pub fn tables_object(alt: AltLayout) -> Vec<u8> {
    object("S", &source(alt, false, None, None), &[])
}

/// The types that describe the tables' records.
pub fn types(alt: AltLayout) -> Vec<u8> {
    let size = 8 + alt.pad + 2 + alt.tail;
    tables::btf(&[
        ("jump_entry", 16, &[("code", 0), ("target", 4), ("key", 8)]),
        ("static_call_site", 8, &[("addr", 0), ("key", 4)]),
        ("paravirt_patch_site", 16, &[("instr", 0), ("type", 8), ("len", 9)]),
        ("alt_instr", size, &[("instr_offset", 0), ("repl_offset", 4), ("instrlen", 8 + alt.pad)]),
    ])
}

/// Links the small kernel; `kallsyms` are the bytes of its embedded symbols.
fn link(alt: AltLayout, btf: &[u8], kallsyms: Option<&[u8]>, strip: bool) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("a temporary file");
        path
    };
    let btf = write("btf", btf);
    let kallsyms = kallsyms.map(|bytes| write("kallsyms", bytes));
    let input = write("kernel.S", source(alt, true, Some(&btf), kallsyms.as_deref()).as_bytes());
    let output = dir.path().join("vmlinux");
    let mut command = Command::new("gcc");
    command.args(["-nostdlib", "-static", "-no-pie", "-Wl,--entry=start_kernel", "-Wl,--build-id=0x0123456789abcdef"]);
    command.arg(format!("-Wl,-Ttext={TEXT:#x}"));
    command.args(["-Wl,--section-start=.kallsyms=0xffffffff82000000", "-Wl,-z,max-page-size=4096"]);
    if strip {
        command.arg("-s");
    }
    run(command.arg(&input).arg("-o").arg(&output));
    std::fs::read(output).expect("gcc wrote it")
}

/// The small kernel with an ELF symbol table.
pub fn kernel(alt: AltLayout) -> Vec<u8> {
    link(alt, &types(alt), None, false)
}

/// The small kernel without type information.
pub fn kernel_without_types() -> Vec<u8> {
    link(ALT_NOW, &[], None, false)
}

/// The small kernel, stripped, with its symbols in kallsyms tables.
pub fn stripped_kernel(layout: tables::Layout) -> Vec<u8> {
    let image = Image::parse("kernel", kernel(ALT_NOW)).expect("the fixture is sound");
    assert_eq!(image.kind(), ImageKind::Vmlinux);
    let listed = |symbol: &&kerf_image::Symbol| symbol.address >= TEXT && symbol.kind != SymbolKind::Section;
    let symbols: Vec<_> = image
        .symbols()
        .iter()
        .filter(listed)
        .map(|symbol| {
            let exec = symbol.section.and_then(|index| image.sections().get(index)).is_some_and(|section| section.exec);
            let letter = if exec { 't' } else { 'd' };
            let global = symbol.binding == kerf_image::Binding::Global;
            (symbol.address, if global { letter.to_ascii_uppercase() } else { letter }, symbol.name.to_string())
        })
        .collect();
    link(ALT_NOW, &types(ALT_NOW), Some(&tables::kallsyms(layout, TEXT, &symbols)), true)
}

/// The small kernel, stripped, without kallsyms.
pub fn mute_kernel() -> Vec<u8> {
    link(ALT_NOW, &types(ALT_NOW), None, true)
}

/// A compression of boot images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Gzip,
    Xz,
    Zstd,
    Lz4,
}

/// All of them.
pub const PACKINGS: [Packing; 4] = [Packing::Gzip, Packing::Xz, Packing::Zstd, Packing::Lz4];

/// Compresses as the kernel's build does, without the size that it appends.
pub fn pack(packing: Packing, bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    match packing {
        Packing::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(bytes).expect("memory");
            encoder.finish().expect("memory")
        }
        Packing::Xz => {
            let mut filters = xz2::stream::Filters::new();
            filters.x86();
            filters.lzma2(&xz2::stream::LzmaOptions::new_preset(6).expect("preset 6 exists"));
            let stream = xz2::stream::Stream::new_stream_encoder(&filters, xz2::stream::Check::Crc32);
            let mut encoder = xz2::write::XzEncoder::new_stream(Vec::new(), stream.expect("the filters are sound"));
            encoder.write_all(bytes).expect("memory");
            encoder.finish().expect("memory")
        }
        Packing::Zstd => ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest),
        Packing::Lz4 => {
            let mut out = vec![0x02, 0x21, 0x4c, 0x18];
            for chunk in bytes.chunks(8 << 20) {
                let block = lz4_flex::block::compress(chunk);
                out.extend((block.len() as u32).to_le_bytes());
                out.extend(block);
            }
            out
        }
    }
}

/// Where a boot image's compressed kernel begins.
pub const PAYLOAD: usize = 3 * 512 + 64;

/// A boot image around a kernel: setup header, something like the decompressor, and the payload with its size.
pub fn boot_image(packing: Packing, kernel: &[u8]) -> Vec<u8> {
    let mut payload = pack(packing, kernel);
    if packing != Packing::Gzip {
        payload.extend((kernel.len() as u32).to_le_bytes());
    }
    boot_image_around(&payload)
}

/// A boot image with this payload.
pub fn boot_image_around(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0x90; PAYLOAD];
    image[0x1f1] = 2;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    image[0x248..0x24c].copy_from_slice(&64u32.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    image.extend(payload);
    image.extend([0x90; 333]);
    image
}
