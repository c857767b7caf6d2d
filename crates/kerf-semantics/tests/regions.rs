//! Whole functions as a compiler makes them: equal ones are proved equal, wrong ones are refuted with a model that
//! really differs.

use std::collections::BTreeSet;
use std::process::Command;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};
use kerf_semantics::native::{Concrete, Machine};
use kerf_semantics::{
    Arena, Assignment, LiveSet, Overrides, Prover, State, Term, Unsupported, Verdict, equal_states, run_region,
};

/// Compiles C with gcc and gives the instructions of its only function.
fn compile(source: &str) -> Vec<Instruction> {
    compile_with(source, &[])
}

fn compile_with(source: &str, options: &[&str]) -> Vec<Instruction> {
    let folder = tempfile::tempdir().unwrap();
    let [c, object, binary] = ["unit.c", "unit.o", "unit.bin"].map(|name| folder.path().join(name));
    std::fs::write(&c, source).unwrap();
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-fcf-protection=none", "-fno-pic", "-c"]).args(options).arg("-o");
    run(gcc.arg(&object).arg(&c));
    run(Command::new("objcopy").args(["-O", "binary", "-j", ".text"]).arg(&object).arg(&binary));
    let bytes = std::fs::read(&binary).unwrap();
    Decoder::with_ip(64, &bytes, 0x1000, DecoderOptions::NONE).into_iter().collect()
}

