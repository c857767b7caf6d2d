//! The figures of a report, all counted from entries, and the same as lines beside the paper's.

use std::collections::{BTreeMap, BTreeSet};

use kerf_const::entry::{Class, SafeSpan, Span, UpdateKind, from_hex};
use kerf_const::form::Form;
use kerf_const::placement::{Kind, Placement};
use serde::Serialize;

use super::gather::{Gathered, Subject, instructions};
use super::paper;

/// How often each number comes.
pub type Histogram = BTreeMap<u64, usize>;
/// How often each word comes.
pub type Counts = BTreeMap<String, usize>;

/// What a table says of one kernel. Spans and safe spans are those of proved entries.
#[derive(Serialize)]
pub struct Figures {
    /// The kernel's build id.
    pub build_id: String,
    /// The kernel's release.
    pub release: String,
    /// Spans whose image was at hand, so that their bytes were compared.
    pub compared: usize,
    /// All entries.
    pub entries: usize,
    /// Queries of lists that gave no entry.
    pub failed: usize,
    /// Entries by class.
    pub classes: Counts,
    /// Entries by the form in the source.
    pub kinds: Counts,
    /// Entries by the image that holds their code: `vmlinux` or a module.
    pub images: Counts,
    /// Entries by the first directory of the source: all, and those that are proved.
    pub directories: BTreeMap<String, Directory>,
    /// Critical spans.
    pub spans: Spans,
    /// Safe spans.
    pub safe_spans: SafeSpans,
    /// Instructions of the functions that hold spans; `None` without the image.
    pub functions: Option<Histogram>,
    /// Where the numbers go.
    pub placements: Placements,
}

/// Entries of a directory.
#[derive(Default, Serialize)]
pub struct Directory {
    /// All.
    pub entries: usize,
    /// Those of class `proved`.
    pub proved: usize,
}

/// Critical spans.
#[derive(Serialize)]
pub struct Spans {
    /// How many.
    pub count: usize,
    /// Proved entries by the number of their spans.
    pub per_constant: Histogram,
    /// Spans by their instructions.
    pub instructions: Histogram,
    /// Those with a number that is not the value itself.
    pub iv_differs: usize,
    /// Spans by the number of instructions that change.
    pub updates: Histogram,
    /// Those instructions by what they do with the number.
    pub kinds: Counts,
}

/// Safe spans.
#[derive(Serialize)]
pub struct SafeSpans {
    /// How many.
    pub count: usize,
    /// Proved entries by the number of their safe spans.
    pub per_constant: Histogram,
    /// Safe spans by their instructions, those of called functions included.
    pub instructions: Histogram,
    /// The instructions in the middle; `None` if there are none.
    pub median: Option<u64>,
    /// Those as large as the function, since an effect cannot be followed.
    pub widened: usize,
    /// Those that use the value once: a switch in the middle of them changes nothing.
    pub independent: usize,
    /// Entries with fewer safe spans than critical ones.
    pub joined: usize,
}

/// Where the numbers of spans go.
#[derive(Serialize)]
pub struct Placements {
    /// Spans by kind: `immediate`, `detour`, `other`; each is there.
    pub kinds: Counts,
    /// Of those that are not immediate for all values: how many are for some besides the deployed one.
    pub partly_immediate: usize,
    /// Spans at which there can be no detour, which a policy needs.
    pub no_detour: usize,
    /// Each span of kind `other`.
    pub others: Vec<Other>,
}

/// A span without a place for some value.
#[derive(Serialize)]
pub struct Other {
    /// The entry's id.
    pub id: String,
    /// Where, as the kernel prints it: `submit_bio+0x1c`.
    pub place: String,
    /// Why.
    pub reason: String,
}

fn count<T: Ord>(all: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    all.fold(BTreeMap::new(), |mut counts, one| {
        *counts.entry(one).or_default() += 1;
        counts
    })
}

