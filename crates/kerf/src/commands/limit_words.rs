//! `--max-triggers` and `--max-time`: what a policy may cost before the module takes it out.

use clap::Args;
use kerf_live::Limits;

/// What the module holds a policy to; all its constants count together.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct LimitArgs {
    /// Take the policy out when its constants are passed more often than this in a second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=i64::MAX as u64))]
    max_triggers: Option<u64>,
    /// Take it out when it takes more than this share of one CPU's time; 2.5 is a fortieth. Measuring costs time, too.
    #[arg(long, value_name = "PERCENT", value_parser = permille)]
    max_time: Option<u32>,
}

/// Per cent as text, in thousandths.
fn permille(text: &str) -> Result<u32, String> {
    let percent: f64 = text.parse().map_err(|_| "give a number of per cent")?;
    let permille = (percent * 10.0).round();
    if (1.0..=1e6).contains(&permille) { Ok(permille as u32) } else { Err("give 0.1 to 100000 per cent".into()) }
}

impl LimitArgs {
    /// As the module takes it.
    pub fn limits(self) -> Limits {
        Limits { triggers: self.max_triggers.unwrap_or(0), permille: self.max_time.unwrap_or(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::permille;

    #[test]
    fn per_cent_become_thousandths() {
        assert_eq!((permille("2.5"), permille("100"), permille("0.1")), (Ok(25), Ok(1000), Ok(1)));
        for bad in ["", "x", "0", "0.04", "-1", "NaN", "inf", "100001"] {
            assert!(permille(bad).is_err(), "{bad}");
        }
    }
}
