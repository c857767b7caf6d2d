//! What the tests of this crate run inside a virtual machine: it is the machine's first process, and the command in it.
//!
//! `guest SCENARIO [COUNT]` plays one scenario against the loaded kerf.ko and exits with 1 at the first thing that is wrong.

mod blocks;
mod coming;
mod endurance;
mod kcore;
mod known;
mod owners;
mod refusals;
mod tools;

use std::error::Error;
use std::process::ExitCode;

/// A scenario's outcome.
pub type Outcome = Result<(), Box<dyn Error>>;

fn play(scenario: &str, count: u32) -> Outcome {
    match scenario {
        "blocks" => blocks::plug_limit(),
        "functions" => known::functions(),
        "parked" => known::parked(),
        "refusals" => refusals::all(),
        "kprobes" => owners::kprobes(),
        "tracers" => owners::tracers(),
        "livepatch" => owners::livepatch(),
        "modules" => coming::modules(),
        "hotplug" => coming::hotplug(count),
        "killed" => coming::killed(),
        "kill-writer" => coming::writer(),
        "mixing" => endurance::mixing(count),
        "cycles" => endurance::cycles(count),
        other => Err(format!("no scenario `{other}`").into()),
    }
}

fn main() -> ExitCode {
    if kerf_lab::guest::is_guest_init() {
        return match kerf_lab::guest::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let arguments: Vec<String> = std::env::args().collect();
    let scenario = arguments.get(1).map_or("", String::as_str);
    let count = arguments.get(2).and_then(|text| text.parse().ok()).unwrap_or(1);
    match play(scenario, count) {
        Ok(()) => {
            println!("{scenario}: ok");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{scenario}: {error}");
            ExitCode::FAILURE
        }
    }
}
