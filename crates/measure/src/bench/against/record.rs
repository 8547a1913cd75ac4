//! The output of the program for its parent: lines of fields, separated by tabs.

use std::cmp::Reverse;
use std::fmt::Write;
use std::io;
use std::str::{FromStr, Split};

use super::What;
use super::ratios::Point;
use crate::collected::{Collected, FEWEST, Series};
use crate::latency::{self, FLOOR, Latency};
use crate::paced::{self, Paced};
use crate::placement::Placement;
use crate::session::{Config, Slice};
use crate::settings::Settings;
use crate::transports::{Mode, Transport};

/// A transport, as the tables describe it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Named {
    pub(super) name: &'static str,
    pub(super) mode: Mode,
    pub(super) about: String,
}

/// The results of one or several sessions.
pub(super) enum Measured {
    Slices(Collected),
    Latency(Vec<Latency>),
    Paced(Vec<Paced>),
}

/// The whole output of the program.
pub(super) struct Report {
    pub(super) transports: Vec<Named>,
    /// The name in this tree, and the name in the other.
    pub(super) pairs: Vec<(String, String)>,
    pub(super) measured: Measured,
}

pub(super) fn unreadable(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("what the program wrote is not readable: {what}"))
}

/// The lines of a session.
pub(super) fn write(
    transports: &[&'static dyn Transport],
    pairs: &[(&'static str, &'static str)],
    measured: &Measured,
) -> String {
    let mut text = String::new();
    for transport in transports {
        let (name, mode, about) = (transport.name(), transport.mode(), transport.about());
        let _ = writeln!(text, "transport\t{name}\t{mode}\t{about}");
    }
    for (this, other) in pairs {
        let _ = writeln!(text, "pair\t{this}\t{other}");
    }
    match measured {
        Measured::Slices(collected) => {
            for placement in &collected.placements {
                let _ = writeln!(text, "placement\t{placement}");
            }
            for Series { config, transport, slices, discarded, .. } in &collected.series {
                let _ = write!(text, "series\t{transport}\t{}\t{discarded}", config.size);
                for Slice { cost_ns, floor_ns, placement } in slices {
                    let _ = write!(text, "\t{cost_ns}\t{floor_ns}\t{placement}");
                }
                text.push('\n');
            }
        }
        Measured::Latency(latencies) => {
            for Latency { transport, size, placement, histogram, slices, .. } in latencies {
                let _ = write!(text, "latency\t{transport}\t{size}\t{placement}\t{slices}");
                counts(&mut text, histogram);
            }
        }
        Measured::Paced(paced) => {
            for Paced { transport, size, interval, placement, histogram, early, slices, kept_up, .. } in paced
            {
                let _ = write!(
                    text,
                    "paced\t{transport}\t{size}\t{placement}\t{slices}\t{interval}\t{early}\t{kept_up}"
                );
                counts(&mut text, histogram);
            }
        }
    }
    text
}

/// Every value of the histogram with its count.
fn counts(text: &mut String, histogram: &hdrhistogram::Histogram<u64>) {
    for value in histogram.iter_recorded() {
        let _ = write!(text, "\t{}\t{}", value.value_iterated_to(), value.count_at_value());
    }
    text.push('\n');
}

/// The fields of a line.
struct Fields<'a>(Split<'a, char>);

impl<'a> Fields<'a> {
    fn text(&mut self) -> io::Result<&'a str> {
        self.0.next().ok_or_else(|| unreadable("a line with a field too few"))
    }

    fn parsed<T: FromStr>(&mut self) -> io::Result<T> {
        let text = self.text()?;
        text.parse().map_err(|_| unreadable(text))
    }

    fn one_of<T: ToString + Copy>(&mut self, all: &[T]) -> io::Result<T> {
        let text = self.text()?;
        all.iter().copied().find(|each| each.to_string() == text).ok_or_else(|| unreadable(text))
    }

    fn placement(&mut self) -> io::Result<Placement> {
        self.one_of(&[Placement::Near, Placement::Far, Placement::OneCpu])
    }

    fn counts(&mut self) -> io::Result<hdrhistogram::Histogram<u64>> {
        let mut histogram = latency::histogram()?;
        while let Some(value) = self.0.next() {
            let value = value.parse().map_err(|_| unreadable(value))?;
            histogram.saturating_record_n(value, self.parsed()?);
        }
        Ok(histogram)
    }
}

