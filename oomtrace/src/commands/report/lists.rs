//! The parts of a report that are names with counts, the largest first.

use super::{
    counts::Counts,
    kills::Kills,
    totals::{Host, Totals},
};
use crate::{outputs::encode::text::plain, recorded::Service};

/// Names with counts.
#[derive(Debug)]
pub(super) struct List {
    pub(super) title: &'static str,
    /// The largest.
    pub(super) names: Vec<(String, u64)>,
    /// The sum of the others.
    pub(super) others: u64,
}

impl List {
    /// The lists that are not empty, each with the `most` largest names.
    pub(super) fn all(totals: &Totals, most: usize) -> Vec<Self> {
        let text = |name: &String| plain(name).into_owned();
        let verdicts = &totals.verdicts;
        let mut lists = vec![
            Self::new("Incidents by how they came", &totals.memory.shapes, most, text),
            Self::new("Limits that came near", &totals.near, most, service),
            Self::new("Kills that the runtime does not show", &verdicts.missed_by, most, service),
            Self::new("Shown as OOM-killed without a kill", &verdicts.false_positives, most, text),
            Self::new("Ran out of memory without a kill", &totals.without_kill, most, service),
            Self::new("Killed by others than the OOM killer, by sender", &totals.signals, most, text),
        ];
        lists.retain(|list| !list.names.is_empty());
        lists
    }

    fn new<K: Ord>(
        title: &'static str,
        counts: &Counts<K>,
        most: usize,
        text: impl Fn(&K) -> String,
    ) -> Self {
        let sorted = counts.most_first();
        let names = sorted.iter().take(most).map(|(name, count)| (text(name), *count)).collect();
        let rest: u64 = sorted.iter().skip(most).map(|(_, count)| count).sum();
        Self { title, names, others: rest + counts.others }
    }
}

/// Name and kind of a service.
pub(super) fn service(service: &Service) -> String {
    format!("{} ({})", plain(&service.name), plain(&service.kind))
}

/// The services, those with most kills first.
pub(super) fn by_kills(totals: &Totals) -> Vec<(&Service, &Kills)> {
    let mut services: Vec<_> = totals.services.iter().collect();
    services.sort_by(|(one, fewer), (other, more)| more.kills.cmp(&fewer.kills).then_with(|| one.cmp(other)));
    services
}

/// The hosts that ran out, those that did so most often first.
pub(super) fn ran_out(totals: &Totals) -> Vec<&Host> {
    let mut hosts: Vec<_> = totals.hosts.iter().filter(|host| host.ran_out > 0).collect();
    hosts.sort_by(|one, other| other.ran_out.cmp(&one.ran_out).then_with(|| one.name.cmp(&other.name)));
    hosts
}
