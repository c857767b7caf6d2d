//! Safe spans on the distribution's kernel: where the effects of known constants live.

use std::sync::OnceLock;

use kerf_const::build::text_base;
use kerf_const::entry::{Class, Entry, ImageName, Iv, Proof, SafeSpan, SlotName, Span, Window};
use kerf_const::form::Form;
use kerf_const::safe_span::{Analysis as _, ThinSlices, WholeFunctions};
use kerf_const::site::SiteKind;
use kerf_image::Image;
use kerf_lab::{Cache, Quiet};

fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let cache = Cache::open_default().unwrap();
        let kernel = kerf_lab::kernel(&cache, &mut Quiet).unwrap();
        Image::open(&kernel.vmlinuz).unwrap()
    })
}

/// A critical span: one instruction of a function, known by its bytes.
fn critical(function: &str, bytes: &[u8]) -> Span {
    let symbol = image().symbols_named(function).find(|s| s.is_function()).unwrap();
    let code = image().bytes(symbol.address, symbol.size.unwrap() as usize).unwrap();
    let at = code.windows(bytes.len()).position(|window| window == bytes).unwrap() as u64;
    let iv = Iv {
        form: Form::Affine { a: 1, b: 0 },
        offset: at,
        slot: SlotName::Immediate,
        bits: 32,
        stock: 1,
        field: None,
        chained: false,
    };
    Span {
        function: function.into(),
        unit: String::new(),
        function_offset: symbol.address - text_base(image()),
        start: at,
        end: at + bytes.len() as u64,
        bytes: String::new(),
        expression: String::new(),
        iv: vec![iv],
        updates: Vec::new(),
        proof: Proof::default(),
        absolute: Vec::new(),
        window: Window::default(),
        parameters: Vec::new(),
    }
}

fn entry(spans: Vec<Span>) -> Entry {
    Entry {
        id: "a.c:L1:1:0".into(),
        name: None,
        file: "a.c".into(),
        line: 1,
        value: 1,
        kind: SiteKind::Literal,
        class: Class::Proved,
        reason: String::new(),
        image: ImageName { build_id: String::new(), release: String::new(), text: text_base(image()), module: None },
        domain: Vec::new(),
        spans,
        safe_spans: Vec::new(),
        units: Vec::new(),
        text: String::new(),
        governed: Vec::new(),
    }
}

fn thin(spans: Vec<Span>) -> Vec<SafeSpan> {
    ThinSlices::default().safe_spans(image(), &entry(spans)).unwrap()
}

/// What holds for every safe span, of whatever constant.
fn check(span: &SafeSpan, entry: &Entry) {
    assert!(span.ranges.windows(2).all(|pair| pair[0].1 < pair[1].0), "sorted and apart: {span:?}");
    let inside = |offset: u64| span.ranges.iter().any(|(start, end)| (*start..*end).contains(&offset));
    assert!(!inside(span.entry), "a thread at the entry is outside: {span:?}");
    assert!(span.begins() == span.entry || inside(span.begins()), "{span:?}");
    for critical in span.critical.iter().map(|n| &entry.spans[*n]) {
        let begin = critical.function_offset + critical.start;
        assert!(begin == span.entry || inside(begin) || span.function != critical.function, "{span:?}");
    }
    assert_eq!(span.frames.len(), span.critical.len());
}

#[test]
fn the_softirq_limit_lives_in_its_loop() {
    // mov $10, %ebp
    let limit = critical("handle_softirqs", &[0xbd, 10, 0, 0, 0]);
    let spans = thin(vec![limit.clone()]);
    let [span] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!((span.function.as_str(), span.widened.as_ref()), ("handle_softirqs", None));
    assert_eq!(span.entry, limit.function_offset + limit.start);
    assert!(span.is_independent() && span.frames[0].is_some());
    assert!((20..160).contains(&span.instructions), "{}", span.instructions);
    // Set, spilled, counted down, tested.
    assert_eq!(span.slice.len(), 4, "{:#?}", span.slice);
    let whole = WholeFunctions.safe_spans(image(), &entry(vec![limit.clone()])).unwrap();
    assert!(whole[0].instructions > span.instructions);
    check(span, &entry(vec![limit.clone()]));
    check(&whole[0], &entry(vec![limit]));
}

#[test]
fn the_plug_limit_ends_with_its_comparison() {
    // and $-32, %eax; add $64, %eax
    let mut add = critical("blk_add_rq_to_plug", &[0x83, 0xe0, 0xe0]);
    let second = critical("blk_add_rq_to_plug", &[0x83, 0xc0, 0x40]);
    (add.end, add.iv) = (second.end, [add.iv, second.iv].concat());
    // mov $32, %edx
    let start = critical("blk_start_plug_nr_ios", &[0xba, 32, 0, 0, 0]);
    let spans = thin(vec![add.clone(), start.clone()]);
    assert_eq!(spans.len(), 2, "{spans:#?}");
    for span in &spans {
        assert!(span.widened.is_none() && span.is_independent() && span.instructions < 20, "{span:#?}");
        check(span, &entry(vec![add.clone(), start.clone()]));
    }
    let plug = spans.iter().find(|s| s.function == "blk_start_plug_nr_ios").unwrap();
    assert_eq!(plug.escapes, ["stored in blk_plug.nr_ios"]);
}

