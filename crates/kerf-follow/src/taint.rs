//! What carries a value while a kernel runs: bytes of registers, flags, and bytes of memory by their address.

use std::collections::BTreeMap;

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, RflagsBits, UsedMemory};
use kerf_lab::gdb::Registers;

use super::access::{self, Access, Place, Reads};

/// An instruction that was executed and handed the value on, by its number in the order of execution.
pub type Event = usize;

/// What an instruction did with what it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flow {
    /// It only moved it to a register or the stack. By itself that has no effect: functions save and restore registers
    /// whose content nobody needs any more.
    Copied,
    /// It computed with it, compared it, or took it for an address.
    Used,
    /// It wrote it, or what it computed from it, to memory that is not the stack.
    Stored,
}

/// What an instruction took from the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The instructions that had handed it on, the latest last; empty for the first.
    pub from: Vec<Event>,
    /// What it did with it.
    pub flow: Flow,
}

/// All that carries the value now.
#[derive(Clone, Debug, Default)]
pub struct Taint {
    /// Bytes of general registers, by eight times the register's number, plus the byte's.
    general: BTreeMap<u8, Event>,
    vectors: BTreeMap<usize, Event>,
    flags: BTreeMap<u32, Event>,
    memory: BTreeMap<u64, Event>,
}

impl Taint {
    /// Whether nothing carries it.
    pub fn is_empty(&self) -> bool {
        self.general.is_empty() && self.vectors.is_empty() && self.flags.is_empty() && self.memory.is_empty()
    }

    /// Whether a call by the kernel's convention hands none of it over: it is only in registers that a called function gives
    /// back as they were, and in memory.
    pub fn survives_calls(&self) -> bool {
        self.vectors.is_empty() && self.general.keys().all(|n| KEPT.contains(&(n / 8)))
    }

    /// Flags are worth nothing behind a call.
    pub fn forget_flags(&mut self) {
        self.flags.clear();
    }

