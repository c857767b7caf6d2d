//! From a checked expression to a BPF program: words are computed in R0, intermediate ones lie on the stack, truth values are jumps.

mod instruction;
mod object;
mod text;
mod truth;
mod word;

pub use object::object;

use crate::evaluate::OUT_OF_REACH;
use crate::limits;
use crate::tree::{Choice, Decision, Word};
use instruction::{
    Code, GREATER_EQUAL_SIGNED, Label, MOVE, NOT_EQUAL, OR, R0, R1, R2, R6, SHIFT_LEFT, SHIFT_RIGHT_SIGNED,
};

use crate::error::{ExpressionError, Problem};
use crate::render::Span;

/// Helpers of the kernel, by their numbers.
const GET_SMP_PROCESSOR_ID: i32 = 8;
const GET_CURRENT_PID_TGID: i32 = 14;
const GET_CURRENT_UID_GID: i32 = 15;
const GET_CURRENT_COMM: i32 = 16;
const GET_NUMA_NODE_ID: i32 = 42;
const GET_CURRENT_CGROUP_ID: i32 = 80;
const PROBE_READ_KERNEL: i32 = 113;
const PROBE_READ_KERNEL_STR: i32 = 115;
const GET_CURRENT_ANCESTOR_CGROUP_ID: i32 = 123;

/// A BPF program of type kprobe that decides as an expression says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its instructions.
    pub code: Vec<u8>,
}

impl Program {
    /// Compiles a decision; `text` is what it was written as, for the error.
    ///
    /// # Errors
    /// If it needs more stack or instructions than a program may have.
    pub fn compile(decision: &Decision, text: &str) -> Result<Program, ExpressionError> {
        let whole = |problem| ExpressionError::new(text, (Span { start: 0, end: text.len() }, problem));
        let mut code = Code::default();
        let keep = code.label();
        let mut writer = Writer { code, keep, used: 0, most: 0 };
        writer.program(&decision.0);
        if writer.most > limits::STACK {
            return Err(whole(Problem::Large { what: "bytes of stack", most: limits::STACK }));
        }
        let code = writer.code.assemble().filter(|code| code.len() <= 8 * limits::INSTRUCTIONS);
        let code = code.ok_or_else(|| whole(Problem::Large { what: "instructions", most: limits::INSTRUCTIONS }))?;
        Ok(Program { code })
    }
}

struct Writer {
    code: Code,
    /// Where the stock value is kept: also where memory cannot be read.
    keep: Label,
    /// Bytes of the stack in use.
    used: usize,
    /// The most that ever were.
    most: usize,
}

impl Writer {
    /// Room on the stack, as an offset from the frame. What is too much is noticed at the end.
    fn room(&mut self, bytes: usize) -> i16 {
        self.used += bytes.next_multiple_of(8);
        self.most = self.most.max(self.used);
        i16::try_from(self.used).map_or(i16::MIN, |used| -used)
    }

    fn free(&mut self, bytes: usize) {
        self.used -= bytes.next_multiple_of(8);
    }

    fn program(&mut self, choice: &Choice) {
        self.code.register(MOVE, R6, R1);
        self.choice(choice);
        self.code.place(self.keep);
        self.code.constant(R0, 0);
        self.code.exit();
    }

    fn choice(&mut self, choice: &Choice) {
        match choice {
            Choice::Keep => self.code.jump(self.keep),
            Choice::Value(word, signed) => self.answer(word, *signed),
            Choice::If(condition, yes, no) => {
                let other = self.code.label();
                self.branch(condition, false, other);
                self.choice(yes);
                self.code.place(other);
                self.choice(no);
            }
        }
    }

    /// Ends the program with a value, which has 63 bits' room.
    fn answer(&mut self, word: &Word, signed: bool) {
        let (far, fits) = (self.code.label(), self.code.label());
        self.word(word);
        if !signed {
            self.code.jump_if_constant(GREATER_EQUAL_SIGNED, R0, 0, fits);
            self.code.jump(far);
            self.code.place(fits);
        }
        self.code.register(MOVE, R1, R0);
        self.code.immediate(SHIFT_LEFT, R1, 1);
        self.code.register(MOVE, R2, R1);
        self.code.immediate(SHIFT_RIGHT_SIGNED, R2, 1);
        self.code.jump_if(NOT_EQUAL, R2, R0, far);
        self.code.register(MOVE, R0, R1);
        self.code.immediate(OR, R0, 1);
        self.code.exit();
        self.code.place(far);
        self.code.constant(R0, OUT_OF_REACH);
        self.code.exit();
    }
}
