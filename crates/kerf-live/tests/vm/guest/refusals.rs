//! What the module must refuse, and how it says so.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;

use kerf_live::{Entry, Live, LiveError, Location, Target, record};

use super::tools::*;
use super::{Outcome, blocks, kcore};

/// Every rule, each by one entry that breaks it.
pub fn all() -> Outcome {
    let mut live = Live::open()?;
    let pages = kcore::text_pages(live.status()?.text_base, live.status()?.text_size)?;
    addresses(&mut live)?;
    sites(&mut live)?;
    forms(&mut live)?;
    detours(&mut live)?;
    records(&mut live)?;
    same("entries", live.status()?.entries.len(), 0)?;
    let after = kcore::text_pages(live.status()?.text_base, live.status()?.text_size)?;
    ensure(pages == after, || "the kernel's text has changed".into())
}

/// Another user than root, and a kernel that is locked down while something is set. The machine is of little use afterwards.
pub fn not_permitted() -> Outcome {
    let nobody = Command::new("/init").args(["guest", "nobody"]).uid(65534).status()?;
    ensure(nobody.success(), || "another user was not refused".into())?;
    let mut live = Live::open()?;
    let offset = blocks::offset(&mut live)?;
    set(&mut live, blocks::by_immediates(offset, 4))?;
    write("/sys/kernel/security/lockdown", "integrity")?;
    let error = refused(&mut live, blocks::by_immediates(offset, 8))?;
    ensure(matches!(error, LiveError::LockedDown), || format!("{error:?}"))?;
    same("the value under lockdown", live.status()?.entries[0].value, 4)?;
    live.unset_all()?;
    same("the text", kcore::read(live.status()?.text_base + offset, 6)?, blocks::STOCK.to_vec())
}

/// What another user meets.
pub fn nobody() -> Outcome {
    let error = Live::open().err().ok_or("opened")?;
    ensure(matches!(error, LiveError::NotPermitted), || format!("{error:?}"))
}

/// A location in the core kernel, with the bytes that are there.
fn here(live: &mut Live, address: u64, len: usize, change: kerf_live::Change) -> Result<Location, Box<dyn Error>> {
    let image_offset = address - live.status()?.text_base;
    Ok(Location { target: Target::Kernel, image_offset, expected: kcore::read(address, len)?, change })
}

fn addresses(live: &mut Live) -> Outcome {
    let offset = blocks::offset(live)?;
    let good = || blocks::by_immediates(offset, 4);
    let edited = |edit: &dyn Fn(&mut Entry)| {
        let mut entry = good();
        edit(&mut entry);
        entry
    };
    let error = refused(live, edited(&|entry| entry.locations[1].expected[2] = 0x41))?;
    ensure(matches!(error, LiveError::Mismatch(_)), || format!("{error:?}"))?;
    says(&error, &["holds 83 c0 40", "not the expected 83 c0 41", "blk_add_rq_to_plug+0x"])?;
    let error = refused(live, edited(&|entry| entry.locations[0].image_offset = live_text_end()))?;
    says(&error, &["outside the text of the kernel", "__init"])?;
    let error = refused(live, edited(&|entry| entry.locations[0].image_offset = u64::MAX))?;
    says(&error, &["outside the text of the kernel"])?;
    let error = refused(live, edited(&|entry| entry.between[0].end = u64::MAX))?;
    says(&error, &["range", "outside the text"])?;
    let other = Target::Module { name: "nonesuch".into(), build_id: "00".parse()? };
    let error = refused(live, edited(&|entry| entry.locations[0].target = other.clone()))?;
    ensure(matches!(error, LiveError::NotFound(_)), || format!("{error:?}"))?;
    let stale = Target::Module { name: "kerf_test".into(), build_id: "00".repeat(20).parse()? };
    let error = refused(live, edited(&|entry| entry.locations[0].target = stale.clone()))?;
    ensure(matches!(error, LiveError::OtherKernel(_)), || format!("{error:?}"))?;
    let itself = kerf_live::LoadedModule::find("kerf")?.target();
    says(&refused(live, edited(&|entry| entry.locations[0].target = itself.clone()))?, &["does not change itself"])?;
    let mut transaction = transaction(live)?;
    transaction.build_id = "ab".repeat(20).parse()?;
    transaction.entries.push(good());
    let error = live.set(&transaction).err().ok_or("another kernel's entry was set")?;
    ensure(matches!(error, LiveError::OtherKernel(_)), || format!("{error:?}"))?;
    let error = live.unset(&["nothing"]).err().ok_or("unset of nothing")?;
    ensure(matches!(error, LiveError::NotFound(_)), || format!("{error:?}"))?;
    dry_run(live, good())
}

