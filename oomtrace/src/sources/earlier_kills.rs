//! Kills from before the programs were attached. Reads the kernel log since boot and returns one
//! [`LoggedKill`] for each process that was killed, the oldest first.
//!
//! Every `Killed process` line is a kill. The report around it adds facts, unless the kernel's rate limit
//! suppressed it. The first live event, not a clock, decides where the live events begin: all kills happen
//! under one lock, so the log and the ring have them in the same order.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use crate::{
    accounting::Account,
    enrich::enricher::{Enricher, LogOrigin},
    event::Event,
    facts::{
        BootTime,
        kernel_log::{Kills, LoggedKill, OomLine, RecordMeta},
    },
    host::{
        clock::{self, ClockOffset},
        kernel_log::Backlog,
        root::Root,
    },
    sources::{Next, Rank, Source, kills},
};

/// The log's clock and the other clocks drift apart by some seconds a month. A process id is not used again
/// that soon.
const SAME_KILL_NS: u64 = 600 * 1_000_000_000;

/// Logged kills that were not reported yet.
#[derive(Debug, Default)]
pub struct EarlierKills {
    kills: VecDeque<LoggedKill>,
    limit: Option<String>,
}

/// How far back to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// To the beginning of the log.
    Boot,
    /// This long ago.
    Ago(Duration),
}

impl EarlierKills {
    /// The logged kills before the first live one, if `--since` asks for them. If the log lost older ones, a
    /// limit says so.
    pub fn before(
        live: &mut kills::Kills,
        root: &Root,
        since: Option<Since>,
        continues: bool,
        limits: &mut Vec<String>,
    ) -> Self {
        // An earlier run saw these kills live: it has reported them, or they are in its ring.
        let Some(since) = since.filter(|_| !continues) else {
            if since.is_some() {
                limits.push(
                    "--since has no effect: what came before these pins was the first run's to report".into(),
                );
            }
            return Self::default();
        };
        match Self::read(root, since) {
            Ok(mut earlier) => {
                limits.extend(earlier.limit.take());
                // A live kill that is also in the log is in the ring already.
                earlier.end_before(live.first());
                earlier
            }
            Err(error) => {
                limits.push(format!("earlier kills are not known: the kernel log cannot be read ({error})"));
                Self::default()
            }
        }
    }

    /// Reads the log to its current end. The programs must be attached, and the ring must not have been read
    /// yet.
    ///
    /// # Errors
    /// If the log cannot be read, because CAP_SYSLOG or `/dev/kmsg` is missing.
    fn read(root: &Root, since: Since) -> io::Result<Self> {
        let mut log = Backlog::open(root)?;
        let mut kills = kills_of(&mut log)?;
        let from = match since {
            Since::Boot => 0,
            Since::Ago(ago) => {
                let ago = u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX);
                monotonic_ns(clock::boot_time()).saturating_sub(ago)
            }
        };
        kills.retain(|kill| log_ns(&kill.meta) >= from);
        // Record 0 is the first since boot.
        let cut = |first: &RecordMeta| (first.seq > 0 && log_ns(first) > from) || log.overruns() > 0;
        let limit = log.begins().filter(cut).map(|first| {
            let begins = ClockOffset::sample().rfc3339(clock::boot_time_of_log(log_ns(&first)));
            format!("the kernel log begins at about {begins}: older records are overwritten")
        });
        Ok(Self { kills, limit })
    }

    /// Drops the live kills. `first` is the thread and the time of the first event in the ring.
    fn end_before(&mut self, first: Option<(Option<u32>, BootTime)>) {
        let Some((tid, time)) = first else { return };
        let time = monotonic_ns(time);
        let same = |kill: &LoggedKill| {
            Some(kill.killed.tid) == tid && log_ns(&kill.meta).abs_diff(time) < SAME_KILL_NS
        };
        let end = match self.kills.iter().rposition(same) {
            // A process that is killed with its group is logged twice. The first time it is logged as the
            // chosen one.
            Some(last) => self.kills.iter().position(same).filter(|first| first + 1 == last).unwrap_or(last),
            // Not a kill, or the log does not have it: compare times.
            None => self.kills.iter().take_while(|kill| log_ns(&kill.meta) < time).count(),
        };
        self.kills.truncate(end);
    }
}

impl Source for EarlierKills {
    fn rank(&self) -> Rank {
        Rank::First
    }

    fn next(&mut self, enricher: &mut Enricher, _: &mut Account) -> Next {
        match self.kills.pop_front() {
            Some(kill) => {
                Next::Event(Event::OomKill(Box::new(enricher.logged_kill(&kill, &LogOrigin::BeforeStart))))
            }
            None => Next::Nothing,
        }
    }
}

fn log_ns(meta: &RecordMeta) -> u64 {
    meta.time_us.saturating_mul(1000)
}

/// What the log's clock read at `time`, approximately.
fn monotonic_ns(time: BootTime) -> u64 {
    time.0.saturating_sub(clock::suspended_ns())
}

