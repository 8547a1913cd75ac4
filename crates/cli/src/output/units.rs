//! Sizes, durations, rates and counts, as text for people.

use std::time::Duration;

/// Binary prefixes, with their factors.
const PREFIXES: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// Bytes: `512 B`, `64 KiB`, `1.5 MiB`.
pub fn show_size(bytes: u64) -> String {
    let Some((name, factor)) = PREFIXES.iter().rev().find(|(_, factor)| bytes >= *factor) else {
        return format!("{bytes} B");
    };
    if bytes % factor == 0 {
        return format!("{} {}", bytes / factor, name);
    }
    format!("{:.1} {}", bytes as f64 / *factor as f64, name)
}

/// An age in its two largest units: `5s`, `12m 5s`, `3h 20m`, `4d 1h`.
pub fn show_age(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// How full a ring is: `0%`, `<1%`, `37%`.
pub fn show_fill(used: u64, capacity: u64) -> String {
    match used as f64 / capacity.max(1) as f64 * 100.0 {
        0.0 => "0%".to_owned(),
        percent if percent < 1.0 => "<1%".to_owned(),
        percent => format!("{percent:.0}%"),
    }
}

/// A rate per second: `0`, `0.7`, `950`, `12.3k`, `4.56M`.
pub fn show_rate(per_second: f64) -> String {
    match per_second {
        rate if rate > 0.0 && rate < 9.95 => format!("{rate:.1}"),
        rate if rate < 1e3 => format!("{rate:.0}"),
        rate if rate < 1e6 => format!("{:.1}k", rate / 1e3),
        rate => format!("{:.2}M", rate / 1e6),
    }
}

/// A measured time in three figures: `4.31 ns`, `391 ns`, `12.3 us`, `1.02 ms`.
pub fn show_time(nanoseconds: f64) -> String {
    const UNITS: [(&str, f64); 4] = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)];
    // What would round to 1000 takes the next unit.
    let (unit, factor) =
        UNITS.into_iter().rev().find(|(_, factor)| nanoseconds >= 0.9995 * factor).unwrap_or(UNITS[0]);
    format!("{} {unit}", show_figures(nanoseconds / factor))
}

/// A number in at least three figures: all that it has before the point.
pub fn show_figures(number: f64) -> String {
    match number {
        number if number < 9.995 => format!("{number:.2}"),
        number if number < 99.95 => format!("{number:.1}"),
        number => format!("{number:.0}"),
    }
}

/// A count in three figures: `928`, `27.3k`, `91.6M`, `2.66G`.
pub fn show_count(number: f64) -> String {
    let (number, prefix) = with_prefix(number);
    number + prefix
}

/// An amount of a unit in three figures: `928 B/s`, `2.66 GB/s`.
pub fn show_amount(number: f64, unit: &str) -> String {
    let (number, prefix) = with_prefix(number);
    format!("{number} {prefix}{unit}")
}

fn with_prefix(number: f64) -> (String, &'static str) {
    const PREFIXES: [(&str, f64); 3] = [("k", 1e3), ("M", 1e6), ("G", 1e9)];
    match PREFIXES.into_iter().rev().find(|(_, factor)| number >= 0.9995 * factor) {
        Some((prefix, factor)) => (show_figures(number / factor), prefix),
        None => (format!("{number:.0}"), ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_ages_fills_and_rates_are_short() {
        let sizes = [0, 1023, 1024, 1536, 1 << 20, 5 << 30];
        assert_eq!(sizes.map(show_size), ["0 B", "1023 B", "1 KiB", "1.5 KiB", "1 MiB", "5 GiB"]);
        let ages = [5, 725, 12_000, 350_000].map(|seconds| show_age(Duration::from_secs(seconds)));
        assert_eq!(ages, ["5s", "12m 5s", "3h 20m", "4d 1h"]);
        assert_eq!([(0, 8), (1, 4096), (3, 8)].map(|(used, of)| show_fill(used, of)), ["0%", "<1%", "38%"]);
        assert_eq!(
            [0.0, 0.66, 950.0, 12_345.0, 4.56e6].map(show_rate),
            ["0", "0.7", "950", "12.3k", "4.56M"]
        );
    }

    #[test]
    fn times_have_three_figures_and_a_fitting_unit() {
        let times = [0.0, 4.312, 62.04, 391.2, 999.4, 999.6, 12_345.0, 1.02e6, 2.5e9];
        let shown =
            ["0.00 ns", "4.31 ns", "62.0 ns", "391 ns", "999 ns", "1.00 us", "12.3 us", "1.02 ms", "2.50 s"];
        assert_eq!(times.map(show_time), shown);
        assert_eq!(
            [9.994, 9.996, 99.94, 99.96, 31_415.0].map(show_figures),
            ["9.99", "10.0", "99.9", "100", "31415"]
        );
    }

    #[test]
    fn counts_have_three_figures() {
        let counts = [0.0, 7.4, 928.0, 999.6, 27_345.0, 91_590_000.0, 2.66e9].map(show_count);
        assert_eq!(counts, ["0", "7", "928", "1.00k", "27.3k", "91.6M", "2.66G"]);
        assert_eq!([928.0, 2.66e9].map(|n| show_amount(n, "B/s")), ["928 B/s", "2.66 GB/s"]);
    }
}
