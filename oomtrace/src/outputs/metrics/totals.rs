//! Counters of the whole host. Every series exists from the start, at 0.

use std::fmt::Write as _;

use crate::{
    containers::Runtime,
    event::{
        Event as Line, Gap, HostMemory, Incident, Kill, Killer, LossReason, Lost, MemcgOom, MemcgOomOutcome,
        OomKill, Scope, Shape, Signal, SignalKill, Stuck, Verdict,
    },
    outputs::metrics::{
        kept::{Packer, Store, Unpacker},
        page,
        workloads::Event,
    },
};

/// What ran out. The last one means that it is not known.
const SCOPES: [&str; 5] = ["memcg", "host", "cpuset", "mempolicy", "unknown"];
/// Why no process was killed. The last one means that it is not known.
const OUTCOMES: [&str; 4] = ["no_killable_process", "relieved", "kill_disabled", "unknown"];
/// Whether the victim was of those that used most. The last one means that it is not known.
const VICTIMS: [&str; 3] = ["largest", "other", "unknown"];
/// How long after the kill victims were still there, at least.
const LATE: [(&str, u64); 2] = [("5s", 5_000_000_000), ("60s", 60_000_000_000)];
/// Who sends signals. The last one is where that is not known.
const KILLERS: [&str; Killer::ALL.len() + 1] = [
    "systemd-oomd",
    "oomd",
    "earlyoom",
    "nohang",
    "runtime",
    "kubelet",
    "systemd",
    "inside",
    "other",
    "unknown",
];
/// Runtimes that may have containers.
const RUNTIMES: [Runtime; Runtime::ALL.len()] = Runtime::ALL;
/// The number of reasons for a loss.
const REASONS: usize = LossReason::ALL.len();
/// The version of the stored value.
const KEPT: u64 = 0x6f6f_6d74_0004_0000 + ((RUNTIMES.len() << 8) + REASONS) as u64;
/// Its place in the store.
const PLACE: usize = 0;

/// Counts by runtime.
type ByRuntime = [u64; RUNTIMES.len()];

/// Counts of the host.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// The last event with a number that was counted.
    last: Event,
    kills: [u64; SCOPES.len()],
    /// The time of the last kill, nanoseconds since 1970; 0 if there was none.
    last_kill: [u64; SCOPES.len()],
    ooms: [u64; OUTCOMES.len()],
    signals: [u64; KILLERS.len()],
    unreported: u64,
    lost: [u64; REASONS],
    /// `total` of the last line with this reason, from the programs in `lost_of`.
    lost_last: [u64; REASONS],
    lost_of: u128,
    missed: ByRuntime,
    false_positives: ByRuntime,
    /// Runtimes that this host has.
    present: [bool; RUNTIMES.len()],
    /// Incidents by how they came; the last one where that is not known.
    incidents: [u64; Shape::ALL.len() + 1],
    host_ooms: [u64; VICTIMS.len()],
    stuck: [u64; LATE.len()],
    changed: bool,
}

impl Totals {
    /// Counts a line. Returns false for a line that is not a new kill: a process that was already exiting, or
    /// a kill from before the start, which each run with `--since` reports again.
    pub(super) fn saw(&mut self, line: &Line, event: Event) -> bool {
        let again = self.last.covers(event);
        if event.seq != 0 && !again {
            self.last = event;
        }
        self.changed = true;
        match line {
            Line::OomKill(kill) => return self.saw_kill(kill, event, again),
            Line::MemcgOom(oom) if !again => self.saw_oom(oom),
            Line::SignalKill(kill) => self.saw_signal(kill),
            Line::Incident(incident) => self.saw_incident(incident),
            Line::HostMemory(host) => self.saw_host_memory(host),
            Line::Stuck(stuck) => self.saw_stuck(stuck),
            Line::Lost(lost) => self.saw_lost(lost, event.stream),
            Line::Gap(gap) => self.saw_gap(gap),
            Line::Verdict(verdict) => self.saw_verdict(verdict),
            Line::Start(start) => {
                let found = |runtime: Runtime| {
                    start.runtimes.iter().any(|found| found.split('=').next() == Some(runtime.name()))
                };
                self.present = RUNTIMES.map(found);
            }
            _ => {}
        }
        false
    }

    fn saw_kill(&mut self, kill: &OomKill, event: Event, again: bool) -> bool {
        if kill.oom.kill == Some(Kill::AlreadyExiting) || event.seq == 0 {
            return false;
        }
        let scope = match kill.oom.scope {
            Some(Scope::Memcg) => 0,
            Some(Scope::Host) => 1,
            Some(Scope::Cpuset) => 2,
            Some(Scope::Mempolicy) => 3,
            None => 4,
        };
        if !again {
            add(&mut self.kills, scope, 1);
            let time = kill.envelope.time.parse::<jiff::Timestamp>().ok();
            let nanoseconds = time.and_then(|time| u64::try_from(time.as_nanosecond()).ok());
            if let (Some(last), Some(time)) = (self.last_kill.get_mut(scope), nanoseconds) {
                *last = time;
            }
        }
        true
    }

