//! Small images that the test links, with what lies around a function moved and changed.

use std::process::Command;

use super::*;

const CODE: &str = "
    lea .Lmessage(%rip), %rdi
    mov $32, %eax
    mov $counter, %rcx
    call helper
    cmp %eax, counter(%rip)
    jne 1f
    mov table(,%rax,8), %rdx
1:  ret
";

/// A linked image of `f`, with something in front of it.
fn image(front: &str, code: &str, text: &str) -> Image {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("a.S"), dir.path().join("vmlinux"));
    let source = format!(
        ".text\n.globl _text\n_text:\n{front}\n.type f, @function\nf:\n{code}\n.size f, . - f\n\
         .type helper, @function\nhelper: ret\n.size helper, . - helper\n\
         .type other, @function\nother: ret\n.size other, . - other\n\
         .section .rodata\n.globl first\nfirst: .quad 1\n.byte 0\n.Lmessage:\n.asciz \"{text}\"\n\
         .data\n.globl table\ntable: .quad 0, 0\n.globl counter\ncounter: .long 0\n.globl limit\nlimit: .long 0\n"
    );
    std::fs::write(&input, source).unwrap();
    let mut gcc = Command::new("gcc");
    gcc.args(["-nostdlib", "-static", "-no-pie", "-Wl,--entry=_text", "-Wl,-Ttext=0xffffffff81000000"]);
    gcc.args(["-Wl,--build-id=0x0123456789abcdef", "-Wl,-z,max-page-size=4096"]).arg(&input).arg("-o").arg(&output);
    assert!(gcc.status().unwrap().success());
    Image::open(&output).unwrap()
}

fn ported(new: &Image) -> Result<u64, String> {
    let old = image("nop", CODE, "hello");
    let start = old.symbols_named("f").next().unwrap().address;
    Pair::new(&old, new).unwrap().counterpart(start)
}

#[test]
fn code_that_only_moved_is_the_same() {
    let new = image(".zero 4000, 0x90", CODE, "hello");
    assert_eq!(ported(&new), Ok(0xffff_ffff_8100_0000 + 4000));
}

#[test]
fn whatever_else_changes_is_seen() {
    let changed = |from: &str, to: &str| {
        let code = CODE.replacen(from, to, 1);
        assert_ne!(code, CODE);
        ported(&image("nop", &code, "hello")).unwrap_err()
    };
    for (from, to) in [
        ("$32", "$33"),
        ("$counter", "$limit"),
        ("cmp %eax, counter", "cmp %eax, limit"),
        ("call helper", "call other"),
        ("%rcx", "%rdx"),
        ("jne", "je"),
        ("table(", "counter("),
        ("cmp %eax", "test %eax"),
    ] {
        let why = changed(from, to);
        assert!(why.starts_with("f+0x") && why.contains("became"), "{from}: {why}");
    }
    assert!(
        changed("ret", "nop; ret").contains("bytes in the old image") || changed("ret", "nop; ret").contains("became")
    );
}

#[test]
fn a_text_is_compared_by_what_it_says() {
    let why = ported(&image("nop", CODE, "help!")).unwrap_err();
    assert!(why.contains("lea"), "{why}");
}

#[test]
fn a_function_must_be_there_once() {
    let none = image("nop", CODE, "hello");
    let pair = Pair::new(&none, &none).unwrap();
    assert!(pair.counterpart(1).unwrap_err().contains("no function begins"));
    assert!(pair.same_parts("f").is_ok() && pair.same_parts("nothing_of_that_name").is_ok());
    let twice = image(&format!(".type f.1, @function\nf.1:\n{CODE}\n.size f.1, . - f.1"), CODE, "hello");
    let why = Pair::new(&none, &twice).unwrap().same_parts("f").unwrap_err();
    assert!(why.contains("f.1 is a function of its own in the new image"), "{why}");
}
