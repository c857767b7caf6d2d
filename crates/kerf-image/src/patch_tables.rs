//! The tables that list what the kernel patches, in linked images, in the running kernel and in relocatable files.
//!
//! Where a table's records are structures, a linked image's own type information (BTF) says how large they are and
//! where their members lie. Relocatable files carry no such types. There every record has a known number of relocated
//! fields, so the distance between the records follows from the relocations' positions.

use std::ops::Range;

use crate::branch;
use crate::btf::Btf;
use crate::bytes::{i32_at, u64_at};
use crate::error::Problem;
use crate::image::Image;
use crate::model::{ImageKind, SymbolSource};
use crate::patch::{PatchKind, PatchSite, PatchSites, UnavailableTable};
use crate::patch_relocatable;

/// How the records of a table look.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Record {
    /// A 32-bit distance from the field itself.
    Distance,
    /// A 64-bit address.
    Address,
    /// A structure whose member `site` is a 32-bit distance; `relocated` of its fields refer to other places. `len` is
    /// the member with the length of the site, if the record has it.
    Struct { name: &'static str, site: &'static str, len: Option<&'static str>, relocated: usize },
    /// A structure that begins with a 64-bit address.
    AddressStruct { name: &'static str, len: &'static str },
}

/// A table: what it lists, its section in objects, the symbols around it in linked images.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    pub(crate) kind: PatchKind,
    pub(crate) section: &'static str,
    pub(crate) bounds: (&'static str, &'static str),
    pub(crate) record: Record,
    home: Home,
}

/// Where a linked image keeps a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    /// In a section of the table's name, whose memory the kernel gives away after booting.
    Section,
    /// Inside the initial data, which the kernel gives away too: only symbols tell where.
    InitData,
    /// Inside the data that stays: only symbols tell where.
    Data,
}

impl Table {
    /// A table of distances, which the running kernel frees.
    pub(crate) const fn distances(
        kind: PatchKind,
        section: &'static str,
        bounds: (&'static str, &'static str),
    ) -> Table {
        Table { kind, section, bounds, record: Record::Distance, home: Home::Section }
    }
}

/// Every table of fixed name.
pub(crate) const TABLES: &[Table] = &[
    Table {
        kind: PatchKind::StaticKey,
        section: "__jump_table",
        bounds: ("__start___jump_table", "__stop___jump_table"),
        record: Record::Struct { name: "jump_entry", site: "code", len: None, relocated: 3 },
        home: Home::Data,
    },
    Table {
        kind: PatchKind::StaticCall,
        section: ".static_call_sites",
        bounds: ("__start_static_call_sites", "__stop_static_call_sites"),
        record: Record::Struct { name: "static_call_site", site: "addr", len: None, relocated: 2 },
        home: Home::Data,
    },
    Table {
        kind: PatchKind::Alternative,
        section: ".altinstructions",
        bounds: ("__alt_instructions", "__alt_instructions_end"),
        record: Record::Struct { name: "alt_instr", site: "instr_offset", len: Some("instrlen"), relocated: 2 },
        home: Home::Section,
    },
    Table {
        kind: PatchKind::Paravirt,
        section: ".parainstructions",
        bounds: ("__parainstructions", "__parainstructions_end"),
        record: Record::AddressStruct { name: "paravirt_patch_site", len: "len" },
        home: Home::Section,
    },
    Table::distances(PatchKind::Retpoline, ".retpoline_sites", ("__retpoline_sites", "__retpoline_sites_end")),
    Table::distances(PatchKind::Return, ".return_sites", ("__return_sites", "__return_sites_end")),
    Table::distances(PatchKind::Call, ".call_sites", ("__call_sites", "__call_sites_end")),
    Table::distances(PatchKind::LockPrefix, ".smp_locks", ("__smp_locks", "__smp_locks_end")),
    Table {
        kind: PatchKind::Fentry,
        section: "__mcount_loc",
        bounds: ("__start_mcount_loc", "__stop_mcount_loc"),
        record: Record::Address,
        home: Home::InitData,
    },
    Table::distances(PatchKind::EndbrSeal, ".ibt_endbr_seal", ("__ibt_endbr_seal", "__ibt_endbr_seal_end")),
];

/// The `lock` prefix, and what the kernel puts there if there is one processor (a segment override).
const LOCK: u8 = 0xf0;
const UNLOCKED: u8 = 0x3e;

/// Sections that list the operands of runtime constants, one section for each; with the length of the operand.
pub(crate) const RUNTIME_CONSTS: &[(&str, u32)] = &[("runtime_ptr_", 8), ("runtime_shift_", 1)];

