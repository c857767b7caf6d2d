//! The report of bench `redis`: instructions for a request by the number of constants, set and decided, and where they go.

use super::counts::{Case, Counted, Way};
use super::{POLICY_AT_MOST, POLICY_SIZE};
use crate::page::page;
use maud::{Markup, html};

const TITLE: &str = "Tuned constants on the path of a Redis benchmark";

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 96.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 48.0;

/// What is beside it: the throughput that the Xkernel paper's kprobes cost at most, in percent, by the number of constants.
const PAPER: [(usize, f64); 2] = [(32, 4.0), (128, 14.0)];

/// The file's text.
pub fn html(release: &str, counted: &Counted) -> String {
    let body = html! {
        h1 { (TITLE) }
        p {
            "Linux " (release) " as the distribution ships it, in a virtual machine with one emulated CPU, where a Redis server answers "
            "50 clients over the loopback interface. Every instruction of the machine is counted: " (whole(counted.stock))
            " for a request, server and clients, kernel and user together."
        }
        (plot(counted))
        p.note {
            "Constants are set to a value that makes no difference here, or a policy decides on the stock value each time one is passed. "
            "Lines: what runs in kerf.ko and in the policies. Circles: all instructions against the stock kernel's, the round in the "
            "middle; two rounds of the stock kernel differ by " (short(counted.spread)) " %. Squares: throughput that the Xkernel paper's "
            "kprobes cost on hardware, at most."
        }
        (cases(counted))
        h2 { "Where a policy's instructions are" }
        table {
            tr { th { "function" } th.number { "instructions for each pass" } }
            @for (name, instructions) in &counted.profile {
                tr { td { code { (name) } } td.number { (short(*instructions)) } }
            }
        }
        h2 { "How often each constant is passed" }
        table {
            tr { th { "constant" } th.number { "times in a request" } }
            @for (label, passes) in &counted.each { tr { td { code { (label) } } td.number { (format!("{passes:.3}")) } } }
        }
        p.note { "Made by " code { "cargo xtask bench redis" } "." }
    };
    page(TITLE, &body)
}

fn cases(counted: &Counted) -> Markup {
    html! {
        table {
            tr {
                th { "constants" } th { "by" } th.number { "passes" } th.number { "instructions" } th.number { "in kerf.ko and policies" }
                th.number { "of stock" } th.number { "difference of all" }
            }
            @for case in &counted.cases {
                tr {
                    td { (case.size) } td { (case.way.word()) }
                    td.number { @if case.way == Way::Policy { (short(case.passes)) } }
                    td.number { (whole(case.instructions)) } td.number { (short(case.kerf)) }
                    td.number { (short(counted.overhead(case))) " %" } td.number { (short(counted.difference(case))) " %" }
                }
            }
        }
    }
}

/// The scales: the number's logarithm, and percent.
struct Axes {
    low: f64,
    high: f64,
    doublings: f64,
}

impl Axes {
    fn new(counted: &Counted) -> Axes {
        let seen = counted.cases.iter().flat_map(|case| [counted.overhead(case), counted.difference(case)]);
        let all: Vec<f64> =
            seen.chain(PAPER.map(|(_, percent)| percent)).filter(|percent| percent.is_finite()).collect();
        let (low, high) = (all.iter().copied().fold(0.0, f64::min), all.iter().copied().fold(1.0, f64::max));
        let largest = counted.cases.iter().map(|case| case.size).chain(PAPER.map(|(size, _)| size)).max().unwrap_or(1);
        Axes { low: low.floor(), high: high.ceil(), doublings: (largest as f64).log2().max(1.0) }
    }

    fn x(&self, size: usize) -> f64 {
        LEFT + (size.max(1) as f64).log2() / self.doublings * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, percent: f64) -> f64 {
        HEIGHT - BOTTOM - (percent - self.low) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)
    }
}

