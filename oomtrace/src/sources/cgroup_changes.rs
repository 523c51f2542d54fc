//! Takes the changes of cgroups from the programs' ring into the cgroup tree.
//!
//! A turn is bounded, so that a user who makes and renames many cgroups cannot delay the report of kills.
//! After changes were lost, the tree is walked again.

use std::{
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    accounting::Account,
    cgroups::tree::Walk,
    enrich::enricher::Enricher,
    event::LossReason,
    host::clock,
    sources::{Rank, Source, kills::Records, probe::Ring},
};

/// How long changes are taken in before the loop does anything else.
const TURN: Duration = Duration::from_millis(100);

/// After changes were lost, cgroups are walked again, at most once in this time.
const WALK_PAUSE: Duration = Duration::from_secs(10);

/// A later walk runs for `STEPS`, then pauses for `REST`, so that kills are reported in between. 10,000
/// cgroups take 0.2 s, and a user can make more than that and cause lost changes.
const STEPS: Duration = Duration::from_millis(2);
const REST: Duration = Duration::from_millis(20);

/// Takes in the ring of changes.
pub struct CgroupChanges {
    ring: Ring,
    records: Records,
    /// Where the memory cgroups are mounted; `None` if they are not.
    mount: Option<PathBuf>,
    /// The number of lost changes at the last walk.
    lost_before: u64,
    not_before: Instant,
    /// A later walk in progress, and when it continues.
    walk: Option<(Walk, Instant)>,
    /// Cgroups that were not kept and names that were not read, as last reported to the account.
    names_lost: (u64, u64),
    /// When to try again to read names for which no time was left.
    names_due: Option<Instant>,
}

impl CgroupChanges {
    /// Reads from this ring.
    pub fn new(ring: Ring, records: Records, mount: Option<PathBuf>) -> Self {
        Self {
            ring,
            records,
            mount,
            lost_before: 0,
            not_before: Instant::now(),
            walk: None,
            names_lost: (0, 0),
            names_due: None,
        }
    }

    /// Takes in what the ring has. Returns true if the turn ended before the ring was empty.
    fn take_in(&mut self, enricher: &mut Enricher) -> bool {
        let began = Instant::now();
        while let Some(record) = self.ring.next() {
            self.records.cgroup(&record, enricher);
            drop(record);
            if began.elapsed() >= TURN {
                return true;
            }
        }
        false
    }

    /// Finds the cgroups that were made or removed while changes were lost, all at once.
    fn walk(&mut self, enricher: &mut Enricher, lost: u64) {
        if let Some(mount) = &self.mount {
            // A cgroup that is removed during the walk is no error. One that cannot be walked only lacks its
            // names.
            let _walked = enricher.tree_mut().walk(mount, clock::boot_time());
            self.lost_before = lost;
        }
    }

    /// The same in steps.
    fn walk_on(&mut self, enricher: &mut Enricher, lost: u64) {
        let now = Instant::now();
        if self.walk.is_none()
            && lost > self.lost_before
            && now >= self.not_before
            && let Some(mount) = &self.mount
        {
            let begun = enricher.tree_mut().begin_walk(mount, clock::boot_time());
            self.walk = begun.ok().map(|walk| (walk, now));
            self.lost_before = lost;
            self.not_before = now + WALK_PAUSE;
        }
        let Some((mut walk, _)) = self.walk.take_if(|(_, due)| *due <= now) else { return };
        while now.elapsed() < STEPS {
            if enricher.tree_mut().walk_on(&mut walk) {
                return;
            }
        }
        self.walk = Some((walk, Instant::now() + REST));
    }
}

impl Source for CgroupChanges {
    fn rank(&self) -> Rank {
        Rank::BeforeFirst
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ring.as_fd())
    }

    /// Wakes the loop, which then reads names and continues a walk.
    fn due(&self) -> Option<Instant> {
        let walk = self.walk.as_ref().map(|(_, due)| *due);
        self.names_due.into_iter().chain(walk).min()
    }

    /// Finds the cgroups that exist already. The programs are attached, so no new cgroup is missed.
    fn begin(&mut self, enricher: &mut Enricher, account: &mut Account) {
        self.take_in(enricher);
        self.walk(enricher, account.lost_for(LossReason::CgroupRingFull));
    }

    fn learn(&mut self, enricher: &mut Enricher, account: &mut Account) -> bool {
        let more = self.take_in(enricher);
        let tree = enricher.tree();
        self.names_due = tree.resolve_due();
        let names_lost = (tree.ignored(), tree.unread());
        account.names_lost(names_lost.0 - self.names_lost.0, names_lost.1 - self.names_lost.1);
        self.names_lost = names_lost;
        let lost = account.lost_for(LossReason::CgroupRingFull);
        self.walk_on(enricher, lost);
        more
    }
}
