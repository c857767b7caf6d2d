//! Every kind of mistake, as a person sees it.

mod common;

use common::{Groups, image, place, submit};
use kerf_expression::{Certified, Decision, Expression, ExpressionError, Place, Program, Scope};
use kerf_image::btf::Btf;

fn checked(text: &str, places: &[Place], condition: bool) -> Result<Decision, ExpressionError> {
    let types = Btf::parse(image().btf().expect("it has types")).expect("they are sound");
    let scope = Scope { types: Some(&types), places, cgroups: &Groups };
    let holds = |value| (1..=64).contains(&value);
    let certified = Certified { constant: "LIMIT", domain: "1 to 64", holds: &holds };
    let expression = Expression::parse(text)?;
    if condition {
        return Ok(Decision::fixed(4).when(expression.condition(&scope)?));
    }
    expression.value(&scope, &certified)
}

/// Another function that uses the constant.
fn other() -> Place {
    place("other", &[("struct queue *", "q", true), ("unsigned int", "nr", true), ("unsigned char", "small", false)])
}

/// What is said of each text.
#[track_caller]
fn said(texts: &[&str], places: &[Place], condition: bool) -> String {
    let said = texts.iter().map(|text| match checked(text, places, condition) {
        Err(error) => error.render(),
        Ok(_) => panic!("`{text}` is accepted"),
    });
    said.collect::<Vec<_>>().join("\n\n")
}

#[test]
fn what_cannot_be_read() {
    insta::assert_snapshot!(said(
        &[
            "",
            "comm == \"nginx",
            "comm = \"nginx\"",
            "comm == 'nginx'",
            "comm == \"a\\n\"",
            "cpu == 0x",
            "cpu == 12ab",
            "cpu < 18446744073709551616",
            "cpu ==",
            "cpu == 1)",
            "(cpu == 1",
            "cpu in 1, 2",
            "cpu in (1 2)",
            "1 + if now then 1 else 2",
            "if now then 1",
            "q->",
            "cpu == 1 nr",
            "q ? 1 : 2",
            "then",
        ],
        &[submit()],
        true,
    ));
}

#[test]
fn names_and_arguments() {
    insta::assert_snapshot!(said(
        &["con == \"x\"", "smal > 1", "unknown", "seventh > 1", "q->mode == MODE_FASTER", "arg.pid == 1"],
        &[submit()],
        true,
    ));
    let mut dead = submit();
    dead.arguments[0].held = false;
    insta::assert_snapshot!("dead", said(&["q->nice > 1", "q == null"], &[dead], true));
    let mut untyped = submit();
    untyped.function = "elsewhere".into();
    untyped.arguments[0].type_name = "struct nothing *".into();
    insta::assert_snapshot!("untyped", said(&["q == null"], &[untyped], true));
    insta::assert_snapshot!("several", said(&["nr > 1", "small == 1", "mode == 1"], &[submit(), other()], true));
    let mut moved = other();
    moved.arguments.swap(0, 1);
    moved.function = "elsewhere".into();
    insta::assert_snapshot!("moved", said(&["q == null"], &[submit(), moved], true));
    let pair = place("third", &[("struct pair", "pair", true)]);
    insta::assert_snapshot!("by_value", said(&["pair.one == 1"], &[pair], true));
    assert!(checked("q->nice > 1 && q->name == \"x\"", &[submit(), other()], true).is_ok());
}

#[test]
fn members_and_elements() {
    insta::assert_snapshot!(said(
        &[
            "q->nicer > 1",
            "q->xyz > 1",
            "q.nice > 1",
            "q->limits->depth > 1",
            "q->limits > 1",
            "q->nice->x == 1",
            "q->data->x == 1",
            "pid->x == 1",
            "q->table[4] == 1",
            "q->table[-1] == 1",
            "q->table[cpu] == 1",
            "q->nice[1] == 1",
            "q->data[1] == 1",
            "q->huge == 1",
            "q->table == 1",
        ],
        &[submit()],
        true,
    ));
}

#[test]
fn types() {
    insta::assert_snapshot!(said(
        &[
            "pid",
            "q",
            "comm",
            "!pid",
            "now && q",
            "nr < pid",
            "nr / pid == 1",
            "(if now then nr else pid) == 1",
            "(if now then q else 1) == 1",
            "pid == -1",
            "pid < 0xffffffffffffffff + 0 || nr > 0xffffffffffffffff",
            "now == 1",
            "q == 5",
            "q + 1 == 2",
            "comm == comm",
            "\"a\" == \"a\"",
            "comm == 5",
            "nr == \"x\"",
            "comm < \"x\"",
            "-comm == 1",
            "signed(comm) == 1",
            "comm == \"sixteen bytes...\"",
            "q->name == \"nine bytes\"",
            "cgroup == 5",
            "cgroup == \"/nowhere\"",
            "cgroup under 5",
            "comm under \"/a\"",
            "cgroup",
            "null == 1",
            "keep",
            "now && keep",
        ],
        &[submit()],
        true,
    ));
}

#[test]
fn constants() {
    insta::assert_snapshot!(said(
        &[
            "pid / 0 == 1",
            "pid % (3 - 3) == 1",
            "pid << 64 == 1",
            "pid >> -1 == 1",
            "1 << 64 == pid",
            "0xffffffffffffffff + 1 == pid",
            "16G * 16G == pid",
            "-0x8000000000000000 - 1 == nr",
            "pid / unsigned(0) == 1",
        ],
        &[submit()],
        true,
    ));
}

#[test]
fn values() {
    insta::assert_snapshot!(said(
        &[
            "0",
            "if now then 64 else 65",
            "if now then keep else if cpu == 1 then 4 else unsigned(1K)",
            "now",
            "if now then comm else 4",
            "4 + keep",
            "(if now then keep else 4) + 1",
            "if pid then 4 else keep",
        ],
        &[submit()],
        false,
    ));
}

#[test]
fn limits() {
    let deep = |n: usize| format!("{}nr{} == 1", "(".repeat(n), ")".repeat(n));
    assert!(checked(&deep(50), &[submit()], true).is_ok());
    assert!(checked(&deep(70), &[submit()], true).unwrap_err().problem.to_string().contains("nested"));
    let many = |n: usize| (0..n).map(|n| format!("pid == {n}")).collect::<Vec<_>>().join(" || ");
    assert!(checked(&many(90), &[submit()], true).is_ok());
    assert!(checked(&many(200), &[submit()], true).unwrap_err().problem.to_string().contains("parts"));
    // Each string of this length takes half of the stack.
    let long = "x".repeat(250);
    let text = format!("label == \"{long}\" && (if label == \"{long}\" then 1 else 2) + pid == 1");
    let one = checked(&text, &[submit()], true).expect("it can be checked");
    assert!(Program::compile(&one, &text).is_ok());
    let nested = (0..60).fold("pid".to_owned(), |inner, _| format!("(pid + {inner})"));
    let text =
        format!("{} == 1", nested.replace("(pid + pid)", &format!("(if label == \"{long}\" then 1 else 2) + pid")));
    let deep = checked(&text, &[submit()], true).expect("it can be checked");
    insta::assert_snapshot!(Program::compile(&deep, &text).unwrap_err().to_string());
}

#[test]
fn without_types_only_the_thread_is_known() {
    let places = [submit()];
    let scope = Scope { types: None, places: &places, cgroups: &Groups };
    let condition = |text: &str| Expression::parse(text).and_then(|expression| expression.condition(&scope));
    assert!(condition("comm == \"x\" && cgroup under \"/a\"").is_ok());
    insta::assert_snapshot!(condition("q == null").unwrap_err().render());
}
