//! Hunks: where two compilations of one function differ, once their instructions are aligned.

use std::collections::BTreeMap;
use std::ops::Range;

use iced_x86::{Instruction, Mnemonic, OpKind};
use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::code::{Function, Insn, Place};

/// A number inside an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// The immediate operand.
    Immediate,
    /// The displacement of the memory operand.
    Displacement,
    /// What the instruction multiplies or divides by ([`crate::operation`]): no field of its own holds it.
    Factor,
    /// The same, where the instruction has two registers and the second is the one that is multiplied.
    Second,
}

impl Slot {
    /// Whether it is what an instruction multiplies or divides by.
    pub fn is_factor(self) -> bool {
        matches!(self, Slot::Factor | Slot::Second)
    }
}

/// What an instruction does, apart from numbers in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Shape {
    mnemonic: Mnemonic,
    prefixes: (bool, bool, bool),
    operands: Vec<(u8, u16)>,
    memory: Option<(u16, u16, u32, u16, u32)>,
    places: Vec<Place>,
    patched: bool,
}

impl Shape {
    fn new(insn: &Insn) -> Shape {
        let i = &insn.insn;
        if insn.patched {
            // A static key's site is a jump or a NOP by turns; only that it is one counts.
            return Shape {
                mnemonic: Mnemonic::Nop,
                prefixes: (false, false, false),
                operands: Vec::new(),
                memory: None,
                places: Vec::new(),
                patched: true,
            };
        }
        let operands = (0..i.op_count()).map(|n| operand_shape(i, n)).collect();
        let has_memory = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory);
        let memory = has_memory.then(|| {
            let size = u32::try_from(i.memory_size().size()).unwrap_or(0);
            (i.memory_base() as u16, i.memory_index() as u16, i.memory_index_scale(), i.memory_segment() as u16, size)
        });
        Shape {
            mnemonic: i.mnemonic(),
            prefixes: (i.has_lock_prefix(), i.has_rep_prefix(), i.has_repne_prefix()),
            operands,
            memory,
            places: insn.references.iter().map(|r| r.place.clone()).collect(),
            patched: false,
        }
    }
}

fn operand_shape(i: &Instruction, n: u32) -> (u8, u16) {
    match i.op_kind(n) {
        OpKind::Register => (0, i.op_register(n) as u16),
        OpKind::Memory => (1, 0),
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => (2, 0),
        kind if is_immediate(kind) => (3, 0),
        kind => (4, kind as u16),
    }
}

/// Whether an operand is an immediate of any width.
pub fn is_immediate(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Immediate8
            | OpKind::Immediate8_2nd
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
    )
}

/// Index of the immediate operand of an instruction.
pub fn immediate_operand(i: &Instruction) -> Option<u32> {
    (0..i.op_count()).find(|n| is_immediate(i.op_kind(*n)))
}

/// The numbers of an instruction that are not relocated, sign-extended to 64 bits.
pub fn numbers(insn: &Insn) -> Vec<(Slot, i64)> {
    if insn.patched {
        return Vec::new();
    }
    let i = &insn.insn;
    let mut found = Vec::new();
    let relocated =
        |size: usize, at: usize| insn.references.iter().any(|r| r.offset >= at && r.offset < at + size.max(1));
    let offsets = iced_x86::Decoder::new(64, &insn.bytes, iced_x86::DecoderOptions::NONE).get_constant_offsets(i);
    if let Some(n) = immediate_operand(i)
        && !relocated(offsets.immediate_size(), offsets.immediate_offset())
    {
        found.push((Slot::Immediate, immediate_value(i, n)));
    }
    if (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory) {
        let at = offsets.displacement_offset();
        let linked = offsets.has_displacement() && relocated(offsets.displacement_size(), at);
        if !linked && !i.is_ip_rel_memory_operand() {
            found.push((Slot::Displacement, i.memory_displacement64() as i64));
        }
    }
    found
}

/// One number of an instruction, or what it multiplies or divides by.
pub fn number(insn: &Insn, slot: Slot) -> Option<i64> {
    match slot {
        Slot::Factor | Slot::Second => crate::operation::placed(&insn.insn, slot).map(|o| o.factor),
        _ => numbers(insn).into_iter().find(|(s, _)| *s == slot).map(|(_, n)| n),
    }
}

/// An immediate sign-extended from its operand's width to 64 bits.
fn immediate_value(i: &Instruction, n: u32) -> i64 {
    match i.op_kind(n) {
        OpKind::Immediate8 | OpKind::Immediate8_2nd => i64::from(i.immediate8() as i8),
        OpKind::Immediate16 => i64::from(i.immediate16() as i16),
        OpKind::Immediate32 => i64::from(i.immediate32() as i32),
        OpKind::Immediate8to16 => i64::from(i.immediate8to16()),
        OpKind::Immediate8to32 => i64::from(i.immediate8to32()),
        OpKind::Immediate8to64 => i.immediate8to64(),
        OpKind::Immediate32to64 => i.immediate32to64(),
        _ => i.immediate64() as i64,
    }
}

