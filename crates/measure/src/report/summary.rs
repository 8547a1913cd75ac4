//! A summary of the archive, for programs without the archive.

use std::io;

use serde::{Deserialize, Serialize};

use super::archive::Archive;
use super::json;
use super::plan::CAPACITY;
use super::row::{Kind, Row};
use crate::placement::Placement;

/// Its path, relative to the root of the repository.
pub(super) const PATH: &str = "crates/measure/src/report/summary.json";

/// The sizes in the documents and in `shmpipe bench`.
pub(super) const SIZES: [usize; 7] = [8, 32, 64, 256, 1024, 8192, 65536];

/// The range of the ratios to the classic ring over all machines of the archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Where the two processes ran.
    pub placement: Placement,
    /// [`Kind::RoundTrip`] or [`Kind::Streaming`].
    pub experiment: Kind,
    /// Bytes of a message.
    pub bytes: usize,
    /// The best ratio of any machine.
    pub low: f64,
    /// The worst one.
    pub high: f64,
    /// The number of kinds of processors.
    pub machines: usize,
}

/// The summary: `shmpipe` with default settings in a ring of 1 MiB, relative to the classic ring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// A range for each placement, experiment and size that any machine has.
    pub cells: Vec<Cell>,
}

impl Summary {
    /// The summary in this build.
    ///
    /// # Errors
    /// None if `cargo bench --bench report -- --check` passes.
    pub fn built_in() -> io::Result<Summary> {
        Ok(serde_json::from_str(include_str!("summary.json"))?)
    }

    /// The ratios of all machines.
    pub fn find(&self, placement: Placement, experiment: Kind, bytes: usize) -> Option<&Cell> {
        let is_it =
            |cell: &&Cell| (cell.placement, cell.experiment, cell.bytes) == (placement, experiment, bytes);
        self.cells.iter().find(is_it)
    }

    pub(super) fn of(archive: &Archive) -> Summary {
        let mut cells = Vec::new();
        let machines = archive.machines();
        for placement in Placement::OF_TWO_CPUS {
            let here = || machines.iter().filter(move |machine| machine.placement == placement);
            for experiment in [Kind::RoundTrip, Kind::Streaming] {
                let rows: Vec<Vec<&Row>> = here()
                    .map(|machine| machine.rows(experiment, |its| its == CAPACITY, "shmpipe"))
                    .collect();
                for bytes in SIZES {
                    let found = rows.iter().filter_map(|rows| rows.iter().find(|row| row.bytes == bytes));
                    let ranges: Vec<[f64; 2]> = found.filter_map(|row| ratios(row)).collect();
                    let low = ranges.iter().map(|[low, _]| *low).reduce(f64::min);
                    let high = ranges.iter().map(|[_, high]| *high).reduce(f64::max);
                    let (Some(low), Some(high)) = (low, high) else { continue };
                    cells.push(Cell { placement, experiment, bytes, low, high, machines: ranges.len() });
                }
            }
        }
        Summary { cells }
    }

    /// The file's text.
    pub(super) fn to_json(&self) -> io::Result<String> {
        json::lines(self, 2)
    }
}

/// The ratio to the classic ring, twice, or the ends of its range in a transcribed file.
pub(super) fn ratios(row: &Row) -> Option<[f64; 2]> {
    row.to_classic_range.or(row.to_classic.map(|ratio| [ratio, ratio]))
}

#[cfg(test)]
mod tests {
    use super::super::archive::Entry;
    use super::super::row::tests::{report, row};
    use super::*;

    #[test]
    fn summary_has_the_range_over_the_newest_files_of_all_machines() {
        let entry = |date, model, ratio| {
            let mut report =
                report(date, "abc", Placement::Far, vec![row(Kind::Streaming, 64, ratio, [ratio, ratio])]);
            report.cpu.model = Some(model);
            Entry { file: report.file_name(), report }
        };
        let mut ranged = entry("2026-11-29", 3, 0.9);
        ranged.report.rows[0].to_classic_range = Some([0.8, 1.0]);
        let archive = Archive::new(vec![
            entry("2026-11-28", 1, 0.1),
            entry("2026-11-29", 1, 0.9),
            entry("2026-11-29", 2, 0.5),
            ranged,
        ]);
        let summary = Summary::of(&archive);
        let (placement, experiment) = (Placement::Far, Kind::Streaming);
        let cell = Cell { placement, experiment, bytes: 64, low: 0.5, high: 1.0, machines: 3 };
        assert_eq!(summary.cells, std::slice::from_ref(&cell));
        assert_eq!(summary.find(placement, experiment, 64), Some(&cell));
        assert_eq!(summary.find(Placement::Near, experiment, 64), None);
        assert_eq!(serde_json::from_str::<Summary>(&summary.to_json().unwrap()).unwrap(), summary);
    }

    #[test]
    fn built_in_summary_can_be_read() {
        assert!(Summary::built_in().unwrap().cells.len() >= 20);
    }
}
