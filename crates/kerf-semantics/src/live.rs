//! Liveness: which registers (byte by byte) and flags of a function somebody may still read.
//!
//! Whatever is not known counts as live: indirect jumps, interrupts, code outside what was given.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use crate::execute::direct_target;
use crate::state::{Flag, location};

const RSP: usize = 4;
const CALLEE_SAVED: [usize; 7] = [3, RSP, 5, 12, 13, 14, 15];

/// Registers and flags that are live at a point of the code. Memory always is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LiveSet {
    /// For each general register, by its number in encodings, the bytes that are live: bit 0 is the lowest byte.
    pub bytes: [u8; 16],
    /// The live flags, as [`Flag::mask`] bits.
    pub flags: u32,
}

impl LiveSet {
    /// Nothing is live.
    pub const NONE: Self = Self { bytes: [0; 16], flags: 0 };

    /// All registers and the six status flags.
    pub fn all() -> Self {
        Self { bytes: [0xff; 16], flags: all_flags() }
    }

    /// The whole of some registers, by their number, and no flags.
    pub fn of_registers(numbers: &[usize]) -> Self {
        let mut set = Self::NONE;
        for &number in numbers {
            if let Some(bytes) = set.bytes.get_mut(number) {
                *bytes = 0xff;
            }
        }
        set
    }

    /// The registers of which any part is live: bit n for register n.
    pub fn gprs(&self) -> u16 {
        (0..16).filter(|&number| self.bytes[number] != 0).fold(0, |mask, number| mask | 1 << number)
    }

    /// Whether a flag is live.
    pub fn has_flag(&self, flag: Flag) -> bool {
        self.flags & flag.mask() != 0
    }

    /// Whether any byte of `register` is live; `true` for registers that are not general ones.
    pub fn has_register(&self, register: Register) -> bool {
        location(register).is_none_or(|(number, lo, width)| self.bytes[number] & byte_mask(lo, width) != 0)
    }

    /// What is live in either.
    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        for (mine, theirs) in self.bytes.iter_mut().zip(&other.bytes) {
            *mine |= theirs;
        }
        self.flags |= other.flags;
        self
    }

    fn without(mut self, other: &Self) -> Self {
        for (mine, theirs) in self.bytes.iter_mut().zip(&other.bytes) {
            *mine &= !theirs;
        }
        self.flags &= !other.flags;
        self
    }
}

fn all_flags() -> u32 {
    Flag::ALL.iter().fold(0, |mask, flag| mask | flag.mask())
}

fn byte_mask(lo: u32, width: u32) -> u8 {
    (((1u32 << (width / 8)) - 1) << (lo / 8)) as u8
}

/// What a call, or a jump out of the code given, reads and overwrites.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallEffect {
    /// What the callee reads.
    pub reads: LiveSet,
    /// What has lost its value when the callee returns.
    pub kills: LiveSet,
}

impl CallEffect {
    /// A C function: it reads arguments and everything else that it may overwrite (thunks take operands in any of
    /// these), and passes the callee-saved registers through. Flags do not survive. Caller-saved registers do not
    /// count as overwritten, since many of a kernel's assembly routines keep them and compilers know that.
    pub fn c_function() -> Self {
        let reads = LiveSet::of_registers(&[0, 1, 2, RSP, 6, 7, 8, 9, 10, 11]);
        Self { reads, kills: LiveSet { bytes: [0; 16], flags: all_flags() } }
    }

    /// A function of the System V convention and nothing else: reads argument registers and `rax`, overwrites all
    /// caller-saved registers and the flags.
    pub fn system_v() -> Self {
        let reads = LiveSet::of_registers(&[0, 1, 2, RSP, 6, 7, 8, 9]);
        let mut kills = LiveSet::of_registers(&[0, 1, 2, 6, 7, 8, 9, 10, 11]);
        kills.flags = all_flags();
        Self { reads, kills }
    }

    /// Anything at all: everything is read, nothing overwritten.
    pub fn unknown() -> Self {
        Self { reads: LiveSet::all(), kills: LiveSet::NONE }
    }
}

/// What is known about a function beyond its instructions.
#[derive(Clone, Debug, Default)]
pub struct CfgOptions {
    /// Further edges, from an instruction's address to another's: static keys, exception tables, jump tables.
    pub edges: Vec<(u64, u64)>,
    /// Effects of the calls and outward jumps at these addresses; [`CallEffect::c_function`] where nothing is said.
    pub effects: HashMap<u64, CallEffect>,
}

