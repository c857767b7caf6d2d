//! Many changes under load: never a mixture of two values, and stock text at the end.

use std::time::{Duration, Instant};
use std::{fmt, fs};

use kerf_live::{Entry, Live, Range};

use super::tools::*;
use super::{Outcome, blocks, kcore, known};

const FIRST: [u8; 3] = [0x83, 0xc0, 0x10];

/// pair with another V, in two trampolines.
fn detoured(value: u8) -> Result<Entry, Box<dyn std::error::Error>> {
    let one = test_location("pair", &[0x83, 0xc0, 0x10, 0x89, 0xf9], detour(&[&[0x83, 0xc0, value], &[0x89, 0xf9]]))?;
    let two =
        test_location("pair", &[0x83, 0xc0, 0x20, 0x31, 0xc9], detour(&[&[0x83, 0xc0, 2 * value], &[0x31, 0xc9]]))?;
    let range = Range::between(one.target.clone(), one.image_offset, two.image_offset + 5);
    let mut entry = entry("pair", value.into(), vec![one, two]);
    entry.between.push(range);
    Ok(entry)
}

/// Two entries that change one immediate each, without a range: the mistake that the engine exists to prevent.
fn control(live: &mut Live) -> Outcome {
    let whole = known::two_immediates("pair", &FIRST, 5)?;
    let mut caught = false;
    for _ in 0..500 {
        for (id, location) in ["first", "second"].into_iter().zip(whole.locations.clone()) {
            set(live, entry(id, 5, vec![location]))?;
        }
        live.unset_all()?;
        caught = shown("mixed")? > 0;
        if caught {
            break;
        }
    }
    ensure(caught, || "the detector does not see a mixture even when there is one".into())
}

/// How much the CPUs were stopped.
#[derive(Default)]
struct Stops {
    switches: u32,
    attempts: u32,
    total: Duration,
    longest: Duration,
}

impl Stops {
    fn add(&mut self, outcome: &kerf_live::Outcome) {
        self.switches += 1;
        self.attempts += outcome.attempts;
        self.total += outcome.stop;
        self.longest = self.longest.max(outcome.stop);
    }
}

impl fmt::Display for Stops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mean = self.total / self.switches.max(1);
        write!(f, "{} switches in {} stops of {mean:.1?} ({:.1?} at most)", self.switches, self.attempts, self.longest)
    }
}

/// Sets pair, or unsets it, however long it takes.
fn switch(live: &mut Live, entry: Option<&Entry>) -> Result<kerf_live::Outcome, Box<dyn std::error::Error>> {
    let mut transaction = transaction(live)?;
    match entry {
        Some(entry) => transaction.entries.push(entry.clone()),
        None => transaction.unset.push("pair".into()),
    }
    transaction.timeout = Duration::from_secs(60);
    Ok(live.set(&transaction)?)
}

/// A constant with two immediates is switched again and again while threads are preempted between them.
pub fn mixing(count: u32) -> Outcome {
    let mut live = Live::open()?;
    write(TEST, "threads 8 1000")?;
    write(TEST, "allow 48 15")?;
    control(&mut live)?;
    write(TEST, "allow 48 15")?;
    std::thread::sleep(Duration::from_millis(100));
    write(TEST, "allow 48 15")?;
    let (immediates, trampolines) = (known::two_immediates("pair", &FIRST, 5)?, detoured(5)?);
    let (start, before) = (Instant::now(), shown("runs")?);
    let mut stops = Stops::default();
    while stops.switches < count {
        for entry in [Some(&immediates), Some(&trampolines), None] {
            stops.add(&switch(&mut live, entry)?);
        }
    }
    let (mixed, runs) = (shown("mixed")?, shown("runs")? - before);
    let seconds = start.elapsed().as_secs_f64();
    println!("  {stops}, {seconds:.1} s, {runs} runs, {mixed} mixed");
    write(TEST, "stop")?;
    same("mixed results", mixed, 0)?;
    ensure(runs > 100, || format!("only {runs} runs"))?;
    let status = live.status()?;
    same("entries and slots", (status.entries.len(), status.pool.used), (0, 0))
}

fn references() -> Result<String, Box<dyn std::error::Error>> {
    Ok(fs::read_to_string("/sys/module/kerf/refcnt")?)
}

/// Objects that the slab allocator has handed out, of the kinds that the module uses.
fn objects() -> Result<i64, Box<dyn std::error::Error>> {
    let text = fs::read_to_string("/proc/slabinfo")?;
    let counts =
        text.lines().filter(|line| line.starts_with("kmalloc-")).filter_map(|line| line.split_whitespace().nth(1));
    Ok(counts.filter_map(|count| count.parse::<i64>().ok()).sum())
}

/// Set, replace, unset under I/O load; the text is byte for byte stock at the end and nothing is left behind.
pub fn cycles(count: u32) -> Outcome {
    let mut live = Live::open()?;
    let (base, size) = (live.status()?.text_base, live.status()?.text_size);
    let offset = blocks::offset(&mut live)?;
    switch_once(&mut live, offset)?;
    let before = (kcore::text_pages(base, size)?, references()?);
    let load: Vec<Load> =
        (0..2).map(|_| Load::start("/submit", &["/dev/nullb0", "1000000"])).collect::<Result<_, _>>()?;
    let (start, slabs) = (Instant::now(), objects()?);
    for _ in 0..count {
        switch_once(&mut live, offset)?;
    }
    println!("  {count} cycles in {:.1} s, {} slab objects more", start.elapsed().as_secs_f64(), objects()? - slabs);
    drop(load);
    let status = live.status()?;
    same("entries and slots", (status.entries.len(), status.pool.used), (0, 0))?;
    let after = (kcore::text_pages(base, size)?, references()?);
    ensure(before.1 == after.1, || "kerf.ko's reference count has changed".into())?;
    let pages: Vec<u64> = (0..before.0.len())
        .filter(|&page| before.0[page] != after.0[page])
        .map(|page| base + 4096 * page as u64)
        .collect();
    ensure(pages.is_empty(), || format!("text differs in the pages {pages:x?}"))?;
    let left = objects()? - slabs;
    ensure(left < i64::from(count).max(2000), || format!("{left} slab objects are left"))
}

fn switch_once(live: &mut Live, offset: u64) -> Outcome {
    set(live, blocks::by_immediates(offset, 4))?;
    set(live, blocks::by_detour(offset, 128))?;
    live.unset_all()?;
    Ok(())
}
