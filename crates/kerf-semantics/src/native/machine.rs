//! Running code on this processor: decoding and admitting it, loading a state, and taking the state that comes out.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use iced_x86::{
    Code, CpuidFeature, Decoder, DecoderOptions, Encoder, FlowControl, IcedError, Instruction, InstructionInfoFactory,
    MemoryOperand, OpKind, Register,
};

use super::page::{PAGE, Pages};
use crate::error::Unsupported;
use crate::eval::{Assignment, Evaluator};
use crate::execute::step;
use crate::operand::Overrides;
use crate::state::{FLAG_NAMES, Flag, MEMORY_NAME, REGISTER_NAMES, State};
use crate::term::{Arena, Term};

/// Bytes of the data page.
pub const DATA_BYTES: usize = PAGE;

/// Slots of the register page.
const IN_FLAGS: usize = 16;
const OUT_GPR: usize = 32;
const OUT_FLAGS: usize = 48;
const HOST_STACK: usize = 50;

/// The bit of `rflags` that is always set, and the interrupt flag.
const FLAGS_BASE: u64 = 0x202;

/// A concrete machine state: what goes in and what comes out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Concrete {
    /// The general registers by their number in encodings.
    pub gpr: [u64; 16],
    /// The status flags, in the order of [`Flag::ALL`].
    pub flags: [bool; 6],
    /// The data page.
    pub data: Box<[u8; DATA_BYTES]>,
}

/// Why code is not run.
#[derive(Debug, thiserror::Error)]
pub enum NativeError {
    /// The bytes are not a sequence of whole instructions.
    #[error("bytes {0:02x?} are not whole x86-64 instructions")]
    Decode(Vec<u8>),
    /// The instruction would leave the code, change the system, or reach what is not ours.
    #[error("`{text}` is not run natively: {reason}")]
    Refused {
        /// The instruction, disassembled.
        text: String,
        /// Why.
        reason: &'static str,
    },
    /// The symbolic engine does not know the instruction, so nothing says that it is harmless.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// An access of this state would lie outside of the data page.
    #[error("the access of {bytes} bytes at {address:#x} by the instruction at {ip:#x} lies outside of the data page")]
    Outside {
        /// Address of the instruction.
        ip: u64,
        /// Address of the access.
        address: u64,
        /// Its size.
        bytes: u32,
    },
    /// The program is not the one that this machine loaded last.
    #[error("the program is not the one loaded last; load it again")]
    NotLoaded,
    /// The code would raise an exception in this state.
    #[error("a division raises an exception in this state")]
    Trap,
    /// An operand cannot be made to point at the data page.
    #[error("`{text}` cannot be encoded again with its operand in the data page: {source}")]
    Encode {
        /// The instruction, disassembled.
        text: String,
        /// What the encoder said.
        source: IcedError,
    },
    /// The system refuses the pages.
    #[error("cannot get pages to run code in: {0}; is there a policy against executable memory?")]
    Pages(#[from] rustix::io::Errno),
}

/// Pages to run code in.
pub struct Machine {
    pages: Pages,
    /// Number of the program that the code page holds, different for all programs of the process.
    loaded: u64,
}

/// Straight-line code that was admitted, with what the symbolic engine says about it.
pub struct Program {
    // Not public: that only what was admitted runs rests on these.
    instructions: Vec<Instruction>,
    arena: Arena,
    end: State,
    number: u64,
}

impl Machine {
    /// Maps the pages.
    ///
    /// # Errors
    /// The system gives no memory below 2 GiB or none that can be executed.
    pub fn new() -> Result<Self, NativeError> {
        Ok(Self { pages: Pages::map()?, loaded: 0 })
    }

    /// Address of the data page of [`DATA_BYTES`] bytes.
    pub fn data(&self) -> u64 {
        self.pages.data()
    }

