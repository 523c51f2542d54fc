//! The ratio of two tracers from their turns, with its 95 % interval. Pure.

use std::fmt;

/// The fewest turns for an interval. With fewer it is too wide to be useful.
pub const PAIRS: usize = 5;

/// A ratio, and the interval that contains it in 95 of 100 runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// The geometric mean of the turns' ratios.
    pub mean: f64,
    /// Its interval, if there are enough turns.
    pub interval: Option<(f64, f64)>,
}

impl Ratio {
    /// The ratio of two lists of values, paired by turn. `None` if there is no pair, or if a value is not
    /// positive.
    ///
    /// The logarithms of the ratios are compared, so that half and twice are equally far from 1. Their mean
    /// has Student's t-distribution.
    pub fn of(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        if ours.iter().chain(theirs).any(|value| *value <= 0.0) {
            return None;
        }
        let logarithms: Vec<f64> =
            ours.iter().zip(theirs).map(|(ours, theirs)| (ours / theirs).ln()).collect();
        let count = logarithms.len();
        #[expect(clippy::cast_precision_loss, reason = "a count of turns")]
        let n = count as f64;
        let mean = logarithms.iter().sum::<f64>() / n;
        if count == 0 {
            return None;
        }
        let squares: f64 = logarithms.iter().map(|value| (value - mean).powi(2)).sum();
        let interval = (count >= PAIRS).then(|| {
            let half = student(count - 1) * (squares / (n - 1.0) / n).sqrt();
            ((mean - half).exp(), (mean + half).exp())
        });
        Some(Self { mean: mean.exp(), interval })
    }

    /// The inverse ratio.
    pub fn inverse(self) -> Self {
        Self { mean: 1.0 / self.mean, interval: self.interval.map(|(low, high)| (1.0 / high, 1.0 / low)) }
    }

    /// Whether the whole interval is above `bound`.
    pub fn lies_above(&self, bound: f64) -> bool {
        self.interval.is_some_and(|(low, _)| low > bound)
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}", self.mean)?;
        self.interval.map_or(Ok(()), |(low, high)| write!(f, " ({low:.2}–{high:.2})"))
    }
}

/// The 97.5 % point of Student's t. For more degrees of freedom than the table has, its last value, which is
/// slightly too wide.
fn student(degrees: usize) -> f64 {
    const POINTS: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
        2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048,
        2.045, 2.042,
    ];
    POINTS.get(degrees.saturating_sub(1)).or(POINTS.last()).copied().unwrap_or(f64::INFINITY)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 0.001, "{found}, not {expected}");
    }

    #[test]
    fn the_interval_is_that_of_the_logarithms() {
        // ln: 0.0953, 0.1823, 0, 0.0953, 0.0953: mean 0.09365, standard deviation 0.06449, t of 4 is 2.776.
        let ratio = Ratio::of(&[1.1, 1.2, 1.0, 1.1, 1.1], &[1.0; 5]).unwrap();
        near(ratio.mean, 1.0982);
        let (low, high) = ratio.interval.unwrap();
        near(low, 1.0137);
        near(high, 1.1897);
        assert!(ratio.lies_above(1.0) && !ratio.lies_above(1.05));
        assert_eq!(ratio.to_string(), "1.10 (1.01–1.19)");
    }

    #[test]
    fn few_turns_have_no_interval() {
        let ratio = Ratio::of(&[2.0; 4], &[1.0; 4]).unwrap();
        assert_eq!((ratio.mean.round(), ratio.interval), (2.0, None));
        assert!(!ratio.lies_above(1.05));
    }

    #[test]
    fn nothing_and_zero_have_no_ratio() {
        assert_eq!(Ratio::of(&[], &[]), None);
        assert_eq!(Ratio::of(&[1.0], &[0.0]), None);
    }

    #[test]
    fn turned_round_the_ends_change_places() {
        let ratio = Ratio { mean: 2.0, interval: Some((1.0, 4.0)) }.inverse();
        assert_eq!(ratio, Ratio { mean: 0.5, interval: Some((0.25, 1.0)) });
    }
}
