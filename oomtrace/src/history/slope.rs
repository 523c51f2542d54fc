//! How fast something rises, if some points are far off: the median of the slopes of all pairs (Theil and Sen),
//! its bounds, and how often a later point is higher (Kendall).

/// Times and values, the times rising.
pub(super) type Line = [(f64, f64)];

/// A slope with the bounds between which it is with 95 % certainty, if the points differ from a line by chance.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Slope {
    /// The median.
    pub middle: f64,
    /// It is not lower.
    pub low: f64,
    /// It is not higher.
    pub high: f64,
}

/// The slope; `None` of fewer than three points.
pub(super) fn theil_sen(line: &Line) -> Option<Slope> {
    if line.len() < 3 {
        return None;
    }
    let mut slopes: Vec<f64> = pairs(line)
        .filter(|((from, _), (to, _))| to > from)
        .map(|((from, low), (to, high))| (high - low) / (to - from))
        .collect();
    slopes.sort_by(f64::total_cmp);
    let count = line.len() as f64;
    let spread = 1.96 * (count * (count - 1.0) * (2.0 * count + 5.0) / 18.0).sqrt();
    let middle = slopes.len() as f64 / 2.0;
    Some(Slope {
        middle: at(&slopes, middle)?,
        low: at(&slopes, middle - spread / 2.0)?,
        high: at(&slopes, middle + spread / 2.0)?,
    })
}

/// From -1, if each later value is lower, to 1, if each is higher.
pub(super) fn kendall(line: &Line) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for ((_, before), (_, after)) in pairs(line) {
        count += 1.0;
        if after != before {
            sum += if after > before { 1.0 } else { -1.0 };
        }
    }
    if count > 0.0 { sum / count } else { 0.0 }
}

/// At most `most` of the points, evenly in time, the last one among them.
pub(super) fn thinned(line: &Line, most: usize) -> Vec<(f64, f64)> {
    let (Some((first, _)), Some(last)) = (line.first(), line.last()) else { return Vec::new() };
    let step = (last.0 - first) / most as f64;
    let mut next = *first;
    let mut thin = Vec::with_capacity(most + 2);
    for point in line {
        if point.0 >= next || point.0 >= last.0 {
            thin.push(*point);
            next = point.0 + step;
        }
    }
    thin
}

fn pairs(line: &Line) -> impl Iterator<Item = ((f64, f64), (f64, f64))> + '_ {
    let later = |at: usize| line.get(at + 1..).unwrap_or_default().iter().copied();
    line.iter().enumerate().flat_map(move |(at, one)| later(at).map(move |other| (*one, other)))
}

/// The value at a place; the first or the last one beyond the ends.
fn at(sorted: &[f64], place: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the length")]
    let place = place.clamp(0.0, last as f64) as usize;
    sorted.get(place).copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    #[test]
    fn a_line_has_its_slope_though_some_points_are_far_off() {
        let mut line: Vec<(f64, f64)> = (0..40).map(|x| (f64::from(x), 5.0 + 2.0 * f64::from(x))).collect();
        let slope = theil_sen(&line).unwrap();
        assert_eq!((slope.low, slope.middle, slope.high), (2.0, 2.0, 2.0));
        for at in [3, 17, 30] {
            line[at].1 += 500.0;
        }
        let slope = theil_sen(&line).unwrap();
        assert!((slope.middle - 2.0).abs() < 0.1 && slope.low > 1.0 && slope.high < 4.0, "{slope:?}");
        assert!(kendall(&line) > 0.7);
    }

    #[test]
    fn what_goes_up_and_down_does_not_rise_with_certainty() {
        let line: Vec<(f64, f64)> = (0..40).map(|x| (f64::from(x), f64::from(x * 7 % 5))).collect();
        let slope = theil_sen(&line).unwrap();
        assert!(slope.low <= 0.0 && slope.high >= 0.0, "{slope:?}");
        assert!(kendall(&line).abs() < 0.2);
        assert_eq!(theil_sen(&line[..2]), None);
        assert_eq!((kendall(&[]), thinned(&[], 9)), (0.0, Vec::new()));
    }

    #[test]
    fn thinned_points_are_few_and_keep_the_last() {
        let line: Vec<(f64, f64)> = (0..1000).map(|x| (f64::from(x), 0.0)).collect();
        let thin = thinned(&line, 60);
        assert!((55..=61).contains(&thin.len()) && thin.last() == line.last() && thin[0] == line[0]);
    }
}
