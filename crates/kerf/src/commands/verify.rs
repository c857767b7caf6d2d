//! `kerf verify`: whether the running kernel is what the files of /etc/kerf.d say.

use anyhow::Context;
use clap::Args;
use kerf_config::{Constant, Number, Wanted};
use kerf_live::{ActiveEntry, Live, LiveError, Status};
use serde::Serialize;

use super::apply::FilesArgs;
use super::const_words::{TableArgs, find_running, parse_value};
use crate::exit::ExitCode;
use crate::print::{self, Paint, paint};
use crate::running;

pub const EXAMPLES: &str = "\
Examples:
  kerf verify
  kerf verify --json

The exit code is 0 when everything that the files say is in force and nothing else is set, 32 when not.";

/// Which files, and how to report.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    files: FilesArgs,
    #[command(flatten)]
    table: TableArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One thing that is not as the files say.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Difference {
    /// The constant, or the policy's name.
    name: String,
    /// What the files say, or nothing.
    wanted: String,
    /// What is so.
    found: String,
    /// Where the files say it.
    place: String,
}

impl VerifyArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        self.execute().context("compare the running kernel with the drop-ins")
    }

    fn execute(&self) -> anyhow::Result<u8> {
        let wanted = self.files.read()?;
        let status = match Live::open().and_then(|mut live| live.status()) {
            Ok(status) => Some(status),
            Err(LiveError::NoModule) => None,
            Err(error) => return Err(error.into()),
        };
        let found = differences(&wanted, status.as_ref(), &self.labels());
        if self.json {
            print::json(&serde_json::json!({ "as_wanted": found.is_empty(), "differences": found }))?;
        } else if found.is_empty() {
            print::text(&paint(Paint::Good, "the running kernel is what the files say"))?;
        } else {
            let row = |d: &Difference| vec![d.name.clone(), d.wanted.clone(), d.found.clone(), d.place.clone()];
            print::text(&print::table(&["NAME", "WANTED", "FOUND", "BY"], found.iter().map(row)))?;
            print::text(&paint(Paint::Bad, "the running kernel is not what the files say"))?;
        }
        Ok(if found.is_empty() { 0 } else { ExitCode::Differs as u8 })
    }

    /// The names by which the module knows constants; files may have their ids. Without a table a name is taken for what it is.
    fn labels(&self) -> impl Fn(&str) -> String {
        let table = self.table.open().and_then(|table| Ok((table, running::build_id()?))).ok();
        move |id| {
            let entry = table.as_ref().and_then(|(table, build)| find_running(table, build, id).ok());
            entry.map_or_else(|| id.to_owned(), |entry| entry.label().to_owned())
        }
    }
}

fn differences(wanted: &Wanted, status: Option<&Status>, label: &dyn Fn(&str) -> String) -> Vec<Difference> {
    let entries = status.map_or(&[][..], |status| &status.entries);
    let owner = |entry: &ActiveEntry| entry.policy.as_ref().map(|policy| policy.owner.clone());
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    for constant in &wanted.constants {
        let name = label(&constant.id);
        let so = entries.iter().find(|entry| entry.id == name);
        if so.is_none_or(|entry| !fits(constant, entry)) {
            found.push(Difference {
                wanted: words(constant),
                found: so.map_or_else(|| "stock".into(), state),
                place: constant.place.to_string(),
                name: name.clone(),
            });
        }
        expected.push(name);
    }
    for policy in &wanted.policies {
        let of = |entry: &&ActiveEntry| owner(entry).as_deref() == Some(policy.name.as_str());
        let stopped = |entry: &ActiveEntry| entry.policy.as_ref().is_some_and(|policy| policy.stopped);
        if !entries.iter().any(|entry| of(&entry) && !stopped(entry)) {
            let (name, place) = (policy.name.clone(), policy.place.to_string());
            let removed = status.and_then(|status| status.removed.iter().find(|removed| removed.policy == name));
            let so = removed.map_or_else(|| "not loaded".into(), |removed| format!("taken out: {}", removed.reason));
            found.push(Difference { name, wanted: "loaded".into(), found: so, place });
        }
        expected.extend(entries.iter().filter(of).map(|entry| entry.id.clone()));
    }
    for entry in entries.iter().filter(|entry| !expected.contains(&entry.id)) {
        let place = if entry.origin.note.is_empty() { "no file".into() } else { entry.origin.note.clone() };
        found.push(Difference { name: entry.id.clone(), wanted: "stock".into(), found: state(entry), place });
    }
    found
}