impl Report {
    /// Reads the output of [`write`]. `before` is the report of earlier sessions, if any.
    pub(super) fn read(
        text: &str,
        what: What,
        settings: &Settings,
        before: Option<&Report>,
    ) -> io::Result<Report> {
        let measured = match what {
            What::Slices(_) => Measured::Slices(Collected {
                series: Vec::new(),
                placements: Vec::new(),
                near_below_ns: settings.near_below_ns,
                sessions: 1,
            }),
            What::Latency => Measured::Latency(Vec::new()),
            What::Paced => Measured::Paced(Vec::new()),
        };
        let mut report = Report {
            transports: before.map(|before| before.transports.clone()).unwrap_or_default(),
            pairs: Vec::new(),
            measured,
        };
        for line in text.lines() {
            report.line(line, what)?;
        }
        report.sort();
        Ok(report)
    }

    fn line(&mut self, line: &str, what: What) -> io::Result<()> {
        let mut fields = Fields(line.split('\t'));
        match (fields.text()?, what) {
            ("transport", _) => {
                let name = fields.text()?;
                let mode = fields.one_of(&[Mode::Polls, Mode::PollsThenSleeps, Mode::Sleeps])?;
                let about = fields.text()?.to_owned();
                if !self.transports.iter().any(|found| found.name == name) {
                    // leaked on purpose: they are few, and used until this process ends
                    let name = Box::leak(name.to_owned().into_boxed_str());
                    self.transports.push(Named { name, mode, about });
                }
            }
            ("pair", _) => self.pairs.push((fields.text()?.to_owned(), fields.text()?.to_owned())),
            ("placement", _) => {
                let Measured::Slices(collected) = &mut self.measured else { return Err(unreadable(line)) };
                collected.placements.push(fields.placement()?);
            }
            ("series", What::Slices(experiment)) => {
                let (transport, name, mode) = self.named(fields.text()?)?;
                let config = Config { experiment, transport, size: fields.parsed()? };
                let mut series =
                    Series { config, transport: name, mode, slices: Vec::new(), discarded: fields.parsed()? };
                while let Some(cost) = fields.0.next() {
                    series.slices.push(Slice {
                        cost_ns: cost.parse().map_err(|_| unreadable(cost))?,
                        floor_ns: fields.parsed()?,
                        placement: fields.placement()?,
                    });
                }
                let Measured::Slices(collected) = &mut self.measured else { return Err(unreadable(line)) };
                collected.series.push(series);
            }
            ("latency", What::Latency) => {
                let (_, transport, mode) = self.named(fields.text()?)?;
                let (size, placement, slices) = (fields.parsed()?, fields.placement()?, fields.parsed()?);
                let histogram = fields.counts()?;
                let Measured::Latency(all) = &mut self.measured else { return Err(unreadable(line)) };
                all.push(Latency { transport, mode, size, placement, histogram, slices });
            }
            ("paced", What::Paced) => {
                let (_, transport, mode) = self.named(fields.text()?)?;
                let (size, placement, slices) = (fields.parsed()?, fields.placement()?, fields.parsed()?);
                let (interval, early, kept_up) = (fields.parsed()?, fields.parsed()?, fields.parsed()?);
                let histogram = fields.counts()?;
                let Measured::Paced(all) = &mut self.measured else { return Err(unreadable(line)) };
                all.push(Paced {
                    transport,
                    mode,
                    size,
                    interval,
                    placement,
                    histogram,
                    early,
                    slices,
                    kept_up,
                });
            }
            _ => return Err(unreadable(line)),
        }
        Ok(())
    }

    /// Maps the order of the session to that of the tables.
    fn sort(&mut self) {
        let number = |name: &str| self.transports.iter().position(|found| found.name == name);
        match &mut self.measured {
            Measured::Slices(collected) => {
                collected.series.sort_by_key(|series| (series.config.size, series.config.transport))
            }
            Measured::Latency(all) => all.sort_by_key(|row| (row.size, number(row.transport))),
            Measured::Paced(all) => {
                all.sort_by_key(|row| (Reverse(row.interval), row.size, number(row.transport)))
            }
        }
    }

