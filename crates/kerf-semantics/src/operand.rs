//! Operands of one instruction: effective addresses, reading and writing with sub-register rules, and immediates that
//! are replaced by terms.

use iced_x86::{Code, Instruction, MemorySize, OpKind, Register};
use rustc_hash::FxHashMap;

use crate::error::Unsupported;
use crate::state::{Access, Flag, Frame, State};
use crate::term::{Arena, Term};

/// Terms that stand in for constants of instructions, by the instruction's address and the operand's index.
///
/// For an immediate operand the term replaces the immediate: it has the operand's effective width (an `imm8` that is
/// sign-extended to 32 bits is 32 bits wide; a wider term is cut). For a memory operand it replaces the displacement,
/// or the whole address of a RIP-relative one, with 64 bits.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    terms: FxHashMap<(u64, u32), Term>,
}

impl Overrides {
    /// Nothing replaced.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the immediate or displacement of operand `operand` of the instruction at `ip`.
    pub fn insert(&mut self, ip: u64, operand: u32, term: Term) {
        self.terms.insert((ip, operand), term);
    }

    /// What replaces the immediate or displacement of operand `operand` of the instruction at `ip`.
    pub fn get(&self, ip: u64, operand: u32) -> Option<Term> {
        self.terms.get(&(ip, operand)).copied()
    }

    /// Whether nothing is replaced.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }
}

/// One instruction being executed.
pub(crate) struct Step<'a> {
    pub arena: &'a mut Arena,
    pub state: &'a mut State,
    pub insn: &'a Instruction,
    pub overrides: &'a Overrides,
}

pub(crate) type Result<T> = std::result::Result<T, Unsupported>;

