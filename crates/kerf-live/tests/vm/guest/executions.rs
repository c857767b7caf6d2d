//! One decision for one execution of a safe span, by a policy that decides on another value each time it is asked.

use std::error::Error;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use kerf_live::policy::{self, Loaded, Object};
use kerf_live::{
    ActivePolicy, Change, Decider, DetourInstruction, Entry, Execution, Live, Location, Mark, Number, SafeSpan,
};

use super::tools::*;
use super::transitions::{FIRST, Place, Reach, SECOND, SPANS, counted, stock_text};
use super::{Outcome, kcore};

/// The program that decides.
pub const OTHER_EACH_TIME: &str = "other_each_time";
/// The policy's name.
const OWNER: &str = "values";

/// A place of the constant: offset, stock bytes, and what it is in an execution.
type Use<'a> = (u64, &'a [&'a [u8]], Option<Execution>);

fn place(begins: bool, frame: Option<u32>) -> Option<Execution> {
    Some(Execution { begins, frame })
}

/// The constant with the policy.
fn entry(span: &SafeSpan, program: i32, uses: &[Use]) -> Entry {
    let location = |(image_offset, stock, execution): &Use| Location {
        target: span.target.clone(),
        image_offset: *image_offset,
        expected: stock.concat(),
        change: Change::Decided {
            instructions: stock.iter().map(|bytes| DetourInstruction { bytes: bytes.to_vec() }).collect(),
            // One instruction with the number, or several without.
            marks: if stock.len() == 1 {
                vec![Mark { instruction: 0, part: 0, form: 0, bits: 32 }]
            } else {
                Vec::new()
            },
            arguments: Vec::new(),
            execution: *execution,
        },
    };
    let forms = vec![Number::Affine { a: 1, b: 0 }];
    Entry {
        id: "span".into(),
        value: 16,
        decider: Some(Decider { program: Some(program), stock: 16, ranges: vec![(1, 255)], forms }),
        locations: uses.iter().map(location).collect(),
        gates: Vec::new(),
        spans: vec![span.clone()],
        between: Vec::new(),
    }
}

/// The policy's program in the kernel.
pub fn program() -> Result<Loaded, Box<dyn Error>> {
    Ok(policy::load(&Object::read(Path::new("/values.bpf.o"))?, "values")?)
}

/// The constant of the function span, with one decision for both uses.
pub fn shared(at: &Place, program: i32) -> Entry {
    entry(&at.span, program, &both(at, place(true, Some(16)), place(false, Some(16))))
}

/// Both uses of the function span.
fn both<'a>(at: &Place, first: Option<Execution>, second: Option<Execution>) -> [Use<'a>; 2] {
    [(at.first, &[&FIRST], first), (at.second, &[&SECOND], second)]
}

/// Lets the policy decide, and keeps its programs.
fn load(live: &mut Live, span: &SafeSpan, uses: &[Use]) -> Result<Loaded, Box<dyn Error>> {
    let loaded = program()?;
    let mut transaction = transaction(live)?;
    transaction.owner = OWNER.into();
    transaction.entries.push(entry(span, loaded.program(OTHER_EACH_TIME)?, uses));
    live.set(&transaction)?;
    Ok(loaded)
}

fn counts(live: &mut Live) -> Result<ActivePolicy, Box<dyn Error>> {
    let entry = live.status()?.entries.into_iter().next().ok_or("nothing is set")?;
    Ok(entry.policy.ok_or("no policy")?)
}

fn unload(live: &mut Live) -> Outcome {
    live.drop_policy(OWNER, Duration::from_secs(20))?;
    stock_text(live)
}

fn different_values() -> Result<usize, Box<dyn Error>> {
    Ok(std::fs::read_to_string(SPANS)?.lines().filter(|line| line.starts_with("seen")).count())
}

/// Calls that sleep, come back inside and are preempted between the two uses.
fn busy() -> Outcome {
    write(SPANS, "clear")?;
    write(SPANS, "workers 3 300 1")?;
    let callers = ["call 200 0 2", "call 20 2000 0", "call 30 200003 1", "call 200 399999 0", "call 200 399999 1"];
    thread::scope(|scope| -> Outcome {
        let calls = callers.map(|text| scope.spawn(move || write(SPANS, text).map_err(|error| error.to_string())));
        calls.into_iter().try_for_each(|call| Ok(call.join().map_err(|_| "a caller panicked")??))
    })?;
    write(SPANS, "stop")
}

