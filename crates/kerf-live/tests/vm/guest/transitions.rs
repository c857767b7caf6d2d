//! Transitions: threads inside a safe span keep the value that they began with, and the others get the new one.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use kerf_live::{
    Change, Decider, DetourInstruction, Entry, Execution, Live, LiveError, Location, Mark, Mode, Number, SafeSpan,
    Target,
};

use super::tools::*;
use super::{Outcome, kcore};

/// Control file of the threads that are inside safe spans.
pub const SPANS: &str = "/sys/kernel/debug/kerf_test_spans";
/// The id of the constant in the function span.
const ID: &str = "span";
/// Where a place is written down.
const REMEMBERED: &str = "/tmp/place";
/// HOW: parked until released.
pub const PARK: u32 = 100_000;

pub const FIRST: [u8; 5] = [0xbb, 0x10, 0, 0, 0];
pub const SECOND: [u8; 5] = [0xb8, 0x10, 0, 0, 0];

/// Which code counts as safe span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The function span itself.
    Span,
    /// The function top, which calls it through any number of others.
    Top,
}

/// One of the numbers that the threads inside safe spans show.
pub fn counted(key: &str) -> Result<i64, Box<dyn Error>> {
    let text = std::fs::read_to_string(SPANS)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    Ok(line.map_or(Ok(0), str::parse)?)
}

fn decided(stock: &[u8; 5]) -> Change {
    Change::Decided {
        instructions: vec![DetourInstruction { bytes: stock.to_vec() }],
        marks: vec![Mark { instruction: 0, part: 0, form: 0, bits: 32 }],
        arguments: Vec::new(),
        // A thread that holds on to a policy goes on with what it was told at the first use.
        execution: Some(Execution { begins: *stock == FIRST, frame: Some(16) }),
    }
}

/// Where everything is; found while the text is stock.
#[derive(Clone)]
pub struct Place {
    /// kerf_test.ko.
    pub target: Target,
    /// Offset of the first use.
    pub first: u64,
    /// Offset of the second.
    pub second: u64,
    /// What lies between them, or more.
    pub span: SafeSpan,
    /// Code elsewhere that counts as safe span too.
    pub more: Vec<SafeSpan>,
    /// Whether gates may be used.
    pub gates: bool,
}

impl Place {
    /// Looks at the stock text.
    pub fn find(reach: Reach) -> Result<Place, Box<dyn Error>> {
        let base = kcore::module_base("kerf_test")?;
        let function = test_symbol("span")?;
        let (first, second) = (kcore::find(function, 64, &FIRST)?, kcore::find(function, 64, &SECOND)?);
        let (entry, end) = match reach {
            // or %rbx, %rax is the last use
            Reach::Span => (first, kcore::find(function, 64, &[0x48, 0x09, 0xd8])? + 3),
            Reach::Top => (test_symbol("top")?, test_symbol("top")? + kcore::size("kerf_test_top", "kerf_test")?),
        };
        let exits = if reach == Reach::Span { vec![end - base] } else { Vec::new() };
        let target = test_module()?;
        let span = SafeSpan {
            target: target.clone(),
            entry: entry - base,
            ranges: vec![(entry + 1 - base, end - base)],
            exits,
        };
        Ok(Place { target, first: first - base, second: second - base, span, more: Vec::new(), gates: true })
    }

    /// Writes down where it is, for processes that find the text changed.
    pub fn remember(&self) -> Outcome {
        let (range, exit) = (self.span.ranges[0], self.span.exits[0]);
        let numbers = [self.first, self.second, self.span.entry, range.0, range.1, exit];
        Ok(std::fs::write(REMEMBERED, numbers.map(|n| n.to_string()).join(" "))?)
    }

    /// What was written down.
    pub fn remembered() -> Result<Place, Box<dyn Error>> {
        let text = std::fs::read_to_string(REMEMBERED)?;
        let numbers: Vec<u64> = text.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [first, second, entry, start, end, exit] = numbers.try_into().map_err(|_| "not six numbers")?;
        let target = test_module()?;
        let span = SafeSpan { target: target.clone(), entry, ranges: vec![(start, end)], exits: vec![exit] };
        Ok(Place { target, first, second, span, more: Vec::new(), gates: true })
    }

