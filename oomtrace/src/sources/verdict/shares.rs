//! Limits how much of the queue one container or one user can take: there may be a hundred kills a second,
//! and a verdict takes seconds. Pure.

use std::collections::HashMap;

use crate::event::Container;

/// The most kills that wait for a verdict.
const PENDING_MAX: usize = 1024;
/// The most of these in one container, and in all containers of one user's own runtimes.
const OF_CONTAINER_MAX: usize = 64;
const OF_USER_MAX: usize = 16;
/// The most bytes of all notes. If a limit fired for many containers, a note holds them all.
const BYTES_MAX: usize = 4 << 20;

/// A container: its id, and the user if the runtime is a user's own.
pub(super) type Key = (String, Option<u32>);

/// The key of a container.
pub(super) fn key(container: &Container) -> Key {
    (container.id.clone(), container.runtime.user)
}

/// What is waiting.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    of: HashMap<Key, usize>,
    of_user: HashMap<u32, usize>,
    count: usize,
    bytes: usize,
}

impl Waiting {
    /// Whether a kill in this container may wait too.
    pub(super) fn has_room(&self, key: &Key) -> bool {
        let users = key.1.map_or(0, |user| self.of_user.get(&user).copied().unwrap_or(0));
        let own = self.of.get(key).copied().unwrap_or(0);
        self.count < PENDING_MAX && own < OF_CONTAINER_MAX && users < OF_USER_MAX
    }

    /// Adds a kill of this size. Returns false if there is no room.
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

    /// Removes a kill.
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

/// Containers in which a kill was seen, so that their flag is no false positive. Those of users are kept
/// apart, because a user can make any number of kills.
#[derive(Debug, Default)]
pub(super) struct Killed {
    of_host: HashMap<Key, u64>,
    of_users: HashMap<Key, u64>,
    seen: u64,
}

impl Killed {
    /// The most containers of each kind.
    const MAX: usize = 4096;

    /// Adds a container in which a kill was seen.
    pub(super) fn saw(&mut self, key: Key) {
        self.seen += 1;
        let all = if key.1.is_some() { &mut self.of_users } else { &mut self.of_host };
        if all.len() >= Self::MAX && !all.contains_key(&key) {
            // Drops half of them at once, because finding the oldest needs a look at each.
            let mut when: Vec<u64> = all.values().copied().collect();
            let middle = when.len() / 2;
            let middle = *when.select_nth_unstable(middle).1;
            all.retain(|_, seen| *seen >= middle);
        }
        all.insert(key, self.seen);
    }

    /// Whether a kill was seen in this container.
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
