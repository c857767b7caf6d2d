//! Other owners of the same text, coming and going in every order: the text stays right, or the refusal names them.

use std::fs;

use kerf_live::{Change, Entry, Live, LiveError, State};

use super::tools::*;
use super::{Outcome, blocks, kcore};

/// `add $0x25, %eax` of kerf_test_limit(), with the `mov %edi, %eax` before it for a detour.
const STOCK: [u8; 5] = [0x89, 0xf8, 0x83, 0xc0, 0x25];

fn by_immediate(value: u8) -> Result<Entry, Box<dyn std::error::Error>> {
    Ok(entry("limit", value.into(), vec![test_location("limit", &STOCK, immediate(4, &[value]))?]))
}

fn by_detour(value: u32) -> Result<Entry, Box<dyn std::error::Error>> {
    let add = [&[0x81, 0xc0], &value.to_le_bytes()[..]].concat();
    let change: Change = detour(&[&STOCK[..2], &add]);
    Ok(entry("limit", value.into(), vec![test_location("limit", &STOCK, change)?]))
}

fn limit(expected: i64) -> Outcome {
    same("limit", shown("limit")?, expected)
}

/// A probe through tracefs, with a count of its hits.
struct Probe(&'static str);

impl Probe {
    fn define(place: &str) -> Result<Probe, Box<dyn std::error::Error>> {
        write(&format!("{TRACING}/kprobe_events"), &format!("p:kerf/probe {place}"))?;
        Ok(Probe("kerf/probe"))
    }

    fn enable(&self, on: bool) -> Outcome {
        write(&format!("{TRACING}/events/{}/enable", self.0), if on { "1" } else { "0" })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.enable(false);
        let _ = fs::write(format!("{TRACING}/kprobe_events"), "-:kerf/probe");
    }
}

fn hits() -> Result<u64, Box<dyn std::error::Error>> {
    let profile = fs::read_to_string(format!("{TRACING}/kprobe_profile"))?;
    Ok(profile.split_whitespace().nth(1).unwrap_or("0").parse()?)
}

fn state(live: &mut Live) -> Result<(State, String), Box<dyn std::error::Error>> {
    let entry = live.status()?.entries.into_iter().next().ok_or("nothing is set")?;
    let location = entry.locations.into_iter().next().ok_or("no location")?;
    Ok((location.state, location.owner))
}

fn owned(live: &mut Live, entry: Entry, words: &[&str]) -> Outcome {
    let error = refused(live, entry)?;
    ensure(matches!(error, LiveError::Owned(_)), || format!("{error:?}"))?;
    says(&error, words)
}

/// Probes before us, on us, and on our jump.
pub fn kprobes() -> Outcome {
    let mut live = Live::open()?;
    let window = kcore::find(test_symbol("limit")?, 64, &STOCK)? - test_symbol("limit")?;
    let (start, add) =
        (format!("kerf_test:kerf_test_limit+{window}"), format!("kerf_test:kerf_test_limit+{}", window + 2));
    let (small, large) = (by_immediate(40)?, by_detour(400)?);
    for enabled in [false, true] {
        let probe = Probe::define(&add)?;
        probe.enable(enabled)?;
        if enabled {
            owned(&mut live, small.clone(), &["kprobe at kerf_test_limit+0x"])?;
            owned(&mut live, large.clone(), &["kprobe at kerf_test_limit+0x"])?;
            limit(37)?;
        }
    }
    for (entry, value, place) in [(small, 40, &add), (large, 400, &start)] {
        set(&mut live, entry.clone())?;
        limit(value)?;
        let probe = Probe::define(place)?;
        probe.enable(true)?;
        std::thread::sleep(std::time::Duration::from_millis(100));
        let before = hits()?;
        limit(value)?;
        ensure(hits()? > before, || "the probe on our code is not hit".into())?;
        let (found, owner) = state(&mut live)?;
        ensure(owner.contains("kprobe at kerf_test_limit"), || format!("{found:?} {owner}"))?;
        ensure(live.status()?.entries[0].in_force(), || "a probed location is in force".into())?;
        says(&live.unset(&["limit"]).err().ok_or("unset under a probe")?, &["kprobe at kerf_test_limit+0x"])?;
        owned(&mut live, entry, &["kprobe at kerf_test_limit+0x"])?;
        limit(value)?;
        drop(probe);
        live.unset(&["limit"])?;
        limit(37)?;
    }
    around_the_jump(&mut live)
}

/// What probes may do next to and within a detour of the stock kernel.
fn around_the_jump(live: &mut Live) -> Outcome {
    let offset = blocks::offset(live)?;
    let in_function = offset + live.status()?.text_base - kcore::symbol("blk_add_rq_to_plug", None)?;
    set(live, blocks::by_detour(offset, 128))?;
    for (at, what) in [(3, "the middle of our jump"), (5, "the int3 behind it")] {
        let probe = Probe::define(&format!("blk_add_rq_to_plug+{}", in_function + at));
        ensure(probe.and_then(|probe| probe.enable(true)).is_err(), || format!("a probe in {what} was accepted"))?;
    }
    let pool = kcore::symbol("kerf_pool", Some("kerf"))?;
    let inside = Probe::define(&format!("{pool:#x}")).and_then(|probe| probe.enable(true));
    ensure(inside.is_err(), || "a probe in the pool was accepted".into())?;
    let behind = Probe::define(&format!("blk_add_rq_to_plug+{}", in_function + 6))?;
    behind.enable(true)?;
    drop(behind);
    live.unset_all()?;
    let before = Probe::define(&format!("blk_add_rq_to_plug+{}", in_function - 2))?;
    before.enable(true)?;
    owned(live, blocks::by_detour(offset, 128), &["kprobe at blk_add_rq_to_plug+0x"])?;
    drop(before);
    let entry_probe = Probe::define("blk_add_rq_to_plug")?;
    entry_probe.enable(true)?;
    set(live, blocks::by_detour(offset, 128))?;
    live.unset_all()?;
    Ok(())
}

/// Function and graph tracer on the changed function: they own its entry only.
pub fn tracers() -> Outcome {
    let mut live = Live::open()?;
    let filter = format!("{TRACING}/set_ftrace_filter");
    let current = format!("{TRACING}/current_tracer");
    for tracer in ["function", "function_graph"] {
        write(&filter, "kerf_test_limit")?;
        for entry in [by_immediate(40)?, by_detour(400)?] {
            let value = entry.value;
            write(&current, tracer)?;
            set(&mut live, entry.clone())?;
            limit(value)?;
            write(&current, "nop")?;
            limit(value)?;
            write(&current, tracer)?;
            live.unset_all()?;
            limit(37)?;
            write(&current, "nop")?;
            set(&mut live, entry)?;
            write(&current, tracer)?;
            limit(value)?;
            write(&current, "nop")?;
            live.unset_all()?;
            limit(37)?;
        }
        let trace = fs::read_to_string(format!("{TRACING}/trace"))?;
        ensure(trace.contains("#"), || "no trace".into())?;
    }
    write(&filter, "")
}

fn livepatch_on() -> Outcome {
    run("insmod", &["/kerf_test_livepatch.ko"])?;
    wait_for("the livepatch", || {
        Ok(fs::read_to_string("/sys/kernel/livepatch/kerf_test_livepatch/transition")?.trim() == "0")
    })
}

fn livepatch_off() -> Outcome {
    write("/sys/kernel/livepatch/kerf_test_livepatch/enabled", "0")?;
    wait_for("the end of the livepatch", || Ok(!fs::exists("/sys/kernel/livepatch/kerf_test_livepatch")?))?;
    run("rmmod", &["kerf_test_livepatch"])
}

/// A livepatch of the function, before, after and between.
pub fn livepatch() -> Outcome {
    let mut live = Live::open()?;
    for entry in [by_immediate(40)?, by_detour(400)?] {
        let value = entry.value;
        livepatch_on()?;
        limit(1000)?;
        owned(&mut live, entry.clone(), &["livepatch kerf_test_livepatch"])?;
        livepatch_off()?;
        set(&mut live, entry.clone())?;
        limit(value)?;
        livepatch_on()?;
        limit(1000)?;
        same("the state", state(&mut live)?, (State::Shadowed, "kerf_test_livepatch".into()))?;
        livepatch_off()?;
        limit(value)?;
        livepatch_on()?;
        live.unset_all()?;
        limit(1000)?;
        livepatch_off()?;
        limit(37)?;
    }
    Ok(())
}
