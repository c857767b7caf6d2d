//! A machine's life: the package installed, a boot that applies the drop-ins, a kernel of another build, and the package removed.

use std::fs;
use std::path::Path;

use super::common::{PRELUDE, Words, blocks, check, kernel, module, script, table};
use super::{boot, package, root, xtask};

/// What the operator wants.
const DROP_IN: &str = "\
[const.BLK_MAX_REQUEST_COUNT]
value = 8
reason = \"reads wait less\"
";

/// Holds the unit's program up until somebody says so: a boot that waited for it would not end.
const HELD_UP: &str = "\
[Service]
ExecStart=
ExecStart=/bin/sh -c 'until [ -e /run/go ]; do sleep 0.2; done; exec /usr/bin/kerf apply'
";

/// `state` says how the system is, `left` what there is of Kerf on it: files of its name, and units.
const WORDS: &str = "\
state() { systemctl is-system-running --wait; true; }
left() { find / -xdev -iname '*kerf*' ! -path '*/extra/kerf.ko'; systemctl list-unit-files | grep kerf; true; }
";

/// Waits until the unit's program has ended.
const APPLIED: &str = "while [ \"$(systemctl show -p SubState --value kerf)\" = running ]; do sleep 0.2; done\n";

const FIRST_BOOT: Words = &[
    ("systemctl is-active multi-user.target", 0, "active"),
    ("systemctl show -p SubState kerf", 0, "SubState=running"),
    ("test -e /sys/module/kerf", 1, ""),
    ("systemctl show -p After kerf", 0, "systemd-sysctl.service"),
];

const APPLIED_AT_BOOT: Words = &[
    ("systemctl is-system-running", 0, "running"),
    ("kerf verify", 0, ""),
    ("kerf status", 0, " 8 "),
    ("journalctl --unit kerf --output cat", 0, "BLK_MAX_REQUEST_COUNT: 32 → 8"),
    ("kerf log", 0, "/etc/kerf.d/50-life.toml: reads wait less"),
    ("kerf off", 0, "everything is stock"),
    ("kerf verify", 32, "BLK_MAX_REQUEST_COUNT"),
    ("test -e /sys/module/kerf", 1, ""),
    ("rm -r /etc/systemd/system/kerf.service.d", 0, ""),
];

const OTHER_KERNEL: Words = &[
    ("state", 0, "degraded"),
    ("systemctl --failed --no-legend --plain", 0, "kerf.service"),
    ("journalctl --unit kerf --output cat", 0, "build it for this one"),
    ("test -e /sys/module/kerf", 1, ""),
    ("kerf verify", 32, "BLK_MAX_REQUEST_COUNT"),
    ("kerf module load", 0, "extra/kerf.ko"),
    ("kerf const set BLK_MAX_REQUEST_COUNT 8", 23, "the table's entry of BLK_MAX_REQUEST_COUNT is of"),
    ("kerf apply", 23, "build it for this one"),
    ("kerf status", 0, "nothing is set"),
    ("kerf off", 0, "everything is stock"),
];

const REMOVED: Words = &[
    ("systemctl is-active kerf", 3, "inactive"),
    ("test -e /sys/module/kerf", 1, ""),
    ("/xtask guest-text save /root/text", 0, ""),
    ("kerf apply", 0, "32 → 8"),
    ("kerf verify", 0, ""),
    ("rm /etc/kerf.d/50-life.toml", 0, ""),
    ("dpkg --purge kerf", 0, ""),
    ("test -e /sys/module/kerf", 1, ""),
    ("/xtask guest-text compare /root/text", 0, "as before"),
    ("left", 0, ""),
    ("systemctl is-system-running", 0, "running"),
];

#[test]
fn a_machine_is_tuned_at_boot_and_left_without_a_trace() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| dir.path().join(name);
    let plain = kernel().release;
    let cloud = plain.replace("-amd64", "-cloud-amd64");
    fs::write(path("50-life.toml"), DROP_IN).expect("it can be written");
    fs::write(path("held-up.conf"), HELD_UP).expect("it can be written");
    let table = table(dir.path(), &["BLK_MAX_REQUEST_COUNT"]);
    let modules = [module(dir.path()), module_of(&cloud, &path("cloud"))];
    let image = path("debian.ext4");
    let extra = [&plain, &cloud].map(|release| format!("/lib/modules/{release}/extra/kerf.ko"));
    root(
        &image,
        &[package()],
        &[
            (&path("50-life.toml"), "/etc/kerf.d/50-life.toml"),
            (&path("held-up.conf"), "/etc/systemd/system/kerf.service.d/held-up.conf"),
            (&table, "/var/lib/kerf/scope.db"),
            (&modules[0], &extra[0]),
            (&modules[1], &extra[1]),
        ],
    );

    let first = [PRELUDE, &script(FIRST_BOOT), "touch /run/go\n", APPLIED, &script(APPLIED_AT_BOOT)].concat();
    check(&[FIRST_BOOT, APPLIED_AT_BOOT].concat(), &boot(&image, &[], &[], &first));

    let other = boot(&image, &["--kernel", &cloud], &[], &[PRELUDE, WORDS, APPLIED, &script(OTHER_KERNEL)].concat());
    check(OTHER_KERNEL, &other);
    assert_eq!(blocks(&other)[1].1.lines().count(), 1, "only this unit failed: {other}");

    let removed =
        boot(&image, &["--append", "kerf.off"], &[(&xtask(), "/xtask")], &[PRELUDE, WORDS, &script(REMOVED)].concat());
    check(REMOVED, &removed);
    let left = blocks(&removed).into_iter().find(|(command, ..)| command == "left").expect("a block").1;
    // The lab's own: the unit that runs this script, and what it was brought along in.
    let others: Vec<&str> =
        left.lines().filter(|line| !line.contains("kerf-lab") && !line.ends_with("/script")).collect();
    assert_eq!(others, [""; 0], "nothing is left");
}

/// kerf.ko for another kernel of the archive.
fn module_of(release: &str, dir: &Path) -> std::path::PathBuf {
    fs::create_dir(dir).expect("a directory");
    let cache = kerf_lab::Cache::open_default().expect("a cache");
    let kernel = kerf_lab::named(&cache, release, &mut kerf_lab::Quiet).expect("the kernel");
    let module = dir.join("kerf.ko");
    kerf_lab::module::build(&kernel, &super::common::source(), &module).expect("kerf.ko builds");
    module
}
