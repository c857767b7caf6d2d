//! The scenarios: what runs inside a virtual machine. `guest SCENARIO [COUNT]` plays one against the loaded kerf.ko.

mod blocks;
mod cases;
mod coming;
mod endurance;
mod executions;
mod guards;
mod kcore;
mod known;
mod owners;
mod random;
mod refusals;
mod tools;
mod transitions;

use std::error::Error;
use std::process::ExitCode;

/// A scenario's outcome; the first thing that is wrong ends it.
type Outcome = Result<(), Box<dyn Error>>;

fn play(scenario: &str, count: u32) -> Outcome {
    match scenario {
        "blocks" => blocks::plug_limit(),
        "functions" => known::functions(),
        "forms" => known::forms(),
        "operations" => known::operations(),
        "parked" => known::parked(),
        "guards" => guards::all(),
        "refusals" => refusals::all(),
        "not-permitted" => refusals::not_permitted(),
        "nobody" => refusals::nobody(),
        "kprobes" => owners::kprobes(),
        "tracers" => owners::tracers(),
        "livepatch" => owners::livepatch(),
        "modules" => coming::modules(),
        "hotplug" => coming::hotplug(count),
        "hibernation" => coming::hibernation(),
        "kexec" => coming::kexec(),
        "killed" => coming::killed(),
        "kill-writer" => coming::writer(),
        "cases" => cases::all(),
        "executing" => cases::executing(),
        "switching" => cases::switching(),
        "executions" => executions::calls(),
        "late" => executions::late(),
        "crowd" => executions::crowd(),
        "inside" => transitions::parked(),
        "transitions" => transitions::many(count),
        "mixing" => endurance::mixing(count),
        "cycles" => endurance::cycles(count),
        "random" => random::operations(count, 0x6b65_7266),
        other if other.starts_with("random-writer-") => random::write_one(&other["random-writer-".len()..]),
        other => Err(format!("no scenario `{other}`").into()),
    }
}

/// The machine's first process.
pub fn init() -> ExitCode {
    match kerf_lab::guest::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// One scenario, named by the arguments.
pub fn scenario(arguments: &[String]) -> ExitCode {
    let scenario = arguments.first().map_or("", String::as_str);
    let count = arguments.get(1).and_then(|text| text.parse().ok()).unwrap_or(1);
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
