//! What the HTML reports of this program have in common: one file each, without scripts or anything from elsewhere.

use maud::Markup;

const STYLE: &str = include_str!("../data/report.css");

/// A page with this title, as a file's text.
pub fn page(title: &str, body: &Markup) -> String {
    kerf_trial::document(title, STYLE, body)
}
