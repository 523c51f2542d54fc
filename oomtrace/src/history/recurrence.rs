//! How often a service was killed, and how long its processes had lived.

use std::hash::{DefaultHasher, Hash, Hasher};

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Services that are kept.
pub const SERVICES: usize = 1024;
/// Lifetimes of each.
const LIFETIMES: usize = 16;
const NS_OF_MS: u64 = 1_000_000;

/// The kills of a service. Any bytes are one: another run may have written them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Kills {
    /// A hash of its name.
    service: u64,
    /// How often; 0 if the place is free.
    pub kills: u64,
    /// When the first one was, in ns since boot.
    pub since_ns: u64,
    /// When the last one was.
    last_ns: u64,
    /// How long victims had lived, in ms, 0 if that is not known; by the number of the kill.
    lifetimes: [u32; LIFETIMES],
}

impl Kills {
    /// The shortest, the middle and the longest lifetime, in ns; `None` if none is known.
    pub fn lifetimes_ns(&self) -> Option<(u64, u64, u64)> {
        let mut known: Vec<u32> = self.lifetimes.iter().copied().filter(|ms| *ms > 0).collect();
        known.sort_unstable();
        let ns = |ms: &u32| u64::from(*ms) * NS_OF_MS;
        Some((ns(known.first()?), ns(known.get(known.len() / 2)?), ns(known.last()?)))
    }
}

/// The kills of the services that were killed last.
#[derive(Debug, Default)]
pub struct Recurrences {
    services: Vec<Kills>,
}

impl Recurrences {
    /// Goes on with what another run kept at the next place.
    pub fn go_on(&mut self, kept: Kills, now_ns: u64) {
        let is_one = kept.kills > 0 && kept.since_ns <= kept.last_ns && kept.last_ns <= now_ns;
        if self.services.len() < SERVICES {
            self.services.push(if is_one { kept } else { Kills::new_zeroed() });
        }
    }

    /// Takes in a kill. Returns the place of its service, and its kills with this one. One that was taken in already counts
    /// once.
    pub fn add(&mut self, service: &str, at_ns: u64, lived_ns: Option<u64>) -> (usize, Kills) {
        let mut hasher = DefaultHasher::new();
        service.hash(&mut hasher);
        let service = hasher.finish();
        let place = self.place(service);
        let fresh = Kills { service, since_ns: at_ns, ..Kills::new_zeroed() };
        let Some(there) = self.services.get_mut(place) else { return (place, fresh) };
        if there.kills == 0 || there.service != service {
            *there = fresh;
        }
        if there.kills == 0 || there.last_ns != at_ns {
            let number = usize::try_from(there.kills).unwrap_or(0) % LIFETIMES;
            if let Some(lifetime) = there.lifetimes.get_mut(number) {
                *lifetime = lived_ns.map_or(0, |ns| u32::try_from(ns / NS_OF_MS).unwrap_or(u32::MAX).max(1));
            }
            there.kills = there.kills.saturating_add(1);
            there.last_ns = at_ns;
        }
        (place, *there)
    }

    /// Its own place, a free one, or that of the service whose last kill is oldest.
    fn place(&mut self, service: u64) -> usize {
        let own = self.services.iter().position(|there| there.kills > 0 && there.service == service);
        let free = || self.services.iter().position(|there| there.kills == 0);
        if let Some(place) = own.or_else(free) {
            return place;
        }
        if self.services.len() < SERVICES {
            self.services.push(Kills::new_zeroed());
            return self.services.len() - 1;
        }
        let oldest = self.services.iter().enumerate().min_by_key(|(_, there)| there.last_ns);
        oldest.map_or(0, |(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_of_a_service_are_counted_with_the_last_lifetimes() {
        let mut all = Recurrences::default();
        let second = 1_000_000_000;
        for number in 1..=20 {
            let (place, kills) = all.add("compose:shop/api", number * 100, Some(number * second));
            assert_eq!((place, kills.kills, kills.since_ns), (0, number, 100));
        }
        let (_, kills) = all.add("compose:shop/api", 20 * 100, Some(99 * second));
        assert_eq!(kills.kills, 20, "the same kill");
        assert_eq!(kills.lifetimes_ns(), Some((5 * second, 13 * second, 20 * second)));
        let (place, kills) = all.add("unit:db.service", 5000, None);
        assert_eq!((place, kills.kills, kills.lifetimes_ns()), (1, 1, None));
    }

    #[test]
    fn the_service_whose_last_kill_is_oldest_gives_way() {
        let mut all = Recurrences::default();
        for number in 0..SERVICES {
            all.add(&number.to_string(), 1000 + number as u64, None);
        }
        all.add("0", 9000, None);
        assert_eq!(all.add("new", 9001, None).0, 1);
        assert_eq!(all.add("0", 9002, None).1.kills, 3);
        assert_eq!(all.services.len(), SERVICES);
    }

    #[test]
    fn another_run_goes_on() {
        let mut all = Recurrences::default();
        let (_, kept) = all.add("a", 100, Some(7_000_000));
        let mut next = Recurrences::default();
        next.go_on(Kills::new_zeroed(), 500);
        next.go_on(kept, 500);
        assert_eq!(next.add("a", 600, None), (1, Kills { kills: 2, last_ns: 600, ..kept }));
        let mut next = Recurrences::default();
        next.go_on(kept, 50);
        assert_eq!(next.add("a", 60, None).1.kills, 1, "it is of the future");
    }
}
