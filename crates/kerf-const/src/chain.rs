//! Multiplications and divisions by V that the compiler spread over several instructions.
//!
//! `lea (x,x,4), y; add y, y` is `y ← 10x`: the first of them then multiplies by all of it, and the other by 1. `mul x; shr $9, rdx` with
//! the right number in rax is `rdx ← ⌊x / 750⌋`: the multiplication then leaves x, and the shift divides it. Together they do the same.

use std::collections::{BTreeMap, HashMap};

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};

use kerf_semantics::{Arena, Overrides, State, Undefined, step};

use crate::align::Slot;
use crate::analyse::Number;
use crate::code::{Function, Insn};
use crate::operation::{self, Kind};
use crate::span::{Flow, accessed};

/// From its first instruction to its last a chain is no longer than this: a window has to hold it.
pub const MOST_GAP: usize = 8;

/// Instructions before a chain that are executed with it, for what they say of its operands.
const MOST_BEFORE: usize = 6;

/// Instructions that multiply or divide together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Their factors, in the order of the instructions.
    pub links: Vec<Number>,
    /// The one that gets the whole factor or divisor; the others get 1.
    pub whole: Number,
    /// What they multiply or divide by.
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
    let found = divisions(function, &flow, stock);
    let mut walk = Walk { known: HashMap::new(), next: 0, stock, found };
    for (index, insn) in function.code.iter().enumerate() {
        if flow.targets.contains(&index) {
            walk.known.clear();
        }
        walk.step(index, insn);
    }
    walk.found.into_values().collect()
}

/// Divisions by `stock`, by the index of the shift that each ends with.
fn divisions(function: &Function, flow: &Flow, stock: i128) -> BTreeMap<usize, Chain> {
    let plain = |insn: &Insn| insn.references.is_empty() && !insn.patched && !insn.rewritten;
    let divides = |insn: &Insn| plain(insn) && operation::of(&insn.insn).is_some_and(|o| o.kind == Kind::Divide);
    let multiplies = |insn: &Insn| plain(insn) && matches!(insn.insn.mnemonic(), Mnemonic::Mul | Mnemonic::Imul);
    let mut found = BTreeMap::new();
    if stock < 2 {
        return found;
    }
    for (last, shift) in function.code.iter().enumerate().filter(|(_, insn)| divides(insn)) {
        let before = function.code[..last].iter().enumerate().rev().take(MOST_GAP);
        let Some(product) = before.clone().find(|(_, insn)| multiplies(insn)).map(|(n, _)| n) else { continue };
        // An even divisor may have been divided by a power of two first.
        let halved = before.skip_while(|(n, _)| *n >= product).find(|(_, insn)| divides(insn)).map(|(n, _)| n);
        let ways = [Slot::Factor, Slot::Second].into_iter().flat_map(|slot| [(slot, None), (slot, halved)]);
        let links = |(slot, halved): (Slot, Option<usize>)| -> Vec<Number> {
            let first = halved.map(|n| (n, Slot::Factor));
            first.into_iter().chain([(product, slot), (last, Slot::Factor)]).collect()
        };
        let whole = (last, Slot::Factor);
        let chains = ways.map(|way| Chain { links: links(way), whole, factor: stock });
        let target = shift.insn.op0_register().full_register();
        if let Some(chain) = chains.into_iter().find(|chain| divides_together(function, flow, chain, target)) {
            found.insert(last, chain);
        }
    }
    found
}

/// Whether the links leave in a register what they leave as deployed, by the rules of arithmetic alone.
fn divides_together(function: &Function, flow: &Flow, chain: &Chain, target: Register) -> bool {
    let (Some(first), Some(last)) = (chain.links.first(), chain.links.last()) else { return false };
    let inside = first.0 + 1..=last.0;
    let leaves = |n: usize| function.code[n].insn.flow_control() != FlowControl::Next;
    if inside.clone().any(|n| flow.targets.contains(&n)) || inside.clone().any(|n| leaves(n - 1)) {
        return false;
    }
    let number = |number: Number| {
        let link = chain.links.contains(&number);
        link.then(|| if number == chain.whole { chain.factor as i64 } else { 1 })
    };
    let mut arena = Arena::new();
    let states = both(&mut arena, function, flow, first.0..=last.0, &number);
    states.is_some_and(|[deployed, meant]| deployed.gpr[target.number()] == meant.gpr[target.number()])
}

