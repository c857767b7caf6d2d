//! One unit preprocessed with all sites marked, or compiled with another value of one; the tree is never written.

use super::kbuild::Unit;
use super::reach::{self, BEGIN, END};
use anyhow::{Context, ensure};
use kerf_const::site::Site;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// What was seen of a unit: numbers of sites.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Those whose text arrives in the unit.
    pub present: BTreeSet<usize>,
    /// Those of them that may reach its code.
    pub reaching: BTreeSet<usize>,
}

/// Headers with marks around the sites, ready to cover the tree's own.
pub struct Look {
    root: PathBuf,
    /// All sites marked together, and each by itself.
    together: Covers,
    alone: Vec<Covers>,
    /// Keeps the marked headers.
    _scratch: TempDir,
}

/// Files that cover files of the tree.
type Covers = Vec<(PathBuf, PathBuf)>;

impl Look {
    /// Marks the sites.
    pub fn new(root: &Path, sites: &[Site]) -> anyhow::Result<Look> {
        let scratch = tempfile::tempdir().context("make a directory for the marked headers")?;
        let all: Vec<usize> = (0..sites.len()).collect();
        let together = covers(root, sites, &all, &scratch.path().join("all"))?;
        let alone = all.iter().map(|n| covers(root, sites, &[*n], &scratch.path().join(n.to_string())));
        let alone = alone.collect::<anyhow::Result<_>>()?;
        Ok(Look { root: root.to_owned(), together, alone, _scratch: scratch })
    }

    /// Preprocesses a unit; `None` if that is not possible, for example because it includes what the build generates.
    ///
    /// A site that a condition of the preprocessor asks for counts as reaching the code.
    pub fn at(&self, unit: &Unit) -> anyhow::Result<Option<Seen>> {
        let output = self.preprocess(unit, &self.together)?;
        if output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout);
            let present = reach::present(&text);
            let reaching = if present.is_empty() { BTreeSet::new() } else { reach::reaching(&text) };
            return Ok(Some(Seen { present, reaching }));
        }
        if !self.preprocess(unit, &[])?.status.success() {
            return Ok(None);
        }
        let mut seen = Seen::default();
        for (n, covers) in self.alone.iter().enumerate() {
            let output = self.preprocess(unit, covers)?;
            let text = String::from_utf8_lossy(&output.stdout);
            if !output.status.success() || !reach::present(&text).is_empty() {
                seen.present.insert(n);
            }
            if !output.status.success() || reach::reaching(&text).contains(&n) {
                seen.reaching.insert(n);
            }
        }
        Ok(Some(seen))
    }

    /// Whether the object of a unit changes with a site's value; `None` if the compiler refuses the other value.
    pub fn depends(&self, unit: &Unit, site: usize) -> anyhow::Result<Option<bool>> {
        let covers = self.alone.get(site).context("find the site's header")?;
        let output = self.preprocess(unit, covers)?;
        ensure!(output.status.success(), "preprocess {} again", unit.name);
        let text = String::from_utf8_lossy(&output.stdout);
        let own = self.object(unit, &replaced(&text, false))?.with_context(|| format!("compile {}", unit.name))?;
        let other = self.object(unit, &replaced(&text, true))?;
        Ok(other.map(|other| other != own))
    }

    /// Runs the preprocessor in a namespace of its own, where the marked headers cover the tree's.
    fn preprocess(&self, unit: &Unit, covers: &[(PathBuf, PathBuf)]) -> anyhow::Result<Output> {
        let script =
            "while [ \"$1\" != -- ]; do mount --bind \"$1\" \"$2\" || exit 99; shift 2; done; shift; exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", script, "sh"]).current_dir(&self.root);
        command.args(covers.iter().flat_map(|(from, to)| [from, to])).arg("--").args(&unit.command);
        command.args(["-g0", "-w", "-E", "-o", "-", &unit.name]);
        let output = command.output().context("run unshare")?;
        ensure!(output.status.code() != Some(99), "cover headers: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(output)
    }

    /// The object of a preprocessed text; `None` if it does not compile.
    fn object(&self, unit: &Unit, text: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let scratch = tempfile::tempdir().context("make a directory for an object")?;
        // Both values have the same names: nothing but the code may differ.
        std::fs::write(scratch.path().join("unit.i"), text).context("write a preprocessed unit")?;
        let mut words = unit.command.iter();
        let mut command = Command::new(words.next().context("find the compiler")?);
        while let Some(word) = words.next() {
            match word.as_str() {
                "-include" => drop(words.next()),
                word if word.starts_with("-Werror") => {}
                word => drop(command.arg(word.strip_prefix("-I.").map_or(word.into(), |rest| {
                    // The compiler runs beside the object, not in the tree.
                    format!("-I{}{rest}", self.root.join(".").display())
                }))),
            }
        }
        command.args(["-g0", "-w", "-fpreprocessed", "-c", "-o", "unit.o", "unit.i"]).current_dir(scratch.path());
        let output = command.output().context("run the compiler")?;
        let object = scratch.path().join("unit.o");
        output.status.success().then(|| std::fs::read(object).context("read an object")).transpose()
    }
}

