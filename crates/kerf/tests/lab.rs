//! `kerf lab` with the distribution's own kernel: what a run reports, and which faults end it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn kerf(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kerf"));
    command.args(args).stdin(Stdio::null()).output().expect("kerf starts")
}

/// `kerf lab run OPTIONS -- sh -c SCRIPT`
fn run(options: &[&str], script: &str) -> Output {
    kerf(&[&["lab", "run"], options, &["--", "sh", "-c", script]].concat())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Checks the exit code and shows everything when it differs.
#[track_caller]
fn expect_code(output: &Output, code: i32) {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "stdout:\n{out}\nstderr:\n{err}");
}

fn write(directory: &Path, name: &str, content: &str) {
    fs::write(directory.join(name), content).expect("the temporary directory is writable");
}

#[test]
fn output_and_exit_code_come_back() {
    let output = run(&["--quiet"], r"printf 'a\000\377\r\nb'; printf 'on err' >&2; exit 7");
    expect_code(&output, 7);
    assert_eq!(output.stdout, b"a\0\xff\r\nb");
    assert_eq!(output.stderr, b"on err");
}

#[test]
fn a_large_output_arrives_whole() {
    let output = run(&["--quiet"], "seq 1 200000; (sleep 1000 &) ; echo end >&2");
    expect_code(&output, 0);
    let expected: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert!(text(&output.stdout) == expected, "{} bytes instead of {}", output.stdout.len(), expected.len());
    assert_eq!(output.stderr, b"end\n");
}

#[test]
fn endings_other_than_exit_have_codes() {
    let output = run(&[], "kill -TERM $$");
    expect_code(&output, 128 + 15);
    let output = kerf(&["lab", "run", "--", "no-such-command"]);
    expect_code(&output, 127);
    assert!(text(&output.stderr).contains("cannot run `no-such-command` in the guest"));
}

#[test]
fn json_has_everything() {
    let output = kerf(&["lab", "run", "--json", "--", "sh", "-c", "echo hello; uname -r >&2; exit 3"]);
    expect_code(&output, 3);
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(object["stdout"], "hello\n");
    assert_eq!(object["exit_code"], 3);
    assert_eq!(object["stderr"], format!("{}\n", object["release"].as_str().unwrap_or_default()));
    assert!(["kvm", "tcg"].contains(&object["accelerator"].as_str().unwrap_or_default()));
    assert!(object["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
}

#[test]
fn a_panic_ends_the_run() {
    // More than a pipe and the lab's buffer hold, so that the first lines have left the guest when the kernel stops.
    let output = run(&[], "echo before; head -c 300000 /dev/zero; echo c > /proc/sysrq-trigger; sleep 100");
    expect_code(&output, 70);
    let stderr = text(&output.stderr);
    assert!(stderr.contains("kerf: failed to run `sh -c"), "{stderr}");
    assert!(stderr.contains("sysrq triggered crash"), "{stderr}");
    assert!(output.stdout.starts_with(b"before\n"), "{} bytes", output.stdout.len());
}

#[test]
fn a_lockup_line_ends_the_run() {
    let output = run(&[], "echo 'watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [sh:1]' > /dev/kmsg; sleep 100");
    expect_code(&output, 70);
    assert!(text(&output.stderr).contains("reported a lockup"));
}

const WARNING_MODULE: &str = r#"
#include <linux/module.h>
static int __init warn_init(void)
{
	WARN(1, "a warning on purpose\n");
	return 0;
}
static void __exit warn_exit(void) { }
module_init(warn_init);
module_exit(warn_exit);
MODULE_DESCRIPTION("warns when it is loaded");
MODULE_LICENSE("GPL");
"#;

#[test]
fn a_warning_ends_the_run_unless_allowed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    write(directory.path(), "warner.c", WARNING_MODULE);
    write(directory.path(), "Kbuild", "obj-m := warner.o\n");
    let source = directory.path().to_string_lossy().into_owned();
    let module = format!("{source}/warner.ko");
    expect_code(&kerf(&["lab", "module", &source, "-o", &module]), 0);

    let output = run(&["--module", &module], "true");
    expect_code(&output, 71);
    assert!(text(&output.stderr).contains("a warning on purpose"));

    let output = run(&["--module", &module, "--allow-warn"], "grep -o '^warner' /proc/modules; exit 4");
    expect_code(&output, 4);
    assert_eq!(output.stdout, b"warner\n");
}

#[test]
fn a_compiler_warning_is_an_error() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let unused = WARNING_MODULE.replace("return 0;", "int never_used;\n\treturn 0;");
    write(directory.path(), "warner.c", &unused);
    write(directory.path(), "Kbuild", "obj-m := warner.o\n");
    let source = directory.path().to_string_lossy().into_owned();
    let output = kerf(&["lab", "module", &source, "-o", &source]);
    expect_code(&output, 64);
    assert!(text(&output.stderr).contains("never_used"));
    assert!(!directory.path().join("warner.ko").exists());
}

