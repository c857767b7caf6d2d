//! Exit codes, one for each kind of failure that a script may want to tell apart.

use kerf_config::ConfigError;
use kerf_const::ConstError;
use kerf_expression::ExpressionError;
use kerf_lab::LabError;
use kerf_live::LiveError;
use kerf_live::policy::PolicyError;
use kerf_profile::ProfileError;
use kerf_trial::TrialError;

/// What the process tells its caller.
///
/// `kerf lab run` passes the guest command's own code on, so a command that uses codes from 64 up cannot be told from a
/// failure of the lab by the code alone; the lab's failures also print `kerf: failed to …`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// The operation failed, for a reason that has no code of its own.
    Failed = 1,
    /// The command line is wrong in a way that shows only later; else clap ends the program with this code.
    Usage = 2,
    /// The words name no constant: an unknown name, a wrong line, a value that is not there, a malformed value.
    NotFound = 10,
    /// The value is not certified, or has no place in the code.
    OutsideDomain = 11,
    /// The constant is of a class that cannot be set.
    NotSettable = 12,
    /// The scope table has no such entry for this kernel.
    NoEntry = 13,
    /// The scope table, an entry in it, or an export is damaged or none.
    Table = 14,
    /// The kernel source is another version's, not prepared, or does not compile.
    Source = 15,
    /// A kernel image cannot be read.
    Image = 16,
    /// A policy does not compile, is refused by the kernel's verifier, or reads what is not there.
    Policy = 17,
    /// `--mode immediate` where a thread could meet both values.
    NotIndependent = 18,
    /// An expression cannot be read or checked.
    Expression = 19,
    /// Root is needed.
    NotPermitted = 20,
    /// The kernel module is not loaded, or could not be built or loaded.
    NoModule = 21,
    /// The loaded kernel module is another version's.
    OtherModule = 22,
    /// The entry is of another kernel than the running one.
    OtherKernel = 23,
    /// Somebody else has a hand in the code: a probe, a livepatch, another entry.
    Owned = 24,
    /// A task did not leave the code in time.
    Busy = 25,
    /// The running text is not what it should be.
    Mismatch = 26,
    /// The kernel is locked down.
    LockedDown = 27,
    /// The kernel module refused the change, or the constant is not set.
    Refused = 28,
    /// What an operator has permitted for the constant forbids the change.
    Guarded = 29,
    /// `kerf status`: a value is not in force at every location.
    Partial = 30,
    /// `kerf doctor`: `kerf const set` is not possible here.
    Unfit = 31,
    /// `kerf verify`: the running kernel is not what the files say.
    Differs = 32,
    /// A drop-in cannot be read or understood.
    DropIn = 33,
    /// Others than root could have written a drop-in or the scope table.
    Untrusted = 34,
    /// `kerf const build --from` or `--all`: some of the list could not be built; the rest was. `kerf const port`: some must be built again.
    SomeFailed = 35,
    /// `kerf try`: the metric failed, or printed no number.
    Metric = 40,
    /// `kerf try`: a value did not stay in force during a run.
    Disturbed = 41,
    /// `kerf measure`: there is no plugin, or it gave no counts, or marks are not in pairs.
    Measure = 42,
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
    /// `kerf try`: a signal ended it, and everything was put back.
    Interrupted = 130,
}

impl ExitCode {
    /// The code for an error: the first cause that has one decides.
    pub fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(Self::of_cause).unwrap_or(ExitCode::Failed)
    }

    fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let lab = || cause.downcast_ref::<LabError>().map(Self::of_lab);
        let constant = || cause.downcast_ref::<ConstError>().map(Self::of_const);
        let live = || cause.downcast_ref::<LiveError>().map(Self::of_live);
        let policy = || cause.downcast_ref::<PolicyError>().map(|_| ExitCode::Policy);
        let config = || cause.downcast_ref::<ConfigError>().map(Self::of_config);
        let expression = || cause.downcast_ref::<ExpressionError>().map(|_| ExitCode::Expression);
        let trial = || cause.downcast_ref::<TrialError>().map(Self::of_trial);
        let profile = || cause.downcast_ref::<ProfileError>().map(|_| ExitCode::Measure);
        let ours = lab().or_else(constant).or_else(live).or_else(policy);
        ours.or_else(config).or_else(expression).or_else(trial).or_else(profile)
    }

    fn of_config(error: &ConfigError) -> Self {
        match error {
            ConfigError::Untrusted { .. } => ExitCode::Untrusted,
            _ => ExitCode::DropIn,
        }
    }

    fn of_trial(error: &TrialError) -> Self {
        match error {
            TrialError::BadPattern { .. } | TrialError::TooFewRounds { .. } => ExitCode::Usage,
            TrialError::NoNumber { .. } | TrialError::Metric { .. } => ExitCode::Metric,
            TrialError::Disturbed { .. } => ExitCode::Disturbed,
            TrialError::Interrupted { .. } => ExitCode::Interrupted,
            _ => ExitCode::Failed,
        }
    }

    fn of_const(error: &ConstError) -> Self {
        match error {
            ConstError::BadQuery { .. }
            | ConstError::UnknownName { .. }
            | ConstError::NoSuchFile { .. }
            | ConstError::NotCompiled { .. }
            | ConstError::NoSuchLine { .. }
            | ConstError::NoSuchUse { .. }
            | ConstError::NoSuchValue { .. } => ExitCode::NotFound,
            ConstError::OutsideDomain { .. } => ExitCode::OutsideDomain,
            ConstError::NoArgument { .. } | ConstError::NoOnce { .. } => ExitCode::Policy,
            ConstError::NotIndependent { .. } => ExitCode::NotIndependent,
            ConstError::NotSettable { .. } => ExitCode::NotSettable,
            ConstError::NoEntry { .. } => ExitCode::NoEntry,
            ConstError::Table { .. } | ConstError::Damaged { .. } => ExitCode::Table,
            ConstError::Compile { .. }
            | ConstError::NoCommand { .. }
            | ConstError::BadTree { .. }
            | ConstError::ForeignSource { .. } => ExitCode::Source,
            ConstError::Image(_) => ExitCode::Image,
            _ => ExitCode::Failed,
        }
    }

    fn of_live(error: &LiveError) -> Self {
        match error {
            LiveError::NoModule | LiveError::Build { .. } | LiveError::Load { .. } => ExitCode::NoModule,
            LiveError::NotPermitted => ExitCode::NotPermitted,
            LiveError::LockedDown => ExitCode::LockedDown,
            LiveError::OtherBuild { .. } | LiveError::Status(_) => ExitCode::OtherModule,
            LiveError::OtherKernel(_) => ExitCode::OtherKernel,
            LiveError::Owned(_) => ExitCode::Owned,
            LiveError::Busy(_) => ExitCode::Busy,
            LiveError::Guarded(_) => ExitCode::Guarded,
            LiveError::Mismatch(_) => ExitCode::Mismatch,
            LiveError::NotFound(_) | LiveError::Refused(_) => ExitCode::Refused,
            _ => ExitCode::Failed,
        }
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

/// The command that mends what an error complains about, if there is one.
pub fn remedy(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| match cause.downcast_ref::<LiveError>()? {
        LiveError::NoModule => Some("kerf module load"),
        LiveError::OtherBuild { .. } | LiveError::Status(_) => {
            Some("kerf const unset --all; kerf module unload; kerf module load")
        }
        LiveError::Busy(_) => Some("the same again, with a longer --timeout"),
        _ => None,
    })
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