    fn saw_oom(&mut self, oom: &MemcgOom) {
        let outcome = match oom.outcome {
            Some(MemcgOomOutcome::NoKillableProcess) => 0,
            Some(MemcgOomOutcome::Relieved) => 1,
            Some(MemcgOomOutcome::KillDisabled) => 2,
            None => 3,
        };
        add(&mut self.ooms, outcome, 1);
    }

    fn saw_signal(&mut self, kill: &SignalKill) {
        if kill.signal == Signal::Kill {
            let known = kill.killer.and_then(|killer| Killer::ALL.iter().position(|known| *known == killer));
            add(&mut self.signals, known.unwrap_or(KILLERS.len() - 1), kill.processes.unwrap_or(1));
        }
    }

    fn saw_incident(&mut self, incident: &Incident) {
        let shape = incident.before.as_ref().and_then(|before| before.shape);
        let known = shape.and_then(|shape| Shape::ALL.iter().position(|known| *known == shape));
        add(&mut self.incidents, known.unwrap_or(Shape::ALL.len()), 1);
    }

    fn saw_host_memory(&mut self, host: &HostMemory) {
        let victim = match host.killed_largest {
            Some(true) => 0,
            Some(false) => 1,
            None => 2,
        };
        add(&mut self.host_ooms, victim, 1);
    }

    fn saw_stuck(&mut self, stuck: &Stuck) {
        let late = LATE.iter().rposition(|(_, ns)| stuck.after_ns >= *ns);
        add(&mut self.stuck, late.unwrap_or(0), stuck.still_there);
    }

    /// A line that was written twice because of a crash has the same total.
    fn saw_lost(&mut self, lost: &Lost, stream: u128) {
        if self.lost_of != stream {
            self.lost_of = stream;
            self.lost_last = [0; REASONS];
        }
        let Some(at) = LossReason::ALL.iter().position(|reason| *reason == lost.reason) else { return };
        let Some(last) = self.lost_last.get_mut(at) else { return };
        let goes_on = lost.reason.goes_on();
        let more = if goes_on { lost.count.min(lost.total.saturating_sub(*last)) } else { lost.count };
        *last = lost.total;
        add(&mut self.lost, at, more);
    }

    fn saw_gap(&mut self, gap: &Gap) {
        self.unreported = self.unreported.saturating_add(gap.kernel_kills.saturating_sub(gap.reported));
    }

    fn saw_verdict(&mut self, verdict: &Verdict) {
        let name = verdict.container.runtime.name.as_str();
        let Some(at) = RUNTIMES.iter().position(|runtime| runtime.name() == name) else { return };
        add(&mut self.missed, at, u64::from(verdict.missed == Some(true)));
        let flagged = u64::try_from(verdict.false_positive.len()).unwrap_or(u64::MAX);
        add(&mut self.false_positives, at, flagged);
        if let Some(present) = self.present.get_mut(at) {
            *present = true;
        }
    }

    /// Writes the kills by what ran out.
    pub(super) fn write_kills(&self, out: &mut String) {
        page::counter(
            out,
            "oomtrace_kills_total",
            "Processes that the kernel's OOM killer killed, by what ran out.",
            SCOPES.iter().zip(self.kills).map(|(scope, count)| (format!("{{scope=\"{scope}\"}}"), count)),
        );
    }

    fn write_signals(&self, out: &mut String) {
        page::counter(
            out,
            "oomtrace_signal_kills_total",
            "Processes that were sent a SIGKILL that is not the OOM killer's, by who sent it.",
            KILLERS
                .iter()
                .zip(self.signals)
                .map(|(killer, count)| (format!("{{killer=\"{killer}\"}}"), count)),
        );
    }

    fn write_incidents(&self, out: &mut String) {
        let shapes = Shape::ALL.map(Shape::word).into_iter().chain(["unknown"]);
        page::counter(
            out,
            "oomtrace_incidents_total",
            "Runs of the OOM killer, by how they came about.",
            shapes.zip(self.incidents).map(|(shape, count)| (format!("{{shape=\"{shape}\"}}"), count)),
        );
    }

