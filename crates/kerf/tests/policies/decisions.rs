//! A policy of the tests' own, and those of the papers: hit, and deciding as written, by what the kernel itself counts.

use crate::{Counts, SHIFT, batches, counts, example, fixture, line, run, with_words};

const PLUG: &str = "BLK_MAX_REQUEST_COUNT";
/// 256 requests of one plug: the first one starts it, the others pass the limit.
const PASSES: u64 = 255;

const CHOSEN: &str = r#"
cp /submit /small
cp /submit /large
batches stock /small /dev/nullb0 1
text before
kerf policy load /policies/chosen.o >&2
text meanwhile
batches small /small /dev/nullb0 1
status small
batches large /large /dev/nullb0 1
status large
kerf policy unload chosen >&2
text after
batches unloaded /small /dev/nullb0 1
"#;

#[test]
fn a_policy_decides_for_the_thread_that_it_chooses() {
    let output = run(&["--module", "null_blk"], &[fixture("chosen.bpf.c")], &[], CHOSEN);
    assert_eq!(batches(&output, "stock"), [(32, 8)]);
    assert_eq!(batches(&output, "small"), [(4, 64)]);
    assert_eq!(batches(&output, "large"), [(32, 8)]);
    assert_eq!(batches(&output, "unloaded"), [(32, 8)]);
    let (small, large) = (counts(&output, "small", PLUG), counts(&output, "large", PLUG));
    // Others than these programs may do I/O too, if little.
    assert!(small.decided >= PASSES && large.decided == small.decided, "{small:?} {large:?}");
    assert!(large.kept >= small.kept + PASSES, "{small:?} {large:?}");
    assert_eq!((large.refused, large.missed), (0, 0));
    let text = |label| line(&output, "text", label);
    assert_eq!(text("before"), text("after"));
    assert_ne!(text("before"), text("meanwhile"));
}

const PLUGS: &str = r#"
hints=/sys/fs/bpf/kerf/plug-limit-by-hint/hints
text before
kerf policy load /policies/plug-limit-by-hint.o >&2
batches hinted /hinted $hints /submit /dev/nullb0 1
status hinted
batches unhinted /submit /dev/nullb0 1
status unhinted
kerf policy load /policies/plug-limit-by-merges.o --replace plug-limit-by-hint >&2
echo pins replaced $(ls -A /sys/fs/bpf/kerf)
batches merges /submit /dev/nullb0 1
status merges
kerf policy load /policies/plug-limit-by-hint.o --name again --replace plug-limit-by-merges >&2
echo pins again $(ls -A /sys/fs/bpf/kerf/again)
kerf const unset --all >&2
echo pins unset $(ls -A /sys/fs/bpf/kerf)
text after
"#;

#[test]
fn plugs_follow_hints_and_failed_merges() {
    let sources = [example("plug-limit-by-hint"), example("plug-limit-by-merges")];
    let output = run(&["--module", "null_blk"], &sources, &[], PLUGS);
    assert_eq!(batches(&output, "hinted"), [(1, 256)]);
    assert_eq!(batches(&output, "unhinted"), [(32, 8)]);
    let (hinted, unhinted) = (counts(&output, "hinted", PLUG), counts(&output, "unhinted", PLUG));
    assert!(hinted.decided >= PASSES && unhinted.decided == hinted.decided, "{hinted:?} {unhinted:?}");
    assert!(unhinted.kept >= hinted.kept + PASSES, "{hinted:?} {unhinted:?}");
    // After 16 attempts without a merge the plug is emptied at each request.
    assert_eq!(batches(&output, "merges"), [(1, 241), (15, 1)]);
    assert!(counts(&output, "merges", PLUG).decided >= 241);
    assert_eq!(line(&output, "pins", "replaced"), "");
    assert_eq!(line(&output, "pins", "again"), "hints");
    assert_eq!(line(&output, "pins", "unset"), "");
    assert_eq!(line(&output, "text", "before"), line(&output, "text", "after"));
}

