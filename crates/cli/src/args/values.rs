//! Values of options: sizes, durations, modes and numbers.

use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use shmpipe::Address;

/// Size suffixes, with their factors.
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

/// Duration suffixes, in seconds.
const DURATIONS: [(&[&str], f64); 7] = [
    (&["s", ""], 1.0),
    (&["ms"], 1e-3),
    (&["us", "µs"], 1e-6),
    (&["ns"], 1e-9),
    (&["m", "min"], 60.0),
    (&["h"], 3600.0),
    (&["d"], 86400.0),
];

/// The longest duration: short enough to be added to any moment.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86400);

/// An address, whose path need not be UTF-8.
pub fn address() -> impl TypedValueParser<Value = Address> {
    OsStringValueParser::new().try_map(Address::try_from)
}

/// What ends a message: not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delimiter(pub Vec<u8>);

/// A text with the escapes `\\`, `\n`, `\r`, `\t`, `\0` and `\xHH`.
pub fn delimiter(text: &str) -> Result<Delimiter, String> {
    let malformed = || "expected a text with the escapes \\\\, \\n, \\r, \\t, \\0 and \\xHH".to_owned();
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let escape = after.bytes().next().ok_or_else(malformed)?;
        rest = after.get(1..).ok_or_else(malformed)?;
        bytes.push(match escape {
            b'\\' => b'\\',
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'0' => 0,
            b'x' => {
                let digits = rest.get(..2).filter(|digits| digits.bytes().all(|c| c.is_ascii_hexdigit()));
                rest = rest.get(2..).unwrap_or_default();
                u8::from_str_radix(digits.ok_or_else(malformed)?, 16).map_err(|_| malformed())?
            }
            _ => return Err(malformed()),
        });
    }
    bytes.extend_from_slice(rest.as_bytes());
    if bytes.is_empty() { Err("expected at least one byte".to_owned()) } else { Ok(Delimiter(bytes)) }
}

/// A tag: a number of 32 bits.
pub fn tag(text: &str) -> Result<u32, String> {
    number(text)?.try_into().map_err(|_| "expected a number of 32 bits".to_owned())
}

/// Messages per second: `500`, `10k/s`, `1.5M/s`, `90/m`.
pub fn rate(text: &str) -> Result<f64, String> {
    let (number, unit) = split(text);
    let (prefix, time) = unit.split_once('/').unwrap_or((unit, "s"));
    let factor = match prefix {
        "" => Some(1.0),
        "k" | "K" => Some(1e3),
        "M" => Some(1e6),
        _ => None,
    };
    let seconds = match time {
        "s" => Some(1.0),
        "m" | "min" => Some(60.0),
        "h" => Some(3600.0),
        _ => None,
    };
    let rate = number.parse::<f64>().ok().zip(factor).zip(seconds);
    let rate = rate.map(|((number, factor), seconds)| number * factor / seconds);
    rate.filter(|rate| (1e-6..=1e9).contains(rate))
        .ok_or_else(|| "expected messages per second: 500, 10k/s, 1.5M/s, 90/m".to_owned())
}

/// Splits a number from its unit.
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
            "expected a whole number of bytes, with or without a suffix: 65536, 64KiB, 1MB".to_owned()
        );
    };
    number.checked_mul(*factor).ok_or_else(|| "the number of bytes does not fit in 64 bits".to_owned())
}

/// Bytes, at least one.
pub fn nonzero_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        0 => Err("expected at least one byte".to_owned()),
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

/// A duration that is long enough to measure a rate.
pub fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        interval if interval < Duration::from_millis(10) => Err("expected at least 10ms".to_owned()),
        interval => Ok(interval),
    }
}

/// How fast a recording is replayed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// So many times as fast as it was recorded.
    Times(f64),
    /// Without waiting.
    Max,
}

impl Speed {
    pub fn factor(self) -> Option<f64> {
        match self {
            Speed::Times(factor) => Some(factor),
            Speed::Max => None,
        }
    }
}

