//! From text to words, numbers, strings and symbols.

use crate::error::Problem;
use crate::limits;
use crate::render::Span;

/// A piece of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    Number(i128),
    Text(String),
    Name(String),
    Symbol(&'static str),
    End,
}

/// All symbols; a longer one stands before its beginning.
const SYMBOLS: [&str; 26] = [
    "->", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "<", ">", "!", "-", "~", "*", "/", "%", "+", "&", "^", "|",
    "(", ")", "[", "]", ",",
];

/// The pieces of a text with their places; the last one is its end.
pub fn tokens(text: &str) -> Result<Vec<(Token, Span)>, (Span, Problem)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = text.get(at..).and_then(|rest| rest.chars().next()) {
        let rest = text.get(at..).unwrap_or_default();
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let (token, length) = match first {
            '0'..='9' => number(rest).map_err(|(problem, length)| (Span { start: at, end: at + length }, problem))?,
            'a'..='z' | 'A'..='Z' | '_' => {
                let length = word(rest);
                (Token::Name(rest.get(..length).unwrap_or_default().to_owned()), length)
            }
            '"' => string(rest).map_err(|(problem, from, to)| (Span { start: at + from, end: at + to }, problem))?,
            '.' => (Token::Symbol("."), 1),
            _ => {
                let symbol = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol));
                let end = at + first.len_utf8();
                let symbol = symbol.ok_or((Span { start: at, end }, Problem::Character(first)))?;
                (Token::Symbol(symbol), symbol.len())
            }
        };
        found.push((token, Span { start: at, end: at + length }));
        at += length;
    }
    found.push((Token::End, Span { start: text.trim_end().len(), end: text.trim_end().len() }));
    Ok(found)
}

/// How many bytes belong to the word that a text begins with.
fn word(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

fn number(text: &str) -> Result<(Token, usize), (Problem, usize)> {
    let length = word(text);
    let written = text.get(..length).unwrap_or_default();
    let (digits, unit) = match written.as_bytes().last() {
        Some(b'K' | b'k') => (written.get(..length - 1), 1i128 << 10),
        Some(b'M') => (written.get(..length - 1), 1 << 20),
        Some(b'G') => (written.get(..length - 1), 1 << 30),
        _ => (Some(written), 1),
    };
    let digits = digits.unwrap_or_default();
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let (plain, radix) = hex.map_or((digits, 10), |hex| (hex, 16));
    if plain.is_empty() || !plain.chars().all(|c| c.is_digit(radix)) {
        return Err((Problem::Number, length));
    }
    let value = i128::from_str_radix(plain, radix).ok().and_then(|n| n.checked_mul(unit));
    let value = value.filter(|n| *n <= i128::from(u64::MAX)).ok_or((Problem::LargeNumber, length))?;
    Ok((Token::Number(value), length))
}

fn string(text: &str) -> Result<(Token, usize), (Problem, usize, usize)> {
    let mut content = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' if content.len() > limits::TEXT => {
                let problem = Problem::LongText { what: "a string", most: limits::TEXT, bytes: content.len() };
                return Err((problem, 0, at + 1));
            }
            '"' => return Ok((Token::Text(content), at + 1)),
            '\\' => match chars.next() {
                Some((_, escaped @ ('"' | '\\'))) => content.push(escaped),
                other => return Err((Problem::Escape, at, at + 1 + other.map_or(0, |(_, c)| c.len_utf8()))),
            },
            // No string of the kernel holds its own end.
            '\0' => return Err((Problem::Character(c), at, at + 1)),
            c => content.push(c),
        }
    }
    Err((Problem::Unfinished, 0, text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Token> {
        tokens(text).unwrap().into_iter().map(|(token, _)| token).collect()
    }

    #[test]
    fn numbers_are_read_as_people_write_them() {
        for (text, value) in [("0", 0), ("0x1f", 31), ("4K", 4096), ("0x10k", 16384), ("2M", 2 << 20), ("1G", 1 << 30)]
        {
            assert_eq!(read(text), [Token::Number(value), Token::End], "{text}");
        }
        assert_eq!(read("18446744073709551615")[0], Token::Number(u64::MAX.into()));
        for text in ["0x", "12a", "1T", "1_0", "K1K2"] {
            assert!(text.starts_with('K') || tokens(text).unwrap_err().1 == Problem::Number, "{text}");
        }
        for text in ["18446744073709551616", "16777216G0", "0xfffffffffffffffffffffffffffffffffffff", "17179869184G"] {
            assert!(tokens(text).is_err(), "{text}");
        }
    }

    #[test]
    fn symbols_are_as_long_as_they_can_be() {
        let symbols = |text: &str| read(text).into_iter().filter(|t| matches!(t, Token::Symbol(_))).count();
        assert_eq!(symbols("a<<b>>c<=d->e-f"), 5);
        assert_eq!(read("a.b")[1], Token::Symbol("."));
        assert_eq!(read(r#""a\"\\b""#)[0], Token::Text("a\"\\b".into()));
    }
}
