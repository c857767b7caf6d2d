//! Exit codes, one for each kind of failure that a script may want to tell apart.

use kerf_lab::LabError;

/// What the process tells its caller.
///
/// `kerf lab run` passes the guest command's own code on, so a command that uses codes from 64 up cannot be told from a
/// failure of the lab by the code alone; the lab's failures also print `kerf: failed to …`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// The operation failed, for a reason that has no code of its own.
    Failed = 1,
    /// The lab could not be set up: a file, a tool or the machine's description is at fault.
    LabSetup = 64,
    /// Packages are missing on this host; the message has the command that installs them.
    HostPackages = 65,
    /// No such kernel, or the package archive has none that fits.
    NoKernel = 66,
    /// QEMU itself failed.
    Qemu = 67,
    /// The guest could not be set up, for example because a module did not load.
    GuestSetup = 68,
    /// The guest's kernel reported a panic, an oops, a lockup, a stall or the like.
    KernelFault = 70,
    /// The guest's kernel reported a warning.
    KernelWarning = 71,
    /// The guest was silent before it was up.
    SilentBoot = 72,
    /// The guest did not finish in time.
    Timeout = 73,
    /// The guest went away without a result.
    NoResult = 74,
}

impl ExitCode {
    /// The code for an error: the first cause that has one decides.
    pub fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(|cause| cause.downcast_ref::<LabError>()).map_or(ExitCode::Failed, Self::of_lab)
    }

    fn of_lab(error: &LabError) -> Self {
        match error {
            LabError::HostPackages { .. } | LabError::Start { .. } => ExitCode::HostPackages,
            LabError::NoSuchKernel { .. } | LabError::Archive { .. } => ExitCode::NoKernel,
            LabError::Qemu { .. } => ExitCode::Qemu,
            LabError::GuestSetup { .. } => ExitCode::GuestSetup,
            LabError::KernelFault { fault, .. } if fault.kind.is_warning() => ExitCode::KernelWarning,
            LabError::KernelFault { .. } => ExitCode::KernelFault,
            LabError::SilentBoot { .. } => ExitCode::SilentBoot,
            LabError::Timeout { .. } => ExitCode::Timeout,
            LabError::NoResult { .. } => ExitCode::NoResult,
            _ => ExitCode::LabSetup,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        (code as u8).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_decides() {
        let error = anyhow::Error::new(LabError::NoResult { tail: String::new() }).context("run `true`");
        assert_eq!(ExitCode::of(&error), ExitCode::NoResult);
        assert_eq!(ExitCode::of(&anyhow::anyhow!("something else")), ExitCode::Failed);
    }

    #[test]
    fn warnings_are_told_from_faults() {
        for (line, code) in [
            ("WARNING: CPU: 0 PID: 1 at a.c:1", ExitCode::KernelWarning),
            ("Kernel panic - not syncing: x", ExitCode::KernelFault),
        ] {
            let fault = kerf_lab::console::classify(line).unwrap();
            let error = anyhow::Error::new(LabError::KernelFault { fault, tail: String::new() });
            assert_eq!(ExitCode::of(&error), code);
        }
    }
}
