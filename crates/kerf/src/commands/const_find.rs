//! `kerf const find`: constants in the source.

pub mod scan;

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use kerf_const::scan::reasons;
use kerf_const::site::{self, Query, Site};
use kerf_const::tree::Tree;
use kerf_const::{find, governed};

use super::const_build::default_tree;
use crate::print;

pub const EXAMPLES: &str = "\
Examples:
  kerf const find BLK_MAX_REQUEST_COUNT
  kerf const find 'MAX_SOFTIRQ_*'
  kerf const find net/ipv4/tcp_cubic.c:L405:3
  kerf const find net/ipv4/tcp_cubic.c:L405
  kerf const find --scan net/ipv4 mm/vmscan.c
  kerf const find --scan --limit 200 --min-score 60
  kerf const find --scan block --json | jq -r '.candidates[].site'";

/// What to find, and where.
#[derive(Debug, Args)]
pub struct FindArgs {
    /// A name, a pattern with * and ?, or a place FILE:Lline, FILE:Lline:value or FILE:Lline:value:index.
    #[arg(value_name = "NAME|PLACE|PATTERN", required_unless_present = "scan")]
    query: Option<String>,
    /// With --scan: files and directories of the source to look at [default: all that is compiled].
    #[arg(value_name = "PATH", requires = "scan")]
    paths: Vec<String>,
    /// List constants that are likely to govern performance, best first, with the reasons.
    #[arg(long)]
    scan: bool,
    /// With --scan: list so many at most [default: 40, and all with --json].
    #[arg(long, value_name = "N", requires = "scan")]
    limit: Option<usize>,
    /// With --scan: leave out what scores less, of 100.
    #[arg(long, value_name = "N", requires = "scan", default_value_t = reasons::LIKELY)]
    min_score: u32,
    /// The prepared kernel source [default: the lab's, else /usr/src/linux-source-*].
    #[arg(long, value_name = "TREE")]
    source: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl FindArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        if self.scan {
            return self.scan().context("scan the source for constants");
        }
        let query = self.query.as_deref().unwrap_or_default();
        let sites = self.sites(query).with_context(|| format!("find `{query}`"))?;
        let knobs = self.knobs(query, &sites).with_context(|| format!("find what governs `{query}`"))?;
        let governed = |site: &Site| knobs.iter().find(|(label, _)| *label == site.label()).map_or(&[][..], |(_, k)| k);
        if self.json {
            let rows: Vec<_> = sites
                .iter()
                .map(|site| {
                    serde_json::json!({
                        "name": site.name,
                        "file": site.file,
                        "line": site.line,
                        "index": site.index,
                        "kind": site.kind,
                        "text": site.text,
                        "governed": governed(site),
                    })
                })
                .collect();
            print::json(&rows)?;
        } else {
            let rows = sites.iter().map(|site| {
                let place = format!("{}:L{}", site.file, site.line);
                let text = site.text.split_whitespace().collect::<Vec<_>>().join(" ");
                vec![site.name.clone().unwrap_or_else(|| "-".into()), site.kind.word().into(), place, text]
            });
            print::text(&print::table(&["NAME", "KIND", "PLACE", "TEXT"], rows))?;
            for (label, knobs) in &knobs {
                knobs.iter().try_for_each(|knob| print::text(&format!("{label} is governed already: {knob}")))?;
            }
        }
        Ok(0)
    }

    /// The source tree.
    fn root(&self) -> anyhow::Result<PathBuf> {
        self.source.clone().map_or_else(default_tree, Ok)
    }

    /// What governs each of the constants, of those that a name or place means; of a pattern's there may be hundreds.
    fn knobs(&self, query: &str, sites: &[Site]) -> anyhow::Result<Vec<(String, Vec<String>)>> {
        if query.contains(['*', '?']) {
            return Ok(Vec::new());
        }
        let root = self.root()?;
        let _spinner = print::Spinner::start("searching the source for knobs");
        let mut found: Vec<(String, Vec<String>)> = Vec::new();
        for site in sites {
            if found.iter().all(|(label, _)| *label != site.label()) {
                found.push((site.label(), governed::knobs(&root, site)?));
            }
        }
        Ok(found)
    }

    fn sites(&self, query: &str) -> anyhow::Result<Vec<Site>> {
        let root = self.root()?;
        let tree = Tree::open(&root)?;
        let _spinner = print::Spinner::start("searching the source");
        if query.contains(['*', '?']) {
            return Ok(find::matching(tree.root(), query)?);
        }
        if let Some(sites) = find::on_line(tree.root(), query)? {
            return Ok(sites);
        }
        Ok(site::find(tree.root(), &Query::parse(query)?)?)
    }
}
