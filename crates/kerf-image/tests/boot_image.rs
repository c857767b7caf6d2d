//! Boot images in every compression, and what is said about broken ones.

mod common;

use common::tables::Layout;
use common::{PACKINGS, PAYLOAD, Packing};
use kerf_image::{Image, ImageKind};

fn message(bytes: Vec<u8>) -> String {
    Image::parse("vmlinuz", bytes).expect_err("the image is broken").to_string()
}

#[test]
fn every_compression_gives_the_same_kernel() {
    let kernel = common::stripped_kernel(Layout::Behind);
    let plain = Image::parse("vmlinux", kernel.clone()).expect("the fixture is sound");
    // Behind the ELF file lies what KASLR needs.
    let payload = [kernel, vec![0xcc; 100_000]].concat();
    for packing in PACKINGS {
        let image = Image::parse("vmlinuz", common::boot_image(packing, &payload)).expect("the fixture is sound");
        assert_eq!(image.kind(), ImageKind::Vmlinuz, "{packing:?}");
        assert_eq!(image.symbols(), plain.symbols(), "{packing:?}");
        assert_eq!(image.build_id(), plain.build_id(), "{packing:?}");
        let text = plain.section_named(".text").expect("it is there").1;
        let len = text.size as usize;
        assert_eq!(image.bytes(text.address, len), plain.bytes(text.address, len), "{packing:?}");
    }
}

#[test]
fn compressed_files_are_opened() {
    let kernel = common::kernel(common::ALT_NOW);
    let dir = tempfile::tempdir().expect("a temporary directory");
    for packing in [Packing::Gzip, Packing::Xz, Packing::Zstd] {
        let path = dir.path().join("vmlinux.packed");
        std::fs::write(&path, common::pack(packing, &kernel)).expect("a temporary file");
        let image = Image::open(&path).expect("the fixture is sound");
        assert_eq!(image.kind(), ImageKind::Vmlinux, "{packing:?}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = Image::open("/nonexistent/vmlinuz".as_ref()).expect_err("it does not exist").to_string();
    assert!(error.starts_with("cannot read /nonexistent/vmlinuz: No such file"), "{error}");
}

#[test]
fn truncation_is_named() {
    let image = common::boot_image_around(&[0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3, 4]);
    let at = |len: usize| message(image[..len].to_vec());
    insta::assert_snapshot!(at(0x100), @"vmlinuz: not a kernel image: it begins with 9090909090909090; expected a bzImage (vmlinuz), an ELF file (vmlinux, .ko, .o), or one of these compressed with xz, zstd or gzip");
    insta::assert_snapshot!(at(0x208), @"vmlinuz: the setup header of the boot image reaches to byte 0x250, but there are only 0x208; the file is truncated or damaged, fetch it again");
    insta::assert_snapshot!(at(PAYLOAD + 6), @"vmlinuz: the compressed kernel of the boot image reaches to byte 0x648, but there are only 0x646; the file is truncated or damaged, fetch it again");
}

#[test]
fn lies_about_the_size_are_noticed() {
    let kernel = common::mute_kernel();
    for packing in PACKINGS {
        let with_size = |size: u32| {
            let mut payload = common::pack(packing, &kernel);
            if packing == Packing::Gzip {
                payload.truncate(payload.len() - 4);
            }
            payload.extend(size.to_le_bytes());
            message(common::boot_image_around(&payload))
        };
        let size = kernel.len() as u32;
        // One less: the limit stops the decoder. One more: the end comes early.
        for wrong in [size - 1, size + 1] {
            let said = with_size(wrong);
            let expected = format!("came out where {wrong} bytes are announced");
            assert!(said.contains(&expected) || packing == Packing::Gzip, "{packing:?}: {said}");
        }
        assert!(with_size(u32::MAX).contains("limit is 536870912"), "{packing:?}");
    }
}

#[test]
fn damaged_streams_are_named() {
    let kernel = common::mute_kernel();
    for (packing, name) in PACKINGS.into_iter().zip(["gzip", "xz", "zstd", "lz4"]) {
        let mut image = common::boot_image(packing, &kernel);
        let end = image.len() - 400;
        image[PAYLOAD + 12..end].fill(0xff);
        let said = message(image);
        assert!(said.contains(&format!("cannot decompress the {name} data")), "{packing:?}: {said}");
    }
}

#[test]
fn the_checksum_of_zstd_is_compared() {
    let kernel = common::mute_kernel();
    let mut payload = common::pack(Packing::Zstd, &kernel);
    let last = payload.len() - 1;
    payload[last] ^= 1;
    payload.extend((kernel.len() as u32).to_le_bytes());
    let said = message(common::boot_image_around(&payload));
    assert!(said.contains("its checksum is 0x"), "{said}");
}

#[test]
fn other_compressions_are_refused_by_name() {
    let mut image = common::boot_image_around(b"BZh91AY&SY......1234");
    insta::assert_snapshot!(message(image.clone()), @"vmlinuz: a bzip2 kernel is not supported; zstd, xz, gzip and lz4 are; decompress it (scripts/extract-vmlinux) and use that");
    image[0x206..0x208].copy_from_slice(&0x0207u16.to_le_bytes());
    insta::assert_snapshot!(message(image), @"vmlinuz: boot protocol 2.07 is not supported; it does not say where the kernel lies; use an image of Linux 2.6.26 or later, or its vmlinux");
    insta::assert_snapshot!(message(common::boot_image_around(b"BZ")), @"vmlinuz: the payload of the boot image: it has 2 bytes; the file is damaged or was made by tools that are not known here");
}

#[test]
fn a_boot_image_of_something_else_is_refused() {
    let said = message(common::boot_image(Packing::Gzip, b"hello world, this is no kernel"));
    assert!(said.starts_with("vmlinuz: not a kernel image: it begins with 68656c6c6f20776f;"), "{said}");
}
