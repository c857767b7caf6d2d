//! `kerf const` without a virtual machine: what is refused, with which words and which exit code.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use kerf_const::Entry;
use kerf_const::form::Form;
use kerf_const::table::Table;
use serde_json::{Value, json};

const BUILD: &str = "764949bbe8b7a9241512fbf3b0d66d0ba34686a8";

/// An entry of a kernel that runs nowhere here: `and $-32, %eax; add $64, %eax`.
fn entry() -> Entry {
    let iv = |offset: u64, stock: i64, a: i64| json!({ "form": "affine", "a": a, "b": 0, "offset": offset, "slot": "immediate", "bits": 32, "stock": stock, "field": [2, 1] });
    let entry = json!({
        "id": "block/blk.h:L335:32:0", "name": "BLK_MAX_REQUEST_COUNT", "file": "block/blk.h", "line": 335,
        "value": 32, "kind": "macro", "class": "proved", "reason": "1 span; 9 compiled values agree", "text": "32",
        "image": { "build_id": BUILD, "release": "6.12.1-test", "text": 0xffff_ffff_8100_0000u64 },
        "domain": [{ "min": 2, "max": 63 }], "units": ["block/blk-mq.c"],
        "spans": [{
            "function": "blk_add_rq_to_plug", "function_offset": 0x65_0900, "start": 0x28, "end": 0x2e,
            "bytes": "83e0e083c040", "expression": "eax ← eax & −V; eax ← eax + 2V",
            "iv": [iv(0x28, -32, -1), iv(0x2b, 64, 2)],
            "updates": [{ "offset": 0x28, "kind": "capture" }, { "offset": 0x2b, "kind": "reverse" }],
            "proof": { "variants": 9, "held_out": 2, "smt": true, "native": 100 },
            "window": { "start": 0x28, "bytes": "83e0e083c040" },
        }],
        "safe_spans": [{
            "function": "blk_add_rq_to_plug", "function_offset": 0x65_0900, "entry": 0x65_0928,
            "ranges": [[0x65_092b, 0x65_0933]], "exits": [0x65_0933], "critical": [0], "repeated": false, "instructions": 3,
        }],
    });
    serde_json::from_value(entry).expect("this is an entry")
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place { dir: tempfile::tempdir().expect("a temporary directory") };
        let mut table = Table::create(&place.path("scope.db")).expect("a table");
        table.store(&[entry()]).expect("it takes an entry");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `kerf const WORDS --table …`
    fn kerf_const(&self, words: &[&str]) -> Output {
        let mut command = kerf();
        command.arg("const").args(words).arg("--table").arg(self.path("scope.db"));
        command.output().expect("kerf starts")
    }
}

fn kerf() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kerf"));
    command.stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Checks the exit code and that standard error has the words.
#[track_caller]
fn refused(output: &Output, code: i32, words: &str) {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "stdout:\n{out}\nstderr:\n{err}");
    assert!(err.contains("kerf: failed to ") && err.contains(words), "{err}");
}

#[track_caller]
fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "stderr:\n{}", text(&output.stderr));
    text(&output.stdout)
}

/// A tree that looks like a prepared kernel source, as far as finding goes.
fn tree(place: &Place) -> PathBuf {
    let tree = place.path("tree");
    for (file, content) in [
        ("Kbuild", ""),
        ("Makefile", "VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 1\n"),
        (".config", "CONFIG_BLOCK=y\n"),
        ("include/generated/autoconf.h", ""),
        ("block/a.c", "#define BLK_MAX_THINGS 32\n\nint f(int x) { return x * 7 + 7; }\n"),
    ] {
        let path = tree.join(file);
        fs::create_dir_all(path.parent().expect("a directory")).expect("it can be made");
        fs::write(path, content).expect("it can be written");
    }
    tree
}

fn find(place: &Place, query: &str) -> Output {
    let tree = tree(place);
    kerf().args(["const", "find", query, "--json", "--source"]).arg(tree).output().expect("kerf starts")
}

