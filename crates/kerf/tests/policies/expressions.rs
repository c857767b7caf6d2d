//! Expressions on the kernel: the verifier takes their programs, they decide for whom they should, and mistakes are shown at their place.

use std::fmt::Write;

use crate::common::blocks;
use crate::{batches, counts, line, run};

const PLUG: &str = "BLK_MAX_REQUEST_COUNT";
/// 256 requests of one plug: the first one starts it, the others pass the limit.
const PASSES: u64 = 255;

const DECIDED: &str = r#"
mkdir -p /sys/fs/cgroup/outer/inner
cp /submit /small
cp /submit /large
# GROUP PROGRAM
inside() { sh -c "echo \$\$ > /sys/fs/cgroup$1/cgroup.procs; exec $2 /dev/nullb0 1"; }
# LABEL ARGUMENT...
set_as() { label=$1; shift; kerf const set "$@" > /said || echo "failed $label"; echo "said $label $(tr '\n' ' ' < /said)"; }

batches stock /small /dev/nullb0 1
text before
set_as comm BLK_MAX_REQUEST_COUNT=4 --when 'comm == "small"'
text meanwhile
batches small /small /dev/nullb0 1
status small
batches large /large /dev/nullb0 1
status large
set_as member BLK_MAX_REQUEST_COUNT=4 --when 'plug->rq_count >= 8' --json
batches member /small /dev/nullb0 1
set_as group BLK_MAX_REQUEST_COUNT 4 --when 'cgroup under "/outer" && !(cgroup == "/outer")'
batches inner inside /outer/inner /small
batches outer inside /outer /small
batches root inside / /small
set_as cpu BLK_MAX_REQUEST_COUNT '=if cpu == 1 then 8 else 16'
batches first taskset 1 /small /dev/nullb0 1
batches second taskset 2 /small /dev/nullb0 1
set_as names 'BLK_MAX_REQUEST_COUNT==if comm == "small" then 4 else (if comm == "large" then 2 * (5 + signed(pid) / signed(pid) * 3) else keep)'
batches four /small /dev/nullb0 1
batches sixteen /large /dev/nullb0 1
batches kept /submit /dev/nullb0 1
set_as refused 'BLK_MAX_REQUEST_COUNT==if comm == "small" then pid - pid else keep'
batches refused /small /dev/nullb0 1
status refused
set_as fault 'BLK_MAX_REQUEST_COUNT=4' --when 'comm == "large" || plug->mq_list.head->bio->bi_next->bi_opf == 0 || true'
batches fault /small /dev/nullb0 1
batches faultless /large /dev/nullb0 1
kerf const unset BLK_MAX_REQUEST_COUNT >&2
text after
batches unset /small /dev/nullb0 1
"#;

