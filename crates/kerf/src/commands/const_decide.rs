//! `kerf const set` with `--when` or with expressions: a policy without a file, compiled here.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use kerf_const::ConstError;
use kerf_const::apply::{self, Running};
use kerf_const::entry::{self, Entry};
use kerf_expression::{Argument, Certified, Decision, Expression, Mounted, Place, Program, Scope};
use kerf_image::btf::{self, Btf};
use kerf_live::policy::{self, Loaded, Object};
use kerf_live::{Limits, Live, LiveError, Outcome, Status, Transaction};

use super::guard_words::GuardArgs;
use super::mode_words::ModeArgs;
use super::policy_words::{parameters, program_name};
use crate::journal;
use crate::running_text::with_running;

/// Types of the running kernel and of its modules.
const TYPES: &str = "/sys/kernel/btf";

/// The module takes no longer name of a policy.
const LONGEST_NAME: usize = 64;

/// What a constant is to be.
pub enum Wanted {
    /// This value.
    Value(i64),
    /// What an expression says.
    Expression(Expression),
}

/// A constant and what decides on it.
pub struct Decided {
    pub entry: Entry,
    pub wanted: Wanted,
}

/// How to set it.
pub struct How<'a> {
    pub name: &'a str,
    pub mode: &'a ModeArgs,
    pub guard: &'a GuardArgs,
    pub limits: Limits,
    pub dry_run: bool,
}

/// The name that a policy of these constants has if nobody gives it one.
pub fn default_name(decided: &[Decided]) -> String {
    let name = decided.first().map(|d| program_name(&d.entry)).unwrap_or_default();
    name.chars().take(LONGEST_NAME).collect()
}

/// The places of a constant, for what an expression can read there.
fn places(entry: &Entry) -> Vec<Place> {
    let arguments = |parameters: &[entry::Parameter]| {
        let one = |p: &entry::Parameter| Argument {
            name: p.name.clone(),
            type_name: p.type_name.clone(),
            held: p.place != entry::Place::Gone,
        };
        parameters.iter().map(one).collect()
    };
    let spans = entry.spans.iter().map(|span| Place {
        function: span.function.clone(),
        offset: span.start,
        arguments: arguments(&span.parameters),
    });
    // Where an execution begins, the decision is made for all that follow.
    let begins = entry.safe_spans.iter().filter(|safe| safe.repeated).filter_map(|safe| {
        let begin = safe.begin.as_ref()?;
        let offset = safe.begins().wrapping_sub(safe.function_offset);
        Some(Place { function: safe.function.clone(), offset, arguments: arguments(&begin.parameters) })
    });
    spans.chain(begins).collect()
}

/// The running kernel's types, with those of the module that holds the constant.
fn types(entry: &Entry) -> anyhow::Result<Option<Vec<u8>>> {
    let read = |name: &str| {
        let file = PathBuf::from(TYPES).join(name);
        fs::read(&file).with_context(|| format!("read {}", file.display()))
    };
    // A kernel without types is no hindrance to an expression that reads no argument.
    let Ok(kernel) = read("vmlinux") else { return Ok(None) };
    match entry.image.module.as_deref().map(read) {
        Some(Ok(module)) => Ok(Some(btf::joined(&kernel, &module).context("read the module's types")?)),
        _ => Ok(Some(kernel)),
    }
}

/// Checks what decides on one constant, and compiles it.
fn program(decided: &Decided, when: Option<&Expression>, text: &str) -> anyhow::Result<Program> {
    let Decided { entry, wanted } = decided;
    let blob = types(entry)?;
    let types = blob.as_deref().map(Btf::parse).transpose().context("read the kernel's types")?;
    let places = places(entry);
    let scope = Scope { types: types.as_ref(), places: &places, cgroups: &Mounted };
    let domain = apply::domain_text(entry);
    let holds = |value| entry.certifies(value);
    let certified = Certified { constant: entry.label(), domain: &domain, holds: &holds };
    let value = match wanted {
        Wanted::Value(value) => Decision::fixed(*value),
        Wanted::Expression(expression) => expression.value(&scope, &certified)?,
    };
    let decision = match when {
        Some(when) => value.when(when.condition(&scope)?),
        None => value,
    };
    Ok(Program::compile(&decision, text)?)
}

