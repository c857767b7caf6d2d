//! A value followed through functions: each is sliced with what carries the value into it, and its callers learn what comes out.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use iced_x86::{Instruction, UsedMemory};
use kerf_semantics::slice::{self, Carriers, Effect, Origin, Outcome, Passed, Pointed, Role, Slice, Surroundings};

use super::Variables;
use super::objects::{Access, Known, Object, Pointing, may_be};
use super::program::{ARGUMENTS, Function, Program};

/// Operations of the platform that keep registers take one argument at most (arch/x86/include/asm/paravirt_types.h:
/// `PVOP_CALLEE1` is the longest).
const CALLEE_SAVE: &str = "paravirt_callee_save";
/// Calls are followed so deep below the function of a critical span.
const MOST_DEPTH: usize = 8;
/// So many times functions are sliced for one constant.
const MOST_SLICES: usize = 1200;
/// So many functions are searched for reads of one object below one call.
const MOST_SEARCHED: usize = 200;

/// Registers that called functions may change, but for the result's.
const CALLER_SAVED: [u16; 8] = [1, 2, 6, 7, 8, 9, 10, 11];

/// The kernel's functions that end a path for good.
const ENDS: [&str; 4] = ["panic", "__stack_chk_fail", "do_exit", "make_task_dead"];

/// What comes out of a function that carriers come into.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// It uses them.
    pub uses: bool,
    /// What its callers get of them.
    pub outcome: Outcome,
    /// Objects that carry the value afterwards.
    pub objects: BTreeSet<u32>,
    /// Why the value cannot be followed, with the place.
    pub escapes: Vec<String>,
    /// Instructions in it, and in what it calls, where something carries the value.
    pub instructions: u32,
    /// Functions that it leaves for with the value.
    pub beyond: BTreeSet<u64>,
    /// Its own slice.
    pub slice: Rc<Slice>,
    /// Functions that it passes the value to.
    pub below: BTreeSet<(u64, Entering)>,
}

/// What carries a value into a function: registers and objects.
pub type Entering = (u16, Vec<u32>);

/// Everything that is known while one constant is followed.
pub struct Follower<'a> {
    /// The image.
    pub program: &'a Program<'a>,
    variables: &'a Variables,
    objects: RefCell<Vec<Known>>,
    summaries: RefCell<BTreeMap<(u64, Entering), Summary>>,
    open: RefCell<Vec<Open>>,
    /// The outermost open call that an answer since then rests on.
    outermost: Cell<usize>,
    slices: Cell<usize>,
    pointing: RefCell<BTreeMap<u64, Rc<Pointing>>>,
    searched: RefCell<BTreeMap<(u64, u32), Reading>>,
    /// Of a function alone, without what it calls.
    own: RefCell<BTreeMap<(u64, u32), Reading>>,
}

/// A function that is being followed, and what is taken for its summary where it comes back to itself.
struct Open {
    key: (u64, Entering),
    summary: Summary,
    came_back: bool,
}

impl Open {
    /// Takes in what has been found; whether that is more than was taken for it where it came back.
    fn learn(&mut self, found: &Summary) -> bool {
        let size = |s: &Summary| (s.objects.len(), s.escapes.len(), s.beyond.len(), s.outcome.pointed.len());
        let before = size(&self.summary);
        self.summary.objects.extend(&found.objects);
        self.summary.beyond.extend(&found.beyond);
        self.summary.outcome.pointed.extend(&found.outcome.pointed);
        self.summary.escapes.extend(found.escapes.iter().cloned());
        self.summary.escapes.sort();
        self.summary.escapes.dedup();
        self.came_back && size(&self.summary) != before
    }
}

/// Whether a call with these carriers is one with no more than those.
fn within(these: &Entering, those: &Entering) -> bool {
    these.0 & !those.0 == 0 && these.1.iter().all(|object| those.1.contains(object))
}

/// Whether a function, or one that it calls, reads an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reading {
    /// It does not.
    No,
    /// Something that cannot be told may be that: a load through a pointer of unknown type, a function called through a pointer.
    Perhaps,
    /// A load of that member or variable is there.
    Yes,
}

