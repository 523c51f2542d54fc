//! Whether a limit comes near: what cannot be reclaimed is at 90 % of it and its floors rise with certainty, or it
//! is at 97 % for a minute. Page cache never counts. A burst cannot be foreseen.

use crate::history::{
    Point, Track,
    shape::span_floors,
    slope::{Line, Slope, theil_sen},
};

/// Parts of the limit: from here on a rise is told; full; from here down it is far again.
const NEAR: f64 = 0.90;
const FULL: f64 = 0.97;
const FAR: f64 = 0.80;
/// A minute and an hour, in intervals.
const MINUTE: u64 = 6;
const HOUR: u64 = 360;
/// It is far again after five minutes: a garbage collector's work takes less.
const REST: u64 = 30;
/// Over which times a rise is looked for: the width of a span, and how many. No span is narrower than the buckets of
/// its time: the floor of a wider one is lower.
const WINDOWS: [(f64, usize); 7] =
    [(3.0, 20), (12.0, 10), (12.0, 20), (24.0, 20), (180.0, 8), (180.0, 16), (360.0, 16)];
/// A rise by less than this part of the limit is chance.
const RISE_MIN: f64 = 0.02;
/// A floor that falls by more is no rise.
const FALL_MAX: f64 = 0.005;
/// What rises does not keep its pace: the time to the limit may be shorter and longer by these.
const SOONER: f64 = 0.5;
const LATER: f64 = 2.0;

/// Why a limit is near.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Near {
    /// Floors rise.
    Rising {
        /// For so long, in ns.
        over_ns: u64,
        /// How fast, in pages per interval.
        slope: Slope,
        /// The limit is reached in this time, if it goes on like that: not before, and not after, in ns.
        to_limit_ns: (u64, u64),
    },
    /// It is full.
    Full,
}

/// What there is to say of a cgroup after a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum News {
    /// Its limit is near.
    Near(Near),
    /// It is not near any more.
    Far,
}

/// What there is to say. Each limit that comes near is told once, and at most once an hour.
pub fn news(track: &mut Track, interval_ns: u64) -> Option<News> {
    let (limit, now) = (track.limit, track.unreclaimable()?);
    let share = |of: u64| of as f64 / limit as f64;
    if track.is(Track::NEAR) {
        // Without a limit, nothing is near it.
        let is_far = limit == 0 || share(now) < FAR;
        track.far_ns = match track.far_ns {
            _ if !is_far => 0,
            0 => track.last_ns,
            since => since,
        };
        let rested = track.last_ns.saturating_sub(track.far_ns) >= REST.saturating_mul(interval_ns);
        let is_far = is_far && (rested || limit == 0);
        track.set(Track::NEAR, !is_far);
        return is_far.then_some(News::Far);
    }
    let rests =
        track.told_ns != 0 && track.last_ns.saturating_sub(track.told_ns) < HOUR.saturating_mul(interval_ns);
    if limit == 0 || share(now) < NEAR || rests {
        return None;
    }
    let points = track.points(interval_ns);
    let near = full(&points, track, interval_ns).or_else(|| rising(&points, track, interval_ns))?;
    track.set(Track::NEAR, true);
    track.told_ns = track.last_ns;
    Some(News::Near(near))
}

/// Whether each sample of the last minute is full.
fn full(points: &[Point], track: &Track, interval_ns: u64) -> Option<Near> {
    let minute = MINUTE.saturating_mul(interval_ns);
    let since = track.last_ns.checked_sub(minute).filter(|since| *since >= track.first_ns)?;
    // The bucket in which the minute begins has older samples too.
    let inside = points.iter().rev().take_while(|point| point.at_ns > since);
    let is_full =
        |point: &Point| point.unreclaimable.is_some_and(|low| low as f64 >= FULL * track.limit as f64);
    (inside.clone().count() > 1 && inside.clone().all(is_full)).then_some(Near::Full)
}

/// Whether floors rise, in the shortest time that shows it.
fn rising(points: &[Point], track: &Track, interval_ns: u64) -> Option<Near> {
    let interval = interval_ns.max(1) as f64;
    let limit = track.limit as f64;
    let line: Vec<(f64, f64)> = points
        .iter()
        .filter_map(|point| {
            let before = track.last_ns.saturating_sub(point.at_ns) as f64 / interval;
            Some((-before, point.unreclaimable? as f64 / limit))
        })
        .collect();
    let now = track.unreclaimable()? as f64 / limit;
    let age = track.last_ns.saturating_sub(track.first_ns) as f64 / interval;
    WINDOWS
        .iter()
        .take_while(|(width, spans)| width * *spans as f64 <= age)
        .find_map(|(width, spans)| Some((rise(&line, *width, *spans, now)?, width * *spans as f64)))
        .map(|(slopes, window)| told(slopes, now, (window, interval), limit))
}

/// How fast floors rise in so many spans of this width, and in the second half of them, in parts of the limit per
/// interval; `None` if it is not certain that they rise, or go on to the limit.
fn rise(line: &Line, width: f64, spans: usize, now: f64) -> Option<(Slope, Slope)> {
    let floors = span_floors(line, -width * spans as f64, spans);
    let eight = span_floors(line, -width * spans as f64, 8);
    let falls = eight.windows(2).any(|two| matches!(two, [(_, one), (_, next)] if next - one < -FALL_MAX));
    if falls || floors.len() * 4 < spans * 3 {
        return None;
    }
    let half = -width * spans as f64 / 2.0;
    let part = |of: fn(&f64, &f64) -> bool| {
        let inside: Vec<(f64, f64)> = floors.iter().copied().filter(|(at, _)| of(at, &half)).collect();
        theil_sen(&inside)
    };
    let (all, first, second) = (theil_sen(&floors)?, part(f64::lt)?, part(f64::ge)?);
    if all.low <= 0.0 || second.middle <= 0.0 || all.middle * -half * 2.0 < RISE_MIN {
        return None;
    }
    // What gets slower by the same factor in each half ends at a level. It is a danger only above the limit.
    let goes_on = second.middle * second.middle * -half >= (1.0 - now) * (first.middle - second.middle);
    goes_on.then_some((all, second))
}

fn told((all, second): (Slope, Slope), now: f64, (window, interval): (f64, f64), limit: f64) -> Near {
    let left = (1.0 - now).max(0.0);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "never negative, and saturates"
    )]
    let ns = |intervals: f64| (intervals * interval).round() as u64;
    let soon = SOONER * left / all.high.max(second.middle);
    let late = LATER * left / all.low.min(second.middle);
    let pages = |slope: f64| slope * limit;
    Near::Rising {
        over_ns: ns(window),
        slope: Slope { middle: pages(all.middle), low: pages(all.low), high: pages(all.high) },
        to_limit_ns: (ns(soon), ns(late)),
    }
}
