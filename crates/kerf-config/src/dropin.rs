//! One drop-in: what it says, with the place of each word, and what it says that nobody understands.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::ConfigError;

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// A number, or the text that `kerf const set` would take for one (`64K`, `0x40`, or `=` and an expression).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Number {
    /// An integer of the file.
    Integer(i64),
    /// A text of the file.
    Text(String),
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Integer(number) => write!(f, "{number}"),
            Number::Text(text) => f.write_str(text),
        }
    }
}

/// When a change comes for whom (docs/transitions.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// For everybody in the same moment.
    Immediate,
    /// For each thread when it is outside.
    Task,
    /// For everybody when nobody is inside.
    Global,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Immediate => "immediate",
            Mode::Task => "task",
            Mode::Global => "global",
        })
    }
}

/// What deciding may cost before the module takes the policy out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Times in a second that the constants are passed.
    pub triggers: Option<i64>,
    /// Per cent of one CPU's time.
    pub time: Option<f64>,
}

/// What a file says of a constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// Where it stands.
    pub place: Place,
    /// Its name or id, as `kerf const list` has it.
    pub id: String,
    /// What it is to be.
    pub value: Number,
    /// For whom: an expression. Everybody, if there is none.
    pub when: Option<String>,
    /// The least value that it may get, whoever sets it.
    pub min: Option<i64>,
    /// The greatest one.
    pub max: Option<i64>,
    /// By how much one change may change it.
    pub step: Option<i64>,
    /// How often a minute it may be changed.
    pub rate: Option<i64>,
    /// What deciding may cost.
    pub cost: Cost,
    /// How it is switched.
    pub mode: Option<Mode>,
    /// Seconds to wait for threads to leave.
    pub timeout: Option<i64>,
    /// Why; for `kerf status` and `kerf log`.
    pub reason: Option<String>,
}

/// What a file says of a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Where it stands.
    pub place: Place,
    /// Its name.
    pub name: String,
    /// The object that `kerf policy check -o` wrote, or the source. A relative path counts from the drop-in's directory.
    pub file: PathBuf,
    /// Values that it may decide on, by constant.
    pub limits: Vec<(String, i64, i64)>,
    /// What it may cost.
    pub cost: Cost,
    /// How it is switched.
    pub mode: Option<Mode>,
    /// Seconds to wait for threads to leave.
    pub timeout: Option<i64>,
    /// Why.
    pub reason: Option<String>,
}

/// What one file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DropIn {
    /// In the file's order.
    pub constants: Vec<Constant>,
    /// In the file's order.
    pub policies: Vec<Policy>,
    /// Keys that mean nothing here, each a sentence with its place.
    pub warnings: Vec<String>,
}

impl DropIn {
    /// Reads a file's text. `path` is for messages, and where relative paths count from.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] with line and column; [`ConfigError::Inconsistent`].
    pub fn parse(path: &Path, text: &str) -> Result<DropIn, ConfigError> {
        let reader = Reader { path, text };
        let document = DeTable::parse(text).map_err(|error| {
            reader.error(error.span().map_or(text.len(), |span| span.start), error.message().trim().to_owned())
        })?;
        let mut dropin = DropIn::default();
        for (key, value) in in_order(document.get_ref()) {
            match key.get_ref().as_ref() {
                "const" => reader.constants(value, &mut dropin)?,
                "policy" => reader.policies(value, &mut dropin)?,
                other => dropin.warnings.push(reader.unknown(key, other, &["const", "policy"])),
            }
        }
        dropin.constants.iter().try_for_each(Constant::check)?;
        Ok(dropin)
    }
}

impl Constant {
    /// Whether its numbers go together.
    fn check(&self) -> Result<(), ConfigError> {
        let wrong =
            |why: String| Err(ConfigError::Inconsistent { place: self.place.clone(), name: self.id.clone(), why });
        if let (Some(min), Some(max)) = (self.min, self.max)
            && min > max
        {
            return wrong(format!("min {min} is above max {max}"));
        }
        let outside =
            |value: &i64| self.min.is_some_and(|min| *value < min) || self.max.is_some_and(|max| *value > max);
        if let Number::Integer(value) = self.value
            && outside(&value)
        {
            let bound = |bound: Option<i64>| bound.map_or_else(String::new, |n| n.to_string());
            return wrong(format!("its value {value} is not within {}..{}", bound(self.min), bound(self.max)));
        }
        for (name, number) in [("step", self.step), ("rate", self.rate)] {
            if number.is_some_and(|n| n < 1) {
                return wrong(format!("{name} is at least 1"));
            }
        }
        Ok(())
    }
}

type Key<'t> = Spanned<std::borrow::Cow<'t, str>>;

