//! Which functions a non-maskable interrupt can run: nothing stops one while text changes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use iced_x86::{Decoder, DecoderOptions, FlowControl};
use kerf_image::Image;

/// Functions that end the machine's normal life: what runs after them is no reason to refuse a constant.
const ENDS: [&str; 14] = [
    "panic",
    "nmi_panic",
    "die",
    "oops_exit",
    "oops_end",
    "_printk",
    "vprintk",
    "printk",
    "dump_stack",
    "dump_stack_lvl",
    "show_regs",
    "__warn",
    "warn_slowpath_fmt",
    "crash_kexec",
];

/// Functions that no NMI gets to although calls lead there. Slab and page allocator must not be used in one (they hold
/// per-CPU locks that the interrupted code may hold), and a sampler never drops the last reference to a page: it took its
/// own with interrupts disabled, and whoever unmaps the page waits for this CPU and holds one meanwhile
/// (`perf_virt_to_phys`, kernel/events/core.c).
const NEVER: [&str; 12] = [
    "__folio_put",
    "free_unref_folios",
    "kfree",
    "kvfree",
    "vfree",
    "kmem_cache_free",
    "kfree_sensitive",
    "__kmalloc_noprof",
    "kmem_cache_alloc_noprof",
    "__free_pages",
    "free_pages",
    "free_unref_page",
];

/// Why one of the functions counts as reached from an NMI; `None` if none is.
pub fn reached(image: &Image, functions: &BTreeSet<&str>) -> Option<String> {
    let mut from: BTreeMap<u64, u64> = BTreeMap::new();
    let mut pending: VecDeque<u64> = VecDeque::new();
    for symbol in image.functions().filter(|s| is_root(&s.name)) {
        from.insert(symbol.address, symbol.address);
        pending.push_back(symbol.address);
    }
    let name = |address: u64| image.function_at(address).map_or_else(String::new, |s| s.name.to_string());
    while let Some(address) = pending.pop_front() {
        let Some(symbol) = image.function_at(address).filter(|s| !NEVER.contains(&&*s.name)) else { continue };
        let callees = callees(image, address, symbol.size.unwrap_or(0));
        // What sleeps or takes an ordinary lock cannot run in an NMI, whatever calls it on another path.
        if callees.iter().any(|c| image.function_at(*c).is_some_and(|s| blocks(&s.name))) {
            continue;
        }
        if functions.contains(&*symbol.name) {
            let mut path = vec![symbol.name.to_string()];
            let mut at = address;
            while let Some(above) = from.get(&at).filter(|a| **a != at) {
                path.push(name(*above));
                at = *above;
            }
            path.reverse();
            return Some(format!("{} runs in NMI context ({})", symbol.name, path.join(" → ")));
        }
        if ends(&symbol.name) {
            continue;
        }
        for callee in callees {
            from.entry(callee).or_insert_with(|| {
                pending.push_back(callee);
                address
            });
        }
    }
    None
}

fn is_root(name: &str) -> bool {
    matches!(
        name,
        "exc_nmi"
            | "default_do_nmi"
            | "nmi_handle"
            | "perf_event_overflow"
            | "perf_sample_event_took"
            | "perf_event_nmi_handler"
    ) || name.ends_with("_nmi_handler") && !name.starts_with("trace_")
        || name.ends_with("_nmi_callback")
        || name.ends_with("pmu_handle_irq")
        || name.starts_with("perf_event_output_")
}

fn ends(name: &str) -> bool {
    ENDS.contains(&name) || name.starts_with("printk") || name.contains("warn") || name.contains("panic")
}

/// Functions that sleep or wait for a lock that the interrupted code may hold.
fn blocks(name: &str) -> bool {
    let lock = ["_lock", "_lock_irq", "_lock_irqsave", "_lock_bh"].iter().any(|s| name.ends_with(s));
    // RCU's read lock waits for nobody.
    let waits = (lock || name.starts_with("_raw_spin_lock")) && !name.contains("rcu") && !name.contains("trylock");
    let sleeps = ["mutex_lock", "down_read", "down_write", "wait_for_completion", "schedule", "io_schedule"];
    waits
        || matches!(name, "__cond_resched" | "__might_sleep" | "__might_resched" | "__schedule")
        || sleeps.iter().any(|s| name == *s || name.starts_with(&format!("{s}_")))
}

/// Addresses of the functions that a function calls or jumps to directly.
fn callees(image: &Image, address: u64, size: u64) -> BTreeSet<u64> {
    let Some(bytes) = image.bytes(address, size as usize) else { return BTreeSet::new() };
    let inside = address..address + size;
    Decoder::with_ip(64, &bytes, address, DecoderOptions::NONE)
        .into_iter()
        .filter(|i| {
            matches!(
                i.flow_control(),
                FlowControl::Call | FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
            )
        })
        .map(|i| i.near_branch_target())
        .filter(|t| *t != 0 && !inside.contains(t))
        .filter(|t| image.function_at(*t).is_some_and(|s| s.address == *t))
        .collect()
}
