//! Marks: how a program in the machine says where an interval begins and ends.
//!
//! A mark is one instruction that loads a constant nobody else has into any register: `movabs $MARK, %reg`. It needs no
//! privilege, changes nothing, works in every language, and the plugin knows it by its bytes when it translates it. Only marks
//! outside the kernel count.

use std::hint::black_box;

/// The constant that begins an interval.
pub const BEGIN: u64 = 0x6b65_7266_b3e1_4c01;

/// The constant that ends one.
pub const END: u64 = 0x6b65_7266_b3e1_4c02;

/// What a mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// An interval begins behind it.
    Begin,
    /// The interval ends before it.
    End,
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
                assert_eq!(Mark::of(&load(prefix, opcode, BEGIN)), Some(Mark::Begin));
                assert_eq!(Mark::of(&load(prefix, opcode, END)), Some(Mark::End));
            }
        }
    }

    #[test]
    fn other_instructions_are_no_marks() {
        assert_eq!(Mark::of(&load(0x48, 0xb8, BEGIN + 7)), None);
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
