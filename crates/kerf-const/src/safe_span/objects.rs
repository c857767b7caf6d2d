//! Objects in memory: which member of which structure an access goes to, as far as the kernel's types and the code tell.

use std::collections::BTreeMap;

use iced_x86::{Instruction, Mnemonic, OpKind, Register, UsedMemory};
use kerf_image::btf::{Btf, Shape, TypeId};
use kerf_semantics::slice::{Pointed, Role};

use super::program::{ARGUMENTS, Function};
use super::variables::Located;

/// What a register points to, and how far into it.
type Pointers = [Option<(Target, i64)>; 16];

/// What a pointer points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// A structure.
    Structure(TypeId),
    /// What the argument in this register pointed to at the function's entry, which is no structure.
    Argument(u8),
}

/// Memory that carries a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    /// A member of a structure: the structure, offset and size there.
    Member(TypeId, u32, u32),
    /// A variable, by its address and size.
    Variable(u64, u32),
    /// A variable that every CPU has, by its offset and size.
    PerCpu(u64, u32),
    /// What an argument of a function points to: the function, and which bytes.
    Pointed(u64, Pointed),
}

/// A member or variable, with its name and how it was stored to.
#[derive(Clone, Debug)]
pub struct Known {
    /// Which.
    pub object: Object,
    /// For people: `blk_mq_hw_ctx.next_cpu_batch`.
    pub name: String,
    /// The displacement of the store, from the outermost structure.
    pub displacement: i64,
}

/// What an access goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// A known object and its name.
    Known(Object, String),
    /// One that the types do not tell.
    Unknown,
}

/// For each instruction of a function, what its registers point to.
pub struct Pointing {
    function: u64,
    known: BTreeMap<u64, Pointers>,
}

fn number(register: Register) -> Option<usize> {
    let full = register.full_register();
    (full.is_gpr() && full.size() == 8).then(|| full.number())
}

impl Pointing {
    /// Follows the types of parameters, results and variables through a function. `result` is the type that a called function returns.
    pub fn of(
        function: &Function,
        types: &Btf,
        variables: &[Located],
        result: &dyn Fn(u64) -> Option<TypeId>,
    ) -> Pointing {
        let named = Named::of(variables, types);
        let mut start: Pointers = [None; 16];
        if let Some(prototype) = &function.prototype {
            for (register, parameter) in ARGUMENTS.iter().zip(&prototype.parameters) {
                let target = parameter.and_then(|id| types.pointee(id)).map(|id| match types.shape(id) {
                    Shape::Integer { .. } | Shape::Enumeration { .. } | Shape::Pointer(_) => {
                        Target::Argument(*register as u8)
                    }
                    _ => Target::Structure(id),
                });
                start[usize::from(*register)] = target.map(|target| (target, 0));
            }
        }
        let mut known = BTreeMap::from([(function.body.entry, start)]);
        let mut open = vec![function.body.entry];
        while let Some(ip) = open.pop() {
            let (Some(insn), Some(before)) = (function.body.code.get(&ip), known.get(&ip).copied()) else { continue };
            let before = named.over(before, ip.wrapping_sub(function.body.entry));
            let after = match function.roles.get(&ip) {
                Some(Role::Call) => after_call(before, result(ip).and_then(|id| types.pointee(id))),
                Some(_) => before,
                None => after(insn, before, types),
            };
            for next in function.body.successors.get(&ip).into_iter().flatten() {
                let changed = match known.get_mut(next) {
                    Some(there) => join(there, &after),
                    None => {
                        known.insert(*next, after);
                        true
                    }
                };
                if changed {
                    open.push(*next);
                }
            }
        }
        let entry = function.body.entry;
        let known = known.into_iter().map(|(ip, known)| (ip, named.over(known, ip.wrapping_sub(entry))));
        Pointing { function: entry, known: known.collect() }
    }

