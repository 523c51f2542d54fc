//! Kernel time to calendar time: a moment of `CLOCK_BOOTTIME` goes in, RFC 3339 text comes out.
//!
//! What the clock was when an event waited while it was set is [`calendar`](crate::host::calendar)'s part.

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::facts::BootTime;

/// The distance between `CLOCK_REALTIME` and `CLOCK_BOOTTIME` at one moment. The default is none: a host that booted in 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockOffset {
    ns: i128,
}

impl ClockOffset {
    /// The distance now.
    pub fn sample() -> Self {
        // A reading that was interrupted between its two ends is off by half the interruption: the tightest counts, and one that
        // was not interrupted is tight enough.
        const TIGHT_NS: i128 = 20_000;
        let mut best = (i128::MAX, 0);
        for _ in 0..16 {
            let before = read_ns(ClockId::Boottime);
            let unix = read_ns(ClockId::Realtime);
            let width = read_ns(ClockId::Boottime) - before;
            if width < best.0 {
                best = (width, unix - before - width / 2);
            }
            if width < TIGHT_NS {
                break;
            }
        }
        Self { ns: best.1 }
    }

    /// The distance as a number.
    pub fn from_ns(ns: i128) -> Self {
        Self { ns }
    }

    /// The distance, nanoseconds.
    pub fn ns(self) -> i128 {
        self.ns
    }

    /// `time` as nanoseconds since 1970-01-01T00:00:00Z.
    pub fn unix_ns(self, time: BootTime) -> i128 {
        i128::from(time.0) + self.ns
    }

    /// `time` as text; see [`rfc3339`].
    pub fn rfc3339(self, time: BootTime) -> String {
        rfc3339(self.unix_ns(time))
    }
}

/// The moment now.
pub fn boot_time() -> BootTime {
    BootTime(u64::try_from(read_ns(ClockId::Boottime)).unwrap_or(0))
}

/// A time of the calendar that no host reaches: the year 2200, in seconds.
pub const FAR_FUTURE: i64 = 7_258_118_400;

/// The moment of a record of the kernel's log, of which the clock read `log_ns`, as far as its clock can be held against
/// others. The log's clock stands still while the host is suspended; a suspend since then cannot be seen, and shifts the
/// time by its length.
pub fn boot_time_of_log(log_ns: u64) -> BootTime {
    BootTime(log_ns.saturating_add(suspended_ns()))
}

/// What the log's clock read at about `time`, in nanoseconds.
pub fn log_time(time: BootTime) -> u64 {
    time.0.saturating_sub(suspended_ns())
}

/// For how long the host was suspended since boot.
pub fn suspended_ns() -> u64 {
    // In this order: what passes between the two readings is no suspend.
    let boot = boot_time().0;
    boot.saturating_sub(u64::try_from(read_ns(ClockId::Monotonic)).unwrap_or(0))
}

/// Nanoseconds since 1970-01-01T00:00:00Z as RFC 3339, UTC, with nine fraction digits and `Z`.
///
/// A time outside the years −9999 to 9999, which no kernel clock reaches, becomes the nearest within.
pub fn rfc3339(unix_ns: i128) -> String {
    let nearest = if unix_ns < 0 { Timestamp::MIN } else { Timestamp::MAX };
    let time = Timestamp::from_nanosecond(unix_ns).unwrap_or(nearest);
    format!("{time:.9}")
}

fn read_ns(clock: ClockId) -> i128 {
    let time = clock_gettime(clock);
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nine_digits_and_z() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(1_000_000_000_000_000_001), "2001-09-09T01:46:40.000000001Z");
        assert_eq!(rfc3339(1_709_164_799_999_999_999), "2024-02-28T23:59:59.999999999Z");
        assert_eq!(rfc3339(1_709_164_800_100_000_000), "2024-02-29T00:00:00.100000000Z");
        assert_eq!(rfc3339(i128::MAX), rfc3339(i128::MAX - 1));
    }

    #[test]
    fn now_is_now() {
        let unix = Timestamp::now().as_nanosecond();
        let converted = ClockOffset::sample().unix_ns(boot_time());
        // Within a minute: it is the clock that is checked, not the machine's load.
        assert!((converted - unix).abs() < 60_000_000_000, "{converted} {unix}");
    }

    proptest! {
        #[test]
        fn text_and_number_agree(seconds in -62_135_596_800_i64..253_402_300_000, ns in 0..1_000_000_000_i128) {
            let unix = i128::from(seconds) * 1_000_000_000 + ns;
            let text = rfc3339(unix);
            prop_assert_eq!(text.len(), 30);
            prop_assert_eq!(text.parse::<Timestamp>().unwrap().as_nanosecond(), unix);
            prop_assert_eq!(&text[20..29], format!("{ns:09}"));
        }
    }
}