/// Keys in the order of the file, not of their names.
fn in_order<'a, 't>(table: &'a DeTable<'t>) -> Vec<(&'a Key<'t>, &'a Spanned<DeValue<'t>>)> {
    let mut keys: Vec<_> = table.iter().collect();
    keys.sort_by_key(|(key, _)| key.span().start);
    keys
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn position(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }

    fn place(&self, at: usize) -> Place {
        Place { path: self.path.to_owned(), line: self.position(at).0 }
    }

    fn error(&self, at: usize, why: String) -> ConfigError {
        let (line, column) = self.position(at);
        ConfigError::Syntax { path: self.path.to_owned(), line, column, why }
    }

    fn kind<T>(&self, what: &str, value: &Spanned<DeValue>, wanted: &str) -> Result<T, ConfigError> {
        let why = format!("{what} is {wanted}, not {}", article(value.get_ref().type_str()));
        Err(self.error(value.span().start, why))
    }

    /// What is said of a key that means nothing.
    fn unknown(&self, key: &Key, name: &str, known: &[&str]) -> String {
        let near = known.iter().min_by_key(|word| strsim::damerau_levenshtein(word, name));
        let near = near.filter(|word| strsim::damerau_levenshtein(word, name) * 3 <= name.len());
        let hint =
            near.map_or_else(|| format!("known are {}", known.join(", ")), |word| format!("did you mean `{word}`?"));
        format!("{}: `{name}` means nothing here and is left alone; {hint}", self.place(key.span().start))
    }

    fn table<'v, 't>(&self, what: &str, value: &'v Spanned<DeValue<'t>>) -> Result<&'v DeTable<'t>, ConfigError> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(table),
            _ => self.kind(what, value, "a table"),
        }
    }

    fn constants(&self, value: &Spanned<DeValue>, dropin: &mut DropIn) -> Result<(), ConfigError> {
        for (key, value) in in_order(self.table("const", value)?) {
            let constant = self.constant(key, value, &mut dropin.warnings)?;
            dropin.constants.push(constant);
        }
        Ok(())
    }

    /// `ID = NUMBER`, or a table with more.
    fn constant(
        &self,
        key: &Key,
        value: &Spanned<DeValue>,
        warnings: &mut Vec<String>,
    ) -> Result<Constant, ConfigError> {
        const KEYS: [&str; 11] =
            ["value", "when", "min", "max", "step", "rate", "max-triggers", "max-time", "mode", "timeout", "reason"];
        let id = key.get_ref().to_string();
        let mut constant = Constant {
            place: self.place(key.span().start),
            id: id.clone(),
            value: Number::Integer(0),
            when: None,
            min: None,
            max: None,
            step: None,
            rate: None,
            cost: Cost::default(),
            mode: None,
            timeout: None,
            reason: None,
        };
        let DeValue::Table(table) = value.get_ref() else {
            constant.value = self.number(&id, value)?;
            return Ok(constant);
        };
        let mut has_value = false;
        for (key, value) in in_order(table) {
            let name = key.get_ref().as_ref();
            match name {
                "value" => (constant.value, has_value) = (self.number(name, value)?, true),
                "when" => constant.when = Some(self.string(name, value)?),
                "min" => constant.min = Some(self.integer(name, value)?),
                "max" => constant.max = Some(self.integer(name, value)?),
                "step" => constant.step = Some(self.integer(name, value)?),
                "rate" => constant.rate = Some(self.integer(name, value)?),
                "max-triggers" | "max-time" => self.cost(name, value, &mut constant.cost)?,
                "mode" => constant.mode = Some(self.mode(value)?),
                "timeout" => constant.timeout = Some(self.timeout(value)?),
                "reason" => constant.reason = Some(self.string(name, value)?),
                _ => warnings.push(self.unknown(key, name, &KEYS)),
            }
        }
        if has_value { Ok(constant) } else { Err(self.error(key.span().start, format!("{id} has no `value`"))) }
    }

    fn policies(&self, value: &Spanned<DeValue>, dropin: &mut DropIn) -> Result<(), ConfigError> {
        for (key, value) in in_order(self.table("policy", value)?) {
            let policy = self.policy(key, value, &mut dropin.warnings)?;
            dropin.policies.push(policy);
        }
        Ok(())
    }

    /// `NAME = "FILE"`, or a table with more.
    fn policy(&self, key: &Key, value: &Spanned<DeValue>, warnings: &mut Vec<String>) -> Result<Policy, ConfigError> {
        const KEYS: [&str; 7] = ["file", "limit", "max-triggers", "max-time", "mode", "timeout", "reason"];
        let name = key.get_ref().to_string();
        let (mut file, mut limits) = (None, Vec::new());
        let (mut mode, mut timeout, mut reason, mut cost) = (None, None, None, Cost::default());
        if let DeValue::Table(table) = value.get_ref() {
            for (key, value) in in_order(table) {
                match key.get_ref().as_ref() {
                    "file" => file = Some(self.string("file", value)?),
                    "limit" => limits = self.limits(value)?,
                    "max-triggers" | "max-time" => self.cost(key.get_ref().as_ref(), value, &mut cost)?,
                    "mode" => mode = Some(self.mode(value)?),
                    "timeout" => timeout = Some(self.timeout(value)?),
                    "reason" => reason = Some(self.string("reason", value)?),
                    other => warnings.push(self.unknown(key, other, &KEYS)),
                }
            }
        } else {
            file = Some(self.string(&name, value)?);
        }
        let Some(file) = file else {
            return Err(self.error(key.span().start, format!("the policy {name} has no `file`")));
        };
        let file = self.path.parent().unwrap_or(Path::new("")).join(file);
        Ok(Policy { place: self.place(key.span().start), name, file, limits, cost, mode, timeout, reason })
    }

    /// `{ ID = [MIN, MAX], … }`
    fn limits(&self, value: &Spanned<DeValue>) -> Result<Vec<(String, i64, i64)>, ConfigError> {
        let mut limits = Vec::new();
        for (key, value) in in_order(self.table("limit", value)?) {
            let DeValue::Array(array) = value.get_ref() else {
                return self.kind(key.get_ref(), value, "a list of two integers");
            };
            let ends: Vec<i64> = array.iter().map(|end| self.integer(key.get_ref(), end)).collect::<Result<_, _>>()?;
            match ends[..] {
                [min, max] if min <= max => limits.push((key.get_ref().to_string(), min, max)),
                _ => {
                    let why = format!("{} is a list of two integers, the least and the greatest value", key.get_ref());
                    return Err(self.error(value.span().start, why));
                }
            }
        }
        Ok(limits)
    }

    fn integer(&self, what: &str, value: &Spanned<DeValue>) -> Result<i64, ConfigError> {
        let DeValue::Integer(integer) = value.get_ref() else { return self.kind(what, value, "an integer") };
        let number = i64::from_str_radix(integer.as_str(), integer.radix());
        number.map_err(|_| self.error(value.span().start, format!("{what} does not fit 64 bits")))
    }

    /// `max-triggers` or `max-time`.
    fn cost(&self, name: &str, value: &Spanned<DeValue>, cost: &mut Cost) -> Result<(), ConfigError> {
        if name == "max-triggers" {
            let triggers = self.integer(name, value)?;
            cost.triggers = Some(triggers);
            let why = || self.error(value.span().start, format!("{name} is at least 1"));
            return if triggers >= 1 { Ok(()) } else { Err(why()) };
        }
        let time = match value.get_ref() {
            DeValue::Integer(integer) => integer.as_str().parse::<f64>().ok(),
            DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
            _ => return self.kind(name, value, "a number of per cent"),
        };
        cost.time = time.filter(|time| (0.1..=100_000.0).contains(time));
        let why = || self.error(value.span().start, format!("{name} is 0.1 to 100000 per cent of one CPU"));
        if cost.time.is_some() { Ok(()) } else { Err(why()) }
    }

    fn string(&self, what: &str, value: &Spanned<DeValue>) -> Result<String, ConfigError> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            _ => self.kind(what, value, "a string"),
        }
    }

    fn number(&self, what: &str, value: &Spanned<DeValue>) -> Result<Number, ConfigError> {
        match value.get_ref() {
            DeValue::Integer(_) => self.integer(what, value).map(Number::Integer),
            DeValue::String(text) => Ok(Number::Text(text.to_string())),
            _ => self.kind(what, value, "an integer or a string"),
        }
    }

    fn mode(&self, value: &Spanned<DeValue>) -> Result<Mode, ConfigError> {
        let word = self.string("mode", value)?;
        let mode = [Mode::Immediate, Mode::Task, Mode::Global].into_iter().find(|mode| mode.to_string() == word);
        let why = || format!("`{word}` is no mode: immediate, task or global");
        mode.ok_or_else(|| self.error(value.span().start, why()))
    }

    fn timeout(&self, value: &Spanned<DeValue>) -> Result<i64, ConfigError> {
        let seconds = self.integer("timeout", value)?;
        let why = || self.error(value.span().start, "timeout is 0 to 60 seconds".into());
        if (0..=60).contains(&seconds) { Ok(seconds) } else { Err(why()) }
    }
}

fn article(kind: &str) -> String {
    let an = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if an { "an" } else { "a" })
}

#[cfg(test)]
mod tests;
