//! Results of slices: medians, ratios, tables.

use std::fmt;

use crate::placement::Placement;
use crate::session::{Config, Experiment, Slice};
use crate::statistics::{self, Spread};
use crate::table::{self, Table};
use crate::transports::Mode;

/// The slices of one configuration.
#[derive(Clone, Debug)]
pub struct Series {
    /// What was measured.
    pub config: Config,
    /// Its transport's name.
    pub transport: &'static str,
    /// How its transport waits.
    pub mode: Mode,
    /// The slices that count.
    pub slices: Vec<Slice>,
    /// Slices that do not count, because their floors differed.
    pub discarded: u64,
}

/// The cost of the slices of one configuration in one placement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// Slices.
    pub n: usize,
    /// Nanoseconds of one message or round trip. `None` without slices.
    pub cost_ns: Option<Spread>,
    /// The median of the floors around them.
    pub floor_ns: Option<f64>,
    /// The median of the slices' costs in units of their floors.
    pub to_floor: Option<f64>,
}

impl Series {
    /// The slices in `placement`.
    pub fn cell(&self, placement: Placement) -> Cell {
        let slices = || self.slices.iter().filter(move |slice| slice.placement == placement);
        Cell {
            n: slices().count(),
            cost_ns: Spread::of(slices().map(|slice| slice.cost_ns)),
            floor_ns: statistics::median(slices().map(|slice| slice.floor_ns)),
            to_floor: statistics::median(slices().map(|slice| slice.cost_ns / slice.floor_ns)),
        }
    }
}

/// The results of a plan.
#[derive(Clone, Debug)]
pub struct Collected {
    /// A series for each configuration, in the order of the plan.
    pub series: Vec<Series>,
    /// The possible placements of this machine.
    pub placements: Vec<Placement>,
    /// Floors below this counted as near.
    pub near_below_ns: f64,
    /// The number of sessions, each with its own memory.
    pub sessions: u32,
}

impl Collected {
    /// Adds the results of another session.
    pub fn append(&mut self, later: Collected) {
        for mut series in later.series {
            let same =
                |mine: &&mut Series| (mine.config, mine.transport) == (series.config, series.transport);
            match self.series.iter_mut().find(same) {
                Some(mine) => {
                    mine.slices.append(&mut series.slices);
                    mine.discarded += series.discarded;
                }
                None => self.series.push(series),
            }
        }
        self.placements.extend(later.placements);
        self.placements.sort();
        self.placements.dedup();
        self.near_below_ns = later.near_below_ns;
        self.sessions += later.sessions;
    }

    /// The series of one configuration.
    pub fn find(&self, experiment: Experiment, transport: &str, size: usize) -> Option<&Series> {
        self.series.iter().find(|series| {
            let Config { experiment: its, size: its_size, .. } = series.config;
            (its, series.transport, its_size) == (experiment, transport, size)
        })
    }

    /// The ratio of the time of `transport` to that of `baseline`: the medians of their alternating slices in `placement`.
    /// The caller must show whether both wait in the same [`Mode`].
    pub fn ratio(
        &self,
        experiment: Experiment,
        size: usize,
        transport: &str,
        baseline: &str,
        placement: Placement,
    ) -> Option<f64> {
        let median =
            |name| self.find(experiment, name, size)?.cell(placement).cost_ns.map(|spread| spread.median);
        Some(median(transport)? / median(baseline)?)
    }

    /// The floors of all slices in `placement`, in nanoseconds.
    pub fn floors(&self, placement: Placement) -> Vec<f64> {
        let slices = self.series.iter().flat_map(|series| &series.slices);
        slices.filter(|slice| slice.placement == placement).map(|slice| slice.floor_ns).collect()
    }

    /// The number of discarded slices, and of all slices.
    pub fn discarded(&self) -> (u64, u64) {
        let discarded = self.series.iter().map(|series| series.discarded).sum();
        let kept: usize = self.series.iter().map(|series| series.slices.len()).sum();
        (discarded, discarded + kept as u64)
    }

    /// Whether the border between near and far divides a single placement of this machine, so that the two are meaningless: their
    /// floors have nearly the same median.
    pub fn border_is_misplaced(&self) -> bool {
        let median = |placement| statistics::median(self.floors(placement));
        match (median(Placement::Near), median(Placement::Far)) {
            (Some(near), Some(far)) => far / near < APART,
            _ => false,
        }
    }

