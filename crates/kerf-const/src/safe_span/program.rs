//! An image as functions that go on in each other: where each instruction leads, and who calls whom.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
use kerf_image::btf::{Btf, Prototype, TypeId};
use kerf_image::{Image, PatchKind, PatchSites, Symbol};
use kerf_semantics::slice::{Body, Role};
use kerf_semantics::{CallEffect, Cfg, CfgOptions, LiveSet, REGISTER_NAMES};

use crate::error::ConstError;

/// Numbers of the registers that pass arguments, in their order.
pub const ARGUMENTS: [u16; 6] = [7, 6, 2, 1, 8, 9];

/// Functions that return to their caller's caller, or jump to where a register says.
const RETURN_THUNK: &str = "__x86_return_thunk";
const INDIRECT_THUNK: &str = "__x86_indirect_";
const STATIC_CALL: &str = "__SCT__";
/// Functions that show a value in a message.
const SHOWS: [&str; 5] = ["_printk", "_printk_deferred", "__warn_printk", "panic", "__dynamic_pr_debug"];

/// A function's code, its cold part included.
pub struct Function {
    /// Its name.
    pub name: String,
    /// What it takes and returns, if the kernel's types say so of its name.
    pub prototype: Option<Prototype>,
    /// Its instructions.
    pub body: Body,
    /// Those that are more than themselves.
    pub roles: BTreeMap<u64, Role>,
    /// Functions that calls and leaves go to, where that is known.
    pub callees: BTreeMap<u64, u64>,
    /// For calls whose callee is not known: one that takes the same arguments.
    pub alike: BTreeMap<u64, u64>,
    /// For calls through a register: which.
    pub through: BTreeMap<u64, usize>,
    /// For calls through a pointer in a variable of the platform's operations: its type, and the pointer's offset in it.
    pub through_variable: BTreeMap<u64, (TypeId, u32)>,
    /// Calls that only show what they are given.
    pub shows: BTreeSet<u64>,
    /// Whether the tracer can be called at its entry. Compilers that leave room for that do not look into callees for registers that
    /// these happen to keep (GCC: no `-fipa-ra` with `-pg`).
    pub traced: bool,
    /// The first instruction behind the landing pad and the call of the tracer.
    pub begin: u64,
    /// Registers that it reads before it writes them.
    pub reads: u16,
}

impl Function {
    /// Whether it has a result; yes if that is not known.
    pub fn has_result(&self) -> bool {
        self.prototype.as_ref().is_none_or(|p| p.result.is_some())
    }

    /// Address ranges of its instructions, sorted and apart.
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        joined(self.body.code.values().map(|insn| (insn.ip(), insn.next_ip())))
    }

    /// Whether control comes to an instruction from another one than that before it.
    fn jumped(&self, ip: u64) -> bool {
        let next = |(from, next): (&u64, &Vec<u64>)| {
            next.contains(&ip) && self.body.code.get(from).is_none_or(|insn| insn.next_ip() != ip)
        };
        self.body.successors.iter().any(next)
    }
}

/// Joins ranges that touch; they are given in order.
pub fn joined(ranges: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut all: Vec<(u64, u64)> = Vec::new();
    for (start, end) in ranges {
        match all.last_mut().filter(|last| start <= last.1) {
            Some(last) => last.1 = last.1.max(end),
            None => all.push((start, end)),
        }
    }
    all
}

/// A linked image, read as a program.
pub struct Program<'a> {
    /// The image.
    pub image: &'a Image,
    /// Its types.
    pub types: Btf<'a>,
    prototypes: BTreeMap<String, Prototype>,
    sites: PatchSites,
    /// Further ways: static branches to where they may jump, and faults to their fixups.
    edges: BTreeMap<u64, Vec<u64>>,
    /// The platform's operations, if there are some: the variable's address and type.
    operations: Option<(u64, TypeId)>,
    functions: RefCell<BTreeMap<u64, Option<Rc<Function>>>>,
}

