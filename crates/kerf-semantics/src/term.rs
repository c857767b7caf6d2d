//! Hash-consed bit-vector terms: what a term is, how it is interned, and the basic constructors.
//!
//! Every constructor simplifies (the rules stand in `linear`, `bits`, `slices`, `compare` and `memory`), so that two
//! computations that mean the same in an obvious way become the same [`Term`], and comparing them costs nothing.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashMap};

/// A term of an [`Arena`]: a bit vector of 1 to 128 bits, or a memory (64-bit addresses to bytes).
///
/// Booleans are 1-bit vectors. A term means something only together with the arena that made it.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Ord, PartialOrd, Debug)]
pub struct Term(pub(crate) u32);

/// The operations of [`Node::Bits`], which are associative and commutative.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug)]
pub(crate) enum BitOp {
    And,
    Or,
    Xor,
}

/// The four divisions, with the results that SMT-LIB gives to a division by zero.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug)]
pub(crate) enum DivOp {
    Udiv,
    Urem,
    Sdiv,
    Srem,
}

/// Shifts by an amount that is not constant; amounts past the width give zero or copies of the sign.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug)]
pub(crate) enum ShiftOp {
    Shl,
    Lshr,
    Ashr,
}

/// One interned operation. Children are older than parents: their numbers are smaller.
#[derive(Clone, Eq, PartialEq, Hash, Debug)]
pub(crate) enum Node {
    Constant(u128),
    Variable(Arc<str>),
    Memory(Arc<str>),
    /// Σ coefficient·term + constant, modulo 2^width; terms ascending, coefficients not zero, never 1 bit wide.
    Sum(Arc<[(Term, u128)]>, u128),
    Product(Term, Term),
    Divide(DivOp, Term, Term),
    /// Terms ascending, at least one; the constant is the identity of the operation when it says nothing.
    Bits(BitOp, Arc<[Term]>, u128),
    Not(Term),
    Shift(ShiftOp, Term, Term),
    /// High part, low part.
    Concat(Term, Term),
    /// Term, highest bit, lowest bit.
    Extract(Term, u32, u32),
    Zext(Term),
    Sext(Term),
    Ite(Term, Term, Term),
    Eq(Term, Term),
    Ult(Term, Term),
    Slt(Term, Term),
    /// 1 when the number of ones in an 8-bit term is even.
    Parity(Term),
    Select(Term, Term),
    Store(Term, Term, Term),
}

/// The owner of all terms of one analysis.
#[derive(Default)]
pub struct Arena {
    nodes: Vec<Node>,
    /// Bits of each node; 0 marks a memory.
    widths: Vec<u32>,
    /// Each term under the hash of its node and width.
    index: HashTable<Term>,
    pub(crate) extracts: FxHashMap<(Term, u32, u32), Term>,
    pub(crate) selects: FxHashMap<(Term, Term), Term>,
    pub(crate) complements: FxHashMap<Term, Term>,
    /// What sets of 1-bit operands simplify to.
    pub(crate) booleans: FxHashMap<(BitOp, Box<[Term]>), Option<Term>>,
    fresh: u32,
    /// Where variables with names lie, if they are taken to be apart from what pointers reach; else empty.
    pub(crate) variables: std::ops::Range<u64>,
}

/// Terms are made from kernels, not by an adversary: a quick hash will do.
fn hash(node: &Node, width: u32) -> u64 {
    FxBuildHasher.hash_one((node, width))
}

fn hash_of(nodes: &[Node], widths: &[u32], term: Term) -> u64 {
    let at = term.0 as usize;
    hash(&nodes[at], widths[at])
}

/// All ones in `width` bits.
pub(crate) fn mask(width: u32) -> u128 {
    if width >= 128 { u128::MAX } else { (1 << width) - 1 }
}

/// `value`, a `width`-bit number, as a signed one.
pub(crate) fn signed(value: u128, width: u32) -> i128 {
    let shift = 128 - width;
    ((value << shift) as i128) >> shift
}

