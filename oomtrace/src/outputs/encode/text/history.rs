//! How memory went, for people.

use std::fmt::{self, Write};

use super::{Palette, Size, plain, who};
use crate::event::{Before, FloorSlope, LimitFar, LimitNear, NearBecause, Recurrence, Shape, Usage};

/// The usage over time, one character for each point: the highest of it is full height.
pub(crate) fn curve(points: &[(i64, u64)]) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = points.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0).max(1);
    let height = |bytes: u64| {
        let place = u128::from(bytes) * 8 / u128::from(most);
        HEIGHTS.get(usize::try_from(place).unwrap_or(7).min(7)).copied().unwrap_or('█')
    };
    points.iter().map(|(_, bytes)| height(*bytes)).collect()
}

/// How the kill came about.
pub(crate) fn write_before(before: &Before, out: &mut String) -> fmt::Result {
    let last = before
        .last
        .map(|last| format!("{} in the last sample, {} before", Size(last.usage_bytes), Span(last.age_ns)));
    let since = before.over_ns.zip(before.start_bytes);
    match (before.shape, since) {
        (Some(Shape::Short), _) => match before.age_ns {
            Some(age) => write!(out, "it had just begun: the first sample was {} before", Span(age))?,
            None => out.write_str("it had just begun: there was no sample yet")?,
        },
        (Some(Shape::AtLimit), _) => {
            write!(out, "at its limit for {}", Span(before.at_limit_ns.unwrap_or(0)))?;
        }
        (Some(Shape::Burst), _) => {
            write!(out, "a burst: {}", last.clone().unwrap_or_default())?;
        }
        (Some(Shape::Steps), Some((over, start))) => {
            write!(out, "in steps, from {} over {}", Size(start), Span(over))?;
        }
        (Some(Shape::Growth), Some((over, start))) => {
            write!(out, "it grew for {}, from {}", Span(over), Size(start))?;
            write_slope(before.floor_slope, before.over_ns, out)?;
        }
        (Some(_), _) => write!(out, "of no clear shape over {}", Span(before.age_ns.unwrap_or(0)))?,
        (None, _) => write!(out, "recorded for {}", Span(before.age_ns.unwrap_or(0)))?,
    }
    if let Some(last) = last.filter(|_| !matches!(before.shape, Some(Shape::Burst | Shape::Short))) {
        write!(out, "; {last}")?;
    }
    if let Some(other) = &before.unreclaimable {
        write!(out, "; without page cache {}", Size(other.last_bytes))?;
        if other.shape == Some(Shape::Growth)
            && let Some(start) = other.start_bytes
        {
            write!(out, ", which grew from {}", Size(start))?;
            write_slope(other.floor_slope, before.over_ns, out)?;
        }
    }
    // One far below the end says nothing about it.
    let highest = before.points.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
    if let Some(peak) = before.unseen_peak.filter(|peak| peak.usage_bytes >= highest / 2) {
        write!(
            out,
            "; a burst to {}, {} before, between two samples: the kernel's memory.peak shows it",
            Size(peak.usage_bytes),
            Span(peak.age_ns)
        )?;
    }
    Ok(())
}

/// How fast the floor rose, in a unit that is no longer than the time in which it rose.
fn write_slope(slope: Option<FloorSlope>, over_ns: Option<u64>, out: &mut String) -> fmt::Result {
    const MINUTES_10_NS: u64 = 600_000_000_000;
    let Some(bytes) = slope.and_then(|slope| u64::try_from(slope.bytes_per_hour).ok()) else { return Ok(()) };
    match over_ns {
        Some(..MINUTES_10_NS) => write!(out, ", mostly by {} a second", Size(bytes / 3600)),
        _ => write!(out, ", {} an hour", Size(bytes)),
    }
}

/// How often it happened.
pub(crate) fn write_recurrence(recurrence: &Recurrence, out: &mut String) -> fmt::Result {
    let Recurrence { key, kills, since, lifetime_ns } = recurrence;
    let since = since.get(..19).unwrap_or(since);
    write!(out, "{kills} kills of {} since {} UTC", plain(key), plain(since))?;
    match lifetime_ns {
        Some(lived) => write!(out, ", each after {} to {}", Span(lived.min), Span(lived.max)),
        None => Ok(()),
    }
}

