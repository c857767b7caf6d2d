//! The x86 boot image (vmlinuz): where its setup header says that the compressed kernel lies.
//!
//! The fields are those of the kernel's Documentation/arch/x86/boot.rst.

use crate::bytes::{u16_at, u32_at};
use crate::decompress::{Compression, LIMIT};
use crate::error::Problem;

const SETUP_SECTS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const PROTOCOL: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// The boot protocol that brought the payload's offset and length.
const PROTOCOL_WITH_PAYLOAD: u16 = 0x0208;

/// Whether `bytes` carry the setup header's magic.
pub(crate) fn detect(bytes: &[u8]) -> bool {
    bytes.get(MAGIC..MAGIC + 4) == Some(b"HdrS")
}

/// Decompresses the kernel inside a boot image: an ELF file, with relocation data for KASLR behind it.
pub(crate) fn unpack(bytes: &[u8]) -> Result<Vec<u8>, Problem> {
    let payload = payload(bytes)?;
    // The build appends the uncompressed size to every compression that does not end in it already (gzip does).
    let Some((stream, trailer)) = payload.split_last_chunk::<4>() else {
        return Err(Problem::malformed("the payload of the boot image", format!("it has {} bytes", payload.len())));
    };
    let Some(compression) = Compression::detect(payload) else {
        return Err(unknown_compression(payload));
    };
    let announced = u64::from(u32::from_le_bytes(*trailer));
    if announced > LIMIT {
        return Err(Problem::TooLarge {
            what: "the kernel inside the boot image".into(),
            size: announced,
            limit: LIMIT,
        });
    }
    let stream = if compression == Compression::Gzip { payload } else { stream };
    let wrong_size = |came: &str| Problem::Decompress {
        format: compression.name(),
        why: format!("{came} came out where {announced} bytes are announced"),
    };
    let kernel = compression.decompress(stream, announced).map_err(|problem| match problem {
        Problem::TooLarge { .. } => wrong_size("more"),
        other => other,
    })?;
    if kernel.len() as u64 != announced {
        return Err(wrong_size(&kernel.len().to_string()));
    }
    Ok(kernel)
}

/// The compressed bytes, as the setup header gives them.
fn payload(bytes: &[u8]) -> Result<&[u8], Problem> {
    let truncated = |what: &str, end: u64| Problem::Truncated { what: what.into(), end, have: bytes.len() as u64 };
    let header = || truncated("the setup header of the boot image", PAYLOAD_LENGTH as u64 + 4);
    let protocol = u16_at(bytes, PROTOCOL).ok_or_else(header)?;
    if protocol < PROTOCOL_WITH_PAYLOAD {
        return Err(Problem::Unsupported {
            what: format!("boot protocol {}.{:02}", protocol >> 8, protocol & 0xff),
            hint: "it does not say where the kernel lies; use an image of Linux 2.6.26 or later, or its vmlinux".into(),
        });
    }
    let offset = u32_at(bytes, PAYLOAD_OFFSET).ok_or_else(header)?;
    let length = u32_at(bytes, PAYLOAD_LENGTH).ok_or_else(header)?;
    // Zero stands for four, for the sake of very old loaders.
    let setup = match bytes.get(SETUP_SECTS).copied().ok_or_else(header)? {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let start = (setup + 1) * 512 + u64::from(offset);
    let end = start + u64::from(length);
    usize::try_from(start)
        .ok()
        .zip(usize::try_from(end).ok())
        .and_then(|(start, end)| bytes.get(start..end))
        .ok_or_else(|| truncated("the compressed kernel of the boot image", end))
}

fn unknown_compression(payload: &[u8]) -> Problem {
    let what = match payload {
        [b'B', b'Z', b'h', ..] => "a bzip2 kernel".to_owned(),
        [0x5d, 0, 0, ..] => "an lzma kernel".to_owned(),
        [0x89, b'L', b'Z', b'O', ..] => "an lzo kernel".to_owned(),
        _ => format!("a payload that begins with {}", hex(payload.get(..8).unwrap_or(payload))),
    };
    Problem::Unsupported {
        what,
        hint: "zstd, xz, gzip and lz4 are; decompress it (scripts/extract-vmlinux) and use that".into(),
    }
}

/// `bytes` in hexadecimal, for messages.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
