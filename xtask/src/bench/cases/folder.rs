//! A folder of policies/ that is a case study: what its workload says of the machine that it needs and of what it measures.

use anyhow::{Context, bail, ensure};
use std::fmt;
use std::path::{Path, PathBuf};

/// A case study.
#[derive(Clone, Debug, PartialEq)]
pub struct Folder {
    /// The folder's name, which is the policy's.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Constants that the policy decides on.
    pub constants: Vec<String>,
    /// Modules of the machine, with their parameters.
    pub modules: Vec<String>,
    /// Programs of the host that the workload uses.
    pub programs: Vec<String>,
    /// Words for the kernel's command line.
    pub append: Vec<String>,
    /// Number of CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Number of NUMA nodes.
    pub nodes: u32,
    /// Size of an empty disk in MiB.
    pub disk_mib: Option<u64>,
    /// What is measured; the first is what the case is about.
    pub figures: Vec<Figure>,
    /// Programs that the workload runs, as C.
    pub sources: Vec<PathBuf>,
}

/// Something that a workload measures.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Its name.
    pub name: String,
    /// What it counts.
    pub unit: String,
    /// Where it should go.
    pub direction: Direction,
}

/// Where a figure should go with the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Down.
    Less,
    /// Up.
    More,
    /// Nowhere.
    Same,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Less => "less",
            Direction::More => "more",
            Direction::Same => "the same",
        })
    }
}

impl Folder {
    /// All folders that have a workload, by name.
    pub fn all(policies: &Path) -> anyhow::Result<Vec<Folder>> {
        let listing = std::fs::read_dir(policies).with_context(|| format!("list {}", policies.display()))?;
        let mut folders = Vec::new();
        for entry in listing {
            let path = entry.with_context(|| format!("list {}", policies.display()))?.path();
            let workload = path.join("workload.sh");
            if workload.exists() {
                let text =
                    std::fs::read_to_string(&workload).with_context(|| format!("read {}", workload.display()))?;
                folders.push(Folder::parse(&path, &text, sources(&path)?)?);
            }
        }
        folders.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(folders)
    }

    /// Reads the lines `# KEY: WORDS` of a workload.
    pub fn parse(path: &Path, workload: &str, sources: Vec<PathBuf>) -> anyhow::Result<Folder> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut folder = Folder {
            name: name.clone(),
            path: path.to_owned(),
            constants: Vec::new(),
            modules: Vec::new(),
            programs: Vec::new(),
            append: Vec::new(),
            cpus: 2,
            memory_mib: 1024,
            nodes: 1,
            disk_mib: None,
            figures: Vec::new(),
            sources,
        };
        for line in workload.lines().take_while(|line| line.starts_with('#')) {
            let Some((key, words)) = line.trim_start_matches(['#', ' ']).split_once(": ") else { continue };
            folder.take(key, words.trim()).with_context(|| format!("read `{line}` in {name}/workload.sh"))?;
        }
        ensure!(
            !folder.constants.is_empty() && !folder.figures.is_empty(),
            "find constants and figures in {name}/workload.sh"
        );
        Ok(folder)
    }

    fn take(&mut self, key: &str, words: &str) -> anyhow::Result<()> {
        let number = || words.parse::<u32>().context("it is no number");
        let list =
            |by: char| words.split(by).map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect();
        match key {
            "constants" => self.constants = list(' '),
            "modules" => self.modules = list(';'),
            "programs" => self.programs = list(' '),
            "append" => self.append = list(' '),
            "cpus" => self.cpus = number()?,
            "memory" => self.memory_mib = number()?,
            "nodes" => self.nodes = number()?,
            "disk" => self.disk_mib = Some(number()?.into()),
            "figure" => self.figures.push(figure(words)?),
            _ => {}
        }
        Ok(())
    }
}

fn figure(words: &str) -> anyhow::Result<Figure> {
    let [name, unit, direction] = words.split(';').map(str::trim).collect::<Vec<_>>()[..] else {
        bail!("give NAME; UNIT; less|more|same");
    };
    let direction = match direction {
        "less" => Direction::Less,
        "more" => Direction::More,
        "same" => Direction::Same,
        other => bail!("`{other}` is no direction: less, more or same"),
    };
    Ok(Figure { name: name.to_owned(), unit: unit.to_owned(), direction })
}

/// C files that are no policies.
fn sources(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listing = std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let paths = listing.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
    let mut sources = paths.with_context(|| format!("list {}", folder.display()))?;
    sources.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".c") && !name.ends_with(".bpf.c")
    });
    sources.sort();
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repositorys_cases_can_be_read() {
        let folders = Folder::all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies")).unwrap();
        assert!(folders.len() >= 3, "{folders:?}");
        for folder in &folders {
            assert!(folder.path.join(format!("{}.bpf.c", folder.name)).exists(), "{}", folder.name);
            let script = std::fs::read_to_string(folder.path.join("workload.sh")).unwrap();
            for figure in &folder.figures {
                assert!(script.contains(&format!("figure {} ", figure.name)), "{}: {}", folder.name, figure.name);
            }
        }
    }

    #[test]
    fn a_header_is_read() {
        let text = "#!/bin/sh\n# Words: of a person\n# constants: A B\n# modules: null_blk bs=4096; ext4\n# disk: 8\n# nodes: 2\n\
                    # figure: wait; us; less\n\n# cpus: 9\n";
        let folder = Folder::parse(Path::new("/p/name"), text, Vec::new()).unwrap();
        assert_eq!(
            (folder.constants, folder.modules),
            (vec!["A".into(), "B".into()], vec!["null_blk bs=4096".into(), "ext4".into()])
        );
        assert_eq!((folder.disk_mib, folder.nodes, folder.cpus, folder.name.as_str()), (Some(8), 2, 2, "name"));
        for bad in [
            "# constants: A\n",
            "# constants: A\n# figure: a; b\n",
            "# constants: A\n# figure: a; b; c\n",
            "# cpus: x\n",
        ] {
            assert!(Folder::parse(Path::new("/p/name"), bad, Vec::new()).is_err(), "{bad}");
        }
    }
}
