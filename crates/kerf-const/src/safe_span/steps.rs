//! The instructions of a slice, for people.

use std::collections::BTreeSet;
use std::rc::Rc;

use kerf_semantics::slice::{Carriers, Slice};
use kerf_semantics::{Flag, REGISTER_NAMES};

use super::follow::{Entering, Follower, Summary};
use super::program::Function;
use crate::algebra::disassemble;
use crate::entry::SliceStep;

/// More instructions than this are not listed.
const MOST_STEPS: usize = 400;

/// The instructions that use the value: in the function itself, then in those that it passes the value to.
pub fn of(follower: &Follower, base: u64, function: &Rc<Function>, summaries: &[&Rc<Summary>]) -> Vec<SliceStep> {
    let (mut steps, mut seen) = (Vec::new(), BTreeSet::new());
    for summary in summaries {
        steps.extend(own(follower, base, function, &summary.slice));
        below(follower, base, &summary.below, &mut seen, &mut steps);
    }
    steps.sort_by_key(|step| step.offset);
    steps.dedup_by_key(|step| step.offset);
    steps.truncate(MOST_STEPS);
    steps
}

fn below(
    follower: &Follower,
    base: u64,
    callees: &BTreeSet<(u64, Entering)>,
    seen: &mut BTreeSet<(u64, Entering)>,
    steps: &mut Vec<SliceStep>,
) {
    for (address, entering) in callees {
        if !seen.insert((*address, entering.clone())) || steps.len() > MOST_STEPS {
            continue;
        }
        let Some(function) = follower.program.function(*address) else { continue };
        let summary = follower.summary(*address, entering);
        steps.extend(own(follower, base, &function, &summary.slice));
        below(follower, base, &summary.below, seen, steps);
    }
}

fn own(follower: &Follower, base: u64, function: &Function, slice: &Slice) -> Vec<SliceStep> {
    let step = |(ip, used): (&u64, &Carriers)| {
        let insn = function.body.code.get(ip)?;
        let symbol = follower.program.image.function_at(*ip)?;
        let place = format!("{}+{:#x}", symbol.name, ip - symbol.address);
        let flow = if used.is_empty() { "from the constant".to_owned() } else { names(follower, used) };
        Some(SliceStep {
            offset: ip.wrapping_sub(base),
            place,
            text: disassemble(insn, false),
            flow,
            line: String::new(),
        })
    };
    slice.used.iter().filter_map(step).collect()
}

/// What carries the value, in words.
fn names(follower: &Follower, carriers: &Carriers) -> String {
    let registers = (0..16).filter(|n| carriers.registers & 1 << n != 0).map(|n| REGISTER_NAMES[n].to_owned());
    let flags =
        Flag::ALL.into_iter().filter(|flag| carriers.flags & flag.mask() != 0).map(|flag| flag.name().to_owned());
    let slots = carriers.slots.iter().filter(|slot| !carriers.slots.contains(&(*slot - 1)));
    let slots = slots.map(|slot| format!("frame{}{:#x}", if *slot < 0 { '-' } else { '+' }, slot.unsigned_abs()));
    let objects = carriers.objects.iter().map(|object| follower.object_name(*object));
    let all: Vec<String> = registers.chain(flags).chain(slots).chain(objects).collect();
    format!("from {}", all.join(", "))
}
