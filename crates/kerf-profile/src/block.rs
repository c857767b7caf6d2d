//! Translated code as facts: which instructions count together, how a block ends, where its bytes lie.

use crate::mark::Mark;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction as Decoded, Mnemonic, OpKind, Register};

/// One instruction of a block, as the translator sees it.
#[derive(Debug, Clone, Copy)]
pub struct Instruction<'a> {
    /// Where the guest runs it.
    pub address: u64,
    /// Where its bytes lie in the host's memory, which stands for the physical address; 0 if it lies in no memory.
    pub host: u64,
    /// Its encoding.
    pub bytes: &'a [u8],
}

/// How a block hands over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Branch {
    /// To what follows: the translator has cut it.
    #[default]
    None,
    /// To the target or to what follows.
    Conditional(u64),
    /// To the target: a jump or call.
    Direct(u64),
    /// To wherever: indirect jumps and calls, returns, system calls.
    Indirect,
    /// To where an interrupt or a fault has come: `iret`.
    Back,
}

/// Instructions that are executed all or, if the last one faults, at least begun: one count is enough for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Position of the first one in what was translated.
    pub first: usize,
    /// How many there are.
    pub instructions: u64,
}

/// A run of instructions without a mark in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Block {
    /// The first instruction.
    pub address: u64,
    /// Behind the last one.
    pub end: u64,
    /// Ranges of host memory that hold its bytes, `[start, end)`; two where it crosses a page.
    pub ranges: Vec<(u64, u64)>,
    /// Its instructions in groups.
    pub segments: Vec<Segment>,
    /// What the last instruction does.
    pub branch: Branch,
    /// Positions of instructions that may touch memory.
    pub touches: Vec<usize>,
    /// Positions of instructions after which addresses may be mapped otherwise.
    pub remaps: Vec<usize>,
    /// The encoding.
    pub bytes: Vec<u8>,
}

/// Part of a translation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A mark, at this position.
    Mark(usize, Mark),
    /// What lies between marks.
    Block(Block),
}

impl Block {
    /// Whether it is the kernel's: in the upper half of the addresses.
    pub fn is_kernel(&self) -> bool {
        self.address >> 63 != 0
    }

    /// How long it is in bytes.
    pub fn size(&self) -> u64 {
        self.end.wrapping_sub(self.address)
    }

    /// Appends an instruction; `joined` if it counts together with the one before.
    fn add(&mut self, position: usize, instruction: &Instruction, joined: bool) {
        if self.segments.is_empty() {
            self.address = instruction.address;
        }
        match self.segments.last_mut() {
            Some(segment) if joined => segment.instructions += 1,
            _ => self.segments.push(Segment { first: position, instructions: 1 }),
        }
        self.bytes.extend_from_slice(instruction.bytes);
        self.end = instruction.address.wrapping_add(instruction.bytes.len() as u64);
        if instruction.host != 0 {
            self.lies_at(instruction.host, instruction.bytes.len() as u64);
        }
    }

    /// Of an instruction that crosses a page only the first part's place is known.
    fn lies_at(&mut self, start: u64, length: u64) {
        let end = start.saturating_add(length).min((start | (PAGE - 1)) + 1);
        match self.ranges.last_mut() {
            Some((_, last)) if *last == start => *last = end,
            _ => self.ranges.push((start, end)),
        }
    }
}

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;

/// What the translator hands over at once, cut at the marks.
pub fn pieces(instructions: &[Instruction]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut joined = false;
    for (position, instruction) in instructions.iter().enumerate() {
        let mark = if instruction.address >> 63 == 0 { Mark::of(instruction.bytes) } else { None };
        if let Some(mark) = mark {
            pieces.push(Piece::Mark(position, mark));
            continue;
        }
        if !matches!(pieces.last(), Some(Piece::Block(_))) {
            pieces.push(Piece::Block(Block::default()));
            joined = false;
        }
        let Some(Piece::Block(block)) = pieces.last_mut() else { continue };
        block.add(position, instruction, joined);
        let decoded = decode(instruction);
        joined = decoded.as_ref().is_some_and(goes_on);
        block.branch = decoded.as_ref().map_or(Branch::None, branch);
        // A jump to an address that stands in it touches no memory.
        let jumps = matches!(block.branch, Branch::Conditional(_)) || decoded.is_some_and(|d| d.is_jmp_short_or_near());
        if !joined && !jumps {
            block.touches.push(position);
        }
        if decoded.as_ref().is_some_and(remaps) {
            block.remaps.push(position);
        }
    }
    pieces
}