    /// What a register points to before an instruction.
    pub fn register(&self, ip: u64, register: usize) -> Option<TypeId> {
        match self.pointer(ip, register)? {
            (Target::Structure(id), 0) => Some(id),
            _ => None,
        }
    }

    fn pointer(&self, ip: u64, register: usize) -> Option<(Target, i64)> {
        self.known.get(&ip)?.get(register).copied().flatten()
    }

    /// Bytes behind what a register points to.
    fn behind(&self, (target, delta): (Target, i64), offset: i64, size: u32, types: &Btf) -> Access {
        let offset = delta.wrapping_add(offset);
        match target {
            Target::Structure(composite) => {
                let field = u32::try_from(offset).ok().and_then(|offset| types.field(composite, offset));
                field.map_or(Access::Unknown, |field| {
                    let name = format!("{}.{}", field.holder_name, field.name);
                    Access::Known(Object::Member(field.holder, field.offset, size), name)
                })
            }
            Target::Argument(register) => {
                let position = ARGUMENTS.iter().position(|argument| *argument as u8 == register).unwrap_or(0) + 1;
                let name = format!("what argument {position} points to");
                Access::Known(Object::Pointed(self.function, Pointed { register, offset, size }), name)
            }
        }
    }

    /// What an argument of a call points to.
    pub fn argument(&self, ip: u64, to: &Pointed, types: &Btf) -> Access {
        let pointer = self.pointer(ip, usize::from(to.register));
        pointer.map_or(Access::Unknown, |pointer| self.behind(pointer, to.offset, to.size, types))
    }

    /// What an access of an instruction goes to.
    pub fn access(&self, insn: &Instruction, used: &UsedMemory, types: &Btf) -> Access {
        let size = used.memory_size().size() as u32;
        if used.segment() == Register::GS && used.base() == Register::None && used.index() == Register::None {
            let offset = used.displacement();
            return Access::Known(Object::PerCpu(offset, size), format!("the per-CPU variable at {offset:#x}"));
        }
        if insn.is_ip_rel_memory_operand() && used.segment() != Register::GS {
            let address = insn.ip_rel_memory_address();
            return Access::Known(Object::Variable(address, size), format!("the variable at {address:#x}"));
        }
        let pointer = number(used.base()).and_then(|register| self.pointer(insn.ip(), register));
        // Behind a pointer to a number an index says which, and that nobody knows.
        let certain = |(target, _): &(Target, i64)| {
            matches!(target, Target::Structure(_)) || used.index() == Register::None && size > 0
        };
        match pointer.filter(|_| used.segment() != Register::GS).filter(certain) {
            Some(pointer) => self.behind(pointer, used.displacement() as i64, size, types),
            None => Access::Unknown,
        }
    }
}

/// What variables say, with the structures' numbers.
struct Named<'v>(Vec<(&'v Located, TypeId)>);

impl<'v> Named<'v> {
    fn of(variables: &'v [Located], types: &Btf) -> Named<'v> {
        let mut numbers: BTreeMap<&str, Option<TypeId>> = BTreeMap::new();
        let number = |located: &'v Located| {
            let name = located.composite.as_str();
            let number = *numbers.entry(name).or_insert_with(|| types.composite_named(name));
            number.map(|number| (located, number))
        };
        Named(variables.iter().filter_map(number).collect())
    }

    /// Adds what is not known otherwise at an offset of the function.
    fn over(&self, mut pointers: Pointers, offset: u64) -> Pointers {
        for (located, number) in &self.0 {
            let slot = &mut pointers[located.register];
            if slot.is_none() && (located.range.0..located.range.1).contains(&offset) {
                *slot = Some((Target::Structure(*number), 0));
            }
        }
        pointers
    }
}

fn join(mine: &mut Pointers, theirs: &Pointers) -> bool {
    let before = *mine;
    for (mine, theirs) in mine.iter_mut().zip(theirs) {
        if *mine != *theirs {
            *mine = None;
        }
    }
    before != *mine
}

