//! Kernel time to calendar time: takes a time of `CLOCK_BOOTTIME`, returns RFC 3339 text.
//!
//! [`calendar`](crate::host::calendar) handles a clock that is set between an event and its line.

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::facts::BootTime;

/// The offset of `CLOCK_REALTIME` from `CLOCK_BOOTTIME`. The default is none, as on a host that booted in
/// 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockOffset {
    ns: i128,
}

impl ClockOffset {
    /// The offset now.
    pub fn sample() -> Self {
        // An interruption during a sample adds half its length to the error. So the shortest sample is used,
        // and one as short as this is good enough.
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

    /// The offset from nanoseconds.
    pub fn from_ns(ns: i128) -> Self {
        Self { ns }
    }

    /// The offset in nanoseconds.
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

/// The time now.
pub fn boot_time() -> BootTime {
    BootTime(u64::try_from(read_ns(ClockId::Boottime)).unwrap_or(0))
}

/// A calendar time that no host reaches: the year 2200, in seconds.
pub const FAR_FUTURE: i64 = 7_258_118_400;

/// The time of a record of the kernel log whose clock read `log_ns`. The log's clock stops while the host is
/// suspended. If the host was suspended after the record, the result is wrong by the length of that suspend,
/// and this cannot be seen.
pub fn boot_time_of_log(log_ns: u64) -> BootTime {
    BootTime(log_ns.saturating_add(suspended_ns()))
}

/// What the log's clock read at `time`, approximately, in nanoseconds.
pub fn log_time(time: BootTime) -> u64 {
    time.0.saturating_sub(suspended_ns())
}

/// How long the host was suspended since boot.
pub fn suspended_ns() -> u64 {
    // In this order, so that the time between the two readings does not look like a suspend.
    let boot = boot_time().0;
    boot.saturating_sub(u64::try_from(read_ns(ClockId::Monotonic)).unwrap_or(0))
}

/// Nanoseconds since 1970-01-01T00:00:00Z as RFC 3339, UTC, with nine fraction digits and `Z`.
///
/// A time outside the years −9999 to 9999, which no kernel clock reaches, becomes the nearest one inside.
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
        // Within a minute: the test checks the clock, not the load of the machine.
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
