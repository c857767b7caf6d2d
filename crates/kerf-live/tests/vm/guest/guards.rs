//! What an operator permits for a constant: the module keeps to it, whoever asks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kerf_live::{Guard, Live, LiveError, Transaction};

use super::tools::{ensure, same, set, transaction};
use super::{Outcome, blocks};

const NOTE: &str = "/etc/kerf.d/50-db.toml: random reads";

fn guarded(live: &mut Live, offset: u64, value: i8, guard: Guard) -> Result<Transaction, Box<dyn std::error::Error>> {
    let mut transaction = transaction(live)?;
    let entry = blocks::by_immediates(offset, value);
    transaction.guards.push((entry.id.clone(), guard));
    transaction.entries.push(entry);
    transaction.note = NOTE.into();
    Ok(transaction)
}

/// A change that must be refused, with words of why.
fn forbidden(live: &mut Live, transaction: &Transaction, words: &str) -> Outcome {
    let before = live.status()?.entries;
    match live.set(transaction) {
        Err(LiveError::Guarded(text)) if text.contains(words) => {}
        other => return Err(format!("{other:?} instead of `{words}`").into()),
    }
    same("what is set", live.status()?.entries, before)
}

/// Limits, steps and pauses, for values with a guard of their own and for those that come later without.
pub fn all() -> Outcome {
    let mut live = Live::open()?;
    let offset = blocks::offset(&mut live)?;
    let guard = Guard { stock: 32, min: 4, max: 40, step: 24, pause: Duration::ZERO };
    let value = |live: &mut Live, value| guarded(live, offset, value, guard);
    for (wrong, words) in [(3, "values 4 to 40"), (41, "values 4 to 40"), (7, "from 32 to 7 is further than")] {
        let transaction = value(&mut live, wrong)?;
        forbidden(&mut live, &transaction, words)?;
    }
    let transaction = value(&mut live, 8)?;
    live.set(&transaction)?;
    let entry = live.status()?.entries.into_iter().next().ok_or("nothing is set")?;
    same("the note", entry.origin.note.as_str(), NOTE)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let age = now.saturating_sub(entry.origin.since_ns);
    ensure(age < 600_000_000_000 && entry.origin.pid == std::process::id() as i32, || format!("{:?}", entry.origin))?;
    // By hand, without a guard: the one that is there counts, and stays.
    for (wrong, words) in [(41, "values 4 to 40"), (33, "from 8 to 33 is further than")] {
        let mut transaction = transaction_of(&mut live, offset, wrong)?;
        forbidden(&mut live, &transaction, words)?;
        transaction.dry_run = true;
        forbidden(&mut live, &transaction, words)?;
    }
    set(&mut live, blocks::by_immediates(offset, 32))?;
    ensure(live.status()?.entries[0].guard.is_some(), || "the guard is gone".into())?;
    pauses(&mut live, offset)?;
    live.unset_all()?;
    // It went with the value.
    set(&mut live, blocks::by_immediates(offset, 2))?;
    live.unset_all()?;
    Ok(())
}

fn transaction_of(live: &mut Live, offset: u64, value: i8) -> Result<Transaction, Box<dyn std::error::Error>> {
    let mut transaction = transaction(live)?;
    transaction.entries.push(blocks::by_immediates(offset, value));
    Ok(transaction)
}

/// The next change has to wait, an unset has not.
fn pauses(live: &mut Live, offset: u64) -> Outcome {
    let guard = Guard { stock: 32, min: i64::MIN, max: i64::MAX, step: 0, pause: Duration::from_secs(3600) };
    let transaction = guarded(live, offset, 16, guard)?;
    live.set(&transaction)?;
    let hand = transaction_of(live, offset, 17)?;
    forbidden(live, &hand, "the next change may come after 3600000 ms")?;
    let other = guarded(live, offset, 17, Guard { pause: Duration::ZERO, ..guard })?;
    forbidden(live, &other, "the next change may come after 3600000 ms")?;
    // The same value again is no change, and begins nothing anew.
    let before = live.status()?.entries[0].origin.clone();
    live.set(&transaction)?;
    same("where the value comes from", &live.status()?.entries[0].origin, &before)?;
    live.unset(&[transaction.entries[0].id.as_str()])?;
    same("what is set", live.status()?.entries.len(), 0)?;
    let soon = Guard { pause: Duration::from_millis(1), ..guard };
    let transaction = guarded(live, offset, 16, soon)?;
    live.set(&transaction)?;
    std::thread::sleep(Duration::from_millis(5));
    set(live, blocks::by_immediates(offset, 17))?;
    Ok(())
}