#[test]
fn expressions_decide_for_whom_they_say() {
    let output = run(&["--module", "null_blk"], &[], &[], DECIDED);
    for (label, expected) in [
        ("stock", (32, 8)),
        ("small", (4, 64)),
        ("large", (32, 8)),
        ("member", (8, 32)),
        ("inner", (4, 64)),
        ("outer", (32, 8)),
        ("root", (32, 8)),
        ("first", (16, 16)),
        ("second", (8, 32)),
        ("four", (4, 64)),
        ("sixteen", (16, 16)),
        ("kept", (32, 8)),
        ("refused", (32, 8)),
        ("fault", (32, 8)),
        ("faultless", (4, 64)),
        ("unset", (32, 8)),
    ] {
        assert_eq!(batches(&output, label), [expected], "{label}:\n{output}");
    }
    let (small, large) = (counts(&output, "small", PLUG), counts(&output, "large", PLUG));
    assert!(small.decided >= PASSES && large.decided == small.decided, "{small:?} {large:?}");
    assert!(large.kept >= small.kept + PASSES, "{small:?} {large:?}");
    assert_eq!((large.refused, large.missed), (0, 0));
    let refused = counts(&output, "refused", PLUG);
    assert!(refused.refused >= PASSES && refused.decided == 0, "{refused:?}");
    let said = line(&output, "said", "comm");
    assert!(said.starts_with("BLK_MAX_REQUEST_COUNT: 32 or 4, decided by blk_max_request_count (2 places)"), "{said}");
    let member: serde_json::Value = serde_json::from_str(line(&output, "said", "member")).expect("JSON");
    assert_eq!((&member["policy"], &member["changed"][0]["to"]), (&"blk_max_request_count".into(), &4.into()));
    assert!(line(&output, "status", "small").contains(r#""owner": "blk_max_request_count""#), "{output}");
    let text = |label| line(&output, "text", label);
    assert_eq!(text("before"), text("after"));
    assert_ne!(text("before"), text("meanwhile"));
}

/// A command behind `kerf`, its exit code, and words of what it says.
type Said<'a> = (&'a str, i32, &'a str);

/// One after the other.
const WORDS: &[Said] = &[
    (
        r#"const set BLK_MAX_REQUEST_COUNT=4 --when 'comm = "small"'"#,
        19,
        "`=` means nothing in an expression: write `==`",
    ),
    (r"const set BLK_MAX_REQUEST_COUNT=4 --when 'pidd == 5'", 19, "did you mean `pid`, `gid`, `uid`?"),
    (r"const set BLK_MAX_REQUEST_COUNT=4 --when 'pid'", 19, "compare it, for example with `!= 0`"),
    (r"const set BLK_MAX_REQUEST_COUNT=4 --when 'rq == null'", 19, "`rq` is no argument of blk_start_plug_nr_ios"),
    (r"const set BLK_MAX_REQUEST_COUNT=4 --when 'plug->rq_counts > 1'", 19, "near are `rq_count`"),
    (
        r"const set HYSTART_DELAY_MAX=32000 --when 'sample == null'",
        19,
        "not held anywhere any more at cubictcp_acked+0x",
    ),
    (
        r#"const set BLK_MAX_REQUEST_COUNT=4 --when 'cgroup == "/x"'"#,
        19,
        "^^^^ there is no control group /x: no directory /sys/fs/cgroup/x",
    ),
    (
        r"const set 'BLK_MAX_REQUEST_COUNT==if cpu == 0 then 0 else 4'",
        19,
        "0 is not certified for BLK_MAX_REQUEST_COUNT",
    ),
    (r"const set IO_ALLOC_CACHE_MAX==cpu", 12, "IO_ALLOC_CACHE_MAX"),
    (r"const set BLK_MAX_REQUEST_COUNTS==cpu", 13, "did you mean BLK_MAX_REQUEST_COUNT?"),
    (r"const set BLK_MAX_REQUEST_COUNT=4 --name x", 10, "only what is decided has a name"),
    (r"const set BLK_MAX_REQUEST_COUNT@0=4 --when 'cpu == 0'", 10, "a policy decides on whole constants"),
    (r"const set BLK_MAX_REQUEST_COUNT==8 --placement detour", 10, "leave out --placement"),
    (r"const set BLK_MAX_REQUEST_COUNT=4 --when 'cpu == 0' --dry-run", 0, "(dry run: nothing was changed)"),
    ("status", 0, "nothing is set"),
    (r"const set BLK_MAX_REQUEST_COUNT 8", 0, "32 → 8"),
    (
        r"const set BLK_MAX_REQUEST_COUNT=4 'SHRINK_BATCH==if priority > 3 then 64 else keep' --when 'uid == 0' --name both",
        0,
        "SHRINK_BATCH: 128, decided by both (1 place)",
    ),
    ("status", 0, "BLK_MAX_REQUEST_COUNT: both was asked "),
    (r"const set BLK_MAX_REQUEST_COUNT 8", 24, "BLK_MAX_REQUEST_COUNT is held by the policy both"),
    (r"const set BLK_MAX_REQUEST_COUNT==8", 24, "BLK_MAX_REQUEST_COUNT is held by the policy both"),
    (r"const set BLK_MAX_REQUEST_COUNT==8 --name both", 24, "the policy both decides SHRINK_BATCH too"),
    (r"const unset BLK_MAX_REQUEST_COUNT", 24, "the policy both decides SHRINK_BATCH too"),
    (r"const set BLK_MAX_REQUEST_COUNT==8 SHRINK_BATCH==64 --name both --mode task", 0, "switched task by task"),
    (r"const unset BLK_MAX_REQUEST_COUNT SHRINK_BATCH --mode global", 0, "SHRINK_BATCH: stock"),
    ("status", 0, "nothing is set"),
    (r"const set BLK_MAX_REQUEST_COUNT==4 --name it", 0, "decided by it"),
    (r"policy unload it", 0, "BLK_MAX_REQUEST_COUNT: stock"),
    (r"const set SHRINK_BATCH==64", 0, "decided by shrink_batch"),
    (r"const unset --all", 0, "SHRINK_BATCH: stock"),
    ("status", 0, "nothing is set"),
];

/// Conditions of all forms, several in one: a start of the program costs most.
fn forms() -> Vec<String> {
    let numbers = ["pid", "tgid", "uid", "gid", "cpu", "node", "plug->rq_count", "plug->cur_ktime"];
    let mut forms: Vec<String> = [
        "comm in (\"a\", \"fifteen bytes !\", \"\")",
        "cgroup == \"/\" || cgroup under \"/\"",
        "plug == null || plug->mq_list.head == null",
        "plug->mq_list.head->q->limits.max_sectors >= 8 && !(plug->mq_list.head->q->disk->part0->bd_openers.counter in (1, 2))",
        "plug->mq_list.head->q->disk->disk_name == \"nullb0\"",
        "plug->mq_list.head->q->elevator->type->elevator_name in (\"none\", \"bfq\")",
        "plug->has_elevator == plug->multiple_queues",
        "plug->nr_ios / 3 % 5 == 1 && signed(plug->nr_ios) / -3 % 5 < signed(pid) >> cpu",
        "(if plug->has_elevator then pid else tgid) << cpu & ~7 != 8 ^ 1",
        "-signed(pid) * (if cpu == 0 then 1 else -1) < 0",
        "pid in (tgid, tgid + 1, 0xffffffffffff)",
        "plug->mq_list.head->mq_hctx->numa_node == 0",
        "plug->mq_list.head->state in (MQ_RQ_IN_FLIGHT, MQ_RQ_COMPLETE)",
        "plug->mq_list.head->q->queue_flags >> 3 & 1 == 1",
    ]
    .map(str::to_owned)
    .to_vec();
    let operators = ["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>"];
    for (n, operator) in operators.into_iter().enumerate() {
        let (left, right) = (numbers[n % numbers.len()], numbers[(n * 3 + 1) % numbers.len()]);
        let signed = if n % 2 == 0 {
            format!("signed({left} {operator} {right})")
        } else {
            format!("signed({left}) {operator} signed({right})")
        };
        forms.push(format!("{left} {operator} {right} {} {n}", ["<", "<=", ">", ">=", "!="][n % 5]));
        forms.push(format!("{signed} {} -{n} || {right} {operator} 3 == {n}", ["<", "<=", ">", ">=", "=="][n % 5]));
    }
    let mut forms: Vec<String> = forms.chunks(4).map(|some| format!("({})", some.join(") || ("))).collect();
    // As much as there may be: nesting, and many ways through it.
    forms.push((0..15).fold("cpu == 0".into(), |inner, n| format!("(if pid == {n} then !({inner}) else uid < {n})")));
    let sum = (0..40).map(|n| format!("(if plug->rq_count > {n} then {n} else 1)")).collect::<Vec<_>>().join(" + ");
    forms.push(format!("{sum} > 50"));
    forms.push((0..90).map(|n| format!("pid == {n}")).collect::<Vec<_>>().join(" || "));
    forms
}

#[test]
fn the_kernel_takes_every_form_and_mistakes_have_their_place() {
    let mut script = String::new();
    let add = |script: &mut String, command: &str| {
        let _ = writeln!(script, "echo '## x'; kerf {command} 2>&1; echo \"code $?\"");
    };
    WORDS.iter().for_each(|(command, ..)| add(&mut script, command));
    let forms = forms();
    for form in &forms {
        add(&mut script, &format!("const set BLK_MAX_REQUEST_COUNT=4 --dry-run --when '{form}'"));
    }
    let output = run(&["--module", "null_blk"], &[], &[], &script);
    let said = blocks(&output);
    assert_eq!(said.len(), WORDS.len() + forms.len(), "{output}");
    for ((command, code, words), (_, text, ended)) in WORDS.iter().zip(&said) {
        assert!(ended == code && text.contains(words), "{command}: code {ended}, not {code} with `{words}`:\n{text}");
    }
    for (form, (_, text, ended)) in forms.iter().zip(said.get(WORDS.len()..).unwrap_or_default()) {
        assert!(*ended == 0 && text.contains("dry run"), "{form}: code {ended}:\n{text}");
    }
}
