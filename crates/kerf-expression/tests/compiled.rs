//! Random expressions in random environments: the compiled program, run by an interpreter of BPF, decides what the evaluation does.

mod common;
#[path = "compiled/generate.rs"]
mod generate;
#[path = "compiled/machine.rs"]
mod machine;
#[path = "compiled/thread.rs"]
mod thread;

use common::{Groups, image, submit};
use generate::decision;
use kerf_expression::{Certified, Decision, Expression, Outcome, Program, Scope, evaluate};
use kerf_image::btf::Btf;
use proptest::prelude::*;
use thread::Thread;

/// Checks a value expression whose every value is certified.
fn checked(text: &str) -> Decision {
    let types = Btf::parse(image().btf().expect("it has types")).expect("they are sound");
    let places = [submit()];
    let scope = Scope { types: Some(&types), places: &places, cgroups: &Groups };
    let certified = Certified { constant: "LIMIT", domain: "all", holds: &|_| true };
    let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{error}"));
    expression.value(&scope, &certified).unwrap_or_else(|error| panic!("{error}"))
}

/// What the evaluation says, which the program must say as well.
fn decided(text: &str, thread: &Thread) -> Outcome {
    let decision = checked(text);
    let program = Program::compile(&decision, text).unwrap_or_else(|error| panic!("{error}"));
    let outcome = evaluate(&decision, thread);
    assert_eq!(machine::run(&program.code, thread), outcome.answer(), "{text}\n{thread:?}");
    outcome
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn programs_decide_what_expressions_say(text in decision(), thread in generate::thread()) {
        decided(&text, &thread);
    }
}

/// A thread of `small`, with a queue and its parent.
fn plain() -> Thread {
    let mut thread = generate::still();
    thread.comm[..5].copy_from_slice(b"small");
    thread
}

#[test]
fn every_form_decides() {
    let thread = plain();
    for (text, value) in [
        ("4", Some(4)),
        ("-1", Some(-1)),
        ("keep", None),
        ("if comm == \"small\" then 4 else keep", Some(4)),
        ("if comm == \"smal\" || comm == \"smaller\" then 4 else 8", Some(8)),
        ("if comm in (\"large\", \"small\") then 4 else 8", Some(4)),
        ("if \"small\" != comm then 4 else 8", Some(8)),
        ("pid * 10 + tgid", Some(10 * 100 + 101)),
        ("uid - gid", Some(u64::MAX.into())),
        ("signed(uid) - signed(gid)", Some(-1)),
        ("cpu << 4 | node", Some(4 << 4 | 5)),
        ("if cgroup == \"/a/b\" then 1 else 2", Some(1)),
        ("if cgroup in (\"/\", \"/a\") then 1 else 2", Some(2)),
        ("if cgroup under \"/a\" && cgroup under \"/\" then 1 else 2", Some(1)),
        ("q->flags", Some(0x0807_0605_0403_0201)),
        ("q->limits.depth", Some(0x0e0d)),
        ("if q->parent->parent == null then 1 else 2", Some(1)),
        ("q->parent->parent->nice", None),
        ("if q == null || q->parent->parent == 0 then 7 else q->parent->parent->nice", Some(7)),
        ("q->table[3] + q->many[1].depth * 0", Some(0x44)),
        ("q->low", Some(5)),
        ("q->high", Some(-3)),
        ("q->wide", Some(0xab_cdef_0123)),
        ("if q->busy == true then 1 else 2", Some(1)),
        ("if q->mode == MODE_SLOW then 1 else 2", Some(1)),
        ("if MODE_FAST == mode then 1 else 2", Some(1)),
        ("if q->name == \"eightby\" then 1 else 2", Some(2)),
        ("if q->name == \"eightbyt\" then 1 else 2", Some(1)),
        ("if label == \"hello\" then 1 else 2", Some(1)),
        ("if label in (\"hell\", \"hello you\") then 1 else 2", Some(2)),
        ("if q->label == \"out of bounds\" then 1 else 2", None),
        ("if q->tail == \"tail\" then 1 else 2", Some(1)),
        ("q->name[1]", Some(i128::from(b'i'))),
        ("q->second", Some(0x1234)),
        ("nr", Some(-7)),
        ("nr / 2 * 1000 + nr % 4", Some(-3003)),
        ("nr / (nr + 7)", Some(0)),
        ("nr % (nr + 7)", Some(-7)),
        ("nr >> 1", Some(-4)),
        ("unsigned(nr) >> 60", Some(15)),
        ("unsigned(nr)", Some((-7i64 as u64).into())),
        ("small & ~0xf", Some(0xf0)),
        ("if now == (pid > 5) then 1 else 2", Some(1)),
        ("(if now then nr else 3) + 1", Some(-6)),
        ("if -7 == nr then 0x10 else 4K", Some(16)),
    ] {
        assert_eq!(decided(text, &thread), value.map_or(Outcome::Keep, Outcome::Value), "{text}");
    }
}
