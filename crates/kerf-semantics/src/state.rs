//! The machine state that instructions read and change: general registers, status flags, memory.

use iced_x86::{Instruction, Register};

use crate::term::{Arena, Term};

/// Names of the general registers by their number in encodings.
pub const REGISTER_NAMES: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// Names of the status flags, in the order of [`Flag::ALL`].
pub const FLAG_NAMES: [&str; 6] = ["cf", "pf", "af", "zf", "sf", "of"];

/// The name of the memory that a symbolic state starts from.
pub const MEMORY_NAME: &str = "mem";

/// One of the six status flags.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Ord, PartialOrd, Debug)]
pub enum Flag {
    /// Carry.
    Carry,
    /// Even parity of the result's low byte.
    Parity,
    /// Carry out of bit 3.
    Adjust,
    /// Zero.
    Zero,
    /// Sign.
    Sign,
    /// Signed overflow.
    Overflow,
}

impl Flag {
    /// All six, in the order of their bits in `rflags`.
    pub const ALL: [Self; 6] = [Self::Carry, Self::Parity, Self::Adjust, Self::Zero, Self::Sign, Self::Overflow];

    /// The flag's bit number in `rflags`.
    pub fn rflags_bit(self) -> u32 {
        [0, 2, 4, 6, 7, 11][self as usize]
    }

    /// The flag's bit in iced's `RflagsBits` and in [`LiveSet`](crate::LiveSet) masks.
    pub fn mask(self) -> u32 {
        use iced_x86::RflagsBits as bits;
        [bits::CF, bits::PF, bits::AF, bits::ZF, bits::SF, bits::OF][self as usize]
    }

    /// The flag's name, in lower case.
    pub fn name(self) -> &'static str {
        FLAG_NAMES[self as usize]
    }
}

/// The status flags, 1 bit each.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Flags {
    /// Carry.
    pub cf: Term,
    /// Even parity of the result's low byte.
    pub pf: Term,
    /// Carry out of bit 3.
    pub af: Term,
    /// Zero.
    pub zf: Term,
    /// Sign.
    pub sf: Term,
    /// Signed overflow.
    pub of: Term,
}

impl Flags {
    /// The term of one flag.
    pub fn get(&self, flag: Flag) -> Term {
        match flag {
            Flag::Carry => self.cf,
            Flag::Parity => self.pf,
            Flag::Adjust => self.af,
            Flag::Zero => self.zf,
            Flag::Sign => self.sf,
            Flag::Overflow => self.of,
        }
    }

    /// Sets one flag to a 1-bit term.
    pub fn set(&mut self, flag: Flag, value: Term) {
        match flag {
            Flag::Carry => self.cf = value,
            Flag::Parity => self.pf = value,
            Flag::Adjust => self.af = value,
            Flag::Zero => self.zf = value,
            Flag::Sign => self.sf = value,
            Flag::Overflow => self.of = value,
        }
    }
}

/// How the results that the architecture leaves undefined are named.
#[derive(Clone, Eq, PartialEq, Debug, Default)]
pub enum Undefined {
    /// A variable that occurs nowhere else: no two undefined results are ever equal.
    #[default]
    Fresh,
    /// A variable named by this tag, the instruction's address, the result, and the terms that the instruction read
    /// (their numbers stand in the name). Two executions under one tag share it only where the same instruction
    /// worked on the same values, which is sound as long as the processor is deterministic.
    Named(String),
}

/// A memory access that an instruction makes.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Access {
    /// Address of the instruction.
    pub ip: u64,
    /// The 64-bit address accessed.
    pub address: Term,
    /// Size in bytes.
    pub bytes: u32,
    /// Whether it writes; what reads and writes is recorded twice.
    pub write: bool,
    /// Whether it is locked (by prefix, or `xchg`).
    pub locked: bool,
}

/// A stack frame that is kept apart from the rest of memory: what lies at a constant distance from `base` is in
/// `memory`. This takes for granted that no other address points into it.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Frame {
    /// The 64-bit address that distances count from.
    pub base: Term,
    /// The bytes of the frame.
    pub memory: Term,
}

/// A machine state of terms.
#[derive(Clone, Debug)]
pub struct State {
    /// The general registers, 64 bits each, by their number in encodings (`rax`, `rcx`, `rdx`, `rbx`, `rsp`, …).
    pub gpr: [Term; 16],
    /// The status flags.
    pub flags: Flags,
    /// All of memory.
    pub memory: Term,
    /// Base of the `fs` segment, 64 bits.
    pub fs_base: Term,
    /// Base of the `gs` segment, 64 bits.
    pub gs_base: Term,
    /// 1 where a division on the way here raised an exception; the rest of the state means nothing then. Page faults
    /// are not modelled.
    pub trap: Term,
    /// The stack frame, if it is kept apart from the rest of memory.
    pub frame: Option<Frame>,
    /// The memory accesses made so far, on whatever path.
    pub accesses: Vec<Access>,
    /// How undefined results are named from here on.
    pub undefined: Undefined,
}