/// Both uses of a call get the same value, different calls get different ones.
pub fn calls() -> Outcome {
    let mut live = Live::open()?;
    let at = Place::find(Reach::Span)?;
    let uses = |first, second| both(&at, first, second);
    let apart = load(&mut live, &at.span, &uses(None, None))?;
    write(SPANS, "clear")?;
    write(SPANS, "call 20 0 0")?;
    same("calls with two values, if each place decides for itself", counted("mixed")?, 20)?;
    unload(&mut live)?;
    drop(apart);
    // Behind the push of rbx, the frame ends above it and the return address; or the stack is followed.
    for frame in [Some(16), None] {
        let loaded = load(&mut live, &at.span, &uses(place(true, frame), place(false, frame)))?;
        busy()?;
        let (calls, mixed) = (counted("calls")?, counted("mixed")?);
        let (values, policy) = (different_values()?, counts(&mut live)?);
        println!("  frame {frame:?}: {calls} calls, {mixed} mixed, {values} different values, {policy:?}");
        same("calls with two values", mixed, 0)?;
        ensure(values > 50, || format!("only {values} different values in {calls} calls"))?;
        same("decisions", (policy.hits, policy.decided, policy.missed), (2 * calls as u64, policy.hits, 0))?;
        unload(&mut live)?;
        drop(loaded);
    }
    Ok(())
}

/// Where no use is the first of every execution, a place without a number at the span's entry begins them.
pub fn late() -> Outcome {
    const LOW: [u8; 5] = [0xba, 0x10, 0, 0, 0];
    const BEGIN: [&[u8]; 3] = [&[0x89, 0xf8], &[0x89, 0xc1], &[0x83, 0xe1, 1]];
    let mut live = Live::open()?;
    let (base, function) = (kcore::module_base("kerf_test")?, test_symbol("late")?);
    let entry = kcore::find(function, 64, &BEGIN.concat())?;
    let first = kcore::find(function, 64, &LOW)?;
    let other = kcore::find(first + 5, 64, &LOW)?;
    let last = kcore::find(function, 64, &SECOND)?;
    let end = kcore::find(last, 64, &[0x48, 0x09, 0xd0])? + 3;
    let target = test_module()?;
    let span =
        SafeSpan { target, entry: entry - base, ranges: vec![(entry + 1 - base, end - base)], exits: vec![end - base] };
    let goes_on = place(false, Some(8));
    let uses: [Use; 4] = [
        (entry - base, &BEGIN, place(true, Some(8))),
        (first - base, &[&LOW], goes_on),
        (other - base, &[&LOW], goes_on),
        (last - base, &[&SECOND], goes_on),
    ];
    let loaded = load(&mut live, &span, &uses)?;
    write(SPANS, "clear")?;
    write(SPANS, "late 300")?;
    same("calls and those with two values", (counted("calls")?, counted("mixed")?), (300, 0))?;
    ensure(different_values()? > 100, || "the calls do not have different values".into())?;
    let policy = counts(&mut live)?;
    same("decisions", (policy.hits, policy.decided), (900, 900))?;
    unload(&mut live)?;
    drop(loaded);
    let error = load(&mut live, &span, &uses[1..]).err().ok_or("a policy without a beginning was taken")?;
    ensure(error.to_string().contains("that no place begins"), || format!("{error}"))
}

/// More threads than decisions are kept for: those without room use the stock value throughout, until room is made.
pub fn crowd() -> Outcome {
    const THREADS: usize = 1060;
    let mut live = Live::open()?;
    let at = Place::find(Reach::Span)?;
    let uses = both(&at, place(true, Some(16)), place(false, Some(16)));
    let loaded = load(&mut live, &at.span, &uses)?;
    write(SPANS, "clear")?;
    let (hold, ended) = (Mutex::new(()), AtomicUsize::new(0));
    thread::scope(|scope| -> Outcome {
        let _held = hold.lock().map_err(|error| error.to_string())?;
        let call = || {
            let _ = write(SPANS, "call 1 0 0");
            ended.fetch_add(1, Ordering::Relaxed);
            // Alive until the look at the stacks has been tested.
            drop(hold.lock());
        };
        for _ in 0..THREADS {
            thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, call)?;
        }
        while ended.load(Ordering::Relaxed) < THREADS {
            thread::sleep(Duration::from_millis(20));
        }
        let before = counts(&mut live)?;
        println!("  {} of {} places were passed in vain", before.missed, before.hits);
        ensure(before.missed > 0, || "there was room for everybody".into())?;
        wait_for("room for another decision", || {
            let before = counts(&mut live)?.decided;
            let call = || write(SPANS, "call 1 0 0").map_err(|error| error.to_string());
            thread::scope(|other| other.spawn(call).join()).map_err(|_| "a caller panicked")??;
            Ok(counts(&mut live)?.decided > before)
        })
    })?;
    same("calls with two values", counted("mixed")?, 0)?;
    unload(&mut live)?;
    drop(loaded);
    Ok(())
}
