//! Compares the victims with the reported ones and with what was counted as lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::lane::Report;
use super::lines::Line;
use super::victims::{Death, Victim};

/// What the kernel and the makers of victims know.
#[derive(Clone, Debug)]
pub(super) struct Truth {
    /// The prefix of all victims' cgroup paths.
    pub(super) prefix: String,
    /// All victims.
    pub(super) deaths: Vec<Death>,
    /// Growth of the kernel's `oom_kill`, including kills of others on this machine.
    pub(super) kernel_kills: u64,
    /// The time of the test, as in lines.
    pub(super) between: (String, String),
}

/// What happened to all victims in the lines of one tracer.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    pub(super) once: u64,
    pub(super) more: u64,
    pub(super) untold: Vec<Death>,
    pub(super) lost: BTreeMap<String, u64>,
    /// Counted as lost and also reported, because two sets of programs were attached.
    pub(super) also_counted: u64,
    /// Kills of others on this machine, by the kernel's count.
    pub(super) of_others: i128,
    pub(super) cut: u64,
    /// How many lines of victims have which `oom.evidence`.
    pub(super) evidence: BTreeMap<String, u64>,
    /// Why the numbers do not match; empty if they do.
    pub(super) faults: Vec<String>,
}

impl Account {
    /// Compares.
    pub(super) fn of(truth: &Truth, lines: &[Line], report: &Report) -> Self {
        let mut account = Self::default();
        let (told, others) = account.told(truth, lines);
        account.lost = lost(lines);
        for death in &truth.deaths {
            match told.get(&death.victim) {
                None => account.untold.push(death.clone()),
                Some(1) => account.once += 1,
                Some(_) => account.more += 1,
            }
        }
        let made: BTreeSet<&Victim> = truth.deaths.iter().map(|death| &death.victim).collect();
        let invented: Vec<_> = told.keys().filter(|victim| !made.contains(victim)).collect();
        if !invented.is_empty() {
            account.faults.push(format!("lines name victims that were not made: {invented:?}"));
        }
        account.order(lines);
        account.even(truth, report, others);
        account
    }

    /// How often each of our victims was reported, and how many others were.
    fn told(&mut self, truth: &Truth, lines: &[Line]) -> (BTreeMap<Victim, u64>, u64) {
        let (mut ours, mut others) = (BTreeMap::<Victim, u64>::new(), BTreeSet::new());
        for line in lines {
            match line {
                Line::Kill { victim, evidence, .. } if victim.cgroup.starts_with(&truth.prefix) => {
                    *self.evidence.entry(evidence.clone()).or_default() += 1;
                    *ours.entry(victim.clone()).or_default() += 1;
                }
                Line::Kill { victim, counted: true, time, .. }
                    if (&truth.between.0..=&truth.between.1).contains(&time) =>
                {
                    others.insert((victim.clone(), time.clone()));
                }
                Line::Gap(text) => self.faults.push(format!("a gap: {text}")),
                Line::Cut(_) => self.cut += 1,
                _ => {}
            }
        }
        (ours, others.len() as u64)
    }

    /// In a guest with function hooks, these must have been used: else the run says nothing of them.
    pub(super) fn must_be_hooked(&mut self) {
        if !["fentry", "kprobe"].iter().any(|hook| self.evidence.contains_key(*hook)) {
            self.faults.push(format!("no line has the evidence of a function hook: {:?}", self.evidence));
        }
    }

    /// Within a run the numbers increase.
    fn order(&mut self, lines: &[Line]) {
        let mut last = 0;
        for line in lines {
            match line {
                Line::Start(_) => last = 0,
                Line::Kill { seq, victim, .. } => {
                    if *seq <= last {
                        self.faults.push(format!("seq {seq} after {last}: {victim:?}"));
                    }
                    last = *seq;
                }
                _ => {}
            }
        }
    }

    /// Everything that the kernel counted is reported or counted as lost.
    fn even(&mut self, truth: &Truth, report: &Report, others: u64) {
        // A group kill passes its first victim twice, and the kernel counts both.
        let groups: BTreeSet<&str> = truth
            .deaths
            .iter()
            .filter(|death| death.shape == "group")
            .map(|death| death.victim.cgroup.as_str())
            .collect();
        let number = |count: usize| count as i128;
        // It does so only if that victim still exists.
        let of_ours = number(truth.deaths.len()) + number(groups.len());
        self.of_others = (i128::from(truth.kernel_kills) - of_ours).max(0);
        let missing = number(self.untold.len()) + self.of_others - i128::from(others);
        let lost: i128 = self.lost.values().copied().map(i128::from).sum();
        let in_two = truth.deaths.iter().filter(|death| meet(death.between, &report.two)).count();
        let over = lost - missing;
        self.also_counted = u64::try_from(over).unwrap_or(0);
        if over < 0 {
            self.faults.push(format!("{} victims are neither reported nor counted", -over));
        } else if over > number(in_two) {
            self.faults.push(format!(
                "{lost} are counted as lost, but {missing} were not reported; two sets of programs saw {in_two} at the most"
            ));
        }
        if number(self.untold.len()) > lost {
            self.faults.push(format!("{} not reported, {lost} counted as lost", self.untold.len()));
        }
    }

