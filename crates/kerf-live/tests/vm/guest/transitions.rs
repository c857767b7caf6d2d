//! Transitions: threads inside a safe span keep the value that they began with, and the others get the new one.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use kerf_live::{Change, Decider, DetourInstruction, Entry, Live, LiveError, Mark, Mode, Number, SafeSpan};

use super::tools::*;
use super::{Outcome, kcore};

/// Control file of the threads that are inside safe spans.
const SPANS: &str = "/sys/kernel/debug/kerf_test_spans";
/// The id of the constant in the function span.
const ID: &str = "span";
/// HOW: parked until released.
const PARK: u32 = 100_000;

const FIRST: [u8; 5] = [0xbb, 0x10, 0, 0, 0];
const SECOND: [u8; 5] = [0xb8, 0x10, 0, 0, 0];

/// Which code counts as safe span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The function span itself.
    Span,
    /// The function top, which calls it through any number of others.
    Top,
}

fn counted(key: &str) -> Result<i64, Box<dyn Error>> {
    let text = std::fs::read_to_string(SPANS)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    Ok(line.map_or(Ok(0), str::parse)?)
}

fn decided(stock: &[u8; 5]) -> Change {
    Change::Decided {
        instructions: vec![DetourInstruction { bytes: stock.to_vec() }],
        marks: vec![Mark { instruction: 0, part: 0, form: 0, bits: 32 }],
        arguments: Vec::new(),
    }
}

/// The code that a reach stands for.
fn safe_span(reach: Reach) -> Result<SafeSpan, Box<dyn Error>> {
    let base = kcore::module_base("kerf_test")?;
    let (start, exit) = match reach {
        Reach::Span => {
            let start = kcore::find(test_symbol("span")?, 64, &FIRST)?;
            // pop %rbx, behind the last use
            (start + 1, kcore::find(start, 64, &[0x48, 0x09, 0xd8])? + 3)
        }
        Reach::Top => {
            let start = test_symbol("top")?;
            (start + 1, start + kcore::size("kerf_test_top", "kerf_test")?)
        }
    };
    let exits = if reach == Reach::Span { vec![exit - base] } else { Vec::new() };
    let ranges = vec![(start - base, exit - base)];
    Ok(SafeSpan { target: test_module()?, entry: start - 1 - base, ranges, exits })
}

/// The constant with a value; 16 is stock.
fn span(value: i64, reach: Reach) -> Result<Entry, Box<dyn Error>> {
    let new = |stock: &[u8; 5]| immediate(1, &(value as u32).to_le_bytes()[..stock.len() - 1]);
    let at = |change: &dyn Fn(&[u8; 5]) -> Change| -> Result<Vec<_>, Box<dyn Error>> {
        [FIRST, SECOND].iter().map(|stock| test_location("span", stock, change(stock))).collect()
    };
    let locations = if value == 16 { Vec::new() } else { at(&new)? };
    let decider = Decider { program: None, stock: 16, ranges: Vec::new(), forms: vec![Number::Affine { a: 1, b: 0 }] };
    Ok(Entry {
        id: ID.into(),
        value,
        decider: Some(decider),
        locations,
        gates: at(&decided)?,
        spans: vec![safe_span(reach)?],
        between: Vec::new(),
    })
}

fn switch(live: &mut Live, value: i64, reach: Reach, mode: Mode, timeout: u64) -> Result<kerf_live::Outcome, Box<dyn Error>> {
    let mut transaction = transaction(live)?;
    transaction.entries.push(span(value, reach)?);
    transaction.mode = mode;
    transaction.timeout = Duration::from_millis(timeout);
    live.set(&transaction).map_err(Into::into)
}

fn stock_text(live: &mut Live) -> Outcome {
    let status = live.status()?;
    same("entries and slots", (status.entries.len(), status.pool.used), (0, 0))?;
    for stock in [FIRST, SECOND] {
        kcore::find(test_symbol("span")?, 64, &stock)?;
    }
    let probes = std::fs::read_to_string("/sys/kernel/debug/kprobes/list")?;
    ensure(!probes.contains("kerf_test"), || format!("probes are left:\n{probes}"))
}

/// Starts one call in a thread of its own and waits until it is parked between the two uses.
fn parked_call(levels: u32) -> Result<thread::JoinHandle<()>, Box<dyn Error>> {
    let before = counted("parked")?;
    let call = thread::spawn(move || drop(write(SPANS, &format!("call 1 {PARK} {levels}"))));
    wait_for("a parked call", || Ok(counted("parked")? > before))?;
    Ok(call)
}

fn joined(call: thread::JoinHandle<()>) -> Outcome {
    call.join().map_err(|_| "a call panicked".into())
}

/// The detector sees what a switch without any care does, and what the modes avoid.
pub fn parked() -> Outcome {
    let mut live = Live::open()?;
    write(SPANS, "clear")?;
    let call = parked_call(0)?;
    // Without a range the second immediate changes under the thread that has run the first.
    let mut careless = span(7, Reach::Span)?;
    (careless.gates, careless.spans, careless.decider) = (Vec::new(), Vec::new(), None);
    set(&mut live, careless)?;
    write(SPANS, "release")?;
    joined(call)?;
    same("mixed values after a careless switch", counted("mixed")?, 1)?;
    live.unset_all()?;
    for (reach, levels) in [(Reach::Span, 0), (Reach::Top, 3)] {
        by_task(&mut live, reach, levels)?;
        globally(&mut live, reach, levels)?;
        timeouts(&mut live, reach, levels)?;
    }
    stock_text(&mut live)
}

