//! Entries of the real kernel: what is proved stays proved, and whatever is corrupted is refused.
//!
//! Needs the prepared source and the image that `kerf lab fetch --source` puts into the cache; says so and passes where
//! they are missing.

use std::path::PathBuf;
use std::sync::OnceLock;

use kerf_const::apply::{Choice, Running, Setting, derived, live_entry};
use kerf_const::build::{Input, Reach, Recheck, build, certify_value, verify};
use kerf_const::entry::{Class, Entry, Interval, Span};
use kerf_const::form::Form;
use kerf_const::site::Query;
use kerf_const::tree::Tree;
use kerf_image::Image;
use kerf_live::{Change, DetourInstruction, Location};

struct Kernel {
    tree: Tree,
    image: Image,
    modules: PathBuf,
}

impl Kernel {
    fn input(&self) -> Input<'_> {
        Input { tree: &self.tree, image: &self.image, modules: Some(&self.modules) }
    }

    fn build(&self, name: &str) -> Entry {
        build(&self.input(), &Query::parse(name).unwrap()).unwrap().remove(0)
    }
}

/// The kernel of the cache, if it is there.
fn kernel() -> Option<&'static Kernel> {
    static KERNEL: OnceLock<Option<Kernel>> = OnceLock::new();
    let found = KERNEL.get_or_init(|| {
        let home = std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache"));
        let cache = std::env::var_os("KERF_CACHE").map(PathBuf::from).or_else(|| {
            let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home)?;
            Some(base.join("kerf"))
        })?;
        let only = |directory: PathBuf| {
            let mut entries: Vec<PathBuf> = std::fs::read_dir(directory).ok()?.flatten().map(|e| e.path()).collect();
            entries.retain(|p| p.is_dir());
            entries.sort();
            entries.pop()
        };
        let root = only(cache.join("kernels"))?;
        let release = root.file_name()?.to_str()?.to_string();
        let source = only(only(cache.join("sources"))?)?;
        Some(Kernel {
            tree: Tree::open(&source).ok()?,
            image: Image::open(&root.join("boot").join(format!("vmlinuz-{release}"))).ok()?,
            modules: root.join("lib/modules").join(release),
        })
    });
    if found.is_none() {
        println!("skipped: no prepared kernel source in the cache; `kerf lab fetch --source` puts it there");
    }
    found.as_ref()
}

fn softirq_limit() -> Option<(&'static Kernel, Entry)> {
    static ENTRY: OnceLock<Entry> = OnceLock::new();
    let kernel = kernel()?;
    Some((kernel, ENTRY.get_or_init(|| kernel.build("MAX_SOFTIRQ_RESTART")).clone()))
}

#[test]
fn a_limit_is_proved_over_reshuffled_registers() {
    let Some((kernel, entry)) = softirq_limit() else { return };
    assert_eq!(entry.class, Class::Proved, "{}", entry.reason);
    assert!(
        entry.certifies(3) && entry.certifies(10) && entry.certifies(11) && entry.certifies(300),
        "{:?}",
        entry.domain
    );
    let span = &entry.spans[0];
    assert_eq!((span.function.as_str(), span.iv.len()), ("handle_softirqs", 1));
    assert_eq!(span.iv[0].form, Form::Affine { a: 1, b: 0 });
    assert!(span.proof.smt && span.proof.native > 0 && span.proof.held_out > 0, "{:?}", span.proof);
    verify(&kernel.input(), &entry).unwrap();
    certify_value(&kernel.input(), &entry, 77).unwrap();
    // The compiler makes no loop at all of 1, and one without a counter of 2: what is not proved is not in the domain.
    let proved = certify_value(&kernel.input(), &entry, 2).is_ok();
    assert_eq!(entry.certifies(2), proved, "{:?}", entry.domain);
    certify_value(&kernel.input(), &entry, 1).unwrap();
}

