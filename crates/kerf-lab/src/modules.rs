//! Which module files a guest needs, and in which order.

use crate::error::LabError;
use crate::kernel::Kernel;
use crate::process;
use object::{Object, ObjectSection};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A module to put into the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Name as the kernel lists it, with underscores.
    pub name: String,
    /// The file on the host, possibly compressed.
    pub file: PathBuf,
    /// Parameters, `name=value` separated by spaces.
    pub parameters: String,
}

/// The module index of one kernel, as `depmod` writes it.
#[derive(Debug, Default)]
struct Index {
    directory: PathBuf,
    release: String,
    /// Name → file and its dependencies' files, in the order of `modules.dep`.
    modules: BTreeMap<String, (String, Vec<String>)>,
    built_in: BTreeSet<String>,
    /// Name → names that should be loaded before.
    before: BTreeMap<String, Vec<String>>,
}

/// Resolves requests, each a name or a file followed by parameters, to files in load order.
///
/// # Errors
/// When a module does not exist or its file cannot be read.
pub fn plan(kernel: &Kernel, requests: &[String]) -> Result<Vec<Module>, LabError> {
    let mut planner = Planner { index: None, kernel, requested: Vec::new(), done: Vec::new() };
    planner.requested = requests.iter().map(|request| split_request(request)).collect();
    for (what, parameters) in planner.requested.clone() {
        planner.add(&what, &parameters)?;
    }
    Ok(planner.done)
}

/// The content of a module file, uncompressed.
///
/// # Errors
/// When the file cannot be read or its decompressor fails.
pub fn content(file: &Path) -> Result<Vec<u8>, LabError> {
    let program = match file.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("gz") => "gzip",
        Some("zst") => "zstd",
        _ => return std::fs::read(file).map_err(LabError::io("read", file)),
    };
    Ok(process::run(Command::new(program).arg("-dc").arg(file))?.stdout)
}

fn split_request(request: &str) -> (String, String) {
    let (what, parameters) = request.trim().split_once(char::is_whitespace).unwrap_or((request.trim(), ""));
    (what.to_owned(), parameters.trim().to_owned())
}

struct Planner<'a> {
    kernel: &'a Kernel,
    index: Option<Index>,
    requested: Vec<(String, String)>,
    done: Vec<Module>,
}

impl Planner<'_> {
    fn add(&mut self, what: &str, parameters: &str) -> Result<(), LabError> {
        if is_path(what) { self.add_file(Path::new(what), parameters) } else { self.add_name(what, parameters) }
    }

    /// A file from anywhere: what it depends on comes from the request, its own directory, or the kernel.
    fn add_file(&mut self, file: &Path, parameters: &str) -> Result<(), LabError> {
        let name = module_name(&file.to_string_lossy());
        if self.has(&name) {
            return Ok(());
        }
        for dependency in depends(file)? {
            let requested = self.requested.iter().find(|(what, _)| is_path(what) && module_name(what) == dependency);
            let sibling = file.with_file_name(format!("{dependency}.ko"));
            match requested.cloned() {
                Some((other, parameters)) if Path::new(&other) != file => self.add(&other, &parameters)?,
                _ if sibling.is_file() && sibling != file => self.add_file(&sibling, "")?,
                _ => self.add_name(&dependency, "")?,
            }
        }
        self.push(name, file.to_owned(), parameters);
        Ok(())
    }

    fn add_name(&mut self, name: &str, parameters: &str) -> Result<(), LabError> {
        let name = module_name(name);
        let kernel = self.kernel;
        if self.has(&name) {
            return Ok(());
        }
        let index = match &mut self.index {
            Some(index) => index,
            none => none.insert(Index::load(kernel)?),
        };
        if index.built_in.contains(&name) {
            return Ok(());
        }
        let Some((file, dependencies)) = index.modules.get(&name).cloned() else {
            return Err(index.unknown(&name));
        };
        let directory = index.directory.clone();
        for other in index.before.get(&name).cloned().unwrap_or_default() {
            // Soft dependencies are wishes: what does not exist is left out.
            let known = self.index.as_ref().is_some_and(|index| index.modules.contains_key(&other));
            if known {
                self.add_name(&other, "")?;
            }
        }
        // modules.dep lists what must be loaded last first.
        for dependency in dependencies.iter().rev() {
            self.push(module_name(dependency), directory.join(dependency), "");
        }
        self.push(name, directory.join(file), parameters);
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        self.done.iter().any(|module| module.name == name)
    }

    fn push(&mut self, name: String, file: PathBuf, parameters: &str) {
        if !self.has(&name) {
            // Parameters of a module that is requested by name count even when another pulls it in first.
            let own = self.requested.iter().find(|(what, _)| module_name(what) == name).map(|(_, text)| text.as_str());
            let parameters = if parameters.is_empty() { own.unwrap_or_default() } else { parameters };
            self.done.push(Module { name, file, parameters: parameters.to_owned() });
        }
    }
}

impl Index {
    fn load(kernel: &Kernel) -> Result<Self, LabError> {
        let release = kernel.release.clone();
        let directory = kernel.modules_dir.clone().ok_or_else(|| LabError::BadMachine {
            reason: format!(
                "there is no lib/modules/{release} beside {}; name modules by file",
                kernel.vmlinuz.display()
            ),
        })?;
        let dep = directory.join("modules.dep");
        let text = std::fs::read_to_string(&dep).map_err(LabError::io("read", &dep))?;
        let optional = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap_or_default();
        Ok(Index {
            modules: parse_dep(&text),
            built_in: optional("modules.builtin").lines().map(module_name).collect(),
            before: parse_softdep(&optional("modules.softdep")),
            directory,
            release,
        })
    }

