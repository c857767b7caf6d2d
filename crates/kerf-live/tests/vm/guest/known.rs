//! kerf_test.ko's functions: every placement and form, and a task that sleeps where nobody may be.

use std::time::{Duration, Instant};

use kerf_live::{Live, Location, Range};

use super::tools::*;
use super::{Outcome, kcore};

fn check(key: &str, expected: i64) -> Outcome {
    same(key, shown(key)?, expected)
}

/// Moved comparison, branch and load; a shift turned into a multiplication; one immediate with two owners.
pub fn functions() -> Outcome {
    let mut live = Live::open()?;
    for (key, stock) in [("below", 1), ("at", 2), ("far", 2), ("beyond", 2), ("shift", 4000), ("pair", 48)] {
        check(key, stock)?;
    }
    // cmp $200, %edi; jae 1f
    let compare = detour(&[&[0x81, 0xff, 200, 0, 0, 0], &[0x0f, 0x83, 0, 0, 0, 0]]);
    set(&mut live, entry("compare", 200, vec![test_location("detour", &[0x83, 0xff, 0x20, 0x73, 0x0b], compare)?]))?;
    for (key, value) in [("below", 1), ("at", 1), ("far", 1), ("beyond", 2)] {
        check(key, value)?;
    }
    // imul $5, %eax, %eax; add $7, %eax
    let multiply = detour(&[&[0x69, 0xc0, 5, 0, 0, 0], &[0x81, 0xc0, 7, 0, 0, 0]]);
    let stock = [0xc1, 0xe0, 0x02, 0x83, 0xc0, 0x00];
    set(&mut live, entry("shift", 5, vec![test_location("shift", &stock, multiply)?]))?;
    check("shift", 5007)?;
    packed(&mut live)?;
    live.unset_all()?;
    for (key, stock) in [("below", 1), ("at", 2), ("shift", 4000), ("packed_low", 16), ("packed_high", 32)] {
        check(key, stock)?;
    }
    same("entries", live.status()?.entries.len(), 0)
}

/// Every substitution that a detour may hold, with the effect that it must have.
pub fn forms() -> Outcome {
    let mut live = Live::open()?;
    let results = ["form0", "form1", "form2", "form3", "form4", "form5", "form6", "stored"];
    let check_all = |expected: [i64; 8]| results.iter().zip(expected).try_for_each(|(key, value)| check(key, value));
    let stock = [33, 41, 7, 1, 55, 66, 11, 5];
    check_all(stock)?;
    // imul $1000, %edi, %eax; lea 0x12345(%rax), %ecx
    let wide: [&[u8]; 2] = [&[0x69, 0xc7, 0xe8, 3, 0, 0], &[0x8d, 0x88, 0x45, 0x23, 1, 0]];
    // movabs $0x100000007, %rdx, with the store behind it
    let movabs: [&[u8]; 2] = [&[0x48, 0xba, 7, 0, 0, 0, 1, 0, 0, 0], &[0x48, 0x89, 0x56, 0x10]];
    // cmp $12, %edi; je; add $300, %ecx
    let compare: [&[u8]; 3] = [&[0x81, 0xff, 12, 0, 0, 0], &[0x0f, 0x84, 0, 0, 0, 0], &[0x81, 0xc1, 44, 1, 0, 0]];
    // movl $77, stored(%rip): the distance is the module's to write
    let function = test_symbol("forms")?;
    let head = kcore::find(function, 128, &[0xc7, 0x05])?;
    let store = kcore::read(head, 10)?;
    let changed = [&[0xc7, 0x05, 0, 0, 0, 0], &[77, 0, 0, 0][..]].concat();
    // imul $7, %edi, %edx; imul $9, %eax, %eax
    let multiply: [&[u8]; 2] = [&[0x69, 0xd7, 7, 0, 0, 0], &[0x69, 0xc0, 9, 0, 0, 0]];
    // jmp; the ud2 after it stays where it is and is no part of the window: imul $-2, %edi, %eax and the store
    let negate: [&[u8]; 2] = [&[0x69, 0xc7, 0xfe, 0xff, 0xff, 0xff], &[0x89, 0x46, 0x30]];
    let windows: [(&[u8], kerf_live::Change); 6] = [
        (&[0x6b, 0xc7, 0x03, 0x8d, 0x48, 0x08], detour(&wide)),
        (&[0xba, 7, 0, 0, 0, 0x48, 0x89, 0x56, 0x10], detour(&movabs)),
        (&[0x85, 0xff, 0x74, 0x02, 0xff, 0xc1], detour(&compare)),
        (&store, detour(&[&changed])),
        (&[0x8d, 0x14, 0xbf, 0x01, 0xc0], detour(&multiply)),
        (&[0x89, 0xf8, 0x89, 0x46, 0x30], detour(&negate)),
    ];
    let locations = windows.into_iter().map(|(stock, change)| test_location("forms", stock, change));
    set(&mut live, entry("forms", 1, locations.collect::<Result<_, _>>()?))?;
    check_all([11000, 11000 + 0x12345, 0x1_0000_0007, 300, 77, 99000, 0xffff_ffea, 77])?;
    live.unset_all()?;
    check_all(stock)
}