/// The lower of the numbers in the middle.
pub fn median(histogram: &Histogram) -> Option<u64> {
    let half = histogram.values().sum::<usize>().div_ceil(2);
    let mut below = 0;
    let middle = histogram.iter().find(|(_, count)| {
        below += **count;
        below >= half
    });
    middle.map(|(number, _)| *number)
}

/// `3 of 12 (25.0 %)`.
pub fn share(part: usize, whole: usize) -> String {
    if whole == 0 {
        return "none".into();
    }
    format!("{part} of {whole} ({:.1} %)", part as f64 / whole as f64 * 100.0)
}

impl Figures {
    /// Counts.
    pub fn of(gathered: &Gathered) -> Figures {
        let all = &gathered.subjects;
        let proved: Vec<&Subject> = all.iter().filter(|s| s.entry.class == Class::Proved).collect();
        let mut directories: BTreeMap<String, Directory> = BTreeMap::new();
        for Subject { entry, .. } in all {
            let name = entry.file.split_once('/').map_or(entry.file.as_str(), |(first, _)| first);
            let directory = directories.entry(name.into()).or_default();
            directory.entries += 1;
            directory.proved += usize::from(entry.class == Class::Proved);
        }
        let image = |s: &Subject| s.entry.image.module.clone().unwrap_or_else(|| "vmlinux".into());
        Figures {
            build_id: gathered.build_id.clone(),
            release: gathered.release.clone(),
            compared: proved.iter().filter(|s| s.found.compared).map(|s| s.entry.spans.len()).sum(),
            entries: all.len(),
            failed: gathered.failures.len(),
            classes: count(all.iter().map(|s| s.entry.class.word().into())),
            kinds: count(all.iter().map(|s| s.entry.kind.word().into())),
            images: count(all.iter().map(image)),
            directories,
            spans: Spans::of(&proved),
            safe_spans: SafeSpans::of(&proved),
            functions: proved.iter().any(|s| s.found.compared).then(|| functions(&proved)),
            placements: Placements::of(&proved),
        }
    }

    /// What it is, here, and in the paper.
    pub fn lines(&self) -> Vec<Vec<String>> {
        let (spans, safe, placements) = (&self.spans, &self.safe_spans, &self.placements);
        let at_most = |n: u64| spans.per_constant.range(..=n).map(|(_, count)| count).sum::<usize>();
        let constants: usize = spans.per_constant.values().sum();
        let of_spans = |part: usize| share(part, spans.count);
        let several = spans.updates.range(2..).map(|(_, count)| count).sum();
        let longer = spans.instructions.range(2..).map(|(_, count)| count).sum();
        let number = |n: Option<u64>| n.map_or("none".into(), |n| n.to_string());
        let kind = |kind: Kind| of_spans(placements.kinds.get(kind.word()).copied().unwrap_or(0));
        let [one, few, many] = paper::LOCALITY;
        let lines = [
            ("entries", self.entries.to_string(), paper::CONSTANTS.to_string()),
            ("proved", share(constants, self.entries), String::new()),
            ("spans", spans.count.to_string(), paper::SPANS.to_string()),
            ("proved with one span", share(at_most(1), constants), one.into()),
            ("proved with fewer than five", share(at_most(4), constants), few.into()),
            ("proved with more than ten", share(constants - at_most(10), constants), many.into()),
            ("spans of several instructions", of_spans(longer), share(paper::LONGER, paper::SPANS)),
            (
                "spans with a number that is not V",
                of_spans(spans.iv_differs),
                share(paper::OTHER_NUMBERS, paper::SPANS),
            ),
            ("spans with several places to change", of_spans(several), share(paper::TWO_PLACES, paper::SPANS)),
            ("immediate", kind(Kind::Immediate), String::new()),
            ("detour, a jump", kind(Kind::Detour), share(paper::JUMPS, paper::SPANS)),
            ("other (paper: a breakpoint)", kind(Kind::Other), share(paper::BREAKPOINTS, paper::SPANS)),
            ("safe spans", safe.count.to_string(), paper::SAFE_SPANS.to_string()),
            ("their instructions, median", number(safe.median), paper::SAFE_SPAN_MEDIAN.to_string()),
            ("widened to the function", share(safe.widened, safe.count), String::new()),
        ];
        lines.into_iter().map(|(what, here, there)| vec![what.into(), here, there]).collect()
    }
}

