//! What is in the guest when it starts: the program that is its first process, busybox, modules and files.

use crate::cpio;
use crate::error::LabError;
use crate::modules::{self, Module};
use crate::process;
use crate::protocol::{MANIFEST_PATH, Manifest, ModuleLoad};
use object::read::elf::{FileHeader, ProgramHeader};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// A file or directory of the host and its place in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpec {
    /// Path on the host.
    pub host: PathBuf,
    /// Absolute path in the guest.
    pub guest: String,
}

impl FileSpec {
    /// Reads `FILE` (same path in the guest) or `FILE:DEST`.
    ///
    /// # Errors
    /// When the file does not exist, or the place in the guest is not an absolute path.
    pub fn parse(text: &str) -> Result<Self, LabError> {
        let whole = Path::new(text);
        let (host, guest) = match text.rsplit_once(':') {
            Some((host, guest)) if !whole.exists() => (PathBuf::from(host), Some(guest.to_owned())),
            _ => (whole.to_owned(), None),
        };
        let metadata = fs::metadata(&host).map_err(LabError::io("read", &host))?;
        let host = std::path::absolute(&host).map_err(LabError::io("find", &host))?;
        let mut guest = guest.unwrap_or_else(|| host.to_string_lossy().into_owned());
        if guest.ends_with('/')
            && !metadata.is_dir()
            && let Some(name) = host.file_name()
        {
            guest.push_str(&name.to_string_lossy());
        }
        let guest = normal_path(&guest).ok_or_else(|| LabError::BadMachine {
            reason: format!("`{guest}` is no place for a file in the guest: give an absolute path without `..`"),
        })?;
        Ok(FileSpec { host, guest })
    }
}

/// `/a//b/./c` as `/a/b/c`; nothing for relative paths, for `..`, and for the root.
fn normal_path(path: &str) -> Option<String> {
    let mut normal = String::new();
    let mut components = Path::new(path).components();
    if components.next() != Some(Component::RootDir) {
        return None;
    }
    for component in components {
        let Component::Normal(name) = component else { return None };
        normal.push('/');
        normal.push_str(name.to_str()?);
    }
    (!normal.is_empty()).then_some(normal)
}

/// An initramfs under construction. Later entries replace earlier ones of the same path.
#[derive(Debug, Default)]
pub struct Initramfs {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
enum Entry {
    Directory,
    Bytes(Vec<u8>, u32),
    Host(PathBuf, u32),
    Symlink(String),
    Character(u32, u32),
}

impl Initramfs {
    /// Directories, the first process `init`, and busybox with a link for each of its commands.
    ///
    /// # Errors
    /// When `init` or busybox is missing or not statically linked.
    pub fn new(init: &Path) -> Result<Self, LabError> {
        let mut initramfs = Initramfs::default();
        for directory in ["dev", "proc", "sys", "tmp", "run", "root", "etc", "bin", "sbin", "usr/bin", "usr/sbin"] {
            initramfs.insert(&format!("/{directory}"), Entry::Directory);
        }
        // The kernel opens it for the first process before anything is mounted.
        initramfs.insert("/dev/console", Entry::Character(5, 1));
        require_static(init, "build it with `cargo build -p kerf`, which links statically")?;
        initramfs.insert("/init", Entry::Host(init.to_owned(), 0o755));
        initramfs.insert("/bin/kerf", Entry::Symlink("/init".into()));
        initramfs.busybox()?;
        Ok(initramfs)
    }

    fn busybox(&mut self) -> Result<(), LabError> {
        let missing = || LabError::HostPackages {
            missing: vec!["busybox-static".into()],
            remedy: crate::host::install_command("busybox-static"),
        };
        let busybox = crate::host::find_program("busybox").ok_or_else(missing)?;
        require_static(&busybox, &format!("run `{}`", crate::host::install_command("busybox-static")))?;
        for path in process::stdout(Command::new(&busybox).arg("--list-full"))?.lines() {
            self.insert(&format!("/{path}"), Entry::Symlink("/bin/busybox".into()));
        }
        self.insert("/bin/busybox", Entry::Host(busybox, 0o755));
        Ok(())
    }

