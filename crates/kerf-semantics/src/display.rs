//! Terms as readable algebra: `(rcx << 3) + 0x40`, `cf ? 0x20 : 0x40`, `mem32[rdi + 8]`.
//!
//! Extensions by zeros are not shown where they change nothing; `u32(…)` says that a value wraps at 32 bits before it
//! goes on, `i32(…)` that it is extended by its sign.

use crate::term::{Arena, BitOp, DivOp, Node, ShiftOp, Term, mask, signed};

/// Longer texts are cut; a shared term can be exponentially long when written out.
const LIMIT: usize = 2000;

const SLICE_NAMES: [(&str, &str, &str, &str, &str); 16] = [
    ("rax", "eax", "ax", "al", "ah"),
    ("rcx", "ecx", "cx", "cl", "ch"),
    ("rdx", "edx", "dx", "dl", "dh"),
    ("rbx", "ebx", "bx", "bl", "bh"),
    ("rsp", "esp", "sp", "spl", ""),
    ("rbp", "ebp", "bp", "bpl", ""),
    ("rsi", "esi", "si", "sil", ""),
    ("rdi", "edi", "di", "dil", ""),
    ("r8", "r8d", "r8w", "r8b", ""),
    ("r9", "r9d", "r9w", "r9b", ""),
    ("r10", "r10d", "r10w", "r10b", ""),
    ("r11", "r11d", "r11w", "r11b", ""),
    ("r12", "r12d", "r12w", "r12b", ""),
    ("r13", "r13d", "r13w", "r13b", ""),
    ("r14", "r14d", "r14w", "r14b", ""),
    ("r15", "r15d", "r15w", "r15b", ""),
];

struct Writer<'a> {
    arena: &'a Arena,
    out: String,
}

impl Arena {
    /// `term` as infix algebra; very long ones are cut with an ellipsis.
    pub fn display(&self, term: Term) -> String {
        let mut writer = Writer { arena: self, out: String::new() };
        writer.term(term);
        writer.out
    }
}

