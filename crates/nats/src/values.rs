//! Values of options and settings: sizes, durations and what names a stream's pipe.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use crate::publish::After;

/// Size suffixes, with their factors.
const SIZES: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// A number of bytes: 65536, 64KiB or 1MB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let suffixed = SIZES.iter().find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)));
        let (number, factor) = suffixed.unwrap_or((text, 1));
        let number: Option<u64> = number.trim().parse().ok();
        let size = number.and_then(|number| number.checked_mul(factor));
        size.map(Size)
            .ok_or_else(|| format!("expected a size, such as 65536, 64KiB or 1MB, and not {text:?}"))
    }
}

/// A time: 1ms, 2s or 24h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text).map(Time).map_err(|error| error.to_string())
    }
}

impl FromStr for After {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "any" {
            return Ok(After::Any);
        }
        let number = u64::from_str_radix(text, 16);
        number
            .map(After::Pipe)
            .map_err(|_| "expected the identifier of a pipe, 16 hexadecimal digits, or any".to_owned())
    }
}

/// Which message of the stream a pipe begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The first that the stream still has.
    First,
    /// The first that comes after the start.
    New,
    /// The one with this sequence.
    Sequence(u64),
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "first" => Ok(From::First),
            "new" => Ok(From::New),
            _ => text.parse().map(From::Sequence).map_err(|_| "expected first, new or a sequence".to_owned()),
        }
    }
}

/// In a file, a value is text as on the command line, or a number.
macro_rules! from_text_or_number {
    ($($kind:ty),*) => {$(
        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $kind;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("text or a number")
                    }

                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<$kind, E> {
                        number.to_string().parse().map_err(E::custom)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$kind, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(Visitor)
            }
        }
    )*};
}

from_text_or_number!(Size, Time, After, From);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_suffixes() {
        assert_eq!("64KiB".parse(), Ok(Size(65536)));
        assert_eq!("1 MB".parse(), Ok(Size(1_000_000)));
        assert_eq!("12".parse(), Ok(Size(12)));
        for wrong in ["", "KiB", "-1", "1XB", "99999999999TiB"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pipe_is_named_by_its_identifier() {
        assert_eq!("00000000000000ff".parse(), Ok(After::Pipe(255)));
        assert_eq!("any".parse(), Ok(After::Any));
        assert!("ticks".parse::<After>().is_err());
    }
}
