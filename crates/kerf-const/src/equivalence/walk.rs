//! The walk over both functions, from one branch or call to the next.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};
use kerf_semantics::{Arena, Flag, Flow, Frame, Prover, REGISTER_NAMES, State, Term, Verdict, step};

use super::Signatures;
use super::facts::{Facts, RSP, SlotKey, entry_half, frame_offset, garbage, tainted};
use super::link::{Bundle, Linker, Role};

/// No path between two points is longer.
const MOST_STEPS: usize = 4000;
/// No pair of functions has more points.
const MOST_POINTS: usize = 6000;
/// The solver is asked no more often than this, and for no longer each time.
const MOST_QUERIES: u32 = 24;
const QUERY_TIME: Duration = Duration::from_secs(1);
/// Numbers of the argument registers in encodings: rdi, rsi, rdx, rcx, r8, r9.
const ARGUMENTS: [usize; 6] = [7, 6, 2, 1, 8, 9];
/// Registers that a call does not keep: rax, rcx, rdx, rsi, rdi, r8 to r11.
const CLOBBERED: [usize; 9] = [0, 1, 2, 6, 7, 8, 9, 10, 11];
/// Registers that a function gives back as it got them: rbx, rbp, r12 to r15.
const KEPT: [usize; 6] = [3, 5, 12, 13, 14, 15];

