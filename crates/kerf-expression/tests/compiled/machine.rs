//! An interpreter of BPF with the kernel's helpers, which serve an environment.
#![expect(unsafe_code, reason = "helpers write to the program's stack by its address, as the kernel's do")]

use std::cell::RefCell;

use kerf_expression::Environment;

use crate::thread::Thread;

thread_local! {
    /// Helpers are functions without anything of their own.
    static CURRENT: RefCell<Option<Thread>> = const { RefCell::new(None) };
}

fn current<T>(ask: impl FnOnce(&Thread) -> T) -> T {
    CURRENT.with_borrow(|thread| ask(thread.as_ref().expect("a program runs")))
}

/// Writes to the program's memory.
fn write(to: u64, bytes: &[u8]) {
    // SAFETY: a compiled program hands helpers an address on its stack with at least so many bytes; the stack lives while it runs.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
}

const FAULT: u64 = -14i64 as u64;

fn comm(to: u64, size: u64, _: u64, _: u64, _: u64) -> u64 {
    assert_eq!(size, 16);
    write(to, &current(Thread::comm));
    0
}

fn read(to: u64, size: u64, from: u64, _: u64, _: u64) -> u64 {
    let mut bytes = vec![0; size as usize];
    let done = current(|thread| thread.read(from, &mut bytes));
    write(to, &bytes);
    if done { 0 } else { FAULT }
}

fn read_text(to: u64, size: u64, from: u64, _: u64, _: u64) -> u64 {
    let mut found = Vec::new();
    while found.len() + 1 < size as usize && found.last() != Some(&0) {
        let mut byte = [0];
        if !current(|thread| thread.read(from + found.len() as u64, &mut byte)) {
            write(to, &vec![0; size as usize]);
            return FAULT;
        }
        found.push(byte[0]);
    }
    if found.last() != Some(&0) {
        found.push(0);
    }
    write(to, &found);
    found.len() as u64
}

fn thread_and_process(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    current(|thread| u64::from(thread.tgid()) << 32 | u64::from(thread.pid()))
}

fn user_and_group(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    current(|thread| u64::from(thread.gid()) << 32 | u64::from(thread.uid()))
}

fn cpu(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    current(|thread| thread.cpu().into())
}

fn node(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    current(|thread| thread.node().into())
}

fn cgroup(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    current(Thread::cgroup)
}

fn ancestor(level: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    current(|thread| thread.ancestor(level as u32))
}

const HELPERS: [(u32, rbpf::Helper); 9] = [
    (8, cpu),
    (14, thread_and_process),
    (15, user_and_group),
    (16, comm),
    (42, node),
    (80, cgroup),
    (113, read),
    (115, read_text),
    (123, ancestor),
];

/// What a program answers.
pub fn run(code: &[u8], thread: &Thread) -> u64 {
    let mut machine = rbpf::EbpfVmRaw::new(Some(code)).expect("a program");
    for (number, helper) in HELPERS {
        machine.register_helper(number, helper).expect("a helper");
    }
    // struct pt_regs of x86-64, with something in every register.
    let mut registers: Vec<u8> = (0..168).map(|n| 0xe0 | n as u8 & 7).collect();
    for (place, argument) in [112, 104, 96, 88, 72, 64].into_iter().zip(thread.arguments) {
        registers[place..place + 8].copy_from_slice(&argument.to_le_bytes());
    }
    CURRENT.set(Some(thread.clone()));
    machine.execute_program(&mut registers).expect("it runs to its end")
}
