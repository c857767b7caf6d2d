//! The number in what a metric prints.

use regex::Regex;

use crate::TrialError;

/// What stands in a text: words, which may have digits in them (`x86_64`, `p99`, `0x1f`), and decimal numbers. A point belongs to a
/// number only with a digit behind it.
const TOKENS: &str =
    r"0[xX][0-9A-Fa-f]+|[\p{L}_][\p{L}\p{N}_]*(?:-\d+)*|(?<number>[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?)";

/// Reads the number out of a metric's standard output.
#[derive(Clone, Debug)]
pub struct Reader {
    tokens: Regex,
    pattern: Option<Regex>,
}

impl Reader {
    /// The last number of the text, or the one that the only group of a pattern matches last.
    ///
    /// # Errors
    /// [`TrialError::BadPattern`] if it is no regular expression or has not exactly one group.
    pub fn new(pattern: Option<&str>) -> Result<Reader, TrialError> {
        let compile = |text: &str| {
            Regex::new(text).map_err(|error| TrialError::BadPattern { pattern: text.into(), why: error.to_string() })
        };
        let pattern = pattern.map(compile).transpose()?;
        if let Some(pattern) = &pattern
            && pattern.captures_len() != 2
        {
            let why =
                format!("it has {} groups; put the number, and nothing else, into ( )", pattern.captures_len() - 1);
            return Err(TrialError::BadPattern { pattern: pattern.as_str().into(), why });
        }
        Ok(Reader { tokens: compile(TOKENS)?, pattern })
    }

    /// The number in a text.
    ///
    /// # Errors
    /// [`TrialError::NoNumber`] if there is none, or none that is sure to be one.
    pub fn read(&self, printed: &str) -> Result<f64, TrialError> {
        self.find(printed).map_err(|why| TrialError::NoNumber { why, printed: printed.into() })
    }

    fn find(&self, printed: &str) -> Result<f64, String> {
        let text = match &self.pattern {
            Some(pattern) => {
                let last = pattern.captures_iter(printed).filter_map(|found| found.get(1)).last();
                last.ok_or_else(|| format!("`{pattern}` does not match"))?.as_str().trim()
            }
            None => {
                let last = self.tokens.captures_iter(printed).filter_map(|found| found.name("number")).last();
                let last = last.ok_or("its standard output has none")?;
                if grouped(printed.get(..last.start()).unwrap_or_default(), last.as_str()) {
                    return Err("the last one may be part of a longer one with commas; --pattern picks one".into());
                }
                last.as_str()
            }
        };
        let number: f64 = text.parse().map_err(|_| format!("`{text}` is none"))?;
        if number.is_finite() { Ok(number) } else { Err(format!("`{text}` is too large")) }
    }
}

/// Whether a number of three digits is the end of one like `1,234`.
fn grouped(before: &str, number: &str) -> bool {
    let digits = number.split('.').next().unwrap_or_default();
    digits.len() == 3 && before.strip_suffix(',').is_some_and(|rest| rest.ends_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pattern: Option<&str>, text: &str) -> Result<f64, TrialError> {
        Reader::new(pattern)?.read(text)
    }

    #[test]
    fn the_last_number_counts() {
        for (text, number) in [
            ("42\n", 42.0),
            ("took 12.5ms", 12.5),
            ("run 1: 3.5e-3 s\n", 3.5e-3),
            ("p99 = 7 us, on x86_64", 7.0),
            ("-.5", -0.5),
            ("5.", 5.0),
            ("delta:+3", 3.0),
            ("3 and sha-256", 3.0),
            ("1, 2", 2.0),
            ("10 at 0x1f", 10.0),
            ("1,5", 5.0),
        ] {
            assert_eq!(read(None, text).unwrap(), number, "{text}");
        }
    }

    #[test]
    fn a_pattern_picks_another() {
        let text = "reads 5 MB/s\nwrites 7 MB/s\nreads 6 MB/s\ntook 9 s\n";
        assert_eq!(read(Some(r"reads (\S+)"), text).unwrap(), 6.0);
        assert_eq!(read(Some(r"took (.*)s"), text).unwrap(), 9.0);
        assert!(matches!(read(Some(r"erases (\d+)"), text), Err(TrialError::NoNumber { .. })));
        assert!(matches!(read(Some(r"(took)"), text), Err(TrialError::NoNumber { .. })));
        for bad in ["reads", "(reads) (.*)", "("] {
            assert!(matches!(Reader::new(Some(bad)), Err(TrialError::BadPattern { .. })), "{bad}");
        }
    }

    #[test]
    fn what_is_no_number_is_said() {
        for text in ["", "none", "nan", "inf", "x86_64", "0x1f", "1,234", "12,345.5", "1e999"] {
            assert!(matches!(read(None, text), Err(TrialError::NoNumber { .. })), "{text}");
        }
    }
}
