//! Switches a trial's values in the running kernel, and puts back what was in force before, whatever happens.

use std::time::Duration;

use anyhow::Context;
use kerf_const::ConstError;
use kerf_const::apply::{self, Choice};
use kerf_const::table::Table;
use kerf_live::{ActiveEntry, ActiveGuard, Guard, Live, LiveError, Mode, Placement, Status, Transaction};
use kerf_trial::TrialError;

use super::const_build::FromArgs;
use super::const_set::{SetArgs, Wish};
use super::mode_words::{ModeArgs, stock_entries};
use crate::journal;

/// Why a value is set, for who reads the state meanwhile, or after `--keep`.
const NOTE: &str = "kerf try";

/// How often putting back is tried when threads do not leave the code.
const TRIES: usize = 5;

/// A constant that values are tried for.
pub struct Constant {
    /// As the module knows it.
    pub id: String,
    /// The stock value.
    pub stock: i64,
    /// What was set before; `None` if it was stock.
    pub set: Option<i64>,
    /// How to put that back.
    baseline: Want,
}

/// A value that is tried.
pub struct Candidate {
    /// The position of its constant.
    constant: usize,
    /// The constant's id.
    pub id: String,
    /// The value.
    pub value: i64,
    want: Want,
}

/// A state of a constant and what brings it about.
#[derive(Default)]
struct Want {
    /// The value that is set; `None` is stock.
    set: Option<i64>,
    /// For the module; `None` takes out what is set.
    entry: Option<kerf_live::Entry>,
    /// What is permitted meanwhile, and why it is set: of what was set before.
    guard: Option<Guard>,
    note: Option<String>,
}

/// The constants and what is in force now. Dropping it puts back what was in force before.
pub struct Turns {
    live: Live,
    transaction: Transaction,
    /// The constants that take part.
    pub constants: Vec<Constant>,
    /// The values that take turns.
    pub candidates: Vec<Candidate>,
    /// The candidate that should be in force, `None` for the baseline.
    now: Option<usize>,
    /// Whether nothing is to be put back: it was, or a value is to stay.
    done: bool,
    /// How long each switch took.
    pub switches: Vec<Duration>,
}

/// Ids with the values to try.
pub type Asked = [(String, Vec<i128>)];

impl Turns {
    /// Finds the entries, checks every value, and has the module check every switch, without changing anything.
    ///
    /// # Errors
    /// As `kerf const set` has them; also if a policy decides a constant, or if there is nothing to try.
    pub fn prepare(
        asked: &Asked,
        from: &FromArgs,
        table: &Table,
        build: &str,
        mode: &ModeArgs,
    ) -> anyhow::Result<Turns> {
        let mut live = Live::open()?;
        let status = live.status()?;
        let mut transaction = Transaction::new(status.build_id.clone());
        transaction.note = NOTE.into();
        let mut turns = Turns {
            transaction,
            live,
            constants: Vec::new(),
            candidates: Vec::new(),
            now: None,
            done: true,
            switches: Vec::new(),
        };
        let wish = |id: &str, value: i128| SetArgs::wish(from, table, build, id, value);
        let mut wishes: Vec<Vec<Wish>> = Vec::new();
        for (id, values) in asked {
            wishes.push(values.iter().map(|value| wish(id, *value)).collect::<anyhow::Result<_>>()?);
        }
        turns.transaction.mode = mode.choose(wishes.iter().flatten().map(|wish| &wish.entry))?;
        turns.transaction.timeout = mode.timeout();
        for ((query, _), wishes) in asked.iter().zip(&wishes) {
            turns.add(query, wishes, &status, &wish)?;
        }
        if turns.candidates.is_empty() {
            let query = asked.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>().join(" ");
            return Err(ConstError::BadQuery { query, why: "every value is in force already".into() }.into());
        }
        turns.rehearse(&status)?;
        turns.done = false;
        Ok(turns)
    }

