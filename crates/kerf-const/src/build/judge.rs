//! What compiled values say about a reading of the base, and how far it holds.

use std::collections::{BTreeMap, BTreeSet};

use super::Job;
use crate::align::Slot;
use crate::analyse::{self, Analysis, Number, Reading};
use crate::domain::{self, Verdicts};
use crate::entry::Interval;
use crate::equivalence::{self, Effort, Signatures};
use crate::error::ConstError;
use crate::form::Form;
use crate::variants::{Variants, in_parallel};

impl Job<'_> {
    /// The numbers in fields if these explain one of the nearest values, else also operations. With it the verdicts on
    /// these values, as far as there are any.
    pub(super) fn read(
        &self,
        variants: &Variants,
        sample: &[i128],
        signatures: &Signatures,
        fields: Analysis,
    ) -> (Analysis, Verdicts) {
        let stock = self.value.value;
        let nearest = [sample.iter().filter(|v| **v < stock).max(), sample.iter().filter(|v| **v > stock).min()];
        let nearest: Vec<i128> = nearest.into_iter().flatten().copied().collect();
        let judged = |analysis: &Analysis, effort| -> Verdicts {
            self.judge_all(variants, analysis, signatures, &nearest, effort)
        };
        let good = |mut verdicts: Verdicts| {
            verdicts.retain(|_, verdict| verdict.is_ok());
            Some(verdicts).filter(|left| !left.is_empty())
        };
        if let Some(verdicts) = good(judged(&fields, Effort::Quick)) {
            return (fields, verdicts);
        }
        let mut operations = analyse::analyse(variants, sample, Reading::Operations);
        if operations.multiplies() {
            self.settle(variants, &mut operations, signatures, &nearest, Effort::Quick);
            if let Some(verdicts) = good(judged(&operations, Effort::Quick)) {
                return (operations, verdicts);
            }
        }
        let verdicts = judged(&fields, Effort::Full);
        if verdicts.values().any(Result::is_ok) || !operations.multiplies() {
            return (fields, verdicts);
        }
        self.settle(variants, &mut operations, signatures, &nearest, Effort::Full);
        let better = judged(&operations, Effort::Full);
        // Where neither will do, the operations are the better explanation of why.
        if operations.multiplies() { (operations, better) } else { (fields, verdicts) }
    }

    /// Keeps the operations of each function with which one of the values agrees: a shift by a number that is a multiple
    /// of V only by chance looks like one too. The largest multiples are the first to be given up.
    fn settle(
        &self,
        variants: &Variants,
        analysis: &mut Analysis,
        signatures: &Signatures,
        values: &[i128],
        effort: Effort,
    ) {
        for n in 0..analysis.templates.len() {
            let whole = analysis.templates[n].numbers.clone();
            for choice in choices(&whole) {
                let given_up = |index: usize| whole.contains_key(&(index, Slot::Factor)) && !choice.contains(&index);
                let numbers = whole.iter().filter(|(number, _)| !given_up(number.0));
                analysis.templates[n].numbers = numbers.map(|(number, form)| (*number, *form)).collect();
                if values.iter().any(|v| self.judge_function(variants, analysis, signatures, (n, *v), effort)) {
                    break;
                }
                analysis.templates[n].numbers = whole.clone();
            }
        }
    }

    fn judge_function(
        &self,
        variants: &Variants,
        analysis: &Analysis,
        signatures: &Signatures,
        (n, value): (usize, i128),
        effort: Effort,
    ) -> bool {
        let template = &analysis.templates[n];
        let Some(Ok(compiled)) = variants.get(value) else { return false };
        let Some(variant) = compiled.get(template.unit) else { return false };
        let same = equivalence::comparison(variants, analysis, signatures, effort);
        analyse::function_agrees(analysis, template.unit, &template.function, variant, value, &same).is_ok()
    }

    pub(super) fn certify(
        &self,
        variants: &mut Variants,
        analysis: &Analysis,
        held: &[i128],
        signatures: &Signatures,
        mut verdicts: Verdicts,
    ) -> Result<(Interval, Verdicts), ConstError> {
        let seen: Vec<i128> = variants.values().filter(|v| !verdicts.contains_key(v)).collect();
        verdicts.extend(self.judge_all(variants, analysis, signatures, &seen, Effort::Full));
        for (value, words) in variants.forbidden() {
            verdicts.insert(
                value,
                Err(format!("the source forbids it: {}", words.lines().next().unwrap_or("build error"))),
            );
        }
        // Where a form has steps, the steps themselves are tried.
        let steps: BTreeSet<i128> = analysis
            .templates
            .iter()
            .flat_map(|t| t.numbers.values())
            .flat_map(|form| form.steps(held.last().copied().unwrap_or(self.value.value)))
            .filter(|v| *v > 0 && !verdicts.contains_key(v))
            .take(4)
            .collect();
        let steps: Vec<i128> = steps.into_iter().collect();
        variants.make(&steps)?;
        verdicts.extend(self.judge_all(variants, analysis, signatures, &steps, Effort::Full));
        let interval = domain::certify(self.value.value, &mut verdicts, |values| {
            variants.make(values)?;
            Ok(self.judge_all(variants, analysis, signatures, values, Effort::Full))
        })?;
        Ok((interval, verdicts))
    }

    fn judge_all(
        &self,
        variants: &Variants,
        analysis: &Analysis,
        signatures: &Signatures,
        values: &[i128],
        effort: Effort,
    ) -> Verdicts {
        let verdict = |n: usize| (values[n], self.judge(variants, analysis, signatures, values[n], effort));
        in_parallel(values.len(), verdict).into_iter().collect()
    }

    fn judge(
        &self,
        variants: &Variants,
        analysis: &Analysis,
        signatures: &Signatures,
        value: i128,
        effort: Effort,
    ) -> Result<(), String> {
        let same = equivalence::comparison(variants, analysis, signatures, effort);
        let verdict = analyse::agrees(variants, analysis, value, &same);
        tracing::debug!(site = self.site.label(), %value, ?verdict, "compared");
        verdict
    }
}

/// Sets of operations to try, by the instructions' indexes: all of them first, then without the largest multiples, then
/// each by itself.
fn choices(numbers: &BTreeMap<Number, Form>) -> Vec<BTreeSet<usize>> {
    let mut factors: Vec<(i128, usize)> =
        numbers.iter().filter(|(n, _)| n.1 == Slot::Factor).map(|(n, form)| (form.parts().1, n.0)).collect();
    factors.sort();
    let some = |range: &[(i128, usize)]| range.iter().map(|(_, index)| *index).collect();
    let mut choices: Vec<BTreeSet<usize>> = (1..=factors.len()).rev().map(|count| some(&factors[..count])).collect();
    choices.extend(factors.iter().skip(1).map(|one| some(std::slice::from_ref(one))));
    choices
}
