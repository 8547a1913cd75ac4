//! The options of the benches.

use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::Bench;
use crate::errors::unfit;
use crate::limits;
use crate::paced;
use crate::settings::{Between, Settings};
use crate::sleeping;

/// Message sizes at which something changes: a word, half a line, a line with and without a record's header, and larger ones.
pub const SIZES: [usize; 8] = [8, 32, 56, 64, 256, 1024, 8192, 65536];

/// For the paced bench: a short message, and one of some lines.
const PACED_SIZES: [usize; 2] = [64, 1024];

const USAGE: &str = "\
options after `cargo bench --bench NAME --`:
  --seconds N          how long to measure (default 20)
  --sizes A,B          bytes of a message
  --transports A,B     the transports to compare, or `all`
  --threads            between two threads of one process instead of two processes
  --cpus A,B           the CPUs (default: the first two allowed)
  --capacity N         bytes of ring data each way, a power of two (default 1048576)
  --near-below N       floors below N ns count as near (default 80)
";

const SLICES_USAGE: &str = "  --baseline NAME      the transport to compare the others with (default classic)
  --burst N            messages of a slice (default: as many as last half a millisecond)
  --cold               each slice starts with its ring outside the near caches, and does not lap it
";

const LATENCY_USAGE: &str = "  --latency            time each round trip and show percentiles
";

const HGRM_USAGE: &str =
    "  --hgrm DIR           write each histogram to a file there, for the HdrHistogram plotters
";

const PACED_USAGE: &str = "  --rate A,B           messages per second (default 10000,100000,1000000)
";

const SLOW_USAGE: &str = "  --rate A,B           messages per second (default 1000,10000,100000,1000000)
";

const AGAINST_USAGE: &str =
    "  --against A,B        measure other revisions or working copies as well; NAME=A names one in the tables
  --placements N       with --against: N builds that differ in code placement (default 1)
";

const SLEEPING_USAGE: &str = "\
  --pause N            microseconds before each message (default 500, 300 at least)
  --idle N             idle seconds for each transport (default 2)
";

/// The options of a bench.
#[derive(Debug, PartialEq)]
pub(super) struct Options {
    pub(super) measure: bool,
    pub(super) list: bool,
    pub(super) latency: bool,
    pub(super) help: bool,
    seconds: f64,
    pub(super) sizes: Vec<usize>,
    pub(super) transports: Vec<String>,
    /// The transport to compare with.
    pub(super) baseline: Option<String>,
    pub(super) rates: Vec<f64>,
    pub(super) pause: Duration,
    pub(super) idle: Duration,
    pub(super) hgrm: Option<PathBuf>,
    /// The revisions to compare with, as written.
    pub(super) against: Vec<String>,
    /// Builds that differ in code placement.
    pub(super) placements: usize,
    pub(super) settings: Settings,
}

