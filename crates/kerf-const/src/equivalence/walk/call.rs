//! Calls and returns: what both sides hand over has to be the same.

use kerf_semantics::{Flag, REGISTER_NAMES, State, Term};

use super::super::facts::{RSP, frame_offset, garbage, tainted};
use super::advance::Callee;
use super::{Checked, Frames, Point, Walk};

/// Numbers of the argument registers in encodings: rdi, rsi, rdx, rcx, r8, r9.
pub const ARGUMENTS: [usize; 6] = [7, 6, 2, 1, 8, 9];
/// Registers that a call does not keep: rax, rcx, rdx, rsi, rdi, r8 to r11.
const CLOBBERED: [usize; 9] = [0, 1, 2, 6, 7, 8, 9, 10, 11];

impl Walk<'_> {
    pub(super) fn call(
        &mut self,
        at: u64,
        mut states: [State; 2],
        (a, p): (Callee, Option<u64>),
        (b, q): (Callee, Option<u64>),
    ) -> Checked<()> {
        if a != b {
            return Err("different functions are called".into());
        }
        if let (Callee::Register(target), Some(p), Some(q)) = (a, p, q)
            && let Some(address) = self.arena.as_constant(target)
            && self.linker.symbol(address as u64).is_some_and(|(s, o)| self.signatures.is_plain_operation(s, o))
        {
            self.after_call(&mut states, (p, q), &[0])?;
            return self.join((p, q), &states);
        }
        let name = match a {
            Callee::Direct(address) => self.linker.name(address).unwrap_or("").to_string(),
            Callee::Register(target) if tainted(&self.arena, target) => return Err("a call into the frame".into()),
            Callee::Register(_) => String::new(),
        };
        let inline = !self.sides[0].calls.is_empty() && !self.sides[0].calls.contains_key(&at);
        if let (true, Some(0), true, Some(p), Some(q)) =
            (inline, self.signatures.arguments(&name), self.signatures.is_void(&name), p, q)
        {
            // A call in inline assembly that takes and gives nothing: to the compiler all registers stay as they are.
            self.after_call(&mut states, (p, q), &[])?;
            return self.join((p, q), &states);
        }
        match (self.sides[0].calls.get(&at).cloned(), self.signatures.arguments(&name)) {
            (Some(call), _) => {
                self.same_stack_arguments(&states, call.stack)?;
                for (register, bits) in call.registers {
                    self.same_argument(&states, register, bits)?;
                }
            }
            (None, Some(count)) if count > 6 => return Err(format!("{name} gets arguments on the stack")),
            // Inline assembly passes what it likes; what a call left behind it never passes on.
            (None, known) => {
                for register in ARGUMENTS.into_iter().take(known.unwrap_or(6)) {
                    if !garbage(&self.arena, states[0].gpr[register]) {
                        self.same_argument(&states, register, 64)?;
                    }
                }
            }
        }
        match (p, q) {
            (Some(p), Some(q)) => {
                self.after_call(&mut states, (p, q), &CLOBBERED)?;
                self.join((p, q), &states)
            }
            // A tail call: the frame is gone, and the callee returns for this function.
            (None, None) => self.frame_restored(&states),
            _ => Err("one side calls, the other jumps".into()),
        }
    }

    pub(super) fn same_argument(&mut self, states: &[State; 2], register: usize, bits: u32) -> Checked<()> {
        let [ours, theirs] = states.each_ref().map(|s| s.gpr[register]);
        let x = frame_offset(&mut self.arena, &states[0], ours);
        let y = frame_offset(&mut self.arena, &states[1], theirs);
        if let (Some(x), Some(y)) = (x, y) {
            if x != y {
                return Err("addresses of different stack slots are passed".into());
            }
            self.escaped = Some(self.escaped.map_or(x, |e| e.min(x)));
            return Ok(());
        }
        let [ours, theirs] = [ours, theirs].map(|t| self.arena.extract(t, bits - 1, 0));
        if tainted(&self.arena, ours) {
            return Err("an address in the frame is passed in a computed way".into());
        }
        if self.equal(ours, theirs) {
            return Ok(());
        }
        let name = REGISTER_NAMES[register];
        Err(format!("the argument in {name} differs: {} and {}", self.shown(ours), self.shown(theirs)))
    }

    /// Whether both sides pass the same on the stack: `bytes` from the stack pointer upwards.
    pub(super) fn same_stack_arguments(&mut self, states: &[State; 2], bytes: u32) -> Checked<()> {
        if bytes > 64 {
            return Err("a call passes arguments in a way that is not known".into());
        }
        if self.frames == Frames::One {
            // They are part of the memory that was found equal.
            return Ok(());
        }
        for offset in (0..bytes).step_by(8) {
            let mut held = Vec::new();
            for state in states {
                let Some(frame) = state.frame else { return Err("the frame is not known".into()) };
                let address = self.arena.add_constant(state.gpr[RSP], u128::from(offset));
                held.push(self.arena.load_bytes(frame.memory, address, 8));
            }
            // A narrow argument leaves the rest of its slot as it comes.
            let low = [self.arena.extract(held[0], 31, 0), self.arena.extract(held[1], 31, 0)];
            let taint = held.iter().any(|t| tainted(&self.arena, *t));
            if taint || !(self.equal(held[0], held[1]) || self.unwritten_above(&held) && self.equal(low[0], low[1])) {
                return Err("an argument on the stack differs".into());
            }
        }
        Ok(())
    }

    /// Whether the upper halves of both terms are what happened to lie there.
    pub(super) fn unwritten_above(&mut self, held: &[Term]) -> bool {
        let high: Vec<Term> = held.iter().map(|t| self.arena.extract(*t, 63, 32)).collect();
        high.len() == 2 && self.unwritten([high[0], high[1]])
    }

    /// What a call leaves: the same results and the same memory on both sides.
    pub(super) fn after_call(&mut self, states: &mut [State; 2], point: Point, clobbered: &[usize]) -> Checked<()> {
        let tag = format!("{:x}.{:x}.{}", point.0, point.1, self.points);
        let memory = self.arena.memory(&format!("called.{tag}"));
        let (rax, rdx) =
            (self.arena.var(&format!("result.{tag}.rax"), 64), self.arena.var(&format!("result.{tag}.rdx"), 64));
        self.escape_frames(states, &tag)?;
        for (side, state) in states.iter_mut().enumerate() {
            state.memory = memory;
            for &register in clobbered {
                state.gpr[register] = self.arena.var(&format!("garbage.{tag}.{side}.{register}"), 64);
            }
            if clobbered.contains(&0) {
                state.gpr[0] = rax;
            }
            if clobbered.contains(&2) {
                state.gpr[2] = rdx;
            }
            for flag in Flag::ALL {
                let value = self.arena.fresh("flag", 1);
                state.flags.set(flag, value);
            }
        }
        Ok(())
    }

    pub(super) fn returns(&mut self, states: &[State; 2]) -> Checked<()> {
        self.frame_restored(states)?;
        if self.signatures.is_void(self.name) || self.equal(states[0].gpr[0], states[1].gpr[0]) {
            return Ok(());
        }
        let low = states.each_ref().map(|s| self.arena.extract(s.gpr[0], 31, 0));
        if low[0] == low[1] {
            return Err("the upper halves of the results differ".into());
        }
        Err(format!("the results differ: {} and {}", self.shown(states[0].gpr[0]), self.shown(states[1].gpr[0])))
    }
}
