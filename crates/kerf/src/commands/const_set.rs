//! `kerf const set`: values of the running kernel.

use anyhow::Context;
use clap::{Args, ValueEnum};
use kerf_const::ConstError;
use kerf_const::apply::{self, Choice, Setting};
use kerf_const::entry::{Entry, Interval};
use kerf_const::table::Table;
use kerf_expression::Expression;
use kerf_live::{Change, Live, LiveError, Mode, Status, Transaction};

use super::const_build::FromArgs;
use super::const_words::{TableArgs, find_running, parse_value};
use super::guard_words::GuardArgs;
use super::limit_words::LimitArgs;
use super::mode_words::{self, ModeArgs};
use crate::running_text::with_running;
use crate::{journal, print, running};

mod decided;

/// Of the members that a value is stored in, so many are named.
const STORES_SHOWN: usize = 4;

pub const EXAMPLES: &str = r#"Examples:
  kerf const set BLK_MAX_REQUEST_COUNT 4
  kerf const set SHRINK_BATCH=1K MAX_SOFTIRQ_RESTART=0x20
  kerf const set BLK_MAX_REQUEST_COUNT 128 --placement detour
  kerf const set BLK_MAX_REQUEST_COUNT 4 --mode global --timeout 10
  kerf const set HYSTART_DELAY_MIN@0 500
  kerf const set BLK_MAX_REQUEST_COUNT 8 --min 4 --max 64 --step 32 --rate 6 --note 'random reads'
  kerf const set BLK_MAX_REQUEST_COUNT=4 --when 'comm == "nginx" && cpu in (2, 3)'
  kerf const set HYSTART_DELAY_MAX=32000 --when 'cgroup under "/bulk.slice"' --name bulk
  kerf const set BLK_PLUG_FLUSH_SIZE=262144 --when 'comm == "fio"' --max-triggers 50000 --max-time 2
  kerf const set 'SHRINK_BATCH==if node == 0 then 64 else keep'
  kerf const set SHRINK_BATCH '=if shrinker->seeks == 0 then 1K else 128'

With --when, or with a value that begins with `=` and is an expression, the value is decided anew each time it is used, by a
policy that is made here (docs/expressions.md); `kerf const unset` and `kerf policy unload` take it back.

Several constants change in the same moment, or none does. NAME@0 is the first of the numbers that the compiler derived
from the constant (see `kerf const show`). Setting the stock value is the same as unsetting."#;

/// What to set.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// ID VALUE, or ID=VALUE as often as wanted. Values may be hexadecimal, and end in K, M or G. One that begins with `=` is an
    /// expression: ID==EXPR.
    #[arg(required = true, value_name = "ID VALUE | ID=VALUE", allow_negative_numbers = true)]
    words: Vec<String>,
    /// When the values are used: an expression over the thread (comm, pid, tgid, uid, gid, cpu, node, cgroup) and the arguments of
    /// the constant's function. Else the stock value stays.
    #[arg(long, value_name = "EXPR", allow_hyphen_values = true, conflicts_with = "placement")]
    when: Option<String>,
    /// The name of the policy that decides, with --when or an expression [default: the first constant's, in lower case].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where the numbers go [default: immediates where they fit, else detours].
    #[arg(long, value_name = "PLACEMENT")]
    placement: Option<PlacementWord>,
    /// Check everything and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    mode: ModeArgs,
    #[command(flatten)]
    guard: GuardArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    from: FromArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The placements by their words.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PlacementWord {
    /// In the instructions themselves.
    Immediate,
    /// By a jump to changed copies of them.
    Detour,
}

/// One wish: an entry and what it should have.
pub struct Wish {
    pub entry: Entry,
    pub setting: Setting,
}

/// One line of the result.
#[derive(serde::Serialize)]
struct Changed {
    id: String,
    from: i64,
    to: i64,
    /// `immediate`, `detour`, `mixed` or `stock`.
    placement: &'static str,
    locations: usize,
}

