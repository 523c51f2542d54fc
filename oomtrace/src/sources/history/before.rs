//! What an incident says of the time before the kill. At the kill only the track is copied; the rest is computed when the
//! incident is written.

use crate::{
    cgroups::tree::CgroupTree,
    enrich::absent::Absent,
    event::{Before, BeforeOf, FloorSlope, LastSample, OomKill, Reason, Scope, Shape, UnreclaimableBefore},
    history::{
        Point, Track,
        shape::{Course, End, Of, course},
        slope::Slope,
    },
    sources::history::History,
};

/// Points of a line.
const POINTS: usize = 24;
/// Intervals of an hour.
const HOUR_NS: f64 = 3_600_000_000_000.0;

/// What is known of a kill's past.
#[derive(Clone, Debug)]
pub struct Snapshot {
    track: Option<Track>,
    of: BeforeOf,
    end_ns: u64,
    /// The usage and the limit of the cgroup whose limit fired, in pages.
    usage: Option<u64>,
    limit: Option<u64>,
    scope: Option<Scope>,
    /// It was made so lately that there is no sample for that reason.
    is_new: bool,
    interval_ns: u64,
    page_bytes: u64,
}

impl Snapshot {
    /// Of the cgroup whose limit fired, else of the victim's.
    pub(super) fn of(kill: &OomKill, end_ns: u64, history: &History, tree: &CgroupTree) -> Self {
        let id = |id: Option<&String>| id.and_then(|id| id.parse::<u64>().ok());
        let track = |id: u64| history.tracks.find(id).and_then(|found| history.tracks.get(found)).copied();
        let fired = kill.oom.cgroup.as_ref();
        let limit_id = id(fired.and_then(|fired| fired.cgroup.id.as_ref()));
        let victim_id = id(kill.victim.cgroup.id.as_ref());
        let is_new = |id: Option<u64>| id.is_some_and(|id| history.is_new(id, end_ns, tree));
        let (of, track) = match (limit_id.and_then(track), victim_id.and_then(track)) {
            (Some(track), _) => (BeforeOf::Limit, Some(track)),
            (None, _) if is_new(limit_id) => (BeforeOf::Limit, None),
            (None, Some(track)) => (BeforeOf::Victim, Some(track)),
            (None, None) => (if fired.is_some() { BeforeOf::Limit } else { BeforeOf::Victim }, None),
        };
        let pages = |bytes: u64| history.pages(bytes);
        Self {
            is_new: track.is_none() && is_new(if of == BeforeOf::Limit { limit_id } else { victim_id }),
            track,
            of,
            end_ns,
            limit: fired.and_then(|fired| fired.limit_bytes).map(pages),
            usage: fired.and_then(|fired| fired.usage_bytes.or(fired.limit_bytes)).map(pages),
            scope: kill.oom.scope,
            interval_ns: history.tracks.interval_ns(),
            page_bytes: history.page_bytes,
        }
    }

    /// Its size in bytes.
    pub const BYTES: usize = size_of::<Self>();

    /// What there is to say, and why something is absent.
    pub fn told(&self, absent: &mut Absent) -> Option<Before> {
        let none = Before {
            of: self.of,
            interval_ns: self.interval_ns,
            samples: 0,
            age_ns: None,
            shape: None,
            over_ns: None,
            start_bytes: None,
            floor_slope: None,
            last: None,
            at_limit_ns: None,
            unseen_peak: None,
            unreclaimable: None,
            points: Vec::new(),
        };
        let Some(track) = &self.track else {
            if self.is_new && self.of == BeforeOf::Limit {
                return Some(Before { shape: Some(Shape::Short), ..none });
            }
            absent.because("before", Reason::NotSampled);
            return None;
        };
        let points = track.points(self.interval_ns);
        let points: Vec<Point> = points.into_iter().filter(|point| point.at_ns <= self.end_ns).collect();
        let Some(last) = points.last() else {
            absent.because("before", Reason::NotSampled);
            return None;
        };
        let end = End { at_ns: self.end_ns, usage: self.usage_at_end(last) };
        let of = |of: Of| course(&points, of, end, (track.first_ns, self.interval_ns));
        let usage = of(Of::Usage);
        let age = |at_ns: u64| self.end_ns.saturating_sub(at_ns);
        Some(Before {
            samples: u64::from(track.samples),
            age_ns: Some(age(track.first_ns)),
            shape: self.shape(track, &usage, absent),
            over_ns: usage.start.map(|(ns, _)| ns),
            start_bytes: usage.start.map(|(_, pages)| self.bytes(pages)),
            floor_slope: usage.slope.map(|slope| self.slope(slope)),
            last: Some(LastSample {
                age_ns: age(last.at_ns),
                usage_bytes: self.bytes(self.last(track, last)),
            }),
            at_limit_ns: self.limit.map(|_| usage.at_limit_ns),
            unseen_peak: (track.unseen > 0 && track.unseen_ns <= self.end_ns)
                .then(|| LastSample { age_ns: age(track.unseen_ns), usage_bytes: self.bytes(track.unseen) }),
            unreclaimable: self.unreclaimable(track, &points, || of(Of::Unreclaimable)),
            points: self.points(&points, end),
            ..none
        })
    }

