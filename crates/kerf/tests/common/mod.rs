//! What the tests of `kerf` on a kernel in a virtual machine share: what the guests take along, scripts that run there, and what
//! these say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::UNIX_EPOCH;

use kerf_lab::{Cache, Kernel, Quiet};

pub fn kerf() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kerf"));
    command.stdin(Stdio::null());
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
pub fn done(output: &Output) -> String {
    assert!(output.status.success(), "stdout:\n{}\nstderr:\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// A scope table with entries for these constants. What this `kerf` has built for another test is taken from there.
pub fn table(dir: &Path, names: &[&str]) -> PathBuf {
    let table = dir.join("scope.db");
    let program = fs::metadata(env!("CARGO_BIN_EXE_kerf")).expect("kerf");
    let built = program.modified().expect("a time").duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("entries-{built}"));
    fs::create_dir_all(&shared).expect("a directory");
    let lock = fs::File::create(shared.join("lock")).expect("a file");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("a lock");
    for name in names {
        // A literal is named by its file.
        let file = name.replace('/', "+");
        let entry = shared.join(format!("{file}.json"));
        if !entry.is_file() {
            let own = dir.join(format!("{file}.db"));
            done(&kerf().args(["const", "build", name, "--table"]).arg(&own).output().expect("kerf starts"));
            let made = shared.join("half");
            done(&kerf().args(["const", "export"]).arg(&made).arg("--table").arg(&own).output().expect("kerf starts"));
            fs::rename(made, &entry).expect("it can be renamed");
        }
        done(&kerf().args(["const", "import"]).arg(&entry).arg("--table").arg(&table).output().expect("kerf starts"));
    }
    table
}

pub fn kernel() -> Kernel {
    kerf_lab::kernel(&Cache::open_default().expect("a cache"), &mut Quiet).expect("a kernel")
}

/// The source of kerf.ko.
pub fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernel")
}

/// kerf.ko for the lab's kernel.
pub fn module(dir: &Path) -> PathBuf {
    let module = dir.join("kerf.ko");
    kerf_lab::module::build(&kernel(), &source(), &module).expect("kerf.ko builds");
    module
}

/// A module of one file for the lab's kernel.
pub fn small_module(dir: &Path, name: &str, code: &str) -> PathBuf {
    let source = dir.join(name);
    fs::create_dir(&source).expect("a directory");
    fs::write(source.join(format!("{name}.c")), code).expect("it can be written");
    fs::write(source.join("Kbuild"), format!("obj-m := {name}.o\n")).expect("it can be written");
    let module = dir.join(format!("{name}.ko"));
    kerf_lab::module::build(&kernel(), &source, &module).expect("the module builds");
    module
}

/// Runs a script in a guest that is described by more options of `kerf lab run`, and gives its output. Files go to these places.
pub fn run(options: &[&str], files: &[(&Path, &str)], script: &str) -> String {
    said(&try_run(options, files, script))
}

/// What a script has said, by what `kerf lab run --json` tells of it.
#[track_caller]
pub fn said(output: &Output) -> String {
    let told: serde_json::Value = serde_json::from_str(&done(output)).expect("one JSON object");
    told["stdout"].as_str().expect("text").to_owned()
}

/// As [`run`], but gives what `kerf lab run` has said and how it ended.
pub fn try_run(options: &[&str], files: &[(&Path, &str)], script: &str) -> Output {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("script");
    fs::write(&file, script).expect("it can be written");
    // Collected, not passed on, a run that met a breakpoint of the emulator's own is made again.
    let mut command = kerf();
    command.args(["lab", "run", "--json", "--append", "preempt=full"]).args(options);
    for (host, guest) in files.iter().chain(&[(file.as_path(), "/script")]) {
        command.arg("--file").arg(format!("{}:{guest}", host.display()));
    }
    command.args(["--", "sh", "/script"]).output().expect("kerf starts")
}

/// `t COMMAND…` runs a command so that [`blocks`] can tell what it said and how it ended.
pub const PRELUDE: &str = "t() { echo \"## $*\"; \"$@\" 2>&1; echo \"code $?\"; }\n";

/// A script's output in blocks, each headed `## COMMAND` and ended by the exit code.
pub fn blocks(text: &str) -> Vec<(String, String, i32)> {
    let mut blocks = Vec::new();
    for block in text.split("## ").skip(1) {
        let (command, rest) = block.split_once('\n').expect("a command's line");
        let (said, code) = rest.rsplit_once("code ").expect("an exit code");
        // What the script says between two commands is none of theirs.
        let code = code.lines().next().unwrap_or_default();
        blocks.push((command.to_owned(), said.to_owned(), code.trim().parse().expect("a number")));
    }
    blocks
}

/// Commands, their exit codes, and words of what they say.
pub type Words<'a> = &'a [(&'a str, i32, &'a str)];

/// The commands of a list as a script.
pub fn script(words: Words) -> String {
    words.iter().map(|(command, ..)| format!("t {command}\n")).collect()
}

/// Compares what the commands of a list have said.
#[track_caller]
pub fn check(words: Words, output: &str) {
    let said = blocks(output);
    assert_eq!(said.len(), words.len(), "{output}");
    for ((command, code, words), (ran, text, ended)) in words.iter().zip(&said) {
        assert_eq!(command, ran);
        assert!(
            ended == code && text.contains(words),
            "{command}: code {ended} instead of {code}, or without `{words}`:\n{text}"
        );
    }
}
