//! `kerf const port` between two real kernels: the distribution's plain one and its cloud flavour.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use kerf_const::Entry;
use kerf_const::build::text_base;
use kerf_const::table::Table;
use kerf_image::Image;
use kerf_lab::{Cache, Kernel, Quiet};
use serde_json::Value;

#[expect(dead_code, reason = "other tests need more of it")]
mod common;

use common::{done, kerf, text};

/// One that holds on the other flavour, and one whose function is other code there.
const NAMES: [&str; 2] = ["MAX_SOFTIRQ_RESTART", "SHRINK_BATCH"];

fn cloud() -> Kernel {
    let cache = Cache::open_default().expect("a cache");
    let plain = common::kernel();
    let release = plain.release.replace("-amd64", "-cloud-amd64");
    let mut kernel = kerf_lab::named(&cache, &release, &mut Quiet).expect("the cloud flavour");
    kernel.source = Some(kerf_lab::source(&cache, &kernel, &mut Quiet).expect("its source"));
    kernel
}

fn port(table: &Path, to: &Path, words: &[&str]) -> Output {
    kerf()
        .args(["const", "port", "--json", "--to"])
        .arg(to)
        .args(words)
        .arg("--table")
        .arg(table)
        .output()
        .expect("kerf starts")
}

fn told(output: &Output, code: i32) -> Value {
    assert_eq!(output.status.code(), Some(code), "{}{}", text(&output.stdout), text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// The kernel of a boot image, with one byte of its text changed.
fn changed(kernel: &Kernel, dir: &Path, address: u64) -> PathBuf {
    let packed = fs::read(&kernel.vmlinuz).expect("an image");
    let mut elf = Image::unpack("vmlinuz", &packed).expect("a boot image");
    let image = Image::parse("vmlinux", elf.clone()).expect("an ELF file");
    let (section, holder) = image.section_at(address).expect("a section");
    let head = &image.section_bytes(section)[..4096];
    let at = elf.windows(head.len()).position(|window| window == head).expect("its content");
    elf[at + (address - holder.address) as usize] ^= 1;
    let path = dir.join(format!("vmlinux-{address:x}"));
    fs::write(&path, elf).expect("it can be written");
    path
}

fn entry(table: &Path, build: &str, name: &str) -> Entry {
    Table::open(table).expect("a table").find(build, name).expect("an entry")
}

fn build_id(kernel: &Kernel) -> String {
    Image::open(&kernel.vmlinuz).expect("an image").build_id().expect("a build id").to_string()
}

#[test]
fn entries_go_over_where_the_code_and_its_source_are_the_same() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (plain, cloud) = (common::kernel(), cloud());
    let table = common::table(dir.path(), &NAMES);
    let source = cloud.source.as_ref().expect("a source").to_str().expect("plain characters");

    let same = told(&port(&table, &plain.vmlinuz, &["--all"]), 0);
    assert_eq!(same["entries"], Value::Array(Vec::new()), "the same build: nothing to do");

    let first = entry(&table, &build_id(&plain), NAMES[0]);
    let all = told(&port(&table, &cloud.vmlinuz, &["--all", "--source", source]), 35);
    assert_eq!(all["carried"], 1, "{all}");
    let rows = all["entries"].as_array().expect("rows");
    let row = |name: &str| rows.iter().find(|row| row["name"] == name).expect("a row");
    assert_eq!(row(NAMES[0])["carried"], true);
    let command = row(NAMES[1])["command"].as_str().expect("a command");
    assert!(command.contains(NAMES[1]) && command.contains(source), "{command}");

    let carried = entry(&table, &build_id(&cloud), NAMES[0]);
    assert_eq!((&carried.domain, carried.value), (&first.domain, first.value));
    assert_ne!(carried.spans[0].function_offset, first.spans[0].function_offset, "it lies elsewhere");
    assert!(carried.reason.contains(&plain.release), "{}", carried.reason);

    // With another byte in the function it is another function.
    let image = Image::open(&cloud.vmlinuz).expect("an image");
    let span = &carried.spans[0];
    let start = text_base(&image) + span.function_offset;
    let broken = changed(&cloud, dir.path(), start + span.end);
    let none = told(&port(&table, &broken, &[NAMES[0], "--source", source, "--build-id", &build_id(&plain)]), 35);
    assert!(none["entries"][0]["why"].as_str().is_some_and(|why| why.contains("differs")), "{none}");

    // What was carried over travels like any other; an image that has other bytes refuses it.
    let (file, other) = (dir.path().join("cloud.json"), dir.path().join("other.db"));
    done(
        &kerf()
            .args(["const", "export", "--build-id", &build_id(&cloud), "--table"])
            .arg(&table)
            .arg(&file)
            .output()
            .expect("kerf starts"),
    );
    let import = |image: &Path| {
        kerf()
            .args(["const", "import", "--table"])
            .arg(&other)
            .arg("--image")
            .arg(image)
            .arg(&file)
            .output()
            .expect("kerf starts")
    };
    let inside = changed(&cloud, dir.path(), start + span.start);
    for (image, code, words) in [(&inside, 14, "other bytes"), (&plain.vmlinuz, 23, "build"), (&cloud.vmlinuz, 0, "")] {
        let output = import(image);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
    }
}

#[test]
fn without_a_source_it_is_said_what_was_assumed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (table, cloud) = (common::table(dir.path(), &NAMES[..1]), cloud());
    let none = told(&port(&table, &cloud.vmlinuz, &[NAMES[0]]), 35);
    assert!(none["entries"][0]["why"].as_str().is_some_and(|why| why.contains("not at hand")), "{none}");
    let assumed = told(&port(&table, &cloud.vmlinuz, &[NAMES[0], "--assume-source"]), 0);
    assert_eq!(assumed["carried"], 1, "{assumed}");
    assert!(entry(&table, &build_id(&cloud), NAMES[0]).reason.contains("assumed"));
}