/// Every kill in the lines, once. A `None` among the lines says that some were lost.
pub fn kills_of(
    lines: impl Iterator<Item = io::Result<Option<(RecordMeta, OomLine)>>>,
) -> io::Result<VecDeque<LoggedKill>> {
    let (mut kills, mut found) = (Kills::default(), VecDeque::new());
    for line in lines {
        let complete = match line? {
            Some((meta, line)) => kills.push(meta, line, ()),
            None => kills.end(),
        };
        found.extend(complete.map(|(kill, ())| kill));
    }
    found.extend(kills.end().map(|(kill, ())| kill));
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;
    use crate::facts::kernel_log::Lines;

    const INVOKED: &str = "hog invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0";

    fn chosen(pid: u32) -> String {
        format!(
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a/b,task=hog,pid={pid},uid=0"
        )
    }

    fn killed(tid: u32) -> String {
        format!(
            "Memory cgroup out of memory: Killed process {tid} (hog) total-vm:8kB, anon-rss:4kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:4kB oom_score_adj:0"
        )
    }

    fn group() -> String {
        "Tasks in /a are going to be killed due to memory.oom.group set".to_owned()
    }

    /// One line a millisecond.
    fn kills(texts: &[String]) -> EarlierKills {
        let mut lines = Lines::default();
        let lines: Vec<_> = texts
            .iter()
            .zip(1..)
            .filter_map(|(text, at)| lines.push(format!("6,{at},{},-;{text}\n", at * 1000).as_bytes()))
            .map(|line| Ok(Some(line)))
            .collect();
        assert_eq!(lines.len(), texts.len(), "a line was not understood");
        EarlierKills { kills: kills_of(lines.into_iter()).unwrap(), limit: None }
    }

    fn told(earlier: &EarlierKills) -> Vec<(u32, bool, bool)> {
        earlier.kills.iter().map(|kill| (kill.killed.tid, kill.report.is_some(), kill.chosen)).collect()
    }

    #[test]
    fn each_kill_once_with_its_own_report() {
        let kills = kills(&[INVOKED.into(), chosen(5), killed(5), INVOKED.into(), chosen(6), killed(6)]);
        assert_eq!(told(&kills), [(5, true, true), (6, true, true)]);
        assert_eq!(kills.kills[1].report.as_ref().unwrap().pid(), 6);
    }

    #[test]
    fn over_the_rate_limit_a_kill_has_no_report_and_never_another_s() {
        let kills = kills(&[INVOKED.into(), chosen(5), killed(5), killed(6), killed(7)]);
        assert_eq!(told(&kills), [(5, true, true), (6, false, false), (7, false, false)]);
    }

    #[test]
    fn the_chosen_of_a_group_is_told_once() {
        let kills = kills(&[INVOKED.into(), chosen(5), killed(5), group(), killed(4), killed(5), killed(6)]);
        assert_eq!(told(&kills), [(5, true, true), (4, true, false), (6, true, false)]);
    }

    #[test]
    fn a_second_group_over_the_rate_limit_is_not_of_the_first() {
        let kills =
            kills(&[INVOKED.into(), chosen(5), killed(5), group(), killed(6), killed(7), group(), killed(8)]);
        let told: Vec<_> = told(&kills).into_iter().map(|(tid, report, _)| (tid, report)).collect();
        assert_eq!(told, [(5, true), (6, true), (7, false), (8, false)]);
    }

    #[test]
    fn the_chosen_of_a_group_over_the_rate_limit_is_told_once_too() {
        let kills = kills(&[killed(5), group(), killed(4), killed(5), killed(6), group(), killed(6)]);
        assert_eq!(told(&kills), [(5, false, false), (4, false, false), (6, false, false)]);
    }

    #[test]
    fn one_of_a_group_is_not_the_chosen_that_was_exiting() {
        let exiting =
            "Memory cgroup out of memory: OOM victim 5 (hog) is already exiting. Skip killing the task";
        let kills = kills(&[INVOKED.into(), chosen(5), exiting.into(), group(), killed(4)]);
        assert_eq!(told(&kills), [(4, true, false)]);
    }

    #[test]
    fn it_ends_where_the_live_ones_begin() {
        let all = || kills(&[killed(5), killed(6), killed(7), killed(8)]);
        let tids = |first| {
            let mut kills = all();
            kills.end_before(first);
            told(&kills).into_iter().map(|(tid, ..)| tid).collect::<Vec<_>>()
        };
        let at = |ms: u64| BootTime(ms * 1_000_000 + clock::suspended_ns());
        assert_eq!(tids(None), [5, 6, 7, 8]);
        // Found by the thread, even if the clocks differ much.
        assert_eq!(tids(Some((Some(7), at(60_000)))), [5, 6]);
        assert_eq!(tids(Some((Some(5), at(0)))), [0; 0]);
        // The log does not have this event, so the clock decides.
        assert_eq!(tids(Some((Some(99), at(3)))), [5, 6]);
        assert_eq!(tids(Some((None, at(60_000)))), [5, 6, 7, 8]);
    }
}
