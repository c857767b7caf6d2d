//! From a site in the source to an entry: the chain, run from one end to the other.

mod judge;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kerf_image::Image;

use crate::analyse::{self, Analysis, Reading};
use crate::compile::{self, Evaluation, Rest, Unit};
use crate::data;
use crate::deployed::{Deployed, Match};
use crate::domain::{self, Verdicts};
use crate::entry::{Class, Entry, ImageName, Interval, Span};
use crate::equivalence::Signatures;
use crate::error::ConstError;
use crate::form::Form;
use crate::governed;
use crate::liveness::Liveness;
use crate::parameters;
use crate::prove::Proofs;
pub use crate::recheck::{Judged, Reach, Recheck, certify_value};
use crate::safe_span::{Analysis as _, ThinSlices, lines};
use crate::site::{self, Query, Site};
use crate::span;
use crate::tree::{Destination, Tree};
use crate::units::{self, Candidate};
use crate::variants::{self, Variants, in_parallel};
pub use crate::verify::verify;

/// Where to build from, and what for.
pub struct Input<'a> {
    /// The prepared source.
    pub tree: &'a Tree,
    /// The core image.
    pub image: &'a Image,
    /// Directory with the image's modules (`lib/modules/RELEASE`), for constants of modules.
    pub modules: Option<&'a Path>,
}

/// Builds the entries of all constants that a query names.
pub fn build(input: &Input, query: &Query) -> Result<Vec<Entry>, ConstError> {
    check_source(input)?;
    let mut entries = Vec::new();
    for site in site::find(input.tree.root(), query)? {
        let entry = build_site(input, site)?;
        if let Query::Line { file, line, value, index } = query
            && entry.value != *value
        {
            let literals = vec![format!("{} = {}", entry.text, entry.value)];
            let content = entry.text.clone();
            let (file, line, value, index) = (file.clone(), *line, *value, *index);
            return Err(ConstError::NoSuchValue { file, line, value, index, content, literals });
        }
        entries.push(entry);
    }
    // Of several definitions under one name, those that this configuration does not use are no news.
    if entries.iter().any(|e| e.class != Class::Absent) {
        entries.retain(|e| e.class != Class::Absent);
    } else {
        entries.truncate(1);
    }
    Ok(entries)
}

/// Refuses a source of another version than the image.
pub(crate) fn check_source(input: &Input) -> Result<(), ConstError> {
    let Some(release) = input.image.release() else { return Ok(()) };
    let version = input.tree.version();
    let rest = release.strip_prefix(version);
    if rest.is_some_and(|r| !r.starts_with(|c: char| c.is_ascii_digit())) {
        return Ok(());
    }
    Err(ConstError::ForeignSource {
        tree: input.tree.root().into(),
        source_version: version.into(),
        image_release: release.into(),
    })
}

/// One constant on its way: what is known so far.
struct Job<'a> {
    input: &'a Input<'a>,
    site: Site,
    value: Evaluation,
    module: Option<String>,
    /// Modules that use the constant too and are not part of this entry.
    elsewhere: Vec<String>,
}

