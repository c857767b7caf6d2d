//! Things that come and go while text is changed: modules, kerf.ko itself, CPUs, the process that writes.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kerf_live::{Live, LiveError, State, module};

use super::tools::*;
use super::{Outcome, blocks, kcore, known};

/// Made by the writer when it starts to write.
const READY: &str = "/tmp/ready";
const PAIR: [u8; 3] = [0x83, 0xc0, 0x10];

/// The target module goes away and comes back; kerf.ko is in use while something is set, and restores when it is forced out.
pub fn modules() -> Outcome {
    let mut live = Live::open()?;
    let offset = blocks::offset(&mut live)?;
    let mut both = blocks::by_detour(offset, 128);
    both.locations.push(test_location("pair", &PAIR, immediate(2, &[5]))?);
    set(&mut live, both)?;
    set(&mut live, entry("limit", 1, vec![test_location("limit", &[0x83, 0xc0, 0x25], immediate(2, &[1]))?]))?;
    run("rmmod", &["kerf_test"])?;
    let status = live.status()?;
    same("entries left", status.entries.len(), 1)?;
    same("states", status.entries[0].locations.iter().map(|l| l.state).collect(), vec![State::Ok, State::Unloaded])?;
    run("insmod", &["/kerf_test.ko"])?;
    same("pair of the new module", shown("pair")?, 48)?;
    live.unset_all()?;
    same("the text", kcore::read(live.status()?.text_base + offset, 6)?, blocks::STOCK.to_vec())?;
    set(&mut live, known::two_immediates("pair", &PAIR, 5)?)?;
    same("pair", shown("pair")?, 15)?;
    drop(live);
    let error = module::unload().err().ok_or("kerf.ko was unloaded with an entry set")?;
    says(&error, &["in use", "unset every entry first"])?;
    run("rmmod", &["-f", "kerf"])?;
    same("pair after kerf.ko was forced out", shown("pair")?, 48)?;
    let error = Live::open().err().ok_or("opened without a module")?;
    ensure(matches!(error, LiveError::NoModule), || format!("{error:?}"))?;
    module::load("/kerf.ko".as_ref())?;
    let mut live = Live::open()?;
    set(&mut live, known::two_immediates("pair", &PAIR, 5)?)?;
    live.unset_all()?;
    drop(live);
    module::unload()?;
    ensure(!module::is_loaded(), || "kerf.ko is still loaded".into())?;
    module::load("/kerf.ko".as_ref())?;
    Ok(())
}

/// CPUs go and come while entries are set and unset.
pub fn hotplug(count: u32) -> Outcome {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let plug = scope.spawn(|| -> Result<u32, String> {
            let mut turns = 0;
            while !stop.load(Ordering::Relaxed) {
                for word in ["0", "1"] {
                    write("/sys/devices/system/cpu/cpu1/online", word).map_err(|error| error.to_string())?;
                }
                turns += 1;
            }
            Ok(turns)
        });
        let result = switch(count);
        stop.store(true, Ordering::Relaxed);
        let turns = plug.join().map_err(|_| "the plugging thread panicked")??;
        println!("  {count} switches while a CPU went and came {turns} times");
        result.and_then(|()| ensure(turns > 0, || "no CPU went".into()))
    })
}

fn switch(count: u32) -> Outcome {
    let mut live = Live::open()?;
    let offset = blocks::offset(&mut live)?;
    for _ in 0..count {
        set(&mut live, blocks::by_immediates(offset, 4))?;
        set(&mut live, blocks::by_detour(offset, 128))?;
        live.unset_all()?;
    }
    same("the text", kcore::read(live.status()?.text_base + offset, 6)?, blocks::STOCK.to_vec())
}

/// Sets and unsets until it is killed.
pub fn writer() -> Outcome {
    let mut live = Live::open()?;
    let offset = blocks::offset(&mut live)?;
    std::fs::write(READY, "")?;
    loop {
        set(&mut live, blocks::by_immediates(offset, 4))?;
        live.unset_all()?;
    }
}

/// The writer is killed at ten different moments: what is left is all of it or nothing, and the status says which.
pub fn killed() -> Outcome {
    let mut live = Live::open()?;
    let address = blocks::offset(&mut live)? + live.status()?.text_base;
    let tuned: [u8; 6] = [0x83, 0xe0, 0xfc, 0x83, 0xc0, 0x08];
    let mut seen = [0; 2];
    for moment in 0..10 {
        let mut child = Command::new("/init").args(["guest", "kill-writer"]).spawn()?;
        wait_for("the writer", || Ok(std::fs::exists(READY)?))?;
        std::fs::remove_file(READY)?;
        std::thread::sleep(Duration::from_micros(3_000 + moment * 23_000));
        child.kill()?;
        child.wait()?;
        let status = live.status()?;
        let text = kcore::read(address, 6)?;
        let set = status.entries.len();
        ensure(text == if set == 1 { tuned } else { blocks::STOCK }, || format!("{set} entries, but {text:02x?}"))?;
        ensure(status.entries.iter().all(|entry| entry.in_force()), || format!("{status:?}"))?;
        seen[set] += 1;
        live.unset_all()?;
    }
    println!("  killed ten times: {} stock, {} tuned", seen[0], seen[1]);
    Ok(())
}

/// The image holds the changed text and the module that knows of it; `test_resume` comes back from it without a reboot.
pub fn hibernation() -> Outcome {
    let mut live = Live::open()?;
    let offset = blocks::offset(&mut live)?;
    set(&mut live, blocks::by_detour(offset, 128))?;
    wait_for("the disk", || Ok(std::fs::exists("/dev/vda")?))?;
    run("mkswap", &["/dev/vda"])?;
    run("swapon", &["/dev/vda"])?;
    let device = std::fs::read_to_string("/sys/block/vda/dev")?;
    write("/sys/power/resume", device.trim())?;
    write("/sys/power/disk", "test_resume")?;
    let before = live.status()?;
    write("/sys/power/state", "disk")?;
    let after = live.status()?;
    same("the entries", after.entries.clone(), before.entries)?;
    ensure(after.entries[0].in_force(), || format!("{after:?}"))?;
    set(&mut live, blocks::by_immediates(offset, 4))?;
    live.unset_all()?;
    same("the text", kcore::read(after.text_base + offset, 6)?, blocks::STOCK.to_vec())
}

/// A new kernel comes with stock text and without the module's entries. The second time round it is that kernel that asks.
pub fn kexec() -> Outcome {
    const MARK: &str = "kerf_test_second";
    let mut live = Live::open()?;
    let offset = blocks::offset(&mut live)?;
    let command_line = std::fs::read_to_string("/proc/cmdline")?;
    if command_line.contains(MARK) {
        same("entries of the new kernel", live.status()?.entries.len(), 0)?;
        return same("its text", kcore::read(live.status()?.text_base + offset, 6)?, blocks::STOCK.to_vec());
    }
    set(&mut live, blocks::by_detour(offset, 128))?;
    run("sh", &["-c", "cd / && find . -xdev | grep -v initrd | cpio -o -H newc > /tmp/initrd"])?;
    run("/kexec", &["/vmlinuz", "/tmp/initrd", &format!("{} {MARK}", command_line.trim())])
}
