//! KVM or TCG: what can boot a kernel on this host.
//!
//! That `/dev/kvm` opens says little: nested virtualisation often fails at the first unusual instruction. So a boot is
//! tried once, and the answer is kept until the host is started again.

use crate::cache::write_atomically;
use crate::error::LabError;
use crate::machine::Machine;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// QEMU's translator, with one thread per CPU.
    Tcg,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        })
    }
}

/// What was found out in an earlier probe.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    boot_id: String,
    accelerator: Accelerator,
}

/// How long a probe may take. A guest that works needs a second.
const PROBE: Duration = Duration::from_secs(20);

/// KVM when it can boot this machine's kernel on this host, else TCG.
pub(crate) fn choose(machine: &Machine) -> Result<Accelerator, LabError> {
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(Accelerator::Tcg);
    }
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let path = machine.cache.root().join("accel").join(file_name(&machine.kernel.release));
    if let Some(answer) = remembered(&path)
        && answer.boot_id == boot_id
    {
        return Ok(answer.accelerator);
    }
    let accelerator = probe(machine);
    let answer = serde_json::to_vec(&Answer { boot_id, accelerator })
        .map_err(|error| LabError::BadMachine { reason: error.to_string() })?;
    write_atomically(&path, &answer)?;
    Ok(accelerator)
}

/// Boots a small machine under KVM.
fn probe(machine: &Machine) -> Accelerator {
    let mut trial = Machine::new(&machine.cache, machine.kernel.clone(), &machine.init);
    trial.accelerator = Some(Accelerator::Kvm);
    trial.cpus = 1;
    trial.timeout = PROBE;
    trial.silence = PROBE / 2;
    match trial.run(&["true".into()]) {
        Ok(outcome) if outcome.exit_code == 0 => Accelerator::Kvm,
        Ok(outcome) => {
            tracing::info!(exit_code = outcome.exit_code, "a trial boot under kvm failed; using tcg");
            Accelerator::Tcg
        }
        Err(error) => {
            tracing::info!(%error, "a trial boot under kvm failed; using tcg");
            Accelerator::Tcg
        }
    }
}

fn remembered(path: &PathBuf) -> Option<Answer> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn file_name(release: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "+-._".contains(c) { c } else { '_' };
    format!("{}.json", release.chars().map(safe).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_answer_is_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        fs::write(&path, "{").unwrap();
        assert!(remembered(&path).is_none());
        fs::write(&path, r#"{"boot_id":"x","accelerator":"tcg"}"#).unwrap();
        assert_eq!(remembered(&path).map(|a| a.accelerator), Some(Accelerator::Tcg));
    }

    #[test]
    fn releases_make_plain_file_names() {
        assert_eq!(file_name("6.1+x-amd64"), "6.1+x-amd64.json");
        assert_eq!(file_name("../a b"), ".._a_b.json");
    }
}
