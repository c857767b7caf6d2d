//! The scope table: entries kept in SQLite, by the build id of their image.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags, Row, TransactionBehavior, params};
use rusqlite_migration::{M, Migrations};
use sha2::{Digest, Sha256};

use crate::entry::Entry;
use crate::error::ConstError;

/// SQLite's `application_id` of a scope table: `KERF`.
const APPLICATION: i32 = 0x4b45_5246;

/// One step for each version of the schema (`user_version`); steps that were released never change.
const STEPS: &[M<'_>] = &[
    M::up(
        "CREATE TABLE entry (
        build_id TEXT NOT NULL,
        id TEXT NOT NULL,
        name TEXT,
        file TEXT NOT NULL,
        line INTEGER NOT NULL,
        value TEXT NOT NULL,
        kind TEXT NOT NULL,
        class TEXT NOT NULL,
        reason TEXT NOT NULL,
        release TEXT NOT NULL,
        entry TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        PRIMARY KEY (build_id, id)
    ) STRICT;
    CREATE INDEX entry_name ON entry (name);",
    ),
    M::up(
        "CREATE TABLE attempt (
        build_id TEXT NOT NULL,
        query TEXT NOT NULL,
        failure TEXT,
        ids TEXT NOT NULL,
        seconds REAL NOT NULL,
        PRIMARY KEY (build_id, query)
    ) STRICT;",
    ),
];

/// The oldest format that can be read as it is: later ones only have more tables.
const READABLE: i64 = 1;

/// How many look-alikes an error lists.
const MOST_SUGGESTIONS: usize = 5;

/// What came of a query of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// The image's build id.
    pub build_id: String,
    /// The query, as it was written.
    pub query: String,
    /// Why there is no entry; nothing where there is one.
    pub failure: Option<String>,
    /// Ids of its entries.
    pub ids: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

/// A scope table, open.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    connection: Connection,
}

/// Where the table lies when nobody says: root's is the system's, others have their own.
///
/// # Errors
/// If the user has neither `XDG_DATA_HOME` nor `HOME`.
pub fn default_path() -> Result<PathBuf, ConstError> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(table) = variable("KERF_TABLE") {
        return Ok(table);
    }
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/kerf/scope.db".into());
    }
    let data = variable("XDG_DATA_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/share")));
    data.map(|data| data.join("kerf/scope.db")).ok_or_else(|| ConstError::Table {
        path: "scope.db".into(),
        why: "neither XDG_DATA_HOME nor HOME is set: name the file with --table".into(),
    })
}

impl Table {
    /// Opens a table, making it and its directory if they are not there.
    ///
    /// # Errors
    /// If the file cannot be written, is damaged, or is another program's.
    pub fn create(path: &Path) -> Result<Table, ConstError> {
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(|source| ConstError::Io {
                what: "create",
                path: parent.into(),
                source,
            })?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Table::with_flags(path, flags)
    }

    /// Opens a table that must be there, for reading only.
    ///
    /// # Errors
    /// As [`Table::create`], and if there is none.
    pub fn open(path: &Path) -> Result<Table, ConstError> {
        if !path.exists() {
            let why = "there is no such file; `kerf const build NAME` makes it".into();
            return Err(ConstError::Table { path: path.into(), why });
        }
        Table::with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
    }

    fn with_flags(path: &Path, flags: OpenFlags) -> Result<Table, ConstError> {
        let connection = Connection::open_with_flags(path, flags).map_err(|e| problem(path, &e))?;
        let mut table = Table { path: path.into(), connection };
        table.prepare(flags.contains(OpenFlags::SQLITE_OPEN_READ_WRITE)).map(|()| table)
    }

    /// Checks whose file it is, and brings the schema up to date.
    fn prepare(&mut self, writable: bool) -> Result<(), ConstError> {
        self.connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(|e| problem(&self.path, &e))?;
        let application = self.pragma("application_id")?;
        let objects: i64 = self.query_number("SELECT count(*) FROM sqlite_schema")?;
        let empty = application == 0 && objects == 0;
        if application != i64::from(APPLICATION) && !empty {
            return Err(self.refuse("it is a database of another program: name another file with --table"));
        }
        let version = self.pragma("user_version")?;
        let known = STEPS.len() as i64;
        if version > known {
            let why = format!("it has format {version}, this program knows {known}: use a newer kerf, or build again");
            return Err(self.refuse(&why));
        }
        if writable {
            self.connection.pragma_update(None, "application_id", APPLICATION).map_err(|e| problem(&self.path, &e))?;
            Migrations::from_slice(STEPS).to_latest(&mut self.connection).map_err(|e| migration(&self.path, e))
        } else if version < READABLE {
            Err(self.refuse("it is empty or of an older format: `kerf const build NAME` brings it up to date"))
        } else {
            Ok(())
        }
    }