    /// Runs of bytes of memory that carry it: where they begin, and how long they are.
    pub fn memory(&self) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for address in self.memory.keys() {
            match runs.last_mut() {
                Some((start, length)) if start.wrapping_add(*length) == *address => *length += 1,
                _ => runs.push((*address, 1)),
            }
        }
        runs
    }

    /// Forgets bytes of memory.
    pub fn forget_memory(&mut self, gone: impl Fn(u64) -> bool) {
        self.memory.retain(|address, _| !gone(*address));
    }

    /// Executes an instruction with the registers as they are before it. `event` is its number, should it hand the value on;
    /// the results of a source carry the value whatever it reads. `stack` tells stack from other memory.
    pub fn step(
        &mut self,
        insn: &Instruction,
        registers: &Registers,
        event: Event,
        source: bool,
        stack: impl Fn(u64) -> bool,
    ) -> Option<Taken> {
        if access::has_no_effect(insn, registers) {
            return None;
        }
        let mut factory = InstructionInfoFactory::new();
        let access = Access::of(insn, factory.info(insn), registers);
        let data = self.events(&access.data);
        let addresses = self.events(&access.addresses);
        let mut from: Vec<Event> = data.iter().chain(&addresses).copied().collect();
        from.sort_unstable();
        from.dedup();
        let copies = access::copies(insn) && addresses.is_empty() && !source;
        if !source && from.is_empty() {
            self.clear(&access);
            return None;
        }
        if !source && data.is_empty() {
            // The slice is a thin one: what lies at a place does not follow from the place.
            self.clear(&access);
            return Some(Taken { from, flow: Flow::Used });
        }
        let stored = if copies { self.copy(&access, event) } else { self.write(insn, &access, event, source) };
        let flow = match () {
            _ if stored.iter().any(|address| !stack(*address)) => Flow::Stored,
            _ if copies => Flow::Copied,
            _ => Flow::Used,
        };
        Some(Taken { from, flow })
    }

    /// The events whose results are in some places.
    fn events(&self, reads: &Reads) -> Vec<Event> {
        reads.iter().flat_map(|place| self.bytes(place)).flatten().collect()
    }

    fn bytes(&self, place: &Place) -> Vec<Option<Event>> {
        match *place {
            Place::General { first, count } => (first..first + count).map(|n| self.general.get(&n).copied()).collect(),
            Place::Vector(number) => vec![self.vectors.get(&number).copied(); 16],
            Place::Flags(mask) => bits(mask).map(|flag| self.flags.get(&flag).copied()).collect(),
            Place::Memory { address, size } => {
                (0..size).map(|n| self.memory.get(&address.wrapping_add(n)).copied()).collect()
            }
        }
    }

    /// Overwrites what the instruction writes for certain with something else.
    fn clear(&mut self, access: &Access) {
        for (place, certain) in &access.writes {
            if *certain {
                self.set(place, |_| None);
            }
        }
    }

    /// Moves byte for byte; the addresses of memory that carries the value now.
    fn copy(&mut self, access: &Access, event: Event) -> Vec<u64> {
        let pattern: Vec<bool> = access.data.iter().flat_map(|p| self.bytes(p)).map(|byte| byte.is_some()).collect();
        for (place, _) in access.writes.iter().filter(|(place, _)| access.is_result(place)) {
            self.set(place, |n| pattern.get(n).copied().unwrap_or(false).then_some(event));
        }
        access.stored(&pattern)
    }

    /// Gives all results to the value.
    fn write(&mut self, insn: &Instruction, access: &Access, event: Event, source: bool) -> Vec<u64> {
        if matches!(insn.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
            // What a call writes is its return address.
            self.clear(access);
            return Vec::new();
        }
        // An exchange gives the register what was in memory, and that alone.
        let exchanged = matches!(insn.mnemonic(), Mnemonic::Xchg | Mnemonic::Xadd) && !source;
        let memory_carries = access
            .data
            .iter()
            .any(|place| matches!(place, Place::Memory { .. }) && self.bytes(place).iter().any(Option::is_some));
        let with_memory = access.data.iter().any(|place| matches!(place, Place::Memory { .. }));
        for (place, certain) in &access.writes {
            let untouched = exchanged && with_memory && !memory_carries && matches!(place, Place::General { .. });
            match (untouched, certain) {
                (true, true) => self.set(place, |_| None),
                (true, false) => {}
                (false, _) => self.set(place, |_| Some(event)),
            }
        }
        access.stored(&[true; 64])
    }

    fn set(&mut self, place: &Place, value: impl Fn(usize) -> Option<Event>) {
        match *place {
            Place::General { first, count } => {
                (0..count).for_each(|n| put(&mut self.general, first + n, value(usize::from(n))));
            }
            Place::Vector(number) => put(&mut self.vectors, number, (0..16).find_map(value)),
            Place::Flags(mask) => bits(mask).for_each(|flag| put(&mut self.flags, flag, value(0))),
            Place::Memory { address, size } => {
                (0..size).for_each(|n| put(&mut self.memory, address.wrapping_add(n), value(n as usize)));
            }
        }
    }
}

fn put<K: Ord>(map: &mut BTreeMap<K, Event>, key: K, value: Option<Event>) {
    match value {
        Some(event) => map.insert(key, event),
        None => map.remove(&key),
    };
}

fn bits(mask: u32) -> impl Iterator<Item = u32> {
    (0..32).map(|n| 1 << n).filter(move |bit| mask & bit != 0)
}

/// rbx, rbp and r12 to r15 are kept by called functions.
const KEPT: [u8; 6] = [3, 5, 12, 13, 14, 15];

/// The flags that instructions compute.
pub(super) const STATUS: u32 =
    RflagsBits::OF | RflagsBits::SF | RflagsBits::ZF | RflagsBits::AF | RflagsBits::CF | RflagsBits::PF;

/// Where an access to memory goes.
pub(super) fn address(used: &UsedMemory, registers: &Registers) -> Option<u64> {
    use iced_x86::Register;
    used.virtual_address(0, |register, _, _| match register {
        Register::FS => Some(registers.fs_base),
        Register::GS => Some(registers.gs_base),
        Register::ES | Register::CS | Register::SS | Register::DS | Register::RIP => Some(0),
        _ if register.is_gpr() => {
            let value = registers.general.get(register.full_register().number())?;
            Some(if register.size() == 4 { *value & 0xffff_ffff } else { *value })
        }
        _ => None,
    })
}

#[cfg(test)]
#[path = "taint_tests.rs"]
mod tests;
