//! The `kerf` command: words in, tables or JSON out.

mod commands;
mod exit;
mod journal;
mod print;
mod running;
mod running_text;

use clap::Parser;
use std::process;

fn main() -> process::ExitCode {
    // In a guest of the lab this program is the first process, and the kernel chooses its arguments.
    if kerf_lab::guest::is_guest_init() {
        return finish(commands::init::run());
    }
    let cli = commands::Cli::parse();
    start_log();
    finish(cli.run())
}

/// `KERF_LOG` takes the directives of `tracing-subscriber`: `debug`, `kerf_lab=trace`, …
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_env_var("KERF_LOG")
        .with_default_directive(tracing::level_filters::LevelFilter::WARN.into())
        .from_env_lossy();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// Prints an error with all its causes on one line, and picks the exit code that it stands for.
fn finish(result: anyhow::Result<u8>) -> process::ExitCode {
    match result {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("kerf: failed to {error:#}");
            if let Some(command) = exit::remedy(&error) {
                eprintln!("kerf: try: {command}");
            }
            exit::ExitCode::of(&error).into()
        }
    }
}