    fn refuse(&self, why: &str) -> ConstError {
        ConstError::Table { path: self.path.clone(), why: why.into() }
    }

    fn pragma(&self, name: &str) -> Result<i64, ConstError> {
        self.connection.pragma_query_value(None, name, |row| row.get(0)).map_err(|e| problem(&self.path, &e))
    }

    fn query_number(&self, sql: &str) -> Result<i64, ConstError> {
        self.connection.query_row(sql, [], |row| row.get(0)).map_err(|e| problem(&self.path, &e))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stores entries under their own build ids, all or none; rows of the same id are replaced.
    ///
    /// # Errors
    /// If an entry has no build id, or the file cannot be written.
    pub fn store(&mut self, entries: &[Entry]) -> Result<(), ConstError> {
        self.store_attempt(entries, None)
    }

    /// As [`Table::store`], and remembers in the same moment what came of a query.
    ///
    /// # Errors
    /// As [`Table::store`].
    pub fn store_attempt(&mut self, entries: &[Entry], attempt: Option<&Attempt>) -> Result<(), ConstError> {
        let path = &self.path;
        let failed = |e: rusqlite::Error| problem(path, &e);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        if let Some(Attempt { build_id, query, failure, ids, seconds }) = attempt {
            let sql = "INSERT OR REPLACE INTO attempt VALUES (?1, ?2, ?3, ?4, ?5)";
            transaction.execute(sql, params![build_id, query, failure, ids.join("\n"), seconds]).map_err(failed)?;
        }
        for entry in entries {
            if entry.image.build_id.is_empty() {
                let why = "its image has no build id, so it could not be told from other kernels".into();
                return Err(ConstError::Damaged { id: entry.id.clone(), why });
            }
            let text = serde_json::to_string(entry).map_err(|e| ConstError::Internal(e.to_string()))?;
            transaction
                .execute(
                    "INSERT OR REPLACE INTO entry VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
                    params![
                        entry.image.build_id,
                        entry.id,
                        entry.name,
                        entry.file,
                        entry.line,
                        entry.value.to_string(),
                        entry.kind.word(),
                        entry.class.word(),
                        entry.reason,
                        entry.image.release,
                        text,
                        digest(&text),
                    ],
                )
                .map_err(failed)?;
        }
        transaction.commit().map_err(failed)
    }

    /// Queries of one build that were tried before.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn attempts(&self, build_id: &str) -> Result<Vec<Attempt>, ConstError> {
        // The first format had none.
        if self.pragma("user_version")? < 2 {
            return Ok(Vec::new());
        }
        let failed = |e: rusqlite::Error| problem(&self.path, &e);
        let sql = "SELECT build_id, query, failure, ids, seconds FROM attempt WHERE build_id = ?1 ORDER BY query";
        let mut statement = self.connection.prepare(sql).map_err(failed)?;
        let attempt = |row: &Row| -> rusqlite::Result<Attempt> {
            let ids: String = row.get(3)?;
            let ids = ids.lines().map(str::to_owned).collect();
            Ok(Attempt { build_id: row.get(0)?, query: row.get(1)?, failure: row.get(2)?, ids, seconds: row.get(4)? })
        };
        let rows = statement.query_map([build_id], attempt).map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
    }

    /// All entries, or those of one build, in the order of their names.
    ///
    /// # Errors
    /// If a row is damaged: the error names it.
    pub fn entries(&self, build_id: Option<&str>) -> Result<Vec<Entry>, ConstError> {
        let rows = self.rows("?1 IS NULL OR build_id = ?1", &[&build_id])?;
        rows.into_iter().map(|row| row.entry(&self.path)).collect()
    }

