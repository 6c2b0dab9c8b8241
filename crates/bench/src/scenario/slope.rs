//! Whether a series grows: its slope by Theil and Sen, which a few outliers do not move.

/// The median of the slopes between all pairs of points (x, y); none if no two have different x.
///
/// Sen, "Estimates of the regression coefficient based on Kendall's tau", 1968. Of n points it takes n² steps.
pub(crate) fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let mut slopes = Vec::new();
    for (at, (x, y)) in points.iter().enumerate() {
        let later = points.get(at + 1..).unwrap_or_default();
        slopes.extend(later.iter().filter(|other| other.0 > *x).map(|other| (other.1 - y) / (other.0 - x)));
    }
    median(&mut slopes)
}

/// The middle value; of an even number the mean of the two in the middle.
pub(crate) fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 { Some(upper) } else { Some(f64::midpoint(*values.get(middle - 1)?, upper)) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::*;

    #[test]
    fn a_line_has_its_slope_and_outliers_do_not_move_it() {
        let mut points: Vec<(f64, f64)> = (0..30).map(|x| (f64::from(x), 5.0 + 2.0 * f64::from(x))).collect();
        assert!((slope(&points).unwrap() - 2.0).abs() < 1e-9);
        points[3].1 = 1e6;
        points[20].1 = -1e6;
        assert!((slope(&points).unwrap() - 2.0).abs() < 0.5);
    }

    #[test]
    fn what_goes_up_and_down_does_not_grow() {
        let points: Vec<(f64, f64)> = (0..40).map(|x| (f64::from(x), f64::from(x % 4))).collect();
        assert!(slope(&points).unwrap().abs() < 0.05);
        assert_eq!(slope(&[(1.0, 2.0)]), None);
        assert_eq!(slope(&[(1.0, 2.0), (1.0, 9.0)]), None);
    }
}
