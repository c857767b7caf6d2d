//! Safe spans by data flow: the forward thin slice of what each critical span computes, up into callers where results carry the value.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use kerf_image::Image;
use kerf_semantics::slice::{Origin, Outcome, Role};

use super::follow::{Follower, Summary};
use super::program::{Function, Program};
use super::region::{self, Graph, Piece};
use super::{Analysis, Variables, WholeFunctions, steps};
use crate::build::text_base;
use crate::entry::{Begin, Entry, SafeSpan, Window, to_hex};
use crate::error::ConstError;

/// So far up results are followed into callers.
const MOST_ABOVE: usize = 3;
/// A function with more callers than this counts as one whose callers are not known.
const MOST_CALLERS: usize = 24;

/// Follows data, not control.
#[derive(Clone, Debug, Default)]
pub struct ThinSlices {
    /// What the source's variables point to, where a unit was compiled with debug information.
    pub variables: Variables,
}

impl Analysis for ThinSlices {
    fn safe_spans(&self, image: &Image, entry: &Entry) -> Result<Vec<SafeSpan>, ConstError> {
        let Some(program) = Program::of(image)?.filter(|_| entry.image.module.is_none()) else {
            return WholeFunctions.safe_spans(image, entry);
        };
        let mut job = Job {
            entry,
            base: text_base(image),
            follower: Follower::new(&program, &self.variables),
            found: BTreeMap::new(),
            results: BTreeMap::new(),
        };
        for n in 0..entry.spans.len() {
            job.critical(n)?;
        }
        Ok(job.safe_spans())
    }
}

/// What is known of one function: its pieces with the critical spans that they belong to.
#[derive(Default)]
struct Found {
    pieces: Vec<(Piece, BTreeSet<usize>)>,
    summaries: Vec<Rc<Summary>>,
    /// Where the value comes into it: windows of critical spans, and calls whose result carries it.
    starts: BTreeSet<u64>,
    widened: Option<String>,
    beyond: BTreeSet<u64>,
}

struct Job<'a> {
    entry: &'a Entry,
    base: u64,
    follower: Follower<'a>,
    found: BTreeMap<u64, Found>,
    /// What becomes of what comes out of a call, by the call's address: for several critical spans it is the same.
    results: BTreeMap<(u64, Outcome), Rc<Summary>>,
}

