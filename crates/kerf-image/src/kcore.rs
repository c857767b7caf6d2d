//! The memory of the running kernel, through `/proc/kcore`.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};

use crate::elf::{Header, LE, damaged};
use crate::error::Problem;

/// The program headers of `/proc/kcore` end before this many bytes.
pub(crate) const HEAD: usize = 64 << 10;

/// Nobody reads more than this at once.
const READ_LIMIT: usize = 256 << 20;

/// `/proc/kcore`, with the memory that the kernel gave away after it booted taken out.
#[derive(Debug)]
pub(crate) struct Kcore {
    pub(crate) file: File,
    pub(crate) segments: Vec<Segment>,
    /// Memory that was the kernel's and may be anybody's now (`__init`).
    pub(crate) freed: Vec<Range<u64>>,
}

/// A range of addresses, and where it is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) address: u64,
    pub(crate) size: u64,
    pub(crate) offset: u64,
}

impl Kcore {
    /// `len` bytes from `address` on, if all of them are the kernel's.
    pub(crate) fn read(&self, address: u64, len: usize) -> Option<Vec<u8>> {
        let end = address.checked_add(len as u64)?;
        if len > READ_LIMIT || self.freed.iter().any(|freed| address < freed.end && freed.start < end) {
            return None;
        }
        let segment = self
            .segments
            .iter()
            .find(|segment| segment.address <= address && end <= segment.address.saturating_add(segment.size))?;
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, segment.offset.checked_add(address - segment.address)?).ok()?;
        Some(bytes)
    }
}

/// The segments that the head of the file announces.
pub(crate) fn segments(head: &[u8]) -> Result<Vec<Segment>, Problem> {
    let header = Header::parse(head).map_err(damaged("the header of /proc/kcore"))?;
    let segments = header.program_headers(LE, head).map_err(damaged("the program headers of /proc/kcore"))?;
    Ok(segments
        .iter()
        .filter(|segment| segment.p_type(LE) == elf::PT_LOAD)
        .map(|segment| Segment {
            address: segment.p_vaddr(LE),
            size: segment.p_memsz(LE),
            offset: segment.p_offset(LE),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// The head of a core file with two segments: a 64-bit little-endian x86 header and its program headers.
    fn head() -> Vec<u8> {
        let mut head = b"\x7fELF\x02\x01\x01".to_vec();
        head.resize(16, 0);
        head.extend([4, 0, 62, 0, 1, 0, 0, 0]);
        head.extend([0u64, 64, 0].into_iter().flat_map(u64::to_le_bytes));
        head.extend([0, 0, 0, 0, 64, 0, 56, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        // A note, then two ranges of memory: type, flags, offset, virtual and physical address, sizes, alignment.
        for (kind, offset, address, size) in
            [(4u32, 0u64, 0u64, 0u64), (1, 512, 0xffff_8000_0000_0000, 64), (1, 1024, 0xffff_ffff_8100_0000, 128)]
        {
            head.extend([kind, 7].into_iter().flat_map(u32::to_le_bytes));
            head.extend([offset, address, 0, size, size, 4096].into_iter().flat_map(u64::to_le_bytes));
        }
        head
    }

    fn kcore(freed: Range<u64>) -> Kcore {
        let mut file = tempfile::tempfile().expect("a temporary file");
        let mut content = head();
        content.resize(1024, 0);
        content.extend(0..128u8);
        file.write_all(&content).expect("a temporary file");
        Kcore { file, segments: segments(&head()).expect("the head is sound"), freed: vec![freed] }
    }

    #[test]
    fn only_memory_is_listed() {
        let expected = [
            Segment { address: 0xffff_8000_0000_0000, size: 64, offset: 512 },
            Segment { address: 0xffff_ffff_8100_0000, size: 128, offset: 1024 },
        ];
        assert_eq!(segments(&head()).expect("the head is sound"), expected);
    }

    #[test]
    fn reads_stay_inside_what_is_the_kernels() {
        let text = 0xffff_ffff_8100_0000;
        let kcore = kcore(text + 64..text + 96);
        assert_eq!(kcore.read(text + 2, 3), Some(vec![2, 3, 4]));
        assert_eq!(kcore.read(text + 127, 1), Some(vec![127]));
        assert_eq!(kcore.read(text + 127, 2), None);
        assert_eq!(kcore.read(text - 1, 2), None);
        assert_eq!(kcore.read(text + 60, 4), Some(vec![60, 61, 62, 63]));
        assert_eq!(kcore.read(text + 60, 5), None);
        assert_eq!(kcore.read(text + 95, 1), None);
        assert_eq!(kcore.read(text + 96, 1), Some(vec![96]));
        assert_eq!(kcore.read(u64::MAX, 2), None);
        assert_eq!(kcore.read(text, usize::MAX), None);
    }

    #[test]
    fn a_cut_head_is_an_error() {
        let head = head();
        for len in 0..head.len() {
            assert!(segments(&head[..len]).is_err(), "{len} bytes");
        }
    }
}
