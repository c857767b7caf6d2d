//! The plugin: QEMU loads it, it counts. Of the workspace's two files with `unsafe` this is the one that talks to C.
//!
//! Every instruction gets an addition to one of two counters, which QEMU compiles into the translated code, so an
//! instruction counts when it is executed and not when its block is entered. Marks (see `kerf_profile::mark`) get a call instead. Two
//! counters and no locks on the way are right for one CPU; the plugin refuses to be loaded into a machine with more.
//!
//! Declared here is what it needs of the plugin interface, version 1: `include/qemu/qemu-plugin.h` of QEMU 4.2 to 8.2. Later ones
//! have another version and say so when they load it.
//!
//! Why the `unsafe` is sound: QEMU calls `qemu_plugin_install` once, with a description and arguments that live during the call;
//! blocks and instructions are only used during the call in which they are handed over; the counters are statics, so they
//! outlive all translated code; no function here unwinds into C.
#![expect(unsafe_code, reason = "QEMU's plugin interface is C")]

use kerf_profile::mark::Mark;
use kerf_profile::{Counts, Tally, plugin};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

type PluginId = u64;

/// A block of instructions that is being translated; QEMU's.
#[repr(C)]
struct Block {
    _opaque: [u8; 0],
}

/// One of its instructions; QEMU's.
#[repr(C)]
struct Instruction {
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

/// `QEMU_PLUGIN_INLINE_ADD_U64` and `QEMU_PLUGIN_CB_NO_REGS`.
const ADD_U64: c_int = 0;
const NO_REGISTERS: c_int = 0;

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: PluginId, callback: extern "C" fn(PluginId, *const Block));
    fn qemu_plugin_register_atexit_cb(id: PluginId, callback: extern "C" fn(PluginId, *mut c_void), data: *mut c_void);
    fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Instruction;
    fn qemu_plugin_insn_data(instruction: *const Instruction) -> *const u8;
    fn qemu_plugin_insn_size(instruction: *const Instruction) -> usize;
    fn qemu_plugin_insn_vaddr(instruction: *const Instruction) -> u64;
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: *mut Instruction,
        callback: extern "C" fn(c_uint, *mut c_void),
        flags: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_register_vcpu_insn_exec_inline(
        instruction: *mut Instruction,
        operation: c_int,
        counter: *mut c_void,
        amount: u64,
    );
}

/// The version of the interface that this file is written for.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "the name is QEMU's")]
pub static qemu_plugin_version: c_int = 1;

static KERNEL: AtomicU64 = AtomicU64::new(0);
static USER: AtomicU64 = AtomicU64::new(0);
static TALLY: Mutex<Tally> = Mutex::new(Tally::new());
static OUTPUT: Mutex<Option<PathBuf>> = Mutex::new(None);

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
    if !system || cpus != 1 {
        eprintln!("kerf-profile: counts are exact only in a machine with one CPU; start QEMU with -smp 1");
        return -1;
    }
    let count = usize::try_from(argc).unwrap_or(0);
    // SAFETY: the caller's promise.
    let argument = |index: usize| unsafe { CStr::from_ptr(*argv.add(index)) }.to_string_lossy().into_owned();
    let Some(output) = (0..count).find_map(|index| plugin::output_of(&argument(index)).map(PathBuf::from)) else {
        eprintln!("kerf-profile: the argument out=FILE is missing");
        return -1;
    };
    *lock(&OUTPUT) = Some(output);
    // SAFETY: the callbacks have the types that the header asks for and stay loaded until QEMU ends.
    unsafe {
        qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
        qemu_plugin_register_atexit_cb(id, finished, std::ptr::null_mut());
    }
    0
}

/// A block has been translated: every instruction in it gets its counter.
extern "C" fn translated(_id: PluginId, block: *const Block) {
    // SAFETY: QEMU hands over a block that is valid during this call, and so are its instructions and their bytes.
    unsafe {
        for index in 0..qemu_plugin_tb_n_insns(block) {
            let instruction = qemu_plugin_tb_get_insn(block, index);
            let kernel = qemu_plugin_insn_vaddr(instruction) >> 63 != 0;
            let length = qemu_plugin_insn_size(instruction);
            let bytes = std::slice::from_raw_parts(qemu_plugin_insn_data(instruction), length);
            let mark = if kernel { None } else { Mark::of(bytes) };
            if let Some(mark) = mark {
                let callback = if mark == Mark::Begin { begins } else { ends };
                qemu_plugin_register_vcpu_insn_exec_cb(instruction, callback, NO_REGISTERS, std::ptr::null_mut());
            } else {
                let counter = if kernel { &KERNEL } else { &USER };
                qemu_plugin_register_vcpu_insn_exec_inline(instruction, ADD_U64, counter.as_ptr().cast(), 1);
            }
        }
    }
}

extern "C" fn begins(_cpu: c_uint, _data: *mut c_void) {
    lock(&TALLY).pass(Mark::Begin, now());
}

extern "C" fn ends(_cpu: c_uint, _data: *mut c_void) {
    lock(&TALLY).pass(Mark::End, now());
}

/// The machine has ended.
extern "C" fn finished(_id: PluginId, _data: *mut c_void) {
    let profile = lock(&TALLY).finish(now());
    if let Some(output) = lock(&OUTPUT).as_ref()
        && let Err(error) = std::fs::write(output, profile.to_json())
    {
        eprintln!("kerf-profile: cannot write {}: {error}", output.display());
    }
}

fn now() -> Counts {
    Counts { kernel: KERNEL.load(Ordering::Relaxed), user: USER.load(Ordering::Relaxed) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