fn run(command: &mut Command) {
    let output = command.output().expect("gcc and binutils are installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The state at a function's end, its returns merged into one.
fn whole(arena: &mut Arena, code: &[Instruction], overrides: &Overrides) -> State {
    let exits: BTreeSet<u64> =
        code.iter().filter(|insn| insn.flow_control() == FlowControl::Return).map(Instruction::ip).collect();
    let initial = State::symbolic(arena);
    let outcomes = run_region(arena, initial, code, 0x1000, &exits, overrides).unwrap();
    let reached: Vec<Term> = outcomes.iter().map(|outcome| outcome.condition).collect();
    assert_eq!(arena.any(&reached), arena.bool(true), "the exits cover all states");
    let mut outcomes = outcomes.into_iter();
    let first = outcomes.next().unwrap();
    outcomes.fold(first.state, |state, outcome| outcome.state.merge(arena, outcome.condition, &state))
}

fn eax(arena: &mut Arena, state: &State) -> Term {
    arena.extract(state.gpr[0], 31, 0)
}

/// The address of the first instruction with this mnemonic and the index of its last operand.
fn immediate_of(code: &[Instruction], mnemonic: Mnemonic) -> (u64, u32) {
    let insn = code.iter().find(|insn| insn.mnemonic() == mnemonic).unwrap_or_else(|| panic!("no {mnemonic:?}"));
    (insn.ip(), insn.op_count() - 1)
}

fn prove(arena: &Arena, assumptions: &[Term], claim: Term) {
    let mut prover = Prover::start().unwrap();
    // Generous, since what else the machine does is no fault of the claim.
    prover.set_timeout(std::time::Duration::from_secs(120)).unwrap();
    let verdict = prover.valid(arena, assumptions, claim).unwrap();
    assert_eq!(verdict, Verdict::Proved, "{}", arena.display(claim));
}

const PLUG_LIMIT: &str = "unsigned limit(unsigned long a, unsigned long b, unsigned long c, unsigned char plugged)\n\
                          { return plugged ? 2 * V : V; }";

fn plug_limit(value: u32) -> Vec<Instruction> {
    compile(&format!("#define V {value}u\n{PLUG_LIMIT}"))
}

#[test]
fn a_comparison_with_a_symbolic_limit() {
    let template = compile("unsigned f(unsigned x) { return x > 1000; }");
    let mut arena = Arena::new();
    let v = arena.var("V", 32);
    let mut overrides = Overrides::new();
    let (ip, operand) = immediate_of(&template, Mnemonic::Cmp);
    overrides.insert(ip, operand, v);
    let state = whole(&mut arena, &template, &overrides);
    let result = eax(&mut arena, &state);
    let rdi = arena.var("rdi", 64);
    let x = arena.extract(rdi, 31, 0);
    let above = arena.ult(v, x);
    let expected = arena.zext(above, 32);
    assert_eq!(result, expected, "{}", arena.display(result));
}

#[test]
fn one_template_stands_for_every_value() {
    let template = plug_limit(32);
    let (and, add) = (immediate_of(&template, Mnemonic::And), immediate_of(&template, Mnemonic::Add));
    for value in [1, 2, 3, 4, 31, 33, 64, 100, 128, 4096, 65537] {
        let variant = plug_limit(value);
        let mut arena = Arena::new();
        let (minus, twice) = (value.wrapping_neg(), 2 * value);
        let mut overrides = Overrides::new();
        let first = arena.constant(u128::from(minus), 32);
        overrides.insert(and.0, and.1, first);
        let second = arena.constant(u128::from(twice), 32);
        overrides.insert(add.0, add.1, second);
        let (ours, theirs) = (whole(&mut arena, &template, &overrides), whole(&mut arena, &variant, &Overrides::new()));
        let live = LiveSet::of_registers(&[0, 3, 4, 5, 12, 13, 14, 15]);
        let claim = equal_states(&mut arena, &ours, &theirs, &live);
        prove(&arena, &[], claim);
    }
}

#[test]
fn a_symbolic_value_flows_through_two_immediates() {
    let template = plug_limit(32);
    let mut arena = Arena::new();
    let v = arena.var("V", 32);
    let (minus, twice) = (arena.neg(v), arena.add(v, v));
    let mut overrides = Overrides::new();
    for (mnemonic, term) in [(Mnemonic::And, minus), (Mnemonic::Add, twice)] {
        let (ip, operand) = immediate_of(&template, mnemonic);
        overrides.insert(ip, operand, term);
    }
    let state = whole(&mut arena, &template, &overrides);
    let (rcx, zero) = (arena.var("rcx", 64), arena.constant(0, 8));
    let plugged = arena.extract(rcx, 7, 0);
    let empty = arena.eq(plugged, zero);
    let wanted = arena.ite(empty, v, twice);
    let result = eax(&mut arena, &state);
    let claim = arena.eq(result, wanted);
    prove(&arena, &[], claim);
}

#[test]
fn a_wrong_immediate_is_refuted_by_a_state_that_differs_on_this_processor() {
    let (right, wrong) = (plug_limit(32), plug_limit(33));
    let mut arena = Arena::new();
    let (a, b) = (whole(&mut arena, &right, &Overrides::new()), whole(&mut arena, &wrong, &Overrides::new()));
    let claim = equal_states(&mut arena, &a, &b, &LiveSet::of_registers(&[0]));
    let Verdict::Refuted(model) = Prover::start().unwrap().valid(&arena, &[], claim).unwrap() else {
        panic!("32 is not 33")
    };
    let results = [&right, &wrong].map(|code| native(code, &model));
    assert_ne!(results[0], results[1]);
    assert_eq!(u128::from(results[0]), arena.eval(a.gpr[0], &model));
    assert_eq!(u128::from(results[1]), arena.eval(b.gpr[0], &model));
}

/// `rax` after the straight-line function, without its return, ran natively from the model's registers.
fn native(code: &[Instruction], model: &Assignment) -> u64 {
    let mut encoder = iced_x86::Encoder::new(64);
    for insn in code.iter().filter(|insn| insn.flow_control() == FlowControl::Next) {
        encoder.encode(insn, insn.ip()).unwrap();
    }
    let mut machine = Machine::new().unwrap();
    let program = machine.load(&encoder.take_buffer()).unwrap();
    let gpr = kerf_semantics::REGISTER_NAMES.map(|name| model.get(name).unwrap_or(0) as u64);
    let start = Concrete { gpr, flags: [false; 6], data: Box::new([0; 4096]) };
    machine.run(&program, &start).unwrap().gpr[0]
}

#[test]
fn branches_meet_again() {
    let source = "long f(long x, long y, long *p) {
        if (x < 100) { if (y > 7) *p = x; else *p = y; x += 3; }
        if (y & 4) p[1] = x;
        return *p + x; }";
    let code = compile(source);
    let mut arena = Arena::new();
    let state = whole(&mut arena, &code, &Overrides::new());
    for (x, y) in [(5i64, 9i64), (5, 4), (100, 4), (-1, -1), (99, 8), (1 << 40, 7)] {
        let mut given = Assignment::new();
        given.set("rdi", u128::from(x as u64));
        given.set("rsi", u128::from(y as u64));
        given.set("rdx", 0x4000);
        given.set_block("mem", 0x4000, &11u64.to_le_bytes());
        let (mut first, mut second, mut sum) = (11, 0, x);
        if x < 100 {
            first = if y > 7 { x } else { y };
            sum += 3;
        }
        if y & 4 != 0 {
            second = sum;
        }
        let mut values = arena.evaluator(&given);
        assert_eq!(values.value(state.gpr[0]) as u64 as i64, first + sum, "x = {x}, y = {y}");
        let stored: [u8; 8] = std::array::from_fn(|offset| values.byte(state.memory, 0x4008 + offset as u64));
        assert_eq!(i64::from_le_bytes(stored), second);
    }
}

#[test]
fn two_compilations_of_a_function_are_equal() {
    let source = "void f(unsigned *p, unsigned *q, unsigned x, char *c)
        {
            unsigned limit = *p > 40 ? 40 : *p;
            *q = x < limit ? limit - x : x / 10;
            c[1] = *q > 7 && x != 9;
            *p = (limit & 3) ? *q % 12 : limit * 5;
        }";
    let versions = ["-O1", "-O2", "-Os"].map(|level| compile_with(source, &[level]));
    let mut arena = Arena::new();
    let states = versions.each_ref().map(|code| whole(&mut arena, code, &Overrides::new()));
    for other in &states[1..] {
        // What may differ is only what nobody reads after a return.
        let claim = equal_states(&mut arena, &states[0], other, &LiveSet::of_registers(&[3, 4, 5, 12, 13, 14, 15]));
        prove(&arena, &[], claim);
    }
    let changed = compile(&source.replace("40 : *p", "41 : *p"));
    let changed = whole(&mut arena, &changed, &Overrides::new());
    let claim = equal_states(&mut arena, &states[0], &changed, &LiveSet::NONE);
    assert!(matches!(Prover::start().unwrap().valid(&arena, &[], claim).unwrap(), Verdict::Refuted(_)));
}

#[test]
fn divisions_by_constants_are_divisions() {
    for (kind, bits) in [("unsigned", 32), ("unsigned long", 64), ("int", 32), ("long", 64)] {
        for divisor in [3u32, 5, 7, 10, 25, 60, 100, 641, 1000] {
            let code = compile(&format!("{kind} f({kind} x) {{ return x / {divisor}; }}"));
            let mut arena = Arena::new();
            let state = whole(&mut arena, &code, &Overrides::new());
            let result = arena.extract(state.gpr[0], bits - 1, 0);
            let (rdi, by) = (arena.var("rdi", 64), arena.constant(u128::from(divisor), bits));
            let x = arena.extract(rdi, bits - 1, 0);
            let quotient = if kind.starts_with('u') { arena.udiv(x, by) } else { arena.sdiv(x, by) };
            let claim = arena.eq(result, quotient);
            assert_eq!(arena.as_constant(claim), Some(1), "{kind} {divisor}: {}", arena.display(result));
        }
    }
}

#[test]
fn divisions_of_sums_are_divisions() {
    // 753 takes a reciprocal of one bit more than there are, and x - (the product) is then one sum of four.
    for kind in ["unsigned long", "unsigned"] {
        let code = compile(&format!("{kind} f(unsigned long x, unsigned long y) {{ return (x - y + 3) / 753; }}"));
        let mut arena = Arena::new();
        let state = whole(&mut arena, &code, &Overrides::new());
        let (rdi, rsi, by) = (arena.var("rdi", 64), arena.var("rsi", 64), arena.constant(753, 64));
        let difference = arena.sub(rdi, rsi);
        let three = arena.constant(3, 64);
        let sum = arena.add(difference, three);
        let bits = if kind == "unsigned" { 32 } else { 64 };
        let quotient = arena.udiv(sum, by);
        let [wanted, got] = [quotient, state.gpr[0]].map(|term| arena.extract(term, bits - 1, 0));
        assert!(got == wanted, "{kind}: {}", arena.display(got));
    }
}

#[test]
fn regions_end_where_they_are_told_or_not_at_all() {
    let code = compile("unsigned f(unsigned x, unsigned n) { while (n--) x = x * 3 + (x >> 5); return x; }");
    let mut arena = Arena::new();
    let initial = State::symbolic(&mut arena);
    let ret = code.iter().find(|insn| insn.flow_control() == FlowControl::Return).unwrap().ip();
    let run = |arena: &mut Arena, exits: &[u64]| {
        let exits = exits.iter().copied().collect();
        run_region(arena, initial.clone(), &code, 0x1000, &exits, &Overrides::new())
    };
    let error = run(&mut arena, &[ret]).unwrap_err();
    assert!(matches!(&error, Unsupported::Region { reason, .. } if reason.contains("loop")), "{error}");
    let error = run(&mut arena, &[]).unwrap_err();
    assert!(matches!(&error, Unsupported::Region { .. }), "{error}");
    let error = run_region(&mut arena, initial.clone(), &code, 0x2000, &BTreeSet::new(), &Overrides::new());
    assert!(error.unwrap_err().to_string().contains("the entry is not in the code"));
}

#[test]
fn undefined_flags_equal_only_themselves() {
    // and %esi,%edi leaves AF undefined.
    let code: Vec<Instruction> =
        Decoder::with_ip(64, &[0x21, 0xf7, 0xc3], 0x1000, DecoderOptions::NONE).into_iter().collect();
    let mut arena = Arena::new();
    let run = |arena: &mut Arena, undefined: kerf_semantics::Undefined| {
        let mut initial = State::symbolic(arena);
        initial.undefined = undefined;
        let exits = BTreeSet::from([0x1002]);
        run_region(arena, initial, &code, 0x1000, &exits, &Overrides::new()).unwrap().remove(0).state.flags
    };
    let (a, b) = (run(&mut arena, Default::default()), run(&mut arena, Default::default()));
    assert_ne!(a.af, b.af);
    assert_eq!(a.zf, b.zf);
    let named = || kerf_semantics::Undefined::Named("span".to_owned());
    let (a, b) = (run(&mut arena, named()), run(&mut arena, named()));
    assert_eq!(a.af, b.af);
    let claim = arena.eq(a.af, a.zf);
    assert!(matches!(Prover::start().unwrap().valid(&arena, &[], claim).unwrap(), Verdict::Refuted(_)));
}