impl Options {
    pub(super) fn parse(bench: Bench, mut words: impl Iterator<Item = String>) -> io::Result<Options> {
        let mut options = Options {
            measure: false,
            list: false,
            latency: false,
            help: false,
            seconds: 20.0,
            sizes: match bench {
                Bench::RoundTrip | Bench::Streaming => SIZES.to_vec(),
                Bench::Paced => PACED_SIZES.to_vec(),
                Bench::Limits => limits::SIZES.to_vec(),
                Bench::Sleeping => vec![paced::SHORTEST],
                Bench::Slow => vec![64],
            },
            transports: Vec::new(),
            baseline: None,
            rates: match bench {
                Bench::Slow => vec![1e3, 1e4, 1e5, 1e6],
                _ => vec![1e4, 1e5, 1e6],
            },
            pause: sleeping::PAUSE,
            idle: Duration::from_secs(2),
            hgrm: None,
            against: Vec::new(),
            placements: 1,
            settings: match bench {
                // As many bytes as a Unix pipe holds.
                Bench::Slow => Settings { capacity: 1 << 16, ..Settings::default() },
                _ => Settings::default(),
            },
        };
        let paced = bench == Bench::Paced;
        let slices = matches!(bench, Bench::RoundTrip | Bench::Streaming);
        let sleeping = bench == Bench::Sleeping;
        let compares = paced || slices;
        let mut refused = None;
        while let Some(word) = words.next() {
            let mut value =
                || words.next().ok_or_else(|| unfit(format!("{word} needs a value\n{}", usage(bench))));
            let settings = &mut options.settings;
            match word.as_str() {
                "--bench" => options.measure = true,
                "--list" => options.list = true,
                "--help" | "-h" => options.help = true,
                "--threads" => settings.between = Between::Threads,
                "--seconds" => options.seconds = number(&word, &value()?)?,
                "--sizes" => options.sizes = numbers(&word, &value()?)?,
                "--transports" => options.transports = value()?.split(',').map(str::to_owned).collect(),
                "--cpus" => match numbers(&word, &value()?)?[..] {
                    [a, b] => settings.cpus = Some((a, b)),
                    _ => return Err(unfit("--cpus needs two numbers")),
                },
                "--capacity" => settings.capacity = number(&word, &value()?)?,
                "--near-below" => settings.near_below_ns = number(&word, &value()?)?,
                "--baseline" if !paced => options.baseline = Some(value()?),
                "--burst" if slices => settings.burst = Some(number(&word, &value()?)?),
                "--cold" if slices => settings.cold = true,
                "--latency" if bench == Bench::RoundTrip => options.latency = true,
                "--hgrm" if matches!(bench, Bench::RoundTrip | Bench::Paced) => {
                    options.hgrm = Some(value()?.into())
                }
                "--against" if compares => options.against.extend(value()?.split(',').map(str::to_owned)),
                "--placements" if compares => options.placements = number(&word, &value()?)?,
                "--rate" if paced || bench == Bench::Slow => options.rates = numbers(&word, &value()?)?,
                "--pause" if sleeping => options.pause = Duration::from_micros(number(&word, &value()?)?),
                "--idle" if sleeping => options.idle = seconds(number(&word, &value()?)?)?,
                _ => refused = refused.or(Some(word)),
            }
        }
        // `cargo test` passes the options of its own harness to every target, so a smoke run ignores unknown ones
        if let (Some(word), true) = (refused, options.measure) {
            return Err(unfit(format!("{word}: not an option of this bench\n{}", usage(bench))));
        }
        if options.hgrm.is_some() && bench == Bench::RoundTrip && !options.latency {
            return Err(unfit("--hgrm needs --latency: without it no single round trip is timed"));
        }
        if options.latency && options.settings.burst.is_some() {
            return Err(unfit("--burst does not go with --latency"));
        }
        if options.placements == 0 {
            return Err(unfit("--placements 0: at least one build is measured"));
        }
        if options.placements > 1 && options.against.is_empty() {
            return Err(unfit("--placements needs --against"));
        }
        for &rate in &options.rates {
            paced::interval(rate)?;
        }
        if let (true, Some(size)) =
            (paced || bench == Bench::Slow, options.sizes.iter().find(|&&size| size < paced::SHORTEST))
        {
            return Err(paced::too_short(*size));
        }
        Ok(options)
    }

    /// The duration of the measurement.
    pub(super) fn duration(&self) -> io::Result<Duration> {
        seconds(self.seconds)
    }
}

fn seconds(number: f64) -> io::Result<Duration> {
    Duration::try_from_secs_f64(number).map_err(|error| unfit(format!("{number} seconds: {error}")))
}

pub(super) fn usage(bench: Bench) -> String {
    let mut usage = USAGE.to_owned();
    match bench {
        Bench::RoundTrip => usage += &[SLICES_USAGE, LATENCY_USAGE, HGRM_USAGE].concat(),
        Bench::Streaming => usage += SLICES_USAGE,
        Bench::Paced => usage += &[PACED_USAGE, HGRM_USAGE].concat(),
        Bench::Limits => {}
        Bench::Sleeping => usage += SLEEPING_USAGE,
        Bench::Slow => usage += SLOW_USAGE,
    }
    if matches!(bench, Bench::RoundTrip | Bench::Streaming | Bench::Paced) {
        usage += AGAINST_USAGE;
    }
    usage.truncate(usage.trim_end().len());
    usage
}

