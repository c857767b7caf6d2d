//! An entry carried over to another build of the kernel, without compiling, where the code and what it was made of are the same.
//!
//! `docs/porting.md` has the argument. Each step here says in words why an entry cannot be carried over; then it must be built again.

mod carry;
mod layout;
mod same;
mod source;

use std::collections::{BTreeMap, BTreeSet};

use kerf_image::Image;

use self::same::Pair;
use self::source::Slice;
use crate::build::text_base;
use crate::compile;
use crate::entry::{Class, Entry};
use crate::error::ConstError;
use crate::export;
use crate::nmi;
use crate::recheck;
use crate::site::Site;
use crate::tree::{Destination, Tree};
use crate::units;
use crate::variants::in_parallel;
use crate::verify;

/// One of the two builds.
#[derive(Clone, Copy)]
pub struct Build<'a> {
    /// Its core image.
    pub image: &'a Image,
    /// Its prepared source, where that is at hand.
    pub tree: Option<&'a Tree>,
}

/// What is known of the values that the image does not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The source that decides them is compared.
    Source,
    /// They are taken to be as in the other build.
    Assumed,
}

/// Two builds, between which entries go.
pub struct Porter<'a> {
    old: Build<'a>,
    new: Build<'a>,
    pair: Pair<'a>,
}

impl<'a> Porter<'a> {
    /// Reads both images.
    ///
    /// # Errors
    /// If one of them is damaged.
    pub fn new(old: Build<'a>, new: Build<'a>) -> Result<Porter<'a>, ConstError> {
        Ok(Porter { old, new, pair: Pair::new(old.image, new.image)? })
    }

    /// The entry as the new build has it, or why it must be built again.
    ///
    /// # Errors
    /// If the entry is not what the old image holds, or a source or an image cannot be read.
    pub fn port(&self, entry: &Entry, evidence: Evidence) -> Result<Result<Entry, String>, ConstError> {
        if entry.class != Class::Proved {
            return Ok(Err(format!("it is {}, which only a build can find", entry.class.word())));
        }
        if let Some(module) = &entry.image.module {
            return Ok(Err(format!("its code is in the module {module}, and only the core image is compared")));
        }
        export::compare(entry, self.old.image)?;
        // What is cheap comes first.
        let mut carried = match carry::carry(&self.pair, entry)? {
            Ok(carried) => carried,
            Err(why) => return Ok(Err(why)),
        };
        if let Err(why) = self.may_change(entry, &carried) {
            return Ok(Err(why));
        }
        let words = match self.source(entry, evidence)? {
            Ok(words) => words,
            Err(why) => return Ok(Err(why)),
        };
        let old = &entry.image;
        carried.reason =
            format!("{}; carried over from {}, build {}: {words}", entry.reason, old.release, old.build_id);
        for span in &carried.spans {
            if let Err(why) = verify::check_span(&carried, span) {
                return Ok(Err(why));
            }
        }
        // An entry that has no place for its own stock value has none here either.
        if export::validate(entry).is_ok() {
            export::validate(&carried)?;
        }
        export::compare(&carried, self.new.image)?;
        Ok(Ok(carried))
    }

    /// What forbids a change in the new image, whatever the code is.
    fn may_change(&self, old: &Entry, new: &Entry) -> Result<(), String> {
        let section = |image: &'a Image, offset: u64| {
            image.section_at(text_base(image).wrapping_add(offset)).map(|(_, section)| section.name.as_str())
        };
        for (a, b) in old.spans.iter().zip(&new.spans) {
            let (from, to) = (section(self.old.image, a.function_offset), section(self.new.image, b.function_offset));
            if from != to {
                let name = |s: Option<&str>| s.unwrap_or("no section").to_owned();
                return Err(format!("{} lies in {} instead of {}", a.function, name(to), name(from)));
            }
        }
        let functions: BTreeSet<&str> = new.spans.iter().map(|span| span.function.as_str()).collect();
        nmi::reached(self.new.image, &functions).map_or(Ok(()), Err)
    }

    /// Compares what the compiler would get for every value; gives what is to be said of it.
    fn source(&self, entry: &Entry, evidence: Evidence) -> Result<Result<String, String>, ConstError> {
        let trees = match (evidence, self.old.tree, self.new.tree) {
            (Evidence::Assumed, ..) => {
                return Ok(Ok("the same code; that its source is the same was assumed".into()));
            }
            (_, Some(old), Some(new)) => [old, new],
            (_, old, _) => {
                let which = if old.is_none() { "old" } else { "new" };
                return Ok(Err(format!(
                    "the source of the {which} build is not at hand, so that it cannot be compared"
                )));
            }
        };
        let [old, new] = trees.map(|tree| self.users(tree, entry));
        let (old, new) = match (old?, new?) {
            (Ok(old), Ok(new)) => (old, new),
            (Err(why), _) | (_, Err(why)) => return Ok(Err(why)),
        };
        let compared = self.compare(trees, &old, &new);
        Ok(compared.map(|count| format!("the same code, and the same source of {count} functions")))
    }

    /// The units of the core image that use the constant, with what hangs together with it.
    fn users(&self, tree: &Tree, entry: &Entry) -> Result<Result<BTreeMap<String, Slice>, String>, ConstError> {
        let site = match recheck::site_of(tree.root(), entry) {
            Ok(site) => site,
            Err(ConstError::Damaged { why, .. }) => return Ok(Err(format!("the source is another one: {why}"))),
            Err(ConstError::NoSuchFile { file, .. }) => return Ok(Err(format!("the source has no {file}"))),
            Err(other) => return Err(other),
        };
        let candidates = units::candidates(tree, &site)?;
        let core = candidates.into_iter().filter(|c| c.destination == Destination::Core);
        let names: Vec<String> = core.map(|c| c.unit).collect();
        tree.learn(&names)?;
        let slices = in_parallel(names.len(), |n| slice_of(tree, &names[n], &site));
        let mut users = BTreeMap::new();
        for (slice, name) in slices.into_iter().zip(names) {
            match slice? {
                Ok(Some(slice)) => users.insert(name, slice),
                Ok(None) => None,
                Err(why) => return Ok(Err(format!("{name}: {why}"))),
            };
        }
        Ok(Ok(users))
    }

    fn compare(
        &self,
        trees: [&Tree; 2],
        old: &BTreeMap<String, Slice>,
        new: &BTreeMap<String, Slice>,
    ) -> Result<usize, String> {
        for unit in old.keys().chain(new.keys()) {
            let (Some(from), Some(to)) = (old.get(unit), new.get(unit)) else {
                let which = if old.contains_key(unit) { "old" } else { "new" };
                return Err(format!("{unit} uses it in the {which} build only"));
            };
            same_text(unit, from, to)?;
            let command = |tree: &Tree| tree.command(unit).map_err(|error| error.to_string());
            if command(trees[0])? != command(trees[1])? {
                return Err(format!("{unit} is compiled with other options"));
            }
            layout::same((self.old.image, from), (self.new.image, to)).map_err(|why| format!("{unit}: {why}"))?;
        }
        let functions: BTreeSet<&String> = old.values().flat_map(|slice| &slice.functions).collect();
        functions.iter().try_for_each(|name| self.pair.same_parts(name))?;
        Ok(functions.len())
    }
}

