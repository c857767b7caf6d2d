//! Terms in SMT-LIB's theory of bit vectors and arrays. One definition per term keeps what is shared shared.

use std::collections::HashMap;
use std::io;

use easy_smt::{Context, SExpr, SExprData};

use crate::term::{Arena, BitOp, DivOp, Node, ShiftOp, Term, mask};

/// The terms of one query, as the solver knows them.
pub(crate) struct Encoding {
    names: HashMap<Term, SExpr>,
}

/// The logic that `terms` need.
pub(crate) fn logic(arena: &Arena, terms: &[Term]) -> &'static str {
    if terms.iter().any(|&term| arena.is_memory(term)) { "QF_ABV" } else { "QF_BV" }
}

impl Encoding {
    /// Declares the variables of `terms` (operands first) and defines everything else in the solver.
    pub fn define(arena: &Arena, solver: &mut Context, terms: &[Term]) -> io::Result<Self> {
        let mut encoding = Self { names: HashMap::new() };
        for &term in terms {
            let name = format!("t{}", term.0);
            let sort = sort(arena, solver, term);
            let expression = match arena.node(term) {
                Node::Variable(_) | Node::Memory(_) => solver.declare_const(name, sort)?,
                Node::Constant(value) => literal(solver, *value, arena.width(term)),
                _ => {
                    let body = encoding.body(arena, solver, term);
                    solver.define_const(name, sort, body)?
                }
            };
            encoding.names.insert(term, expression);
        }
        Ok(encoding)
    }

    /// The solver's expression for a term that was defined.
    pub fn of(&self, term: Term) -> SExpr {
        self.names[&term]
    }

    /// A defined 1-bit term as a truth value.
    pub fn holds(&self, solver: &Context, term: Term) -> SExpr {
        let one = literal(solver, 1, 1);
        solver.eq(self.of(term), one)
    }

    fn body(&self, arena: &Arena, solver: &Context, term: Term) -> SExpr {
        let width = arena.width(term);
        let apply = |operator: &str, operands: &[Term]| {
            let parts = [solver.atom(operator)].into_iter().chain(operands.iter().map(|&operand| self.of(operand)));
            solver.list(parts.collect())
        };
        let truth = |test: SExpr| solver.ite(test, literal(solver, 1, 1), literal(solver, 0, 1));
        match arena.node(term) {
            Node::Sum(terms, constant) => self.sum(solver, terms, *constant, width),
            Node::Product(a, b) => apply("bvmul", &[*a, *b]),
            Node::Divide(op, a, b) => {
                let operator = match op {
                    DivOp::Udiv => "bvudiv",
                    DivOp::Urem => "bvurem",
                    DivOp::Sdiv => "bvsdiv",
                    DivOp::Srem => "bvsrem",
                };
                apply(operator, &[*a, *b])
            }
            Node::Bits(op, terms, constant) => self.bits(solver, *op, terms, *constant, width),
            Node::Not(a) => apply("bvnot", &[*a]),
            Node::Shift(op, a, b) => {
                let operator = match op {
                    ShiftOp::Shl => "bvshl",
                    ShiftOp::Lshr => "bvlshr",
                    ShiftOp::Ashr => "bvashr",
                };
                apply(operator, &[*a, *b])
            }
            Node::Concat(a, b) => apply("concat", &[*a, *b]),
            Node::Extract(a, hi, lo) => slice(solver, self.of(*a), *hi, *lo),
            Node::Zext(a) => extend(solver, "zero_extend", width - arena.width(*a), self.of(*a)),
            Node::Sext(a) => extend(solver, "sign_extend", width - arena.width(*a), self.of(*a)),
            Node::Ite(c, a, b) => solver.ite(self.holds(solver, *c), self.of(*a), self.of(*b)),
            Node::Eq(a, b) => truth(apply("=", &[*a, *b])),
            Node::Ult(a, b) => truth(apply("bvult", &[*a, *b])),
            Node::Slt(a, b) => truth(apply("bvslt", &[*a, *b])),
            Node::Parity(a) => {
                let bits = (0..8).map(|bit| slice(solver, self.of(*a), bit, bit));
                let odd = bits.reduce(|x, y| solver.list(vec![solver.atom("bvxor"), x, y]));
                let odd = odd.unwrap_or_else(|| literal(solver, 0, 1));
                solver.list(vec![solver.atom("bvnot"), odd])
            }
            Node::Select(memory, address) => apply("select", &[*memory, *address]),
            Node::Store(memory, address, value) => apply("store", &[*memory, *address, *value]),
            Node::Constant(value) => literal(solver, *value, width),
            Node::Variable(_) | Node::Memory(_) => self.of(term),
        }
    }

