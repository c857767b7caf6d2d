//! Instructions of BPF with labels, and the bytes that they become.

/// Registers: what a helper returns, its arguments, what a call leaves alone, the frame.
pub const R0: u8 = 0;
pub const R1: u8 = 1;
pub const R2: u8 = 2;
pub const R3: u8 = 3;
pub const R6: u8 = 6;
pub const FRAME: u8 = 10;

/// Operations on 64 bits; added to them, [`REGISTER`] says that the right side is one.
pub const ADD: u8 = 0x07;
pub const SUBTRACT: u8 = 0x17;
pub const MULTIPLY: u8 = 0x27;
pub const DIVIDE: u8 = 0x37;
pub const OR: u8 = 0x47;
pub const AND: u8 = 0x57;
pub const SHIFT_LEFT: u8 = 0x67;
pub const SHIFT_RIGHT: u8 = 0x77;
pub const NEGATE: u8 = 0x87;
pub const REMAINDER: u8 = 0x97;
pub const XOR: u8 = 0xa7;
pub const MOVE: u8 = 0xb7;
pub const SHIFT_RIGHT_SIGNED: u8 = 0xc7;
pub const REGISTER: u8 = 0x08;

/// Jumps; unsigned where nothing is said.
pub const EQUAL: u8 = 0x15;
pub const GREATER: u8 = 0x25;
pub const GREATER_EQUAL: u8 = 0x35;
pub const NOT_EQUAL: u8 = 0x55;
pub const GREATER_SIGNED: u8 = 0x65;
pub const GREATER_EQUAL_SIGNED: u8 = 0x75;
pub const LESS: u8 = 0xa5;
pub const LESS_EQUAL: u8 = 0xb5;
pub const LESS_SIGNED: u8 = 0xc5;
pub const LESS_EQUAL_SIGNED: u8 = 0xd5;
const ALWAYS: u8 = 0x05;

const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const LOAD_CONSTANT: u8 = 0x18;
const STORE_CONSTANT: u8 = 0x7a;
const STORE: u8 = 0x7b;
const STORE_HALF: u8 = 0x63;
/// Loads of 1, 2, 4 and 8 bytes.
const LOADS: [(usize, u8); 4] = [(1, 0x71), (2, 0x69), (4, 0x61), (8, 0x79)];

/// A place to jump to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

#[derive(Clone, Copy, Debug)]
enum Item {
    Plain {
        code: u8,
        to: u8,
        from: u8,
        offset: i16,
        immediate: i32,
    },
    /// Two instructions' room.
    Constant {
        to: u8,
        value: u64,
    },
    Jump {
        code: u8,
        left: u8,
        right: u8,
        immediate: i32,
        label: Label,
    },
    Label(Label),
}

/// A program that is being written.
#[derive(Debug, Default)]
pub struct Code {
    items: Vec<Item>,
    labels: usize,
}

impl Code {
    /// A new label, not yet anywhere.
    pub fn label(&mut self) -> Label {
        self.labels += 1;
        Label(self.labels - 1)
    }

    /// Puts a label here.
    pub fn place(&mut self, label: Label) {
        self.items.push(Item::Label(label));
    }

    fn plain(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: i32) {
        self.items.push(Item::Plain { code, to, from, offset, immediate });
    }

    /// `to = to OPERATION immediate`
    pub fn immediate(&mut self, operation: u8, to: u8, immediate: i32) {
        self.plain(operation, to, 0, 0, immediate);
    }

    /// `to = to OPERATION from`
    pub fn register(&mut self, operation: u8, to: u8, from: u8) {
        self.plain(operation | REGISTER, to, from, 0, 0);
    }

    /// `to = value`
    pub fn constant(&mut self, to: u8, value: u64) {
        match i32::try_from(value as i64) {
            Ok(small) => self.immediate(MOVE, to, small),
            Err(_) => self.items.push(Item::Constant { to, value }),
        }
    }

    /// `to = *(from + offset)`, so many bytes, the others zero.
    pub fn load(&mut self, bytes: usize, to: u8, from: u8, offset: i16) {
        let code = LOADS.into_iter().find(|(size, _)| *size == bytes).map_or(0x79, |(_, code)| code);
        self.plain(code, to, from, offset, 0);
    }

    /// `*(frame + offset) = from`
    pub fn store(&mut self, offset: i16, from: u8) {
        self.plain(STORE, FRAME, from, offset, 0);
    }

    /// `*(frame + offset) = from`, the lower 32 bits
    pub fn store_half(&mut self, offset: i16, from: u8) {
        self.plain(STORE_HALF, FRAME, from, offset, 0);
    }

    /// `*(frame + offset) = 0`
    pub fn clear(&mut self, offset: i16) {
        self.plain(STORE_CONSTANT, FRAME, 0, offset, 0);
    }

