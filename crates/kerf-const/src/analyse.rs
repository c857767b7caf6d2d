//! From variants to templates: which numbers of which functions follow from V, and which variants the template explains.

use std::collections::{BTreeMap, BTreeSet};

use crate::align::{self, Difference, Slot};
use crate::apply::encode;
use crate::chain;
use crate::code::Function;
use crate::form::{self, Form, Point};
use crate::variants::{Compiled, Variants};

/// A number of a base function, by instruction index.
pub type Number = (usize, Slot);

/// The deployed code of one function with numbers that follow from V.
#[derive(Clone, Debug)]
pub struct Template {
    /// Position of the unit in [`Variants::units`].
    pub unit: usize,
    /// The base function.
    pub function: Function,
    /// The numbers that change and how they follow from V.
    pub numbers: BTreeMap<Number, Form>,
    /// Numbers that change in a way that no form explains, with what was seen.
    pub unexplained: BTreeMap<Number, Vec<Point>>,
    /// Instructions that multiply by V together ([`crate::chain`]), by index.
    pub chains: Vec<Vec<usize>>,
}

impl Template {
    /// The number that the template has for a value, as the operand holds it.
    pub fn number(&self, number: Number, value: i128) -> Option<i64> {
        let bits = self.bits(number);
        self.numbers.get(&number)?.apply(value).map(|iv| form::wrap(iv, bits))
    }

    /// The width of a number.
    pub fn bits(&self, (index, slot): Number) -> u32 {
        self.function.code.get(index).map_or(64, |i| align::slot_bits(&i.insn, slot))
    }

    /// The number that is an instruction's factor, if it has one.
    pub fn factor(&self, index: usize) -> Option<Number> {
        [(index, Slot::Factor), (index, Slot::Second)].into_iter().find(|number| self.numbers.contains_key(number))
    }

    /// The last instruction of the chains that the factor of an instruction belongs to.
    pub fn chain_end(&self, index: usize) -> Option<usize> {
        let whole = self.chains.iter().filter(|chain| chain.iter().all(|link| self.factor(*link).is_some()));
        whole.filter(|chain| chain.contains(&index)).filter_map(|chain| chain.last().copied()).max()
    }

    /// Whether an instruction of it stands for a multiplication or division by V.
    pub fn has_operations(&self) -> bool {
        self.numbers.keys().any(|n| n.1.is_factor())
    }

    /// Refuses a value for which an instruction would get a number that it takes for another one.
    fn sensible(&self, value: i128) -> Result<(), String> {
        self.numbers.keys().try_for_each(|number| {
            let (Some(insn), Some(want)) = (self.function.code.get(number.0), self.number(*number, value)) else {
                return Ok(());
            };
            encode::sensible(&insn.insn, number.1, want)
                .map_err(|why| format!("{}+{:#x}: {why}", self.function.name, insn.offset()))
        })
    }

    /// Whether a variant is the template instruction for instruction; else the first difference in words.
    pub fn explains(&self, value: i128, difference: &Difference) -> Result<(), String> {
        let code = &self.function.code;
        let at = |index: usize| code.get(index).map_or(self.function.size, |i| i.offset());
        if let Some((base, _)) = difference.hunks.first() {
            return Err(format!("{}+{:#x}: instructions of another shape", self.function.name, at(base.start)));
        }
        if let Some(index) = difference.branches.first() {
            return Err(format!("{}+{:#x}: a branch goes elsewhere", self.function.name, at(*index)));
        }
        let changed: BTreeMap<Number, (i64, i64)> =
            difference.numbers.iter().map(|c| ((c.index, c.slot), (c.base, c.variant))).collect();
        for number in self.numbers.keys().chain(changed.keys()) {
            if number.1.is_factor() {
                return Err(format!("{}+{:#x}: an operation of another shape", self.function.name, at(number.0)));
            }
            let (Some(stock), bits) = (align::number(&code[number.0], number.1), self.bits(*number)) else {
                return Err(format!("{}+{:#x}: a number came or went", self.function.name, at(number.0)));
            };
            let seen = changed.get(number).map_or(stock, |c| c.1);
            let expected = if self.numbers.contains_key(number) { self.number(*number, value) } else { Some(stock) };
            if expected.map(|e| form::wrap(e.into(), bits)) != Some(form::wrap(seen.into(), bits)) {
                let expected = expected.map_or("nothing".into(), |e| format!("{e:#x}"));
                return Err(format!(
                    "{}+{:#x}: the compiler has {seen:#x} where {expected} was expected",
                    self.function.name,
                    at(number.0)
                ));
            }
        }
        Ok(())
    }
}

/// What the variants show of all units.
pub struct Analysis {
    /// The functions whose code follows from V.
    pub templates: Vec<Template>,
    /// Units (by position) with at least one changed function.
    pub touched: BTreeSet<usize>,
    /// Changes that concern whole functions: one that came or went.
    pub structural: BTreeMap<i128, String>,
}

