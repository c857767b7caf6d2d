//! What an expression sees: a thread, and memory in pieces.

use kerf_expression::Environment;

/// A thread, and pieces of memory at addresses of the kernel.
#[derive(Clone, Debug)]
pub struct Thread {
    pub comm: [u8; 16],
    /// Thread, process, user, group, processor, node.
    pub numbers: [u32; 6],
    pub cgroups: Vec<u64>,
    pub arguments: [u64; 6],
    pub memory: Vec<(u64, Vec<u8>)>,
}

impl Environment for Thread {
    fn comm(&self) -> [u8; 16] {
        self.comm
    }
    fn pid(&self) -> u32 {
        self.numbers[0]
    }
    fn tgid(&self) -> u32 {
        self.numbers[1]
    }
    fn uid(&self) -> u32 {
        self.numbers[2]
    }
    fn gid(&self) -> u32 {
        self.numbers[3]
    }
    fn cpu(&self) -> u32 {
        self.numbers[4]
    }
    fn node(&self) -> u32 {
        self.numbers[5]
    }
    fn cgroup(&self) -> u64 {
        self.cgroups.last().copied().unwrap_or(0)
    }
    fn ancestor(&self, level: u32) -> u64 {
        self.cgroups.get(level as usize).copied().unwrap_or(0)
    }
    fn argument(&self, number: usize) -> u64 {
        self.arguments[number]
    }
    fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        let piece = |(start, content): &(u64, Vec<u8>)| {
            let from = usize::try_from(address.checked_sub(*start)?).ok()?;
            content.get(from..from.checked_add(bytes.len())?).map(<[u8]>::to_vec)
        };
        let found = self.memory.iter().find_map(piece);
        found.is_some_and(|found| {
            bytes.copy_from_slice(&found);
            true
        })
    }
}