    /// Admits code and makes it the one that [`run`](Self::run) runs. Memory operands at fixed addresses, relative to
    /// the instruction or absolute, are moved to the data page.
    ///
    /// # Errors
    /// Anything but straight-line code of instructions that the symbolic engine knows and this processor has.
    pub fn load(&mut self, bytes: &[u8]) -> Result<Program, NativeError> {
        let mut code = Code64::new(self.pages.code());
        self.enter(&mut code)?;
        let mut instructions = Vec::new();
        let mut decoder = Decoder::new(64, bytes, DecoderOptions::NONE);
        while decoder.can_decode() {
            let insn = decoder.decode();
            if insn.is_invalid() {
                return Err(NativeError::Decode(bytes.to_vec()));
            }
            admit(&insn)?;
            let insn = self.aim_at_data(insn);
            instructions.push(code.push(insn)?);
        }
        self.leave(&mut code)?;
        let mut arena = Arena::new();
        let mut end = State::symbolic(&mut arena);
        // User space has no base in gs; what stands in fs belongs to the C library.
        end.gs_base = arena.constant(0, 64);
        for insn in &instructions {
            step(&mut arena, &mut end, insn, &Overrides::new())?;
        }
        static PROGRAMS: AtomicU64 = AtomicU64::new(0);
        let number = PROGRAMS.fetch_add(1, Ordering::Relaxed) + 1;
        // If filling the page fails half way, no program is the loaded one.
        self.loaded = 0;
        self.pages.set_code(&code.bytes)?;
        self.loaded = number;
        Ok(Program { instructions, arena, end, number })
    }

    /// Runs `program`, the one loaded last, from `start`.
    ///
    /// # Errors
    /// It would trap in this state or touch memory outside of the data page, or another was loaded since.
    pub fn run(&mut self, program: &Program, start: &Concrete) -> Result<Concrete, NativeError> {
        if program.number != self.loaded {
            return Err(NativeError::NotLoaded);
        }
        let assignment = self.assignment(start);
        self.check_accesses(program, &mut program.arena.evaluator(&assignment))?;
        for (number, &value) in start.gpr.iter().enumerate() {
            self.pages.set_slot(number, value);
        }
        let flags = Flag::ALL.iter().zip(start.flags).filter(|&(_, set)| set);
        self.pages.set_slot(IN_FLAGS, flags.fold(FLAGS_BASE, |bits, (flag, _)| bits | 1 << flag.rflags_bit()));
        self.pages.set_data(&start.data);
        self.pages.call();
        let mut data = Box::new([0; DATA_BYTES]);
        self.pages.copy_data(&mut data);
        let out = self.pages.slot(OUT_FLAGS);
        Ok(Concrete {
            gpr: std::array::from_fn(|number| self.pages.slot(OUT_GPR + number)),
            flags: Flag::ALL.map(|flag| out >> flag.rflags_bit() & 1 == 1),
            data,
        })
    }

    /// The variables of [`State::symbolic`] for a concrete state.
    pub fn assignment(&self, state: &Concrete) -> Assignment {
        let mut assignment = Assignment::new();
        for (name, value) in REGISTER_NAMES.iter().zip(state.gpr) {
            assignment.set(name, u128::from(value));
        }
        for (name, value) in FLAG_NAMES.iter().zip(state.flags) {
            assignment.set(name, u128::from(value));
        }
        assignment.set_block(MEMORY_NAME, self.data(), state.data.as_slice());
        assignment
    }

    fn check_accesses(&self, program: &Program, values: &mut Evaluator) -> Result<(), NativeError> {
        if values.value(program.end.trap) != 0 {
            return Err(NativeError::Trap);
        }
        for access in &program.end.accesses {
            let address = values.value(access.address) as u64;
            let offset = address.wrapping_sub(self.data());
            if offset > DATA_BYTES as u64 - u64::from(access.bytes) {
                return Err(NativeError::Outside { ip: access.ip, address, bytes: access.bytes });
            }
        }
        Ok(())
    }

    fn slot(&self, slot: usize) -> MemoryOperand {
        MemoryOperand::with_base_displ(Register::RIP, (self.pages.registers() + 8 * slot as u64) as i64)
    }

    /// Saves what a C function has to, then loads all registers and flags.
    fn enter(&self, code: &mut Code64) -> Result<(), NativeError> {
        for register in SAVED {
            code.push(build(Instruction::with1(Code::Push_r64, register))?)?;
        }
        code.push(build(Instruction::with2(Code::Mov_rm64_r64, self.slot(HOST_STACK), Register::RSP))?)?;
        code.push(build(Instruction::with1(Code::Push_rm64, self.slot(IN_FLAGS)))?)?;
        code.push(Instruction::with(Code::Popfq))?;
        for (number, register) in gprs() {
            code.push(build(Instruction::with2(Code::Mov_r64_rm64, register, self.slot(number)))?)?;
        }
        Ok(())
    }

    /// Stores all registers and flags, then returns as a C function.
    fn leave(&self, code: &mut Code64) -> Result<(), NativeError> {
        for (number, register) in gprs() {
            code.push(build(Instruction::with2(Code::Mov_rm64_r64, self.slot(OUT_GPR + number), register))?)?;
        }
        code.push(build(Instruction::with2(Code::Mov_r64_rm64, Register::RSP, self.slot(HOST_STACK)))?)?;
        code.push(Instruction::with(Code::Pushfq))?;
        code.push(build(Instruction::with1(Code::Pop_rm64, self.slot(OUT_FLAGS)))?)?;
        for register in SAVED.into_iter().rev() {
            code.push(build(Instruction::with1(Code::Pop_r64, register))?)?;
        }
        code.push(Instruction::with(Code::Retnq))?;
        Ok(())
    }

