//! The samples of one cgroup, in three resolutions: 10 minutes, 2 hours and a day, if there is one each 10 s.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::history::packed::Packed;

/// How many buckets each resolution has, and how many intervals a bucket takes.
const FINE: (usize, u64) = (60, 1);
const MIDDLE: (usize, u64) = (60, 12);
const COARSE: (usize, u64) = (48, 180);

/// The bytes of a [`Track`].
pub const TRACK_BYTES: usize = size_of::<Track>();
const _: () = assert!(TRACK_BYTES <= 1152);

/// What was seen in a time: of the usage the lowest and the highest, and the lowest of what cannot be reclaimed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Bucket {
    low: Packed,
    high: Packed,
    unreclaimable: Packed,
}

const EMPTY: Bucket = Bucket { low: Packed::NONE, high: Packed::NONE, unreclaimable: Packed::NONE };

/// What a walk has seen of a cgroup, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampled {
    /// Its usage.
    pub usage: u64,
    /// The part that cannot be reclaimed, if the kernel says so.
    pub unreclaimable: Option<u64>,
    /// The highest usage that the kernel has seen, if it says so.
    pub peak: Option<u64>,
    /// The limit, if there is one.
    pub limit: Option<u64>,
}

/// What was seen at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// In ns since boot: the end of the bucket, or the last sample.
    pub at_ns: u64,
    /// The lowest usage.
    pub low: u64,
    /// The highest usage.
    pub high: u64,
    /// The lowest of what cannot be reclaimed.
    pub unreclaimable: Option<u64>,
}

/// Who gives way if there are too many cgroups: a later one to an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// A container or unit of the host.
    Host,
    /// Another cgroup of the host that has a limit, as a pod's or a slice's.
    Limited,
    /// What a container, a service or a user has made.
    Owned,
}

/// The samples of one cgroup. Any bytes are one: another run may have written them.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Track {
    /// Its id; 0 if the track is free.
    pub cgroup: u64,
    /// The time between two samples for which it was made, in ns.
    pub interval_ns: u64,
    /// When the first sample was taken, in ns since boot.
    pub first_ns: u64,
    /// When the last one was.
    pub last_ns: u64,
    /// The usage of the last one, in pages.
    pub usage: u64,
    /// What of it cannot be reclaimed; `u64::MAX` if that is not known.
    unreclaimable: u64,
    /// The highest usage that the kernel had seen then, in pages; 0 if that is not known.
    pub peak: u64,
    /// The lowest and the highest usage of all samples.
    pub lowest: u64,
    /// See above.
    pub highest: u64,
    /// The limit, in pages; 0 if there is none.
    pub limit: u64,
    /// The highest usage that was between two samples and that neither shows; 0 if there is none.
    pub unseen: u64,
    /// When it was noticed.
    pub unseen_ns: u64,
    /// When it was said that the limit is near; 0 if it was not.
    pub told_ns: u64,
    /// Since when it is far again; 0 if it is not.
    pub far_ns: u64,
    /// The number of the last bucket of each resolution.
    last: [u64; 3],
    /// How many samples there were.
    pub samples: u32,
    /// See the constants below.
    pub flags: u32,
    fine: [Bucket; FINE.0],
    middle: [Bucket; MIDDLE.0],
    coarse: [Bucket; COARSE.0],
}

impl Track {
    /// [`Self::flags`]: the cgroup was made while others were sampled, so the first sample is of its first interval.
    pub const FROM_START: u32 = 1;
    /// [`Self::flags`]: its limit is near, and that was said.
    pub const NEAR: u32 = 2;
    /// [`Self::flags`]: it was removed.
    pub const REMOVED: u32 = 4;
    /// [`Self::flags`]: from this bit on, its [`Standing`].
    const STANDING: u32 = 8;

    /// A free track.
    pub fn free() -> Self {
        Self {
            fine: [EMPTY; FINE.0],
            middle: [EMPTY; MIDDLE.0],
            coarse: [EMPTY; COARSE.0],
            unreclaimable: u64::MAX,
            ..Self::new_zeroed()
        }
    }

    /// A track of this cgroup.
    pub fn of(cgroup: u64, flags: u32) -> Self {
        Self { cgroup, flags, ..Self::free() }
    }

    /// The same for a cgroup of this standing, with samples of this interval.
    pub fn with(self, standing: Standing, interval_ns: u64) -> Self {
        Self { flags: self.flags | (standing as u32) << Self::STANDING, interval_ns, ..self }
    }

    /// Its standing.
    pub fn standing(&self) -> Standing {
        match self.flags >> Self::STANDING & 3 {
            0 => Standing::Host,
            1 => Standing::Limited,
            _ => Standing::Owned,
        }
    }

    /// Whether a flag is set.
    pub fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Sets a flag, or takes it away.
    pub fn set(&mut self, flag: u32, to: bool) {
        self.flags = if to { self.flags | flag } else { self.flags & !flag };
    }

