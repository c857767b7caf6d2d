//! The plot of batch size over time, as inline SVG that needs no script.

use super::trace::{Batch, Trace};
use maud::{Markup, html};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 44.0;

/// Columns that batches are gathered in; a run has far more batches than pixels.
const COLUMNS: usize = 300;

/// The scales: seconds from the first phase's start, and the size's logarithm, since values differ by powers of two.
struct Axes {
    first: f64,
    last: f64,
    doublings: f64,
}

impl Axes {
    fn new(trace: &Trace) -> Option<Self> {
        let (first, last) = (trace.phases.first()?.start, trace.phases.last()?.end);
        let largest = trace.batches.iter().map(|batch| batch.requests).max()?.max(2);
        Some(Axes { first, last, doublings: f64::from(largest).log2().ceil() + 0.5 })
    }

    fn x(&self, time: f64) -> f64 {
        LEFT + (time - self.first) / (self.last - self.first).max(1e-9) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, requests: f64) -> f64 {
        HEIGHT - BOTTOM - requests.max(1.0).log2() / self.doublings * (HEIGHT - TOP - BOTTOM)
    }

    fn column(&self, time: f64) -> Option<usize> {
        let share = (time - self.first) / (self.last - self.first).max(1e-9);
        (0.0..1.0).contains(&share).then_some((share * COLUMNS as f64) as usize)
    }
}

/// Smallest, middle and largest batch of a column.
struct Column {
    time: f64,
    low: u32,
    middle: u32,
    high: u32,
}

fn columns(axes: &Axes, batches: &[Batch]) -> Vec<Column> {
    let mut gathered: Vec<Vec<u32>> = vec![Vec::new(); COLUMNS];
    for batch in batches {
        if let Some(sizes) = axes.column(batch.time).and_then(|column| gathered.get_mut(column)) {
            sizes.push(batch.requests);
        }
    }
    let width = (axes.last - axes.first) / COLUMNS as f64;
    let column = |(index, mut sizes): (usize, Vec<u32>)| {
        sizes.sort_unstable();
        let (low, high, middle) = (*sizes.first()?, *sizes.last()?, *sizes.get(sizes.len() / 2)?);
        Some(Column { time: axes.first + width * (index as f64 + 0.5), low, middle, high })
    };
    gathered.into_iter().enumerate().filter_map(column).collect()
}

/// The limit in force in a phase.
pub struct Limit {
    /// The limit itself.
    pub requests: u32,
    /// What to call it.
    pub name: String,
    /// Where kerf put it.
    pub placement: String,
}

/// The plot; `limits` has one for each phase.
pub fn plot(trace: &Trace, limits: &[Limit]) -> Markup {
    let Some(axes) = Axes::new(trace) else { return html! { p { "No batches were seen." } } };
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label="Batch size over time" {
            (commands(&axes, trace))
            (grid(&axes))
            (steps(&axes, trace, limits))
            @for column in columns(&axes, &trace.batches) {
                @let x = number(axes.x(column.time));
                line class="spread" x1=(x) x2=(x) y1=(number(axes.y(column.low.into()))) y2=(number(axes.y(column.high.into()))) {}
                circle class="batch" cx=(x) cy=(number(axes.y(column.middle.into()))) r="2.5" {}
            }
        }
    }
}

fn grid(axes: &Axes) -> Markup {
    let sizes = (0..=axes.doublings as u32).map(|doubling| 1u32 << doubling);
    let seconds = (0..=(axes.last - axes.first) as u32).step_by(2);
    html! {
        @for size in sizes {
            @let y = number(axes.y(size.into()));
            line class="grid" x1=(LEFT) x2=(WIDTH - RIGHT) y1=(y) y2=(y) {}
            text class="tick" x=(LEFT - 8.0) y=(y) dy="0.35em" text-anchor="end" { (size) }
        }
        @for second in seconds {
            text class="tick" x=(number(axes.x(axes.first + f64::from(second)))) y=(HEIGHT - BOTTOM + 20.0) text-anchor="middle" { (second) " s" }
        }
        text class="tick" x="4" y="14" { "requests in a batch" }
        text class="tick" x=(WIDTH - RIGHT) y=(HEIGHT - 6.0) text-anchor="end" { "time in the machine" }
    }
}

fn steps(axes: &Axes, trace: &Trace, limits: &[Limit]) -> Markup {
    html! {
        @for (phase, limit) in trace.phases.iter().zip(limits) {
            @let (start, end) = (axes.x(phase.start), axes.x(phase.end));
            @let (middle, y) = (number((start + end) / 2.0), number(axes.y(f64::from(limit.requests))));
            line class="limit" x1=(number(start)) x2=(number(end)) y1=(y) y2=(y) {}
            text class="name" x=(middle) y=(TOP - 24.0) text-anchor="middle" { (limit.name) }
            text class="tick" x=(middle) y=(TOP - 8.0) text-anchor="middle" { (limit.placement) }
        }
    }
}

/// The stretches in which a command was changing the value.
fn commands(axes: &Axes, trace: &Trace) -> Markup {
    html! {
        @for (before, after) in trace.phases.iter().zip(trace.phases.iter().skip(1)) {
            @let (start, end) = (axes.x(before.end), axes.x(after.start));
            rect class="command" x=(number(start)) width=(number(end - start)) y=(TOP) height=(HEIGHT - TOP - BOTTOM) {}
        }
    }
}

fn number(value: f64) -> String {
    format!("{value:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::trace::{Phase, Value};

    fn trace() -> Trace {
        let batches: Vec<Batch> = (0..100)
            .map(|n| Batch { time: 10.0 + f64::from(n) / 25.0, requests: if n < 50 { 32 } else { 4 } })
            .collect();
        let phase = |value, start, end| Phase { value, start, end, batches: Vec::new() };
        Trace { phases: vec![phase(Value::Stock, 10.0, 12.0), phase(Value::Set(4), 12.0, 14.0)], batches, lost: 0 }
    }

    #[test]
    fn larger_batches_are_higher_and_later_ones_further_right() {
        let axes = Axes::new(&trace()).unwrap();
        assert!(axes.y(32.0) < axes.y(4.0) && axes.y(32.0) > TOP && axes.y(1.0) == HEIGHT - BOTTOM);
        assert!(axes.x(10.0) == LEFT && (axes.x(14.0) - (WIDTH - RIGHT)).abs() < 1e-6);
        assert_eq!((axes.column(9.9), axes.column(10.0), axes.column(14.0)), (None, Some(0), None));
    }

    fn limit(requests: u32, name: &str) -> Limit {
        Limit { requests, name: name.into(), placement: "where".into() }
    }

    #[test]
    fn the_plot_shows_every_column_and_limit() {
        let trace = trace();
        let shown = columns(&Axes::new(&trace).unwrap(), &trace.batches).len();
        let svg = plot(&trace, &[limit(32, "stock"), limit(4, "four")]).into_string();
        assert_eq!(svg.matches("class=\"batch\"").count(), shown);
        assert_eq!(svg.matches("class=\"limit\"").count(), 2);
        assert!(svg.contains("four") && svg.contains("where"));
    }

    #[test]
    fn an_empty_trace_is_no_plot() {
        assert!(plot(&Trace::default(), &[]).into_string().contains("No batches"));
    }
}