impl Analysis {
    /// Whether a template has a multiplication or division by V.
    pub fn multiplies(&self) -> bool {
        self.templates.iter().any(Template::has_operations)
    }

    /// Whether the templates give the code of all these values as it stands, none of another shape.
    pub fn reproduces(&self, variants: &Variants, values: &[i128]) -> bool {
        let other_shape = |_: &Template, _, _: &Function, _: &Compiled| Err(String::new());
        values.iter().all(|value| agrees(variants, self, *value, &other_shape).is_ok())
    }
}

/// What a fit takes for numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The fields of instructions.
    Fields,
    /// Also what shifts and `lea` multiply or divide by, where most variants do not keep the instruction.
    Operations,
}

/// Compares all variants with the base and fits the numbers. `fit_on` are the values the fits may see.
pub fn analyse(variants: &Variants, fit_on: &[i128], reading: Reading) -> Analysis {
    let mut analysis = Analysis { templates: Vec::new(), touched: BTreeSet::new(), structural: BTreeMap::new() };
    for (unit, base) in variants.base().iter().enumerate() {
        for function in &base.code.functions {
            let seen = observe(variants, unit, function, fit_on, &mut analysis);
            if seen.iter().all(|(_, d)| d.is_empty()) {
                continue;
            }
            analysis.touched.insert(unit);
            analysis.templates.push(fit_function(unit, function, &seen, variants.site_value(), reading));
        }
    }
    analysis
}

fn observe(
    variants: &Variants,
    unit: usize,
    function: &Function,
    values: &[i128],
    analysis: &mut Analysis,
) -> Vec<(i128, Difference)> {
    let mut seen = Vec::new();
    for value in values {
        let Some(Ok(compiled)) = variants.get(*value) else { continue };
        match compiled.get(unit).and_then(|c| c.code.function(&function.name)) {
            Some(variant) => seen.push((*value, align::compare(function, variant))),
            None => {
                analysis.touched.insert(unit);
                let why = format!("the function {} is not there any more", function.name);
                analysis.structural.entry(*value).or_insert(why);
            }
        }
    }
    seen
}

/// Fits every number that changes in a variant of the same shape.
fn fit_function(
    unit: usize,
    function: &Function,
    seen: &[(i128, Difference)],
    stock: i128,
    reading: Reading,
) -> Template {
    let (numbers, chains) = match reading {
        Reading::Operations => operations(function, seen, stock),
        Reading::Fields => Default::default(),
    };
    let mut template = Template { unit, function: function.clone(), numbers, unexplained: BTreeMap::new(), chains };
    let operations: BTreeSet<usize> = template.numbers.keys().map(|n| n.0).collect();
    let same_shape: Vec<&(i128, Difference)> = seen.iter().filter(|(_, d)| d.same_shape()).collect();
    // Where the compiler never keeps the function's shape, the instructions that still correspond have to do.
    let reshaped = same_shape.len() < 3;
    let usable: Vec<&(i128, Difference)> = if reshaped { seen.iter().collect() } else { same_shape };
    // A frame that is laid out anew says nothing of V.
    let of_frame =
        |n: &Number| n.1 == Slot::Displacement && function.code[n.0].insn.memory_base() == iced_x86::Register::RSP;
    let changing: BTreeSet<Number> = usable
        .iter()
        .flat_map(|(_, d)| d.numbers.iter().map(|c| (c.index, c.slot)))
        .filter(|number| !(reshaped && of_frame(number)))
        .collect();
    for number in changing.into_iter().filter(|n| !operations.contains(&n.0)) {
        let Some(base) = align::number(&function.code[number.0], number.1) else { continue };
        let mut points: Vec<Point> = usable
            .iter()
            .filter(|(_, d)| d.pairs.contains_key(&number.0))
            .map(|(v, d)| {
                let change = d.numbers.iter().find(|c| (c.index, c.slot) == number);
                (*v, change.map_or(base, |c| c.variant))
            })
            .collect();
        points.push((stock, base));
        // Nearest first: a clamp or an overflow far away must not hide what holds near the deployed value.
        points.sort_by_key(|(v, _)| ((v - stock).unsigned_abs(), *v));
        let bits = template.bits(number);
        let fitted = (3..=points.len()).rev().find_map(|count| form::fit(&points[..count], bits));
        match fitted {
            // What stays the same near the deployed value does not follow from V: it is part of a reshuffle far away.
            Some(Form::Affine { a: 0, .. }) => {}
            Some(form) => {
                template.numbers.insert(number, form);
            }
            // Instructions of another shape can be paired by chance. The comparison with the variants will tell.
            None if reshaped => {}
            None => {
                template.unexplained.insert(number, points);
            }
        }
    }
    template
}

