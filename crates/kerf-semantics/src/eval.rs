//! Concrete values of terms: what the symbolic result is on one given machine state.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::linear::divide;
use crate::term::{Arena, BitOp, Node, ShiftOp, Term, mask, signed};

/// Values for variables, by name, and bytes for memories, by name and address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    values: HashMap<String, u128>,
    memories: HashMap<String, Bytes>,
    missing: u128,
}

/// What is known of one memory: whole blocks, and single bytes that go before them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Bytes {
    single: BTreeMap<u64, u8>,
    blocks: Vec<(u64, Arc<[u8]>)>,
}

impl Bytes {
    fn get(&self, address: u64) -> Option<u8> {
        self.single.get(&address).copied().or_else(|| {
            self.blocks.iter().rev().find_map(|(start, bytes)| {
                let offset = usize::try_from(address.wrapping_sub(*start)).ok()?;
                bytes.get(offset).copied()
            })
        })
    }

    fn addresses(&self) -> impl Iterator<Item = u64> + '_ {
        let blocks = self
            .blocks
            .iter()
            .flat_map(|(start, bytes)| (0..bytes.len() as u64).map(move |offset| start.wrapping_add(offset)));
        self.single.keys().copied().chain(blocks)
    }
}

impl Assignment {
    /// Nothing assigned: every variable and every byte is zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives `missing`, cut to their width, to variables without a value of their own.
    pub fn with_missing(mut self, missing: u128) -> Self {
        self.missing = missing;
        self
    }

    /// Sets the variable `name`.
    pub fn set(&mut self, name: &str, value: u128) {
        self.values.insert(name.to_owned(), value);
    }

    /// The value set for the variable `name`.
    pub fn get(&self, name: &str) -> Option<u128> {
        self.values.get(name).copied()
    }

    /// Sets one byte of the memory `name`.
    pub fn set_byte(&mut self, name: &str, address: u64, byte: u8) {
        self.memories.entry(name.to_owned()).or_default().single.insert(address, byte);
    }

    /// Sets a block of bytes of the memory `name`, over earlier blocks and under single bytes.
    pub fn set_block(&mut self, name: &str, address: u64, bytes: &[u8]) {
        self.memories.entry(name.to_owned()).or_default().blocks.push((address, bytes.into()));
    }

    /// One byte of the memory `name`; zero where nothing was set.
    pub fn byte(&self, name: &str, address: u64) -> u8 {
        self.memories.get(name).and_then(|bytes| bytes.get(address)).unwrap_or(0)
    }

    /// The bytes set in the memory `name`; those set several times come several times, with the same value.
    pub fn bytes(&self, name: &str) -> impl Iterator<Item = (u64, u8)> + '_ {
        let known = self.memories.get(name).into_iter();
        known.flat_map(|bytes| bytes.addresses().map(|address| (address, bytes.get(address).unwrap_or(0))))
    }

    /// The variables set, by name.
    pub fn values(&self) -> impl Iterator<Item = (&str, u128)> {
        self.values.iter().map(|(name, &value)| (name.as_str(), value))
    }
}

/// Evaluates many terms under one assignment, each shared part once.
pub struct Evaluator<'a> {
    arena: &'a Arena,
    assignment: &'a Assignment,
    known: FxHashMap<Term, u128>,
}

impl Arena {
    /// The value of a bit-vector term; variables without a value are zero.
    pub fn eval(&self, term: Term, assignment: &Assignment) -> u128 {
        self.evaluator(assignment).value(term)
    }

    /// An evaluator for many terms under one assignment.
    pub fn evaluator<'a>(&'a self, assignment: &'a Assignment) -> Evaluator<'a> {
        Evaluator { arena: self, assignment, known: FxHashMap::default() }
    }
}

