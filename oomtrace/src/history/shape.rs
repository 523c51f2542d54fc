//! One word for how a kill came about, where it is certain. The facts come first: see `docs/EVENTS.md`.

use crate::{
    event::Shape,
    history::{
        Point,
        slope::{Line, Slope, kendall, theil_sen, thinned},
    },
};

/// At most so many points are compared with each other.
const COMPARED: usize = 60;
/// The first minute is the start-up.
const START_UP: f64 = 6.0;
/// Fewer samples say nothing.
const SAMPLES_MIN: usize = 6;
/// A burst is told by what was before it: in these 10 minutes, but for the last 25 s.
const BEFORE: (f64, f64) = (60.0, 2.5);
/// How many equal spans floors are taken of.
const SPANS: usize = 8;

/// The kill, or whatever else the samples end with.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// When, in ns since boot.
    pub at_ns: u64,
    /// The usage at that time, in pages.
    pub usage: u64,
}

/// Of what the shape is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The usage.
    Usage,
    /// What of it cannot be reclaimed.
    Unreclaimable,
}

/// A point in intervals before the end, with usage as a part of that at the end.
#[derive(Clone, Copy, Debug)]
struct Part {
    at: f64,
    low: f64,
    high: f64,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Course {
    /// The word.
    pub shape: Shape,
    /// For how long the cgroup was at its limit before the end, in ns.
    pub at_limit_ns: u64,
    /// Since when floors are compared, in ns before the end, and the first of them in pages.
    pub start: Option<(u64, u64)>,
    /// How fast floors rose, in pages per interval.
    pub slope: Option<Slope>,
}

/// How the usage went until the end. `start_ns` is the first sample. All is relative to the usage at the end, which is
/// the limit if its limit fired.
pub fn course(points: &[Point], of: Of, end: End, (start_ns, interval_ns): (u64, u64)) -> Course {
    let interval = interval_ns.max(1) as f64;
    let before = |at_ns: u64| -(end.at_ns.saturating_sub(at_ns) as f64) / interval;
    let share = |pages: u64| pages as f64 / end.usage.max(1) as f64;
    let parts: Vec<Part> = points
        .iter()
        .filter(|point| point.at_ns <= end.at_ns)
        .filter_map(|point| {
            let (low, high) = match of {
                Of::Usage => (point.low, point.high),
                Of::Unreclaimable => (point.unreclaimable?, point.unreclaimable?),
            };
            Some(Part { at: before(point.at_ns), low: share(low), high: share(high) })
        })
        .collect();
    let start = before(start_ns);
    let since = at_limit_since(&parts);
    let body = body(&parts, start);
    let thin = thinned(&body, COMPARED);
    let slope = theil_sen(thin.split_last().map_or(&[][..], |(_, rest)| rest));
    let ns = |intervals: f64| to_u64(intervals * interval);
    let pages = |share: f64| to_u64(share * end.usage as f64);
    let scale = |by: f64| by * end.usage as f64;
    Course {
        shape: word(&parts, start, since, &body),
        at_limit_ns: ns(-since),
        start: body.first().filter(|_| body.len() > 1).map(|(at, low)| (ns(-at), pages(*low))),
        slope: slope.map(|slope| Slope {
            middle: scale(slope.middle),
            low: scale(slope.low),
            high: scale(slope.high),
        }),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, and saturates")]
fn to_u64(number: f64) -> u64 {
    number.max(0.0).round() as u64
}

/// The floors after the start-up, and the end.
fn body(parts: &[Part], start: f64) -> Vec<(f64, f64)> {
    let floors = parts.iter().filter(|part| part.at >= start + START_UP).map(|part| (part.at, part.low));
    floors.chain([(0.0, 1.0)]).collect()
}

fn word(parts: &[Part], start: f64, since: f64, body: &Line) -> Shape {
    if start > -START_UP || parts.len() < SAMPLES_MIN {
        return Shape::Short;
    }
    if since <= -START_UP && is_longer_than_growth(parts, start, since) {
        return Shape::AtLimit;
    }
    if is_burst(parts) {
        return Shape::Burst;
    }
    Floors::of(body).map_or(Shape::Irregular, |floors| floors.word(body))
}

/// Since when it had been at its limit: all points are at 85 % or more, and nine of ten at 97 %.
fn at_limit_since(parts: &[Part]) -> f64 {
    let (mut since, mut low) = (0.0, 0.0);
    for (count, part) in (1..).zip(parts.iter().rev()) {
        low += f64::from(u8::from(part.high < 0.97));
        if part.low < 0.85 || low > f64::max(1.0, 0.1 * f64::from(count)) {
            break;
        }
        if part.high >= 0.97 {
            since = part.at;
        }
    }
    since
}

/// Whether it was at its limit for four times as long as its pace before would need for the last 3 %. Something
/// that grows slowly is near its limit for long too.
fn is_longer_than_growth(parts: &[Part], start: f64, since: f64) -> bool {
    let before = |part: &&Part| part.at >= start + START_UP && part.at < since;
    let floors: Vec<(f64, f64)> = parts.iter().filter(before).map(|part| (part.at, part.low)).collect();
    let last = floors.get(floors.len().saturating_sub(COMPARED)..).unwrap_or_default();
    let pace = if last.len() < SAMPLES_MIN { None } else { theil_sen(last) };
    pace.is_none_or(|pace| pace.middle <= 0.0 || -since > 4.0 * 0.03 / pace.middle)
}

/// Whether a quarter or more came at the end.
fn is_burst(parts: &[Part]) -> bool {
    let until = || parts.iter().filter(|part| part.at <= -BEFORE.1);
    let highest = |highest: Option<f64>, part: &Part| Some(highest.map_or(part.high, |so| so.max(part.high)));
    let near = until().filter(|part| part.at >= -BEFORE.0).fold(None, highest);
    near.or_else(|| until().fold(None, highest)).is_some_and(|highest| 1.0 - highest >= 0.25)
}

/// The floors of equal spans of time.
struct Floors {
    /// From the first one to the end.
    rise: f64,
    span: f64,
    /// From each one to the next; the last one to the end.
    steps: Vec<f64>,
}

impl Floors {
    fn of(body: &Line) -> Option<Self> {
        let first = body.first().filter(|_| body.len() >= 12)?.0;
        let floors = span_floors(body.split_last()?.1, first, SPANS);
        let rise = 1.0 - floors.first()?.1;
        if floors.len() < 5 || rise < 0.15 {
            return None;
        }
        let next = floors.iter().skip(1).map(|(_, floor)| *floor).chain([1.0]);
        let steps = floors.iter().zip(next).map(|((_, floor), next)| next - floor).collect();
        Some(Self { rise, span: -first, steps })
    }

    fn word(&self, body: &Line) -> Shape {
        if self.steps.iter().any(|step| *step <= -0.02) {
            return Shape::Irregular;
        }
        if jumps(body) >= 0.7 * self.rise {
            return Shape::Steps;
        }
        let thin = thinned(body, COMPARED);
        let tau = kendall(&thin);
        let largest = self.steps.iter().copied().fold(0.0, f64::max) / self.rise;
        let slope = theil_sen(thin.split_last().map_or(&[][..], |(_, rest)| rest));
        let rises = slope.is_some_and(|slope| slope.middle * self.span >= 0.4 * self.rise);
        if rises && tau >= 0.6 && largest <= 0.45 {
            return Shape::Growth;
        }
        let mut high: Vec<f64> = self.steps.iter().copied().filter(|step| *step > 0.1).collect();
        high.sort_by(|one, other| other.total_cmp(one));
        let few: f64 = high.iter().take(3).sum();
        let is_few = few >= 0.75 * self.rise && largest > 0.3 && tau >= 0.4;
        if is_few { Shape::Steps } else { Shape::Irregular }
    }
}

/// The lowest of each of the equal spans until now that has a point, with the span's middle.
pub(super) fn span_floors(floors: &Line, from: f64, spans: usize) -> Vec<(f64, f64)> {
    let width = -from / spans as f64;
    (0..spans)
        .filter_map(|span| {
            let (begins, ends) = (from + span as f64 * width, from + (span + 1) as f64 * width);
            let inside = floors.iter().filter(|(at, _)| (begins..=ends).contains(at));
            let lowest = inside.map(|(_, low)| *low).min_by(f64::total_cmp)?;
            Some(((begins + ends) / 2.0, lowest))
        })
        .collect()
}

/// The sum of the four largest jumps: from the higher of two points to the lower of the next two.
fn jumps(body: &Line) -> f64 {
    let mut jumps: Vec<f64> = body
        .windows(4)
        .filter_map(|four| match four {
            [(_, a), (_, b), (_, c), (_, d)] => Some(c.min(*d) - a.max(*b)),
            _ => None,
        })
        .chain(body.windows(2).last().and_then(|two| match two {
            [(_, before), (_, end)] => Some(end - before),
            _ => None,
        }))
        .filter(|jump| *jump > 0.07)
        .collect();
    jumps.sort_by(|one, other| other.total_cmp(one));
    jumps.iter().take(4).sum()
}