impl SetArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        let shown = self.words.join(" ");
        self.execute().with_context(|| format!("set {shown}"))
    }

    fn execute(&self) -> anyhow::Result<u8> {
        let pairs = pairs(&self.words)?;
        let parsed = |text: &String| Expression::parse(text).context("read --when");
        let when = self.when.as_ref().map(parsed).transpose()?;
        let fixed = fixed(&pairs).filter(|_| when.is_none());
        self.check_options(fixed.is_none())?;
        if !rustix::process::geteuid().is_root() {
            return Err(LiveError::NotPermitted.into());
        }
        let table = self.table.open()?;
        let build = running::build_id()?;
        let Some(fixed) = fixed else { return self.decide(&table, &build, pairs, when.as_ref()) };
        let wish = |(id, value): &(String, i128)| SetArgs::wish(&self.from, &table, &build, id, *value);
        let wishes: Vec<Wish> = fixed.iter().map(wish).collect::<anyhow::Result<_>>()?;
        let mut live = Live::open()?;
        let status = live.status()?;
        let mode = self.mode.choose(wishes.iter().map(|w| &w.entry))?;
        let (transaction, changed) = self.transaction(&wishes, &status, mode)?;
        let nothing = transaction.entries.is_empty() && transaction.unset.is_empty();
        let outcome = if nothing { status.outcome } else { live.set(&transaction)? };
        if !nothing && !self.dry_run {
            let changed = changed.iter().map(Changed::line).collect();
            journal::record("set", "", &transaction.note, changed);
        }
        if self.json {
            let notes = notes(wishes.iter().map(|wish| &wish.entry));
            let mut object = serde_json::json!({ "dry_run": self.dry_run, "changed": changed, "notes": notes });
            mode_words::add_members(&mut object, mode, &outcome);
            print::json(&object)?;
            return Ok(0);
        }
        changed.iter().try_for_each(|c| print::text(&c.sentence(self.dry_run)))?;
        notes(wishes.iter().map(|wish| &wish.entry)).iter().try_for_each(|note| print::text(note))?;
        if !nothing && !self.dry_run {
            print::text(&mode_words::sentence(mode, &outcome))?;
        }
        Ok(0)
    }

    /// The entry of the running kernel that words name, and the value, which is certified, or compiled and compared.
    pub fn wish(from: &FromArgs, table: &Table, build: &str, id: &str, value: i128) -> anyhow::Result<Wish> {
        let (name, index) = match id.rsplit_once('@').map(|(name, n)| (name, n.parse::<usize>())) {
            Some((name, Ok(index))) => (name, Some(index)),
            _ => (id, None),
        };
        let mut entry = find_running(table, build, name)?;
        let setting = match index {
            None => Setting::Value(value),
            Some(index) => Setting::Derived { index, number: value },
        };
        if let Err(error) = apply::check(&entry, setting) {
            SetArgs::certify(from, &mut entry, setting, error)?;
            apply::check(&entry, setting)?;
        }
        Ok(Wish { entry, setting })
    }

    /// A value outside the domain is compiled and compared, if the source is there; then it counts as certified.
    fn certify(from: &FromArgs, entry: &mut Entry, setting: Setting, error: ConstError) -> anyhow::Result<()> {
        let (ConstError::OutsideDomain { id, value, why }, Setting::Value(wanted)) = (&error, setting) else {
            return Err(error.into());
        };
        let opened = from.open().map_err(|missing| ConstError::OutsideDomain {
            id: id.clone(),
            value: *value,
            why: format!("{why}; others are compiled and compared first, for which the source is missing: {missing:#}"),
        })?;
        kerf_const::build::certify_value(&opened.input(), entry, wanted)?;
        entry.domain.push(Interval { min: wanted, max: wanted });
        Ok(())
    }

    /// What the module is asked, and what is said about it.
    fn transaction(&self, wishes: &[Wish], status: &Status, mode: Mode) -> anyhow::Result<(Transaction, Vec<Changed>)> {
        let mut transaction = Transaction::new(status.build_id.clone());
        (transaction.mode, transaction.timeout) = (mode, self.mode.timeout());
        transaction.dry_run = self.dry_run;
        let (mut changed, mut stocks) = (Vec::new(), Vec::new());
        for wish in wishes {
            let id = apply::live_id(&wish.entry, wish.setting);
            if changed.iter().any(|c: &Changed| c.id == id) {
                let why = "it is named twice".into();
                return Err(ConstError::BadQuery { query: id, why }.into());
            }
            let (stock, to) = wish.values()?;
            stocks.push((id.clone(), stock));
            let set = status.entries.iter().find(|e| e.id == id);
            let from = set.map_or(stock, |e| e.value);
            let mut line = Changed { id: id.clone(), from, to, placement: "stock", locations: 0 };
            if to == stock && (mode == Mode::Immediate || set.is_none()) {
                transaction.unset.extend(set.map(|_| id));
            } else {
                let entry = wish.live(self.choice(), status, mode)?;
                if to != stock {
                    (line.placement, line.locations) = (placement(&entry), entry.locations.len());
                }
                transaction.entries.push(entry);
            }
            changed.push(line);
        }
        self.guard.add(&mut transaction, &stocks)?;
        Ok((transaction, changed))
    }

    fn choice(&self) -> Choice {
        match self.placement {
            None => Choice::Cheapest,
            Some(PlacementWord::Immediate) => Choice::Immediate,
            Some(PlacementWord::Detour) => Choice::Detour,
        }
    }
}