impl Step<'_> {
    pub fn unsupported<T>(&self, reason: &'static str) -> Result<T> {
        Err(Unsupported::Instruction { ip: self.insn.ip(), text: self.insn.to_string(), reason })
    }

    /// Bits of operand `index`.
    pub fn width(&self, index: u32) -> Result<u32> {
        let insn = self.insn;
        let width = match insn.op_kind(index) {
            OpKind::Register => insn.op_register(index).size() as u32 * 8,
            OpKind::Memory => match insn.memory_size() {
                // `lea` and the like name no size; the address is what counts.
                MemorySize::Unknown => 64,
                size => size.size() as u32 * 8,
            },
            OpKind::Immediate8 | OpKind::Immediate8_2nd => 8,
            OpKind::Immediate16 | OpKind::Immediate8to16 => 16,
            OpKind::Immediate32 | OpKind::Immediate8to32 => 32,
            OpKind::Immediate64 | OpKind::Immediate8to64 | OpKind::Immediate32to64 => 64,
            _ => return self.unsupported("operand of a kind outside integer code"),
        };
        if width == 0 || width > 64 {
            return self.unsupported("operand wider than a general register");
        }
        Ok(width)
    }

    /// The value of operand `index`, in its own width. Each read of memory is recorded.
    pub fn read(&mut self, index: u32) -> Result<Term> {
        let insn = self.insn;
        match insn.op_kind(index) {
            OpKind::Register => self.register(insn.op_register(index)),
            OpKind::Memory => {
                let width = self.width(index)?;
                let address = self.address(index, true)?;
                self.load(address, width / 8)
            }
            _ => self.immediate(index),
        }
    }

    fn immediate(&mut self, index: u32) -> Result<Term> {
        let width = self.width(index)?;
        if let Some(term) = self.overrides.get(self.insn.ip(), index) {
            if self.arena.width(term) < width {
                return self.unsupported("the term given for its immediate is narrower than the operand");
            }
            return Ok(self.arena.extract(term, width - 1, 0));
        }
        Ok(self.arena.constant(u128::from(self.insn.immediate(index)), width))
    }

    /// Writes operand `index`; the value has its width.
    pub fn write(&mut self, index: u32, value: Term) -> Result<()> {
        let insn = self.insn;
        match insn.op_kind(index) {
            OpKind::Register => self.set_register(insn.op_register(index), value),
            OpKind::Memory => {
                let address = self.address(index, true)?;
                self.save(address, value);
                Ok(())
            }
            _ => self.unsupported("destination that is no register and no memory"),
        }
    }

    pub fn register(&mut self, register: Register) -> Result<Term> {
        match self.state.read(self.arena, register) {
            Some(term) => Ok(term),
            None => self.unsupported("register that is not a general one"),
        }
    }

    pub fn set_register(&mut self, register: Register, value: Term) -> Result<()> {
        match self.state.write(self.arena, register, value) {
            Some(()) => Ok(()),
            None => self.unsupported("register that is not a general one"),
        }
    }

    /// The 64-bit address of memory operand `index`, with the segment's base if `segment`.
    pub fn address(&mut self, index: u32, segment: bool) -> Result<Term> {
        let nothing = self.arena.constant(0, 64);
        self.address_of(index, segment, nothing)
    }

    /// The address `distance` (64 bits) from the first operand, before it is cut to the address size.
    pub fn address_with_offset(&mut self, distance: Term) -> Result<Term> {
        self.address_of(0, true, distance)
    }

    fn address_of(&mut self, index: u32, segment: bool, distance: Term) -> Result<Term> {
        let insn = self.insn;
        let replaced = self.overrides.get(insn.ip(), index);
        if let Some(term) = replaced
            && self.arena.width(term) != 64
        {
            return self.unsupported("the term given for its displacement does not have 64 bits");
        }
        let mut address = match replaced {
            Some(term) => term,
            None => self.arena.constant(u128::from(insn.memory_displacement64()), 64),
        };
        address = self.arena.add(address, distance);
        let (base, index_register) = (insn.memory_base(), insn.memory_index());
        let mut short = base == Register::EIP;
        // iced's displacement of a RIP-relative operand is the address itself.
        if base != Register::None && !base.is_ip() {
            let value = self.address_part(base, &mut short)?;
            address = self.arena.add(address, value);
        }
        if index_register != Register::None {
            let value = self.address_part(index_register, &mut short)?;
            let scaled = self.arena.scale(value, u128::from(insn.memory_index_scale()));
            address = self.arena.add(address, scaled);
        }
        if short {
            let low = self.arena.extract(address, 31, 0);
            address = self.arena.zext(low, 64);
        }
        if segment {
            address = match insn.memory_segment() {
                Register::FS => self.arena.add(address, self.state.fs_base),
                Register::GS => self.arena.add(address, self.state.gs_base),
                _ => address,
            };
        }
        Ok(address)
    }

    fn address_part(&mut self, register: Register, short: &mut bool) -> Result<Term> {
        *short |= register.is_gpr32();
        let value = self.register(register)?;
        Ok(self.arena.zext(value, 64))
    }

    fn record(&mut self, address: Term, bytes: u32, write: bool) {
        let locked = self.insn.has_lock_prefix() || is_implicitly_locked(self.insn);
        let access = Access { ip: self.insn.ip(), address, bytes, write, locked };
        if self.state.accesses.last() != Some(&access) {
            self.state.accesses.push(access);
        }
    }

    pub fn load(&mut self, address: Term, bytes: u32) -> Result<Term> {
        self.record(address, bytes, false);
        let memory = match self.frame_of(address) {
            Some(frame) => frame.memory,
            None => self.state.memory,
        };
        Ok(self.arena.load_bytes(memory, address, bytes))
    }

    /// The frame, if the address lies in it.
    fn frame_of(&mut self, address: Term) -> Option<Frame> {
        let frame = self.state.frame?;
        let distance = self.arena.sub(address, frame.base);
        self.arena.as_constant(distance).map(|_| frame)
    }

    pub fn save(&mut self, address: Term, value: Term) {
        self.record(address, self.arena.width(value) / 8, true);
        match self.frame_of(address) {
            Some(frame) => {
                let memory = self.arena.store_bytes(frame.memory, address, value);
                self.state.frame = Some(Frame { memory, ..frame });
            }
            None => self.state.memory = self.arena.store_bytes(self.state.memory, address, value),
        }
    }

    /// A term for a result that the architecture leaves undefined.
    pub fn undefined(&mut self, what: &str, inputs: &[Term], width: u32) -> Term {
        self.state.undefined(self.arena, self.insn, what, inputs, width)
    }

    /// Makes flags undefined.
    pub fn undefine(&mut self, flags: &[Flag], inputs: &[Term]) {
        for &flag in flags {
            let value = self.undefined(flag.name(), inputs, 1);
            self.state.flags.set(flag, value);
        }
    }

    /// SF, ZF and PF as the result says.
    pub fn set_result_flags(&mut self, result: Term) {
        let zero = self.arena.constant(0, self.arena.width(result));
        self.state.flags.zf = self.arena.eq(result, zero);
        self.state.flags.sf = self.arena.sign(result);
        let low = self.arena.extract(result, 7, 0);
        self.state.flags.pf = self.arena.parity(low);
    }
}

/// `xchg` with memory locks by itself.
fn is_implicitly_locked(insn: &Instruction) -> bool {
    matches!(insn.code(), Code::Xchg_rm8_r8 | Code::Xchg_rm16_r16 | Code::Xchg_rm32_r32 | Code::Xchg_rm64_r64)
}
