//! From the log to the answer: how far each value is from the baseline, and how sure that is.

use serde::Serialize;

use crate::permutation::{against_stock, exchanged};
use crate::summary::{deviation, mean, median};
use crate::{Arm, Direction, Log, Round, TrialError, Verdict, fewest_rounds, holm, interval, p_value, power};

/// What is asked of a log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Question {
    /// How many values were tried.
    pub values: usize,
    /// Which numbers are the good ones.
    pub direction: Direction,
    /// How often a value may look different that is not; intervals hold what they should with probability `1 - alpha`.
    pub alpha: f64,
    /// An effect, in percent, that the caller wants to know the rounds for.
    pub effect: f64,
    /// For resamples and permutations.
    pub seed: u64,
}

/// A difference over the rounds, in percent of the baseline's mean if [`Answer::relative`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Of the means.
    pub mean: f64,
    /// The median of the rounds' differences.
    pub median: f64,
    /// Where the mean lies with probability `1 - alpha`.
    pub interval: (f64, f64),
    /// How often the plan's order alone gives a mean this far from 0.
    pub p: f64,
}

/// What the metric does by itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Noise {
    /// Stock against stock, measured and judged as the values are.
    #[serde(flatten)]
    pub difference: Difference,
    /// The standard deviation of single runs within a round.
    pub deviation: f64,
}

/// A value that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Effect {
    /// The median of its runs, as printed by the metric.
    pub number: f64,
    /// Its difference to the baseline.
    #[serde(flatten)]
    pub difference: Difference,
    /// The p-value, corrected for the number of values.
    pub corrected: f64,
    /// What that comes to.
    pub verdict: Verdict,
    /// The effect that would have been seen in four cases of five.
    pub visible: f64,
    /// How many rounds it takes to see [`Question::effect`] as often; `None`: more than anybody makes.
    pub rounds_needed: Option<usize>,
}

/// What a log says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// How many rounds are complete.
    pub rounds: usize,
    /// The median of the baseline's runs, as printed by the metric.
    pub stock: f64,
    /// Whether differences are in percent of the baseline's mean; they are as printed if that is 0.
    pub relative: bool,
    /// Stock against stock.
    pub noise: Noise,
    /// The values, in the plan's order.
    pub values: Vec<Effect>,
    /// Values by their means, best first; `null` is the baseline.
    pub ranking: Vec<Arm>,
    /// The best of those that are better.
    pub best: Option<usize>,
    /// Others that are better and that nothing tells apart from the best.
    pub as_good: Vec<usize>,
}

/// Answers the question from the complete rounds of a log.
///
/// # Errors
/// [`TrialError::TooFewRounds`] if no result could be told from chance.
pub fn analyse(log: &Log, question: &Question) -> Result<Answer, TrialError> {
    let Question { values, alpha, .. } = *question;
    let (rounds, needed) = (log.rounds(values), fewest_rounds(values, alpha));
    if rounds.len() < needed {
        return Err(TrialError::TooFewRounds { rounds: rounds.len(), needed, values, alpha });
    }
    let analysis = Analysis::new(&rounds, question);
    let differences: Vec<Difference> = (0..values).map(|value| analysis.difference(&analysis.against(value))).collect();
    let corrected = holm(&differences.iter().map(|difference| difference.p).collect::<Vec<_>>());
    let effect = |(value, (difference, corrected))| analysis.effect(value, difference, corrected);
    let effects: Vec<Effect> = differences.into_iter().zip(corrected).enumerate().map(effect).collect();
    let (ranking, best) = ranked(&effects, question.direction);
    Ok(Answer {
        rounds: rounds.len(),
        stock: median(&analysis.stock()),
        relative: analysis.relative,
        noise: analysis.noise(),
        as_good: best.map(|best| analysis.as_good(best, &effects)).unwrap_or_default(),
        values: effects,
        ranking,
        best,
    })
}

/// The rounds with their scale.
struct Analysis<'a> {
    rounds: &'a [Round],
    question: &'a Question,
    relative: bool,
    /// What a difference is multiplied by.
    scale: f64,
}

