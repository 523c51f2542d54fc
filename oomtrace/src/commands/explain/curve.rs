//! How the memory went before a kill, drawn with characters.

use crate::{
    event::Before,
    outputs::encode::text::{Size, history::Span},
};

/// Characters of a row, and rows.
const COLUMNS: usize = 48;
const ROWS: usize = 5;
/// Steps of a character.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The curve with its two axes; nothing if there is no more than the kill itself.
pub(super) fn lines(before: &Before, limit: Option<u64>) -> Vec<String> {
    let points = &before.points;
    let Some((first, _)) = points.first().filter(|(first, _)| *first < 0) else { return Vec::new() };
    let peak = points.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
    let most = peak.max(limit.unwrap_or(0)).max(1);
    let heights: Vec<usize> = columns(points, *first).into_iter().map(|bytes| height(bytes, most)).collect();
    let top = Size(most).to_string();
    let top = if limit == Some(most) { format!("limit {top}") } else { top };
    let width = top.chars().count();
    let mut lines: Vec<String> = (0..ROWS)
        .map(|row| {
            let below = (ROWS - 1 - row) * 8;
            let drawn: String =
                heights.iter().map(|height| eighth(height.saturating_sub(below).min(8))).collect();
            let name = if row == 0 { &*top } else { "" };
            format!("{name:>width$} │{}", drawn.trim_end())
        })
        .collect();
    lines.push(format!("{:>width$} └{}", "0", "─".repeat(COLUMNS)));
    let (from, to) = (format!("{} before", Span(first.unsigned_abs().saturating_mul(1_000_000))), "the kill");
    let gap = COLUMNS.saturating_sub(from.chars().count() + to.len()).max(1);
    lines.push(format!("{:width$}  {from}{}{to}", "", " ".repeat(gap)));
    let every = Span(before.interval_ns);
    lines.push(format!(
        "{} samples, {every} or more apart; each column is the highest of its time",
        before.samples
    ));
    lines
}

/// The highest usage of each column. A point stands for the time since the point before it.
fn columns(points: &[(i64, u64)], first: i64) -> Vec<u64> {
    let span = first.unsigned_abs().max(1);
    let columns = u64::try_from(COLUMNS).unwrap_or(1);
    let column = |at: i64| {
        let gone = span.saturating_sub(at.min(0).unsigned_abs());
        usize::try_from(u128::from(gone) * u128::from(columns - 1) / u128::from(span)).unwrap_or(0)
    };
    let mut highest = Vec::with_capacity(COLUMNS);
    for (at, bytes) in points {
        let at = column(*at).min(COLUMNS - 1);
        if let Some(there) = highest.get_mut(at) {
            *there = *bytes.max(there);
        } else {
            highest.resize(at + 1, *bytes);
        }
    }
    highest
}

/// In eighths of a row. What is not 0 is drawn.
fn height(bytes: u64, most: u64) -> usize {
    let all = u128::try_from(ROWS * 8).unwrap_or(1);
    usize::try_from((u128::from(bytes) * all).div_ceil(u128::from(most.max(1)))).unwrap_or(0).min(ROWS * 8)
}

fn eighth(count: usize) -> char {
    EIGHTHS.get(count).copied().unwrap_or('█')
}

/// A bar of a share of a limit.
pub(super) fn bar(bytes: u64, limit: u64, width: usize) -> String {
    let eighths = u128::from(bytes) * u128::try_from(width * 8).unwrap_or(1) / u128::from(limit.max(1));
    let eighths = usize::try_from(eighths).unwrap_or(usize::MAX).min(width * 8);
    let last = if bytes > 0 && eighths == 0 { Some('▏') } else { part(eighths % 8) };
    "█".repeat(eighths / 8).chars().chain(last).collect()
}

/// A part of a character from the left.
fn part(eighths: usize) -> Option<char> {
    ['▏', '▎', '▍', '▌', '▋', '▊', '▉'].get(eighths.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "tests")]

    use super::*;

    #[test]
    fn a_point_stands_for_the_time_before_it() {
        let all = columns(&[(-47_000, 10), (-23_000, 30), (-20_000, 20), (0, 50)], -47_000);
        assert_eq!(all.len(), COLUMNS);
        assert_eq!((all[0], all[1], all[24], all[25], all[27], all[47]), (10, 30, 30, 20, 20, 50));
    }

    #[test]
    fn any_points_are_drawn() {
        for points in [
            vec![(-1, 0), (0, 0)],
            vec![(i64::MIN, u64::MAX), (i64::MAX, 1)],
            vec![(-5, 7), (-9, 8), (3, u64::MAX)],
        ] {
            let first = points[0].0;
            let all = columns(&points, first);
            assert!(!all.is_empty() && all.len() <= COLUMNS, "{points:?}: {all:?}");
            assert!(all.iter().all(|bytes| height(*bytes, u64::MAX) <= ROWS * 8));
        }
        assert_eq!((height(0, 100), height(1, 1000), height(1000, 1000)), (0, 1, ROWS * 8));
    }

    #[test]
    fn a_bar_is_never_longer_than_its_width_and_never_empty_of_something() {
        assert_eq!((&*bar(0, 100, 8), &*bar(1, 1 << 40, 8), &*bar(50, 100, 8)), ("", "▏", "████"));
        assert_eq!(bar(u64::MAX, 1, 8), "████████");
        assert_eq!(bar(5, 0, 2), "██");
    }
}
