//! The prepared kernel source: what it is, which object a unit becomes, and the command that compiles it.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};

use regex::Regex;

use crate::compile::kept::Kept;
use crate::error::ConstError;

/// A kernel source that is configured and prepared (`make olddefconfig prepare`).
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    /// For a module out of the kernel's tree: what it is built against.
    headers: Option<Headers>,
    version: String,
    config: HashMap<String, String>,
    commands: Mutex<HashMap<String, Vec<String>>>,
    make: Mutex<()>,
    kept: Option<Kept>,
    rules: Mutex<HashMap<String, Arc<Vec<Rule>>>>,
}

/// What a module out of the kernel's tree is built against.
#[derive(Debug)]
struct Headers {
    /// The kernel's headers, prepared: commands run there.
    directory: PathBuf,
    /// Their makefile, where it is not the directory's own.
    makefile: Option<PathBuf>,
}

/// `variable += words` of a Makefile, with `y` or `m` for how it is built.
type Rule = (String, char, Vec<String>);

/// Where the build puts the code of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Linked into the kernel image.
    Core,
    /// Linked into the module of this name (without `.ko`).
    Module(String),
    /// Not built with this configuration.
    Nowhere,
}

impl Tree {
    /// Opens a source tree.
    ///
    /// # Errors
    /// [`ConstError::BadTree`] if it is not a kernel source, not configured or not prepared.
    pub fn open(root: &Path) -> Result<Tree, ConstError> {
        let bad = |why: &str| ConstError::BadTree { tree: root.into(), why: why.into() };
        let root = root.canonicalize().map_err(|_| bad("there is no such directory"))?;
        let makefile = fs::read_to_string(root.join("Makefile")).map_err(|_| bad("it has no Makefile"))?;
        let part = |name: &str| {
            makefile
                .lines()
                .find_map(|l| l.strip_prefix(name)?.trim_start().strip_prefix('=').map(|v| v.trim().to_string()))
        };
        let (Some(version), Some(patch)) = (part("VERSION"), part("PATCHLEVEL")) else {
            return Err(bad("its Makefile names no kernel version"));
        };
        let text = fs::read_to_string(root.join(".config"))
            .map_err(|_| bad("it has no .config: copy the image's /boot/config-… there"))?;
        if !root.join("include/generated/autoconf.h").exists() {
            return Err(bad("it is not prepared: run `make olddefconfig prepare` in it"));
        }
        let sublevel = part("SUBLEVEL").unwrap_or_default();
        Ok(Tree::new(root, format!("{version}.{patch}.{sublevel}"), &text))
    }

    fn new(root: PathBuf, version: String, config: &str) -> Tree {
        let options = config.lines().filter_map(|l| l.strip_prefix("CONFIG_")?.split_once('='));
        let config = options.map(|(k, v)| (k.to_string(), v.trim_matches('"').to_string())).collect();
        let (commands, make, rules) = (Mutex::default(), Mutex::default(), Mutex::default());
        Tree { root, headers: None, version, config, commands, make, kept: None, rules }
    }

    /// Opens the source of a module that is not in the kernel's tree, with the headers that it is built against, and their makefile where
    /// that is not the headers' own.
    ///
    /// # Errors
    /// [`ConstError::BadTree`] if the directory has no Makefile or Kbuild file, or the headers are not those of a configured kernel.
    pub fn external(source: &Path, headers: &Path, makefile: Option<PathBuf>) -> Result<Tree, ConstError> {
        let bad = |tree: &Path, why: &str| ConstError::BadTree { tree: tree.into(), why: why.into() };
        let root = source.canonicalize().map_err(|_| bad(source, "there is no such directory"))?;
        if !["Kbuild", "Makefile"].iter().any(|file| root.join(file).is_file()) {
            return Err(bad(source, "it has no Makefile or Kbuild file that says what is built"));
        }
        let directory = headers.canonicalize().map_err(|_| bad(headers, "there is no such directory"))?;
        let of_headers = |file: &str| fs::read_to_string(directory.join(file));
        let release = of_headers("include/config/kernel.release")
            .map_err(|_| bad(headers, "these are no headers of a kernel: it has no include/config/kernel.release"))?;
        let config = [".config", "include/config/auto.conf"].iter().find_map(|file| of_headers(file).ok());
        let config = config
            .ok_or_else(|| bad(headers, "it has no configuration, neither .config nor include/config/auto.conf"))?;
        let headers = Some(Headers { directory, makefile });
        Ok(Tree { headers, ..Tree::new(root, release.trim().to_string(), &config) })
    }

