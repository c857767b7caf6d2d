//! Expressions that are well-typed by the way they are made, and environments for them.

use proptest::prelude::*;
use proptest::sample::select;

use crate::thread::Thread;

/// Where the queue, its parent and a string lie.
const QUEUE: u64 = 0xffff_8880_0000_1000;
const PARENT: u64 = 0xffff_8880_0000_2000;
const LABEL: u64 = 0xffff_ffff_8200_0000;

const UNSIGNED: &[&str] = &[
    "pid",
    "tgid",
    "uid",
    "gid",
    "cpu",
    "node",
    "small",
    "q->flags",
    "q->limits.max_sectors",
    "q->parent->limits.depth",
    "q->low",
    "q->wide",
    "q->table[2]",
    "q->many[1].max_sectors",
    "arg.small",
    "mode",
    "q->mode",
    "unsigned(q)",
    "q->parent->parent->flags",
];
const SIGNED: &[&str] = &[
    "nr",
    "q->nice",
    "q->limits.bias",
    "q->high",
    "q->first",
    "q->second",
    "q->number",
    "q->name[3]",
    "q->parent->nice",
    "label[1]",
    "q->many[0].bias",
];
const TRUTHS: &[&str] = &[
    "now",
    "q->busy",
    "true",
    "false",
    "q == null",
    "q->parent != 0",
    "q->parent == q",
    "q->data == null",
    "comm == \"small\"",
    "comm in (\"a\", \"\", \"fifteen bytes !\")",
    "\"small\" != comm",
    "q->name == \"eightbyt\"",
    "q->name in (\"e\", \"\", \"eight\")",
    "label == \"hello\"",
    "q->label != \"hell\"",
    "label in (\"\", \"hello you there\")",
    "q->tail == \"tail\"",
    "cgroup == \"/a\"",
    "cgroup != \"/a/b\"",
    "cgroup in (\"/\", \"/a/b\")",
    "cgroup under \"/a\"",
    "cgroup under \"/a/b\"",
    "cgroup under \"/\"",
    "q->mode == MODE_SLOW",
    "mode in (MODE_OFF, MODE_FAST)",
];

fn unsigned_literal() -> BoxedStrategy<String> {
    let edges = select(
        &["0", "1", "7", "0x7fffffff", "0x80000000", "0xffffffff", "1G", "0x8000000000000000", "0xffffffffffffffff"][..],
    );
    prop_oneof![
        edges.prop_map(str::to_owned),
        any::<u64>().prop_map(|n| n.to_string()),
        (0u64..70).prop_map(|n| n.to_string())
    ]
    .boxed()
}

fn signed_literal() -> BoxedStrategy<String> {
    let edges = select(vec![i64::MIN, i64::MAX, -1, 0, i64::from(i32::MIN), i64::from(i32::MAX) + 1]);
    prop_oneof![edges, any::<i64>(), -9i64..70].prop_map(|n| n.to_string()).boxed()
}

/// Numbers, signed or not, of a nesting. A literal stands only where the other side is none, so that nothing is folded and refused.
fn number(signed: bool, depth: u32) -> BoxedStrategy<String> {
    let leaf = select(if signed { SIGNED } else { UNSIGNED }).prop_map(str::to_owned);
    if depth == 0 {
        return leaf.boxed();
    }
    let inner = || number(signed, depth - 1);
    let other = || number(!signed, depth - 1);
    let literal = || if signed { signed_literal() } else { unsigned_literal() };
    let wrap = select(&["+", "-", "*", "&", "|", "^"][..]);
    let divide = select(&["/", "%"][..]);
    let shift = select(&["<<", ">>"][..]);
    let divisor = literal().prop_filter("no constant zero", |n| n != "0");
    let mixed = (other(), wrap.clone(), other()).prop_map(move |(l, op, r)| {
        if signed { format!("signed({l} {op} {r})") } else { format!("unsigned({l} {op} {r})") }
    });
    prop_oneof![
        2 => leaf,
        3 => (inner(), prop_oneof![wrap.clone(), divide.clone()], inner()).prop_map(|(l, op, r)| format!("({l} {op} {r})")),
        2 => (inner(), wrap, literal()).prop_map(|(l, op, r)| format!("({l} {op} {r})")),
        1 => (inner(), divide, divisor).prop_map(|(l, op, r)| format!("({l} {op} {r})")),
        1 => (inner(), shift.clone(), 0..64).prop_map(|(l, op, r)| format!("({l} {op} {r})")),
        1 => (inner(), shift, other()).prop_map(|(l, op, r)| format!("({l} {op} {r})")),
        1 => mixed,
        1 => inner().prop_map(|x| format!("-{x}")),
        1 => inner().prop_map(|x| format!("~{x}")),
        1 => (truth(depth - 1), inner(), prop_oneof![inner(), literal()])
            .prop_map(|(c, a, b)| format!("(if {c} then {a} else {b})")),
    ]
    .boxed()
}