impl<'a> Follower<'a> {
    /// Nothing yet.
    pub fn new(program: &'a Program<'a>, variables: &'a Variables) -> Follower<'a> {
        Follower {
            program,
            variables,
            objects: RefCell::default(),
            summaries: RefCell::default(),
            open: RefCell::default(),
            outermost: Cell::new(usize::MAX),
            slices: Cell::new(0),
            pointing: RefCell::default(),
            searched: RefCell::default(),
            own: RefCell::default(),
        }
    }

    /// The name of an object.
    pub fn object_name(&self, number: u32) -> String {
        self.objects.borrow().get(number as usize).map_or_else(String::new, |known| known.name.clone())
    }

    /// Slices a function from an origin, and all that it passes the value to.
    pub fn follow(&self, function: &Rc<Function>, origin: &Origin) -> Summary {
        let mut around = Around::of(self, function);
        let slice = slice::slice(&function.body, origin, &mut around);
        let place = |ip: u64| format!("{}+{:#x}", function.name, ip.wrapping_sub(function.body.entry));
        let own = slice.escapes.iter().filter(|(ip, _)| around.own_escape(**ip));
        let mut escapes: Vec<String> =
            own.flat_map(|(ip, why)| why.iter().map(|why| format!("{}: {why}", place(*ip)))).collect();
        escapes.extend(around.below_escapes);
        escapes.sort();
        escapes.dedup();
        let mut beyond = around.beyond;
        beyond.extend(slice.leaves.iter().filter_map(|ip| function.callees.get(ip)));
        for ip in &slice.leaves {
            if !function.callees.contains_key(ip) {
                escapes.push(format!("{}: it leaves for a function that is not known", place(*ip)));
            }
        }
        let (pointed, objects) = self.given_back(function.body.entry, &slice.objects);
        Summary {
            uses: !slice.used.is_empty(),
            outcome: Outcome { result: slice.returned, pointed },
            objects,
            escapes,
            instructions: slice.inside.len() as u32 + around.instructions.values().sum::<u32>(),
            beyond,
            slice: Rc::new(slice),
            below: around.below,
        }
    }

    /// What a function's own arguments point to, and all other objects.
    fn given_back(&self, function: u64, objects: &BTreeSet<u32>) -> (BTreeSet<Pointed>, BTreeSet<u32>) {
        let (mut pointed, mut others) = (BTreeSet::new(), BTreeSet::new());
        let known = self.objects.borrow();
        for number in objects {
            match known.get(*number as usize).map(|known| &known.object) {
                Some(Object::Pointed(own, to)) if *own == function => drop(pointed.insert(*to)),
                _ => drop(others.insert(*number)),
            }
        }
        (pointed, others)
    }

    /// Where the stack pointer is before an instruction, from where it was at the function's entry.
    pub fn stack_offset(&self, function: &Rc<Function>, ip: u64) -> Option<i64> {
        function.body.stack_offsets(&Around::of(self, function)).get(&ip).copied()
    }

    fn pointing(&self, function: &Rc<Function>) -> Rc<Pointing> {
        let address = function.body.entry;
        if let Some(known) = self.pointing.borrow().get(&address) {
            return known.clone();
        }
        let result = |ip: u64| {
            let callee = function.callees.get(&ip).or(function.alike.get(&ip))?;
            self.program.function(*callee)?.prototype.as_ref()?.result
        };
        let size = self.program.image.function_at(address).and_then(|s| s.size).unwrap_or(0);
        let variables = self.variables.of(&function.name, size);
        let found = Rc::new(Pointing::of(function, &self.program.types, variables, &result));
        self.pointing.borrow_mut().insert(address, found.clone());
        found
    }

    /// What becomes of carriers that come into a function.
    pub fn summary(&self, address: u64, entering: &Entering) -> Summary {
        let key = (address, entering.clone());
        if let Some(known) = self.summaries.borrow().get(&key) {
            return known.clone();
        }
        let out = Outcome { result: true, ..Outcome::default() };
        let lost =
            |why: &str| Summary { uses: true, outcome: out.clone(), escapes: vec![why.into()], ..Summary::default() };
        let Some(function) = self.program.function(address) else {
            return lost("it is passed to code that is no function");
        };
        if ENDS.contains(&function.name.as_str()) {
            return Summary { uses: true, ..Summary::default() };
        }
        if let Some(summary) = self.comes_back(&key) {
            return summary;
        }
        let why = if self.open.borrow().len() >= MOST_DEPTH {
            "it goes through more calls than are followed"
        } else if self.slices.get() >= MOST_SLICES {
            "it goes through more functions than are followed"
        } else {
            return self.follow_call(&function, key);
        };
        lost(&format!("{}: {why}", function.name))
    }

    /// What is taken for the summary of a function that comes back to itself: the value comes out, and what else is known by now.
    fn comes_back(&self, key: &(u64, Entering)) -> Option<Summary> {
        let mut open = self.open.borrow_mut();
        let n = open.iter().position(|open| open.key.0 == key.0 && within(&key.1, &open.key.1))?;
        open[n].came_back = true;
        self.outermost.set(self.outermost.get().min(n));
        Some(open[n].summary.clone())
    }

    /// Follows a called function, until nothing more comes out of it where it comes back to itself. Only what rests on no
    /// function that is still open is kept.
    fn follow_call(&self, function: &Rc<Function>, key: (u64, Entering)) -> Summary {
        let mut entry = Carriers::of_registers(key.1.0);
        entry.objects = key.1.1.iter().copied().collect();
        let origin = Origin { entry, ..Origin::default() };
        let outcome = Outcome { result: true, ..Outcome::default() };
        let summary = Summary { uses: true, outcome, ..Summary::default() };
        let (position, outside) = (self.open.borrow().len(), self.outermost.replace(usize::MAX));
        self.open.borrow_mut().push(Open { key: key.clone(), summary, came_back: false });
        let summary = loop {
            self.slices.set(self.slices.get() + 1);
            let summary = self.follow(function, &origin);
            let more = self.open.borrow_mut().last_mut().is_some_and(|open| open.learn(&summary));
            if !more {
                break summary;
            }
        };
        self.open.borrow_mut().pop();
        if self.outermost.get() >= position {
            self.summaries.borrow_mut().insert(key, summary.clone());
            self.outermost.set(outside);
        } else {
            self.outermost.set(outside.min(self.outermost.get()));
        }
        summary
    }

    /// Whether a function, or one that it calls, reads an object.
    fn reading(&self, address: u64, object: u32) -> Reading {
        if let Some(known) = self.searched.borrow().get(&(address, object)) {
            return *known;
        }
        let found = self.search(address, object);
        self.searched.borrow_mut().insert((address, object), found);
        found
    }

    fn search(&self, address: u64, object: u32) -> Reading {
        let (mut seen, mut open, mut found) = (BTreeSet::from([address]), vec![address], Reading::No);
        let Some(known) = self.objects.borrow().get(object as usize).cloned() else { return Reading::Perhaps };
        while let Some(address) = open.pop().filter(|_| found < Reading::Yes) {
            let Some(function) = self.program.function(address) else {
                found = Reading::Perhaps;
                continue;
            };
            if ENDS.contains(&function.name.as_str()) {
                continue;
            }
            let own = self.own.borrow().get(&(address, object)).copied();
            let own = own.unwrap_or_else(|| self.reading_in(&function, &known));
            self.own.borrow_mut().insert((address, object), own);
            found = found.max(own);
            for ip in
                function.roles.iter().filter(|(_, role)| matches!(role, Role::Call | Role::Leave)).map(|(ip, _)| ip)
            {
                match function.callees.get(ip) {
                    _ if function.shows.contains(ip) => {}
                    Some(callee) if seen.contains(callee) => {}
                    Some(callee) if seen.len() < MOST_SEARCHED => {
                        seen.insert(*callee);
                        open.push(*callee);
                    }
                    _ => found = found.max(Reading::Perhaps),
                }
            }
        }
        found
    }

    /// The loads of one function.
    fn reading_in(&self, function: &Rc<Function>, known: &Known) -> Reading {
        let pointing = self.pointing(function);
        let mut factory = iced_x86::InstructionInfoFactory::new();
        let plain = function.body.code.values().filter(|insn| !function.roles.contains_key(&insn.ip()));
        let readings = plain.flat_map(|insn| {
            let loads: Vec<UsedMemory> =
                factory.info(insn).used_memory().iter().filter(|used| reads(used)).copied().collect();
            let reading = |used: UsedMemory| match pointing.access(insn, &used, &self.program.types) {
                access if !may_be(&access, &used, known) => Reading::No,
                Access::Unknown => Reading::Perhaps,
                Access::Known(..) => Reading::Yes,
            };
            loads.into_iter().map(reading).collect::<Vec<_>>()
        });
        readings.max().unwrap_or(Reading::No)
    }

    fn number(&self, known: Known) -> u32 {
        let mut objects = self.objects.borrow_mut();
        let position = objects.iter().position(|other| other.object == known.object);
        position.unwrap_or_else(|| {
            objects.push(known);
            objects.len() - 1
        }) as u32
    }
}

/// The registers of the first arguments.
fn first(count: usize) -> u16 {
    ARGUMENTS[..count.min(6)].iter().fold(0, |mask, n| mask | 1 << n)
}

fn reads(used: &UsedMemory) -> bool {
    use iced_x86::OpAccess::{CondRead, Read, ReadCondWrite, ReadWrite};
    matches!(used.access(), CondRead | Read | ReadCondWrite | ReadWrite)
}

/// What is around one function while it is sliced.
struct Around<'b, 'a> {
    follower: &'b Follower<'a>,
    function: &'b Rc<Function>,
    pointing: Rc<Pointing>,
    /// Of callees, by the call: each counts once.
    instructions: BTreeMap<u64, u32>,
    below: BTreeSet<(u64, Entering)>,
    below_escapes: BTreeSet<String>,
    /// Calls whose escapes are in `below_escapes` already.
    passed_on: BTreeSet<u64>,
    beyond: BTreeSet<u64>,
}

impl<'b, 'a> Around<'b, 'a> {
    fn of(follower: &'b Follower<'a>, function: &'b Rc<Function>) -> Around<'b, 'a> {
        Around {
            follower,
            function,
            pointing: follower.pointing(function),
            instructions: BTreeMap::new(),
            below: BTreeSet::new(),
            below_escapes: BTreeSet::new(),
            passed_on: BTreeSet::new(),
            beyond: BTreeSet::new(),
        }
    }

