//! What the HTML reports of this program have in common: one file each, without scripts or anything from elsewhere.

use maud::{DOCTYPE, Markup, PreEscaped, html};

const BASE: &str = include_str!("../../crates/kerf-trial/data/base.css");
const STYLE: &str = include_str!("../data/report.css");

/// A page with this title, as a file's text.
pub fn page(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(BASE)) (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    page.into_string()
}
