//! The page: one HTML file with its style and script inside, which needs nothing from elsewhere.

use kerf_const::placement::Kind;
use maud::{Markup, PreEscaped, html};

use super::figures::{Counts, Figures, Histogram, share};
use super::gather::Gathered;
use super::plots::{self, Bar};
use super::{paper, rows};

const STYLE: &str = include_str!("../../../data/report.css");
const SCRIPT: &str = include_str!("../../../data/report.js");

/// Numbers of spans that have a column of their own.
const COLUMNS: u64 = 10;
const COLUMNS_AXIS: &str = "spans of a constant; above the columns, per cent of these constants";

/// Directories that have a bar of their own.
const DIRECTORIES: usize = 14;

/// The file's text.
pub fn html(gathered: &Gathered, figures: &Figures) -> String {
    let title = format!("Constants of Linux {}", figures.release);
    let body = html! {
        h1 { (title) }
        (introduction(figures))
        (what_they_are(figures))
        (spans(figures))
        (numbers(figures))
        (placements(figures))
        (rows::table(&gathered.subjects))
        (failures(gathered))
        script { (PreEscaped(SCRIPT)) }
    };
    kerf_trial::document(&title, STYLE, &body)
}

fn introduction(figures: &Figures) -> Markup {
    let proved = figures.classes.get("proved").copied().unwrap_or(0);
    html! {
        p {
            (figures.entries) " constants of build " code { (figures.build_id) } ", "
            (share(proved, figures.entries)) " proved: these can be set while the kernel runs. "
            a href="#entries" { "All of them" } " are below, to search and to sort. "
            @if figures.failed > 0 {
                (figures.failed) " more could not be built and are " a href="#failures" { "listed last" } ". "
            }
            @if figures.functions.is_none() {
                "The kernel's image was not at hand: bytes were not compared with it, and sizes of functions are not "
                "shown."
            } @else {
                "The bytes of " (share(figures.compared, figures.spans.count))
                " spans were compared with the kernel's image."
            }
        }
        p.note {
            "All figures are counted from these entries, but for the dashed bars and what is said to be the "
            "paper's: those are what "
            em { "Xkernel" } " gives for its " (paper::CONSTANTS) " constants and " (paper::SPANS)
            " critical spans in another kernel, chosen by its authors. The lists differ, so the figures can "
            "only be laid beside each other."
        }
    }
}

/// A bar for each word, the most frequent first.
fn counted(counts: &Counts, whole: usize) -> Vec<Bar> {
    let mut sorted: Vec<(&String, &usize)> = counts.iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let bar = |(label, count): (&String, &usize)| own(label, *count, share(*count, whole));
    sorted.into_iter().map(bar).collect()
}

fn own(label: &str, count: usize, words: String) -> Bar {
    Bar { label: label.into(), count: count as f64, words, paper: false }
}

/// As a share, to be laid beside the paper's.
fn part(label: &str, part: usize, whole: usize, paper: bool) -> Bar {
    let count = part as f64 / whole.max(1) as f64;
    Bar { label: label.into(), count, words: share(part, whole), paper }
}

fn what_they_are(figures: &Figures) -> Markup {
    let modules: usize = figures.images.iter().filter(|(name, _)| *name != "vmlinux").map(|(_, count)| count).sum();
    let places = Counts::from([("vmlinux".into(), figures.entries - modules), ("modules".into(), modules)]);
    let mut directories: Vec<_> = figures.directories.iter().collect();
    directories.sort_by(|a, b| b.1.entries.cmp(&a.1.entries).then(a.0.cmp(b.0)));
    let bars: Vec<Bar> = directories
        .iter()
        .take(DIRECTORIES)
        .map(|(name, found)| own(name, found.entries, format!("{}, {} proved", found.entries, found.proved)))
        .collect();
    html! {
        h2 { "What they are" }
        p.note {
            "After the paper's figure 15. Its four kinds of constants (threshold, interval, batch size, "
            "factor) are a reader's judgement and are not in the entries."
        }
        h3 { "Class" }
        (plots::bars("Entries by class", &counted(&figures.classes, figures.entries)))
        h3 { "Form in the source" }
        (plots::bars("Entries by the form in the source", &counted(&figures.kinds, figures.entries)))
        h3 { "Where the code is" }
        (plots::bars("Entries in the kernel itself and in modules", &counted(&places, figures.entries)))
        h3 { "Part of the source" }
        (plots::bars("Entries by directory", &bars))
        @if directories.len() > DIRECTORIES { p.note { (directories.len() - DIRECTORIES) " more directories." } }
    }
}

