//! The calls that an execution is in: those that were found at its start, and those that it has made since.

/// A return address on a stack, or an instruction that a fault has interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it is kept.
    pub slot: u64,
    /// Where it goes.
    pub ip: u64,
}

/// The size of a kernel stack. Two addresses further apart than this are on different ones, or one is on none.
pub(super) const STACK: u64 = 16 << 10;

/// Calls, the innermost last, and the stacks that they were made on.
pub(super) struct Frames {
    frames: Vec<Frame>,
    /// A stack pointer of each stack that was seen.
    stacks: Vec<u64>,
}

impl Frames {
    pub(super) fn new(frames: Vec<Frame>, rsp: u64) -> Frames {
        let mut all = Frames { frames, stacks: vec![rsp] };
        all.now_at(rsp);
        all
    }

    /// A call, or a fault.
    pub(super) fn enter(&mut self, slot: u64, ip: u64) {
        self.frames.push(Frame { slot, ip });
    }

    /// Takes note of the stack pointer: what lies below it, on the same stack, is left.
    pub(super) fn now_at(&mut self, rsp: u64) {
        while self.frames.last().is_some_and(|frame| frame.slot < rsp && rsp - frame.slot < STACK) {
            self.frames.pop();
        }
        if !self.stacks.iter().any(|seen| seen.abs_diff(rsp) < STACK) {
            self.stacks.push(rsp);
        }
    }

    /// Return addresses, the innermost first.
    pub(super) fn addresses(&self) -> impl Iterator<Item = u64> {
        self.frames.iter().rev().map(|frame| frame.ip)
    }

    /// Where the return address of the n-th caller is kept; 0 is the function that runs now.
    pub(super) fn slot(&self, n: usize) -> Option<u64> {
        self.frames.iter().rev().nth(n).map(|frame| frame.slot)
    }

    /// Whether a return address is still to come.
    pub(super) fn holds(&self, slot: u64) -> bool {
        self.frames.iter().any(|frame| frame.slot == slot)
    }

    /// Whether an address is on one of the stacks.
    pub(super) fn on_stack(&self, address: u64) -> bool {
        self.stacks.iter().any(|seen| seen.abs_diff(address) < STACK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_take_frames_away() {
        let mut frames = Frames::new(vec![Frame { slot: 0x8ff8, ip: 1 }], 0x8f00);
        frames.enter(0x8ef8, 2);
        frames.now_at(0x8ef8);
        assert_eq!(frames.addresses().collect::<Vec<_>>(), [2, 1]);
        assert_eq!(frames.slot(1), Some(0x8ff8));
        // Another stack leaves them as they are.
        frames.now_at(0xf_0000);
        assert!(frames.holds(0x8ef8) && frames.on_stack(0xf_0100) && frames.on_stack(0x8f00));
        frames.now_at(0x8f00);
        assert_eq!(frames.addresses().collect::<Vec<_>>(), [1]);
        assert!(!frames.on_stack(0x50_0000));
    }
}