/// Products and quotients by other numbers, and what looks like them but is not.
pub fn operations() -> Outcome {
    let mut live = Live::open()?;
    let results = ["operation0", "operation1", "operation2", "operation3", "operation4", "operation5"];
    let check_all = |expected: [i64; 6]| results.iter().zip(expected).try_for_each(|(key, value)| check(key, value));
    let stock = [8008, 15, 15, 3003, 15, 2001];
    check_all(stock)?;
    // lea 8(,%rdi,8), %ecx: imul $100, %edi, %ecx; add $100, %ecx
    let lea = [0x8d, 0x0c, 0xfd, 8, 0, 0, 0];
    let product = [0x69, 0xcf, 100, 0, 0, 0, 0x81, 0xc1, 100, 0, 0, 0];
    // shr $6, %rax: xor %edx, %edx; mov $7, %r8d; div %r8
    let (in_rax, store) = ([0x48, 0xc1, 0xe8, 6], [0x48, 0x89, 0x46, 8]);
    let by_seven = |divisor: u8| [0x31, 0xd2, 0x41, 0xb8, divisor, 0, 0, 0, 0x49, 0xf7, 0xf0];
    // shr $6, %r9: mov %r9, %rax; xor %edx, %edx; mov $10, %r9d; div %r9; mov %rax, %r9
    let (in_r9, store_r9) = ([0x49, 0xc1, 0xe9, 6], [0x4c, 0x89, 0x4e, 16]);
    let by_ten = [0x4c, 0x89, 0xc8, 0x31, 0xd2, 0x41, 0xb9, 10, 0, 0, 0, 0x49, 0xf7, 0xf1, 0x49, 0x89, 0xc1];
    // lea 3(%rdi,%rdi,2), %r10: imul $5, %rdi, %r10; add $5, %r10
    let lea_twice = [0x4c, 0x8d, 0x54, 0x7f, 3];
    let product_wide = [0x4c, 0x69, 0xd7, 5, 0, 0, 0, 0x49, 0x81, 0xc2, 5, 0, 0, 0];
    // shr $6, %r11 with rax kept in r8 and rdx in r10: mov %r11, %rax; xor %edx, %edx; mov $9, %r11d; div %r11; mov %rax, %r11
    let (in_r11, store_r11) = ([0x49, 0xc1, 0xeb, 6], [0x4c, 0x89, 0x5e, 32]);
    let (keep, give_back) = ([0x49, 0x89, 0xc0, 0x49, 0x89, 0xd2], [0x4c, 0x89, 0xc0, 0x4c, 0x89, 0xd2]);
    let by_nine = [0x4c, 0x89, 0xd8, 0x31, 0xd2, 0x41, 0xbb, 9, 0, 0, 0, 0x49, 0xf7, 0xf3, 0x49, 0x89, 0xc3];
    let by_nine = |before: &[u8], behind: &[u8]| [before, &by_nine, behind].concat();
    let location = |stock: &[u8], code: &[&[u8]]| test_location("operations", stock, detour(code));
    let locations = vec![
        location(&lea, &[&product])?,
        location(&[in_rax, store].concat(), &[&by_seven(7), &store])?,
        location(&[in_r9, store_r9].concat(), &[&by_ten, &store_r9])?,
        location(&lea_twice, &[&product_wide])?,
        location(&[in_r11, store_r11].concat(), &[&by_nine(&keep, &give_back), &store_r11])?,
    ];
    set(&mut live, entry("operations", 1, locations))?;
    check_all([100_100, 142, 100, 5005, 111, 2001])?;
    live.unset_all()?;
    check_all(stock)?;
    let mut other_source = product;
    other_source[1] = 0xce;
    let mut other_target = product;
    other_target[7] = 0xc0;
    let in_pair = [0x31, 0xd2, 0xb8, 7, 0, 0, 0, 0x48, 0xf7, 0xf0];
    let (by_none, window) = (by_seven(0), [in_rax, store].concat());
    let unfinished = &by_seven(7)[..8];
    // One that nothing gives back, one given back from elsewhere, one kept where the divisor comes.
    let window_r11 = [in_r11, store_r11].concat();
    let (lost, swapped) = (by_nine(&keep, &give_back[..3]), by_nine(&keep, &[0x4c, 0x89, 0xd0, 0x4c, 0x89, 0xc2]));
    let overwritten = by_nine(&[0x49, 0x89, 0xc3], &[0x4c, 0x89, 0xd8]);
    let wrong: [(&[u8], Vec<&[u8]>); 8] = [
        (&window_r11, vec![&lost, &store_r11]),
        (&window_r11, vec![&swapped, &store_r11]),
        (&window_r11, vec![&overwritten, &store_r11]),
        (&lea, vec![&other_source]),
        (&lea, vec![&other_target]),
        (&window, vec![&by_none, &store]),
        (&window, vec![&in_pair, &store]),
        (&window, vec![unfinished, &store]),
    ];
    for (stock, code) in wrong {
        let refusal = refused(&mut live, entry("wrong", 1, vec![location(stock, &code)?]))?;
        says(&refusal, &["is neither one instruction nor a multiplication or division"])?;
    }
    check_all(stock)
}

