//! Kernel memory and symbols, read independently of kerf.ko: what the module says is checked against this.

use std::collections::hash_map::DefaultHasher;
use std::error::Error;
use std::fs::{self, File};
use std::hash::Hasher;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

/// The file offset of an address, from the program headers.
fn offset_of(core: &File, address: u64) -> Result<u64, Box<dyn Error>> {
    let mut header = [0; 64];
    core.read_exact_at(&mut header, 0)?;
    let count = u16::from_le_bytes(header[56..58].try_into()?);
    for index in 0..u64::from(count) {
        let mut segment = [0; 56];
        core.read_exact_at(&mut segment, 64 + index * 56)?;
        let field = |at: usize| segment[at..at + 8].try_into().map(u64::from_le_bytes);
        let (offset, start, size) = (field(8)?, field(16)?, field(40)?);
        if address >= start && address - start < size {
            return Ok(offset + (address - start));
        }
    }
    Err(format!("{address:#x} is not in /proc/kcore").into())
}

/// Bytes of kernel memory.
pub fn read(address: u64, len: usize) -> Result<Vec<u8>, Box<dyn Error>> {
    let core = File::open("/proc/kcore")?;
    let mut bytes = vec![0; len];
    core.read_exact_at(&mut bytes, offset_of(&core, address)?)?;
    Ok(bytes)
}

/// `/proc/kallsyms`, which takes a second to read here, read again only when other modules are loaded.
fn symbols() -> Result<Arc<String>, Box<dyn Error>> {
    static CACHE: Mutex<Option<(Vec<String>, Arc<String>)>> = Mutex::new(None);
    let modules = fs::read_to_string("/proc/modules")?;
    let key: Vec<String> =
        modules.lines().flat_map(|line| [0, 5].map(|n| line.split(' ').nth(n).map(str::to_owned))).flatten().collect();
    let mut cache = CACHE.lock().map_err(|error| error.to_string())?;
    if let Some((_, text)) = cache.as_ref().filter(|(known, _)| *known == key) {
        return Ok(text.clone());
    }
    let text = Arc::new(fs::read_to_string("/proc/kallsyms")?);
    *cache = Some((key, text.clone()));
    Ok(text)
}

/// The address of a symbol, of a module's if one is named.
pub fn symbol(name: &str, module: Option<&str>) -> Result<u64, Box<dyn Error>> {
    let wanted = module.map(|module| format!("[{module}]"));
    for line in symbols()?.lines() {
        let mut words = line.split_whitespace();
        let (address, found, owner) = (words.next().unwrap_or(""), words.nth(1), words.next());
        if found == Some(name) && owner == wanted.as_deref() {
            return Ok(u64::from_str_radix(address, 16)?);
        }
    }
    Err(format!("no symbol {name}").into())
}

/// Where a module's text starts.
pub fn module_base(name: &str) -> Result<u64, Box<dyn Error>> {
    for line in fs::read_to_string("/proc/modules")?.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.first() == Some(&name) {
            let address = words.get(5).ok_or("short line in /proc/modules")?;
            return Ok(u64::from_str_radix(address.trim_start_matches("0x"), 16)?);
        }
    }
    Err(format!("{name} is not loaded").into())
}

/// Where `pattern` first stands in the first `len` bytes of a function.
pub fn find(function: u64, len: usize, pattern: &[u8]) -> Result<u64, Box<dyn Error>> {
    let bytes = read(function, len)?;
    let at = bytes.windows(pattern.len()).position(|window| window == pattern);
    at.map(|at| function + at as u64).ok_or_else(|| format!("{pattern:02x?} is not in {bytes:02x?}").into())
}

/// A fingerprint of every page of the kernel's text.
pub fn text_pages(base: u64, size: u64) -> Result<Vec<u64>, Box<dyn Error>> {
    let text = read(base, size as usize)?;
    let hash = |page: &[u8]| {
        let mut hasher = DefaultHasher::new();
        hasher.write(page);
        hasher.finish()
    };
    Ok(text.chunks(4096).map(hash).collect())
}

/// How many bytes lie between a symbol of a module's text and the next one.
pub fn size(name: &str, module: &str) -> Result<u64, Box<dyn Error>> {
    let start = symbol(name, Some(module))?;
    let owner = format!("[{module}]");
    let text = symbols()?;
    let own = text.lines().filter(|line| line.ends_with(&owner));
    let addresses = own.filter_map(|line| u64::from_str_radix(line.split(' ').next()?, 16).ok());
    Ok(addresses.filter(|address| *address > start).min().ok_or("it is the last symbol")? - start)
}
