//! The processor's registers as QEMU's stub hands them over.

/// Registers of a CPU in 64-bit mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registers {
    /// The general registers in the order of their encoding: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 to r15.
    pub general: [u64; 16],
    /// The instruction pointer.
    pub rip: u64,
    /// The flags.
    pub rflags: u32,
    /// The code segment; its low two bits are 0 in the kernel and 3 outside.
    pub cs: u32,
    /// Where the segment FS begins.
    pub fs_base: u64,
    /// Where the segment GS begins.
    pub gs_base: u64,
}

/// The stub's order of the general registers, by their number in an encoding.
const ORDER: [usize; 16] = [0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15];

/// Offsets in the stub's answer: 16 general registers, rip, flags, six segments of four bytes, three bases, …
const RIP: usize = 128;
const FLAGS: usize = 136;
const CS: usize = 140;
const FS_BASE: usize = 164;
const GS_BASE: usize = 172;

impl Registers {
    /// The stack pointer.
    pub fn rsp(&self) -> u64 {
        self.general[4]
    }

    /// Whether the CPU runs the kernel.
    pub fn in_kernel(&self) -> bool {
        self.cs & 3 == 0
    }

    /// Reads the stub's answer.
    pub(super) fn parse(bytes: &[u8]) -> Option<Registers> {
        let long = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let mut general = [0; 16];
        for (n, number) in ORDER.into_iter().enumerate() {
            general[number] = long(8 * n)?;
        }
        Some(Registers {
            general,
            rip: long(RIP)?,
            rflags: word(FLAGS)?,
            cs: word(CS)?,
            fs_base: long(FS_BASE)?,
            gs_base: long(GS_BASE)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_found_by_their_encoding() {
        let mut bytes = vec![0; 188];
        for (at, value) in [(8, 3), (56, 4), (RIP, 0x77), (CS, 0x10), (GS_BASE, 0x99)] {
            bytes[at] = value;
        }
        let registers = Registers::parse(&bytes).unwrap();
        assert_eq!((registers.general[3], registers.rsp(), registers.rip), (3, 4, 0x77));
        assert!(registers.in_kernel() && registers.gs_base == 0x99);
        assert_eq!(Registers::parse(&bytes[..170]), None);
    }
}
