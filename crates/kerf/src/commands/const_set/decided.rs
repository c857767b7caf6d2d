//! The part of `kerf const set` that lets conditions and expressions decide.

use kerf_const::ConstError;
use kerf_const::apply::{self, Setting};
use kerf_const::table::Table;
use kerf_expression::Expression;
use kerf_live::{Live, Mode, Outcome};

use super::super::const_decide::{self, Decided, How, Wanted};
use super::super::const_words::find_running;
use super::super::mode_words;
use super::{Given, SetArgs, Wish, notes};
use crate::print;

/// One line of the result.
#[derive(serde::Serialize)]
struct Line {
    id: String,
    from: i64,
    /// What is decided on; nothing if an expression gives it.
    to: Option<i64>,
    placement: &'static str,
    locations: usize,
}

impl SetArgs {
    /// Refuses options that say nothing of what is to be done.
    pub(super) fn check_options(&self, decides: bool) -> Result<(), ConstError> {
        let text = self.words.join(" ");
        let (query, why) = match (&self.name, self.placement) {
            (Some(name), _) if !decides => (name, "only what is decided has a name: with --when or with an expression"),
            (Some(name), _) if name.is_empty() || name.len() > 64 || name.contains(|c: char| !c.is_ascii_graphic()) => {
                (name, "a policy's name has 1 to 64 characters, ASCII without spaces")
            }
            _ if !decides && self.limits.limits().is_given() => {
                (&text, "only what is decided has --max-triggers and --max-time: with --when or with an expression")
            }
            (_, Some(_)) if decides => (&text, "what is decided stands in detours: leave out --placement"),
            _ => return Ok(()),
        };
        Err(ConstError::BadQuery { query: query.clone(), why: why.into() })
    }

    /// Lets expressions decide.
    pub(super) fn decide(
        &self,
        table: &Table,
        build: &str,
        pairs: Vec<(String, Given)>,
        when: Option<&Expression>,
    ) -> anyhow::Result<u8> {
        let mut decided: Vec<Decided> = Vec::new();
        for (id, given) in pairs {
            let one = self.decided(table, build, &id, given)?;
            if decided.iter().any(|other| other.entry.id == one.entry.id) {
                return Err(ConstError::BadQuery { query: id, why: "it is named twice".into() }.into());
            }
            decided.push(one);
        }
        let text = self.when.clone().unwrap_or_else(|| self.words.join(" "));
        let object = const_decide::compile(&decided, when, &text)?;
        let mut live = Live::open()?;
        let status = live.status()?;
        let name = self.name.clone().unwrap_or_else(|| const_decide::default_name(&decided));
        let limits = self.limits.limits();
        let how = How { name: &name, mode: &self.mode, guard: &self.guard, limits, dry_run: self.dry_run };
        let (transaction, outcome) = const_decide::set(&decided, &object, &mut live, &status, &how)?;
        let line = |(one, entry): (&Decided, &kerf_live::Entry)| Line {
            id: entry.id.clone(),
            from: status.entries.iter().find(|e| e.id == entry.id).map_or(entry.value, |e| e.value),
            to: if let Wanted::Value(value) = one.wanted { Some(value) } else { None },
            placement: "decided",
            locations: entry.locations.len(),
        };
        let lines: Vec<Line> = decided.iter().zip(&transaction.entries).map(line).collect();
        let notes = notes(decided.iter().map(|one| &one.entry));
        self.print_decided(&name, (&lines, &notes), (transaction.mode, &outcome))
    }

    fn decided(&self, table: &Table, build: &str, id: &str, given: Given) -> anyhow::Result<Decided> {
        match given {
            Given::Expression(expression) => {
                let entry = find_running(table, build, id)?;
                apply::check(&entry, Setting::Value(entry.value))?;
                Ok(Decided { entry, wanted: Wanted::Expression(expression) })
            }
            Given::Value(value) => {
                let Wish { entry, setting } = SetArgs::wish(&self.from, table, build, id, value)?;
                let value = i64::try_from(value).ok().filter(|_| matches!(setting, Setting::Value(_)));
                let why = "a policy decides on whole constants, and on values of 63 bits".into();
                let wanted = value.ok_or(ConstError::BadQuery { query: id.into(), why })?;
                Ok(Decided { entry, wanted: Wanted::Value(wanted) })
            }
        }
    }

    fn print_decided(
        &self,
        name: &str,
        (lines, notes): (&[Line], &[String]),
        (mode, outcome): (Mode, &Outcome),
    ) -> anyhow::Result<u8> {
        if self.json {
            let mut object =
                serde_json::json!({ "dry_run": self.dry_run, "policy": name, "changed": lines, "notes": notes });
            mode_words::add_members(&mut object, mode, outcome);
            print::json(&object)?;
            return Ok(0);
        }
        let dry = if self.dry_run { " (dry run: nothing was changed)" } else { "" };
        for Line { id, from, to, locations, .. } in lines {
            let to = to.map_or_else(String::new, |to| format!(" or {to}"));
            print::text(&format!("{id}: {from}{to}, decided by {name} ({}){dry}", counted(*locations, "place")))?;
        }
        notes.iter().try_for_each(|note| print::text(note))?;
        if !self.dry_run {
            print::text(&mode_words::sentence(mode, outcome))?;
        }
        Ok(0)
    }
}

fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