/// Reads all tables of an image.
pub(crate) fn collect(image: &Image) -> Result<PatchSites, Problem> {
    if matches!(image.kind(), ImageKind::Module | ImageKind::Object) {
        return patch_relocatable::collect(image);
    }
    let btf = match image.btf() {
        Some(blob) => Some(Btf::parse(blob).map_err(|error| Problem::malformed("section .BTF", error.to_string()))?),
        None => None,
    };
    let mut collector = Collector::new(image);
    for table in TABLES {
        match linked_records(image, btf.as_ref(), table)? {
            Records::At(range, layout) => collector.linked(table, range, layout)?,
            Records::Missing(reason) => collector.missing(table, reason),
            Records::None => {}
        }
    }
    linked_runtime_consts(image, &mut collector)?;
    collector.trampolines();
    collector.finish()
}

/// Where the records of a linked table are, if it exists.
enum Records {
    At(Range<u64>, Layout),
    Missing(String),
    None,
}

/// The numbers that a record needs to be read.
#[derive(Clone, Copy)]
struct Layout {
    size: usize,
    site: usize,
    wide: bool,
    len: Option<usize>,
}

fn linked_records(image: &Image, btf: Option<&Btf<'_>>, table: &Table) -> Result<Records, Problem> {
    let bound =
        |name: &str| image.symbols_named(name).find(|symbol| symbol.module.is_none()).map(|symbol| symbol.address);
    let by_symbols = bound(table.bounds.0).zip(bound(table.bounds.1)).map(|(start, end)| start..end);
    let by_section = || image.section_named(table.section).map(|(_, section)| section.address..section.end());
    let Some(range) = by_symbols.or_else(by_section) else {
        return Ok(match image.symbol_source() {
            SymbolSource::Missing(why) if table.home != Home::Section => {
                Records::Missing(format!("its place is not known, because {why}"))
            }
            _ => Records::None,
        });
    };
    if range.start >= range.end {
        return Ok(Records::None);
    }
    if image.kind() == ImageKind::Running && table.home != Home::Data {
        return Ok(Records::Missing(
            "the running kernel gave the table's memory away after booting; take it from vmlinuz".into(),
        ));
    }
    match layout(btf, table) {
        Ok(layout) => Ok(Records::At(range, layout)),
        Err(reason) => Ok(Records::Missing(reason)),
    }
}

/// The layout of a table's records, from the image's types where they are structures.
fn layout(btf: Option<&Btf<'_>>, table: &Table) -> Result<Layout, String> {
    let (name, site, wide, len) = match table.record {
        Record::Distance => return Ok(Layout { size: 4, site: 0, wide: false, len: None }),
        Record::Address => return Ok(Layout { size: 8, site: 0, wide: true, len: None }),
        Record::Struct { name, site, len, .. } => (name, site, false, len),
        Record::AddressStruct { name, len } => (name, "instr", true, Some(len)),
    };
    let btf = btf.ok_or("the image has no type information (CONFIG_DEBUG_INFO_BTF) that says how large a record is")?;
    let record = btf.struct_named(name).ok_or_else(|| format!("the image's types have no struct {name}"))?;
    let offset = |member: &str| {
        let found = record.member(member).and_then(|member| member.offset());
        found.ok_or_else(|| format!("the image's struct {name} has no member {member}"))
    };
    let layout = Layout { size: record.size as usize, site: offset(site)?, wide, len: len.map(offset).transpose()? };
    let site_end = layout.site + if wide { 8 } else { 4 };
    if layout.size < site_end || layout.len.is_some_and(|len| len >= layout.size) {
        return Err(format!("the image's struct {name} has members beyond its size"));
    }
    Ok(layout)
}

/// The sections of runtime constants; each is a list of distances.
fn linked_runtime_consts(image: &Image, collector: &mut Collector<'_>) -> Result<(), Problem> {
    let layout = Layout { size: 4, site: 0, wide: false, len: None };
    let table = |section| Table::distances(PatchKind::RuntimeConst, section, ("", ""));
    for &(prefix, len) in RUNTIME_CONSTS {
        for section in image.sections().iter().filter(|section| section.alloc && section.name.starts_with(prefix)) {
            collector.fixed_len = Some(len);
            collector.linked(&table(prefix), section.address..section.end(), layout)?;
        }
        let start = format!("__start_{prefix}");
        let freed =
            image.kind() == ImageKind::Running && image.symbols().iter().any(|symbol| symbol.name.starts_with(&start));
        if freed {
            collector.missing(&table(prefix), "the running kernel gave the table's memory away after booting".into());
        }
    }
    collector.fixed_len = None;
    Ok(())
}

/// Gathers sites, and judges them.
pub(crate) struct Collector<'image> {
    image: &'image Image,
    sites: Vec<PatchSite>,
    unavailable: Vec<UnavailableTable>,
    /// Code that a running kernel gave away; its records stay in the tables.
    freed: Option<Range<u64>>,
    /// The length of the next sites, where the table implies it.
    pub(crate) fixed_len: Option<u32>,
}