fn build_site(input: &Input, site: Site) -> Result<Entry, ConstError> {
    let candidates = units::candidates(input.tree, &site)?;
    // The first unit that uses the site tells its value, and whether it is about a layout: most of the kernel may
    // include such a header, and need not be looked at any more.
    let mut first = None;
    for (n, candidate) in candidates.iter().enumerate() {
        if let Some(unit) = use_in(input, candidate, &site, candidates.len() == 1)? {
            first = Some((n, unit));
            break;
        }
    }
    let Some((position, first)) = first else {
        let unknown = Evaluation { value: literal_of(&site.text).unwrap_or(0), bits: 32, signed: true };
        let job = Job { input, site, value: unknown, module: None, elsewhere: Vec::new() };
        return Ok(job.refuse(Class::Absent, "no unit that this configuration builds uses it".into(), &[]));
    };
    let narrowed = narrow(&site);
    let value = match (&narrowed, first.evaluate(input.tree, &site)?) {
        // `f(2)`: the number that a person would change is the argument.
        (Some(inner), _) if is_call(&site.text) => return build_site(input, inner.clone()),
        (_, Some(value)) => value,
        (Some(inner), None) => return build_site(input, inner.clone()),
        (None, None) => {
            let unknown = Evaluation { value: 0, bits: 32, signed: true };
            let job = Job { input, site, value: unknown, module: None, elsewhere: Vec::new() };
            let reason = "its value is computed while the kernel runs, and holds no number to set".into();
            return Ok(job.refuse(Class::Shape, reason, &[first]));
        }
    };
    let mut job = Job { input, site, value, module: None, elsewhere: Vec::new() };
    if let Some(changed) = job.layout(&first)? {
        let reason = format!("it decides {changed}: code all over the kernel relies on that");
        return Ok(job.refuse(Class::Layout, reason, &[first]));
    }
    let mut used = vec![(first, &candidates[position])];
    let rest = &candidates[position + 1..];
    let results = in_parallel(rest.len(), |n| use_in(input, &rest[n], &job.site, false));
    for (result, candidate) in results.into_iter().zip(rest) {
        used.extend(result?.map(|unit| (unit, candidate)));
    }
    let looked_at = used.first().is_some_and(|(unit, _)| unit.may_decide_layout());
    let units = emitting(input, job.choose_image(used))?;
    // A type of one unit alone may follow from it although the first unit uses it in statements only.
    for (unit, _) in units.iter().filter(|_| !looked_at) {
        if let Some(changed) = job.layout(unit)? {
            let reason = format!("it decides {changed}: code of {} relies on that", unit.name);
            return Ok(job.refuse(Class::Layout, reason, std::slice::from_ref(unit)));
        }
    }
    let (whole, reduced) = units.into_iter().unzip();
    job.build_reduced(whole, reduced)
}

/// The units whose code has to do with the site, the first at least: whole, and reduced to what the site can reach.
fn emitting(input: &Input, units: Vec<Unit>) -> Result<Vec<(Unit, Unit)>, ConstError> {
    let reduced = in_parallel(units.len(), |n| units[n].reduced(Rest::Reached));
    let units: Vec<(Unit, Unit)> = units.into_iter().zip(reduced).collect();
    if units.len() < 2 {
        return Ok(units);
    }
    let emits =
        in_parallel(units.len(), |n| units[n].1.emits(input.tree)).into_iter().collect::<Result<Vec<_>, _>>()?;
    let any = emits.contains(&true);
    let kept = |(n, unit): (usize, _)| (emits[n] || !any && n == 0).then_some(unit);
    Ok(units.into_iter().enumerate().filter_map(kept).collect())
}

/// The unit of a candidate, if it uses the site.
fn use_in(input: &Input, candidate: &Candidate, site: &Site, only: bool) -> Result<Option<Unit>, ConstError> {
    match compile::preprocess(input.tree, &candidate.unit, site) {
        // A unit that kbuild itself does not make in this configuration is not part of the kernel.
        Err(ConstError::NoCommand { .. } | ConstError::Compile { .. }) if !only => Ok(None),
        other => other,
    }
}

/// The first number inside a site's text, as a site of its own.
fn narrow(site: &Site) -> Option<Site> {
    let literal = site::literals(&site.text).into_iter().next()?;
    if literal.range == (0..site.text.len()) {
        return None;
    }
    let range = site.range.start + literal.range.start..site.range.start + literal.range.end;
    Some(Site { text: site.text[literal.range].to_string(), range, ..site.clone() })
}

/// Whether a text is one function call with one number as its argument.
pub(crate) fn is_call(text: &str) -> bool {
    let text = text.trim();
    let Some((name, rest)) = text.split_once('(') else { return false };
    let plain = !name.is_empty() && name.trim().chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    plain && rest.strip_suffix(')').is_some_and(|argument| site::parse_integer(argument).is_some())
}

fn literal_of(text: &str) -> Option<i128> {
    site::literals(text).first().map(|l| l.value)
}