/// Each owner sets and unsets its own half of the immediate; nobody takes the other's.
fn packed(live: &mut Live) -> Outcome {
    let stock = [0x48, 0xb8, 0x10, 0, 0, 0, 0x20, 0, 0, 0];
    let whole = test_location("packed", &stock, immediate(2, &[]))?;
    let half = |field: usize, value: u8| Location { change: immediate(field, &[value, 0, 0, 0]), ..whole.clone() };
    set(live, entry("low", 5, vec![half(2, 5)]))?;
    set(live, entry("high", 6, vec![half(6, 6)]))?;
    check("packed_low", 5)?;
    check("packed_high", 6)?;
    says(&refused(live, entry("thief", 7, vec![half(6, 7)]))?, &["owned by entry high"])?;
    live.unset(&["low"])?;
    check("packed_low", 16)?;
    check("packed_high", 6)?;
    set(live, entry("high", 9, vec![half(6, 9)]))?;
    check("packed_high", 9)
}

/// pair or park with another V.
pub fn two_immediates(function: &str, first: &[u8], value: u8) -> Result<kerf_live::Entry, Box<dyn std::error::Error>> {
    let field = first.len() - if function == "park" { 4 } else { 1 };
    let bytes = if function == "park" { vec![value, 0, 0, 0] } else { vec![value] };
    let second: &[u8] = if function == "park" { &[0x83, 0xc3, 0x20] } else { &[0x83, 0xc0, 0x20] };
    let one = test_location(function, first, immediate(field, &bytes))?;
    let two = test_location(function, second, immediate(2, &[2 * value]))?;
    let range = Range::between(one.target.clone(), one.image_offset, two.image_offset + 3);
    let mut entry = entry(function, value.into(), vec![one, two]);
    entry.between.push(range);
    Ok(entry)
}

/// A thread sleeps between the two immediates: the change waits, gives up with its name, and works when it has left.
pub fn parked() -> Outcome {
    let mut live = Live::open()?;
    let entry = two_immediates("park", &[0xbb, 0x10, 0, 0, 0], 5)?;
    write(TEST, "park")?;
    std::thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    let mut transaction = transaction(&mut live)?;
    transaction.entries.push(entry.clone());
    transaction.timeout = Duration::from_millis(300);
    let error = live.set(&transaction).err().ok_or("set with a task inside")?;
    says(&error, &["kerf_park", "kerf_test_park+0x"])?;
    ensure(start.elapsed() >= Duration::from_millis(300), || "it gave up too early".into())?;
    same("entries", live.status()?.entries.len(), 0)?;
    let patient = std::thread::spawn(move || -> Result<(), String> {
        let mut live = Live::open().map_err(|error| error.to_string())?;
        transaction.timeout = Duration::from_secs(10);
        live.set(&transaction).map(|_| ()).map_err(|error| error.to_string())
    });
    std::thread::sleep(Duration::from_millis(100));
    write(TEST, "stop")?;
    patient.join().map_err(|_| "the patient writer panicked")??;
    check("park_result", 48)?;
    write(TEST, "park")?;
    std::thread::sleep(Duration::from_millis(100));
    says(&live.unset(&["park"]).err().ok_or("unset with a task inside")?, &["kerf_park"])?;
    write(TEST, "stop")?;
    check("park_result", 15)?;
    live.unset(&["park"])?;
    Ok(())
}
