//! The compressions of kernels and modules, with a limit on what comes out.

use std::io::Read;

use crate::bytes::u32_at;
use crate::error::Problem;

/// No kernel decompresses to more than this (Debian's is about 55 MiB, its vmlinux with debug information 350 MiB).
pub(crate) const LIMIT: u64 = 512 << 20;

/// What the decoder of xz may allocate: the kernel's own dictionary is at most 128 MiB.
const XZ_MEMORY: u64 = 256 << 20;

/// Blocks of the lz4 legacy frame hold this much at most.
const LZ4_BLOCK: usize = 8 << 20;

const LZ4_LEGACY_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// A compression, told from the first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Gzip,
    Xz,
    Zstd,
    Lz4Legacy,
}

impl Compression {
    /// The compression of `bytes`; `None` if they are not compressed in a way that is known.
    pub(crate) fn detect(bytes: &[u8]) -> Option<Compression> {
        match bytes {
            [0x1f, 0x8b, ..] => Some(Compression::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Compression::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Compression::Zstd),
            bytes if bytes.starts_with(&LZ4_LEGACY_MAGIC) => Some(Compression::Lz4Legacy),
            _ => None,
        }
    }

    /// The name that messages use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Xz => "xz",
            Compression::Zstd => "zstd",
            Compression::Lz4Legacy => "lz4",
        }
    }

    /// Decompresses one stream. Stops with an error at more than `limit` bytes.
    pub(crate) fn decompress(self, bytes: &[u8], limit: u64) -> Result<Vec<u8>, Problem> {
        let fail = |why: String| Problem::Decompress { format: self.name(), why };
        match self {
            Compression::Gzip => read_limited(flate2::read::GzDecoder::new(bytes), self, limit),
            Compression::Xz => {
                let stream =
                    xz2::stream::Stream::new_stream_decoder(XZ_MEMORY, 0).map_err(|error| fail(error.to_string()))?;
                read_limited(xz2::read::XzDecoder::new_stream(bytes, stream), self, limit)
            }
            Compression::Zstd => zstd(bytes, limit),
            Compression::Lz4Legacy => lz4_legacy(bytes, limit),
        }
    }
}

/// Everything that `reader` gives, up to `limit` bytes.
fn read_limited(reader: impl Read, compression: Compression, limit: u64) -> Result<Vec<u8>, Problem> {
    let mut out = Vec::new();
    reader
        .take(limit.saturating_add(1))
        .read_to_end(&mut out)
        .map_err(|error| Problem::Decompress { format: compression.name(), why: error.to_string() })?;
    check_limit(out.len(), limit)?;
    Ok(out)
}

fn check_limit(size: usize, limit: u64) -> Result<(), Problem> {
    if size as u64 > limit {
        return Err(Problem::TooLarge { what: "the decompressed data".into(), size: size as u64, limit });
    }
    Ok(())
}

/// One frame of zstd. Unlike the other decoders, this one leaves comparing the checksum to its caller.
fn zstd(bytes: &[u8], limit: u64) -> Result<Vec<u8>, Problem> {
    let fail = |why: String| Problem::Decompress { format: "zstd", why };
    // The decoder refuses windows above 128 MiB before it allocates them.
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(bytes).map_err(|error| fail(error.to_string()))?;
    let out = read_limited(&mut decoder, Compression::Zstd, limit)?;
    let decoder = decoder.into_frame_decoder();
    match (decoder.get_checksum_from_data(), decoder.get_calculated_checksum()) {
        (Some(stored), Some(actual)) if stored != actual => {
            Err(fail(format!("its checksum is {actual:#010x} and should be {stored:#010x}")))
        }
        _ => Ok(out),
    }
}

/// The legacy frame of lz4: a magic number, then blocks that each say their compressed size.
fn lz4_legacy(bytes: &[u8], limit: u64) -> Result<Vec<u8>, Problem> {
    let fail = |why: String| Problem::Decompress { format: "lz4", why };
    let mut out = Vec::new();
    let mut block = vec![0; LZ4_BLOCK];
    let mut rest = bytes.get(LZ4_LEGACY_MAGIC.len()..).unwrap_or_default();
    while !rest.is_empty() {
        let size = u32_at(rest, 0).ok_or_else(|| fail("a block's size is cut off".into()))?;
        let data = usize::try_from(size)
            .ok()
            .and_then(|size| rest.get(4..size.checked_add(4)?))
            .ok_or_else(|| fail(format!("a block of {size} bytes does not fit the {} that are left", rest.len())))?;
        let used = lz4_flex::block::decompress_into(data, &mut block).map_err(|error| fail(error.to_string()))?;
        out.extend_from_slice(block.get(..used).unwrap_or_default());
        check_limit(out.len(), limit)?;
        rest = rest.get(4 + data.len()..).unwrap_or_default();
    }
    Ok(out)
}