/// The parked thread keeps the old value; others have the new one meanwhile.
fn by_task(live: &mut Live, reach: Reach, levels: u32) -> Outcome {
    write(SPANS, "clear")?;
    let call = parked_call(levels)?;
    let setter = thread::spawn(move || {
        let mut live = Live::open().map_err(|e| e.to_string())?;
        switch(&mut live, 7, reach, Mode::Task, 20_000).map_err(|e| e.to_string())
    });
    wait_for("a call with the new value", || {
        write(SPANS, &format!("call 1 0 {levels}"))?;
        Ok(counted("seen7")? > 0)
    })?;
    ensure(!setter.is_finished(), || "the transition ended although a thread is inside".into())?;
    write(SPANS, "release")?;
    joined(call)?;
    let outcome = setter.join().map_err(|_| "the setter panicked")??;
    println!("  by task, {reach:?}: {} inside, {} looks, {:.1?}", outcome.inside, outcome.looks, outcome.total);
    same("threads inside", outcome.inside, 1)?;
    same("mixed", counted("mixed")?, 0)?;
    ensure(counted("seen16")? > 0, || "the parked thread did not keep the old value".into())?;
    switch(live, 16, reach, Mode::Task, 1000)?;
    write(SPANS, "call 3 0 0")?;
    stock_text(live)
}

/// Nobody has the new value before the parked thread is out.
fn globally(live: &mut Live, reach: Reach, levels: u32) -> Outcome {
    write(SPANS, "clear")?;
    let call = parked_call(levels)?;
    let setter = thread::spawn(move || {
        let mut live = Live::open().map_err(|e| e.to_string())?;
        switch(&mut live, 7, reach, Mode::Global, 20_000).map_err(|e| e.to_string())
    });
    thread::sleep(Duration::from_millis(100));
    for _ in 0..20 {
        write(SPANS, &format!("call 1 0 {levels}"))?;
    }
    same("calls with the new value while one is inside with the old", counted("seen7")?, 0)?;
    write(SPANS, "release")?;
    joined(call)?;
    let outcome = setter.join().map_err(|_| "the setter panicked")??;
    println!("  globally, {reach:?}: {} inside, {} looks, {:.1?}", outcome.inside, outcome.looks, outcome.total);
    write(SPANS, "call 1 0 0")?;
    same("calls with the new value", counted("seen7")?, 1)?;
    same("mixed and crossed", (counted("mixed")?, counted("crossed")?), (0, 0))?;
    switch(live, 16, reach, Mode::Global, 1000)?;
    stock_text(live)
}

/// A thread that never leaves: reported, and everything as before.
fn timeouts(live: &mut Live, reach: Reach, levels: u32) -> Outcome {
    for mode in [Mode::Task, Mode::Global] {
        write(SPANS, "clear")?;
        let call = parked_call(levels)?;
        let error = switch(live, 7, reach, mode, 200).err().ok_or("a thread is inside for ever, but the switch succeeded")?;
        let error = error.downcast::<LiveError>()?;
        ensure(matches!(*error, LiveError::Busy(_)), || format!("{error:?}"))?;
        says(&error, &["still inside", "kerf_test"])?;
        stock_text(live)?;
        write(SPANS, "release")?;
        joined(call)?;
        same("mixed", (counted("mixed")?, counted("seen16")?), (0, 1))?;
    }
    Ok(())
}

/// Switches again and again among kernel threads and callers that sleep, spin and come back inside.
pub fn many(count: u32) -> Outcome {
    let mut live = Live::open()?;
    for mode in [Mode::Task, Mode::Global] {
        write(SPANS, "clear")?;
        write(SPANS, "workers 4 300 2")?;
        let callers: Vec<Load> = [200_002, 301_000, 50]
            .iter()
            .map(|how| Load::start("/bin/sh", &["-c", &format!("while :; do echo call 50 {how} 1 > {SPANS}; done")]))
            .collect::<Result<_, _>>()?;
        let (start, mut inside, mut failed) = (Instant::now(), 0, 0);
        for n in 0..count {
            let value = if n % 3 == 2 { 16 } else { 20 + i64::from(n % 3) };
            match switch(&mut live, value, Reach::Span, mode, 10_000) {
                Ok(outcome) => inside += u32::from(outcome.inside > 0),
                Err(error) if error.downcast_ref::<LiveError>().is_some_and(|e| matches!(e, LiveError::Busy(_))) => failed += 1,
                Err(error) => return Err(error),
            }
        }
        let each = start.elapsed() / count.max(1);
        drop(callers);
        write(SPANS, "stop")?;
        let (calls, mixed, crossed) = (counted("calls")?, counted("mixed")?, counted("crossed")?);
        println!("  {mode:?}: {count} switches of {each:.1?}, {inside} with threads inside, {failed} in vain, {calls} calls");
        same("mixed values", mixed, 0)?;
        if mode == Mode::Global {
            same("threads that acted on another value at the same time", crossed, 0)?;
        }
        ensure(failed * 20 <= count, || format!("{failed} of {count} switches did not come to an end"))?;
        ensure(calls > 100, || format!("only {calls} calls"))?;
        if !live.status()?.entries.is_empty() {
            switch(&mut live, 16, Reach::Span, mode, 10_000)?;
        }
        stock_text(&mut live)?;
    }
    Ok(())
}