    fn unknown(&self, name: &str) -> LabError {
        let close = |other: &&String| other.contains(name) || name.contains(other.as_str());
        let suggestion =
            self.modules.keys().filter(close).min_by_key(|other| other.len().abs_diff(name.len())).cloned();
        LabError::NoSuchModule { name: name.into(), release: self.release.clone(), suggestion }
    }
}

fn parse_dep(text: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let line = |line: &str| {
        let (file, dependencies) = line.split_once(':')?;
        let dependencies = dependencies.split_whitespace().map(str::to_owned).collect();
        Some((module_name(file), (file.to_owned(), dependencies)))
    };
    text.lines().filter_map(line).collect()
}

/// Lines are `softdep NAME pre: A B post: C`.
fn parse_softdep(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut before: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("softdep") {
            continue;
        }
        let Some(name) = words.next() else { continue };
        let first = words.skip_while(|word| *word != "pre:").skip(1).take_while(|word| *word != "post:");
        before.entry(module_name(name)).or_default().extend(first.map(module_name));
    }
    before
}

fn is_path(what: &str) -> bool {
    what.contains('/') || what.contains(".ko")
}

/// `drivers/block/null-blk.ko.xz` is the module `null_blk`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split_once(".ko").map_or(file, |(stem, _)| stem);
    stem.replace('-', "_")
}

/// What a module file says it depends on.
fn depends(file: &Path) -> Result<Vec<String>, LabError> {
    let bytes = content(file)?;
    let bad = |problem: String| LabError::BadFile { path: file.to_owned(), problem };
    let object = object::File::parse(&*bytes).map_err(|error| bad(format!("is not a kernel module: {error}")))?;
    let section = object
        .section_by_name(".modinfo")
        .ok_or_else(|| bad("is not a kernel module: it has no .modinfo section".into()))?;
    let data = section.data().map_err(|error| bad(format!("has an unreadable .modinfo section: {error}")))?;
    Ok(modinfo(data, "depends"))
}

fn modinfo(data: &[u8], key: &str) -> Vec<String> {
    let mut values = Vec::new();
    for item in data.split(|&b| b == 0) {
        let text = String::from_utf8_lossy(item);
        if let Some((name, value)) = text.split_once('=')
            && name == key
        {
            values.extend(value.split(',').filter(|v| !v.is_empty()).map(module_name));
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/a/a.ko.xz: kernel/b/b-b.ko.xz kernel/c/c.ko\nkernel/b/b-b.ko.xz: kernel/c/c.ko\nkernel/c/c.ko:\nkernel/d/d.ko:\n";

    fn kernel(softdep: &str) -> (tempfile::TempDir, Kernel) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in
            [("modules.dep", DEP), ("modules.builtin", "kernel/x/loop-x.ko\n"), ("modules.softdep", softdep)]
        {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let (modules_dir, root) = (Some(dir.path().to_owned()), dir.path().to_owned());
        let kernel = Kernel { modules_dir, root, ..Kernel::example("1-test") };
        (dir, kernel)
    }

    fn names(kernel: &Kernel, requests: &[&str]) -> Vec<String> {
        let requests: Vec<String> = requests.iter().map(|&r| r.to_owned()).collect();
        plan(kernel, &requests).unwrap().into_iter().map(|module| module.name).collect()
    }

    #[test]
    fn dependencies_come_first() {
        let (_dir, kernel) = kernel("");
        assert_eq!(names(&kernel, &["a"]), ["c", "b_b", "a"]);
        assert_eq!(names(&kernel, &["c", "d", "a"]), ["c", "d", "b_b", "a"]);
    }

    #[test]
    fn soft_dependencies_come_first_when_they_exist() {
        let (_dir, kernel) = kernel("softdep c pre: d nowhere post: a\n");
        assert_eq!(names(&kernel, &["c"]), ["d", "c"]);
    }

    #[test]
    fn built_in_modules_are_no_error() {
        let (_dir, kernel) = kernel("");
        assert!(names(&kernel, &["loop_x"]).is_empty());
    }

    #[test]
    fn unknown_names_get_a_suggestion() {
        let (_dir, kernel) = kernel("");
        let error = plan(&kernel, &["bb_b".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("did you mean `b_b`"), "{error}");
    }

    #[test]
    fn parameters_follow_the_name() {
        let (_dir, kernel) = kernel("");
        let plan = plan(&kernel, &["a x=1".into(), "c  y=2 z=3 ".into()]).unwrap();
        let parameters: Vec<_> = plan.iter().map(|m| (m.name.as_str(), m.parameters.as_str())).collect();
        assert_eq!(parameters, [("c", "y=2 z=3"), ("b_b", ""), ("a", "x=1")]);
    }

    #[test]
    fn modinfo_lists_dependencies() {
        assert_eq!(modinfo(b"license=GPL\0depends=x-y,z\0name=q\0", "depends"), ["x_y", "z"]);
        assert!(modinfo(b"depends=\0", "depends").is_empty());
    }

    #[test]
    fn a_text_file_is_no_module() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.ko");
        std::fs::write(&file, "text").unwrap();
        assert!(depends(&file).unwrap_err().to_string().contains("not a kernel module"));
    }
}
