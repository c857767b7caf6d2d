//! Which units kbuild compiles for the kernel and its modules, and how: its own words, nothing is built.

use anyhow::Context;
use kerf_const::tree::Tree;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A unit of the configuration.
#[derive(Debug, PartialEq)]
pub struct Unit {
    /// The `.c` file relative to the tree.
    pub name: String,
    /// The compiler and its options, without input and output.
    pub command: Vec<String>,
    /// Whether it goes into a module.
    pub module: bool,
}

/// All C units that the kernel and its modules are made of, by name.
pub fn units(tree: &Tree) -> anyhow::Result<Vec<Unit>> {
    let mut units = BTreeMap::new();
    let mut make = Command::new("make");
    make.args(["-n", "-k", "vmlinux", "modules"]).current_dir(tree.root()).env_remove("MAKEFLAGS");
    let mut child =
        make.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null()).spawn().context("run make")?;
    let output = child.stdout.take().context("read what make prints")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("read what make prints")?;
        let unit = parse(&String::from_utf8_lossy(&line));
        units.extend(unit.map(|unit| (unit.name.clone(), unit)));
    }
    // Where nothing is built, the last steps have no rule and make fails; the compilations are printed before.
    child.wait().context("wait for make")?;
    // An object that is there already is not made again: its command was saved.
    for name in saved(tree.root(), Path::new(""))? {
        if !units.contains_key(&name)
            && let Ok(command) = tree.command(&name)
            && command.iter().any(|word| word == "-D__KERNEL__")
        {
            let module = is_module(&command);
            units.insert(name.clone(), Unit { name, command, module });
        }
    }
    Ok(units.into_values().collect())
}

fn is_module(command: &[String]) -> bool {
    command.iter().any(|word| word == "-DMODULE")
}

/// The unit that a line of make's compiles.
fn parse(line: &str) -> Option<Unit> {
    // Around the compilation itself there are echo and printf of the same words.
    let quotes = |step: &&str| ["echo ", "printf "].iter().any(|program| step.starts_with(program));
    let steps = line.split(';').map(str::trim).filter(|step| step.contains(" -c -o "));
    let (before, after) = steps.filter(|step| !quotes(step)).find_map(|step| step.split_once(" -c -o "))?;
    let mut files = after.split_whitespace();
    let (object, name) = (files.next()?, files.next()?);
    if !object.ends_with(".o") || !name.ends_with(".c") || name.starts_with('/') {
        return None;
    }
    let words = shlex::split(before)?;
    // Options that make the compiler write files beside the object.
    let command: Vec<String> = words.into_iter().filter(|word| !word.starts_with("-Wp,-M")).collect();
    // Programs of the build itself do not run in the kernel.
    let kernel = command.iter().any(|word| word == "-D__KERNEL__");
    kernel.then(|| Unit { name: name.to_owned(), module: is_module(&command), command })
}

/// The units whose command kbuild has saved.
fn saved(root: &Path, below: &Path) -> anyhow::Result<Vec<String>> {
    let (mut found, mut pending) = (Vec::new(), vec![PathBuf::from(below)]);
    while let Some(directory) = pending.pop() {
        let Ok(entries) = std::fs::read_dir(root.join(&directory)) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().with_context(|| format!("look at {}", entry.path().display()))?;
            let outside = ["tools", "scripts", "samples", "usr"].contains(&name.as_str());
            if kind.is_dir() && !name.starts_with('.') && !(directory.as_os_str().is_empty() && outside) {
                pending.push(directory.join(&name));
            }
            let stem = name.strip_prefix('.').and_then(|name| name.strip_suffix(".o.cmd"));
            let unit = stem.map(|stem| directory.join(format!("{stem}.c")));
            found.extend(unit.filter(|unit| root.join(unit).is_file()).map(|unit| unit.to_string_lossy().into_owned()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_words_name_unit_and_command() {
        let line = "set -e; echo '  gcc -O2 -c -o a/b.o a/b.c  ';  trap 'x' HUP; gcc -Wp,-MMD,a/.b.o.d -D__KERNEL__ -DMODULE \
                    -DKBUILD_MODNAME='\"b\"' -c -o a/b.o a/b.c  ; ./tools/objtool a/b.o; \
                    printf '%s\n' 'savedcmd_a/b.o := gcc -Wp,-MMD,a/.b.o.d -O2 -c -o a/b.o a/b.c '";
        let unit = parse(line).unwrap();
        assert_eq!((unit.name.as_str(), unit.module), ("a/b.c", true));
        assert_eq!(unit.command, ["gcc", "-D__KERNEL__", "-DMODULE", "-DKBUILD_MODNAME=\"b\""]);
        assert_eq!(parse("gcc -c -o a/b.o a/b.S"), None);
        assert_eq!(parse("rm -f a.o"), None);
    }

    #[test]
    fn saved_commands_are_found() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a/b.c", "a/.b.o.cmd", "a/.gone.o.cmd", "tools/t.c", "tools/.t.o.cmd"] {
            std::fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        assert_eq!(saved(dir.path(), Path::new("")).unwrap(), ["a/b.c"]);
    }
}