    /// Whether an escape is this function's own, not one of a callee's.
    fn own_escape(&self, ip: u64) -> bool {
        !self.passed_on.contains(&ip)
    }

    /// The type of the functions that a call through a register may go to: how many arguments, and whether there is a result.
    fn function_type(&self, ip: u64) -> Option<(usize, bool)> {
        let types = &self.follower.program.types;
        if let Some((variable, offset)) = self.function.through_variable.get(&ip) {
            let field = types.field(*variable, *offset)?;
            if field.holder_name == CALLEE_SAVE {
                return Some((1, true));
            }
            return types.function_type(types.pointee(field.member?)?);
        }
        let register = self.function.through.get(&ip)?;
        self.follower.program.types.function_type(self.pointing.register(ip, *register)?)
    }

    /// Registers that do not survive a call of a function written in C; what else is called may keep some.
    fn clobbered(&self, in_c: bool) -> u16 {
        if in_c && self.function.traced { CALLER_SAVED.iter().fold(0, |mask, n| mask | 1 << n) } else { 0 }
    }

    /// What becomes of carriers in a function that only the running kernel knows.
    fn unknown(&self, ip: u64, passed: &Carriers) -> Effect {
        let uses = passed.registers != 0;
        let escapes =
            if uses { vec!["it is passed to a function that only a pointer tells".into()] } else { Vec::new() };
        let alike = self.function.alike.get(&ip).and_then(|address| self.follower.program.function(*address));
        let typed = self.function_type(ip).map(|(_, result)| result);
        let clears_result = alike.map_or(typed.unwrap_or(true), |f| f.has_result());
        let clobbers = self.clobbered(true);
        let outcome = Outcome { result: uses && clears_result, ..Outcome::default() };
        Effect { uses, outcome, clears_result, clobbers, reads: passed.objects.clone(), escapes, ..Effect::default() }
    }