    /// What cannot be reclaimed, at the last sample.
    pub fn unreclaimable(&self) -> Option<u64> {
        (self.unreclaimable != u64::MAX).then_some(self.unreclaimable)
    }

    /// Takes in a sample.
    pub fn push(&mut self, now_ns: u64, interval_ns: u64, sampled: Sampled) {
        if self.samples == 0 {
            (self.first_ns, self.lowest) = (now_ns, u64::MAX);
        } else if now_ns < self.last_ns {
            return;
        }
        self.see_peak(now_ns, &sampled);
        let bucket = Bucket {
            low: Packed::of(sampled.usage),
            high: Packed::of(sampled.usage),
            unreclaimable: sampled.unreclaimable.map_or(Packed::NONE, Packed::of),
        };
        let first = self.samples == 0;
        let unit = now_ns / interval_ns.max(1);
        let [fine, middle, coarse] = &mut self.last;
        add(&mut self.fine, fine, unit / FINE.1, (first, bucket));
        add(&mut self.middle, middle, unit / MIDDLE.1, (first, bucket));
        add(&mut self.coarse, coarse, unit / COARSE.1, (first, bucket));
        self.last_ns = now_ns;
        self.usage = sampled.usage;
        self.unreclaimable = sampled.unreclaimable.unwrap_or(u64::MAX);
        self.limit = sampled.limit.unwrap_or(0);
        self.lowest = self.lowest.min(sampled.usage);
        self.highest = self.highest.max(sampled.usage);
        self.samples = self.samples.saturating_add(1);
    }

    /// A peak that rose between two samples, above both of them, was a burst that no sample shows.
    fn see_peak(&mut self, now_ns: u64, sampled: &Sampled) {
        let Some(peak) = sampled.peak else { return };
        let seen = self.usage.max(sampled.usage);
        if self.samples > 0
            && self.peak > 0
            && peak > self.peak
            && peak > seen + seen / 50
            && peak > self.unseen
        {
            (self.unseen, self.unseen_ns) = (peak, now_ns);
        }
        self.peak = peak;
    }

    /// What was seen until now, the oldest first: fine where there are fine samples, else coarse.
    pub fn points(&self, interval_ns: u64) -> Vec<Point> {
        let mut points = Vec::with_capacity(FINE.0 + MIDDLE.0 + COARSE.0);
        // From here on there are finer ones.
        let mut until = u64::MAX;
        let [fine, middle, coarse] = self.last;
        for (ring, last, width) in [
            (&self.fine[..], fine, FINE.1),
            (&self.middle, middle, MIDDLE.1),
            (&self.coarse, coarse, COARSE.1),
        ] {
            let width = width.saturating_mul(interval_ns);
            for (start, bucket) in
                newest_first(ring, last).map(|(at, bucket)| (at.saturating_mul(width), bucket))
            {
                let (Some(low), Some(high)) = (bucket.low.pages(), bucket.high.pages()) else { continue };
                if start < until {
                    let at_ns = start.saturating_add(width).min(until).saturating_sub(1).min(self.last_ns);
                    points.push(Point { at_ns, low, high, unreclaimable: bucket.unreclaimable.pages() });
                }
            }
            let length = u64::try_from(ring.len()).unwrap_or(0);
            let oldest = last.saturating_add(1).saturating_sub(length).saturating_mul(width);
            // If these go back to the first sample, the coarser ones have nothing older.
            until = if oldest <= self.first_ns { 0 } else { until.min(oldest) };
        }
        points.reverse();
        points
    }
}

/// Adds to the bucket with this number. Buckets between it and the last one are emptied.
fn add(ring: &mut [Bucket], last: &mut u64, number: u64, (first, bucket): (bool, Bucket)) {
    let length = u64::try_from(ring.len()).unwrap_or(1).max(1);
    let place = |number: u64| usize::try_from(number % length).unwrap_or(0);
    let skipped = if first { length } else { number.saturating_sub(*last).min(length) };
    for number in (number + 1).saturating_sub(skipped)..=number {
        if let Some(there) = ring.get_mut(place(number)) {
            *there = EMPTY;
        }
    }
    *last = number;
    if let Some(there) = ring.get_mut(place(number)) {
        there.low = there.low.or_lower(bucket.low);
        there.high = there.high.or_higher(bucket.high);
        there.unreclaimable = there.unreclaimable.or_lower(bucket.unreclaimable);
    }
}

/// The buckets with their numbers, the last one first.
fn newest_first(ring: &[Bucket], last: u64) -> impl Iterator<Item = (u64, &Bucket)> {
    let length = u64::try_from(ring.len()).unwrap_or(1).max(1);
    (0..length.min(last.saturating_add(1))).filter_map(move |back| {
        let number = last - back;
        ring.get(usize::try_from(number % length).ok()?).map(|bucket| (number, bucket))
    })
}
