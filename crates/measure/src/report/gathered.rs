//! Computes rows from the results of sessions.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::row::{Kind, PlacedRows, Row};
use crate::collected::{Collected, FEWEST};
use crate::limits::Measured;
use crate::paced::Paced;
use crate::placement::{NEAR_BELOW_NS, Placement};
use crate::session::{Experiment, Slice};
use crate::sleeping::WakeUps;
use crate::statistics::{Spread, median};
use crate::transports::CLASSIC;

/// The largest border between near and far. It is moved up from the usual one in steps.
const HIGHEST_BORDER_NS: f64 = 160.0;
const BORDER_STEP_NS: f64 = 5.0;
/// Floors closer than this factor to a border may belong to either side.
const UNCLEAR: f64 = 1.1;
/// At most one floor in this many may be ambiguous.
const RARE: usize = 50;

/// Significant digits of a figure in a file.
const DIGITS: i32 = 4;

/// The subject of a figure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Subject {
    kind: Kind,
    capacity: Option<usize>,
    bytes: usize,
    transport: String,
    waits: String,
    rate: Option<u64>,
}

/// The results of one session for one subject in one placement: slices, or counts of delays.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Sample {
    subject: Subject,
    placement: Placement,
    /// Nanoseconds of each slice, and of its floor.
    slices: Vec<[f64; 2]>,
    /// Nanoseconds, and the number of messages that took this long.
    delays: Vec<[u64; 2]>,
}

impl Sample {
    /// Slices, or messages.
    fn n(&self) -> u64 {
        self.slices.len() as u64 + self.delays.iter().map(|[_, count]| count).sum::<u64>()
    }

    fn costs(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let slices = self.slices.iter().map(|&[cost, _]| (cost, 1));
        slices.chain(self.delays.iter().map(|&[delay, count]| (delay as f64, count)))
    }

    /// The session's median, if it has enough slices or messages.
    fn median(&self) -> Option<f64> {
        (self.n() >= FEWEST as u64).then(|| weighted(self.costs().collect()))?.map(|spread| spread.median)
    }
}

/// The results of one session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub(super) samples: Vec<Sample>,
    /// Slices that did not count, because their floors differed.
    pub discarded: u64,
}

impl Part {
    /// A session's round trips and streams in a ring of `capacity` bytes.
    pub fn of_slices(collected: &Collected, capacity: usize) -> Part {
        let mut part = Part::default();
        for series in &collected.series {
            let subject = Subject {
                kind: match series.config.experiment {
                    Experiment::RoundTrip => Kind::RoundTrip,
                    Experiment::Streaming => Kind::Streaming,
                },
                capacity: Some(capacity),
                bytes: series.config.size,
                transport: series.transport.to_owned(),
                waits: series.mode.to_string(),
                rate: None,
            };
            part.add(&subject, &series.slices);
            part.discarded += series.discarded;
        }
        part
    }

    /// A session's limits.
    pub fn of_limits(measured: &[Measured]) -> Part {
        let mut part = Part::default();
        for measured in measured {
            let subject = Subject {
                kind: Kind::Limit,
                capacity: None,
                bytes: measured.size,
                transport: measured.name.to_owned(),
                waits: measured.mode.to_string(),
                rate: None,
            };
            part.add(&subject, &measured.slices);
            part.discarded += measured.discarded;
        }
        part
    }

    /// A session's messages at fixed rates.
    pub fn of_paced(paced: &[Paced], capacity: usize) -> Part {
        let samples = paced.iter().map(|paced| Sample {
            subject: Subject {
                kind: Kind::Paced,
                capacity: Some(capacity),
                bytes: paced.size,
                transport: paced.transport.to_owned(),
                waits: paced.mode.to_string(),
                rate: Some(paced.rate().round() as u64),
            },
            placement: paced.placement,
            slices: Vec::new(),
            delays: counts(&paced.histogram),
        });
        Part { samples: samples.filter(|sample| sample.n() > 0).collect(), discarded: 0 }
    }