    fn write_host(&self, out: &mut String) {
        page::counter(
            out,
            "oomtrace_host_ooms_total",
            "Runs of the OOM killer for which no cgroup's limit fired, by whether the first victim used most.",
            VICTIMS
                .iter()
                .zip(self.host_ooms)
                .map(|(victim, count)| (format!("{{victim=\"{victim}\"}}"), count)),
        );
        page::counter(
            out,
            "oomtrace_stuck_victims_total",
            "Processes that were killed and still there, by how long after the kill at least.",
            LATE.iter().zip(self.stuck).map(|((after, _), count)| (format!("{{after=\"{after}\"}}"), count)),
        );
    }

    /// Writes all other metrics.
    pub(super) fn write(&self, out: &mut String) {
        page::head(
            out,
            "oomtrace_last_kill_timestamp_seconds",
            "When the kernel's OOM killer last killed a process, by what ran out.",
            "gauge",
        );
        for (scope, time) in SCOPES.iter().zip(self.last_kill).filter(|(_, time)| *time > 0) {
            let (seconds, nanoseconds) = (time / 1_000_000_000, time % 1_000_000_000);
            // Writing to a String cannot fail.
            let _infallible = writeln!(
                out,
                "oomtrace_last_kill_timestamp_seconds{{scope=\"{scope}\"}} {seconds}.{nanoseconds:09}"
            );
        }
        page::counter(
            out,
            "oomtrace_memcg_ooms_total",
            "Memory cgroups that ran out of memory without a kill, by how that ended.",
            OUTCOMES
                .iter()
                .zip(self.ooms)
                .map(|(outcome, count)| (format!("{{outcome=\"{outcome}\"}}"), count)),
        );
        self.write_signals(out);
        self.write_incidents(out);
        self.write_host(out);
        page::counter(
            out,
            "oomtrace_lost_events_total",
            "What could not be reported, by reason.",
            LossReason::ALL
                .iter()
                .zip(self.lost)
                .map(|(reason, count)| (format!("{{reason=\"{}\"}}", reason.word()), count)),
        );
        page::counter(
            out,
            "oomtrace_unreported_kills_total",
            "Kills that the kernel counted and no program saw.",
            [(String::new(), self.unreported)],
        );
        let by_runtime = |counts: ByRuntime| {
            let present = RUNTIMES.iter().zip(self.present).zip(counts).filter(|((_, present), _)| *present);
            present
                .map(|((runtime, _), count)| (format!("{{runtime=\"{}\"}}", runtime.name()), count))
                .collect::<Vec<_>>()
        };
        page::counter(
            out,
            "oomtrace_runtime_missed_kills_total",
            "Kills in containers that the container's runtime does not show.",
            by_runtime(self.missed),
        );
        page::counter(
            out,
            "oomtrace_runtime_false_positives_total",
            "Containers that their runtime shows as OOM-killed without a kill of their own.",
            by_runtime(self.false_positives),
        );
    }

    /// Continues the counters of an earlier run.
    pub(super) fn resume(&mut self, store: &dyn Store) {
        if let Some(kept) = store.get(PLACE).and_then(|value| Self::unpacked(&mut Unpacker::of(&value))) {
            *self = kept;
        }
    }

    /// Keeps what has changed.
    pub(super) fn keep(&mut self, store: &mut dyn Store) -> Result<(), String> {
        if self.changed {
            let lost_of = Event { stream: self.lost_of, seq: 0 }.numbers();
            let mut packer = Packer::new();
            packer.numbers(&[KEPT]).numbers(&self.last.numbers()).numbers(&lost_of);
            packer.numbers(&self.kills).numbers(&self.last_kill).numbers(&self.ooms).numbers(&self.signals);
            packer.numbers(&[self.unreported]).numbers(&self.missed).numbers(&self.false_positives);
            packer.numbers(&self.lost).numbers(&self.lost_last).numbers(&self.incidents);
            packer.numbers(&self.host_ooms).numbers(&self.stuck);
            store.put(PLACE, &packer.done())?;
            self.changed = false;
        }
        Ok(())
    }

    fn unpacked(from: &mut Unpacker<'_>) -> Option<Self> {
        if from.number()? != KEPT {
            return None;
        }
        Some(Self {
            last: Event::of_numbers(from.numbers()?),
            lost_of: Event::of_numbers(from.numbers()?).stream,
            kills: from.numbers()?,
            last_kill: from.numbers()?,
            ooms: from.numbers()?,
            signals: from.numbers()?,
            unreported: from.number()?,
            missed: from.numbers()?,
            false_positives: from.numbers()?,
            lost: from.numbers()?,
            lost_last: from.numbers()?,
            incidents: from.numbers()?,
            host_ooms: from.numbers()?,
            stuck: from.numbers()?,
            present: [false; RUNTIMES.len()],
            changed: true,
        })
    }
}

fn add(counts: &mut [u64], at: usize, more: u64) {
    if let Some(count) = counts.get_mut(at) {
        *count = count.saturating_add(more);
    }
}
