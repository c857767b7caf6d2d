//! Whether two compilations of a function do the same, where their instructions do not correspond one to one.
//!
//! The template (the deployed code with V's numbers put in) and the compiler's own code for V are walked together from
//! one branch or call to the next. At each of these points the same must be about to happen: the same condition, the
//! same call with the same arguments, the same contents of common memory. What is known at a point is which registers,
//! flags and stack slots of the two hold equal values; where paths meet, only what all of them know is kept, until
//! nothing changes any more. Where one side branches and the other does not, or on another condition, each way is
//! followed on its own under that condition. What cannot be followed is not claimed.

pub mod calls;
mod conditions;
mod facts;
pub(crate) mod link;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::HashMap;

use kerf_image::Image;
use kerf_image::btf::{Btf, Signature};
use kerf_semantics::Arena;

use crate::analyse::{Analysis, Number, Template};
use crate::code::{Code, Function};
use crate::variants::{Calls, Compiled, Variants};
use calls::Call;
use link::Linker;

pub use link::numbers_of;
use walk::Frames;
pub use walk::Witnesses;

/// What is known of the functions that are called.
#[derive(Debug, Default)]
pub struct Signatures {
    known: HashMap<String, Signature>,
    /// The types (BTF) that all this is from.
    types: Vec<u8>,
    /// Offsets in `pv_ops` of operations without arguments that keep all registers but rax.
    plain_operations: Vec<u64>,
}

/// Paravirtual operations that take nothing and keep every register but rax (`PVOP_CALLEE0`, asm/paravirt.h).
const PLAIN_OPERATIONS: [&str; 3] = ["save_fl", "irq_disable", "irq_enable"];

impl Signatures {
    /// Reads the types of an image; without them every call is taken to pass all six registers.
    pub fn of(image: &Image) -> Signatures {
        let types = image.btf().unwrap_or_default().to_vec();
        let Ok(btf) = Btf::parse(&types) else { return Signatures::default() };
        let known = btf.signatures().into_iter().map(|(name, signature)| (name.to_string(), signature)).collect();
        let irq = btf.struct_named("paravirt_patch_template").and_then(|s| s.member("irq")?.offset());
        let plain_operations = irq.zip(btf.struct_named("pv_irq_ops")).map(|(base, operations)| {
            let offset = |name: &&str| operations.member(name)?.offset();
            PLAIN_OPERATIONS.iter().filter_map(offset).map(|o| (base + o) as u64).collect()
        });
        Signatures { known, plain_operations: plain_operations.unwrap_or_default(), types }
    }

    /// Whether a call through this place takes nothing and keeps every register but rax.
    fn is_plain_operation(&self, symbol: &str, offset: u64) -> bool {
        symbol == "pv_ops" && self.plain_operations.contains(&offset)
    }

    /// How many argument registers a call of this function passes, six at most; `None` if that is not known.
    fn arguments(&self, name: &str) -> Option<usize> {
        let signature = self.find(name)?;
        (!signature.variadic).then(|| signature.parameters.min(6))
    }

    /// Whether the function returns nothing.
    pub(crate) fn is_void(&self, name: &str) -> bool {
        self.find(name).is_some_and(|s| s.void)
    }

    /// The truth values in what the parameters of a function point to: number of the parameter and offset.
    fn booleans(&self, name: &str) -> Vec<(usize, u32)> {
        Btf::parse(&self.types).map(|types| types.booleans(name)).unwrap_or_default()
    }

    fn find(&self, name: &str) -> Option<&Signature> {
        // Parts that the compiler split off have parameters of their own.
        self.known.get(name.strip_prefix("__SCT__").unwrap_or(name)).filter(|_| !name.contains('.'))
    }
}

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Frames that have the same layout, as most variants do: mostly well under a second.
    Quick,
    /// Also frames that have not: up to several seconds where it fails.
    Full,
}

/// A comparison that showed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// Position of the unit.
    unit: usize,
    function: String,
    value: i128,
    frames: Frames,
    /// Whether what the compiler says of the calls was known.
    listed: bool,
    /// The numbers that the templates had, of the function and of what was moved out of it.
    numbers: Vec<(Number, Option<i64>)>,
}