    /// A session's wake-ups.
    pub fn of_wake_ups(wake_ups: &[WakeUps], capacity: usize) -> Part {
        let samples = wake_ups.iter().map(|wake_ups| Sample {
            subject: Subject {
                kind: Kind::WakeUp,
                capacity: Some(capacity),
                bytes: wake_ups.size,
                transport: wake_ups.transport.to_owned(),
                waits: wake_ups.mode.to_string(),
                rate: None,
            },
            placement: wake_ups.placement,
            slices: Vec::new(),
            delays: counts(&wake_ups.histogram),
        });
        Part { samples: samples.filter(|sample| sample.n() > 0).collect(), discarded: 0 }
    }

    /// Adds slices, separated by placement.
    fn add(&mut self, subject: &Subject, slices: &[Slice]) {
        for placement in [Placement::Near, Placement::Far, Placement::OneCpu] {
            let here = slices.iter().filter(|slice| slice.placement == placement);
            let slices: Vec<_> =
                here.map(|slice| [rounded(slice.cost_ns), rounded(slice.floor_ns)]).collect();
            if !slices.is_empty() {
                let subject = subject.clone();
                self.samples.push(Sample { subject, placement, slices, delays: Vec::new() });
            }
        }
    }

    /// The results of this session for a subject and placement, created if new.
    fn sample(&mut self, subject: &Subject, placement: Placement) -> &mut Sample {
        let is_it = |sample: &Sample| (&sample.subject, sample.placement) == (subject, placement);
        let at = self.samples.iter().position(is_it).unwrap_or(self.samples.len());
        if at == self.samples.len() {
            let (subject, slices, delays) = (subject.clone(), Vec::new(), Vec::new());
            self.samples.push(Sample { subject, placement, slices, delays });
        }
        &mut self.samples[at]
    }

    /// The results of this session for a subject and placement.
    fn find(&self, subject: &Subject, placement: Placement) -> Option<&Sample> {
        self.samples.iter().find(|sample| (&sample.subject, sample.placement) == (subject, placement))
    }

    /// The classic ring's median in this session, in the same experiment.
    fn classic(&self, subject: &Subject, placement: Placement) -> Option<f64> {
        let samples = self.samples.iter().filter(|sample| sample.placement == placement);
        let mut classic = samples.filter(|sample| is_classic_of(&sample.subject, subject));
        classic.next()?.median()
    }
}

/// Whether it is the classic ring in the same experiment. Its wait mode may differ.
fn is_classic_of(classic: &Subject, subject: &Subject) -> bool {
    let of = |subject: &Subject| (subject.kind, subject.capacity, subject.bytes, subject.rate);
    classic.transport == CLASSIC.name() && of(classic) == of(subject)
}

fn counts(histogram: &Histogram<u64>) -> Vec<[u64; 2]> {
    histogram.iter_recorded().map(|value| [value.value_iterated_to(), value.count_at_value()]).collect()
}

/// All sessions.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    parts: Vec<Part>,
}

impl Gathered {
    /// Adds a session.
    pub fn add(&mut self, part: Part) {
        self.parts.push(part);
    }

    /// The border between near and far, in nanoseconds of the floor: [`NEAR_BELOW_NS`], unless it divides a single placement of
    /// this machine. Then the border a little higher with the fewest floors near it.
    pub(super) fn border(&self) -> f64 {
        let floors = || {
            let samples = self.parts.iter().flat_map(|part| &part.samples);
            let placed = samples.filter(|sample| sample.placement != Placement::OneCpu);
            placed.flat_map(|sample| &sample.slices).map(|[_, floor]| *floor)
        };
        let unclear = |border: f64| {
            floors().filter(|floor| (border / UNCLEAR..border * UNCLEAR).contains(floor)).count()
        };
        if RARE * unclear(NEAR_BELOW_NS) <= floors().count() {
            return NEAR_BELOW_NS;
        }
        let steps = ((HIGHEST_BORDER_NS - NEAR_BELOW_NS) / BORDER_STEP_NS) as u32;
        let borders = (0..=steps).map(|step| NEAR_BELOW_NS + BORDER_STEP_NS * f64::from(step));
        borders.min_by_key(|&border| unclear(border)).unwrap_or(NEAR_BELOW_NS)
    }