    /// Calls a helper.
    pub fn call(&mut self, helper: i32) {
        self.plain(CALL, 0, 0, 0, helper);
    }

    /// Ends the program.
    pub fn exit(&mut self) {
        self.plain(EXIT, 0, 0, 0, 0);
    }

    /// Goes to a label.
    pub fn jump(&mut self, label: Label) {
        self.items.push(Item::Jump { code: ALWAYS, left: 0, right: 0, immediate: 0, label });
    }

    /// Goes to a label if two registers compare so.
    pub fn jump_if(&mut self, comparison: u8, left: u8, right: u8, label: Label) {
        self.items.push(Item::Jump { code: comparison | REGISTER, left, right, immediate: 0, label });
    }

    /// Goes to a label if a register and a number compare so. R1 may be used up.
    pub fn jump_if_constant(&mut self, comparison: u8, left: u8, value: u64, label: Label) {
        match i32::try_from(value as i64) {
            Ok(immediate) => self.items.push(Item::Jump { code: comparison, left, right: 0, immediate, label }),
            Err(_) => {
                self.constant(R1, value);
                self.jump_if(comparison, left, R1, label);
            }
        }
    }

    /// The program's bytes, without what nothing leads to: the verifier refuses such instructions. `None` if a jump would reach too far.
    pub fn assemble(&self) -> Option<Vec<u8>> {
        let mut target = vec![0; self.labels];
        for (at, item) in self.items.iter().enumerate() {
            if let Item::Label(label) = item {
                *target.get_mut(label.0)? = at;
            }
        }
        let reached = self.reached(&target)?;
        let mut position = Vec::with_capacity(self.items.len() + 1);
        let mut size = 0i64;
        for (item, reached) in self.items.iter().zip(&reached) {
            position.push(size);
            size += if *reached { item.size() } else { 0 };
        }
        let mut bytes = Vec::new();
        for (at, item) in self.items.iter().enumerate().filter(|(at, _)| reached[*at]) {
            let offset = match item {
                Item::Jump { label, .. } => {
                    let to = *position.get(*target.get(label.0)?)?;
                    i16::try_from(to - position.get(at)? - 1).ok()?
                }
                _ => 0,
            };
            item.write(offset, &mut bytes);
        }
        Some(bytes)
    }

    /// Which items something leads to.
    fn reached(&self, target: &[usize]) -> Option<Vec<bool>> {
        let mut reached = vec![false; self.items.len()];
        let mut work = vec![0];
        while let Some(at) = work.pop() {
            let Some(item) = self.items.get(at) else { continue };
            if std::mem::replace(reached.get_mut(at)?, true) {
                continue;
            }
            match item {
                Item::Jump { code, label, .. } => {
                    work.push(*target.get(label.0)?);
                    work.extend((*code != ALWAYS).then_some(at + 1));
                }
                Item::Plain { code: EXIT, .. } => {}
                _ => work.push(at + 1),
            }
        }
        Some(reached)
    }
}

impl Item {
    /// In instructions.
    fn size(self) -> i64 {
        match self {
            Item::Plain { .. } | Item::Jump { .. } => 1,
            Item::Constant { .. } => 2,
            Item::Label(_) => 0,
        }
    }

    fn write(self, jump: i16, out: &mut Vec<u8>) {
        let mut one = |code: u8, to: u8, from: u8, offset: i16, immediate: i32| {
            out.extend([code, from << 4 | to]);
            out.extend(offset.to_le_bytes());
            out.extend(immediate.to_le_bytes());
        };
        match self {
            Item::Plain { code, to, from, offset, immediate } => one(code, to, from, offset, immediate),
            Item::Constant { to, value } => {
                one(LOAD_CONSTANT, to, 0, 0, value as u32 as i32);
                one(0, 0, 0, 0, (value >> 32) as u32 as i32);
            }
            Item::Jump { code, left, right, immediate, .. } => one(code, left, right, jump, immediate),
            Item::Label(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_count_instructions_and_dead_code_goes() {
        let mut code = Code::default();
        let (end, never) = (code.label(), code.label());
        code.jump_if_constant(EQUAL, R0, 5, end);
        code.constant(R0, 1 << 40);
        code.jump(end);
        code.place(never);
        code.constant(R0, 7);
        code.jump(never);
        code.place(end);
        code.exit();
        let bytes = code.assemble().unwrap();
        let codes: Vec<(u8, i16)> = bytes.chunks(8).map(|i| (i[0], i16::from_le_bytes([i[2], i[3]]))).collect();
        assert_eq!(codes, [(EQUAL, 3), (LOAD_CONSTANT, 0), (0, 0), (ALWAYS, 0), (EXIT, 0)]);
    }
}
