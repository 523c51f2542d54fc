//! How often each of a bounded number of names was there.

use std::collections::BTreeMap;

/// Names that are told apart.
const NAMES: usize = 4096;

/// Counts by name.
#[derive(Debug)]
pub(super) struct Counts<K> {
    by_name: BTreeMap<K, u64>,
    /// Of names beyond the bound.
    pub(super) others: u64,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self { by_name: BTreeMap::new(), others: 0 }
    }
}

impl<K: Ord> Counts<K> {
    /// Counts `more` of a name.
    pub(super) fn add(&mut self, name: K, more: u64) {
        if self.by_name.len() < NAMES {
            let count = self.by_name.entry(name).or_default();
            *count = count.saturating_add(more);
        } else if let Some(count) = self.by_name.get_mut(&name) {
            *count = count.saturating_add(more);
        } else {
            self.others = self.others.saturating_add(more);
        }
    }

    /// The sum.
    pub(super) fn sum(&self) -> u64 {
        self.by_name.values().fold(self.others, |sum, count| sum.saturating_add(*count))
    }

    /// The names, those with most first.
    pub(super) fn most_first(&self) -> Vec<(&K, u64)> {
        let mut counts: Vec<(&K, u64)> = self.by_name.iter().map(|(name, count)| (name, *count)).collect();
        counts.sort_by(|(one, fewer), (other, more)| more.cmp(fewer).then_with(|| one.cmp(other)));
        counts
    }
}
