//! The gatherer against code whose counts are known, with a processor of a few lines that does what a plan says.

use super::*;
use crate::mark::{BEGIN, END, SPELL, START, STOP};
use crate::profile::{Counts, Interval};
use std::sync::atomic::Ordering;

const KERNEL: u64 = 0xffff_ffff_8100_0000;
const DEC_ECX: &[u8] = &[0xff, 0xc9];
const JNZ_BACK: &[u8] = &[0x75, 0xfc];
const LOAD: &[u8] = &[0x48, 0x8b, 0x07];
const RET: &[u8] = &[0xc3];
const NOP: &[u8] = &[0x90];

/// Code of the guest at an address.
struct Code {
    address: u64,
    bytes: Vec<Vec<u8>>,
}

impl Code {
    fn new(address: u64, bytes: &[&[u8]]) -> Code {
        Code { address, bytes: bytes.iter().map(|bytes| bytes.to_vec()).collect() }
    }

    fn mark(constant: u64) -> Code {
        Code { address: 0x40_0000, bytes: vec![[&[0x48, 0xb8][..], &constant.to_le_bytes()].concat()] }
    }

    fn instructions(&self) -> Vec<Instruction<'_>> {
        let mut offset = 0;
        let place = |bytes: &'_ Vec<u8>| {
            let address = self.address + offset;
            offset += bytes.len() as u64;
            address
        };
        let addresses: Vec<u64> = self.bytes.iter().map(place).collect();
        let host = |address: u64| 0x7000_0000 + address % (1 << 24);
        let both = self.bytes.iter().zip(addresses);
        both.map(|(bytes, address)| Instruction { address, host: host(address), bytes }).collect()
    }
}

/// A processor: translates and runs.
struct Processor(Gatherer);

impl Processor {
    fn new(detail: Detail) -> Processor {
        Processor(Gatherer::new(Wanted { detail, model: Model::default() }, 1))
    }

    /// Runs code so many times; `faults` stops it before the instruction behind this one.
    fn run(&mut self, code: &Code, times: usize, faults: Option<usize>) {
        let instructions = code.instructions();
        let plan = self.0.translate(&instructions);
        for _ in 0..times {
            for position in 0..=faults.unwrap_or(instructions.len() - 1) {
                for (_, call) in plan.calls.iter().filter(|(at, _)| *at == position) {
                    match call {
                        Call::Mark(mark) => self.0.pass(*mark),
                        Call::Enter(block) => self.0.enter(0, *block),
                        Call::Remap => self.0.remap(0),
                    }
                }
                for addition in plan.additions.iter().filter(|addition| addition.position == position) {
                    addition.counter.fetch_add(addition.amount, Ordering::Relaxed);
                }
            }
        }
    }

    fn mark(&mut self, constant: u64) {
        self.run(&Code::mark(constant), 1, None);
    }

    /// Spells a name, begins, does, ends.
    fn interval(&mut self, name: &str, act: impl FnOnce(&mut Processor)) {
        for byte in name.bytes() {
            self.mark(SPELL | u64::from(byte >> 4));
            self.mark(SPELL | u64::from(byte & 15));
        }
        self.mark(BEGIN);
        act(self);
        self.mark(END);
    }
}

const DETAILS: [Detail; 4] = [Detail::Sums, Detail::Blocks, Detail::Flow, Detail::Caches];

#[test]
fn a_loop_counts_the_same_in_every_detail() {
    let around = Code::new(KERNEL, &[DEC_ECX, JNZ_BACK]);
    let behind = Code::new(KERNEL + 4, &[RET]);
    for detail in DETAILS {
        let mut processor = Processor::new(detail);
        processor.run(&around, 7, None);
        processor.interval("loop", |processor| {
            processor.run(&around, 1000, None);
            processor.run(&behind, 1, None);
        });
        let profile = processor.0.finish();
        let [interval] = profile.intervals.as_slice() else { panic!("{profile:?}") };
        assert_eq!(interval.name, "loop");
        assert_eq!(interval.instructions, Counts { kernel: 2001, user: 0 }, "{detail:?}");
        assert_eq!(interval.blocks, Counts { kernel: 1001, user: 0 }, "{detail:?}");
        assert_eq!((profile.total, profile.stray), (Counts { kernel: 2015, user: 0 }, 0), "{detail:?}");
        let taken: u64 = interval.rows.iter().map(|row| row.taken).sum();
        let edges: Vec<u64> = interval.edges.iter().map(|edge| edge.count).collect();
        if detail >= Detail::Flow {
            // In the loop 999 and one from before; and the return, wherever it went.
            assert_eq!((taken, edges), (1001, vec![1000, 1]));
        }
    }
}