    fn callee(&self, insn: &Instruction) -> Option<Rc<Function>> {
        self.follower.program.function(*self.function.callees.get(&insn.ip())?)
    }
}

impl Surroundings for Around<'_, '_> {
    fn role(&self, insn: &Instruction) -> Role {
        self.function.roles.get(&insn.ip()).copied().unwrap_or(Role::Plain)
    }

    fn has_result(&self) -> bool {
        self.function.has_result()
    }

    fn passed(&self, insn: &Instruction) -> Passed {
        let ip = insn.ip();
        let counted = |count: usize| Passed {
            registers: first(count),
            // What follows for `...` is pushed.
            stack: count.saturating_sub(6) as u32 * 8,
            shown: self.function.shows.contains(&ip),
        };
        let like = self.function.callees.get(&ip).or(self.function.alike.get(&ip));
        match like.and_then(|address| self.follower.program.function(*address)) {
            Some(callee) => match &callee.prototype {
                Some(prototype) => counted(prototype.parameters.len()),
                // Hand-written code and parts of functions take what they read.
                None => Passed { registers: callee.reads & !(1 << 4), ..counted(0) },
            },
            None => counted(self.function_type(ip).map_or(6, |(count, _)| count)),
        }
    }

    fn call(&mut self, insn: &Instruction, passed: &Carriers) -> Effect {
        let ip = insn.ip();
        let objects: Vec<u32> = passed.objects.iter().copied().collect();
        if self.function.shows.contains(&ip) {
            let uses = passed.registers != 0;
            return Effect { uses, clears_result: true, clobbers: self.clobbered(true), ..Effect::default() };
        }
        let Some(callee) = self.callee(insn) else { return self.unknown(ip, passed) };
        let address = callee.body.entry;
        let at_least = |least: Reading| -> Vec<u32> {
            objects.iter().copied().filter(|object| self.follower.reading(address, *object) >= least).collect()
        };
        let (reads, certain) = (at_least(Reading::Perhaps).into_iter().collect(), at_least(Reading::Yes));
        if passed.registers == 0 && certain.is_empty() {
            let clobbers = self.clobbered(callee.prototype.is_some());
            return Effect { clears_result: callee.has_result(), clobbers, reads, ..Effect::default() };
        }
        let entering = (passed.registers, certain);
        let summary = self.follower.summary(address, &entering);
        self.instructions.insert(ip, summary.instructions);
        self.below.insert((address, entering));
        if !summary.escapes.is_empty() {
            self.passed_on.insert(ip);
            self.below_escapes.extend(summary.escapes.iter().cloned());
        }
        self.beyond.extend(&summary.beyond);
        Effect {
            uses: passed.registers != 0 && summary.uses,
            outcome: Outcome { result: summary.outcome.result && callee.has_result(), ..summary.outcome },
            clears_result: callee.has_result(),
            clobbers: self.clobbered(callee.prototype.is_some()),
            reads,
            objects: summary.objects,
            escapes: summary.escapes,
        }
    }

