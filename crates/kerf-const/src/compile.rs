//! Variants: a unit compiled as deployed and with other values of a site.
//!
//! The unit is preprocessed once with marks around the site's text, in a private mount namespace where the marked
//! copy covers the file: the tree itself is never written. A variant is the text between the marks replaced.

pub(crate) mod items;
pub mod kept;
mod marks;
mod reduced;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use iced_x86::{Code, Decoder, DecoderOptions, Mnemonic, OpKind, Register};
use tempfile::TempDir;

use self::kept::Outcome;
use self::marks::{
    BEGIN, END, PROBE, declarations_before, mark_in_string, marks_only_in_statements, probed, substitute,
    without_line_marks,
};
pub use self::reduced::Rest;
use crate::error::ConstError;
use crate::site::{Site, parse_integer};
use crate::tree::Tree;

/// The word that stands before each use of the site in [`Unit::marked`].
pub(crate) const MARK: &str = BEGIN;

/// A unit preprocessed with the site marked.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The `.c` file relative to the tree.
    pub name: String,
    command: Vec<String>,
    form: Form,
    /// The object as deployed, with debug information, once somebody has asked for it.
    debug: OnceLock<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Form {
    /// Preprocessed text with marks.
    Marked(String),
    /// The site takes part in preprocessing itself (`#if`, `#`, `##`): each value is preprocessed by itself.
    PerValue,
}

/// A number that the compiler itself gives for the site's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// The value.
    pub value: i128,
    /// Bits of its type.
    pub bits: u32,
    /// Whether its type is signed.
    pub signed: bool,
}

/// Preprocesses `unit` with the site marked; `None` if the unit's code does not use the site.
pub fn preprocess(tree: &Tree, unit: &str, site: &Site) -> Result<Option<Unit>, ConstError> {
    let command = tree.command(unit)?;
    let source = read_bytes(&tree.root().join(&site.file))?;
    let mut marked = source.clone();
    let replacement = [BEGIN.as_bytes(), b" ", &source[site.range.clone()], b" ", END.as_bytes()].concat();
    marked.splice(site.range.clone(), replacement);
    let output = run_preprocessor(tree, &command, unit, &site.file, &marked)?;
    if output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !text.contains(BEGIN) {
            return Ok(None);
        }
        if !mark_in_string(&text) {
            return Ok(Some(Unit { name: unit.into(), command, form: Form::Marked(text), debug: OnceLock::new() }));
        }
    }
    // Only the unit without marks tells a site in a preprocessor condition from a unit that does not compile at all.
    let plain = run_preprocessor(tree, &command, unit, &site.file, &source)?;
    if !plain.status.success() {
        return Err(compile_error(unit, None, &plain));
    }
    Ok(Some(Unit { name: unit.into(), command, form: Form::PerValue, debug: OnceLock::new() }))
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, ConstError> {
    fs::read(path).map_err(|source| ConstError::Io { what: "read", path: path.into(), source })
}

fn scratch() -> Result<TempDir, ConstError> {
    tempfile::Builder::new().prefix("kerf-").tempdir().map_err(|source| ConstError::Io {
        what: "make a directory in",
        path: std::env::temp_dir(),
        source,
    })
}

