//! From an entry and a value to what the kernel module is asked: new bytes of immediates, or trampolines.
//!
//! Everything here is a function of values; only the caller knows a running kernel.

mod decide;
pub(crate) mod encode;
mod window;

use std::collections::BTreeMap;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};
use kerf_live::{BuildId, Change, Location, Range, Target};

use crate::align::{self, Slot};
use crate::entry::{Class, Entry, Iv, SlotName, Span, from_hex};
use crate::error::ConstError;
use crate::form::{Form, wrap};

use window::Detour;

pub use decide::{Decision, decided_entry};

/// What is asked of a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The constant itself gets a value.
    Value(i128),
    /// One of the numbers that the compiler derived from it ([`derived`]) gets one; the others keep the stock value's.
    Derived {
        /// Which, from 0.
        index: usize,
        /// The number.
        number: i128,
    },
}

/// Which placement a caller wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Immediates where the numbers fit, else detours.
    #[default]
    Cheapest,
    /// Immediates only.
    Immediate,
    /// Detours only.
    Detour,
}

/// What has to be known of the running kernel.
#[derive(Default)]
pub struct Running<'a> {
    /// How far the kernel lies from where it was linked, in bytes.
    pub slide: u64,
    /// The loaded module that holds the code, for constants of modules.
    pub module: Option<ModuleText<'a>>,
}

/// The text of a loaded module.
pub struct ModuleText<'a> {
    /// Its build id.
    pub build_id: BuildId,
    /// Reads bytes at an offset from the start of its text.
    pub read: &'a dyn Fn(u64, usize) -> Option<Vec<u8>>,
}

/// The forms of the numbers that follow from a constant, each once, in the order of their places. A factor that is the same for all values
/// follows from none.
pub fn derived(entry: &Entry) -> Vec<Form> {
    let mut forms = Vec::new();
    for iv in entry.spans.iter().flat_map(|s| &s.iv) {
        if !forms.contains(&iv.form) && !matches!(iv.form, Form::Affine { a: 0, .. }) {
            forms.push(iv.form);
        }
    }
    forms
}

/// Refuses an entry that cannot be set, and a setting that is not certified.
///
/// # Errors
/// [`ConstError::NotSettable`], or [`ConstError::OutsideDomain`] with the domain.
pub fn check(entry: &Entry, setting: Setting) -> Result<(), ConstError> {
    if entry.class != Class::Proved {
        let class = entry.class.word().to_string();
        return Err(ConstError::NotSettable { id: entry.label().into(), class, reason: entry.reason.clone() });
    }
    match setting {
        Setting::Value(value) if entry.certifies(value) => Ok(()),
        Setting::Value(value) => Err(outside(entry, value, format!("certified are the values {}", domain_text(entry)))),
        Setting::Derived { index, number } => check_derived(entry, index, number),
    }
}

fn check_derived(entry: &Entry, index: usize, number: i128) -> Result<(), ConstError> {
    let form = form_of(entry, index)?;
    let ends: Vec<i128> = entry.domain.iter().flat_map(|i| [form.apply(i.min), form.apply(i.max)]).flatten().collect();
    if entry.domain.iter().any(|i| reaches(&form, i.min, i.max, number)) {
        return Ok(());
    }
    let (low, high) = (ends.iter().min(), ends.iter().max());
    let why = match (low, high) {
        (Some(low), Some(high)) => format!("no certified value makes {form} that number; it goes from {low} to {high}"),
        _ => format!("{form} has no certified value"),
    };
    Err(outside(entry, number, why))
}

/// Whether a monotonous form has the number for a value of the interval.
fn reaches(form: &Form, mut low: i128, mut high: i128, number: i128) -> bool {
    let at = |v: i128| form.apply(v);
    let (Some(first), Some(last)) = (at(low), at(high)) else { return false };
    let rising = first <= last;
    while low < high {
        let middle = low + (high - low) / 2;
        match at(middle) {
            Some(n) if n == number => return true,
            Some(n) if (n < number) == rising => low = middle + 1,
            Some(_) => high = middle,
            None => return false,
        }
    }
    at(low) == Some(number)
}

fn form_of(entry: &Entry, index: usize) -> Result<Form, ConstError> {
    let forms = derived(entry);
    forms.get(index).copied().ok_or_else(|| ConstError::BadQuery {
        query: format!("{}@{index}", entry.label()),
        why: format!("the constant has {} derived numbers, counted from 0", forms.len()),
    })
}

