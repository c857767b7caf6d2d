//! The symbol table that a stripped kernel carries in its read-only data for its own use (kallsyms).
//!
//! Nothing says where the tables are, so they are found by what must be true of them, never by a version:
//!
//! 1. the token table is 256 strings, and those of the digits are the digits themselves, next to one another;
//! 2. behind it lies the token index, and its 256 numbers are the offsets of exactly those strings;
//! 3. somewhere before it lie a number of symbols, that many compressed names, and markers with the offset of every
//!    256th name;
//! 4. the addresses lie behind the token index or before the number of symbols, as offsets from a base or as plain
//!    addresses. They do not decrease, they are in the image, and known symbols are where they must be.
//!
//! A reading that fails any of these is not taken.

use crate::bytes::{align_up, u16_at, u32_at, u64_at};

/// A symbol as kallsyms has it: an address, a type letter as `nm` prints it, and a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawSymbol {
    pub(crate) address: u64,
    pub(crate) letter: u8,
    pub(crate) name: Box<str>,
}

/// The digits' entries of every token table.
const DIGITS: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00";

const TOKENS: usize = 256;

/// A token is never longer than a symbol's name.
const TOKEN_MAX: usize = 512;

/// Markers give the offset of every 256th name.
const MARKER_EVERY: usize = 256;

/// The number of symbols is at most this far before the token table: a million names of 32 bytes.
const NAMES_MAX: usize = 32 << 20;

/// All names together are at most this long, decompressed: ten times those of a large kernel.
const TEXT_MAX: usize = 64 << 20;

/// How many token tables are tried. A kernel has one; a crafted file could have many.
const TRIES: usize = 8;

/// Every table starts on a multiple of this, on 64-bit machines.
const ALIGN: usize = 8;

/// Finds the tables in `blob` and reads them. `plausible` judges a whole reading; the first that passes is returned.
pub(crate) fn find(blob: &[u8], plausible: impl Fn(&[RawSymbol]) -> bool) -> Option<Vec<RawSymbol>> {
    let tables = memchr::memmem::find_iter(blob, DIGITS).filter_map(|digits| Tokens::at_digits(blob, digits));
    tables.take(TRIES).find_map(|tokens| {
        let names = Names::before(blob, &tokens)?;
        read_addresses(blob, &tokens, &names).find_map(|addresses| {
            let symbols = names.expand(blob, &tokens, &addresses)?;
            plausible(&symbols).then_some(symbols)
        })
    })
}

/// The token table: what each byte of a compressed name stands for.
struct Tokens<'data> {
    strings: Vec<&'data [u8]>,
    /// Where the table starts, and where its index ends.
    start: usize,
    end: usize,
}

impl<'data> Tokens<'data> {
    /// The table whose strings for the digits are at `digits`.
    fn at_digits(blob: &'data [u8], digits: usize) -> Option<Tokens<'data>> {
        let (_, strings_end) = strings(blob, digits, TOKENS - usize::from(b'0'))?;
        [8, 4, 2].into_iter().find_map(|align| {
            let index = align_up(strings_end, align)?;
            let start = digits.checked_sub(usize::from(u16_at(blob, index + 2 * usize::from(b'0'))?))?;
            let (strings, end) = strings(blob, start, TOKENS)?;
            if end != strings_end {
                return None;
            }
            let mut expected = 0;
            for (token, string) in strings.iter().enumerate() {
                if usize::from(u16_at(blob, index + 2 * token)?) != expected {
                    return None;
                }
                expected += string.len() + 1;
            }
            Some(Tokens { strings, start, end: index + 2 * TOKENS })
        })
    }
}

/// `count` NUL-terminated strings from `start` on, and where they end.
fn strings(blob: &[u8], start: usize, count: usize) -> Option<(Vec<&[u8]>, usize)> {
    let mut at = start;
    let mut strings = Vec::with_capacity(count);
    for _ in 0..count {
        let window = blob.get(at..blob.len().min(at + TOKEN_MAX))?;
        let length = memchr::memchr(0, window)?;
        strings.push(window.get(..length)?);
        at += length + 1;
    }
    Some((strings, at))
}

/// The compressed names.
struct Names {
    count: usize,
    /// Where the number of symbols is, and where the first name is.
    count_at: usize,
    start: usize,
    long_lengths: bool,
}

impl Names {
    /// The names that precede `tokens`: the number of symbols is searched backwards, and the markers decide.
    fn before(blob: &[u8], tokens: &Tokens<'_>) -> Option<Names> {
        let lowest = tokens.start.saturating_sub(NAMES_MAX);
        let mut at = tokens.start.checked_sub(2 * ALIGN)?;
        while at >= lowest {
            if let Some(names) = Names::at(blob, at, tokens.start) {
                return Some(names);
            }
            at = at.checked_sub(ALIGN)?;
        }
        None
    }