/// The control-flow graph of one function, with liveness.
pub struct Cfg {
    code: Vec<Instruction>,
    index: HashMap<u64, usize>,
    successors: Vec<Vec<u64>>,
    predecessors: HashMap<u64, Vec<u64>>,
    targets: BTreeSet<u64>,
    before: Vec<LiveSet>,
    after: Vec<LiveSet>,
}

impl Cfg {
    /// The graph of a function's instructions (ascending addresses, all of its parts).
    pub fn new(code: &[Instruction]) -> Self {
        Self::with_options(code, &CfgOptions::default())
    }

    /// The graph of a function's instructions with what else is known about it.
    pub fn with_options(code: &[Instruction], options: &CfgOptions) -> Self {
        let index: HashMap<u64, usize> = code.iter().enumerate().map(|(at, insn)| (insn.ip(), at)).collect();
        let mut cfg = Self {
            successors: code.iter().map(flow_targets).collect(),
            code: code.to_vec(),
            index,
            predecessors: HashMap::new(),
            targets: BTreeSet::new(),
            before: vec![LiveSet::NONE; code.len()],
            after: vec![LiveSet::NONE; code.len()],
        };
        for insn in code {
            if let (FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch, Some(target)) =
                (insn.flow_control(), direct_target(insn))
            {
                cfg.targets.insert(target);
            }
        }
        for &(from, to) in &options.edges {
            cfg.targets.insert(to);
            if let Some(&at) = cfg.index.get(&from)
                && !cfg.successors[at].contains(&to)
            {
                cfg.successors[at].push(to);
            }
        }
        let mut predecessors: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (at, insn) in code.iter().enumerate() {
            for &target in &cfg.successors[at] {
                predecessors.entry(target).or_default().push(insn.ip());
            }
        }
        cfg.predecessors = predecessors.into_iter().collect();
        cfg.solve(options);
        cfg
    }

    /// What is live just before the instruction at `ip`; everything if there is none.
    pub fn live_before(&self, ip: u64) -> LiveSet {
        self.index.get(&ip).map_or_else(LiveSet::all, |&at| self.before[at])
    }

    /// What is live just after the instruction at `ip`, on whatever way it goes on; everything if there is none.
    pub fn live_after(&self, ip: u64) -> LiveSet {
        self.index.get(&ip).map_or_else(LiveSet::all, |&at| self.after[at])
    }

    /// Addresses where execution can go on, some of them perhaps outside the code given. Calls return; indirect jumps
    /// and returns have no successors.
    pub fn successors(&self, ip: u64) -> &[u64] {
        self.index.get(&ip).map_or(&[], |&at| &self.successors[at])
    }

    /// Addresses of the instructions after which execution can go on at `ip`.
    pub fn predecessors(&self, ip: u64) -> &[u64] {
        self.predecessors.get(&ip).map_or(&[], Vec::as_slice)
    }

    /// Whether a direct jump of this code, or an edge that was given, leads to `ip`.
    pub fn is_jump_target(&self, ip: u64) -> bool {
        self.targets.contains(&ip)
    }

    /// The instruction at `ip`.
    pub fn instruction(&self, ip: u64) -> Option<&Instruction> {
        self.index.get(&ip).map(|&at| &self.code[at])
    }

    /// Whether the code jumps to where only the running machine knows.
    pub fn has_indirect_jumps(&self) -> bool {
        self.code.iter().any(|insn| insn.flow_control() == FlowControl::IndirectBranch)
    }

    /// Backward dataflow to the least fixed point.
    fn solve(&mut self, options: &CfgOptions) {
        let mut factory = InstructionInfoFactory::new();
        let effects: Vec<Effect> =
            self.code.iter().map(|insn| Effect::of(insn, &mut factory, options.effects.get(&insn.ip()))).collect();
        let mut open: BTreeSet<usize> = (0..self.code.len()).collect();
        while let Some(at) = open.pop_last() {
            let insn = self.code[at];
            let mut after = effects[at].leaving;
            for target in &self.successors[at] {
                let live = match self.index.get(target) {
                    Some(&next) => self.before[next],
                    None => leave(&insn, options.effects.get(&insn.ip())),
                };
                after = after.union(&live);
            }
            let before = after.without(&effects[at].kills).union(&effects[at].reads);
            self.after[at] = after;
            if before != self.before[at] {
                self.before[at] = before;
                let ips = self.predecessors.get(&insn.ip()).into_iter().flatten();
                open.extend(ips.filter_map(|ip| self.index.get(ip)));
            }
        }
    }
}

