//! The frames of both sides: what others may reach of them, and that they are gone in the end.

use std::collections::BTreeSet;

use iced_x86::{Instruction, Mnemonic};
use kerf_semantics::{Arena, Frame, REGISTER_NAMES, State, Term};

use super::super::facts::{RSP, entry_half, frame_offset};
use super::{Checked, Frames, Walk};

/// Whether a term is part of a register that the function saves for its caller: nobody else has its slot.
fn saved(arena: &Arena, term: Term) -> bool {
    let name = arena.as_variable(term).and_then(|n| n.strip_prefix("entry."));
    name.is_some_and(|n| {
        KEPT.iter().any(|r| n.strip_prefix(REGISTER_NAMES[*r]).is_some_and(|rest| rest.starts_with('.')))
    })
}

/// Registers that a function gives back as it got them: rbx, rbp, r12 to r15.
const KEPT: [usize; 6] = [3, 5, 12, 13, 14, 15];

/// The most elements that `rep stos` may fill at once.
const MOST_FILLED: u128 = 256;

impl Walk<'_> {
    /// Executes a `rep stos` that fills a known part of the frame, as local structures are cleared, as so many stores.
    /// The direction flag is clear in compiled code. `false` if it is none, or not all about it is known.
    pub(super) fn fills_frame(&mut self, side: usize, state: &mut State, insn: &Instruction) -> bool {
        const RAX: usize = 0;
        const RCX: usize = 1;
        const RDI: usize = 7;
        let size = match insn.mnemonic() {
            Mnemonic::Stosq => 8,
            Mnemonic::Stosd => 4,
            _ => return false,
        };
        let start = frame_offset(&mut self.arena, state, state.gpr[RDI]);
        let count = self.arena.as_constant(state.gpr[RCX]).filter(|n| *n <= MOST_FILLED && insn.has_rep_prefix());
        let (Some(start), Some(count), Some(mut frame)) = (start, count, state.frame) else { return false };
        let value = self.arena.extract(state.gpr[RAX], size * 8 - 1, 0);
        let end = start + count as i64 * i64::from(size);
        for at in (start..end).step_by(size as usize) {
            let address = self.arena.add_constant(frame.base, at as u64 as u128);
            frame.memory = self.arena.store_bytes(frame.memory, address, value);
        }
        self.slots.extend((start..end).step_by(4).map(|at| (side as u8, at, 4)));
        state.frame = Some(frame);
        state.gpr[RDI] = self.arena.add_constant(frame.base, end as u64 as u128);
        state.gpr[RCX] = self.arena.constant(0, 64);
        true
    }

    /// Whoever has an address in the frame may read and write from there upwards: both frames must be alike, and are
    /// afterwards.
    pub(super) fn escape_frames(&mut self, states: &mut [State; 2], tag: &str) -> Checked<()> {
        let Some(lowest) = self.escaped else { return Ok(()) };
        let (Some(ours), Some(theirs)) = (states[0].frame, states[1].frame) else { return Ok(()) };
        let slots: BTreeSet<(i64, u8)> = self.slots.iter().map(|(_, o, s)| (*o, *s)).filter(|(o, _)| *o < 0).collect();
        let shared = self.arena.memory(&format!("frames.{tag}"));
        let mut new = [shared, shared];
        // What is there afterwards gets names of its own: a load would look as if it were made of the frame's address.
        let mut largest: Vec<(i64, u8)> = slots.iter().copied().collect();
        largest.sort_by_key(|(_, size)| *size);
        for (offset, size) in largest {
            let address = self.arena.add_constant(ours.base, offset as u64 as u128);
            let value = self.arena.var(&format!("frames.{tag}.{offset}.{size}"), u32::from(size) * 8);
            new = new.map(|memory| self.arena.store_bytes(memory, address, value));
        }
        for (offset, size) in slots {
            let address = self.arena.add_constant(ours.base, offset as u64 as u128);
            let held = [ours, theirs].map(|f| self.arena.load_bytes(f.memory, address, u32::from(size)));
            let private = offset < lowest || held.iter().any(|t| saved(&self.arena, *t));
            if private {
                for (memory, term) in new.iter_mut().zip(held) {
                    *memory = self.arena.store_bytes(*memory, address, term);
                }
            } else if held[0] != held[1] && !self.unwritten(held) {
                return Err(format!("the frames differ at {offset} when an address of them is known outside"));
            }
        }
        states[0].frame = Some(Frame { memory: new[0], ..ours });
        states[1].frame = Some(Frame { memory: new[1], ..theirs });
        Ok(())
    }

    /// Whether neither side has written a slot yet: what is there means nothing.
    pub(super) fn unwritten(&self, held: [Term; 2]) -> bool {
        held.iter().all(|t| {
            self.arena.as_constant(*t).is_none()
                && self.arena.variables(&[*t]).iter().all(|v| {
                    self.arena.as_variable(*v).is_none_or(|n| {
                        n.starts_with("frame.") || n.starts_with("frames.") || n.starts_with("u.") || n == "frame"
                    })
                })
        })
    }

    /// Whether both sides give back the registers that they must keep: that the deployed side does so is the compiler's
    /// business, so with one frame it is enough that both do the same.
    pub(super) fn frame_restored(&mut self, states: &[State; 2]) -> Checked<()> {
        if self.frames == Frames::One {
            let differs = KEPT.into_iter().chain([RSP]).find(|r| states[0].gpr[*r] != states[1].gpr[*r]);
            return differs.map_or(Ok(()), |r| Err(format!("{} is left with another value", REGISTER_NAMES[r])));
        }
        for state in states {
            if frame_offset(&mut self.arena, state, state.gpr[RSP]) != Some(0) {
                return Err("the stack pointer is not restored".into());
            }
            for register in KEPT {
                let halves = [0, 1].map(|half| entry_half(&mut self.arena, REGISTER_NAMES[register], half));
                let whole = self.arena.concat(halves[1], halves[0]);
                if state.gpr[register] != whole {
                    return Err(format!("{} is not restored", REGISTER_NAMES[register]));
                }
            }
        }
        Ok(())
    }
}
