//! Bench `cases`: the case studies of policies/, each in a machine of its own, stock and tuned in turns in the same run.

mod folder;
mod report;

use super::{Measured, Row, median};
use crate::setup::{self, Setup};
use crate::steps::Steps;
use crate::workspace::Workspace;
use anyhow::{Context, bail, ensure};
use folder::{Direction, Figure, Folder};
use kerf_lab::FileSpec;
use kerf_lab::Machine;
use kerf_lab::host::Need;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The longest that a case may take; some of them wait for slow networks.
const TIMEOUT: Duration = Duration::from_secs(900);

/// How far apart two figures may be that should be the same.
const SAME: f64 = 0.25;

/// Runs the cases, or the one of a name, and writes figures and a report.
pub fn run(workspace: &Workspace, only: Option<&str>) -> anyhow::Result<Measured> {
    let folders = Folder::all(&workspace.root.join("policies"))?;
    let wanted: Vec<Folder> =
        folders.into_iter().filter(|folder| only.is_none_or(|name| name == folder.name)).collect();
    ensure!(!wanted.is_empty(), "find the case {} in policies/", only.unwrap_or("any"));
    let mut steps = Steps::new();
    let setup = Setup::run(&mut steps)?;
    setup::install(&mut steps, &[Need::Networks, Need::WebServers])?;
    let kerf = steps.need("the kerf program", || workspace.build_kerf())?;
    let directory = workspace.directory("bench")?;
    let module = steps.need("kerf.ko", || {
        kerf_lab::module::build(&setup.kernel, &workspace.root.join("kernel"), &directory).context("build kerf.ko")
    })?;
    let table = directory.join("cases.db");
    steps.need("the scope table", || build_table(&kerf, &table, &wanted))?;
    let bench = Bench { setup, kerf, module, table };
    let mut measured = Measured { rows: Vec::new(), complaints: Vec::new() };
    let (mut seen, mut beside) = (Vec::new(), Vec::new());
    for folder in &wanted {
        let result = steps.need(&folder.name, || bench.run(folder, &directory));
        match result {
            Ok(figures) => {
                measured.rows.extend(rows(folder, &folder.figures[..1], &figures));
                beside.extend(rows(folder, &folder.figures[1..], &figures));
                measured.complaints.extend(complaints(folder, &figures));
                seen.push((folder, figures));
            }
            Err(error) => measured.complaints.push(format!("{}: {error:#}", folder.name)),
        }
    }
    let file = directory.join("cases.html");
    std::fs::write(&file, report::html(&bench.setup.kernel.release, &seen))
        .with_context(|| format!("write {}", file.display()))?;
    let details = directory.join("cases/figures.json");
    let all: BTreeMap<&str, &Figures> = seen.iter().map(|(folder, figures)| (folder.name.as_str(), figures)).collect();
    std::fs::write(&details, serde_json::to_string_pretty(&all).context("write down the figures")? + "\n")
        .with_context(|| format!("write {}", details.display()))?;
    println!("the report is {}, every round is in {}", file.display(), details.display());
    println!("\nbeside them:\n{}\n\nwhat the cases are about:", super::table(&beside));
    Ok(measured)
}

fn build_table(kerf: &Path, table: &Path, folders: &[Folder]) -> anyhow::Result<()> {
    let constants: BTreeSet<&String> = folders.iter().flat_map(|folder| &folder.constants).collect();
    let mut command = Command::new(kerf);
    command.args(["const", "build"]).args(constants).arg("--table").arg(table).stdin(Stdio::null());
    let status = command.stdout(Stdio::null()).status().context("run kerf const build")?;
    ensure!(status.success(), "build the entries: kerf ended with {status}");
    Ok(())
}

/// What every case's machine gets.
struct Bench {
    setup: Setup,
    kerf: PathBuf,
    module: PathBuf,
    table: PathBuf,
}

/// What was measured of one thing: a figure for each round.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Rounds {
    stock: Vec<f64>,
    tuned: Vec<f64>,
}

/// By the figures' names.
type Figures = BTreeMap<String, Rounds>;

