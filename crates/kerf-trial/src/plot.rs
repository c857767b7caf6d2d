//! The plot: each value's difference to the baseline with its interval, over the band of stock against stock. Inline SVG that needs
//! no script.

use maud::{Markup, html};

use crate::{Answer, Verdict, words};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 40.0;

/// How many lines the grid has, about.
const LINES: f64 = 6.0;

/// The scales: values side by side, differences upwards.
struct Axes {
    low: f64,
    high: f64,
    columns: usize,
}

impl Axes {
    fn new(answer: &Answer) -> Axes {
        let intervals = answer.values.iter().map(|value| value.difference.interval);
        let ends: Vec<f64> =
            intervals.chain([answer.noise.difference.interval]).flat_map(|(low, high)| [low, high]).collect();
        let low = ends.iter().copied().fold(0.0, f64::min);
        let high = ends.iter().copied().fold(0.0, f64::max);
        let margin = ((high - low) * 0.08).max(1e-9);
        Axes { low: low - margin, high: high + margin, columns: answer.values.len().max(1) }
    }

    fn x(&self, column: usize) -> f64 {
        LEFT + (column as f64 + 0.5) / self.columns as f64 * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, difference: f64) -> f64 {
        HEIGHT - BOTTOM - (difference - self.low) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)
    }

    /// Round numbers inside.
    fn ticks(&self) -> Vec<f64> {
        let rough = (self.high - self.low) / LINES;
        let unit = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * unit).into_iter().find(|step| *step >= rough).unwrap_or(rough);
        let (first, last) = ((self.low / step).ceil() as i64, (self.high / step).floor() as i64);
        (first..=last).map(|n| n as f64 * step).collect()
    }
}

/// The plot; `names` has one for each value.
pub fn plot(answer: &Answer, names: &[String]) -> Markup {
    let axes = Axes::new(answer);
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label="Difference of each value to the baseline" {
            (grid(&axes, answer))
            @for (column, (effect, name)) in answer.values.iter().zip(names).enumerate() {
                @let x = pixel(axes.x(column));
                @let (low, high) = effect.difference.interval;
                @let class = class(effect.verdict);
                line class=(format!("interval {class}")) x1=(x) x2=(x) y1=(pixel(axes.y(low))) y2=(pixel(axes.y(high))) {}
                circle class=(format!("point {class}")) cx=(x) cy=(pixel(axes.y(effect.difference.mean))) r="5" {}
                text class="name" x=(x) y=(HEIGHT - BOTTOM + 20.0) text-anchor="middle" { (name) }
            }
        }
    }
}

/// The band of stock, the line of no difference, and the numbers beside them.
fn grid(axes: &Axes, answer: &Answer) -> Markup {
    let (low, high) = answer.noise.difference.interval;
    let (top, bottom) = (axes.y(high), axes.y(low));
    html! {
        rect class="stock" x=(LEFT) width=(WIDTH - LEFT - RIGHT) y=(pixel(top)) height=(pixel((bottom - top).max(1.0))) {}
        @for tick in axes.ticks() {
            @let y = pixel(axes.y(tick));
            line class=(if tick == 0.0 { "zero" } else { "grid" }) x1=(LEFT) x2=(WIDTH - RIGHT) y1=(y) y2=(y) {}
            text class="tick" x=(LEFT - 8.0) y=(y) dy="0.35em" text-anchor="end" { (words::difference(tick, answer.relative)) }
        }
        text class="tick" x="4" y="16" { "difference to the baseline" }
        text class="tick" x=(WIDTH - RIGHT) y="16" text-anchor="end" { "grey: stock against stock" }
    }
}

fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::NoDifference => "same",
    }
}

fn pixel(value: f64) -> String {
    format!("{value:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Arm, Difference, Direction, Effect, Log, Noise, Question, Run, analyse};

    fn answer() -> Answer {
        let difference = |mean: f64| Difference { mean, median: mean, interval: (mean - 1.0, mean + 1.0), p: 0.01 };
        let effect = |mean, verdict| Effect {
            number: 1.0,
            difference: difference(mean),
            corrected: 0.01,
            verdict,
            visible: 1.0,
            rounds_needed: Some(9),
        };
        Answer {
            rounds: 10,
            stock: 1.0,
            relative: true,
            noise: Noise { difference: difference(0.0), deviation: 1.0 },
            values: vec![effect(-8.0, Verdict::Better), effect(4.0, Verdict::Worse)],
            ranking: Vec::new(),
            best: Some(0),
            as_good: Vec::new(),
        }
    }

    #[test]
    fn larger_differences_are_higher_and_all_are_inside() {
        let axes = Axes::new(&answer());
        assert!(axes.y(4.0) < axes.y(0.0) && axes.y(0.0) < axes.y(-8.0));
        assert!(axes.y(5.0) > TOP && axes.y(-9.0) < HEIGHT - BOTTOM);
        assert!(axes.x(0) < axes.x(1) && axes.x(1) < WIDTH - RIGHT);
        assert_eq!(axes.ticks(), [-10.0, -5.0, 0.0, 5.0]);
    }

    #[test]
    fn every_value_has_a_point_and_an_interval() {
        let svg = plot(&answer(), &["4".into(), "<8>".into()]).into_string();
        assert_eq!((svg.matches("<circle").count(), svg.matches("\"interval ").count()), (2, 2));
        assert!(svg.contains("point better") && svg.contains("point worse") && svg.contains("class=\"stock\""));
        assert!(svg.contains("&lt;8&gt;"), "names are text");
    }

    #[test]
    fn equal_numbers_can_be_drawn() {
        let mut log = Log::default();
        for round in 0..4 {
            for value in [Arm::Stock, Arm::Again, Arm::Value(0)] {
                log.push(Run { round, value, number: 5.0 });
            }
        }
        let question = Question { values: 1, direction: Direction::Lower, alpha: 0.05, effect: 1.0, seed: 0 };
        let svg = plot(&analyse(&log, &question).unwrap(), &["4".into()]).into_string();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
