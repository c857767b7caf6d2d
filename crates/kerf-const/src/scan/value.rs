//! The value of an expression of the source, as far as names of the source and of the configuration go.

use crate::site::parse_integer;

/// How deep names are followed through names.
const DEEPEST: u8 = 8;

/// Evaluates integer expressions; `lookup` gives the text that a name stands for.
pub struct Evaluator<'a> {
    /// The text that a name stands for.
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl Evaluator<'_> {
    /// The value; `None` if it cannot be known from the source.
    pub fn value(&self, text: &str) -> Option<i128> {
        self.at_depth(text, 0)
    }

    fn at_depth(&self, text: &str, depth: u8) -> Option<i128> {
        if depth > DEEPEST {
            return None;
        }
        let tokens = tokens(text)?;
        let mut reader = Reader { tokens: &tokens, at: 0, evaluator: self, depth };
        let value = reader.conditional()?;
        (reader.at == tokens.len()).then_some(value)
    }

    fn name(&self, name: &str, depth: u8) -> Option<i128> {
        let known = match name {
            "NSEC_PER_SEC" | "FSEC_PER_USEC" => 1_000_000_000,
            "NSEC_PER_MSEC" | "USEC_PER_SEC" => 1_000_000,
            "NSEC_PER_USEC" | "USEC_PER_MSEC" | "MSEC_PER_SEC" => 1000,
            "PAGE_SIZE" => 4096,
            "PAGE_SHIFT" => 12,
            "BITS_PER_LONG" => 64,
            "SECTOR_SHIFT" => 9,
            _ if name.starts_with("SZ_") => return size(name),
            _ => return self.at_depth(&(self.lookup)(name)?, depth + 1),
        };
        Some(known)
    }

    fn call(&self, name: &str, arguments: &[i128], depth: u8) -> Option<i128> {
        let hz = || self.name("HZ", depth);
        let jiffies = |amount: i128, per_second: i128| Some((amount * hz()? + per_second - 1) / per_second);
        Some(match (name, arguments) {
            ("msecs_to_jiffies", [ms]) => jiffies(*ms, 1000)?,
            ("usecs_to_jiffies", [us]) => jiffies(*us, 1_000_000)?,
            ("secs_to_jiffies", [s]) => s * hz()?,
            ("min" | "min_t", [a, b]) => *a.min(b),
            ("max" | "max_t", [a, b]) => *a.max(b),
            ("DIV_ROUND_UP", [a, b]) if *b > 0 => (a + b - 1) / b,
            ("ilog2", [a]) if *a > 0 => i128::from(127 - a.leading_zeros()),
            ("BIT" | "BIT_ULL", [a]) => 1i128.checked_shl(u32::try_from(*a).ok()?)?,
            _ => return None,
        })
    }
}

/// The value of `SZ_64K` and the like.
fn size(name: &str) -> Option<i128> {
    let digits = name.strip_prefix("SZ_")?;
    let units = [("K", 10), ("M", 20), ("G", 30), ("T", 40)];
    let unit = units.iter().find_map(|(letter, shift)| Some((digits.strip_suffix(letter)?, *shift)));
    let (digits, shift) = unit.unwrap_or((digits, 0));
    Some(digits.parse::<i128>().ok()? << shift)
}

#[derive(Clone, Debug, PartialEq)]
enum Token<'a> {
    Number(i128),
    Name(&'a str),
    Sign(&'a str),
}

fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\\');
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = if first.is_ascii_digit() {
            found.push(Token::Number(parse_integer(&rest[..word])?));
            word
        } else if first.is_ascii_alphabetic() || first == '_' {
            found.push(Token::Name(&rest[..word]));
            word
        } else {
            let two = ["<<", ">>", "<=", ">=", "==", "!=", "&&", "||"].into_iter().find(|sign| rest.starts_with(sign));
            let length = two.map_or(first.len_utf8(), str::len);
            found.push(Token::Sign(&rest[..length]));
            length
        };
        rest = rest[length..].trim_start_matches(|c: char| c.is_whitespace() || c == '\\');
    }
    Some(found)
}

struct Reader<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    evaluator: &'a Evaluator<'a>,
    depth: u8,
}

/// Binary operators from the loosest to the tightest.
const LEVELS: [&[&str]; 9] =
    [&["||"], &["&&"], &["|"], &["^"], &["&"], &["==", "!="], &["<", ">", "<=", ">="], &["<<", ">>"], &["+", "-"]];

