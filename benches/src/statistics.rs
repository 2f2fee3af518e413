//! Medians, percentiles, and how a figure is written.

use std::time::Duration;

/// The middle value, or the mean of the two in the middle. NaN if there is none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The smallest value that at least `per_mille` thousandths of all values do not exceed (nearest
/// rank); zero if there is none. Sorts `values`.
pub fn percentile(values: &mut [u32], per_mille: usize) -> u32 {
    values.sort_unstable();
    let rank = (values.len() * per_mille).div_ceil(1000);
    values.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// Nanoseconds of one of `count` operations that took `total` together.
pub fn nanos_each(total: Duration, count: u64) -> f64 {
    total.as_secs_f64() * 1e9 / as_f64(count)
}

/// What a million operations take if `count` of them took `seconds`.
pub fn seconds_per_million(seconds: f64, count: u64) -> f64 {
    seconds * 1e6 / as_f64(count)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the counts of a bench stay far below 2^52"
)]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}

/// Three significant digits, without an exponent.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size if size >= 0.01 => format!("{value:.3}"),
        size if size > 0.0 => format!("{value:.6}"),
        _ => "0".into(),
    }
}
