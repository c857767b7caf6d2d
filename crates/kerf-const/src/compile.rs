//! Variants: a unit compiled as deployed and with other values of a site.
//!
//! The unit is preprocessed once with marks around the site's text, in a private mount namespace where the marked
//! copy covers the file: the tree itself is never written. A variant is the text between the marks replaced.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use iced_x86::{Code, Decoder, DecoderOptions, Mnemonic, OpKind, Register};
use tempfile::TempDir;

use crate::error::ConstError;
use crate::site::{Site, parse_integer};
use crate::tree::Tree;

const BEGIN: &str = "__kerf_site_begin__";
const END: &str = "__kerf_site_end__";

/// A unit preprocessed with the site marked.
#[derive(Debug)]
pub struct Unit {
    /// The `.c` file relative to the tree.
    pub name: String,
    command: Vec<String>,
    form: Form,
}

#[derive(Debug)]
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
            return Ok(Some(Unit { name: unit.into(), command, form: Form::Marked(text) }));
        }
    }
    // Only the unit without marks tells a site in a preprocessor condition from a unit that does not compile at all.
    let plain = run_preprocessor(tree, &command, unit, &site.file, &source)?;
    if !plain.status.success() {
        return Err(compile_error(unit, None, &plain));
    }
    Ok(Some(Unit { name: unit.into(), command, form: Form::PerValue }))
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, ConstError> {
    fs::read(path).map_err(|source| ConstError::Io { what: "read", path: path.into(), source })
}

fn mark_in_string(text: &str) -> bool {
    text.lines().filter(|l| l.contains(BEGIN)).any(|line| {
        let before = line.split(BEGIN).next().unwrap_or("");
        before.bytes().filter(|b| *b == b'"').count() % 2 == 1
    })
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
        .args(["-g0", "-w", "-E", "-o", "-", unit])
        .current_dir(tree.root())
        .output()
        .map_err(|source| ConstError::Io { what: "run unshare for", path: unit.into(), source })
}

fn compile_error(unit: &str, value: Option<i128>, output: &Output) -> ConstError {
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().filter(|l| l.contains("error") || l.contains("cannot")).take(6).collect();
    let text = if lines.is_empty() { said.lines().take(6).collect() } else { lines };
    ConstError::Compile { unit: unit.into(), value, output: text.join("\n") }
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
        let dir = scratch()?;
        let (input, object) = (dir.path().join("unit.i"), dir.path().join("unit.o"));
        let write = |path: &Path| fs::File::create(path).and_then(|mut f| f.write_all(text.as_bytes()));
        write(&input).map_err(|source| ConstError::Io { what: "write", path: input.clone(), source })?;
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
        let output = Command::new(&self.command[0])
            .args(&arguments)
            .args(options)
            .args(["-w", "-fpreprocessed", "-o"])
            .arg(&object)
            .arg(&input)
            .current_dir(tree.root())
            .output()
            .map_err(|source| ConstError::Io { what: "run", path: self.command[0].clone().into(), source })?;
        if !output.status.success() {
            return Err(compile_error(&self.name, value, &output));
        }
        read_bytes(&object)
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
        let plain = substitute(text, None);
        let functions = format!(
            "\n__attribute__((used)) long long kerf_value(void) {{ return (long long)({body}); }}\n\
             __attribute__((used)) long long kerf_size(void) {{ return sizeof({body}); }}\n\
             __attribute__((used)) long long kerf_signed(void) {{ return ((__typeof__({body}))-1) < ((__typeof__({body}))1); }}\n"
        );
        // A body that names local variables does not compile here, and is no constant.
        let Ok(object) = self.compile_text(tree, &(plain + &functions), None, false) else { return Ok(None) };
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

/// Whether all marks of a preprocessed text stand in function bodies and outside brackets.
fn marks_only_in_statements(text: &str) -> bool {
    let (mut braces, mut brackets, mut function) = (0u32, 0u32, false);
    let mut last = ' ';
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let mut rest = line;
        while let Some(c) = rest.chars().next() {
            let mut width = c.len_utf8();
            match c {
                '"' | '\'' => {
                    width = rest[1..].find(c).map_or(rest.len(), |_| quoted(rest));
                }
                '{' => {
                    if braces == 0 {
                        function = last == ')';
                    }
                    braces += 1;
                }
                '}' => braces = braces.saturating_sub(1),
                '[' => brackets += 1,
                ']' => brackets = brackets.saturating_sub(1),
                '_' if rest.starts_with(BEGIN) && (braces == 0 || brackets > 0 || !function) => return false,
                _ => {}
            }
            if !c.is_whitespace() {
                last = c;
            }
            rest = &rest[width.min(rest.len())..];
        }
    }
    true
}

/// Bytes of the string or character literal that a text begins with.
fn quoted(text: &str) -> usize {
    let mut bytes = text.bytes().enumerate();
    let Some((_, quote)) = bytes.next() else { return 0 };
    while let Some((at, byte)) = bytes.next() {
        if byte == b'\\' {
            bytes.next();
        } else if byte == quote {
            return at + 1;
        }
    }
    text.len()
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

fn without_line_marks(text: &str) -> String {
    text.lines().filter(|l| !l.starts_with('#')).collect::<Vec<_>>().join(" ")
}

/// Replaces every marked text by the value, with the type of the original, or takes the marks away.
fn substitute(text: &str, value: Option<i128>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (body, after) = after.split_once(END).unwrap_or((after, ""));
        result.push_str(before);
        match value {
            None => result.push_str(body),
            Some(value) => {
                let shown = if value > i128::from(i64::MAX) { format!("{value}ULL") } else { format!("{value}LL") };
                result.push_str(&format!(" ((__typeof__({}))({shown})) ", without_line_marks(body)));
                // Line marks inside the body keep the numbers of the lines that follow.
                for line in body.lines().filter(|l| l.starts_with('#')) {
                    result.push_str(&format!("\n{line}\n"));
                }
            }
        }
        rest = after;
    }
    result.push_str(rest);
    result
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

    #[test]
    fn substitution_keeps_the_type_and_the_rest() {
        let text = format!("a = {BEGIN} (2U) {END} + {BEGIN} (2U) {END};");
        assert_eq!(substitute(&text, None), "a =  (2U)  +  (2U) ;");
        let new = substitute(&text, Some(7));
        assert_eq!(new.matches("(7LL)").count(), 2);
        assert!(new.contains("__typeof__( (2U) )"));
    }

    #[test]
    fn marks_that_may_decide_a_layout_are_seen() {
        let inside = |text: &str| marks_only_in_statements(&text.replace('@', &format!("{BEGIN} 3 {END}")));
        assert!(inside("int f(int x)\n{\n if (x > @) g(\"[{\\\"\", '\\''); return @;\n}\n"));
        assert!(!inside("struct s { void *p[@]; };"));
        assert!(!inside("struct s { int x : @; };"));
        assert!(!inside("enum { A = @ };"));
        assert!(!inside("int f(void) { int local[@]; return 0; }"));
        assert!(!inside("static int limit = @;"));
    }

    #[test]
    fn marks_in_strings_are_seen() {
        assert!(mark_in_string(&format!("x = \"{BEGIN} 3 {END}\";")));
        assert!(!mark_in_string(&format!("x = \"a\" + {BEGIN} 3 {END};")));
    }
}
