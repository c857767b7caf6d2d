//! Strings: read to the stack once, and compared eight bytes at a time.

use super::instruction::{ADD, FRAME, LESS_SIGNED, Label, MOVE, NOT_EQUAL, R0, R1, R2};
use super::{GET_CURRENT_COMM, PROBE_READ_KERNEL, PROBE_READ_KERNEL_STR, Writer};
use crate::tree::{COMM, Text};

impl Writer {
    /// Goes to `target` if whether the string is one of several is `wanted`.
    pub(super) fn text_among(&mut self, text: &Text, items: &[String], wanted: bool, target: Label) {
        let longest = items.iter().map(String::len).max().unwrap_or(0);
        let size = match text {
            Text::Comm => COMM,
            Text::Array { length, .. } => (longest + 1).min(*length as usize),
            // One byte more than the longest and its zero: the helper puts a zero behind whatever it cuts off.
            Text::Pointer(_) => longest + 2,
        };
        match text {
            Text::Comm => {}
            Text::Array { base, .. } | Text::Pointer(base) => self.word(base),
        }
        let room = self.room(size);
        match text {
            Text::Comm => {
                self.code.register(MOVE, R1, FRAME);
                self.code.immediate(ADD, R1, room.into());
                self.code.constant(R2, COMM as u64);
                self.code.call(GET_CURRENT_COMM);
                self.code.jump_if_constant(LESS_SIGNED, R0, 0, self.keep);
            }
            Text::Array { offset, .. } => self.read(room, size, *offset, PROBE_READ_KERNEL),
            Text::Pointer(_) => self.read(room, size, 0, PROBE_READ_KERNEL_STR),
        }
        let (hit, end) = (self.code.label(), self.code.label());
        for item in items {
            let next = self.code.label();
            self.unless_equal(room, item, size, next);
            self.code.jump(hit);
            self.code.place(next);
        }
        self.free(size);
        self.code.jump(if wanted { end } else { target });
        self.code.place(hit);
        if wanted {
            self.code.jump(target);
        }
        self.code.place(end);
    }

    /// Goes on if the string on the stack is this one. An array that it fills has no zero behind it.
    fn unless_equal(&mut self, room: i16, item: &str, size: usize, other: Label) {
        let mut wanted = item.as_bytes().to_vec();
        wanted.push(0);
        wanted.truncate(size);
        let mut at = 0;
        while at < wanted.len() {
            let left = wanted.len() - at;
            let step = [8, 4, 2, 1].into_iter().find(|step| *step <= left).unwrap_or(1);
            let mut bytes = [0; 8];
            bytes.iter_mut().zip(wanted.iter().skip(at).take(step)).for_each(|(to, from)| *to = *from);
            self.code.load(step, R0, FRAME, room.saturating_add(at as i16));
            self.code.jump_if_constant(NOT_EQUAL, R0, u64::from_le_bytes(bytes), other);
            at += step;
        }
    }
}
