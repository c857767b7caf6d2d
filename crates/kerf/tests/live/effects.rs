//! Values that are set do what they say: two constants, seen in counts of the kernel's own.

use crate::run;

/// The values that were in force and the numbers measured with each, from the lines that begin with a word.
fn measured<'a>(output: &'a str, word: &str) -> Vec<(&'a str, Vec<u32>)> {
    let line = |line: &'a str| {
        let mut words = line.strip_prefix(word)?.split_whitespace();
        Some((words.next()?, words.map(|word| word.parse().expect("a number")).collect()))
    };
    output.lines().filter_map(line).collect()
}

/// Whether ksoftirqd is woken in most of the 20 chains of softirqs, for each value that was in force. Some wakeups have other
/// reasons: a chain that meets the end of a jiffy, or another task that wants the CPU.
fn woken<'a>(output: &'a str, chains: &str) -> Vec<(&'a str, bool)> {
    let judge = |(value, mut wakeups): (&'a str, Vec<u32>)| {
        wakeups.sort_unstable();
        assert_eq!(wakeups.len(), 5, "{output}");
        let median = wakeups[2];
        assert!(median <= 8 || median >= 14, "MAX_SOFTIRQ_RESTART {value}: {median} wakeups in 20\n{output}");
        (value, median >= 14)
    };
    measured(output, chains).into_iter().map(judge).collect()
}

/// What a chain of softirqs leaves over when its limit is reached is ksoftirqd's.
fn check_softirqs(output: &str) {
    let short = [("stock", false), ("3", true), ("1000", false), ("stock", false)];
    let long = [("stock", true), ("3", true), ("1000", false), ("stock", true)];
    assert_eq!(woken(output, "short"), short, "6 runs a chain\n{output}");
    assert_eq!(woken(output, "long"), long, "18 runs a chain\n{output}");
}

/// A shrinker without a batch size of its own scans SHRINK_BATCH objects at a time; what is left at the end may be less.
fn check_shrinker(output: &str) {
    let measured = measured(output, "shrinker");
    let values: Vec<&str> = measured.iter().map(|(value, _)| *value).collect();
    assert_eq!(values, ["stock", "16", "512", "stock"], "{output}");
    for (value, scans) in measured {
        let batch: u32 = value.parse().unwrap_or(128);
        assert_eq!(scans.iter().max(), Some(&batch), "SHRINK_BATCH {value}\n{output}");
        // About 500 objects are there, and the kernel asks for twice as many.
        let whole: u32 = scans.iter().filter(|&&scan| scan == batch).sum();
        assert!(whole >= 512, "SHRINK_BATCH {value}: {whole} objects in whole batches\n{output}");
    }
}

#[test]
fn a_value_has_its_effect_and_loses_it() {
    let disk = ["--disk", "8", "--module", "virtio_blk", "--module", "crc32c_generic", "--module", "ext4"];
    let output = run(&disk, include_str!("effects.sh"));
    check_softirqs(&output);
    check_shrinker(&output);
}
