//! Pairs of compilations that do the same, and pairs that do not.

use std::collections::HashMap;
use std::process::Command;

use kerf_image::Image;

use super::*;
use crate::align::{self, Slot};
use crate::code;

/// A compiled fixture: its code, what the compiler says of its calls, and its types.
struct Compiled {
    code: Code,
    calls: HashMap<String, Vec<Call>>,
    signatures: Signatures,
}

/// Every condition becomes a branch of its own, or conditions become one.
const APART: &[&str] = &["-mbranch-cost=0"];
const MERGED: &[&str] = &["-mbranch-cost=5"];

fn compile(text: &str, options: &[&str]) -> Compiled {
    let dir = tempfile::tempdir().unwrap();
    let (c, o, s) = (dir.path().join("a.c"), dir.path().join("a.o"), dir.path().join("a.s"));
    std::fs::write(&c, text).unwrap();
    let common = ["-O2", "-fcf-protection=none", "-fno-stack-protector", "-fno-pic", "-mno-red-zone"];
    for (more, out) in [(["-c", "-gbtf"], &o), (["-S", "-dP"], &s)] {
        let status = Command::new("gcc").args(common).args(options).args(more).arg("-o").arg(out).arg(&c).status();
        assert!(status.unwrap().success());
    }
    let image = Image::open(&o).unwrap();
    let calls = calls::read(&std::fs::read_to_string(&s).unwrap());
    Compiled { code: code::read(&image).unwrap(), calls, signatures: Signatures::of(&image) }
}

impl Compiled {
    /// How many conditional branches `f` has.
    fn branches(&self) -> usize {
        self.code.function("f").unwrap().code.iter().filter(|i| i.insn.is_jcc_short_or_near()).count()
    }
}

/// Compares `f` of both, with numbers of the first replaced: each (number in the code, number to be put in) once.
fn compare(base: &Compiled, variant: &Compiled, replaced: &[(i64, i64)]) -> Result<(), String> {
    let function = base.code.function("f").unwrap();
    let numbers = |name: &str, (index, slot): Number| {
        let held =
            align::numbers(&function.code[index]).into_iter().find(|(s, _)| *s == slot && *s == Slot::Immediate)?;
        replaced.iter().find(|(old, _)| name == "f" && *old == held.1).map(|(_, new)| *new)
    };
    for (old, _) in replaced {
        let mut all = function.code.iter().flat_map(align::numbers);
        assert!(all.any(|(_, held)| held == *old), "the code has no {old}");
    }
    let codes = (&base.code, &variant.code);
    let walk =
        |frames| super::compare(codes, "f", &numbers, &base.calls, &base.signatures, (frames, &mut Witnesses::new()));
    walk(Frames::One).or_else(|_| walk(Frames::Two))
}

const TWO: &str = "int g(int); int h(int); int f(int x, int y, int *p) {";

fn two(body: &str) -> String {
    format!("{TWO} {body} }}")
}

#[test]
fn two_branches_are_one_condition() {
    let text = two("if (x && y) return g(1); return h(2);");
    let (apart, merged) = (compile(&text, APART), compile(&text, MERGED));
    assert!(apart.branches() == 2 && merged.branches() == 1);
    compare(&apart, &merged, &[]).unwrap();
    compare(&merged, &apart, &[]).unwrap();
    for other in ["if (x || y) return g(1); return h(2);", "if (x && !y) return g(1); return h(2);"] {
        let other = two(other);
        for options in [APART, MERGED] {
            let other = compile(&other, options);
            compare(&apart, &other, &[]).unwrap_err();
            compare(&merged, &other, &[]).unwrap_err();
        }
    }
}

#[test]
fn a_store_on_one_way_counts() {
    let text = two("if (x && y) *p = 1; return g(1);");
    let (apart, merged) = (compile(&text, APART), compile(&text, MERGED));
    assert!(apart.branches() > merged.branches());
    compare(&apart, &merged, &[]).unwrap();
    for other in ["if (x) *p = 1; return g(1);", "if (x && y) *p = 2; return g(1);", "return g(1);"] {
        let other = compile(&two(other), &[]);
        compare(&apart, &other, &[]).unwrap_err();
        compare(&merged, &other, &[]).unwrap_err();
    }
}

fn limit(value: u32) -> String {
    format!(
        "int g(unsigned); int h(unsigned); void k(void);
        int f(unsigned x) {{ if (!x) return 0; k(); if (x >= {value}) return g(x); return h(x); }}"
    )
}

