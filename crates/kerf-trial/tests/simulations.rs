//! Metrics that are made up, with noise, drift and planted effects: what is there is found, what is not there is not.

use kerf_trial::{Answer, Direction, Generator, Log, Plan, Question, Run, Verdict, analyse};
use rand::{RngExt, SeedableRng};

/// The standard deviation of a run.
const NOISE: f64 = 0.05;

/// A standard normal number, near enough: twelve uniform ones.
fn normal(generator: &mut Generator) -> f64 {
    (0..12).map(|_| generator.random::<f64>()).sum::<f64>() - 6.0
}

/// A trial of values with these true effects. The metric drifts upwards by 30 % and swings by 5 %, slower than a round.
fn trial(effects: &[f64], rounds: usize, seed: u64) -> Answer {
    let plan = Plan::new(effects.len(), rounds, seed);
    let mut generator = Generator::seed_from_u64(!seed);
    let mut log = Log::default();
    let all = plan.runs().count() as f64;
    for (n, (round, value)) in plan.runs().enumerate() {
        let time = n as f64 / all;
        let drift = 1.0 + 0.3 * time + 0.05 * (time * 20.0).sin();
        let effect = value.value().map_or(0.0, |value| effects[value]);
        let number = 1000.0 * drift * (1.0 + effect + NOISE * normal(&mut generator));
        log.push(Run { round, value, number });
    }
    let direction = Direction::Lower;
    analyse(&log, &Question { values: effects.len(), direction, alpha: 0.05, effect: 5.0, seed })
        .expect("enough rounds")
}

/// In how many of these seeds a value looks different.
fn reported(effects: &[f64], rounds: usize, seeds: std::ops::Range<u64>) -> usize {
    let different = |answer: &Answer| answer.values.iter().any(|value| value.verdict != Verdict::NoDifference);
    seeds.filter(|seed| different(&trial(effects, rounds, *seed))).count()
}

#[test]
fn a_planted_effect_is_found_and_its_absence_too() {
    let found = (0..20).filter(|seed| trial(&[-0.05], 30, *seed).best == Some(0)).count();
    let none = 20 - reported(&[0.0], 30, 0..20);
    println!("found in {found} of 20, nothing reported in {none} of 20");
    assert!(found >= 19, "an effect of 5 % was found in {found} of 20");
    assert!(none >= 19, "nothing was reported where nothing is in {none} of 20");
}

#[test]
fn false_alarms_are_as_rare_as_alpha_says() {
    let one = reported(&[0.0], 10, 10_000..10_600);
    let four = reported(&[0.0; 4], 10, 20_000..20_200);
    println!("false alarms: one value {one} of 600, four values {four} of 200");
    // 30 and 10 are expected, with standard deviations of 5.3 and 3.1.
    assert!((15..=45).contains(&one) && four <= 18, "{one} of 600, {four} of 200");
}

#[test]
fn the_power_is_what_was_promised() {
    let answer = trial(&[0.0], 30, 1);
    let rounds = answer.values[0].rounds_needed.expect("a number");
    // 1.5 times the variance of a run for each difference: 14 rounds see 5 % in four cases of five, if nothing drifts.
    assert!((10..=22).contains(&rounds), "{rounds}");
    let seen = (10_000..10_200).filter(|seed| trial(&[-0.05], 15, *seed).best == Some(0)).count();
    println!("{rounds} rounds needed; 15 rounds saw it in {seen} of 200");
    assert!((140..=180).contains(&seen), "seen in {seen} of 200");
}

#[test]
fn intervals_hold_the_truth() {
    let holds = |seed: &u64| {
        let (low, high) = trial(&[-0.05], 10, *seed).values[0].difference.interval;
        low < -5.0 && -5.0 < high
    };
    let held = (4000..4200).filter(holds).count();
    println!("the interval of ten rounds holds the effect in {held} of 200");
    assert!(held >= 182, "{held} of 200");
}

#[test]
fn noise_is_the_noise_that_was_put_in() {
    let answer = trial(&[], 200, 5);
    assert!((answer.noise.deviation - 5.0).abs() < 1.0, "{:?}", answer.noise);
    let (low, high) = answer.noise.difference.interval;
    assert!(low < 0.0 && high > 0.0, "{:?}", answer.noise);
}

#[test]
fn wild_rounds_fool_nobody() {
    // One run of the value in each trial is ten times as slow.
    let fooled = (0..100).filter(|seed| {
        let plan = Plan::new(1, 10, *seed);
        let mut generator = Generator::seed_from_u64(seed + 77);
        let mut log = Log::default();
        for (round, value) in plan.runs() {
            let wild = if value.value().is_some() && round == 3 { 10.0 } else { 1.0 };
            log.push(Run { round, value, number: wild * (100.0 + 5.0 * normal(&mut generator)) });
        }
        let question = Question { values: 1, direction: Direction::Lower, alpha: 0.05, effect: 5.0, seed: *seed };
        analyse(&log, &question).expect("enough rounds").values[0].verdict != Verdict::NoDifference
    });
    let fooled = fooled.count();
    assert!(fooled <= 5, "{fooled} of 100");
}
