//! The only unsafe code of this room: a mapping with a page of code, a page for saved registers and a page of data, and the call
//! into it. The code page is writable or executable, never both.
#![expect(unsafe_code, reason = "running code that was put together at run time has no safe interface")]

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::{Errno, Result};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;

/// Mappings are placed from here on, low enough for 32-bit absolute addresses.
const FIRST: u64 = 0x2000_0000;
/// Distance between the places that are tried.
const STRIDE: u64 = 0x1_0000;
/// How many places are tried.
const PLACES: u64 = 0x4000;

/// Three pages next to each other: code, registers, data.
pub(super) struct Pages {
    base: *mut c_void,
}

// SAFETY: the mapping belongs to this value alone and is only reached through `&mut self` or copied out of.
unsafe impl Send for Pages {}

impl Pages {
    /// Maps the pages somewhere below 2 GiB.
    pub fn map() -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        for _ in 0..PLACES {
            let place = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % PLACES * STRIDE;
            // SAFETY: a new anonymous mapping that replaces none.
            let mapped = unsafe {
                mmap_anonymous(
                    place as usize as *mut c_void,
                    3 * PAGE,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE,
                )
            };
            match mapped {
                // Kernels that do not know the flag take the address as a hint.
                Ok(base) if base as u64 == place => return Ok(Self { base }),
                Ok(base) => drop(Self { base }),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::NOMEM)
    }

    /// Address of the code page.
    pub fn code(&self) -> u64 {
        self.base as u64
    }

    /// Address of the register page.
    pub fn registers(&self) -> u64 {
        self.code() + PAGE as u64
    }

    /// Address of the data page.
    pub fn data(&self) -> u64 {
        self.code() + 2 * PAGE as u64
    }

    fn protect(&mut self, flags: MprotectFlags) -> Result<()> {
        // SAFETY: the first page of a mapping that this value owns; nothing runs in it now, since running needs
        // `&mut self` too.
        unsafe { mprotect(self.base, PAGE, flags) }
    }

    /// Fills the code page: `bytes`, then breakpoints.
    pub fn set_code(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() > PAGE {
            return Err(Errno::NOMEM);
        }
        self.protect(MprotectFlags::READ | MprotectFlags::WRITE)?;
        // SAFETY: the page is mapped and has just been made writable; `bytes` fits and lies elsewhere.
        unsafe {
            let start = self.base.cast::<u8>();
            start.write_bytes(0xcc, PAGE);
            start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        self.protect(MprotectFlags::READ | MprotectFlags::EXEC)
    }

    /// Writes one 64-bit slot of the register page.
    pub fn set_slot(&mut self, slot: usize, value: u64) {
        assert!(slot < PAGE / 8, "the slot lies in its page");
        // SAFETY: within the second page, which is always writable; aligned.
        unsafe { self.base.cast::<u64>().add(PAGE / 8 + slot).write_volatile(value) }
    }

    /// Reads one 64-bit slot of the register page.
    pub fn slot(&self, slot: usize) -> u64 {
        assert!(slot < PAGE / 8, "the slot lies in its page");
        // SAFETY: within the second page, which is always readable; aligned.
        unsafe { self.base.cast::<u64>().add(PAGE / 8 + slot).read_volatile() }
    }

    /// Copies `data` to the data page.
    pub fn set_data(&mut self, data: &[u8; PAGE]) {
        // SAFETY: the third page is always writable.
        unsafe { self.base.cast::<u8>().add(2 * PAGE).copy_from_nonoverlapping(data.as_ptr(), PAGE) }
    }

    /// Copies the data page.
    pub fn copy_data(&self, data: &mut [u8; PAGE]) {
        // SAFETY: the third page is always readable.
        unsafe { self.base.cast::<u8>().add(2 * PAGE).copy_to_nonoverlapping(data.as_mut_ptr(), PAGE) }
    }

    /// Calls the code page.
    ///
    /// The caller has filled it with code that behaves as a C function: it returns with the callee-saved registers and
    /// the stack pointer as they were and touches no memory but these pages and its own stack frame.
    pub fn call(&mut self) {
        // SAFETY: `Machine` puts the frame around the code and admits only instructions whose every effect the
        // symbolic engine knows: no jumps, no system state, and memory accesses that were evaluated to lie within the
        // data page. The compiler cannot see the pages change, so all accesses to them go through raw pointers.
        unsafe {
            let code: extern "sysv64" fn() = std::mem::transmute(self.base);
            code();
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own and nothing points into it any longer.
        let _ = unsafe { munmap(self.base, 3 * PAGE) };
    }
}