fn plot(counted: &Counted) -> Markup {
    let axes = Axes::new(counted);
    let sizes: std::collections::BTreeSet<usize> =
        counted.cases.iter().map(|case| case.size).chain(PAPER.map(|(size, _)| size)).collect();
    let step = ((axes.high - axes.low) / 8.0).ceil().max(1.0);
    let lines = (0..=((axes.high - axes.low) / step) as u32).map(|n| axes.low + f64::from(n) * step);
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label="Instructions more for a request, by the number of constants" {
            @for percent in lines {
                @let y = number(axes.y(percent));
                line class="grid" x1=(LEFT) x2=(WIDTH - RIGHT) y1=(y) y2=(y) {}
                text class="tick" x=(LEFT - 8.0) y=(y) dy="0.35em" text-anchor="end" { (percent) " %" }
            }
            @for size in sizes {
                text class="tick" x=(number(axes.x(size))) y=(HEIGHT - BOTTOM + 20.0) text-anchor="middle" { (size) }
            }
            text class="tick" x="4" y="14" { "more for a request" }
            text class="tick" x=(WIDTH - RIGHT) y=(HEIGHT - 6.0) text-anchor="end" { "constants on the path" }
            @for way in [Way::Set, Way::Policy] { (line(counted, &axes, way)) }
            @for (size, percent) in PAPER {
                rect fill="#a40000" x=(number(axes.x(size) - 4.0)) y=(number(axes.y(percent) - 4.0)) width="8" height="8" {}
                text class="tick" x=(number(axes.x(size) + 10.0)) y=(number(axes.y(percent))) dy="0.35em" { "paper " (percent) " %" }
            }
            text class="tick" x=(number(axes.x(POLICY_SIZE))) y=(number(axes.y(POLICY_AT_MOST))) dy="0.35em" text-anchor="middle" { "×" }
        }
    }
}

fn line(counted: &Counted, axes: &Axes, way: Way) -> Markup {
    let cases: Vec<&Case> = counted.cases.iter().filter(|case| case.way == way).collect();
    let point = |case: &&Case| format!("{},{}", number(axes.x(case.size)), number(axes.y(counted.overhead(case))));
    let points: Vec<String> = cases.iter().map(point).collect();
    html! {
        polyline fill="none" stroke="#1f5f99" stroke-width="2" stroke-dasharray=[(way == Way::Set).then_some("5 4")] points=(points.join(" ")) {}
        @for case in &cases {
            @let x = number(axes.x(case.size));
            circle class="batch" cx=(x) cy=(number(axes.y(counted.overhead(case)))) r="3" {}
            circle fill="none" stroke="#1f5f99" cx=(x) cy=(number(axes.y(counted.difference(case)))) r="5" {}
        }
        @if let Some(last) = cases.last() {
            text class="name" x=(number(axes.x(last.size) + 10.0)) y=(number(axes.y(counted.overhead(last)) - 10.0)) { (way.word()) }
        }
    }
}

fn number(value: f64) -> String {
    format!("{value:.1}")
}

fn short(value: f64) -> String {
    format!("{value:.2}")
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_constants_are_further_right_and_more_instructions_higher() {
        let case = |way, size, kerf| Case { way, size, instructions: 50_000.0 + kerf, kerf, passes: 1.0 };
        let cases = vec![case(Way::Set, 1, 0.0), case(Way::Policy, 1, 100.0), case(Way::Policy, 32, 3000.0)];
        let (each, profile) = (vec![("A".to_owned(), 2.0)], vec![("kerf_enter".to_owned(), 50.0)]);
        let counted = Counted { usable: 32, each, stock: 50_000.0, spread: 0.5, cases, profile };
        let axes = Axes::new(&counted);
        assert!(axes.x(1) == LEFT && axes.x(32) < axes.x(128) && axes.y(6.0) < axes.y(0.2));
        let text = html("6.12", &counted);
        assert!(text.contains("<polyline") && text.contains("6.00 %") && text.contains("paper 14 %"), "{text}");
    }
}