/// The instructions of each function once.
fn functions(proved: &[&Subject]) -> Histogram {
    let mut seen = BTreeSet::new();
    let mut sizes = Histogram::new();
    for subject in proved {
        for (span, size) in subject.entry.spans.iter().zip(&subject.found.functions) {
            if let (Some(size), true) = (size, seen.insert((&subject.entry.image.module, span.function_offset))) {
                *sizes.entry(*size).or_default() += 1;
            }
        }
    }
    sizes
}

impl Spans {
    fn of(proved: &[&Subject]) -> Spans {
        let all = || proved.iter().flat_map(|s| &s.entry.spans);
        let code = |span: &Span| instructions(&from_hex(&span.bytes).unwrap_or_default());
        Spans {
            count: all().count(),
            per_constant: count(proved.iter().map(|s| s.entry.spans.len() as u64)),
            instructions: count(all().map(code)),
            iv_differs: all().filter(|span| span.iv.iter().any(|iv| iv.form != Form::Affine { a: 1, b: 0 })).count(),
            updates: count(all().map(|span| span.updates.len() as u64)),
            kinds: count(all().flat_map(|span| &span.updates).map(|update| update_word(update.kind).into())),
        }
    }
}

/// The word for what an instruction does with its number.
pub fn update_word(kind: UpdateKind) -> &'static str {
    match kind {
        UpdateKind::Overwrite => "overwrite",
        UpdateKind::Reverse => "reverse",
        UpdateKind::Capture => "capture",
        UpdateKind::Flags => "flags",
        UpdateKind::Store => "store",
    }
}

impl SafeSpans {
    fn of(proved: &[&Subject]) -> SafeSpans {
        let all = || proved.iter().flat_map(|s| &s.entry.safe_spans);
        let instructions: Histogram = count(all().map(|span| u64::from(span.instructions)));
        SafeSpans {
            count: all().count(),
            per_constant: count(proved.iter().map(|s| s.entry.safe_spans.len() as u64)),
            median: median(&instructions),
            instructions,
            widened: all().filter(|span| span.widened.is_some()).count(),
            independent: all().filter(|span| SafeSpan::is_independent(span)).count(),
            joined: proved.iter().filter(|s| s.entry.safe_spans.len() < s.entry.spans.len()).count(),
        }
    }
}

impl Placements {
    fn of(proved: &[&Subject]) -> Placements {
        let all = || {
            proved.iter().flat_map(|s| s.entry.spans.iter().zip(&s.found.placements).map(move |(span, p)| (s, span, p)))
        };
        let mut kinds: Counts = [Kind::Immediate, Kind::Detour, Kind::Other].map(|kind| (kind.word().into(), 0)).into();
        all().for_each(|(_, _, placement)| *kinds.entry(placement.kind.word().into()).or_default() += 1);
        let partly = |p: &Placement| p.kind != Kind::Immediate && p.immediate.is_some_and(|i| i.min < i.max);
        let other = |(subject, span, placement): (&&Subject, &Span, &Placement)| {
            Some(Other {
                id: subject.entry.id.clone(),
                place: format!("{}+{:#x}", span.function, span.start),
                reason: placement.reason.clone()?,
            })
        };
        Placements {
            kinds,
            partly_immediate: all().filter(|(_, _, placement)| partly(placement)).count(),
            no_detour: all().filter(|(_, _, placement)| placement.no_detour.is_some()).count(),
            others: all().filter_map(other).collect(),
        }
    }
}
