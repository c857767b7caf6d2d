//! `kerf const`: the words, and what several of them share.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use kerf_const::ConstError;
use kerf_const::entry::Entry;
use kerf_const::table::{self, Table};

use super::{
    const_build, const_find, const_list, const_port, const_report, const_set, const_show, const_transfer, const_unset,
    const_verify,
};
use crate::running;

/// What can be done with constants.
#[derive(Debug, Subcommand)]
pub enum ConstCommand {
    /// Find constants in the kernel's source.
    #[command(after_help = const_find::EXAMPLES)]
    Find(const_find::FindArgs),
    /// Compile, compare and prove constants, and keep the entries in the scope table.
    #[command(after_help = const_build::EXAMPLES)]
    Build(const_build::BuildArgs),
    /// Show all that is known of a constant.
    #[command(after_help = const_show::EXAMPLES)]
    Show(const_show::ShowArgs),
    /// List the entries of the scope table.
    #[command(after_help = const_list::EXAMPLES)]
    List(const_list::ListArgs),
    /// Sum up the entries of the scope table: a page with plots and all entries, or the figures alone.
    #[command(after_help = const_report::EXAMPLES)]
    Report(const_report::ReportArgs),
    /// Set constants of the running kernel.
    #[command(after_help = const_set::EXAMPLES)]
    Set(const_set::SetArgs),
    /// Give constants their stock value back.
    #[command(after_help = const_unset::EXAMPLES)]
    Unset(const_unset::UnsetArgs),
    /// Write entries to a file, for other machines with the same kernel.
    #[command(after_help = const_transfer::EXPORT_EXAMPLES)]
    Export(const_transfer::ExportArgs),
    /// Take entries from a file that `kerf const export` wrote.
    #[command(after_help = const_transfer::IMPORT_EXAMPLES)]
    Import(const_transfer::ImportArgs),
    /// Compile entries again and compare.
    #[command(after_help = const_verify::EXAMPLES)]
    Verify(const_verify::VerifyArgs),
    /// Carry entries over to another build of the kernel, and tell what must be built again.
    #[command(after_help = const_port::EXAMPLES)]
    Port(const_port::PortArgs),
}

impl ConstCommand {
    /// Does it; the result is the exit code.
    pub fn run(self) -> anyhow::Result<u8> {
        match self {
            ConstCommand::Find(args) => args.run(),
            ConstCommand::Build(args) => args.run(),
            ConstCommand::Show(args) => args.run(),
            ConstCommand::List(args) => args.run(),
            ConstCommand::Report(args) => args.run(),
            ConstCommand::Set(args) => args.run(),
            ConstCommand::Unset(args) => args.run(),
            ConstCommand::Export(args) => args.run(),
            ConstCommand::Import(args) => args.run(),
            ConstCommand::Verify(args) => args.run(),
            ConstCommand::Port(args) => args.run(),
        }
    }
}

/// Where the entries are kept.
#[derive(Debug, Args)]
pub struct TableArgs {
    /// The scope table [default: $KERF_TABLE, else /var/lib/kerf/scope.db for root, else in the XDG data directory].
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

impl TableArgs {
    fn path(&self) -> anyhow::Result<PathBuf> {
        Ok(self.table.clone().map_or_else(table::default_path, Ok)?)
    }

    /// The table that was named, if one was.
    pub fn given(&self) -> Option<&Path> {
        self.table.as_deref()
    }

    /// The option as it was typed, with a space before it, for a command that is suggested; empty if it was not.
    pub fn typed(&self) -> String {
        self.given().map(|table| format!(" --table {}", table.display())).unwrap_or_default()
    }

    /// The table, which must be there. What others than root could have written is nothing for root to change a kernel by.
    pub fn open(&self) -> anyhow::Result<Table> {
        let path = self.path()?;
        if rustix::process::geteuid().is_root() && path.exists() {
            kerf_config::check_permissions(&path)?;
        }
        Ok(Table::open(&path)?)
    }

