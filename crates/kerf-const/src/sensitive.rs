//! Constants that must not change while the kernel runs: what their value reaches.

use std::collections::BTreeSet;

use iced_x86::{FlowControl, OpKind, Register};
use kerf_image::Image;

use crate::align::Slot;
use crate::analyse::Analysis;
use crate::analyse::Template;
use crate::code::{Function, Place};
use crate::span::accessed;

/// Sections whose code no tracer or prober may touch.
const UNTOUCHABLE: [&str; 4] = [".noinstr.text", ".entry.text", ".kprobes.text", ".irqentry.text"];

/// Sections whose code is gone once the kernel has started.
const DISCARDED: [&str; 4] = [".init.text", ".exit.text", ".head.text", ".meminit.text"];

/// How many instructions the value is followed after its span.
const MOST_STEPS: usize = 400;

/// Why the constant is sensitive; `None` if nothing speaks against changing it.
pub fn check(analysis: &Analysis, image: &Image) -> Option<String> {
    for template in &analysis.templates {
        let section = &template.function.section;
        let name = &template.function.name;
        if UNTOUCHABLE.iter().any(|s| section.starts_with(s)) {
            return Some(format!("{name} lies in {section}, which nothing may instrument or patch"));
        }
        if DISCARDED.iter().any(|s| section.starts_with(s)) {
            return Some(format!("{name} lies in {section}, which is freed once the kernel has started"));
        }
        if let Some(reason) = reaches(template) {
            return Some(reason);
        }
    }
    let functions: BTreeSet<&str> = analysis.templates.iter().map(|t| t.function.name.as_str()).collect();
    crate::nmi::reached(image, &functions)
}

/// Follows the value through registers from each number of a template to what must not see it.
fn reaches(template: &Template) -> Option<String> {
    let function = &template.function;
    for (index, slot) in template.numbers.keys() {
        let insn = &function.code[*index].insn;
        if *slot == Slot::Displacement && insn.mnemonic() != iced_x86::Mnemonic::Lea {
            return Some(format!("{}+{:#x}: its value is part of an address", function.name, insn.ip()));
        }
        if function.code[*index].rewritten {
            let why = "the kernel rewrites the instruction of its number when it starts";
            return Some(format!("{}+{:#x}: {why}", function.name, insn.ip()));
        }
        if insn.has_lock_prefix() {
            return Some(format!("{}+{:#x}: the number belongs to a locked instruction", function.name, insn.ip()));
        }
        let written: BTreeSet<Register> =
            if insn.op0_kind() == OpKind::Register { accessed(insn, true) } else { BTreeSet::new() };
        let written = written.into_iter().filter(|r| *r == insn.op0_register().full_register()).collect();
        if matches!(insn.mnemonic(), iced_x86::Mnemonic::Cmp | iced_x86::Mnemonic::Test) {
            continue;
        }
        if let Some(reason) = follow(function, index + 1, written) {
            return Some(reason);
        }
    }
    None
}

/// Registers that carry arguments.
const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];
/// Registers that a call does not keep.
const CLOBBERED: [Register; 9] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
];

fn follow(function: &Function, start: usize, tainted: BTreeSet<Register>) -> Option<String> {
    let mut pending = vec![(start, tainted)];
    let mut seen: BTreeSet<(usize, BTreeSet<Register>)> = BTreeSet::new();
    while let Some((index, mut tainted)) = pending.pop() {
        if tainted.is_empty() || seen.len() > MOST_STEPS || !seen.insert((index, tainted.clone())) {
            continue;
        }
        let Some(item) = function.code.get(index) else { continue };
        let insn = &item.insn;
        let at = || format!("{}+{:#x}", function.name, insn.ip());
        let indexed = |r: Register| r != Register::None && tainted.contains(&r.full_register());
        let uses_memory = (0..insn.op_count()).any(|n| insn.op_kind(n) == OpKind::Memory)
            && insn.mnemonic() != iced_x86::Mnemonic::Lea;
        if uses_memory && (indexed(insn.memory_index()) || indexed(insn.memory_base())) {
            return Some(format!("{}: its value becomes part of an address", at()));
        }
        match insn.flow_control() {
            FlowControl::Call => {
                if let Some(Place::Symbol(callee, _)) = item.references.first().map(|r| &r.place)
                    && let Some(argument) = size_argument(callee)
                    && tainted.contains(&argument)
                {
                    return Some(format!("{}: its value is the size of an allocation ({callee})", at()));
                }
                tainted.retain(|r| !CLOBBERED.contains(r));
                pending.push((index + 1, tainted));
                continue;
            }
            FlowControl::IndirectCall => {
                tainted.retain(|r| !CLOBBERED.contains(r));
                pending.push((index + 1, tainted));
                continue;
            }
            FlowControl::Return | FlowControl::IndirectBranch | FlowControl::Exception | FlowControl::Interrupt => {
                continue;
            }
            _ => {}
        }
        let (read, written) = (accessed(insn, false), accessed(insn, true));
        let carries = read.iter().any(|r| tainted.contains(r)) && !uses_memory_load(insn);
        let compares = matches!(insn.mnemonic(), iced_x86::Mnemonic::Cmp | iced_x86::Mnemonic::Test);
        let conditional = format!("{:?}", insn.mnemonic()).starts_with("Cmov");
        for r in written {
            if carries && !compares {
                tainted.insert(r);
            } else if !conditional && !compares {
                tainted.remove(&r);
            }
        }
        let branch = item.branch_target().and_then(|t| crate::align::landing(function, t));
        if let Some(target) = branch {
            pending.push((target, tainted.clone()));
        }
        if insn.flow_control() != FlowControl::UnconditionalBranch {
            pending.push((index + 1, tainted));
        }
    }
    None
}

fn uses_memory_load(insn: &iced_x86::Instruction) -> bool {
    matches!(
        insn.mnemonic(),
        iced_x86::Mnemonic::Mov | iced_x86::Mnemonic::Movzx | iced_x86::Mnemonic::Movsx | iced_x86::Mnemonic::Movsxd
    ) && insn.op1_kind() == OpKind::Memory
}

/// The register that carries the size, for functions that allocate.
fn size_argument(callee: &str) -> Option<Register> {
    let stem = callee.trim_start_matches('_').split("_noprof").next().unwrap_or(callee);
    let first = [
        "kmalloc",
        "kmalloc_node",
        "kzalloc",
        "kvmalloc",
        "kvmalloc_node",
        "vmalloc",
        "vzalloc",
        "kmalloc_large",
        "kvmalloc_array",
        "alloc_percpu",
        "kmalloc_large_node",
        "kmalloc_node_track_caller",
        "vmalloc_user",
        "vmalloc_node",
    ];
    if first.contains(&stem) {
        return Some(ARGUMENTS[0]);
    }
    match stem {
        "krealloc" | "kvrealloc" => Some(ARGUMENTS[1]),
        "kmalloc_cache" | "kmem_cache_create" | "kmem_cache_create_args" => Some(ARGUMENTS[1]),
        "alloc_pages" | "get_free_pages" | "folio_alloc" => Some(ARGUMENTS[1]),
        _ => None,
    }
}