impl State {
    /// A state of free variables: `rax` to `r15`, `cf` to `of`, `mem`, `fs_base` and `gs_base`.
    pub fn symbolic(arena: &mut Arena) -> Self {
        let gpr = REGISTER_NAMES.map(|name| arena.var(name, 64));
        let [cf, pf, af, zf, sf, of] = FLAG_NAMES.map(|name| arena.var(name, 1));
        Self {
            gpr,
            flags: Flags { cf, pf, af, zf, sf, of },
            memory: arena.memory(MEMORY_NAME),
            fs_base: arena.var("fs_base", 64),
            gs_base: arena.var("gs_base", 64),
            trap: arena.bool(false),
            frame: None,
            accesses: Vec::new(),
            undefined: Undefined::Fresh,
        }
    }

    /// The value of a general register of any width; `None` for other registers.
    pub fn read(&self, arena: &mut Arena, register: Register) -> Option<Term> {
        let (number, lo, width) = location(register)?;
        Some(arena.extract(self.gpr[number], lo + width - 1, lo))
    }

    /// Writes a general register: 32-bit writes clear the upper half, narrower ones keep the rest. `None` for other
    /// registers. The value has the register's width.
    pub fn write(&mut self, arena: &mut Arena, register: Register, value: Term) -> Option<()> {
        let (number, lo, width) = location(register)?;
        assert_eq!(arena.width(value), width, "the value is as wide as the register");
        let old = self.gpr[number];
        self.gpr[number] = match width {
            64 => value,
            32 => arena.zext(value, 64),
            _ => {
                let above = arena.extract(old, 63, lo + width);
                let mut new = arena.concat(above, value);
                if lo > 0 {
                    let below = arena.extract(old, lo - 1, 0);
                    new = arena.concat(new, below);
                }
                new
            }
        };
        Some(())
    }

    /// A term for a result that the architecture leaves undefined.
    pub(crate) fn undefined(
        &self,
        arena: &mut Arena,
        insn: &Instruction,
        what: &str,
        inputs: &[Term],
        width: u32,
    ) -> Term {
        match &self.undefined {
            Undefined::Fresh => arena.fresh(&format!("undefined.{what}@{:x}", insn.ip()), width),
            Undefined::Named(tag) => {
                let inputs: Vec<String> = inputs.iter().map(|term| term.0.to_string()).collect();
                let name = format!("undefined.{tag}.{what}@{:x}({})", insn.ip(), inputs.join(","));
                arena.var(&name, width)
            }
        }
    }

    /// This state where `condition` holds, `other` where it does not.
    pub fn merge(&self, arena: &mut Arena, condition: Term, other: &Self) -> Self {
        let mut merged = other.clone();
        for (number, slot) in merged.gpr.iter_mut().enumerate() {
            *slot = arena.ite(condition, self.gpr[number], *slot);
        }
        for flag in Flag::ALL {
            let value = arena.ite(condition, self.flags.get(flag), other.flags.get(flag));
            merged.flags.set(flag, value);
        }
        merged.memory = arena.ite(condition, self.memory, other.memory);
        merged.fs_base = arena.ite(condition, self.fs_base, other.fs_base);
        merged.gs_base = arena.ite(condition, self.gs_base, other.gs_base);
        merged.trap = arena.ite(condition, self.trap, other.trap);
        merged.frame = merge_frames(arena, condition, self.frame, other.frame);
        merged.accesses = self.accesses.clone();
        for access in &other.accesses {
            if !merged.accesses.contains(access) {
                merged.accesses.push(access.clone());
            }
        }
        merged
    }
}

/// A general register's number, lowest bit and width in bits.
pub(crate) fn location(register: Register) -> Option<(usize, u32, u32)> {
    if !register.is_gpr() {
        return None;
    }
    let high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
    let number = register.full_register().number();
    Some((number, if high { 8 } else { 0 }, register.size() as u32 * 8))
}

/// Frames at different places have no common one: nothing is known of what lies in the result.
fn merge_frames(arena: &mut Arena, condition: Term, yes: Option<Frame>, no: Option<Frame>) -> Option<Frame> {
    match (yes, no) {
        (None, None) => None,
        (Some(yes), Some(no)) if yes.base == no.base => {
            Some(Frame { base: no.base, memory: arena.ite(condition, yes.memory, no.memory) })
        }
        (Some(frame), _) | (None, Some(frame)) => Some(Frame { base: frame.base, memory: arena.fresh_memory("frame") }),
    }
}
