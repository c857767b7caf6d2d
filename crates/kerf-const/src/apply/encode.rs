//! One instruction with another number: the forms that the kernel module knows, encoded byte by byte.
//!
//! The module compares prefixes and operands of the new instruction with the stock one's, so nothing is left to an encoder's
//! taste. What was encoded is decoded again and compared.

use iced_x86::{ConstantOffsets, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

use crate::align::{self, Slot};
use crate::entry::SlotName;
use crate::form::wrap;
use crate::operation::{self, Kind, Operation};

/// The number of an instruction, sign-extended to 64 bits.
pub(super) fn number(insn: &Instruction, slot: Slot) -> Option<i64> {
    match slot {
        Slot::Immediate => {
            let operand = align::immediate_operand(insn)?;
            let value = insn.try_immediate(operand).ok()?;
            Some(wrap(value.into(), align::slot_bits(insn, slot)))
        }
        Slot::Displacement => {
            let memory = (0..insn.op_count()).any(|n| insn.op_kind(n) == OpKind::Memory);
            memory.then(|| insn.memory_displacement64() as i64)
        }
        Slot::Factor | Slot::Second => operation::placed(insn, slot).map(|o| o.factor),
    }
}

/// Refuses numbers that an instruction would take for another one.
pub(crate) fn sensible(insn: &Instruction, slot: Slot, want: i64) -> Result<(), String> {
    let shift = matches!(
        insn.mnemonic(),
        Mnemonic::Shl | Mnemonic::Shr | Mnemonic::Sar | Mnemonic::Rol | Mnemonic::Ror | Mnemonic::Shld | Mnemonic::Shrd
    );
    let width = match insn.op0_kind() {
        OpKind::Register => insn.op0_register().size(),
        _ => insn.memory_size().size(),
    } as i64
        * 8;
    if slot == Slot::Immediate && shift && !(0..width).contains(&want) {
        return Err(format!("a shift of {width} bits by {want} means another one to the processor"));
    }
    if slot.is_factor() && want < 1 {
        return Err(format!("an operation by {want} is not one that was proved"));
    }
    Ok(())
}

/// An instruction for a trampoline, with other numbers. Branches get 32-bit distances, which the module fills in. An
/// operation may take several instructions and the `scratch` registers.
pub(super) fn moved(
    insn: &Instruction,
    bytes: &[u8],
    wanted: &[(SlotName, i64)],
    scratch: &[Register],
) -> Result<Vec<u8>, String> {
    let asked = |slot: SlotName| wanted.iter().find(|(s, _)| *s == slot).map(|(_, want)| *want);
    if let Some((slot, factor)) = wanted.iter().find(|(slot, _)| slot.is_factor()).copied() {
        let deployed =
            operation::placed(insn, slot.into()).ok_or_else(|| format!("`{}` is no operation", align_text(insn)))?;
        let addend = asked(SlotName::Displacement).unwrap_or(deployed.addend);
        return operation(insn, &Operation { factor, addend, ..deployed }, scratch);
    }
    if !matches!(insn.flow_control(), FlowControl::Next) {
        return branch(insn, bytes);
    }
    let mut new = bytes.to_vec();
    for (slot, want) in wanted {
        new = rewritten(&new, *slot, *want)?;
    }
    check(insn, &new, wanted).map(|()| new)
}

/// The instructions that do an operation in the place of a deployed one, in the forms that the module knows.
///
/// # Errors
/// The number does not fit, or a division has not enough free registers.
pub(crate) fn operation(insn: &Instruction, wanted: &Operation, scratch: &[Register]) -> Result<Vec<u8>, String> {
    let wide = wanted.bits() == 64;
    let (target, source) = (wanted.target.number() as u8, wanted.source.number() as u8);
    if wanted.kind == Kind::Divide {
        return division(insn, wanted, scratch);
    }
    // 32-bit products are the same for factors that differ by a multiple of 2^32.
    let field = |number: i64| {
        let cut = if wide { number } else { wrap(number.into(), 32) };
        i32::try_from(cut).map_err(|_| format!("{number} does not fit the 32 bits of a multiplication"))
    };
    let mut code = registers(wide, 0x69, target, source);
    code.extend(field(wanted.factor)?.to_le_bytes());
    if wanted.addend != 0 {
        code.extend(registers(wide, 0x81, 0, target));
        code.extend(field(wanted.addend)?.to_le_bytes());
    }
    Ok(code)
}

/// `mov target, %rax; xor %edx, %edx; mov $divisor, scratch; div scratch; mov %rax, target`: the moves only where the
/// target is not rax itself. A target outside the pair serves as the scratch register. Where rax or rdx is in use, a free
/// register keeps it meanwhile.
fn division(insn: &Instruction, wanted: &Operation, scratch: &[Register]) -> Result<Vec<u8>, String> {
    let full = wanted.target.full_register();
    let pair = [Register::RAX, Register::RDX];
    let mut free = scratch.iter().filter(|r| !pair.contains(r) && **r != full);
    let refuse = |why: String| format!("`{}` cannot become a division: {why}", align_text(insn));
    let divisor = match pair.contains(&full) {
        false => full,
        true => *free.next().ok_or_else(|| refuse("no register is free there".into()))?,
    };
    let in_use = pair.iter().filter(|r| **r != full && !scratch.contains(r));
    let kept = in_use.map(|taken| {
        let why = || format!("{taken:?} is in use there, and no register is free to keep it").to_lowercase();
        free.next().map(|keeper| (*taken, *keeper)).ok_or_else(|| refuse(why()))
    });
    let kept: Vec<(Register, Register)> = kept.collect::<Result<_, String>>()?;
    let number = u32::try_from(wanted.factor).ok().filter(|n| *n != 0);
    let number = number.ok_or_else(|| format!("{} is no divisor of 32 bits", wanted.factor))?;
    let (wide, target, divisor) = (wanted.bits() == 64, full.number() as u8, divisor.number() as u8);
    let copy = |from: Register, to: Register| registers(true, 0x89, from.number() as u8, to.number() as u8);
    let mut code: Vec<u8> = kept.iter().flat_map(|(taken, keeper)| copy(*taken, *keeper)).collect();
    if full != Register::RAX {
        code.extend(registers(wide, 0x89, target, 0));
    }
    code.extend([0x31, 0xd2]);
    if divisor >= 8 {
        code.push(0x41);
    }
    code.push(0xb8 | divisor & 7);
    code.extend(number.to_le_bytes());
    code.extend(registers(wide, 0xf7, 6, divisor));
    if full != Register::RAX {
        code.extend(registers(wide, 0x89, 0, target));
    }
    code.extend(kept.iter().flat_map(|(taken, keeper)| copy(*keeper, *taken)));
    Ok(code)
}

/// Prefix, opcode and ModRM byte of an instruction between registers.
fn registers(wide: bool, opcode: u8, reg: u8, rm: u8) -> Vec<u8> {
    let rex = 0x40 | u8::from(wide) << 3 | (reg >> 3) << 2 | rm >> 3;
    let prefix = (rex != 0x40).then_some(rex);
    prefix.into_iter().chain([opcode, 0xc0 | (reg & 7) << 3 | rm & 7]).collect()
}

fn branch(insn: &Instruction, bytes: &[u8]) -> Result<Vec<u8>, String> {
    match bytes {
        [opcode @ 0x70..=0x7f, _] => Ok(vec![0x0f, opcode + 0x10, 0, 0, 0, 0]),
        [0x0f, opcode @ 0x80..=0x8f, _, _, _, _] => Ok(vec![0x0f, *opcode, 0, 0, 0, 0]),
        [0xeb, _] | [0xe9, _, _, _, _] => Ok(vec![0xe9, 0, 0, 0, 0]),
        _ => Err(format!("`{}` cannot be moved", align_text(insn))),
    }
}

fn align_text(insn: &Instruction) -> String {
    crate::algebra::disassemble(insn, false)
}

/// Where the parts of an encoding lie.
struct Parts {
    opcode: usize,
    wide: bool,
    operand_16: bool,
    offsets: ConstantOffsets,
}

fn parts(bytes: &[u8]) -> Option<Parts> {
    let legacy = |b: &u8| matches!(b, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    let prefixes = bytes.iter().take_while(|b| legacy(b)).count();
    let rex = bytes.get(prefixes).copied().filter(|b| b & 0xf0 == 0x40);
    let opcode = prefixes + usize::from(rex.is_some());
    let mut decoder = Decoder::new(64, bytes, DecoderOptions::NONE);
    let insn = decoder.decode();
    let offsets = decoder.get_constant_offsets(&insn);
    let complete = !insn.is_invalid() && insn.len() == bytes.len() && opcode < bytes.len();
    let operand_16 = bytes.iter().take(prefixes).any(|b| *b == 0x66);
    complete.then(|| Parts { opcode, wide: rex.is_some_and(|r| r & 8 != 0), operand_16, offsets })
}

/// The encoding of the same instruction with another number.
fn rewritten(bytes: &[u8], slot: SlotName, want: i64) -> Result<Vec<u8>, String> {
    let parts = parts(bytes).ok_or("it does not decode")?;
    let refuse = || format!("no other encoding of this instruction holds the number {want}");
    match slot {
        SlotName::Immediate => immediate(bytes, &parts, want).ok_or_else(refuse),
        SlotName::Displacement => displacement(bytes, &parts, want).ok_or_else(refuse),
        SlotName::Factor | SlotName::Second => Err(refuse()),
    }
}

fn immediate(bytes: &[u8], parts: &Parts, want: i64) -> Option<Vec<u8>> {
    let code = bytes.get(parts.opcode).copied()?;
    let (at, size) = (parts.offsets.immediate_offset(), parts.offsets.immediate_size());
    if !parts.offsets.has_immediate() {
        // shr $1: the form without a field has a sibling with one.
        let with_field = match code {
            0xd0 | 0xd1 if want != 1 => code - 0x10,
            0xd0 | 0xd1 => return Some(bytes.to_vec()),
            _ => return None,
        };
        let mut new = bytes.to_vec();
        *new.get_mut(parts.opcode)? = with_field;
        new.push(u8::try_from(want).ok()?);
        return Some(new);
    }
    let decoded = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
    let bits = align::slot_bits(&decoded, Slot::Immediate);
    if size as u32 * 8 >= bits || wrap(want.into(), size as u32 * 8) == want {
        let mut new = bytes.to_vec();
        new.get_mut(at..at + size)?.copy_from_slice(want.to_le_bytes().get(..size)?);
        return Some(new);
    }
    let mut new = bytes.get(..at)?.to_vec();
    match code {
        0x83 | 0x6b => {
            *new.get_mut(parts.opcode)? = if code == 0x83 { 0x81 } else { 0x69 };
            let wider = if parts.operand_16 { 2 } else { 4 };
            let holds = wider as u32 * 8 >= bits || wrap(want.into(), wider as u32 * 8) == want;
            new.extend(want.to_le_bytes().get(..wider).filter(|_| holds)?);
        }
        0x6a => {
            *new.get_mut(parts.opcode)? = 0x68;
            new.extend(i32::try_from(want).ok()?.to_le_bytes());
        }
        // mov $simm32, %r64 to movabs.
        0xc7 if parts.wide && bytes.get(parts.opcode + 1)? >> 6 == 3 => {
            let register = bytes.get(parts.opcode + 1)? & 7;
            new.truncate(parts.opcode);
            new.push(0xb8 + register);
            new.extend(want.to_le_bytes());
        }
        _ => return None,
    }
    Some(new)
}

/// `lea` is arithmetic: its displacement may grow. Those of other instructions are addresses.
fn displacement(bytes: &[u8], parts: &Parts, want: i64) -> Option<Vec<u8>> {
    if bytes.get(parts.opcode) != Some(&0x8d) {
        return None;
    }
    let modrm_at = parts.opcode + 1;
    let modrm = *bytes.get(modrm_at)?;
    let (mode, has_sib) = (modrm >> 6, modrm & 7 == 4);
    let (at, size) = (parts.offsets.displacement_offset(), parts.offsets.displacement_size());
    let want = i32::try_from(want).ok()?;
    let mut new = bytes.to_vec();
    if parts.offsets.has_displacement() && (size == 4 || i8::try_from(want).is_ok()) {
        new.get_mut(at..at + size)?.copy_from_slice(want.to_le_bytes().get(..size)?);
        return Some(new);
    }
    if mode >= 2 {
        return None;
    }
    *new.get_mut(modrm_at)? = modrm & 0x3f | 0x80;
    new.truncate(modrm_at + 1 + usize::from(has_sib));
    new.extend(want.to_le_bytes());
    Some(new)
}

/// The decoded instruction does what the stock one does, with the wanted numbers.
fn check(stock: &Instruction, bytes: &[u8], wanted: &[(SlotName, i64)]) -> Result<(), String> {
    let new = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
    let registers = |i: &Instruction| -> Vec<_> {
        let operands = (0..i.op_count()).map(|n| i.op_register(n));
        operands.chain([i.memory_base(), i.memory_index(), i.memory_segment()]).collect()
    };
    let same = new.mnemonic() == stock.mnemonic()
        && new.len() == bytes.len()
        && registers(&new) == registers(stock)
        && new.memory_index_scale() == stock.memory_index_scale();
    for slot in [SlotName::Immediate, SlotName::Displacement] {
        let place = Slot::from(slot);
        // A RIP-relative distance is the module's to write.
        if place == Slot::Displacement && stock.is_ip_rel_memory_operand() {
            continue;
        }
        let bits = align::slot_bits(stock, place);
        let asked = wanted.iter().find(|(s, _)| *s == slot).map(|(_, want)| *want);
        let expected = asked.or_else(|| number(stock, place)).map(|n| wrap(n.into(), bits));
        if !same || expected != number(&new, place).map(|n| wrap(n.into(), bits)) {
            return Err(format!("`{}` cannot be encoded with another number", align_text(stock)));
        }
    }
    Ok(())
}

/// Whether loaded code is the module file's, apart from fields that loading relocates: distances, and the 4-byte fields
/// that start at the offsets `absolute`.
pub(super) fn same_but_relocated(file: &[u8], loaded: &[u8], absolute: &[usize]) -> bool {
    if file.len() != loaded.len() {
        return false;
    }
    let mut decoder = Decoder::new(64, file, DecoderOptions::NONE);
    let mut insn = Instruction::default();
    while decoder.can_decode() {
        let start = decoder.position();
        decoder.decode_out(&mut insn);
        let offsets = decoder.get_constant_offsets(&insn);
        let near = matches!(insn.op0_kind(), OpKind::NearBranch32 | OpKind::NearBranch64);
        let mut free = 0..0;
        if near && offsets.has_immediate() && offsets.immediate_size() == 4 {
            free = offsets.immediate_offset()..offsets.immediate_offset() + 4;
        } else if insn.is_ip_rel_memory_operand() {
            free = offsets.displacement_offset()..offsets.displacement_offset() + 4;
        }
        let differs = |n: usize| file.get(start + n) != loaded.get(start + n);
        let relocated = |n: usize| absolute.iter().any(|a| (*a..*a + 4).contains(&(start + n)));
        if insn.is_invalid() || (0..insn.len()).any(|n| differs(n) && !free.contains(&n) && !relocated(n)) {
            return false;
        }
    }
    true
}
