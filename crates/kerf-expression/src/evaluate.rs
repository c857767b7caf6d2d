//! What an expression decides, over anything that says what a thread is and what memory holds. The compiled program does the same.

use crate::number;
use crate::tree::{Builtin, COMM, Choice, Decision, Text, Truth, Word, widen};

/// What an expression can ask for.
pub trait Environment {
    /// The thread's name, the bytes behind it zero.
    fn comm(&self) -> [u8; COMM];
    /// The thread's number.
    fn pid(&self) -> u32;
    /// The process's number.
    fn tgid(&self) -> u32;
    /// The user's number.
    fn uid(&self) -> u32;
    /// The group's number.
    fn gid(&self) -> u32;
    /// The processor's number.
    fn cpu(&self) -> u32;
    /// The memory node's number.
    fn node(&self) -> u32;
    /// The control group's number.
    fn cgroup(&self) -> u64;
    /// The number of its ancestor at a level, the root's being 0; 0 if it has none there.
    fn ancestor(&self, level: u32) -> u64;
    /// An argument of the function, from 0, as it is in its register.
    fn argument(&self, number: usize) -> u64;
    /// Reads the kernel's memory; false if it cannot be read.
    fn read(&self, address: u64, bytes: &mut [u8]) -> bool;
}

/// What becomes of the constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The stock value stays.
    Keep,
    /// This value, if it is certified.
    Value(i128),
}

/// Answers with the lowest bit set hold a value in the other 63.
const LOWEST: i128 = -(1 << 62);
const HIGHEST: i128 = (1 << 62) - 1;
/// A value that no constant is certified for: what stands for one with too many bits.
pub(crate) const OUT_OF_REACH: u64 = 1 << 63 | 1;

impl Outcome {
    /// What a policy's program returns for it.
    pub fn answer(self) -> u64 {
        match self {
            Outcome::Keep => 0,
            Outcome::Value(value) if (LOWEST..=HIGHEST).contains(&value) => (value as u64) << 1 | 1,
            Outcome::Value(_) => OUT_OF_REACH,
        }
    }
}

/// Memory that cannot be read.
struct Unreadable;

/// What is decided. Where memory cannot be read, the stock value stays.
pub fn evaluate(decision: &Decision, environment: &dyn Environment) -> Outcome {
    Evaluation(environment).choice(&decision.0).unwrap_or(Outcome::Keep)
}

struct Evaluation<'a>(&'a dyn Environment);

impl Evaluation<'_> {
    fn choice(&self, choice: &Choice) -> Result<Outcome, Unreadable> {
        match choice {
            Choice::Keep => Ok(Outcome::Keep),
            Choice::Value(word, true) => Ok(Outcome::Value(i128::from(self.word(word)? as i64))),
            Choice::Value(word, false) => Ok(Outcome::Value(i128::from(self.word(word)?))),
            Choice::If(condition, yes, no) => self.choice(if self.truth(condition)? { yes } else { no }),
        }
    }

    fn word(&self, word: &Word) -> Result<u64, Unreadable> {
        Ok(match word {
            Word::Constant(bits) => *bits,
            Word::Builtin(builtin) => u64::from(match builtin {
                Builtin::Pid => self.0.pid(),
                Builtin::Tgid => self.0.tgid(),
                Builtin::Uid => self.0.uid(),
                Builtin::Gid => self.0.gid(),
                Builtin::Cpu => self.0.cpu(),
                Builtin::Node => self.0.node(),
            }),
            Word::Argument { number, bits, signed } => widen(self.0.argument(*number), *bits, *signed),
            Word::Load { base, field } => {
                let address = self.word(base)?.wrapping_add(field.offset.into());
                let mut bytes = [0; 8];
                self.read(address, bytes.get_mut(..field.bytes()).ok_or(Unreadable)?)?;
                field.extract(u64::from_le_bytes(bytes))
            }
            Word::Negate(inner) => self.word(inner)?.wrapping_neg(),
            Word::Complement(inner) => !self.word(inner)?,
            Word::Arithmetic { operator, signed, sides } => {
                number::compute(*operator, *signed, self.word(&sides.0)?, self.word(&sides.1)?)
            }
            Word::If(condition, branches) => {
                self.word(if self.truth(condition)? { &branches.0 } else { &branches.1 })?
            }
        })
    }

    fn truth(&self, truth: &Truth) -> Result<bool, Unreadable> {
        Ok(match truth {
            Truth::Constant(truth) => *truth,
            Truth::NonZero(word) => self.word(word)? != 0,
            Truth::Ordered { order, signed, sides } => {
                number::ordered(*order, *signed, self.word(&sides.0)?, self.word(&sides.1)?)
            }
            Truth::Among(word, items) => {
                let word = self.word(word)?;
                for item in items {
                    if self.word(item)? == word {
                        return Ok(true);
                    }
                }
                false
            }
            Truth::TextAmong(text, items) => {
                let longest = items.iter().map(String::len).max().unwrap_or(0);
                let text = self.text(text, longest)?;
                items.iter().any(|item| item.as_bytes() == text)
            }
            Truth::CgroupAmong(ids) => ids.contains(&self.0.cgroup()),
            Truth::CgroupUnder { level, id } => self.0.ancestor(*level) == *id,
            Truth::Not(inner) => !self.truth(inner)?,
            Truth::And(sides) => self.truth(&sides.0)? && self.truth(&sides.1)?,
            Truth::Or(sides) => self.truth(&sides.0)? || self.truth(&sides.1)?,
            Truth::Same(sides) => self.truth(&sides.0)? == self.truth(&sides.1)?,
            Truth::If(parts) => self.truth(if self.truth(&parts.0)? { &parts.1 } else { &parts.2 })?,
        })
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.0.read(address, bytes).then_some(()).ok_or(Unreadable)
    }

    /// A string without its final zero; of one that is longer than anything it is compared with, one byte more than that.
    fn text(&self, text: &Text, longest: usize) -> Result<Vec<u8>, Unreadable> {
        let mut bytes = match text {
            Text::Comm => self.0.comm().to_vec(),
            Text::Array { base, offset, length } => {
                let mut bytes = vec![0; (longest + 1).min(*length as usize)];
                self.read(self.word(base)?.wrapping_add((*offset).into()), &mut bytes)?;
                bytes
            }
            Text::Pointer(word) => self.string(self.word(word)?, longest + 1)?,
        };
        bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
        Ok(bytes)
    }

    /// Up to so many bytes, no farther than to a zero.
    fn string(&self, address: u64, most: usize) -> Result<Vec<u8>, Unreadable> {
        let mut found = Vec::new();
        for n in 0..most as u64 {
            let mut byte = [0];
            self.read(address.wrapping_add(n), &mut byte)?;
            found.extend(byte);
            if byte == [0] {
                break;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_hold_63_bits() {
        assert_eq!(Outcome::Keep.answer(), 0);
        assert_eq!(Outcome::Value(4).answer(), 9);
        assert_eq!(Outcome::Value(-1).answer(), u64::MAX);
        assert_eq!(Outcome::Value(HIGHEST).answer() as i64 >> 1, HIGHEST as i64);
        for value in [HIGHEST + 1, LOWEST - 1, u64::MAX.into(), i64::MIN.into()] {
            assert_eq!(Outcome::Value(value).answer(), OUT_OF_REACH, "{value}");
        }
    }
}
