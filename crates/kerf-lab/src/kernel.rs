//! A kernel that the lab can boot, with the files that belong to it.

use crate::cache::Cache;
use crate::error::LabError;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A bootable kernel and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// What `uname -r` prints in the guest.
    pub release: String,
    /// Version of the Debian package; empty for a kernel that came from elsewhere.
    pub version: String,
    /// The image to boot, a bzImage or an ELF file with a PVH note.
    pub vmlinuz: PathBuf,
    /// The build's configuration.
    pub config: Option<PathBuf>,
    /// `lib/modules/RELEASE`.
    pub modules_dir: Option<PathBuf>,
    /// `linux-headers-RELEASE`, against which modules are built.
    pub headers: Option<PathBuf>,
    /// The prepared source tree, when it is there.
    pub source: Option<PathBuf>,
    /// The directory under which the packages are extracted, `/` for an installed kernel.
    pub root: PathBuf,
}

impl Kernel {
    /// A kernel whose packages lie extracted in the cache.
    ///
    /// # Errors
    /// [`LabError::NoSuchKernel`] when there is no such release.
    pub fn cached(cache: &Cache, release: &str) -> Result<Self, LabError> {
        let root = cache.kernel(release);
        let vmlinuz = root.join("boot").join(format!("vmlinuz-{release}"));
        if release.contains('/') || !vmlinuz.is_file() {
            return Err(LabError::NoSuchKernel { name: release.into(), cached: cache.releases() });
        }
        let mut kernel = Self::around(root, release, vmlinuz);
        kernel.source = crate::source::prepared(cache, &kernel);
        Ok(kernel)
    }

    /// Whether this is the plain flavour of the series that the lab takes its kernel from. Others are used where they are named.
    pub fn is_plain(&self) -> bool {
        crate::packages::is_plain(&self.release)
    }

    /// A kernel image from anywhere; modules and headers are found when it lies as packages install it.
    ///
    /// # Errors
    /// When the file cannot be read, or holds no kernel.
    pub fn from_file(path: &Path) -> Result<Self, LabError> {
        let vmlinuz = std::path::absolute(path).map_err(LabError::io("find", path))?;
        let release = image_release(&vmlinuz)?;
        let root = vmlinuz
            .ancestors()
            .skip(1)
            .find(|dir| dir.join("lib/modules").join(&release).is_dir())
            .unwrap_or(Path::new("/"))
            .to_owned();
        Ok(Self::around(root, &release, vmlinuz))
    }

    /// What a person names: a file when there is one, else a release in the cache.
    ///
    /// # Errors
    /// When it is neither.
    pub fn named(cache: &Cache, name: &str) -> Result<Self, LabError> {
        if Path::new(name).is_file() { Self::from_file(Path::new(name)) } else { Self::cached(cache, name) }
    }

    /// A kernel of which nothing is there, for tests.
    #[cfg(test)]
    pub(crate) fn example(release: &str) -> Self {
        Kernel {
            release: release.into(),
            version: String::new(),
            vmlinuz: format!("/boot/vmlinuz-{release}").into(),
            config: None,
            modules_dir: None,
            headers: None,
            source: None,
            root: "/".into(),
        }
    }

    fn around(root: PathBuf, release: &str, vmlinuz: PathBuf) -> Self {
        let existing = |path: PathBuf| path.exists().then_some(path);
        Kernel {
            config: existing(root.join("boot").join(format!("config-{release}"))),
            modules_dir: existing(root.join("lib/modules").join(release)),
            headers: existing(root.join("usr/src").join(format!("linux-headers-{release}"))),
            release: release.into(),
            version: crate::packages::version_of(&root, release).unwrap_or_default(),
            vmlinuz,
            source: None,
            root,
        }
    }
}

/// Reads the release from a bzImage's header or an ELF image's version text.
fn image_release(path: &Path) -> Result<String, LabError> {
    let mut file = File::open(path).map_err(LabError::io("open", path))?;
    let mut start = vec![0; 0x4200];
    let length = read_up_to(&mut file, &mut start).map_err(LabError::io("read", path))?;
    start.truncate(length);
    if start.starts_with(b"\x7fELF") {
        file.seek(SeekFrom::Start(0)).map_err(LabError::io("read", path))?;
        let mut whole = Vec::new();
        file.read_to_end(&mut whole).map_err(LabError::io("read", path))?;
        return elf_release(&whole).ok_or_else(|| not_a_kernel(path));
    }
    bzimage_release(&start).ok_or_else(|| not_a_kernel(path))
}

fn not_a_kernel(path: &Path) -> LabError {
    LabError::BadFile {
        path: path.into(),
        problem: "is not a kernel that can be booted: give a bzImage (/boot/vmlinuz-…) or an ELF vmlinux".into(),
    }
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// The x86 boot protocol: "HdrS" at 0x202, at 0x20e the distance of the version text from 0x200.
fn bzimage_release(start: &[u8]) -> Option<String> {
    if start.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let offset = u16::from_le_bytes(start.get(0x20e..0x210)?.try_into().ok()?);
    first_word(start.get(usize::from(offset) + 0x200..)?)
}

fn elf_release(image: &[u8]) -> Option<String> {
    let banner = regex::bytes::Regex::new("Linux version ").ok()?.find(image)?;
    first_word(image.get(banner.end()..)?)
}

fn first_word(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().take(256).position(|&b| b == b' ' || b == 0)?;
    let word = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let fits = !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
    fits.then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bzimage(version: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x3000];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x1234u16.to_le_bytes());
        image[0x1434..0x1434 + version.len()].copy_from_slice(version);
        image
    }

    #[test]
    fn the_header_names_the_release() {
        let image = bzimage(b"6.12.1+x-amd64 (someone@somewhere) #1 SMP\0");
        assert_eq!(bzimage_release(&image).as_deref(), Some("6.12.1+x-amd64"));
    }

    #[test]
    fn an_elf_banner_names_the_release() {
        assert_eq!(elf_release(b"\x7fELF....Linux version 5.4.0 (gcc)\n").as_deref(), Some("5.4.0"));
    }

    #[test]
    fn other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        std::fs::write(&path, "no kernel").unwrap();
        let error = Kernel::from_file(&path).unwrap_err();
        assert!(error.to_string().contains("not a kernel"), "{error}");
        assert!(Kernel::from_file(&dir.path().join("absent")).is_err());
    }

    #[test]
    fn neighbours_are_found() {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["boot", "lib/modules/6.9-x"] {
            std::fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        std::fs::write(dir.path().join("boot/vmlinuz"), bzimage(b"6.9-x (a)\0")).unwrap();
        let kernel = Kernel::from_file(&dir.path().join("boot/vmlinuz")).unwrap();
        assert_eq!(kernel.modules_dir, Some(dir.path().join("lib/modules/6.9-x")));
        assert_eq!(kernel.headers, None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..0x400), magic in any::<bool>()) {
            if magic && bytes.len() > 0x206 {
                bytes[0x202..0x206].copy_from_slice(b"HdrS");
            }
            let _ = bzimage_release(&bytes);
            let _ = elf_release(&bytes);
        }
    }
}
