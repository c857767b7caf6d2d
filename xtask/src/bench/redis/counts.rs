//! What the plugin has counted and the guest has said, as figures for a request.

use super::super::median;
use anyhow::{Context, bail, ensure};
use kerf_profile::{Interval, Profile, Symbols, summary};
use std::collections::BTreeMap;
use std::ops::Range;

/// Where the kernel has modules and what it compiles at run time: here kerf.ko and the policies' programs, and nothing else.
const MODULES: Range<u64> = 0xffff_ffff_c000_0000..0xffff_ffff_ff00_0000;

/// Who sees to the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// They are set.
    Set,
    /// A policy decides.
    Policy,
}

impl Way {
    /// As the guest calls it.
    pub fn word(self) -> &'static str {
        match self {
            Way::Set => "set",
            Way::Policy => "policy",
        }
    }

    fn parse(word: &str) -> anyhow::Result<Way> {
        [Way::Set, Way::Policy].into_iter().find(|way| way.word() == word).with_context(|| format!("know `{word}`"))
    }
}

/// What the guest prints.
#[derive(Debug, Default)]
pub struct Said {
    /// Constants that are in the measurement.
    pub usable: Vec<String>,
    /// Those that are not, and why.
    pub refused: Vec<String>,
    /// How often constants were passed while a policy decided, by their number: a sum for each round.
    passes: BTreeMap<usize, BTreeMap<u32, u64>>,
    /// The same by constant, with all of them, in the last round.
    pub each: Vec<(String, u64)>,
    /// Lines of `/proc/kallsyms` with the largest number of constants.
    symbols: String,
}

impl Said {
    /// Reads it; other lines are passed over.
    pub fn parse(text: &str) -> anyhow::Result<Said> {
        let mut said = Said::default();
        let mut largest = 0;
        for line in text.lines() {
            let wrong = || format!("read what the guest says: `{line}`");
            let Some((word, rest)) = line.split_once(' ') else { continue };
            match word {
                "usable" => said.usable.push(rest.to_owned()),
                "refused" => said.refused.push(rest.to_owned()),
                "unreached" => said.refused.push(format!("{rest} was never passed")),
                "passed" => {
                    let [round, size, label, count] = rest.split(' ').collect::<Vec<_>>()[..] else { bail!(wrong()) };
                    let round: u32 = round.parse().with_context(wrong)?;
                    let size: usize = size.parse().with_context(wrong)?;
                    let count: u64 = count.parse().with_context(wrong)?;
                    *said.passes.entry(size).or_default().entry(round).or_default() += count;
                    said.each.retain(|(known, _)| known != label);
                    said.each.push((label.to_owned(), count));
                }
                "symbol" => {
                    let (size, symbol) = rest.split_once(' ').with_context(wrong)?;
                    let size: usize = size.parse().with_context(wrong)?;
                    if size > largest {
                        (largest, said.symbols) = (size, String::new());
                    }
                    if size == largest {
                        said.symbols += symbol;
                        said.symbols.push('\n');
                    }
                }
                _ => {}
            }
        }
        Ok(said)
    }
}

/// A number of constants, and who sees to them; figures for one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Who.
    pub way: Way,
    /// How many constants.
    pub size: usize,
    /// All instructions, kernel and user: the round in the middle.
    pub instructions: f64,
    /// Those in kerf.ko and in the policies.
    pub kerf: f64,
    /// How often a constant is passed while a policy decides; 0 where none does, since nothing counts then.
    pub passes: f64,
}

/// What came out.
#[derive(Debug)]
pub struct Counted {
    /// How many constants were in it.
    pub usable: usize,
    /// How often each is passed in a request.
    pub each: Vec<(String, f64)>,
    /// Instructions for a request with nothing set: the round in the middle.
    pub stock: f64,
    /// By how many percent the rounds of that differ.
    pub spread: f64,
    /// Smallest number first, set before decided.
    pub cases: Vec<Case>,
    /// Where a policy's instructions are, with all constants: in which function, how many for each pass.
    pub profile: Vec<(String, f64)>,
}

impl Counted {
    /// Puts it together, for so many requests in an interval.
    pub fn new(profile: &Profile, said: Said, requests: f64) -> anyhow::Result<Counted> {
        let all = |interval: &Interval| interval.instructions.sum() as f64 / requests;
        let mut stock = Vec::new();
        let mut rounds: BTreeMap<(usize, Way), Vec<&Interval>> = BTreeMap::new();
        for interval in &profile.intervals {
            match interval.name.split_once(' ') {
                None => stock.push(all(interval)),
                Some((way, size)) => {
                    let size = size.parse().with_context(|| format!("know the interval `{}`", interval.name))?;
                    rounds.entry((size, Way::parse(way)?)).or_default().push(interval);
                }
            }
        }
        ensure!(!rounds.is_empty(), "find the intervals with constants");
        let (least, most) =
            (stock.iter().copied().fold(f64::NAN, f64::min), stock.iter().copied().fold(f64::NAN, f64::max));
        let middle = |figures: Vec<f64>| median(&figures).unwrap_or(f64::NAN);
        let case = |(&(size, way), intervals): (&(usize, Way), &Vec<&Interval>)| {
            let passes = said.passes.get(&size).filter(|_| way == Way::Policy);
            let passes = passes.map_or(0.0, |rounds| middle(rounds.values().map(|&n| n as f64).collect()));
            let instructions = middle(intervals.iter().map(|interval| all(interval)).collect());
            let kerf =
                middle(intervals.iter().map(|interval| in_modules(profile, interval) as f64 / requests).collect());
            Case { way, size, instructions, kerf, passes: passes / requests }
        };
        let cases: Vec<Case> = rounds.iter().map(case).collect();
        let last = rounds.iter().next_back().and_then(|(_, intervals)| intervals.last());
        let passes: u64 = said.each.iter().map(|(_, count)| count).sum();
        let profile =
            last.map(|interval| functions(profile, interval, &said.symbols, passes as f64)).unwrap_or_default();
        let each = said.each.into_iter().map(|(label, count)| (label, count as f64 / requests)).collect();
        let (stock, spread) = (middle(stock), 100.0 * (most - least) / least);
        Ok(Counted { usable: said.usable.len(), each, stock, spread, cases, profile })
    }