    fn usage_at_end(&self, last: &Point) -> u64 {
        self.usage.filter(|_| self.of == BeforeOf::Limit).unwrap_or(last.high)
    }

    /// The last sample, exactly if it is the last of the track.
    fn last(&self, track: &Track, last: &Point) -> u64 {
        if track.last_ns <= self.end_ns { track.usage } else { last.high }
    }

    fn shape(&self, track: &Track, course: &Course, absent: &mut Absent) -> Option<Shape> {
        let why = match (self.of, self.limit) {
            _ if self.scope != Some(Scope::Memcg) => Reason::NoLimitFired,
            (BeforeOf::Victim, _) | (_, None) => Reason::NotSampled,
            (_, Some(limit)) if track.limit > 0 && limit.abs_diff(track.limit) > limit / 50 => {
                Reason::LimitChanged
            }
            _ if course.shape == Shape::Short && !track.is(Track::FROM_START) => Reason::RecordedTooShort,
            _ => return Some(course.shape),
        };
        absent.because("before.shape", why);
        None
    }

    /// Said only if page cache makes a difference: at the end, or at a time when the usage was near the limit already.
    fn unreclaimable(
        &self,
        track: &Track,
        points: &[Point],
        course: impl FnOnce() -> Course,
    ) -> Option<UnreclaimableBefore> {
        let last = points.last()?;
        let now = last.unreclaimable?;
        let limit = self.limit.filter(|_| self.of == BeforeOf::Limit)?;
        let hides = |point: &Point| {
            let cache = point.high.saturating_sub(point.unreclaimable.unwrap_or(point.high));
            cache >= point.high / 20 && (point == last || point.high >= limit - limit / 10)
        };
        if !points.iter().any(hides) {
            return None;
        }
        let course = course();
        let is_told = course.shape != Shape::Short || track.is(Track::FROM_START);
        Some(UnreclaimableBefore {
            shape: is_told.then_some(course.shape),
            start_bytes: course.start.map(|(_, pages)| self.bytes(pages)),
            last_bytes: self.bytes(now),
            floor_slope: course.slope.map(|slope| self.slope(slope)),
        })
    }

    /// The highest usage of equal spans, and the end.
    fn points(&self, points: &[Point], end: End) -> Vec<(i64, u64)> {
        let before =
            |at_ns: u64| -i64::try_from(end.at_ns.saturating_sub(at_ns) / 1_000_000).unwrap_or(i64::MAX);
        let first = points.first().map_or(end.at_ns, |point| point.at_ns);
        let spans = u64::try_from(POINTS - 1).unwrap_or(1);
        let width = (end.at_ns.saturating_sub(first) / spans + 1).max(1);
        let mut thin: Vec<(u64, u64, u64)> = Vec::with_capacity(POINTS);
        for point in points {
            let span = point.at_ns.saturating_sub(first) / width;
            match thin.last_mut().filter(|(known, ..)| *known == span) {
                Some((_, at_ns, high)) => (*at_ns, *high) = (point.at_ns, point.high.max(*high)),
                None => thin.push((span, point.at_ns, point.high)),
            }
        }
        let end = self.usage.filter(|_| self.of == BeforeOf::Limit).map(|usage| (0, self.bytes(usage)));
        thin.into_iter().map(|(_, at_ns, high)| (before(at_ns), self.bytes(high))).chain(end).collect()
    }

    fn bytes(&self, pages: u64) -> u64 {
        pages.saturating_mul(self.page_bytes)
    }

    fn slope(&self, slope: Slope) -> FloorSlope {
        floor_slope(slope, self.interval_ns, self.page_bytes)
    }
}

/// In bytes per hour.
pub(super) fn floor_slope(slope: Slope, interval_ns: u64, page_bytes: u64) -> FloorSlope {
    let scale = HOUR_NS / interval_ns.max(1) as f64 * page_bytes as f64;
    #[allow(clippy::cast_possible_truncation, reason = "it saturates")]
    let bytes = |pages: f64| (pages * scale).round() as i64;
    FloorSlope {
        bytes_per_hour: bytes(slope.middle),
        low_bytes_per_hour: bytes(slope.low),
        high_bytes_per_hour: bytes(slope.high),
    }
}