/// Executes the instructions from the first link of chains to the last, as deployed and with numbers in the place of factors, and the
/// instructions before them that are always executed with them.
pub fn both(
    arena: &mut Arena,
    function: &Function,
    flow: &Flow,
    links: std::ops::RangeInclusive<usize>,
    number: &dyn Fn(Number) -> Option<i64>,
) -> Option<[State; 2]> {
    let mut state = State::symbolic(arena);
    state.undefined = Undefined::Named("chain".into());
    for insn in before(function, flow, *links.start()) {
        // What cannot be executed is forgotten with all before it.
        if step(arena, &mut state, &insn.insn, &Overrides::new()).is_err() {
            state = State::symbolic(arena);
            state.undefined = Undefined::Named("chain".into());
        }
    }
    let (mut deployed, mut meant) = (state.clone(), state);
    for index in links {
        let insn = &function.code.get(index)?.insn;
        step(arena, &mut deployed, insn, &Overrides::new()).ok()?;
        let slots = [Slot::Factor, Slot::Second].into_iter();
        match slots.filter_map(|slot| Some((slot, number((index, slot))?))).next() {
            Some((slot, factor)) => {
                let operation = operation::placed(insn, slot)?;
                let addend = number((index, Slot::Displacement)).unwrap_or(operation.addend);
                let [factor, addend] = [factor, addend].map(|n| arena.constant(n as u64 as u128, 64));
                operation.execute(arena, &mut meant, factor, addend)?;
            }
            None => {
                step(arena, &mut meant, insn, &Overrides::new()).ok()?;
            }
        }
    }
    Some([deployed, meant])
}

/// Instructions right before one, behind the last branch or way in.
fn before<'a>(function: &'a Function, flow: &Flow, index: usize) -> &'a [Insn] {
    let mut start = index;
    while start > 0 && index - start < MOST_BEFORE {
        let previous = &function.code[start - 1];
        let plain = previous.insn.flow_control() == FlowControl::Next && !previous.patched && !previous.rewritten;
        if !plain || !previous.references.is_empty() || flow.targets.contains(&start) {
            break;
        }
        start -= 1;
    }
    &function.code[start..index]
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
                let links: Vec<Number> = result.links.iter().map(|link| (*link, Slot::Factor)).collect();
                self.found.insert(index, Chain { whole: links[0], links, factor: result.factor });
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
        let indexes = |chain: &Chain| chain.links.iter().map(|link| link.0).collect();
        find(&assembled(text), stock).iter().map(|chain| (indexes(chain), chain.factor)).collect()
    }

    #[test]
    fn divisions_by_the_inverse_are_found() {
        // As gcc divides rdx by 750, rdi by 1000 (by 8 first), a 32-bit number by 100, and by 7 with one bit more than there are.
        let long = "movabs $0xaec33e1f671529a5, %rax\nmul %rdx\nmov %rdx, %rbx\nshr $9, %rbx";
        assert_eq!(chains(long, 750), [(vec![1, 3], 750)]);
        let halved = "mov %rdi, %rax\nmovabs $0x20c49ba5e353f7cf, %rdx\nshr $3, %rax\nmul %rdx\nshr $4, %rdx";
        assert_eq!(chains(halved, 1000), [(vec![2, 3, 4], 1000)]);
        let short = "mov %edi, %eax\nimul $0x51eb851f, %rax, %rax\nshr $37, %rax";
        assert_eq!(chains(short, 100), [(vec![1, 2], 100)]);
        let wide = "mov %edi, %eax\nmov $0xcccccccd, %edx\nimul %rdx, %rax\nshr $35, %rax";
        assert_eq!(chains(wide, 10), [(vec![2, 3], 10)]);
        for (text, stock) in [(long, 751), (short, 10), (wide, 5), ("imul $0x51eb851f, %rax, %rax\nshr $37, %rax", 100)]
        {
            assert_eq!(chains(text, stock), [], "{text} by {stock}");
        }
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
