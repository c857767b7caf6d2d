//! Marks: how a program in the machine says where an interval begins and ends, and what it is called.
//!
//! A mark is one instruction that loads a constant nobody else has into any register: `movabs $MARK, %reg`. It needs no
//! privilege, changes nothing, works in every language, and the plugin knows it by its bytes when it translates it. Only marks
//! outside the kernel count. A name is spelt before its interval begins, two marks a byte, since a plugin sees no registers.

use std::hint::black_box;

/// The constant that begins an interval.
pub const BEGIN: u64 = 0x6b65_7266_b3e1_4c01;

/// The constant that ends one.
pub const END: u64 = 0x6b65_7266_b3e1_4c02;

/// The constant that begins the whole run, whatever intervals it holds.
pub const START: u64 = 0x6b65_7266_b3e1_4c03;

/// The constant that ends it.
pub const STOP: u64 = 0x6b65_7266_b3e1_4c04;

/// The constant of the half byte 0; that of another one is as much larger.
pub const SPELL: u64 = 0x6b65_7266_b3e1_4d00;

/// The most bytes of a name that are kept.
pub const LONGEST_NAME: usize = 64;

/// What a mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// An interval begins behind it.
    Begin,
    /// The interval ends before it.
    End,
    /// The whole run begins behind it.
    Start,
    /// The whole run ends before it.
    Stop,
    /// Half a byte of the next interval's name, the upper half first.
    Spell(u8),
}

impl Mark {
    /// Tells whether an instruction is a mark, by its encoding: REX.W, B8 + register, the constant.
    pub fn of(instruction: &[u8]) -> Option<Mark> {
        let (&[prefix, opcode], constant) = instruction.split_first_chunk()?;
        if prefix & 0xfe != 0x48 || opcode & 0xf8 != 0xb8 {
            return None;
        }
        match u64::from_le_bytes(constant.try_into().ok()?) {
            BEGIN => Some(Mark::Begin),
            END => Some(Mark::End),
            START => Some(Mark::Start),
            STOP => Some(Mark::Stop),
            other if other & !0xf == SPELL => Some(Mark::Spell((other & 0xf) as u8)),
            _ => None,
        }
    }
}

/// Begins an interval. Elsewhere than in a machine with the plugin it does nothing.
// Out of line, so that the instruction is executed once a call and cannot be moved out of a loop.
#[inline(never)]
pub fn begin() {
    black_box(BEGIN);
}

/// Ends the interval.
#[inline(never)]
pub fn end() {
    black_box(END);
}

/// Begins the whole run.
#[inline(never)]
pub fn start() {
    black_box(START);
}

/// Ends the whole run.
#[inline(never)]
pub fn stop() {
    black_box(STOP);
}

/// Names the interval that begins next; of a long name the first [`LONGEST_NAME`] bytes are kept.
pub fn name(name: &str) {
    for byte in name.bytes().take(LONGEST_NAME) {
        spell(byte >> 4);
        spell(byte & 0xf);
    }
}

/// Each half byte has an instruction of its own.
fn spell(half: u8) {
    const ALL: [fn(); 16] = [
        load::<0>, load::<1>, load::<2>, load::<3>, load::<4>, load::<5>, load::<6>, load::<7>, load::<8>, load::<9>,
        load::<10>, load::<11>, load::<12>, load::<13>, load::<14>, load::<15>,
    ];
    ALL[usize::from(half & 0xf)]();
}

#[inline(never)]
fn load<const HALF: u64>() {
    black_box(SPELL | HALF);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn load(prefix: u8, opcode: u8, constant: u64) -> Vec<u8> {
        [&[prefix, opcode][..], &constant.to_le_bytes()].concat()
    }

    #[test]
    fn a_mark_is_known_in_every_register() {
        for prefix in [0x48, 0x49] {
            for opcode in 0xb8..=0xbf {
                for (constant, mark) in [
                    (BEGIN, Mark::Begin),
                    (END, Mark::End),
                    (START, Mark::Start),
                    (STOP, Mark::Stop),
                    (SPELL, Mark::Spell(0)),
                    (SPELL + 15, Mark::Spell(15)),
                ] {
                    assert_eq!(Mark::of(&load(prefix, opcode, constant)), Some(mark));
                }
            }
        }
    }

    #[test]
    fn other_instructions_are_no_marks() {
        assert_eq!(Mark::of(&load(0x48, 0xb8, BEGIN + 7)), None);
        assert_eq!(Mark::of(&load(0x48, 0xb8, SPELL + 16)), None);
        assert_eq!(Mark::of(&load(0x4a, 0xb8, BEGIN)), None);
        assert_eq!(Mark::of(&load(0x48, 0xc7, BEGIN)), None);
        assert_eq!(Mark::of(&load(0x48, 0xb8, BEGIN)[..9]), None);
        assert_eq!(Mark::of(&[]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..16)) {
            prop_assert_eq!(Mark::of(&bytes), None);
        }
    }
}
