//! Multiplications by V that the compiler spread over several instructions: `lea (x,x,4), y; add y, y` is `y ← 10x`.
//!
//! The first of them then multiplies by all of it, and the others by 1: together they do the same.

use std::collections::{BTreeMap, HashMap};

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};

use crate::code::{Function, Insn};
use crate::operation::{self, Kind};
use crate::span::{Flow, accessed};

/// From its first instruction to its last a chain is no longer than this: a window has to hold it.
pub const MOST_GAP: usize = 8;

/// Instructions that multiply together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Their indexes; the first reads what is multiplied, and each of the others what the one before has left.
    pub links: Vec<usize>,
    /// What they multiply by.
    pub factor: i128,
}

/// What is known of a register: that it holds a multiple of something.
#[derive(Clone, Debug)]
struct Multiple {
    /// Which something.
    of: usize,
    factor: i128,
    /// Bits of the operations, 0 where there was none.
    bits: u32,
    links: Vec<usize>,
}

/// The chains of a function whose factor is a multiple of `stock`, each as short as possible.
pub fn find(function: &Function, stock: i128) -> Vec<Chain> {
    let flow = Flow::new(function);
    let mut walk = Walk { known: HashMap::new(), next: 0, stock, found: BTreeMap::new() };
    for (index, insn) in function.code.iter().enumerate() {
        if flow.targets.contains(&index) {
            walk.known.clear();
        }
        walk.step(index, insn);
    }
    walk.found.into_values().collect()
}

struct Walk {
    known: HashMap<Register, Multiple>,
    next: usize,
    stock: i128,
    found: BTreeMap<usize, Chain>,
}

impl Walk {
    /// What a register holds; what is not known yet gets a name.
    fn held(&mut self, register: Register) -> Multiple {
        let next = &mut self.next;
        let fresh = || {
            *next += 1;
            Multiple { of: *next, factor: 1, bits: 0, links: Vec::new() }
        };
        self.known.entry(register.full_register()).or_insert_with(fresh).clone()
    }

    fn step(&mut self, index: usize, insn: &Insn) {
        let plain = insn.references.is_empty() && !insn.patched && !insn.rewritten;
        let result = if plain { self.result(index, &insn.insn) } else { None };
        for register in accessed(&insn.insn, true) {
            self.known.remove(&register);
        }
        if insn.insn.flow_control() != FlowControl::Next {
            self.known.clear();
        }
        let Some((target, result)) = result else { return };
        let first = result.links.first().copied().unwrap_or(index);
        if result.factor >= self.stock && result.factor % self.stock == 0 && self.stock > 1 {
            if result.links.len() > 1 && index - first <= MOST_GAP {
                self.found.insert(index, Chain { links: result.links, factor: result.factor });
            }
            // What follows multiplies the product by something else.
            return;
        }
        self.known.insert(target.full_register(), result);
    }

    /// What an instruction leaves in which register, if that is a multiple of something.
    fn result(&mut self, index: usize, insn: &Instruction) -> Option<(Register, Multiple)> {
        if let Some(operation) = operation::of(insn) {
            let source = self.held(operation.source);
            let whole = Multiple {
                factor: source.factor.checked_mul(operation.factor.into()).filter(|f| *f < 1 << 32)?,
                bits: operation.bits(),
                links: [source.links, vec![index]].concat(),
                of: source.of,
            };
            let same = source.bits == 0 || source.bits == operation.bits();
            // What is added before the last of them would be multiplied too.
            let ends = operation.addend == 0 || whole.factor % self.stock == 0;
            return (operation.kind == Kind::Multiply && same && ends).then_some((operation.target, whole));
        }
        let (target, source) = between_registers(insn)?;
        let bits = target.size() as u32 * 8;
        let other = self.held(source);
        if insn.mnemonic() == Mnemonic::Mov {
            // Half of something is another thing to operations on the whole.
            let copied = if bits == 32 { bits } else { other.bits };
            return (other.bits == bits || other.bits == 0).then_some((target, Multiple { bits: copied, ..other }));
        }
        let held = self.held(target);
        let factor = match insn.mnemonic() {
            Mnemonic::Add => held.factor + other.factor,
            Mnemonic::Sub => held.factor - other.factor,
            _ => return None,
        };
        let fits = held.of == other.of && held.bits == bits && (other.bits == 0 || other.bits == bits);
        let links = [held.links, vec![index]].concat();
        (fits && links.len() > 1 && factor > 0).then_some((target, Multiple { of: held.of, factor, bits, links }))
    }
}

/// Both operands, where they are two different registers of 32 or 64 bits.
fn between_registers(insn: &Instruction) -> Option<(Register, Register)> {
    let both = insn.op_count() == 2 && (0..2).all(|n| insn.op_kind(n) == OpKind::Register);
    let (target, source) = both.then(|| (insn.op0_register(), insn.op1_register()))?;
    let wide = (target.is_gpr32() && source.is_gpr32()) || (target.is_gpr64() && source.is_gpr64());
    (wide && target != source).then_some((target, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::assembled;

    fn chains(text: &str, stock: i128) -> Vec<(Vec<usize>, i128)> {
        find(&assembled(text), stock).into_iter().map(|chain| (chain.links, chain.factor)).collect()
    }

    #[test]
    fn products_of_several_instructions_are_found() {
        let ten = "lea (%r11,%r11,4), %rax\nadd %rax, %rax";
        assert_eq!(chains(ten, 10), [(vec![0, 1], 10)]);
        assert_eq!(chains(ten, 5), [], "one instruction does that");
        assert_eq!(chains("lea (%rsi,%rsi,4), %eax\nlea 99(%rax,%rax,4), %eax", 25), [(vec![0, 1], 25)]);
        // 80x − 5x, with something else in between, and 15x.
        let between = "lea (%rax,%rax,4), %eax\nmov %eax, %edx\nmov 8(%rdi), %rcx\nshl $4, %edx\nsub %eax, %edx";
        assert_eq!(chains(between, 75), [(vec![0, 3, 4], 75)]);
        assert_eq!(chains("mov %rax, %rdx\nshl $4, %rdx\nsub %rax, %rdx", 15), [(vec![1, 2], 15)]);
        assert_eq!(chains("lea (%rax,%rax,4), %rdx\nshl $3, %rdx", 10), [(vec![0, 1], 40)]);
    }

    #[test]
    fn what_is_no_product_is_none() {
        // Another register, another width, something added in between, a way in between.
        assert_eq!(chains("lea (%r11,%r11,4), %rax\nadd %rbx, %rbx", 10), []);
        assert_eq!(chains("lea (%r11,%r11,4), %rax\nadd %eax, %eax", 10), []);
        assert_eq!(chains("lea 1(%r11,%r11,4), %rax\nadd %rax, %rax", 10), []);
        assert_eq!(chains("lea (%r11,%r11,4), %rax\n1: add %rax, %rax\njz 1b", 10), []);
        assert_eq!(chains("lea (%r11,%r11,4), %rax\nmov (%rdi), %rax\nadd %rax, %rax", 10), []);
    }
}
