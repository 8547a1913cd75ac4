//! Medians, quartiles and ratios of slice costs.

/// The median and the quartiles of a set of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// A quarter of the values lies below.
    pub lower: f64,
    /// Half of the values lies below.
    pub median: f64,
    /// A quarter of the values lies above.
    pub upper: f64,
}

impl Spread {
    /// The spread of `values`, or `None` without values. Each figure is one of the values, never an average of two.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        if sorted.is_empty() {
            return None;
        }
        sorted.sort_by(f64::total_cmp);
        let at = |quarter: usize| sorted[(sorted.len() * quarter / 4).min(sorted.len() - 1)];
        Some(Spread { lower: at(1), median: at(2), upper: at(3) })
    }
}

/// The median of `values`, or `None` without values.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    Spread::of(values).map(|spread| spread.median)
}

/// Whether the two floors around a slice agree, so that the slice counts.
pub fn agree(before: f64, after: f64, tolerance: f64) -> bool {
    before > 0.0 && after > 0.0 && (before / after - 1.0).abs() < tolerance
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_one_of_the_values() {
        assert_eq!(median([]), None);
        assert_eq!(median([4.0]), Some(4.0));
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 3.0, 2.0]), Some(3.0));
    }

    #[test]
    fn quartiles_enclose_the_median() {
        let spread = Spread::of((0..100).rev().map(f64::from)).unwrap();
        assert_eq!(spread, Spread { lower: 25.0, median: 50.0, upper: 75.0 });
        let single = Spread::of([7.0]).unwrap();
        assert_eq!(single, Spread { lower: 7.0, median: 7.0, upper: 7.0 });
    }

    #[test]
    fn one_outlier_does_not_move_the_median() {
        assert_eq!(median([50.0, 51.0, 52.0, 53.0, 1e9]), Some(52.0));
    }

    #[test]
    fn floors_agree_only_within_the_tolerance() {
        assert!(agree(100.0, 105.0, 0.1));
        assert!(agree(105.0, 100.0, 0.1));
        assert!(!agree(100.0, 115.0, 0.1));
        assert!(!agree(47.0, 365.0, 0.1));
        assert!(!agree(0.0, 0.0, 0.1));
    }
}
