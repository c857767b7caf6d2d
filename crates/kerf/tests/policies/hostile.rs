//! Policies that mean no good: what the verifier refuses, and what becomes of what it lets through.

use crate::common::small_module;
use crate::{Counts, baggage, batches, counts, fixture, line, run};

/// Policies that the verifier refuses, and what it says of the line that it quotes.
const REFUSED: &[(&str, &str, &str)] = &[
    ("endless", "while (n < 1 << 30)", "infinite loop detected"),
    ("direct", "xk_set(xk_ctx, *plug);", "invalid mem access 'scalar'"),
    ("context", "ctx->ax = 0;", "invalid bpf_context access off=80 size=8"),
    ("task", "bpf_get_current_task_btf()->flags = 0;", "only read is supported"),
    ("copy", "bpf_probe_read_kernel(plug, sizeof(zero), &zero);", "R1 type=scalar expected=fp"),
    ("override", "bpf_override_return(ctx, 0);", "cannot use helper bpf_override_return"),
];

#[test]
fn the_verifier_refuses_with_the_policys_own_line() {
    let sources: Vec<_> = REFUSED.iter().map(|(name, ..)| fixture(&format!("{name}.bpf.c"))).collect();
    let commands: String =
        REFUSED.iter().map(|(name, ..)| format!("t kerf policy load /policies/{name}.o\n")).collect();
    let script = format!("text before\n{commands}text after\nstatus after\n");
    let output = run(&["--module", "null_blk"], &sources, &[], &script);
    let said = crate::common::blocks(output.split_once("text after").expect("the end").0);
    assert_eq!(said.len(), REFUSED.len());
    for ((name, source, verdict), (_, text, code)) in REFUSED.iter().zip(said) {
        let head =
            format!("kerf: failed to load /policies/{name}.o: the kernel's verifier refuses the program `{name}`:");
        assert!(text.starts_with(&head), "{text}");
        assert!(text.contains(&format!("; {source} @ {name}.bpf.c:")), "{name}: no line of its own:\n{text}");
        assert!(text.contains(verdict), "{name}: without `{verdict}`:\n{text}");
        assert_eq!(code, 17, "{text}");
    }
    assert_eq!(line(&output, "text", "before"), line(&output, "text", "after"));
    assert!(line(&output, "status", "after").contains(r#""entries": []"#));
}

const TAMED: &str = r#"
# NAME OPTION...
try() {
	name=$1
	shift
	kerf policy load /policies/$name.o "$@" >&2
	batches $name /submit /dev/nullb0 8
	status $name
	kerf policy unload $name >&2
}

text before
try wild
try outside --limit BLK_MAX_REQUEST_COUNT=2..16
try changing
try brim
try user
text after
batches stock /submit /dev/nullb0 1
insmod /nested.ko at=0x$(symbol blk_start_plug_nr_ios)
try nested
for count in eight others; do echo nested $count $(cat /sys/module/nested/parameters/$count); done
rmmod nested
echo complaints seen $(dmesg | grep -cwE 'WARNING:|BUG:|Oops|lockup|stall|stalls')
"#;

/// What becomes of each: reads of bad addresses give errors, values that are not permitted are not used, full maps refuse.
#[test]
fn what_the_verifier_lets_through_does_no_harm() {
    const PLUG: &str = "BLK_MAX_REQUEST_COUNT";
    let names = ["wild", "outside", "changing", "brim", "user", "nested"];
    let sources = names.map(|name| fixture(&format!("{name}.bpf.c")));
    let nested = small_module(baggage().dir.path(), "nested", include_str!("nested.c"));
    let output = run(&["--module", "null_blk"], &sources, &[(&nested, "/nested.ko")], TAMED);
    let of = |name| counts(&output, name, PLUG);

    let Counts { hits, decided, .. } = of("wild");
    assert!(hits > 0 && decided == hits, "all reads fail: {:?}", of("wild"));
    assert_eq!(batches(&output, "wild"), [(4, 512)]);

    // Six of sixteen values in turn are permitted; the others leave the stock value.
    let Counts { hits, decided, refused, .. } = of("outside");
    assert_eq!(decided + refused, hits);
    assert!(decided.abs_diff(hits * 6 / 16) <= 6, "{:?}", of("outside"));

    let Counts { hits, decided, .. } = of("changing");
    assert!(hits > 0 && decided == hits, "{:?}", of("changing"));

    let Counts { hits, decided, kept, .. } = of("brim");
    assert!(kept >= 64 && decided > 0 && decided + kept == hits, "{:?}", of("brim"));

    let Counts { hits, decided, .. } = of("user");
    assert!(hits > 0 && decided == hits, "no write succeeds: {:?}", of("user"));

    // The helper's way to the constant is missed each time, and has the stock value.
    let Counts { hits, decided, missed, .. } = of("nested");
    assert!(missed > 0 && decided == missed && hits == decided + missed, "{:?}", of("nested"));
    assert!(line(&output, "nested", "eight").parse::<u64>().expect("a number") >= missed);
    assert_eq!(line(&output, "nested", "others"), "0");

    assert_eq!(batches(&output, "stock"), [(32, 8)]);
    assert_eq!(line(&output, "text", "before"), line(&output, "text", "after"));
    assert_eq!(line(&output, "complaints", "seen"), "0");
}