    fn store(&mut self, insn: &Instruction, to: &UsedMemory) -> Result<u32, String> {
        match self.pointing.access(insn, to, &self.follower.program.types) {
            Access::Known(object, name) => {
                Ok(self.follower.number(Known { object, name, displacement: to.displacement() as i64 }))
            }
            Access::Unknown => Err("it is stored through a pointer whose type is not known".into()),
        }
    }

    fn pointed(&mut self, insn: &Instruction, to: &Pointed) -> Result<u32, String> {
        match self.pointing.argument(insn.ip(), to, &self.follower.program.types) {
            Access::Known(object, name) => Ok(self.follower.number(Known { object, name, displacement: to.offset })),
            Access::Unknown => Err("it is stored where an argument points to, and where that is is not known".into()),
        }
    }

    fn loads(&mut self, insn: &Instruction, from: &UsedMemory, objects: &BTreeSet<u32>) -> BTreeSet<u32> {
        let known = self.follower.objects.borrow();
        // Far from the store, the same offset says little without the type.
        let near = self.follower.open.borrow().is_empty();
        let access = self.pointing.access(insn, from, &self.follower.program.types);
        let one = |object: &u32| {
            (near || access != Access::Unknown)
                && known.get(*object as usize).is_none_or(|known| may_be(&access, from, known))
        };
        objects.iter().copied().filter(one).collect()
    }
}
