//! Which of the function's parameters a policy reads: found in its machine code, so that nothing has to be declared.

use std::collections::BTreeSet;

/// Bytes of an instruction.
const SIZE: usize = 8;
/// Offsets of di, si, dx, cx, r8 and r9 in `struct pt_regs` of x86-64.
const PARAMETERS: [i16; 6] = [112, 104, 96, 88, 72, 64];

const CLASS_LDX: u8 = 0x01;
const CLASS_ST: u8 = 0x02;
const CLASS_STX: u8 = 0x03;
const CLASS_JMP: u8 = 0x05;
const CLASS_JMP32: u8 = 0x06;
const CLASS_ALU64: u8 = 0x07;
const MOV64_REGISTER: u8 = 0xbf;
const MOV64_NUMBER: u8 = 0xb7;
const LOAD_64_IMMEDIATE: u8 = 0x18;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// What is known to hold the context at a point: registers 0 to 10, and stack slots by their offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    registers: [bool; 11],
    slots: BTreeSet<i16>,
}

impl State {
    /// Adds what another way into the same point brings. True if that was something new.
    fn join(&mut self, other: &State) -> bool {
        let before = self.clone();
        self.registers.iter_mut().zip(other.registers).for_each(|(mine, theirs)| *mine |= theirs);
        self.slots.extend(&other.slots);
        *self != before
    }
}

struct Insn {
    code: u8,
    to: usize,
    from: usize,
    offset: i16,
    immediate: i32,
}

/// Helpers that may read registers of a context that they are given: tail_call, perf_event_output, get_stackid, get_stack. For
/// most others what the first register still holds is not even theirs.
const TAKE_CONTEXT: [i32; 4] = [12, 25, 27, 67];

impl Insn {
    /// Whether a call may read through a context in the registers of arguments: a function of the policy's own may, a kernel
    /// function too.
    fn takes_context(&self) -> bool {
        self.from != 0 || TAKE_CONTEXT.contains(&self.immediate)
    }
}

fn decode(code: &[u8], at: usize) -> Option<Insn> {
    let bytes = code.get(at * SIZE..(at + 1) * SIZE)?;
    let (to, from) = (usize::from(bytes[1] & 15), usize::from(bytes[1] >> 4));
    let offset = i16::from_le_bytes([bytes[2], bytes[3]]);
    let immediate = i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    (to < 11 && from < 11).then_some(Insn { code: bytes[0], to, from, offset, immediate })
}

/// The parameters, from 0 to 5, that a program reads through its context. `None` if it hands the context on or computes with
/// it, so that this cannot be told: then all six may be read.
pub fn parameters_read(code: &[u8]) -> Option<BTreeSet<usize>> {
    let mut found = BTreeSet::new();
    let mut states: Vec<Option<State>> = vec![None; code.len() / SIZE];
    let mut start = State::default();
    start.registers[1] = true;
    let mut work = vec![(0usize, start)];
    while let Some((at, state)) = work.pop() {
        let known = states.get_mut(at)?;
        let changed = match known {
            Some(known) => known.join(&state),
            None => {
                *known = Some(state);
                true
            }
        };
        let Some(state) = known.clone().filter(|_| changed) else { continue };
        work.extend(step(code, at, state, &mut found)?);
    }
    Some(found)
}