/// More values than are compiled at a time, over all units that use the constant.
#[test]
fn many_values_are_held_against_the_compiler() {
    let Some((kernel, entry)) = softirq_limit() else { return };
    let entry = &entry;
    let values: Vec<i128> = (0..10).map(|n| 400 - 37 * n).collect();
    let judge = |entry: &Entry, first: &[i128]| {
        let mut recheck = Recheck::new(&kernel.input(), entry, Reach::Users, first).unwrap();
        assert_eq!(recheck.units().collect::<Vec<_>>(), ["kernel/softirq.c"]);
        recheck.judge(&values).unwrap()
    };
    let agreeing: Vec<(i128, Result<(), String>)> = values.iter().map(|value| (*value, Ok(()))).collect();
    assert_eq!(judge(entry, &[]), agreeing);
    // Values that were compiled along with the base are judged like the others.
    assert_eq!(judge(entry, &values[..3]), agreeing);
    let mut wrong = entry.clone();
    wrong.spans[0].iv[0].form = Form::Affine { a: 2, b: -10 };
    assert!(judge(&wrong, &[]).iter().all(|(_, verdict)| verdict.is_err()));
}

/// Each corruption has to be refused, for its own reason.
#[test]
fn corrupted_entries_are_refused() {
    let Some((kernel, entry)) = softirq_limit() else { return };
    let refused = |what: &str, corrupt: &dyn Fn(&mut Entry), why: &str| {
        let mut copy = entry.clone();
        corrupt(&mut copy);
        let error = verify(&kernel.input(), &copy).expect_err(what).to_string();
        assert!(error.contains(why), "{what}: {error}");
    };
    refused("another expression", &|e| e.spans[0].iv[0].form = Form::Affine { a: 1, b: 1 }, "at the deployed value");
    // It meets the deployed value, so only the compiler can tell.
    refused("another slope", &|e| e.spans[0].iv[0].form = Form::Affine { a: 2, b: -10 }, "the compiler");
    refused("another update", &|e| e.spans[0].updates[0].offset += 1, "the updates are not where the numbers are");
    refused("another start", &|e| e.spans[0].start += 1, "outside its span");
    refused("another end", &|e| e.spans[0].end += 1, "not as long as its bytes");
    refused("another offset", &|e| e.spans[0].iv[0].offset += 1, "the updates are not where the numbers are");
    refused("another function", &|e| e.spans[0].function_offset += 16, "other bytes");
    refused("a hidden span", &|e| e.spans.clear(), "other code");
}

#[test]
fn a_wider_domain_is_refused() {
    let Some(kernel) = kernel() else { return };
    let text = std::fs::read_to_string(kernel.tree.root().join("net/ipv4/tcp_cubic.c")).unwrap();
    let line = text.lines().position(|line| line.contains("delay_min >> 3")).unwrap() + 1;
    let mut entry = kernel.build(&format!("net/ipv4/tcp_cubic.c:L{line}:3:0"));
    // A shift by 32 is none.
    assert!(entry.class == Class::Proved && entry.certifies(31) && !entry.certifies(32), "{:?}", entry.domain);
    entry.domain = vec![Interval { min: 1, max: 32 }];
    let error = verify(&kernel.input(), &entry).unwrap_err().to_string();
    assert!(error.contains("with 32 "), "{error}");
}

#[test]
fn what_cannot_be_set_lands_in_its_class() {
    let Some(kernel) = kernel() else { return };
    let class = |name: &str| {
        let entry = kernel.build(name);
        (entry.class, entry.reason)
    };
    let (found, reason) = class("PAGEVEC_SIZE");
    assert_eq!(found, Class::Layout, "{reason}");
    // The first unit that uses it only compares with it; another has an array of that length.
    let (found, reason) = class("SWAP_CLUSTER_MAX");
    assert_eq!(found, Class::Layout, "{reason}");
    assert!(reason.contains("swap_iocb"), "{reason}");
    let (found, reason) = class("RPC_DEF_SLOT_TABLE");
    assert_eq!(found, Class::Data, "{reason}");
    assert!(reason.contains("udp_slot_table_entries"), "{reason}");
    let (found, reason) = class("tlb_single_page_flush_ceiling");
    assert_eq!(found, Class::Data, "{reason}");
    let (found, reason) = class("NR_ACCUMULATED_SAMPLES");
    assert_eq!(found, Class::Sensitive, "{reason}");
    assert!(reason.contains("NMI"), "{reason}");
    let text = std::fs::read_to_string(kernel.tree.root().join("net/ipv4/tcp.c")).unwrap();
    let line = text.lines().position(|line| line.contains("max_wshare = min(4UL")).unwrap() + 1;
    let (found, reason) = class(&format!("net/ipv4/tcp.c:L{line}:4:0"));
    assert_eq!(found, Class::Absent, "{reason}");
    assert!(reason.contains("tcp_init lies in .init.text"), "{reason}");
}

