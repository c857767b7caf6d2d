//! What files may say, and what is said about those that say something else.

use super::*;

const PATH: &str = "/etc/kerf.d/50-web.toml";

fn parse(text: &str) -> Result<DropIn, ConfigError> {
    DropIn::parse(Path::new(PATH), text)
}

const WHOLE: &str = r#"
# Small plugs for the database, and long flows.
[const]
MAX_SOFTIRQ_RESTART = 20
SHRINK_BATCH = "1K"

[const.BLK_MAX_REQUEST_COUNT]
value = 4
when = 'comm == "nginx"'
min = 1
max = 0x40
step = 8
rate = 6
mode = "task"
timeout = 10
reason = "latency of random reads"

[policy]
plain = "/usr/lib/kerf/plain.o"

[policy.tcp-hystart-by-rtt]
file = "tcp.o"
limit = { HYSTART_DELAY_MAX = [1000, 32000] }
"#;

#[test]
fn everything_is_read() {
    let dropin = parse(WHOLE).unwrap();
    assert_eq!(dropin.warnings, [""; 0]);
    let [restart, batch, plug] = &dropin.constants[..] else { panic!("{dropin:?}") };
    assert_eq!((restart.value.clone(), restart.place.line), (Number::Integer(20), 4));
    assert_eq!(batch.value, Number::Text("1K".into()));
    assert_eq!(
        (plug.min, plug.max, plug.step, plug.rate, plug.timeout),
        (Some(1), Some(64), Some(8), Some(6), Some(10))
    );
    assert_eq!((plug.mode, plug.when.as_deref()), (Some(Mode::Task), Some("comm == \"nginx\"")));
    assert_eq!(plug.place.to_string(), "/etc/kerf.d/50-web.toml:7");
    let [plain, tcp] = &dropin.policies[..] else { panic!("{dropin:?}") };
    assert_eq!((plain.name.as_str(), plain.file.as_path()), ("plain", Path::new("/usr/lib/kerf/plain.o")));
    assert_eq!(tcp.file, Path::new("/etc/kerf.d/tcp.o"));
    assert_eq!(tcp.limits, [("HYSTART_DELAY_MAX".to_owned(), 1000, 32000)]);
}

#[test]
fn unknown_keys_are_warned_about() {
    let dropin =
        parse("colour = 1\n[const.A]\nvalue = 1\nwhne = \"x\"\n[policy.p]\nfile = \"p.o\"\nsize = 1\n").unwrap();
    assert_eq!(
        dropin.warnings,
        [
            "/etc/kerf.d/50-web.toml:1: `colour` means nothing here and is left alone; known are const, policy",
            "/etc/kerf.d/50-web.toml:4: `whne` means nothing here and is left alone; did you mean `when`?",
            "/etc/kerf.d/50-web.toml:7: `size` means nothing here and is left alone; known are file, limit, max-triggers, max-time, mode, timeout, reason",
        ]
    );
}

#[test]
fn errors_say_where_and_why() {
    let cases = [
        ("[const]\nA = 1\nA = 2\n", "50-web.toml:3:1: duplicate key"),
        ("[const]\nA = 1.5\n", "50-web.toml:2:5: A is an integer or a string, not a float"),
        ("const = 3\n", "50-web.toml:1:9: const is a table, not an integer"),
        ("[const.A]\nmin = 1\n", "50-web.toml:1:8: A has no `value`"),
        ("[const.A]\nvalue = 1\nmode = \"fast\"\n", "50-web.toml:3:8: `fast` is no mode"),
        ("[const.A]\nvalue = 99999999999999999999\n", "50-web.toml:2:9: value does not fit 64 bits"),
        ("[const.A]\nvalue = 1\nmin = 2\n", "50-web.toml:1: A: its value 1 is not within 2.."),
        ("[const.A]\nvalue = 1\nmin = 2\nmax = 1\n", "A: min 2 is above max 1"),
        ("[const.A]\nvalue = 1\nrate = 0\n", "A: rate is at least 1"),
        ("[const.A]\nvalue = 1\ntimeout = 61\n", "50-web.toml:3:11: timeout is 0 to 60 seconds"),
        ("[policy.p]\nfile = \"x\"\ntimeout = -1\n", "50-web.toml:3:11: timeout is 0 to 60 seconds"),
        ("[policy.p]\nmax-triggers = 0\n", "50-web.toml:2:16: max-triggers is at least 1"),
        ("[policy.p]\nmax-time = \"x\"\n", "50-web.toml:2:12: max-time is a number of per cent, not a string"),
        ("[const.A]\nvalue = 1\nmax-time = 0.01\n", "50-web.toml:3:12: max-time is 0.1 to 100000 per cent"),
        ("[policy.p]\nlimit = { A = [2, 1] }\nfile = \"x\"\n", "50-web.toml:2:15: A is a list of two integers"),
        ("[policy.p]\nreason = \"x\"\n", "the policy p has no `file`"),
        ("[const]\nÄ = \n", "50-web.toml:2:"),
    ];
    for (text, words) in cases {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}\n{error}");
    }
}
