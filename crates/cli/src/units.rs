//! Sizes, durations and the like, as people write and read them.

use std::time::Duration;

/// What a unit is worth, by the names it goes by. The first name is the one to show.
const SIZES: [(&[&str], u64); 9] = [
    (&["", "B"], 1),
    (&["KiB", "K"], 1 << 10),
    (&["MiB", "M"], 1 << 20),
    (&["GiB", "G"], 1 << 30),
    (&["TiB", "T"], 1 << 40),
    (&["kB"], 1_000),
    (&["MB"], 1_000_000),
    (&["GB"], 1_000_000_000),
    (&["TB"], 1_000_000_000_000),
];

/// The same for durations, in seconds.
const DURATIONS: [(&[&str], f64); 7] = [
    (&["s", ""], 1.0),
    (&["ms"], 1e-3),
    (&["us", "µs"], 1e-6),
    (&["ns"], 1e-9),
    (&["m", "min"], 60.0),
    (&["h"], 3600.0),
    (&["d"], 86400.0),
];

/// Longer than anybody waits, and short enough to be added to any moment.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86400);

/// Parts a number from the unit behind it.
fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// Bytes: `65536`, `64KiB`, `64K`, `1MB`.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let known = SIZES.iter().find(|(names, _)| names.iter().any(|name| name.eq_ignore_ascii_case(unit)));
    let (Ok(number), Some((_, factor))) = (number.parse::<u64>(), known) else {
        return Err(
            "expected a whole number of bytes, with a suffix or without: 65536, 64KiB, 1MB".to_owned()
        );
    };
    number.checked_mul(*factor).ok_or_else(|| "more bytes than 64 bits can count".to_owned())
}

/// Bytes, one at least.
pub fn size_of_something(text: &str) -> Result<u64, String> {
    match size(text)? {
        0 => Err("expected one byte at least".to_owned()),
        bytes => Ok(bytes),
    }
}

/// A duration: `2s`, `1.5s`, `100ms`, `5m`; a bare number means seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let known = DURATIONS.iter().find(|(names, _)| names.contains(&unit));
    let (Ok(number), Some((_, seconds))) = (number.parse::<f64>(), known) else {
        return Err(
            "expected a number with a suffix: 2s, 1.5s, 100ms, 5m; a bare number means seconds".to_owned()
        );
    };
    match Duration::try_from_secs_f64(number * seconds) {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        _ => Err("longer than a hundred years".to_owned()),
    }
}

/// Permission bits in octal: `600`, `0660`.
pub fn mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if mode <= 0o777 && !digits.starts_with('+') => Ok(mode),
        _ => Err("expected permission bits in octal, up to 0777: 600, 0660".to_owned()),
    }
}

/// A number of 64 bits, decimal or hexadecimal: `7`, `0x5eed`.
pub fn number(text: &str) -> Result<u64, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16),
        _ => text.parse(),
    };
    number.map_err(|_| "expected a number of 64 bits: 7, 0x5eed".to_owned())
}

/// Bytes to be read by people: `512 B`, `64 KiB`, `1.5 MiB`.
pub fn show_size(bytes: u64) -> String {
    let Some((names, factor)) = SIZES[1..5].iter().rev().find(|(_, factor)| bytes >= *factor) else {
        return format!("{bytes} B");
    };
    if bytes % factor == 0 {
        return format!("{} {}", bytes / factor, names[0]);
    }
    format!("{:.1} {}", bytes as f64 / *factor as f64, names[0])
}

/// An age to be read by people, in the two largest units that count: `5s`, `12m 5s`, `3h 20m`, `4d 1h`.
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

/// How many of something go by in a second: `0`, `0.7`, `950`, `12.3k`, `4.56M`.
pub fn show_rate(per_second: f64) -> String {
    match per_second {
        rate if rate > 0.0 && rate < 9.95 => format!("{rate:.1}"),
        rate if rate < 1e3 => format!("{rate:.0}"),
        rate if rate < 1e6 => format!("{:.1}k", rate / 1e3),
        rate => format!("{:.2}M", rate / 1e6),
    }
}

