//! The tracks of all cgroups, in bounded memory.

use std::collections::HashMap;

use crate::history::{Sampled, Standing, Track};

/// If all places are taken, so many new cgroups of a walk look for one that gives way. The others wait.
const LOOKS: u32 = 32;
/// Places are allocated so many at a time.
const ROOM: usize = 64;

/// The tracks of all cgroups.
#[derive(Debug)]
pub struct Tracks {
    interval_ns: u64,
    most: usize,
    tracks: Vec<Track>,
    /// Whether a track was changed since it was kept.
    changed: Vec<bool>,
    places: HashMap<u64, usize>,
    /// When the current walk was.
    now_ns: u64,
    looks: u32,
    refused: u64,
}

/// Where a cgroup's track is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found(usize);

impl Tracks {
    /// Of at most so many cgroups.
    pub fn new(most: usize, interval_ns: u64) -> Self {
        Self {
            interval_ns,
            most,
            tracks: Vec::new(),
            changed: Vec::new(),
            places: HashMap::new(),
            now_ns: 0,
            looks: 0,
            refused: 0,
        }
    }

    /// The time between two samples, in ns.
    pub fn interval_ns(&self) -> u64 {
        self.interval_ns
    }

    /// Goes on with the track that another run kept at the next place. One that cannot be is free.
    pub fn go_on(&mut self, mut track: Track, now_ns: u64) {
        // Each run tells by itself what is near.
        track.set(Track::NEAR, false);
        let is_one = track.cgroup != 0
            && track.interval_ns == self.interval_ns
            && track.samples > 0
            && track.first_ns <= track.last_ns
            && track.last_ns <= now_ns
            && !self.places.contains_key(&track.cgroup);
        if self.tracks.len() < self.most {
            let place = self.add(if is_one { track } else { Track::free() });
            if is_one {
                self.places.insert(track.cgroup, place);
            }
        }
    }

    /// A walk begins, which is of this time.
    pub fn begin(&mut self, now_ns: u64) {
        (self.now_ns, self.looks, self.refused) = (now_ns, LOOKS, 0);
    }

    /// Where the track of a cgroup is.
    pub fn find(&self, cgroup: u64) -> Option<Found> {
        self.places.get(&cgroup).copied().map(Found)
    }

    /// Makes a track of a cgroup, if there is room or one that gives way.
    pub fn make(&mut self, cgroup: u64, standing: Standing, from_start: bool) -> Option<Found> {
        let flags = if from_start { Track::FROM_START } else { 0 };
        let track = Track::of(cgroup, flags).with(standing, self.interval_ns);
        let place = if self.tracks.len() < self.most {
            self.add(track)
        } else {
            let Some(place) = self.gives_way(standing) else {
                self.refused += 1;
                return None;
            };
            let old = self.tracks.get_mut(place)?;
            self.places.remove(&old.cgroup);
            *old = track;
            place
        };
        self.places.insert(cgroup, place);
        Some(Found(place))
    }

    fn add(&mut self, track: Track) -> usize {
        if self.tracks.len() == self.tracks.capacity() {
            self.tracks.reserve_exact(ROOM.min(self.most - self.tracks.len()));
        }
        self.tracks.push(track);
        self.changed.push(false);
        self.tracks.len() - 1
    }

    /// The place of a track that gives way to a new one of this standing: a free one, one that was removed, else one of a later
    /// standing; of these the one that was seen last the longest ago. What an owner has made never displaces what is the host's.
    fn gives_way(&mut self, standing: Standing) -> Option<usize> {
        self.looks = self.looks.checked_sub(1)?;
        let rank = |track: &Track| match (track.cgroup == 0, track.is(Track::REMOVED)) {
            (true, _) => Some(0),
            (_, true) if track.standing() >= standing => Some(1),
            _ if track.standing() > standing => Some(2),
            _ => None,
        };
        let ranked = self
            .tracks
            .iter()
            .enumerate()
            .filter_map(|(place, track)| Some((rank(track)?, track.last_ns, place)));
        ranked.min().map(|(.., place)| place)
    }

    /// Takes in a sample of this walk.
    pub fn push(&mut self, Found(place): Found, sampled: Sampled) {
        if let (Some(track), Some(changed)) = (self.tracks.get_mut(place), self.changed.get_mut(place)) {
            track.push(self.now_ns, self.interval_ns, sampled);
            track.set(Track::REMOVED, false);
            *changed = true;
        }
    }

    /// The walk is complete: cgroups that it did not meet are gone. Returns whether all that should be are tracked.
    pub fn end(&mut self, gone: &mut impl FnMut(&Track)) -> bool {
        for (track, changed) in self.tracks.iter_mut().zip(&mut self.changed) {
            if track.cgroup != 0 && track.last_ns < self.now_ns && !track.is(Track::REMOVED) {
                track.set(Track::REMOVED, true);
                *changed = true;
                gone(track);
            }
        }
        self.refused == 0
    }

