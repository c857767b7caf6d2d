//! The plots of a report: inline SVG that needs no script.

use maud::{Markup, html};

use super::figures::Histogram;

const WIDTH: f64 = 760.0;
/// A bar with the gap to the next one.
const LINE: f64 = 24.0;
/// Where bars begin, and what is left for the words behind them.
const LEFT: f64 = 200.0;
const RIGHT: f64 = 150.0;
/// The height of a plot with axes, and what is left for their words.
const HEIGHT: f64 = 280.0;
const MARGIN: f64 = 52.0;

/// One bar: what it is, how many, and what is written behind it.
pub struct Bar {
    pub label: String,
    pub count: f64,
    pub words: String,
    /// Whether it is the paper's.
    pub paper: bool,
}

/// Bars below each other, the longest as long as there is room.
pub fn bars(title: &str, bars: &[Bar]) -> Markup {
    let most = bars.iter().map(|bar| bar.count).fold(1e-9, f64::max);
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {}", bars.len().max(1) as f64 * LINE)) role="img" aria-label=(title) {
            @for (n, bar) in bars.iter().enumerate() {
                @let y = n as f64 * LINE + LINE / 2.0;
                @let length = bar.count / most * (WIDTH - LEFT - RIGHT);
                text class="tick" x=(LEFT - 8.0) y=(y) dy="0.35em" text-anchor="end" { (bar.label) }
                rect class=(class(bar.paper)) x=(LEFT) width=(pixel(length)) y=(y - 8.0) height="16" {}
                text class="tick" x=(pixel(LEFT + length + 6.0)) y=(y) dy="0.35em" { (bar.words) }
            }
        }
    }
}

fn class(paper: bool) -> &'static str {
    if paper { "bar paper" } else { "bar" }
}

fn pixel(value: f64) -> String {
    format!("{value:.1}")
}

/// A number of things and the word for it.
pub type Series<'a> = (&'a str, &'a Histogram);

/// Shares of each number from 0 to `last`, and of all above, in columns beside each other.
pub fn columns(title: &str, axis: &str, series: &[Series], last: u64) -> Markup {
    let share = |histogram: &Histogram, from: u64, to: u64| {
        let all: usize = histogram.values().sum();
        histogram.range(from..=to).map(|(_, n)| *n).sum::<usize>() as f64 / all.max(1) as f64
    };
    let groups: Vec<(String, u64, u64)> = (0..=last)
        .map(|n| (n.to_string(), n, n))
        .chain([(format!("> {last}"), last + 1, u64::MAX)])
        .filter(|(_, from, to)| *from > 0 || series.iter().any(|(_, h)| share(h, *from, *to) > 0.0))
        .collect();
    let shares = series.iter().flat_map(|(_, h)| groups.iter().map(|(_, from, to)| share(h, *from, *to)));
    let most = shares.fold(1e-9, f64::max);
    let room = (WIDTH - MARGIN * 2.0) / groups.len() as f64;
    let wide = room * 0.8 / series.len().max(1) as f64;
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(title) {
            (legend(series, axis))
            @for (g, (label, from, to)) in groups.iter().enumerate() {
                @let left = MARGIN + g as f64 * room;
                text class="tick" x=(pixel(left + room / 2.0)) y=(HEIGHT - MARGIN + 16.0) text-anchor="middle" { (label) }
                @for (n, (_, histogram)) in series.iter().enumerate() {
                    @let part = share(histogram, *from, *to);
                    @let height = part / most * (HEIGHT - MARGIN * 2.0);
                    @let x = left + room * 0.1 + n as f64 * wide;
                    rect class=(format!("s{n}")) x=(pixel(x)) width=(pixel(wide)) y=(pixel(HEIGHT - MARGIN - height)) height=(pixel(height)) {}
                    @if part > 0.0 {
                        text class="tick" x=(pixel(x + wide / 2.0)) y=(pixel(HEIGHT - MARGIN - height - 4.0)) text-anchor="middle" {
                            (format!("{:.0}", part * 100.0))
                        }
                    }
                }
            }
        }
    }
}