    /// The same, with slices divided by another border. Delays have no floors of their own, so they keep their placement.
    pub(super) fn with_border(self, near_below_ns: f64) -> Gathered {
        let parts = self.parts.into_iter().map(|part| {
            let mut placed = Part { samples: Vec::new(), discarded: part.discarded };
            for sample in part.samples {
                let Sample { subject, placement, slices, delays } = sample;
                let one_cpu = placement == Placement::OneCpu;
                for [cost, floor] in slices {
                    let placement = Placement::of(floor, near_below_ns, one_cpu);
                    placed.sample(&subject, placement).slices.push([cost, floor]);
                }
                if !delays.is_empty() {
                    placed.sample(&subject, placement).delays.extend(delays);
                }
            }
            placed
        });
        Gathered { parts: parts.collect() }
    }

    /// Slices that did not count.
    pub(super) fn discarded(&self) -> u64 {
        self.parts.iter().map(|part| part.discarded).sum()
    }

    /// Slices and messages in this placement.
    pub(super) fn n(&self, placement: Placement) -> u64 {
        self.samples(placement).map(Sample::n).sum()
    }

    fn samples(&self, placement: Placement) -> impl Iterator<Item = &Sample> {
        let samples = self.parts.iter().flat_map(|part| &part.samples);
        samples.filter(move |sample| sample.placement == placement)
    }

    /// The placements in which at least half of all round trips and streams have enough slices. The others prove little.
    pub fn placements(&self) -> Vec<Placement> {
        let sliced = |rows: &[Row]| {
            rows.iter().filter(|row| matches!(row.experiment, Kind::RoundTrip | Kind::Streaming)).count()
        };
        let everywhere = [Placement::Near, Placement::Far, Placement::OneCpu];
        let counts: Vec<_> = everywhere.map(|placement| (placement, sliced(&self.rows(placement)))).into();
        let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0);
        let often = counts.into_iter().filter(|(_, count)| *count > 0 && 2 * count >= most);
        often.map(|(placement, _)| placement).collect()
    }

    /// The rows of each placement that [occurred](Gathered::placements) often enough.
    pub fn placed(&self) -> Vec<PlacedRows> {
        let placements = self.placements().into_iter();
        placements.map(|placement| PlacedRows { placement, rows: self.rows(placement) }).collect()
    }

    /// The rows of one placement. Fewer than five slices make no row.
    pub fn rows(&self, placement: Placement) -> Vec<Row> {
        // transports in the order of the comparison, in any placement
        let mut transports: Vec<&str> = Vec::new();
        for sample in self.parts.iter().flat_map(|part| &part.samples) {
            if !transports.contains(&sample.subject.transport.as_str()) {
                transports.push(&sample.subject.transport);
            }
        }
        let mut subjects: Vec<&Subject> = Vec::new();
        for sample in self.samples(placement) {
            if !subjects.contains(&&sample.subject) {
                subjects.push(&sample.subject);
            }
        }
        subjects.sort_by_key(|subject| {
            let transport = transports.iter().position(|its| *its == subject.transport);
            (subject.kind, subject.capacity, subject.rate, subject.bytes, transport)
        });
        let mut rows = Vec::new();
        rows.extend(self.floor(placement));
        rows.extend(subjects.into_iter().filter_map(|subject| self.row(subject, placement)));
        rows
    }

    /// The floors around the slices.
    fn floor(&self, placement: Placement) -> Option<Row> {
        let slices: Vec<_> = self.samples(placement).flat_map(|sample| &sample.slices).collect();
        let spread = Spread::of(slices.iter().map(|[_, floor]| *floor)).filter(|_| slices.len() >= FEWEST)?;
        let medians = self.parts.iter().filter_map(|part| {
            let samples = part.samples.iter().filter(|sample| sample.placement == placement);
            let floors: Vec<f64> =
                samples.flat_map(|sample| &sample.slices).map(|[_, floor]| *floor).collect();
            median(floors.iter().copied()).filter(|_| floors.len() >= FEWEST)
        });
        let mut row = Row::new(Kind::OneLine, 0, "floor");
        fill(&mut row, slices.len() as u64, spread);
        row.waits = Some("polls".to_owned());
        fill_sessions(&mut row, medians.collect());
        Some(row)
    }

    fn row(&self, subject: &Subject, placement: Placement) -> Option<Row> {
        let parts = || self.parts.iter().filter_map(|part| Some((part, part.find(subject, placement)?)));
        let n = parts().map(|(_, sample)| sample.n()).sum();
        let spread = weighted(parts().flat_map(|(_, sample)| sample.costs()).collect());
        let spread = spread.filter(|_| n >= FEWEST as u64)?;
        let mut row = Row::new(subject.kind, subject.bytes, &subject.transport);
        (row.capacity, row.rate, row.waits) = (subject.capacity, subject.rate, Some(subject.waits.clone()));
        fill(&mut row, n, spread);
        let slices = parts().flat_map(|(_, sample)| &sample.slices);
        row.to_floor = median(slices.map(|[cost, floor]| cost / floor)).map(rounded);
        fill_sessions(&mut row, parts().filter_map(|(_, sample)| sample.median()).collect());
        if subject.kind == Kind::Limit {
            return Some(row);
        }
        let classic = self.samples(placement).filter(|sample| is_classic_of(&sample.subject, subject));
        let classic: Vec<_> = classic.flat_map(Sample::costs).collect();
        let enough = classic.iter().map(|(_, count)| count).sum::<u64>() >= FEWEST as u64;
        let classic = weighted(classic).filter(|_| enough);
        row.to_classic = classic.map(|classic| rounded(spread.median / classic.median));
        let ratios = parts()
            .filter_map(|(part, sample)| Some(sample.median()? / part.classic(subject, placement)?))
            .collect::<Vec<_>>();
        if subject.transport != CLASSIC.name() && ratios.len() >= FEWEST {
            row.sessions_to_classic = Spread::of(ratios).map(quartiles);
        }
        Some(row)
    }
}