    /// Gives memory operands without registers an address in the data page.
    fn aim_at_data(&self, mut insn: Instruction) -> Instruction {
        let memory = insn.op_kinds().any(|kind| kind == OpKind::Memory);
        let fixed = insn.is_ip_rel_memory_operand()
            || insn.memory_base() == Register::None && insn.memory_index() == Register::None;
        if memory && fixed {
            let offset = insn.memory_displacement64() % (DATA_BYTES as u64 - 64);
            insn.set_memory_displacement64(self.data() + offset);
        }
        insn
    }
}

const SAVED: [Register; 6] = [Register::RBX, Register::RBP, Register::R12, Register::R13, Register::R14, Register::R15];

fn gprs() -> impl Iterator<Item = (usize, Register)> {
    (0..16u32).map(|number| (number as usize, Register::RAX + number))
}

/// An instruction of our own frame.
fn build(insn: Result<Instruction, IcedError>) -> Result<Instruction, NativeError> {
    insn.map_err(|source| NativeError::Encode { text: "frame".to_owned(), source })
}

/// Code being written at an address.
struct Code64 {
    base: u64,
    bytes: Vec<u8>,
}

impl Code64 {
    fn new(base: u64) -> Self {
        Self { base, bytes: Vec::new() }
    }

    /// Encodes an instruction here; the result is what was encoded, at its address.
    fn push(&mut self, mut insn: Instruction) -> Result<Instruction, NativeError> {
        let ip = self.base + self.bytes.len() as u64;
        let mut encoder = Encoder::new(64);
        let length =
            encoder.encode(&insn, ip).map_err(|source| NativeError::Encode { text: insn.to_string(), source })?;
        self.bytes.append(&mut encoder.take_buffer());
        insn.set_ip(ip);
        insn.set_len(length);
        insn.set_next_ip(ip + length as u64);
        Ok(insn)
    }
}

/// Refuses what must not run here whatever the state.
fn admit(insn: &Instruction) -> Result<(), NativeError> {
    let refuse = |reason| Err(NativeError::Refused { text: insn.to_string(), reason });
    if insn.flow_control() != FlowControl::Next {
        return refuse("it transfers control");
    }
    if insn.is_privileged() {
        return refuse("it is privileged");
    }
    let info = InstructionInfoFactory::new().info(insn).clone();
    if info.used_memory().iter().any(|used| used.segment() == Register::FS) {
        return refuse("fs belongs to the C library");
    }
    let present = features();
    if insn.cpuid_features().iter().any(|feature| !present.contains(feature)) {
        return refuse("this processor does not have it");
    }
    Ok(())
}

/// The features that instructions of the modelled set can need and this processor has.
fn features() -> HashSet<CpuidFeature> {
    use CpuidFeature as F;
    let mut present: HashSet<F> = [
        F::INTEL8086,
        F::INTEL186,
        F::INTEL286,
        F::INTEL386,
        F::INTEL486,
        F::X64,
        F::CMOV,
        F::SSE,
        F::SSE2,
        F::MULTIBYTENOP,
        F::PAUSE,
        F::CET_IBT,
    ]
    .into();
    let optional = [
        (F::BMI1, std::arch::is_x86_feature_detected!("bmi1")),
        (F::BMI2, std::arch::is_x86_feature_detected!("bmi2")),
        (F::LZCNT, std::arch::is_x86_feature_detected!("lzcnt")),
        (F::POPCNT, std::arch::is_x86_feature_detected!("popcnt")),
    ];
    present.extend(optional.iter().filter(|&&(_, there)| there).map(|&(feature, _)| feature));
    present
}

impl Program {
    /// The instructions as they run, at their addresses.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// The terms of [`end`](Self::end).
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// The state after the last instruction, from [`State::symbolic`].
    pub fn end(&self) -> &State {
        &self.end
    }

    /// The terms that a run has to agree with, with their names.
    pub fn results(&self) -> Vec<(&'static str, Term)> {
        let registers = REGISTER_NAMES.into_iter().zip(self.end.gpr);
        let flags = Flag::ALL.into_iter().map(|flag| (flag.name(), self.end.flags.get(flag)));
        registers.chain(flags).collect()
    }
}
