//! What `kerf status` says to a person.

use kerf_live::{ActiveEntry, ActiveLocation, ActivePolicy, Magnitude, Placement, Removed, State, Status};

use super::Stock;
use crate::print::{self, Paint, paint};

/// CPUs whose last decision is shown.
const LAST_SHOWN: usize = 4;

/// The longest bar of a histogram, in columns.
const BAR: u128 = 40;

/// `stock`, `tuned`, or `partial` if a value is not in force everywhere.
pub fn state(status: &Status) -> &'static str {
    match status.entries.iter().all(ActiveEntry::in_force) {
        true if status.entries.is_empty() => "stock",
        true => "tuned",
        false => "partial",
    }
}

pub fn placement(entry: &ActiveEntry) -> &'static str {
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
    let ActivePolicy { owner, hits, decided, kept, refused, missed, last, .. } = entry.policy.as_ref()?;
    let mut out = format!(
        "{}: {owner} was asked {hits} times: {decided} decided, {kept} kept, {refused} refused, {missed} missed",
        entry.id
    );
    for (n, last) in last.iter().take(LAST_SHOWN).enumerate() {
        out += &format!("{} {} on CPU {}", if n == 0 { "; last" } else { "," }, last.value, last.cpu);
    }
    if last.len() > LAST_SHOWN {
        out += ", …";
    }
    Some(out)
}

/// What a policy may cost, and what it does cost where that is measured.
fn limits(entry: &ActiveEntry) -> Option<String> {
    let policy = entry.policy.as_ref()?;
    let limits = policy.limits?;
    let mut words = Vec::new();
    if limits.triggers > 0 {
        words.push(format!("at most {} triggers in a second", limits.triggers));
    }
    if limits.permille > 0 {
        words.push(format!("at most {} % of one CPU", f64::from(limits.permille) / 10.0));
    }
    let stopped = if policy.stopped { "; stopped: it came over a limit" } else { "" };
    let each = policy.ns.checked_div(policy.timed);
    let each = each.map_or_else(String::new, |each| format!("; {each} ns each time, {} at most", policy.longest_ns));
    Some(format!("{}: {}{each}{stopped}", entry.id, words.join(", ")))
}

/// Decided values by their size, a line each.
fn histogram(entry: &ActiveEntry) -> Option<String> {
    let histogram = &entry.policy.as_ref().filter(|policy| !policy.histogram.is_empty())?.histogram;
    let most = histogram.iter().map(|magnitude| magnitude.count).max()?.max(1);
    let width = histogram.iter().map(|m| m.max.to_string().len().max(m.min.to_string().len())).max()?;
    let mut out = format!("{}: decided values", entry.id);
    for Magnitude { min, max, count } in histogram {
        let bar = "#".repeat((u128::from(*count) * BAR / u128::from(most)).max(1) as usize);
        out += &format!("\n  {min:>width$} to {max:>width$} {count:>12} {bar}");
    }
    Some(out)
}

/// A policy that the module took out.
fn removed(removed: &Removed) -> String {
    let Removed { policy, since_ns, waits, reason } = removed;
    let waits = if *waits { " (threads are in its places still; it is not asked)" } else { "" };
    format!("{policy} was taken out on {}: {reason}{waits}", print::time(*since_ns))
}

pub fn sentences(status: &Status, stock: Stock) -> String {
    let removed: String = status.removed.iter().map(|one| format!("{}\n", paint(Paint::Bad, &removed(one)))).collect();
    if status.entries.is_empty() {
        return removed + "nothing is set: everything is stock";
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
    for line in
        status.entries.iter().flat_map(|entry| [decisions, limits, histogram].map(|words| words(entry))).flatten()
    {
        out += &format!("\n{line}");
    }
    for line in status.entries.iter().flat_map(|e| &e.locations).filter_map(trouble) {
        out += &format!("\n{line}");
    }
    let summary = match state(status) {
        "partial" => paint(Paint::Bad, "not every value is in force at all its locations"),
        _ => paint(Paint::Good, "every value is in force at all its locations"),
    };
    out + "\n" + &removed + &summary
}