impl Wish {
    /// The stock value and the wanted one, for display.
    pub fn values(&self) -> anyhow::Result<(i64, i64)> {
        let (stock, to) = match self.setting {
            Setting::Value(value) => (self.entry.value, value),
            Setting::Derived { index, number } => {
                let form = apply::derived(&self.entry).get(index).copied();
                (form.and_then(|f| f.apply(self.entry.value)).unwrap_or_default(), number)
            }
        };
        let narrow = |v: i128| v.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        Ok((narrow(stock), narrow(to)))
    }

    /// What the module is asked to give the entry this value.
    pub fn live(&self, choice: Choice, status: &Status, mode: Mode) -> anyhow::Result<kerf_live::Entry> {
        let make = |running: &apply::Running| match mode {
            Mode::Immediate => apply::live_entry(&self.entry, self.setting, choice, running),
            Mode::Task | Mode::Global => apply::transition_entry(&self.entry, self.setting, choice, running),
        };
        with_running(&self.entry, status, make)
    }
}

impl Changed {
    fn line(&self) -> journal::Changed {
        journal::Changed { id: self.id.clone(), from: self.from.to_string(), to: self.to.to_string() }
    }

    fn sentence(&self, dry_run: bool) -> String {
        let how = match (self.placement, self.locations) {
            ("stock", _) => "stock".to_string(),
            (placement, 1) => format!("{placement}, 1 location"),
            (placement, n) => format!("{placement}, {n} locations"),
        };
        let unchanged = if self.from == self.to { ", as before" } else { "" };
        let dry = if dry_run { " (dry run: nothing was changed)" } else { "" };
        format!("{}: {} → {} ({how}{unchanged}){dry}", self.id, self.from, self.to)
    }
}

/// What a person who sets these should know: knobs that the kernel has for them, and what keeps the value that it got before.
fn notes<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<String> {
    let mut notes = Vec::new();
    for entry in entries {
        let label = entry.label();
        notes.extend(entry.governed.iter().map(|knob| format!("{label} is governed already: {knob}")));
        let stored = entry.stored_in();
        let shown = stored.iter().take(STORES_SHOWN).copied().collect::<Vec<_>>().join(", ");
        let more = stored.len().saturating_sub(STORES_SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        if !stored.is_empty() {
            notes.push(format!("{label} is stored in {shown}{more}: what is there already keeps its value"));
        }
    }
    notes
}

fn placement(entry: &kerf_live::Entry) -> &'static str {
    let detours = entry.locations.iter().filter(|l| matches!(l.change, Change::Detour { .. })).count();
    match detours {
        0 => "immediate",
        n if n == entry.locations.len() => "detour",
        _ => "mixed",
    }
}