/// A time that was measured, in three figures: `4.31 ns`, `391 ns`, `12.3 us`, `1.02 ms`.
pub fn show_time(nanoseconds: f64) -> String {
    const UNITS: [(&str, f64); 4] = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)];
    // What would be rounded to 1000 has the next unit.
    let (unit, factor) =
        UNITS.into_iter().rev().find(|(_, factor)| nanoseconds >= 0.9995 * factor).unwrap_or(UNITS[0]);
    format!("{} {unit}", show_figures(nanoseconds / factor))
}

/// A number in three figures, and never fewer than it has before the point.
pub fn show_figures(number: f64) -> String {
    match number {
        number if number < 9.995 => format!("{number:.2}"),
        number if number < 99.95 => format!("{number:.1}"),
        number => format!("{number:.0}"),
    }
}

/// How many there are, in three figures: `928`, `27.3k`, `91.6M`, `2.66G`.
pub fn show_count(number: f64) -> String {
    let (number, prefix) = with_prefix(number);
    number + prefix
}

/// How much of that unit there is, in three figures: `928 B/s`, `2.66 GB/s`.
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

/// Two different CPUs: `2,3`.
pub fn two_cpus(text: &str) -> Result<(usize, usize), String> {
    let both = text.split_once(',').and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
    match both {
        None => Err("expected two CPUs: 2,3".to_owned()),
        Some((a, b)) if a == b => Err(format!("both sides on CPU {a}: expected two different ones")),
        Some(both) => Ok(both),
    }
}

/// Nanoseconds, more than none: `80`, `62.5`.
pub fn nanoseconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("expected a number of nanoseconds above 0: 80, 62.5".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_binary_and_decimal_suffixes() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65536),
            ("7B", 7),
            ("64KiB", 65536),
            ("64kib", 65536),
            ("64K", 65536),
            ("64 KiB", 65536),
            ("1M", 1 << 20),
            ("2GiB", 2 << 30),
            ("1TiB", 1 << 40),
            ("1kB", 1000),
            ("3MB", 3_000_000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in
            ["", "KiB", "-1", "+1", "1.5KiB", "64X", "64KiBs", "1 2", "18446744073709551616", "99999999TiB"]
        {
            assert!(size(text).is_err(), "{text}");
        }
        assert!(size_of_something("0KiB").is_err());
    }

    #[test]
    fn durations_take_suffixes_and_fractions() {
        for (text, expected) in [
            ("2s", Duration::from_secs(2)),
            ("2", Duration::from_secs(2)),
            ("1.5s", Duration::from_millis(1500)),
            (".5s", Duration::from_millis(500)),
            ("100ms", Duration::from_millis(100)),
            ("250us", Duration::from_micros(250)),
            ("250µs", Duration::from_micros(250)),
            ("5m", Duration::from_secs(300)),
            ("1h", Duration::from_secs(3600)),
            ("0s", Duration::ZERO),
        ] {
            assert_eq!(duration(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "s", "-1s", "1y", "1S", "1.2.3s", "nan", "inf", "1e3s", "99999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!((mode("600"), mode("0660"), mode("0o7")), (Ok(0o600), Ok(0o660), Ok(7)));
        for text in ["", "8", "1000", "-1", "+7", "rw"] {
            assert!(mode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        assert_eq!((number("7"), number("0x5eed"), number("0")), (Ok(7), Ok(0x5eed), Ok(0)));
        assert!(["", "0x", "-1", "5eed", "0x+1"].iter().all(|text| number(text).is_err()));
    }

    #[test]
    fn people_read_short_figures() {
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
    fn times_have_three_figures_and_the_unit_that_fits() {
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

    #[test]
    fn two_cpus_differ() {
        assert_eq!((two_cpus("2,3"), two_cpus("1, 0")), (Ok((2, 3)), Ok((1, 0))));
        assert!(["", "2", "2,", "2,2", "a,b", "1,2,3", "-1,2"].iter().all(|text| two_cpus(text).is_err()));
    }

    #[test]
    fn nanoseconds_are_more_than_none() {
        assert_eq!((nanoseconds("80"), nanoseconds("62.5")), (Ok(80.0), Ok(62.5)));
        assert!(["", "0", "-1", "nan", "inf", "x"].iter().all(|text| nanoseconds(text).is_err()));
    }
}
