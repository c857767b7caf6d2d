//! What `kerf try` says in the end: a table and sentences, JSON, or a report with a plot.

use std::time::Duration;

use kerf_trial::{Answer, Effect, Log, Page, Question, Verdict, words};
use serde_json::{Value, json};

use super::try_turns::{Candidate, Constant, Turns};
use crate::print::{self, Paint, paint};

/// A trial that has come to its end.
pub struct Told<'a> {
    /// The constants and values.
    pub turns: &'a Turns,
    /// What was asked.
    pub question: &'a Question,
    /// What the measurements say.
    pub answer: &'a Answer,
    /// The measurements.
    pub log: &'a Log,
    /// The metric's command.
    pub metric: &'a str,
    /// The value that is set for good.
    pub kept: Option<usize>,
}

impl Told<'_> {
    /// For a person. `typed` are options that a suggested command needs.
    pub fn text(&self, typed: &str) -> String {
        let Answer { relative, noise, .. } = *self.answer;
        let row = |name: String, number: f64, difference: &kerf_trial::Difference, p: f64, verdict: String| {
            vec![
                name,
                words::number(number),
                words::difference(difference.mean, relative),
                words::interval(difference.interval, relative),
                words::probability(p),
                verdict,
            ]
        };
        let baseline = row("baseline".into(), self.answer.stock, &noise.difference, noise.difference.p, String::new());
        let values = self.answer.values.iter().zip(self.names()).map(|(effect, name)| {
            row(name, effect.number, &effect.difference, effect.corrected, painted(effect.verdict))
        });
        let interval = format!("{} % INTERVAL", words::number((1.0 - self.question.alpha) * 100.0));
        let header = ["VALUE", "MEDIAN", "DIFFERENCE", interval.as_str(), "P", "VERDICT"];
        let table = print::table(&header, [baseline].into_iter().chain(values));
        let mut lines = vec![self.title(), table];
        lines.extend(self.sentences());
        lines.push(self.end());
        lines.extend(self.suggestion(typed).map(|command| format!("to set it: {command}")));
        lines.join("\n")
    }

    /// For programs.
    pub fn object(&self, warmup: u32, typed: &str) -> Value {
        let Question { direction, alpha, effect, seed, .. } = *self.question;
        let baseline: Vec<Value> = self.turns.constants.iter().map(constant).collect();
        let values: Vec<Value> =
            self.turns.candidates.iter().zip(&self.answer.values).map(|(c, effect)| merged(c, effect)).collect();
        let Answer { rounds, stock, relative, noise, ranking, best, as_good, .. } = self.answer;
        json!({
            "metric": self.metric, "better": direction, "alpha": alpha, "effect": effect, "seed": seed, "warmup": warmup,
            "rounds": rounds, "mode": self.turns.mode(), "baseline": baseline, "stock": stock, "relative": relative,
            "noise": noise, "values": values, "ranking": ranking, "best": best, "as_good": as_good,
            "kept": self.kept.is_some(), "suggestion": self.suggestion(typed),
            "switches": self.turns.switches.len(), "switch_ns": self.switch().as_nanos() as u64, "runs": self.log,
        })
    }

    /// For a browser.
    pub fn page(&self, release: &str, typed: &str) -> String {
        let mut sentences = self.sentences();
        sentences.extend(self.suggestion(typed).map(|command| format!("To set it: {command}")));
        let page = Page {
            release,
            metric: self.metric,
            baseline: &self.turns.baseline(),
            direction: self.question.direction,
            alpha: self.question.alpha,
            seed: self.question.seed,
            names: &self.names(),
            answer: self.answer,
            sentences: &sentences,
        };
        page.html()
    }

    fn title(&self) -> String {
        let (rounds, better) = (self.answer.rounds, self.question.direction.word());
        format!("baseline {}; {rounds} rounds, seed {}; {better} is better", self.turns.baseline(), self.question.seed)
    }

    /// What to call the values: with their constant's name if there are several constants.
    fn names(&self) -> Vec<String> {
        let several = self.turns.constants.len() > 1;
        let name = |c: &Candidate| if several { format!("{}={}", c.id, c.value) } else { c.value.to_string() };
        self.turns.candidates.iter().map(name).collect()
    }

    /// Noise, and a sentence for each value; the best one comes first.
    fn sentences(&self) -> Vec<String> {
        let (names, relative) = (self.names(), self.answer.relative);
        let name = |value: usize| names.get(value).map_or("", String::as_str);
        let mut lines = Vec::new();
        if let Some(best) = self.answer.best {
            let others: Vec<&str> = self.answer.as_good.iter().map(|value| name(*value)).collect();
            let others = match others.as_slice() {
                [] => String::new(),
                others => format!("; not told apart from it: {}", others.join(", ")),
            };
            lines.push(format!("best: {}{others}", name(best)));
        }
        let unseen = self.answer.values.iter().enumerate().filter(|(_, v)| v.verdict == Verdict::NoDifference);
        lines.extend(unseen.map(|(value, effect)| self.unseen(name(value), effect)));
        lines.push(format!(
            "noise: single runs vary by {}; the baseline differs from itself by {} ({})",
            words::size(self.answer.noise.deviation, relative),
            words::difference(self.answer.noise.difference.mean, relative),
            words::interval(self.answer.noise.difference.interval, relative),
        ));
        lines
    }

    /// What could have been seen where nothing was.
    fn unseen(&self, name: &str, effect: &Effect) -> String {
        if effect.visible == 0.0 {
            return format!("{name}: no difference seen; every round was the same");
        }
        let visible = words::size(effect.visible, self.answer.relative);
        let wanted = words::size(self.question.effect, true);
        let rounds = match effect.rounds_needed {
            _ if !self.answer.relative => String::new(),
            Some(rounds) if rounds <= self.answer.rounds => String::new(),
            Some(rounds) => format!("; for {wanted}: --rounds {rounds}"),
            None => format!("; {wanted} is too little to be seen in this noise"),
        };
        format!("{name}: no difference seen; {visible} would have been seen, four times of five{rounds}")
    }

    /// What is in force now.
    fn end(&self) -> String {
        let switches = format!("{} switches of {:.1} ms", self.turns.switches.len(), self.switch().as_secs_f64() * 1e3);
        match self.kept.and_then(|value| self.turns.candidates.get(value)) {
            Some(kept) => format!("{} = {} is set ({switches})", kept.id, kept.value),
            None => format!("everything is as before: {} ({switches})", self.turns.baseline()),
        }
    }

    /// The command that sets the best value.
    fn suggestion(&self, typed: &str) -> Option<String> {
        let best = self.turns.candidates.get(self.answer.best?)?;
        self.kept.is_none().then(|| format!("kerf const set {} {}{typed}", best.id, best.value))
    }

    /// How long a switch took, in the middle.
    fn switch(&self) -> Duration {
        let mut sorted = self.turns.switches.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }
}

fn painted(verdict: Verdict) -> String {
    let colour = match verdict {
        Verdict::Better => Paint::Good,
        Verdict::Worse => Paint::Bad,
        Verdict::NoDifference => return verdict.words().into(),
    };
    paint(colour, verdict.words())
}

fn constant(constant: &Constant) -> Value {
    let Constant { id, stock, set, .. } = constant;
    json!({ "id": id, "value": set.unwrap_or(*stock), "stock": stock, "set": set.is_some() })
}

/// A value's name with what was found.
fn merged(candidate: &Candidate, effect: &Effect) -> Value {
    let mut object = json!({ "id": candidate.id, "value": candidate.value });
    if let (Value::Object(object), Ok(Value::Object(found))) = (&mut object, serde_json::to_value(effect)) {
        object.extend(found);
    }
    object
}
