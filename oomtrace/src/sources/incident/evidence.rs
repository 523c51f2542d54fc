//! What was found out about a run, and for each fact that is absent, why.

use super::{
    Log,
    first_process::FirstProcess,
    memory::{RanOut, is_up_to_date},
    victims::{End, Victim},
};
use crate::{
    event::{CgroupMemory, HostTotals, ProcessTable, Reaper, Reason, Why, text_from_kernel},
    facts::{
        BootTime,
        kernel_log::{RunReport, run_report::Zones},
    },
    host::clock,
};

/// A report is written before its victim is marked. A slow console delays the mark.
const REPORT_NS: u64 = 10_000_000_000;
/// How far the log's clock may be ahead: in virtual machines it can count from before the boot.
const AHEAD_NS: u64 = 5_000_000_000;

/// What was found out.
#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) memory: Result<CgroupMemory, Why>,
    pub(super) processes: Result<ProcessTable, Why>,
    pub(super) after_ns: Result<u64, Why>,
    pub(super) reaper: Result<Reaper, Why>,
    pub(super) usage_bytes: Result<u64, Why>,
    /// What the report says of the host, and of the zones that the allocation could use.
    pub(super) host: Result<HostTotals, Why>,
    pub(super) zones: Option<Zones>,
    /// All the swap that the host has.
    pub(super) host_swap_bytes: u64,
    /// The first process of the container, which lives on though all victims are gone.
    pub(super) lives: Option<FirstProcess>,
}

/// What is known when a run is complete.
pub(super) struct Complete<'a> {
    pub(super) cgroup: Option<&'a RanOut>,
    pub(super) victims: &'a [Victim],
    /// From the cgroup's files.
    pub(super) memory: Result<CgroupMemory, Why>,
    pub(super) usage_bytes: Result<u64, Why>,
    /// How often the log had lost records when the run began.
    pub(super) lost_before: u64,
    pub(super) lives: Option<FirstProcess>,
}

impl Complete<'_> {
    /// The evidence, with what the log has.
    pub(super) fn evidence(self, log: &mut Log) -> Evidence {
        let report = log.as_mut().ok().and_then(|log| log.reports.take(|report| self.is_of(report)));
        let nothing = nothing(log, self.lost_before);
        let absent = || Reason::NotInKernelLog.into();
        let zones = report.as_ref().and_then(|report| report.zones);
        let (memory, processes, host) = match report {
            Some(report) => {
                (report.memory, report.processes.ok_or_else(absent), report.host.ok_or_else(absent))
            }
            None => (None, Err(nothing.clone()), Err(nothing.clone())),
        };
        Evidence {
            memory: self.memory(memory),
            processes,
            host,
            zones,
            after_ns: self.after_ns(),
            reaper: reaper(self.victims, log, self.lost_before),
            usage_bytes: self.usage_bytes.clone(),
            host_swap_bytes: host_swap_bytes(),
            lives: self.lives,
        }
    }

    /// What the report says of the memory, else the cgroup's files.
    fn memory(&self, reported: Option<CgroupMemory>) -> Result<CgroupMemory, Why> {
        let usage = self.cgroup.and_then(|cgroup| cgroup.usage_bytes);
        match reported {
            None => self.memory.clone(),
            Some(memory) if usage.is_none_or(|usage| is_up_to_date(&memory, usage)) => Ok(memory),
            Some(_) => self.memory.clone().map_err(|_| Reason::CountersBehind.into()),
        }
    }

    /// Whether a report is of this run. Another run can have the same cgroup, and at another time the same pid.
    fn is_of(&self, report: &RunReport) -> bool {
        let marks = self.victims.iter().map(|victim| victim.marked_ns);
        let Some((first, last)) = marks.clone().min().zip(marks.max()) else { return false };
        let (first, last) = (clock::log_time(BootTime(first)), clock::log_time(BootTime(last)));
        let time = report.time_us.saturating_mul(1000);
        let same_cgroup = match (self.cgroup, &report.memcg) {
            // A path that is known only from the line has no bytes that are not UTF-8.
            (Some(cgroup), Some(path)) => text_from_kernel(&cgroup.path) == text_from_kernel(path),
            (Some(_), None) => false,
            (None, _) => true,
        };
        same_cgroup
            && (first.saturating_sub(REPORT_NS)..=last.saturating_add(AHEAD_NS)).contains(&time)
            && self.victims.iter().any(|victim| victim.is(report.pid))
    }

    /// From the first mark until the last victim was gone.
    fn after_ns(&self) -> Result<u64, Why> {
        let mut last = 0;
        for victim in self.victims {
            last = match &victim.end {
                End::Gone(at) => last.max(*at),
                End::Waits(_) => return Err(Reason::StillThere.into()),
                End::Unknown(why) => return Err(why.clone()),
            };
        }
        let first = self.victims.iter().map(|victim| victim.marked_ns).min().unwrap_or(last);
        Ok(last.saturating_sub(first))
    }
}

/// Why the log has no report of a run, before which it had lost records this often.
pub(super) fn nothing(log: &Log, lost_before: u64) -> Why {
    match log {
        Err(error) => Why::with(Reason::KernelLogUnreadable, error.clone()),
        Ok(log) if log.reports.lost() != lost_before => {
            Why::with(Reason::NotInKernelLog, "records were overwritten before they were read")
        }
        Ok(_) => Reason::LogRateLimited.into(),
    }
}

/// The reaper writes of each victim that it had to look at, whatever the rate is.
pub(super) fn reaper(victims: &[Victim], log: &Log, lost_before: u64) -> Result<Reaper, Why> {
    let Ok(of_log) = log else { return Err(nothing(log, lost_before)) };
    let first = victims.iter().map(|victim| victim.marked_ns).min().unwrap_or(0);
    let since = clock::log_time(BootTime(first)).saturating_sub(AHEAD_NS);
    let mut found = None;
    for line in of_log.reports.reaped().filter(|line| line.time_us.saturating_mul(1000) >= since) {
        if victims.iter().any(|victim| victim.is(line.tid)) {
            let now = if line.reaped { Reaper::Reaped } else { Reaper::Failed };
            found = if found == Some(Reaper::Failed) { found } else { Some(now) };
        }
    }
    match found {
        Some(found) => Ok(found),
        None if of_log.reports.lost() != lost_before => Err(nothing(log, lost_before)),
        None => Ok(Reaper::NotNeeded),
    }
}

fn host_swap_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalswap.saturating_mul(u64::from(info.mem_unit))
}
