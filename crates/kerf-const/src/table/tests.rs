//! What is stored comes back, and what was damaged does not.

use super::*;
use crate::apply::tests::{BUILD, plug_limit};

fn table() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sub/scope.db");
    let mut table = Table::create(&path).unwrap();
    let mut other = plug_limit();
    (other.id, other.name, other.line) = ("block/other.c:L7:32:0".into(), Some("BLK_OTHER".into()), 7);
    table.store(&[plug_limit(), other]).unwrap();
    (dir, path)
}

fn change(path: &Path, sql: &str) {
    assert_eq!(Connection::open(path).unwrap().execute(sql, []).unwrap(), 1, "{sql}");
}

#[test]
fn entries_come_back_as_they_were() {
    let (_dir, path) = table();
    let table = Table::open(&path).unwrap();
    for query in ["BLK_MAX_REQUEST_COUNT", plug_limit().id.as_str(), "block/blk_max_request_count.c:L1"] {
        assert_eq!(table.find(BUILD, query).unwrap(), plug_limit(), "{query}");
    }
    assert_eq!(table.entries(None).unwrap().len(), 2);
    assert_eq!(table.entries(Some("00")).unwrap().len(), 0);
    assert_eq!(table.builds().unwrap(), [(BUILD.to_string(), "6.12.1-test".to_string())]);
}

#[test]
fn an_entry_is_replaced_and_another_build_kept() {
    let (_dir, path) = table();
    let mut table = Table::create(&path).unwrap();
    let (mut same, mut foreign) = (plug_limit(), plug_limit());
    same.reason = "built again".into();
    foreign.image.build_id = "aa11".into();
    table.store(&[same.clone(), foreign.clone()]).unwrap();
    assert_eq!(table.find(BUILD, "BLK_MAX_REQUEST_COUNT").unwrap(), same);
    assert_eq!(table.find("aa11", "BLK_MAX_REQUEST_COUNT").unwrap(), foreign);
    assert_eq!(table.entries(None).unwrap().len(), 3);
}

#[test]
fn storing_is_all_or_nothing() {
    let (_dir, path) = table();
    let mut table = Table::create(&path).unwrap();
    let (mut fine, mut nameless) = (plug_limit(), plug_limit());
    (fine.id, nameless.image.build_id) = ("a:L1:1:0".into(), String::new());
    assert!(table.store(&[fine, nameless]).is_err());
    assert_eq!(table.entries(None).unwrap().len(), 2);
}

#[test]
fn unknown_names_get_suggestions() {
    let (_dir, path) = table();
    let error = Table::open(&path).unwrap().find(BUILD, "BLK_MAX_REQEST_COUNT").unwrap_err();
    assert!(error.to_string().ends_with("; did you mean BLK_MAX_REQUEST_COUNT?"), "{error}");
    let error = Table::open(&path).unwrap().find("aa", "BLK_OTHER").unwrap_err();
    assert!(matches!(&error, ConstError::NoEntry { suggestions, .. } if suggestions.is_empty()), "{error}");
}

#[test]
fn a_name_of_several_entries_is_refused() {
    let (_dir, path) = table();
    change(&path, "UPDATE entry SET name = 'BLK_OTHER' WHERE name LIKE 'BLK_MAX%'");
    let error = Table::open(&path).unwrap().find(BUILD, "BLK_OTHER").unwrap_err();
    assert!(error.to_string().contains("2 entries are meant"), "{error}");
}

#[test]
fn a_damaged_row_is_named() {
    for (sql, why) in [
        ("UPDATE entry SET entry = replace(entry, '\"a\":2', '\"a\":3') WHERE line = 1", "checksum"),
        ("UPDATE entry SET value = '33' WHERE line = 1", "another value"),
        ("UPDATE entry SET class = 'data' WHERE line = 1", "another class"),
        ("UPDATE entry SET sha256 = '' WHERE line = 1", "checksum"),
    ] {
        let (_dir, path) = table();
        change(&path, sql);
        let table = Table::open(&path).unwrap();
        let error = table.find(BUILD, "BLK_MAX_REQUEST_COUNT").unwrap_err();
        assert!(matches!(&error, ConstError::Damaged { id, .. } if *id == plug_limit().id), "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert!(table.find(BUILD, "BLK_OTHER").is_ok(), "the other row is whole");
    }
}

#[track_caller]
fn refused(path: &Path, why: &str) {
    for error in [Table::open(path).unwrap_err(), Table::create(path).unwrap_err()] {
        assert!(matches!(error, ConstError::Table { .. }) && error.to_string().contains(why), "{error}");
    }
}

#[test]
fn other_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    assert!(Table::open(&path).unwrap_err().to_string().contains("`kerf const build NAME` makes it"));
    std::fs::write(&path, "this is not a database, but it is long enough to look like one".repeat(20)).unwrap();
    refused(&path, "move it away and build again");
    std::fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    refused(&path, "database of another program");
}

#[test]
fn a_newer_format_is_refused() {
    let (_dir, path) = table();
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    refused(&path, "format 99");
}

#[test]
fn a_torn_file_is_refused() {
    let (_dir, path) = table();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 4;
    bytes[middle..].fill(0x5a);
    std::fs::write(&path, &bytes).unwrap();
    let result = Table::open(&path).and_then(|t| t.entries(None));
    assert!(matches!(result, Err(ConstError::Table { .. } | ConstError::Damaged { .. })), "{result:?}");
}

#[test]
fn attempts_come_back_with_their_entries() {
    let (_dir, path) = table();
    let mut table = Table::create(&path).unwrap();
    let attempt = |query: &str, failure: Option<&str>, ids: &[&str]| Attempt {
        build_id: BUILD.into(),
        query: query.into(),
        failure: failure.map(Into::into),
        ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        seconds: 1.5,
    };
    let (failed, built) = (attempt("A", Some("no such name"), &[]), attempt("B", None, &["b.c:L1:2:0", "b.c:L3:2:0"]));
    table.store_attempt(&[], Some(&built)).unwrap();
    table.store_attempt(&[], Some(&failed)).unwrap();
    assert_eq!(table.attempts(BUILD).unwrap(), [failed, built]);
    assert!(table.attempts("00").unwrap().is_empty());
}

#[test]
fn a_table_of_the_first_format_can_be_read_as_it_is() {
    let (_dir, path) = table();
    Connection::open(&path).unwrap().execute_batch("DROP TABLE attempt; PRAGMA user_version = 1").unwrap();
    let old = Table::open(&path).unwrap();
    assert_eq!((old.entries(None).unwrap().len(), old.attempts(BUILD).unwrap()), (2, vec![]));
    assert_eq!(Table::create(&path).unwrap().attempts(BUILD).unwrap(), []);
}
