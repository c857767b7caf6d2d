//! Writer for the "newc" cpio format, the one that kernels unpack as an initramfs.
//!
//! Output depends on the entries alone: times are zero, the owner is root, inode numbers count up.

use std::io::{self, Read, Write};

/// Type bits of a file mode, as in `stat`.
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// Length of the fixed part of an entry: a magic number and thirteen eight-digit fields.
const HEADER_LEN: usize = 6 + 13 * 8;

/// Writes entries to `W` in the order of the calls. Directories must come before what they contain.
pub struct Writer<W> {
    out: W,
    inode: u32,
}

struct Header<'a> {
    path: &'a str,
    mode: u32,
    size: u32,
    device: (u32, u32),
}

impl<W: Write> Writer<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Writer { out, inode: 0 }
    }

    /// Adds a directory.
    pub fn directory(&mut self, path: &str, permissions: u32) -> io::Result<()> {
        self.header(&Header { path, mode: DIRECTORY | permissions, size: 0, device: (0, 0) })
    }

    /// Adds a regular file with the given content.
    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        self.stream(path, permissions, content.len() as u64, &mut &content[..])
    }

    /// Adds a regular file of exactly `size` bytes read from `content`.
    ///
    /// # Errors
    /// When `content` ends early, or `size` does not fit the format (4 GiB).
    pub fn stream(&mut self, path: &str, permissions: u32, size: u64, content: &mut dyn Read) -> io::Result<()> {
        let size32 = u32::try_from(size)
            .map_err(|_| invalid(format!("{path} has {size} bytes, more than an initramfs file can hold")))?;
        self.header(&Header { path, mode: REGULAR | permissions, size: size32, device: (0, 0) })?;
        let copied = io::copy(&mut content.take(size), &mut self.out)?;
        if copied != size {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{path} became shorter while it was read: {copied} of {size} bytes"),
            ));
        }
        self.pad(size32 as usize)
    }

    /// Adds a symbolic link at `path` that points to `target`.
    pub fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        let size = u32::try_from(target.len()).map_err(|_| invalid(format!("{path}: target too long")))?;
        self.header(&Header { path, mode: SYMLINK | 0o777, size, device: (0, 0) })?;
        self.out.write_all(target.as_bytes())?;
        self.pad(target.len())
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, permissions: u32, major: u32, minor: u32) -> io::Result<()> {
        self.header(&Header { path, mode: CHARACTER | permissions, size: 0, device: (major, minor) })
    }

    /// Writes the trailer and gives the output back.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.header(&Header { path: "TRAILER!!!", mode: 0, size: 0, device: (0, 0) })?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn header(&mut self, header: &Header<'_>) -> io::Result<()> {
        let path = header.path.trim_start_matches('/');
        if path.is_empty() || path.contains('\0') {
            return Err(invalid(format!("{:?} cannot be a path in an initramfs", header.path)));
        }
        if header.mode != 0 {
            self.inode += 1;
        }
        let links = if header.mode & DIRECTORY != 0 { 2 } else { 1 };
        let fields = [
            self.inode,
            header.mode,
            0, // user
            0, // group
            links,
            0, // time of last change
            header.size,
            0, // device that holds the file
            0,
            header.device.0,
            header.device.1,
            path.len() as u32 + 1,
            0, // checksum, unused in this format
        ];
        self.out.write_all(b"070701")?;
        for field in fields {
            write!(self.out, "{field:08X}")?;
        }
        self.out.write_all(path.as_bytes())?;
        self.out.write_all(b"\0")?;
        self.pad(HEADER_LEN + path.len() + 1)
    }

    /// Headers and contents both end on a multiple of four bytes.
    fn pad(&mut self, written: usize) -> io::Result<()> {
        let missing = written.next_multiple_of(4) - written;
        self.out.write_all(&[0; 3][..missing])
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::{Command, Stdio};

    /// An entry as read back: path, mode, content, device numbers.
    type Entry = (String, u32, Vec<u8>, (u32, u32));

    /// A reader independent of the writer's helpers: fixed offsets, straight from the format's description.
    fn parse(bytes: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701", "magic at {at}");
            let field = |i: usize| {
                let text = std::str::from_utf8(&bytes[at + 6 + 8 * i..at + 14 + 8 * i]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_len) = (field(1), field(6) as usize, field(11) as usize);
            let name_end = at + 110 + name_len - 1;
            assert_eq!(bytes[name_end], 0);
            let name = String::from_utf8(bytes[at + 110..name_end].to_vec()).unwrap();
            let data = (at + 110 + name_len).div_ceil(4) * 4;
            if name == "TRAILER!!!" {
                assert_eq!(data, bytes.len());
                return entries;
            }
            entries.push((name, mode, bytes[data..data + size].to_vec(), (field(9), field(10))));
            at = (data + size).div_ceil(4) * 4;
        }
    }

    fn sample() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        writer.directory("/dev", 0o755).unwrap();
        writer.character_device("/dev/console", 0o600, 5, 1).unwrap();
        writer.file("init", 0o755, b"hello").unwrap();
        writer.symlink("bin", "usr/bin").unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn entries_read_back() {
        let entries = parse(&sample());
        assert_eq!(
            entries,
            vec![
                ("dev".into(), 0o040_755, vec![], (0, 0)),
                ("dev/console".into(), 0o020_600, vec![], (5, 1)),
                ("init".into(), 0o100_755, b"hello".to_vec(), (0, 0)),
                ("bin".into(), 0o120_777, b"usr/bin".to_vec(), (0, 0)),
            ]
        );
    }

    #[test]
    fn cpio_lists_the_archive() {
        let mut child = Command::new("busybox")
            .args(["cpio", "-t"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("busybox starts");
        child.stdin.take().unwrap().write_all(&sample()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "dev\ndev/console\ninit\nbin\n");
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let mut writer = Writer::new(Vec::new());
        let error = writer.stream("f", 0o644, 10, &mut &b"short"[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_empty_path_is_an_error() {
        assert!(Writer::new(Vec::new()).directory("/", 0o755).is_err());
    }

    proptest! {
        #[test]
        fn any_files_read_back(files in proptest::collection::vec(("[a-z]{1,9}", proptest::collection::vec(any::<u8>(), 0..40)), 0..8)) {
            let mut writer = Writer::new(Vec::new());
            for (name, content) in &files {
                writer.file(name, 0o644, content).unwrap();
            }
            let entries = parse(&writer.finish().unwrap());
            let back: Vec<_> = entries.into_iter().map(|(name, _, content, _)| (name, content)).collect();
            prop_assert_eq!(back, files);
        }
    }
}
