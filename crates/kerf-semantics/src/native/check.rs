//! The differential check: random states, run natively and evaluated symbolically, compared in everything defined.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::machine::{Concrete, DATA_BYTES, Machine, NativeError, Program};
use super::random::Random;
use crate::state::location;

/// States tried in search of one in which the code neither traps nor leaves the data page.
const TRIES: usize = 200;

/// Why a check did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The processor and the symbolic engine disagree.
    #[error(transparent)]
    Mismatch(#[from] Box<Mismatch>),
    /// The code cannot be run here.
    #[error(transparent)]
    Native(#[from] NativeError),
    /// No state was found in which the code runs through.
    #[error("no state found in which `{code}` runs through; the last one failed because: {last}")]
    NoState {
        /// The code, disassembled.
        code: String,
        /// What was wrong with the last state.
        last: NativeError,
    },
}

/// One difference between this processor and the symbolic engine.
#[derive(Debug, thiserror::Error)]
#[error("`{code}`: {what} is {native:#x} on this processor, {symbolic:#x} by the semantics; it started from {start}")]
pub struct Mismatch {
    /// The code, disassembled.
    pub code: String,
    /// The register, flag or offset into the data page.
    pub what: String,
    /// What the processor gave.
    pub native: u64,
    /// What the engine gave.
    pub symbolic: u64,
    /// The registers and flags before.
    pub start: String,
}

/// Runs straight-line code on `rounds` random states and compares every register, every defined flag and the data
/// page with the semantics.
///
/// # Errors
/// [`CheckError::Mismatch`] for a difference; the others say that the code could not be checked.
pub fn check(code: &[u8], seed: u64, rounds: usize) -> Result<(), CheckError> {
    check_with(&mut Machine::new()?, code, seed, rounds)
}

/// As [`check`], in pages that are there already.
///
/// # Errors
/// As [`check`].
pub fn check_with(machine: &mut Machine, code: &[u8], seed: u64, rounds: usize) -> Result<(), CheckError> {
    let program = machine.load(code)?;
    let mut random = Random::new(seed);
    for _ in 0..rounds {
        let (start, end) = run_somewhere(machine, &program, &mut random)?;
        compare(machine, &program, &start, &end)?;
    }
    Ok(())
}

fn describe(program: &Program) -> String {
    program.instructions().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A random state from which the code runs through, and the state that it leaves.
fn run_somewhere(
    machine: &mut Machine,
    program: &Program,
    random: &mut Random,
) -> Result<(Concrete, Concrete), CheckError> {
    let mut last = NativeError::Trap;
    for _ in 0..TRIES {
        let mut start = Concrete {
            gpr: std::array::from_fn(|_| random.value()),
            flags: std::array::from_fn(|_| random.below(2) == 1),
            data: Box::new(std::array::from_fn(|_| 0)),
        };
        fill(&mut start.data, random);
        for insn in program.instructions().iter().rev() {
            aim(insn, &mut start.gpr, machine.data(), random);
        }
        match machine.run(program, &start) {
            Ok(end) => return Ok((start, end)),
            Err(error @ (NativeError::Trap | NativeError::Outside { .. })) => last = error,
            Err(error) => return Err(error.into()),
        }
    }
    Err(CheckError::NoState { code: describe(program), last })
}

fn fill(data: &mut [u8; DATA_BYTES], random: &mut Random) {
    // Aligned and unaligned edges, so that operands from memory are as pointed as those from registers.
    for chunk in data.chunks_exact_mut(8) {
        chunk.copy_from_slice(&random.value().to_le_bytes());
    }
}

/// Changes registers so that the instruction's memory operand lies in the data page.
fn aim(insn: &Instruction, gpr: &mut [u64; 16], data: u64, random: &mut Random) {
    let target = data + 128 + 8 * random.below(DATA_BYTES as u64 / 8 - 32);
    let number = |register: Register| location(register).map(|(number, ..)| number);
    if insn.is_stack_instruction() {
        let register = if insn.mnemonic() == Mnemonic::Leave { Register::RBP } else { Register::RSP };
        if let Some(number) = number(register) {
            gpr[number] = target;
        }
    }
    if !insn.op_kinds().any(|kind| kind == OpKind::Memory) || insn.mnemonic() == Mnemonic::Lea {
        return;
    }
    let displacement = insn.memory_displacement64();
    let scale = u64::from(insn.memory_index_scale());
    let wanted = target.wrapping_sub(displacement);
    match (number(insn.memory_base()), number(insn.memory_index())) {
        (Some(base), Some(index)) if base == index => gpr[base] = wanted / (scale + 1),
        (Some(base), Some(index)) => {
            // The index matters to what is tested only through the address, small or large.
            let scaled = gpr[index].wrapping_mul(scale);
            gpr[base] = wanted.wrapping_sub(scaled);
        }
        (Some(base), None) => gpr[base] = wanted,
        (None, Some(index)) => gpr[index] = wanted / scale,
        (None, None) => {}
    }
    if insn.memory_base().is_gpr32() || insn.memory_index().is_gpr32() {
        for register in [insn.memory_base(), insn.memory_index()] {
            if let Some(number) = number(register) {
                gpr[number] = (gpr[number] & 0xffff_ffff) | random.next() << 32;
            }
        }
    }
}

fn compare(machine: &Machine, program: &Program, start: &Concrete, end: &Concrete) -> Result<(), CheckError> {
    let assignment = machine.assignment(start);
    // What depends on an undefined result shows two values when these get two.
    let other = assignment.clone().with_missing(u128::MAX);
    let (mut low, mut high) = (program.arena().evaluator(&assignment), program.arena().evaluator(&other));
    let mismatch = |what: String, native: u64, symbolic: u64| {
        let code = describe(program);
        let start = format!("registers {:x?}, flags {:?}", start.gpr, start.flags);
        Err(CheckError::from(Box::new(Mismatch { code, what, native, symbolic, start })))
    };
    let native = end.gpr.into_iter().chain(end.flags.map(u64::from));
    for ((name, term), native) in program.results().into_iter().zip(native) {
        let (first, second) = (low.value(term) as u64, high.value(term) as u64);
        // Bits that agree are defined, whatever becomes of the others.
        let defined = !(first ^ second);
        if native & defined != first & defined {
            return mismatch(name.to_owned(), native, first);
        }
    }
    let mut expected = start.data.clone();
    let (written, unknown) = (low.written(program.end().memory), high.written(program.end().memory));
    for (address, byte) in written {
        let offset = address.wrapping_sub(machine.data()) as usize;
        if let Some(slot) = expected.get_mut(offset) {
            let defined = !(byte ^ unknown.get(&address).copied().unwrap_or(!byte));
            *slot = (byte & defined) | (end.data[offset] & !defined);
        }
    }
    for (offset, (&wanted, &got)) in expected.iter().zip(end.data.iter()).enumerate() {
        if wanted != got {
            return mismatch(format!("data byte {offset:#x}"), got.into(), wanted.into());
        }
    }
    Ok(())
}