/// Runs the preprocessor with `content` in the place of `file`, seen by that process only.
fn run_preprocessor(
    tree: &Tree,
    command: &[String],
    unit: &str,
    file: &str,
    content: &[u8],
) -> Result<Output, ConstError> {
    let dir = scratch()?;
    let shadow = dir.path().join("shadow");
    fs::write(&shadow, content).map_err(|source| ConstError::Io { what: "write", path: shadow.clone(), source })?;
    let namespace = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    Command::new("unshare")
        .args([namespace, "sh", "-c", "mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"", "sh"])
        .arg(&shadow)
        .arg(tree.root().join(file))
        .args(command)
        .args(["-g0", "-w", "-E", "-o", "-"])
        .arg(tree.input(unit))
        .current_dir(tree.working_directory())
        .output()
        .map_err(|source| ConstError::Io { what: "run unshare for", path: unit.into(), source })
}

fn compile_error(unit: &str, value: Option<i128>, output: &Output) -> ConstError {
    ConstError::Compile { unit: unit.into(), value, output: refusal(output) }
}

/// What the compiler said, in a few lines.
fn refusal(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().filter(|l| l.contains("error") || l.contains("cannot")).take(6).collect();
    let text = if lines.is_empty() { said.lines().take(6).collect() } else { lines };
    text.join("\n")
}

impl Unit {
    /// How many times the unit's text uses the site; 0 where that cannot be counted.
    pub fn uses(&self) -> usize {
        match &self.form {
            Form::Marked(text) => text.matches(BEGIN).count(),
            Form::PerValue => 0,
        }
    }

    /// The preprocessed text with marks, if the site leaves preprocessing alone.
    pub fn marked(&self) -> Option<&str> {
        match &self.form {
            Form::Marked(text) => Some(text),
            Form::PerValue => None,
        }
    }

    /// Whether the site can decide the layout of a type in this unit: it stands outside functions or in brackets.
    pub fn may_decide_layout(&self) -> bool {
        match &self.form {
            Form::Marked(text) => !marks_only_in_statements(text),
            Form::PerValue => true,
        }
    }

    /// The unit without the functions that have nothing to do with the site; itself where the site may be part of a type or a table.
    pub fn reduced(&self, rest: Rest) -> Unit {
        let less = self.marked().and_then(|text| reduced::reduced(text, rest));
        less.map_or_else(
            || self.clone(),
            |text| Unit {
                name: self.name.clone(),
                command: self.command.clone(),
                form: Form::Marked(text),
                debug: OnceLock::new(),
            },
        )
    }

    /// Whether code that the compiler makes of this unit depends on the site. Most units that include a header use nothing of it: asked
    /// with a variable in the place of the site, the compiler leaves that out. True where that cannot be asked.
    ///
    /// # Errors
    /// The compiler cannot be started, or its object not be read.
    pub fn emits(&self, tree: &Tree) -> Result<bool, ConstError> {
        let Form::Marked(text) = &self.form else { return Ok(true) };
        match self.compile_text(tree, &probed(text), None, false) {
            Ok(object) => Ok(refers_to_probe(&kerf_image::Image::parse(&self.name, object)?)),
            // What has to be constant: an initial value, a size, a case.
            Err(ConstError::Compile { .. }) => Ok(true),
            Err(other) => Err(other),
        }
    }

    /// Compiles the unit with the site's own text (`None`) or with another value, and returns the object file.
    ///
    /// # Errors
    /// [`ConstError::Compile`] with what the compiler said; for a value this can mean that the source itself forbids it.
    pub fn compile(&self, tree: &Tree, site: &Site, value: Option<i128>, debug: bool) -> Result<Vec<u8>, ConstError> {
        let text = match &self.form {
            Form::Marked(text) => substitute(text, value),
            Form::PerValue => {
                let mut source = read_bytes(&tree.root().join(&site.file))?;
                if let Some(value) = value {
                    source.splice(site.range.clone(), format!("({value})").into_bytes());
                }
                let output = run_preprocessor(tree, &self.command, &self.name, &site.file, &source)?;
                if !output.status.success() {
                    return Err(compile_error(&self.name, value, &output));
                }
                String::from_utf8_lossy(&output.stdout).into_owned()
            }
        };
        self.compile_text(tree, &text, value, debug)
    }

    /// The unit as deployed, compiled with debug information; once, whoever asks.
    ///
    /// # Errors
    /// As [`Unit::compile`].
    pub fn with_debug_information(&self, tree: &Tree, site: &Site) -> Result<&[u8], ConstError> {
        if self.debug.get().is_none() {
            let object = self.compile(tree, site, None, true)?;
            let _ = self.debug.set(object);
        }
        Ok(self.debug.get().map_or(&[], Vec::as_slice))
    }

    fn compile_text(&self, tree: &Tree, text: &str, value: Option<i128>, debug: bool) -> Result<Vec<u8>, ConstError> {
        self.run_compiler(tree, text, value, &[if debug { "-g" } else { "-g0" }, "-c"])
    }

    fn run_compiler(
        &self,
        tree: &Tree,
        text: &str,
        value: Option<i128>,
        options: &[&str],
    ) -> Result<Vec<u8>, ConstError> {
        let options: Vec<&str> = options.iter().copied().chain(["-w", "-fpreprocessed"]).collect();
        let words: Vec<String> = self.arguments().into_iter().chain(options.iter().map(|o| (*o).to_owned())).collect();
        let kept = tree.kept().and_then(|kept| Some((kept, kept.place(&self.command[0], &words, text)?)));
        if let Some(outcome) = kept.as_ref().and_then(|(kept, place)| kept.find(place)) {
            return self.result(outcome, value);
        }
        let outcome = self.compile_anew(tree, text, &words)?;
        if let Some((kept, place)) = &kept {
            kept.keep(place, &outcome);
        }
        self.result(outcome, value)
    }

    fn result(&self, outcome: Outcome, value: Option<i128>) -> Result<Vec<u8>, ConstError> {
        match outcome {
            Outcome::Made(object) => Ok(object),
            Outcome::Refused(output) => Err(ConstError::Compile { unit: self.name.clone(), value, output }),
        }
    }

    /// The command's words without the compiler, for a text that is preprocessed.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut words = self.command.iter().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "-include" => {
                    words.next();
                }
                w if w.starts_with("-Werror") => {}
                _ => arguments.push(word.clone()),
            }
        }
        arguments
    }

    fn compile_anew(&self, tree: &Tree, text: &str, words: &[String]) -> Result<Outcome, ConstError> {
        let dir = scratch()?;
        let (input, object) = (dir.path().join("unit.i"), dir.path().join("unit.o"));
        let write = |path: &Path| fs::File::create(path).and_then(|mut f| f.write_all(text.as_bytes()));
        write(&input).map_err(|source| ConstError::Io { what: "write", path: input.clone(), source })?;
        let output = Command::new(&self.command[0])
            .args(words)
            .arg("-o")
            .arg(&object)
            .arg(&input)
            .current_dir(tree.working_directory())
            .output()
            .map_err(|source| ConstError::Io { what: "run", path: self.command[0].clone().into(), source })?;
        if output.status.success() {
            return read_bytes(&object).map(Outcome::Made);
        }
        // A compiler that was killed has not refused anything.
        match output.status.code() {
            Some(_) => Ok(Outcome::Refused(refusal(&output))),
            None => Err(compile_error(&self.name, None, &output)),
        }
    }

    /// The compiler's annotated listing of the unit with the site's own text: which registers each call passes.
    pub fn listing(&self, tree: &Tree, site: &Site) -> Result<String, ConstError> {
        let text = match &self.form {
            Form::Marked(text) => substitute(text, None),
            Form::PerValue => {
                let source = read_bytes(&tree.root().join(&site.file))?;
                let output = run_preprocessor(tree, &self.command, &self.name, &site.file, &source)?;
                String::from_utf8_lossy(&output.stdout).into_owned()
            }
        };
        let listing = self.run_compiler(tree, &text, None, &["-g0", "-S", "-dP"])?;
        Ok(String::from_utf8_lossy(&listing).into_owned())
    }

    /// What the compiler makes of the site's text: its value and type; `None` if it is no constant.
    pub fn evaluate(&self, tree: &Tree, site: &Site) -> Result<Option<Evaluation>, ConstError> {
        let Form::Marked(text) = &self.form else {
            return Ok(literal(&site.text));
        };
        let Some(body) = text.split(BEGIN).nth(1).and_then(|t| t.split(END).next()) else { return Ok(None) };
        if let Some(known) = literal(body) {
            return Ok(Some(known));
        }
        let body = without_line_marks(body);
        let functions = format!(
            "\n__attribute__((used)) long long kerf_value(void) {{ return (long long)({body}); }}\n\
             __attribute__((used)) long long kerf_size(void) {{ return sizeof({body}); }}\n\
             __attribute__((used)) long long kerf_signed(void) {{ return ((__typeof__({body}))-1) < ((__typeof__({body}))1); }}\n"
        );
        // What is declared before the site is enough for nearly all and quick to compile. A body that names local
        // variables compiles nowhere, and is no constant.
        let compiled = |before: &str| self.compile_text(tree, &(before.to_owned() + &functions), None, false);
        let object = compiled(declarations_before(text)).or_else(|_| compiled(&substitute(text, None)));
        let Ok(object) = object else { return Ok(None) };
        let returned = |name: &str| constant_returned(&object, name);
        let (Some(value), Some(size), Some(signed)) =
            (returned("kerf_value"), returned("kerf_size"), returned("kerf_signed"))
        else {
            return Ok(None);
        };
        let bits = size as u32 * 8;
        let value = if signed == 0 && bits == 64 { i128::from(value as u64) } else { i128::from(value) };
        Ok(Some(Evaluation { value, bits, signed: signed != 0 }))
    }
}