impl<'image> Collector<'image> {
    pub(crate) fn new(image: &'image Image) -> Collector<'image> {
        let place = |name: &str| image.symbols_named(name).next().map(|symbol| symbol.address);
        let init = || place("__init_begin").zip(place("__init_end")).map(|(start, end)| start..end);
        let freed = if image.kind() == ImageKind::Running { init() } else { None };
        Collector { image, sites: vec![], unavailable: vec![], freed, fixed_len: None }
    }

    /// Records that a table cannot be read.
    pub(crate) fn missing(&mut self, table: &Table, reason: String) {
        self.unavailable.push(UnavailableTable { name: table.section, kind: table.kind, reason });
    }

    /// Reads the records of a linked table.
    fn linked(&mut self, table: &Table, range: Range<u64>, layout: Layout) -> Result<(), Problem> {
        let size = range.end - range.start;
        let image = self.image;
        let bytes = usize::try_from(size).ok().and_then(|size| image.bytes(range.start, size)).ok_or_else(|| {
            Problem::malformed(format!("the table {}", table.section), format!("{range:#x?} is not inside one section"))
        })?;
        let mut sites = Vec::new();
        let records = bytes.chunks_exact(layout.size);
        if !records.remainder().is_empty() {
            let why = format!("its {size} bytes are no multiple of the record's {}", layout.size);
            return Err(Problem::malformed(format!("the table {}", table.section), why));
        }
        for (number, record) in (0u64..).zip(records) {
            let field = range.start.wrapping_add(number * layout.size as u64).wrapping_add(layout.site as u64);
            let site = if layout.wide {
                u64_at(record, layout.site).filter(|&address| address != 0)
            } else {
                // Zero is padding: the site would be the record itself.
                let distance = i32_at(record, layout.site).filter(|&distance| distance != 0);
                distance.map(|distance| field.wrapping_add_signed(distance.into()))
            };
            let len = layout.len.and_then(|offset| record.get(offset)).map(|&len| u32::from(len));
            sites.extend(site.map(|site| (site, len)));
        }
        self.add(table, sites)
    }

    /// Takes sites, with their lengths where the table has them. Those outside code are dropped; a table that has many
    /// of them was misread.
    pub(crate) fn add(&mut self, table: &Table, sites: Vec<(u64, Option<u32>)>) -> Result<(), Problem> {
        let total = sites.len();
        let mut outside = 0;
        for (address, len) in sites {
            let in_code = self.image.section_at(address).is_some_and(|(_, section)| section.exec);
            let freed = self.freed.as_ref().is_some_and(|freed| freed.contains(&address));
            if !in_code && !freed {
                outside += 1;
            }
            let len = len.or(self.fixed_len).unwrap_or_else(|| self.site_len(table.kind, address));
            if in_code && len > 0 {
                self.sites.push(PatchSite { address, len, kind: table.kind });
            }
        }
        // Discarded code leaves a few stale records behind.
        if outside * 10 > total {
            let why = format!("{outside} of its {total} records are not about code");
            return Err(Problem::malformed(format!("the table {}", table.section), why));
        }
        Ok(())
    }

    /// The length of a site whose record does not have it.
    fn site_len(&self, kind: PatchKind, address: u64) -> u32 {
        let at_most = |len| self.image.bytes(address, len).unwrap_or_default();
        match kind {
            // The assembler puts an operand-size prefix before the lock; such places the kernel leaves alone, and so
            // they are none.
            PatchKind::LockPrefix => u32::from(matches!(*at_most(1), [LOCK | UNLOCKED])),
            PatchKind::EndbrSeal => 4,
            PatchKind::StaticKey => branch::static_key_len(&at_most(2)),
            PatchKind::StaticCall => branch::static_call_len(&at_most(2)),
            PatchKind::Fentry => 5,
            _ => branch::branch_len(&at_most(3)),
        }
    }

    /// The trampolines of static calls have no table; their symbols tell.
    pub(crate) fn trampolines(&mut self) {
        let is_code = |section: usize| self.image.sections().get(section).is_some_and(|section| section.exec);
        let symbols = self.image.symbols().iter();
        let trampolines =
            symbols.filter(|symbol| symbol.name.starts_with("__SCT__") && symbol.section.is_some_and(is_code));
        let kind = PatchKind::StaticCallTrampoline;
        self.sites.extend(trampolines.map(|symbol| PatchSite { address: symbol.address, len: 5, kind }));
    }

    /// The result.
    pub(crate) fn finish(self) -> Result<PatchSites, Problem> {
        Ok(PatchSites::new(self.sites, self.unavailable))
    }
}