impl Job<'_> {
    fn function(&self, address: u64, name: &str) -> Result<Rc<Function>, ConstError> {
        self.follower.program.function_with(address).ok_or_else(|| {
            let why = format!("the image has no code for {name}");
            ConstError::Damaged { id: self.entry.label().into(), why }
        })
    }

    /// Slices from one critical span.
    fn critical(&mut self, n: usize) -> Result<(), ConstError> {
        let Some(span) = self.entry.spans.get(n) else { return Ok(()) };
        let start = self.base + span.function_offset;
        let function = self.function(start, &span.function)?;
        let begin = self.start(n).unwrap_or(start);
        let sources = span.iv.iter().map(|iv| start + iv.offset).collect();
        let summary = Rc::new(self.follower.follow(&function, &Origin { sources, ..Origin::default() }));
        self.add(&function, n, begin, summary, 0);
        Ok(())
    }

    /// What becomes of what comes out of a call.
    fn result(&mut self, caller: &Rc<Function>, call: u64, outcome: &Outcome) -> Rc<Summary> {
        let follow = || {
            let origin = Origin { calls: BTreeMap::from([(call, outcome.clone())]), ..Origin::default() };
            Rc::new(self.follower.follow(caller, &origin))
        };
        self.results.entry((call, outcome.clone())).or_insert_with(follow).clone()
    }

    /// Adds the part of a function that carries the value; results go on in the callers.
    fn add(&mut self, function: &Rc<Function>, n: usize, begin: u64, summary: Rc<Summary>, above: usize) {
        // A result that its caller throws away.
        if above > 0 && summary.slice.inside.is_empty() {
            return;
        }
        let mut widened = summary.escapes.first().cloned();
        if summary.outcome != Outcome::default() {
            let why = self.add_callers(function, n, above, &summary.outcome);
            widened = widened.or(why);
        }
        let mut piece = Piece { begins: BTreeSet::from([begin]), inside: summary.slice.inside.clone() };
        if widened.is_some() {
            piece = Piece { begins: BTreeSet::from([function.begin]), inside: region::whole(function) };
        }
        let found = self.found.entry(function.body.entry).or_default();
        found.pieces.push((piece, BTreeSet::from([n])));
        found.starts.insert(begin);
        found.beyond.extend(&summary.beyond);
        // The same result, on its way from another critical span, is no other piece of code.
        if !found.summaries.iter().any(|known| Rc::ptr_eq(known, &summary)) {
            found.summaries.push(summary);
        }
        found.widened = found.widened.take().or(widened);
    }

    /// The callers that a result, or what arguments point to, goes to; why they cannot be told if so.
    fn add_callers(&mut self, function: &Rc<Function>, n: usize, above: usize, outcome: &Outcome) -> Option<String> {
        let name = &function.name;
        if above >= MOST_ABOVE {
            return Some(format!("what {name} gives back goes further up than is followed"));
        }
        let Some(callers) = self.follower.program.callers(function) else {
            return Some(format!("what {name} gives back follows from it, and not all callers are known"));
        };
        if callers.len() > MOST_CALLERS {
            return Some(format!("what {name} gives back follows from it, and {} places call it", callers.len()));
        }
        for ip in callers {
            let Some(caller) = self.follower.program.function_with(ip) else { continue };
            if caller.roles.get(&ip) == Some(&Role::Leave) {
                if !outcome.pointed.is_empty() {
                    return Some(format!(
                        "{} leaves for {name}, which stores it where an argument points to",
                        caller.name
                    ));
                }
                // It hands on what it gets.
                if let Some(why) = self.add_callers(&caller, n, above + 1, outcome) {
                    return Some(why);
                }
                continue;
            }
            let summary = self.result(&caller, ip, outcome);
            self.add(&caller, n, ip, summary, above + 1);
        }
        None
    }

    fn safe_spans(&self) -> Vec<SafeSpan> {
        let mut spans = Vec::new();
        for (address, found) in &self.found {
            let Some(function) = self.follower.program.function(*address) else { continue };
            let graph = Graph::of(&function);
            let groups = region::merged(&graph, found.pieces.clone());
            for (piece, critical, entry, nodes) in groups {
                spans.push(self.safe_span(&function, &graph, found, (piece, critical, entry, nodes)));
            }
        }
        spans
    }

    fn safe_span(
        &self,
        function: &Rc<Function>,
        graph: &Graph,
        found: &Found,
        group: (Piece, BTreeSet<usize>, u64, BTreeSet<u64>),
    ) -> SafeSpan {
        let (piece, critical, entry, nodes) = group;
        let offset = |address: u64| address.wrapping_sub(self.base);
        let own = |summary: &&Rc<Summary>| {
            summary.slice.used.keys().any(|ip| nodes.contains(ip) || piece.begins.contains(ip))
        };
        let summaries: Vec<&Rc<Summary>> = found.summaries.iter().filter(own).collect();
        let mut ranges = region::ranges(function, &nodes);
        for address in &found.beyond {
            ranges.extend(self.follower.program.function(*address).iter().flat_map(|f| f.ranges()));
        }
        ranges.sort_unstable();
        let whole = found.widened.as_ref().filter(|_| piece.begins.contains(&function.begin));
        let below: u32 = summaries.iter().map(|s| s.instructions - s.slice.inside.len() as u32).sum();
        let leaves: BTreeSet<u64> = summaries.iter().flat_map(|s| s.slice.leaves.iter().copied()).collect();
        let starts = found.starts.iter().copied().filter(|ip| *ip == entry || nodes.contains(ip)).collect();
        SafeSpan {
            function: function.name.clone(),
            function_offset: offset(function.body.entry),
            entry: offset(entry),
            ranges: super::program::joined(ranges.into_iter()).iter().map(|(a, b)| (offset(*a), offset(*b))).collect(),
            exits: graph.exits(entry, &nodes, &leaves).into_iter().map(offset).collect(),
            repeated: critical.len() > 1 || graph.uses_twice(&starts, &nodes),
            frames: critical.iter().map(|n| self.frame(function, *n)).collect(),
            begin: self.begin(function, entry, &critical),
            critical: critical.into_iter().collect(),
            instructions: nodes.len() as u32 + if whole.is_some() { 0 } else { below },
            widened: whole.cloned(),
            escapes: self.objects(&summaries),
            slice: steps::of(&self.follower, self.base, function, &summaries),
        }
    }

    /// Where the window of a critical span begins, or the span itself if it has no window.
    fn start(&self, critical: usize) -> Option<u64> {
        let span = self.entry.spans.get(critical)?;
        let start = if span.window.bytes.is_empty() { span.start } else { span.window.start };
        Some(self.base + span.function_offset + start)
    }

    /// Where an execution begins, if it passes critical spans several times and begins at none of them: at the entry, or behind it where
    /// nothing else leads to, such as behind the pushes of a function.
    fn begin(&self, function: &Rc<Function>, entry: u64, critical: &BTreeSet<usize>) -> Option<Begin> {
        let starts: BTreeMap<u64, usize> = critical.iter().filter_map(|n| Some((self.start(*n)?, *n))).collect();
        if starts.contains_key(&entry) {
            return None;
        }
        let offset = |ip: u64| ip.wrapping_sub(function.body.entry);
        // Else a function that is called may be where the constant is used.
        let own = starts.keys().all(|ip| function.body.code.contains_key(ip));
        let (mut at, mut refused) = (entry, None);
        loop {
            let taken = starts.get(&at).map(|n| self.entry.spans[*n].window.clone()).filter(|w| !w.bytes.is_empty());
            let free = || {
                let bytes = self.follower.program.window(function, at)?;
                match starts.range(at..at + bytes.len() as u64).next() {
                    Some((start, _)) => Err(format!("the constant is used at {}+{:#x}", function.name, offset(*start))),
                    None => Ok(Window { start: offset(at), bytes: to_hex(&bytes), refused: String::new() }),
                }
            };
            match taken.map_or_else(free, Ok) {
                Ok(window) => {
                    let stack = self.follower.stack_offset(function, at);
                    let frame = stack.and_then(|stack| u32::try_from(8 - stack).ok());
                    return Some(Begin { window, frame, parameters: Vec::new() });
                }
                Err(why) => refused = refused.or(Some(why)),
            }
            match self.follower.program.straight(function, at, own).filter(|_| !starts.contains_key(&at)) {
                Some(next) => at = next,
                None => break,
            }
        }
        let window = Window { start: offset(entry), bytes: String::new(), refused: refused.unwrap_or_default() };
        Some(Begin { window, frame: None, parameters: Vec::new() })
    }

    /// How far above the stack pointer at a critical span's window the function's frame ends.
    fn frame(&self, function: &Rc<Function>, critical: usize) -> Option<u32> {
        let span = self.entry.spans.get(critical)?;
        if self.base + span.function_offset != function.body.entry {
            return None;
        }
        let offset = self.follower.stack_offset(function, self.start(critical)?)?;
        u32::try_from(8 - offset).ok()
    }

    fn objects(&self, summaries: &[&Rc<Summary>]) -> Vec<String> {
        let numbers: BTreeSet<u32> = summaries.iter().flat_map(|s| s.slice.objects.iter().copied()).collect();
        numbers.into_iter().map(|n| format!("stored in {}", self.follower.object_name(n))).collect()
    }
}