    /// The table, made if it is not there.
    pub fn create(&self) -> anyhow::Result<Table> {
        Ok(Table::create(&self.path()?)?)
    }
}

/// The entry of the running kernel; if it has none of that name, of the only other kernel that has.
pub fn find_anywhere(table: &Table, query: &str) -> anyhow::Result<Entry> {
    let own = running::build_id().unwrap_or_default();
    let missing = match table.find(&own, query) {
        Err(error @ ConstError::NoEntry { .. }) => error,
        found => return Ok(found?),
    };
    let mut others = Vec::new();
    for (build, _) in table.builds()?.into_iter().filter(|(build, _)| *build != own) {
        match table.find(&build, query) {
            Ok(entry) => others.push(entry),
            Err(error @ ConstError::NoEntry { .. }) => suggest_better(&missing, error)?,
            Err(other) => return Err(other.into()),
        }
    }
    match others.len() {
        0 => Err(missing.into()),
        1 => others.pop().context("find the entry"),
        _ => {
            let builds: Vec<&str> = others.iter().map(|e| e.image.release.as_str()).collect();
            let why = format!("several kernels have it ({}), none of them runs here", builds.join(", "));
            Err(ConstError::BadQuery { query: query.into(), why }.into())
        }
    }
}

/// The kernel of the table that is meant, by the first digits of its build id; else the running one, else the only one.
pub fn choose_build(table: &Table, wanted: Option<&str>) -> anyhow::Result<String> {
    let builds = table.builds()?;
    if builds.is_empty() {
        let why = "it has no entries: `kerf const build NAME` makes them".into();
        return Err(ConstError::Table { path: table.path().into(), why }.into());
    }
    let wanted = wanted.map(str::to_owned).or_else(|| {
        let own = running::build_id().ok()?;
        builds.iter().any(|(build, _)| *build == own).then_some(own)
    });
    let matching: Vec<&(String, String)> =
        builds.iter().filter(|(build, _)| build.starts_with(wanted.as_deref().unwrap_or_default())).collect();
    match matching[..] {
        [(build, _)] => Ok(build.clone()),
        _ => Err(which_build(&builds, wanted.as_deref()).into()),
    }
}

/// What is said where several kernels of the table, or none, may be meant.
pub fn which_build(builds: &[(String, String)], wanted: Option<&str>) -> ConstError {
    let all: Vec<String> = builds.iter().map(|(build, release)| format!("{build} ({release})")).collect();
    let why = format!("say with --build-id which kernel is meant: {}", all.join(", "));
    ConstError::BadQuery { query: wanted.unwrap_or("the table").into(), why }
}

/// Another build's suggestions are better than none.
fn suggest_better(missing: &ConstError, other: ConstError) -> Result<(), ConstError> {
    let none = |error: &ConstError| matches!(error, ConstError::NoEntry { suggestions, .. } if suggestions.is_empty());
    if none(missing) && !none(&other) { Err(other) } else { Ok(()) }
}

/// The entry of the running kernel; an entry of another kernel is an error that says so.
pub fn find_running(table: &Table, build_id: &str, query: &str) -> anyhow::Result<Entry> {
    let missing = match table.find(build_id, query) {
        Err(error @ ConstError::NoEntry { .. }) => error,
        found => return Ok(found?),
    };
    for (build, release) in table.builds()? {
        if table.find(&build, query).is_ok() {
            let wanted = format!("{release}, build {build}");
            return Err(kerf_live::LiveError::OtherKernel(format!(
                "the table's entry of {query} is of {wanted}, the running kernel is {}, build {build_id}: build it for this one",
                running::release()
            ))
            .into());
        }
    }
    Err(missing.into())
}

/// Reads a value: decimal or hexadecimal, with a suffix K, M or G for powers of 1024.
pub fn parse_value(text: &str) -> Result<i128, ConstError> {
    let bad = |why: &str| ConstError::BadQuery { query: text.into(), why: why.into() };
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (text.get(..at).unwrap_or_default(), 1i128 << 10),
        Some((at, 'M')) => (text.get(..at).unwrap_or_default(), 1 << 20),
        Some((at, 'G')) => (text.get(..at).unwrap_or_default(), 1 << 30),
        _ => (text, 1),
    };
    let (negative, magnitude) = digits.strip_prefix('-').map_or((false, digits), |rest| (true, rest));
    let hex = magnitude.strip_prefix("0x").or_else(|| magnitude.strip_prefix("0X"));
    let plain = hex.unwrap_or(magnitude);
    if !plain.chars().all(|c| c.is_ascii_hexdigit()) || plain.is_empty() {
        return Err(bad("a value is a decimal or 0x… hexadecimal integer, K, M or G after it mean powers of 1024"));
    }
    let number = match hex {
        Some(hex) => i128::from_str_radix(hex, 16),
        None => plain.parse(),
    };
    let number = number.map_err(|_| bad("a value is an integer of at most 64 bits"))?;
    let value = number.checked_mul(unit).map(|v| if negative { -v } else { v });
    value
        .filter(|v| (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(v))
        .ok_or_else(|| bad("it does not fit 64 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_people_write_them() {
        for (text, value) in [
            ("32", 32),
            ("-1", -1),
            ("0x1f", 31),
            ("-0x10", -16),
            ("4K", 4096),
            ("2M", 2 << 20),
            ("1G", 1 << 30),
            ("0xffffffffffffffff", u64::MAX.into()),
        ] {
            assert_eq!(parse_value(text).unwrap(), value, "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for text in
            ["", "K", "x", "0x", "12a", "--1", "1.5", "1T", "0x1ffffffffffffffff", "99999999999999999999", "+1", "é"]
        {
            assert!(matches!(parse_value(text), Err(ConstError::BadQuery { .. })), "{text}");
        }
    }
}