#[test]
fn a_branch_is_dropped_that_an_earlier_one_decides() {
    let (base, one) = (compile(&limit(7), &[]), compile(&limit(1), &[]));
    assert!(base.branches() == 2 && one.branches() == 1);
    compare(&base, &one, &[(6, 0)]).unwrap();
    // x >= 2, and x >= 0.
    compare(&base, &one, &[(6, 1)]).unwrap_err();
    compare(&base, &one, &[]).unwrap_err();
    // The call may change what lies in memory: reading it once is not the same.
    let held = |second: &str| {
        let text = format!(
            "int g(unsigned); int h(unsigned); void k(void);
            int f(unsigned *p) {{ unsigned x = *p; if (!x) return 0; k(); if ({second} >= 7) return g(7); return h(7); }}"
        );
        compile(&text, &[])
    };
    let once = compile(
        "int g(unsigned); int h(unsigned); void k(void);
        int f(unsigned *p) { if (!*p) return 0; k(); return g(7); }",
        &[],
    );
    compare(&held("x"), &once, &[(6, 0)]).unwrap();
    compare(&held("*p"), &once, &[(6, 0)]).unwrap_err();
}

fn restarts(value: u32) -> String {
    format!(
        "int work(void); void late(void); int more(void);
        void f(void) {{ int left = {value}; again: work(); if (more()) {{ if (--left) goto again; late(); }} }}"
    )
}

#[test]
fn a_loop_that_runs_once_is_none() {
    let (base, one) = (compile(&restarts(10), &[]), compile(&restarts(1), &[]));
    assert!(base.branches() == 2 && one.branches() == 1);
    compare(&base, &one, &[(10, 1)]).unwrap();
    compare(&base, &one, &[(10, 2)]).unwrap_err();
    compare(&base, &one, &[(10, 0)]).unwrap_err();
    compare(&base, &one, &[]).unwrap_err();
    compare(&base, &compile(&restarts(2), &[]), &[(10, 1)]).unwrap_err();
}

/// Twice as much where the flag is set, of the type given.
fn flagged(value: u32, flag: &str) -> String {
    format!(
        "int g(int); int h(int); struct plug {{ long first; unsigned short n; {flag} many; }};
        int f(struct plug *p) {{
            if (!p->n) return h(0);
            if (p->n >= (unsigned short)(p->many ? {value} * 2 : {value})) return h(1);
            return g(3);
        }}"
    )
}

#[test]
fn a_truth_value_is_zero_or_one() {
    let (base, one) = (compile(&flagged(32, "_Bool"), &[]), compile(&flagged(1, "_Bool"), &[]));
    let numbers = [(-32, -1), (64, 2)];
    assert!(one.branches() > base.branches());
    compare(&base, &one, &numbers).unwrap();
    compare(&base, &one, &[(-32, -2), (64, 4)]).unwrap_err();
    compare(&base, &one, &[(-32, -1), (64, 3)]).unwrap_err();
    // Of a byte that can be anything nothing is taken for granted.
    let bytes = Compiled { signatures: compile(&flagged(32, "char"), &[]).signatures, ..base };
    compare(&bytes, &one, &numbers).unwrap_err();
}

/// What is loaded before a branch on one side and behind it on the other, in assembly: compilers move loads at will.
fn moved(load: [&str; 2]) -> Compiled {
    let [before, behind] = load;
    let text = format!(
        "int g(int); int f(long *p, long x);\n\
         __asm__(\".text\\n.globl f\\n.type f,@function\\nf: {before}\\ntestq %rsi, %rsi\\nje 1f\\n{behind}\\n\
         addq %rax, %rsi\\n1: movq %rsi, %rax\\nret\\n.size f, .-f\");\n\
         int h(long *p) {{ return f(p, 1); }}"
    );
    compile(&text, &[])
}

#[test]
fn a_load_may_move_over_a_branch() {
    let (early, late) = (moved(["movq (%rdi), %rax", ""]), moved(["", "movq (%rdi), %rax"]));
    compare(&early, &late, &[]).unwrap();
    compare(&late, &early, &[]).unwrap();
    compare(&early, &moved(["", "movq 8(%rdi), %rax"]), &[]).unwrap_err();
    compare(&moved(["movq (%rdi), %rax", "incq (%rdi)"]), &moved(["", "incq (%rdi); movq (%rdi), %rax"]), &[])
        .unwrap_err();
}

/// A local structure that is cleared as a whole, filled in part and given away.
fn cleared(value: u32) -> String {
    format!(
        "struct s {{ long a[24]; }}; int g(struct s *p); int h(int);
        int f(unsigned long n) {{
            struct s s = {{}};
            s.a[3] = n * {value};
            return g(&s) + h(n > {value});
        }}"
    )
}

