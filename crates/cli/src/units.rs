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
}