/// What is live where execution leaves the code given: a tail call, another part of the function, or a return thunk.
fn leave(insn: &Instruction, effect: Option<&CallEffect>) -> LiveSet {
    if let Some(effect) = effect {
        return effect.reads.union(&LiveSet::of_registers(&CALLEE_SAVED));
    }
    let mut live = LiveSet::all();
    if insn.flow_control() == FlowControl::UnconditionalBranch {
        live.flags = 0;
    }
    live
}

fn flow_targets(insn: &Instruction) -> Vec<u64> {
    match insn.flow_control() {
        FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => vec![insn.next_ip()],
        FlowControl::UnconditionalBranch => direct_target(insn).into_iter().collect(),
        FlowControl::ConditionalBranch => vec![insn.next_ip(), insn.near_branch_target()],
        _ => Vec::new(),
    }
}

/// An instruction's part in the dataflow.
struct Effect {
    reads: LiveSet,
    kills: LiveSet,
    /// What is live behind it where there is no successor.
    leaving: LiveSet,
}

impl Effect {
    fn of(insn: &Instruction, factory: &mut InstructionInfoFactory, given: Option<&CallEffect>) -> Self {
        let (mut reads, mut kills) = (LiveSet::NONE, LiveSet::NONE);
        for used in factory.info(insn).used_registers() {
            let Some((number, lo, width)) = location(used.register()) else { continue };
            let bytes = byte_mask(lo, width);
            match used.access() {
                OpAccess::Read | OpAccess::CondRead => reads.bytes[number] |= bytes,
                OpAccess::ReadWrite | OpAccess::ReadCondWrite => reads.bytes[number] |= bytes,
                OpAccess::Write => kills.bytes[number] |= if width == 32 { 0xff } else { bytes },
                _ => {}
            }
        }
        reads.flags = insn.rflags_read() & all_flags();
        kills.flags = insn.rflags_modified() & all_flags();
        if keeps_flags_sometimes(insn) {
            kills.flags = 0;
        }
        // Without a set bit a scan keeps its destination.
        if matches!(insn.mnemonic(), Mnemonic::Bsf | Mnemonic::Bsr)
            && let Some((number, ..)) = location(insn.op0_register())
        {
            kills.bytes[number] = 0;
        }
        let mut leaving = LiveSet::NONE;
        match insn.flow_control() {
            FlowControl::Call | FlowControl::IndirectCall => {
                let effect = given.copied().unwrap_or_else(CallEffect::c_function);
                reads = reads.union(&effect.reads);
                kills = effect.kills;
                // The stack pointer comes back as it was.
                kills.bytes[RSP] = 0;
            }
            FlowControl::Return => {
                leaving = LiveSet::of_registers(&CALLEE_SAVED).union(&LiveSet::of_registers(&[0, 2]));
            }
            FlowControl::Next | FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {}
            FlowControl::IndirectBranch => {
                leaving = match given {
                    Some(effect) => effect.reads.union(&LiveSet::of_registers(&CALLEE_SAVED)),
                    None => LiveSet::all(),
                };
            }
            // Exceptions, interrupts, transactions: the handler sees everything.
            _ => leaving = LiveSet::all(),
        }
        Self { reads, kills, leaving }
    }
}

/// Shifts and rotations whose masked count may be zero leave the flags alone then.
pub(crate) fn keeps_flags_sometimes(insn: &Instruction) -> bool {
    let index = match insn.mnemonic() {
        Mnemonic::Shl | Mnemonic::Sal | Mnemonic::Shr | Mnemonic::Sar => 1,
        Mnemonic::Rol | Mnemonic::Ror | Mnemonic::Rcl | Mnemonic::Rcr => 1,
        Mnemonic::Shld | Mnemonic::Shrd => 2,
        _ => return false,
    };
    match insn.op_kind(index) {
        OpKind::Immediate8 => {
            let mask = if insn.op0_register().size() == 8 || insn.memory_size().size() == 8 { 0x3f } else { 0x1f };
            insn.immediate8() & mask == 0
        }
        OpKind::Register => true,
        _ => false,
    }
}
