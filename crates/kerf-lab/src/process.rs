//! Runs the tools of the host and turns their failures into errors that quote them.

use crate::error::LabError;
use std::process::{Command, Output, Stdio};

/// How many lines of a failed tool's output an error quotes.
const QUOTED_LINES: usize = 30;

/// Runs `command` to its end; its output is kept, and quoted in the error when it fails.
pub(crate) fn run(command: &mut Command) -> Result<Output, LabError> {
    tracing::debug!(command = line(command), "run");
    let output =
        command.stdin(Stdio::null()).env("LC_ALL", "C").output().map_err(|source| start_error(command, source))?;
    if output.status.success() { Ok(output) } else { Err(tool_error(command, &output)) }
}

/// Runs `command` and returns what it wrote to standard output.
pub(crate) fn stdout(command: &mut Command) -> Result<String, LabError> {
    Ok(String::from_utf8_lossy(&run(command)?.stdout).into_owned())
}

/// The error for a program that could not be started.
pub(crate) fn start_error(command: &Command, source: std::io::Error) -> LabError {
    let program = command.get_program().to_string_lossy().into_owned();
    let remedy = crate::host::package_of(&program).map(crate::host::install_command);
    LabError::Start { program, remedy, source }
}

/// The error for a program that ran and failed.
pub(crate) fn tool_error(command: &Command, output: &Output) -> LabError {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    LabError::Tool { command: line(command), status: output.status.to_string(), output: last_lines(&text) }
}

/// The command as a person would type it, without quoting.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let skip = lines.len().saturating_sub(QUOTED_LINES);
    lines[skip..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_tool_is_quoted() {
        let error = run(Command::new("sh").args(["-c", "echo on out; echo on err >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("on out") && text.contains("on err") && text.contains("exit status: 3"), "{text}");
    }

    #[test]
    fn a_missing_tool_names_its_package() {
        let error = start_error(&Command::new("qemu-system-x86_64"), std::io::ErrorKind::NotFound.into());
        assert!(error.to_string().contains("qemu-system-x86"), "{error}");
    }

    #[test]
    fn only_the_end_is_quoted() {
        let text: String = (0..100).map(|i| format!("{i}\n")).collect();
        assert_eq!(last_lines(&text).lines().next(), Some("70"));
    }
}