fn fill(row: &mut Row, n: u64, spread: Spread) {
    row.n = Some(n);
    row.median_ns = Some(rounded(spread.median));
    row.quartiles_ns = Some(quartiles(spread));
}

fn fill_sessions(row: &mut Row, medians: Vec<f64>) {
    row.sessions = Some(medians.len() as u32);
    row.sessions_ns = Spread::of(medians.iter().copied()).filter(|_| medians.len() >= FEWEST).map(quartiles);
}

fn quartiles(Spread { lower, upper, .. }: Spread) -> [f64; 2] {
    [rounded(lower), rounded(upper)]
}

/// The spread of values with counts.
fn weighted(mut values: Vec<(f64, u64)>) -> Option<Spread> {
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all: u64 = values.iter().map(|(_, count)| count).sum();
    if all == 0 {
        return None;
    }
    let at = |quarter: u64| {
        let wanted = (all * quarter / 4).min(all - 1);
        let mut before = 0;
        let found = values.iter().find(|(_, count)| {
            before += count;
            before > wanted
        });
        found.map_or(f64::NAN, |(value, _)| *value)
    };
    Some(Spread { lower: at(1), median: at(2), upper: at(3) })
}

/// Rounds to four significant digits. More are noise.
pub(super) fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = (DIGITS - 1 - value.abs().log10().floor() as i32).max(0);
    format!("{value:.*}", digits as usize).parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collected::Series;
    use crate::session::Config;
    use crate::transports::Mode;

    fn session(costs: &[(&'static str, &[f64])], floor_ns: f64) -> Part {
        let placement = Placement::of(floor_ns, 80.0, false);
        let series = costs.iter().map(|(transport, costs)| Series {
            config: Config { experiment: Experiment::RoundTrip, transport: 0, size: 64 },
            transport,
            mode: Mode::Polls,
            slices: costs.iter().map(|&cost_ns| Slice { cost_ns, floor_ns, placement }).collect(),
            discarded: 1,
        });
        let (series, placements) = (series.collect(), Placement::OF_TWO_CPUS.to_vec());
        Part::of_slices(&Collected { series, placements, near_below_ns: 80.0, sessions: 1 }, 4096)
    }

    fn gathered(parts: Vec<Part>) -> Gathered {
        Gathered { parts }
    }

    #[test]
    fn row_combines_all_sessions_and_shows_their_spread() {
        let parts: Vec<_> = [0.8, 0.9, 0.9, 1.0, 1.2]
            .map(|ratio| session(&[("classic", &[100.0; 5]), ("shmpipe", &[100.0 * ratio; 5])], 50.0))
            .into();
        let gathered = gathered(parts);
        let rows = gathered.rows(Placement::Near);
        assert_eq!(
            rows.iter().map(|row| row.transport.as_str()).collect::<Vec<_>>(),
            ["floor", "classic", "shmpipe"]
        );
        let ours = &rows[2];
        assert_eq!((ours.n, ours.median_ns, ours.quartiles_ns), (Some(25), Some(90.0), Some([90.0, 100.0])));
        assert_eq!((ours.to_classic, ours.to_floor), (Some(0.9), Some(1.8)));
        assert_eq!((ours.sessions, ours.sessions_to_classic), (Some(5), Some([0.9, 1.0])));
        assert_eq!((rows[0].n, rows[0].median_ns), (Some(50), Some(50.0)));
        assert_eq!((rows[1].to_classic, rows[1].sessions_to_classic), (Some(1.0), None));
        assert_eq!((gathered.discarded(), ours.capacity), (10, Some(4096)));
    }

    #[test]
    fn placements_are_separate_and_rare_ones_omitted() {
        let here = session(&[("classic", &[100.0; 5]), ("shmpipe", &[80.0; 5]), ("pipe", &[9.0; 5])], 50.0);
        let there = session(&[("classic", &[900.0; 5]), ("shmpipe", &[450.0; 4])], 300.0);
        let gathered = gathered(vec![here, there]);
        assert_eq!(gathered.placements(), [Placement::Near]);
        let far = gathered.rows(Placement::Far);
        assert!(far.iter().all(|row| row.transport != "shmpipe"), "four slices make no row: {far:?}");
        assert_eq!(gathered.rows(Placement::Near)[2].to_classic, Some(0.8));
    }

    #[test]
    fn misplaced_border_is_moved() {
        let at = |floor: f64, costs: &[f64]| session(&[("shmpipe", costs)], floor);
        let usual = gathered(vec![at(64.0, &[90.0; 100]), at(330.0, &[424.0; 100]), at(82.0, &[1.0; 2])]);
        assert_eq!(usual.border(), 80.0, "a few do not matter");
        let parts = [72.0, 76.0, 79.0, 82.0, 85.0, 410.0].map(|floor| at(floor, &[1.3 * floor; 20]));
        let straddling = gathered(parts.into());
        assert_eq!(straddling.rows(Placement::Far)[1].n, Some(60));
        let border = straddling.border();
        assert!((90.0..=120.0).contains(&border), "{border}");
        let mended = straddling.with_border(border);
        assert_eq!(
            (mended.rows(Placement::Near)[1].n, mended.rows(Placement::Far)[1].n),
            (Some(100), Some(20))
        );
        assert_eq!(gathered(vec![at(121.0, &[326.0; 100])]).border(), 80.0, "far as ever");
    }

    #[test]
    fn rare_transport_does_not_change_the_order() {
        let first = session(&[("classic", &[9.0; 5]), ("shmpipe", &[8.0; 5]), ("pipe", &[7.0; 5])], 50.0);
        let part = session(&[("pipe", &[900.0; 5]), ("classic", &[900.0; 5])], 300.0);
        let rows = gathered(vec![first, part]).rows(Placement::Far);
        assert_eq!(
            rows.iter().map(|row| row.transport.as_str()).collect::<Vec<_>>(),
            ["floor", "classic", "pipe"]
        );
    }

    #[test]
    fn delays_are_counted() {
        assert_eq!(weighted(vec![(9.0, 1), (1.0, 2), (5.0, 1)]).unwrap().median, 5.0);
        assert_eq!(weighted(vec![(1.0, 3), (7.0, 1)]), Some(Spread { lower: 1.0, median: 1.0, upper: 7.0 }));
        assert_eq!(weighted(vec![(1.0, 0)]), None);
    }

    #[test]
    fn part_round_trips_through_its_file() {
        let part = session(&[("classic", &[100.126; 5])], 50.0);
        let text = serde_json::to_string(&part).unwrap();
        assert_eq!(serde_json::from_str::<Part>(&text).unwrap(), part);
        assert!(text.contains("100.1,"), "{text}");
    }

    #[test]
    fn figures_have_four_significant_digits() {
        assert_eq!([0.123456, 1.0, 99999.0, 0.0].map(rounded), [0.1235, 1.0, 99999.0, 0.0]);
    }
}