    /// Adds the modules, uncompressed, and the manifest, which says how to load them and what to run.
    ///
    /// # Errors
    /// When a module cannot be read.
    pub fn manifest(&mut self, modules: &[Module], mut manifest: Manifest) -> Result<(), LabError> {
        for module in modules {
            let path = format!("/lib/modules/lab/{}.ko", module.name);
            self.insert(&path, Entry::Bytes(modules::content(&module.file)?, 0o644));
            manifest.modules.push(ModuleLoad { path, parameters: module.parameters.clone() });
        }
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| LabError::BadMachine { reason: format!("the command cannot be written down: {error}") })?;
        self.insert(MANIFEST_PATH, Entry::Bytes(text, 0o644));
        Ok(())
    }

    /// Adds a file, or a directory with all that it contains.
    ///
    /// # Errors
    /// When something in it cannot be read.
    pub fn file(&mut self, spec: &FileSpec) -> Result<(), LabError> {
        let metadata = fs::metadata(&spec.host).map_err(LabError::io("read", &spec.host))?;
        self.tree(&spec.host, &spec.guest, &metadata)
    }

    fn tree(&mut self, host: &Path, guest: &str, metadata: &fs::Metadata) -> Result<(), LabError> {
        let kind = metadata.file_type();
        if kind.is_symlink() {
            let target = fs::read_link(host).map_err(LabError::io("read", host))?;
            self.insert(guest, Entry::Symlink(target.to_string_lossy().into_owned()));
        } else if kind.is_dir() {
            self.insert(guest, Entry::Directory);
            for entry in fs::read_dir(host).map_err(LabError::io("list", host))? {
                let entry = entry.map_err(LabError::io("list", host))?;
                let metadata = entry.metadata().map_err(LabError::io("read", entry.path()))?;
                let name = entry.file_name();
                self.tree(&entry.path(), &format!("{guest}/{}", name.to_string_lossy()), &metadata)?;
            }
        } else if kind.is_file() {
            self.insert(guest, Entry::Host(host.to_owned(), metadata.permissions().mode() & 0o7777));
            self.libraries(host)?;
        }
        Ok(())
    }

    /// Adds the libraries that a dynamically linked program of the host needs, at their places.
    fn libraries(&mut self, program: &Path) -> Result<(), LabError> {
        let mut start = Vec::new();
        let file = File::open(program).map_err(LabError::io("open", program))?;
        file.take(4).read_to_end(&mut start).map_err(LabError::io("read", program))?;
        if start != *b"\x7fELF" || linkage(program).ok() != Some(Linkage::Dynamic) {
            return Ok(());
        }
        for line in process::stdout(Command::new("ldd").arg(program))?.lines() {
            if line.contains("not found") {
                let problem = format!("needs a library that this host does not have: {}", line.trim());
                return Err(LabError::BadFile { path: program.to_owned(), problem });
            }
            // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)` or `/lib64/ld-linux-x86-64.so.2 (0x…)`
            let Some(path) = line.split_whitespace().find(|word| word.starts_with('/')) else { continue };
            self.insert(path, Entry::Host(path.into(), 0o755));
        }
        Ok(())
    }

    /// Inserts an entry and the directories above it.
    fn insert(&mut self, path: &str, entry: Entry) {
        let mut parent = path;
        while let Some((above, _)) = parent.rsplit_once('/')
            && !above.is_empty()
        {
            self.entries.entry(above.to_owned()).or_insert(Entry::Directory);
            parent = above;
        }
        let keeps_directory =
            matches!(entry, Entry::Directory) && matches!(self.entries.get(path), Some(Entry::Directory));
        if !keeps_directory {
            self.entries.insert(path.to_owned(), entry);
        }
    }

    /// Writes the archive. The same entries always give the same bytes.
    ///
    /// # Errors
    /// When a file cannot be read or the output not be written.
    pub fn write(&self, out: impl Write) -> io::Result<()> {
        let mut archive = cpio::Writer::new(out);
        for (path, entry) in &self.entries {
            match entry {
                Entry::Directory => archive.directory(path, 0o755)?,
                Entry::Bytes(bytes, mode) => archive.file(path, *mode, bytes)?,
                Entry::Symlink(target) => archive.symlink(path, target)?,
                Entry::Character(major, minor) => archive.character_device(path, 0o600, *major, *minor)?,
                Entry::Host(host, mode) => {
                    let mut file = File::open(host).map_err(|error| named(host, error))?;
                    let size = file.metadata()?.len();
                    archive.stream(path, *mode, size, &mut file).map_err(|error| named(host, error))?;
                }
            }
        }
        archive.finish()?;
        Ok(())
    }
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// How a program was linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Linkage {
    Static,
    Dynamic,
}

