//! Records, read back by a second reader that knows the format from the documentation.

use proptest::prelude::*;

use super::*;
use crate::Limits;

fn kernel() -> BuildId {
    "764949bbe8b7a9241512fbf3b0d66d0ba34686a8".parse().unwrap()
}

fn immediate(offset: u64, expected: &[u8], field_offset: usize, bytes: &[u8]) -> Location {
    let change = Change::Immediate { field_offset, bytes: bytes.to_vec() };
    Location { target: Target::Kernel, image_offset: offset, expected: expected.to_vec(), change }
}

fn plug_limit() -> Transaction {
    let mut transaction = Transaction::new(kernel());
    transaction.entries.push(Entry {
        id: "block/blk.h:L312:32:0".into(),
        value: 4,
        decider: None,
        gates: Vec::new(),
        spans: Vec::new(),
        locations: vec![
            immediate(0x650928, &[0x83, 0xe0, 0xe0], 2, &[0xfc]),
            immediate(0x65092b, &[0x83, 0xc0, 0x40], 2, &[8]),
        ],
        between: vec![Range::between(Target::Kernel, 0x650928, 0x65092e)],
    });
    transaction
}

/// Reads records; fails on anything that is not exactly as documented.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(n);
        self.0 = tail;
        head
    }
    fn number(&mut self, n: usize) -> u64 {
        self.take(n).iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }
    fn text(&mut self, n: usize) -> String {
        String::from_utf8(self.take(n).to_vec()).unwrap()
    }
}

fn decode_location(reader: &mut Reader, targets: &[(String, BuildId)]) -> Location {
    let target = decode_target(reader, targets);
    let (kind, window, a, b) =
        (reader.number(1), reader.number(1) as usize, reader.number(1) as usize, reader.number(1) as usize);
    assert_eq!(reader.number(2), 0);
    let image_offset = reader.number(8);
    let expected = reader.take(window).to_vec();
    let change = match kind {
        1 => Change::Immediate { field_offset: a, bytes: reader.take(b).to_vec() },
        2 | 3 => {
            let mut one = || {
                let n = reader.number(1) as usize;
                DetourInstruction { bytes: reader.take(n).to_vec() }
            };
            let instructions = (0..b).map(|_| one()).collect();
            if kind == 2 { Change::Detour { instructions } } else { decode_marks(reader, instructions) }
        }
        _ => panic!("kind {kind}"),
    };
    Location { target, image_offset, expected, change }
}

fn decode_marks(reader: &mut Reader, instructions: Vec<DetourInstruction>) -> Change {
    let (marks, arguments, role) = (reader.number(1), reader.number(1), reader.number(1));
    assert_eq!(reader.number(1), 0);
    let frame = u32::try_from(reader.number(4) as i32).ok();
    let execution = [None, Some(true), Some(false)][role as usize].map(|begins| Execution { begins, frame });
    let mark = |reader: &mut Reader| {
        let [instruction, part, form, bits] = reader.take(4).try_into().unwrap();
        Mark { instruction, part, form, bits }
    };
    let marks = (0..marks).map(|_| mark(reader)).collect();
    let argument = |reader: &mut Reader| {
        let (kind, register) = (reader.number(1), reader.number(1) as u8);
        assert_eq!(reader.number(2), 0);
        let offset = reader.number(4) as i32;
        [Argument::Gone, Argument::Register(register), Argument::Stack(offset)][kind as usize]
    };
    let arguments = (0..arguments).map(|_| argument(reader)).collect();
    Change::Decided { instructions, marks, arguments, execution }
}

fn decode_span(reader: &mut Reader, targets: &[(String, BuildId)]) -> SafeSpan {
    let target = decode_target(reader, targets);
    let (ranges, exits) = (reader.number(2), reader.number(2));
    assert_eq!(reader.number(2), 0);
    let entry = reader.number(8);
    let ranges = (0..ranges).map(|_| (reader.number(8), reader.number(8))).collect();
    SafeSpan { target, entry, ranges, exits: (0..exits).map(|_| reader.number(8)).collect() }
}

