//! The demo's report: one HTML file, without scripts or anything from elsewhere.

use super::constant::Built;
use super::plot::{Limit, plot};
use super::trace::{Trace, Value};
use super::verdict::Row;
use crate::page::page;
use maud::{Markup, html};

/// What the report shows.
pub struct Report<'a> {
    /// The kernel's release.
    pub release: &'a str,
    /// KVM or TCG.
    pub accelerator: &'a str,
    /// The constant.
    pub built: &'a Built,
    /// The lines of the table.
    pub rows: &'a [Row],
    /// The run.
    pub trace: &'a Trace,
    /// What a person at the machine saw.
    pub transcript: &'a str,
    /// What did not follow.
    pub complaints: &'a [String],
}

impl Report<'_> {
    /// The file's text.
    pub fn html(&self) -> String {
        let name = &self.built.name;
        let title = format!("{name}, changed while the kernel runs");
        let body = html! {
            h1 { code { (name) } ", changed while the kernel runs" }
            (self.summary())
            h2 { "Batch size over time" }
            (plot(self.trace, &self.limits()))
            p.note {
                "Each dot is the middle one of the batches in its stretch of time, the bar behind it goes from the smallest "
                "to the largest. The broad line is the value in force; the grey stretches are those in which a command was changing it. A batch is what one " code { "block:block_unplug" }
                " event hands over."
            }
            (self.table())
            (self.places())
            h2 { "What was typed in the machine, and the answers" }
            pre { (self.transcript) }
            p.note { "Made by " code { "cargo xtask demo" } "." }
        };
        page(&title, &body)
    }

    fn summary(&self) -> Markup {
        html! {
            p {
                "Linux " (self.release) " as the distribution ships it, in a virtual machine (" (self.accelerator) "). "
                "The constant is " (self.built.value) " in the source, at " code { (self.built.place) } ". "
                "It was set and unset with " code { "kerf const" } " while I/O ran: no patch, no rebuild, no reboot."
            }
            @for complaint in self.complaints {
                p.wrong { "Not as it should be: " (complaint) "." }
            }
        }
    }

    fn limits(&self) -> Vec<Limit> {
        let limit = |row: &Row| match row.value {
            Value::Stock => Limit { requests: self.built.value, name: "stock".into(), placement: String::new() },
            Value::Set(number) => {
                Limit { requests: number, name: number.to_string(), placement: row.placement.clone() }
            }
        };
        self.rows.iter().map(limit).collect()
    }

    fn table(&self) -> Markup {
        html! {
            table {
                thead { tr {
                    th { "Value set" } th { "Placement" } th.number { "Median batch" } th.number { "Largest batch" }
                    th.number { "Batches" } th.number { "Requests" }
                } }
                tbody {
                    @for row in self.rows {
                        tr {
                            td { (row.value) } td { (row.placement) } td.number { (row.median) } td.number { (row.largest) }
                            td.number { (row.batches) } td.number { (row.requests) }
                        }
                    }
                }
            }
            @if self.trace.lost > 0 {
                p.note { "The kernel's trace had no room for " (self.trace.lost) " events; they are not counted." }
            }
        }
    }

    fn places(&self) -> Markup {
        html! {
            h2 { "Where the constant is in the machine code" }
            p {
                "Found and proved from the source in " (format!("{:.1}", self.built.seconds)) " s: " (self.built.reason) ". "
                "Values that may be set: " (self.built.domain) "."
            }
            table {
                thead { tr { th { "Function" } th { "What the code computes, V being the constant" } } }
                tbody {
                    @for span in &self.built.spans {
                        tr { td { code { (span.place) } } td { code { (span.expression) } } }
                    }
                }
            }
        }
    }
}