impl Job<'_> {
    fn image_name(&self) -> ImageName {
        ImageName {
            build_id: self.input.image.build_id().map(|b| b.to_string()).unwrap_or_default(),
            release: self.input.image.release().unwrap_or_default().to_string(),
            text: text_base(self.input.image),
            module: self.module.clone(),
        }
    }

    fn entry(&self, class: Class, reason: String, units: &[Unit]) -> Entry {
        let shown = self.value.value.to_string();
        Entry {
            id: self.site.id(&shown),
            name: self.site.name.clone(),
            file: self.site.file.clone(),
            line: self.site.line,
            value: self.value.value,
            kind: self.site.kind,
            class,
            reason,
            image: self.image_name(),
            domain: Vec::new(),
            spans: Vec::new(),
            safe_spans: Vec::new(),
            units: units.iter().map(|u| u.name.clone()).collect(),
            text: self.site.text.clone(),
            governed: Vec::new(),
        }
    }

    fn refuse(&self, class: Class, reason: String, units: &[Unit]) -> Entry {
        self.entry(class, reason, units)
    }

    /// Builds from reduced units. Without the other functions the compiler may treat these otherwise than it did for the kernel: then
    /// from units that have more of them, in the end from whole ones.
    fn build_reduced(&self, whole: Vec<Unit>, reduced: Vec<Unit>) -> Result<Entry, ConstError> {
        let differ = |a: &[Unit], b: &[Unit]| a.iter().zip(b).any(|(a, b)| a.marked() != b.marked());
        if differ(&whole, &reduced) {
            if let Some(entry) = self.settled(reduced.clone())? {
                return Ok(entry);
            }
            let more = in_parallel(whole.len(), |n| whole[n].reduced(Rest::Callers));
            if differ(&whole, &more)
                && differ(&reduced, &more)
                && let Some(entry) = self.settled(more)?
            {
                return Ok(entry);
            }
        }
        self.build(whole)
    }

    /// Builds, unless other functions of the units could make a difference.
    fn settled(&self, units: Vec<Unit>) -> Result<Option<Entry>, ConstError> {
        let why = match self.build(units) {
            Ok(entry) => match entry.class {
                Class::Proved | Class::Sensitive | Class::Data | Class::Layout => return Ok(Some(entry)),
                _ => entry.reason,
            },
            Err(ConstError::Compile { output, .. }) => output,
            Err(other) => return Err(other),
        };
        tracing::debug!(site = self.site.name, why, "the units are reduced too far");
        Ok(None)
    }

    fn build(&self, units: Vec<Unit>) -> Result<Entry, ConstError> {
        let sample = variants::sample(self.value.value, self.value);
        // Three values tell which units the constant reaches at all; the others are not compiled further.
        let first: Vec<i128> = self.first_look(&sample);
        let mut variants = Variants::with_values(self.input.tree, &self.site, self.value.value, units, &first)?;
        let touched = touched_units(&variants, &first);
        let data = self.changed_data(&variants);
        if !data.is_empty() {
            return Ok(self.in_data(&variants, &data));
        }
        let keep: Vec<bool> = (0..variants.units().len()).map(|n| touched.contains(&n)).collect();
        if !keep.contains(&true) && variants.values().next().is_some() {
            // Values that look alike here may still differ elsewhere: try all before saying that nothing changes.
            variants.make(&sample)?;
            if touched_units(&variants, &sample).is_empty() {
                return Ok(self.nothing_changes(&variants));
            }
        } else {
            variants.retain(&keep);
        }
        self.prove(variants, &sample)
    }

    fn first_look(&self, sample: &[i128]) -> Vec<i128> {
        let v = self.value.value;
        let near = sample.iter().copied().filter(|s| *s > v).min().or(sample.first().copied());
        let far = sample.iter().copied().filter(|s| *s > v + 1 && *s % 2 != 0).max().or(sample.last().copied());
        let small = sample.first().copied();
        let mut values: Vec<i128> = near.into_iter().chain(far).chain(small).collect();
        values.sort();
        values.dedup();
        values
    }

    fn changed_data(&self, variants: &Variants) -> Vec<String> {
        let mut names = BTreeSet::new();
        for value in variants.values() {
            let Some(Ok(compiled)) = variants.get(value) else { continue };
            for (base, variant) in variants.base().iter().zip(compiled) {
                names.extend(data::changed_variables(&base.object, &variant.object));
            }
        }
        names.into_iter().collect()
    }

    fn nothing_changes(&self, variants: &Variants) -> Entry {
        let data = self.changed_data(variants);
        if !data.is_empty() {
            return self.in_data(variants, &data);
        }
        let values: Vec<String> = variants.values().map(|v| v.to_string()).collect();
        let reason = format!("the compiler makes the same code with {}", values.join(", "));
        self.refuse(Class::Shadowed, reason, variants.units())
    }

    fn in_data(&self, variants: &Variants, names: &[String]) -> Entry {
        let module = self.module.clone().unwrap_or_else(|| {
            let unit = variants.units().first().map_or("", |u| u.name.as_str());
            unit.rsplit('/').next().unwrap_or(unit).trim_end_matches(".c").replace('-', "_")
        });
        let units: Vec<&str> = variants.units().iter().map(|u| u.name.as_str()).collect();
        let shown: Vec<String> = names
            .iter()
            .map(|name| {
                let knob = data::knob_in(variants.tree().root(), &units, name, &module);
                match knob {
                    Some(knob) => format!("{name} (set it through {knob})"),
                    None => format!("{name} (no sysctl, module parameter or debugfs file was found for it)"),
                }
            })
            .collect();
        let reason = format!("the compiler put it into {}", shown.join(", "));
        self.refuse(Class::Data, reason, variants.units())
    }

    /// Compares the types of a unit with the deployed and the next value.
    fn layout(&self, unit: &Unit) -> Result<Option<String>, ConstError> {
        if !unit.may_decide_layout() {
            return Ok(None);
        }
        let next = self.value.value + 1;
        let objects = in_parallel(2, |n| match n {
            0 => unit.with_debug_information(self.input.tree, &self.site).map(Cow::Borrowed),
            _ => unit.compile(self.input.tree, &self.site, Some(next), true).map(Cow::Owned),
        });
        match &objects[..] {
            [Ok(base), Ok(variant)] => crate::layout::changed_type(base, variant),
            [Ok(_), Err(ConstError::Compile { output, .. })] => {
                // What the source itself ties down at build time is no free quantity, but need not be a layout.
                tracing::debug!(%output, "the next value does not compile");
                Ok(None)
            }
            _ => objects.into_iter().find_map(Result::err).map_or(Ok(None), Err),
        }
    }

    /// Keeps the units of one image: the core's, or those of the first module. The others are remembered.
    fn choose_image(&mut self, used: Vec<(Unit, &Candidate)>) -> Vec<Unit> {
        let core = used.iter().any(|(_, c)| c.destination == Destination::Core);
        let chosen = match used.first() {
            Some(_) if core => Destination::Core,
            Some((_, c)) => c.destination.clone(),
            None => Destination::Nowhere,
        };
        if let Destination::Module(name) = &chosen {
            self.module = Some(name.clone());
        }
        let mut units = Vec::new();
        for (unit, candidate) in used {
            match &candidate.destination {
                d if *d == chosen => units.push(unit),
                Destination::Module(name) if !self.elsewhere.contains(name) => self.elsewhere.push(name.clone()),
                _ => {}
            }
        }
        units
    }

    fn prove(&self, mut variants: Variants, sample: &[i128]) -> Result<Entry, ConstError> {
        let held = variants::held_out(self.value.value, self.value);
        let module_image = module_image(self.input, self.module.as_deref())?;
        if self.module.is_some() && module_image.is_none() {
            let reason =
                format!("the module {} is not at hand: name its directory", self.module.as_deref().unwrap_or_default());
            return Ok(self.with_units(Class::Absent, reason, &variants));
        }
        let deployed = Deployed::new(module_image.as_ref().unwrap_or(self.input.image))?;
        let signatures = Signatures::of(self.input.image);
        let only = Interval { min: self.value.value, max: self.value.value };
        let sensitive = |variants: &Variants, analysis: &Analysis, addresses: &BTreeMap<usize, u64>| {
            if let Some(reason) = crate::sensitive::discarded(analysis) {
                return Some(self.with_units(Class::Absent, reason, variants));
            }
            let reason = crate::sensitive::check(analysis, deployed.image())?;
            let mut entry = self.with_units(Class::Sensitive, reason, variants);
            let nothing = (only, &Verdicts::new(), &held[..]);
            entry.spans = self.spans(variants, analysis, (addresses, &deployed), nothing, &signatures);
            Some(entry)
        };
        // Where a few values explain themselves, what they show refuses the constant: the others need not be compiled.
        let seen: Vec<i128> = variants.values().collect();
        let few = analyse::analyse(&variants, &seen, Reading::Fields);
        if few.reproduces(&variants, &seen)
            && let (addresses, None) = locate(&few, &deployed)
            && let Some(entry) = sensitive(&variants, &few, &addresses)
        {
            return Ok(entry);
        }
        variants.make(&sample.iter().chain(&held).copied().collect::<Vec<_>>())?;
        let (analysis, sample) = self.explained(&mut variants, sample, &held)?;
        let sample = &sample[..];
        let (addresses, problem) = locate(&analysis, &deployed);
        if let Some((class, reason)) = problem {
            return Ok(self.with_units(class, reason, &variants));
        }
        if let Some(entry) = sensitive(&variants, &analysis, &addresses) {
            return Ok(entry);
        }
        let (analysis, verdicts) = self.read(&variants, sample, &signatures, analysis);
        if analysis.multiplies()
            && let Some(entry) = sensitive(&variants, &analysis, &addresses)
        {
            return Ok(entry);
        }
        // A number that follows from V in no known way may not matter: what is divided by V needs no inverse of it.
        if verdicts.values().all(Result::is_err)
            && let Some((template, number)) =
                analysis.templates.iter().find_map(|t| t.unexplained.keys().next().map(|n| (t, *n)))
        {
            let insn = &template.function.code[number.0];
            let points: Vec<String> =
                template.unexplained[&number].iter().take(6).map(|(v, i)| format!("{v}→{i:#x}")).collect();
            let reason = format!(
                "{}+{:#x}: no form explains its number: {}",
                template.function.name,
                insn.offset(),
                points.join(", ")
            );
            return Ok(self.with_units(Class::Shape, reason, &variants));
        }
        // Where nothing holds next to the deployed value, values further away need not be tried, but for powers of two.
        let nothing_near = verdicts.iter().all(|(v, r)| r.is_err() && (v - self.value.value).abs() == 1);
        let powers = if nothing_near { self.powers(&mut variants, sample, &signatures)? } else { None };
        let only_powers = powers.is_some();
        let (analysis, domain, verdicts) = match powers {
            Some(certified) => certified,
            None if nothing_near => return Ok(self.unaligned(&verdicts, &variants)),
            None => {
                let (domain, verdicts) = self.certify(&mut variants, &analysis, &held, &signatures, verdicts)?;
                (analysis, domain, verdicts)
            }
        };
        if domain.min == domain.max {
            return Ok(self.unaligned(&verdicts, &variants));
        }
        let spans = self.spans(&variants, &analysis, (&addresses, &deployed), (domain, &verdicts, &held), &signatures);
        if let Some(span) = spans.iter().find(|s| !s.proof.smt) {
            let place = format!("{}+{:#x}", span.function, span.start);
            let reason =
                format!("{place}: the solver does not prove that the update equals the template: {}", span.expression);
            return Ok(self.with_units(Class::Shape, reason, &variants));
        }
        let mut entry = self.with_units(Class::Proved, self.proof_reason(&verdicts, domain, &spans), &variants);
        let mut agreeing: Vec<i128> = domain::agreeing(&verdicts, domain).collect();
        if only_powers {
            entry.reason += "; only powers of two: for other values the compiler makes other code";
            agreeing.push(self.value.value);
            agreeing.sort_unstable();
        }
        let forms = analysis.templates.iter().flat_map(|t| t.numbers.values().copied());
        let loose: Vec<Form> = forms.filter(|form| !form.is_pinned_by(&agreeing, domain.max)).collect();
        entry.domain = if only_powers {
            agreeing.iter().map(|v| Interval { min: *v, max: *v }).collect()
        } else if loose.is_empty() {
            vec![domain]
        } else {
            let level = |v| loose.iter().map(|f| f.apply(v)).collect();
            domain::certain(domain, &verdicts, self.value.value, level)
        };
        entry.spans = spans;
        self.read_debug_information(&mut entry, variants.units(), deployed.image())?;
        entry.governed = governed::knobs(self.input.tree.root(), &self.site)?;
        Ok(entry)
    }

    /// The numbers in fields; where no form explains one of them, with more values near the deployed one.
    fn explained(
        &self,
        variants: &mut Variants,
        sample: &[i128],
        held: &[i128],
    ) -> Result<(Analysis, Vec<i128>), ConstError> {
        let analysis = analyse::analyse(variants, sample, Reading::Fields);
        if analysis.templates.iter().all(|template| template.unexplained.is_empty()) {
            return Ok((analysis, sample.to_vec()));
        }
        let mut more = variants::neighbours(self.value.value, self.value);
        more.retain(|value| !held.contains(value));
        variants.make(&more)?;
        let mut all = [sample, &more].concat();
        all.sort_unstable();
        all.dedup();
        Ok((analyse::analyse(variants, &all, Reading::Fields), all))
    }

    /// What policies can see at each place, and the safe spans, with the lines of their slices.
    fn read_debug_information(&self, entry: &mut Entry, units: &[Unit], image: &Image) -> Result<(), ConstError> {
        let used: Vec<&Unit> = units.iter().filter(|u| entry.spans.iter().any(|s| s.unit == u.name)).collect();
        let objects = in_parallel(used.len(), |n| used[n].with_debug_information(self.input.tree, &self.site));
        let objects = objects.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut slices = ThinSlices::default();
        for (unit, object) in used.iter().zip(&objects) {
            parameters::fill(&mut entry.spans, &unit.name, object)?;
            slices.variables.read(object)?;
        }
        entry.safe_spans = slices.safe_spans(image, entry)?;
        objects.iter().try_for_each(|object| {
            parameters::fill_begins(&mut entry.safe_spans, object)?;
            lines::fill(&mut entry.safe_spans, object)
        })
    }

    fn with_units(&self, class: Class, reason: String, variants: &Variants) -> Entry {
        self.entry(class, reason, variants.units())
    }

    fn unaligned(&self, verdicts: &Verdicts, variants: &Variants) -> Entry {
        let why = verdicts.values().find_map(|v| v.as_ref().err()).map_or("no value was compared", String::as_str);
        self.with_units(Class::Shape, format!("the variants' code does not align: {why}"), variants)
    }

    fn proof_reason(&self, verdicts: &Verdicts, domain: Interval, spans: &[Span]) -> String {
        let compared = verdicts.iter().filter(|(v, r)| r.is_ok() && (domain.min..=domain.max).contains(*v)).count();
        // Where the walk over both versions ended is for the log; the reader wants to know which value and where.
        let refused = verdicts.iter().find_map(|(v, r)| {
            let why = r.as_ref().err()?;
            Some(format!("; not certified: {v}: {}", why.split(" (at ").next().unwrap_or(why)))
        });
        let end = refused.unwrap_or_default();
        let elsewhere = match self.elsewhere.len() {
            0 => String::new(),
            _ => format!("; the modules {} use it too and keep the stock value", self.elsewhere.join(", ")),
        };
        format!("{} spans; {compared} compiled values agree{end}{elsewhere}", spans.len())
    }

    fn spans(
        &self,
        variants: &Variants,
        analysis: &Analysis,
        place: (&BTreeMap<usize, u64>, &Deployed),
        certified: (Interval, &Verdicts, &[i128]),
        signatures: &Signatures,
    ) -> Vec<Span> {
        let ((addresses, deployed), (domain, verdicts, held)) = (place, certified);
        let base = text_base(deployed.image());
        let agreeing = |v: &i128| (domain.min..=domain.max).contains(v) && verdicts.get(v).is_some_and(Result::is_ok);
        let held_out = held.iter().filter(|v| agreeing(v)).count() as u32;
        let all = verdicts.keys().filter(|v| agreeing(v)).count() as u32;
        let mut spans = Vec::new();
        let mut proofs = Proofs::new(self.value.value, domain);
        for (n, template) in analysis.templates.iter().enumerate() {
            let Some(address) = addresses.get(&n) else { continue };
            let Some(bytes) = deployed.image().bytes(*address, template.function.size as usize) else { continue };
            let (unit, name) = (template.unit, &template.function.name);
            let code = &variants.base()[unit].code;
            // Only operations take registers; flags do not survive a call, whatever it passes.
            let calls = if template.has_operations() { variants.calls(unit) } else { Arc::default() };
            let live = Liveness::of(code, name, &calls, signatures);
            for mut span in span::spans(template, self.value.value, address.wrapping_sub(base), &bytes, live.as_ref()) {
                span.proof.variants = all - held_out;
                span.proof.held_out = held_out;
                span.unit = variants.units().get(template.unit).map(|u| u.name.clone()).unwrap_or_default();
                proofs.prove(&mut span, template, live.as_ref());
                spans.push(span);
            }
        }
        spans
    }
}