fn decode_decider(reader: &mut Reader) -> Decider {
    let (program, ranges, forms) = (reader.number(4) as i32, reader.number(2), reader.number(1));
    assert_eq!(reader.number(1), 0);
    let stock = reader.number(8) as i64;
    let program = (program >= 0).then_some(program);
    let ranges = (0..ranges).map(|_| (reader.number(8) as i64, reader.number(8) as i64)).collect();
    let form = |reader: &mut Reader| {
        let kind = reader.number(8);
        let [a, b, c, factor] = [(); 4].map(|()| reader.number(8) as i64);
        match kind {
            1 => Number::Affine { a, b },
            2 => Number::Quotient { a, b, c, factor },
            3 => Number::Reciprocal { a, b },
            4 => Number::Power { a, b },
            5 => Number::Logarithm { b },
            6 => Number::ReciprocalLogarithm { a, b },
            7 => Number::Ratio { factor, a, b },
            _ => panic!("form {kind}"),
        }
    };
    Decider { program, stock, ranges, forms: (0..forms).map(|_| form(reader)).collect() }
}

fn decode_guard(reader: &mut Reader, stock: i64) -> Guard {
    let (min, max, step) = (reader.number(8) as i64, reader.number(8) as i64, reader.number(8));
    let pause = Duration::from_millis(reader.number(4));
    assert_eq!(reader.number(4), 0);
    Guard { stock, min, max, step, pause }
}

fn decode_target(reader: &mut Reader, targets: &[(String, BuildId)]) -> Target {
    let (name, build_id) = &targets[reader.number(2) as usize];
    if name.is_empty() { Target::Kernel } else { Target::Module { name: name.clone(), build_id: build_id.clone() } }
}

fn decode(record: &[u8]) -> Transaction {
    let mut reader = Reader(record);
    assert_eq!(reader.take(8), b"KERFTXN1");
    assert_eq!(reader.number(4), u64::from(PROTOCOL));
    assert_eq!(reader.number(4) as usize, record.len());
    let (flags, timeout, targets, operations) =
        (reader.number(4), reader.number(4), reader.number(2), reader.number(2));
    let (owner, note) = (reader.number(2) as usize, reader.number(2) as usize);
    let (owner, note) = (reader.text(owner), reader.text(note));
    let targets: Vec<(String, BuildId)> = (0..targets)
        .map(|_| {
            let (name, id) = (reader.number(1) as usize, reader.number(1) as usize);
            assert_eq!(reader.number(2), 0);
            (reader.text(name), BuildId::from_bytes(reader.take(id)).unwrap())
        })
        .collect();
    let mut transaction = Transaction::new(targets[0].1.clone());
    transaction.timeout = Duration::from_millis(timeout);
    transaction.dry_run = flags & 1 != 0;
    transaction.replace = flags & 4 != 0;
    transaction.mode = [Mode::Immediate, Mode::Task, Mode::Global][(flags >> 8) as usize];
    (transaction.owner, transaction.note) = (owner, note);
    for _ in 0..operations {
        let (kind, id_len, locations, between) =
            (reader.number(1), reader.number(1) as usize, reader.number(2), reader.number(2));
        let (gates, spans) = (reader.number(2), reader.number(2));
        let value = reader.number(8) as i64;
        let id = reader.text(id_len);
        match kind {
            2 => transaction.unset.push(id.clone()),
            4 => transaction.drop = Some(id.clone()),
            6 => transaction.guards.push((id.clone(), decode_guard(&mut reader, value))),
            7 => {
                assert_eq!(id, transaction.owner);
                transaction.limits = Limits { triggers: value as u64, permille: reader.number(4) as u32 };
                assert_eq!(reader.number(4), 0);
            }
            5 => transaction.hold = (0..locations).map(|_| reader.number(4) as i32).collect(),
            _ => {}
        }
        if !matches!(kind, 1 | 3) {
            assert!(gates + spans == 0 && (kind == 5 || locations == 0));
            continue;
        }
        let decider = (kind == 3 || gates > 0).then(|| decode_decider(&mut reader));
        let locations = (0..locations).map(|_| decode_location(&mut reader, &targets)).collect();
        let gates = (0..gates).map(|_| decode_location(&mut reader, &targets)).collect();
        let range = |reader: &mut Reader| {
            let target = decode_target(reader, &targets);
            assert_eq!(reader.number(6), 0);
            Range { target, start: reader.number(8), end: reader.number(8) }
        };
        let between = (0..between).map(|_| range(&mut reader)).collect();
        let spans = (0..spans).map(|_| decode_span(&mut reader, &targets)).collect();
        transaction.entries.push(Entry { id, value, decider, locations, gates, spans, between });
    }
    assert!(reader.0.is_empty());
    transaction
}

