//! BLK_MAX_REQUEST_COUNT of the stock kernel: requests are unplugged in batches of the value in force.

use std::error::Error;
use std::fs;

use kerf_live::{Entry, Live, Location, Placement, Range, Target};

use super::tools::{TRACING, detour, entry, immediate, run, same, set, write};
use super::{Outcome, kcore};

/// `and $-32, %eax; add $64, %eax`
pub const STOCK: [u8; 6] = [0x83, 0xe0, 0xe0, 0x83, 0xc0, 0x40];
const ID: &str = "block/blk.h:L312:32:0";

/// Offset of the two instructions from `_text`.
pub fn offset(live: &mut Live) -> Result<u64, Box<dyn Error>> {
    let function = kcore::symbol("blk_add_rq_to_plug", None)?;
    Ok(kcore::find(function, 128, &STOCK)? - live.status()?.text_base)
}

fn location(image_offset: u64, stock: &[u8], change: kerf_live::Change) -> Location {
    Location { target: Target::Kernel, image_offset, expected: stock.to_vec(), change }
}

/// The limit in its own immediates: -V and 2V, up to 63.
pub fn by_immediates(offset: u64, value: i8) -> Entry {
    let and = location(offset, &STOCK[..3], immediate(2, &[value.wrapping_neg() as u8]));
    let add = location(offset + 3, &STOCK[3..], immediate(2, &[2 * value as u8]));
    let mut entry = entry(ID, value.into(), vec![and, add]);
    entry.between.push(Range::between(Target::Kernel, offset, offset + 6));
    entry
}

/// The limit in a trampoline, with 32-bit immediates.
pub fn by_detour(offset: u64, value: i32) -> Entry {
    let and = [&[0x81, 0xe0], &(-value).to_le_bytes()[..]].concat();
    let add = [&[0x81, 0xc0], &(2 * value).to_le_bytes()[..]].concat();
    entry(ID, value.into(), vec![location(offset, &STOCK, detour(&[&and, &add]))])
}

/// The sizes of the batches that one io_submit of 256 reads is unplugged in.
fn batches() -> Result<Vec<u32>, Box<dyn Error>> {
    write(&format!("{TRACING}/trace"), "")?;
    run("/submit", &["/dev/nullb0", "1"])?;
    let trace = fs::read_to_string(format!("{TRACING}/trace"))?;
    let sizes = trace.lines().filter_map(|line| line.rsplit_once("block_unplug: [submit] ")?.1.trim().parse().ok());
    Ok(sizes.collect())
}

fn check(what: &str, expected: u32) -> Outcome {
    let sizes = batches()?;
    println!("  {what}: {} batches, the largest of {}", sizes.len(), sizes.iter().max().unwrap_or(&0));
    same(&format!("the batch size, {what},"), sizes.iter().max().copied(), Some(expected))?;
    same(&format!("the sum of batches, {what},"), sizes.iter().sum(), 256)
}

/// 32, 4 by immediates, 128 by a detour, 8 over it, and 32 again.
pub fn plug_limit() -> Outcome {
    let mut live = Live::open()?;
    let offset = offset(&mut live)?;
    write(&format!("{TRACING}/events/block/block_unplug/enable"), "1")?;
    let base = live.status()?.text_base;
    check("stock", 32)?;
    set(&mut live, by_immediates(offset, 4))?;
    check("4 in the immediates", 4)?;
    let first = live.status()?.entries.remove(0);
    same("the placement", first.locations[1].placement, Placement::Immediate)?;
    same("in force", (first.in_force(), first.value, first.locations.len()), (true, 4, 2))?;
    set(&mut live, by_detour(offset, 128))?;
    check("128 by a detour", 128)?;
    let second = live.status()?;
    same("the placement", second.entries[0].locations[0].placement, Placement::Detour)?;
    same("slots in use", second.pool.used, 1)?;
    set(&mut live, by_immediates(offset, 8))?;
    check("8 in the immediates", 8)?;
    live.unset(&[ID])?;
    check("stock again", 32)?;
    same("the text", kcore::read(base + offset, 6)?, STOCK.to_vec())?;
    same("entries", live.status()?.entries.len(), 0)
}