impl Arena {
    /// An arena without terms.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn intern(&mut self, node: Node, width: u32) -> Term {
        debug_assert!(width <= 128, "terms have at most 128 bits");
        let hash = hash(&node, width);
        if let Some(term) = self.find(&node, width, hash) {
            return term;
        }
        let next = Term(self.nodes.len() as u32);
        self.nodes.push(node);
        self.widths.push(width);
        let (nodes, widths) = (&self.nodes, &self.widths);
        let place = |term: &Term| hash_of(nodes, widths, *term);
        self.index.insert_unique(hash, next, place);
        next
    }

    fn find(&self, node: &Node, width: u32, hash: u64) -> Option<Term> {
        let same = |term: &Term| self.widths[term.0 as usize] == width && self.nodes[term.0 as usize] == *node;
        self.index.find(hash, same).copied()
    }

    fn contains(&self, node: &Node, width: u32) -> bool {
        self.find(node, width, hash(node, width)).is_some()
    }

    pub(crate) fn node(&self, term: Term) -> &Node {
        &self.nodes[term.0 as usize]
    }

    /// How many terms there are; numbers of terms are below this.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether no term has been made yet.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The free variable `name`, `width` bits wide (1 to 128). The same name and width give the same term; one name
    /// should not be used with two widths, since an [`Assignment`](crate::Assignment) goes by name.
    pub fn var(&mut self, name: &str, width: u32) -> Term {
        assert!((1..=128).contains(&width), "a variable has 1 to 128 bits, not {width}");
        self.intern(Node::Variable(name.into()), width)
    }

    /// A variable that no term has used so far; `label` becomes part of its name.
    pub fn fresh(&mut self, label: &str, width: u32) -> Term {
        loop {
            self.fresh += 1;
            let name: Arc<str> = format!("{label}#{}", self.fresh).into();
            let node = Node::Variable(name);
            if !self.contains(&node, width) {
                return self.intern(node, width);
            }
        }
    }

    /// A memory that no term has used so far.
    pub(crate) fn fresh_memory(&mut self, label: &str) -> Term {
        loop {
            self.fresh += 1;
            let name: Arc<str> = format!("{label}#{}", self.fresh).into();
            let node = Node::Memory(name);
            if !self.contains(&node, 0) {
                return self.intern(node, 0);
            }
        }
    }

    /// The free memory `name`.
    pub fn memory(&mut self, name: &str) -> Term {
        self.intern(Node::Memory(name.into()), 0)
    }

    /// `value` modulo 2^`width`, `width` from 1 to 128.
    pub fn constant(&mut self, value: u128, width: u32) -> Term {
        assert!((1..=128).contains(&width), "a constant has 1 to 128 bits, not {width}");
        self.intern(Node::Constant(value & mask(width)), width)
    }

    /// The 1-bit constant for `value`.
    pub fn bool(&mut self, value: bool) -> Term {
        self.constant(u128::from(value), 1)
    }

    /// Bits in `term`, 0 for a memory.
    pub fn width(&self, term: Term) -> u32 {
        self.widths[term.0 as usize]
    }

    /// Whether `term` is a memory.
    pub fn is_memory(&self, term: Term) -> bool {
        self.width(term) == 0
    }

    /// The value of a constant term.
    pub fn as_constant(&self, term: Term) -> Option<u128> {
        match self.node(term) {
            Node::Constant(value) => Some(*value),
            _ => None,
        }
    }

    /// The name of a variable or of a memory variable.
    pub fn as_variable(&self, term: Term) -> Option<&str> {
        match self.node(term) {
            Node::Variable(name) | Node::Memory(name) => Some(name),
            _ => None,
        }
    }

    /// What a 1-bit term is the conjunction of: the term itself, if it is none.
    pub fn conjuncts(&self, term: Term) -> Vec<Term> {
        match self.node(term) {
            Node::Bits(BitOp::And, terms, 1) if self.width(term) == 1 => terms.to_vec(),
            _ => vec![term],
        }
    }

    /// Both sides of a term that says that two are equal; a constant stands to the right.
    pub fn as_equality(&self, term: Term) -> Option<(Term, Term)> {
        match self.node(term) {
            Node::Eq(a, b) => Some((*a, *b)),
            _ => None,
        }
    }

    pub(crate) fn same_width(&self, a: Term, b: Term) -> u32 {
        let width = self.width(a);
        assert_eq!(width, self.width(b), "both operands have the same width");
        width
    }

    /// The direct operands of `term`.
    pub(crate) fn children(&self, term: Term) -> Vec<Term> {
        match self.node(term) {
            Node::Constant(_) | Node::Variable(_) | Node::Memory(_) => Vec::new(),
            Node::Sum(terms, _) => terms.iter().map(|&(term, _)| term).collect(),
            Node::Bits(_, terms, _) => terms.to_vec(),
            Node::Not(a) | Node::Extract(a, ..) | Node::Zext(a) | Node::Sext(a) | Node::Parity(a) => vec![*a],
            Node::Product(a, b)
            | Node::Divide(_, a, b)
            | Node::Shift(_, a, b)
            | Node::Concat(a, b)
            | Node::Eq(a, b)
            | Node::Ult(a, b)
            | Node::Slt(a, b)
            | Node::Select(a, b) => vec![*a, *b],
            Node::Ite(a, b, c) | Node::Store(a, b, c) => vec![*a, *b, *c],
        }
    }

    /// Every term that `roots` are made of, the roots too, operands before what uses them.
    pub fn reachable(&self, roots: &[Term]) -> Vec<Term> {
        let mut seen = std::collections::BTreeSet::new();
        let mut open = roots.to_vec();
        while let Some(term) = open.pop() {
            if seen.insert(term) {
                open.extend(self.children(term));
            }
        }
        seen.into_iter().collect()
    }

    /// The variables, memories included, that `roots` depend on.
    pub fn variables(&self, roots: &[Term]) -> Vec<Term> {
        let mut found = self.reachable(roots);
        found.retain(|&term| self.as_variable(term).is_some());
        found
    }

    /// `term` with every occurrence of the keys of `map` replaced by their values (of the same width).
    pub fn substitute(&mut self, term: Term, map: &HashMap<Term, Term, impl BuildHasher>) -> Term {
        let mut done: FxHashMap<Term, Term> = FxHashMap::default();
        for old in self.reachable(&[term]) {
            let new = match map.get(&old) {
                Some(&new) => {
                    assert_eq!(self.width(old), self.width(new), "a substitute has the width of what it replaces");
                    new
                }
                None => self.rebuild(old, &done),
            };
            done.insert(old, new);
        }
        done[&term]
    }

    /// `term` made again through the simplifying constructors, its operands looked up in `done`.
    fn rebuild(&mut self, term: Term, done: &FxHashMap<Term, Term>) -> Term {
        let width = self.width(term);
        match self.node(term).clone() {
            Node::Constant(_) | Node::Variable(_) | Node::Memory(_) => term,
            Node::Sum(terms, constant) => {
                let mut sum = self.constant(constant, width);
                for &(part, coefficient) in terms.iter() {
                    let scaled = self.scale(done[&part], coefficient);
                    sum = self.add(sum, scaled);
                }
                sum
            }
            Node::Bits(op, terms, constant) => {
                let constant = self.constant(constant, width);
                let terms: Vec<Term> = terms.iter().map(|part| done[part]).chain([constant]).collect();
                self.bits(op, &terms, width)
            }
            Node::Product(a, b) => self.mul(done[&a], done[&b]),
            Node::Divide(op, a, b) => self.divide(op, done[&a], done[&b]),
            Node::Not(a) => self.not(done[&a]),
            Node::Shift(op, a, b) => self.shift(op, done[&a], done[&b]),
            Node::Concat(a, b) => self.concat(done[&a], done[&b]),
            Node::Extract(a, hi, lo) => self.extract(done[&a], hi, lo),
            Node::Zext(a) => self.zext(done[&a], width),
            Node::Sext(a) => self.sext(done[&a], width),
            Node::Ite(a, b, c) => self.ite(done[&a], done[&b], done[&c]),
            Node::Eq(a, b) => self.eq(done[&a], done[&b]),
            Node::Ult(a, b) => self.ult(done[&a], done[&b]),
            Node::Slt(a, b) => self.slt(done[&a], done[&b]),
            Node::Parity(a) => self.parity(done[&a]),
            Node::Select(a, b) => self.select(done[&a], done[&b]),
            Node::Store(a, b, c) => self.store(done[&a], done[&b], done[&c]),
        }
    }
}
