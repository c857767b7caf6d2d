//! How a trial can end: with a value kept, a metric that fails, a signal; each time what was in force before is in force again.

use crate::{object, said};

/// Begins and ends with stock; in between the baseline is a value that was set.
pub const STEPS: &[(&str, &str)] = &[
    ("failing", "kerf try BLK_MAX_REQUEST_COUNT=4,16 --metric '. /metrics; failing'"),
    ("text failing", "text"),
    ("silent", "kerf try BLK_MAX_REQUEST_COUNT=4 --metric 'echo none'"),
    ("killed", "kerf try BLK_MAX_REQUEST_COUNT=4 --metric 'echo 1; kill -9 $$'"),
    ("late", "kerf try BLK_MAX_REQUEST_COUNT=4 --metric 'sleep 100' --timeout-metric 0.5"),
    ("few", "kerf try BLK_MAX_REQUEST_COUNT=4 --metric 'echo 1' --rounds 3"),
    ("none", "kerf try BLK_MAX_REQUEST_COUNT=32 --metric 'echo 1'"),
    ("twice", "kerf try BLK_MAX_REQUEST_COUNT=4,4 --metric 'echo 1'"),
    ("outside", "kerf try BLK_MAX_REQUEST_COUNT=4,1G --metric 'touch /tmp/ran; echo 1'"),
    ("unrun", "ls /tmp/ran"),
    (
        "disturbed",
        "kerf try BLK_MAX_REQUEST_COUNT=4 --metric 'kerf const set BLK_MAX_REQUEST_COUNT 99 > /dev/null; echo 1'",
    ),
    ("text disturbed", "text"),
    ("interrupt", "interrupted INT"),
    ("text interrupt", "text"),
    ("terminate", "interrupted TERM"),
    ("text terminate", "text"),
    (
        "both",
        "kerf try BLK_MAX_REQUEST_COUNT=4 MAX_SOFTIRQ_RESTART=20 --metric 'echo 5' --mode global --rounds 5 --html /tmp/a.html",
    ),
    ("text both", "text"),
    ("page", "cat /tmp/a.html"),
    ("keep", "kerf try BLK_MAX_REQUEST_COUNT=4 --metric '. /metrics; planted' --rounds 8 --seed 5 --keep"),
    ("kept", "kerf status"),
    ("text kept", "text"),
    ("again", "kerf try BLK_MAX_REQUEST_COUNT=4,8,32 --metric 'echo 5' --rounds 5 --json"),
    ("text again", "text"),
    ("interrupt again", "interrupted INT"),
    ("text interrupt again", "text"),
    ("task", "kerf try BLK_MAX_REQUEST_COUNT=32 --metric 'echo 5' --rounds 4 --mode task"),
    ("status task", "kerf status"),
    ("guard", "kerf const set BLK_MAX_REQUEST_COUNT 4 --min 2 --max 40 --note 'for the test'"),
    ("guarded", "kerf try BLK_MAX_REQUEST_COUNT=8,32 --metric 'echo 5' --rounds 5"),
    ("beyond", "kerf try BLK_MAX_REQUEST_COUNT=64 --metric 'echo 5' --rounds 5"),
    ("status guarded", "kerf status"),
    ("steps", "kerf const set BLK_MAX_REQUEST_COUNT 4 --step 4"),
    ("stepwise", "kerf try BLK_MAX_REQUEST_COUNT=8 --metric 'echo 5' --rounds 5"),
    ("log", "kerf log"),
    ("unset", "kerf const unset --all"),
    ("text end", "text"),
];

/// Ends with an error, after which it is said what is in force.
const FAILED: [&str; 7] = ["failing", "silent", "killed", "late", "disturbed", "interrupt", "terminate"];

/// Steps, their exit codes, and words of what they say.
const ENDS: &[(&str, i32, &str)] = &[
    ("failing", 40, "ended with exit status: 1; it printed `run 4"),
    ("silent", 40, "printed no number that could be read: its standard output has none; it printed `none`"),
    ("killed", 40, "signal: 9"),
    ("late", 40, "did not end within 0.5 s"),
    ("few", 2, "give --rounds 4 or more"),
    ("none", 10, "every value is in force already"),
    ("twice", 10, "4 is named twice"),
    ("outside", 11, "certified are the values"),
    ("unrun", 1, ""),
    ("disturbed", 41, "did not keep its value during a run: it is 99, not stock"),
    ("interrupt", 130, "interrupted by Ctrl-C"),
    ("terminate", 130, "interrupted by SIGTERM"),
    ("both", 0, "MAX_SOFTIRQ_RESTART=20: no difference seen; every round was the same"),
    ("page", 0, "</html>"),
    ("keep", 0, "BLK_MAX_REQUEST_COUNT = 4 is set"),
    ("kept", 0, "BLK_MAX_REQUEST_COUNT  4"),
    ("interrupt again", 130, "interrupted by Ctrl-C"),
    ("task", 0, "everything is as before: BLK_MAX_REQUEST_COUNT = 4 (set before; stock is 32)"),
    ("status task", 0, "every value is in force at all its locations"),
    ("guarded", 0, "everything is as before"),
    ("beyond", 29, "permitted are the values 2 to 40"),
    ("status guarded", 0, ": for the test\nBLK_MAX_REQUEST_COUNT: permitted are the values 2 to 40"),
    ("stepwise", 29, "may change only in steps or now and then"),
    ("log", 0, "because: kerf try\n    BLK_MAX_REQUEST_COUNT: 32 → 4"),
];

#[test]
fn every_end_is_said() {
    for (name, code, words) in ENDS {
        let said = said(name);
        assert!(said.code == *code && said.text.contains(words), "{name}: no {code} with `{words}`: {said:?}");
    }
    for name in FAILED {
        let said = said(name);
        assert!(said.text.contains("as before: BLK_MAX_REQUEST_COUNT = 32 (stock)"), "{name}: {said:?}");
    }
}

#[test]
fn whatever_happens_the_text_is_as_before() {
    let text = |name: &str| said(&format!("text {name}")).text;
    for name in ["failing", "disturbed", "interrupt", "terminate", "both", "end"] {
        assert_eq!(text("before"), text(name), "{name}");
    }
    assert_ne!(text("before"), text("kept"));
    for name in ["again", "interrupt again"] {
        assert_eq!(text("kept"), text(name), "{name}");
    }
}

#[test]
fn the_baseline_is_what_was_set() {
    let again = object("again");
    let baseline = &again["baseline"][0];
    assert_eq!((&baseline["value"], &baseline["stock"], &baseline["set"]), (&4.into(), &32.into(), &true.into()));
    // Of the three values one is in force already, and another one is stock.
    let values: Vec<_> = again["values"].as_array().expect("an array").iter().map(|value| &value["value"]).collect();
    assert_eq!(values, [8, 32]);
    assert!(again["best"].is_null() && again["suggestion"].is_null(), "{again:#}");
}