/// A domain as people write it: `1..4096, 8192`.
pub fn domain_text(entry: &Entry) -> String {
    let parts: Vec<String> = entry
        .domain
        .iter()
        .map(|i| if i.min == i.max { i.min.to_string() } else { format!("{}..{}", i.min, i.max) })
        .collect();
    if parts.is_empty() { "none".into() } else { parts.join(", ") }
}

/// The id under which the module knows a setting.
pub fn live_id(entry: &Entry, setting: Setting) -> String {
    match setting {
        Setting::Value(_) => entry.label().to_string(),
        Setting::Derived { index, .. } => format!("{}@{index}", entry.label()),
    }
}

/// What the module is asked for a setting: every location with its new bytes, and where no task may be meanwhile.
///
/// # Errors
/// [`ConstError::OutsideDomain`] when a number has no place in the code, with the reason; [`ConstError::Damaged`] when
/// the entry contradicts itself. The caller has asked [`check`] whether the setting is certified.
pub fn live_entry(
    entry: &Entry,
    setting: Setting,
    choice: Choice,
    running: &Running,
) -> Result<kerf_live::Entry, ConstError> {
    assemble(&Job { entry, setting, choice, running, target: &target(entry, running)?, decision: None })
}

/// As [`live_entry`], with what a transition by task or globally needs: gates and safe spans. The stock value is a setting like any
/// other here, and has no locations of its own.
///
/// # Errors
/// As [`live_entry`]; [`ConstError::NotSettable`] for an entry without safe spans.
pub fn transition_entry(
    entry: &Entry,
    setting: Setting,
    choice: Choice,
    running: &Running,
) -> Result<kerf_live::Entry, ConstError> {
    has_safe_spans(entry)?;
    let target = target(entry, running)?;
    let mut live = assemble(&Job { entry, setting, choice, running, target: &target, decision: None })?;
    if is_stock(entry, setting)? {
        live.locations.clear();
    }
    if let Some((gates, decider)) = decide::gates(entry, setting, running, &target)? {
        (live.gates, live.decider) = (gates, Some(decider));
    }
    live.spans = decide::safe_spans(entry, &target);
    live.between.clear();
    Ok(live)
}

/// Refuses an entry of which no safe span is known, as an older version of this program wrote them.
///
/// # Errors
/// [`ConstError::NotSettable`].
pub fn has_safe_spans(entry: &Entry) -> Result<(), ConstError> {
    if !entry.safe_spans.is_empty() {
        return Ok(());
    }
    let reason = "it was built without safe spans: build it again with `kerf const build`".into();
    Err(ConstError::NotSettable { id: entry.label().into(), class: "proved".into(), reason })
}

/// Refuses a constant whose value is used more than once in one of its safe spans: a thread there could meet the old value and the
/// new one.
///
/// # Errors
/// [`ConstError::NotIndependent`], which names the safe span; [`ConstError::NotSettable`] for an entry without safe spans.
pub fn check_independent(entry: &Entry) -> Result<(), ConstError> {
    has_safe_spans(entry)?;
    let Some(span) = entry.safe_spans.iter().find(|span| !span.is_independent()) else { return Ok(()) };
    let at = span.entry.saturating_sub(span.function_offset);
    let why = format!(
        "in the safe span that begins at {}+{at:#x} its value is used more than once, so a thread could meet both; \
         `--mode task` and `--mode global` wait for threads to leave",
        span.function
    );
    Err(ConstError::NotIndependent { id: entry.label().into(), why })
}

/// The setting that leaves the deployed code as it is: of the constant itself, or of one of its derived numbers.
///
/// # Errors
/// If there is no such number.
pub fn stock(entry: &Entry, derived: Option<usize>) -> Result<Setting, ConstError> {
    let Some(index) = derived else { return Ok(Setting::Value(entry.value)) };
    let form = form_of(entry, index)?;
    let number = form.apply(entry.value);
    number.map(|number| Setting::Derived { index, number }).ok_or_else(|| ConstError::Damaged {
        id: entry.label().into(),
        why: format!("{form} has no number for the deployed value"),
    })
}

/// Whether a setting leaves the deployed code as it is.
fn is_stock(entry: &Entry, setting: Setting) -> Result<bool, ConstError> {
    Ok(match setting {
        Setting::Value(value) => value == entry.value,
        Setting::Derived { index, number } => form_of(entry, index)?.apply(entry.value) == Some(number),
    })
}