    /// What runs in kerf.ko and the policies, in percent of the stock kernel's instructions. The instructions that a detour does in
    /// the place of stock ones are in it.
    pub fn overhead(&self, case: &Case) -> f64 {
        100.0 * case.kerf / self.stock
    }

    /// All instructions against the stock kernel's, in percent.
    pub fn difference(&self, case: &Case) -> f64 {
        100.0 * (case.instructions / self.stock - 1.0)
    }
}

fn in_modules(profile: &Profile, interval: &Interval) -> u64 {
    let ours = |block: u64| profile.blocks.get(block as usize).is_some_and(|place| MODULES.contains(&place.address));
    interval.rows.iter().filter(|row| ours(row.block)).map(|row| row.instructions).sum()
}

/// Programs of policies have one name here: each has another one in the kernel.
fn functions(profile: &Profile, interval: &Interval, symbols: &str, passes: f64) -> Vec<(String, f64)> {
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    for function in summary::functions(profile, interval, &Symbols::parse(symbols)) {
        if MODULES.contains(&function.address) {
            let program = function.module.as_deref() == Some("bpf");
            let name = if program { "the policies' programs".to_owned() } else { function.name };
            *sums.entry(name).or_default() += function.sum.instructions as f64 / passes.max(1.0);
        }
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use kerf_profile::{Counts, Place, Row};

    const SAID: &str = "usable A\nusable B\nrefused C no room\nunreached D\nnoise\npassed 1 2 A 100\npassed 1 2 B 300\npassed 1 1 A 90\n\
                        symbol 1 ffffffffc0000000 t gone [kerf]\nsymbol 2 ffffffffc0000000 t kerf_enter [kerf]\n\
                        symbol 2 ffffffffc1000000 t bpf_prog_1 [bpf]\n";

    fn interval(name: &str, kernel: u64, ours: u64) -> Interval {
        let row = |block, instructions| Row { block, instructions, ..Row::default() };
        let rows = vec![row(0, kernel - ours), row(1, ours / 2), row(2, ours - ours / 2)];
        Interval { name: name.into(), instructions: Counts { kernel, user: 500 }, rows, ..Interval::default() }
    }

    #[test]
    fn figures_are_for_a_request() {
        let place = |address| Place { address, size: 4, ranges: Vec::new() };
        let blocks = vec![place(0xffff_ffff_8100_0000), place(0xffff_ffff_c000_0010), place(0xffff_ffff_c100_0000)];
        let intervals = vec![
            interval("stock", 1500, 0),
            interval("set 2", 1502, 2),
            interval("policy 2", 1580, 80),
            interval("stock", 1520, 0),
        ];
        let profile = Profile { intervals, blocks, ..Profile::default() };
        let counted = Counted::new(&profile, Said::parse(SAID).unwrap(), 10.0).unwrap();
        assert_eq!((counted.usable, counted.stock, counted.spread), (2, 201.0, 1.0));
        let [set, policy] = &counted.cases[..] else { panic!("{:?}", counted.cases) };
        assert_eq!((set.way, set.kerf, set.passes), (Way::Set, 0.2, 0.0));
        assert_eq!((policy.kerf, policy.passes, policy.instructions), (8.0, 40.0, 208.0));
        assert!((counted.overhead(policy) - 800.0 / 201.0).abs() < 1e-9);
        assert!((counted.difference(policy) - 700.0 / 201.0).abs() < 1e-9);
        let sum: f64 = counted.profile.iter().map(|(_, n)| n).sum();
        assert_eq!((counted.profile.len(), counted.profile[0].1), (2, 40.0 / 390.0), "{:?} {sum}", counted.profile);
    }

    #[test]
    fn what_the_guest_says_is_read() {
        let said = Said::parse(SAID).unwrap();
        assert_eq!(said.usable, ["A", "B"]);
        assert_eq!(said.refused, ["C no room", "D was never passed"]);
        assert_eq!(said.passes[&2][&1], 400);
        assert!(said.symbols.starts_with("ffffffffc0000000 t kerf_enter") && !said.symbols.contains("gone"));
        assert!(Said::parse("passed 1 x A 100\n").is_err());
    }
}
