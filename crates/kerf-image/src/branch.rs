//! The lengths of the few instructions that the kernel patches without recording how long they are.

/// Prefixes that compilers and objtool put before branches: segment overrides (also used as padding), operand size, bnd.
const PREFIXES: &[u8] = &[0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0xf2, 0xf3];

/// The length of a static key's branch: 2 bytes (short jump, or NOP `66 90`), else 5.
pub(crate) fn static_key_len(bytes: &[u8]) -> u32 {
    match bytes {
        [0xeb, ..] | [0x66, 0x90, ..] => 2,
        _ => 5,
    }
}

/// The length of a static call: 6 bytes for a conditional tail call, else 5, whatever the kernel has put there.
pub(crate) fn static_call_len(bytes: &[u8]) -> u32 {
    match bytes {
        [0x0f, 0x80..=0x8f, ..] => 6,
        _ => 5,
    }
}

/// The length of a branch: `call` and `jmp` (5 bytes, or 2 short), conditional jumps (6 or 2), indirect ones through a
/// register (2 or 3), each with its prefixes. 5 for anything else, which is what a patched direct call looks like.
pub(crate) fn branch_len(bytes: &[u8]) -> u32 {
    match bytes {
        [prefix, rest @ ..] if PREFIXES.contains(prefix) && !rest.is_empty() => 1 + branch_len(rest),
        [0x0f, 0x80..=0x8f, ..] => 6,
        [0xeb | 0x70..=0x7f, ..] | [0xff, 0xd0..=0xd7 | 0xe0..=0xe7, ..] => 2,
        [0x41, 0xff, ..] => 3,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn static_keys_are_two_bytes_or_five() {
        assert_eq!(static_key_len(&[0xeb, 0x10]), 2);
        assert_eq!(static_key_len(&[0x66, 0x90]), 2);
        assert_eq!(static_key_len(&[0xe9, 0x10]), 5);
        assert_eq!(static_key_len(&[0x0f, 0x1f]), 5);
        assert_eq!(static_key_len(&[]), 5);
    }

    #[test]
    fn static_calls_keep_their_length_when_patched() {
        // call, jmp, NOP, `xor %eax,%eax` with padding prefixes, ret; then jne.
        for start in [[0xe8, 0], [0xe9, 0], [0x0f, 0x1f], [0x2e, 0x2e], [0xc3, 0xcc]] {
            assert_eq!(static_call_len(&start), 5);
        }
        assert_eq!(static_call_len(&[0x0f, 0x85]), 6);
    }

    #[test]
    fn branches_count_their_prefixes() {
        assert_eq!(branch_len(&[0xe8, 0, 0]), 5);
        assert_eq!(branch_len(&[0x2e, 0xe8, 0]), 6);
        assert_eq!(branch_len(&[0x0f, 0x84, 0]), 6);
        assert_eq!(branch_len(&[0xff, 0xd0, 0]), 2);
        assert_eq!(branch_len(&[0x41, 0xff, 0xd3]), 3);
        assert_eq!(branch_len(&[0x74, 0x05, 0]), 2);
        assert_eq!(branch_len(&[]), 5);
    }
}