    /// The number, the name and the mode of a transport.
    fn named(&self, name: &str) -> io::Result<(usize, &'static str, Mode)> {
        if name == FLOOR {
            return Ok((0, FLOOR, Mode::Polls));
        }
        let number = self.transports.iter().position(|found| found.name == name);
        let number = number.ok_or_else(|| unreadable(name))?;
        Ok((number, self.transports[number].name, self.transports[number].mode))
    }

    /// Adds the results of another session.
    pub(super) fn append(&mut self, later: Report) -> io::Result<()> {
        match (&mut self.measured, later.measured) {
            (Measured::Slices(all), Measured::Slices(later)) => {
                all.append(later);
                Ok(())
            }
            (Measured::Latency(all), Measured::Latency(later)) => latency::append(all, later),
            (Measured::Paced(all), Measured::Paced(later)) => paced::append(all, later),
            _ => Err(unreadable("sessions of different kinds")),
        }
    }

    /// The classic ring if it takes part, else the first transport of another tree.
    pub(super) fn default_baseline(&self) -> String {
        let classic = self.transports.iter().find(|transport| transport.name == crate::bench::BASELINE);
        match (classic, self.pairs.first()) {
            (None, Some((_, other))) => other.clone(),
            _ => crate::bench::BASELINE.to_owned(),
        }
    }
}

