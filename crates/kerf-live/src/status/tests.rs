//! Status texts as the module writes them, and broken ones.

use super::*;

const TEXT: &str = "\
kerf protocol=2 build_id=764949bb
text base=0xffffffff81000000 size=0x1000000
pool slots=512 used=1
result code=-16 attempts=9 tasks=80 stop_ns=350000 inside=0 looks=0 total_ns=900000 text=task fio (pid 7) is at f+0x2/0x10, inside what changes
entry id=block/blk.h:L312:32:0 value=4 locations=2 between=1
since id=block/blk.h:L312:32:0 ns=1700000000000000000 pid=77 login=1000 note=/etc/kerf.d/a.toml: less to wait for
guard id=block/blk.h:L312:32:0 min=1 max=64 step=0 pause_ms=5000
location target=vmlinux offset=0x650928 kind=immediate state=ok slot=-1 stock=83e0e0 want=83e0fc now=83e0fc at=f+0x28/0x190 owner=
location target=null_blk offset=0x20 kind=detour state=probed slot=3 stock=83e0e0c0c0 want=e900000000 now=cc00000000 at=g+0x20/0x30 [null_blk] owner=kprobe at g+0x20/0x30 [null_blk]
entry id=B value=-1 locations=1 between=0
since id=B ns=1 pid=1 login=-1 note=
location target=gone offset=0x20 kind=immediate state=unloaded slot=-1 stock=83e0e0 want=83e0e0 now=000000
entry id=C value=32 locations=1 between=0
since id=C ns=1 pid=1 login=-1 note=
policy id=C program=7 hits=9 decided=6 kept=3 refused=0 missed=0 last=0:4,3:-1 decisions=3:5,64:1 timed=9 ns=900 longest_ns=200 stopped=1 owner=plug
limits id=C triggers=1000 permille=50
location target=vmlinux offset=0x20 kind=decided state=ok slot=4 stock=83e0e0c0c0 want=e900000000 now=e900000000 at=h+0x20/0x30 owner=
removed policy=plug ns=1700000000000000000 waits=1 reason=2000 triggers in a second, permitted are 1000
";

#[test]
fn reads_what_the_module_writes() {
    insta::assert_debug_snapshot!(parse(TEXT).unwrap());
}

#[test]
fn an_entry_is_in_force_only_if_every_location_is() {
    let status = parse(TEXT).unwrap();
    assert!(status.entries[0].in_force());
    assert!(!status.entries[1].in_force());
    let changed = parse(&TEXT.replace("state=probed", "state=shadowed")).unwrap();
    assert!(!changed.entries[0].in_force());
}

#[test]
fn every_line_is_needed() {
    // The guard alone may be missing, and below that a policy, its limits and what was taken out.
    for missing in (0..12).filter(|n| *n != 6) {
        let text: String =
            TEXT.lines().enumerate().filter(|(n, _)| *n != missing).map(|(_, line)| format!("{line}\n")).collect();
        assert!(parse(&text).is_err(), "without line {}", missing + 1);
    }
}

#[test]
fn says_which_line_and_why() {
    let error = parse(&TEXT.replace("value=4", "value=four")).unwrap_err();
    assert_eq!(error.to_string(), "line 5: `value=four` is not a number (is this module of another build?)");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(cut in 0..TEXT.len(), insert in ".{0,6}", skip in 0usize..9) {
        let head: String = TEXT.chars().take(cut).collect();
        let tail: String = TEXT.chars().skip(cut + skip).collect();
        let _ = parse(&format!("{head}{insert}{tail}"));
    }
}