/// The guest's first process finds no shared libraries: a program that wants an interpreter would not start.
fn require_static(path: &Path, remedy: &str) -> Result<(), LabError> {
    let bad = |problem: &str| LabError::BadFile { path: path.to_owned(), problem: format!("{problem}: {remedy}") };
    match linkage(path) {
        Ok(Linkage::Static) => Ok(()),
        Ok(Linkage::Dynamic) => Err(bad("is linked dynamically and cannot run in the guest")),
        Err(LabError::BadFile { problem, .. }) => Err(bad(&problem)),
        Err(other) => Err(other),
    }
}

fn linkage(path: &Path) -> Result<Linkage, LabError> {
    let bytes = fs::read(path).map_err(LabError::io("read", path))?;
    let bad = |problem: &str| LabError::BadFile { path: path.to_owned(), problem: problem.into() };
    let header = object::elf::FileHeader64::<object::Endianness>::parse(&*bytes)
        .map_err(|_| bad("is not a 64-bit ELF program"))?;
    let endian = header.endian().map_err(|_| bad("is not a 64-bit ELF program"))?;
    let segments = header.program_headers(endian, &*bytes).map_err(|_| bad("has a damaged program header"))?;
    let dynamic = segments.iter().any(|segment| segment.p_type(endian) == object::elf::PT_INTERP);
    Ok(if dynamic { Linkage::Dynamic } else { Linkage::Static })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised() {
        assert_eq!(normal_path("/a//b/./c/"), Some("/a/b/c".into()));
        for bad in ["", "/", "a/b", "/a/../b"] {
            assert_eq!(normal_path(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_file_may_have_another_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, b"x").unwrap();
        let host = file.to_string_lossy().into_owned();
        let place = |text: String| FileSpec::parse(&text).map(|spec| spec.guest);
        assert_eq!(place(host.clone()).unwrap(), host);
        assert_eq!(place(format!("{host}:/etc/g")).unwrap(), "/etc/g");
        assert_eq!(place(format!("{host}:/etc/")).unwrap(), "/etc/f");
        assert!(place(format!("{host}:etc/g")).is_err());
        assert!(place(format!("{host}-absent:/etc/g")).is_err());
    }

    #[test]
    fn dynamic_and_foreign_files_are_refused_as_init() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("text");
        fs::write(&text, "#!/bin/sh\n").unwrap();
        assert!(require_static(&text, "remedy").unwrap_err().to_string().contains("remedy"));
        let source = dir.path().join("main.c");
        fs::write(&source, "int main(void) { return 0; }\n").unwrap();
        for (flag, fits) in [("-static", true), ("-no-pie", false)] {
            let program = dir.path().join("program");
            process::run(Command::new("gcc").arg(flag).arg("-o").arg(&program).arg(&source)).unwrap();
            assert_eq!(require_static(&program, "").is_ok(), fits, "{flag}");
        }
    }

    #[test]
    fn a_directory_is_taken_whole_and_always_alike() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        for name in ["z", "a", "sub/m"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let build = || {
            let mut initramfs = Initramfs::default();
            let spec = FileSpec { host: dir.path().to_owned(), guest: "/data/in".into() };
            initramfs.file(&spec).unwrap();
            let mut bytes = Vec::new();
            initramfs.write(&mut bytes).unwrap();
            (initramfs.entries.keys().cloned().collect::<Vec<_>>(), bytes)
        };
        let (paths, bytes) = build();
        assert_eq!(paths, ["/data", "/data/in", "/data/in/a", "/data/in/sub", "/data/in/sub/m", "/data/in/z"]);
        assert_eq!(bytes, build().1);
    }

    #[test]
    fn a_dynamic_program_brings_its_libraries() {
        let mut initramfs = Initramfs::default();
        let spec = FileSpec { host: "/usr/bin/make".into(), guest: "/bin/make".into() };
        initramfs.file(&spec).unwrap();
        let paths: Vec<&String> = initramfs.entries.keys().collect();
        assert!(paths.iter().any(|path| path.contains("/libc.so")), "{paths:?}");
        assert!(paths.iter().any(|path| path.contains("/ld-linux")), "{paths:?}");
    }

    #[test]
    fn a_later_file_replaces_a_link() {
        let mut initramfs = Initramfs::default();
        initramfs.insert("/bin/sh", Entry::Symlink("/bin/busybox".into()));
        initramfs.insert("/bin/sh", Entry::Bytes(vec![1], 0o755));
        assert!(matches!(initramfs.entries.get("/bin/sh"), Some(Entry::Bytes(..))));
    }
}