impl<'a> Analysis<'a> {
    fn new(rounds: &'a [Round], question: &'a Question) -> Self {
        let whole = mean(&rounds.iter().flat_map(|round| round.stock).collect::<Vec<_>>()).abs();
        let relative = whole > 0.0;
        Analysis { rounds, question, relative, scale: if relative { 100.0 / whole } else { 1.0 } }
    }

    fn stock(&self) -> Vec<f64> {
        self.rounds.iter().flat_map(|round| round.stock).collect()
    }

    fn numbers(&self, value: usize) -> Vec<f64> {
        self.rounds.iter().filter_map(|round| round.values.get(value).copied()).collect()
    }

    /// For each round, a value's difference to stock, and what other orders would have given.
    fn against(&self, value: usize) -> Vec<Vec<f64>> {
        self.rounds.iter().zip(self.numbers(value)).map(|(round, number)| against_stock(round, number)).collect()
    }

    fn difference(&self, rounds: &[Vec<f64>]) -> Difference {
        let seen: Vec<f64> = rounds.iter().filter_map(|round| round.first()).map(|seen| seen * self.scale).collect();
        let Question { alpha, seed, .. } = *self.question;
        Difference {
            mean: mean(&seen),
            median: median(&seen),
            interval: interval(&seen, alpha, seed),
            p: p_value(rounds, seed),
        }
    }

    fn noise(&self) -> Noise {
        let differences: Vec<f64> = self.rounds.iter().map(|Round { stock: [one, two], .. }| one - two).collect();
        let squares: Vec<f64> = differences.iter().map(|difference| difference.powi(2) / 2.0).collect();
        let rounds: Vec<Vec<f64>> = differences.into_iter().map(exchanged).collect();
        Noise { difference: self.difference(&rounds), deviation: mean(&squares).sqrt() * self.scale }
    }

    fn effect(&self, value: usize, difference: Difference, corrected: f64) -> Effect {
        let Question { values, direction, alpha, effect, .. } = *self.question;
        let seen: Vec<f64> = self.against(value).iter().filter_map(|round| round.first().copied()).collect();
        let spread = deviation(&seen) * self.scale;
        Effect {
            number: median(&self.numbers(value)),
            difference,
            corrected,
            verdict: Verdict::of(difference.mean, difference.interval, corrected, alpha, direction),
            visible: power::visible(spread, seen.len(), values, alpha),
            rounds_needed: power::rounds_for(effect, spread, values, alpha),
        }
    }

    /// Better values that an exchange with the best one, round by round, does not tell apart from it.
    fn as_good(&self, best: usize, effects: &[Effect]) -> Vec<usize> {
        let apart = |other: usize| {
            let pairs = self.numbers(best).into_iter().zip(self.numbers(other));
            let rounds: Vec<Vec<f64>> = pairs.map(|(best, other)| exchanged(best - other)).collect();
            p_value(&rounds, self.question.seed) < self.question.alpha
        };
        let better = effects.iter().enumerate().filter(|(_, effect)| effect.verdict == Verdict::Better);
        better.map(|(value, _)| value).filter(|value| *value != best && !apart(*value)).collect()
    }
}

