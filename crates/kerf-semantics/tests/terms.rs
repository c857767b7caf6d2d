//! The simplifier and the solver against plain arithmetic on random expressions.

use kerf_semantics::{Arena, Assignment, Prover, Term, Verdict};
use proptest::prelude::*;

/// An expression as a tree, with its meaning given apart from the arena.
#[derive(Clone, Debug)]
enum Tree {
    Var(usize),
    Constant(u64),
    Binary(&'static str, Box<Tree>, Box<Tree>),
    /// Bits hi..lo of the tree, extended by zeros or by the sign.
    Slice(Box<Tree>, u32, u32, bool),
    /// Compares two trees and chooses between two others.
    Choose(&'static str, Box<[Tree; 4]>),
}

const NAMES: [&str; 3] = ["x", "y", "z"];
const BINARY: [&str; 13] =
    ["add", "sub", "mul", "and", "or", "xor", "shl", "lshr", "ashr", "udiv", "urem", "sdiv", "srem"];
const COMPARE: [&str; 6] = ["eq", "ult", "ule", "slt", "sle", "joint"];

fn edge() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0u64..70,
        (0u32..64).prop_map(|shift| 1 << shift),
        (0u32..64).prop_map(|shift| (1u64 << shift).wrapping_sub(1)),
        (0u32..64).prop_map(|shift| (1u64 << shift).wrapping_neg()),
    ]
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![(0usize..3).prop_map(Tree::Var), edge().prop_map(Tree::Constant)];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let boxed = || inner.clone().prop_map(Box::new);
        prop_oneof![
            4 => (prop::sample::select(&BINARY[..]), boxed(), boxed()).prop_map(|(op, a, b)| Tree::Binary(op, a, b)),
            2 => (boxed(), 0u32..64, 0u32..64, any::<bool>())
                .prop_map(|(a, x, y, signed)| Tree::Slice(a, x.max(y), x.min(y), signed)),
            2 => (prop::sample::select(&COMPARE[..]), inner.clone(), inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(op, a, b, c, d)| Tree::Choose(op, Box::new([a, b, c, d]))),
        ]
    })
}

fn cut(value: u64, width: u32) -> u64 {
    if width == 64 { value } else { value & ((1 << width) - 1) }
}

fn sign_extend(value: u64, width: u32) -> i64 {
    ((value << (64 - width)) as i64) >> (64 - width)
}

/// The naive value, modulo 2^width.
fn value(tree: &Tree, vars: &[u64; 3], width: u32) -> u64 {
    let result = match tree {
        Tree::Var(index) => vars[*index],
        Tree::Constant(value) => *value,
        Tree::Binary(op, a, b) => binary(op, value(a, vars, width), value(b, vars, width), width),
        Tree::Slice(a, hi, lo, signed) => {
            let (hi, lo) = (*hi % width, *lo % width);
            let (hi, lo) = (hi.max(lo), hi.min(lo));
            let bits = cut(value(a, vars, width) >> lo, hi - lo + 1);
            if *signed { sign_extend(bits, hi - lo + 1) as u64 } else { bits }
        }
        Tree::Choose(op, parts) => {
            let [a, b, c, d] = [0, 1, 2, 3].map(|index| value(&parts[index], vars, width));
            let (x, y) = (sign_extend(a, width), sign_extend(b, width));
            let holds = match *op {
                "eq" => a == b,
                "ult" => a < b,
                "ule" => a <= b,
                "slt" => x < y,
                "sle" => x <= y,
                _ => a < b && x <= y || a == b,
            };
            if holds { c } else { d }
        }
    };
    cut(result, width)
}