fn number<T: FromStr>(option: &str, text: &str) -> io::Result<T> {
    text.parse().map_err(|_| unfit(format!("{option} {text}: not a number")))
}

fn numbers<T: FromStr>(option: &str, text: &str) -> io::Result<Vec<T>> {
    text.split(',').map(|part| number(option, part)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bench: Bench, words: &[&str]) -> io::Result<Options> {
        Options::parse(bench, words.iter().map(|word| word.to_string()))
    }

    #[test]
    fn usage_is_in_columns() {
        for bench in [Bench::RoundTrip, Bench::Streaming, Bench::Paced] {
            assert!(usage(bench).lines().skip(1).all(|line| line.starts_with("  --")), "{}", usage(bench));
        }
    }

    #[test]
    fn options_are_parsed() {
        let words =
            ["--bench", "--seconds", "1.5", "--sizes", "8,64", "--cpus", "2,3", "--latency", "--threads"];
        let options = parse(Bench::RoundTrip, &words).unwrap();
        assert!(options.measure && options.latency);
        assert_eq!((options.duration().unwrap(), options.sizes), (Duration::from_millis(1500), vec![8, 64]));
        assert_eq!((options.settings.cpus, options.settings.between), (Some((2, 3)), Between::Threads));
    }

    #[test]
    fn benches_have_options_of_their_own() {
        assert!(parse(Bench::Streaming, &["--bench", "--cold"]).unwrap().settings.cold);
        assert!(parse(Bench::Streaming, &["--bench", "--latency"]).is_err());
        assert!(parse(Bench::RoundTrip, &["--bench", "--rate", "1000"]).is_err());
        assert!(parse(Bench::Paced, &["--bench", "--cold"]).is_err());
        let options = parse(Bench::Paced, &["--bench", "--rate", "1000,2e6", "--hgrm", "x"]).unwrap();
        assert_eq!((options.rates, options.hgrm), (vec![1000.0, 2e6], Some("x".into())));
        assert_eq!(parse(Bench::Paced, &[]).unwrap().sizes, PACED_SIZES);
        let options = parse(Bench::Sleeping, &["--bench", "--pause", "700", "--idle", "0.5"]).unwrap();
        let micros = Duration::from_micros;
        assert_eq!((options.pause, options.idle), (micros(700), micros(500_000)));
        assert!(parse(Bench::Limits, &["--bench", "--pause", "700"]).is_err());
    }

    #[test]
    fn revisions_are_listed_and_repeated() {
        let words = ["--bench", "--against", "HEAD,a=../copy", "--against", "v1", "--placements", "3"];
        for bench in [Bench::RoundTrip, Bench::Streaming, Bench::Paced] {
            let options = parse(bench, &words).unwrap();
            let against: Vec<&str> = options.against.iter().map(|word| &word[..]).collect();
            assert_eq!((&against[..], options.placements), (&["HEAD", "a=../copy", "v1"][..], 3));
        }
        for bench in [Bench::Limits, Bench::Sleeping] {
            let error = parse(bench, &words).unwrap_err().to_string();
            assert!(error.starts_with("--against: not an option"), "{error}");
        }
        assert!(parse(Bench::RoundTrip, &["--bench", "--placements", "3"]).is_err());
        assert!(parse(Bench::RoundTrip, &["--bench", "--against", "HEAD", "--placements", "0"]).is_err());
    }

    #[test]
    fn smoke_run_ignores_options_of_the_test_harness() {
        assert!(
            !parse(Bench::RoundTrip, &["--nocapture", "some_filter", "--test-threads=1"]).unwrap().measure
        );
    }

    #[test]
    fn measurement_refuses_unknown_options() {
        for words in [
            &["--bench", "--second", "1"][..],
            &["--bench", "--seconds"],
            &["--bench", "--cpus", "1"],
            &["--bench", "--sizes", "8,x"],
            &["--bench", "--hgrm", "without-latency"],
        ] {
            assert!(parse(Bench::RoundTrip, words).is_err(), "{words:?}");
        }
        assert!(parse(Bench::Paced, &["--bench", "--rate", "0"]).is_err());
        assert!(parse(Bench::Paced, &["--bench", "--sizes", "15"]).is_err());
    }
}