/// What hangs together with a site in a unit; nothing if the unit does not use it.
fn slice_of(tree: &Tree, unit: &str, site: &Site) -> Result<Result<Option<Slice>, String>, ConstError> {
    let unit = match compile::preprocess(tree, unit, site) {
        Ok(Some(unit)) => unit,
        // What kbuild does not make in this configuration is not part of the kernel.
        Ok(None) | Err(ConstError::NoCommand { .. } | ConstError::Compile { .. }) => return Ok(Ok(None)),
        Err(error) => return Err(error),
    };
    Ok(match unit.marked() {
        Some(text) => source::slice(text).map(Some),
        None => Err("the preprocessor itself looks at it".into()),
    })
}

fn same_text(unit: &str, old: &Slice, new: &Slice) -> Result<(), String> {
    if let Some(name) = old.functions.symmetric_difference(&new.functions).next() {
        return Err(format!("{unit}: {name} uses it in one of the builds only"));
    }
    let differs = old.code.iter().zip(&new.code).find(|(a, b)| a.text != b.text);
    let shorter = old.code.len().min(new.code.len());
    let more = old.code.get(shorter).or(new.code.get(shorter));
    match differs.map(|(a, _)| a).or(more) {
        Some(code) => {
            let head = code.text.split(['{', '=']).next().unwrap_or_default();
            let head: String = head.chars().take(200).collect();
            Err(format!("{unit}: the source differs at `{}`", head.trim()))
        }
        None => Ok(()),
    }
}