    /// The constant with a value; 16 is stock.
    pub fn entry(&self, value: i64) -> Entry {
        let new = |_: &[u8; 5]| immediate(1, &(value as u32).to_le_bytes());
        let at = |change: &dyn Fn(&[u8; 5]) -> Change| -> Vec<Location> {
            let places = [(self.first, FIRST), (self.second, SECOND)];
            let location = |(image_offset, stock): (u64, [u8; 5])| Location {
                target: self.target.clone(),
                image_offset,
                expected: stock.to_vec(),
                change: change(&stock),
            };
            places.into_iter().map(location).collect()
        };
        let forms = vec![Number::Affine { a: 1, b: 0 }];
        Entry {
            id: ID.into(),
            value,
            decider: Some(Decider { program: None, stock: 16, ranges: Vec::new(), forms }),
            locations: if value == 16 { Vec::new() } else { at(&new) },
            gates: if self.gates { at(&decided) } else { Vec::new() },
            spans: [vec![self.span.clone()], self.more.clone()].concat(),
            between: Vec::new(),
        }
    }

    /// The constant of the function late, by detours that change nothing.
    pub fn late(&self) -> Result<Entry, Box<dyn Error>> {
        let function = test_symbol("late")?;
        let base = kcore::module_base("kerf_test")?;
        let mut locations = Vec::new();
        let mut from = function;
        for stock in [[0xba, 0x10, 0, 0, 0], [0xba, 0x10, 0, 0, 0], SECOND] {
            let at = kcore::find(from, 64, &stock)?;
            from = at + 5;
            let (target, expected) = (self.target.clone(), stock.to_vec());
            locations.push(Location { target, image_offset: at - base, expected, change: detour(&[&stock]) });
        }
        Ok(entry("late", 16, locations))
    }
}

/// Gives the constant another value.
pub fn switch(
    live: &mut Live,
    value: i64,
    place: &Place,
    mode: Mode,
    timeout: u64,
) -> Result<kerf_live::Outcome, Box<dyn Error>> {
    let mut transaction = transaction(live)?;
    transaction.entries.push(place.entry(value));
    transaction.mode = mode;
    transaction.timeout = Duration::from_millis(timeout);
    live.set(&transaction).map_err(Into::into)
}

/// Nothing is set and nothing is left.
pub fn stock_text(live: &mut Live) -> Outcome {
    let status = live.status()?;
    same("entries and slots", (status.entries.len(), status.pool.used), (0, 0))?;
    for stock in [FIRST, SECOND] {
        kcore::find(test_symbol("span")?, 64, &stock)?;
    }
    let probes = std::fs::read_to_string("/sys/kernel/debug/kprobes/list")?;
    ensure(!probes.contains("kerf_test"), || format!("probes are left:\n{probes}"))
}

/// Starts one call in a thread of its own and waits until it is parked between the two uses.
pub fn parked_call(levels: u32) -> Result<thread::JoinHandle<()>, Box<dyn Error>> {
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
    let mut careless = Place::find(Reach::Span)?.entry(7);
    (careless.gates, careless.spans, careless.decider) = (Vec::new(), Vec::new(), None);
    set(&mut live, careless)?;
    write(SPANS, "release")?;
    joined(call)?;
    same("mixed values after a careless switch", counted("mixed")?, 1)?;
    live.unset_all()?;
    for (reach, levels) in [(Reach::Span, 0), (Reach::Top, 3)] {
        let place = Place::find(reach)?;
        println!("  {reach:?}, {levels} levels");
        by_task(&mut live, &place, levels)?;
        globally(&mut live, &place, levels)?;
        timeouts(&mut live, &place, levels)?;
    }
    stock_text(&mut live)
}

