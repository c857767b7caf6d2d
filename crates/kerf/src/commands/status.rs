//! `kerf status`: which value is in force where.

use anyhow::Context;
use clap::Args;
use kerf_const::table::{self, Table};
use kerf_live::{ActiveEntry, ActiveLocation, ActivePolicy, Live, LiveError, Placement, State, Status};
use serde_json::{Value, json};

use super::const_words::TableArgs;
use crate::exit::ExitCode;
use crate::print::{self, Paint, paint};

/// How to report.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kerf status\n  kerf status --json\n\n\
The exit code is 0 when every value that is set is in force at all its locations (or nothing is set), 30 when one is not.")]
pub struct StatusArgs {
    #[command(flatten)]
    table: TableArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl StatusArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        let status = match Live::open().and_then(|mut live| live.status()) {
            Ok(status) => Some(status),
            Err(LiveError::NoModule) => None,
            Err(error) => return Err(error).context("read what is set"),
        };
        let Some(status) = status else {
            if self.json {
                print::json(&json!({ "module": false, "state": "stock", "entries": [] }))?;
            } else {
                print::text("no module loaded: everything is stock")?;
            }
            return Ok(0);
        };
        let stock = |entry: &ActiveEntry| self.stock(&status, entry);
        if self.json {
            print::json(&object(&status, &stock))?;
        } else {
            print::text(&sentences(&status, &stock))?;
        }
        Ok(if state(&status) == "partial" { ExitCode::Partial as u8 } else { 0 })
    }

    /// The stock value, if the table knows it.
    fn stock(&self, status: &Status, entry: &ActiveEntry) -> Option<i128> {
        let (name, derived) = match entry.id.rsplit_once('@') {
            Some((name, index)) => (name, Some(index.parse::<usize>().ok()?)),
            None => (entry.id.as_str(), None),
        };
        let table: Table =
            self.table.open().or_else(|_| Ok::<_, anyhow::Error>(Table::open(&table::default_path()?)?)).ok()?;
        let row = table.find(&status.build_id.to_string(), name).ok()?;
        match derived {
            None => Some(row.value),
            Some(index) => kerf_const::apply::derived(&row).get(index)?.apply(row.value),
        }
    }
}

/// `stock`, `tuned`, or `partial` if a value is not in force everywhere.
fn state(status: &Status) -> &'static str {
    match status.entries.iter().all(ActiveEntry::in_force) {
        true if status.entries.is_empty() => "stock",
        true => "tuned",
        false => "partial",
    }
}

fn placement(entry: &ActiveEntry) -> &'static str {
    if entry.policy.is_some() {
        return "decided";
    }
    let detours = entry.locations.iter().filter(|l| l.placement == Placement::Detour).count();
    match detours {
        0 => "immediate",
        n if n == entry.locations.len() => "detour",
        _ => "mixed",
    }
}

/// What is wrong at a location, or who else is there; nothing if all is well.
fn trouble(location: &ActiveLocation) -> Option<String> {
    let place = format!("{} ({:#x} in {})", location.function, location.image_offset, location.target);
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
    let owner = if location.owner.is_empty() { "somebody" } else { location.owner.as_str() };
    match location.state {
        State::Ok => None,
        State::Probed => {
            Some(format!("{place}: in force, with {owner} on top: it cannot be unset before that is gone"))
        }
        State::Shadowed => Some(format!("{place}: not in force: {owner} replaces the function")),
        State::Changed => Some(format!(
            "{place}: not in force: memory holds {}, not {}; {owner} wrote there",
            hex(&location.now),
            hex(&location.want)
        )),
        State::Unloaded => Some(format!("{:#x} in {}: the module is gone", location.image_offset, location.target)),
    }
}

/// Since when, by whom and why.
fn origin(entry: &ActiveEntry) -> String {
    let origin = &entry.origin;
    let since = print::time(origin.since_ns);
    let login = origin.login.map_or_else(String::new, |user| format!(" of user {user}"));
    let why = if origin.note.is_empty() { String::new() } else { format!(": {}", origin.note) };
    format!("{}: since {since}, by process {}{login}{why}", entry.id, origin.pid)
}

/// What is permitted while it is set.
fn guard(entry: &ActiveEntry) -> Option<String> {
    let guard = entry.guard.as_ref()?;
    let mut words = vec![format!("permitted are the values {} to {}", guard.min, guard.max)];
    if guard.step > 0 {
        words.push(format!("one change goes no further than {}", guard.step));
    }
    if guard.pause_ms > 0 {
        words.push(format!("the next may come {:.1} s after the last", f64::from(guard.pause_ms) / 1e3));
    }
    Some(format!("{}: {}", entry.id, words.join(", ")))
}

/// What became of a policy's decisions.
fn decisions(entry: &ActiveEntry) -> Option<String> {
    let ActivePolicy { owner, hits, decided, kept, refused, missed, .. } = entry.policy.as_ref()?;
    Some(format!(
        "{}: {owner} was asked {hits} times: {decided} decided, {kept} kept, {refused} refused, {missed} missed",
        entry.id
    ))
}

