//! Memory terms: byte-wise loads and stores. Stores at a constant distance from each other are kept in the order of
//! their addresses, and loads look through stores that cannot overlap them.

use std::ops::Range;

use crate::term::{Arena, Node, Term};

/// How two addresses relate.
enum Distance {
    Same,
    /// Never equal; whether the first stands before the second in the canonical order.
    Apart(bool),
    Unknown,
}

impl Arena {
    fn distance(&self, a: Term, b: Term) -> Distance {
        match self.constant_difference(a, b) {
            Some(0) => Distance::Same,
            Some(value) => Distance::Apart(value >> 63 == 1),
            None if self.is_variable_place(a) && self.is_pointer(b) => Distance::Apart(true),
            None if self.is_variable_place(b) && self.is_pointer(a) => Distance::Apart(false),
            None => Distance::Unknown,
        }
    }

    /// From now on, constant addresses in this range are taken to be apart from every address that is computed without
    /// such a one: variables with names, and what pointers reach. A compiler that knows it exchanges such accesses.
    pub fn assume_variables_apart(&mut self, places: Range<u64>) {
        self.variables = places;
    }

    fn is_variable_place(&self, address: Term) -> bool {
        self.as_constant(address).is_some_and(|a| self.variables.contains(&(a as u64)))
    }

    /// Whether an address is computed from something else than a variable's place.
    fn is_pointer(&self, address: Term) -> bool {
        let mut own = [(address, 1)];
        let (terms, constant) = self.parts(address, &mut own);
        !terms.is_empty() && !self.variables.contains(&(constant as u64))
    }

    /// The byte of `memory` at a 64-bit `address`.
    pub fn select(&mut self, memory: Term, address: Term) -> Term {
        assert!(self.is_memory(memory) && self.width(address) == 64, "a load has a memory and a 64-bit address");
        if let Some(&known) = self.selects.get(&(memory, address)) {
            return known;
        }
        let mut at = memory;
        let result = loop {
            match *self.node(at) {
                Node::Store(before, other, value) => match self.distance(address, other) {
                    Distance::Same => break value,
                    Distance::Apart(_) => at = before,
                    Distance::Unknown => break self.intern(Node::Select(at, address), 8),
                },
                Node::Ite(condition, yes, no) => {
                    let (yes, no) = (self.select(yes, address), self.select(no, address));
                    break self.ite(condition, yes, no);
                }
                _ => break self.intern(Node::Select(at, address), 8),
            }
        };
        self.selects.insert((memory, address), result);
        result
    }

    /// `memory` with the byte at `address` replaced by the 8-bit `value`.
    pub fn store(&mut self, memory: Term, address: Term, value: Term) -> Term {
        assert!(self.is_memory(memory) && self.width(address) == 64, "a store has a memory and a 64-bit address");
        assert_eq!(self.width(value), 8, "a store writes one byte");
        // Storing what is there changes nothing.
        if self.select(memory, address) == value {
            return memory;
        }
        let mut later = Vec::new();
        let mut at = memory;
        while let Node::Store(before, other, stored) = *self.node(at) {
            match self.distance(address, other) {
                Distance::Same => {
                    at = before;
                    break;
                }
                Distance::Apart(true) => {
                    later.push((other, stored));
                    at = before;
                }
                Distance::Apart(false) | Distance::Unknown => break,
            }
        }
        let mut result = self.intern(Node::Store(at, address, value), 0);
        for (other, stored) in later.into_iter().rev() {
            result = self.intern(Node::Store(result, other, stored), 0);
        }
        result
    }

    /// `bytes` bytes (1 to 16) at `address`, the lowest address in the lowest bits.
    pub fn load_bytes(&mut self, memory: Term, address: Term, bytes: u32) -> Term {
        let mut value = self.select(memory, address);
        for offset in 1..bytes {
            let next = self.add_constant(address, u128::from(offset));
            let byte = self.select(memory, next);
            value = self.concat(byte, value);
        }
        value
    }

    /// `memory` with `value`, a whole number of bytes wide, stored at `address`, lowest bits at the lowest address.
    pub fn store_bytes(&mut self, mut memory: Term, address: Term, value: Term) -> Term {
        for offset in 0..self.width(value) / 8 {
            let at = self.add_constant(address, u128::from(offset));
            let byte = self.extract(value, 8 * offset + 7, 8 * offset);
            memory = self.store(memory, at, byte);
        }
        memory
    }

    /// Memories with the same stores at addresses that are all apart are equal when the stored bytes are.
    pub(crate) fn eq_memory(&mut self, a: Term, b: Term) -> Term {
        let (base, mine) = self.stores(a);
        let (other, theirs) = self.stores(b);
        let matching = base == other
            && mine.len() == theirs.len()
            && mine.iter().zip(&theirs).all(|(x, y)| x.0 == y.0)
            && self.all_apart(&mine);
        if matching {
            let equal: Vec<Term> = mine.iter().zip(&theirs).map(|(x, y)| self.eq(x.1, y.1)).collect();
            return self.all(&equal);
        }
        self.intern(Node::Eq(a.min(b), a.max(b)), 1)
    }

    fn all_apart(&self, stores: &[(Term, Term)]) -> bool {
        stores.iter().enumerate().all(|(at, first)| {
            stores[at + 1..].iter().all(|second| matches!(self.distance(first.0, second.0), Distance::Apart(_)))
        })
    }

    /// The stores that `memory` ends with, as (address, value), lowest addresses first where their order is known;
    /// neighbouring bytes are joined to values of 2, 4 or 8 bytes.
    pub fn writes(&mut self, memory: Term) -> Vec<(Term, Term)> {
        let (_, mut bytes) = self.stores(memory);
        bytes.reverse();
        let mut found = Vec::new();
        let mut rest = bytes.as_slice();
        while let Some(&(address, _)) = rest.first() {
            let neighbours = rest.iter().enumerate().take_while(|&(offset, &(other, _))| {
                let expected = self.add_constant(address, offset as u128);
                expected == other
            });
            let run = neighbours.count();
            let size = [8, 4, 2, 1].into_iter().find(|&size| size <= run).unwrap_or(1);
            let (these, others) = rest.split_at(size);
            let value = these.iter().map(|&(_, byte)| byte).reduce(|low, byte| self.concat(byte, low));
            found.extend(value.map(|value| (address, value)));
            rest = others;
        }
        found
    }

    /// What `memory` is stores on, and the stores (address, byte), latest first.
    pub(crate) fn stores(&self, mut memory: Term) -> (Term, Vec<(Term, Term)>) {
        let mut found = Vec::new();
        while let Node::Store(before, address, value) = *self.node(memory) {
            found.push((address, value));
            memory = before;
        }
        (memory, found)
    }
}
