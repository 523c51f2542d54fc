//! What became of cgroups: changes of the tree, from the ring of the programs into the tree of cgroups.
//!
//! Who makes and renames cgroups without end must not keep kills from being reported: a turn is bounded. Where changes
//! were lost, the tree is walked again.

use std::{
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    accounting::Account,
    enrich::enricher::Enricher,
    event::LossReason,
    host::clock,
    sources::{Rank, Source, kills::Records, probe::Ring},
};

/// How long changes are taken in without a look at anything else.
const TURN: Duration = Duration::from_millis(100);

/// The cgroups are walked again, after changes were lost, no more often than this: 10,000 take 0.2 s.
const WALK_PAUSE: Duration = Duration::from_secs(10);

/// The ring of changes, and where the cgroups are.
pub struct CgroupChanges {
    ring: Ring,
    records: Records,
    /// Below which the cgroups are walked; `None` where they are not mounted.
    mount: Option<PathBuf>,
    /// Changes that were lost when they were walked last.
    lost_before: u64,
    not_before: Instant,
    /// Cgroups that were not kept, and names that were not read, as far as they are accounted for.
    names_lost: (u64, u64),
    /// When names are to be read for which there was no time.
    names_due: Option<Instant>,
}

impl CgroupChanges {
    /// Of this ring.
    pub fn new(ring: Ring, records: Records, mount: Option<PathBuf>) -> Self {
        Self {
            ring,
            records,
            mount,
            lost_before: 0,
            not_before: Instant::now(),
            names_lost: (0, 0),
            names_due: None,
        }
    }

    /// Takes in what the ring has. True if its turn was over before.
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

    /// Finds the cgroups that were made, and those that went, while nobody could be told.
    fn walk(&mut self, enricher: &mut Enricher, lost: u64) {
        if let Some(mount) = &self.mount {
            // A cgroup that vanishes during the walk is no error; one that cannot be walked costs names only.
            let _names_only = enricher.tree_mut().walk(mount, clock::boot_time());
            self.lost_before = lost;
        }
    }
}

impl Source for CgroupChanges {
    fn rank(&self) -> Rank {
        Rank::BeforeFirst
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ring.as_fd())
    }

    /// The loop reads names after it was woken.
    fn due(&self) -> Option<Instant> {
        self.names_due
    }

    /// The cgroups that were there before. The programs are attached already, so nothing falls between.
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
        if lost > self.lost_before && Instant::now() >= self.not_before {
            self.walk(enricher, lost);
            self.not_before = Instant::now() + WALK_PAUSE;
        }
        more
    }
}