impl Evaluator<'_> {
    /// The value of a bit-vector term.
    pub fn value(&mut self, term: Term) -> u128 {
        if let Some(&value) = self.known.get(&term) {
            return value;
        }
        // Operands first, with a stack of our own: terms of long code are nested deeply.
        let mut open = vec![term];
        while let Some(&next) = open.last() {
            let before = open.len();
            if !self.known.contains_key(&next) {
                open.extend(self.arena.children(next).into_iter().filter(|child| !self.known.contains_key(child)));
                if open.len() > before {
                    continue;
                }
                let value = self.compute(next) & mask(self.arena.width(next).max(1));
                self.known.insert(next, value);
            }
            open.pop();
        }
        self.known.get(&term).copied().unwrap_or(0)
    }

    /// The value of a term whose operands are known.
    fn compute(&mut self, term: Term) -> u128 {
        let arena = self.arena;
        let width = arena.width(term);
        match arena.node(term) {
            Node::Constant(value) => *value,
            Node::Variable(name) => self.assignment.get(name).unwrap_or(self.assignment.missing),
            Node::Memory(_) | Node::Store(..) => 0,
            Node::Sum(terms, constant) => terms.iter().fold(*constant, |sum, &(part, coefficient)| {
                sum.wrapping_add(self.value(part).wrapping_mul(coefficient))
            }),
            Node::Product(a, b) => self.value(*a).wrapping_mul(self.value(*b)),
            Node::Divide(op, a, b) => divide(*op, self.value(*a), self.value(*b), width),
            Node::Bits(op, terms, constant) => terms.iter().fold(*constant, |bits, &part| {
                let value = self.value(part);
                match op {
                    BitOp::And => bits & value,
                    BitOp::Or => bits | value,
                    BitOp::Xor => bits ^ value,
                }
            }),
            Node::Not(a) => !self.value(*a),
            Node::Shift(op, a, b) => shift(*op, self.value(*a), self.value(*b), width),
            Node::Concat(hi, lo) => (self.value(*hi) << arena.width(*lo)) | self.value(*lo),
            Node::Extract(a, _, lo) => self.value(*a) >> lo,
            Node::Zext(a) => self.value(*a),
            Node::Sext(a) => signed(self.value(*a), arena.width(*a)) as u128,
            Node::Ite(c, a, b) => {
                if self.value(*c) == 1 {
                    self.value(*a)
                } else {
                    self.value(*b)
                }
            }
            Node::Eq(a, b) if arena.is_memory(*a) => u128::from(self.same_memory(*a, *b)),
            Node::Eq(a, b) => u128::from(self.value(*a) == self.value(*b)),
            Node::Ult(a, b) => u128::from(self.value(*a) < self.value(*b)),
            Node::Slt(a, b) => {
                let width = arena.width(*a);
                u128::from(signed(self.value(*a), width) < signed(self.value(*b), width))
            }
            Node::Parity(a) => u128::from(self.value(*a).count_ones() & 1 == 0),
            Node::Select(memory, address) => {
                let address = self.value(*address) as u64;
                u128::from(self.byte(*memory, address))
            }
        }
    }

    /// The byte of a memory term at an address.
    pub fn byte(&mut self, mut memory: Term, address: u64) -> u8 {
        loop {
            match self.arena.node(memory) {
                Node::Store(before, at, value) => {
                    if self.value(*at) as u64 == address {
                        return self.value(*value) as u8;
                    }
                    memory = *before;
                }
                Node::Ite(condition, yes, no) => memory = if self.value(*condition) == 1 { *yes } else { *no },
                Node::Memory(name) => return self.assignment.byte(name, address),
                _ => return 0,
            }
        }
    }

    /// The bytes that a memory term's stores change or confirm, over the memory variable that it starts from.
    pub fn written(&mut self, memory: Term) -> BTreeMap<u64, u8> {
        let mut at = memory;
        let mut addresses = Vec::new();
        loop {
            match self.arena.node(at) {
                Node::Store(before, address, _) => {
                    addresses.push(self.value(*address) as u64);
                    at = *before;
                }
                Node::Ite(condition, yes, no) => at = if self.value(*condition) == 1 { *yes } else { *no },
                _ => break,
            }
        }
        addresses.into_iter().map(|address| (address, self.byte(memory, address))).collect()
    }

    fn base(&mut self, mut memory: Term) -> Term {
        loop {
            match self.arena.node(memory) {
                Node::Store(before, ..) => memory = *before,
                Node::Ite(condition, yes, no) => memory = if self.value(*condition) == 1 { *yes } else { *no },
                _ => return memory,
            }
        }
    }

    fn same_memory(&mut self, a: Term, b: Term) -> bool {
        let mut addresses: Vec<u64> = self.written(a).into_keys().chain(self.written(b).into_keys()).collect();
        for base in [self.base(a), self.base(b)] {
            if let Some(name) = self.arena.as_variable(base) {
                addresses.extend(self.assignment.bytes(name).map(|(address, _)| address));
            }
        }
        addresses.into_iter().all(|address| self.byte(a, address) == self.byte(b, address))
    }
}

fn shift(op: ShiftOp, a: u128, amount: u128, width: u32) -> u128 {
    let past = amount >= u128::from(width);
    match op {
        ShiftOp::Ashr => (signed(a, width) >> amount.min(u128::from(width - 1))) as u128,
        _ if past => 0,
        ShiftOp::Shl => a << amount,
        ShiftOp::Lshr => a >> amount,
    }
}
