//! The README's tour, line by line as it stands there: entries made on this host, the rest on a Debian system.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::common::{done, module};
use super::{boot, package, root};

/// The blocks of code in a chapter of the README.
fn chapter(heading: &str) -> Vec<String> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md")).expect("the README");
    let (_, after) = readme.split_once(&format!("\n## {heading}\n")).expect("the chapter");
    let chapter = after.split("\n## ").next().unwrap_or_default();
    chapter.split("```\n").skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_readme_can_be_typed() {
    let blocks = chapter("Use it");
    let (here, there) = blocks.split_first().expect("blocks of code");
    assert!(there.len() > 3, "{there:?}");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| dir.path().join(name);

    let program = Path::new(env!("CARGO_BIN_EXE_kerf")).parent().expect("a directory").display();
    let mut shell = Command::new("sh");
    shell.args(["-exc", here]).current_dir(dir.path()).env("KERF_TABLE", path("scope.db"));
    let paths = format!("{program}:{}", std::env::var("PATH").expect("a PATH"));
    let said = done(&shell.env("PATH", paths).output().expect("sh starts"));
    assert!(said.contains("blk_add_rq_to_plug"), "{said}");

    let release = super::common::kernel().release;
    let (image, module) = (path("debian.ext4"), module(dir.path()));
    root(&image, &[package()], &[(&module, &format!("/lib/modules/{release}/extra/kerf.ko"))]);
    let (entries, policy) = (path("entries.json"), path("plug.o"));
    let script = ["set -ex\n", &there.concat(), "ls /sys/module/kerf && exit 1\necho the tour is over\n"].concat();
    let said = boot(&image, &[], &[(&entries, "/root/entries.json"), (&policy, "/root/plug.o")], &script);
    for words in [
        "BLK_MAX_REQUEST_COUNT: 32 → 4 (immediate",
        "HYSTART_DELAY_MAX",
        "SHRINK_BATCH",
        "plug",
        "random reads of the database",
        "everything is stock",
        "the tour is over",
    ] {
        assert!(said.contains(words), "no `{words}` in:\n{said}");
    }
}