    /// The names if their number is at `count_at` and their markers end before `limit`.
    fn at(blob: &[u8], count_at: usize, limit: usize) -> Option<Names> {
        let count = usize::try_from(u64_at(blob, count_at)?).ok()?;
        // A name takes two bytes or more: its length, and its type letter's token.
        if count == 0 || count > (limit - count_at) / 2 {
            return None;
        }
        let start = count_at + ALIGN;
        [true, false].into_iter().find_map(|long_lengths| {
            let names = Names { count, count_at, start, long_lengths };
            names.markers_agree(blob, limit).then_some(names)
        })
    }

    /// Walks all names and compares every 256th offset with the markers behind them.
    fn markers_agree(&self, blob: &[u8], limit: usize) -> bool {
        let mut offsets = Vec::new();
        let mut at = self.start;
        for index in 0..self.count {
            if index % MARKER_EVERY == 0 {
                offsets.push(at - self.start);
            }
            match self.name_at(blob, at) {
                Some((_, next)) if next < limit => at = next,
                _ => return false,
            }
        }
        let Some(markers) = align_up(at, ALIGN) else { return false };
        let agree = |size: usize, read: &dyn Fn(usize) -> Option<u64>| {
            markers + size * offsets.len() <= limit
                && offsets
                    .iter()
                    .enumerate()
                    .all(|(index, &offset)| read(markers + size * index) == Some(offset as u64))
        };
        // Older kernels have 64-bit markers.
        agree(4, &|at| u32_at(blob, at).map(u64::from)) || agree(8, &|at| u64_at(blob, at))
    }

    /// The bytes of the name whose length is at `at`, and where the next name is.
    fn name_at<'data>(&self, blob: &'data [u8], at: usize) -> Option<(&'data [u8], usize)> {
        let first = usize::from(*blob.get(at)?);
        let (length, start) = if self.long_lengths && first & 0x80 != 0 {
            (first & 0x7f | usize::from(*blob.get(at + 1)?) << 7, at + 2)
        } else {
            (first, at + 1)
        };
        let name = blob.get(start..start + length)?;
        (length > 0).then_some((name, start + length))
    }

    /// Decompresses the names and joins them with `addresses`.
    fn expand(&self, blob: &[u8], tokens: &Tokens<'_>, addresses: &[u64]) -> Option<Vec<RawSymbol>> {
        let mut symbols = Vec::with_capacity(self.count);
        let mut at = self.start;
        let mut text = Vec::new();
        let mut total = 0;
        for &address in addresses {
            let (name, next) = self.name_at(blob, at)?;
            at = next;
            text.clear();
            for &byte in name {
                text.extend_from_slice(tokens.strings.get(usize::from(byte))?);
            }
            total += text.len();
            if total > TEXT_MAX {
                return None;
            }
            let (&letter, name) = text.split_first()?;
            symbols.push(RawSymbol { address, letter, name: std::str::from_utf8(name).ok()?.into() });
        }
        Some(symbols)
    }
}

/// Every reading of the addresses that does not decrease.
fn read_addresses<'a>(blob: &'a [u8], tokens: &Tokens<'_>, names: &Names) -> impl Iterator<Item = Vec<u64>> + use<'a> {
    let count = names.count;
    let behind = align_up(tokens.end, ALIGN).and_then(|offsets| Some((offsets, align_up(offsets + 4 * count, ALIGN)?)));
    let before =
        names.count_at.checked_sub(ALIGN).and_then(|base| Some((base.checked_sub(align_up(4 * count, ALIGN)?)?, base)));
    let plain = names.count_at.checked_sub(8 * count);
    let relative = [behind, before].into_iter().flatten().flat_map(move |(offsets, base)| {
        [per_cpu_absolute, plain_offset].into_iter().filter_map(move |decode| {
            let base = u64_at(blob, base)?;
            (0..count).map(|index| Some(decode(base, u32_at(blob, offsets + 4 * index)?))).collect()
        })
    });
    let absolute =
        plain.into_iter().filter_map(move |start| (0..count).map(|index| u64_at(blob, start + 8 * index)).collect());
    relative.chain(absolute).filter(|addresses: &Vec<u64>| addresses.is_sorted())
}

/// Kernels with `CONFIG_KALLSYMS_ABSOLUTE_PERCPU`: negative offsets are relative, others are addresses.
fn per_cpu_absolute(base: u64, offset: u32) -> u64 {
    match offset as i32 {
        absolute @ 0.. => absolute as u64,
        relative => base.wrapping_sub(1).wrapping_add_signed(-i64::from(relative)),
    }
}

/// Other kernels: all offsets are relative and unsigned.
fn plain_offset(base: u64, offset: u32) -> u64 {
    base.wrapping_add(u64::from(offset))
}

#[cfg(test)]
#[path = "kallsyms_tests.rs"]
mod tests;
