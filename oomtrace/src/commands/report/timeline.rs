//! Kills over time: bars of equal spans, empty ones too.

use std::collections::BTreeMap;

/// Bars of equal spans.
#[derive(Debug)]
pub(super) struct Timeline {
    /// The first hour since 1970 of the first bar.
    first: i64,
    /// Hours of a bar.
    hours: i64,
    kills: Vec<u64>,
}

impl Timeline {
    /// At most `bars` bars; `None` without kills.
    pub(super) fn of(kills: &BTreeMap<i64, u64>, bars: usize) -> Option<Self> {
        const SPANS: [i64; 8] = [1, 3, 6, 12, 24, 24 * 7, 24 * 28, 24 * 364];
        let (first, last) = (*kills.first_key_value()?.0, *kills.last_key_value()?.0);
        let count = |span: i64| usize::try_from(last.div_euclid(span) - first.div_euclid(span) + 1).ok();
        let fits = |span: &&i64| count(**span).is_some_and(|count| count <= bars);
        // Beyond centuries each bar is as long as it must be.
        let most = i64::try_from(bars).ok()?.max(2);
        // The first one may begin before the first kill.
        let hours = SPANS.iter().find(fits).copied().unwrap_or((last - first) / (most - 1) + 1);
        let mut timeline = Self { first: first.div_euclid(hours) * hours, hours, kills: Vec::new() };
        for (hour, count) in kills {
            let place = usize::try_from((hour - timeline.first) / hours).ok()?;
            if timeline.kills.len() <= place {
                timeline.kills.resize(place + 1, 0);
            }
            if let Some(bar) = timeline.kills.get_mut(place) {
                *bar += count;
            }
        }
        Some(timeline)
    }

    /// How long a bar is, in words.
    pub(super) fn span(&self) -> String {
        match (self.hours, self.hours / 24) {
            (1, _) => "one hour".into(),
            (hours, 0) => format!("{hours} hours"),
            (_, 1) => "one day".into(),
            (_, days) => format!("{days} days"),
        }
    }

    /// The most kills of a bar; at least 1.
    pub(super) fn most(&self) -> u64 {
        self.kills.iter().copied().max().unwrap_or(1).max(1)
    }

    /// When each bar begins, and its kills.
    pub(super) fn bars(&self) -> impl ExactSizeIterator<Item = (String, u64)> {
        self.kills.iter().enumerate().map(|(place, kills)| {
            let hour = i64::try_from(place).unwrap_or(0) * self.hours + self.first;
            let time = jiff::Timestamp::from_second(hour.saturating_mul(3600)).map(|time| time.to_string());
            (minute(&time.unwrap_or_default()), *kills)
        })
    }
}

/// From the first time to the last. Both are empty where no line has a time of the calendar.
#[derive(Debug, Default)]
pub(super) struct Period {
    pub(super) first: String,
    pub(super) last: String,
}

impl Period {
    /// Takes in a time; `None` is not of the calendar.
    pub(super) fn see(&mut self, time: Option<&str>) {
        let Some(time) = time else { return };
        if self.first.is_empty() || time < &*self.first {
            time.clone_into(&mut self.first);
        }
        if time > &*self.last {
            time.clone_into(&mut self.last);
        }
    }

    /// `FIRST to LAST UTC`.
    pub(super) fn text(&self) -> String {
        match &*self.first {
            "" => "at unknown times".into(),
            first => format!("{} to {} UTC", minute(first), minute(&self.last)),
        }
    }
}

/// Date, hour and minute of an RFC 3339 time.
pub(super) fn minute(time: &str) -> String {
    time.get(..16).unwrap_or(time).replace('T', " ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn spans_are_the_shortest_that_fit_and_empty_ones_are_bars() {
        let kills = BTreeMap::from([(490_000, 2), (490_004, 1)]);
        let timeline = Timeline::of(&kills, 48).unwrap();
        assert_eq!(timeline.span(), "one hour");
        assert_eq!(timeline.kills, [2, 0, 0, 0, 1]);
        let timeline = Timeline::of(&kills, 4).unwrap();
        assert_eq!(timeline.span(), "3 hours");
        assert_eq!(timeline.bars().map(|(_, kills)| kills).sum::<u64>(), 3);
    }

    #[test]
    fn any_times_fit() {
        for (one, other) in [(-5_000_000, 80_000_000), (0, 0), (-1, 1), (23, 24)] {
            let kills = BTreeMap::from([(one, 1), (other, 1)]);
            let timeline = Timeline::of(&kills, 10).unwrap();
            assert!(timeline.bars().len() <= 10, "{one} {other}: {timeline:?}");
            assert_eq!(timeline.kills.iter().sum::<u64>(), kills.values().sum::<u64>());
        }
        assert!(Timeline::of(&BTreeMap::new(), 10).is_none());
    }
}