#[test]
fn the_machine_is_as_described() {
    let script = "ls -d /sys/devices/system/node/node* | wc -l; nproc; cat /proc/cmdline; awk '/MemTotal/ {print $2}' /proc/meminfo; cat /sys/block/vda/size";
    let options =
        ["--quiet", "--cpus", "4", "--numa", "2", "--memory", "768", "--append", "nokaslr kerf.x=1", "--disk", "8"];
    let output = run(&options, script);
    expect_code(&output, 0);
    let stdout = text(&output.stdout);
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines[..2], ["2", "4"], "{stdout}");
    assert!(lines[2].ends_with("nokaslr kerf.x=1"), "{stdout}");
    let memory: u64 = lines[3].parse().expect("a number of KiB");
    assert!((500 << 10..768 << 10).contains(&memory), "{stdout}");
    assert_eq!(lines[4], (8 << 20 >> 9).to_string(), "{stdout}");
}

#[test]
fn modules_and_files_are_there() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    write(directory.path(), "note", "carried along\n");
    let host = directory.path().join("note").to_string_lossy().into_owned();
    let moved = format!("{host}:/etc/note");
    let script = format!("cat '{host}' /etc/note; ls /dev/nullb*; cat /sys/module/null_blk/parameters/queue_mode");
    let options = ["-q", "--file", &host, "--file", &moved, "--module", "null_blk nr_devices=2 queue_mode=0"];
    let output = run(&options, &script);
    expect_code(&output, 0);
    assert_eq!(text(&output.stdout), "carried along\ncarried along\n/dev/nullb0\n/dev/nullb1\n0\n");
}

#[test]
fn a_module_that_does_not_load_is_named() {
    let output = run(&["--module", "null_blk nr_devices=-5"], "true");
    expect_code(&output, 68);
    assert!(text(&output.stderr).contains("cannot load module /lib/modules/lab/null_blk.ko"));
    let output = run(&["--module", "nul_blk"], "true");
    expect_code(&output, 64);
    assert!(text(&output.stderr).contains("no module `nul_blk`"));
}

#[test]
fn time_runs_out() {
    let output = run(&["--timeout", "30"], "echo started; sleep 1000");
    expect_code(&output, 73);
    assert_eq!(output.stdout, b"started\n");
    assert!(text(&output.stderr).contains("the command was still running"));
}

#[test]
fn a_machine_that_reboots_has_no_result() {
    let output = run(&[], "reboot -f; sleep 100");
    expect_code(&output, 74);
}

#[test]
fn what_is_no_kernel_is_refused() {
    let output = kerf(&["lab", "run", "--kernel", "/etc/hostname", "--", "true"]);
    expect_code(&output, 64);
    assert!(text(&output.stderr).contains("is not a kernel that can be booted"));
    let output = kerf(&["lab", "run", "--kernel", "5.0-none", "--", "true"]);
    expect_code(&output, 66);
    assert!(text(&output.stderr).contains("no kernel `5.0-none`"));
}

#[test]
fn wrong_usage_has_its_code() {
    expect_code(&kerf(&["lab", "run"]), 2);
    expect_code(&kerf(&["lab", "run", "--cpus", "many", "--", "true"]), 2);
    expect_code(&kerf(&["lab", "run", "--numa", "9", "--memory", "100", "--", "true"]), 64);
    let output = kerf(&["lab-init"]);
    expect_code(&output, 1);
    assert!(text(&output.stderr).contains("runs nowhere else"));
}

#[test]
fn a_silent_boot_is_an_error() {
    use kerf_lab::{Accelerator, Cache, LabError, Machine, Quiet};
    let cache = Cache::open_default().expect("a cache");
    let kernel = kerf_lab::kernel(&cache, &mut Quiet).expect("a kernel");
    let mut machine = Machine::new(&cache, kernel, env!("CARGO_BIN_EXE_kerf"));
    machine.accelerator = Some(Accelerator::Tcg);
    machine.silence = std::time::Duration::from_secs(2);
    // QEMU starts with its CPUs stopped.
    machine.qemu_args.push("-S".into());
    let error = machine.run(&["true".into()]).expect_err("nothing runs");
    assert!(matches!(error, LabError::SilentBoot { seconds: 2, .. }), "{error}");
}
