//! What this program does inside a virtual machine: it looks at the kernel's text without the help of kerf.ko.

use anyhow::{Context, bail};
use clap::Subcommand;
use kerf_image::Image;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How many places that differ are named.
const MOST_PLACES: usize = 8;

/// What to do with the text of the running kernel.
#[derive(Subcommand)]
pub enum TextWord {
    /// Write it to a file.
    Save {
        /// The file.
        file: PathBuf,
    },
    /// Compare it with a file, byte for byte.
    Compare {
        /// The file.
        file: PathBuf,
    },
}

impl TextWord {
    /// Does it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            TextWord::Save { file } => save(&file)?,
            TextWord::Compare { file } => compare(&file)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The running kernel's text and where it starts.
pub struct Text {
    image: Image,
    start: u64,
    bytes: Vec<u8>,
}

impl Text {
    /// Reads it through /proc/kcore.
    pub fn read() -> anyhow::Result<Self> {
        let image = Image::running().context("read the running kernel")?;
        let address = |name: &str| {
            let symbol = image.symbols_named(name).next().map(|symbol| symbol.address);
            symbol.with_context(|| format!("find {name} in /proc/kallsyms"))
        };
        let (start, end) = (address("_stext")?, address("_etext")?);
        let length = usize::try_from(end.saturating_sub(start)).context("measure the text")?;
        let bytes = image.bytes(start, length).context("read the text through /proc/kcore")?.into_owned();
        Ok(Text { image, start, bytes })
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Places that differ from other bytes, as `function+offset`; an empty list means: equal.
    pub fn differences(&self, other: &[u8]) -> Vec<String> {
        if other.len() != self.bytes.len() {
            return vec![format!("{} bytes instead of {}", self.bytes.len(), other.len())];
        }
        let pairs = self.bytes.iter().zip(other).zip(self.start..);
        let differing = pairs.filter(|((now, before), _)| now != before).map(|(_, address)| address);
        differing.map(|address| self.place(address)).collect()
    }

    fn place(&self, address: u64) -> String {
        match self.image.function_at(address) {
            Some(function) => format!("{}+{:#x}", function.name, address - function.address),
            None => format!("{address:#x}"),
        }
    }
}

fn save(file: &Path) -> anyhow::Result<()> {
    std::fs::write(file, Text::read()?.bytes).with_context(|| format!("write {}", file.display()))
}

fn compare(file: &Path) -> anyhow::Result<()> {
    let before = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let text = Text::read()?;
    let places = text.differences(&before);
    if !places.is_empty() {
        let named = places.iter().take(MOST_PLACES).cloned().collect::<Vec<_>>().join(", ");
        bail!("find the text as it was: {} bytes differ, at {named}", places.len());
    }
    println!("all {} bytes of the kernel's text are as before", text.bytes().len());
    Ok(())
}
