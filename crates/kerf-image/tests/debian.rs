//! The kernel that Debian ships, from the cache that `kerf lab` fills. Skipped, with a word, where there is none.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use kerf_image::{Image, ImageKind, PatchKind, SymbolKind, SymbolSource, btf::Btf};

/// Where the kernels of the cache are extracted.
fn kernels() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("KERF_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("kerf")))
        .or_else(|| Some(variable("HOME")?.join(".cache/kerf")))?;
    Some(cache.join("kernels"))
}

/// A kernel of the cache: its release, and the directory that it is extracted to.
fn release() -> Option<(String, PathBuf)> {
    let entries = std::fs::read_dir(kernels()?).ok()?.filter_map(Result::ok);
    let mut releases: Vec<_> =
        entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect();
    releases.retain(|(release, root)| root.join(format!("boot/vmlinuz-{release}")).exists());
    releases.sort();
    releases.pop()
}

static KERNEL: LazyLock<Option<(String, PathBuf, Image)>> = LazyLock::new(|| {
    let (release, root) = release()?;
    let image = Image::open(&root.join(format!("boot/vmlinuz-{release}"))).expect("Debian's kernel is sound");
    Some((release, root, image))
});

/// The kernel, or a printed reason to skip the test.
fn kernel() -> Option<&'static (String, PathBuf, Image)> {
    if KERNEL.is_none() {
        println!("skipped: there is no kernel in {:?}; `kerf lab run -- true` fetches one", kernels());
    }
    KERNEL.as_ref()
}

#[test]
fn identity_and_symbols_are_read() {
    let Some((release, _, image)) = kernel() else { return };
    assert_eq!(image.kind(), ImageKind::Vmlinuz);
    assert_eq!(image.release(), Some(release.as_str()));
    assert_eq!(image.build_id().map(|id| id.as_bytes().len()), Some(20));
    assert_eq!(image.symbol_source(), &SymbolSource::EmbeddedKallsyms);
    assert!(image.symbols().len() > 100_000, "{} symbols", image.symbols().len());
    assert!(image.symbols().is_sorted_by_key(|symbol| symbol.address));
    for name in ["blk_mq_submit_bio", "handle_softirqs", "shrink_slab", "vfs_write", "tcp_sendmsg"] {
        let found: Vec<_> = image.symbols_named(name).collect();
        assert_eq!(found.len(), 1, "{name}");
        assert_eq!(found[0].kind, SymbolKind::Function, "{name}");
        assert!(found[0].size.is_some_and(|size| size > 16), "{name}");
        assert_eq!(image.function_at(found[0].address + 7), Some(found[0]), "{name}");
    }
    let shared = image.functions().fold(BTreeMap::<&str, usize>::new(), |mut counts, function| {
        *counts.entry(&function.name).or_default() += 1;
        counts
    });
    assert!(shared.values().filter(|count| **count > 1).count() > 100);
}

#[test]
fn functions_begin_with_their_landing_pad() {
    let Some((_, _, image)) = kernel() else { return };
    let submit = image.symbols_named("blk_mq_submit_bio").next().expect("it is there");
    assert_eq!(image.bytes(submit.address, 4).as_deref(), Some(&[0xf3, 0x0f, 0x1e, 0xfa][..]));
    // The padding before it is a symbol of its own, and no function.
    let padding = image.symbols_named("__pfx_blk_mq_submit_bio").next().expect("it is there");
    assert_eq!((padding.end(), padding.kind), (submit.address, SymbolKind::Other));
    assert_eq!(image.bytes(padding.address, 16).as_deref(), Some(&[0x90; 16][..]));
}

#[test]
fn patch_sites_are_plausible() {
    let Some((_, _, image)) = kernel() else { return };
    let sites = image.patch_sites().expect("the tables are sound");
    assert_eq!(sites.unavailable(), []);
    let count = |kind| sites.of_kind(kind).count();
    let at_least = [
        (PatchKind::StaticKey, 5_000),
        (PatchKind::StaticCall, 2_000),
        (PatchKind::StaticCallTrampoline, 1_000),
        (PatchKind::Alternative, 2_000),
        (PatchKind::Retpoline, 3_000),
        (PatchKind::Return, 30_000),
        (PatchKind::Call, 100_000),
        (PatchKind::LockPrefix, 3_000),
        (PatchKind::Fentry, 30_000),
        (PatchKind::EndbrSeal, 5_000),
        (PatchKind::RuntimeConst, 10),
    ];
    for (kind, least) in at_least {
        assert!(count(kind) >= least && count(kind) < 20 * least, "{kind}: {}", count(kind));
    }
}

/// The instruction at a site is of the kind that the table is about. A misread table would fail here.
#[test]
fn sites_hold_what_their_table_says() {
    let Some((_, _, image)) = kernel() else { return };
    let sites = image.patch_sites().expect("the tables are sound");
    for site in sites.all() {
        let bytes = image.bytes(site.address, site.len as usize).expect("sites are inside sections");
        let fits = match site.kind {
            PatchKind::Fentry | PatchKind::Call => bytes[0] == 0xe8,
            PatchKind::EndbrSeal => *bytes == [0xf3, 0x0f, 0x1e, 0xfa],
            PatchKind::StaticKey => matches!(*bytes, [0x66, 0x90] | [0xeb, _] | [0xe9, ..] | [0x0f, 0x1f, 0x44, 0, 0]),
            PatchKind::StaticCall => matches!(*bytes, [0xe8 | 0xe9, ..] | [0x0f, 0x80..=0x8f, ..]),
            PatchKind::StaticCallTrampoline => matches!(*bytes, [0xe9 | 0xc3, ..] | [0x2e, 0x2e, ..]),
            PatchKind::Retpoline => {
                matches!(*bytes, [0xe8 | 0xe9, ..] | [0x2e, 0xe8 | 0xe9, ..] | [0x0f, 0x80..=0x8f, ..])
            }
            PatchKind::Return => bytes[0] == 0xe9,
            PatchKind::LockPrefix => *bytes == [0xf0],
            PatchKind::Alternative | PatchKind::RuntimeConst | PatchKind::Paravirt => true,
        };
        assert!(fits, "{site:x?} holds {bytes:02x?}");
    }
}

