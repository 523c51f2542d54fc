//! Limits how much waits: there may be a hundred kills a second, and an incident takes up to 5 s. Pure.

use std::collections::HashMap;

/// The most kills that wait for their incident.
pub(super) const NOTES_MAX: usize = 1024;
/// The most of these of one cgroup whose limit fired, so that one leaves room for others.
const OF_CGROUP_MAX: usize = 256;
/// The most bytes of all.
const BYTES_MAX: usize = 4 << 20;

/// What one kill takes.
#[derive(Clone, Debug)]
pub(super) struct Part {
    cgroup: String,
    bytes: usize,
}

/// What is taken.
#[derive(Debug, Default)]
pub(super) struct Room {
    of: HashMap<String, usize>,
    count: usize,
    bytes: usize,
}

impl Room {
    /// Takes room for a kill of this cgroup; `None` if there is none.
    pub(super) fn take(&mut self, cgroup: &str, bytes: usize) -> Option<Part> {
        let own = self.of.get(cgroup).copied().unwrap_or(0);
        if self.count >= NOTES_MAX || own >= OF_CGROUP_MAX || self.bytes.saturating_add(bytes) > BYTES_MAX {
            return None;
        }
        *self.of.entry(cgroup.to_owned()).or_default() += 1;
        self.count += 1;
        self.bytes += bytes;
        Some(Part { cgroup: cgroup.to_owned(), bytes })
    }

    /// Gives back what a kill took.
    pub(super) fn give_back(&mut self, part: &Part) {
        if let Some(own) = self.of.get_mut(&part.cgroup) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                self.of.remove(&part.cgroup);
            }
        }
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(part.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cgroup_leaves_room_for_others_and_all_is_bounded() {
        let mut room = Room::default();
        let own = (0..3000).filter_map(|_| room.take("a", 100)).collect::<Vec<_>>();
        assert_eq!(own.len(), OF_CGROUP_MAX);
        let others = (0..3000).filter_map(|number| room.take(&number.to_string(), 100)).count();
        assert_eq!(own.len() + others, NOTES_MAX);
        own.iter().for_each(|part| room.give_back(part));
        assert!(room.take("a", 100).is_some() && !room.of.contains_key("none"));
        let mut room = Room::default();
        let long = 100_000;
        assert_eq!(
            (0..3000).filter_map(|number| room.take(&number.to_string(), long)).count(),
            BYTES_MAX / long
        );
    }
}