#[test]
fn sites_are_found_by_name_place_and_pattern() {
    let place = Place::new();
    for (query, texts) in [
        ("BLK_MAX_THINGS", &["32"][..]),
        ("BLK_*", &["32"]),
        ("block/a.c:L3:7:1", &["7"]),
        ("block/a.c:L3", &["7", "7"]),
    ] {
        let found: Vec<Value> = serde_json::from_str(&done(&find(&place, query))).expect("an array");
        let found: Vec<&str> = found.iter().filter_map(|site| site["text"].as_str()).collect();
        assert_eq!(found, texts, "{query}");
    }
}

#[test]
fn a_scan_lists_what_can_be_built() {
    let place = Place::new();
    let tree = tree(&place);
    let text = "#define REFILL_BATCH 32 /* at a time */\nint f(struct s *s) { s->budget = REFILL_BATCH; return 0; }\n";
    fs::write(tree.join("block/Makefile"), "obj-y := b.o\n").expect("it can be written");
    fs::write(tree.join("block/b.c"), text).expect("it can be written");
    let scan = |words: &[&str]| {
        let mut command = kerf();
        command.args(["const", "find", "--source"]).arg(&tree).args(words).output().expect("kerf starts")
    };
    let found: Value = serde_json::from_str(&done(&scan(&["--scan", "block", "--json"]))).expect("an object");
    let candidate = &found["candidates"][0];
    assert_eq!(found["history"], false);
    assert_eq!(candidate["site"], "block/b.c:L1:32:0");
    assert_eq!((&candidate["name"], &candidate["uses"]), (&json!("REFILL_BATCH"), &json!(1)));
    assert_eq!((&candidate["comment"], &candidate["changes"]), (&json!("at a time"), &Value::Null));
    assert_eq!(candidate["reasons"], json!([{ "kind": "batch", "because": "sets s->budget" }]));
    let table = done(&scan(&["--scan"]));
    assert!(table.contains("REFILL_BATCH = 32") && table.contains("no git work tree"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    let none: Value = serde_json::from_str(&done(&scan(&["--scan", "--json", "--limit", "0"]))).expect("an object");
    assert_eq!(none["candidates"], json!([]));
    refused(&scan(&["--scan", "block/missing.c"]), 10, "`block/missing.c` is not in");
    refused(&scan(&["--scan", "block/a.c"]), 10, "nothing in `block/a.c` is compiled");
    for words in [&["A", "B"][..], &["--limit", "3", "A"], &[]] {
        assert_eq!(scan(words).status.code(), Some(2), "{words:?}");
    }
}

#[test]
fn what_is_not_in_the_source_is_refused() {
    let place = Place::new();
    for (query, words) in [
        ("BLK_MAX_THING", "did you mean BLK_MAX_THINGS?"),
        ("NO_SUCH_*", "NO_SUCH_*"),
        ("block/a.c:L99:7", "there is no line 99"),
        ("block/a.c:L3:8", "its integers are"),
        ("block/b.c:L3:8", "is not in"),
        ("block/a.c:3:8", "written L335"),
        ("not a name", "letters, digits and underscores"),
    ] {
        refused(&find(&place, query), 10, words);
    }
}

#[test]
fn no_source_is_refused() {
    let place = Place::new();
    let output = kerf().args(["const", "find", "X", "--source"]).arg(place.dir.path()).output().expect("kerf starts");
    refused(&output, 15, "is not a prepared kernel source");
}

#[test]
fn an_entry_is_shown() {
    let place = Place::new();
    let shown = done(&place.kerf_const(&["show", "BLK_MAX_REQUEST_COUNT"]));
    for words in ["eax ← eax & −V; eax ← eax + 2V", "→ +0x028  83 e0 e0", "2V = 64", "V from 2 to 63", "domain   2..63"]
    {
        assert!(shown.contains(words), "{words} is not in\n{shown}");
    }
    assert!(!shown.contains('\x1b'), "no colour without a terminal");
    let object: Value =
        serde_json::from_str(&done(&place.kerf_const(&["show", "block/blk.h:L335", "--json"]))).expect("JSON");
    assert_eq!(object, serde_json::to_value(entry()).expect("an entry is JSON"));
}

#[test]
fn entries_are_listed_within_a_hundred_columns() {
    let place = Place::new();
    let listed = done(&place.kerf_const(&["list", "--all-builds"]));
    assert!(
        listed.contains("BLK_MAX_REQUEST_COUNT") && listed.lines().all(|line| line.chars().count() <= 100),
        "{listed}"
    );
    let rows: Vec<Value> =
        serde_json::from_str(&done(&place.kerf_const(&["list", "--all-builds", "--class", "proved", "--json"])))
            .expect("JSON");
    assert_eq!((rows.len(), &rows[0]["in_force"]), (1, &Value::Null));
    assert_eq!(done(&place.kerf_const(&["list", "--all-builds", "--class", "data", "--json"])).trim(), "[]");
}

#[test]
fn unknown_entries_are_refused_with_suggestions() {
    let place = Place::new();
    refused(&place.kerf_const(&["show", "BLK_MAX_REQUEST_CONT"]), 13, "did you mean BLK_MAX_REQUEST_COUNT?");
}

#[test]
fn damaged_tables_are_refused() {
    let place = Place::new();
    fs::write(place.path("scope.db"), "no database, but long enough to be taken for one".repeat(40))
        .expect("it can be written");
    refused(&place.kerf_const(&["show", "X"]), 14, "move it away and build again");
    fs::remove_file(place.path("scope.db")).expect("it can be removed");
    refused(&place.kerf_const(&["list"]), 14, "`kerf const build NAME` makes it");
}

#[test]
fn entries_travel() {
    let place = Place::new();
    let file = place.path("scope.json").display().to_string();
    assert!(done(&place.kerf_const(&["export", &file])).contains("wrote 1 entry of 6.12.1-test"));
    let import = |file: &str| {
        let mut command = kerf();
        command.args(["const", "import", file, "--json", "--table"]).arg(place.path("other.db"));
        command.output().expect("kerf starts")
    };
    let said: Value = serde_json::from_str(&done(&import(&file))).expect("JSON");
    assert_eq!(said["imported"][0], json!({ "build_id": BUILD, "release": "6.12.1-test", "entries": 1 }));
    assert_eq!(Table::open(&place.path("other.db")).and_then(|t| t.entries(None)).expect("a table"), [entry()]);
    let changed = fs::read_to_string(&file).expect("a file").replace("\"max\": 63", "\"max\": 64");
    fs::write(&file, changed).expect("it can be written");
    refused(&import(&file), 14, "checksum");
    fs::write(&file, "{}").expect("it can be written");
    refused(&import(&file), 14, "no export");
}

/// On the real kernel, where `kerf lab fetch --source` has put it into the cache.
#[test]
fn entries_are_verified() {
    let place = Place::new();
    let missing = place.kerf_const(&["verify", "BLK_MAX_REQUEST_CONT"]);
    refused(&missing, 13, "did you mean BLK_MAX_REQUEST_COUNT?");
    let built = place.kerf_const(&["build", "MAX_SOFTIRQ_RESTART"]);
    if built.status.code() == Some(15) {
        println!("skipped: no prepared kernel source in the cache; `kerf lab fetch --source` puts it there");
        return;
    }
    done(&built);
    let verify = || place.kerf_const(&["verify", "MAX_SOFTIRQ_RESTART", "--json"]);
    let rows: Value = serde_json::from_str(&done(&verify())).expect("JSON");
    assert_eq!((&rows[0]["name"], &rows[0]["verified"]), (&json!("MAX_SOFTIRQ_RESTART"), &json!(true)));
    let mut table = Table::create(&place.path("scope.db")).expect("a table");
    let mut entries = table.entries(None).expect("entries");
    let entry = entries.iter_mut().find(|e| e.name.as_deref() == Some("MAX_SOFTIRQ_RESTART")).expect("the entry");
    // It meets the deployed value, so only the compiler can tell.
    entry.spans[0].iv[0].form = Form::Affine { a: 2, b: -10 };
    table.store(&entries).expect("it takes them");
    let changed = verify();
    refused(&changed, 14, "the compiler makes other code");
    let rows: Value = serde_json::from_slice(&changed.stdout).expect("JSON");
    assert_eq!(rows[0]["verified"], json!(false));
    let mut foreign = self::entry();
    foreign.image.build_id = "5".repeat(40);
    (foreign.id, foreign.name) = ("block/blk.h:L1:32:0".into(), None);
    table.store(&[foreign]).expect("it takes an entry");
    refused(&place.kerf_const(&["verify", "block/blk.h:L1:32:0"]), 23, "name its own with --image");
}

#[test]
fn setting_needs_root() {
    if !rustix::process::geteuid().is_root() {
        refused(&Place::new().kerf_const(&["set", "BLK_MAX_REQUEST_COUNT", "4"]), 20, "run as root");
        return;
    }
    // The binary may lie where nobody else may look.
    let place = Place::new();
    let copy = Path::new("/tmp").join(format!("kerf-as-nobody-{}", std::process::id()));
    fs::copy(env!("CARGO_BIN_EXE_kerf"), &copy).expect("/tmp is writable");
    let output = Command::new(&copy)
        .args(["const", "set", "BLK_MAX_REQUEST_COUNT", "4", "--table"])
        .arg(place.path("scope.db"))
        .uid(65534)
        .gid(65534)
        .stdin(Stdio::null())
        .output();
    fs::remove_file(&copy).expect("it can be removed");
    refused(&output.expect("kerf starts"), 20, "run as root");
}

#[test]
fn an_entry_of_another_kernel_is_refused() {
    if rustix::process::geteuid().is_root() {
        refused(&Place::new().kerf_const(&["set", "BLK_MAX_REQUEST_COUNT", "4"]), 23, "made for another kernel");
    }
}

#[test]
fn malformed_words_are_refused() {
    let place = Place::new();
    for words in [&["set", "X", "many"][..], &["set", "X=1", "Y"], &["set", "X", "1T"], &["set", "X"]] {
        refused(&place.kerf_const(words), 10, "names no constant");
    }
    assert_eq!(place.kerf_const(&["unset"]).status.code(), Some(2));
    assert_eq!(place.kerf_const(&["list", "--class", "none"]).status.code(), Some(2));
}

#[test]
fn without_the_module_everything_is_stock() {
    if Path::new("/dev/kerf").exists() {
        return;
    }
    let status = kerf().arg("status").output().expect("kerf starts");
    assert_eq!(done(&status), "no module loaded: everything is stock\n");
    let status = kerf().args(["status", "--json"]).output().expect("kerf starts");
    let object: Value = serde_json::from_str(&done(&status)).expect("JSON");
    assert_eq!((&object["state"], &object["module"]), (&json!("stock"), &json!(false)));
    done(&Place::new().kerf_const(&["unset", "--all"]));
    refused(&Place::new().kerf_const(&["unset", "X"]), 21, "kerf: try: kerf module load");
}

#[test]
fn the_doctor_reports() {
    let output = kerf().args(["doctor", "--json"]).output().expect("kerf starts");
    let object: Value = serde_json::from_str(&text(&output.stdout)).expect("JSON");
    let code = if object["can_set"] == true { 0 } else { 31 };
    assert_eq!(output.status.code(), Some(code));
    let findings = object["findings"].as_array().expect("an array");
    assert!(findings.len() > 10);
    let silent = |f: &&Value| f["ok"] == false && f["remedy"].as_str().is_none_or(str::is_empty);
    assert_eq!(findings.iter().find(silent), None, "every lack has a remedy");
}
