//! What can come in the way of a transition: each line of the table in docs/transitions.md.

use std::error::Error;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::thread::{self, JoinHandle};

use kerf_live::{Live, LiveError, Mode, SafeSpan, Target};

use super::tools::*;
use super::transitions::{FIRST, PARK, Place, Reach, SPANS, counted, parked_call, stock_text, switch};
use super::{Outcome, kcore};

/// HOW: the span again, so many deep, and then parked.
const PARK_DEEP: u32 = 400_000;
/// HOW: parked, and then the thread ends inside.
const PARK_EXIT: u32 = 500_000;

/// A switch to 7 in a thread of its own.
struct Switch(JoinHandle<Result<kerf_live::Outcome, String>>);

impl Switch {
    /// Starts it and waits until the gates stand.
    fn start(place: &Place, mode: Mode) -> Result<Switch, Box<dyn Error>> {
        let place = place.clone();
        let setter = thread::spawn(move || {
            let mut live = Live::open().map_err(|error| error.to_string())?;
            switch(&mut live, 7, &place, mode, 60_000).map_err(|error| error.to_string())
        });
        gates()?;
        Ok(Switch(setter))
    }

    fn runs(&self) -> Outcome {
        ensure(!self.0.is_finished(), || "the transition ended although a thread is inside".into())
    }

    fn end(self) -> Result<kerf_live::Outcome, Box<dyn Error>> {
        Ok(self.0.join().map_err(|_| "the setter panicked")??)
    }
}

fn gates() -> Outcome {
    wait_for("the gates", || Ok(kcore::find(test_symbol("span")?, 64, &FIRST).is_err()))
}

/// Back to stock, and a look whether anybody mixed values.
fn end(live: &mut Live, place: &Place) -> Outcome {
    switch(live, 16, place, Mode::Task, 60_000)?;
    same("mixed values", counted("mixed")?, 0)?;
    stock_text(live)
}

fn park_kthread(how: u32) -> Outcome {
    write(SPANS, "clear")?;
    write(SPANS, &format!("workers 1 {how} 1"))?;
    wait_for("a parked kernel thread", || Ok(counted("parked")? > 0))
}

/// A kernel thread is looked at like everybody else, and may end inside.
fn kernel_threads(live: &mut Live, place: &Place) -> Outcome {
    for mode in [Mode::Task, Mode::Global] {
        park_kthread(PARK)?;
        let setter = Switch::start(place, mode)?;
        setter.runs()?;
        // All that it does from now on is not parked any more.
        write(SPANS, "how 20")?;
        write(SPANS, "release")?;
        same("threads inside", setter.end()?.inside, 1)?;
        write(SPANS, "stop")?;
        end(live, place)?;
        write(SPANS, "clear")?;
        write(SPANS, &format!("ending {PARK_EXIT}"))?;
        wait_for("a parked kernel thread", || Ok(counted("parked")? > 0))?;
        let setter = Switch::start(place, mode)?;
        setter.runs()?;
        write(SPANS, "release")?;
        let outcome = setter.end()?;
        ensure(outcome.looks > 0, || "nobody looked for the thread that ended".into())?;
        end(live, place)?;
    }
    Ok(())
}

/// Idle tasks are looked at too: in the idle loop they are for ever.
fn idle(live: &mut Live, place: &Place) -> Outcome {
    let base = live.status()?.text_base;
    let start = kcore::symbol("cpu_startup_entry", None)? - base;
    let mut place = place.clone();
    place.more = vec![SafeSpan {
        target: Target::Kernel,
        entry: start,
        ranges: vec![(start + 1, start + 0x40)],
        exits: Vec::new(),
    }];
    for mode in [Mode::Task, Mode::Global] {
        busy(switch(live, 7, &place, mode, 300), &["swapper/", "at cpu_startup_entry+"])?;
        stock_text(live)?;
    }
    Ok(())
}

fn busy(result: Result<kerf_live::Outcome, Box<dyn Error>>, words: &[&str]) -> Outcome {
    let error = match result {
        Ok(outcome) => return Err(format!("a thread is inside for ever, but the switch succeeded: {outcome:?}").into()),
        Err(error) => error.downcast::<LiveError>()?,
    };
    ensure(matches!(*error, LiveError::Busy(_)), || format!("{error:?}"))?;
    says(&error, words)
}