fn sentences(status: &Status, stock: &dyn Fn(&ActiveEntry) -> Option<i128>) -> String {
    if status.entries.is_empty() {
        return "nothing is set: everything is stock".into();
    }
    let rows = status.entries.iter().map(|entry| {
        let good = entry.locations.iter().filter(|l| l.in_force).count();
        let everywhere = format!("{good} of {}", entry.locations.len());
        let mut functions: Vec<&str> =
            entry.locations.iter().map(|l| l.function.split('+').next().unwrap_or_default()).collect();
        functions.dedup();
        vec![
            entry.id.clone(),
            entry.policy.as_ref().map_or_else(|| entry.value.to_string(), |policy| policy.owner.clone()),
            stock(entry).map_or("-".into(), |v| v.to_string()),
            placement(entry).into(),
            everywhere,
            functions.join(" "),
        ]
    });
    let mut out = print::table(&["NAME", "VALUE", "STOCK", "PLACEMENT", "IN FORCE", "WHERE"], rows);
    for line in status.entries.iter().flat_map(|entry| [Some(origin(entry)), guard(entry)].into_iter().flatten()) {
        out += &format!("\n{line}");
    }
    for line in status.entries.iter().filter_map(decisions) {
        out += &format!("\n{line}");
    }
    for line in status.entries.iter().flat_map(|e| &e.locations).filter_map(trouble) {
        out += &format!("\n{line}");
    }
    let summary = match state(status) {
        "partial" => paint(Paint::Bad, "not every value is in force at all its locations"),
        _ => paint(Paint::Good, "every value is in force at all its locations"),
    };
    out + "\n" + &summary
}

fn object(status: &Status, stock: &dyn Fn(&ActiveEntry) -> Option<i128>) -> Value {
    let entries: Vec<Value> = status
        .entries
        .iter()
        .map(|entry| {
            json!({
                "id": entry.id,
                "value": entry.value,
                "stock": stock(entry).and_then(|v| i64::try_from(v).ok()),
                "placement": placement(entry),
                "origin": entry.origin,
                "guard": entry.guard,
                "policy": entry.policy,
                "in_force": entry.in_force(),
                "locations": entry.locations.iter().map(location_object).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "module": true,
        "build_id": status.build_id,
        "state": state(status),
        "entries": entries,
        "pool": status.pool,
    })
}

fn location_object(location: &ActiveLocation) -> Value {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    json!({
        "function": location.function,
        "target": location.target,
        "image_offset": location.image_offset,
        "placement": location.placement,
        "state": location.state,
        "in_force": location.in_force,
        "owner": location.owner,
        "stock": hex(&location.stock),
        "want": hex(&location.want),
        "now": hex(&location.now),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kerf_live::status;

    const SET: &str = "\
kerf protocol=4 build_id=764949bb
text base=0xffffffff81000000 size=0x1000000
pool slots=512 used=0 pending=0
result code=0 attempts=1 tasks=9 stop_ns=300000 inside=0 looks=0 total_ns=0 text=
entry id=BLK_MAX_REQUEST_COUNT value=4 locations=2
since id=BLK_MAX_REQUEST_COUNT ns=1700000000000000000 pid=77 login=1000 note=less to wait for
guard id=BLK_MAX_REQUEST_COUNT min=1 max=64 step=8 pause_ms=1500
location target=vmlinux at=blk_add_rq_to_plug+0x25/0x100 offset=0x650925 kind=immediate state=ok stock=83e0e0 want=83e0fc now=83e0fc owner=
location target=vmlinux at=blk_add_rq_to_plug+0x28/0x100 offset=0x650928 kind=immediate state=STATE stock=83c040 want=83c008 now=83c040 owner=OWNER
";

    fn parsed(state: &str, owner: &str) -> Status {
        status::parse(&SET.replace("STATE", state).replace("OWNER", owner)).expect("the text is a status")
    }

    #[test]
    fn a_value_in_force_everywhere_is_tuned() {
        let status = parsed("ok", "");
        assert_eq!(state(&status), "tuned");
        let text = sentences(&status, &|_| Some(32));
        assert!(text.contains("2 of 2") && text.contains("every value is in force"), "{text}");
        assert!(text.contains(", by process 77 of user 1000: less to wait for\n"), "{text}");
        let guard = "values 1 to 64, one change goes no further than 8, the next may come 1.5 s after the last";
        assert!(text.contains(guard), "{text}");
    }

    #[test]
    fn a_policy_is_named_with_its_counts() {
        let entry = "entry id=A value=32 locations=1\nsince id=A ns=1 pid=1 login=-1 note=\n";
        let counts = "policy id=A program=7 hits=9 decided=4 kept=3 refused=2 missed=0 owner=plug\n";
        let head = SET.split("entry ").next().expect("lines before the entries");
        let place = SET.lines().find(|line| line.starts_with("location ")).expect("a location");
        let place = place.replace("kind=immediate", "kind=decided");
        let status = status::parse(&format!("{head}{entry}{counts}{place}\n")).expect("the text is a status");
        let text = sentences(&status, &|_| Some(32));
        assert!(text.contains("A: plug was asked 9 times: 4 decided, 3 kept, 2 refused, 0 missed"), "{text}");
        let object = object(&status, &|_| Some(32));
        assert_eq!(
            (&object["entries"][0]["policy"]["hits"], &object["entries"][0]["placement"]),
            (&json!(9), &json!("decided"))
        );
    }

    #[test]
    fn others_are_named_and_the_state_is_partial() {
        for (word, owner, expected) in [
            ("shadowed", "livepatch test", "livepatch test replaces the function"),
            ("changed", "", "memory holds 83 c0 40, not 83 c0 08; somebody wrote there"),
        ] {
            let status = parsed(word, owner);
            assert_eq!(state(&status), "partial");
            let text = sentences(&status, &|_| None);
            assert!(text.contains("1 of 2") && text.contains(expected), "{text}");
            assert_eq!(object(&status, &|_| None)["entries"][0]["in_force"], false);
        }
        let probed = parsed("probed", "kprobe at blk_add_rq_to_plug+0x28");
        assert_eq!(state(&probed), "tuned");
        assert!(sentences(&probed, &|_| None).contains("cannot be unset before that is gone"));
    }
}
