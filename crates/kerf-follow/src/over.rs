//! Calls that take nothing of the value: run to their return instead of being stepped.

use std::time::Duration;

use iced_x86::{FlowControl, Instruction};
use kerf_lab::LabError;
use kerf_lab::gdb::{Registers, Stop};

use super::{End, Follower};

/// More runs of bytes than this are not watched.
const MOST_WATCHED: usize = 16;

/// How long a call may take: it may sleep.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a call that was run ended.
pub(super) enum Over {
    /// At its return, with these registers.
    Returned(Registers),
    /// Otherwise.
    Ended(End),
}

impl Follower<'_> {
    /// Whether an instruction is a call that takes nothing of the value unless it reads watched memory.
    pub(super) fn may_run_over(&self, insn: &Instruction) -> bool {
        matches!(insn.flow_control(), FlowControl::Call | FlowControl::IndirectCall)
            && self.taint.survives_calls()
            && self.taint.memory().len() <= MOST_WATCHED
            && !self.stepped.contains(&insn.ip())
    }

    /// Runs a call to its return on the same stack.
    pub(super) fn run_over(&mut self, insn: &Instruction, before: &Registers) -> Result<Over, LabError> {
        if !self.question.allows(insn.ip(), self.frames.addresses()) {
            self.origins.leave();
        }
        self.taint.forget_flags();
        let watched = self.taint.memory();
        for (address, length) in &watched {
            self.debugger.set_watch(*address, *length)?;
        }
        self.debugger.set_breakpoint(insn.next_ip())?;
        let over = self.until_return(insn, before)?;
        if !matches!(over, Over::Ended(End::Machine)) {
            self.debugger.clear_breakpoint(insn.next_ip())?;
            for (address, length) in &watched {
                self.debugger.clear_watch(*address, *length)?;
            }
        }
        Ok(over)
    }

    fn until_return(&mut self, insn: &Instruction, before: &Registers) -> Result<Over, LabError> {
        loop {
            self.debugger.resume()?;
            let mut stop = self.debugger.wait(PATIENCE)?;
            if stop.is_none() {
                stop = match self.debugger.interrupt()? {
                    Stop::Halted => None,
                    other => Some(other),
                };
            }
            match stop {
                None => return Ok(Over::Ended(End::Switched)),
                Some(Stop::Ended) => return Ok(Over::Ended(End::Machine)),
                Some(Stop::Watched) => {
                    self.stepped.insert(insn.ip());
                    return Ok(Over::Ended(End::Read));
                }
                Some(Stop::Halted) => {}
            }
            let now = self.debugger.registers()?;
            if now.rip == insn.next_ip() && now.rsp() == before.rsp() {
                return Ok(Over::Returned(now));
            }
            // Another execution, at the same place or at a source.
            if self.debugger.step()? == Stop::Ended {
                return Ok(Over::Ended(End::Machine));
            }
        }
    }
}
