//! What a trial finds: the paper's two workloads, which want opposite limits, and an effect that is planted.

use serde_json::{Value, json};

use crate::{object, said};

/// The trials. The machine's disk has no heads and the machine may be emulated, so throughput says nothing here. What makes the
/// paper's workloads slow, requests that could have been merged and requests that wait in the plug, the kernel counts and times itself.
pub const STEPS: &[(&str, &str)] = &[
    (
        "streams",
        "kerf try BLK_MAX_REQUEST_COUNT=4,128 --metric '. /metrics; requests streams' --rounds 5 --seed 1 --json",
    ),
    (
        "shuffled",
        "kerf try BLK_MAX_REQUEST_COUNT=4,128 --metric '. /metrics; requests shuffled' --rounds 6 --seed 2 --json",
    ),
    ("random", "kerf try BLK_MAX_REQUEST_COUNT=4,128 --metric '. /metrics; latency' --rounds 7 --seed 3 --json"),
    ("planted", "kerf try BLK_MAX_REQUEST_COUNT=4,16 --metric '. /metrics; planted' --rounds 10 --seed 4 --json"),
    ("text after", "text"),
];

/// The values of a ranking, best first; `None` is the baseline.
#[track_caller]
fn ranking(trial: &Value) -> Vec<Option<i64>> {
    let position = |arm: &Value| arm.as_u64().map(|n| trial["values"][n as usize]["value"].as_i64().expect("a value"));
    trial["ranking"].as_array().expect("a ranking").iter().map(position).collect()
}

fn verdicts(trial: &Value) -> Vec<(&Value, &Value)> {
    let values = trial["values"].as_array().expect("an array");
    values.iter().map(|value| (&value["value"], &value["verdict"])).collect()
}

#[test]
fn sequential_and_random_io_want_opposite_limits() {
    for sequential in ["streams", "shuffled"] {
        let trial = object(sequential);
        assert_eq!(ranking(&trial), [Some(128), None, Some(4)], "{sequential}: {trial:#}");
        assert_eq!(verdicts(&trial), [(&json!(4), &json!("worse")), (&json!(128), &json!("better"))], "{trial:#}");
        assert_eq!(trial["suggestion"], "kerf const set BLK_MAX_REQUEST_COUNT 128");
    }
    let random = object("random");
    assert_eq!(ranking(&random), [Some(4), None, Some(128)], "{random:#}");
    assert_eq!(verdicts(&random), [(&json!(4), &json!("better")), (&json!(128), &json!("worse"))], "{random:#}");
    assert_eq!(random["suggestion"], "kerf const set BLK_MAX_REQUEST_COUNT 4");
}

#[test]
fn a_planted_effect_is_found_and_nothing_else() {
    let trial = object("planted");
    assert_eq!(verdicts(&trial), [(&json!(4), &json!("better")), (&json!(16), &json!("no-difference"))], "{trial:#}");
    let mean = trial["values"][0]["mean"].as_f64().expect("a number");
    assert!((mean + 5.0).abs() < 2.5, "{trial:#}");
    // Ten rounds of two values and the baseline twice, each at its place in the log.
    assert_eq!(trial["runs"].as_array().map(Vec::len), Some(40));
    assert!(trial["switches"].as_u64().is_some_and(|switches| (20..=41).contains(&switches)), "{trial:#}");
}

#[test]
fn the_kernel_is_as_before() {
    assert_eq!(said("text before").text, said("text after").text);
}