    /// Where the commands of [`Tree::command`] run.
    pub fn working_directory(&self) -> &Path {
        self.headers.as_ref().map_or(&self.root, |headers| &headers.directory)
    }

    /// How a unit is called on the command line.
    pub fn input(&self, unit: &str) -> PathBuf {
        if self.headers.is_some() { self.root.join(unit) } else { unit.into() }
    }

    /// Compilations are kept in this directory, and taken from there.
    pub fn keeping(self, directory: PathBuf) -> Tree {
        Tree { kept: Some(Kept::in_directory(directory)), ..self }
    }

    /// Everything is compiled, whatever was kept.
    pub fn keeping_nothing(self) -> Tree {
        Tree { kept: None, ..self }
    }

    /// Where compilations are kept.
    pub fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }

    /// The top of the tree.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The kernel version that the tree's Makefile names, for example `6.12.117`; the whole release for a module out of the tree.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The value of a configuration option: `y`, `m`, a number or a string; `None` if it is off.
    pub fn config(&self, option: &str) -> Option<&str> {
        self.config.get(option).map(String::as_str)
    }

    /// Where the build puts the object of `unit` (a `.c` file relative to the tree).
    pub fn destination(&self, unit: &str) -> Destination {
        let Some(stem) = unit.strip_suffix(".c") else { return Destination::Nowhere };
        let (directory, base) = stem.rsplit_once('/').unwrap_or(("", stem));
        let object = self.object_destination(directory, base, 0);
        match (&object, self.directory_state(directory)) {
            (_, Destination::Nowhere) => Destination::Nowhere,
            (Destination::Core, Destination::Module(_)) => Destination::Module(base.to_string()),
            _ => object,
        }
    }

    fn makefile(&self, directory: &str) -> Option<String> {
        let text =
            ["Kbuild", "Makefile"].iter().find_map(|f| fs::read_to_string(self.root.join(directory).join(f)).ok())?;
        Some(text.replace("\\\n", " "))
    }

    /// The rules of a directory's Makefile whose condition holds; conditions are `$(CONFIG_X)` in the name. Read once.
    fn rules(&self, directory: &str) -> Arc<Vec<Rule>> {
        if let Some(known) = self.rules.lock().ok().and_then(|rules| rules.get(directory).cloned()) {
            return known;
        }
        let rules = Arc::new(self.makefile(directory).map(|text| self.parse_rules(&text)).unwrap_or_default());
        if let Ok(mut known) = self.rules.lock() {
            known.insert(directory.into(), rules.clone());
        }
        rules
    }

    fn parse_rules(&self, text: &str) -> Vec<Rule> {
        static RULE: LazyLock<Option<Regex>> = LazyLock::new(|| {
            Regex::new(
                r"^\s*([\w./-]+?)-(y|m|objs|\$\(CONFIG_(\w+)\)|\$\(subst m,y,\$\(CONFIG_(\w+)\)\))\s*[:+]?=\s*(.*)$",
            )
            .ok()
        });
        let Some(rule) = RULE.as_ref() else { return Vec::new() };
        text.lines()
            .filter_map(|line| {
                let c = rule.captures(line.split('#').next().unwrap_or(""))?;
                let state = match (&c[2], c.get(3), c.get(4)) {
                    (_, Some(option), _) => self.config(option.as_str())?.chars().next()?,
                    (_, _, Some(option)) => self.config(option.as_str()).map(|_| 'y')?,
                    ("m", ..) => 'm',
                    _ => 'y',
                };
                matches!(state, 'y' | 'm')
                    .then(|| (c[1].to_string(), state, c[5].split_whitespace().map(str::to_string).collect()))
            })
            .collect()
    }

    fn object_destination(&self, directory: &str, base: &str, depth: u8) -> Destination {
        // A list of objects may be a part of another list: `obj-y := $(mmu-y)`.
        let wanted = [format!("{base}.o"), format!("$({base}-y)")];
        for (variable, state, words) in self.rules(directory).iter() {
            if !words.iter().any(|word| wanted.contains(word)) {
                continue;
            }
            match (variable.as_str(), state) {
                ("obj" | "lib", 'y') => return Destination::Core,
                ("obj" | "lib", _) => return Destination::Module(base.replace('-', "_")),
                (composite, _) if depth < 4 => {
                    let outer = self.object_destination(directory, composite, depth + 1);
                    if outer != Destination::Nowhere {
                        return outer;
                    }
                }
                _ => {}
            }
        }
        // Some objects are named with a path from a directory above.
        if depth == 0
            && let Some((above, last)) = directory.rsplit_once('/')
        {
            return self.object_destination(above, &format!("{last}/{base}"), 1);
        }
        Destination::Nowhere
    }

    /// Whether the build descends into a directory.
    fn directory_state(&self, directory: &str) -> Destination {
        let Some((above, last)) = directory.rsplit_once('/') else { return Destination::Core };
        let entered = format!("{last}/");
        for (variable, state, words) in self.rules(above).iter() {
            if matches!(variable.as_str(), "obj" | "lib" | "core" | "drivers" | "net" | "libs")
                && words.contains(&entered)
            {
                let outer = self.directory_state(above);
                return if outer == Destination::Core && *state == 'm' {
                    Destination::Module(last.into())
                } else {
                    outer
                };
            }
        }
        // Directories are also named from further up or by a composite object; the absence of a rule says nothing.
        Destination::Core
    }

    /// The compiler command for a unit, as the kernel's own build runs it: program and arguments, without input and output.
    ///
    /// The command is the one that kbuild saved; where there is none yet, kbuild builds the object once.
    pub fn command(&self, unit: &str) -> Result<Vec<String>, ConstError> {
        if let Some(command) = self.commands.lock().ok().and_then(|c| c.get(unit).cloned()) {
            return Ok(command);
        }
        let object = self.object(unit)?;
        let path = saved_command_path(&object);
        let saved = fs::read_to_string(&path).map_err(|source| ConstError::Io { what: "read", path, source })?;
        let command = parse_saved(&saved).ok_or_else(|| ConstError::NoCommand {
            object: object.display().to_string(),
            output: "the saved command has an unknown form".into(),
        })?;
        if let Ok(mut commands) = self.commands.lock() {
            commands.insert(unit.into(), command.clone());
        }
        Ok(command)
    }

    /// Kbuild, to which objects are named.
    fn make_objects(&self) -> Command {
        let mut make = Command::new("make");
        make.current_dir(self.working_directory()).env_remove("MAKEFLAGS");
        if let Some(headers) = &self.headers {
            make.arg(format!("M={}", self.root.display()));
            if let Some(makefile) = &headers.makefile {
                make.arg("-f").arg(makefile);
            }
        }
        make
    }

    /// Asks kbuild for the commands of units without running any of them, where there are no objects yet.
    ///
    /// # Errors
    /// If make cannot be run. Units that it does not make are left out.
    pub fn learn(&self, units: &[String]) -> Result<(), ConstError> {
        let known = |unit: &String| self.commands.lock().is_ok_and(|c| c.contains_key(unit));
        let missing: Vec<&String> = units
            .iter()
            .filter(|unit| !known(unit) && !saved_command_path(&self.root.join(object_of(unit))).exists())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let output = self
            .make_objects()
            .args(["-n", "-k"])
            .args(missing.iter().map(|unit| object_of(unit)))
            .output()
            .map_err(|source| ConstError::Io { what: "run make in", path: self.root.clone(), source })?;
        let said = String::from_utf8_lossy(&output.stdout);
        let found =
            missing.iter().filter_map(|unit| Some(((*unit).clone(), parse_shown(&said, &object_of(unit), unit)?)));
        if let Ok(mut commands) = self.commands.lock() {
            commands.extend(found);
        }
        Ok(())
    }

    /// The object of a unit with its debug information, built by kbuild if it is not there.
    pub fn object(&self, unit: &str) -> Result<PathBuf, ConstError> {
        let target = object_of(unit);
        let object = self.root.join(&target);
        // Kbuild must not run twice at a time in one tree.
        let _guard = self.make.lock().map_err(|_| ConstError::Internal("the build lock is poisoned".into()))?;
        if object.exists() && saved_command_path(&object).exists() {
            return Ok(object);
        }
        let output = self.make_objects().args(["-s", &target]).output().map_err(|source| ConstError::Io {
            what: "run make in",
            path: self.root.clone(),
            source,
        })?;
        if !output.status.success() || !object.exists() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
            return Err(ConstError::NoCommand { object: target, output: said });
        }
        Ok(object)
    }

    /// The units that include a `.c` file as text (the scheduler does), or the file itself if it is one.
    pub fn units_of_file(&self, file: &str) -> Result<Vec<String>, ConstError> {
        if self.destination(file) != Destination::Nowhere {
            return Ok(vec![file.to_string()]);
        }
        let (directory, base) = file.rsplit_once('/').unwrap_or(("", file));
        let include = Regex::new(&format!(r#"(?m)^\s*#\s*include\s+"(?:[^"]*/)?{}""#, regex::escape(base)))
            .map_err(|e| ConstError::Internal(e.to_string()))?;
        let mut units = BTreeSet::new();
        let entries = fs::read_dir(self.root.join(directory)).map_err(|source| ConstError::Io {
            what: "list",
            path: self.root.join(directory),
            source,
        })?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let unit = if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") };
            if name.ends_with(".c")
                && unit != file
                && include.is_match(&fs::read_to_string(entry.path()).unwrap_or_default())
            {
                units.extend(self.units_of_file(&unit)?);
            }
        }
        Ok(units.into_iter().collect())
    }
}