#[test]
fn tracing_calls_are_inside_functions() {
    let Some((_, _, image)) = kernel() else { return };
    let sites = image.patch_sites().expect("the tables are sound");
    let fentry = image.symbols_named("__fentry__").next().expect("it is there");
    for site in sites.of_kind(PatchKind::Fentry) {
        let function =
            image.function_at(site.address).unwrap_or_else(|| panic!("{:#x} is in no function", site.address));
        assert!(site.address - function.address <= 8, "{} + {:#x}", function.name, site.address - function.address);
        let bytes = image.bytes(site.address, 5).expect("it is in the text");
        let distance = i32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
        assert_eq!(site.range().end.wrapping_add_signed(distance.into()), fentry.address);
    }
}

#[test]
fn records_are_described_by_the_types() {
    let Some((_, _, image)) = kernel() else { return };
    let btf = Btf::parse(image.btf().expect("Debian's kernel has BTF")).expect("it is sound");
    assert!(btf.len() > 50_000);
    let entry = btf.struct_named("jump_entry").expect("static keys have records");
    assert_eq!(entry.size, 16);
    // Known to every driver author.
    let list = btf.struct_named("list_head").expect("it is there");
    assert_eq!((list.size, list.member("prev").and_then(|member| member.offset())), (16, Some(8)));
}

#[test]
fn offsets_lead_to_members() {
    let Some((_, _, image)) = kernel() else { return };
    let btf = Btf::parse(image.btf().expect("Debian's kernel has BTF")).expect("it is sound");
    let prototypes = btf.prototypes();
    // void blk_mq_run_hw_queue(struct blk_mq_hw_ctx *hctx, bool async)
    let run = prototypes.get("blk_mq_run_hw_queue").expect("it is there");
    assert_eq!((run.parameters.len(), run.result), (2, None));
    let hctx = run.parameters[0].and_then(|id| btf.pointee(id)).expect("a pointer");
    let batch = btf.struct_named("blk_mq_hw_ctx").and_then(|s| s.member("next_cpu_batch")?.offset()).expect("a member");
    let field = btf.field(hctx, batch as u32).expect("something is there");
    assert_eq!((field.holder_name.as_str(), field.name.as_str()), ("blk_mq_hw_ctx", "next_cpu_batch"));
    assert_eq!(field.offset as usize, batch);
    // A structure inside another one, by any of its elements, and one without a name.
    let tcp = btf.composite_named("tcp_sock").expect("it is there");
    let rto = btf.struct_named("inet_connection_sock").and_then(|s| s.member("icsk_rto")?.offset()).expect("a member");
    let field = btf.field(tcp, rto as u32).expect("something is there");
    assert_eq!((field.holder_name.as_str(), field.name.as_str()), ("inet_connection_sock", "icsk_rto"));
    assert_eq!(btf.size(tcp), btf.struct_named("tcp_sock").expect("it is there").size);
    let task = btf.composite_named("task_struct").expect("it is there");
    let comm = btf.struct_named("task_struct").and_then(|s| s.member("comm")?.offset()).expect("a member");
    assert_eq!(btf.field(task, comm as u32 + 7).map(|f| (f.name, f.offset)), Some(("comm".into(), comm as u32)));
    assert_eq!(btf.field(task, u32::MAX), None);
}

#[test]
fn modules_are_read() {
    let Some((release, root, _)) = kernel() else { return };
    let ext4 = root.join(format!("lib/modules/{release}/kernel/fs/ext4/ext4.ko.xz"));
    if !ext4.exists() {
        println!("skipped: {} does not exist", ext4.display());
        return;
    }
    let image = Image::open(&ext4).expect("Debian's module is sound");
    assert_eq!(image.kind(), ImageKind::Module);
    assert_eq!(image.release(), Some(release.as_str()));
    assert_eq!(image.build_id().map(|id| id.as_bytes().len()), Some(20));
    let sites = image.patch_sites().expect("the tables are sound");
    assert_eq!(sites.unavailable(), []);
    for site in sites.of_kind(PatchKind::Fentry) {
        assert!(image.function_at(site.address).is_some());
    }
    assert!(sites.of_kind(PatchKind::Return).count() > 500);
    assert!(sites.of_kind(PatchKind::StaticKey).count() > 50);
    let readahead = image.symbols_named("ext4_readahead").next().expect("it is there");
    assert!(readahead.is_function() && readahead.size.is_some_and(|size| size > 0));
}

#[test]
fn a_truncated_kernel_is_an_error() {
    let Some((release, root, _)) = kernel() else { return };
    let path: &Path = &root.join(format!("boot/vmlinuz-{release}"));
    let mut bytes = std::fs::read(path).expect("it was read before");
    bytes.truncate(bytes.len() / 2);
    let error = Image::parse("vmlinuz", bytes.clone()).expect_err("half is missing").to_string();
    assert!(error.contains("truncated"), "{error}");
    // A kernel whose middle is damaged.
    let mut bytes = std::fs::read(path).expect("it was read before");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 16].fill(0x5a);
    let error = Image::parse("vmlinuz", bytes).expect_err("it is damaged").to_string();
    assert!(error.contains("cannot decompress"), "{error}");
}