/// A speed: `2x`, `0.5x`, `max`.
pub fn speed(text: &str) -> Result<Speed, String> {
    let factor = text.strip_suffix('x').unwrap_or(text).parse::<f64>();
    match (text, factor) {
        ("max", _) => Ok(Speed::Max),
        (_, Ok(factor)) if (1e-6..=1e6).contains(&factor) => Ok(Speed::Times(factor)),
        _ => Err("expected a factor from 0.000001x to 1000000x, or max: 2x, 0.5x".to_owned()),
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

/// A 64-bit number, decimal or hexadecimal: `7`, `0x5eed`.
pub fn number(text: &str) -> Result<u64, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16),
        _ => text.parse(),
    };
    number.map_err(|_| "expected a 64-bit number: 7, 0x5eed".to_owned())
}

/// Two different CPUs: `2,3`.
pub fn two_cpus(text: &str) -> Result<(usize, usize), String> {
    let both = text.split_once(',').and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
    match both {
        None => Err("expected two CPUs: 2,3".to_owned()),
        Some((a, b)) if a == b => Err(format!("both sides on CPU {a}: expected two different CPUs")),
        Some(both) => Ok(both),
    }
}

/// Nanoseconds above zero: `80`, `62.5`.
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
    fn malformed_sizes_are_refused() {
        for text in
            ["", "KiB", "-1", "+1", "1.5KiB", "64X", "64KiBs", "1 2", "18446744073709551616", "99999999TiB"]
        {
            assert!(size(text).is_err(), "{text}");
        }
        assert!(nonzero_size("0KiB").is_err());
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
    fn malformed_durations_are_refused() {
        for text in ["", "s", "-1s", "1y", "1S", "1.2.3s", "nan", "inf", "1e3s", "99999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn intervals_have_a_least() {
        assert_eq!(interval("10ms"), Ok(Duration::from_millis(10)));
        assert!(["9ms", "0", "-1s", ""].iter().all(|text| interval(text).is_err()));
    }

    #[test]
    fn speeds_are_factors() {
        assert_eq!(
            [speed("2x"), speed("0.5"), speed("max")],
            [Ok(Speed::Times(2.0)), Ok(Speed::Times(0.5)), Ok(Speed::Max)]
        );
        assert!(["", "x", "0x", "-1x", "nan", "inf", "2xx", "1e9x"].iter().all(|text| speed(text).is_err()));
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
    fn delimiters_have_escapes() {
        for (text, bytes) in [
            (",", &b","[..]),
            ("\\0", b"\0"),
            ("\\r\\n", b"\r\n"),
            ("a\\x1fb", b"a\x1fb"),
            ("\\\\n", b"\\n"),
            ("é", "é".as_bytes()),
        ] {
            assert_eq!(delimiter(text), Ok(Delimiter(bytes.to_vec())), "{text}");
        }
        assert!(
            ["", "\\", "\\q", "\\x", "\\x1", "\\xgg", "\\é", "\\x+1"]
                .iter()
                .all(|text| delimiter(text).is_err())
        );
    }

    #[test]
    fn rates_are_per_second() {
        for (text, expected) in
            [("500", 500.0), ("10k/s", 1e4), ("1.5M/s", 1.5e6), ("90/m", 1.5), ("2K", 2e3), ("36/h", 0.01)]
        {
            assert_eq!(rate(text), Ok(expected), "{text}");
        }
        assert!(
            ["", "0", "-1", "k/s", "10/d", "10x/s", "1e3", "9999999M/s"]
                .iter()
                .all(|text| rate(text).is_err())
        );
    }

    #[test]
    fn tags_have_32_bits() {
        assert_eq!((tag("7"), tag("0xffffffff")), (Ok(7), Ok(u32::MAX)));
        assert!(["", "-1", "4294967296"].iter().all(|text| tag(text).is_err()));
    }

    #[test]
    fn two_cpus_must_differ() {
        assert_eq!((two_cpus("2,3"), two_cpus("1, 0")), (Ok((2, 3)), Ok((1, 0))));
        assert!(["", "2", "2,", "2,2", "a,b", "1,2,3", "-1,2"].iter().all(|text| two_cpus(text).is_err()));
    }

    #[test]
    fn nanoseconds_are_above_zero() {
        assert_eq!((nanoseconds("80"), nanoseconds("62.5")), (Ok(80.0), Ok(62.5)));
        assert!(["", "0", "-1", "nan", "inf", "x"].iter().all(|text| nanoseconds(text).is_err()));
    }
}