#[test]
fn a_cleared_structure_is_followed() {
    const WHOLE: &[&str] = &["-mno-sse", "-mmemset-strategy=rep_8byte:-1:align"];
    let (base, other) = (compile(&cleared(64), WHOLE), compile(&cleared(65), WHOLE));
    let function = base.code.function("f").unwrap();
    assert!(function.code.iter().any(|i| i.insn.mnemonic() == iced_x86::Mnemonic::Stosq));
    let same = compile(&cleared(64), &[WHOLE, &["-fno-schedule-insns2", "-fno-tree-ter"]].concat());
    compare(&base, &same, &[]).unwrap();
    compare(&base, &other, &[]).unwrap_err();
}

/// A store through a pointer and a load of a variable, in either order.
fn exchanged(store_first: bool, place: &str) -> Compiled {
    let (store, load) = ("movq $1, 8(%rdi)", format!("movq {place}, %rax"));
    let order = if store_first { [store.to_string(), load] } else { [load, store.to_string()] };
    let text = format!(
        "long v[8]; long f(long *p, long n);\n\
         __asm__(\".text\\n.globl f\\n.type f,@function\\nf: {}\\n{}\\nret\\n.size f, .-f\");\n\
         long h(long *p) {{ return f(p, v[1]); }}",
        order[0], order[1]
    );
    compile(&text, &[])
}

#[test]
fn a_variable_is_apart_from_what_pointers_reach() {
    let pair = |place: &str| compare(&exchanged(true, place), &exchanged(false, place), &[]);
    pair("v+8(%rip)").unwrap();
    // An element of an array and what a pointer reaches may be the same; and so may two pointers.
    pair("v(,%rsi,8)").unwrap_err();
    pair("8(%rsi)").unwrap_err();
}

/// A static branch as the kernel's assembler macros write it, on one of two keys.
fn switched(key: &str) -> Compiled {
    let text = format!(
        "int g(int); int h(int); long one[2], two[2];
        int f(int x) {{
            asm goto(\"1: jmp %l[on]\\n.pushsection __jump_table, \\\"aw\\\"\\n.long 1b - ., %l[on] - .\\n\"
                     \".quad %c0 - .\\n.popsection\" : : \"i\"(&{key}) : : on);
            return g(x);
        on: return h(x);
        }}"
    );
    compile(&text, &[])
}

#[test]
fn static_branches_ask_the_same_key() {
    let (one, two) = (switched("one"), switched("two"));
    assert!(one.code.function("f").unwrap().code.iter().any(|i| i.patched && i.key.is_some()));
    compare(&one, &switched("one"), &[]).unwrap();
    assert!(compare(&one, &two, &[]).unwrap_err().contains("different static keys"));
}

/// A local array that is used by a computed address, and a pointer to it or to nothing.
fn local(value: u32, store: &str) -> String {
    format!(
        "struct s {{ long a[4]; }}; int g(struct s *p); int h(struct s *p, long n);
        int f(long n, int some, long i) {{
            struct s s = {{ {{ n }} }}, *p = some ? &s : 0;
            g(&s);
            {store};
            if (h(p, n * {value})) return 1;
            return p ? p->a[n & 3] : 0;
        }}"
    )
}

#[test]
fn frames_of_one_layout_may_be_used_in_any_way() {
    let (base, eight) = (compile(&local(12345, "s.a[i & 3]++"), &[]), compile(&local(8, "s.a[i & 3]++"), &[]));
    compare(&base, &eight, &[(12345, 8)]).unwrap();
    compare(&base, &eight, &[(12345, 9)]).unwrap_err();
    for other in ["s.a[i & 3]--", "s.a[i & 1]++", "p = &s", "s.a[3]++"] {
        compare(&base, &compile(&local(8, other), &[]), &[(12345, 8)]).unwrap_err();
    }
}

/// An instruction that is not modelled, on a slot of a frame of some size.
fn on_stack(size: u32, store: bool) -> Compiled {
    let store = if store { "movq %rdi, 8(%rsp)" } else { "movq $0, 8(%rsp)" };
    let text = format!(
        "long f(long n);\n\
         __asm__(\".text\\n.globl f\\n.type f,@function\\nf: subq ${size}, %rsp\\n{store}\\n\
         xorl %eax, %eax\\nlsl 8(%rsp), %rax\\naddq ${size}, %rsp\\nret\\n.size f, .-f\");\n\
         long h(void) {{ return f(1); }}"
    );
    compile(&text, &[])
}

#[test]
fn what_is_not_modelled_reads_the_same_slot() {
    compare(&on_stack(24, true), &on_stack(24, true), &[]).unwrap();
    compare(&on_stack(24, true), &on_stack(24, false), &[]).unwrap_err();
    compare(&on_stack(24, true), &on_stack(40, true), &[]).unwrap_err();
}
