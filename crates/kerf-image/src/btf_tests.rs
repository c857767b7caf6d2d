//! Tests of the BTF reader.

use proptest::prelude::*;

use super::{Btf, Shape};
use crate::fixture::btf;

const UNION: (&str, u32, &[(&str, u32)]) = ("", 4, &[("flags", 0), ("cpuid", 2)]);
const OUTER: (&str, u32, &[(&str, u32)]) = ("alt_instr", 14, &[("instr_offset", 0), ("", 8), ("instrlen", 12)]);

#[test]
fn sizes_and_offsets_read_back() {
    let blob = btf(&[("jump_entry", 16, &[("code", 0), ("target", 4), ("key", 8)])]);
    let types = Btf::parse(&blob).expect("the fixture is sound");
    assert_eq!(types.len(), 2);
    let entry = types.struct_named("jump_entry").expect("it is there");
    assert_eq!(entry.size, 16);
    assert_eq!(entry.member("key").and_then(|member| member.offset()), Some(8));
    assert_eq!(entry.member("nothing"), None);
    assert_eq!(types.struct_named("jump_entr"), None);
    assert_eq!(types.struct_named("int"), None);
}

#[test]
fn anonymous_members_are_flattened() {
    let blob = btf(&[UNION, OUTER]);
    let alt = Btf::parse(&blob).expect("the fixture is sound").struct_named("alt_instr").expect("it is there");
    let offsets: Vec<_> = alt.members.iter().map(|member| (member.name.as_str(), member.offset())).collect();
    let expected = [("instr_offset", Some(0)), ("flags", Some(8)), ("cpuid", Some(10)), ("instrlen", Some(12))];
    assert_eq!(offsets, expected);
}

#[test]
fn a_structure_inside_itself_ends() {
    let mut blob = btf(&[("loop", 8, &[("", 0), ("", 4)])]);
    // Both members are of type 1; make them of type 2, the structure itself.
    let types = 24 + 16;
    for member in [types + 12, types + 24] {
        blob[member + 4] = 2;
    }
    let types = Btf::parse(&blob).expect("the outline is sound");
    assert_eq!(types.struct_named("loop").expect("it is there").members, []);
}

#[test]
fn damage_is_named() {
    let message = |blob: &[u8]| Btf::parse(blob).err().map(|error| error.to_string()).unwrap_or_default();
    let blob = btf(&[UNION, OUTER]);
    assert!(message(&[]).contains("magic"));
    assert!(message(&blob[..20]).contains("header"));
    assert!(message(&blob[..blob.len() - 1]).contains("names"));
    assert!(message(&blob[..60]).contains("types"));
    let mut unknown = blob.clone();
    unknown[24 + 7] = 30;
    assert!(message(&unknown).contains("type 1 is of kind 30"));
}

proptest! {
    #[test]
    fn damage_never_panics(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut blob = btf(&[UNION, OUTER, ("jump_entry", 16, &[("code", 0)])]);
        for (at, value) in flips {
            let at = at.index(blob.len());
            blob[at] = value;
        }
        for blob in [&blob[..], &blob[..cut.index(blob.len())]] {
            if let Ok(types) = Btf::parse(blob) {
                types.struct_named("alt_instr");
                types.struct_named("jump_entry");
            }
        }
    }
}

/// An object with the types of some C.
fn compiled(text: &str) -> crate::Image {
    let dir = tempfile::tempdir().expect("a directory");
    let (c, o) = (dir.path().join("a.c"), dir.path().join("a.o"));
    std::fs::write(&c, text).expect("written");
    let status = std::process::Command::new("gcc").args(["-gbtf", "-O2", "-c", "-o"]).arg(&o).arg(&c).status();
    assert!(status.expect("gcc runs").success());
    crate::Image::open(&o).expect("an object")
}

#[test]
fn types_are_found_by_their_words_and_described() {
    let text = "typedef unsigned long word_t; enum colour { RED = 1, BLUE = 7 };\n\
                struct inner { const char *label; char name[12]; };\n\
                struct outer { struct inner in; struct { int low : 3; unsigned high : 5; }; word_t words[4]; _Bool on; };\n\
                int f(struct outer *p, enum colour c, const char **t, void *v, word_t w) { return c; }";
    let image = compiled(text);
    let types = Btf::parse(image.btf().expect("it has types")).expect("they are sound");
    for (words, spelling) in [
        ("struct outer *", "struct outer *"),
        ("const volatile struct outer *", "struct outer *"),
        ("const char **", "char **"),
        ("void *", "void *"),
        ("word_t", "long unsigned int"),
        ("enum colour", "enum colour"),
    ] {
        let found = types.type_spelled(words).unwrap_or_else(|| panic!("{words}"));
        assert_eq!(types.spelling(found), spelling);
    }
    assert_eq!(types.type_spelled("struct nothing *"), None);
    let outer = types.composite_named("outer").expect("it is there");
    let members: Vec<_> = types
        .typed_members(outer)
        .into_iter()
        .map(|m| (m.name, m.bit_offset, m.bits, types.spelling(m.member)))
        .collect();
    insta::assert_snapshot!(format!("{members:?}"), @r#"[("in", 0, None, "struct inner"), ("low", 192, Some(3), "int"), ("high", 195, Some(5), "unsigned int"), ("words", 256, None, "long unsigned int [4]"), ("on", 512, None, "_Bool")]"#);
    let colour = types.type_spelled("enum colour").expect("it is there");
    assert_eq!(types.shape(colour), Shape::Enumeration { bytes: 4, signed: false });
    assert_eq!(types.enumerators(colour), [("RED".to_owned(), 1), ("BLUE".to_owned(), 7)]);
    assert_eq!(types.shape(outer), Shape::Composite);
}

#[test]
fn a_modules_types_count_on_from_the_kernels() {
    let kernel = btf(&[("first", 8, &[("a", 0)])]);
    let mut module = btf(&[("second", 8, &[("b", 4)])]);
    // Names count on as well: that of the structure, behind the header and a type of 16 bytes.
    let name = 24 + 16;
    module[name] += u8::try_from(crate::bytes::u32_at(&kernel, 20).expect("a header")).expect("few names");
    let blob = super::joined(&kernel, &module).expect("both are sound");
    let types = Btf::parse(&blob).expect("the outline is sound");
    assert_eq!(types.len(), 4);
    assert_eq!(types.struct_named("first").expect("it is there").size, 8);
    assert!(types.struct_named("second").is_some());
    assert!(super::joined(&kernel, &module[..20]).is_err());
}

#[test]
fn truth_values_behind_parameters_are_found() {
    let text = "struct inner { char c; _Bool deep; }; typedef const struct inner inner_t;\n\
                struct outer { long a; _Bool b; _Bool bit : 1; union { _Bool u; char v; }; inner_t in; _Bool many[2]; };\n\
                int f(int n, const struct outer *restrict p, _Bool *q) { return n + p->b + *q + p->in.deep; }";
    let image = compiled(text);
    let types = Btf::parse(image.btf().expect("it has types")).expect("they are sound");
    assert_eq!(types.booleans("f"), [(1, 8), (1, 12), (2, 0)]);
    assert_eq!(types.booleans("g"), []);
}