#[test]
fn times_in_milliseconds_become_ceilings() {
    let Some(kernel) = kernel() else { return };
    let entry = kernel.build("MAX_SOFTIRQ_TIME");
    assert_eq!((entry.class, entry.value), (Class::Proved, 2), "{}", entry.reason);
    let form = entry.spans[0].iv[0].form;
    assert_eq!((form.apply(2), form.apply(3), form.apply(5)), (Some(1), Some(1), Some(2)), "{form}");
}

/// The forms of a span's numbers, and whether each multiplies or divides together with others.
fn forms(span: &Span) -> Vec<(Form, bool)> {
    span.iv.iter().map(|iv| (iv.form, iv.chained)).collect()
}

/// What stands in the place of each location for a value.
fn detours(entry: &Entry, value: i128) -> Vec<Vec<DetourInstruction>> {
    let live = live_entry(entry, Setting::Value(value), Choice::Cheapest, &Running::default()).unwrap();
    let detour = |location: Location| match location.change {
        Change::Detour { instructions } => instructions,
        other => panic!("{other:?}"),
    };
    live.locations.into_iter().map(detour).collect()
}

/// How many instructions hold a number in a field of 32 bits.
fn holding(detour: &[DetourInstruction], number: u8) -> usize {
    let holds = |bytes: &[u8]| bytes.windows(4).any(|field| field == [number, 0, 0, 0]);
    detour.iter().filter(|insn| holds(&insn.bytes)).count()
}

/// `lea (x,x,4), y; lea 99(y,y,4), y` multiplies by 25: the first of both by V then, the other by 1.
#[test]
fn a_product_of_several_instructions_is_one() {
    let Some(kernel) = kernel() else { return };
    let entry = kernel.build("INUSE_ADJ_STEP_PCT");
    assert_eq!((entry.class, entry.spans.len()), (Class::Proved, 1), "{}", entry.reason);
    assert!(entry.certifies(26) && entry.certifies(100), "{:?}", entry.domain);
    assert_eq!(forms(&entry.spans[0]), [(Form::Affine { a: 1, b: 0 }, true), (Form::ONE, true)]);
    assert_eq!(derived(&entry), [Form::Affine { a: 1, b: 0 }]);
    let detours = detours(&entry, 30);
    assert_eq!((detours.len(), holding(&detours[0], 30), holding(&detours[0], 1)), (1, 1, 1), "{detours:?}");
    let mut wrong = entry.clone();
    wrong.spans[0].iv[1].form = Form::Affine { a: 0, b: 2 };
    wrong.spans[0].iv[1].stock = 2;
    assert!(verify(&kernel.input(), &wrong).unwrap_err().to_string().contains("the compiler makes other code"));
}

/// `imul` by an inverse of 10 and a shift divide; a product by 10 of two instructions lies between them, with a `div` of its own.
#[test]
fn a_division_and_a_product_that_interleave_are_one_span() {
    let Some(kernel) = kernel() else { return };
    let entry = kernel.build("NUMA_PERIOD_SLOTS");
    assert_eq!((entry.class, entry.spans.len()), (Class::Proved, 2), "{}", entry.reason);
    assert!(entry.certifies(7) && entry.certifies(30), "{:?}", entry.domain);
    let (whole, rounded) = (Form::Affine { a: 1, b: 0 }, Form::Affine { a: 1, b: -1 });
    let expected = [(rounded, false), (Form::ONE, true), (whole, true), (Form::ONE, true), (whole, true)];
    assert_eq!(forms(&entry.spans[0]), expected);
    let detour = &detours(&entry, 30)[0];
    // lea 29(%rcx), %esi; the product and the divisor; what the others multiply by.
    assert_eq!(detour[0].bytes, [0x8d, 0x71, 29]);
    assert_eq!((holding(detour, 30), holding(detour, 1)), (2, 2), "{detour:?}");
}

#[test]
fn unknown_names_come_with_suggestions() {
    let Some(kernel) = kernel() else { return };
    let query = Query::parse("MAX_SOFTIRQ_RESTRAT").unwrap();
    let error = build(&kernel.input(), &query).unwrap_err().to_string();
    assert!(error.contains("MAX_SOFTIRQ_RESTART"), "{error}");
    let query = Query::parse("kernel/softirq.c:L501:11:0").unwrap();
    let error = build(&kernel.input(), &query).unwrap_err().to_string();
    assert!(error.contains("MAX_SOFTIRQ_RESTART 10"), "{error}");
}