/// What a constant is given on the command line.
#[derive(Debug)]
enum Given {
    Value(i128),
    Expression(Expression),
}

/// The values, if there is no expression among them.
fn fixed(pairs: &[(String, Given)]) -> Option<Vec<(String, i128)>> {
    let value = |(id, given): &(String, Given)| match given {
        Given::Value(value) => Some((id.clone(), *value)),
        Given::Expression(_) => None,
    };
    pairs.iter().map(value).collect()
}

/// A value, or behind another `=` an expression.
fn given(text: &str) -> anyhow::Result<Given> {
    if let Some(expression) = text.strip_prefix('=') {
        return Ok(Given::Expression(Expression::parse(expression)?));
    }
    Ok(Given::Value(parse_value(text)?))
}

/// The ids and values of the command line.
fn pairs(words: &[String]) -> anyhow::Result<Vec<(String, Given)>> {
    if let [id, value] = words
        && !id.contains('=')
        && (value.starts_with('=') || !value.contains('='))
    {
        return Ok(vec![(id.clone(), given(value)?)]);
    }
    let pair = |word: &String| {
        let (id, value) = word.split_once('=').filter(|(id, _)| !id.is_empty()).ok_or_else(|| {
            ConstError::BadQuery { query: word.clone(), why: "give ID VALUE, or ID=VALUE several times".into() }
        })?;
        Ok((id.to_owned(), given(value)?))
    };
    words.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> anyhow::Result<Vec<(String, i128)>> {
        let pairs = pairs(&text.split(' ').map(str::to_owned).collect::<Vec<_>>())?;
        fixed(&pairs).context("find no expression")
    }

    #[test]
    fn a_second_equals_sign_begins_an_expression() {
        let read = |words: &[&str]| pairs(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        for words in
            [&["A==cpu"][..], &["A", "=if cpu == 0 then 4 else keep"], &["A=4", "B==if comm == \"x=y\" then 1 else 2"]]
        {
            let read = read(words).unwrap();
            assert!(matches!(read.last(), Some((_, Given::Expression(_)))), "{words:?}");
        }
        let wrong = read(&["A==cpu +"]).unwrap_err();
        assert!(wrong.downcast_ref::<kerf_expression::ExpressionError>().is_some(), "{wrong:#}");
        assert!(read(&["A", "B=cpu"]).is_err());
    }

    #[test]
    fn one_or_several_are_read() {
        assert_eq!(words("A 4").unwrap(), [("A".to_string(), 4)]);
        assert_eq!(words("A=1K B@0=0x10").unwrap(), [("A".to_string(), 1024), ("B@0".to_string(), 16)]);
        assert_eq!(words("b/c.c:L1:2:0 -7").unwrap(), [("b/c.c:L1:2:0".to_string(), -7)]);
        for bad in ["A", "A 4 5", "A=1 B", "=1", "A=", "A x"] {
            assert!(words(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sentences_say_from_what_to_what() {
        let line = |from, to, placement, locations| Changed { id: "X".into(), from, to, placement, locations };
        assert_eq!(line(32, 4, "immediate", 2).sentence(false), "X: 32 → 4 (immediate, 2 locations)");
        assert_eq!(line(4, 32, "stock", 0).sentence(false), "X: 4 → 32 (stock)");
        assert_eq!(
            line(4, 4, "detour", 1).sentence(true),
            "X: 4 → 4 (detour, 1 location, as before) (dry run: nothing was changed)"
        );
    }
}
