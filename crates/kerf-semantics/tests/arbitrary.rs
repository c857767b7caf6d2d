//! Bytes that are no sensible code: nothing panics, and whatever is admitted to this processor behaves.

use std::collections::BTreeSet;

use iced_x86::{Decoder, DecoderOptions, Instruction};
use kerf_semantics::native::{CheckError, Machine, check_with};
use kerf_semantics::{Arena, Cfg, LiveSet, Overrides, State, equal_states, run_region, step};
use proptest::prelude::*;

const CASES: u32 = 2000;

/// Bytes in which prefixes and the opcodes of integer code are frequent.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let prefix = prop::sample::select(&[0x66u8, 0x67, 0xf0, 0xf2, 0xf3, 0x65, 0x48, 0x44, 0x41, 0x0f, 0x40, 0x64][..]);
    let byte = prop_oneof![3 => any::<u8>(), 1 => prefix.clone()];
    (prop::collection::vec(prefix, 0..3), prop::collection::vec(byte, 1..40)).prop_map(|(a, b)| [a, b].concat())
}

fn decode(bytes: &[u8]) -> Vec<Instruction> {
    Decoder::with_ip(64, bytes, 0x1000, DecoderOptions::NONE).into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2 * CASES, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_executed_or_refused(bytes in bytes()) {
        let code = decode(&bytes);
        let mut arena = Arena::new();
        let mut state = State::symbolic(&mut arena);
        let first = state.clone();
        for insn in &code {
            if let Err(error) = step(&mut arena, &mut state, insn, &Overrides::new()) {
                prop_assert!(!error.to_string().is_empty());
                state = State::symbolic(&mut arena);
            }
        }
        for term in state.gpr {
            arena.display(term);
        }
        arena.display(state.memory);
        equal_states(&mut arena, &first, &state, &LiveSet::all());
    }

    #[test]
    fn any_bytes_have_a_graph_and_a_region(bytes in bytes()) {
        let code = decode(&bytes);
        let cfg = Cfg::new(&code);
        for insn in &code {
            cfg.live_before(insn.ip());
            cfg.live_after(insn.ip());
        }
        let mut arena = Arena::new();
        let initial = State::symbolic(&mut arena);
        let exits: BTreeSet<u64> = code.iter().skip(3).step_by(2).map(Instruction::ip).collect();
        let _ = run_region(&mut arena, initial, &code, 0x1000, &exits, &Overrides::new());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_run_as_the_semantics_say_or_not_at_all(bytes in bytes(), seed in any::<u64>()) {
        let Some(insn) = decode(&bytes).first().copied() else { return Ok(()) };
        let mut machine = Machine::new().unwrap();
        let one = &bytes[..insn.len().min(bytes.len())];
        if let Err(error @ CheckError::Mismatch(_)) = check_with(&mut machine, one, seed, 2) {
            prop_assert!(false, "{error}");
        }
    }
}