/// As 64-bit code; nothing where the translator found another length, since the processor is in another mode then.
fn decode(instruction: &Instruction) -> Option<Decoded> {
    let decoded = Decoder::with_ip(64, instruction.bytes, instruction.address, DecoderOptions::NONE).decode();
    (!decoded.is_invalid() && decoded.len() == instruction.bytes.len()).then_some(decoded)
}

fn branch(instruction: &Decoded) -> Branch {
    match instruction.flow_control() {
        _ if matches!(instruction.mnemonic(), Mnemonic::Iretq | Mnemonic::Iretd | Mnemonic::Iret) => Branch::Back,
        FlowControl::ConditionalBranch => Branch::Conditional(instruction.near_branch_target()),
        FlowControl::UnconditionalBranch => Branch::Direct(instruction.near_branch_target()),
        FlowControl::Call if instruction.is_call_near() => Branch::Direct(instruction.near_branch_target()),
        FlowControl::Call | FlowControl::IndirectBranch | FlowControl::IndirectCall | FlowControl::Return => {
            Branch::Indirect
        }
        FlowControl::Next | FlowControl::Interrupt | FlowControl::XbeginXabortXend | FlowControl::Exception => {
            Branch::None
        }
    }
}

/// Whether the instruction is certain to be followed by the next one: it is known to touch registers only. What is not known
/// here counts by itself, which is only slower.
fn goes_on(instruction: &Decoded) -> bool {
    use Mnemonic::*;
    let simple = matches!(
        instruction.mnemonic(),
        Mov | Movzx
            | Movsx
            | Movsxd
            | Lea
            | Add
            | Adc
            | Sub
            | Sbb
            | And
            | Or
            | Xor
            | Not
            | Neg
            | Inc
            | Dec
            | Cmp
            | Test
            | Shl
            | Shr
            | Sar
            | Rol
            | Ror
            | Shld
            | Shrd
            | Imul
            | Mul
            | Bt
            | Bts
            | Btr
            | Btc
            | Bsf
            | Bsr
            | Bswap
            | Cdq
            | Cqo
            | Cdqe
            | Cwde
            | Nop
            | Endbr64
            | Sete
            | Setne
            | Seta
            | Setae
            | Setb
            | Setbe
            | Setg
            | Setge
            | Setl
            | Setle
            | Sets
            | Setns
            | Cmove
            | Cmovne
            | Cmova
            | Cmovae
            | Cmovb
            | Cmovbe
            | Cmovg
            | Cmovge
            | Cmovl
            | Cmovle
            | Cmovs
            | Cmovns
    );
    let harmless = |operand| match instruction.op_kind(operand) {
        OpKind::Register => instruction.op_register(operand).is_gpr(),
        OpKind::Memory => matches!(instruction.mnemonic(), Lea | Nop),
        kind => !matches!(kind, OpKind::MemorySegSI | OpKind::MemorySegESI | OpKind::MemorySegRSI),
    };
    simple && !instruction.has_lock_prefix() && (0..instruction.op_count()).all(harmless)
}

