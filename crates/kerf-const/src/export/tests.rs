//! Files that came from elsewhere.

use super::*;
use crate::apply::tests::{BUILD, plug_limit};

fn text() -> String {
    export(BUILD, &[plug_limit()]).unwrap()
}

fn read(text: &str) -> Result<Vec<Entry>, ConstError> {
    import(Path::new("scope.json"), text, None)
}

#[test]
fn what_is_exported_is_imported() {
    assert_eq!(read(&text()).unwrap(), [plug_limit()]);
    let counts = count(&read(&text()).unwrap());
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [((BUILD.to_string(), "6.12.1-test".to_string()), 1)]);
    assert!(export("aa", &[plug_limit()]).is_err());
}

#[test]
fn a_changed_file_is_refused() {
    for (from, to) in [("\"a\": 2", "\"a\": 3"), ("\"max\": 1024", "\"max\": 4096"), (BUILD, "00aa")] {
        let changed = text().replacen(from, to, 1);
        assert_ne!(changed, text(), "{from}");
        let error = read(&changed).unwrap_err();
        assert!(matches!(error, ConstError::Damaged { .. }), "{error}");
    }
}

#[test]
fn other_files_are_refused() {
    for (text, why) in [
        ("", "no JSON"),
        ("{}", "no export"),
        ("{\"schema\": \"kerf-scope\", \"version\": 2}", "format 2"),
        ("{\"schema\": \"kerf-scope\", \"version\": 1}", "missing field"),
    ] {
        let error = read(text).unwrap_err();
        assert!(matches!(error, ConstError::Table { .. }) && error.to_string().contains(why), "{error}");
    }
}

#[test]
fn an_entry_has_to_be_consistent() {
    validate(&plug_limit()).unwrap();
    type Damage = (&'static str, fn(&mut Entry));
    let damages: [Damage; 11] = [
        ("build id", |e| e.image.build_id = "xyz".into()),
        ("domain", |e| e.domain[0].min = 2000),
        ("value outside", |e| e.domain[0].max = 31),
        ("hidden spans", |e| e.spans.clear()),
        ("expression", |e| e.spans[0].iv[0].form = crate::form::Form::Affine { a: 2, b: 0 }),
        ("entry inside", |e| e.safe_spans[0].entry = e.safe_spans[0].ranges[0].0),
        ("empty range", |e| e.safe_spans[0].ranges[0].1 = e.safe_spans[0].ranges[0].0),
        ("no such critical span", |e| e.safe_spans[0].critical.push(9)),
        ("frames", |e| e.safe_spans[0].frames = vec![None; 9]),
        ("hidden safe spans", |e| e.safe_spans.clear()),
        ("field", |e| e.spans[0].iv[0].field = Some((9, 1))),
    ];
    for (what, damage) in damages {
        let mut entry = plug_limit();
        damage(&mut entry);
        assert!(matches!(validate(&entry), Err(ConstError::Damaged { .. })), "{what}");
    }
}