    /// The table of one experiment. The last column of each placement compares with the transport `baseline`. Fewer than five
    /// slices give no figures, only their number.
    pub fn table(&self, experiment: Experiment, baseline: &str) -> String {
        let enough = |n: usize| n >= FEWEST;
        let mut table = Table::new();
        let mut groups = vec![(String::new(), 3)];
        let mut figures = vec!["n", "ns", "q1..q3"];
        if experiment == Experiment::Streaming {
            figures.push("GB/s");
        }
        let versus = format!("/{baseline}");
        figures.extend(["/floor", &versus]);
        groups.extend(self.placements.iter().map(|placement| (placement.to_string(), figures.len())));
        table.groups(&groups);
        let mut head = vec!["bytes".to_owned(), "transport".to_owned(), "waits".to_owned()];
        for _ in &self.placements {
            head.extend(figures.iter().map(|&figure| figure.to_owned()));
        }
        table.row(head);
        let mut floor = vec!["".to_owned(), "floor".to_owned(), Mode::Polls.to_string()];
        for &placement in &self.placements {
            let floors = self.floors(placement);
            let spread = Spread::of(floors.iter().copied()).filter(|_| enough(floors.len()));
            floor.extend([floors.len().to_string(), table::figure(spread.map(|spread| spread.median))]);
            floor.push(table::range(spread));
            if experiment == Experiment::Streaming {
                floor.push("-".to_owned());
            }
            floor.extend([table::ratio(spread.map(|_| 1.0)), "-".to_owned()]);
        }
        table.row(floor);
        for series in self.series.iter().filter(|series| series.config.experiment == experiment) {
            let size = series.config.size;
            let base = self.find(experiment, baseline, size);
            let mixed = base.is_some_and(|base| base.mode != series.mode);
            let mut row = vec![size.to_string(), series.transport.to_owned(), series.mode.to_string()];
            for &placement in &self.placements {
                let mut cell = series.cell(placement);
                let mut versus = self.ratio(experiment, size, series.transport, baseline, placement);
                if !base.is_some_and(|base| enough(base.cell(placement).n)) {
                    versus = None;
                }
                if !enough(cell.n) {
                    (cell.cost_ns, cell.to_floor, versus) = (None, None, None);
                }
                row.extend([cell.n.to_string(), table::figure(cell.cost_ns.map(|cost| cost.median))]);
                row.push(table::range(cell.cost_ns));
                if experiment == Experiment::Streaming {
                    row.push(table::figure(cell.cost_ns.map(|cost| size as f64 / cost.median)));
                }
                row.push(table::ratio(cell.to_floor));
                row.push(table::ratio(versus) + if mixed && versus.is_some() { "~" } else { "" });
            }
            table.row(row);
        }
        table.to_string()
    }

    /// The floors in each placement: number, median and distribution.
    pub fn floor_report(&self) -> impl fmt::Display + '_ {
        FloorReport(self)
    }
}

/// The fewest slices for a figure in a table.
pub const FEWEST: usize = 5;

/// The smallest factor between the floors of different placements.
const APART: f64 = 1.5;

struct FloorReport<'a>(&'a Collected);

/// The borders of the histogram of floors, in nanoseconds.
const BORDERS: [u32; 12] = [0, 40, 50, 60, 80, 120, 200, 300, 350, 400, 500, 1000];