#[test]
fn the_plug_limit_to_the_byte() {
    let record = encode(&plug_limit()).unwrap();
    let rows: Vec<String> = record.chunks(16).map(crate::build_id::hex).collect();
    insta::assert_snapshot!(rows.join("\n"));
}

#[test]
fn unset_needs_no_build() {
    let record = encode_unset(&["A", "B"], Duration::from_secs(1)).unwrap();
    assert_eq!(record.len(), HEADER_SIZE + 2 * 19);
    assert_eq!(&record[24..28], [0, 0, 2, 0]);
    assert_eq!(encode_unset_all(Duration::ZERO).len(), HEADER_SIZE);
}

fn guard(min: i64, max: i64) -> Guard {
    Guard { stock: 0, min, max, step: 3, pause: Duration::from_secs(5) }
}

#[test]
fn refuses_what_the_module_would() {
    let check = |edit: &dyn Fn(&mut Transaction)| {
        let mut transaction = plug_limit();
        edit(&mut transaction);
        encode(&transaction).unwrap_err().to_string()
    };
    let found = [
        check(&|t| t.entries.clear()),
        check(&|t| t.entries[0].id = "two words".into()),
        check(&|t| t.entries[0].id = "x".repeat(161)),
        check(&|t| t.entries[0].locations.clear()),
        check(&|t| t.entries[0].locations[0].expected = vec![0; 33]),
        check(&|t| t.entries[0].locations[0].change = Change::Immediate { field_offset: 3, bytes: vec![1] }),
        check(&|t| t.entries[0].locations[0].change = Change::Immediate { field_offset: usize::MAX, bytes: vec![1] }),
        check(&|t| t.entries[0].locations[0].change = Change::Immediate { field_offset: 0, bytes: vec![1, 2, 3] }),
        check(&|t| t.entries[0].locations[0].change = Change::Detour { instructions: vec![] }),
        check(&|t| t.note = "two\nlines".into()),
        check(&|t| t.guards.push(("B".into(), guard(0, 1)))),
        check(&|t| t.guards.push((t.entries[0].id.clone(), guard(1, 0)))),
        check(&|t| t.limits.triggers = 1),
        check(&|t| (t.owner, t.limits.triggers) = ("plug".into(), u64::MAX)),
        check(&|t| t.entries[0].between[0].end = 0),
        check(&|t| t.entries[0].locations[0].target = Target::Module { name: "x".repeat(56), build_id: kernel() }),
    ];
    insta::assert_snapshot!(found.join("\n"));
}

fn target() -> impl Strategy<Value = Target> {
    let module = ("[a-z_]{1,55}", proptest::collection::vec(any::<u8>(), 1..=20))
        .prop_map(|(name, id)| Target::Module { name, build_id: BuildId::from_bytes(&id).unwrap() });
    prop_oneof![Just(Target::Kernel), module]
}

fn change(window: usize) -> BoxedStrategy<Change> {
    let immediate =
        (0..window, any::<u8>()).prop_map(|(field_offset, byte)| Change::Immediate { field_offset, bytes: vec![byte] });
    if window < 5 {
        return immediate.boxed();
    }
    let instruction = proptest::collection::vec(any::<u8>(), 1..=10).prop_map(|bytes| DetourInstruction { bytes });
    let detour =
        proptest::collection::vec(instruction, 1..=12).prop_map(|instructions| Change::Detour { instructions });
    prop_oneof![immediate, detour, decided()].boxed()
}

fn decided() -> impl Strategy<Value = Change> {
    let instruction = proptest::collection::vec(any::<u8>(), 1..=10).prop_map(|bytes| DetourInstruction { bytes });
    let mark = (any::<u8>(), any::<u8>(), any::<u8>(), 1u8..=64).prop_map(|(instruction, part, form, bits)| Mark {
        instruction,
        part,
        form,
        bits,
    });
    let argument = prop_oneof![
        Just(Argument::Gone),
        (0u8..16).prop_map(Argument::Register),
        any::<i32>().prop_map(Argument::Stack)
    ];
    let frame = proptest::option::of(0u32..1 << 14);
    let execution =
        proptest::option::of((any::<bool>(), frame).prop_map(|(begins, frame)| Execution { begins, frame }));
    (
        proptest::collection::vec(instruction, 1..=12),
        proptest::collection::vec(mark, 1..=8),
        proptest::collection::vec(argument, 0..=6),
        execution,
    )
        .prop_map(|(instructions, marks, arguments, execution)| Change::Decided {
            instructions,
            marks,
            arguments,
            execution,
        })
}