fn assemble(job: &Job) -> Result<kerf_live::Entry, ConstError> {
    let (entry, setting, target) = (job.entry, job.setting, job.target);
    let mut functions: BTreeMap<u64, Vec<&Span>> = BTreeMap::new();
    for span in &entry.spans {
        functions.entry(span.function_offset).or_default().push(span);
    }
    let (mut locations, mut between) = (Vec::new(), Vec::new());
    for (offset, spans) in functions {
        let mut own = job.function(&spans)?;
        own.sort_by_key(|l| l.image_offset);
        let end = own.iter().map(|l| l.image_offset + l.expected.len() as u64).max();
        if let (Some(first), Some(end), true) = (own.first(), end, own.len() > 1) {
            between.push(Range::between(target.clone(), first.image_offset, end));
        }
        debug_assert!(own.iter().all(|l| l.image_offset >= offset));
        locations.extend(own);
    }
    let value = match setting {
        Setting::Value(value) => value,
        Setting::Derived { number, .. } => number,
    };
    let shown = value.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
    let (id, gates, spans) = (live_id(entry, setting), Vec::new(), Vec::new());
    Ok(kerf_live::Entry { id, value: shown, decider: None, locations, gates, spans, between })
}

/// The values around the deployed one, within the domain, for which a span's numbers fit their own instructions.
pub fn immediate_range(entry: &Entry, span: &Span) -> Option<(i128, i128)> {
    let mut alone = entry.clone();
    alone.spans = vec![span.clone()];
    // Whether a number fits does not depend on where the code is loaded.
    alone.image.module = None;
    let fits = |value: i128| live_entry(&alone, Setting::Value(value), Choice::Immediate, &Running::default()).is_ok();
    let domain = entry.domain.iter().find(|i| (i.min..=i.max).contains(&entry.value))?;
    let last = |mut good: i128, mut bad: i128| {
        while (bad - good).abs() > 1 {
            let middle = good + (bad - good) / 2;
            if fits(middle) { good = middle } else { bad = middle }
        }
        good
    };
    let end = |limit: i128| if fits(limit) { limit } else { last(entry.value, limit) };
    if span.iv.iter().any(|iv| iv.slot.is_factor()) {
        // Only single values far apart fit a shift.
        return fits(entry.value).then_some((entry.value, entry.value));
    }
    fits(entry.value).then(|| (end(domain.min), end(domain.max)))
}

fn target(entry: &Entry, running: &Running) -> Result<Target, ConstError> {
    match (&entry.image.module, &running.module) {
        (None, _) => Ok(Target::Kernel),
        (Some(name), Some(text)) => Ok(Target::Module { name: name.clone(), build_id: text.build_id.clone() }),
        (Some(name), None) => Err(ConstError::NotSettable {
            id: entry.label().into(),
            class: "absent".into(),
            reason: format!("the module {name} is not loaded: `modprobe {name}` loads it"),
        }),
    }
}

fn outside(entry: &Entry, value: i128, why: String) -> ConstError {
    ConstError::OutsideDomain { id: entry.label().into(), value, why }
}

fn damaged(entry: &Entry, span: &Span, offset: u64, why: impl Into<String>) -> ConstError {
    let why = format!("{}+{offset:#x}: {}", span.function, why.into());
    ConstError::Damaged { id: entry.label().into(), why }
}

/// A number of the code with what it should become.
struct Number<'a> {
    span: &'a Span,
    iv: &'a Iv,
    insn: Instruction,
    /// The instruction as it is in memory.
    bytes: Vec<u8>,
    want: i64,
}

impl Number<'_> {
    fn end(&self) -> u64 {
        self.iv.offset + self.bytes.len() as u64
    }

    /// Offset and new content of the instruction's own field, if the number fits there.
    fn field(&self) -> Option<(usize, Vec<u8>)> {
        let (at, size) = self.iv.field?;
        // The module changes immediates, and displacements only where they are arithmetic.
        if self.iv.slot == SlotName::Displacement && self.insn.mnemonic() != Mnemonic::Lea {
            return None;
        }
        if self.iv.slot.is_factor() {
            // The shift itself can multiply or divide by powers of two.
            let count = u64::try_from(self.want).ok().filter(|n| n.is_power_of_two())?.trailing_zeros();
            return (size == 1 && (1..self.iv.bits).contains(&count)).then(|| (usize::from(at), vec![count as u8]));
        }
        let bits = u32::from(size) * 8;
        let fits = bits >= self.iv.bits || wrap(self.want.into(), bits) == self.want;
        let content = self.want.to_le_bytes();
        fits.then(|| content.get(..usize::from(size)).map(|c| (usize::from(at), c.to_vec()))).flatten()
    }

    fn misfit(&self) -> String {
        match self.iv.field {
            Some(_) if self.iv.slot.is_factor() => {
                format!("the shift at {}+{:#x} cannot stand for {}", self.span.function, self.iv.offset, self.want)
            }
            Some((_, size)) => format!(
                "the number {} does not fit the {}-bit field of {}+{:#x}",
                self.want,
                u32::from(size) * 8,
                self.span.function,
                self.iv.offset
            ),
            None => format!(
                "the instruction at {}+{:#x} has no field for the number {}",
                self.span.function, self.iv.offset, self.want
            ),
        }
    }
}