    /// Takes in a constant with its values. Those that are in force already are the baseline.
    fn add(
        &mut self,
        query: &str,
        wishes: &[Wish],
        status: &Status,
        again: &dyn Fn(&str, i128) -> anyhow::Result<Wish>,
    ) -> anyhow::Result<()> {
        let Some(first) = wishes.first() else { return Ok(()) };
        let (id, (stock, _)) = (apply::live_id(&first.entry, first.setting), first.values()?);
        let twice = || ConstError::BadQuery { query: query.into(), why: "it is named twice".into() };
        if self.constants.iter().any(|constant| constant.id == id) {
            return Err(twice().into());
        }
        let mode = self.transaction.mode;
        let active = status.entries.iter().find(|entry| entry.id == id);
        let baseline = match active {
            Some(active) => Want::again(active, stock, &again(query, active.value.into())?, status, mode)?,
            None => Want::stock(first, status, mode)?,
        };
        let (constant, in_force) = (self.constants.len(), baseline.set.unwrap_or(stock));
        self.constants.push(Constant { id: id.clone(), stock, set: baseline.set, baseline });
        for wish in wishes {
            let (_, value) = wish.values()?;
            let own = |other: &Candidate| other.constant == constant && other.value == value;
            if self.candidates.iter().any(own) {
                return Err(ConstError::BadQuery { query: query.into(), why: format!("{value} is named twice") }.into());
            }
            if value != in_force {
                let want = Want::of(wish, value, stock, status, mode)?;
                self.candidates.push(Candidate { constant, id: id.clone(), value, want });
            }
        }
        Ok(())
    }

    /// Has the module check every switch from the baseline.
    fn rehearse(&mut self, status: &Status) -> anyhow::Result<()> {
        for candidate in 0..self.candidates.len() {
            if let Some(mut transaction) = self.way_to(Some(candidate), status) {
                transaction.dry_run = true;
                self.live.set(&transaction)?;
            }
        }
        Ok(())
    }

    /// What changes for good with a candidate, for the log.
    pub fn change(&self, candidate: usize) -> Option<journal::Changed> {
        let candidate = self.candidates.get(candidate)?;
        let before = self.constants.get(candidate.constant)?;
        let from = before.set.unwrap_or(before.stock).to_string();
        Some(journal::Changed { id: candidate.id.clone(), from, to: candidate.value.to_string() })
    }

    /// What was in force before, for a person.
    pub fn baseline(&self) -> String {
        let one = |constant: &Constant| match constant.set {
            None => format!("{} = {} (stock)", constant.id, constant.stock),
            Some(set) => format!("{} = {set} (set before; stock is {})", constant.id, constant.stock),
        };
        self.constants.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// The mode of every switch.
    pub fn mode(&self) -> Mode {
        self.transaction.mode
    }

    /// What each constant is to be with a candidate, or with the baseline.
    fn wanted(&self, candidate: Option<usize>) -> impl Iterator<Item = (&Constant, &Want)> {
        let candidate = candidate.and_then(|candidate| self.candidates.get(candidate));
        self.constants.iter().enumerate().map(move |(position, constant)| {
            let own = candidate.filter(|candidate| candidate.constant == position);
            (constant, own.map_or(&constant.baseline, |candidate| &candidate.want))
        })
    }

    /// The transaction that goes from what the module says is set to a candidate or the baseline; `None` if nothing is to be changed.
    fn way_to(&self, candidate: Option<usize>, status: &Status) -> Option<Transaction> {
        let mut transaction = self.transaction.clone();
        for (constant, wanted) in self.wanted(candidate) {
            let found = status.entries.iter().find(|entry| entry.id == constant.id).map(|entry| entry.value);
            match &wanted.entry {
                _ if found == wanted.set => {}
                Some(entry) => {
                    transaction.entries.push(entry.clone());
                    transaction.guards.extend(wanted.guard.map(|guard| (constant.id.clone(), guard)));
                    transaction.note = wanted.note.clone().unwrap_or(transaction.note);
                }
                None => transaction.unset.push(constant.id.clone()),
            }
        }
        let changes = !(transaction.entries.is_empty() && transaction.unset.is_empty());
        changes.then_some(transaction)
    }

    /// Brings a candidate, or the baseline, into force.
    ///
    /// # Errors
    /// As [`Live::set`].
    pub fn switch(&mut self, candidate: Option<usize>) -> Result<(), LiveError> {
        // What is set is asked for, not remembered: it must be put back also where somebody else has changed it.
        let status = self.live.status()?;
        if let Some(transaction) = self.way_to(candidate, &status) {
            self.switches.push(self.live.set(&transaction)?.total);
        }
        self.now = candidate;
        Ok(())
    }

    /// Asks the module whether what should be in force is.
    ///
    /// # Errors
    /// [`TrialError::Disturbed`] if it is not.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let status = self.live.status()?;
        for (constant, wanted) in self.wanted(self.now) {
            let found = status.entries.iter().find(|entry| entry.id == constant.id);
            let value = |set: Option<i64>| set.map_or("stock".into(), |set: i64| set.to_string());
            let wrong = match found {
                _ if found.map(|entry| entry.value) != wanted.set => {
                    format!("it is {}, not {}", value(found.map(|entry| entry.value)), value(wanted.set))
                }
                Some(entry) if !entry.in_force() => "it is not in force everywhere (`kerf status`)".into(),
                _ => continue,
            };
            return Err(TrialError::Disturbed { id: constant.id.clone(), found: wrong }.into());
        }
        Ok(())
    }