impl Bench {
    fn run(&self, folder: &Folder, directory: &Path) -> anyhow::Result<Figures> {
        let place = directory.join("cases").join(&folder.name);
        self.prepare(folder, &place)?;
        let mut machine = Machine::new(&self.setup.cache, self.setup.kernel.clone(), &self.kerf);
        machine.files = vec![
            FileSpec { host: place, guest: "/case".into() },
            FileSpec { host: self.module.clone(), guest: "/kerf.ko".into() },
            FileSpec { host: self.table.clone(), guest: "/var/lib/kerf/scope.db".into() },
        ];
        machine.files.extend(folder.programs.iter().map(|path| FileSpec { host: path.into(), guest: path.into() }));
        machine.modules.clone_from(&folder.modules);
        machine.append.clone_from(&folder.append);
        (machine.cpus, machine.memory_mib, machine.numa_nodes) = (folder.cpus, folder.memory_mib, folder.nodes);
        (machine.disk_mib, machine.timeout) = (folder.disk_mib, TIMEOUT);
        let outcome = machine.run(&["sh", "/case/workload.sh"].map(str::to_owned)).context("run the workload")?;
        let (output, errors) = (String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
        ensure!(outcome.exit_code == 0, "run the workload: it ended with {}:\n{errors}", outcome.exit_code);
        let figures = figures(&output)?;
        ensure!(decided(&output)? > 0, "see a decision of the policy:\n{errors}");
        Ok(figures)
    }

    /// The folder as the guest sees it: with its policy and its programs compiled.
    fn prepare(&self, folder: &Folder, place: &Path) -> anyhow::Result<()> {
        if place.exists() {
            std::fs::remove_dir_all(place).with_context(|| format!("empty {}", place.display()))?;
        }
        std::fs::create_dir_all(place).with_context(|| format!("create {}", place.display()))?;
        std::fs::copy(folder.path.join("workload.sh"), place.join("workload.sh")).context("copy the workload")?;
        for source in &folder.sources {
            let program = place.join(source.file_stem().unwrap_or_default());
            let mut gcc = Command::new("gcc");
            gcc.args(["-static", "-O2", "-Wall", "-Werror", "-pthread", "-o"]).arg(program).arg(source);
            ensure!(gcc.status().context("run gcc")?.success(), "compile {}", source.display());
        }
        let mut check = Command::new(&self.kerf);
        check.args(["policy", "check"]).arg(folder.path.join(format!("{}.bpf.c", folder.name)));
        check.arg("-o").arg(place.join(format!("{}.o", folder.name))).arg("--table").arg(&self.table);
        let output = check.stdin(Stdio::null()).output().context("run kerf policy check")?;
        ensure!(output.status.success(), "check the policy: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

/// `figure NAME stock|tuned VALUE`, a line for each round.
fn figures(output: &str) -> anyhow::Result<Figures> {
    let mut figures = Figures::new();
    for line in output.lines().filter_map(|line| line.strip_prefix("figure ")) {
        let wrong = || format!("read `{line}`: NAME stock|tuned VALUE");
        let [name, subject, value] = line.split_whitespace().collect::<Vec<_>>()[..] else { bail!(wrong()) };
        let value: f64 = value.parse().with_context(wrong)?;
        let rounds = figures.entry(name.to_owned()).or_default();
        match subject {
            "stock" => rounds.stock.push(value),
            "tuned" => rounds.tuned.push(value),
            _ => bail!(wrong()),
        }
    }
    Ok(figures)
}

/// How often the policy decided, by the status that the workload prints.
fn decided(output: &str) -> anyhow::Result<u64> {
    let status = output.lines().find_map(|line| line.strip_prefix("status ")).context("find the status")?;
    let status: Value = serde_json::from_str(status).context("read the status")?;
    let entries = status["entries"].as_array().into_iter().flatten();
    Ok(entries.filter_map(|entry| entry["policy"]["decided"].as_u64()).sum())
}

fn medians(figures: &Figures, figure: &Figure) -> Option<(f64, f64)> {
    let rounds = figures.get(&figure.name)?;
    Some((median(&rounds.stock)?, median(&rounds.tuned)?))
}

fn rows(folder: &Folder, wanted: &[Figure], figures: &Figures) -> Vec<Row> {
    let row = |figure: &Figure| {
        let (stock, tuned) = medians(figures, figure)?;
        let row = |subject, value| Row::new(&figure.name, &folder.name, subject, value, &figure.unit);
        Some([row("stock", stock), row("tuned", tuned)])
    };
    wanted.iter().filter_map(row).flatten().collect()
}

/// The first figure is the one that the case is about, and must go where it should. The others are for people.
fn complaints(folder: &Folder, figures: &Figures) -> Vec<String> {
    let mut complaints = Vec::new();
    for figure in &folder.figures {
        if medians(figures, figure).is_none() {
            complaints.push(format!("{}: {} was not measured", folder.name, figure.name));
        }
    }
    if let Some(figure) = folder.figures.first()
        && let Some((stock, tuned)) = medians(figures, figure)
        && !figure.direction.holds(stock, tuned)
    {
        let wanted = figure.direction;
        complaints.push(format!("{}: {} is {stock} stock and {tuned} tuned, not {wanted}", folder.name, figure.name));
    }
    complaints
}

impl Direction {
    fn holds(self, stock: f64, tuned: f64) -> bool {
        match self {
            Direction::Less => tuned < stock,
            Direction::More => tuned > stock,
            Direction::Same => (tuned - stock).abs() <= SAME * stock.abs().max(tuned.abs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "figure batch stock 32\nnoise\nfigure batch tuned 1\nfigure batch stock 30\n\
                          figure batch stock 34\nfigure batch tuned 3\nstatus {\"entries\":[{\"policy\":{\"decided\":7}},{\"policy\":null}]}\n";

    #[test]
    fn rounds_are_gathered() {
        let found = figures(OUTPUT).unwrap();
        assert_eq!(found["batch"], Rounds { stock: vec![32.0, 30.0, 34.0], tuned: vec![1.0, 3.0] });
        assert_eq!(decided(OUTPUT).unwrap(), 7);
        assert!(figures("figure a stock x\n").is_err() && figures("figure a other 1\n").is_err());
        assert!(decided("figure a stock 1\n").is_err());
    }

    #[test]
    fn the_first_figure_must_go_where_it_should() {
        let text = "# constants: A\n# figure: batch; requests; less\n# figure: gone; us; same\n";
        let mut folder = Folder::parse(Path::new("/policies/p"), text, Vec::new()).unwrap();
        let found = figures(OUTPUT).unwrap();
        assert_eq!(complaints(&folder, &found), ["p: gone was not measured"]);
        assert_eq!(
            rows(&folder, &folder.figures[..1], &found).iter().map(|row| row.value).collect::<Vec<_>>(),
            [32.0, 2.0]
        );
        folder.figures[0].direction = Direction::More;
        assert_eq!(complaints(&folder, &found)[1], "p: batch is 32 stock and 2 tuned, not more");
        assert!(Direction::Same.holds(100.0, 90.0) && !Direction::Same.holds(100.0, 60.0));
    }
}