#[test]
fn spans_that_share_instructions_are_one() {
    // Both ends of the clamp of HyStart's threshold.
    let low = critical("cubictcp_acked", &4000u32.to_le_bytes());
    let high = critical("cubictcp_acked", &16000u32.to_le_bytes());
    // The bytes are the operands': the instructions begin one byte before.
    let mut both = [low, high];
    for span in &mut both {
        span.start -= 1;
        span.iv[0].offset -= 1;
    }
    let [low, high] = both.clone();
    let spans = thin(both.to_vec());
    let [span] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!((&span.critical[..], span.repeated), (&[0, 1][..], true));
    assert_eq!(span.entry, low.function_offset + low.start.min(high.start));
    assert_eq!(span.frames[0], span.frames[1]);
    check(span, &entry(both.to_vec()));
    for one in both {
        assert!(thin(vec![one])[0].is_independent());
    }
}

#[test]
fn what_cannot_be_followed_widens_to_the_function() {
    // mov $128, %eax: it ends in counters that are found by a computed address.
    let batch = critical("do_shrink_slab", &[0xb8, 128, 0, 0, 0]);
    let spans = thin(vec![batch.clone()]);
    let span = &spans[0];
    let why = span.widened.as_deref().unwrap_or_default();
    assert!(why.contains("do_shrink_slab+0x"), "{why}");
    // Wherever it goes, it is taken from the code once.
    assert!(span.is_independent());
    // It is used right behind the entry, and only what lies before that can notice where an execution begins.
    let refused = &span.begin.as_ref().unwrap().window.refused;
    assert!(refused.contains("do_shrink_slab+0x5 cannot be moved"), "{refused}");
    assert_eq!(span.begins(), span.entry);
    assert!(span.escapes.iter().any(|e| e == "stored in shrink_control.nr_to_scan"), "{:?}", span.escapes);
    check(span, &entry(vec![batch]));
}

#[test]
fn executions_begin_behind_what_no_detour_can_take() {
    // lea 750(%rax,%rbx), %rsi in a function that begins with pushes, and add $750, %rsi in one with calls behind them.
    let period = critical("writeout_period", &[0x48, 0x8d, 0xb4, 0x18, 0xee, 2, 0, 0]);
    let next = critical("wb_writeout_inc", &[0x48, 0x81, 0xc6, 0xee, 2, 0, 0]);
    let spans = thin(vec![period, next]);
    for function in ["writeout_period", "wb_writeout_inc"] {
        let span = spans.iter().find(|s| s.function == function).unwrap();
        let begin = span.begin.as_ref().unwrap();
        assert!(!begin.window.bytes.is_empty() && begin.frame.is_some_and(|bytes| bytes > 8), "{begin:?}");
        assert!(span.begins() > span.entry, "{span:?}");
    }
}

#[test]
fn a_result_that_is_asked_for_twice_is_used_twice() {
    // mov $imm, %eax: the interval of a poller that asks for it again before it goes on.
    let interval = critical("edac_pci_get_poll_msec", &[0xb8]);
    let spans = thin(vec![interval.clone()]);
    let poller = spans.iter().find(|span| span.function == "edac_pci_workq_function").unwrap();
    assert_eq!((&poller.critical[..], poller.widened.as_ref()), (&[0][..], None));
    assert!(!poller.is_independent(), "{poller:#?}");
    check(poller, &entry(vec![interval]));
}

#[test]
fn what_is_stored_in_a_callers_variable_is_followed_there() {
    // shr $2, %r13d: the window of reordering, stored where the second argument points to.
    let window = critical("tcp_rack_detect_loss", &[0x41, 0xc1, 0xed, 2]);
    let spans = thin(vec![window.clone()]);
    let of =
        |name: &str| spans.iter().find(|span| span.function == name).unwrap_or_else(|| panic!("{name}: {spans:#?}"));
    let own = of("tcp_rack_detect_loss");
    assert_eq!(
        (own.widened.as_ref(), &own.escapes[..]),
        (None, &["stored in what argument 2 points to".to_owned()][..])
    );
    // The caller makes a timeout of its variable, and whether there is one is its own result.
    let timeout = of("tcp_rack_mark_lost");
    assert!(timeout.slice.iter().any(|step| step.place.starts_with("__usecs_to_jiffies")), "{timeout:#?}");
    let asked = of("tcp_identify_packet_loss");
    assert!(asked.widened.is_none() && asked.instructions < 10, "{asked:#?}");
    spans.iter().for_each(|span| check(span, &entry(vec![window.clone()])));
}
