//! Truth values: each is a jump to where it matters.

use super::instruction::{
    EQUAL, FRAME, GREATER, GREATER_EQUAL, GREATER_EQUAL_SIGNED, GREATER_SIGNED, LESS, LESS_EQUAL, LESS_EQUAL_SIGNED,
    LESS_SIGNED, Label, NOT_EQUAL, R0, R1,
};
use super::{GET_CURRENT_ANCESTOR_CGROUP_ID, GET_CURRENT_CGROUP_ID, Writer};
use crate::ast::Order;
use crate::tree::{Truth, Word};

impl Writer {
    /// Goes to `target` if the truth is `wanted`, and on otherwise.
    pub(super) fn branch(&mut self, truth: &Truth, wanted: bool, target: Label) {
        match truth {
            Truth::Constant(truth) if *truth == wanted => self.code.jump(target),
            Truth::Constant(_) => {}
            Truth::NonZero(word) => {
                self.word(word);
                self.code.jump_if_constant(equality(!wanted), R0, 0, target);
            }
            Truth::Ordered { order, signed, sides } => {
                self.sides(&sides.0, &sides.1);
                self.code.jump_if(comparison(*order, *signed, wanted), R0, R1, target);
            }
            Truth::Among(word, items) => self.among(word, items, wanted, target),
            Truth::TextAmong(text, items) => self.text_among(text, items, wanted, target),
            Truth::CgroupAmong(ids) => {
                self.code.call(GET_CURRENT_CGROUP_ID);
                self.constants(ids, wanted, target);
            }
            Truth::CgroupUnder { level, id } => {
                self.code.constant(R1, (*level).into());
                self.code.call(GET_CURRENT_ANCESTOR_CGROUP_ID);
                self.code.jump_if_constant(equality(wanted), R0, *id, target);
            }
            Truth::Not(inner) => self.branch(inner, !wanted, target),
            Truth::And(sides) => self.both(&sides.0, &sides.1, true, wanted, target),
            Truth::Or(sides) => self.both(&sides.0, &sides.1, false, wanted, target),
            Truth::Same(sides) => self.same(&sides.0, &sides.1, wanted, target),
            Truth::If(parts) => {
                let (other, end) = (self.code.label(), self.code.label());
                self.branch(&parts.0, false, other);
                self.branch(&parts.1, wanted, target);
                self.code.jump(end);
                self.code.place(other);
                self.branch(&parts.2, wanted, target);
                self.code.place(end);
            }
        }
    }

    /// Two truths of which the second one matters only if the first one is `on`: `&&` if that is true, else `||`.
    fn both(&mut self, left: &Truth, right: &Truth, on: bool, wanted: bool, target: Label) {
        if wanted == on {
            let end = self.code.label();
            self.branch(left, !on, end);
            self.branch(right, on, target);
            self.code.place(end);
        } else {
            self.branch(left, !on, target);
            self.branch(right, !on, target);
        }
    }

    fn same(&mut self, left: &Truth, right: &Truth, wanted: bool, target: Label) {
        self.bit(left);
        let room = self.room(8);
        self.code.store(room, R0);
        self.bit(right);
        self.code.load(8, R1, FRAME, room);
        self.free(8);
        self.code.jump_if(equality(wanted), R0, R1, target);
    }

    /// A truth as 1 or 0 in R0.
    fn bit(&mut self, truth: &Truth) {
        let (not, end) = (self.code.label(), self.code.label());
        self.branch(truth, false, not);
        self.code.constant(R0, 1);
        self.code.jump(end);
        self.code.place(not);
        self.code.constant(R0, 0);
        self.code.place(end);
    }

    fn among(&mut self, word: &Word, items: &[Word], wanted: bool, target: Label) {
        self.word(word);
        let constant = |item: &Word| if let Word::Constant(bits) = item { Some(*bits) } else { None };
        if let Some(constants) = items.iter().map(constant).collect::<Option<Vec<u64>>>() {
            return self.constants(&constants, wanted, target);
        }
        let room = self.room(8);
        self.code.store(room, R0);
        let (hit, end) = (self.code.label(), self.code.label());
        for item in items {
            self.word(item);
            self.code.load(8, R1, FRAME, room);
            self.code.jump_if(EQUAL, R0, R1, hit);
        }
        self.free(8);
        self.code.jump(if wanted { end } else { target });
        self.code.place(hit);
        if wanted {
            self.code.jump(target);
        }
        self.code.place(end);
    }

    /// Whether R0 is one of several constants.
    fn constants(&mut self, constants: &[u64], wanted: bool, target: Label) {
        let end = self.code.label();
        for constant in constants {
            self.code.jump_if_constant(EQUAL, R0, *constant, if wanted { target } else { end });
        }
        if !wanted {
            self.code.jump(target);
        }
        self.code.place(end);
    }
}

fn equality(equal: bool) -> u8 {
    if equal { EQUAL } else { NOT_EQUAL }
}

/// The jump for an order, or for its contrary.
fn comparison(order: Order, signed: bool, wanted: bool) -> u8 {
    let order = match (order, wanted) {
        (order, true) => order,
        (Order::Less, _) => Order::GreaterEqual,
        (Order::LessEqual, _) => Order::Greater,
        (Order::Greater, _) => Order::LessEqual,
        (Order::GreaterEqual, _) => Order::Less,
    };
    match (order, signed) {
        (Order::Less, false) => LESS,
        (Order::LessEqual, false) => LESS_EQUAL,
        (Order::Greater, false) => GREATER,
        (Order::GreaterEqual, false) => GREATER_EQUAL,
        (Order::Less, true) => LESS_SIGNED,
        (Order::LessEqual, true) => LESS_EQUAL_SIGNED,
        (Order::Greater, true) => GREATER_SIGNED,
        (Order::GreaterEqual, true) => GREATER_EQUAL_SIGNED,
    }
}