/// The order of values and baseline by their means, and the first that is better.
fn ranked(effects: &[Effect], direction: Direction) -> (Vec<Arm>, Option<usize>) {
    let gain = |arm: &Arm| {
        let effect = arm.value().and_then(|value| effects.get(value));
        effect.map_or(0.0, |effect| direction.gain(effect.difference.mean))
    };
    let mut ranking: Vec<Arm> = [Arm::Stock].into_iter().chain((0..effects.len()).map(Arm::Value)).collect();
    ranking.sort_by(|a, b| gain(b).total_cmp(&gain(a)));
    let better = |value: &usize| effects.get(*value).is_some_and(|effect| effect.verdict == Verdict::Better);
    let best = ranking.iter().filter_map(|arm| arm.value()).find(better);
    (ranking, best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Run;

    const ASKED: Question = Question { values: 2, direction: Direction::Lower, alpha: 0.05, effect: 1.0, seed: 1 };

    /// Eight rounds: stock is 100 ± 1, the first value 10 lower, the second 20 higher.
    fn log() -> Log {
        let mut log = Log::default();
        for round in 0..8 {
            let wobble = if round % 2 == 0 { 1.0 } else { -1.0 };
            let arms = [
                (Arm::Stock, 100.0 + wobble),
                (Arm::Again, 100.0 - wobble),
                (Arm::Value(0), 90.0 + wobble),
                (Arm::Value(1), 120.0 - wobble),
            ];
            for (value, number) in arms {
                log.push(Run { round, value, number });
            }
        }
        log
    }

    #[test]
    fn clear_effects_are_found_with_their_size() {
        let answer = analyse(&log(), &ASKED).unwrap();
        assert!(answer.relative && answer.rounds == 8 && answer.stock == 100.0);
        let [lower, higher] = [answer.values[0], answer.values[1]];
        assert!((lower.difference.mean + 10.0).abs() < 1e-9 && (higher.difference.mean - 20.0).abs() < 1e-9);
        assert_eq!([lower.verdict, higher.verdict], [Verdict::Better, Verdict::Worse]);
        assert!(lower.difference.interval.0 < -10.0 && lower.difference.interval.1 < -8.0, "{lower:?}");
        // This arrangement, of 3^8, is the lowest; the same counts for the other end; and there are two values.
        assert!(lower.difference.p < 0.001 && lower.corrected == 2.0 * lower.difference.p, "{lower:?}");
        assert_eq!(answer.ranking, [Arm::Value(0), Arm::Stock, Arm::Value(1)]);
        assert_eq!((answer.best, answer.as_good), (Some(0), vec![]));
    }

    #[test]
    fn stock_against_stock_is_noise() {
        let noise = analyse(&log(), &ASKED).unwrap().noise;
        assert_eq!((noise.difference.mean, noise.difference.p), (0.0, 1.0));
        // The two runs are 2 % apart.
        assert!((noise.deviation - 2f64.sqrt()).abs() < 1e-9);
    }

    #[test]
    fn the_direction_turns_the_verdict() {
        let answer = analyse(&log(), &Question { direction: Direction::Higher, ..ASKED }).unwrap();
        assert_eq!(answer.best, Some(1));
        assert_eq!(answer.values[0].verdict, Verdict::Worse);
        assert_eq!(answer.ranking, [Arm::Value(1), Arm::Stock, Arm::Value(0)]);
    }

    #[test]
    fn a_baseline_of_zero_has_no_percent() {
        let mut log = Log::default();
        for round in 0..5 {
            for (value, number) in [(Arm::Stock, 0.0), (Arm::Again, 0.0), (Arm::Value(0), 3.0)] {
                log.push(Run { round, value, number });
            }
        }
        let answer = analyse(&log, &Question { values: 1, ..ASKED }).unwrap();
        assert!(!answer.relative);
        assert_eq!((answer.values[0].difference.mean, answer.values[0].verdict), (3.0, Verdict::Worse));
    }

    #[test]
    fn equal_numbers_are_no_difference() {
        let mut log = Log::default();
        for round in 0..5 {
            for value in [Arm::Stock, Arm::Again, Arm::Value(0), Arm::Value(1)] {
                log.push(Run { round, value, number: 7.0 });
            }
        }
        let answer = analyse(&log, &ASKED).unwrap();
        assert!(answer.values.iter().all(|v| v.verdict == Verdict::NoDifference && v.difference.p == 1.0));
        assert_eq!((answer.best, answer.values[0].visible), (None, 0.0));
    }

    #[test]
    fn values_that_are_equally_good_are_said() {
        let mut log = log();
        let runs: Vec<Run> = log.runs().to_vec();
        log = Log::default();
        for run in runs {
            let number = if run.value == Arm::Value(1) { 90.0 } else { run.number };
            log.push(Run { number, ..run });
        }
        let answer = analyse(&log, &ASKED).unwrap();
        let best = answer.best.unwrap();
        assert_eq!(answer.as_good, [1 - best]);
    }

    #[test]
    fn too_few_rounds_are_refused() {
        let error = analyse(&log(), &Question { alpha: 0.0001, ..ASKED }).unwrap_err();
        assert!(matches!(error, TrialError::TooFewRounds { rounds: 8, needed: 10, .. }), "{error}");
    }
}