impl fmt::Display for FloorReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FloorReport(collected) = self;
        let (discarded, all) = collected.discarded();
        let border = collected.near_below_ns;
        let sessions = collected.sessions;
        write!(
            f,
            "floor: near below {border} ns; slices: {all}, {discarded} of them discarded (their floors differed); \
             sessions: {sessions}"
        )?;
        for &placement in &collected.placements {
            let floors = collected.floors(placement);
            write!(f, "\n  {placement:8} n = {}", floors.len())?;
            let Some(spread) = Spread::of(floors.iter().copied()) else { continue };
            let Spread { lower, median, upper } = spread;
            write!(f, ", median {median:.1} ns, quartiles {lower:.1} and {upper:.1};")?;
            for (i, from) in BORDERS.iter().enumerate() {
                let to = BORDERS.get(i + 1);
                let inside =
                    |floor: f64| floor >= f64::from(*from) && to.is_none_or(|to| floor < f64::from(*to));
                let n = floors.iter().filter(|&&floor| inside(floor)).count();
                match to {
                    _ if n == 0 => {}
                    Some(to) => write!(f, " [{from},{to}): {n}")?,
                    None => write!(f, " [{from},..): {n}")?,
                }
            }
        }
        if collected.border_is_misplaced() {
            write!(
                f,
                "\n  The border runs through one placement of this machine: near and far are the same here."
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(transport: &'static str, mode: Mode, costs: &[(f64, f64)]) -> Series {
        let slice = |&(cost_ns, floor_ns): &(f64, f64)| Slice {
            cost_ns,
            floor_ns,
            placement: Placement::of(floor_ns, 80.0, false),
        };
        Series {
            config: Config { experiment: Experiment::RoundTrip, transport: 0, size: 64 },
            transport,
            mode,
            slices: costs.iter().map(slice).collect(),
            discarded: 1,
        }
    }

    fn collected() -> Collected {
        Collected {
            series: vec![
                series(
                    "classic",
                    Mode::Polls,
                    &[
                        (90.0, 45.0),
                        (95.0, 50.0),
                        (110.0, 50.0),
                        (115.0, 50.0),
                        (100.0, 50.0),
                        (500.0, 400.0),
                    ],
                ),
                series(
                    "shmpipe",
                    Mode::PollsThenSleeps,
                    &[(80.0, 40.0), (85.0, 50.0), (70.0, 50.0), (75.0, 50.0), (90.0, 50.0)],
                ),
            ],
            placements: Placement::OF_TWO_CPUS.to_vec(),
            near_below_ns: 80.0,
            sessions: 1,
        }
    }

    #[test]
    fn cell_holds_a_single_placement() {
        let collected = collected();
        let near = collected.series[0].cell(Placement::Near);
        assert_eq!(near.n, 5);
        assert_eq!(near.cost_ns.unwrap().median, 100.0);
        assert_eq!(near.floor_ns, Some(50.0));
        assert_eq!(near.to_floor, Some(2.0));
        assert_eq!(collected.series[0].cell(Placement::Far).n, 1);
        let never = collected.series[1].cell(Placement::Far);
        assert_eq!((never.n, never.cost_ns, never.to_floor), (0, None, None));
    }

    #[test]
    fn ratio_compares_medians_within_one_placement() {
        let collected = collected();
        let ratio = |placement| collected.ratio(Experiment::RoundTrip, 64, "shmpipe", "classic", placement);
        assert_eq!(ratio(Placement::Near), Some(0.8));
        assert_eq!(ratio(Placement::Far), None);
        assert_eq!(collected.ratio(Experiment::Streaming, 64, "shmpipe", "classic", Placement::Near), None);
    }

    #[test]
    fn table_names_modes_and_rows_without_figures() {
        let table = collected().table(Experiment::RoundTrip, "classic");
        let row = |name| table.lines().find(|line| line.contains(name)).unwrap();
        let far = |name| row(name).rsplit('|').next().unwrap().split_whitespace().collect::<Vec<_>>();
        assert!(row("shmpipe").contains("polls, sleeps"), "{table}");
        assert!(row("shmpipe").contains("0.80~"), "{table}");
        assert_eq!(far("shmpipe"), ["0", "-", "-", "-", "-"], "{table}");
        assert_eq!(far("64 classic"), ["1", "-", "-", "-", "-"], "{table}");
    }

    #[test]
    fn sessions_are_merged() {
        let mut all =
            Collected { series: Vec::new(), placements: Vec::new(), near_below_ns: 0.0, sessions: 0 };
        all.append(collected());
        all.append(collected());
        assert_eq!((all.sessions, all.series.len(), &all.placements), (2, 2, &collected().placements));
        assert_eq!(all.series[0].cell(Placement::Near).n, 10);
        assert_eq!(all.discarded(), (4, 26));
    }

    #[test]
    fn floor_report_counts_every_slice() {
        let report = collected().floor_report().to_string();
        assert!(report.contains("slices: 13, 2 of them discarded"), "{report}");
        assert!(report.contains("near     n = 10, median 50.0 ns"), "{report}");
        assert!(report.contains("[400,500): 1"), "{report}");
    }

    #[test]
    fn misplaced_border_is_reported() {
        let mut collected = collected();
        assert!(!collected.border_is_misplaced());
        collected.series[1] = series("shmpipe", Mode::Polls, &[(1.0, 79.0), (1.0, 78.0)]);
        collected.series[0] = series("classic", Mode::Polls, &[(1.0, 81.0), (1.0, 85.0)]);
        assert!(collected.border_is_misplaced());
        assert!(collected.floor_report().to_string().contains("the same here"));
    }
}
