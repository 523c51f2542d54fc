//! The time at the start of a line.

use std::fmt::{self, Write};

use anstyle::Style;
use jiff::civil::{Date, date};

use super::plain;
use crate::event::{Event, Missing, Reason};

/// `2026-11-21 03:12:45.123Z`, with milliseconds.
pub(super) fn write_time(event: &Event, style: Style, out: &mut String) -> fmt::Result {
    // A saved kernel log may only have the local time or the time since boot.
    let inexact = match event {
        Event::OomKill(kill) => inexact(&kill.missing),
        _ => None,
    };
    write_moment(&event.envelope().time, inexact, style, out)
}

/// Why a time is not exact.
pub(crate) fn inexact(missing: &Missing) -> Option<Reason> {
    missing.iter().find(|absence| absence.key == "time").map(|absence| absence.reason)
}

/// The time of an event that is exact, or is not for this reason.
pub(crate) fn write_moment(
    time: &str,
    inexact: Option<Reason>,
    style: Style,
    out: &mut String,
) -> fmt::Result {
    let time = plain(time);
    match (time.get(..10), time.get(11..23), inexact) {
        (Some(day), Some(time), Some(Reason::LogSinceBoot)) => write_since_boot(day, time, style, out),
        (Some(day), Some(time), Some(Reason::LogLocalTime)) => {
            write!(out, "{style}{day} {time} local{style:#}")
        }
        (Some(day), Some(time), _) => write!(out, "{style}{day} {time}Z{style:#}"),
        _ => write!(out, "{style}{time}{style:#}"),
    }
}

/// `boot+3d 03:12:45.123`: the boot is at the beginning of 1970.
fn write_since_boot(day: &str, time: &str, style: Style, out: &mut String) -> fmt::Result {
    let days =
        day.parse::<Date>().ok().and_then(|day| day.since(date(1970, 1, 1)).ok()).map(|span| span.get_days());
    write!(out, "{style}boot+{}d {time}{style:#}", days.unwrap_or(0))
}
