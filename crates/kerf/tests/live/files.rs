//! An operator's files: applied, compared, kept to, written down, and taken back.

use crate::common::{PRELUDE, Words, script};

const FILES: &str = r#"
mkdir -p /etc/kerf.d /usr/lib/kerf.d
cat > /etc/kerf.d/50-db.toml <<'END'
[const.BLK_MAX_REQUEST_COUNT]
value = 8
min = 4
max = 64
step = 24
reason = "random reads"
[const]
MAX_SOFTIRQ_RESTART = 20
END
cat > /usr/lib/kerf.d/50-db.toml <<'END'
[const]
MAX_SOFTIRQ_RESTART = 99
END
cat > /usr/lib/kerf.d/60-all.toml <<'END'
[const]
MAX_SOFTIRQ_RESTART = 30
SHRINK_BATCH = { value = 64, when = 'comm == "cat"', colour = 1 }
NO_SUCH_CONSTANT = 1
END
"#;

/// Commands, their exit codes, and words of what they say.
const WORDS: Words = &[
    ("kerf verify", 32, "BLK_MAX_REQUEST_COUNT"),
    ("kerf apply --dry-run", 0, "would be tried once the kernel module is loaded"),
    ("kerf off", 0, "no module loaded: everything is stock"),
    ("insmod /kerf.ko", 0, ""),
    ("kerf apply --dry-run", 13, "BLK_MAX_REQUEST_COUNT: 32 → 8 (immediate, 3 locations) (dry run"),
    ("kerf status", 0, "nothing is set"),
    (
        "kerf apply",
        13,
        "/usr/lib/kerf.d/60-all.toml:2: MAX_SOFTIRQ_RESTART does not count: /etc/kerf.d/50-db.toml:8 came first",
    ),
    ("kerf verify", 32, "NO_SUCH_CONSTANT"),
    ("sed -i /NO_SUCH/d /usr/lib/kerf.d/60-all.toml", 0, ""),
    ("kerf verify", 0, "`colour` means nothing here"),
    ("kerf status", 0, "/etc/kerf.d/50-db.toml: random reads"),
    ("kerf status", 0, "permitted are the values 4 to 64, one change goes no further than 24"),
    ("kerf apply", 0, "8 → 8 (immediate, 3 locations, as before)"),
    ("kerf const set BLK_MAX_REQUEST_COUNT 65", 29, "permitted are the values 4 to 64"),
    ("kerf const set BLK_MAX_REQUEST_COUNT 40", 29, "from 8 to 40 is further than one change may go, 24"),
    ("kerf const set BLK_MAX_REQUEST_COUNT 16 --rate 1 --note why", 0, "8 → 16"),
    ("kerf const set BLK_MAX_REQUEST_COUNT 17", 29, "the next change may come after 60000 ms"),
    ("kerf verify", 32, "BLK_MAX_REQUEST_COUNT  8"),
    ("kerf const unset BLK_MAX_REQUEST_COUNT", 0, "BLK_MAX_REQUEST_COUNT: stock"),
    ("kerf log BLK_MAX_REQUEST_COUNT --last 2", 0, "BLK_MAX_REQUEST_COUNT: 16 → stock"),
    ("kerf log", 0, "because: /etc/kerf.d/50-db.toml: random reads\n    BLK_MAX_REQUEST_COUNT: 32 → 8"),
    ("chmod 666 /etc/kerf.d/50-db.toml", 0, ""),
    ("kerf apply", 34, "chmod go-w /etc/kerf.d/50-db.toml"),
    ("chmod 644 /etc/kerf.d/50-db.toml", 0, ""),
    ("chmod 666 /var/lib/kerf/scope.db", 0, ""),
    ("kerf const set BLK_MAX_REQUEST_COUNT 9", 34, "/var/lib/kerf/scope.db is not to be trusted"),
    ("kerf off --dry-run", 0, "MAX_SOFTIRQ_RESTART: stock"),
    ("chmod 644 /var/lib/kerf/scope.db", 0, ""),
    ("sed -i s/=/:/ /usr/lib/kerf.d/60-all.toml", 0, ""),
    ("kerf apply", 33, "/usr/lib/kerf.d/60-all.toml:2:21:"),
    ("kerf off --dry-run", 0, "dry run: nothing was changed"),
    ("kerf off", 0, "everything is stock"),
    ("kerf status", 0, "no module loaded: everything is stock"),
];

#[test]
fn files_say_what_is_set() {
    let output = crate::run(&[], &format!("{PRELUDE}{FILES}{}", script(WORDS)));
    crate::common::check(WORDS, &output);
}