/// What a side is about to do.
#[derive(Clone, Debug)]
enum Event {
    Branch {
        taken: Term,
        target: u64,
        next: u64,
    },
    StaticKey {
        target: u64,
        next: u64,
    },
    Call {
        at: u64,
        callee: Callee,
        next: Option<u64>,
    },
    Return,
    Trap {
        next: u64,
    },
    /// An instruction whose meaning is not modelled: it does the same to the same inputs.
    Opaque {
        insn: Instruction,
        next: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Callee {
    Direct(u64),
    Register(Term),
}

type Point = (u64, u64);

pub struct Walk<'a> {
    name: &'a str,
    sides: [&'a Bundle; 2],
    linker: &'a Linker,
    signatures: &'a Signatures,
    arena: Arena,
    facts: HashMap<Point, (usize, Facts)>,
    pending: VecDeque<Point>,
    slots: BTreeSet<SlotKey>,
    /// The lowest frame offset whose address was given away.
    escaped: Option<i64>,
    points: usize,
    prover: Option<Prover>,
    queries: u32,
}

type Checked<T> = Result<T, String>;

impl<'a> Walk<'a> {
    /// The arena is the one that the bundles were linked with.
    pub fn new(
        name: &'a str,
        sides: [&'a Bundle; 2],
        arena: Arena,
        linker: &'a Linker,
        signatures: &'a Signatures,
    ) -> Walk<'a> {
        Walk {
            name,
            sides,
            linker,
            signatures,
            arena,
            facts: HashMap::new(),
            pending: VecDeque::new(),
            slots: BTreeSet::new(),
            escaped: None,
            points: 0,
            prover: None,
            queries: 0,
        }
    }

    /// Walks, and once more as long as that shows stack slots that were not known from the beginning.
    pub fn run(mut self) -> Checked<()> {
        loop {
            let known = self.slots.len();
            match self.once() {
                Err(_) if self.slots.len() > known => {
                    self.facts.clear();
                    self.pending.clear();
                    self.escaped = None;
                    self.points = 0;
                }
                result => return result,
            }
        }
    }

    fn once(&mut self) -> Checked<()> {
        let start = (self.sides[0].entry, self.sides[1].entry);
        let facts = Facts::entry(&mut self.arena, &self.slots);
        self.facts.insert(start, (0, facts));
        self.pending.push_back(start);
        while let Some(point) = self.pending.pop_front() {
            self.points += 1;
            if self.points > MOST_POINTS {
                return Err("the function is too large to compare".into());
            }
            self.visit(point).map_err(|why| format!("at {}+{:#x}: {why}", self.name, point.0 & 0xfffff))?;
        }
        Ok(())
    }

    fn visit(&mut self, point: Point) -> Checked<()> {
        let Some((version, facts)) = self.facts.get(&point).cloned() else { return Ok(()) };
        let tag = format!("{:x}.{:x}.{version}", point.0, point.1);
        let mut states = facts.states(&mut self.arena, &tag);
        let mut ips = [point.0, point.1];
        let mut events = Vec::new();
        for side in 0..2 {
            events.push(self.advance(side, &mut states[side], &mut ips[side])?);
        }
        self.same_memory(&states)?;
        let [ours, theirs] = [events[0].clone(), events[1].clone()];
        match (ours, theirs) {
            (Event::Branch { taken: a, target: x, next: p }, Event::Branch { taken: b, target: y, next: q }) => {
                self.branch(states, (a, x, p), (b, y, q))
            }
            (Event::StaticKey { target: x, next: p }, Event::StaticKey { target: y, next: q }) => {
                self.join((x, y), &states)?;
                self.join((p, q), &states)
            }
            (Event::Call { at, callee: a, next: p }, Event::Call { callee: b, next: q, .. }) => {
                self.call(at, states, (a, p), (b, q))
            }
            (Event::Return, Event::Return) => self.returns(&states),
            (Event::Trap { next: p }, Event::Trap { next: q }) => {
                // A warning goes on behind it, anything worse does not: what follows is compared if there is something.
                if self.sides[0].code.contains_key(&p) && self.sides[1].code.contains_key(&q) {
                    return self.join((p, q), &states);
                }
                Ok(())
            }
            (Event::Opaque { insn: a, next: p }, Event::Opaque { insn: b, next: q }) => {
                self.opaque(states, (a, p), (b, q))
            }
            (a, b) => Err(format!("one side comes to {}, the other to {}", word(&a), word(&b))),
        }
    }

    /// Runs one side to its next event.
    fn advance(&mut self, side: usize, state: &mut State, ip: &mut u64) -> Checked<Event> {
        for _ in 0..MOST_STEPS {
            let Some((insn, role)) = self.sides[side].code.get(ip).copied() else {
                return Err("control leaves the function in an unknown way".into());
            };
            let next = insn.next_ip();
            match role {
                Role::Nothing => {
                    *ip = next;
                    continue;
                }
                Role::StaticKey(target) => return Ok(Event::StaticKey { target, next }),
                Role::Return => return Ok(Event::Return),
                Role::Thunk(register, calls) => {
                    let target = state.read(&mut self.arena, register).ok_or("a thunk of an unknown register")?;
                    return Ok(Event::Call {
                        at: insn.ip(),
                        callee: Callee::Register(target),
                        next: calls.then_some(next),
                    });
                }
                Role::Operation(operation) => {
                    let factor = self.arena.constant(u128::from(operation.factor as u64), 64);
                    let addend = self.arena.constant(u128::from(operation.addend as u64), 64);
                    let done = operation.execute(&mut self.arena, state, factor, addend);
                    done.ok_or("an operation has no result there")?;
                    *ip = next;
                    continue;
                }
                Role::Plain => {}
            }
            if insn.mnemonic() == Mnemonic::Ret {
                return Ok(Event::Return);
            }
            if let Some(event) = self.transfer(side, state, &insn)? {
                match event {
                    Ok(event) => return Ok(event),
                    Err(target) => {
                        *ip = target;
                        continue;
                    }
                }
            }
            let before = state.clone();
            state.accesses.clear();
            match step(&mut self.arena, state, &insn, &self.sides[side].overrides) {
                Ok(Flow::Next) => *ip = next,
                Ok(Flow::Branch { taken, target }) => match self.arena.as_constant(taken) {
                    Some(0) => *ip = next,
                    Some(_) => *ip = target,
                    None => return Ok(Event::Branch { taken, target, next }),
                },
                Ok(Flow::Trap) => return Ok(Event::Trap { next }),
                Ok(_) => return Err(format!("{:?} is not followed", insn.code())),
                Err(_) => {
                    *state = before;
                    return Ok(Event::Opaque { insn, next });
                }
            }
            self.note_accesses(side, state)?;
        }
        Err("a path without branch or call is too long".into())
    }

    /// Calls and jumps: an event, or the address where control goes on.
    fn transfer(&mut self, side: usize, state: &State, insn: &Instruction) -> Checked<Option<Result<Event, u64>>> {
        let near = matches!(insn.op0_kind(), OpKind::NearBranch64);
        match insn.mnemonic() {
            Mnemonic::Call if near => {
                let callee = Callee::Direct(insn.near_branch_target());
                Ok(Some(Ok(Event::Call { at: insn.ip(), callee, next: Some(insn.next_ip()) })))
            }
            Mnemonic::Jmp if near => {
                let target = insn.near_branch_target();
                if self.sides[side].code.contains_key(&target) {
                    return Ok(Some(Err(target)));
                }
                Ok(Some(Ok(Event::Call { at: insn.ip(), callee: Callee::Direct(target), next: None })))
            }
            Mnemonic::Call | Mnemonic::Jmp => {
                let register = insn.op0_register();
                if insn.op0_kind() != OpKind::Register {
                    // Calls through memory (paravirtual operations) name the pointer's place, which has to be the same.
                    let address = self.arena.constant(u128::from(insn.memory_displacement64()), 64);
                    let known = insn.memory_base() == Register::RIP || insn.memory_base() == Register::None;
                    let next = (insn.mnemonic() == Mnemonic::Call).then(|| insn.next_ip());
                    return if known && insn.memory_index() == Register::None {
                        Ok(Some(Ok(Event::Call { at: insn.ip(), callee: Callee::Register(address), next })))
                    } else {
                        Err("a call through memory".into())
                    };
                }
                let target = state.read(&mut self.arena, register).ok_or("a call through an unknown register")?;
                let next = (insn.mnemonic() == Mnemonic::Call).then(|| insn.next_ip());
                Ok(Some(Ok(Event::Call { at: insn.ip(), callee: Callee::Register(target), next })))
            }
            _ => Ok(None),
        }
    }

    /// Notes the stack slots that the last instruction used, and refuses addresses in the frame that are not known.
    fn note_accesses(&mut self, side: usize, state: &mut State) -> Checked<()> {
        for access in std::mem::take(&mut state.accesses) {
            if let Some(offset) = frame_offset(&mut self.arena, state, access.address) {
                let mut at = offset;
                let mut left = access.bytes;
                while left > 0 {
                    let size = if left >= 4 { 4 } else { left.min(2) };
                    self.slots.insert((side as u8, at, size as u8));
                    at += i64::from(size);
                    left -= size;
                }
            } else if tainted(&self.arena, access.address) {
                return Err("memory in the frame is used through a computed address".into());
            }
        }
        Ok(())
    }

    /// Whether two terms are equal for all values of their variables: by form, else by the solver.
    fn equal(&mut self, a: Term, b: Term) -> bool {
        if a == b {
            return true;
        }
        if tainted(&self.arena, a) || tainted(&self.arena, b) || self.queries >= MOST_QUERIES {
            return false;
        }
        self.queries += 1;
        if self.prover.is_none() {
            let Ok(mut prover) = Prover::start() else { return false };
            let _ = prover.set_timeout(QUERY_TIME);
            self.prover = Some(prover);
        }
        let claim = self.arena.eq(a, b);
        let verdict = self.prover.as_mut().map(|p| p.valid(&self.arena, &[], claim));
        matches!(verdict, Some(Ok(Verdict::Proved)))
    }

    fn same_memory(&mut self, states: &[State; 2]) -> Checked<()> {
        if states[0].trap != states[1].trap {
            return Err("a division can trap on one side".into());
        }
        if self.equal(states[0].memory, states[1].memory) {
            return Ok(());
        }
        Err("common memory is written differently".into())
    }

    fn branch(&mut self, states: [State; 2], (a, x, p): (Term, u64, u64), (b, y, q): (Term, u64, u64)) -> Checked<()> {
        let opposite = self.arena.not(b);
        let (taken, fallen) = if self.equal(a, b) {
            ((x, y), (p, q))
        } else if self.equal(a, opposite) {
            ((x, q), (p, y))
        } else {
            return Err(format!("the conditions differ: {} and {}", self.shown(a), self.shown(b)));
        };
        self.join(taken, &states)?;
        self.join(fallen, &states)
    }

    fn shown(&self, term: Term) -> String {
        let text = self.arena.display(term);
        if text.len() > 120 { format!("{}…", text.chars().take(120).collect::<String>()) } else { text }
    }

    fn call(
        &mut self,
        at: u64,
        mut states: [State; 2],
        (a, p): (Callee, Option<u64>),
        (b, q): (Callee, Option<u64>),
    ) -> Checked<()> {
        if a != b {
            return Err("different functions are called".into());
        }
        if let (Callee::Register(target), Some(p), Some(q)) = (a, p, q)
            && let Some(address) = self.arena.as_constant(target)
            && self.linker.symbol(address as u64).is_some_and(|(s, o)| self.signatures.is_plain_operation(s, o))
        {
            self.after_call(&mut states, (p, q), &[0])?;
            return self.join((p, q), &states);
        }
        let name = match a {
            Callee::Direct(address) => self.linker.name(address).unwrap_or("").to_string(),
            Callee::Register(target) if tainted(&self.arena, target) => return Err("a call into the frame".into()),
            Callee::Register(_) => String::new(),
        };
        let inline = !self.sides[0].calls.is_empty() && !self.sides[0].calls.contains_key(&at);
        if let (true, Some(0), true, Some(p), Some(q)) =
            (inline, self.signatures.arguments(&name), self.signatures.is_void(&name), p, q)
        {
            // A call in inline assembly that takes and gives nothing: to the compiler all registers stay as they are.
            self.after_call(&mut states, (p, q), &[])?;
            return self.join((p, q), &states);
        }
        match (self.sides[0].calls.get(&at).cloned(), self.signatures.arguments(&name)) {
            (Some(call), _) => {
                self.same_stack_arguments(&states, call.stack)?;
                for (register, bits) in call.registers {
                    self.same_argument(&states, register, bits)?;
                }
            }
            (None, Some(count)) if count > 6 => return Err(format!("{name} gets arguments on the stack")),
            // Inline assembly passes what it likes; what a call left behind it never passes on.
            (None, known) => {
                for register in ARGUMENTS.into_iter().take(known.unwrap_or(6)) {
                    if !garbage(&self.arena, states[0].gpr[register]) {
                        self.same_argument(&states, register, 64)?;
                    }
                }
            }
        }
        match (p, q) {
            (Some(p), Some(q)) => {
                self.after_call(&mut states, (p, q), &CLOBBERED)?;
                self.join((p, q), &states)
            }
            // A tail call: the frame is gone, and the callee returns for this function.
            (None, None) => self.frame_restored(&states),
            _ => Err("one side calls, the other jumps".into()),
        }
    }

    fn same_argument(&mut self, states: &[State; 2], register: usize, bits: u32) -> Checked<()> {
        let [ours, theirs] = states.each_ref().map(|s| s.gpr[register]);
        let x = frame_offset(&mut self.arena, &states[0], ours);
        let y = frame_offset(&mut self.arena, &states[1], theirs);
        if let (Some(x), Some(y)) = (x, y) {
            if x != y {
                return Err("addresses of different stack slots are passed".into());
            }
            self.escaped = Some(self.escaped.map_or(x, |e| e.min(x)));
            return Ok(());
        }
        let [ours, theirs] = [ours, theirs].map(|t| self.arena.extract(t, bits - 1, 0));
        if tainted(&self.arena, ours) {
            return Err("an address in the frame is passed in a computed way".into());
        }
        if self.equal(ours, theirs) {
            return Ok(());
        }
        let name = REGISTER_NAMES[register];
        Err(format!("the argument in {name} differs: {} and {}", self.shown(ours), self.shown(theirs)))
    }

    /// Whether both sides pass the same on the stack: `bytes` from the stack pointer upwards.
    fn same_stack_arguments(&mut self, states: &[State; 2], bytes: u32) -> Checked<()> {
        if bytes > 64 {
            return Err("a call passes arguments in a way that is not known".into());
        }
        for offset in (0..bytes).step_by(8) {
            let mut held = Vec::new();
            for state in states {
                let Some(frame) = state.frame else { return Err("the frame is not known".into()) };
                let address = self.arena.add_constant(state.gpr[RSP], u128::from(offset));
                held.push(self.arena.load_bytes(frame.memory, address, 8));
            }
            // A narrow argument leaves the rest of its slot as it comes.
            let low = [self.arena.extract(held[0], 31, 0), self.arena.extract(held[1], 31, 0)];
            let taint = held.iter().any(|t| tainted(&self.arena, *t));
            if taint || !(self.equal(held[0], held[1]) || self.unwritten_above(&held) && self.equal(low[0], low[1])) {
                return Err("an argument on the stack differs".into());
            }
        }
        Ok(())
    }

    /// Whether the upper halves of both terms are what happened to lie there.
    fn unwritten_above(&mut self, held: &[Term]) -> bool {
        let high: Vec<Term> = held.iter().map(|t| self.arena.extract(*t, 63, 32)).collect();
        high.len() == 2 && self.unwritten([high[0], high[1]])
    }

    /// What a call leaves: the same results and the same memory on both sides.
    fn after_call(&mut self, states: &mut [State; 2], point: Point, clobbered: &[usize]) -> Checked<()> {
        let tag = format!("{:x}.{:x}.{}", point.0, point.1, self.points);
        let memory = self.arena.memory(&format!("called.{tag}"));
        let (rax, rdx) =
            (self.arena.var(&format!("result.{tag}.rax"), 64), self.arena.var(&format!("result.{tag}.rdx"), 64));
        self.escape_frames(states, &tag)?;
        for (side, state) in states.iter_mut().enumerate() {
            state.memory = memory;
            for &register in clobbered {
                state.gpr[register] = self.arena.var(&format!("garbage.{tag}.{side}.{register}"), 64);
            }
            if clobbered.contains(&0) {
                state.gpr[0] = rax;
            }
            if clobbered.contains(&2) {
                state.gpr[2] = rdx;
            }
            for flag in Flag::ALL {
                let value = self.arena.fresh("flag", 1);
                state.flags.set(flag, value);
            }
        }
        Ok(())
    }

    /// Whoever has an address in the frame may read and write from there upwards: both frames must be alike, and are
    /// afterwards.
    fn escape_frames(&mut self, states: &mut [State; 2], tag: &str) -> Checked<()> {
        let Some(lowest) = self.escaped else { return Ok(()) };
        let (Some(ours), Some(theirs)) = (states[0].frame, states[1].frame) else { return Ok(()) };
        let slots: BTreeSet<(i64, u8)> = self.slots.iter().map(|(_, o, s)| (*o, *s)).filter(|(o, _)| *o < 0).collect();
        let shared = self.arena.memory(&format!("frames.{tag}"));
        let mut new = [shared, shared];
        // What is there afterwards gets names of its own: a load would look as if it were made of the frame's address.
        let mut largest: Vec<(i64, u8)> = slots.iter().copied().collect();
        largest.sort_by_key(|(_, size)| *size);
        for (offset, size) in largest {
            let address = self.arena.add_constant(ours.base, offset as u64 as u128);
            let value = self.arena.var(&format!("frames.{tag}.{offset}.{size}"), u32::from(size) * 8);
            new = new.map(|memory| self.arena.store_bytes(memory, address, value));
        }
        for (offset, size) in slots {
            let address = self.arena.add_constant(ours.base, offset as u64 as u128);
            let held = [ours, theirs].map(|f| self.arena.load_bytes(f.memory, address, u32::from(size)));
            let saved = |arena: &Arena, t: Term| arena.as_variable(t).is_some_and(|n| n.starts_with("entry."));
            let private = offset < lowest || held.iter().any(|t| saved(&self.arena, *t));
            if private {
                for (memory, term) in new.iter_mut().zip(held) {
                    *memory = self.arena.store_bytes(*memory, address, term);
                }
            } else if held[0] != held[1] && !self.unwritten(held) {
                return Err(format!("the frames differ at {offset} when an address of them is known outside"));
            }
        }
        states[0].frame = Some(Frame { memory: new[0], ..ours });
        states[1].frame = Some(Frame { memory: new[1], ..theirs });
        Ok(())
    }

    /// Whether neither side has written a slot yet: what is there means nothing.
    fn unwritten(&self, held: [Term; 2]) -> bool {
        held.iter().all(|t| {
            self.arena.as_constant(*t).is_none()
                && self.arena.variables(&[*t]).iter().all(|v| {
                    self.arena.as_variable(*v).is_none_or(|n| {
                        n.starts_with("frame.") || n.starts_with("frames.") || n.starts_with("u.") || n == "frame"
                    })
                })
        })
    }

    fn returns(&mut self, states: &[State; 2]) -> Checked<()> {
        self.frame_restored(states)?;
        if self.signatures.is_void(self.name) || self.equal(states[0].gpr[0], states[1].gpr[0]) {
            return Ok(());
        }
        let low = states.each_ref().map(|s| self.arena.extract(s.gpr[0], 31, 0));
        if low[0] == low[1] {
            return Err("the upper halves of the results differ".into());
        }
        Err(format!("the results differ: {} and {}", self.shown(states[0].gpr[0]), self.shown(states[1].gpr[0])))
    }

    /// Whether both sides give back the registers that they must keep.
    fn frame_restored(&mut self, states: &[State; 2]) -> Checked<()> {
        for state in states {
            if frame_offset(&mut self.arena, state, state.gpr[RSP]) != Some(0) {
                return Err("the stack pointer is not restored".into());
            }
            for register in KEPT {
                let halves = [0, 1].map(|half| entry_half(&mut self.arena, REGISTER_NAMES[register], half));
                let whole = self.arena.concat(halves[1], halves[0]);
                if state.gpr[register] != whole {
                    return Err(format!("{} is not restored", REGISTER_NAMES[register]));
                }
            }
        }
        Ok(())
    }

    /// An instruction that is not modelled: equal inputs give equal outputs.
    fn opaque(
        &mut self,
        mut states: [State; 2],
        (a, p): (Instruction, u64),
        (b, q): (Instruction, u64),
    ) -> Checked<()> {
        let same = a.code() == b.code() && a.op_count() == b.op_count() && a.code() != Code::INVALID;
        if !same {
            return Err(format!("{:?} and {:?} are not compared", a.code(), b.code()));
        }
        if format!("{:?}", a.mnemonic()).starts_with('P') && matches!(a.mnemonic(), Mnemonic::Popfq | Mnemonic::Pushfq)
        {
            return Err("the flags are pushed or popped".into());
        }
        for n in 0..a.op_count() {
            let (x, y) = (a.op_kind(n), b.op_kind(n));
            let equal = x == y
                && match x {
                    OpKind::Register => a.op_register(n) == b.op_register(n),
                    OpKind::Memory => {
                        (
                            a.memory_base(),
                            a.memory_index(),
                            a.memory_displacement64(),
                            a.memory_segment(),
                            a.memory_index_scale(),
                        ) == (
                            b.memory_base(),
                            b.memory_index(),
                            b.memory_displacement64(),
                            b.memory_segment(),
                            b.memory_index_scale(),
                        )
                    }
                    _ => a.try_immediate(n).ok() == b.try_immediate(n).ok(),
                };
            if !equal {
                return Err(format!("operands of {:?} differ", a.mnemonic()));
            }
        }
        let (read, written) = (crate::span::accessed(&a, false), crate::span::accessed(&a, true));
        for register in read.iter().filter(|r| **r != Register::RSP) {
            let number = register.number();
            let (x, y) = (states[0].gpr[number], states[1].gpr[number]);
            if x != y || tainted(&self.arena, x) {
                return Err(format!("{register:?} differs before {:?}", a.mnemonic()));
            }
        }
        let tag = format!("{:x}.{:x}.{}", p, q, self.points);
        self.escape_frames(&mut states, &tag)?;
        let memory = self.arena.memory(&format!("called.{tag}"));
        for register in written.iter().filter(|r| **r != Register::RSP) {
            let value = self.arena.var(&format!("result.{tag}.{register:?}"), 64);
            states.iter_mut().for_each(|s| s.gpr[register.number()] = value);
        }
        for (n, flag) in Flag::ALL.into_iter().enumerate() {
            let value = self.arena.var(&format!("result.{tag}.flag{n}"), 1);
            states.iter_mut().for_each(|s| s.flags.set(flag, value));
        }
        states.iter_mut().for_each(|s| s.memory = memory);
        self.join((p, q), &states)
    }

    /// Adds what two states know to what is known where they go.
    fn join(&mut self, point: Point, states: &[State; 2]) -> Checked<()> {
        let known = [point.0, point.1].iter().zip(self.sides).filter(|(p, s)| s.code.contains_key(p)).count();
        if known == 0 {
            // Behind a call that does not return there is nothing.
            return Ok(());
        }
        for state in states {
            if frame_offset(&mut self.arena, state, state.gpr[RSP]).is_none() {
                return Err("the stack pointer is not known".into());
            }
        }
        if tainted(&self.arena, states[0].memory) {
            return Err("an address in the frame is stored".into());
        }
        let new = Facts::read(&mut self.arena, states, &self.slots);
        match self.facts.get(&point) {
            None => {
                self.facts.insert(point, (0, new));
                self.pending.push_back(point);
            }
            Some((version, old)) => {
                let met = old.meet(&new);
                if !met.same(old) {
                    self.facts.insert(point, (version + 1, met));
                    if !self.pending.contains(&point) {
                        self.pending.push_back(point);
                    }
                }
            }
        }
        Ok(())
    }
}

fn word(event: &Event) -> &'static str {
    match event {
        Event::Branch { .. } => "a branch",
        Event::StaticKey { .. } => "a static key",
        Event::Call { .. } => "a call",
        Event::Return => "its end",
        Event::Trap { .. } => "a trap",
        Event::Opaque { .. } => "an instruction that is not modelled",
    }
}