    /// The track at a place.
    pub fn get(&self, Found(place): Found) -> Option<&Track> {
        self.tracks.get(place)
    }

    /// The track at a place, to be changed.
    pub fn get_mut(&mut self, Found(place): Found) -> Option<&mut Track> {
        self.tracks.get_mut(place)
    }

    /// The tracks of cgroups that exist.
    pub fn live(&self) -> impl Iterator<Item = &Track> {
        self.tracks.iter().filter(|track| track.cgroup != 0 && !track.is(Track::REMOVED))
    }

    /// Hands over each track that was changed, and its place.
    pub fn keep(&mut self, mut keep: impl FnMut(usize, &Track)) {
        for (place, (track, changed)) in self.tracks.iter().zip(&mut self.changed).enumerate() {
            if std::mem::take(changed) {
                keep(place, track);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    const INTERVAL: u64 = 10;

    fn walk(tracks: &mut Tracks, now: u64, cgroups: &[(u64, Standing)]) -> Vec<u64> {
        let mut gone = Vec::new();
        tracks.begin(now);
        for (cgroup, standing) in cgroups {
            if let Some(found) = tracks.find(*cgroup).or_else(|| tracks.make(*cgroup, *standing, false)) {
                tracks.push(found, Sampled { usage: *cgroup, ..Sampled::default() });
            }
        }
        tracks.end(&mut |track| gone.push(track.cgroup));
        gone
    }

    fn of(tracks: &Tracks) -> Vec<u64> {
        let mut ids: Vec<u64> = tracks.live().map(|track| track.cgroup).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn what_an_owner_makes_never_displaces_what_is_the_hosts() {
        use Standing::{Host, Limited, Owned};
        let mut tracks = Tracks::new(4, INTERVAL);
        let mut all = vec![(1, Host), (2, Owned), (3, Owned), (4, Owned), (5, Owned)];
        walk(&mut tracks, 10, &all);
        assert_eq!(of(&tracks), [1, 2, 3, 4], "no owner displaces another");
        all.extend([(6, Host), (7, Limited)]);
        walk(&mut tracks, 20, &all);
        assert_eq!(of(&tracks).len(), 4);
        assert!([1, 6, 7].iter().all(|id| of(&tracks).contains(id)), "{:?}", of(&tracks));
        all.push((8, Host));
        all.push((9, Host));
        walk(&mut tracks, 30, &all);
        assert_eq!(of(&tracks), [1, 6, 8, 9], "containers and units come before slices");
        all.push((10, Host));
        assert!(walk(&mut tracks, 40, &all).is_empty() && of(&tracks) == [1, 6, 8, 9]);
        // One that is gone gives way to its like, not to an owner's.
        all.retain(|(id, _)| *id != 6 && *id != 10);
        assert_eq!(walk(&mut tracks, 50, &all), [6]);
        assert_eq!(of(&tracks), [1, 8, 9]);
        all.push((11, Host));
        walk(&mut tracks, 60, &all);
        assert_eq!(of(&tracks), [1, 8, 9, 11]);
    }

    #[test]
    fn another_run_goes_on_with_what_was_kept() {
        let mut tracks = Tracks::new(8, INTERVAL);
        for now in 1..=20 {
            walk(&mut tracks, now * 10, &[(1, Standing::Host), (2, Standing::Owned)]);
        }
        let mut kept = vec![Track::free(); 8];
        tracks.keep(|place, track| kept[place] = *track);
        let mut next = Tracks::new(8, INTERVAL);
        kept.iter().for_each(|track| next.go_on(*track, 300));
        walk(&mut next, 310, &[(1, Standing::Host), (3, Standing::Host)]);
        let track = next.get(next.find(1).unwrap()).unwrap();
        assert_eq!((track.samples, track.first_ns), (21, 10));
        assert_eq!(next.get(next.find(2).unwrap()).unwrap().standing(), Standing::Owned);
        assert_eq!(of(&next), [1, 3]);
        // Not what is of the future, or of another interval.
        let mut next = Tracks::new(8, INTERVAL);
        kept.iter().for_each(|track| next.go_on(*track, 150));
        let mut other = Tracks::new(8, 2 * INTERVAL);
        kept.iter().for_each(|track| other.go_on(*track, 300));
        assert!(next.find(1).is_none() && other.find(1).is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let mut tracks = Tracks::new(100, INTERVAL);
        let all: Vec<(u64, Standing)> = (1..5000).map(|id| (id, Standing::Host)).collect();
        walk(&mut tracks, 10, &all);
        assert_eq!((tracks.tracks.len(), tracks.places.len()), (100, 100));
        assert!(tracks.tracks.capacity() <= 100 && !tracks.end(&mut |_| {}));
    }
}