/// Compiles all of it, as the object of a policy. `text` is what was written, for errors that have no place in it.
pub fn compile(decided: &[Decided], when: Option<&Expression>, text: &str) -> anyhow::Result<Object> {
    let mut programs: Vec<(String, String, Program)> = Vec::new();
    for one in decided {
        let program = program(one, when, text).with_context(|| format!("decide on {}", one.entry.label()))?;
        // Two names of constants may differ in characters only that no program's name has.
        programs.push((one.entry.id.clone(), format!("{}_{}", program_name(&one.entry), programs.len()), program));
    }
    let parts: Vec<_> = programs.iter().map(|(id, name, program)| (id.as_str(), name.as_str(), program)).collect();
    let bytes = kerf_expression::object(&parts).context("write the policy's object")?;
    Object::parse(bytes).map_err(anyhow::Error::msg).context("read the policy's object")
}

/// Loads the programs and lets them decide. Also says what the module was asked.
pub fn set(
    decided: &[Decided],
    object: &Object,
    live: &mut Live,
    status: &Status,
    how: &How,
) -> anyhow::Result<(Transaction, Outcome)> {
    let loaded = policy::load(object, how.name)?;
    let transaction = transaction(decided, object, &loaded, status, how)?;
    let outcome = live.set(&transaction)?;
    if !how.dry_run {
        policy::sweep_pins(live)?;
        journal::record("set", how.name, &transaction.note, journal::decided(&transaction, status, how.name));
    }
    Ok((transaction, outcome))
}

fn transaction(
    decided: &[Decided],
    object: &Object,
    loaded: &Loaded,
    status: &Status,
    how: &How,
) -> anyhow::Result<Transaction> {
    let mut transaction = Transaction::new(status.build_id.clone());
    (transaction.owner, transaction.limits) = (how.name.to_owned(), how.limits);
    (transaction.timeout, transaction.dry_run) = (how.mode.timeout(), how.dry_run);
    // What was set by hand gives way, and so does what was set like this before.
    transaction.replace = true;
    transaction.drop = replaced(decided, status, how.name)?;
    transaction.mode = how.mode.choose(decided.iter().map(|d| &d.entry))?;
    for Decided { entry, .. } in decided {
        let missing = || ConstError::Internal(format!("the policy's object has no program for {}", entry.id));
        let tune = object.tunes.iter().find(|tune| tune.id == entry.id).ok_or_else(missing)?;
        let (program, reads) = (loaded.program(&tune.program)?, parameters(tune));
        let make = |running: &Running| apply::decided_entry(entry, program, how.guard.limits(), &reads, running);
        transaction.entries.push(with_running(entry, status, make)?);
    }
    let stock = |d: &Decided| i64::try_from(d.entry.value).ok().map(|value| (d.entry.label().to_owned(), value));
    how.guard.add(&mut transaction, &decided.iter().filter_map(stock).collect::<Vec<_>>())?;
    Ok(transaction)
}

/// The policy of the same name, which goes in the same moment. It may decide on nothing else.
fn replaced(decided: &[Decided], status: &Status, name: &str) -> Result<Option<String>, LiveError> {
    let by_name = |e: &&kerf_live::ActiveEntry| e.policy.as_ref().is_some_and(|p| p.owner == name);
    let held: Vec<&str> = status.entries.iter().filter(by_name).map(|e| e.id.as_str()).collect();
    let others: Vec<&str> = held.iter().copied().filter(|id| !decided.iter().any(|d| d.entry.label() == *id)).collect();
    if !others.is_empty() {
        return Err(LiveError::Owned(format!(
            "the policy {name} decides {} too, and its constants come and go together: name them as well, choose another --name, or \
             take it out first (`kerf policy unload {name}`)",
            others.join(", ")
        )));
    }
    Ok((!held.is_empty()).then(|| name.to_owned()))
}
