//! Reports of a small table: the figures to the last one, and all of it on the page as text.

use kerf_const::entry::{Class, Entry, Span};
use kerf_const::entry::{ImageName, Interval, Iv, Proof, SafeSpan, SlotName, Update, UpdateKind, Window, to_hex};
use kerf_const::form::Form;
use kerf_const::site::SiteKind;
use kerf_const::table::{Attempt, Table};

use super::figures::{Figures, Histogram, median};
use super::{gather, page};

const BUILD: &str = "764949bbe8b7a9241512fbf3b0d66d0ba34686a8";

/// An entry that is not proved.
fn refused(name: &str, file: &str, class: Class) -> Entry {
    Entry {
        id: format!("{file}:L7:32:0"),
        name: Some(name.into()),
        file: file.into(),
        line: 7,
        value: 32,
        kind: SiteKind::Macro,
        class,
        reason: "it decides the size of <struct page> & others".into(),
        image: ImageName {
            build_id: BUILD.into(),
            release: "6.12.1-test".into(),
            text: 0xffff_ffff_8100_0000,
            module: None,
        },
        domain: Vec::new(),
        spans: Vec::new(),
        safe_spans: Vec::new(),
        units: vec![file.into()],
        text: "32".into(),
        governed: Vec::new(),
    }
}

fn proved(name: &str, file: &str, spans: Vec<Span>) -> Entry {
    let safe = |n: usize| SafeSpan {
        function: "submit_bio".into(),
        function_offset: 0x1000,
        entry: 0x1020,
        critical: vec![n],
        instructions: 3 + 10 * n as u32,
        widened: (n == 1).then(|| "a store through a pointer".into()),
        ..SafeSpan::default()
    };
    Entry {
        reason: "2 spans; 9 compiled values agree".into(),
        domain: vec![Interval { min: 1, max: 1000 }],
        safe_spans: (0..spans.len()).map(safe).collect(),
        spans,
        ..refused(name, file, Class::Proved)
    }
}

/// A span at 0x25 over all of its window, whose bytes hold these numbers.
fn span(code: &[u8], numbers: &[(u64, Form, i64, (u8, u8))], refused: &str) -> Span {
    let iv = |(offset, form, stock, field): &(u64, Form, i64, (u8, u8))| Iv {
        form: *form,
        offset: *offset,
        slot: SlotName::Immediate,
        bits: 32,
        stock: *stock,
        field: Some(*field),
        chained: false,
    };
    let update = |(offset, ..): &(u64, Form, i64, (u8, u8))| Update {
        offset: *offset,
        kind: UpdateKind::Reverse,
        scratch: Vec::new(),
    };
    let bytes = if refused.is_empty() { to_hex(code) } else { String::new() };
    Span {
        function: "submit_bio".into(),
        unit: String::new(),
        function_offset: 0x1000,
        start: 0x25,
        end: 0x25 + code.len() as u64,
        bytes: to_hex(code),
        expression: "eax ← eax << 1 & V".into(),
        iv: numbers.iter().map(iv).collect(),
        updates: numbers.iter().map(update).collect(),
        proof: Proof::default(),
        absolute: Vec::new(),
        window: Window { start: 0x25, bytes, refused: refused.into() },
        parameters: Vec::new(),
    }
}

/// One span of each placement, one entry with two of them in a module, and two that are not proved.
fn entries() -> Vec<Entry> {
    let value = Form::Affine { a: 1, b: 0 };
    // and $-32, %eax; add $64, %eax
    let numbers = [(0x25, Form::Affine { a: -1, b: 0 }, -32, (2, 1)), (0x28, Form::Affine { a: 2, b: 0 }, 64, (2, 1))];
    let detour = span(&[0x83, 0xe0, 0xe0, 0x83, 0xc0, 0x40], &numbers, "");
    // mov $32, %eax
    let immediate = span(&[0xb8, 32, 0, 0, 0], &[(0x25, value, 32, (1, 4))], "");
    // add $32, %eax
    let other = span(&[0x83, 0xc0, 0x20], &[(0x25, value, 32, (2, 1))], "a branch leads <into> it");
    let mut module = proved("COMMIT_AGE", "fs/ext4/super.c", vec![immediate.clone(), detour.clone()]);
    module.image.module = Some("ext4".into());
    module.safe_spans.remove(0);
    module.governed = vec!["the sysctl \"age\"".into()];
    vec![
        proved("PLUG_LIMIT", "block/blk.h", vec![detour]),
        proved("LIMIT", "block/limit.c", vec![immediate]),
        proved("SHORT", "mm/short.c", vec![other]),
        module,
        refused("LAYOUT", "mm/layout.h", Class::Layout),
        Entry {
            name: None,
            kind: SiteKind::Literal,
            text: "32 /* <b> */".into(),
            ..refused("", "mm/number.c", Class::Data)
        },
    ]
}

fn gathered() -> gather::Gathered {
    let dir = tempfile::tempdir().expect("a directory");
    let mut table = Table::create(&dir.path().join("scope.db")).expect("a table");
    let failure = Some("no macro is called `<NONE>`".into());
    let attempt = Attempt { build_id: BUILD.into(), query: "NONE".into(), failure, ids: Vec::new(), seconds: 1.5 };
    table.store_attempt(&entries(), Some(&attempt)).expect("it can be written");
    gather::gather(&table, BUILD, None).expect("it can be read")
}

#[test]
fn the_figures_of_a_small_table() {
    insta::assert_json_snapshot!(Figures::of(&gathered()));
}

#[test]
fn the_page_has_every_entry_and_nothing_but_text_of_them() {
    let gathered = gathered();
    let page = page::html(&gathered, &Figures::of(&gathered));
    for entry in entries() {
        assert!(page.contains(&format!("<tbody id=\"{}\">", entry.id)), "{}", entry.id);
        assert!(page.contains(&format!("<a href=\"#{}\">{}</a>", entry.id, entry.label())), "{}", entry.label());
    }
    for part in [
        "eax ← eax &lt;&lt; 1 &amp; V",
        "&lt;struct page&gt; &amp; others",
        "32 /* &lt;b&gt; */",
        "the sysctl &quot;age&quot;",
        "no macro is called `&lt;NONE&gt;`",
        "detour; immediate for 1..63",
        "other: for 128: ",
        "a branch leads &lt;into&gt; it; immediate for 1..127",
        "82 of 367 (22.3 %)",
        "309 of 367 (84.2 %)",
        "58 of 367 (15.8 %)",
        "widened to the function: a store through a pointer",
        "image was not at hand",
    ] {
        assert!(page.contains(part), "{part}:\n{page}");
    }
    // The script, and nothing that an entry says.
    assert_eq!(page.matches("<script").count(), 1);
    assert!(!page.contains("<struct") && !page.contains("<b> */") && !page.contains("http"));
}

#[test]
fn an_empty_list_has_figures_too() {
    let none =
        gather::Gathered { build_id: BUILD.into(), release: String::new(), subjects: Vec::new(), failures: Vec::new() };
    let figures = Figures::of(&none);
    let page = page::html(&none, &figures);
    assert!(!page.contains("NaN") && !page.contains("inf "), "{page}");
    assert_eq!(figures.safe_spans.median, None);
}

#[test]
fn the_median_is_the_lower_one_of_two() {
    assert_eq!(median(&Histogram::from([(3, 2), (10, 2)])), Some(3));
    assert_eq!(median(&Histogram::from([(3, 1), (10, 2)])), Some(10));
}