    fn sum(&self, solver: &Context, terms: &[(Term, u128)], constant: u128, width: u32) -> SExpr {
        let mut parts = Vec::new();
        if constant != 0 {
            parts.push(literal(solver, constant, width));
        }
        for &(term, coefficient) in terms {
            let negated = coefficient.wrapping_neg() & mask(width);
            let scaled = |factor: u128| {
                let (operator, amount) = match factor {
                    1 => return self.of(term),
                    _ if factor.is_power_of_two() => ("bvshl", u128::from(factor.trailing_zeros())),
                    _ => ("bvmul", factor),
                };
                solver.list(vec![solver.atom(operator), self.of(term), literal(solver, amount, width)])
            };
            parts.push(if negated < coefficient {
                solver.list(vec![solver.atom("bvneg"), scaled(negated)])
            } else {
                scaled(coefficient)
            });
        }
        fold(solver, "bvadd", parts).unwrap_or_else(|| literal(solver, 0, width))
    }

    fn bits(&self, solver: &Context, op: BitOp, terms: &[Term], constant: u128, width: u32) -> SExpr {
        let (operator, identity) = match op {
            BitOp::And => ("bvand", mask(width)),
            BitOp::Or => ("bvor", 0),
            BitOp::Xor => ("bvxor", 0),
        };
        let mut parts: Vec<SExpr> = terms.iter().map(|&term| self.of(term)).collect();
        if constant != identity {
            parts.push(literal(solver, constant, width));
        }
        fold(solver, operator, parts).unwrap_or_else(|| literal(solver, identity, width))
    }
}

fn fold(solver: &Context, operator: &str, parts: Vec<SExpr>) -> Option<SExpr> {
    parts.into_iter().reduce(|a, b| solver.list(vec![solver.atom(operator), a, b]))
}

fn sort(arena: &Arena, solver: &Context, term: Term) -> SExpr {
    let bits = |width: u32| solver.list(vec![solver.atom("_"), solver.atom("BitVec"), solver.numeral(width)]);
    match arena.width(term) {
        0 => solver.list(vec![solver.atom("Array"), bits(64), bits(8)]),
        width => bits(width),
    }
}

/// A bit-vector literal.
pub(crate) fn literal(solver: &Context, value: u128, width: u32) -> SExpr {
    solver.binary(width as usize, value)
}

fn slice(solver: &Context, term: SExpr, hi: u32, lo: u32) -> SExpr {
    let operator = vec![solver.atom("_"), solver.atom("extract"), solver.numeral(hi), solver.numeral(lo)];
    solver.list(vec![solver.list(operator), term])
}

fn extend(solver: &Context, operator: &str, by: u32, term: SExpr) -> SExpr {
    let operator = vec![solver.atom("_"), solver.atom(operator), solver.numeral(by)];
    solver.list(vec![solver.list(operator), term])
}

/// The number that a solver wrote as `#x…`, `#b…` or `(_ bvN width)`.
pub(crate) fn parse_literal(solver: &Context, value: SExpr) -> Option<u128> {
    match solver.get(value) {
        SExprData::Atom(text) => match text.split_at_checked(2)? {
            ("#x", digits) => u128::from_str_radix(digits, 16).ok(),
            ("#b", digits) => u128::from_str_radix(digits, 2).ok(),
            _ => None,
        },
        SExprData::List([_, number, _]) => solver.get_atom(*number)?.strip_prefix("bv")?.parse().ok(),
        _ => None,
    }
}
