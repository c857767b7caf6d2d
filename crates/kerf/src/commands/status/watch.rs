//! `kerf status --watch`: the state again and again, and how often policies are asked meanwhile.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use kerf_live::Status;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::{StatusArgs, object_of, text_of};
use crate::print;

/// How soon an interruption is noticed.
const NOTICE: Duration = Duration::from_millis(50);

/// The terminal's other screen while this lives: what was on the first one comes back.
struct Screen;

impl Screen {
    /// Nothing where nobody looks.
    fn open() -> Option<Screen> {
        if !io::stdout().is_terminal() {
            return None;
        }
        say("\x1b[?1049h");
        Some(Screen)
    }

    fn show(&self, text: &str) {
        say(&format!("\x1b[H\x1b[J{text}\n"));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        say("\x1b[?1049l");
    }
}

/// A terminal that is gone ends the program by its signal.
fn say(text: &str) {
    let mut out = io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
}

/// Hits by constant, and when.
struct Seen {
    when: Instant,
    hits: BTreeMap<String, u64>,
}

impl Seen {
    fn now(status: Option<&Status>) -> Seen {
        let entries = status.iter().flat_map(|status| &status.entries);
        let hits = entries.filter_map(|entry| Some((entry.id.clone(), entry.policy.as_ref()?.hits)));
        Seen { when: Instant::now(), hits: hits.collect() }
    }

    /// Triggers in a second since then.
    fn rates(&self, before: &Seen) -> BTreeMap<String, f64> {
        let passed = self.when.duration_since(before.when).as_secs_f64().max(1e-3);
        let rate = |(id, hits): (&String, &u64)| {
            let more = hits.checked_sub(*before.hits.get(id)?)?;
            Some((id.clone(), more as f64 / passed))
        };
        self.hits.iter().filter_map(rate).collect()
    }
}

impl StatusArgs {
    /// Until it is interrupted.
    pub(super) fn watch(&self, pause: Duration) -> anyhow::Result<u8> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, stop.clone()).context("wait for an interruption")?;
        }
        let screen = if self.json { None } else { Screen::open() };
        let mut before: Option<Seen> = None;
        let mut code = 0;
        while !stop.load(Ordering::Relaxed) {
            code = self.with_status(|status, stock| {
                let now = Seen::now(status);
                let rates = before.as_ref().map(|before| now.rates(before)).unwrap_or_default();
                before = Some(now);
                if self.json {
                    let mut object = object_of(status, stock);
                    object["triggers_per_second"] = serde_json::json!(rates);
                    return print::text(&object.to_string());
                }
                let mut text = text_of(status, stock);
                for (id, rate) in &rates {
                    text += &format!("\n{id}: {rate:.0} triggers in a second");
                }
                match &screen {
                    Some(screen) => screen.show(&text),
                    None => print::text(&format!("{text}\n"))?,
                }
                Ok(())
            })?;
            wait(pause, &stop);
        }
        Ok(code)
    }
}

fn wait(pause: Duration, stop: &AtomicBool) {
    let until = Instant::now() + pause;
    while Instant::now() < until && !stop.load(Ordering::Relaxed) {
        thread::sleep(NOTICE.min(until.saturating_duration_since(Instant::now())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_what_was_there_before() {
        let seen = |after: u64, hits: &[(&str, u64)], start: Instant| Seen {
            when: start + Duration::from_secs(after),
            hits: hits.iter().map(|(id, hits)| ((*id).to_owned(), *hits)).collect(),
        };
        let start = Instant::now();
        let (before, now) = (seen(0, &[("A", 10), ("B", 9)], start), seen(2, &[("A", 30), ("B", 1), ("C", 5)], start));
        // B was loaded anew, C was not there.
        assert_eq!(now.rates(&before).into_iter().collect::<Vec<_>>(), [("A".to_owned(), 10.0)]);
    }
}