fn after_call(mut pointers: Pointers, result: Option<TypeId>) -> Pointers {
    for number in [0, 1, 2, 6, 7, 8, 9, 10, 11] {
        pointers[number] = None;
    }
    pointers[0] = result.map(|id| (Target::Structure(id), 0));
    pointers
}

fn after(insn: &Instruction, before: Pointers, types: &Btf) -> Pointers {
    let mut next = before;
    for register in crate::span::accessed(insn, true) {
        if let Some(number) = number(register) {
            next[number] = None;
        }
    }
    if insn.op_count() < 2 || insn.op0_kind() != OpKind::Register || insn.op0_register().size() != 8 {
        return next;
    }
    let Some(target) = number(insn.op0_register()) else { return next };
    let of = |register: Register| number(register).and_then(|n| before[n]);
    let plain = insn.memory_index() == Register::None && insn.segment_prefix() == Register::None;
    next[target] = match (insn.mnemonic(), insn.op1_kind()) {
        (Mnemonic::Mov, OpKind::Register) => of(insn.op1_register()),
        (Mnemonic::Mov, OpKind::Memory) if plain => of(insn.memory_base()).and_then(|(target, delta)| {
            let Target::Structure(composite) = target else { return None };
            let offset = delta.wrapping_add(insn.memory_displacement64() as i64);
            let field = types.field(composite, u32::try_from(offset).ok()?)?;
            types.pointee(field.member?).map(|id| (Target::Structure(id), 0))
        }),
        (Mnemonic::Lea, _) if plain => {
            of(insn.memory_base()).map(|(id, delta)| (id, delta.wrapping_add(insn.memory_displacement64() as i64)))
        }
        (Mnemonic::Add | Mnemonic::Sub, _) => before[target].and_then(|(id, delta)| {
            let n = insn.try_immediate(1).ok()? as i64;
            Some((id, if insn.mnemonic() == Mnemonic::Add { delta.wrapping_add(n) } else { delta.wrapping_sub(n) }))
        }),
        _ => None,
    };
    next
}

/// Whether an access may be one of an object. One whose type is not known is, if it is at the object's offset, in its structure
/// or in the one that the store went through.
pub fn may_be(access: &Access, used: &UsedMemory, known: &Known) -> bool {
    let overlap =
        |a: u64, a_size: u32, b: u64, b_size: u32| a < b + u64::from(b_size.max(1)) && b < a + u64::from(a_size.max(1));
    match (access, &known.object) {
        (Access::Known(Object::Member(holder, offset, size), _), Object::Member(own, at, own_size)) => {
            holder == own && overlap((*offset).into(), *size, (*at).into(), *own_size)
        }
        (Access::Known(Object::Variable(a, size), _), Object::Variable(b, own_size))
        | (Access::Known(Object::PerCpu(a, size), _), Object::PerCpu(b, own_size)) => overlap(*a, *size, *b, *own_size),
        // What another function's argument points to may be the same.
        (Access::Known(Object::Pointed(function, a), _), Object::Pointed(own, b)) => {
            let same = function == own && a.register == b.register;
            !same || overlap(a.offset as u64, a.size, b.offset as u64, b.size)
        }
        (Access::Known(Object::Pointed(..), _), Object::Member(_, at, _)) => {
            let displacement = used.displacement() as i64;
            displacement == i64::from(*at) || displacement == known.displacement
        }
        (Access::Known(..), _) => false,
        (Access::Unknown, Object::Pointed(_, to)) => used.displacement() as i64 == to.offset,
        (Access::Unknown, Object::Member(_, at, _)) => {
            let displacement = used.displacement() as i64;
            displacement == i64::from(*at) || displacement == known.displacement
        }
        (Access::Unknown, Object::Variable(address, _) | Object::PerCpu(address, _)) => {
            used.displacement() as u32 == *address as u32
        }
    }
}