/// The address from which function offsets count: `_text` of the core image, the first code section of a module.
pub fn text_base(image: &Image) -> u64 {
    let named = image.symbols_named("_text").next().map(|s| s.address);
    named.or_else(|| image.sections().iter().find(|s| s.exec).map(|s| s.address)).unwrap_or(0)
}

/// Units with a function that some of the values change.
fn touched_units(variants: &Variants, values: &[i128]) -> BTreeSet<usize> {
    analyse::analyse(variants, values, Reading::Fields).touched
}

/// Finds every changed function in the image, or the reason why that is not possible.
pub(crate) fn locate(analysis: &Analysis, deployed: &Deployed) -> (BTreeMap<usize, u64>, Option<(Class, String)>) {
    let mut addresses = BTreeMap::new();
    let mut absent = Vec::new();
    for (n, template) in analysis.templates.iter().enumerate() {
        match deployed.find(&template.function) {
            Match::Same(address) => {
                addresses.insert(n, address);
            }
            Match::Absent => absent.push(template.function.name.clone()),
            Match::Different { offset, why } => {
                let reason = format!(
                    "{}+{offset:#x}: {why}: the source, the configuration or the compiler is not this kernel's",
                    template.function.name
                );
                return (addresses, Some((Class::Foreign, reason)));
            }
        }
    }
    if let Some(name) = absent.first() {
        let reason = format!("the image has no function {name}");
        return (addresses, Some((Class::Absent, reason)));
    }
    (addresses, None)
}

/// Opens the module that holds a constant's code, if it lies in one and its directory is known.
pub(crate) fn module_image(input: &Input, module: Option<&str>) -> Result<Option<Image>, ConstError> {
    let (Some(module), Some(directory)) = (module, input.modules) else { return Ok(None) };
    open_module(directory, module)
}

/// Opens a module that lies somewhere in a directory; `None` if it is not there.
///
/// # Errors
/// If it cannot be read.
pub fn open_module(directory: &Path, module: &str) -> Result<Option<Image>, ConstError> {
    let wanted: Vec<String> = ["", ".xz", ".zst", ".gz"].iter().map(|s| format!("{module}.ko{s}")).collect();
    let path = find_file(directory, &|name| wanted.iter().any(|w| *w == name.replace('-', "_")));
    path.map(|p| Image::open(&p).map_err(ConstError::from)).transpose()
}

pub(crate) fn find_file(directory: &Path, wanted: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut pending = vec![directory.to_path_buf()];
    while let Some(next) = pending.pop() {
        for entry in std::fs::read_dir(&next).ok()?.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                pending.push(entry.path());
            } else if entry.file_name().to_str().is_some_and(wanted) {
                return Some(entry.path());
            }
        }
    }
    None
}