/// Calls within the outer one keep its value, also when they begin after the switch.
fn recursion(live: &mut Live, place: &Place) -> Outcome {
    write(SPANS, "clear")?;
    let call = thread::spawn(move || drop(write(SPANS, &format!("call 1 {} 0", PARK_DEEP + 3))));
    wait_for("a parked call", || Ok(counted("parked")? > 0))?;
    let setter = Switch::start(place, Mode::Task)?;
    write(SPANS, "call 1 0 0")?;
    same("calls outside", counted("seen7")?, 1)?;
    setter.runs()?;
    write(SPANS, "release")?;
    call.join().map_err(|_| "a call panicked")?;
    setter.end()?;
    same("calls inside with the old value", counted("seen16")?, 4)?;
    end(live, place)
}

/// Starts this program again for a part that must die.
fn helper(scenario: &str) -> Result<Child, Box<dyn Error>> {
    Ok(Command::new(std::env::current_exe()?).args(["guest", scenario]).spawn()?)
}

/// Becomes another program while a thread of this one is inside a span.
pub fn executing() -> Outcome {
    let _call = parked_call(0)?;
    wait_for("the order", || Ok(std::fs::exists("/tmp/execute")?))?;
    Err(Command::new("/bin/true").exec().into())
}

/// `exec` ends the process's other threads: the one inside leaves, and nobody waits for it.
fn exec(live: &mut Live, place: &Place) -> Outcome {
    for mode in [Mode::Task, Mode::Global] {
        write(SPANS, "clear")?;
        let _ = std::fs::remove_file("/tmp/execute");
        let mut child = helper("executing")?;
        wait_for("a parked call", || Ok(counted("parked")? > 0))?;
        let setter = Switch::start(place, mode)?;
        setter.runs()?;
        std::fs::write("/tmp/execute", "")?;
        setter.end()?;
        ensure(child.wait()?.success(), || "the program did not become another".into())?;
        end(live, place)?;
    }
    Ok(())
}

/// CPUs go and come while a thread is inside.
fn hotplug(live: &mut Live, place: &Place) -> Outcome {
    for mode in [Mode::Task, Mode::Global] {
        write(SPANS, "clear")?;
        let call = parked_call(2)?;
        let setter = Switch::start(place, mode)?;
        for word in ["0", "1", "0", "1"] {
            write("/sys/devices/system/cpu/cpu1/online", word)?;
        }
        setter.runs()?;
        write(SPANS, "release")?;
        call.join().map_err(|_| "a call panicked")?;
        setter.end()?;
        end(live, place)?;
    }
    Ok(())
}

/// The target module stays as long as a transition runs.
fn unload(live: &mut Live, place: &Place) -> Outcome {
    write(SPANS, "clear")?;
    let call = parked_call(0)?;
    let setter = Switch::start(place, Mode::Global)?;
    let error = run("rmmod", &["kerf_test"]).err().ok_or("the target was unloaded during a transition")?;
    println!("  {error}");
    write(SPANS, "release")?;
    call.join().map_err(|_| "a call panicked")?;
    setter.end()?;
    end(live, place)?;
    run("rmmod", &["kerf_test"])?;
    run("insmod", &["/kerf_test.ko"])
}

/// A livepatched function is refused by the livepatch's name, in every mode.
fn livepatch(live: &mut Live) -> Outcome {
    const ADD: [u8; 3] = [0x83, 0xc0, 0x25];
    let function = test_symbol("limit")? - kcore::module_base("kerf_test")?;
    run("insmod", &["/kerf_test_livepatch.ko"])?;
    let transition = "/sys/kernel/livepatch/kerf_test_livepatch/transition";
    wait_for("the livepatch", || Ok(std::fs::read_to_string(transition)?.trim() == "0"))?;
    for mode in [Mode::Task, Mode::Global] {
        let mut entry = entry("limit", 1, vec![test_location("limit", &ADD, immediate(2, &[1]))?]);
        let ranges = vec![(function + 1, function + 16)];
        entry.spans = vec![SafeSpan { target: test_module()?, entry: function, ranges, exits: Vec::new() }];
        let mut transaction = transaction(live)?;
        transaction.entries.push(entry);
        transaction.mode = mode;
        let error = live.set(&transaction).err().ok_or("a livepatched function was changed")?;
        ensure(matches!(error, LiveError::Owned(_)), || format!("{error:?}"))?;
        says(&error, &["livepatch kerf_test_livepatch"])?;
    }
    write("/sys/kernel/livepatch/kerf_test_livepatch/enabled", "0")?;
    wait_for("the end of the livepatch", || Ok(!std::fs::exists("/sys/kernel/livepatch/kerf_test_livepatch")?))?;
    run("rmmod", &["kerf_test_livepatch"])
}

