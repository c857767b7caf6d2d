//! What was measured, run by run, and the same by rounds.

use serde::Serialize;

use crate::Arm;

/// One run of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Run {
    /// In which round.
    pub round: usize,
    /// What was in force; `null` is the baseline.
    pub value: Arm,
    /// What the metric printed.
    pub number: f64,
}

/// All runs so far, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Log {
    runs: Vec<Run>,
}

/// The numbers of a round.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// Of the two runs of the baseline.
    pub stock: [f64; 2],
    /// Of the values, by their positions.
    pub values: Vec<f64>,
}

impl Log {
    /// Adds a run.
    pub fn push(&mut self, run: Run) {
        self.runs.push(run);
    }

    /// The runs in order.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The rounds of so many values in which every run was made.
    pub fn rounds(&self, values: usize) -> Vec<Round> {
        let last = self.runs.iter().map(|run| run.round).max().map_or(0, |last| last + 1);
        (0..last).filter_map(|round| self.round(round, values)).collect()
    }

    fn round(&self, round: usize, values: usize) -> Option<Round> {
        let number = |arm| self.runs.iter().find(|run| run.round == round && run.value == arm).map(|run| run.number);
        let stock = [number(Arm::Stock)?, number(Arm::Again)?];
        let values = (0..values).map(|value| number(Arm::Value(value))).collect::<Option<_>>()?;
        Some(Round { stock, values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incomplete_rounds_are_left_out() {
        let mut log = Log::default();
        for (round, value, number) in [
            (0, Arm::Again, 2.0),
            (0, Arm::Value(0), 3.0),
            (0, Arm::Stock, 1.0),
            (1, Arm::Stock, 4.0),
            (1, Arm::Value(0), 5.0),
        ] {
            log.push(Run { round, value, number });
        }
        assert_eq!(log.rounds(1), [Round { stock: [1.0, 2.0], values: vec![3.0] }]);
        assert_eq!(log.rounds(2), []);
        assert_eq!(Log::default().rounds(1), []);
    }
}