/// Compares functions of another shape, compiled for a value, with their templates.
pub fn comparison<'a>(
    variants: &'a Variants,
    analysis: &'a Analysis,
    signatures: &'a Signatures,
    effort: Effort,
) -> impl Fn(&Template, i128, &Function, &Compiled) -> Result<(), String> + 'a {
    move |template, value, variant, compiled| {
        let numbers = numbers_of(&analysis.templates, template.unit, value);
        let base = &variants.base()[template.unit].code;
        let walk = |calls: &Calls, frames| {
            let held = |t: &Template| -> Vec<_> { t.numbers.keys().map(|n| (*n, t.number(*n, value))).collect() };
            let together = analysis
                .templates
                .iter()
                .filter(|t| t.unit == template.unit && entry_of(&t.function.name) == entry_of(&template.function.name));
            let refusal = Refusal {
                unit: template.unit,
                function: variant.name.clone(),
                value,
                frames,
                listed: !calls.is_empty(),
                numbers: together.flat_map(held).collect(),
            };
            // What could not be shown once is not tried again: with less effort, or other operations elsewhere, it was the same question.
            if let Some(why) = variants.refused(&refusal) {
                return Err(why);
            }
            let key = (template.unit, variant.name.clone(), value < variants.site_value());
            let mut witnesses = variants.witnesses(&key);
            let codes = (base, &compiled.code);
            let result = compare(codes, &variant.name, &numbers, calls, signatures, (frames, &mut witnesses));
            variants.note_witnesses(key, witnesses);
            if let Err(why) = &result {
                variants.note_refused(refusal, why.clone());
            }
            result
        };
        let learned = effort == Effort::Full && variants.frames_differ(template.unit, &variant.name);
        // The listing costs another compilation, and types say enough of most calls.
        let known = variants.known_calls(template.unit);
        if known.is_none() && !learned && walk(&Calls::new(), Frames::One).is_ok() {
            return Ok(());
        }
        let calls = known.unwrap_or_else(|| variants.calls(template.unit));
        let two = || walk(&calls, Frames::Two).inspect(|()| variants.note_frames_differ(template.unit, &variant.name));
        match (effort, learned) {
            (Effort::Quick, _) => walk(&calls, Frames::One),
            // What it took for one value it mostly takes for the next.
            (Effort::Full, true) => two().or_else(|why| walk(&calls, Frames::One).map_err(|_| why)),
            (Effort::Full, false) => walk(&calls, Frames::One).or_else(|_| two()),
        }
    }
}

/// A part that was moved out of a function has no entry of its own: the whole is compared.
fn entry_of(name: &str) -> &str {
    name.strip_suffix(".cold").unwrap_or(name)
}

/// Proves that a function of the first, with other numbers in it, does the same as that of the second; else says where
/// they part.
fn compare(
    (base, variant): (&Code, &Code),
    name: &str,
    numbers: &dyn Fn(&str, Number) -> Option<i64>,
    calls: &HashMap<String, Vec<Call>>,
    signatures: &Signatures,
    (frames, witnesses): (Frames, &mut Witnesses),
) -> Result<(), String> {
    let (mut linker, mut arena) = (Linker::default(), Arena::new());
    let name = entry_of(name);
    let mut ours = link::link(base, name, numbers, &mut linker, &mut arena)?;
    ours.attach_calls(base, name, calls);
    let theirs = link::link(variant, name, &|_, _| None, &mut linker, &mut arena)?;
    // Both are compilations of one source: where only one of them loads a variable before a store through a pointer, the
    // compiler knew that the pointer does not reach it, whatever V is.
    arena.assume_variables_apart(linker.range());
    let start = std::time::Instant::now();
    let known = std::mem::take(witnesses);
    let (result, found) = walk::Walk::new(name, [&ours, &theirs], arena, &linker, signatures, frames, known).run();
    *witnesses = found;
    tracing::debug!(name, ?frames, seconds = start.elapsed().as_secs_f32(), ?result, "walked");
    result
}
