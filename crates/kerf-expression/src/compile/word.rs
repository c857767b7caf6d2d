//! Numbers: each is computed into R0.

use super::instruction::{
    ADD, AND, DIVIDE, FRAME, GREATER_EQUAL_SIGNED, MOVE, MULTIPLY, NEGATE, OR, R0, R1, R2, R3, R6, REMAINDER,
    SHIFT_LEFT, SHIFT_RIGHT, SHIFT_RIGHT_SIGNED, SUBTRACT, XOR,
};
use super::{
    GET_CURRENT_PID_TGID, GET_CURRENT_UID_GID, GET_NUMA_NODE_ID, GET_SMP_PROCESSOR_ID, PROBE_READ_KERNEL, Writer,
};
use crate::ast::Arithmetic;
use crate::tree::{Builtin, Field, Word};

/// Offsets of di, si, dx, cx, r8 and r9 in `struct pt_regs` of x86-64.
const PARAMETERS: [i16; 6] = [112, 104, 96, 88, 72, 64];

impl Writer {
    pub(super) fn word(&mut self, word: &Word) {
        match word {
            Word::Constant(bits) => self.code.constant(R0, *bits),
            Word::Builtin(builtin) => self.builtin(*builtin),
            Word::Argument { number, bits, signed } => {
                self.code.load(8, R0, R6, PARAMETERS.get(*number).copied().unwrap_or_default());
                self.widen(0, *bits, *signed);
            }
            Word::Load { base, field } => self.field(base, *field),
            Word::Negate(inner) => {
                self.word(inner);
                self.code.immediate(NEGATE, R0, 0);
            }
            Word::Complement(inner) => {
                self.word(inner);
                self.code.immediate(XOR, R0, -1);
            }
            Word::Arithmetic { operator, signed, sides } => {
                self.sides(&sides.0, &sides.1);
                self.arithmetic(*operator, *signed);
            }
            Word::If(condition, branches) => {
                let (other, end) = (self.code.label(), self.code.label());
                self.branch(condition, false, other);
                self.word(&branches.0);
                self.code.jump(end);
                self.code.place(other);
                self.word(&branches.1);
                self.code.place(end);
                self.forget();
            }
        }
    }

    /// Makes the verifier forget what it knows of R0, through the stack in two halves. It would follow every constant that a branch
    /// gives to the end, and with some dozen branches behind each other it would give up.
    fn forget(&mut self) {
        let room = self.room(8);
        self.code.register(MOVE, R1, R0);
        self.code.immediate(SHIFT_RIGHT, R1, 32);
        self.code.store_half(room, R0);
        self.code.store_half(room.saturating_add(4), R1);
        self.code.load(8, R0, FRAME, room);
        self.free(8);
    }

    fn builtin(&mut self, builtin: Builtin) {
        // Two numbers in one word: the thread and the user are in the lower half.
        let (helper, upper) = match builtin {
            Builtin::Pid => (GET_CURRENT_PID_TGID, false),
            Builtin::Tgid => (GET_CURRENT_PID_TGID, true),
            Builtin::Uid => (GET_CURRENT_UID_GID, false),
            Builtin::Gid => (GET_CURRENT_UID_GID, true),
            Builtin::Cpu => (GET_SMP_PROCESSOR_ID, false),
            Builtin::Node => (GET_NUMA_NODE_ID, false),
        };
        self.code.call(helper);
        if !upper {
            self.code.immediate(SHIFT_LEFT, R0, 32);
        }
        self.code.immediate(SHIFT_RIGHT, R0, 32);
    }

    /// The bits of R0 behind the first `skip`, as 64.
    fn widen(&mut self, skip: u32, bits: u32, signed: bool) {
        let unused = 64 - bits as i32;
        let shift = if signed { SHIFT_RIGHT_SIGNED } else { SHIFT_RIGHT };
        if unused - skip as i32 > 0 {
            self.code.immediate(SHIFT_LEFT, R0, unused - skip as i32);
        }
        if unused > 0 {
            self.code.immediate(shift, R0, unused);
        }
    }

    fn field(&mut self, base: &Word, field: Field) {
        self.word(base);
        let room = self.room(8);
        self.code.clear(room);
        self.read(room, field.bytes(), field.offset, PROBE_READ_KERNEL);
        self.code.load(8, R0, FRAME, room);
        self.free(8);
        self.widen(field.skip, field.bits, field.signed);
    }

    /// Reads bytes from an offset of the address in R0 to the stack. What cannot be read ends the program with the stock value.
    pub(super) fn read(&mut self, room: i16, bytes: usize, offset: u32, helper: i32) {
        self.code.register(MOVE, R1, FRAME);
        self.code.immediate(ADD, R1, room.into());
        self.code.constant(R2, bytes as u64);
        self.code.register(MOVE, R3, R0);
        if offset > 0 {
            self.code.immediate(ADD, R3, offset as i32);
        }
        self.code.call(helper);
        self.code.jump_if_constant(super::instruction::LESS_SIGNED, R0, 0, self.keep);
    }

    /// The left side in R0, the right one in R1.
    pub(super) fn sides(&mut self, left: &Word, right: &Word) {
        self.word(left);
        if let Word::Constant(bits) = right {
            self.code.constant(R1, *bits);
            return;
        }
        let room = self.room(8);
        self.code.store(room, R0);
        self.word(right);
        self.code.register(MOVE, R1, R0);
        self.code.load(8, R0, FRAME, room);
        self.free(8);
    }

    /// `R0 = R0 OPERATOR R1`
    fn arithmetic(&mut self, operator: Arithmetic, signed: bool) {
        let operation = match operator {
            Arithmetic::Divide | Arithmetic::Remainder if signed => return self.divide_signed(operator),
            Arithmetic::Multiply => MULTIPLY,
            Arithmetic::Divide => DIVIDE,
            Arithmetic::Remainder => REMAINDER,
            Arithmetic::Add => ADD,
            Arithmetic::Subtract => SUBTRACT,
            Arithmetic::ShiftLeft => SHIFT_LEFT,
            Arithmetic::ShiftRight if signed => SHIFT_RIGHT_SIGNED,
            Arithmetic::ShiftRight => SHIFT_RIGHT,
            Arithmetic::And => AND,
            Arithmetic::Xor => XOR,
            Arithmetic::Or => OR,
        };
        if matches!(operator, Arithmetic::ShiftLeft | Arithmetic::ShiftRight) {
            self.code.immediate(AND, R1, 63);
        }
        self.code.register(operation, R0, R1);
    }

    /// Division of magnitudes, and the sign: only newer kernels have an instruction for it.
    fn divide_signed(&mut self, operator: Arithmetic) {
        // R2 is negative if the result is: a remainder has the dividend's sign.
        self.code.register(MOVE, R2, R0);
        if operator == Arithmetic::Divide {
            self.code.register(XOR, R2, R1);
        }
        self.negate_unless_positive(R0, R0);
        self.negate_unless_positive(R1, R1);
        self.code.register(if operator == Arithmetic::Divide { DIVIDE } else { REMAINDER }, R0, R1);
        self.negate_unless_positive(R2, R0);
    }

    fn negate_unless_positive(&mut self, sign: u8, register: u8) {
        let positive = self.code.label();
        self.code.jump_if_constant(GREATER_EQUAL_SIGNED, sign, 0, positive);
        self.code.immediate(NEGATE, register, 0);
        self.code.place(positive);
    }
}