    /// Victims that were neither reported nor counted.
    pub(super) fn unaccounted(&self) -> u64 {
        (self.untold.len() as u64).saturating_sub(self.lost.values().sum())
    }
}

fn meet(between: (Instant, Instant), windows: &[(Instant, Instant)]) -> bool {
    windows.iter().any(|window| between.0 <= window.1 && window.0 <= between.1)
}

/// Kills counted as lost, by reason. A line that a SIGKILL caused to be written twice counts once.
fn lost(lines: &[Line]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::<String, u64>::new();
    let mut last = BTreeMap::<&str, (u64, u64)>::new();
    for line in lines {
        match line {
            Line::Start(false) => last.clear(),
            Line::Lost { reason, count, total }
                if !matches!(
                    reason.as_str(),
                    "cgroup_ring_full"
                        | "cgroup_not_kept"
                        | "name_not_read"
                        | "unnumbered_ring_full"
                        | "signal_ring_full"
                        | "sink"
                        | "verdict_queue_full"
                        | "incident_queue_full"
                        | "journal"
                ) =>
            {
                if let Some(total) = total {
                    let again = last.insert(reason, (*count, *total)) == Some((*count, *total));
                    if again {
                        continue;
                    }
                }
                *counts.entry(reason.clone()).or_default() += count;
            }
            _ => {}
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn death(pid: u64) -> Death {
        let now = Instant::now();
        let victim = Victim { cgroup: format!("/t/{pid}"), pid };
        Death { victim, shape: "single", between: (now, now + Duration::from_millis(1)) }
    }

    fn truth(pids: &[u64]) -> Truth {
        Truth {
            prefix: "/t/".to_owned(),
            deaths: pids.iter().copied().map(death).collect(),
            kernel_kills: pids.len() as u64,
            between: (String::new(), "3".to_owned()),
        }
    }

    fn kill(seq: u64, pid: u64) -> Line {
        let victim = Victim { cgroup: format!("/t/{pid}"), pid };
        Line::Kill { seq, counted: true, victim, time: "2".to_owned(), evidence: String::new() }
    }

    fn ring_full(count: u64, total: u64) -> Line {
        Line::Lost { reason: "ring_full".to_owned(), count, total: Some(total) }
    }

    #[test]
    fn told_and_counted_come_out_even() {
        let lines = [Line::Start(false), kill(1, 7), Line::Start(true), kill(1, 7), ring_full(1, 1)];
        let account = Account::of(&truth(&[7, 8]), &lines, &Report::default());
        assert_eq!((account.once, account.more, account.unaccounted()), (0, 1, 0));
        assert_eq!(account.faults, Vec::<String>::new());
    }

    #[test]
    fn a_run_without_a_function_hook_is_found_where_there_must_be_one() {
        let of = |evidence: &str| {
            let mut line = kill(1, 7);
            if let Line::Kill { evidence: told, .. } = &mut line {
                evidence.clone_into(told);
            }
            let mut account = Account::of(&truth(&[7]), &[Line::Start(false), line], &Report::default());
            account.must_be_hooked();
            account.faults.len()
        };
        assert_eq!((of("fentry"), of("kprobe"), of("stack"), of("")), (0, 0, 1, 1));
    }

    #[test]
    fn one_that_is_neither_is_found() {
        let lines = [Line::Start(false), kill(1, 7)];
        let account = Account::of(&truth(&[7, 8]), &lines, &Report::default());
        assert_eq!(account.unaccounted(), 1);
        assert!(!account.faults.is_empty());
    }

    #[test]
    fn one_that_was_not_killed_is_found() {
        let lines = [Line::Start(false), kill(1, 7), kill(2, 9)];
        assert!(!Account::of(&truth(&[7]), &lines, &Report::default()).faults.is_empty());
    }

    #[test]
    fn one_counted_too_many_is_found_unless_two_sets_of_programs_saw_it() {
        let lines = [Line::Start(false), kill(1, 7), ring_full(1, 1)];
        let truth = truth(&[7]);
        assert!(!Account::of(&truth, &lines, &Report::default()).faults.is_empty());
        let now = Instant::now();
        let two = vec![(now.checked_sub(Duration::from_secs(9)).unwrap_or(now), now)];
        let account = Account::of(&truth, &lines, &Report { two, ..Report::default() });
        assert_eq!((account.also_counted, account.faults), (1, Vec::new()));
    }

    #[test]
    fn a_lost_line_that_came_twice_counts_once() {
        let lines =
            [Line::Start(false), ring_full(2, 2), Line::Start(true), ring_full(2, 2), ring_full(1, 3)];
        assert_eq!(lost(&lines), BTreeMap::from([("ring_full".to_owned(), 3)]));
    }

    #[test]
    fn numbers_that_fall_are_found() {
        let lines = [Line::Start(false), kill(2, 7), kill(1, 8)];
        assert!(!Account::of(&truth(&[7, 8]), &lines, &Report::default()).faults.is_empty());
    }
}