fn object_of(unit: &str) -> String {
    format!("{}.o", unit.strip_suffix(".c").unwrap_or(unit))
}

fn saved_command_path(object: &Path) -> PathBuf {
    let name = object.file_name().unwrap_or_default().to_string_lossy();
    object.with_file_name(format!(".{name}.cmd"))
}

/// Takes the compiler call for an object out of what make shows that it would run.
fn parse_shown(text: &str, object: &str, unit: &str) -> Option<Vec<String>> {
    let end = format!(" -c -o {object} {unit}");
    let at = text.match_indices(&end).find(|(at, _)| {
        let next = text[at + end.len()..].chars().next();
        next.is_none_or(|c| c.is_whitespace() || c == ';')
    })?;
    let line = text[..at.0].rsplit(['\n', ';']).next()?;
    parse_saved(&format!("cmd_x := {line}{end}"))
}

/// Takes the compiler call out of a `.cmd` file: up to the first `;`, without dependency output, input and output.
fn parse_saved(text: &str) -> Option<Vec<String>> {
    let line = text.lines().find(|l| l.starts_with("savedcmd_") || l.starts_with("cmd_"))?;
    let command = line.split_once(":=")?.1.replace("$(pound)", "#");
    let words = shlex::split(command.trim())?;
    let end = words.iter().position(|w| w == ";" || w == "&&").unwrap_or(words.len());
    let mut kept = Vec::new();
    let mut words = words[..end].iter().map(|w| w.trim_end_matches(';').to_string());
    while let Some(word) = words.next() {
        match word.as_str() {
            "-c" => {}
            "-o" => {
                words.next();
            }
            w if w.starts_with("-Wp,-MMD") || w.starts_with("-Wp,-MD") => {}
            _ => kept.push(word),
        }
    }
    let input = kept.pop()?;
    (input.ends_with(".c") && kept.len() > 1).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_commands_lose_input_output_and_what_follows() {
        let text = "savedcmd_a/b.o := gcc -Wp,-MMD,a/.b.o.d -O2 -DKBUILD_MODNAME='\"b\"' -c -o a/b.o a/b.c ; ./tools/objtool a/b.o\n\nsource_a/b.o := a/b.c\n";
        assert_eq!(parse_saved(text).unwrap(), ["gcc", "-O2", "-DKBUILD_MODNAME=\"b\""]);
        assert_eq!(parse_saved("nothing"), None);
    }

    #[test]
    fn a_module_out_of_the_tree_has_headers_and_a_list_of_objects() {
        let dir = tempfile::tempdir().unwrap();
        let (source, headers) = (dir.path().join("m"), dir.path().join("h"));
        fs::create_dir_all(&source).unwrap();
        fs::create_dir_all(headers.join("include/config")).unwrap();
        let problem = || Tree::external(&source, &headers, None).unwrap_err().to_string();
        assert!(problem().contains("no Makefile or Kbuild"), "{}", problem());
        fs::write(source.join("Kbuild"), "obj-m := gate.o\ngate-y := main.o side.o\n").unwrap();
        assert!(problem().contains("kernel.release"), "{}", problem());
        fs::write(headers.join("include/config/kernel.release"), "6.1-x\n").unwrap();
        assert!(problem().contains("no configuration"), "{}", problem());
        fs::write(headers.join(".config"), "CONFIG_A=y\n").unwrap();
        let tree = Tree::external(&source, &headers, None).unwrap();
        assert_eq!((tree.version(), tree.config("A")), ("6.1-x", Some("y")));
        assert_eq!(tree.destination("side.c"), Destination::Module("gate".into()));
        assert_eq!(tree.destination("other.c"), Destination::Nowhere);
        assert!(tree.input("side.c").is_absolute() && tree.working_directory().ends_with("h"));
    }

    #[test]
    fn commands_are_read_from_what_make_would_run() {
        let text = "echo a/c.o\nset -e;  echo '  CC  a/b.o';   trap 'x' HUP; gcc -Wp,-MMD,a/.b.o.d -O2 -DKBUILD_MODNAME='\"b\"' -c -o a/b.o a/b.c  ; fix a/b.o";
        assert_eq!(parse_shown(text, "a/b.o", "a/b.c").unwrap(), ["gcc", "-O2", "-DKBUILD_MODNAME=\"b\""]);
        assert_eq!(parse_shown(text, "a/c.o", "a/c.c"), None);
    }

    #[test]
    fn destinations_follow_the_makefiles() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("fs/x")).unwrap();
        fs::create_dir_all(root.join("include/generated")).unwrap();
        fs::write(root.join("include/generated/autoconf.h"), "").unwrap();
        fs::write(root.join("Makefile"), "VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 2\n").unwrap();
        fs::write(root.join(".config"), "CONFIG_X=m\nCONFIG_A=y\n").unwrap();
        fs::write(
            root.join("fs/Makefile"),
            "obj-y := open.o \\\n  read.o\nobj-$(CONFIG_X) += x/\nobj-$(CONFIG_OFF) += off.o\nmm-$(CONFIG_A) := gather.o\nobj-y += $(mm-y)\n",
        )
        .unwrap();
        fs::write(
            root.join("fs/x/Makefile"),
            "obj-$(CONFIG_X) += xfs.o\nxfs-y := inode.o\nxfs-$(CONFIG_A) += acl.o\nxfs-$(CONFIG_B) += b.o\n",
        )
        .unwrap();
        let tree = Tree::open(root).unwrap();
        assert_eq!(tree.version(), "6.1.2");
        assert_eq!(tree.destination("fs/read.c"), Destination::Core);
        assert_eq!(tree.destination("fs/off.c"), Destination::Nowhere);
        assert_eq!(tree.destination("fs/gather.c"), Destination::Core);
        assert_eq!(tree.destination("fs/x/inode.c"), Destination::Module("xfs".into()));
        assert_eq!(tree.destination("fs/x/acl.c"), Destination::Module("xfs".into()));
        assert_eq!(tree.destination("fs/x/b.c"), Destination::Nowhere);
    }
}
