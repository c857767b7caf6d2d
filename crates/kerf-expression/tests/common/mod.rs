//! What the tests share: types as a compiler writes them, a function that uses a constant, control groups.

use std::sync::OnceLock;

use kerf_expression::{Argument, Cgroup, Cgroups, Place};
use kerf_image::Image;

/// The types of functions.
const TYPES: &str = r#"
enum mode { MODE_OFF, MODE_SLOW = 2, MODE_FAST = 9 };
struct limits { unsigned int max_sectors; unsigned short depth; signed char bias; };
struct queue {
	unsigned long flags;
	struct limits limits;
	int nice;
	unsigned int low : 3;
	int high : 7;
	unsigned long long wide : 40;
	_Bool busy;
	enum mode mode;
	char name[8];
	const char *label;
	struct queue *parent;
	unsigned char table[4];
	struct limits many[2];
	union { long number; struct { short first; short second; }; };
	__int128 huge;
	void (*run)(void);
	void *data;
	char tail[];
};
struct pair { long one, two; };
int submit(struct queue *q, int nr, unsigned char small, _Bool now, enum mode mode, const char *label, long seventh)
{ return q->nice; }
int other(struct queue *q, unsigned int nr, unsigned char small) { return q->nice; }
int third(struct pair pair, struct queue *q) { return pair.one; }
"#;

/// An object with the types.
pub fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let (c, o) = (dir.path().join("a.c"), dir.path().join("a.o"));
        std::fs::write(&c, TYPES).expect("it can be written");
        let status = std::process::Command::new("gcc").args(["-gbtf", "-O2", "-c", "-o"]).arg(&o).arg(&c).status();
        assert!(status.expect("gcc starts").success());
        Image::open(&o).expect("an object")
    })
}

/// A place in a function, with the types and names of its arguments, and which ones are held there.
pub fn place(function: &str, arguments: &[(&str, &str, bool)]) -> Place {
    let argument = |(type_name, name, held): &(&str, &str, bool)| Argument {
        name: (*name).to_owned(),
        type_name: (*type_name).to_owned(),
        held: *held,
    };
    Place { function: function.to_owned(), offset: 0x28, arguments: arguments.iter().map(argument).collect() }
}

/// A function with all kinds of arguments, one of them gone.
pub fn submit() -> Place {
    place(
        "submit",
        &[
            ("struct queue *", "q", true),
            ("int", "nr", true),
            ("unsigned char", "small", true),
            ("_Bool", "now", true),
            ("enum mode", "mode", true),
            ("const char *", "label", true),
            ("long", "seventh", true),
        ],
    )
}

/// `/a` and `/a/b`.
pub struct Groups;

impl Cgroups for Groups {
    fn find(&self, path: &str) -> Result<Cgroup, String> {
        match path {
            "/" => Ok(Cgroup { id: 1, level: 0 }),
            "/a" => Ok(Cgroup { id: 17, level: 1 }),
            "/a/b" => Ok(Cgroup { id: 1 << 33, level: 2 }),
            _ => Err(format!("there is no control group {path}")),
        }
    }
}
