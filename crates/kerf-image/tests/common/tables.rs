//! Builders for the tables inside a kernel: kallsyms and BTF, as bytes. Shared by unit and integration tests.

/// Where the addresses of kallsyms are, and how they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Offsets behind the token index; negative ones relative to the base, others absolute (per-CPU).
    Behind,
    /// Unsigned offsets behind the token index.
    BehindUnsigned,
    /// Offsets before the number of symbols, one byte for a name's length.
    Before,
    /// Plain addresses before the number of symbols, 64-bit markers.
    Addresses,
}

/// All layouts.
pub const LAYOUTS: [Layout; 4] = [Layout::Behind, Layout::BehindUnsigned, Layout::Before, Layout::Addresses];

/// The kallsyms tables for `symbols` (address, type letter, name), which must be sorted by address. Names may use the
/// letters, digits, `_`, `.` and `$`.
pub fn kallsyms(layout: Layout, base: u64, symbols: &[(u64, char, String)]) -> Vec<u8> {
    let long_lengths = matches!(layout, Layout::Behind | Layout::BehindUnsigned);
    let mut out = Vec::new();
    let offsets = |out: &mut Vec<u8>| {
        for &(address, ..) in symbols {
            let offset = match layout {
                Layout::BehindUnsigned => address - base,
                _ if address < base => address,
                _ => (base.wrapping_sub(1)).wrapping_sub(address),
            };
            out.extend((offset as u32).to_le_bytes());
        }
        pad(out);
        out.extend(base.to_le_bytes());
    };
    match layout {
        Layout::Before => offsets(&mut out),
        Layout::Addresses => symbols.iter().for_each(|symbol| out.extend(symbol.0.to_le_bytes())),
        _ => {}
    }
    out.extend((symbols.len() as u64).to_le_bytes());
    let start = out.len();
    let mut markers = Vec::new();
    for (index, (_, letter, name)) in symbols.iter().enumerate() {
        if index % 256 == 0 {
            markers.push(out.len() - start);
        }
        let name = compress(&format!("{letter}{name}"));
        if long_lengths && name.len() > 127 {
            out.extend([name.len() as u8 | 0x80, (name.len() >> 7) as u8]);
        } else {
            out.push(name.len() as u8);
        }
        out.extend(name);
    }
    pad(&mut out);
    for marker in markers {
        match layout {
            Layout::Addresses => out.extend((marker as u64).to_le_bytes()),
            _ => out.extend((marker as u32).to_le_bytes()),
        }
    }
    pad(&mut out);
    let mut index = Vec::new();
    let tokens = out.len();
    for byte in 0..=255u8 {
        index.extend(((out.len() - tokens) as u16).to_le_bytes());
        out.extend(token(byte).bytes().chain([0]));
    }
    pad(&mut out);
    out.extend(index);
    if long_lengths {
        offsets(&mut out);
    }
    out
}

/// What a byte of a compressed name stands for: characters for themselves, some other bytes for common words.
fn token(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'$' => char::from(byte).to_string(),
        0x80 => "tT".into(),
        0x81 => "sys_".into(),
        0x82 => "_init".into(),
        _ => String::new(),
    }
}

fn compress(name: &str) -> Vec<u8> {
    name.replace("sys_", "\u{81}").replace("_init", "\u{82}").chars().map(|c| c as u8).collect()
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(8), 0);
}

/// A structure for [`btf`]: name, size in bytes, members (name, offset in bytes).
pub type Struct<'a> = (&'a str, u32, &'a [(&'a str, u32)]);

/// A BTF blob: an integer type, and `structs` with members of that type. A member called `""` holds the structure before.
pub fn btf(structs: &[Struct<'_>]) -> Vec<u8> {
    let mut strings = vec![0];
    let mut name = |text: &str| {
        let offset = if text.is_empty() { 0 } else { strings.len() as u32 };
        strings.extend(text.bytes().chain([0]));
        offset
    };
    let mut types: Vec<u32> = vec![name("int"), 1 << 24, 4, 32];
    for (number, (struct_name, size, members)) in structs.iter().enumerate() {
        types.extend([name(struct_name), 4 << 24 | members.len() as u32, *size]);
        for (member, offset) in *members {
            let member_type = if member.is_empty() { number as u32 + 1 } else { 1 };
            types.extend([name(member), member_type, offset * 8]);
        }
    }
    let types: Vec<u8> = types.into_iter().flat_map(u32::to_le_bytes).collect();
    let mut out = vec![0x9f, 0xeb, 1, 0];
    for field in [24, 0, types.len(), types.len(), strings.len()] {
        out.extend((field as u32).to_le_bytes());
    }
    out.extend(types);
    out.extend(strings);
    out
}
