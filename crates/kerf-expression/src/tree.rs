//! A checked expression: every name is resolved, every type is known, only 64-bit words, truth values and strings are left.

use crate::ast::{Arithmetic, Order};

/// A checked expression, or two: what becomes of the constant where it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision(pub(crate) Choice);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The stock value stays.
    Keep,
    /// Another value; whether the number is signed.
    Value(Word, bool),
    If(Truth, Box<Choice>, Box<Choice>),
}

/// A number of 64 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    Constant(u64),
    Builtin(Builtin),
    /// An argument of the function, from 0; how many of its bits count and how they are widened.
    Argument {
        number: usize,
        bits: u32,
        signed: bool,
    },
    /// A part of memory.
    Load {
        base: Box<Word>,
        field: Field,
    },
    Negate(Box<Word>),
    Complement(Box<Word>),
    Arithmetic {
        operator: Arithmetic,
        signed: bool,
        sides: Box<(Word, Word)>,
    },
    If(Box<Truth>, Box<(Word, Word)>),
}

/// Where a number lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Bytes from the base.
    pub offset: u32,
    /// Bits to skip in the first byte: 0 to 7.
    pub skip: u32,
    /// How many bits: 1 to 64, with those skipped at most 64.
    pub bits: u32,
    /// How they are widened.
    pub signed: bool,
}

impl Field {
    /// How many bytes have to be read.
    pub fn bytes(self) -> usize {
        (self.skip + self.bits).div_ceil(8) as usize
    }

    /// The number, from the bytes that were read, the others zero.
    pub fn extract(self, bytes: u64) -> u64 {
        widen(bytes >> self.skip, self.bits, self.signed)
    }
}

/// The lowest bits of a number as 64.
pub fn widen(word: u64, bits: u32, signed: bool) -> u64 {
    let unused = 64 - bits.clamp(1, 64);
    if signed { ((word << unused) as i64 >> unused) as u64 } else { word << unused >> unused }
}

/// What is known of the running thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    Pid,
    Tgid,
    Uid,
    Gid,
    Cpu,
    Node,
}

/// True or false.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Truth {
    Constant(bool),
    /// A word that is not 0.
    NonZero(Word),
    Ordered {
        order: Order,
        signed: bool,
        sides: Box<(Word, Word)>,
    },
    /// A word that is one of several.
    Among(Word, Vec<Word>),
    /// A string that is one of several.
    TextAmong(Text, Vec<String>),
    /// The thread's control group is one of these.
    CgroupAmong(Vec<u64>),
    /// The ancestor of the thread's control group at a level, the root's being 0, is this one.
    CgroupUnder {
        level: u32,
        id: u64,
    },
    Not(Box<Truth>),
    And(Box<(Truth, Truth)>),
    Or(Box<(Truth, Truth)>),
    /// Both true or both false.
    Same(Box<(Truth, Truth)>),
    If(Box<(Truth, Truth, Truth)>),
}

/// Where a string is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// The thread's name.
    Comm,
    /// In so many bytes of a structure, with a zero behind it if there is room.
    Array { base: Word, offset: u32, length: u32 },
    /// At an address, with a zero behind it.
    Pointer(Word),
}

/// The bytes of a thread's name, the final zero included.
pub const COMM: usize = 16;

impl Decision {
    /// The decision where a condition holds; where it does not, the stock value stays.
    pub fn when(self, condition: crate::check::Condition) -> Decision {
        Decision(Choice::If(condition.0, Box::new(self.0), Box::new(Choice::Keep)))
    }

    /// A value that is always the same.
    pub fn fixed(value: i64) -> Decision {
        Decision(Choice::Value(Word::Constant(value as u64), true))
    }
}
