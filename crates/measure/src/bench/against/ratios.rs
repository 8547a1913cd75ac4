//! The last table: the time of this tree divided by that of another.

use std::fmt;

use hdrhistogram::Histogram;

use super::record::{Measured, Report};
use crate::collected::FEWEST;
use crate::latency;
use crate::placement::Placement;
use crate::statistics::{self, Spread};
use crate::table::{self, Table};

/// The percentiles to compare.
const PERCENTILES: [f64; 2] = [50.0, 99.0];

/// The figures of one transport, rate, size and placement.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) transport: &'static str,
    /// Messages per second; 0 for back-to-back messages.
    pub(super) rate: u64,
    pub(super) size: usize,
    pub(super) placement: Placement,
    /// Slices.
    pub(super) n: usize,
    /// Nanoseconds: the median, or the percentiles. `None` with too few slices or messages.
    pub(super) figures: Vec<Option<f64>>,
}

impl Point {
    pub(super) fn of_histogram(
        transport: &'static str,
        rate: u64,
        size: usize,
        placement: Placement,
        n: usize,
        histogram: &Histogram<u64>,
    ) -> Point {
        let figures = PERCENTILES.iter().map(|&percent| {
            let ns = latency::percentile(histogram, percent).filter(|_| n >= FEWEST)?;
            Some(ns as f64)
        });
        Point { transport, rate, size, placement, n, figures: figures.collect() }
    }
}

/// One session.
pub(super) struct Run {
    /// The number of the program, and so its code placement.
    pub(super) program: usize,
    pub(super) points: Vec<Point>,
}

/// The key of a row.
struct Row<'a> {
    this: &'a str,
    other: &'a str,
    rate: u64,
    size: usize,
    figure: usize,
}

impl Row<'_> {
    /// The ratio of the two, and the smaller number of slices.
    fn ratio(&self, points: &[Point], placement: Placement) -> Option<(usize, f64)> {
        let find = |name| {
            points.iter().find(|point| {
                (point.transport, point.rate, point.size, point.placement)
                    == (name, self.rate, self.size, placement)
            })
        };
        let (this, other) = (find(self.this)?, find(self.other)?);
        let ratio = (*this.figures.get(self.figure)?)? / (*other.figures.get(self.figure)?)?;
        Some((this.n.min(other.n), ratio))
    }

    fn cells(&self, all: &[Point], runs: &[Run], programs: usize, placement: Placement) -> Vec<String> {
        let Some((n, ratio)) = self.ratio(all, placement) else {
            return vec!["-".to_owned(); if programs > 1 { 5 } else { 3 }];
        };
        let of_runs = |wanted: &dyn Fn(&Run) -> bool| {
            let runs = runs.iter().filter(|run| wanted(run));
            runs.filter_map(|run| Some(self.ratio(&run.points, placement)?.1)).collect::<Vec<f64>>()
        };
        let mut cells = vec![n.to_string(), table::ratio(Some(ratio))];
        let quartiles = Spread::of(of_runs(&|_| true));
        cells.push(quartiles.map_or("-".to_owned(), |spread| range(spread.lower, spread.upper)));
        if programs > 1 {
            let each = (0..programs)
                .filter_map(|program| statistics::median(of_runs(&|run: &Run| run.program == program)));
            let mut each: Vec<f64> = each.collect();
            each.sort_by(f64::total_cmp);
            cells.push(table::ratio(statistics::median(each.iter().copied())));
            cells.push(match each[..] {
                [least, .., most] => range(least, most),
                _ => "-".to_owned(),
            });
        }
        cells
    }
}

fn range(from: f64, to: f64) -> String {
    format!("{from:.2}..{to:.2}")
}

/// The table and its legend.
pub(super) struct Ratios {
    table: Table,
    programs: usize,
}