impl Measured {
    /// The figures to compare, for every transport.
    pub(super) fn points(&self) -> Vec<Point> {
        match self {
            Measured::Slices(collected) => {
                let cells = collected.series.iter().flat_map(|series| {
                    collected.placements.iter().filter_map(|&placement| {
                        let cell = series.cell(placement);
                        let median = cell.cost_ns?.median;
                        (cell.n >= FEWEST).then(|| Point {
                            transport: series.transport,
                            rate: 0,
                            size: series.config.size,
                            placement,
                            n: cell.n,
                            figures: vec![Some(median)],
                        })
                    })
                });
                cells.collect()
            }
            Measured::Latency(latencies) => {
                let rows = latencies.iter().map(|row| {
                    let Latency { transport, size, placement, slices, histogram, .. } = row;
                    Point::of_histogram(transport, 0, *size, *placement, *slices, histogram)
                });
                rows.collect()
            }
            Measured::Paced(paced) => {
                let rows = paced.iter().map(|row| {
                    let Paced { transport, size, placement, slices, histogram, .. } = row;
                    let rate = row.rate().round() as u64;
                    Point::of_histogram(transport, rate, *size, *placement, *slices as usize, histogram)
                });
                rows.collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Experiment;
    use crate::transports::{CLASSIC, SHMPIPE};

    const SETTINGS: fn() -> Settings = Settings::default;

    fn slice(cost_ns: f64, placement: Placement) -> Slice {
        Slice { cost_ns, floor_ns: 60.25, placement }
    }

    fn slices() -> Measured {
        let series = |number, transport: &dyn Transport, slices: &[Slice]| Series {
            config: Config { experiment: Experiment::Streaming, transport: number, size: 64 },
            transport: transport.name(),
            mode: transport.mode(),
            slices: slices.to_vec(),
            discarded: 3,
        };
        // the session has another order than the tables
        let shmpipe = [slice(0.1 + 0.2, Placement::Near), slice(1e6, Placement::Far)];
        Measured::Slices(Collected {
            series: vec![series(0, SHMPIPE, &shmpipe), series(1, CLASSIC, &[])],
            placements: Placement::OF_TWO_CPUS.to_vec(),
            near_below_ns: SETTINGS().near_below_ns,
            sessions: 1,
        })
    }

    fn through_text(measured: &Measured, what: What) -> Report {
        let text = write(&[CLASSIC, SHMPIPE], &[("shmpipe", "classic")], measured);
        Report::read(&text, what, &SETTINGS(), None).unwrap()
    }

    #[test]
    fn slices_round_trip_through_text() {
        let report = through_text(&slices(), What::Slices(Experiment::Streaming));
        assert_eq!(report.pairs, [("shmpipe".to_owned(), "classic".to_owned())]);
        let about: Vec<&str> = report.transports.iter().map(|transport| &transport.about[..]).collect();
        assert_eq!(about, [CLASSIC.about(), SHMPIPE.about()]);
        let Measured::Slices(found) = report.measured else { panic!("not slices") };
        assert_eq!(found.placements, Placement::OF_TWO_CPUS);
        let names: Vec<&str> = found.series.iter().map(|series| series.transport).collect();
        assert_eq!(names, ["classic", "shmpipe"]);
        let Series { config, mode, slices, discarded, .. } = &found.series[1];
        assert_eq!(*config, Config { experiment: Experiment::Streaming, transport: 1, size: 64 });
        assert_eq!((*mode, *discarded), (SHMPIPE.mode(), 3));
        assert_eq!(*slices, [slice(0.1 + 0.2, Placement::Near), slice(1e6, Placement::Far)]);
    }

    #[test]
    fn sessions_are_merged() {
        let what = What::Slices(Experiment::Streaming);
        let mut report = through_text(&slices(), what);
        report.append(through_text(&slices(), what)).unwrap();
        let Measured::Slices(all) = &report.measured else { panic!("not slices") };
        assert_eq!((all.sessions, all.series.len(), all.series[1].slices.len()), (2, 2, 4));
        assert!(report.append(through_text(&Measured::Paced(Vec::new()), What::Paced)).is_err());
    }

    #[test]
    fn histograms_round_trip_through_text() {
        let mut histogram = latency::histogram().unwrap();
        for ns in [0, 1, 17, 17, 4711, 123_456_789] {
            histogram.saturating_record(ns);
        }
        let (transport, mode, placement) = (SHMPIPE.name(), SHMPIPE.mode(), Placement::Far);
        let row = Paced {
            transport,
            mode,
            size: 64,
            interval: 1000,
            placement,
            histogram: histogram.clone(),
            early: 5,
            slices: 6,
            kept_up: 4,
        };
        let floor = Paced { transport: FLOOR, mode: Mode::Polls, size: 0, ..row.clone() };
        let slow = Paced { interval: 100_000, ..row.clone() };
        // ascending rates, as in the tables
        let report = through_text(&Measured::Paced(vec![row, floor, slow]), What::Paced);
        let Measured::Paced(found) = report.measured else { panic!("not paced") };
        let keys: Vec<_> = found.iter().map(|row| (row.interval, row.transport)).collect();
        assert_eq!(keys, [(100_000, "shmpipe"), (1000, FLOOR), (1000, "shmpipe")]);
        let Paced { histogram: its, early, slices, kept_up, .. } = &found[2];
        assert_eq!((its, *early, *slices, *kept_up), (&histogram, 5, 6, 4));

        let row = Latency { transport, mode, size: 8, placement, histogram: histogram.clone(), slices: 2 };
        let report = through_text(&Measured::Latency(vec![row]), What::Latency);
        let Measured::Latency(found) = report.measured else { panic!("not latency") };
        assert_eq!((&found[0].histogram, found[0].size, found[0].slices), (&histogram, 8, 2));
    }

    #[test]
    fn unreadable_lines_are_errors() {
        let read = |text: &str| {
            let report = Report::read(text, What::Paced, &SETTINGS(), None);
            report.err().expect("an error").to_string()
        };
        assert!(read("nonsense").contains("nonsense"));
        assert!(read("paced\tunknown\t1").contains("unknown"));
        assert!(read("transport\tx\tflies\tabout").contains("flies"));
        assert!(read("series\tfloor\t8\t0").contains("series"));
        assert!(read("pair\tx").contains("a field too few"));
    }

    #[test]
    fn baseline_is_the_classic_ring_or_the_first_other() {
        let mut report = through_text(&slices(), What::Slices(Experiment::Streaming));
        assert_eq!(report.default_baseline(), "classic");
        report.transports.remove(0);
        report.pairs = vec![("shmpipe".to_owned(), "shmpipe@HEAD".to_owned())];
        assert_eq!(report.default_baseline(), "shmpipe@HEAD");
    }
}
