//! `kerf const verify`: entries held against image, source and compiler once more.

use anyhow::Context;
use clap::Args;
use kerf_const::build::verify;
use kerf_const::entry::Entry;
use kerf_live::LiveError;

use super::const_build::{FromArgs, Opened};
use super::const_words::TableArgs;
use crate::{exit, print};

pub const EXAMPLES: &str = "\
Examples:
  kerf const verify BLK_MAX_REQUEST_COUNT
  kerf const import scope.json && kerf const verify BLK_MAX_REQUEST_COUNT --json

An entry's numbers and bytes are compared with the image, and the ends and the middle of its domain are compiled again.
Source and image are found as `kerf const build` finds them. The exit code is 0 when every entry is what it says.";

/// Which entries, and against what.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Names, ids, or FILE:Lline.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    from: FromArgs,
    #[command(flatten)]
    table: TableArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One line of the result.
#[derive(serde::Serialize)]
struct Verified {
    id: String,
    name: Option<String>,
    verified: bool,
    /// What is wrong.
    why: Option<String>,
}

impl VerifyArgs {
    /// Does it; goes on after an entry that is not what it says, and tells the first failure's code.
    pub fn run(self) -> anyhow::Result<u8> {
        let shown = || format!("verify {}", self.ids.join(" "));
        let entries = self.entries().with_context(shown)?;
        let opened = self.from.open().with_context(shown)?;
        let (mut rows, mut code) = (Vec::new(), 0);
        for entry in entries {
            let why = match check(&opened, &entry) {
                Ok(()) => None,
                Err(error) => {
                    eprintln!("kerf: failed to verify {}: {error:#}", entry.label());
                    let why = format!("{error:#}");
                    code = if code == 0 { exit::ExitCode::of(&error) as u8 } else { code };
                    Some(why)
                }
            };
            rows.push(Verified { id: entry.id, name: entry.name, verified: why.is_none(), why });
        }
        if self.json {
            print::json(&rows)?;
        } else {
            let good = rows.iter().filter(|row| row.verified);
            good.map(|row| row.name.as_deref().unwrap_or(&row.id)).try_for_each(|label| {
                print::text(&format!("{label}: the compiler and the image say the same as its entry"))
            })?;
        }
        Ok(code)
    }

    /// The entries, each of whatever kernel; all must be there before the first is compiled.
    fn entries(&self) -> anyhow::Result<Vec<Entry>> {
        let table = self.table.open()?;
        self.ids.iter().map(|id| super::const_words::find_anywhere(&table, id)).collect()
    }
}

fn check(opened: &Opened, entry: &Entry) -> anyhow::Result<()> {
    let build = opened.image.build_id().map(|id| id.to_string()).unwrap_or_default();
    if entry.image.build_id != build {
        let why = format!(
            "the entry of {} is of {}, build {}, and the image has build {build}: name its own with --image",
            entry.label(),
            entry.image.release,
            entry.image.build_id
        );
        return Err(LiveError::OtherKernel(why).into());
    }
    let _spinner = print::Spinner::start(&format!("verifying {}", entry.label()));
    Ok(verify(&opened.input(), entry)?)
}