const SHRINKER: &str = r#"
mke2fs -b 1024 /dev/vda > /dev/null
mkdir -p /mnt
mount -t ext4 /dev/vda /mnt
n=0
while [ $n -lt 250 ]; do
	dd if=/dev/zero of=/mnt/holes bs=1k count=1 seek=$((2 * n)) conv=notrunc 2> /dev/null
	n=$((n + 1))
done
sync
exec 3< /mnt/holes
echo 1 > $trace/events/ext4/ext4_es_shrink_scan_enter/enable

shrinker() {
	cat /mnt/holes > /dev/null
	echo > $trace/trace
	echo 3 > /proc/sys/vm/drop_caches
	echo shrinker "$1" $(sed -n 's/.* nr_to_scan \([0-9]*\) .*/\1/p' $trace/trace | sort -n | uniq)
}

shrinker stock
kerf policy load /policies/this.o >&2
shrinker this
status this
kerf policy load /policies/shrink-batch-by-name.o --replace this >&2
shrinker other
status other
kerf policy unload shrink-batch-by-name >&2
"#;

/// Debian's kernel has no zswap pool to shrink unless one swaps: the same policy with the name of ext4's shrinker.
#[test]
fn one_shrinker_has_another_batch_size() {
    let this = with_words(&example("shrink-batch-by-name"), "this", "zswap_shrinker_scan", "ext4_es_scan");
    let disk = ["--disk", "8", "--module", "virtio_blk", "--module", "crc32c_generic", "--module", "ext4"];
    let output = run(&disk, &[this, example("shrink-batch-by-name")], &[], SHRINKER);
    let largest = |label| {
        let scans = line(&output, "shrinker", label).split_whitespace().last();
        scans.and_then(|scan| scan.parse::<u32>().ok()).unwrap_or_else(|| panic!("{output}"))
    };
    assert_eq!([largest("stock"), largest("this"), largest("other")], [128, 24, 128]);
    let (this, other) = (counts(&output, "this", "SHRINK_BATCH"), counts(&output, "other", "SHRINK_BATCH"));
    // The kernel asks all shrinkers, and one of them has the name.
    assert!(this.decided > 0 && this.kept > this.decided, "{this:?}");
    assert!(other.decided == 0 && other.kept > 0, "{other:?}");
}

const FLOWS: &str = r#"
ip link set lo up mtu 1500
# Slow start ends by a delay alone: how closely acknowledgements follow each other is a matter of the emulator's moods.
echo 2 > /sys/module/tcp_cubic/parameters/hystart_detect
echo 2 > /sys/module/tcp_cubic/parameters/hystart_low_window
kerf policy load /policies/tcp-hystart-by-rtt.o >&2

# LABEL MILLISECONDS: flows through the loopback interface, each packet of which waits so long, on both ways
flows() {
	/delay lo "$2"
	for port in 1 2 3 4; do
		nc -l -p 500$port > /dev/null &
		sleep 0.3
		dd if=/dev/zero bs=64k count=128 2> /dev/null | nc 127.0.0.1 500$port
		wait $!
	done
	status "$1"
}

flows short 4
flows long 100
kerf policy unload tcp-hystart-by-rtt >&2
"#;

#[test]
fn long_flows_leave_slow_start_later() {
    let output = run(&["--module", "sch_netem"], &[example("tcp-hystart-by-rtt")], &[], FLOWS);
    for constant in [SHIFT, "HYSTART_DELAY_MIN", "HYSTART_DELAY_MAX"] {
        let (short, all) = (counts(&output, "short", constant), counts(&output, "long", constant));
        let long = Counts { decided: all.decided - short.decided, kept: all.kept - short.kept, ..all };
        // A short flow may look long for a while on a machine that stands still.
        assert!(short.kept > short.decided, "{constant}: {short:?}");
        assert!(long.decided > 0 && long.kept == 0, "{constant}: {long:?}");
        assert_eq!((all.refused, all.missed), (0, 0), "{constant}");
    }
}
