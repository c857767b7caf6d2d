//! The plugin: QEMU loads it, it counts. Of the workspace's files with `unsafe` this is the one that talks to C.
//!
//! What is counted, and how, is in `kerf_profile::Gatherer`; here is what QEMU calls and what is asked of QEMU. Where it can,
//! counting is an addition that QEMU compiles into the translated code. Those additions, and the gatherer, know no locks: right
//! for one CPU, and for several that one thread runs in turns. A machine with more threads is refused.
//!
//! Declared here is what it needs of the plugin interface, version 1: `include/qemu/qemu-plugin.h` of QEMU 4.2 to 8.2. Later ones
//! have another version and say so when they load it.
//!
//! Why the `unsafe` is sound: QEMU calls `qemu_plugin_install` once, with a description and arguments that live during the call;
//! blocks, instructions and accesses are only used during the call in which they are handed over; counters are never freed, so
//! they outlive all translated code; what is handed to QEMU as data is a number and no pointer. The gatherer is used by one thread
//! at a time: all other calls come from the thread that runs the CPUs, and the last one when QEMU has stopped it. None of them
//! comes while another one is under way. No function here unwinds into C: it is built to abort on a panic.
#![expect(unsafe_code, reason = "QEMU's plugin interface is C")]

use kerf_profile::block::Instruction;
use kerf_profile::mark::Mark;
use kerf_profile::plugin::Settings;
use kerf_profile::{Call, Gatherer, Plan};
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::PathBuf;

type PluginId = u64;

/// A block of instructions that is being translated; QEMU's.
#[repr(C)]
struct Block {
    _opaque: [u8; 0],
}

/// One of its instructions; QEMU's.
#[repr(C)]
struct Guest {
    _opaque: [u8; 0],
}

/// Where an access goes to; QEMU's.
#[repr(C)]
struct Place {
    _opaque: [u8; 0],
}

/// What QEMU tells about itself and the machine.
#[repr(C)]
pub struct Info {
    target_name: *const c_char,
    version_min: c_int,
    version_cur: c_int,
    system_emulation: bool,
    smp_vcpus: c_int,
    max_vcpus: c_int,
}

/// What QEMU tells about an access.
type Access = u32;

/// `QEMU_PLUGIN_INLINE_ADD_U64`, `QEMU_PLUGIN_CB_NO_REGS` and `QEMU_PLUGIN_MEM_RW`.
const ADD_U64: c_int = 0;
const NO_REGISTERS: c_int = 0;
const READS_AND_WRITES: c_int = 3;

type Executed = extern "C" fn(c_uint, *mut c_void);
type Accessed = extern "C" fn(c_uint, Access, u64, *mut c_void);

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: PluginId, callback: extern "C" fn(PluginId, *const Block));
    fn qemu_plugin_register_atexit_cb(id: PluginId, callback: extern "C" fn(PluginId, *mut c_void), data: *mut c_void);
    fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Guest;
    fn qemu_plugin_insn_data(instruction: *const Guest) -> *const u8;
    fn qemu_plugin_insn_size(instruction: *const Guest) -> usize;
    fn qemu_plugin_insn_vaddr(instruction: *const Guest) -> u64;
    fn qemu_plugin_insn_haddr(instruction: *const Guest) -> *const c_void;
    fn qemu_plugin_register_vcpu_insn_exec_cb(at: *mut Guest, callback: Executed, flags: c_int, data: *mut c_void);
    fn qemu_plugin_register_vcpu_insn_exec_inline(at: *mut Guest, what: c_int, counter: *mut c_void, amount: u64);
    fn qemu_plugin_register_vcpu_mem_cb(
        at: *mut Guest,
        callback: Accessed,
        flags: c_int,
        which: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_mem_size_shift(access: Access) -> c_uint;
    fn qemu_plugin_get_hwaddr(access: Access, address: u64) -> *mut Place;
    fn qemu_plugin_hwaddr_is_io(place: *const Place) -> bool;
    fn qemu_plugin_hwaddr_phys_addr(place: *const Place) -> u64;
}

/// The version of the interface that this file is written for.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "the name is QEMU's")]
pub static qemu_plugin_version: c_int = 1;

/// Everything, from [`qemu_plugin_install`] on.
struct State(UnsafeCell<Option<(Gatherer, PathBuf)>>);

// SAFETY: used by one thread at a time, see above.
unsafe impl Sync for State {}

static STATE: State = State(UnsafeCell::new(None));

/// Does something with the gatherer.
fn with(act: impl FnOnce(&mut Gatherer, &PathBuf)) {
    // SAFETY: one thread at a time, and none of its calls is inside another one, see above.
    if let Some((gatherer, output)) = unsafe { &mut *STATE.0.get() } {
        act(gatherer, output);
    }
}