/// Copies of the headers with marks around some sites.
fn covers(root: &Path, sites: &[Site], marked: &[usize], directory: &Path) -> anyhow::Result<Covers> {
    std::fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let mut by_file: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    marked.iter().for_each(|n| by_file.entry(&sites[*n].file).or_default().push(*n));
    let mut covers = Covers::new();
    for (file, mut numbers) in by_file {
        let path = root.join(file);
        let mut text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        // From the end of the file, so that the places before stay where they are.
        numbers.sort_by_key(|n| std::cmp::Reverse(sites[*n].range.start));
        for n in numbers {
            let range = sites[n].range.clone();
            let old = text.get(range.clone()).with_context(|| format!("find {} in {file}", sites[n].label()))?;
            let new = [format!("{BEGIN}{n}__ ").as_bytes(), old, format!(" {END}{n}__").as_bytes()].concat();
            text.splice(range, new);
        }
        let cover = directory.join(file.replace('/', "%"));
        std::fs::write(&cover, text).with_context(|| format!("write {}", cover.display()))?;
        covers.push((cover, path));
    }
    Ok(covers)
}

/// The text without marks: what they stand around stays, or becomes one more.
fn replaced(text: &str, changed: bool) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (body, after) = after.split_once(END).unwrap_or((after, ""));
        let body = body.split_once("__ ").map_or(body, |(_, body)| body);
        result.push_str(before);
        if changed {
            let plain: Vec<&str> = body.lines().filter(|line| !line.starts_with('#')).collect();
            result.push_str(&format!("((__typeof__({0}))(({0}) + 1))", plain.join(" ")));
            body.lines().filter(|line| line.starts_with('#')).for_each(|line| result.push_str(&format!("\n{line}\n")));
        } else {
            result.push_str(body);
        }
        rest = after.split_once("__").map_or("", |(_, rest)| rest);
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use kerf_const::site::definitions;

    #[test]
    fn marks_become_the_text_or_one_more() {
        let text = "x = __kerf_begin_3__ (8 * HZ) __kerf_end_3__; y = __kerf_begin_0__ 2 __kerf_end_0__;";
        assert_eq!(replaced(text, false), "x = (8 * HZ) ; y = 2 ;");
        assert_eq!(
            replaced(text, true),
            "x = ((__typeof__((8 * HZ) ))(((8 * HZ) ) + 1)); y = ((__typeof__(2 ))((2 ) + 1));"
        );
    }

    #[test]
    fn units_are_seen_and_compiled() {
        let dir = tempfile::tempdir().unwrap();
        let header = "#define A 3\n#define B 4\n#define C 5\nstatic inline int f(void) { return B; }\n";
        std::fs::write(dir.path().join("a.h"), header).unwrap();
        let source = "#include \"a.h\"\n#if C > 4\nint g(int x) { return x + A; }\n#endif\n";
        std::fs::write(dir.path().join("a.c"), source).unwrap();
        std::fs::write(dir.path().join("b.c"), "#include \"a.h\"\nint g(int x) { return x + A; }\n").unwrap();
        let sites: Vec<Site> = ["A", "B", "C"].iter().flat_map(|name| definitions("a.h", header, name)).collect();
        let look = Look::new(dir.path(), &sites).unwrap();
        let unit = |name: &str| Unit { name: name.into(), command: vec!["gcc".into(), "-O2".into()], module: false };
        let seen = look.at(&unit("b.c")).unwrap().unwrap();
        assert_eq!((seen.present, seen.reaching), (BTreeSet::from([0, 1]), BTreeSet::from([0])));
        // The preprocessor does not understand a mark in a condition.
        assert_eq!(look.at(&unit("a.c")).unwrap().unwrap().reaching, BTreeSet::from([0, 2]));
        assert_eq!(look.depends(&unit("b.c"), 0).unwrap(), Some(true));
        assert_eq!(look.depends(&unit("b.c"), 1).unwrap(), Some(false));
        assert_eq!(look.at(&unit("gone.c")).unwrap(), None);
        assert_eq!(std::fs::read_to_string(dir.path().join("a.h")).unwrap(), header);
    }
}
