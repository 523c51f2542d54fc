//! How much of the queue one container, or one user, may take: kills come a hundred a second, verdicts take seconds. Pure.

use std::collections::HashMap;

use crate::event::Container;

/// Kills that wait for their verdict, at most.
pub(super) const PENDING_MAX: usize = 1024;
/// Of these, in one container; and in all containers of one user's own runtimes.
const OF_CONTAINER_MAX: usize = 64;
const OF_USER_MAX: usize = 16;
/// Bytes of what is noted of all that wait. A kill below a limit that fired for many containers notes them all.
const BYTES_MAX: usize = 4 << 20;

/// A container: by its id, and the user whose runtime it is of.
pub(super) type Key = (String, Option<u32>);

/// The container's.
pub(super) fn key(container: &Container) -> Key {
    (container.id.clone(), container.runtime.user)
}

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    of: HashMap<Key, usize>,
    of_user: HashMap<u32, usize>,
    count: usize,
    bytes: usize,
}

impl Waiting {
    /// Whether a kill in the container may wait too.
    pub(super) fn has_room(&self, key: &Key) -> bool {
        let users = key.1.map_or(0, |user| self.of_user.get(&user).copied().unwrap_or(0));
        let own = self.of.get(key).copied().unwrap_or(0);
        self.count < PENDING_MAX && own < OF_CONTAINER_MAX && users < OF_USER_MAX
    }

    /// It waits, and takes so many bytes. False if there is no room.
    pub(super) fn add(&mut self, key: &Key, bytes: usize) -> bool {
        if !self.has_room(key) || self.bytes.saturating_add(bytes) > BYTES_MAX {
            return false;
        }
        *self.of.entry(key.clone()).or_default() += 1;
        if let Some(user) = key.1 {
            *self.of_user.entry(user).or_default() += 1;
        }
        self.count += 1;
        self.bytes += bytes;
        true
    }

    /// It waits no longer.
    pub(super) fn remove(&mut self, key: &Key, bytes: usize) {
        fn less<K: std::hash::Hash + Eq + Clone>(of: &mut HashMap<K, usize>, key: &K) {
            if let Some(count) = of.get_mut(key) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    of.remove(key);
                }
            }
        }
        less(&mut self.of, key);
        if let Some(user) = &key.1 {
            less(&mut self.of_user, user);
        }
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// Containers in which kills were seen: none of them is flagged without a kill of its own. Those of users apart, who
/// have as many containers killed as they like.
#[derive(Debug, Default)]
pub(super) struct Killed {
    of_host: HashMap<Key, u64>,
    of_users: HashMap<Key, u64>,
    seen: u64,
}

impl Killed {
    /// How many of each are remembered at the most.
    const MAX: usize = 4096;

    /// A kill was seen in it.
    pub(super) fn saw(&mut self, key: Key) {
        self.seen += 1;
        let all = if key.1.is_some() { &mut self.of_users } else { &mut self.of_host };
        if all.len() >= Self::MAX && !all.contains_key(&key) {
            // Half of them at once: to find the oldest takes a look at each.
            let mut when: Vec<u64> = all.values().copied().collect();
            let middle = when.len() / 2;
            let middle = *when.select_nth_unstable(middle).1;
            all.retain(|_, seen| *seen >= middle);
        }
        all.insert(key, self.seen);
    }

    /// Whether one was.
    pub(super) fn contains(&self, key: &Key) -> bool {
        self.of_host.contains_key(key) || self.of_users.contains_key(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(number: usize, user: Option<u32>) -> Key {
        (number.to_string(), user)
    }

    #[test]
    fn one_container_or_user_leaves_room_for_others() {
        let mut waiting = Waiting::default();
        let mut add = |key: &Key| waiting.add(key, 1000);
        assert_eq!((0..1300).filter(|_| add(&of(1, None))).count(), OF_CONTAINER_MAX);
        assert_eq!((0..1300).filter(|number| add(&of(*number, Some(4242)))).count(), OF_USER_MAX);
        assert!(add(&of(2, None)) && add(&of(2, Some(7))));
        assert!(!waiting.has_room(&of(1, None)) && !waiting.has_room(&of(5000, Some(4242))));
        waiting.remove(&of(1, None), 1000);
        waiting.remove(&of(3, Some(4242)), 1000);
        assert!(waiting.has_room(&of(1, None)) && waiting.has_room(&of(5000, Some(4242))));
    }

    #[test]
    fn all_that_waits_is_bounded_in_number_and_in_bytes() {
        let mut waiting = Waiting::default();
        assert_eq!((0..3000).filter(|number| waiting.add(&of(*number, None), 100)).count(), PENDING_MAX);
        for number in 0..3000 {
            waiting.remove(&of(number, None), 100);
        }
        assert!(waiting.of.is_empty() && waiting.of_user.is_empty());
        let long = 100_000;
        assert_eq!(
            (0..3000).filter(|number| waiting.add(&of(*number, None), long)).count(),
            BYTES_MAX / long
        );
    }

    #[test]
    fn kills_of_users_push_out_none_of_the_hosts() {
        let mut killed = Killed::default();
        killed.saw(of(1, None));
        for number in 0..20_000 {
            killed.saw(of(number, Some(4242)));
        }
        assert!(killed.contains(&of(1, None)) && !killed.contains(&of(0, None)));
        assert!(killed.contains(&of(19_999, Some(4242))) && !killed.contains(&of(0, Some(4242))));
        assert!(killed.of_users.len() <= Killed::MAX);
        for number in 1..20_000 {
            killed.saw(of(2, None));
            killed.saw(of(3 + number % 7, None));
        }
        assert!(killed.contains(&of(1, None)), "what is seen again takes no more room");
    }
}
