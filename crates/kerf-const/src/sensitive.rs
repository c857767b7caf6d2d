//! Constants that must not change while the kernel runs: what their value reaches.

use std::collections::BTreeSet;

use iced_x86::{ConditionCode, FlowControl, OpKind, Register};
use kerf_image::Image;

use crate::align::Slot;
use crate::analyse::Analysis;
use crate::analyse::Template;
use crate::code::{Function, Place};
use crate::span::{Flow, accessed};

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

/// Why there is nothing to change any more: code that is gone once the kernel has started is all that has the number.
pub fn discarded(analysis: &Analysis) -> Option<String> {
    let gone = |template: &Template| DISCARDED.iter().any(|s| template.function.section.starts_with(s));
    let first = analysis.templates.first().filter(|_| analysis.templates.iter().all(gone))?;
    let Function { name, section, .. } = &first.function;
    Some(format!("only code that is freed once the kernel has started has it: {name} lies in {section}"))
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
    let flow = Flow::new(function);
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
        let (mut read, mut written) = (accessed(insn, false), accessed(insn, true));
        if insn.is_stack_instruction() {
            // How far the stack grows has nothing to do with what is put there.
            read.remove(&Register::RSP);
            written.remove(&Register::RSP);
        }
        if let Some(other) = least(function, &flow, index) {
            // What is no greater than a number that is not ours can be used where that number could.
            let target = insn.op0_register().full_register();
            if tainted.contains(&target) != tainted.contains(&other) {
                tainted.remove(&target);
            }
            pending.push((index + 1, tainted));
            continue;
        }
        let carries = read.iter().any(|r| tainted.contains(r)) && !uses_memory_load(insn);
        let compares = matches!(insn.mnemonic(), iced_x86::Mnemonic::Cmp | iced_x86::Mnemonic::Test);
        let conditional = is_conditional_move(insn);
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

/// Whether the instruction leaves the least of two registers in the first of them; if so, the second.
fn least(function: &Function, flow: &Flow, index: usize) -> Option<Register> {
    let insn = &function.code.get(index)?.insn;
    let greater = match insn.condition_code() {
        ConditionCode::a | ConditionCode::ae | ConditionCode::g | ConditionCode::ge => true,
        ConditionCode::b | ConditionCode::be | ConditionCode::l | ConditionCode::le => false,
        _ => return None,
    };
    let registers = |insn: &iced_x86::Instruction| {
        let both = insn.op0_kind() == OpKind::Register && insn.op1_kind() == OpKind::Register;
        both.then(|| (insn.op0_register(), insn.op1_register()))
    };
    let (target, source) = registers(insn).filter(|_| is_conditional_move(insn))?;
    // The comparison lies right before it, but for what changes neither flags nor the two registers, and nobody comes from elsewhere.
    for at in (0..index).rev().take_while(|at| !flow.targets.contains(&(at + 1))) {
        let before = &function.code[at].insn;
        if before.mnemonic() == iced_x86::Mnemonic::Cmp {
            let compared = if greater { (target, source) } else { (source, target) };
            return (registers(before)? == compared).then(|| source.full_register());
        }
        let changed = accessed(before, true);
        let ours = [target, source].iter().any(|r| changed.contains(&r.full_register()));
        if ours || before.rflags_modified() != 0 || before.flow_control() != FlowControl::Next {
            return None;
        }
    }
    None
}

/// Of what depends on a condition only these have two operands.
fn is_conditional_move(insn: &iced_x86::Instruction) -> bool {
    insn.condition_code() != ConditionCode::None && insn.op_count() == 2
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::assembled;
    use crate::form::Form;
    use std::collections::BTreeMap;

    /// What is said of the number that the first `mov` of a function puts into a register.
    fn said(text: &str) -> Option<String> {
        let numbers = BTreeMap::from([((0, Slot::Immediate), Form::Affine { a: 1, b: 0 })]);
        let (function, unexplained, chains) = (assembled(text), BTreeMap::new(), Vec::new());
        reaches(&Template { unit: 0, function, numbers, unexplained, chains })
    }

    #[test]
    fn an_index_is_sensitive() {
        let said = |text: &str| said(text).unwrap_or_default();
        assert!(said("mov $64, %eax\nmov (%rdi,%rax,8), %rcx").contains("f+0x5: its value becomes part of an address"));
        assert!(said("mov $64, %eax\nlea 1(%rax), %rdx\nmov %cl, (%rsi,%rdx)").contains("part of an address"));
    }

    #[test]
    fn what_is_pushed_makes_no_address_of_the_stack_pointer() {
        assert_eq!(said("mov $64, %eax\npush %rax\nmov 8(%rsp), %rcx\npop %rax\nmov (%rax), %rax"), None);
    }

    #[test]
    fn the_least_of_the_value_and_another_is_no_index_of_ours() {
        let indexed = |compared: &str| said(&format!("mov $64, %ebx\n{compared}\nmov (%rdi,%rbx,8), %rcx"));
        assert_eq!(indexed("cmp %ebx, %ecx\ncmovbe %ecx, %ebx"), None);
        assert_eq!(indexed("cmp %ecx, %ebx\nlea 8(%rsi), %rdx\ncmova %ecx, %ebx"), None);
        for other in [
            "cmp %ebx, %ecx\ncmova %ecx, %ebx",
            "cmp %ecx, %ebx\ncmovbe %ecx, %ebx",
            "cmp %ecx, %ebx\nadd $1, %ecx\ncmova %ecx, %ebx",
            "cmp %bl, %cl\ncmovbe %ecx, %ebx",
            "cmp %ebx, %ecx\ncmove %ecx, %ebx",
            // Who jumps to the move has compared something else.
            "test %esi, %esi\njz 1f\ncmp %ebx, %ecx\n1: cmovbe %ecx, %ebx",
        ] {
            assert!(indexed(other).is_some(), "{other}");
        }
    }
}
