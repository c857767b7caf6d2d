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
use crate::variants::{self, Variants, in_parallel};

/// So many powers of two are tried in each direction.
const MOST_POWERS: usize = 12;
/// So often are values compiled that tell forms apart.
const MOST_DOUBTS: usize = 3;

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
            for choice in choices(&whole, &analysis.templates[n].chains) {
                let factor =
                    |index: usize| [Slot::Factor, Slot::Second].iter().any(|s| whole.contains_key(&(index, *s)));
                let given_up = |index: usize| factor(index) && !choice.contains(&index);
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
        let mut judged = |values: &[i128]| {
            variants.make(values)?;
            Ok(self.judge_all(variants, analysis, signatures, values, Effort::Full))
        };
        let mut interval = domain::certify(self.value.value, &mut verdicts, &mut judged)?;
        // What was compiled may leave other forms possible: where they would differ, the compiler is asked too.
        for _ in 0..MOST_DOUBTS {
            let agreeing: Vec<i128> = domain::agreeing(&verdicts, interval).collect();
            let forms = analysis.templates.iter().flat_map(|t| t.numbers.values());
            let telling: BTreeSet<i128> = forms.flat_map(|form| form.telling(&agreeing, interval.max)).collect();
            let telling: Vec<i128> = telling.into_iter().filter(|v| !verdicts.contains_key(v)).collect();
            if telling.is_empty() {
                break;
            }
            verdicts.extend(judged(&telling)?);
            interval = domain::certify(self.value.value, &mut verdicts, &mut judged)?;
        }
        Ok((interval, verdicts))
    }

    /// A reading that holds for powers of two alone, where the deployed value is one: a remainder is a mask for these, a division for others.
    pub(super) fn powers(
        &self,
        variants: &mut Variants,
        sample: &[i128],
        signatures: &Signatures,
    ) -> Result<Option<(Analysis, Interval, Verdicts)>, ConstError> {
        let stock = self.value.value;
        let (_, most) = variants::limits(self.value);
        if stock < 4 || stock & (stock - 1) != 0 {
            return Ok(None);
        }
        let fields = analyse::analyse(variants, sample, Reading::Fields);
        let mut verdicts = Verdicts::new();
        let (below, above): (Vec<u32>, Vec<u32>) = (1..63).partition(|n| 1i128 << n < stock);
        for way in [below.into_iter().rev().collect(), above] {
            for power in
                way.into_iter().map(|n: u32| 1i128 << n).filter(|v| *v != stock && *v <= most).take(MOST_POWERS)
            {
                variants.make(&[power])?;
                let verdict = self.judge(variants, &fields, signatures, power, Effort::Full);
                let last = verdict.is_err();
                verdicts.insert(power, verdict);
                if last {
                    break;
                }
            }
        }
        let agreeing = verdicts.iter().filter(|(_, verdict)| verdict.is_ok()).map(|(v, _)| *v).chain([stock]);
        let (min, max) = agreeing.fold((stock, stock), |(min, max), v| (min.min(v), max.max(v)));
        Ok((min < max).then_some((fields, Interval { min, max }, verdicts)))
    }

    /// The verdicts on values, from the deployed one outwards. Beyond the first that does not agree nothing can be in the domain, and nothing is
    /// judged.
    fn judge_all(
        &self,
        variants: &Variants,
        analysis: &Analysis,
        signatures: &Signatures,
        values: &[i128],
        effort: Effort,
    ) -> Verdicts {
        let stock = self.value.value;
        let (mut below, mut above): (Vec<i128>, Vec<i128>) = values.iter().partition(|v| **v < stock);
        below.sort_unstable_by_key(|v| -v);
        above.sort_unstable();
        let ways = [below, above];
        let outwards = |way: usize| {
            let mut verdicts = Verdicts::new();
            for value in &ways[way] {
                let verdict = self.judge(variants, analysis, signatures, *value, effort);
                let last = verdict.is_err();
                verdicts.insert(*value, verdict);
                if last {
                    break;
                }
            }
            verdicts
        };
        in_parallel(2, outwards).into_iter().flatten().collect()
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
/// each by itself. Chains are kept or given up as one.
fn choices(numbers: &BTreeMap<Number, Form>, chains: &[Vec<usize>]) -> Vec<BTreeSet<usize>> {
    let mut factors: Vec<(i128, Vec<usize>)> = Vec::new();
    for (number, form) in numbers.iter().filter(|(n, _)| n.1.is_factor()) {
        match chains.iter().find(|chain| chain.contains(&number.0)) {
            Some(chain) if chain.first() != Some(&number.0) => {}
            Some(chain) => factors.push((form.parts().1, chain.clone())),
            None => factors.push((form.parts().1, vec![number.0])),
        }
    }
    factors.sort();
    let some = |range: &[(i128, Vec<usize>)]| range.iter().flat_map(|(_, links)| links).copied().collect();
    let mut choices: Vec<BTreeSet<usize>> = (1..=factors.len()).rev().map(|count| some(&factors[..count])).collect();
    choices.extend(factors.iter().skip(1).map(|one| some(std::slice::from_ref(one))));
    choices
}