impl<'a> Program<'a> {
    /// Reads what the image says about itself. `None` if it has no types, or is not linked.
    ///
    /// # Errors
    /// If its tables are damaged.
    pub fn of(image: &'a Image) -> Result<Option<Program<'a>>, ConstError> {
        let Some(types) = image.btf().and_then(|blob| Btf::parse(blob).ok()) else { return Ok(None) };
        let sites = image.patch_sites()?;
        let prototypes = types.prototypes().into_iter().map(|(name, p)| (name.to_owned(), p)).collect();
        let mut edges: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (table, record, from, to) in
            [("jump_table", "jump_entry", "code", "target"), ("ex_table", "exception_table_entry", "insn", "fixup")]
        {
            for (from, to) in pairs(image, &types, table, record, (from, to)) {
                edges.entry(from).or_default().push(to);
            }
        }
        let variable = image.symbols_named("pv_ops").next().map(|symbol| symbol.address);
        let operations = variable.zip(types.composite_named("paravirt_patch_template"));
        let functions = RefCell::default();
        Ok(Some(Program { image, types, prototypes, sites, edges, operations, functions }))
    }

    /// The function that begins at an address.
    pub fn function(&self, address: u64) -> Option<Rc<Function>> {
        if let Some(known) = self.functions.borrow().get(&address) {
            return known.clone();
        }
        let found = self.read(address).map(Rc::new);
        self.functions.borrow_mut().insert(address, found.clone());
        found
    }

    /// The function that holds an address, also in its cold part.
    pub fn function_with(&self, address: u64) -> Option<Rc<Function>> {
        let symbol = self.image.function_at(address)?;
        if let Some(whole) = symbol.name.strip_suffix(".cold") {
            let holds = |f: &Rc<Function>| f.body.code.contains_key(&address);
            return self.image.symbols_named(whole).filter_map(|s| self.function(s.address)).find(holds);
        }
        self.function(symbol.address)
    }

    fn decode(&self, symbol: &Symbol, code: &mut BTreeMap<u64, Instruction>) -> Option<()> {
        let bytes = self.image.bytes(symbol.address, symbol.size? as usize)?;
        let decoder = Decoder::with_ip(64, &bytes, symbol.address, DecoderOptions::NONE);
        code.extend(decoder.into_iter().take_while(|insn| !insn.is_invalid()).map(|insn| (insn.ip(), insn)));
        Some(())
    }

    fn read(&self, address: u64) -> Option<Function> {
        let symbol = self.image.function_at(address).filter(|s| s.address == address)?;
        let mut code = BTreeMap::new();
        self.decode(symbol, &mut code)?;
        let cold = format!("{}.cold", symbol.name);
        let outside: BTreeSet<u64> =
            code.values().filter_map(branch_target).filter(|target| !code.contains_key(target)).collect();
        let parts: BTreeSet<u64> = outside
            .into_iter()
            .filter_map(|target| self.image.function_at(target))
            .filter(|part| *part.name == *cold)
            .map(|part| part.address)
            .collect();
        for part in parts {
            self.decode(self.image.function_at(part)?, &mut code)?;
        }
        let mut function = Function {
            name: symbol.name.to_string(),
            prototype: self.prototypes.get(&*symbol.name).cloned(),
            body: Body { entry: address, code, successors: BTreeMap::new() },
            roles: BTreeMap::new(),
            callees: BTreeMap::new(),
            alike: BTreeMap::new(),
            through: BTreeMap::new(),
            through_variable: BTreeMap::new(),
            shows: BTreeSet::new(),
            traced: false,
            begin: address,
            reads: 0,
        };
        self.connect(&mut function);
        function.begin = self.begin(&function)?;
        let pad = self.sites.overlapping(address..function.begin);
        function.traced = pad.iter().any(|site| site.kind == PatchKind::Fentry);
        function.reads = self.reads(&function);
        Some(function)
    }

    /// What stands before the function's own code is the landing pad of indirect calls and the call of the tracer.
    fn begin(&self, function: &Function) -> Option<u64> {
        let own = |insn: &&Instruction| {
            let sites = self.sites.overlapping(insn.ip()..insn.next_ip());
            let patched = sites.iter().any(|s| matches!(s.kind, PatchKind::Fentry | PatchKind::EndbrSeal));
            !patched && insn.mnemonic() != Mnemonic::Endbr64
        };
        function.body.code.range(function.body.entry..).map(|(_, insn)| insn).find(own).map(Instruction::ip)
    }

    /// Whole instructions from an address on that a detour may take: nothing jumps behind the first, the kernel patches none, and none
    /// holds an address that moves with the kernel. Else why not.
    pub fn window(&self, function: &Function, from: u64) -> Result<Vec<u8>, String> {
        let place = |ip: u64| format!("{}+{:#x}", function.name, ip.wrapping_sub(function.body.entry));
        let mut end = from;
        while end - from < crate::span::JUMP as u64 {
            let insn = function.body.code.get(&end).ok_or_else(|| format!("the function ends at {}", place(end)))?;
            if end != from && function.jumped(end) {
                return Err(format!("a jump goes to {}", place(end)));
            }
            let patched = !self.sites.overlapping(insn.ip()..insn.next_ip()).is_empty();
            let plain = insn.flow_control() == FlowControl::Next && !function.roles.contains_key(&end);
            if patched
                || !plain
                || !crate::movable::movable(insn)
                || self.edges.contains_key(&end)
                || holds_address(insn)
            {
                return Err(format!("the instruction at {} cannot be moved", place(end)));
            }
            end = insn.next_ip();
        }
        let bytes = self.image.bytes(from, (end - from) as usize);
        bytes.map(std::borrow::Cow::into_owned).ok_or_else(|| format!("the image ends at {}", place(end)))
    }

    /// The instruction behind another one, where that one alone leads to it, and to nothing else but the functions that it calls.
    pub fn straight(&self, function: &Function, ip: u64, calls: bool) -> Option<u64> {
        let insn = function.body.code.get(&ip)?;
        let next = Some(insn.next_ip()).filter(|next| function.body.code.contains_key(next))?;
        let passed = match function.roles.get(&ip) {
            None => insn.flow_control() == FlowControl::Next,
            Some(role) => *role == Role::Call && calls,
        };
        (passed && !self.edges.contains_key(&ip) && !function.jumped(next)).then_some(next)
    }

    /// Fills in roles, callees and successors.
    fn connect(&self, function: &mut Function) {
        let all: Vec<Instruction> = function.body.code.values().copied().collect();
        for insn in all {
            let ip = insn.ip();
            let inside = |target: &u64| function.body.code.contains_key(target);
            let mut next: Vec<u64> = match insn.flow_control() {
                FlowControl::Return | FlowControl::IndirectBranch => Vec::new(),
                FlowControl::UnconditionalBranch => branch_target(&insn).into_iter().collect(),
                FlowControl::ConditionalBranch => vec![insn.next_ip(), insn.near_branch_target()],
                // A trap of the kernel's own warnings goes on behind it.
                _ => vec![insn.next_ip()],
            };
            next.extend(self.edges.get(&ip).into_iter().flatten());
            next.retain(inside);
            next.dedup();
            let (role, callee, alike) = self.role(function, &insn);
            if matches!(role, Role::Call | Role::Leave) && callee.is_none() {
                function.through.extend(self.register_of(&insn).map(|register| (ip, register)));
                function.through_variable.extend(self.operation_of(&insn).map(|operation| (ip, operation)));
            }
            if matches!(role, Role::Call | Role::Leave) && self.shows(&insn) {
                function.shows.insert(ip);
            }
            if role != Role::Plain {
                function.roles.insert(ip, role);
            }
            function.callees.extend(callee.map(|address| (ip, address)));
            function.alike.extend(alike.map(|address| (ip, address)));
            if role == Role::Return {
                next.clear();
            }
            function.body.successors.insert(ip, next);
        }
    }

    /// What an instruction is, and for calls which function it goes to, or one like it.
    fn role(&self, function: &Function, insn: &Instruction) -> (Role, Option<u64>, Option<u64>) {
        let sites = self.sites.overlapping(insn.ip()..insn.next_ip());
        if sites.iter().any(|s| s.kind == PatchKind::Fentry) || insn.mnemonic() == Mnemonic::Nop {
            return (Role::Nothing, None, None);
        }
        let role = match insn.flow_control() {
            FlowControl::Return => return (Role::Return, None, None),
            FlowControl::IndirectBranch => return (Role::Leave, None, None),
            FlowControl::IndirectCall => return (Role::Call, None, None),
            FlowControl::Call => Role::Call,
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => Role::Leave,
            _ => return (Role::Plain, None, None),
        };
        let target = insn.near_branch_target();
        if function.body.code.contains_key(&target) {
            return (Role::Plain, None, None);
        }
        match self.image.function_at(target) {
            Some(symbol) if &*symbol.name == RETURN_THUNK => (Role::Return, None, None),
            Some(symbol) if symbol.name.starts_with(INDIRECT_THUNK) => (role, None, None),
            Some(symbol) if symbol.name.starts_with(STATIC_CALL) => (role, None, self.default_target(target)),
            Some(symbol) if symbol.address == target => (role, Some(target), None),
            _ => (role, None, None),
        }
    }

    /// The register that an indirect call or jump goes through.
    fn register_of(&self, insn: &Instruction) -> Option<usize> {
        let name = match insn.op0_kind() {
            OpKind::Register => return Some(insn.op0_register().full_register().number()),
            OpKind::Memory => return None,
            _ => &*self.image.function_at(insn.near_branch_target())?.name,
        };
        REGISTER_NAMES.iter().position(|register| name.ends_with(&format!("_thunk_{register}")))
    }

    /// The member of the platform's operations that a call goes through; the kernel makes such calls direct when it starts.
    fn operation_of(&self, insn: &Instruction) -> Option<(TypeId, u32)> {
        let address = match insn.op0_kind() {
            OpKind::Memory if insn.is_ip_rel_memory_operand() => insn.ip_rel_memory_address(),
            OpKind::Memory if insn.memory_base() == Register::None => insn.memory_displacement64(),
            _ => return None,
        };
        let (variable, kind) = self.operations?;
        let offset = u32::try_from(address.checked_sub(variable)?).ok()?;
        (offset < self.types.size(kind)).then_some((kind, offset))
    }

    /// Messages and tracepoints show a value to people and change nothing by it.
    fn shows(&self, insn: &Instruction) -> bool {
        let direct = matches!(insn.op0_kind(), OpKind::NearBranch64 | OpKind::NearBranch32);
        let target = direct.then(|| self.image.function_at(insn.near_branch_target())).flatten();
        target.is_some_and(|s| SHOWS.contains(&&*s.name) || s.name.starts_with("__SCT__tp_func_"))
    }

    /// Where the trampoline of a static call goes at first: a function that takes what all of its targets take.
    fn default_target(&self, trampoline: u64) -> Option<u64> {
        let bytes = self.image.bytes(trampoline, 5)?;
        let insn = Decoder::with_ip(64, &bytes, trampoline, DecoderOptions::NONE).decode();
        let target = branch_target(&insn)?;
        self.image.function_at(target).filter(|symbol| symbol.address == target).map(|symbol| symbol.address)
    }

    /// Registers that a function reads before it has written them.
    fn reads(&self, function: &Function) -> u16 {
        let code: Vec<Instruction> = function.body.code.values().copied().collect();
        let mut options = CfgOptions::default();
        for (ip, role) in &function.roles {
            let reads = match role {
                Role::Return => LiveSet::of_registers(&[0, 2]),
                Role::Nothing | Role::Plain => continue,
                Role::Call | Role::Leave => {
                    let callee = function.callees.get(ip).or(function.alike.get(ip));
                    let name = callee.and_then(|address| Some(&*self.image.function_at(*address)?.name));
                    let Some(prototype) = name.and_then(|name| self.prototypes.get(name)) else { continue };
                    let count = prototype.parameters.len().min(ARGUMENTS.len());
                    let registers: Vec<usize> = ARGUMENTS[..count].iter().map(|n| usize::from(*n)).collect();
                    LiveSet::of_registers(&registers)
                }
            };
            options.effects.insert(*ip, CallEffect { reads, kills: CallEffect::c_function().kills });
        }
        let edges = function.body.successors.iter().flat_map(|(ip, next)| next.iter().map(|to| (*ip, *to)));
        options.edges = edges.collect();
        Cfg::with_options(&code, &options).live_before(function.body.entry).gprs()
    }

    /// Every direct call of a function and every direct jump to it from another one: addresses of the instructions. `None` if
    /// others may call it, through a pointer or from a module.
    pub fn callers(&self, function: &Function) -> Option<Vec<u64>> {
        let entry = function.body.entry;
        let exported = format!("__ksymtab_{}", function.name);
        if self.image.symbols_named(&exported).next().is_some() || self.may_be_pointed_to(entry) {
            return None;
        }
        let mut found = BTreeSet::new();
        for section in self.image.sections().iter().filter(|s| s.exec && s.alloc) {
            let Some(bytes) = self.image.bytes(section.address, section.size as usize) else { continue };
            for (at, field) in bytes.windows(4).enumerate() {
                let field = i32::from_le_bytes([field[0], field[1], field[2], field[3]]);
                let end = section.address + at as u64 + 4;
                if end.wrapping_add_signed(field.into()) == entry {
                    found.extend(self.branch_ending_at(end, entry));
                }
            }
        }
        found.retain(|ip| !function.body.code.contains_key(ip));
        Some(found.into_iter().collect())
    }

    fn branch_ending_at(&self, end: u64, target: u64) -> Option<u64> {
        let holder = self.function_with(end - 1)?;
        let (ip, insn) = holder.body.code.range(..end).next_back()?;
        (insn.next_ip() == end && branch_target(insn) == Some(target)).then_some(*ip)
    }

    /// Compilers put a landing pad where a pointer may lead, and the kernel seals those that nobody points to.
    fn may_be_pointed_to(&self, entry: u64) -> bool {
        let pad = self.image.bytes(entry, 4).is_some_and(|bytes| *bytes == [0xf3, 0x0f, 0x1e, 0xfa]);
        let sealed = self.sites.overlapping(entry..entry + 4).iter().any(|s| s.kind == PatchKind::EndbrSeal);
        let pads = self.sites.of_kind(PatchKind::EndbrSeal).next().is_some();
        !pads || (pad && !sealed)
    }
}

/// Whether a constant of an instruction looks like an address of the kernel, which moves when it starts.
fn holds_address(insn: &Instruction) -> bool {
    let linked = |n: u64| (0xffff_ffff_8000_0000..0xffff_ffff_ff00_0000).contains(&n);
    let immediates = (0..insn.op_count()).filter_map(|n| insn.try_immediate(n).ok());
    let displacement = (!insn.is_ip_rel_memory_operand()).then(|| insn.memory_displacement64());
    immediates.chain(displacement).any(linked)
}

/// The target of a direct jump or call.
fn branch_target(insn: &Instruction) -> Option<u64> {
    let direct = matches!(
        insn.flow_control(),
        FlowControl::Call | FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
    );
    direct.then(|| insn.near_branch_target()).filter(|target| *target != 0)
}

/// Records of two places each: a table of the kernel's between two symbols, whose fields count from where they stand.
fn pairs(image: &Image, types: &Btf, table: &str, record: &str, fields: (&str, &str)) -> Vec<(u64, u64)> {
    let symbol = |prefix: &str| image.symbols_named(&format!("{prefix}{table}")).next().map(|s| s.address);
    let read = || {
        let layout = types.struct_named(record)?;
        let offsets = [layout.member(fields.0)?.offset()?, layout.member(fields.1)?.offset()?];
        let (start, stop) = (symbol("__start___")?, symbol("__stop___")?);
        let bytes = image.bytes(start, stop.checked_sub(start)? as usize)?;
        let size = layout.size as usize;
        let place = |n: usize, offset: usize| {
            let at = n * size + offset;
            let field = bytes.get(at..at + 4).and_then(|f| <[u8; 4]>::try_from(f).ok())?;
            Some((start + at as u64).wrapping_add_signed(i32::from_le_bytes(field).into()))
        };
        let record = |n| Some((place(n, offsets[0])?, place(n, offsets[1])?));
        (0..bytes.len() / size.max(1)).map(record).collect::<Option<Vec<_>>>()
    };
    read().unwrap_or_default()
}
