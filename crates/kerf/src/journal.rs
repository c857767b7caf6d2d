//! What was changed, when, by whom and why: a line of JSON for each change in `/var/log/kerf.jsonl`, for `kerf log`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use kerf_live::{ActiveEntry, Entry, Status, Transaction};
use serde::{Deserialize, Serialize};

/// Where the lines go; `KERF_LOG_FILE` moves it.
const FILE: &str = "/var/log/kerf.jsonl";

/// A change of one or several constants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// `set`, `unset`, `load`, `unload` or `off`.
    pub action: String,
    /// What changed.
    pub changed: Vec<Changed>,
    /// The policy that came or went.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub policy: String,
    /// Who: the user that had logged in, or that sudo was asked by; else the process's own.
    pub by: String,
    /// The command of the process that started this program.
    pub from: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// A constant that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Its name.
    pub id: String,
    /// What it was.
    pub from: String,
    /// What it is.
    pub to: String,
}

/// The log's file.
pub fn file() -> PathBuf {
    std::env::var_os("KERF_LOG_FILE").map_or_else(|| FILE.into(), PathBuf::from)
}

/// Writes a change down. What cannot be written keeps nothing from being changed: a warning says so.
pub fn record(action: &str, policy: &str, note: &str, changed: Vec<Changed>) {
    let time_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    let line = Line {
        time_ns,
        action: action.to_owned(),
        changed,
        policy: policy.to_owned(),
        by: user(),
        from: parent(),
        note: note.to_owned(),
    };
    if let Err(error) = append(&file(), &line) {
        eprintln!("kerf: warning: {} does not say what was changed: {error}", file().display());
    }
}

fn append(file: &Path, line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    // One write, so that lines of two processes do not mix.
    OpenOptions::new().create(true).append(true).mode(0o644).open(file)?.write_all(text.as_bytes())
}

/// What changes when these ids become stock.
pub fn unset(status: &Status, ids: &[String]) -> Vec<Changed> {
    let set = status.entries.iter().filter(|entry| ids.contains(&entry.id));
    set.map(|entry| Changed { id: entry.id.clone(), from: value(entry), to: "stock".into() }).collect()
}

/// What changes when a policy comes.
pub fn decided(transaction: &Transaction, status: &Status, name: &str) -> Vec<Changed> {
    let before = |id: &str| status.entries.iter().find(|entry| entry.id == id).map(value);
    let line = |entry: &Entry| Changed {
        id: entry.id.clone(),
        from: before(&entry.id).unwrap_or_else(|| "stock".into()),
        to: if entry.locations.is_empty() { "stock".into() } else { format!("decided by {name}") },
    };
    transaction.entries.iter().map(line).collect()
}

/// What a constant is, in a word.
pub fn value(entry: &ActiveEntry) -> String {
    entry.policy.as_ref().map_or_else(|| entry.value.to_string(), |policy| format!("decided by {}", policy.owner))
}

/// The changes that a file holds, oldest first, and how many of its lines are none.
///
/// # Errors
/// If it is there and cannot be read.
pub fn read(file: &Path) -> io::Result<(Vec<Line>, usize)> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(error),
    };
    let lines: Vec<Option<Line>> = text.lines().map(|line| serde_json::from_str(line).ok()).collect();
    let damaged = lines.iter().filter(|line| line.is_none()).count();
    Ok((lines.into_iter().flatten().collect(), damaged))
}

fn user() -> String {
    if let Some(name) = std::env::var_os("SUDO_USER").filter(|name| !name.is_empty()) {
        return name.to_string_lossy().into_owned();
    }
    // The kernel says 4294967295 where nobody has logged in.
    let login = fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse::<u32>().ok());
    let user = login.filter(|user| *user != u32::MAX).unwrap_or_else(|| rustix::process::geteuid().as_raw());
    name_of(user, &fs::read_to_string("/etc/passwd").unwrap_or_default())
}

fn name_of(user: u32, passwd: &str) -> String {
    let named = passwd.lines().find(|line| line.split(':').nth(2) == Some(&user.to_string()));
    named.and_then(|line| line.split(':').next()).map_or_else(|| format!("user {user}"), str::to_owned)
}

fn parent() -> String {
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    fs::read_to_string(format!("/proc/{parent}/comm")).map_or_else(|_| String::new(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str) -> Line {
        let changed = vec![Changed { id: id.into(), from: "32".into(), to: "4".into() }];
        Line {
            time_ns: 1,
            action: "set".into(),
            changed,
            policy: String::new(),
            by: "root".into(),
            from: "sh".into(),
            note: "why \"so\"".into(),
        }
    }

    #[test]
    fn lines_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kerf.jsonl");
        assert_eq!(read(&file).unwrap(), (Vec::new(), 0));
        append(&file, &line("A")).unwrap();
        fs::write(&file, fs::read_to_string(&file).unwrap() + "{\"cut\n").unwrap();
        append(&file, &line("B")).unwrap();
        assert_eq!(read(&file).unwrap(), (vec![line("A"), line("B")], 1));
    }

    #[test]
    fn users_have_names() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nanna:x:1000:1000::/home/anna:/bin/sh\n";
        assert_eq!(name_of(1000, passwd), "anna");
        assert_eq!(name_of(1001, passwd), "user 1001");
    }
}