/// How many bits of an immediate matter to the operation.
pub fn slot_bits(i: &Instruction, slot: Slot) -> u32 {
    match slot {
        Slot::Displacement if i.mnemonic() == Mnemonic::Lea => i.op0_register().size() as u32 * 8,
        Slot::Displacement => 64,
        Slot::Factor | Slot::Second => i.op0_register().size() as u32 * 8,
        Slot::Immediate => {
            let shift = matches!(
                i.mnemonic(),
                Mnemonic::Shl
                    | Mnemonic::Shr
                    | Mnemonic::Sar
                    | Mnemonic::Rol
                    | Mnemonic::Ror
                    | Mnemonic::Shld
                    | Mnemonic::Shrd
            );
            if shift {
                return 8;
            }
            match i.op0_kind() {
                OpKind::Register => i.op0_register().size() as u32 * 8,
                OpKind::Memory => (i.memory_size().size() as u32 * 8).max(8),
                _ => 64,
            }
        }
    }
}

/// A number that differs at the same place of two compilations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberChange {
    /// Index of the instruction in the base function, NOPs counted.
    pub index: usize,
    /// Which number.
    pub slot: Slot,
    /// In the base.
    pub base: i64,
    /// In the variant.
    pub variant: i64,
}

/// The difference between two compilations of one function.
#[derive(Clone, Debug, Default)]
pub struct Difference {
    /// Numbers that changed in instructions that otherwise stayed.
    pub numbers: Vec<NumberChange>,
    /// Instruction ranges (base, variant) that do not correspond.
    pub hunks: Vec<(Range<usize>, Range<usize>)>,
    /// Corresponding instructions: base index to variant index.
    pub pairs: BTreeMap<usize, usize>,
    /// Corresponding branches whose targets do not correspond, by base index.
    pub branches: Vec<usize>,
}

impl Difference {
    /// Nothing differs but alignment.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty() && self.same_shape()
    }

    /// Only numbers differ.
    pub fn same_shape(&self) -> bool {
        self.hunks.is_empty() && self.branches.is_empty()
    }
}

/// Aligns a variant with the base and lists what differs. NOPs are ignored: they only align.
pub fn compare(base: &Function, variant: &Function) -> Difference {
    let (base_index, base_shapes) = shapes(base);
    let (variant_index, variant_shapes) = shapes(variant);
    let mut difference = Difference::default();
    let at = |index: &[usize], i: usize, f: &Function| index.get(i).copied().unwrap_or(f.code.len());
    for op in capture_diff_slices(Algorithm::Myers, &base_shapes, &variant_shapes) {
        match op {
            DiffOp::Equal { old_index, new_index, len } => {
                for k in 0..len {
                    difference.pairs.insert(base_index[old_index + k], variant_index[new_index + k]);
                }
            }
            other => {
                let (old, new) = (other.old_range(), other.new_range());
                let range = |index: &[usize], r: Range<usize>, f: &Function| {
                    let start = at(index, r.start, f);
                    start..if r.is_empty() { start } else { index[r.end - 1] + 1 }
                };
                difference.hunks.push((range(&base_index, old, base), range(&variant_index, new, variant)));
            }
        }
    }
    let pairs = difference.pairs.clone();
    for (b, v) in &pairs {
        compare_pair(base, variant, *b, *v, &pairs, &mut difference);
    }
    difference
}

fn shapes(function: &Function) -> (Vec<usize>, Vec<Shape>) {
    function.code.iter().enumerate().filter(|(_, i)| !i.is_nop()).map(|(n, i)| (n, Shape::new(i))).unzip()
}

fn compare_pair(
    base: &Function,
    variant: &Function,
    b: usize,
    v: usize,
    pairs: &BTreeMap<usize, usize>,
    out: &mut Difference,
) {
    let (old, new) = (&base.code[b], &variant.code[v]);
    let before: BTreeMap<Slot, i64> = numbers(old).into_iter().collect();
    let after: BTreeMap<Slot, i64> = numbers(new).into_iter().collect();
    for (slot, value) in &before {
        let other = after.get(slot).copied().unwrap_or(0);
        if other != *value {
            out.numbers.push(NumberChange { index: b, slot: *slot, base: *value, variant: other });
        }
    }
    if old.patched {
        return;
    }
    if let (Some(x), Some(y)) = (old.branch_target(), new.branch_target()) {
        let here = landing(base, x);
        let there = landing(variant, y);
        let same = match (here, there) {
            (Some(h), Some(t)) => pairs.get(&h) == Some(&t) || (h == base.code.len() && t == variant.code.len()),
            (None, None) => x == y,
            _ => false,
        };
        if !same {
            out.branches.push(b);
        }
    }
}

/// Index of the first instruction at or after an offset that is not padding.
pub fn landing(function: &Function, offset: u64) -> Option<usize> {
    let start = function.code.binary_search_by_key(&offset, |i| i.offset()).ok()?;
    Some((start..function.code.len()).find(|n| !function.code[*n].is_nop()).unwrap_or(function.code.len()))
}
