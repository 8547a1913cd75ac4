//! Histograms in the text format of the HdrHistogram plotters (`.hgrm`), one file each.

use std::fs;
use std::io;
use std::path::Path;

use hdrhistogram::Histogram;

use crate::errors::about;

/// Lines for each halving of the remaining range.
const TICKS: u32 = 5;

/// The percentiles of `histogram`, in nanoseconds: value, quantile, number of values up to it, and 1 / (1 - quantile), the
/// plotters' horizontal axis, which the last line lacks.
pub fn text(histogram: &Histogram<u64>) -> String {
    let mut text =
        format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS) {
        total += step.count_since_last_iteration();
        let (value, quantile) = (step.value_iterated_to() as f64, step.quantile_iterated_to());
        text += &format!("{value:12.3} {quantile:14.12} {total:10}");
        if quantile < 1.0 {
            text += &format!(" {:14.2}", 1.0 / (1.0 - quantile));
        }
        text += "\n";
    }
    let (mean, deviation) = (histogram.mean(), histogram.stdev());
    text += &format!("#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]\n");
    let (max, total) = (histogram.max() as f64, histogram.len());
    text += &format!("#[Max     = {max:12.3}, Total count    = {total:12}]\n");
    let sub_buckets = (2 * 10_u64.pow(histogram.sigfig().into())).next_power_of_two();
    text += &format!("#[Buckets = {:12}, SubBuckets     = {sub_buckets:12}]\n", histogram.buckets());
    text
}

/// Writes the histogram to `name`.hgrm, and creates the directory if needed. Does not write an empty histogram.
pub(crate) fn save(histogram: &Histogram<u64>, directory: &Path, name: &str) -> io::Result<()> {
    if histogram.is_empty() {
        return Ok(());
    }
    let path = directory.join(format!("{}.hgrm", name.replace(' ', "-")));
    let written = fs::create_dir_all(directory).and_then(|()| fs::write(&path, text(histogram)));
    written.map_err(|error| about(format_args!("{}", path.display()), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_counts_every_value_and_ends_with_the_maximum() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 1_000_000, 3).unwrap();
        for ns in 1..=1000 {
            histogram.record(ns).unwrap();
        }
        let text = text(&histogram);
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|word| word.parse().unwrap()).collect())
            .collect();
        let median = rows.iter().find(|row| row[1] == 0.5).unwrap();
        assert_eq!(median[..], [500.0, 0.5, 500.0, 2.0]);
        assert_eq!(rows.last().unwrap()[..], [1000.0, 1.0, 1000.0]);
        assert!(rows.windows(2).all(|pair| pair[0][0] <= pair[1][0] && pair[0][1] <= pair[1][1]));
        assert!(text.contains("Total count    =         1000]"), "{text}");
    }
}
