//! Regions: acyclic pieces of code with one entry and several exits, run symbolically as a whole.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::Instruction;

use crate::error::Unsupported;
use crate::execute::{Flow, step};
use crate::operand::Overrides;
use crate::state::State;
use crate::term::{Arena, Term};

/// The most instructions that one region may execute, whatever the paths.
const STEP_LIMIT: usize = 10_000;

/// The most stores that stay apart in one region: loads look through all of them.
const TERM_LIMIT: usize = 4_000_000;

/// What a region does on the way to one of its exits.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Address at which execution stopped, before executing it.
    pub exit: u64,
    /// 1 for the initial states that get to this exit. The conditions of a region's outcomes exclude each other and
    /// together cover all states.
    pub condition: Term,
    /// The state there; it means something where `condition` is 1.
    pub state: State,
}

/// Runs `code` (ascending addresses) from `entry` until an address of `exits`, on all paths.
///
/// Paths that meet are merged, so the work grows with the instructions and not with the paths. The entry may be an
/// exit too: execution stops when it comes back.
///
/// # Errors
/// Loops, calls, returns, indirect jumps and exceptions inside the region, jumps to an address that is neither in
/// `code` nor an exit, and instructions without semantics.
pub fn run_region(
    arena: &mut Arena,
    initial: State,
    code: &[Instruction],
    entry: u64,
    exits: &BTreeSet<u64>,
    overrides: &Overrides,
) -> Result<Vec<Outcome>, Unsupported> {
    let order = schedule(code, entry, exits)?;
    let terms = arena.len();
    let yes = arena.bool(true);
    let mut pending: BTreeMap<u64, (Term, State)> = BTreeMap::from([(entry, (yes, initial))]);
    let mut done: BTreeMap<u64, (Term, State)> = BTreeMap::new();
    for insn in order {
        let Some((condition, mut state)) = pending.remove(&insn.ip()) else { continue };
        if arena.len() - terms > TERM_LIMIT {
            return refuse(insn.ip(), "the region's terms have become too many");
        }
        let flow = step(arena, &mut state, insn, overrides)?;
        let mut edges = Vec::new();
        match flow {
            Flow::Next => edges.push((insn.next_ip(), yes)),
            Flow::Jump(target) => edges.push((target, yes)),
            Flow::Branch { taken, target } => {
                edges.push((target, taken));
                edges.push((insn.next_ip(), arena.not(taken)));
            }
            other => return refuse(insn.ip(), describe(&other)),
        }
        for (target, taken) in edges {
            let condition = arena.and(condition, taken);
            if arena.as_constant(condition) == Some(0) {
                continue;
            }
            let arrivals = if exits.contains(&target) { &mut done } else { &mut pending };
            let merged = match arrivals.remove(&target) {
                None => (condition, state.clone()),
                Some((before, other)) => {
                    let merged = state.merge(arena, condition, &other);
                    (arena.or(before, condition), merged)
                }
            };
            arrivals.insert(target, merged);
        }
    }
    Ok(done.into_iter().map(|(exit, (condition, state))| Outcome { exit, condition, state }).collect())
}

fn refuse<T>(ip: u64, reason: impl Into<String>) -> Result<T, Unsupported> {
    Err(Unsupported::Region { ip, reason: reason.into() })
}

fn describe(flow: &Flow) -> &'static str {
    match flow {
        Flow::Call(_) => "a call leaves the region; make it an exit",
        Flow::Return => "a return leaves the region; make it an exit",
        Flow::Indirect => "an indirect jump leaves the region; make it an exit",
        _ => "an exception leaves the region; make it an exit",
    }
}

/// The instructions that can be reached, each after all that lead to it.
fn schedule<'a>(
    code: &'a [Instruction],
    entry: u64,
    exits: &BTreeSet<u64>,
) -> Result<Vec<&'a Instruction>, Unsupported> {
    let at = |ip: u64| code.binary_search_by_key(&ip, Instruction::ip).ok();
    let Some(start) = at(entry) else { return refuse(entry, "the entry is not in the code given") };
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; code.len()];
    let mut order = Vec::new();
    // Depth first, with an explicit stack: (instruction, successors still to visit).
    let mut stack = vec![(start, successors(&code[start]))];
    marks[start] = Mark::Open;
    while let Some((here, targets)) = stack.last_mut() {
        let here = *here;
        let Some(target) = targets.pop() else {
            marks[here] = Mark::Done;
            order.push(&code[here]);
            stack.pop();
            continue;
        };
        if exits.contains(&target) {
            continue;
        }
        let Some(next) = at(target) else {
            return refuse(
                code[here].ip(),
                format!("execution goes on at {target:#x}, which is neither code nor an exit"),
            );
        };
        match marks[next] {
            Mark::Open => return refuse(code[here].ip(), format!("there is a loop through {target:#x}")),
            Mark::Done => {}
            Mark::New => {
                if order.len() + stack.len() > STEP_LIMIT {
                    return refuse(target, format!("the region has more than {STEP_LIMIT} instructions"));
                }
                marks[next] = Mark::Open;
                stack.push((next, successors(&code[next])));
            }
        }
    }
    order.reverse();
    Ok(order)
}

/// Where an instruction can go; what leaves in other ways is refused when it is executed.
fn successors(insn: &Instruction) -> Vec<u64> {
    use iced_x86::FlowControl;
    match insn.flow_control() {
        FlowControl::Next => vec![insn.next_ip()],
        FlowControl::UnconditionalBranch => vec![insn.near_branch_target()],
        FlowControl::ConditionalBranch => vec![insn.next_ip(), insn.near_branch_target()],
        _ => Vec::new(),
    }
}
