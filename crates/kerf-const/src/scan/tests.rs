//! Every reason and every exclusion, on small pieces of C; and one source as a whole.

use std::path::Path;

use super::*;
use crate::site::{self, Query, SiteKind};
use crate::tree::Tree;

/// A prepared tree with these files, of which the `.c` files of mm/ and drivers/x/ are compiled.
fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Tree) {
    let dir = tempfile::tempdir().unwrap();
    let units = |directory: &str| {
        let within = files.iter().filter_map(|(file, _)| file.strip_prefix(directory)?.strip_suffix(".c"));
        within.map(|unit| format!("obj-y += {unit}.o\n")).collect::<String>()
    };
    let (mm, driver) = (units("mm/"), units("drivers/x/"));
    let common = [
        ("Makefile", "VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 1\n"),
        (".config", "CONFIG_HZ=250\n"),
        ("include/generated/autoconf.h", ""),
        ("mm/Makefile", &mm),
        ("drivers/Makefile", "obj-y += x/\n"),
        ("drivers/x/Makefile", &driver),
    ];
    for (file, text) in common.iter().chain(files) {
        let path = dir.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let tree = Tree::open(dir.path()).unwrap();
    (dir, tree)
}

fn scan_text(text: &str) -> Vec<Candidate> {
    let (_dir, tree) = tree(&[("mm/a.c", text)]);
    scan(&tree, &Wanted::default(), &()).unwrap()
}

/// Candidates as `name or text: kinds`.
fn told(text: &str) -> Vec<String> {
    let kinds = |c: &Candidate| c.reasons.iter().map(|r| r.kind.word()).collect::<Vec<_>>().join("+");
    let name = |c: &Candidate| c.name.clone().unwrap_or_else(|| c.text.clone());
    let mut told: Vec<String> = scan_text(text).iter().map(|c| format!("{}: {}", name(c), kinds(c))).collect();
    told.sort();
    told
}

/// A function with this body, and a definition before it.
fn function(definition: &str, body: &str) -> String {
    format!("{definition}\nint f(struct s *s)\n{{\n\t{body}\n}}\n")
}

#[test]
fn every_reason_is_found() {
    for (definition, body, expected) in [
        ("#define LOW_MARK 12", "if (s->count > LOW_MARK) kick(s);", "LOW_MARK: threshold"),
        ("#define TOP 12", "s->nr = min(s->pending, TOP);", "TOP: threshold"),
        ("#define PAUSE 12", "schedule_delayed_work(&s->w, PAUSE);", "PAUSE: interval"),
        ("#define GAP 12", "mod_timer(&s->t, jiffies + GAP);", "GAP: interval"),
        ("#define GAP 12", "s->next = ktime_add_ms(s->last, GAP);", "GAP: interval"),
        ("#define GAP 12", "if (time_after(jiffies, s->last + GAP)) kick(s);", "GAP: interval"),
        ("#define GAP (HZ / 10)", "start(s, GAP);", "GAP: interval"),
        ("#define SETTLE_DELAY 12", "udelay(SETTLE_DELAY);", "SETTLE_DELAY: interval"),
        ("#define ROUNDS_MAX 12", "for (i = 0; i < ROUNDS_MAX; i++) work(s);", "ROUNDS_MAX: batch"),
        ("#define CHUNK 12", "s->budget = CHUNK;", "CHUNK: batch"),
        ("#define REFILL_BATCH 12", "refill(s, REFILL_BATCH);", "REFILL_BATCH: batch"),
        ("#define DECAY 12", "s->load = s->load / DECAY;", "DECAY: scale"),
        ("#define DECAY 3", "s->load -= s->load >> DECAY;", "DECAY: scale"),
        ("enum { TOP_DEPTH = 12 };", "if (s->depth > TOP_DEPTH) kick(s);", "TOP_DEPTH: threshold"),
        ("static const int top_depth = 12;", "if (s->depth > top_depth) kick(s);", "top_depth: threshold"),
        ("", "if (s->backlog > 12) kick(s);", "12: threshold"),
        ("", "while (retries++ < 12) work(s);", "12: batch"),
        ("", "mod_timer(&s->t, jiffies + msecs_to_jiffies(12));", "12: interval"),
        ("", "s->timeout = HZ / 12;", "12: interval"),
        ("", "s->batch = 12;", "12: batch"),
        ("", "WRITE_ONCE(s->threshold, s->rcvbuf >> 2);", "2: scale"),
    ] {
        let text = function(definition, body);
        assert_eq!(told(&text), [expected], "{text}");
    }
}

#[test]
fn what_is_meaning_is_left_out() {
    for (definition, body) in [
        ("#define MAX_DEPTH 12", "switch (s->depth) { case MAX_DEPTH: kick(s); }"),
        ("#define MAX_DEPTH 12\nint slots[MAX_DEPTH];", "if (s->depth > MAX_DEPTH) kick(s);"),
        ("#define MAX_DEPTH 12\nstruct t { int depth : MAX_DEPTH; };", "if (s->depth > MAX_DEPTH) kick(s);"),
        ("#define BUSY_LIMIT 12", "s->flags |= BUSY_LIMIT; if (s->depth > BUSY_LIMIT) kick(s);"),
        ("#define BUSY_LIMIT 12", "if (s->flags & BUSY_LIMIT) kick(s);"),
        ("#define FIRST_MAX 12", "s->count = table[FIRST_MAX];"),
        ("#define MAX_COUNT 12", "writel(MAX_COUNT, s->count);"),
        ("#define COUNT_MAX 12", "s->count = ALIGN(s->count, COUNT_MAX);"),
        ("#define IRQ_MASK 12", "if (s->count > IRQ_MASK) kick(s);"),
        ("#define DEPTH_REG 12", "if (s->depth > DEPTH_REG) kick(s);"),
        ("#define MAX_COUNT 0x1f", "if (s->count > MAX_COUNT) kick(s);"),
        ("#define NO_LIMIT 0", "if (s->count > NO_LIMIT) kick(s);"),
        ("#define NEGATIVE_LIMIT (-5)", "if (s->count > NEGATIVE_LIMIT) kick(s);"),
        ("#define UNUSED_BATCH 12", "work(s);"),
        ("#define POLL_DELAY delays[2]", "s->delay = POLL_DELAY;"),
        ("#define BATCH_BYTES sizeof(struct s)", "s->batch = BATCH_BYTES;"),
        ("", "if (s->version > 12) kick(s);"),
        ("", "if (s->type == 12) kick(s);"),
        ("", "memset(s->name, 0, 12);"),
        ("", "s->p = kmalloc(12, GFP_KERNEL);"),
        ("", "s->load = s->load / 1000;"),
        ("", "s->load = s->load >> 16;"),
        ("", "if (s->load > 255) kick(s);"),
        ("", "if (s->load > 0x20) kick(s);"),
        ("", "udelay(12);"),
        ("", "return -12;"),
    ] {
        let text = function(definition, body);
        assert_eq!(told(&text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn values_are_followed_through_names_made_of_them() {
    let header = "#define UNIT_BATCH 16\n#define WHOLE (4 * UNIT_BATCH)\n#define over(x) ((x)->count > WHOLE)\n";
    let unit = "#include \"a.h\"\nint f(struct s *s)\n{\n\treturn s->pending > WHOLE;\n}\n";
    let (_dir, tree) = tree(&[("mm/a.h", header), ("mm/a.c", unit)]);
    let found = scan(&tree, &Wanted { paths: vec!["mm/a.h".into()] }, &()).unwrap();
    let shown: Vec<_> = found.iter().map(|c| (c.name.clone().unwrap(), c.value, c.uses.len())).collect();
    let expected = |name: &str, value, uses| (name.to_owned(), Some(value), uses);
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert!(shown.contains(&expected("UNIT_BATCH", 16, 2)) && shown.contains(&expected("WHOLE", 64, 2)), "{shown:?}");
}

#[test]
fn a_name_that_several_files_define_is_each_of_them() {
    let unit = |value: u32| function(&format!("#define MAX_BATCH {value}"), "s->budget = MAX_BATCH;");
    let (_dir, tree) = tree(&[("mm/a.c", &unit(12)), ("mm/b.c", &unit(13))]);
    let found = scan(&tree, &Wanted::default(), &()).unwrap();
    let sites: Vec<_> = found.iter().map(|c| (c.site.as_str(), c.uses.len())).collect();
    assert_eq!(sites, [("mm/a.c:L1:12:0", 1), ("mm/b.c:L1:13:0", 1)]);
}

#[test]
fn drivers_of_devices_come_after_the_core() {
    let text = function("#define MAX_BATCH 12", "s->budget = MAX_BATCH;");
    let (_dir, tree) = tree(&[("mm/a.c", &text), ("drivers/x/a.c", &text)]);
    let found = scan(&tree, &Wanted::default(), &()).unwrap();
    assert_eq!(found.iter().map(|c| c.place.file.as_str()).collect::<Vec<_>>(), ["mm/a.c", "drivers/x/a.c"]);
    assert!(found[0].score >= found[1].score + 20);
}

#[test]
fn paths_that_are_not_there_or_not_compiled_are_refused() {
    let (_dir, tree) = tree(&[("mm/a.c", ""), ("mm/b.h", "")]);
    let scanned = |path: &str| scan(&tree, &Wanted { paths: vec![path.into()] }, &());
    assert!(matches!(scanned("mm/missing.c"), Err(crate::ConstError::NoSuchFile { .. })));
    assert!(matches!(scanned("mm/b.h"), Err(crate::ConstError::NotCompiled { .. })));
    assert_eq!(scanned("mm/").unwrap(), []);
}

/// One line for each candidate, as a person would compare them.
fn listing(found: &[Candidate]) -> String {
    let line = |c: &Candidate| {
        let reasons: Vec<_> = c.reasons.iter().map(|r| format!("{}: {}", r.kind.word(), r.because)).collect();
        let name = c.name.as_deref().unwrap_or("-");
        let comment = c.comment.as_deref().unwrap_or("-");
        let uses: Vec<_> = c.uses.iter().map(|u| u.line.to_string()).collect();
        format!(
            "{} {} {name} ({}) = {:?}; lines {}\n    {}\n    {comment}",
            c.score,
            c.site,
            c.kind.word(),
            c.value,
            uses.join(" "),
            reasons.join("; ")
        )
    };
    found.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_whole_source_is_listed() {
    insta::assert_snapshot!(listing(&scan_text(include_str!("fixture.c"))));
}

#[test]
fn what_is_listed_can_be_built() {
    let text = "#define A_BATCH\t16 /* 16 */\n#define B_DELAY (HZ / 5)\n#define C_LIMIT min(8, 16)\n#define D_BATCH \\\n\t(3 * 4)\n\
                enum { E_BATCH = 7, F_BATCH = 7 };\nstatic const int g_batch = 2 * 3;\n#define H_DELAY msecs_to_jiffies(20)\nint f(struct s *s)\n{\n\ts->batch = 7; s->budget = 7;\n\
                \tstart_batch(s, A_BATCH, B_DELAY, C_LIMIT, D_BATCH, E_BATCH, F_BATCH, g_batch, H_DELAY);\n}\n";
    let (_dir, tree) = tree(&[("mm/a.c", text)]);
    let found = scan(&tree, &Wanted::default(), &()).unwrap();
    assert_eq!(found.len(), 10, "{}", listing(&found));
    found.iter().for_each(|candidate| can_be_built(tree.root(), candidate));
}

/// Whether the name of a candidate leads back to it.
#[track_caller]
fn can_be_built(tree: &Path, candidate: &Candidate) {
    let sites = site::find(tree, &Query::parse(&candidate.site).unwrap()).unwrap();
    let right = sites.iter().any(|site| {
        site.file == candidate.place.file
            && site.line == candidate.place.line
            && site.text.trim_matches(['(', ')']) == candidate.text.trim_matches(['(', ')'])
            && (site.name.is_none() || site.name == candidate.name || candidate.kind == SiteKind::Literal)
    });
    assert!(right, "{candidate:?} is not {sites:?}");
}

/// The prepared source in the cache, if it is there.
fn real_tree() -> Option<Tree> {
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(Into::into).or(home).map(|base| base.join("kerf"));
    let cache = std::env::var_os("KERF_CACHE").map(std::path::PathBuf::from).or(base)?;
    let only = |directory: std::path::PathBuf| {
        let mut entries: Vec<_> = std::fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path()).collect();
        entries.retain(|path| path.is_dir());
        entries.sort();
        entries.pop()
    };
    let tree = Tree::open(&only(only(cache.join("sources"))?)?).ok();
    if tree.is_none() {
        println!("skipped: no prepared kernel source in the cache; `kerf lab fetch --source` puts it there");
    }
    tree
}

#[test]
fn known_constants_of_the_kernel_are_listed() {
    let Some(tree) = real_tree() else { return };
    let paths = ["block/blk.h", "kernel/softirq.c", "mm/shrinker.c", "net/ipv4/tcp_cubic.c", "fs/btrfs/discard.c"];
    let found = scan(&tree, &Wanted { paths: paths.map(Into::into).to_vec() }, &()).unwrap();
    for (name, value) in [
        ("BLK_MAX_REQUEST_COUNT", 32),
        ("BLK_PLUG_FLUSH_SIZE", 131_072),
        ("MAX_SOFTIRQ_RESTART", 10),
        // `msecs_to_jiffies(2)`
        ("MAX_SOFTIRQ_TIME", 2),
        ("SHRINK_BATCH", 128),
        ("HYSTART_DELAY_MIN", 4000),
        ("HYSTART_MIN_SAMPLES", 8),
        ("BTRFS_DISCARD_MAX_IOPS", 1000),
    ] {
        let candidate = found.iter().find(|c| c.name.as_deref() == Some(name));
        let candidate = candidate.unwrap_or_else(|| panic!("{name} is not listed:\n{}", listing(&found)));
        assert_eq!(candidate.value, Some(value), "{name}");
        assert!(candidate.score >= reasons::LIKELY, "{candidate:?}");
    }
    found.iter().for_each(|candidate| can_be_built(tree.root(), candidate));
}
