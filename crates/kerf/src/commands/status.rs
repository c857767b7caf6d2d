//! `kerf status`: which value is in force where, once, again and again, or for a collector of metrics.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use kerf_const::table::{self, Table};
use kerf_live::{ActiveEntry, ActiveLocation, Live, LiveError, Status};
use serde_json::{Value, json};

use super::const_words::TableArgs;
use crate::exit::ExitCode;
use crate::print;

mod metrics;
mod sentences;
mod watch;

use sentences::{placement, sentences, state};

pub const EXAMPLES: &str = "\
Examples:
  kerf status
  kerf status --watch
  kerf status --watch 5 --json | jq .entries[].policy.hits
  kerf status --metrics /var/lib/prometheus/node-exporter/kerf.prom
  kerf status --json

The exit code is 0 when every value that is set is in force at all its locations (or nothing is set), 30 when one is not.
With --watch it goes on until it is interrupted; JSON is then one object a line.";

/// How to report.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    table: TableArgs,
    /// Say it again after so many seconds.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = seconds)]
    watch: Option<Duration>,
    /// Write Prometheus' text format, for the textfile collector of its node exporter: to FILE in one step, or to standard output.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-", conflicts_with_all = ["json", "watch"])]
    metrics: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "give a number of seconds")?;
    if (0.1..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("give 0.1 to 86400".into())
    }
}

/// Stock values that the scope table knows.
type Stock<'a> = &'a dyn Fn(&ActiveEntry) -> Option<i128>;

impl StatusArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        match (self.watch, &self.metrics) {
            (Some(pause), _) => self.watch(pause),
            (None, Some(file)) => self.with_status(|status, stock| metrics::write(file, status, stock)),
            (None, None) => self.with_status(|status, stock| {
                if self.json { print::json(&object_of(status, stock)) } else { print::text(&text_of(status, stock)) }
            }),
        }
    }

    /// What is set now, and what is done with it. The exit code.
    fn with_status(&self, done: impl FnOnce(Option<&Status>, Stock) -> anyhow::Result<()>) -> anyhow::Result<u8> {
        let status = match Live::open().and_then(|mut live| live.status()) {
            Ok(status) => Some(status),
            Err(LiveError::NoModule) => None,
            Err(error) => return Err(error).context("read what is set"),
        };
        let stock = |entry: &ActiveEntry| status.as_ref().and_then(|status| self.stock(status, entry));
        done(status.as_ref(), &stock)?;
        let partial = status.as_ref().is_some_and(|status| state(status) == "partial");
        Ok(if partial { ExitCode::Partial as u8 } else { 0 })
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

/// All of it for a person.
fn text_of(status: Option<&Status>, stock: Stock) -> String {
    status.map_or_else(|| "no module loaded: everything is stock".into(), |status| sentences(status, stock))
}

/// All of it for a program.
fn object_of(status: Option<&Status>, stock: Stock) -> Value {
    let none = || json!({ "module": false, "state": "stock", "entries": [], "removed": [] });
    status.map_or_else(none, |status| object(status, stock))
}

fn object(status: &Status, stock: Stock) -> Value {
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
        "removed": status.removed,
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
        let counts = "policy id=A program=7 hits=9 decided=4 kept=3 refused=2 missed=0 last=0:64,3:8 decisions=4:1,7:3 timed=9 ns=1800 longest_ns=400 stopped=0 owner=plug\nlimits id=A triggers=1000 permille=25\n";
        let head = SET.split("entry ").next().expect("lines before the entries");
        let place = SET.lines().find(|line| line.starts_with("location ")).expect("a location");
        let place = place.replace("kind=immediate", "kind=decided");
        let status = status::parse(&format!("{head}{entry}{counts}{place}\n")).expect("the text is a status");
        let text = sentences(&status, &|_| Some(32));
        assert!(text.contains("A: plug was asked 9 times: 4 decided, 3 kept, 2 refused, 0 missed"), "{text}");
        assert!(text.contains("last 64 on CPU 0, 8 on CPU 3"), "{text}");
        assert!(
            text.contains("at most 1000 triggers in a second, at most 2.5 % of one CPU; 200 ns each time, 400 at most"),
            "{text}"
        );
        assert!(text.contains("    8 to  15 ") && text.contains("   64 to 127 "), "{text}");
        let object = object(&status, &|_| Some(32));
        assert_eq!(
            (&object["entries"][0]["policy"]["hits"], &object["entries"][0]["placement"]),
            (&json!(9), &json!("decided"))
        );
    }

    #[test]
    fn what_was_taken_out_says_why() {
        let head = SET.split("entry ").next().expect("lines before the entries");
        let removed =
            "removed policy=plug ns=1700000000000000000 waits=0 reason=9 triggers in a second, permitted are 1\n";
        let status = status::parse(&format!("{head}{removed}")).expect("the text is a status");
        let text = sentences(&status, &|_| None);
        assert!(text.contains("plug was taken out on ") && text.contains(": 9 triggers in a second"), "{text}");
        assert_eq!(object(&status, &|_| None)["removed"][0]["policy"], "plug");
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