/// The parked thread keeps the old value; others have the new one meanwhile.
fn by_task(live: &mut Live, place: &Place, levels: u32) -> Outcome {
    write(SPANS, "clear")?;
    let call = parked_call(levels)?;
    let own = place.clone();
    let setter = thread::spawn(move || {
        let mut live = Live::open().map_err(|e| e.to_string())?;
        switch(&mut live, 7, &own, Mode::Task, 20_000).map_err(|e| e.to_string())
    });
    wait_for("a call with the new value", || {
        write(SPANS, &format!("call 1 0 {levels}"))?;
        Ok(counted("seen7")? > 0)
    })?;
    ensure(!setter.is_finished(), || "the transition ended although a thread is inside".into())?;
    write(SPANS, "release")?;
    joined(call)?;
    let outcome = setter.join().map_err(|_| "the setter panicked")??;
    println!("  by task: {} inside, {} looks, {:.1?}", outcome.inside, outcome.looks, outcome.total);
    same("threads inside", outcome.inside, 1)?;
    same("mixed", counted("mixed")?, 0)?;
    ensure(counted("seen16")? > 0, || "the parked thread did not keep the old value".into())?;
    switch(live, 16, place, Mode::Task, 1000)?;
    write(SPANS, "call 3 0 0")?;
    stock_text(live)
}

/// Nobody has the new value before the parked thread is out.
fn globally(live: &mut Live, place: &Place, levels: u32) -> Outcome {
    write(SPANS, "clear")?;
    let call = parked_call(levels)?;
    let own = place.clone();
    let setter = thread::spawn(move || {
        let mut live = Live::open().map_err(|e| e.to_string())?;
        switch(&mut live, 7, &own, Mode::Global, 20_000).map_err(|e| e.to_string())
    });
    wait_for("the gates", || Ok(kcore::find(test_symbol("span")?, 64, &FIRST).is_err()))?;
    for _ in 0..20 {
        write(SPANS, &format!("call 1 0 {levels}"))?;
    }
    same("calls with the new value while one is inside with the old", counted("seen7")?, 0)?;
    write(SPANS, "release")?;
    joined(call)?;
    let outcome = setter.join().map_err(|_| "the setter panicked")??;
    println!("  globally: {} inside, {} looks, {:.1?}", outcome.inside, outcome.looks, outcome.total);
    write(SPANS, "call 1 0 0")?;
    same("calls with the new value", counted("seen7")?, 1)?;
    same("mixed and crossed", (counted("mixed")?, counted("crossed")?), (0, 0))?;
    switch(live, 16, place, Mode::Global, 1000)?;
    stock_text(live)
}

/// A thread that never leaves: reported, and everything as before.
fn timeouts(live: &mut Live, place: &Place, levels: u32) -> Outcome {
    for mode in [Mode::Task, Mode::Global] {
        write(SPANS, "clear")?;
        let call = parked_call(levels)?;
        let error =
            switch(live, 7, place, mode, 200).err().ok_or("a thread is inside for ever, but the switch succeeded")?;
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
    let place = Place::find(Reach::Span)?;
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
            match switch(&mut live, value, &place, mode, 10_000) {
                Ok(outcome) => inside += u32::from(outcome.inside > 0),
                Err(error) if error.downcast_ref::<LiveError>().is_some_and(|e| matches!(e, LiveError::Busy(_))) => {
                    failed += 1
                }
                Err(error) => return Err(error),
            }
        }
        let each = start.elapsed() / count.max(1);
        drop(callers);
        write(SPANS, "stop")?;
        let (calls, mixed, crossed) = (counted("calls")?, counted("mixed")?, counted("crossed")?);
        println!(
            "  {mode:?}: {count} switches of {each:.1?}, {inside} with threads inside, {failed} in vain, {calls} calls"
        );
        same("mixed values", mixed, 0)?;
        if mode == Mode::Global {
            same("threads that acted on another value at the same time", crossed, 0)?;
        }
        ensure(failed * 20 <= count, || format!("{failed} of {count} switches did not come to an end"))?;
        ensure(calls > 100, || format!("only {calls} calls"))?;
        if !live.status()?.entries.is_empty() {
            switch(&mut live, 16, &place, mode, 10_000)?;
        }
        stock_text(&mut live)?;
    }
    Ok(())
}