/// Threads are preempted in trampolines of one constant while another is switched: their stacks can be followed.
fn trampolines(live: &mut Live, place: &Place) -> Outcome {
    write(SPANS, "clear")?;
    let late = place.late()?;
    set(live, late)?;
    let load = || Load::start("/bin/sh", &["-c", &format!("while :; do echo late 20000 > {SPANS}; done")]);
    let loads = (0..6).map(|_| load()).collect::<Result<Vec<_>, _>>()?;
    let mut attempts = 0;
    for n in 0..10 {
        let mode = if n % 2 == 0 { Mode::Task } else { Mode::Global };
        for value in [7, 16] {
            attempts += switch(live, value, place, mode, 20_000)?.attempts;
        }
    }
    drop(loads);
    println!("  20 switches in {attempts} stops while six threads ran through trampolines");
    live.unset_all()?;
    same("mixed values", counted("mixed")?, 0)?;
    stock_text(live)
}

/// Switches until it is killed.
pub fn switching() -> Outcome {
    let mode = if std::fs::exists("/tmp/globally")? { Mode::Global } else { Mode::Task };
    switch(&mut Live::open()?, 7, &Place::find(Reach::Span)?, mode, 60_000).map(drop)
}

/// The writer dies in the middle: everything is as before.
fn killed(live: &mut Live, place: &Place) -> Outcome {
    for mode in [Mode::Task, Mode::Global] {
        if mode == Mode::Global {
            std::fs::write("/tmp/globally", "")?;
        }
        write(SPANS, "clear")?;
        let call = parked_call(1)?;
        let mut child = helper("switching")?;
        gates()?;
        child.kill()?;
        child.wait()?;
        stock_text(live)?;
        write(SPANS, "release")?;
        call.join().map_err(|_| "a call panicked")?;
        same("mixed and old values", (counted("mixed")?, counted("seen16")?), (0, 1))?;
        switch(live, 7, place, mode, 60_000)?;
        end(live, place)?;
    }
    Ok(())
}

/// Without gates a switch waits until nobody is inside.
fn without_gates(live: &mut Live, place: &Place) -> Outcome {
    let mut place = place.clone();
    place.gates = false;
    for mode in [Mode::Task, Mode::Global] {
        write(SPANS, "clear")?;
        let call = parked_call(0)?;
        busy(switch(live, 7, &place, mode, 200), &["kerf_test_span+"])?;
        stock_text(live)?;
        let own = place.clone();
        let setter = thread::spawn(move || {
            let mut live = Live::open().map_err(|error| error.to_string())?;
            switch(&mut live, 7, &own, mode, 60_000).map_err(|error| error.to_string())
        });
        write(SPANS, "call 20 0 0")?;
        same("calls with the old value", counted("seen16")?, 20)?;
        write(SPANS, "release")?;
        call.join().map_err(|_| "a call panicked")?;
        setter.join().map_err(|_| "the setter panicked")??;
        write(SPANS, "call 1 0 0")?;
        same("calls with the new value", counted("seen7")?, 1)?;
        switch(live, 16, &place, mode, 60_000)?;
        same("mixed values", counted("mixed")?, 0)?;
        stock_text(live)?;
    }
    Ok(())
}

/// All of them, one after the other.
pub fn all() -> Outcome {
    let mut live = Live::open()?;
    let place = Place::find(Reach::Span)?;
    let named = |name: &str, outcome: Outcome| outcome.map_err(|error| format!("{name}: {error}"));
    named("kernel threads", kernel_threads(&mut live, &place))?;
    named("idle", idle(&mut live, &place))?;
    named("recursion", recursion(&mut live, &place))?;
    named("exec", exec(&mut live, &place))?;
    named("hotplug", hotplug(&mut live, &place))?;
    named("trampolines", trampolines(&mut live, &place))?;
    named("killed", killed(&mut live, &place))?;
    named("without gates", without_gates(&mut live, &place))?;
    named("livepatch", livepatch(&mut live))?;
    named("unload", unload(&mut live, &place))?;
    Ok(())
}