fn truth(depth: u32) -> BoxedStrategy<String> {
    let leaf = select(TRUTHS).prop_map(str::to_owned);
    if depth == 0 {
        return leaf.boxed();
    }
    let inner = || truth(depth - 1);
    let compare = |signed: bool| {
        let literal = if signed { signed_literal() } else { unsigned_literal() };
        let right = prop_oneof![number(signed, depth - 1), literal];
        let operator = select(&["<", "<=", ">", ">=", "==", "!="][..]);
        (number(signed, depth - 1), operator, right).prop_map(|(l, op, r)| format!("({l} {op} {r})"))
    };
    let among = |signed: bool| {
        let literal = if signed { signed_literal() } else { unsigned_literal() };
        let items = proptest::collection::vec(prop_oneof![literal, number(signed, depth - 1)], 1..4);
        (number(signed, depth - 1), items).prop_map(|(x, items)| format!("({x} in ({}))", items.join(", ")))
    };
    prop_oneof![
        2 => leaf,
        2 => prop_oneof![compare(true), compare(false)],
        1 => prop_oneof![among(true), among(false)],
        1 => (number(true, depth - 1), number(false, depth - 1)).prop_map(|(l, r)| format!("({l} == {r})")),
        1 => inner().prop_map(|x| format!("!({x})")),
        2 => (inner(), select(&["&&", "||", "==", "!="][..]), inner()).prop_map(|(l, op, r)| format!("(({l}) {op} ({r}))")),
        1 => (inner(), inner(), inner()).prop_map(|(c, a, b)| format!("(if {c} then {a} else {b})")),
    ]
    .boxed()
}

/// A value, or the stock one.
pub fn decision() -> BoxedStrategy<String> {
    let value = || prop_oneof![number(true, 2), number(false, 2), signed_literal(), Just("keep".to_owned())];
    prop_oneof![
        (truth(2), value(), value()).prop_map(|(c, a, b)| format!("if {c} then {a} else {b}")),
        (truth(2), truth(1), value(), value(), value())
            .prop_map(|(c, d, a, b, e)| format!("if {c} then (if {d} then {a} else {b}) else {e}")),
        number(true, 3),
        number(false, 3),
    ]
    .boxed()
}

/// The queue's bytes, with members that mean something.
fn queue(fill: impl Fn(usize) -> u8, parent: u64, label: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..160).map(fill).collect();
    let mut put = |at: usize, content: &[u8]| bytes[at..at + content.len()].copy_from_slice(content);
    put(36, b"eightbyt");
    put(48, &label.to_le_bytes());
    put(56, &parent.to_le_bytes());
    bytes
}

/// A thread of which everything is known.
pub fn still() -> Thread {
    let mut own = queue(|n| n as u8 + 1, PARENT, 0x10);
    let mut put = |at: usize, content: &[u8]| own[at..at + content.len()].copy_from_slice(content);
    // low = 5, high = −3, wide behind them in the next eight bytes
    put(20, &(5u32 | ((-3i32 as u32) & 0x7f) << 3).to_le_bytes());
    put(24, &0xab_cdef_0123u64.to_le_bytes());
    put(29, &[1]);
    put(32, &[2, 0, 0, 0]);
    put(66, &[0, 0x44]);
    put(68 + 8 + 4, &[0, 0]);
    put(90, &[0x34, 0x12]);
    put(128, b"tail\0");
    Thread {
        comm: [0; 16],
        numbers: [100, 101, 102, 103, 4, 5],
        cgroups: vec![1, 17, 1 << 33],
        arguments: [QUEUE, -7i32 as u32 as u64 | 0xabcd << 40, 0xff_ff, 0x101, 9, LABEL],
        memory: vec![(QUEUE, own), (PARENT, queue(|_| 0, 0, LABEL)), (LABEL, b"hello\0".to_vec())],
    }
}

/// Any thread. Pointers may lead nowhere, and memory may end in the middle.
pub fn thread() -> impl Strategy<Value = Thread> {
    let address = || prop_oneof![3 => Just(PARENT), 1 => Just(QUEUE), 1 => Just(0), 1 => any::<u64>()];
    let first = prop_oneof![6 => Just(QUEUE), 1 => Just(PARENT), 1 => Just(0u64), 1 => any::<u64>()];
    let label = prop_oneof![3 => Just(LABEL), 1 => Just(LABEL + 5), 1 => Just(0u64)];
    let comm = select(&["small", "", "a", "fifteen bytes !", "smaller"][..]);
    let cgroups = select(vec![vec![1], vec![1, 17], vec![1, 17, 1 << 33], vec![1, 5]]);
    let bytes = proptest::collection::vec(any::<u8>(), 160);
    let text = select(&["hello\0", "\0", "hello you there\0", "hell", "hello you there and on\0"][..]);
    let numbers = prop::array::uniform6(prop_oneof![0u32..4, any::<u32>()]);
    let small = prop::array::uniform4(prop_oneof![0u64..12, any::<u64>()]);
    (first, address(), label, comm, cgroups, (bytes.clone(), bytes), text, numbers, small).prop_map(
        |(first, parent, label, comm, cgroups, (own, above), text, numbers, small)| {
            let mut thread = still();
            thread.comm = [0; 16];
            thread.comm[..comm.len()].copy_from_slice(comm.as_bytes());
            thread.cgroups = cgroups;
            thread.numbers = numbers;
            thread.arguments = [first, small[0], small[1], small[2], small[3], label];
            let filled = |bytes: Vec<u8>, parent| queue(move |n| bytes[n], parent, label);
            thread.memory =
                vec![(QUEUE, filled(own, parent)), (PARENT, filled(above, QUEUE)), (LABEL, text.as_bytes().to_vec())];
            thread
        },
    )
}
