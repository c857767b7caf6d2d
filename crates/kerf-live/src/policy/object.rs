//! What a compiled policy holds: which programs decide on which constants, and which ones run beside them.

use std::path::Path;

use object::{Object as _, ObjectSection, ObjectSymbol, SymbolKind};

use super::PolicyError;

/// The section of a program that decides begins with this; the constant follows.
const TUNE: &str = "kprobe/kerf:";

/// A program that decides on the value of a constant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tune {
    /// The function's name.
    pub program: String,
    /// The constant, as the source names it.
    pub id: String,
    /// Its instructions, before relocation.
    pub code: Vec<u8>,
}

/// Where a program beside is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attach {
    /// A function, at an offset.
    Kprobe(String, u64),
    /// A function's return.
    Kretprobe(String),
    /// Category and name.
    Tracepoint(String, String),
    /// A tracepoint with its own arguments.
    RawTracepoint(String),
    /// A function's entry, typed.
    Fentry(String),
    /// A function's return, typed.
    Fexit(String),
}

impl std::fmt::Display for Attach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Attach::Kprobe(function, 0) => write!(f, "kprobe at {function}"),
            Attach::Kprobe(function, offset) => write!(f, "kprobe at {function}+{offset:#x}"),
            Attach::Kretprobe(function) => write!(f, "kretprobe of {function}"),
            Attach::Tracepoint(category, name) => write!(f, "tracepoint {category}:{name}"),
            Attach::RawTracepoint(name) => write!(f, "raw tracepoint {name}"),
            Attach::Fentry(function) => write!(f, "fentry of {function}"),
            Attach::Fexit(function) => write!(f, "fexit of {function}"),
        }
    }
}

/// A program beside those that decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside {
    /// The function's name.
    pub program: String,
    /// Where it is attached.
    pub attach: Attach,
}

/// A compiled policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The whole file.
    pub bytes: Vec<u8>,
    /// What decides.
    pub tunes: Vec<Tune>,
    /// What runs beside.
    pub beside: Vec<Beside>,
}

fn beside(section: &str) -> Result<Attach, String> {
    let (kind, target) = section.split_once('/').unwrap_or((section, ""));
    if target.is_empty() {
        return Err(format!("the section `{section}` does not say where to attach"));
    }
    let target = target.to_owned();
    Ok(match kind {
        "kprobe" => match target.split_once('+') {
            None => Attach::Kprobe(target, 0),
            Some((function, offset)) => Attach::Kprobe(function.to_owned(), number(offset)?),
        },
        "kretprobe" => Attach::Kretprobe(target),
        "tracepoint" | "tp" => match target.split_once('/') {
            Some((category, name)) => Attach::Tracepoint(category.to_owned(), name.to_owned()),
            None => return Err(format!("`{section}` names no tracepoint: {kind}/CATEGORY/NAME does")),
        },
        "raw_tracepoint" | "raw_tp" => Attach::RawTracepoint(target),
        "fentry" => Attach::Fentry(target),
        "fexit" => Attach::Fexit(target),
        _ => {
            let known = "kprobe, kretprobe, tracepoint, raw_tracepoint, fentry and fexit";
            return Err(format!("programs of `{section}` cannot go with a policy; those of {known} can"));
        }
    })
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("`{text}` is not an offset"))
}

impl Object {
    /// Reads a compiled policy.
    ///
    /// # Errors
    /// If it is no BPF object, decides on nothing, on one constant twice, or holds programs that cannot go with a policy.
    pub fn read(path: &Path) -> Result<Object, PolicyError> {
        let bytes = std::fs::read(path).map_err(|source| PolicyError::File {
            action: "read",
            file: path.to_owned(),
            source,
        })?;
        Object::parse(bytes).map_err(|why| PolicyError::Object { file: path.to_owned(), why })
    }

    /// Looks into an object in memory.
    ///
    /// # Errors
    /// Why it is no policy.
    pub fn parse(bytes: Vec<u8>) -> Result<Object, String> {
        let file = object::File::parse(bytes.as_slice()).map_err(|error| format!("is no object file: {error}"))?;
        if file.architecture() != object::Architecture::Bpf {
            return Err("is no BPF object: compile it with `kerf policy check -o`".into());
        }
        let (mut tunes, mut others) = (Vec::new(), Vec::new());
        for section in file.sections().filter(|s| s.kind() == object::SectionKind::Text && s.size() > 0) {
            let name = section.name().map_err(|error| error.to_string())?;
            // Functions that the programs call.
            if name == ".text" {
                continue;
            }
            let data = section.data().map_err(|error| error.to_string())?;
            let programs =
                file.symbols().filter(|s| s.section_index() == Some(section.index()) && s.kind() == SymbolKind::Text);
            for symbol in programs {
                let program = symbol.name().map_err(|error| error.to_string())?.to_owned();
                let range = symbol.address() as usize..(symbol.address() + symbol.size()) as usize;
                let code = data.get(range).ok_or("a function lies outside its section")?.to_vec();
                match name.strip_prefix(TUNE) {
                    Some(id) => tunes.push(Tune { program, id: id.to_owned(), code }),
                    None => others.push(Beside { program, attach: beside(name)? }),
                }
            }
        }
        drop(file);
        tunes.sort_by(|a, b| a.id.cmp(&b.id));
        if tunes.is_empty() {
            return Err("decides on no constant: it has no XK_TUNE".into());
        }
        if let Some(twice) = tunes.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(format!("decides on {} twice, in {} and {}", twice[0].id, twice[0].program, twice[1].program));
        }
        Ok(Object { bytes, tunes, beside: others })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_say_where_to_attach() {
        assert_eq!(beside("kprobe/f+0x1c").unwrap(), Attach::Kprobe("f".into(), 28));
        assert_eq!(beside("kretprobe/f").unwrap(), Attach::Kretprobe("f".into()));
        assert_eq!(beside("tp/sched/sched_switch").unwrap(), Attach::Tracepoint("sched".into(), "sched_switch".into()));
        for (bad, why) in [
            ("xdp/x", "cannot go with"),
            ("kprobe", "where to attach"),
            ("tp/x", "no tracepoint"),
            ("kprobe/f+x", "offset"),
        ] {
            assert!(beside(bad).unwrap_err().contains(why), "{bad}");
        }
    }

    #[test]
    fn other_files_are_refused() {
        assert!(Object::parse(b"hello".to_vec()).unwrap_err().contains("no object file"));
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(Object::parse(own).unwrap_err().contains("no BPF object"));
    }
}