/// The instructions behind one, with what then holds the context.
fn step(code: &[u8], at: usize, mut state: State, found: &mut BTreeSet<usize>) -> Option<Vec<(usize, State)>> {
    let insn = decode(code, at)?;
    let context = |register: usize| state.registers[register];
    let class = insn.code & 7;
    let next = at + if insn.code == LOAD_64_IMMEDIATE { 2 } else { 1 };
    let jump = || at.checked_add_signed(isize::from(insn.offset) + 1);
    match (class, insn.code) {
        (_, EXIT) => return Some(Vec::new()),
        (CLASS_JMP, CALL) => {
            if insn.takes_context() && (1..=5).any(context) {
                return None;
            }
            state.registers[..6].fill(false);
        }
        (CLASS_JMP, 0x05) => return Some(vec![(jump()?, state)]),
        (CLASS_JMP | CLASS_JMP32, _) => return Some(vec![(jump()?, state.clone()), (next, state)]),
        (CLASS_LDX, _) => {
            if context(insn.from) {
                found.extend(PARAMETERS.iter().position(|offset| *offset == insn.offset));
            }
            state.registers[insn.to] = insn.from == 10 && state.slots.contains(&insn.offset);
        }
        (CLASS_STX, _) => match (context(insn.from), insn.to) {
            (true, 10) => {
                state.slots.insert(insn.offset);
            }
            (true, _) => return None,
            (false, 10) => {
                state.slots.remove(&insn.offset);
            }
            _ => {}
        },
        (CLASS_ST, _) => {}
        (CLASS_ALU64, MOV64_REGISTER) => state.registers[insn.to] = context(insn.from),
        (CLASS_ALU64, MOV64_NUMBER) => state.registers[insn.to] = false,
        // An address inside the context: what is read through it is not followed.
        (CLASS_ALU64, _) if context(insn.to) => return None,
        _ => state.registers[insn.to] = false,
    }
    Some(vec![(next, state)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insn(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Vec<u8> {
        let mut bytes = vec![code, from << 4 | to];
        bytes.extend(offset.to_le_bytes());
        bytes.extend(immediate.to_le_bytes());
        bytes
    }

    fn program(instructions: &[Vec<u8>]) -> Vec<u8> {
        instructions.concat()
    }

    const LDX: u8 = 0x79;
    const STX: u8 = 0x7b;

    #[test]
    fn loads_through_copies_and_slots_are_seen() {
        let code = program(&[
            insn(MOV64_REGISTER, 6, 1, 0, 0),
            insn(STX, 10, 6, -8, 0),
            insn(CALL, 0, 0, 0, 8),
            insn(CALL, 0, 0, 0, 8),
            insn(LDX, 2, 10, -8, 0),
            insn(LDX, 3, 2, 104, 0),
            insn(EXIT, 0, 0, 0, 0),
        ]);
        // The context is still in r1 at the first call, which does not take it.
        assert_eq!(parameters_read(&code), Some(BTreeSet::from([1])));
    }

    #[test]
    fn calls_that_take_the_context_may_read_all_of_it() {
        let call = |from, immediate| program(&[insn(CALL, 0, from, 0, immediate), insn(EXIT, 0, 0, 0, 0)]);
        for (from, immediate) in [(0, 67), (0, 25), (1, 3), (2, 4711)] {
            assert_eq!(parameters_read(&call(from, immediate)), None, "{immediate}");
        }
        assert_eq!(parameters_read(&call(0, 14)), Some(BTreeSet::new()));
    }

    #[test]
    fn a_load_below_the_frame_is_no_jump() {
        let code = program(&[insn(LDX, 2, 10, -64, 0), insn(LDX, 3, 1, 112, 0), insn(EXIT, 0, 0, 0, 0)]);
        assert_eq!(parameters_read(&code), Some(BTreeSet::from([0])));
    }

    #[test]
    fn a_register_used_for_something_else_is_no_context() {
        let code = program(&[
            insn(LDX, 1, 1, 112, 0), // r1 = ctx->di
            insn(LDX, 2, 1, 104, 0), // r2 = *(di + 104): not the context's si
            insn(EXIT, 0, 0, 0, 0),
        ]);
        assert_eq!(parameters_read(&code), Some(BTreeSet::from([0])));
    }

    #[test]
    fn both_ways_of_a_branch_count() {
        let code = program(&[
            insn(0x15, 0, 0, 1, 0),
            insn(LDX, 2, 1, 96, 0),
            insn(LDX, 3, 1, 16, 0), // rbp: no parameter
            insn(EXIT, 0, 0, 0, 0),
        ]);
        assert_eq!(parameters_read(&code), Some(BTreeSet::from([2])));
    }

    #[test]
    fn arithmetic_on_the_context_is_not_followed() {
        let code = program(&[insn(0x07, 1, 0, 0, 8), insn(LDX, 2, 1, 104, 0), insn(EXIT, 0, 0, 0, 0)]);
        assert_eq!(parameters_read(&code), None);
    }

    #[test]
    fn damaged_code_is_not_understood() {
        assert_eq!(parameters_read(&[0x79, 0xff, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(parameters_read(&insn(0x05, 0, 0, 99, 0)), None);
    }
}