impl Reader<'_> {
    fn take(&mut self, sign: &str) -> bool {
        let there = self.tokens.get(self.at) == Some(&Token::Sign(sign));
        self.at += usize::from(there);
        there
    }

    fn conditional(&mut self) -> Option<i128> {
        let condition = self.level(0)?;
        if !self.take("?") {
            return Some(condition);
        }
        let yes = self.conditional()?;
        let no = if self.take(":") { self.conditional()? } else { return None };
        Some(if condition != 0 { yes } else { no })
    }

    fn level(&mut self, level: usize) -> Option<i128> {
        let Some(signs) = LEVELS.get(level) else { return self.product() };
        let mut value = self.level(level + 1)?;
        while let Some(sign) = signs.iter().find(|sign| self.take(sign)) {
            let right = self.level(level + 1)?;
            value = apply(sign, value, right)?;
        }
        Some(value)
    }

    fn product(&mut self) -> Option<i128> {
        let mut value = self.unary()?;
        while let Some(sign) = ["*", "/", "%"].into_iter().find(|sign| self.take(sign)) {
            let right = self.unary()?;
            value = apply(sign, value, right)?;
        }
        Some(value)
    }

    fn unary(&mut self) -> Option<i128> {
        if self.take("-") {
            return self.unary()?.checked_neg();
        }
        if self.take("(") {
            let start = self.at;
            if self.cast() {
                return self.unary();
            }
            self.at = start;
            let value = self.conditional()?;
            return self.take(")").then_some(value);
        }
        match self.tokens.get(self.at)?.clone() {
            Token::Number(value) => {
                self.at += 1;
                Some(value)
            }
            Token::Name(name) => {
                self.at += 1;
                if self.take("(") { self.call(name) } else { self.evaluator.name(name, self.depth) }
            }
            Token::Sign(_) => None,
        }
    }

    fn call(&mut self, name: &str) -> Option<i128> {
        let mut arguments = Vec::new();
        loop {
            let start = self.at;
            // The first argument of `min_t` is a type.
            if name.ends_with("_t") && arguments.is_empty() && self.types() && self.take(",") {
                continue;
            }
            self.at = start;
            arguments.push(self.conditional()?);
            if self.take(")") {
                return self.evaluator.call(name, &arguments, self.depth);
            }
            if !self.take(",") {
                return None;
            }
        }
    }

    fn cast(&mut self) -> bool {
        self.types() && self.take(")")
    }

    fn types(&mut self) -> bool {
        const TYPES: &[&str] = &[
            "unsigned", "int", "long", "short", "u64", "u32", "u16", "u8", "s64", "s32", "size_t", "ssize_t", "loff_t",
            "ktime_t", "sector_t",
        ];
        let start = self.at;
        while matches!(self.tokens.get(self.at), Some(Token::Name(name)) if TYPES.contains(name)) {
            self.at += 1;
        }
        self.at > start
    }
}

fn apply(sign: &str, a: i128, b: i128) -> Option<i128> {
    let shift = || u32::try_from(b).ok().filter(|b| *b < 64);
    match sign {
        "*" => a.checked_mul(b),
        "/" => a.checked_div(b),
        "%" => a.checked_rem(b),
        "+" => a.checked_add(b),
        "-" => a.checked_sub(b),
        "<<" => a.checked_mul(1i128 << shift()?),
        ">>" => Some(a >> shift()?),
        "&" => Some(a & b),
        "|" => Some(a | b),
        "^" => Some(a ^ b),
        "<" => Some(i128::from(a < b)),
        ">" => Some(i128::from(a > b)),
        "<=" => Some(i128::from(a <= b)),
        ">=" => Some(i128::from(a >= b)),
        "==" => Some(i128::from(a == b)),
        "!=" => Some(i128::from(a != b)),
        "&&" => Some(i128::from(a != 0 && b != 0)),
        "||" => Some(i128::from(a != 0 || b != 0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<i128> {
        let lookup = |name: &str| match name {
            "HZ" => Some("CONFIG_HZ".to_owned()),
            "CONFIG_HZ" => Some("250".to_owned()),
            "LOOP" => Some("(LOOP + 1)".to_owned()),
            _ => None,
        };
        Evaluator { lookup: &lookup }.value(text)
    }

    #[test]
    fn expressions_of_the_source_have_values() {
        for (text, expected) in [
            ("32", 32),
            ("(128 * 1024)", 131_072),
            ("((unsigned)(HZ/25))", 10),
            ("msecs_to_jiffies(2)", 1),
            ("max(HZ/5, 1)", 50),
            ("((200 * HZ)/1000 +1)", 51),
            ("HZ / 100 >= 2 ? HZ / 100 : 2", 2),
            ("(NSEC_PER_SEC >> 5)", 31_250_000),
            ("DIV_ROUND_UP(HZ, 250)", 1),
            ("SZ_1M / PAGE_SIZE", 256),
            ("SZ_512", 512),
            ("(1U << \\\n 10)", 1024),
            ("min_t(unsigned long, 3, 2UL)", 2),
            ("-3 + 5", 2),
        ] {
            assert_eq!(value(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_the_source_does_not_say_has_none() {
        for text in ["", "LOOP", "UNKNOWN", "f(3)", "sizeof(int)", "3 3", "(3", "1 / 0", "1 << 99", "\"a\"", "é"] {
            assert_eq!(value(text), None, "{text}");
        }
    }
}
