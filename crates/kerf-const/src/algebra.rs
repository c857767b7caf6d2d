//! Instructions in readable algebra: `eax ← eax + 2V`.

use iced_x86::{Formatter, GasFormatter, Instruction, IntelFormatter, Mnemonic, OpKind, Register};

/// One instruction as an assignment. `immediate` and `displacement` stand in the place of the numbers, if given.
pub fn assignment(insn: &Instruction, immediate: Option<&str>, displacement: Option<&str>) -> String {
    let operand = |n: u32| operand(insn, n, immediate, displacement);
    let (a, b, c) = (|| operand(0), || operand(1), || operand(2));
    let binary = |sign: &str| format!("{} ← {} {sign} {}", a(), a(), b());
    match insn.mnemonic() {
        Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd => format!("{} ← {}", a(), b()),
        Mnemonic::Lea => format!("{} ← {}", a(), address(insn, displacement)),
        Mnemonic::Add => binary("+"),
        Mnemonic::Sub => binary("−"),
        Mnemonic::And => binary("&"),
        Mnemonic::Or => binary("|"),
        Mnemonic::Xor => binary("^"),
        Mnemonic::Shl => binary("<<"),
        Mnemonic::Shr => binary(">>"),
        Mnemonic::Sar => binary(">>ₛ"),
        Mnemonic::Imul if insn.op_count() == 3 => format!("{} ← {} · {}", a(), b(), c()),
        Mnemonic::Imul if insn.op_count() == 2 => binary("·"),
        Mnemonic::Cmp => format!("flags ← {} − {}", a(), b()),
        Mnemonic::Test => format!("flags ← {} & {}", a(), b()),
        Mnemonic::Bt => format!("flags ← bit {} of {}", b(), a()),
        Mnemonic::Push => format!("push {}", a()),
        other => {
            let operands: Vec<String> = (0..insn.op_count()).map(operand).collect();
            format!("{} {}", format!("{other:?}").to_lowercase(), operands.join(", "))
        }
    }
}

/// A multiplication or division that an instruction stands for, with its factor and addend as texts.
pub fn operation(insn: &Instruction, slot: crate::align::Slot, factor: &str, addend: Option<&str>) -> String {
    let Some(operation) = crate::operation::placed(insn, slot) else { return assignment(insn, None, None) };
    let (target, source) = (register(operation.target), register(operation.source));
    match operation.kind {
        crate::operation::Kind::Divide => format!("{target} ← ⌊{source} / {factor}⌋"),
        crate::operation::Kind::Multiply => {
            let addend = match addend {
                Some(text) => format!(" + {text}"),
                None if operation.addend != 0 => format!(" + {}", number(operation.addend)),
                None => String::new(),
            };
            format!("{target} ← {source} · {factor}{addend}").replace("+ −", "− ")
        }
    }
}

fn register(r: Register) -> String {
    format!("{r:?}").to_lowercase()
}

fn operand(insn: &Instruction, n: u32, immediate: Option<&str>, displacement: Option<&str>) -> String {
    match insn.op_kind(n) {
        OpKind::Register => register(insn.op_register(n)),
        OpKind::Memory => {
            let segment = match insn.memory_segment() {
                s @ (Register::GS | Register::FS) => format!("{}:", register(s)),
                _ => String::new(),
            };
            format!("{segment}[{}]", address(insn, displacement))
        }
        kind if crate::align::is_immediate(kind) => match immediate {
            Some(text) => text.to_string(),
            None => number(insn.try_immediate(n).unwrap_or(0) as i64),
        },
        _ => String::from("?"),
    }
}

fn number(value: i64) -> String {
    if value.unsigned_abs() < 10 {
        value.to_string()
    } else if value < 0 {
        format!("−{:#x}", value.unsigned_abs())
    } else {
        format!("{value:#x}")
    }
}

fn address(insn: &Instruction, displacement: Option<&str>) -> String {
    let mut parts = Vec::new();
    let (base, index) = (insn.memory_base(), insn.memory_index());
    if base != Register::None && base != Register::RIP {
        parts.push(register(base));
    }
    if index != Register::None {
        let scale = insn.memory_index_scale();
        parts.push(if scale == 1 { register(index) } else { format!("{scale}{}", register(index)) });
    }
    match displacement {
        Some(text) => parts.push(text.to_string()),
        None if insn.memory_displacement64() != 0 || parts.is_empty() => {
            parts.push(number(insn.memory_displacement64() as i64))
        }
        None => {}
    }
    parts.join(" + ").replace("+ −", "− ")
}

/// An instruction as assembler text, AT&T as the kernel writes it or Intel.
pub fn disassemble(insn: &Instruction, intel: bool) -> String {
    let mut text = String::new();
    if intel {
        IntelFormatter::new().format(insn, &mut text);
    } else {
        GasFormatter::new().format(insn, &mut text);
    }
    text
}