/// Which colour is what, and what the axis below counts.
fn legend(series: &[Series], axis: &str) -> Markup {
    html! {
        @for (n, (name, _)) in series.iter().enumerate() {
            @let x = MARGIN + n as f64 * 190.0;
            rect class=(format!("s{n}")) x=(x) y="4" width="12" height="12" {}
            text class="tick" x=(x + 18.0) y="14" { (name) }
        }
        text class="tick" x=(WIDTH / 2.0) y=(HEIGHT - 6.0) text-anchor="middle" { (axis) }
    }
}

/// The share of things that are at most as large, over the size on a logarithmic axis.
pub fn cumulative(title: &str, axis: &str, series: &[Series]) -> Markup {
    let most = series.iter().filter_map(|(_, h)| h.keys().next_back()).copied().max().unwrap_or(1).max(10);
    let decades = (most as f64).log10().ceil();
    let x = |size: f64| MARGIN + size.max(1.0).log10() / decades * (WIDTH - MARGIN * 2.0);
    let y = |share: f64| HEIGHT - MARGIN - share * (HEIGHT - MARGIN * 2.0);
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(title) {
            (legend(series, axis))
            @for quarter in 0..=4 {
                @let share = f64::from(quarter) / 4.0;
                line class="grid" x1=(MARGIN) x2=(WIDTH - MARGIN) y1=(pixel(y(share))) y2=(pixel(y(share))) {}
                text class="tick" x=(MARGIN - 6.0) y=(pixel(y(share))) dy="0.35em" text-anchor="end" { (quarter * 25) " %" }
            }
            @for decade in 0..=(decades as i32) {
                @let size = 10f64.powi(decade);
                text class="tick" x=(pixel(x(size))) y=(HEIGHT - MARGIN + 16.0) text-anchor="middle" { (size) }
            }
            @for (n, (_, histogram)) in series.iter().enumerate() {
                @let points = steps(histogram, &x, &y);
                @if !points.is_empty() { polyline class=(format!("line l{n}")) points=(points) {} }
            }
        }
    }
}

/// The corners of a line that rises at each size.
fn steps(histogram: &Histogram, x: &dyn Fn(f64) -> f64, y: &dyn Fn(f64) -> f64) -> String {
    let all: usize = histogram.values().sum();
    let (mut below, mut points) = (0, Vec::new());
    for (size, count) in histogram {
        let (at, before) = (x(*size as f64), y(below as f64 / all.max(1) as f64));
        below += count;
        points.push(format!("{at:.1},{before:.1} {at:.1},{:.1}", y(below as f64 / all.max(1) as f64)));
    }
    points.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_and_words_are_text() {
        let bar = |label: &str, count| Bar { label: label.into(), count, words: "1 & 2".into(), paper: count > 1.0 };
        let svg = bars("a < b", &[bar("<x>", 1.0), bar("y", 2.0)]).into_string();
        assert!(svg.contains("&lt;x&gt;") && svg.contains("1 &amp; 2") && svg.contains("a &lt; b"), "{svg}");
        assert!(svg.contains("width=\"205.0\"") && svg.contains("class=\"bar paper\""), "{svg}");
    }

    #[test]
    fn nothing_can_be_drawn() {
        let none = Histogram::new();
        for svg in [bars("t", &[]), columns("t", "a", &[("s", &none)], 3), cumulative("t", "a", &[("s", &none)])] {
            let svg = svg.into_string();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn the_line_rises_to_the_top() {
        let histogram = Histogram::from([(1, 3), (10, 1)]);
        let points = steps(&histogram, &|size| size, &|share| share);
        assert_eq!(points, "1.0,0.0 1.0,0.8 10.0,0.8 10.0,1.0");
    }
}