impl Ratios {
    pub(super) fn new(all: &Report, runs: &[Run], programs: usize) -> Ratios {
        let points = all.measured.points();
        let mut placements: Vec<Placement> = points.iter().map(|point| point.placement).collect();
        placements.sort();
        placements.dedup();
        let mut rows: Vec<(u64, usize)> = Vec::new();
        for point in points.iter().filter(|point| all.pairs.iter().any(|(this, _)| this == point.transport)) {
            if !rows.contains(&(point.rate, point.size)) {
                rows.push((point.rate, point.size));
            }
        }
        let (paced, figures) = match &all.measured {
            Measured::Slices(_) => (false, vec![String::new()]),
            Measured::Latency(_) => {
                (false, PERCENTILES.iter().map(|percent| format!("p{percent}")).collect())
            }
            Measured::Paced(_) => (true, PERCENTILES.iter().map(|percent| format!("p{percent}")).collect()),
        };
        let percentiles = figures.len() > 1;
        let mut table = Table::new();
        let mut head = vec!["bytes", "this tree", "against"];
        if paced {
            head.insert(0, "rate");
        }
        if percentiles {
            head.push("of");
        }
        let mut columns = vec!["n", "ratio", "q1..q3"];
        if programs > 1 {
            columns.extend(["builds", "min..max"]);
        }
        let mut groups = vec![(String::new(), head.len())];
        groups.extend(placements.iter().map(|placement| (placement.to_string(), columns.len())));
        table.groups(&groups);
        head.extend(placements.iter().flat_map(|_| columns.iter().copied()));
        table.row(head.into_iter().map(str::to_owned).collect());
        for &(rate, size) in &rows {
            for (this, other) in &all.pairs {
                for (figure, name) in figures.iter().enumerate() {
                    let row = Row { this, other, rate, size, figure };
                    let mut cells = vec![size.to_string(), this.clone(), other.clone()];
                    if paced {
                        cells.insert(0, rate.to_string());
                    }
                    if percentiles {
                        cells.push(name.clone());
                    }
                    for &placement in &placements {
                        cells.extend(row.cells(&points, runs, programs, placement));
                    }
                    table.row(cells);
                }
            }
        }
        Ratios { table, programs }
    }
}

impl fmt::Display for Ratios {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ratios { table, programs } = self;
        write!(
            f,
            "{table}\n\n\
             ratio: this tree's time divided by the other's, over all sessions; below 1 this tree is faster.\n\
             n: slices of the one with fewer. q1..q3: quartiles of the ratios of the single sessions."
        )?;
        if *programs > 1 {
            write!(
                f,
                "\nbuilds: the median over {programs} builds that differ in code placement only; each counts with its median session.\n\
                 min..max: the range over these builds. If it includes 1, this shows no difference."
            )
        } else {
            write!(
                f,
                "\nCode placement alone is worth up to 20 %. Use --placements before you believe a smaller difference."
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(this: f64, other: f64) -> Vec<Point> {
        let point = |transport, n, ns| Point {
            transport,
            rate: 0,
            size: 64,
            placement: Placement::Near,
            n,
            figures: vec![Some(ns)],
        };
        vec![point("shmpipe", 70, this), point("shmpipe@old", 60, other)]
    }

    fn run(program: usize, this: f64) -> Run {
        Run { program, points: points(this, 100.0) }
    }

    const ROW: Row<'_> = Row { this: "shmpipe", other: "shmpipe@old", rate: 0, size: 64, figure: 0 };

    #[test]
    fn ratio_is_this_tree_by_the_other() {
        let runs = [run(0, 80.0), run(0, 90.0), run(0, 70.0), run(0, 60.0)];
        let cells = ROW.cells(&points(75.0, 100.0), &runs, 1, Placement::Near);
        assert_eq!(cells, ["60", "0.75", "0.70..0.90"]);
    }

    #[test]
    fn each_build_counts_once() {
        // build 0 ran more often than the others
        let runs = [run(0, 90.0), run(0, 91.0), run(0, 92.0), run(1, 110.0), run(2, 100.0)];
        let cells = ROW.cells(&points(95.0, 100.0), &runs, 3, Placement::Near);
        assert_eq!(cells, ["60", "0.95", "0.91..1.00", "1.00", "0.91..1.10"]);
    }

    #[test]
    fn missing_figures_are_dashes() {
        assert_eq!(ROW.cells(&points(75.0, 100.0), &[], 1, Placement::Far), ["-"; 3]);
        let without = Row { size: 8, ..ROW };
        assert_eq!(without.cells(&points(75.0, 100.0), &[], 2, Placement::Near), ["-"; 5]);
        let cells = ROW.cells(&points(75.0, 100.0), &[], 2, Placement::Near);
        assert_eq!(cells, ["60", "0.75", "-", "-", "-"]);
    }

    #[test]
    fn percentiles_need_enough_values_beyond() {
        let mut histogram = latency::histogram().unwrap();
        for ns in 1..=100 {
            histogram.saturating_record(ns);
        }
        let figures = |n| Point::of_histogram("shmpipe", 1000, 64, Placement::Far, n, &histogram).figures;
        assert_eq!(figures(FEWEST), [Some(50.0), None]);
        assert_eq!(figures(FEWEST - 1), [None, None]);
    }
}
