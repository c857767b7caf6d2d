//! Policies under limits on what they cost, and what an operator sees of it: the module takes them out by itself, and says why.

use serde_json::Value;

use crate::common::blocks;
use crate::{batches, counts, fixture, line, run};

const TAKEN_OUT: &str = r#"
# Reads until the policy is gone from the text; its name and options for `kerf policy load`.
until_gone() {
	name=$1
	shift
	kerf policy load /policies/$name.o "$@" >&2
	status $name-loaded
	n=0
	while [ $n -lt 60 ] && kerf status --json | grep -q '"placement"'; do
		/submit /dev/nullb0 8
		n=$((n + 1))
	done
	status $name-gone
	text $name
}

text before
until_gone changing --max-triggers 5
batches stock /submit /dev/nullb0 1
t kerf policy unload changing
t kerf status
kerf status --metrics /metrics
sed 's/^/metric /' /metrics
until_gone costly --max-time 0.1
kerf policy load /policies/changing.o --max-triggers 1000000 --max-time 10000 >&2
status again
batches decided /submit /dev/nullb0 8
sleep 2
status stays
t kerf status
timeout -s INT 2 kerf status --watch 0.3 --json > /watched
echo "watched lines $(wc -l < /watched)"
echo "watched last $(tail -n 1 /watched)"
kerf off >&2
status off
text after
dmesg | grep 'is taken out' | sed 's/.*kerf: /log /'
"#;

fn status(output: &str, label: &str) -> Value {
    serde_json::from_str(line(output, "status", label)).expect("JSON")
}

#[test]
fn what_costs_more_than_permitted_is_taken_out() {
    let sources = ["changing", "costly"].map(|name| fixture(&format!("{name}.bpf.c")));
    let output = run(&["--module", "null_blk"], &sources, &[], TAKEN_OUT);

    let limits = &status(&output, "changing-loaded")["entries"][0]["policy"]["limits"];
    assert_eq!((&limits["triggers"], &limits["permille"]), (&5.into(), &0.into()));
    let gone = status(&output, "changing-gone");
    assert_eq!(gone["entries"].as_array().map(Vec::len), Some(0), "{gone:#}");
    let removed = &gone["removed"][0];
    let reason = removed["reason"].as_str().expect("a reason");
    assert!(reason.ends_with(" triggers in a second, permitted are 5"), "{reason}");
    assert_eq!((&removed["policy"], &removed["waits"]), (&"changing".into(), &false.into()));
    assert_eq!(batches(&output, "stock"), [(32, 8)]);

    let gone = status(&output, "costly-gone");
    let reason = gone["removed"][1]["reason"].as_str().expect("a reason");
    assert!(reason.ends_with(" us of a CPU in a second, permitted are 1000"), "{reason}");

    // The place is stock text again, without anybody's doing.
    for label in ["changing", "costly", "after"] {
        assert_eq!(line(&output, "text", "before"), line(&output, "text", label), "{label}");
    }
    let log: Vec<&str> = output.lines().filter(|line| line.starts_with("log policy ")).collect();
    assert!(log.len() == 2 && log[0].starts_with("log policy changing is taken out: "), "{log:?}");
    said(&output);
    measured(&output);
}

/// What the commands say of it.
fn said(output: &str) {
    let blocks = blocks(output);
    let (_, unload, code) = &blocks[0];
    assert!(unload.contains("the policy changing is not loaded: it was taken out, "), "{unload}");
    assert_ne!(*code, 0);
    let (_, text, code) = &blocks[1];
    assert!(text.contains("changing was taken out on ") && text.contains("nothing is set"), "{text}");
    assert_eq!(*code, 0);
    let metric = |start: &str| output.lines().any(|line| line.starts_with(&format!("metric {start}")));
    assert!(metric("kerf_module_loaded 1"));
    assert!(metric(r#"kerf_policy_removed{policy="changing",reason=""#));
}

/// One that is within its limits stays, loaded again it is no longer one that was taken out, and its decisions are seen.
fn measured(output: &str) {
    assert!(
        status(output, "again")["removed"]
            .as_array()
            .is_some_and(|all| all.iter().all(|one| one["policy"] == "costly"))
    );
    let stays = counts(output, "stays", "BLK_MAX_REQUEST_COUNT");
    assert!(stays.decided > 0 && stays.decided == stays.hits, "{stays:?}");
    let policy = &status(output, "stays")["entries"][0]["policy"];
    let histogram = policy["histogram"].as_array().expect("a histogram");
    let sum: u64 = histogram.iter().filter_map(|m| m["count"].as_u64()).sum();
    assert_eq!(sum, stays.decided, "{policy:#}");
    let last = policy["last"][0]["value"].as_i64().expect("a last decision");
    let inside = |m: &&Value| (m["min"].as_i64()..=m["max"].as_i64()).contains(&Some(last));
    assert!(histogram.iter().any(|m| inside(&m)), "{policy:#}");
    assert!(policy["timed"] == stays.hits && policy["longest_ns"].as_u64() > Some(0), "{policy:#}");
    let (_, text, _) = &blocks(output)[2];
    assert!(text.contains(": decided values\n") && text.contains(" ns each time, "), "{text}");

    assert!(line(output, "watched", "lines").parse::<u32>().expect("a number") >= 2);
    let watched: Value = serde_json::from_str(line(output, "watched", "last")).expect("JSON");
    assert!(watched["triggers_per_second"]["BLK_MAX_REQUEST_COUNT"].is_number(), "{watched:#}");
    let off = status(output, "off");
    assert_eq!((off["removed"].as_array().map(Vec::len), off["entries"].as_array().map(Vec::len)), (Some(0), Some(0)));
}
