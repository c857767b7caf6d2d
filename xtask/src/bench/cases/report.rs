//! The report of bench `cases`: for each figure the rounds of both, beside each other.

use super::folder::{Figure, Folder};
use super::{Figures, Rounds, medians};
use crate::page::page;
use maud::{Markup, html};

const TITLE: &str = "Case studies: stock and tuned";

const WIDTH: f64 = 640.0;
const LINE: f64 = 34.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 90.0;

/// The file's text.
pub fn html(release: &str, cases: &[(&Folder, Figures)]) -> String {
    let body = html! {
        h1 { (TITLE) }
        p {
            "Linux " (release) " as the distribution ships it, in virtual machines. In each of them stock and tuned values took "
            "turns, switched while the kernel ran. A dot is a round, the bar is the one in the middle. "
            "An emulated machine's time is not a server's: believe counts and directions, not microseconds."
        }
        @for (folder, figures) in cases {
            h2 { (folder.name) }
            p.note { "Decides on " (folder.constants.join(", ")) "." }
            @for figure in &folder.figures { (one(figure, figures)) }
        }
        p.note { "Made by " code { "cargo xtask bench cases" } "." }
    };
    page(TITLE, &body)
}

fn one(figure: &Figure, figures: &Figures) -> Markup {
    let Some(rounds) = figures.get(&figure.name) else { return html! {} };
    let Some((stock, tuned)) = medians(figures, figure) else { return html! {} };
    let goal = figure.direction.to_string();
    html! {
        p { (figure.name) ", in " (figure.unit) ", which should be " (goal) " when tuned:" }
        (plot(figure, rounds, (stock, tuned)))
    }
}

fn plot(figure: &Figure, rounds: &Rounds, (stock, tuned): (f64, f64)) -> Markup {
    let most = rounds.stock.iter().chain(&rounds.tuned).copied().fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| LEFT + value.max(0.0) / most * (WIDTH - LEFT - RIGHT);
    let lines = [("stock", &rounds.stock, stock), ("tuned", &rounds.tuned, tuned)];
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {}", 2.0 * LINE)) role="img" aria-label=(figure.name) {
            @for (n, (name, values, middle)) in lines.into_iter().enumerate() {
                @let y = n as f64 * LINE + LINE / 2.0;
                text class="tick" x=(LEFT - 8.0) y=(y) dy="0.35em" text-anchor="end" { (name) }
                rect class="command" x=(LEFT) width=(format!("{:.1}", x(middle) - LEFT)) y=(y - 9.0) height="18" {}
                @for value in values { circle class="batch" cx=(format!("{:.1}", x(*value))) cy=(y) r="3" {} }
                text class="name" x=(format!("{:.1}", x(most) + 8.0)) y=(y) dy="0.35em" { (short(middle)) }
            }
        }
    }
}

fn short(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
