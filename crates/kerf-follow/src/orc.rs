//! Who called: return addresses on a kernel's stack, by the tables that the kernel's own unwinder has in its image (ORC).

use kerf_image::Image;
use kerf_lab::LabError;
use kerf_lab::gdb::{Debugger, Registers};

use super::frames::Frame;

/// More calls than any stack of the kernel holds.
const MOST_FRAMES: usize = 200;

/// Size of a row: two offsets, then the registers that they count from, the kind, and a bit.
const ROW: usize = 6;

/// The tables.
pub struct Orc {
    /// Where each row begins to hold, sorted.
    starts: Vec<(u64, Row)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    sp_offset: i64,
    bp_offset: i64,
    sp_from: u16,
    bp_from: u16,
    kind: u16,
}

/// What is known of a caller while the stack is walked.
#[derive(Clone, Copy)]
struct Walk {
    ip: u64,
    sp: u64,
    bp: Option<u64>,
    /// Whether `ip` is a return address, which may lie behind the function's end.
    returns: bool,
}

impl Orc {
    /// Reads the tables; a kernel without them has no callers to name.
    pub fn read(image: &Image) -> Orc {
        let section =
            |name: &str| image.section_named(name).map(|(n, section)| (section.address, image.section_bytes(n)));
        let (Some((base, ips)), Some((_, rows))) = (section(".orc_unwind_ip"), section(".orc_unwind")) else {
            return Orc { starts: Vec::new() };
        };
        let starts = ips.chunks_exact(4).zip(rows.chunks_exact(ROW)).zip(0u64..).filter_map(|((ip, row), n)| {
            let distance = i64::from(i32::from_le_bytes(ip.try_into().ok()?));
            Some((base.wrapping_add(4 * n).wrapping_add_signed(distance), Row::parse(row)?))
        });
        let mut starts: Vec<(u64, Row)> = starts.collect();
        starts.sort_by_key(|(ip, _)| *ip);
        Orc { starts }
    }

    /// The frames from the outermost to that of the function that runs now, as far as they can be found.
    pub fn frames(&self, debugger: &mut Debugger, registers: &Registers) -> Result<Vec<Frame>, LabError> {
        let mut frames = Vec::new();
        let mut walk = Walk { ip: registers.rip, sp: registers.rsp(), bp: Some(registers.general[5]), returns: false };
        while frames.len() < MOST_FRAMES {
            match self.caller(debugger, registers, walk)? {
                Some((frame, next)) => {
                    frames.push(frame);
                    walk = next;
                }
                None => break,
            }
        }
        frames.reverse();
        Ok(frames)
    }

    fn row(&self, ip: u64) -> Option<Row> {
        let behind = self.starts.partition_point(|(start, _)| *start <= ip);
        self.starts.get(behind.checked_sub(1)?).map(|(_, row)| *row)
    }

    fn caller(
        &self,
        debugger: &mut Debugger,
        registers: &Registers,
        at: Walk,
    ) -> Result<Option<(Frame, Walk)>, LabError> {
        let Some(row) = self.row(if at.returns { at.ip.wrapping_sub(1) } else { at.ip }) else { return Ok(None) };
        let mut word = |address: u64| -> Result<Option<u64>, LabError> {
            let bytes = debugger.read(address, 8)?;
            Ok(bytes.and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?))))
        };
        let innermost = |number: usize| registers.general.get(number).copied().filter(|_| !at.returns);
        let base = match row.sp_from {
            2 => innermost(2),
            3 => innermost(7),
            4 | 8 => at.bp,
            5 | 9 => Some(at.sp),
            6 => innermost(10),
            7 => innermost(13),
            _ => None,
        };
        let Some(base) = base else { return Ok(None) };
        // The last two say where the pointer is kept.
        let sp = match row.sp_from {
            8 => word(base.wrapping_add_signed(row.sp_offset))?,
            9 => word(base)?.map(|sp| sp.wrapping_add_signed(row.sp_offset)),
            _ => Some(base.wrapping_add_signed(row.sp_offset)),
        };
        let Some(sp) = sp else { return Ok(None) };
        match row.kind {
            CALL => {
                let slot = sp.wrapping_sub(8);
                let Some(ip) = word(slot)? else { return Ok(None) };
                let bp = match (row.bp_from, at.bp) {
                    (1, _) => word(sp.wrapping_add_signed(row.bp_offset))?,
                    (4, Some(bp)) => word(bp.wrapping_add_signed(row.bp_offset))?,
                    (_, bp) => bp,
                };
                Ok(Some((Frame { slot, ip }, Walk { ip, sp, bp, returns: true })))
            }
            REGISTERS => {
                // `struct pt_regs`: bp is its fifth member, ip its seventeenth, sp its twentieth.
                let (bp, ip, above) = (word(sp + 32)?, word(sp + 128)?, word(sp + 152)?);
                let (Some(ip), Some(above)) = (ip, above) else { return Ok(None) };
                let frame = Frame { slot: sp + 128, ip };
                Ok((ip >> 63 != 0).then_some((frame, Walk { ip, sp: above, bp, returns: false })))
            }
            _ => Ok(None),
        }
    }
}

const CALL: u16 = 2;
const REGISTERS: u16 = 3;

impl Row {
    fn parse(bytes: &[u8]) -> Option<Row> {
        let [a, b, c, d, e, f] = *bytes.first_chunk::<ROW>()?;
        let bits = u16::from_le_bytes([e, f]);
        Some(Row {
            sp_offset: i64::from(i16::from_le_bytes([a, b])),
            bp_offset: i64::from(i16::from_le_bytes([c, d])),
            sp_from: bits & 0xf,
            bp_from: bits >> 4 & 0xf,
            kind: bits >> 8 & 7,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_six_bytes() {
        let row = Row::parse(&[0x18, 0, 0xf0, 0xff, 0x15, 2]).unwrap();
        assert_eq!(row, Row { sp_offset: 24, bp_offset: -16, sp_from: 5, bp_from: 1, kind: CALL });
        assert_eq!(Row::parse(&[0; 5]), None);
    }

    #[test]
    fn a_row_holds_up_to_the_next() {
        let row = |sp_offset| Row { sp_offset, bp_offset: 0, sp_from: 5, bp_from: 0, kind: CALL };
        let orc = Orc { starts: vec![(10, row(8)), (20, row(16))] };
        assert_eq!(orc.row(9), None);
        assert_eq!(orc.row(19), Some(row(8)));
        assert_eq!(orc.row(99), Some(row(16)));
    }
}