/// Whether anything in an object refers to the variable of [`probed`].
fn refers_to_probe(object: &kerf_image::Image) -> bool {
    let refers = |section| object.relocations(section).iter().any(|r| &*r.symbol == PROBE);
    (0..object.sections().len()).any(refers)
}

/// The value and type of a text that is one integer literal, perhaps in parentheses.
fn literal(text: &str) -> Option<Evaluation> {
    let text = text.trim().trim_start_matches('(').trim_end_matches(')').trim();
    let value = parse_integer(text)?;
    let suffix =
        text.trim_start_matches(|c: char| c.is_ascii_hexdigit() || matches!(c, 'x' | 'X' | '-')).to_ascii_lowercase();
    let long = suffix.contains('l') || value > i128::from(u32::MAX) || value < i128::from(i32::MIN);
    let hex_unsigned = text.starts_with("0x") && value > i128::from(i32::MAX) && !long;
    let signed = !suffix.contains('u') && !hex_unsigned;
    let long = long || (signed && value > i128::from(i32::MAX));
    Some(Evaluation { value, bits: if long { 64 } else { 32 }, signed })
}

/// The constant that a function returns, if its code is no more than that.
fn constant_returned(object: &[u8], name: &str) -> Option<i64> {
    let image = kerf_image::Image::parse(name, object.to_vec()).ok()?;
    let symbol = image.symbols_named(name).next()?;
    let bytes = image.bytes(symbol.address, symbol.size? as usize)?.into_owned();
    let mut result = None;
    for insn in Decoder::with_ip(64, &bytes, 0, DecoderOptions::NONE) {
        match insn.mnemonic() {
            Mnemonic::Endbr64 | Mnemonic::Nop | Mnemonic::Int3 => {}
            Mnemonic::Call if insn.code() == Code::Call_rel32_64 && result.is_none() => {}
            Mnemonic::Ret | Mnemonic::Jmp => return result,
            Mnemonic::Mov
                if insn.op0_register().full_register() == Register::RAX && insn.op1_kind() != OpKind::Register =>
            {
                let immediate = insn.try_immediate(1).ok()?;
                result =
                    Some(if insn.op0_register().size() == 4 { i64::from(immediate as u32) } else { immediate as i64 });
            }
            Mnemonic::Xor
                if insn.op0_register() == insn.op1_register()
                    && insn.op0_register().full_register() == Register::RAX =>
            {
                result = Some(0);
            }
            Mnemonic::Or if insn.op0_register() == Register::RAX && insn.try_immediate(1).ok()? == u64::MAX => {
                result = Some(-1)
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether code refers to the probe in the place of `@`; `None` where the compiler refuses it.
    fn emitted(text: &str) -> Option<bool> {
        let directory = tempfile::tempdir().unwrap();
        let (source, object) = (directory.path().join("a.i"), directory.path().join("a.o"));
        fs::write(&source, probed(&text.replace('@', &format!("{BEGIN} (3U) {END}")))).unwrap();
        let output = Command::new("gcc").args(["-O2", "-w", "-c", "-o"]).args([&object, &source]).output().unwrap();
        output.status.success().then(|| refers_to_probe(&kerf_image::Image::open(&object).unwrap()))
    }

    #[test]
    fn only_what_the_compiler_makes_code_of_is_emitted() {
        assert_eq!(emitted("static inline int f(int x) { return x > @; } int g(int x) { return f(x); }"), Some(true));
        assert_eq!(emitted("static inline int f(int x) { return x > @; } int g(int x) { return x; }"), Some(false));
        assert_eq!(emitted("int g(int x) { if (0 && x > @) return 1; return 2; }"), Some(false));
        assert_eq!(emitted("static int limit = @; int g(void) { return limit; }"), None);
        assert_eq!(emitted("struct s { int x[@]; }; int g(struct s *s) { return s->x[1]; }"), None);
    }

    #[test]
    fn literals_have_the_type_that_c_gives_them() {
        let e = |text| literal(text).unwrap();
        assert_eq!(e("32"), Evaluation { value: 32, bits: 32, signed: true });
        assert_eq!(e("(4000U)"), Evaluation { value: 4000, bits: 32, signed: false });
        assert_eq!(e("16UL"), Evaluation { value: 16, bits: 64, signed: false });
        assert_eq!(e("0x80000000"), Evaluation { value: 0x8000_0000, bits: 32, signed: false });
        assert_eq!(e("4294967296"), Evaluation { value: 1 << 32, bits: 64, signed: true });
        assert_eq!(literal("(128 * 1024)"), None);
        assert_eq!(literal("HZ"), None);
    }
}