    /// What a run was to measure, for an error.
    pub fn measured(&self) -> String {
        match self.now.and_then(|now| self.candidates.get(now)) {
            Some(candidate) => format!("measure with {} = {}", candidate.id, candidate.value),
            None => "measure with the baseline".into(),
        }
    }

    /// Puts back what was in force before.
    ///
    /// # Errors
    /// If it could not be done; the message says what to do.
    pub fn put_back(&mut self) -> anyhow::Result<()> {
        if self.done {
            return Ok(());
        }
        let mut result = self.switch(None);
        for _ in 1..TRIES {
            if !matches!(result, Err(LiveError::Busy(_) | LiveError::Interrupted)) {
                break;
            }
            result = self.switch(None);
        }
        self.done = result.is_ok();
        let ids: Vec<&str> = self.constants.iter().map(|constant| constant.id.as_str()).collect();
        result.with_context(|| {
            format!(
                "put back what was in force before: `kerf status` shows what is, `kerf const unset {}` gives stock",
                ids.join(" ")
            )
        })
    }

    /// Brings a candidate into force for good.
    ///
    /// # Errors
    /// As [`Turns::switch`].
    pub fn keep(&mut self, candidate: usize) -> anyhow::Result<()> {
        self.done = false;
        self.switch(Some(candidate))?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        if let Err(error) = self.put_back() {
            eprintln!("kerf: failed to {error:#}");
        }
    }
}

impl Want {
    /// A value that is tried, which may be the stock one where another was set before.
    fn of(wish: &Wish, value: i64, stock: i64, status: &Status, mode: Mode) -> anyhow::Result<Want> {
        if value == stock {
            return Want::stock(wish, status, mode);
        }
        Ok(Want { set: Some(value), entry: Some(wish.live(Choice::Cheapest, status, mode)?), ..Want::default() })
    }

    fn stock(wish: &Wish, status: &Status, mode: Mode) -> anyhow::Result<Want> {
        if mode == Mode::Immediate {
            return Ok(Want::default());
        }
        let index = match wish.setting {
            apply::Setting::Value(_) => None,
            apply::Setting::Derived { index, .. } => Some(index),
        };
        let row = (wish.entry.clone(), apply::stock(&wish.entry, index)?);
        Ok(Want { entry: stock_entries(&[row], status)?.pop(), ..Want::default() })
    }

    /// What is set already, where and as it is.
    fn again(active: &ActiveEntry, stock: i64, wish: &Wish, status: &Status, mode: Mode) -> anyhow::Result<Want> {
        if let Some(policy) = &active.policy {
            let why = format!("the policy {} decides {}: `kerf policy unload {0}` first", policy.owner, active.id);
            return Err(LiveError::Owned(why).into());
        }
        let detours = active.locations.iter().filter(|location| location.placement == Placement::Detour).count();
        let choice = match detours {
            0 => Choice::Immediate,
            all if all == active.locations.len() => Choice::Detour,
            _ => Choice::Cheapest,
        };
        Ok(Want {
            set: Some(active.value),
            entry: Some(wish.live(choice, status, mode)?),
            guard: active.guard.as_ref().map(|guard| guarded(active, guard, stock)).transpose()?,
            note: Some(active.origin.note.clone()),
        })
    }
}

/// The guard to put back. One that wants small or rare changes would stop the trial in the middle, and what puts back as well.
fn guarded(active: &ActiveEntry, guard: &ActiveGuard, stock: i64) -> Result<Guard, LiveError> {
    if guard.step > 0 || guard.pause_ms > 0 {
        let why = format!("{} may change only in steps or now and then: `kerf const unset {0}` first", active.id);
        return Err(LiveError::Guarded(why));
    }
    Ok(Guard { stock, min: guard.min, max: guard.max, step: 0, pause: Duration::ZERO })
}