struct Job<'a> {
    entry: &'a Entry,
    setting: Setting,
    choice: Choice,
    running: &'a Running<'a>,
    target: &'a Target,
    decision: Option<&'a Decision>,
}

impl<'a> Job<'a> {
    /// The locations of one function.
    fn function(&self, spans: &[&'a Span]) -> Result<Vec<Location>, ConstError> {
        let mut numbers = Vec::new();
        let mut detours: Vec<Detour> = Vec::new();
        for span in spans {
            let own = self.numbers(span)?;
            let misfit = own.iter().find(|n| n.field().is_none());
            if self.choice == Choice::Detour || misfit.is_some() {
                let why = misfit.map(Number::misfit);
                detours.push(self.detour(span, &own, why)?);
            }
            numbers.extend(own);
        }
        let detours =
            window::merged(detours).map_err(|(span, why)| damaged(self.entry, span, span.window.start, why))?;
        let mut locations = Vec::new();
        for detour in &detours {
            let change = detour.change(&numbers, self.decision).map_err(|why| self.no_place(why))?;
            let image_offset = detour.span.function_offset + detour.start;
            locations.push(Location {
                target: self.target.clone(),
                image_offset,
                expected: detour.bytes.clone(),
                change,
            });
        }
        for number in numbers.iter().filter(|n| !detours.iter().any(|d| d.covers(n))) {
            locations.push(self.immediate(number)?);
        }
        Ok(locations)
    }

    /// The numbers of a span, each checked against the bytes that the entry holds.
    fn numbers(&self, span: &'a Span) -> Result<Vec<Number<'a>>, ConstError> {
        let code = self.live(span, span.start, &span.bytes)?;
        if code.len() as u64 != span.end.saturating_sub(span.start) {
            return Err(damaged(self.entry, span, span.start, "its bytes are not as long as the span"));
        }
        span.iv.iter().map(|iv| self.number(span, iv, &code)).collect()
    }

    fn number(&self, span: &'a Span, iv: &'a Iv, code: &[u8]) -> Result<Number<'a>, ConstError> {
        let wrong = |why: &str| damaged(self.entry, span, iv.offset, why);
        let at = iv.offset.checked_sub(span.start).and_then(|at| usize::try_from(at).ok());
        let rest =
            at.and_then(|at| code.get(at..)).filter(|r| !r.is_empty()).ok_or_else(|| wrong("outside its span"))?;
        let insn = Decoder::with_ip(64, rest, iv.offset, DecoderOptions::NONE).decode();
        let bytes = rest.get(..insn.len()).filter(|_| !insn.is_invalid()).ok_or_else(|| wrong("is no instruction"))?;
        let slot = Slot::from(iv.slot);
        let found = encode::number(&insn, slot).ok_or_else(|| wrong("has no such number"))?;
        let held = iv.chained || wrap(found.into(), iv.bits) == wrap(iv.stock.into(), iv.bits);
        if !held || iv.bits != align::slot_bits(&insn, slot) {
            return Err(wrong("does not hold the number that the entry says"));
        }
        let stock = iv.form.apply(self.entry.value).map(|n| wrap(n, iv.bits));
        if stock != Some(wrap(iv.stock.into(), iv.bits)) {
            return Err(wrong("its form does not give the deployed number for the deployed value"));
        }
        let want = self.wanted(iv)?;
        encode::sensible(&insn, slot, want).map_err(|why| self.no_place(why))?;
        Ok(Number { span, iv, insn, bytes: bytes.to_vec(), want })
    }

    /// The number that an instruction should hold, cut to the operand.
    fn wanted(&self, iv: &Iv) -> Result<i64, ConstError> {
        let number = match self.setting {
            Setting::Value(value) => iv.form.apply(value),
            Setting::Derived { index, number } if form_of(self.entry, index)? == iv.form => Some(number),
            Setting::Derived { .. } => Some(iv.stock.into()),
        };
        let number = number.ok_or_else(|| self.no_place(format!("{} has no value there", iv.form)))?;
        Ok(wrap(number, iv.bits))
    }

    fn no_place(&self, why: String) -> ConstError {
        let (Setting::Value(value) | Setting::Derived { number: value, .. }) = self.setting;
        outside(self.entry, value, why)
    }

    /// The window of a span as a detour, or why there can be none. `misfit` says why the immediates do not do.
    fn detour(&self, span: &'a Span, numbers: &[Number], misfit: Option<String>) -> Result<Detour<'a>, ConstError> {
        if let (Choice::Immediate, Some(misfit)) = (self.choice, &misfit) {
            return Err(self.no_place(format!("{misfit}, and only immediates were asked for")));
        }
        let begin = misfit.map(|m| m + " and ").unwrap_or_default();
        if span.window.bytes.is_empty() {
            return Err(self.no_place(format!("{begin}no detour is possible: {}", span.window.refused)));
        }
        let bytes = self.live(span, span.window.start, &span.window.bytes)?;
        let detour = Detour { span, start: span.window.start, bytes };
        match numbers.iter().find(|n| !detour.covers(n)) {
            Some(n) => Err(damaged(self.entry, span, n.iv.offset, "lies outside the span's window")),
            None => Ok(detour),
        }
    }

    /// Deployed bytes as they are in memory: link addresses moved by the kernel's slide, a module's relocated.
    fn live(&self, span: &Span, start: u64, hex: &str) -> Result<Vec<u8>, ConstError> {
        let mut bytes =
            from_hex(hex).ok_or_else(|| damaged(self.entry, span, start, "its bytes are not hexadecimal"))?;
        let fields = span.absolute.iter().filter_map(|at| usize::try_from(at.checked_sub(start)?).ok());
        if let Some(module) = &self.running.module {
            let absolute: Vec<usize> = fields.collect();
            let loaded = (module.read)(span.function_offset + start, bytes.len());
            let same = loaded.filter(|loaded| encode::same_but_relocated(&bytes, loaded, &absolute));
            return same.ok_or_else(|| damaged(self.entry, span, start, "the loaded module has other code there"));
        }
        for at in fields {
            if let Some(field) = bytes.get_mut(at..at.saturating_add(4)).and_then(|f| <&mut [u8; 4]>::try_from(f).ok())
            {
                *field = u32::from_le_bytes(*field).wrapping_add(self.running.slide as u32).to_le_bytes();
            }
        }
        Ok(bytes)
    }

    fn immediate(&self, number: &Number) -> Result<Location, ConstError> {
        let (at, content) = number.field().ok_or_else(|| self.no_place(number.misfit()))?;
        let stock = number.bytes.get(at..at + content.len());
        let stock =
            stock.ok_or_else(|| damaged(self.entry, number.span, number.iv.offset, "the field lies outside"))?;
        let (from, to) = self.owned(number.iv, stock, &content);
        Ok(Location {
            target: self.target.clone(),
            image_offset: number.span.function_offset + number.iv.offset,
            expected: number.bytes.clone(),
            change: Change::Immediate {
                field_offset: at + from,
                bytes: content.get(from..to).unwrap_or(&content).to_vec(),
            },
        })
    }

    /// The bytes of a field that this constant decides. Several constants can be packed into one immediate; each owns its
    /// part, or the second one could not be set.
    fn owned(&self, iv: &Iv, stock: &[u8], content: &[u8]) -> (usize, usize) {
        let (mut from, mut to) = (0, stock.len());
        let (Form::Affine { a, .. }, Setting::Value(value)) = (iv.form, self.setting) else { return (from, to) };
        let ends = self.entry.domain.iter().flat_map(|i| [i.min, i.max]).chain([value]);
        let numbers: Vec<u64> = ends.filter_map(|v| iv.form.apply(v)).map(|n| wrap(n, iv.bits) as u64).collect();
        // All numbers between two share the bits above the highest one in which the two differ.
        let differing = numbers.iter().fold(0, |bits, n| bits | (n ^ iv.stock as u64));
        let (low, high) = (a.trailing_zeros() as usize / 8, differing.checked_ilog2().unwrap_or(63) as usize / 8);
        let packed = |bytes: &[u8]| bytes.iter().any(|b| *b != 0) && bytes.iter().any(|b| *b != 0xff);
        while to - from > 1 {
            let middle = (from + to) / 2;
            let (rest, next) = match () {
                _ if low >= middle => (from..middle, (middle, to)),
                _ if high < middle => (middle..to, (from, middle)),
                _ => break,
            };
            let same = stock.get(rest.clone()) == content.get(rest.clone());
            if !same || !stock.get(rest).is_some_and(packed) {
                break;
            }
            (from, to) = next;
        }
        (from, to)
    }
}

#[cfg(test)]
pub(crate) mod tests;
