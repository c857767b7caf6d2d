//! Compiling values again: what an entry says of them, held against what the compiler makes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kerf_image::Image;

use crate::analyse::{self, Analysis, Template};
use crate::build::{self, Input};
use crate::compile::{self, Unit};
use crate::deployed::Deployed;
use crate::entry::Entry;
use crate::equivalence::{self, Effort, Signatures};
use crate::error::ConstError;
use crate::grep;
use crate::site::{self, Query, Site, SiteKind};
use crate::tree::Destination;
use crate::units;
use crate::variants::{Variants, in_parallel};

/// Which units are compiled to check an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those that the entry names.
    Named,
    /// All units of the image that use the constant: where the entry says that nothing changes, nothing may change.
    Users,
}

/// What became of a value: it agrees, or why not.
pub type Judged = (i128, Result<(), String>);

/// Compiles exactly one value and compares it with what the entry would put into the deployed code.
///
/// # Errors
/// [`ConstError::OutsideDomain`] if the compiler makes something else, or if the comparison is not conclusive.
pub fn certify_value(input: &Input, entry: &Entry, value: i128) -> Result<(), ConstError> {
    certify_values(input, entry, &[value])
}

/// The same for several values; the first that does not agree is the error.
pub(crate) fn certify_values(input: &Input, entry: &Entry, values: &[i128]) -> Result<(), ConstError> {
    let outside = |value: i128, why: String| ConstError::OutsideDomain { id: entry.id.clone(), value, why };
    for (value, verdict) in Recheck::new(input, entry, Reach::Named, values)?.judge(values)? {
        verdict.map_err(|why| outside(value, why))?;
    }
    Ok(())
}

/// An entry made ready to be held against many values: its units preprocessed and compiled, its functions found in the
/// image.
pub struct Recheck<'a> {
    variants: Variants<'a>,
    analysis: Analysis,
    signatures: Signatures,
}

/// Values that are compiled before any of them is judged and let go: enough to keep the processors busy.
const AT_A_TIME: usize = 8;

