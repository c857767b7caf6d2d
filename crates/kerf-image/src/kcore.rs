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
