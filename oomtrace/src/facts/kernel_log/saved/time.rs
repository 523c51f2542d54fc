//! Parses the times of log lines into nanoseconds since 1970.

use jiff::{
    Timestamp,
    civil::{Date, DateTime, Time},
    tz::Offset,
};

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY_NS: i128 = 86_400_000_000_000;

/// Whole seconds and a fraction of at most nine digits, as nanoseconds: `12345.678901`.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.')?;
    whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanoseconds(fraction)?)
}

fn nanoseconds(fraction: &str) -> Option<u64> {
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{fraction:0<9}").parse().ok()
}

/// `2026-11-21T03:12:45.123456+00:00`, with any zone as a number or `Z`.
pub(super) fn rfc3339(text: &str) -> Option<i128> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_nanosecond)
}

/// `2026-11-21` and `03:12:45.123456`, as if it were UTC.
pub(super) fn iso(date: &str, clock: &str) -> Option<i128> {
    let mut parts = date.split('-');
    let year = parts.next().filter(|year| year.len() == 4)?.parse().ok()?;
    let date = Date::new(year, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?).ok()?;
    if parts.next().is_some() {
        return None;
    }
    as_utc(date.to_datetime(time(clock)?))
}

/// `Nov`, `21`, `03:12:45` and the year.
pub(super) fn with_year(month: &str, day: &str, clock: &str, year: &str) -> Option<i128> {
    as_utc(moment(month, day, clock, year.parse().ok()?)?)
}

/// `Nov`, `21`, `03:12:45`: in the latest year in which this is not more than a day after `now`.
pub(super) fn without_year(month: &str, day: &str, clock: &str, now: i128) -> Option<i128> {
    let this_year = Timestamp::from_nanosecond(now).ok().map(|now| Offset::UTC.to_datetime(now).year())?;
    // Eight years always contain a leap day.
    (0..=8).find_map(|back| {
        let unix = as_utc(moment(month, day, clock, this_year.checked_add(1 - back)?)?)?;
        (unix <= now.saturating_add(DAY_NS)).then_some(unix)
    })
}

fn moment(month: &str, day: &str, clock: &str, year: i16) -> Option<DateTime> {
    let month = MONTHS.iter().position(|name| *name == month)?;
    let date = Date::new(year, i8::try_from(month + 1).ok()?, day.parse().ok()?).ok()?;
    Some(date.to_datetime(time(clock)?))
}

fn time(clock: &str) -> Option<Time> {
    let (clock, fraction) = clock.split_once('.').map_or((clock, None), |(clock, part)| (clock, Some(part)));
    let mut parts = clock.split(':').map(|part| (part.len() == 2).then(|| part.parse::<i8>().ok())?);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() {
        return None;
    }
    let ns = fraction.map_or(Some(0), nanoseconds)?;
    Time::new(hour, minute, second, i32::try_from(ns).ok()?).ok()
}

fn as_utc(moment: DateTime) -> Option<i128> {
    Offset::UTC.to_timestamp(moment).ok().map(Timestamp::as_nanosecond)
}