impl<'a> Recheck<'a> {
    /// Gets everything ready that does not depend on the value; `first` are values to compile along with it.
    ///
    /// # Errors
    /// [`ConstError::OutsideDomain`] if the entry is not of this source and image.
    pub fn new(input: &Input<'a>, entry: &Entry, reach: Reach, first: &[i128]) -> Result<Recheck<'a>, ConstError> {
        build::check_source(input)?;
        let value = first.first().copied().unwrap_or(entry.value);
        let outside = |why: String| ConstError::OutsideDomain { id: entry.id.clone(), value, why };
        let site = site_of(input.tree.root(), entry)?;
        let first = &first[..first.len().min(AT_A_TIME)];
        // What is read from the image takes as long as a compilation; neither needs the other.
        let (variants, image) = std::thread::scope(|scope| {
            let image = scope.spawn(|| -> Result<(Option<Image>, Signatures), ConstError> {
                let module = build::module_image(input, entry.image.module.as_deref())?;
                Ok((module, Signatures::of(input.image)))
            });
            let variants = units(input, entry, &site, reach)
                .and_then(|units| Variants::with_values(input.tree, &site, entry.value, units, first));
            (variants, image.join())
        });
        let variants = variants?;
        let (module, signatures) =
            image.map_err(|_| ConstError::Internal("reading the image failed: a thread panicked".into()))??;
        let analysis = analysis(entry, &variants).map_err(outside)?;
        let deployed = Deployed::new(module.as_ref().unwrap_or(input.image))?;
        if let (_, Some((_, why))) = build::locate(&analysis, &deployed) {
            return Err(outside(why));
        }
        Ok(Recheck { variants, analysis, signatures })
    }

    /// The units that are compiled.
    pub fn units(&self) -> impl Iterator<Item = &str> {
        self.variants.units().iter().map(|unit| unit.name.as_str())
    }

    /// Compiles values and compares each with what the entry says, in the order given.
    pub fn judge(&mut self, values: &[i128]) -> Result<Vec<Judged>, ConstError> {
        let mut judged = Vec::with_capacity(values.len());
        for some in values.chunks(AT_A_TIME) {
            self.variants.make(some)?;
            judged.extend(in_parallel(some.len(), |n| (some[n], self.verdict(some[n]))));
            self.variants.forget(some);
        }
        Ok(judged)
    }

    fn verdict(&self, value: i128) -> Result<(), String> {
        let same = equivalence::comparison(&self.variants, &self.analysis, &self.signatures, Effort::Full);
        analyse::agrees(&self.variants, &self.analysis, value, &same)
    }
}

/// The units to compile, preprocessed: those of the entry, and the other users of the constant if they are wanted.
fn units(input: &Input, entry: &Entry, site: &Site, reach: Reach) -> Result<Vec<Unit>, ConstError> {
    let mut names: BTreeSet<String> = entry.units.iter().cloned().collect();
    if reach == Reach::Users {
        let home = entry.image.module.clone().map_or(Destination::Core, Destination::Module);
        let users = units::candidates(input.tree, site)?.into_iter().filter(|c| c.destination == home);
        names.extend(users.map(|c| c.unit));
    }
    let names: Vec<String> = names.into_iter().collect();
    let mut units = Vec::new();
    for (unit, name) in
        in_parallel(names.len(), |n| compile::preprocess(input.tree, &names[n], site)).into_iter().zip(&names)
    {
        let named = entry.units.contains(name);
        match unit {
            Ok(Some(unit)) => units.push(unit),
            Ok(None) if named => {
                let why = format!("{name} does not use the constant");
                return Err(ConstError::OutsideDomain { id: entry.id.clone(), value: entry.value, why });
            }
            // What kbuild does not make in this configuration is not part of the kernel.
            Ok(None) => {}
            Err(ConstError::NoCommand { .. } | ConstError::Compile { .. }) if !named => {}
            Err(error) => return Err(error),
        }
    }
    Ok(units)
}

/// The site that an entry was built from, found again in the source.
pub(crate) fn site_of(root: &Path, entry: &Entry) -> Result<Site, ConstError> {
    let text = grep::read_source(root, &entry.file)?;
    let start = text.split('\n').take(entry.line as usize - 1).map(|l| l.len() + 1).sum::<usize>();
    let index: usize = entry.id.rsplit(':').next().and_then(|i| i.parse().ok()).unwrap_or(0);
    let damaged = || ConstError::Damaged {
        id: entry.id.clone(),
        why: format!("line {} of {} does not hold `{}`", entry.line, entry.file, entry.text),
    };
    // What is no definition is named by its place alone, and found again as it was found first.
    if matches!(entry.kind, SiteKind::Literal | SiteKind::Use) {
        let found = Query::parse(&entry.id).and_then(|query| site::find(root, &query));
        return found.ok().and_then(|sites| sites.into_iter().next()).ok_or_else(damaged);
    }
    let line = text.get(start..).ok_or_else(damaged)?;
    let word = |at: usize| {
        let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        let number = entry.text.starts_with(|c: char| c.is_ascii_alphanumeric());
        !(number
            && (part_of_word(line[..at].chars().next_back())
                || part_of_word(line[at + entry.text.len()..].chars().next())))
    };
    let end = line.find('\n').unwrap_or(line.len()).max(entry.text.len());
    let found = line.match_indices(&entry.text).map(|(at, _)| at).filter(|at| *at < end && word(*at)).nth(index);
    let at = found.ok_or_else(damaged)?;
    Ok(Site {
        file: entry.file.clone(),
        line: entry.line,
        index: index as u32,
        name: entry.name.clone(),
        kind: entry.kind,
        text: entry.text.clone(),
        range: start + at..start + at + entry.text.len(),
    })
}

/// The templates that an entry describes, over freshly compiled base functions.
fn analysis(entry: &Entry, variants: &Variants) -> Result<Analysis, String> {
    let mut templates: BTreeMap<(usize, String), Template> = BTreeMap::new();
    for span in &entry.spans {
        let unit = variants
            .units()
            .iter()
            .position(|u| u.name == span.unit)
            .ok_or_else(|| format!("no unit {}", span.unit))?;
        let function = variants.base()[unit]
            .code
            .function(&span.function)
            .ok_or_else(|| format!("no function {}", span.function))?;
        let template = templates.entry((unit, span.function.clone())).or_insert_with(|| Template {
            unit,
            function: function.clone(),
            numbers: BTreeMap::new(),
            unexplained: BTreeMap::new(),
            chains: Vec::new(),
        });
        let mut links = Vec::new();
        for iv in &span.iv {
            let index = function.code.iter().position(|i| i.offset() == iv.offset);
            let index = index.ok_or_else(|| format!("{}+{:#x} is no instruction", span.function, iv.offset))?;
            template.numbers.insert((index, iv.slot.into()), iv.form);
            links.extend(iv.chained.then_some(index));
        }
        template.chains.extend(Some(links).filter(|links| !links.is_empty()));
    }
    let touched = templates.keys().map(|(unit, _)| *unit).collect();
    Ok(Analysis { templates: templates.into_values().collect(), touched, structural: BTreeMap::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::tests::entry;

    #[test]
    fn a_place_is_found_again_behind_a_comment() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.c"), "int x = SIZE /* SIZE 8 */ + SIZE;\nint y = 0x8 + 8;\n").unwrap();
        let found = |id: &str, line, kind, text: &str| {
            let mut entry = entry("A", 8, (1, 9), Vec::new());
            (entry.id, entry.file, entry.line, entry.kind, entry.text) =
                (id.into(), "a.c".into(), line, kind, text.into());
            site_of(dir.path(), &entry).map(|site| site.range)
        };
        assert_eq!(found("a.c:L1:SIZE:1", 1, SiteKind::Use, "SIZE").unwrap(), 28..32);
        // Both numbers have the value, and only one of them the text.
        assert_eq!(found("a.c:L2:8:1", 2, SiteKind::Literal, "8").unwrap(), 48..49);
        assert!(matches!(found("a.c:L1:SIZE:2", 1, SiteKind::Use, "SIZE"), Err(ConstError::Damaged { .. })));
    }
}
