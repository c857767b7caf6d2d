//! The running kernel: its symbols from `/proc/kallsyms`, its memory from `/proc/kcore`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::ImageError;
use crate::image::{Contents, Parts};
use crate::kallsyms::RawSymbol;
use crate::kcore::{self, Kcore};
use crate::model::{ImageKind, Section, SymbolSource};
use crate::space::Space;
use crate::{kernel_symbols, notes};

const KALLSYMS: &str = "/proc/kallsyms";
const KCORE: &str = "/proc/kcore";

/// The parts of the kernel that stay after booting, between two symbols: name, start, end, executable, writable.
const SECTIONS: &[(&str, &str, &str, bool, bool)] = &[
    (".text", "_stext", "_etext", true, false),
    (".rodata", "__start_rodata", "__end_rodata", false, false),
    (".data", "_sdata", "_edata", false, true),
    (".bss", "__bss_start", "__bss_stop", false, true),
];

/// The parts that the kernel gives away after booting.
const FREED: &[(&str, &str)] = &[("__init_begin", "__init_end"), ("__smp_locks", "__smp_locks_end")];

/// Reads what can be read at once. Memory is read later, when it is asked for.
pub(crate) fn parts() -> Result<Parts, ImageError> {
    let raw = parse_kallsyms(&read(KALLSYMS)?);
    if raw.iter().all(|(symbol, _)| symbol.address == 0) {
        return Err(ImageError::Hidden {
            reason: format!("{KALLSYMS} shows no addresses"),
            remedy: "run as root; if you are, run `sysctl kernel.kptr_restrict=1`".into(),
        });
    }
    let places: HashMap<&str, u64> =
        raw.iter().filter(|(_, module)| module.is_none()).map(|(symbol, _)| (&*symbol.name, symbol.address)).collect();
    let range = |start: &str, end: &str| -> Option<Range<u64>> {
        let range = *places.get(start)?..*places.get(end)?;
        (!range.is_empty()).then_some(range)
    };
    let sections: Vec<Section> = SECTIONS
        .iter()
        .filter_map(|&(name, start, end, exec, write)| {
            let Range { start, end } = range(start, end)?;
            Some(Section {
                name: name.to_owned(),
                address: start,
                size: end - start,
                alloc: true,
                exec,
                write,
                file_backed: true,
            })
        })
        .collect();
    let freed = FREED.iter().filter_map(|(start, end)| range(start, end)).collect();
    let (file, head) = open_kcore()?;
    let segments = kcore::segments(&head).map_err(|problem| problem.within(KCORE))?;
    let kcore = Kcore { file, segments, freed };
    let symbols = kernel_symbols::complete(raw.into_iter(), &sections, &Space::new(&sections));
    Ok(Parts {
        kind: ImageKind::Running,
        build_id: fs::read("/sys/kernel/notes").ok().and_then(|notes| notes::build_id(&notes)),
        release: fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|release| release.trim().to_owned()),
        sections,
        symbols,
        source: SymbolSource::ProcKallsyms,
        relocations: vec![],
        contents: Contents::Live { kcore, btf: fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default() },
    })
}

fn read(path: &str) -> Result<Vec<u8>, ImageError> {
    fs::read(path).map_err(|source| ImageError::Read { path: PathBuf::from(path), source })
}

/// The file, and its first bytes.
fn open_kcore() -> Result<(File, Vec<u8>), ImageError> {
    let hidden = |error: std::io::Error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::NotFound => "this kernel was built without CONFIG_PROC_KCORE, or /proc is not mounted",
            std::io::ErrorKind::PermissionDenied => {
                "run as root; if you are, the kernel is locked down (see /sys/kernel/security/lockdown), which Secure Boot turns on"
            }
            _ => "see `dmesg` for the reason",
        };
        ImageError::Hidden { reason: format!("{KCORE}: {error}"), remedy: remedy.into() }
    };
    let mut head = vec![];
    let mut file = File::open(KCORE).map_err(hidden)?;
    file.by_ref().take(kcore::HEAD as u64).read_to_end(&mut head).map_err(hidden)?;
    Ok((file, head))
}

/// The lines of `/proc/kallsyms`, each with the module in brackets at its end. Lines that are none are skipped.
pub(crate) fn parse_kallsyms(text: &[u8]) -> Vec<(RawSymbol, Option<Arc<str>>)> {
    let mut modules: HashMap<&str, Arc<str>> = HashMap::new();
    let mut symbols = Vec::new();
    for line in text.split(|&byte| byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok()) {
        let mut fields = line.split_ascii_whitespace();
        let (Some(address), Some(letter), Some(name)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let (Ok(address), [letter]) = (u64::from_str_radix(address, 16), letter.as_bytes()) else { continue };
        let module = fields.next().and_then(|field| field.strip_prefix('[')?.strip_suffix(']'));
        let module = module.map(|module| modules.entry(module).or_insert_with(|| module.into()).clone());
        symbols.push((RawSymbol { address, letter: *letter, name: name.into() }, module));
    }
    symbols
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_kallsyms_are_read() {
        let text =
            b"ffffffff81000000 T _text\nnonsense\nffffffffc0001000 t helper\t[ext4]\n0000000000000000 A percpu\n\xff\n\
            zz T broken\nffffffffc0002000 t bpf_prog_6deef7357e7b4530\t[bpf]\nffffffff81000010 T cut";
        let symbols = parse_kallsyms(text);
        let shown: Vec<_> = symbols
            .iter()
            .map(|(symbol, module)| {
                format!(
                    "{:x} {} {} {}",
                    symbol.address,
                    symbol.letter as char,
                    symbol.name,
                    module.as_deref().unwrap_or("-")
                )
            })
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        ffffffff81000000 T _text -
        ffffffffc0001000 t helper ext4
        0 A percpu -
        ffffffffc0002000 t bpf_prog_6deef7357e7b4530 bpf
        ffffffff81000010 T cut -
        ");
    }

    #[test]
    fn sizes_end_at_sections_and_modules() {
        let text = b"1000 T _stext\n1000 T first\n1040 t __pfx_second\n1050 t second\n1100 D data\n1180 b zeros\n\
            9000 t one\t[a]\n9010 t two\t[a]\n9020 t other\t[b]\n";
        let section = |name: &str, address, size, exec| Section {
            name: name.into(),
            address,
            size,
            alloc: true,
            exec,
            write: !exec,
            file_backed: true,
        };
        let sections = [section(".text", 0x1000, 0x80, true), section(".data", 0x1100, 0x100, false)];
        let symbols = kernel_symbols::complete(parse_kallsyms(text).into_iter(), &sections, &Space::new(&sections));
        let shown: Vec<_> = symbols
            .iter()
            .map(|symbol| format!("{} {:x?} {:?} {:?}", symbol.name, symbol.size, symbol.kind, symbol.section))
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        _stext Some(40) Function Some(0)
        first Some(40) Function Some(0)
        __pfx_second Some(10) Other Some(0)
        second Some(30) Function Some(0)
        data Some(80) Data Some(1)
        zeros Some(80) Data Some(1)
        one Some(10) Function None
        two None Function None
        other None Function None
        ");
    }
}
