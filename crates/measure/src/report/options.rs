//! The options of the bench.

use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use crate::errors::unfit;

pub(super) const USAGE: &str = "\
options after `cargo bench --bench report --`:
  --seconds N          seconds to measure in all (default 330)
  --peers              also build crates/peers and measure the best other queues, in two fifths more time
  --out DIR            the folder for the files (default benches/results)
  --fresh              discard the results of an interrupted run
  --cpus A,B           the CPUs (default: the first two allowed)
  --near-below N       floors below N ns count as near (default 80, or up to 160 if that
                       divides a single placement)
  --commit NAME        the commit, if git does not provide it
instead of measuring:
  --page               generate docs/machines.md, the table in README.md and the summary for `shmpipe bench` from all files
  --check              fail if a newer file is worse than an older one, or if --page would change a file";

/// The options of the bench.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Options {
    pub(super) measure: bool,
    pub(super) list: bool,
    pub(super) help: bool,
    pub(super) page: bool,
    pub(super) check: bool,
    pub(super) peers: bool,
    pub(super) fresh: bool,
    pub(super) seconds: f64,
    pub(super) out: Option<PathBuf>,
    pub(super) cpus: Option<(usize, usize)>,
    pub(super) near_below_ns: Option<f64>,
    pub(super) commit: Option<String>,
}

impl Options {
    pub(super) fn parse(mut words: impl Iterator<Item = String>) -> io::Result<Options> {
        let mut options = Options {
            measure: false,
            list: false,
            help: false,
            page: false,
            check: false,
            peers: false,
            fresh: false,
            seconds: 330.0,
            out: None,
            cpus: None,
            near_below_ns: None,
            commit: None,
        };
        let mut refused = None;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| unfit(format!("{word} needs a value\n{USAGE}")));
            match word.as_str() {
                "--bench" => options.measure = true,
                "--list" => options.list = true,
                "--help" | "-h" => options.help = true,
                "--page" => options.page = true,
                "--check" => options.check = true,
                "--peers" => options.peers = true,
                "--fresh" => options.fresh = true,
                "--seconds" => options.seconds = number(&word, &value()?)?,
                "--out" => options.out = Some(value()?.into()),
                "--near-below" => options.near_below_ns = Some(number(&word, &value()?)?),
                "--commit" => options.commit = Some(value()?),
                "--cpus" => {
                    let text = value()?;
                    let pair = text.split_once(',');
                    let pair = pair.ok_or_else(|| unfit(format!("--cpus {text}: expected two, as 0,1")))?;
                    options.cpus = Some((number(&word, pair.0)?, number(&word, pair.1)?));
                }
                _ => refused = refused.or(Some(word)),
            }
        }
        // `cargo test` passes the options of its own harness to every target, so a smoke run ignores unknown ones
        if let (Some(word), true) = (refused, options.measure) {
            return Err(unfit(format!("{word}: not an option of this bench\n{USAGE}")));
        }
        if !(options.seconds > 0.0 && options.seconds <= 86_400.0) {
            return Err(unfit(format!("--seconds {}: expected more than 0, up to 86400", options.seconds)));
        }
        if let Some(commit) = &options.commit {
            if commit.is_empty() || !commit.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Err(unfit(format!(
                    "--commit {commit}: expected letters and digits, as git has them"
                )));
            }
        }
        Ok(options)
    }
}

fn number<T: FromStr>(option: &str, text: &str) -> io::Result<T> {
    text.trim().parse().map_err(|_| unfit(format!("{option} {text}: not a number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> io::Result<Options> {
        Options::parse(words.iter().map(|word| word.to_string()))
    }

    #[test]
    fn options_are_parsed() {
        let options =
            parse(&["--bench", "--seconds", "60", "--peers", "--cpus", "2,3", "--out", "x"]).unwrap();
        assert!(options.measure && options.peers && !options.page && !options.check);
        assert_eq!((options.seconds, options.cpus, options.out), (60.0, Some((2, 3)), Some("x".into())));
    }

    #[test]
    fn invalid_options_are_named() {
        for (words, part) in [
            (&["--bench", "--second", "1"][..], "--second: not an option"),
            (&["--bench", "--seconds"], "--seconds needs a value"),
            (&["--bench", "--seconds", "x"], "--seconds x: not a number"),
            (&["--bench", "--seconds", "0"], "expected more than 0"),
            (&["--bench", "--seconds", "NaN"], "expected more than 0"),
            (&["--bench", "--cpus", "1"], "expected two"),
            (&["--bench", "--commit", "../x"], "expected letters and digits"),
        ] {
            let error = parse(words).unwrap_err().to_string();
            assert!(error.contains(part), "{words:?}: {error}");
        }
    }

    #[test]
    fn smoke_run_ignores_options_of_the_test_harness() {
        assert!(!parse(&["--nocapture", "some_filter", "--test-threads=1"]).unwrap().measure);
    }
}