fn spans(figures: &Figures) -> Markup {
    let (spans, safe) = (&figures.spans, &figures.safe_spans);
    let mut sizes: Vec<(&str, &Histogram)> =
        vec![("critical spans", &spans.instructions), ("safe spans", &safe.instructions)];
    sizes.extend(figures.functions.as_ref().map(|functions| ("functions with a span", functions)));
    let counts = [("critical spans", &spans.per_constant), ("safe spans", &safe.per_constant)];
    let [one, few, many] = paper::LOCALITY;
    html! {
        h2 { "Spans" }
        p.note {
            "A critical span is a place in the code that the value reaches; a safe span is the code in "
            "which something that follows from it is still going to be used."
        }
        h3 { "How many a proved constant has" }
        (plots::columns("Spans of a constant", COLUMNS_AXIS, &counts, COLUMNS))
        p.note {
            (spans.count) " critical and " (safe.count) " safe spans; " (safe.joined)
            " constants have fewer safe spans than critical ones. The paper's figure 16: "
            (paper::SPANS) " and " (paper::SAFE_SPANS) ", " (paper::JOINED) " constants; one critical span: " (one)
            ", fewer than five: " (few) ", more than ten: " (many) "."
        }
        h3 { "How large they are, in instructions" }
        (plots::cumulative("Sizes of spans", "instructions", &sizes))
        p.note {
            "The share of spans with at most as many instructions; those of called functions that take part "
            "are included for safe spans. "
            "Safe spans have " (safe.median.map_or("no".into(), |n| n.to_string()))
            " in the middle (the paper, figure 17: " (paper::SAFE_SPAN_MEDIAN) "), "
            (share(safe.widened, safe.count)) " are widened to their function, and "
            (share(safe.independent, safe.count)) " use the value once. Critical spans of several instructions: "
            (share(spans.instructions.range(2..).map(|(_, n)| n).sum(), spans.count)) " (the paper: "
            (share(paper::LONGER, paper::SPANS)) ")."
        }
    }
}

fn numbers(figures: &Figures) -> Markup {
    let spans = &figures.spans;
    let several = spans.updates.range(2..).map(|(_, count)| count).sum();
    let changed: usize = spans.kinds.values().sum();
    html! {
        h2 { "Numbers" }
        h3 { "Spans with a number that is not the value itself" }
        (plots::bars("Spans with a number that is not the value", &[
            part("here", spans.iv_differs, spans.count, false),
            part("the paper", paper::OTHER_NUMBERS, paper::SPANS, true),
        ]))
        h3 { "Spans that change at more than one place" }
        (plots::bars("Spans that change at more than one place", &[
            part("here", several, spans.count, false),
            part("the paper", paper::TWO_PLACES, paper::SPANS, true),
        ]))
        p.note {
            "Here: spans with several instructions that hold a number; one detour changes them all. The "
            "paper: spans that need a second probe, to undo the first one's change. "
            "By the number of instructions: " (listed(&spans.updates)) "."
        }
        h3 { "What the instruction does with its number" }
        (plots::bars("Instructions by what they do", &counted(&spans.kinds, changed)))
    }
}

/// `1 in 20 spans, 2 in 3`.
fn listed(histogram: &Histogram) -> String {
    let parts: Vec<String> = histogram.iter().map(|(number, count)| format!("{number} in {count}")).collect();
    if parts.is_empty() { "none".into() } else { parts.join(", ") }
}

fn placements(figures: &Figures) -> Markup {
    let (placements, whole) = (&figures.placements, figures.spans.count);
    let of = |kind: Kind| placements.kinds.get(kind.word()).copied().unwrap_or(0);
    html! {
        h2 { "Where the numbers go" }
        (plots::bars("Spans by placement", &[
            part("immediate", of(Kind::Immediate), whole, false),
            part("detour, a jump", of(Kind::Detour), whole, false),
            part("other", of(Kind::Other), whole, false),
            part("the paper: a jump", paper::JUMPS, paper::SPANS, true),
            part("the paper: a breakpoint", paper::BREAKPOINTS, paper::SPANS, true),
        ]))
        p.note {
            "Immediate: the instructions' own fields hold the numbers of every certified value, and nothing "
            "is left in the path. Detour: for some values at least they do not, and a jump to changed "
            "copies is possible. "
            "Other: some values have neither place. " (placements.partly_immediate)
            " of the detours and others are immediate for a part of the domain. At " (placements.no_detour)
            " spans there can be no detour, which a policy needs. Of its optimisation of conditional "
            "branches the paper says that it takes jumps from " (paper::OPTIMISED) "."
        }
        @if !placements.others.is_empty() {
            details {
                summary { "The " (placements.others.len()) " others, with the reason" }
                table.small {
                    @for other in &placements.others {
                        tr { td { a href={ "#" (other.id) } { (other.id) } } td { code { (other.place) } } td { (other.reason) } }
                    }
                }
            }
        }
    }
}

fn failures(gathered: &Gathered) -> Markup {
    html! {
        @if !gathered.failures.is_empty() {
            h2 id="failures" { "What could not be built" }
            table.small {
                @for (query, why) in &gathered.failures { tr { td { code { (query) } } td { (why) } } }
            }
        }
    }
}