#[test]
fn an_instruction_behind_a_fault_does_not_count() {
    let code = Code::new(KERNEL, &[DEC_ECX, LOAD, NOP, NOP, RET]);
    for detail in DETAILS {
        let mut processor = Processor::new(detail);
        processor.run(&code, 3, Some(1));
        assert_eq!(processor.0.finish().total.kernel, 6, "{detail:?}");
    }
}

#[test]
fn patched_code_is_another_block() {
    let stock = Code::new(KERNEL, &[NOP, RET]);
    let patched = Code::new(KERNEL, &[DEC_ECX, DEC_ECX, RET]);
    let mut processor = Processor::new(Detail::Blocks);
    processor.interval("", |processor| {
        processor.run(&stock, 5, None);
        processor.run(&patched, 2, None);
        processor.run(&stock, 5, None);
    });
    let profile = processor.0.finish();
    let rows: Vec<_> = profile.intervals[0].rows.iter().map(|row| row.instructions).collect();
    assert_eq!(rows, [20, 6]);
    assert_eq!(profile.blocks.iter().map(|place| place.size).collect::<Vec<_>>(), [2, 5]);
}

#[test]
fn the_whole_run_holds_its_intervals() {
    let code = Code::new(0x1000, &[NOP, RET]);
    let mut processor = Processor::new(Detail::Blocks);
    processor.mark(START);
    processor.interval("a", |processor| processor.run(&code, 2, None));
    processor.run(&code, 3, None);
    processor.interval("b", |processor| processor.run(&code, 4, None));
    processor.mark(STOP);
    processor.run(&code, 1, None);
    let profile = processor.0.finish();
    let user = |interval: &Interval| interval.instructions.user;
    assert_eq!(profile.intervals.iter().map(user).collect::<Vec<_>>(), [4, 8]);
    assert_eq!(profile.whole.as_ref().map(user), Some(18));
    assert_eq!(profile.total.user, 20);
}

#[test]
fn marks_without_a_partner_are_counted() {
    let mut processor = Processor::new(Detail::Sums);
    for constant in [END, BEGIN, BEGIN, END, BEGIN, STOP, START] {
        processor.mark(constant);
    }
    let profile = processor.0.finish();
    assert_eq!((profile.intervals.len(), profile.stray), (1, 5));
}

#[test]
fn an_interrupt_is_no_way_out_of_a_branch() {
    let around = Code::new(KERNEL, &[LOAD, DEC_ECX, JNZ_BACK]);
    let next = Code::new(KERNEL + 3, &[DEC_ECX, JNZ_BACK]);
    let behind = Code::new(KERNEL + 7, &[RET]);
    let handler = Code::new(KERNEL + 0x1000, &[NOP, &[0x48, 0xcf]]);
    let edges_and_taken = |act: &dyn Fn(&mut Processor)| {
        let mut processor = Processor::new(Detail::Flow);
        processor.interval("", |processor| act(processor));
        let profile = processor.0.finish();
        let [interval] = profile.intervals.as_slice() else { panic!("{profile:?}") };
        let taken: u64 = interval.rows.iter().map(|row| row.taken).sum();
        (interval.edges.iter().map(|edge| edge.count).sum::<u64>(), taken)
    };
    // Behind the branch: it arrives when the handler has returned. The handler's own return is the third that is taken.
    let seen = edges_and_taken(&|processor| {
        for code in [&around, &next, &handler, &next, &behind] {
            processor.run(code, 1, None);
        }
    });
    assert_eq!(seen, (3, 4), "two ways of the loop and one out of it; the loop twice, both returns");
    // Within the block: it goes on in its middle.
    let seen = edges_and_taken(&|processor| {
        processor.run(&around, 1, Some(0));
        for code in [&handler, &next, &behind] {
            processor.run(code, 1, None);
        }
    });
    assert_eq!(seen, (1, 2), "out of the loop; both returns");
}

#[test]
fn code_and_data_are_looked_for_in_the_caches() {
    let code = Code::new(KERNEL, &[LOAD, RET]);
    let mut processor = Processor::new(Detail::Caches);
    processor.interval("", |processor| {
        processor.run(&code, 10, None);
        for address in (0..4096).step_by(8) {
            processor.0.access(0, 0, address, 8, || Some(address));
        }
    });
    let profile = processor.0.finish();
    let misses = profile.intervals[0].rows.iter().map(|row| row.misses).next().unwrap_or_default();
    assert_eq!(misses, Misses { l1i: 1, l1d: 64, l2: 65, itlb: 1 });
}
