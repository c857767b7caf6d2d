//! What carries a value at a point of a function.

use std::collections::BTreeSet;

/// Registers, flags and memory that hold a value or something that was computed from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carriers {
    /// General registers, each as a whole: bit n for the one with number n in encodings.
    pub registers: u16,
    /// Status flags, as [`Flag::mask`](crate::Flag::mask) bits.
    pub flags: u32,
    /// Bytes of the frame, by their offset from the stack pointer at the function's entry.
    pub slots: BTreeSet<i64>,
    /// Objects in memory, by the numbers that the [`Surroundings`](super::Surroundings) give them.
    pub objects: BTreeSet<u32>,
}

impl Carriers {
    /// Some registers and nothing else.
    pub fn of_registers(registers: u16) -> Carriers {
        Carriers { registers, ..Carriers::default() }
    }

    /// Whether nothing carries the value.
    pub fn is_empty(&self) -> bool {
        self.registers == 0 && self.flags == 0 && self.slots.is_empty() && self.objects.is_empty()
    }

    /// Adds what another way to the same point brings; whether that was something new.
    pub fn join(&mut self, other: &Carriers) -> bool {
        let before = (self.registers, self.flags, self.slots.len(), self.objects.len());
        self.registers |= other.registers;
        self.flags |= other.flags;
        self.slots.extend(&other.slots);
        self.objects.extend(&other.objects);
        before != (self.registers, self.flags, self.slots.len(), self.objects.len())
    }

    /// Takes away what another holds.
    pub fn remove(&mut self, other: &Carriers) {
        self.registers &= !other.registers;
        self.flags &= !other.flags;
        self.slots.retain(|slot| !other.slots.contains(slot));
        self.objects.retain(|object| !other.objects.contains(object));
    }

    /// Whether something is in both.
    pub fn meets(&self, other: &Carriers) -> bool {
        self.registers & other.registers != 0
            || self.flags & other.flags != 0
            || self.slots.intersection(&other.slots).next().is_some()
            || self.objects.intersection(&other.objects).next().is_some()
    }
}
