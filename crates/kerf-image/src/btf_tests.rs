//! Tests of the BTF reader.

use proptest::prelude::*;

use super::Btf;
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

#[test]
fn truth_values_behind_parameters_are_found() {
    let text = "struct inner { char c; _Bool deep; }; typedef const struct inner inner_t;\n\
                struct outer { long a; _Bool b; _Bool bit : 1; union { _Bool u; char v; }; inner_t in; _Bool many[2]; };\n\
                int f(int n, const struct outer *restrict p, _Bool *q) { return n + p->b + *q + p->in.deep; }";
    let dir = tempfile::tempdir().expect("a directory");
    let (c, o) = (dir.path().join("a.c"), dir.path().join("a.o"));
    std::fs::write(&c, text).expect("written");
    let status = std::process::Command::new("gcc").args(["-gbtf", "-O2", "-c", "-o"]).arg(&o).arg(&c).status();
    assert!(status.expect("gcc runs").success());
    let image = crate::Image::open(&o).expect("an object");
    let types = Btf::parse(image.btf().expect("it has types")).expect("they are sound");
    assert_eq!(types.booleans("f"), [(1, 8), (1, 12), (2, 0)]);
    assert_eq!(types.booleans("g"), []);
}