/// Whether something is decided each time that it is used.
fn is_decided(constant: &Constant) -> bool {
    constant.when.is_some() || matches!(&constant.value, Number::Text(text) if text.starts_with('='))
}

fn fits(constant: &Constant, entry: &ActiveEntry) -> bool {
    if !entry.in_force() {
        return false;
    }
    if is_decided(constant) {
        // What decides was made from the file that says so.
        let file = constant.place.path.display().to_string();
        return entry.policy.is_some() && entry.origin.note.starts_with(&file);
    }
    let value = match &constant.value {
        Number::Integer(value) => Some(i128::from(*value)),
        Number::Text(text) => parse_value(text).ok(),
    };
    entry.policy.is_none() && value == Some(entry.value.into())
}

fn words(constant: &Constant) -> String {
    match &constant.when {
        Some(when) => format!("{} when {when}", constant.value),
        None => constant.value.to_string(),
    }
}

fn state(entry: &ActiveEntry) -> String {
    let value = match &entry.policy {
        Some(policy) => format!("decided by {}", policy.owner),
        None => entry.value.to_string(),
    };
    if entry.in_force() { value } else { format!("{value}, not everywhere") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const STATUS: &str = "\
kerf protocol=5 build_id=764949bb
text base=0xffffffff81000000 size=0x1000000
pool slots=512 used=0
result code=0 attempts=1 tasks=9 stop_ns=300000 inside=0 looks=0 total_ns=0 text=
entry id=A value=4 locations=0
since id=A ns=1 pid=1 login=-1 note=/etc/kerf.d/a.toml
entry id=B value=9 locations=0
since id=B ns=1 pid=1 login=-1 note=
policy id=B program=7 hits=0 decided=0 kept=0 refused=0 missed=0 last= decisions= timed=0 ns=0 longest_ns=0 stopped=0 owner=plug
removed policy=costly ns=1 waits=0 reason=9 triggers in a second, permitted are 1
";

    fn found(text: &str) -> Vec<(String, String, String)> {
        let dropin = kerf_config::DropIn::parse(Path::new("/etc/kerf.d/a.toml"), text).expect("a drop-in");
        let status = kerf_live::status::parse(STATUS).expect("a status");
        let found = differences(&Wanted::merge(vec![dropin]), Some(&status), &str::to_owned);
        found.into_iter().map(|d| (d.name, d.wanted, d.found)).collect()
    }

    fn of(name: &str, wanted: &str, found: &str) -> (String, String, String) {
        (name.into(), wanted.into(), found.into())
    }

    #[test]
    fn what_is_as_wanted_is_not_named() {
        assert_eq!(found("[const]\nA = 4\n[policy]\nplug = \"plug.o\"\n"), []);
        assert_eq!(found("[const]\nA = \"0x4\"\n[policy]\nplug = \"plug.o\"\n"), []);
    }

    #[test]
    fn differences_go_both_ways() {
        let text = "[const]\nA = 5\nC = { value = 1, when = \"cpu == 0\" }\n[policy]\nother = \"o.o\"\n";
        let expected = [
            of("A", "5", "4"),
            of("C", "1 when cpu == 0", "stock"),
            of("other", "loaded", "not loaded"),
            of("B", "stock", "decided by plug"),
        ];
        assert_eq!(found(text), expected);
        let costly = of("costly", "loaded", "taken out: 9 triggers in a second, permitted are 1");
        assert_eq!(found("[const]\nA = 4\n[policy]\nplug = \"p.o\"\ncostly = \"c.o\"\n"), [costly]);
        assert_eq!(found("[const]\nA = 4\nB = 9\n"), [of("B", "9", "decided by plug")]);
    }
}
