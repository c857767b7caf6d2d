//! The report: one HTML file, without scripts or anything from elsewhere.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::{Answer, Direction, plot, words};

/// What all reports have in common, those of other crates included.
const BASE: &str = include_str!("../data/base.css");
const STYLE: &str = include_str!("../data/page.css");

/// A page of its own as a file's text: a head with what all reports have in common and more style, and a body.
pub fn document(title: &str, style: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(BASE)) (PreEscaped(style)) }
            }
            body { (body) }
        }
    };
    page.into_string()
}

/// What the report shows.
pub struct Page<'a> {
    /// The kernel's release.
    pub release: &'a str,
    /// The metric's command.
    pub metric: &'a str,
    /// What the baseline is.
    pub baseline: &'a str,
    /// Which numbers are the good ones.
    pub direction: Direction,
    /// The level of tests and intervals.
    pub alpha: f64,
    /// What gives the same order again.
    pub seed: u64,
    /// What to call each value.
    pub names: &'a [String],
    /// The result.
    pub answer: &'a Answer,
    /// What is said about it, a sentence each.
    pub sentences: &'a [String],
}

impl Page<'_> {
    /// The file's text.
    pub fn html(&self) -> String {
        let title = format!("{} against {}", self.names.join(", "), self.baseline);
        let body = html! {
            h1 { (title) }
            p { "Linux " (self.release) ". The metric is the number that " code { (self.metric) } " prints; "
                (self.direction.word()) " is better." }
            @for sentence in self.sentences { p { (sentence) } }
            (plot(self.answer, self.names))
            p.note {
                "A dot is the mean difference to the baseline, the bar through it the interval that holds it with probability "
                (words::number((1.0 - self.alpha) * 100.0)) " %. The grey band is the same interval for the baseline against itself."
            }
            (self.table())
            p.note {
                (self.answer.rounds) " rounds; in each of them every value was in force once and the baseline twice, in an "
                "order drawn anew (seed " (self.seed) "). P is the share of such orders that alone would give a difference as large, "
                "corrected for the number of values by Holm's method; a value differs if it is below "
                (words::number(self.alpha)) " and the interval does not hold 0."
            }
        };
        document(&title, STYLE, &body)
    }

    fn table(&self) -> Markup {
        let Answer { relative, stock, noise, .. } = *self.answer;
        html! {
            table {
                thead { tr {
                    th { "Value" } th.number { "Median" } th.number { "Mean difference" } th.number { "Median difference" }
                    th.number { "Interval" } th.number { "P" } th { "Verdict" }
                } }
                tbody {
                    tr {
                        td { "baseline" } td.number { (words::number(stock)) }
                        td.number { (words::difference(noise.difference.mean, relative)) }
                        td.number { (words::difference(noise.difference.median, relative)) }
                        td.number { (words::interval(noise.difference.interval, relative)) }
                        td.number { (words::probability(noise.difference.p)) } td { "against itself" }
                    }
                    @for (value, name) in self.answer.values.iter().zip(self.names) {
                        tr {
                            td { (name) } td.number { (words::number(value.number)) }
                            td.number { (words::difference(value.difference.mean, relative)) }
                            td.number { (words::difference(value.difference.median, relative)) }
                            td.number { (words::interval(value.difference.interval, relative)) }
                            td.number { (words::probability(value.corrected)) } td { (value.verdict.words()) }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Arm, Log, Question, Run, analyse};

    #[test]
    fn the_report_holds_all_values_and_nothing_from_elsewhere() {
        let mut log = Log::default();
        for round in 0..6 {
            let wobble = round as f64 % 3.0;
            for (value, number) in [(Arm::Stock, 100.0), (Arm::Again, 101.0), (Arm::Value(0), 80.0)] {
                log.push(Run { round, value, number: number + wobble });
            }
        }
        let question = Question { values: 1, direction: Direction::Lower, alpha: 0.05, effect: 1.0, seed: 7 };
        let answer = analyse(&log, &question).expect("six rounds");
        let html = Page {
            release: "6.12",
            metric: "a < b; echo 1",
            baseline: "stock (32)",
            direction: Direction::Lower,
            alpha: 0.05,
            seed: 7,
            names: &["4".into()],
            answer: &answer,
            sentences: &["4 is better.".into()],
        }
        .html();
        for part in
            ["stock (32)", "a &lt; b; echo 1", "4 is better.", "lower is better", "<svg", "seed 7", "better</td>"]
        {
            assert!(html.contains(part), "{part}:\n{html}");
        }
        assert!(!html.contains("<script") && !html.contains("http"));
    }
}