    /// Build id and release of every kernel that has entries.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn builds(&self) -> Result<Vec<(String, String)>, ConstError> {
        let failed = |e: rusqlite::Error| problem(&self.path, &e);
        let sql = "SELECT build_id, max(release) FROM entry GROUP BY build_id ORDER BY 2, 1";
        let mut statement = self.connection.prepare(sql).map_err(failed)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
    }

    /// The entry of one build that a person names: a name, an id, or `file:Lline`.
    ///
    /// # Errors
    /// [`ConstError::NoEntry`] with names that look alike; [`ConstError::BadQuery`] if several entries are meant;
    /// [`ConstError::Damaged`] if the row does not hold what was stored.
    pub fn find(&self, build_id: &str, query: &str) -> Result<Entry, ConstError> {
        let (file, line) = match query.rsplit_once(":L") {
            Some((file, line)) => (file, line.parse::<u32>().unwrap_or(0)),
            None => ("", 0),
        };
        let condition = "build_id = ?1 AND (name = ?2 OR id = ?2 OR (file = ?3 AND line = ?4))";
        let mut rows = self.rows(condition, &[&build_id, &query, &file, &line])?;
        if rows.len() > 1 {
            let ids: Vec<&str> = rows.iter().map(|r| r.id.as_str()).collect();
            let why = format!("{} entries are meant, name one of them: {}", ids.len(), ids.join(", "));
            return Err(ConstError::BadQuery { query: query.into(), why });
        }
        match rows.pop() {
            Some(row) => row.entry(&self.path),
            None => Err(ConstError::NoEntry {
                table: self.path.clone(),
                query: query.into(),
                build_id: build_id.into(),
                suggestions: self.similar(build_id, query)?,
            }),
        }
    }

    /// Labels of a build's entries that look like `query`, nearest first.
    fn similar(&self, build_id: &str, query: &str) -> Result<Vec<String>, ConstError> {
        let rows = self.rows("build_id = ?1", &[&build_id])?;
        let wanted = query.to_ascii_uppercase();
        let mut near: Vec<(usize, String)> = rows
            .into_iter()
            .map(|row| row.name.unwrap_or(row.id))
            .map(|label| (strsim::damerau_levenshtein(&label.to_ascii_uppercase(), &wanted), label))
            .filter(|(distance, label)| {
                *distance <= 2 + query.len() / 4 || label.to_ascii_uppercase().contains(&wanted)
            })
            .collect();
        near.sort();
        near.dedup();
        Ok(near.into_iter().map(|(_, label)| label).take(MOST_SUGGESTIONS).collect())
    }

    fn rows(&self, condition: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Vec<Stored>, ConstError> {
        let failed = |e: rusqlite::Error| problem(&self.path, &e);
        let sql = format!(
            "SELECT build_id, id, name, file, line, value, class, entry, sha256 FROM entry WHERE {condition}
             ORDER BY coalesce(name, id), id, build_id"
        );
        let mut statement = self.connection.prepare(&sql).map_err(failed)?;
        let rows = statement.query_map(values, Stored::read).map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
    }
}

/// A row as it lies in the file, not yet believed.
struct Stored {
    build_id: String,
    id: String,
    name: Option<String>,
    file: String,
    line: u32,
    value: String,
    class: String,
    entry: String,
    sha256: String,
}

impl Stored {
    fn read(row: &Row) -> rusqlite::Result<Stored> {
        Ok(Stored {
            build_id: row.get(0)?,
            id: row.get(1)?,
            name: row.get(2)?,
            file: row.get(3)?,
            line: row.get(4)?,
            value: row.get(5)?,
            class: row.get(6)?,
            entry: row.get(7)?,
            sha256: row.get(8)?,
        })
    }

    /// The entry, if it is what was stored: a wrong number in it would become a wrong write.
    fn entry(self, path: &Path) -> Result<Entry, ConstError> {
        let damaged = |why: String| ConstError::Damaged {
            id: self.id.clone(),
            why: format!("its row in {} {why}", path.display()),
        };
        if digest(&self.entry) != self.sha256 {
            return Err(damaged("does not have the checksum that was stored with it".into()));
        }
        let entry: Entry = serde_json::from_str(&self.entry).map_err(|e| damaged(format!("does not parse: {e}")))?;
        let columns = [
            ("build_id", self.build_id == entry.image.build_id),
            ("id", self.id == entry.id),
            ("name", self.name == entry.name),
            ("file", self.file == entry.file),
            ("line", self.line == entry.line),
            ("value", self.value == entry.value.to_string()),
            ("class", self.class == entry.class.word()),
        ];
        match columns.iter().find(|(_, same)| !same) {
            Some((column, _)) => Err(damaged(format!("has another {column} than the entry in it"))),
            None => Ok(entry),
        }
    }
}

/// SHA-256 of a text, hexadecimal.
pub(crate) fn digest(text: &str) -> String {
    crate::entry::to_hex(&Sha256::digest(text.as_bytes()))
}

/// What an error of SQLite means for the table.
fn problem(path: &Path, error: &rusqlite::Error) -> ConstError {
    let why = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "it is not a scope table: move it away and build again".into(),
        Some(ErrorCode::DatabaseCorrupt) => "it is damaged: move it away and build again".into(),
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            format!("{error}: name a file that you may write with --table")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process is writing to it: try again".into()
        }
        Some(ErrorCode::DiskFull) => "the disk is full".into(),
        _ => format!("{error}: move it away and build again"),
    };
    ConstError::Table { path: path.into(), why }
}

fn migration(path: &Path, error: rusqlite_migration::Error) -> ConstError {
    match error {
        rusqlite_migration::Error::RusqliteError { err, .. } => problem(path, &err),
        other => ConstError::Table { path: path.into(), why: other.to_string() },
    }
}

#[cfg(test)]
mod tests;