/// Just behind `_etext`, as far as the lab's kernels go.
fn live_text_end() -> u64 {
    0x1000_0000
}

fn dry_run(live: &mut Live, entry: Entry) -> Outcome {
    let mut transaction = transaction(live)?;
    transaction.entries.push(entry);
    transaction.dry_run = true;
    let outcome = live.set(&transaction)?;
    ensure(outcome.attempts == 1 && outcome.tasks > 10, || format!("{outcome:?}"))?;
    same("entries after a dry run", live.status()?.entries.len(), 0)
}

/// Code that others own or that nobody may change.
fn sites(live: &mut Live) -> Outcome {
    let function = kcore::symbol("blk_add_rq_to_plug", None)?;
    let at_entry = here(live, function, 5, detour(&[&kcore::read(function, 5)?]))?;
    says(&refused(live, entry("ftrace", 0, vec![at_entry]))?, &["owned by an ftrace site"])?;
    let key = kcore::find(function, 256, &[0x48, 0x8b, 0x75, 0x00, 0x66, 0x90])?;
    let at_key = here(live, key, 6, detour(&[&[0x48, 0x8b, 0x75, 0x00], &[0x66, 0x90]]))?;
    says(&refused(live, entry("key", 0, vec![at_key]))?, &["owned by a static key"])?;
    for (name, reason) in
        [("multi_cpu_stop", "multi_cpu_stop"), ("irqentry_enter", "noinstr"), ("unwind_next_frame", "unwind")]
    {
        let function = kcore::symbol(name, None)?;
        let bytes = kcore::read(function, 512)?;
        let addition = bytes.windows(2).position(|pair| pair[0] == 0x83 && pair[1] >= 0xc0 && pair[1] & 7 != 4);
        let Some(at) = addition else {
            println!("  {name}: no instruction to try");
            continue;
        };
        let location = here(live, function + at as u64, 3, immediate(2, &[1]))?;
        says(&refused(live, entry(name, 0, vec![location]))?, &["runs while text is changed", reason])?;
    }
    Ok(())
}

fn refuse_test(live: &mut Live, function: &str, stock: &[u8], change: kerf_live::Change, words: &[&str]) -> Outcome {
    let location = test_location(function, stock, change)?;
    says(&refused(live, entry(function, 0, vec![location]))?, words)
}

/// Fields that are no immediates; windows that are no instructions.
fn forms(live: &mut Live) -> Outcome {
    let not_immediate = ["not within an immediate"];
    refuse_test(live, "pair", &[0x83, 0xc0, 0x10], immediate(0, &[0x81]), &not_immediate)?;
    refuse_test(live, "pair", &[0x83, 0xc0, 0x10], immediate(1, &[0xc1]), &not_immediate)?;
    refuse_test(live, "pair", &[0x83, 0xc0, 0x10], immediate(1, &[0xc0, 4]), &not_immediate)?;
    refuse_test(live, "detour", &[0x73, 0x0b], immediate(1, &[0x0c]), &not_immediate)?;
    refuse_test(live, "pair", &[0x83, 0xc0], immediate(1, &[0xc1]), &["not whole instructions"])?;
    // A window that starts in the middle of `add $0x10, %eax; mov %edi, %ecx`.
    refuse_test(live, "pair", &[0x10, 0x89, 0xf9, 0xff, 0xc9, 0x75], immediate(2, &[0xf8]), &[])?;
    let one = test_location("pair", &[0x83, 0xc0, 0x10], immediate(2, &[1]))?;
    let twice = entry("twice", 0, vec![one.clone(), one]);
    says(&refused(live, twice)?, &["owned by entry twice"])
}