pub(super) fn write_near(event: &LimitNear, palette: &Palette, out: &mut String) -> fmt::Result {
    let who = who(event.k8s.as_ref(), event.container.as_ref(), event.systemd.as_ref(), &event.cgroup.path);
    write!(
        out,
        "{}{who}{:#}: {} of {} cannot be reclaimed",
        palette.who,
        palette.who,
        Size(event.unreclaimable_bytes),
        Size(event.limit_bytes)
    )?;
    match event.because {
        NearBecause::Full => out.write_str(", for a minute")?,
        NearBecause::Rising => {
            out.write_str(", and it has risen")?;
            if let Some(over) = event.over_ns {
                write!(out, " for {}", Span(over))?;
            }
            write_slope(event.floor_slope, event.over_ns, out)?;
        }
    }
    match event.to_limit_ns {
        Some(to) => {
            write!(out, ": the limit comes in {} to {} if it goes on like that", Span(to.min), Span(to.max))
        }
        None => Ok(()),
    }
}

pub(super) fn write_far(event: &LimitFar, palette: &Palette, out: &mut String) -> fmt::Result {
    let who = who(event.k8s.as_ref(), event.container.as_ref(), event.systemd.as_ref(), &event.cgroup.path);
    write!(out, "{}{who}{:#}: ", palette.who, palette.who)?;
    match (event.removed, event.unreclaimable_bytes.or(event.usage_bytes)) {
        (true, _) | (_, None) => out.write_str("it was removed")?,
        (false, Some(bytes)) => {
            write!(out, "{}", Size(bytes))?;
            match event.limit_bytes {
                Some(limit) => write!(out, " of {}", Size(limit))?,
                None => out.write_str(", without a limit now")?,
            }
        }
    }
    write!(out, ", after {} near its limit", Span(event.near_ns))
}

pub(super) fn write_usage(event: &Usage, palette: &Palette, out: &mut String) -> fmt::Result {
    let Usage { key, limit_bytes, peak_bytes, floor_bytes, watched_ns, .. } = event;
    write!(out, "{}{}{:#}: at most {}", palette.who, plain(key), palette.who, Size(*peak_bytes))?;
    write!(out, " of {}, at least {}, in {}", Size(*limit_bytes), Size(*floor_bytes), Span(*watched_ns))?;
    if event.cgroup_count > 1 {
        write!(out, "; the fullest of {} cgroups", event.cgroup_count)
    } else {
        Ok(())
    }
}

/// A time in ns, in a unit that is easy to read.
pub(crate) struct Span(pub(crate) u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = |of: u64| (self.0 / (of / 10) / 10, self.0 / (of / 10) % 10);
        let ((whole, tenth), unit) = match self.0 / 1_000_000_000 {
            0 => return write!(f, "{} ms", self.0 / 1_000_000),
            1..120 => (tenths(1_000_000_000), "s"),
            120..7200 => return write!(f, "{} min", self.0 / 60_000_000_000),
            7200..172_800 => (tenths(3_600_000_000_000), "h"),
            _ => (tenths(86_400_000_000_000), "days"),
        };
        write!(f, "{whole}.{tenth} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_a_character_for_each_point() {
        assert_eq!(curve(&[(-3, 0), (-2, 100), (-1, 200), (0, 400)]), "▁▃▅█");
        assert_eq!(curve(&[]), "");
        assert_eq!(curve(&[(0, 0)]), "▁");
    }

    #[test]
    fn a_span_is_told_in_a_unit_that_fits() {
        let text = |ns: u64| Span(ns).to_string();
        let second = 1_000_000_000;
        assert_eq!(text(12_345_678), "12 ms");
        assert_eq!(text(3_250_000_000), "3.2 s");
        assert_eq!(text(2580 * second), "43 min");
        assert_eq!(text(9000 * second), "2.5 h");
        assert_eq!(text(200_000 * second), "2.3 days");
    }
}