/// Called by QEMU when it has loaded the plugin; anything but 0 ends QEMU.
///
/// # Safety
/// Only for QEMU: `info` and the `argc` strings of `argv` must be valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: PluginId,
    info: *const Info,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    let (system, cpus) = unsafe { ((*info).system_emulation, (*info).max_vcpus) };
    let count = usize::try_from(argc).unwrap_or(0);
    // SAFETY: the caller's promise.
    let argument = |index: usize| unsafe { CStr::from_ptr(*argv.add(index)) }.to_string_lossy().into_owned();
    let arguments: Vec<String> = (0..count).map(argument).collect();
    let settings = match Settings::of(arguments.iter().map(String::as_str)) {
        Ok(settings) => settings,
        Err(problem) => {
            eprintln!("kerf-profile: {problem}");
            return -1;
        }
    };
    if !system || cpus != 1 && !settings.turns {
        eprintln!("kerf-profile: counts are exact only if one thread runs all CPUs; start QEMU with -smp 1, or with");
        eprintln!("kerf-profile: -accel tcg,thread=single and give the plugin turns=on");
        return -1;
    }
    let gatherer = Gatherer::new(settings.wanted, usize::try_from(cpus).unwrap_or(1));
    // SAFETY: nothing has been registered yet, so nobody else uses it.
    unsafe { *STATE.0.get() = Some((gatherer, settings.output)) };
    // SAFETY: the callbacks have the types that the header asks for and stay loaded until QEMU ends.
    unsafe {
        qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
        qemu_plugin_register_atexit_cb(id, finished, std::ptr::null_mut());
    }
    0
}

/// A block has been translated.
extern "C" fn translated(_id: PluginId, block: *const Block) {
    // SAFETY: QEMU hands over a block that is valid during this call, and so are its instructions and their bytes.
    let (guests, instructions): (Vec<*mut Guest>, Vec<Instruction>) = unsafe {
        (0..qemu_plugin_tb_n_insns(block))
            .map(|index| {
                let guest = qemu_plugin_tb_get_insn(block, index);
                let bytes = std::slice::from_raw_parts(qemu_plugin_insn_data(guest), qemu_plugin_insn_size(guest));
                let (address, host) = (qemu_plugin_insn_vaddr(guest), qemu_plugin_insn_haddr(guest) as u64);
                (guest, Instruction { address, host, bytes })
            })
            .unzip()
    };
    with(|gatherer, _| register(&gatherer.translate(&instructions), &guests));
}

/// Tells QEMU what is to be done when these instructions are executed.
fn register(plan: &Plan, guests: &[*mut Guest]) {
    // In the order of their registration: a block is entered before it counts.
    for (position, call) in &plan.calls {
        let Some(&guest) = guests.get(*position) else { continue };
        let (callback, data): (Executed, usize) = match call {
            Call::Enter(block) => (entered, *block),
            Call::Remap => (remapped, 0),
            Call::Mark(Mark::Begin) => (begins, 0),
            Call::Mark(Mark::End) => (ends, 0),
            Call::Mark(Mark::Start) => (starts, 0),
            Call::Mark(Mark::Stop) => (stops, 0),
            Call::Mark(Mark::Spell(half)) => (spelt, usize::from(*half)),
        };
        // SAFETY: the instruction is QEMU's and valid now; the callback stays.
        unsafe { qemu_plugin_register_vcpu_insn_exec_cb(guest, callback, NO_REGISTERS, data as *mut c_void) };
    }
    for addition in &plan.additions {
        let Some(&guest) = guests.get(addition.position) else { continue };
        // SAFETY: the instruction is QEMU's and valid now; the counter is never freed.
        unsafe {
            let counter = addition.counter.as_ptr().cast();
            qemu_plugin_register_vcpu_insn_exec_inline(guest, ADD_U64, counter, addition.amount);
        }
    }
    for (position, block) in &plan.accesses {
        let Some(&guest) = guests.get(*position) else { continue };
        let data = *block as *mut c_void;
        // SAFETY: the instruction is QEMU's and valid now; the callback stays.
        unsafe { qemu_plugin_register_vcpu_mem_cb(guest, accessed, NO_REGISTERS, READS_AND_WRITES, data) };
    }
}

extern "C" fn entered(cpu: c_uint, block: *mut c_void) {
    with(|gatherer, _| gatherer.enter(cpu as usize, block as usize));
}

extern "C" fn remapped(cpu: c_uint, _data: *mut c_void) {
    with(|gatherer, _| gatherer.remap(cpu as usize));
}

extern "C" fn accessed(cpu: c_uint, access: Access, address: u64, block: *mut c_void) {
    // SAFETY: only what this call is about is asked for, during the call.
    let physical = || unsafe {
        let place = qemu_plugin_get_hwaddr(access, address);
        (!place.is_null() && !qemu_plugin_hwaddr_is_io(place)).then(|| qemu_plugin_hwaddr_phys_addr(place))
    };
    // SAFETY: as above.
    let size = 1 << unsafe { qemu_plugin_mem_size_shift(access) };
    with(|gatherer, _| gatherer.access(cpu as usize, block as usize, address, size, physical));
}

extern "C" fn begins(_cpu: c_uint, _data: *mut c_void) {
    with(|gatherer, _| gatherer.pass(Mark::Begin));
}

extern "C" fn ends(_cpu: c_uint, _data: *mut c_void) {
    with(|gatherer, _| gatherer.pass(Mark::End));
}

extern "C" fn starts(_cpu: c_uint, _data: *mut c_void) {
    with(|gatherer, _| gatherer.pass(Mark::Start));
}

extern "C" fn stops(_cpu: c_uint, _data: *mut c_void) {
    with(|gatherer, _| gatherer.pass(Mark::Stop));
}

extern "C" fn spelt(_cpu: c_uint, half: *mut c_void) {
    with(|gatherer, _| gatherer.pass(Mark::Spell(half as u8)));
}

/// The machine has ended.
extern "C" fn finished(_id: PluginId, _data: *mut c_void) {
    with(|gatherer, output| {
        if let Err(error) = std::fs::write(output, gatherer.finish().to_json()) {
            eprintln!("kerf-profile: cannot write {}: {error}", output.display());
        }
    });
}