fn binary(op: &str, a: u64, b: u64, width: u32) -> u64 {
    let (x, y) = (sign_extend(a, width), sign_extend(b, width));
    match op {
        "add" => a.wrapping_add(b),
        "sub" => a.wrapping_sub(b),
        "mul" => a.wrapping_mul(b),
        "and" => a & b,
        "or" => a | b,
        "xor" => a ^ b,
        "shl" => {
            if b < u64::from(width) {
                a << b
            } else {
                0
            }
        }
        "lshr" => {
            if b < u64::from(width) {
                a >> b
            } else {
                0
            }
        }
        "ashr" => (x >> b.min(u64::from(width) - 1)) as u64,
        "udiv" => a.checked_div(b).unwrap_or(u64::MAX),
        "urem" => a.checked_rem(b).unwrap_or(a),
        "sdiv" => {
            if y == 0 {
                if x < 0 { 1 } else { u64::MAX }
            } else {
                x.wrapping_div(y) as u64
            }
        }
        _ => {
            if y == 0 {
                a
            } else {
                x.wrapping_rem(y) as u64
            }
        }
    }
}

fn build(arena: &mut Arena, tree: &Tree, width: u32) -> Term {
    match tree {
        Tree::Var(index) => arena.var(NAMES[*index], width),
        Tree::Constant(value) => arena.constant(u128::from(*value), width),
        Tree::Binary(op, a, b) => {
            let (a, b) = (build(arena, a, width), build(arena, b, width));
            match *op {
                "add" => arena.add(a, b),
                "sub" => arena.sub(a, b),
                "mul" => arena.mul(a, b),
                "and" => arena.and(a, b),
                "or" => arena.or(a, b),
                "xor" => arena.xor(a, b),
                "shl" => arena.shl(a, b),
                "lshr" => arena.lshr(a, b),
                "ashr" => arena.ashr(a, b),
                "udiv" => arena.udiv(a, b),
                "urem" => arena.urem(a, b),
                "sdiv" => arena.sdiv(a, b),
                _ => arena.srem(a, b),
            }
        }
        Tree::Slice(a, hi, lo, signed) => {
            let (hi, lo) = (*hi % width, *lo % width);
            let a = build(arena, a, width);
            let bits = arena.extract(a, hi.max(lo), hi.min(lo));
            if *signed { arena.sext(bits, width) } else { arena.zext(bits, width) }
        }
        Tree::Choose(op, parts) => {
            let [a, b, c, d] = [0, 1, 2, 3].map(|index| build(arena, &parts[index], width));
            let condition = match *op {
                "eq" => arena.eq(a, b),
                "ult" => arena.ult(a, b),
                "ule" => arena.ule(a, b),
                "slt" => arena.slt(a, b),
                "sle" => arena.sle(a, b),
                _ => {
                    let (less, at_most, equal) = (arena.ult(a, b), arena.sle(a, b), arena.eq(a, b));
                    let both = arena.and(less, at_most);
                    arena.or(both, equal)
                }
            };
            arena.ite(condition, c, d)
        }
    }
}

fn assignment(vars: &[u64; 3], width: u32) -> Assignment {
    let mut assignment = Assignment::new();
    for (name, value) in NAMES.iter().zip(vars) {
        assignment.set(name, u128::from(cut(*value, width)));
    }
    assignment
}