fn decider() -> impl Strategy<Value = Decider> {
    let n = any::<i64>;
    let form = prop_oneof![
        (n(), n()).prop_map(|(a, b)| Number::Affine { a, b }),
        (n(), n(), n(), n()).prop_map(|(a, b, c, factor)| Number::Quotient { a, b, c, factor }),
        (n(), n()).prop_map(|(a, b)| Number::Reciprocal { a, b }),
        (n(), n()).prop_map(|(a, b)| Number::Power { a, b }),
        n().prop_map(|b| Number::Logarithm { b }),
        (n(), n()).prop_map(|(a, b)| Number::ReciprocalLogarithm { a, b }),
        (n(), n(), n()).prop_map(|(a, b, factor)| Number::Ratio { factor, a, b }),
    ];
    let ranges = proptest::collection::vec((n(), n()), 1..4);
    (proptest::option::of(0i32..99), n(), ranges, proptest::collection::vec(form, 1..=8)).prop_map(
        |(program, stock, ranges, forms)| {
            let ranges = if program.is_some() { ranges } else { Vec::new() };
            Decider { program, stock, ranges, forms }
        },
    )
}

fn location() -> impl Strategy<Value = Location> {
    let window = proptest::collection::vec(any::<u8>(), 1..=32);
    let fixed = |expected: Vec<u8>| (Just(expected.clone()), change(expected.len()));
    (target(), any::<u64>(), window.prop_flat_map(fixed))
        .prop_map(|(target, image_offset, (expected, change))| Location { target, image_offset, expected, change })
}

fn entry() -> impl Strategy<Value = Entry> {
    let range = (target(), 0..1u64 << 40, 1..1u64 << 20).prop_map(|(target, start, len)| Range {
        target,
        start,
        end: start + len,
    });
    let locations = proptest::collection::vec(location(), 1..4);
    let decider = proptest::option::of(decider());
    let gates = proptest::collection::vec(location(), 1..3);
    let span = (
        target(),
        any::<u64>(),
        proptest::collection::vec(0u64..999, 1..3),
        proptest::collection::vec(any::<u64>(), 0..3),
    );
    let span = span.prop_map(|(target, entry, starts, exits)| {
        let ranges = starts.into_iter().map(|start| (start, start + 7)).collect();
        SafeSpan { target, entry, ranges, exits }
    });
    let spans = proptest::collection::vec(span, 0..3);
    ("[!-~]{1,160}", any::<i64>(), decider, locations, gates, spans, proptest::collection::vec(range, 0..3)).prop_map(
        |(id, value, decider, locations, gates, spans, between)| {
            let gates = if decider.is_some() { gates } else { Vec::new() };
            Entry { id, value, decider, locations, gates, spans, between }
        },
    )
}

proptest! {
    #[test]
    fn reads_back_as_written(entries in proptest::collection::vec(entry(), 1..4), unset in proptest::collection::vec("[!-~]{1,9}", 0..3),
                             timeout in 0u64..60_000, dry_run: bool, replace: bool,
                             mode in prop_oneof![Just(Mode::Immediate), Just(Mode::Task), Just(Mode::Global)], owner in "[!-~]{0,64}",
                             drop in proptest::option::of("[!-~]{1,64}"), hold in proptest::collection::vec(0i32..999, 0..5), note in "[ -~]{0,200}",
                             ends in proptest::option::of((any::<i64>(), any::<i64>())),
                             limits in (0..u64::MAX / 2, 0..1_000_000u32)) {
        let mut transaction = Transaction::new(kernel());
        transaction.entries = entries;
        transaction.unset = unset;
        transaction.timeout = Duration::from_millis(timeout);
        transaction.dry_run = dry_run;
        (transaction.replace, transaction.owner) = (replace, owner);
        transaction.mode = mode;
        (transaction.drop, transaction.hold) = (drop, hold);
        transaction.note = note;
        if !transaction.owner.is_empty() {
            transaction.limits = Limits { triggers: limits.0, permille: limits.1 };
        }
        let first = transaction.entries[0].id.clone();
        transaction.guards.extend(ends.map(|(a, b)| (first, guard(a.min(b), a.max(b)))));
        prop_assert_eq!(decode(&encode(&transaction).unwrap()), transaction);
    }
}