/// Trampolines that are not the relocated instructions with other immediates.
fn detours(live: &mut Live) -> Outcome {
    let add: &[u8] = &[0x83, 0xc0, 0x10, 0x89, 0xf9];
    let neither = ["neither the stock instruction nor it with another immediate"];
    let moved = ["not an instruction that may be moved"];
    refuse_test(live, "pair", add, detour(&[&[0x83, 0xe8, 0x10], &[0x89, 0xf9]]), &neither)?;
    refuse_test(live, "pair", add, detour(&[&[0x83, 0xc1, 0x10], &[0x89, 0xf9]]), &neither)?;
    refuse_test(live, "pair", add, detour(&[&[0x83, 0xc0, 0x10], &[0x89, 0xf8]]), &neither)?;
    refuse_test(live, "pair", add, detour(&[&[0x0f, 0x0b], &[0x89, 0xf9]]), &moved)?;
    refuse_test(live, "pair", add, detour(&[&[0x83, 0xc0, 0x10], &[0xff, 0xe0]]), &moved)?;
    refuse_test(live, "pair", add, detour(&[&[0x83, 0xc0, 0x10]]), &["do not cover the window"])?;
    refuse_test(live, "pair", add, detour(&[&[0x83, 0xc0, 0x10], &[0x89, 0xf9], &[0x90]]), &["do not cover"])?;
    refuse_test(live, "pair", add, detour(&[&[0x83, 0xc0], &[0x89, 0xf9]]), &["does not decode"])?;
    let push: &[u8] = &[0x53, 0xbb, 0x10, 0, 0, 0];
    refuse_test(live, "park", push, detour(&[&push[..1], &push[1..]]), &moved)?;
    let jump: &[u8] = &[0x83, 0xff, 0x20, 0x73, 0x0b];
    let other = detour(&[&[0x81, 0xff, 1, 0, 0, 0], &[0x0f, 0x82, 0, 0, 0, 0]]);
    refuse_test(live, "detour", jump, other, &neither)?;
    let into: &[u8] = &[0x83, 0xc0, 0x10, 0x83, 0xc0, 0x20];
    refuse_test(live, "into", into, detour(&[&into[..3], &into[3..]]), &["into the middle of the window"])?;
    let fault: &[u8] = &[0x8b, 0x07, 0x83, 0xc0, 0x10];
    refuse_test(live, "fault", fault, detour(&[&fault[..2], &fault[2..]]), &["exception table"])?;
    let park = kcore::read(test_symbol("park")?, 32)?;
    let call = park.windows(1).position(|byte| byte[0] == 0xe8).ok_or("park has no call")?;
    let window = park.get(call..call + 8).ok_or("park is short")?;
    refuse_test(live, "park", window, detour(&[&window[..5], &window[5..]]), &moved)
}

/// Broken records: cut at every byte, with every byte changed. None may be taken for something else or hurt the kernel.
fn records(live: &mut Live) -> Outcome {
    let mut transaction = transaction(live)?;
    transaction.entries.push(blocks::by_detour(blocks::offset(live)?, 128));
    transaction.entries.push(entry("low", 5, vec![test_location("pair", &[0x83, 0xc0, 0x10], immediate(2, &[5]))?]));
    transaction.dry_run = true;
    let record = record::encode(&transaction)?;
    let mut device = File::options().read(true).write(true).open("/dev/kerf")?;
    device.write_all(&record)?;
    for cut in 0..record.len() {
        ensure(cut == 0 || device.write(&record[..cut]).is_err(), || format!("a record cut at {cut} was accepted"))?;
    }
    let mut accepted = 0;
    for at in 0..record.len() {
        for bit in 0..8 {
            let mut broken = record.clone();
            broken[at] ^= 1 << bit;
            accepted += u32::from(device.write(&broken).is_ok());
        }
    }
    println!("  of {} records with one bit wrong {accepted} still meant something", record.len() * 8);
    let mut long = record.clone();
    long.resize(record::RECORD_MAX + 1, 0);
    ensure(device.write(&long).is_err(), || "a record of more than a MiB was accepted".into())?;
    live.unset_all()?;
    Ok(())
}
