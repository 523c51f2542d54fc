//! What a track keeps.

use oomtrace::{
    event::Shape,
    history::{
        Sampled, TRACK_BYTES, Track,
        shape::{End, Of, course},
    },
};
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use crate::generated::{INTERVAL_NS, ns};

fn sample(usage: u64) -> Sampled {
    Sampled { usage, ..Sampled::default() }
}

#[test]
fn the_newest_are_fine_and_the_oldest_coarse() {
    let mut track = Track::of(1, 0);
    for step in 0..20_000u32 {
        track.push(ns(f64::from(step) * 10.0), INTERVAL_NS, sample(u64::from(step)));
    }
    let points = track.points(INTERVAL_NS);
    assert!(points.windows(2).all(|two| two[0].at_ns < two[1].at_ns), "in order");
    let age = |at_ns: u64| (track.last_ns - at_ns) / INTERVAL_NS;
    let (first, last) = (points[0], points[points.len() - 1]);
    assert!((8000..=9600).contains(&age(first.at_ns)), "a day: {}", age(first.at_ns));
    assert_eq!((last.low, last.high), (20_000, 20_000), "rounded from {}", 19_999);
    for point in &points {
        let width = point.high - point.low;
        match age(point.at_ns) {
            0..=58 => assert!(width <= 8, "{point:?}"),
            61..=700 => assert!(width <= 12 + 8, "{point:?}"),
            _ => assert!(width <= 180 + 16, "{point:?}"),
        }
        let step = 19_999 - age(point.at_ns);
        assert!((point.low.saturating_sub(8)..=point.high + 8).contains(&step), "{step}: {point:?}");
    }
    assert_eq!((track.lowest, track.highest, track.samples), (0, 19_999, 20_000));
}

#[test]
fn a_pause_leaves_nothing_that_was_not_seen() {
    let mut track = Track::of(1, 0);
    for step in [0.0, 10.0, 20.0, 5000.0, 5010.0] {
        track.push(ns(step), INTERVAL_NS, sample(100));
    }
    let points = track.points(INTERVAL_NS);
    let ages: Vec<u64> = points.iter().map(|point| (track.last_ns - point.at_ns) / INTERVAL_NS).collect();
    assert!(ages.len() == 3 && (488..=501).contains(&ages[0]) && ages[1..] == [0, 0], "{ages:?}");
}

#[test]
fn a_peak_that_no_sample_shows_is_kept() {
    let mut track = Track::of(1, 0);
    for (step, usage, peak) in [(0.0, 100, 120), (10.0, 110, 120), (20.0, 105, 400), (30.0, 300, 400)] {
        track.push(ns(step), INTERVAL_NS, Sampled { usage, peak: Some(peak), ..Sampled::default() });
    }
    assert_eq!((track.unseen, track.unseen_ns), (400, ns(20.0)));
    // A peak that a sample shows is no secret.
    let mut track = Track::of(1, 0);
    for (step, usage) in [(0.0, 100), (10.0, 110), (20.0, 400)] {
        track.push(ns(step), INTERVAL_NS, Sampled { usage, peak: Some(usage), ..Sampled::default() });
    }
    assert_eq!(track.unseen, 0);
}

#[test]
fn what_cannot_be_reclaimed_has_a_course_of_its_own() {
    let mut track = Track::of(1, Track::FROM_START);
    let limit = 100_000;
    for step in 0..360u64 {
        let unreclaimable = Some(20_000 + 200 * step);
        let sampled = Sampled { usage: limit, unreclaimable, peak: None, limit: Some(limit) };
        track.push(ns(step as f64 * 10.0), INTERVAL_NS, sampled);
    }
    let end = End { at_ns: ns(3600.0), usage: limit };
    let of = |of| course(&track.points(INTERVAL_NS), of, end, (track.first_ns, INTERVAL_NS));
    assert_eq!(of(Of::Usage).shape, Shape::AtLimit);
    assert!(of(Of::Usage).at_limit_ns > 3000 * 1_000_000_000);
    let grown = of(Of::Unreclaimable);
    let slope = grown.slope.unwrap();
    assert_eq!((grown.shape, slope.middle.round()), (Shape::Growth, 200.0), "{grown:?}");
    assert!(slope.low <= slope.middle && slope.middle <= slope.high && slope.low > 190.0, "{slope:?}");
}

/// 1,024 of them.
const _: () = assert!(TRACK_BYTES * 1024 <= 3 << 19, "they take over 1.5 MiB");

proptest! {
    #[test]
    fn any_bytes_are_a_track(
        bytes in proptest::collection::vec(any::<u8>(), TRACK_BYTES),
        interval in any::<u64>(),
        now in any::<u64>(),
    ) {
        let mut track = Track::read_from_bytes(&bytes).unwrap();
        let end = End { at_ns: now, usage: track.usage };
        course(&track.points(interval), Of::Usage, end, (track.first_ns, interval));
        oomtrace::history::near::news(&mut track, interval);
        track.push(now, interval, sample(now));
        prop_assert_eq!(track.as_bytes().len(), TRACK_BYTES);
    }
}