impl Writer<'_> {
    fn push(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// A part of something larger: in parentheses unless it is one word.
    fn part(&mut self, term: Term) {
        let start = self.out.len();
        self.term(term);
        let text = &self.out[start..];
        if !is_word(text) {
            self.out.insert(start, '(');
            self.out.push(')');
        }
    }

    fn infix(&mut self, a: Term, operator: &str, b: Term) {
        self.part(a);
        self.push(operator);
        self.part(b);
    }

    fn call(&mut self, name: &str, term: Term) {
        self.push(name);
        self.push("(");
        self.term(term);
        self.push(")");
    }

    fn term(&mut self, term: Term) {
        if self.out.len() > LIMIT {
            if !self.out.ends_with('…') {
                self.push("…");
            }
            return;
        }
        let arena = self.arena;
        let width = arena.width(term);
        if width > 1
            && let Some((condition, yes, no)) = arena.two_valued(term)
            && (yes, no) != (1, 0)
        {
            self.part(condition);
            let text = format!(" ? {} : {}", number(yes, width), number(no, width));
            return self.push(&text);
        }
        match arena.node(term) {
            Node::Constant(value) => self.push(&number(*value, width)),
            Node::Variable(name) | Node::Memory(name) => self.push(name),
            Node::Sum(terms, constant) => self.sum(terms, *constant, width),
            Node::Product(a, b) => self.infix(*a, " * ", *b),
            Node::Divide(op, a, b) => self.infix(*a, division_sign(*op), *b),
            Node::Bits(op, terms, constant) => self.bits(*op, terms, *constant, width),
            Node::Not(inner) => self.complement(*inner, width),
            Node::Shift(op, a, b) => self.infix(*a, shift_sign(*op), *b),
            Node::Concat(hi, lo) => match self.load(term) {
                Some((memory, address)) => self.access(memory, width, address),
                None => {
                    self.part(*hi);
                    self.push(":");
                    self.part(*lo);
                }
            },
            // The bits of a quotient that can be set are all of it.
            Node::Extract(inner, _, 0) if matches!(arena.node(*inner), Node::Divide(DivOp::Udiv, ..)) => {
                self.term(*inner)
            }
            Node::Extract(inner, hi, lo) => self.slice(*inner, *hi, *lo),
            Node::Zext(inner) => self.extended(*inner),
            Node::Sext(inner) => self.call(&format!("i{}", arena.width(*inner)), *inner),
            Node::Ite(condition, yes, no) => {
                self.part(*condition);
                self.push(" ? ");
                self.part(*yes);
                self.push(" : ");
                self.part(*no);
            }
            Node::Eq(a, b) => self.infix(*a, " == ", *b),
            Node::Ult(a, b) => self.infix(*a, " < ", *b),
            Node::Slt(a, b) => self.infix(*a, " <s ", *b),
            Node::Parity(inner) => self.call("parity", *inner),
            Node::Select(memory, address) => self.access(*memory, 8, *address),
            Node::Store(memory, address, value) => {
                self.part(*memory);
                self.push("{");
                self.term(*address);
                self.push(" := ");
                self.term(*value);
                self.push("}");
            }
        }
    }

    /// A term that zeros stand in front of: they are shown only where it may have wrapped.
    fn extended(&mut self, inner: Term) {
        let arena = self.arena;
        match arena.node(inner) {
            Node::Extract(source, hi, lo)
                if *lo > 0 && hi + 1 == arena.width(*source) && arena.width(*source) >= 32 =>
            {
                self.part(*source);
                self.push(&format!(" >> {lo}"));
            }
            Node::Bits(BitOp::And, terms, constant) if self.masked_slice(terms, *constant, 0) => {}
            Node::Sum(terms, 0) if self.masked_sum(terms) => {}
            Node::Sum(..) | Node::Product(..) | Node::Not(_) => self.call(&format!("u{}", arena.width(inner)), inner),
            _ => self.term(inner),
        }
    }

    fn complement(&mut self, inner: Term, width: u32) {
        match self.arena.node(inner) {
            Node::Eq(a, b) => self.infix(*a, " != ", *b),
            Node::Ult(a, b) => self.infix(*a, " >= ", *b),
            Node::Slt(a, b) => self.infix(*a, " >=s ", *b),
            _ => {
                self.push(if width == 1 { "!" } else { "~" });
                self.part(inner);
            }
        }
    }

    fn sum(&mut self, terms: &[(Term, u128)], constant: u128, width: u32) {
        let alone = terms.len() == 1 && constant == 0;
        let half = 1u128 << (width - 1);
        // What is added comes first, so that `64 - x` does not start with a sign.
        let (plus, minus): (Vec<_>, Vec<_>) = terms.iter().partition(|&&(_, coefficient)| coefficient <= half);
        let mut first = true;
        for &(term, coefficient) in &plus {
            if !first {
                self.push(" + ");
            }
            first = false;
            self.scaled(term, coefficient, alone);
        }
        if constant != 0 && (first || constant < half) {
            if !first {
                self.push(" + ");
            }
            self.push(&number(constant, width));
            first = false;
        } else if constant != 0 {
            let text = format!(" - {}", number(constant.wrapping_neg() & mask(width), width));
            self.push(&text);
        }
        for &(term, coefficient) in &minus {
            self.push(if first { "-" } else { " - " });
            first = false;
            self.scaled(term, coefficient.wrapping_neg() & mask(width), false);
        }
    }

    fn scaled(&mut self, term: Term, coefficient: u128, alone: bool) {
        if coefficient == 1 {
            return self.part(term);
        }
        if !alone {
            self.push("(");
        }
        if coefficient.is_power_of_two() {
            let shift = coefficient.trailing_zeros();
            if !self.masked(term, shift) {
                self.part(term);
                self.push(&format!(" << {shift}"));
            }
        } else {
            self.part(term);
            self.push(&format!(" * {coefficient}"));
        }
        if !alone {
            self.push(")");
        }
    }

    /// A slice that is shifted back to where it was is a mask.
    fn masked(&mut self, term: Term, shift: u32) -> bool {
        let Node::Zext(inner) = self.arena.node(term) else { return false };
        match self.arena.node(*inner) {
            Node::Extract(source, hi, lo) if *lo == shift => {
                let kept = mask(*hi + 1) & !mask(*lo);
                self.and_mask(*source, kept, *hi);
                true
            }
            Node::Bits(BitOp::And, terms, constant) => self.masked_slice(terms, *constant, shift),
            _ => false,
        }
    }

    fn masked_sum(&mut self, terms: &[(Term, u128)]) -> bool {
        match terms {
            [(term, factor)] if factor.is_power_of_two() => self.masked(*term, factor.trailing_zeros()),
            _ => false,
        }
    }

    fn masked_slice(&mut self, terms: &[Term], constant: u128, shift: u32) -> bool {
        let [only] = terms else { return false };
        let Node::Extract(source, hi, lo) = self.arena.node(*only) else { return false };
        if *lo != shift {
            return false;
        }
        self.and_mask(*source, constant << shift, *hi);
        true
    }

    fn and_mask(&mut self, source: Term, kept: u128, hi: u32) {
        self.part(source);
        let width = self.arena.width(source);
        let text = if hi + 1 == width { number(kept, width) } else { plain(kept) };
        self.push(&format!(" & {text}"));
    }

    fn bits(&mut self, op: BitOp, terms: &[Term], constant: u128, width: u32) {
        let (operator, identity) = match op {
            BitOp::And => (" & ", mask(width)),
            BitOp::Or => (" | ", 0),
            BitOp::Xor => (" ^ ", 0),
        };
        for (at, &term) in terms.iter().enumerate() {
            if at > 0 {
                self.push(operator);
            }
            self.part(term);
        }
        if constant != identity {
            self.push(operator);
            self.push(&number(constant, width));
        }
    }

    fn slice(&mut self, inner: Term, hi: u32, lo: u32) {
        if let Node::Variable(name) = self.arena.node(inner)
            && let Some(names) = SLICE_NAMES.iter().find(|names| names.0 == &**name)
        {
            let known = match (hi, lo) {
                (31, 0) => names.1,
                (15, 0) => names.2,
                (7, 0) => names.3,
                (15, 8) => names.4,
                _ => "",
            };
            if !known.is_empty() {
                return self.push(known);
            }
        }
        self.part(inner);
        let text = if hi == lo { format!("[{hi}]") } else { format!("[{hi}:{lo}]") };
        self.push(&text);
    }

    /// A concatenation of neighbouring bytes of one memory, as (memory, address of the lowest).
    fn load(&self, term: Term) -> Option<(Term, Term)> {
        let mut bytes = Vec::new();
        let mut rest = term;
        while let Node::Concat(hi, lo) = self.arena.node(rest) {
            bytes.push(*hi);
            rest = *lo;
        }
        bytes.push(rest);
        let of = |term: Term| match self.arena.node(term) {
            Node::Select(memory, address) => Some((*memory, *address)),
            _ => None,
        };
        let (memory, lowest) = of(rest)?;
        let base = self.arena.linear(lowest);
        let neighbours = bytes.iter().rev().enumerate().all(|(offset, &byte)| {
            of(byte).is_some_and(|(other, address)| {
                let address = self.arena.linear(address);
                let expected = base.constant.wrapping_add(offset as u128) & mask(64);
                other == memory && address.terms == base.terms && address.constant == expected
            })
        });
        neighbours.then_some((memory, lowest))
    }

    fn access(&mut self, memory: Term, width: u32, address: Term) {
        match self.arena.node(memory) {
            Node::Memory(name) => self.push(name),
            _ => {
                let (_, stores) = self.arena.stores(memory);
                self.push(&format!("mem'{}_", stores.len()));
            }
        }
        self.push(&format!("{width}["));
        self.term(address);
        self.push("]");
    }
}

fn division_sign(op: DivOp) -> &'static str {
    match op {
        DivOp::Udiv => " / ",
        DivOp::Urem => " % ",
        DivOp::Sdiv => " /s ",
        DivOp::Srem => " %s ",
    }
}

fn shift_sign(op: ShiftOp) -> &'static str {
    match op {
        ShiftOp::Shl => " << ",
        ShiftOp::Lshr => " >> ",
        ShiftOp::Ashr => " >>s ",
    }
}

/// Whether a text can stand as an operand without parentheses.
fn is_word(text: &str) -> bool {
    let mut depth = 0i32;
    text.chars().all(|letter| {
        match letter {
            '[' | '(' | '{' => depth += 1,
            ']' | ')' | '}' => depth -= 1,
            _ => {}
        }
        depth > 0 || !(letter == ' ' || letter == ':')
    })
}

/// A number with its sign.
fn number(value: u128, width: u32) -> String {
    let value = if width == 1 { value as i128 } else { signed(value, width) };
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}", plain(value.unsigned_abs()))
}

fn plain(value: u128) -> String {
    if value < 10 { value.to_string() } else { format!("{value:#x}") }
}