/// Whether addresses may be mapped otherwise behind it.
fn remaps(instruction: &Decoded) -> bool {
    let control = |register| matches!(register, Register::CR0 | Register::CR3 | Register::CR4);
    match instruction.mnemonic() {
        Mnemonic::Invlpg | Mnemonic::Invpcid => true,
        Mnemonic::Mov => instruction.op0_kind() == OpKind::Register && control(instruction.op0_register()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mark::BEGIN;

    /// Instructions one after the other, in host memory at `host`.
    fn lay<'a>(address: u64, host: u64, code: &[&'a [u8]]) -> Vec<Instruction<'a>> {
        let mut offset = 0;
        let place = |bytes: &&'a [u8]| {
            let at = offset;
            offset += bytes.len() as u64;
            Instruction { address: address + at, host: host + at, bytes }
        };
        code.iter().map(place).collect()
    }

    fn block(instructions: &[Instruction]) -> Block {
        match pieces(instructions).as_slice() {
            [Piece::Block(block)] => block.clone(),
            other => panic!("{other:?}"),
        }
    }

    const KERNEL: u64 = 0xffff_ffff_8100_0000;
    const DEC_ECX: &[u8] = &[0xff, 0xc9];
    const LOAD: &[u8] = &[0x48, 0x8b, 0x07];
    const JNZ_BACK: &[u8] = &[0x75, 0xfc];
    const RET: &[u8] = &[0xc3];

    #[test]
    fn what_cannot_fault_counts_together() {
        let block = block(&lay(KERNEL, 0x7000_0000, &[DEC_ECX, DEC_ECX, LOAD, DEC_ECX, JNZ_BACK]));
        let segments: Vec<_> = block.segments.iter().map(|s| (s.first, s.instructions)).collect();
        assert_eq!(segments, [(0, 3), (3, 2)], "a load ends a segment");
        assert_eq!(block.touches, [2]);
        assert!(block.is_kernel());
        assert_eq!((block.size(), block.ranges.as_slice()), (11, &[(0x7000_0000, 0x7000_000b)][..]));
        assert_eq!(block.branch, Branch::Conditional(KERNEL + 7));
    }

    #[test]
    fn branches_are_told_apart() {
        let last = |bytes: &[u8]| block(&lay(0x1000, 0x5000, &[bytes])).branch;
        assert_eq!(last(&[0xe8, 0, 1, 0, 0]), Branch::Direct(0x1105));
        assert_eq!(last(&[0xeb, 0x10]), Branch::Direct(0x1012));
        assert_eq!(last(&[0xff, 0xd0]), Branch::Indirect, "call *%rax");
        assert_eq!(last(RET), Branch::Indirect);
        assert_eq!(last(&[0x0f, 0x05]), Branch::Indirect, "syscall");
        assert_eq!(last(&[0x48, 0xcf]), Branch::Back, "iretq");
        assert_eq!(last(&[0xf3, 0xa4]), Branch::None, "rep movsb goes on with itself");
        assert_eq!(last(&[0x40]), Branch::None, "of another mode");
    }

    #[test]
    fn a_mark_cuts() {
        let begin = [&[0x48, 0xb8][..], &BEGIN.to_le_bytes()].concat();
        let code = [DEC_ECX, begin.as_slice(), DEC_ECX, RET];
        let found = pieces(&lay(0x40_1000, 0x5000, &code));
        let [Piece::Block(before), Piece::Mark(1, Mark::Begin), Piece::Block(after)] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!((before.address, before.end, before.branch), (0x40_1000, 0x40_1002, Branch::None));
        assert_eq!((after.address, after.segments[0]), (0x40_100c, Segment { first: 2, instructions: 2 }));
        assert!(matches!(pieces(&lay(KERNEL, 0x5000, &code)).as_slice(), [Piece::Block(_)]), "none of the kernel's");
    }

    #[test]
    fn a_block_may_lie_on_two_pages() {
        let mut code = lay(0x1ffe, 0x5ffe, &[DEC_ECX, DEC_ECX]);
        code[1].host = 0x9000;
        assert_eq!(block(&code).ranges, [(0x5ffe, 0x6000), (0x9000, 0x9002)]);
        let crossing = lay(0x1fff, 0x5fff, &[DEC_ECX]);
        assert_eq!(block(&crossing).ranges, [(0x5fff, 0x6000)]);
    }

    #[test]
    fn changes_of_the_page_tables_are_seen() {
        let seen = |bytes: &[u8]| block(&lay(KERNEL, 0x5000, &[bytes])).remaps.len();
        assert_eq!(seen(&[0x0f, 0x22, 0xd8]), 1, "mov %rax, %cr3");
        assert_eq!(seen(&[0x0f, 0x20, 0xd8]), 0, "mov %cr3, %rax");
        assert_eq!(seen(&[0x0f, 0x01, 0x38]), 1, "invlpg (%rax)");
    }
}