fn width() -> impl Strategy<Value = u32> {
    prop::sample::select(&[2u32, 5, 8, 16, 31, 32, 63, 64][..])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn simplified_terms_mean_what_was_built(tree in tree(), width in width(), vars in [edge(), edge(), edge()]) {
        let vars = vars.map(|value| cut(value, width));
        let mut arena = Arena::new();
        let term = build(&mut arena, &tree, width);
        prop_assert_eq!(arena.width(term), width);
        let got = arena.eval(term, &assignment(&vars, width));
        prop_assert_eq!(got, u128::from(value(&tree, &vars, width)), "{}", arena.display(term));
    }

    #[test]
    fn split_and_joined_again_is_the_same_term(tree in tree(), cut in 1u32..31) {
        let mut arena = Arena::new();
        let term = build(&mut arena, &tree, 32);
        let (high, low) = (arena.extract(term, 31, cut), arena.extract(term, cut - 1, 0));
        let joined = arena.concat(high, low);
        let vars = [0x8765_4321u64, 0xffff_0001, 7];
        prop_assert_eq!(arena.eval(joined, &assignment(&vars, 32)), arena.eval(term, &assignment(&vars, 32)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// The solver sees the simplified term; what it says of it at given values must be the naive value.
    #[test]
    fn the_solver_agrees(tree in tree(), vars in [edge(), edge(), edge()]) {
        let width = 16;
        let vars = vars.map(|value| cut(value, width));
        let mut arena = Arena::new();
        let term = build(&mut arena, &tree, width);
        let mut given = Vec::new();
        for (name, value) in NAMES.iter().zip(vars) {
            let (variable, value) = (arena.var(name, width), arena.constant(u128::from(value), width));
            given.push(arena.eq(variable, value));
        }
        let right = arena.constant(u128::from(value(&tree, &vars, width)), width);
        let claim = arena.eq(term, right);
        let mut prover = Prover::start().unwrap();
        prop_assert_eq!(prover.valid(&arena, &given, claim).unwrap(), Verdict::Proved);
        let wrong = arena.not(claim);
        let refuted = matches!(prover.valid(&arena, &given, wrong).unwrap(), Verdict::Refuted(_));
        prop_assert!(refuted);
    }
}

#[test]
fn different_ways_to_compute_are_one_term() {
    let mut arena = Arena::new();
    let a = &mut arena;
    let (x, y) = (a.var("x", 64), a.var("y", 64));
    let c = |a: &mut Arena, value: u64| a.constant(u128::from(value), 64);
    let (eight, three, five) = (c(a, 8), c(a, 3), c(a, 5));
    let (by_mul, by_shift) = (a.mul(x, eight), a.shl(x, three));
    assert_eq!(by_mul, by_shift);
    let minus_five = a.neg(five);
    let (by_sub, by_add) = (a.sub(x, five), a.add(x, minus_five));
    assert_eq!(by_sub, by_add);
    let sum = a.add(x, y);
    assert_eq!(a.sub(sum, y), x);
    let zero = c(a, 0);
    assert_eq!(a.xor(x, x), zero);
    let (complement, ones) = (a.not(y), c(a, 1));
    let borrowed = a.add(x, complement);
    let (long, short) = (a.add(borrowed, ones), a.sub(x, y));
    assert_eq!(long, short);
    // x > 31 and x >= 32.
    let (limit, next) = (c(a, 31), c(a, 32));
    let (above, at_least) = (a.ult(limit, x), a.ule(next, x));
    assert_eq!(above, at_least);
    // Clearing low bits by a mask and by shifting there and back.
    let mask = c(a, 32u64.wrapping_neg());
    let masked = a.and(x, mask);
    let down = a.lshr(x, five);
    assert_eq!(a.shl(down, five), masked);
    // movzx and a mask.
    let low = a.extract(x, 7, 0);
    let (extended, byte) = (a.zext(low, 64), c(a, 0xff));
    assert_eq!(a.and(x, byte), extended);
}

#[test]
fn memory_reads_what_was_written() {
    let mut arena = Arena::new();
    let a = &mut arena;
    let (memory, p, value) = (a.memory("mem"), a.var("p", 64), a.var("v", 64));
    let (q, word) = (a.add_constant(p, 8), a.var("w", 32));
    let first = a.store_bytes(memory, p, value);
    let both = a.store_bytes(first, q, word);
    assert_eq!(a.load_bytes(both, p, 8), value);
    assert_eq!(a.load_bytes(both, q, 4), word);
    // The other order is the same memory, and writing back what is there changes nothing.
    let other = a.store_bytes(memory, q, word);
    let other = a.store_bytes(other, p, value);
    assert_eq!(both, other);
    assert_eq!(a.store_bytes(both, p, value), both);
    // Another pointer may be the same place.
    let r = a.var("r", 64);
    assert_ne!(a.load_bytes(first, r, 8), a.load_bytes(memory, r, 8));
    let sum = a.add(value, p);
    let kept = a.store_bytes(memory, p, sum);
    assert_eq!(a.load_bytes(kept, p, 8), sum);
    let mixed = a.xor(value, p);
    let kept = a.store_bytes(memory, p, mixed);
    assert_eq!(a.load_bytes(kept, p, 8), mixed);
}

#[test]
fn the_solver_knows_memory() {
    let mut arena = Arena::new();
    let a = &mut arena;
    let (memory, p, q) = (a.memory("mem"), a.var("p", 64), a.var("q", 64));
    let (x, y) = (a.var("x", 8), a.var("y", 8));
    let (first, second) = (a.store(memory, p, x), a.store(memory, q, y));
    let (xy, yx) = (a.store(first, q, y), a.store(second, p, x));
    let commute = a.eq(xy, yx);
    let mut prover = Prover::start().unwrap();
    let Verdict::Refuted(model) = prover.valid(a, &[], commute).unwrap() else { panic!("stores may overlap") };
    assert_eq!(model.get("p"), model.get("q"));
    let same = a.eq(p, q);
    let apart = a.not(same);
    assert_eq!(prover.valid(a, &[apart], commute).unwrap(), Verdict::Proved);
    assert_eq!(prover.queries(), 2);
}

#[test]
fn a_hard_claim_is_unknown_and_the_next_is_answered() {
    let mut arena = Arena::new();
    let a = &mut arena;
    let (x, y, one) = (a.var("x", 64), a.var("y", 64), a.constant(1, 64));
    // No two factors of a 63-bit product of two primes are found in no time.
    let product = a.mul(x, y);
    let semiprime = a.constant(4_611_685_975_477_714_963, 64);
    let is_product = a.eq(product, semiprime);
    let limit = a.constant(1 << 32, 64);
    let (small_x, small_y, big_x, big_y) = (a.ult(x, limit), a.ult(y, limit), a.ult(one, x), a.ult(one, y));
    let claim = a.not(is_product);
    let mut prover = Prover::start().unwrap();
    prover.set_timeout(std::time::Duration::from_secs(1)).unwrap();
    let verdict = prover.valid(a, &[small_x, small_y, big_x, big_y], claim).unwrap();
    assert!(matches!(verdict, Verdict::Unknown(_)), "{verdict:?}");
    let easy = a.ult(x, y);
    assert!(matches!(prover.valid(a, &[], easy).unwrap(), Verdict::Refuted(_)));
}

#[test]
fn terms_read_as_algebra() {
    let mut arena = Arena::new();
    let a = &mut arena;
    let (rax, rcx, cf) = (a.var("rax", 64), a.var("rcx", 64), a.var("cf", 1));
    let three = a.constant(3, 64);
    let shifted = a.shl(rcx, three);
    let sum = a.add_constant(shifted, 0x40);
    let mask = a.constant(32u128.wrapping_neg(), 64);
    let masked = a.and(rax, mask);
    let (few, many) = (a.constant(32, 64), a.constant(64, 64));
    let choice = a.ite(cf, few, many);
    let low = a.extract(rax, 31, 0);
    let sum32 = a.add_constant(low, 5);
    let wide = a.zext(sum32, 64);
    let memory = a.memory("mem");
    let load = a.load_bytes(memory, sum, 4);
    let limit = a.constant(31, 64);
    let above = a.ult(limit, rax);
    let difference = a.sub(few, rax);
    let texts: Vec<String> =
        [sum, masked, choice, low, wide, load, above, difference].iter().map(|&term| a.display(term)).collect();
    insta::assert_snapshot!(texts.join("\n"), @r"
    (rcx << 3) + 0x40
    rax & -0x20
    cf ? 0x20 : 0x40
    eax
    u32(eax + 5)
    mem32[(rcx << 3) + 0x40]
    rax >= 0x20
    0x20 - rax
    ");
}

/// Every reciprocal that is recognised, and those just beside it, for all 8-bit dividends.
#[test]
fn reciprocals_divide_for_all_dividends() {
    let mut recognised = 0;
    for divisor in [2u32, 3, 5, 6, 7, 9, 10, 11, 25, 60, 100, 127, 128, 200, 255] {
        for shift in 6..=13u32 {
            for near in [-1i64, 0, 1] {
                let factor = i64::from((1u32 << shift).div_ceil(divisor)) + near;
                let Ok(factor) = u128::try_from(factor) else { continue };
                recognised += usize::from(reciprocal(factor, shift, false));
                recognised += usize::from(reciprocal(factor, shift, true));
            }
        }
    }
    assert!(recognised > 100, "only {recognised} reciprocals were recognised");
}

/// Checks ⌊x·factor / 2^shift⌋ and its continuations; whether the simplifier found a division.
fn reciprocal(factor: u128, shift: u32, signed: bool) -> bool {
    let mut arena = Arena::new();
    let a = &mut arena;
    let x = a.var("x", 8);
    let wide = if signed { a.sext(x, 20) } else { a.zext(x, 20) };
    let factor_term = a.constant(factor, 20);
    let product = a.mul(wide, factor_term);
    let high = a.extract(product, 15, shift.min(15));
    let (as_signed, as_unsigned) = (a.sext(high, 32), a.zext(high, 32));
    // The forms for factors with one bit more: x + t, and t + (x - t)/2, with the upper byte of the product as t.
    let t = a.extract(product, 15, 8);
    let long = a.add(x, t);
    let long = a.extract(long, 7, shift - 6);
    let long = a.sext(long, 32);
    let (one, difference) = (a.constant(1, 8), a.sub(x, t));
    let half = a.lshr(difference, one);
    let average = a.add(t, half);
    let narrow = a.extract(average, 5, (shift - 6 - (shift - 6) / 2).min(5));
    let average = a.extract(average, 7, shift - 6 - (shift - 6) / 2);
    for value in 0..256i64 {
        let mut given = Assignment::new();
        given.set("x", value as u128);
        let x = if signed { i64::from(value as u8 as i8) } else { value };
        let product = x.wrapping_mul(factor as i64) & 0xf_ffff;
        let bits = 16 - shift.min(15);
        let high = (product >> shift.min(15)) & ((1 << bits) - 1);
        assert_eq!(a.eval(as_unsigned, &given), high as u128, "{factor} {shift} {value}");
        assert_eq!(a.eval(as_signed, &given), sign_extend(high as u64, bits) as u128 & 0xffff_ffff);
        let t = (product >> 8) & 0xff;
        let sum = (x + t) & 0xff;
        let wanted = sign_extend((sum >> (shift - 6).min(7)) as u64, 8 - (shift - 6).min(7)) as u128 & 0xffff_ffff;
        assert_eq!(a.eval(long, &given), wanted);
        let half = ((x - t) & 0xff) >> 1;
        let by = shift - 6 - (shift - 6) / 2;
        assert_eq!(a.eval(average, &given), (((t + half) & 0xff) >> by) as u128);
        assert_eq!(a.eval(narrow, &given), (((t + half) & 0x3f) >> by.min(5)) as u128);
    }
    let all = [as_signed, as_unsigned, long, average, narrow];
    all.iter().any(|&term| a.display(term).contains(" / ")) || all.iter().any(|&term| a.display(term).contains(" /s "))
}

#[derive(Clone, Debug)]
struct Touch {
    pointer: usize,
    offset: i8,
    bytes: u32,
    /// The value stored, or nothing for a load.
    stored: Option<u64>,
    /// Whether the store happens only if the first loaded bit is set.
    conditional: bool,
}

fn touch() -> impl Strategy<Value = Touch> {
    let bytes = prop::sample::select(&[1u32, 2, 4, 8][..]);
    (0usize..2, -12i8..12, bytes, prop::option::of(any::<u64>()), any::<bool>())
        .prop_map(|(pointer, offset, bytes, stored, conditional)| Touch { pointer, offset, bytes, stored, conditional })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Stores and loads through two pointers that may overlap, against a table of bytes.
    #[test]
    fn memory_terms_behave_as_memory(touches in prop::collection::vec(touch(), 1..12), apart in 0u64..40, flag: bool) {
        let mut arena = Arena::new();
        let (mut memory, condition) = (arena.memory("mem"), arena.var("flag", 1));
        let pointers = [arena.var("p", 64), arena.var("q", 64)];
        let places = [0x1000u64, 0x1000 + apart];
        let mut given = Assignment::new();
        given.set("flag", u128::from(flag));
        given.set("p", u128::from(places[0]));
        given.set("q", u128::from(places[1]));
        let initial: Vec<u8> = (0..128).collect();
        given.set_block("mem", 0x1000 - 32, &initial);
        let mut table = initial;
        for touch in touches {
            let address = arena.add_constant(pointers[touch.pointer], touch.offset as u128);
            let start = (places[touch.pointer] as i64 + i64::from(touch.offset) - (0x1000 - 32)) as usize;
            let range = start..start + touch.bytes as usize;
            match touch.stored {
                Some(value) => {
                    let value = value & (u64::MAX >> (64 - 8 * touch.bytes));
                    let term = arena.constant(u128::from(value), 8 * touch.bytes);
                    let stored = arena.store_bytes(memory, address, term);
                    memory = if touch.conditional { arena.ite(condition, stored, memory) } else { stored };
                    if flag || !touch.conditional {
                        table[range].copy_from_slice(&value.to_le_bytes()[..touch.bytes as usize]);
                    }
                }
                None => {
                    let loaded = arena.load_bytes(memory, address, touch.bytes);
                    let mut expected = [0; 8];
                    expected[..touch.bytes as usize].copy_from_slice(&table[range]);
                    prop_assert_eq!(arena.eval(loaded, &given), u128::from(u64::from_le_bytes(expected)));
                }
            }
        }
        let mut values = arena.evaluator(&given);
        for (offset, &byte) in table.iter().enumerate() {
            prop_assert_eq!(values.byte(memory, 0x1000 - 32 + offset as u64), byte);
        }
    }

    #[test]
    fn substitution_is_evaluation(tree in tree(), vars in [edge(), edge(), edge()]) {
        let mut arena = Arena::new();
        let term = build(&mut arena, &tree, 32);
        let mut map = std::collections::HashMap::new();
        for (name, value) in NAMES.iter().zip(vars) {
            let (variable, value) = (arena.var(name, 32), arena.constant(u128::from(value), 32));
            map.insert(variable, value);
        }
        let vars = vars.map(|value| cut(value, 32));
        let result = arena.substitute(term, &map);
        prop_assert_eq!(arena.as_constant(result), Some(u128::from(value(&tree, &vars, 32))));
    }
}

/// What a long chain of conditions simplifies to is found in a number of steps that grows with its length.
#[test]
fn deep_conditions_stay_small() {
    let mut arena = Arena::new();
    let limit = arena.var("limit", 32);
    let mut deep = arena.bool(false);
    for n in 0..60 {
        let [a, b] = ["a", "b"].map(|name| arena.var(&format!("{name}{n}"), 32));
        let (less, equal) = (arena.ult(a, limit), arena.eq(b, limit));
        let either = arena.any(&[deep, less]);
        let both = arena.all(&[either, equal]);
        deep = arena.not(both);
    }
    let terms = arena.len();
    assert!(terms < 60 * 400, "{terms} terms");
    let back = arena.not(deep);
    assert_eq!(arena.not(back), deep);
}