/// Operations by a multiple of V: instructions that most other values do not keep as they are, and whose factor (and addend) is a
/// multiple of the deployed value. Whether they are what they look like is for the comparison with the variants to say.
///
/// With them the chains of several, of which one has the whole factor and the others 1.
fn operations(
    function: &Function,
    seen: &[(i128, Difference)],
    stock: i128,
) -> (BTreeMap<Number, Form>, Vec<Vec<usize>>) {
    let mut found = BTreeMap::new();
    let others: Vec<&Difference> = seen.iter().filter(|(v, _)| *v != stock).map(|(_, d)| d).collect();
    // Where the compiler takes several instructions, one of them may look like the deployed one.
    let kept =
        |index: usize, d: &Difference| d.pairs.contains_key(&index) && d.numbers.iter().all(|c| c.index != index);
    let mostly_kept =
        |indexes: &[usize]| 2 * others.iter().filter(|d| indexes.iter().all(|n| kept(*n, d))).count() >= others.len();
    let multiple = |number: i64| {
        let number = i128::from(number);
        (stock > 1 && number % stock == 0).then(|| Form::Affine { a: number / stock, b: 0 })
    };
    for (index, insn) in function.code.iter().enumerate() {
        let Some(operation) = crate::operation::of(&insn.insn).filter(|_| !insn.patched && !insn.rewritten) else {
            continue;
        };
        if !insn.references.is_empty() || mostly_kept(&[index]) {
            continue;
        }
        let Some(factor) = multiple(operation.factor) else { continue };
        found.insert((index, Slot::Factor), factor);
        if let Some(addend) = multiple(operation.addend).filter(|_| operation.addend != 0) {
            found.insert((index, Slot::Displacement), addend);
        }
    }
    let mut chains = Vec::new();
    for chain in chain::find(function, stock) {
        let indexes: Vec<usize> = chain.links.iter().map(|link| link.0).collect();
        let taken = |index: &usize| found.keys().any(|number: &Number| number.0 == *index);
        if indexes.iter().any(taken) || mostly_kept(&indexes) {
            continue;
        }
        found.extend(chain.links.iter().map(|link| (*link, Form::ONE)));
        found.insert(chain.whole, Form::Affine { a: chain.factor / stock, b: 0 });
        chains.push(indexes);
    }
    (found, chains)
}

/// Decides whether a compiled function of another shape does for a value what a template says; else says why not.
pub type Same<'a> = dyn Fn(&Template, i128, &Function, &Compiled) -> Result<(), String> + 'a;

/// Whether the code compiled for one value is what the templates say, in all functions of all units.
///
/// `same` is asked where a variant has another shape; it has to prove that it does the same as the template.
pub fn agrees(variants: &Variants, analysis: &Analysis, value: i128, same: &Same) -> Result<(), String> {
    let compiled = match variants.get(value) {
        Some(Ok(compiled)) => compiled,
        Some(Err(words)) => {
            return Err(format!("the source forbids it: {}", words.lines().next().unwrap_or("build error")));
        }
        None => return Err("it was not compiled".into()),
    };
    for (unit, base) in variants.base().iter().enumerate() {
        let Some(variant) = compiled.get(unit) else { return Err("a unit is missing".into()) };
        for function in &base.code.functions {
            function_agrees(analysis, unit, function, variant, value, same)?;
        }
        let known: BTreeSet<&str> = base.code.functions.iter().map(|f| f.name.as_str()).collect();
        if let Some(new) = variant.code.functions.iter().find(|f| !known.contains(f.name.as_str())) {
            return Err(format!("the compiler makes a new function {}", new.name));
        }
    }
    Ok(())
}

/// Whether one function compiled for a value is what its template says, or as deployed if it has none.
pub fn function_agrees(
    analysis: &Analysis,
    unit: usize,
    function: &Function,
    variant: &Compiled,
    value: i128,
    same: &Same,
) -> Result<(), String> {
    let Some(other) = variant.code.function(&function.name) else {
        return Err(format!("the function {} is not there any more", function.name));
    };
    let difference = align::compare(function, other);
    match analysis.templates.iter().find(|t| t.unit == unit && t.function.name == function.name) {
        None if difference.is_empty() => Ok(()),
        None => {
            let (numbers, unexplained) = (BTreeMap::new(), BTreeMap::new());
            let chains = Vec::new();
            let untouched = Template { unit, function: function.clone(), numbers, unexplained, chains };
            untouched.explains(value, &difference).or_else(|_| same(&untouched, value, other, variant))
        }
        Some(template) => {
            template.sensible(value)?;
            let explained = template.explains(value, &difference);
            explained.or_else(|why| same(template, value, other, variant).map_err(|more| format!("{why} ({more})")))
        }
    }
}
