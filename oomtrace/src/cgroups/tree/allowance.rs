//! Limits the time that is spent on files of owned cgroups: an owner can make thousands of cgroups a second,
//! each named like a container's. Pure.

use std::time::Duration;

/// Owners whose time is counted separately. For others only the sum counts.
const OWNERS_MAX: usize = 64;

/// What time is spent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A new cgroup. Half of all time, so that a kill always finds some.
    Cgroup,
    /// A kill.
    Kill,
}

impl Need {
    /// The part of `all` that it may use.
    fn part(self, all: Duration) -> Duration {
        match self {
            Self::Cgroup => all / 2,
            Self::Kill => all,
        }
    }
}

/// Time that can be spent. It grows again as time passes.
#[derive(Debug)]
pub struct Allowance {
    a_second: Duration,
    /// When it was last updated.
    at: Duration,
    spent: Duration,
    by: Vec<(u64, Duration)>,
}

impl Allowance {
    /// Allows `a_second` of time in each second, and half of it for one owner.
    pub fn new(a_second: Duration) -> Self {
        Self { a_second, at: Duration::ZERO, spent: Duration::ZERO, by: Vec::new() }
    }

    /// Whether all time for this is spent at `now`.
    pub fn is_spent(&mut self, need: Need, now: Duration) -> bool {
        self.pass(now);
        self.spent >= need.part(self.a_second)
    }

    /// Whether time may be spent for `owner`.
    pub fn may(&mut self, owner: u64, need: Need, now: Duration) -> bool {
        let own = |by: &[(u64, Duration)]| by.iter().find(|(of, _)| *of == owner).map(|(_, own)| *own);
        !self.is_spent(need, now) && own(&self.by).is_none_or(|own| own < need.part(self.a_second / 2))
    }

    /// Records that `took` was spent for `owner`. Time spent beyond the allowance is taken from the time to
    /// come.
    pub fn spend(&mut self, owner: u64, took: Duration) {
        // After one late answer the others must not wait: the rest of the debt is the owner's alone.
        self.spent = self.spent.saturating_add(took.min(self.a_second / 2));
        if let Some((_, own)) = self.by.iter_mut().find(|(of, _)| *of == owner) {
            *own = own.saturating_add(took);
        } else if self.by.len() < OWNERS_MAX {
            self.by.push((owner, took));
        }
    }

    fn pass(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        let earned = |a_second: Duration| {
            let ns = a_second.as_nanos().saturating_mul(passed.as_nanos()) / 1_000_000_000;
            Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
        };
        self.spent = self.spent.saturating_sub(earned(self.a_second));
        let half = earned(self.a_second / 2);
        self.by.retain_mut(|(_, own)| {
            *own = own.saturating_sub(half);
            !own.is_zero()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    const KILL: Need = Need::Kill;

    #[test]
    fn one_owner_gets_half_of_what_all_get() {
        let mut allowance = Allowance::new(20 * MS);
        assert!(allowance.may(1, KILL, MS));
        allowance.spend(1, 10 * MS);
        assert!(!allowance.may(1, KILL, MS) && allowance.may(2, KILL, MS));
        allowance.spend(2, 9 * MS);
        assert!(allowance.may(2, KILL, MS));
        allowance.spend(2, MS);
        assert!(!allowance.may(3, KILL, MS) && allowance.is_spent(KILL, MS));
    }

    #[test]
    fn new_cgroups_leave_half_of_it_for_kills() {
        let mut allowance = Allowance::new(20 * MS);
        allowance.spend(1, 4 * MS);
        assert!(allowance.may(1, Need::Cgroup, MS));
        allowance.spend(1, 2 * MS);
        assert!(!allowance.may(1, Need::Cgroup, MS) && allowance.may(1, KILL, MS));
        assert!(allowance.may(2, Need::Cgroup, MS) && !allowance.is_spent(Need::Cgroup, MS));
        allowance.spend(2, 5 * MS);
        assert!(!allowance.may(3, Need::Cgroup, MS) && allowance.is_spent(Need::Cgroup, MS));
        assert!(allowance.may(2, KILL, MS) && !allowance.is_spent(KILL, MS));
    }

    #[test]
    fn it_comes_back_with_time_and_a_debt_is_paid_first() {
        let mut allowance = Allowance::new(20 * MS);
        allowance.spend(1, 60 * MS);
        assert!(allowance.may(2, KILL, MS), "the others do not pay for it");
        assert!(!allowance.may(1, KILL, 5000 * MS), "10 ms a second for one");
        assert!(allowance.may(1, KILL, 5001 * MS));
        assert!(allowance.by.iter().all(|(owner, _)| *owner == 1));
    }

    #[test]
    fn many_owners_are_counted_in_one() {
        let mut allowance = Allowance::new(20 * MS);
        for owner in 0..1000 {
            allowance.spend(owner, MS / 10);
        }
        assert!(allowance.by.len() == OWNERS_MAX && !allowance.may(2000, KILL, MS));
        assert!(!Allowance::new(Duration::ZERO).may(1, KILL, MS));
    }
}
