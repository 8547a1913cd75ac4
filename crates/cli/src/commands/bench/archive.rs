//! Compares this machine with the archive of measured machines.

use shmpipe_measure::report::{CAPACITY, Kind, Summary};
use shmpipe_measure::{Experiment, Placement};

use super::plan::OURS;
use super::results::{Cost, Results, Subject};
use crate::output::columns;
use crate::output::units::show_size;

/// The compared sizes: a word, a cache line, several lines, more than the L1 cache holds.
const SIZES: [usize; 4] = [8, 64, 1024, 65536];

/// The transport that ratios refer to.
const TEXTBOOK: &str = "classic";

/// Ratios that differ by less than this factor count as equal.
const NOISE: f64 = 1.1;

const OFFER: &str = "\
To add this machine to the archive, send in the output of `shmpipe bench --json`, or, from a checkout of the source, the files that
`cargo bench --bench report` writes.
";

/// One characteristic figure of this machine, and the range of the archive.
struct Standing {
    place: Placement,
    experiment: Experiment,
    size: usize,
    ratio: f64,
    /// The lowest and the highest ratio, and the number of processors.
    archive: Option<(f64, f64, usize)>,
}

impl Standing {
    /// By the rounded figure: a ratio that rounds to 1 is not slower.
    fn is_slower(&self) -> bool {
        (100.0 * self.ratio).round() > 100.0
    }

    /// By more than the noise between runs.
    fn is_worst(&self) -> bool {
        self.archive.is_some_and(|(_, high, _)| self.ratio > NOISE * high)
    }

    fn name(&self) -> String {
        format!("{} {} {}", self.experiment, show_size(self.size as u64), self.place)
    }
}

/// The end of the text report. Empty if both processes share one CPU.
pub fn render(results: &Results) -> String {
    match Summary::built_in() {
        Ok(summary) => compared(results, &summary),
        Err(_) => String::new(), // a test of shmpipe-measure reads it
    }
}

fn compared(results: &Results, summary: &Summary) -> String {
    const TITLE: &str = "\nAGAINST OTHER MACHINES\n";
    if !results.seen().any(|place| place != Placement::OneCpu) {
        return String::new();
    }
    if results.run.ring_bytes != CAPACITY {
        let (here, there) = (show_size(results.run.ring_bytes as u64), show_size(CAPACITY as u64));
        return format!(
            "{TITLE}Not compared: the ring had {here} here and {there} in the archive; leave out large --sizes.\n"
        );
    }
    let standings = standings(results, summary);
    if standings.is_empty() {
        let sizes = SIZES.map(|size| show_size(size as u64)).join(", ");
        return format!(
            "{TITLE}Not compared: a comparison needs {} and {TEXTBOOK}, the textbook ring, at one of {sizes}.\n",
            OURS[0]
        );
    }
    let rows = standings.iter().map(|standing| {
        let Standing { place, experiment, size, ratio, archive, .. } = standing;
        let archive = match archive {
            Some((low, high, machines)) => {
                let kinds = if *machines == 1 { "processor" } else { "processors" };
                format!("archive: {low:.2} to {high:.2} ({machines} {kinds})")
            }
            None => "archive: no data".to_owned(),
        };
        let slower = if standing.is_slower() { "SLOWER" } else { "" };
        vec![
            format!("  {place}:"),
            format!("{experiment} {}", show_size(*size as u64)),
            format!("{ratio:.2} x the textbook ring;"),
            archive,
            slower.to_owned(),
        ]
    });
    let mut text = format!("{TITLE}{}", columns::align(&rows.collect::<Vec<_>>()));
    let listed = |which: fn(&Standing) -> bool| {
        let found = standings.iter().filter(|standing| which(standing));
        found.map(Standing::name).collect::<Vec<_>>().join(", ")
    };
    let (slower, worst) = (listed(Standing::is_slower), listed(Standing::is_worst));
    if !slower.is_empty() {
        text += &format!("On this machine {} is slower than the textbook ring: {slower}.\n", OURS[0]);
    }
    if !worst.is_empty() {
        text += &format!("No machine of the archive is as slow compared with the textbook ring: {worst}.\n");
    }
    text + OFFER
}

/// The characteristic figures that were measured, in each placement that occurred.
fn standings(results: &Results, summary: &Summary) -> Vec<Standing> {
    let trips: Vec<(&Subject, &Cost)> =
        results.round_trips.iter().map(|row| (&row.subject, &row.cost)).collect();
    let streams: Vec<(&Subject, &Cost)> =
        results.throughputs.iter().map(|row| (&row.subject, &row.cost)).collect();
    let both =
        [(Experiment::RoundTrip, Kind::RoundTrip, trips), (Experiment::Streaming, Kind::Streaming, streams)];
    let mut standings = Vec::new();
    for place in results.seen().filter(|&place| place != Placement::OneCpu) {
        for (experiment, kind, rows) in &both {
            for size in SIZES {
                let cost = |transport: &str| {
                    let is_it = |subject: &Subject| {
                        (subject.transport, subject.place, subject.message_bytes) == (transport, place, size)
                    };
                    rows.iter().find(|(subject, _)| is_it(subject))?.1.nanoseconds
                };
                let (Some(ours), Some(textbook)) = (cost(OURS[0]), cost(TEXTBOOK)) else { continue };
                let cell = summary.find(place, *kind, size);
                let archive = cell.map(|cell| (cell.low, cell.high, cell.machines));
                let (experiment, ratio) = (*experiment, ours / textbook);
                standings.push(Standing { place, experiment, size, ratio, archive });
            }
        }
    }
    standings
}

#[cfg(test)]
mod tests {
    use shmpipe_measure::report::Cell;

    use super::*;
    use crate::commands::bench::sample;

    fn summary() -> Summary {
        let cell = |placement, low, high, machines| Cell {
            placement,
            experiment: Kind::RoundTrip,
            bytes: 64,
            low,
            high,
            machines,
        };
        Summary { cells: vec![cell(Placement::Near, 0.68, 1.02, 3), cell(Placement::Far, 0.5, 0.7, 1)] }
    }

    /// The made-up machine, with this ratio of a round trip of 64 bytes over shmpipe to one over the textbook ring.
    fn results(places: &[Placement], ratio: f64) -> Results {
        let mut results = sample::results(places);
        let is_it = |subject: &Subject| subject.message_bytes == 64;
        let textbook: Vec<_> = results
            .round_trips
            .iter()
            .filter(|row| row.subject.transport == TEXTBOOK && is_it(&row.subject))
            .map(|row| (row.subject.place, row.cost.nanoseconds))
            .collect();
        for row in results.round_trips.iter_mut() {
            if row.subject.transport == OURS[0] && is_it(&row.subject) {
                let (_, cost) = textbook.iter().find(|(place, _)| *place == row.subject.place).unwrap();
                row.cost.nanoseconds = cost.map(|ns| ns * ratio);
            }
        }
        results
    }

    fn line<'a>(text: &'a str, place: &str, what: &str) -> &'a str {
        let found = |line: &&str| line.trim_start().starts_with(place) && line.contains(what);
        text.lines().find(found).unwrap_or_else(|| panic!("no {place} {what} in\n{text}"))
    }

    #[test]
    fn the_range_of_the_archive_is_beside_the_measured_ratio() {
        let text = compared(&results(&Placement::OF_TWO_CPUS, 0.92), &summary());
        let words =
            |place| line(&text, place, "round trip 64 B").split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            words("near:"),
            "near: round trip 64 B 0.92 x the textbook ring; archive: 0.68 to 1.02 (3 processors)"
        );
        assert!(words("far:").ends_with("archive: 0.50 to 0.70 (1 processor)"), "{text}");
        assert!(line(&text, "near:", "streaming 8 B").contains("archive: no data"), "{text}");
        assert!(!text.contains("SLOWER") && !text.contains("is slower"), "{text}");
        assert!(text.contains(
            "No machine of the archive is as slow compared with the textbook ring: round trip 64 B far."
        ));
        assert!(
            text.contains("`shmpipe bench --json`") && text.contains("`cargo bench --bench report`"),
            "{text}"
        );
    }

    #[test]
    fn slower_figures_than_the_textbook_ring_are_listed() {
        let text = compared(&results(&[Placement::Near], 1.25), &summary());
        assert!(line(&text, "near:", "round trip 64 B").ends_with("SLOWER"), "{text}");
        let plain = "On this machine shmpipe is slower than the textbook ring: round trip 64 B near.";
        assert!(text.contains(plain), "{text}");
        assert!(!text.contains("far"), "a placement that did not occur: {text}");
        let text = compared(&results(&[Placement::Near], 1.004), &summary());
        assert!(!text.contains("SLOWER"), "a ratio that rounds to 1 is not slower: {text}");
    }

    #[test]
    fn other_rings_and_missing_transports_are_not_compared() {
        let mut results = results(&[Placement::Near], 1.25);
        results.run.ring_bytes = 4 << 20;
        let text = compared(&results, &summary());
        assert!(
            text.contains("the ring had 4 MiB here and 1 MiB in the archive") && !text.contains("SLOWER"),
            "{text}"
        );
        results.run.ring_bytes = CAPACITY;
        results.round_trips.retain(|row| row.subject.transport != TEXTBOOK);
        results.throughputs.retain(|row| row.subject.transport != TEXTBOOK);
        let text = compared(&results, &summary());
        assert!(text.contains("Not compared: a comparison needs shmpipe and classic"), "{text}");
        let text = compared(&sample::results(&[]), &summary());
        assert_eq!(text, "");
    }

    #[test]
    fn the_text_report_ends_with_the_comparison() {
        let text = crate::commands::bench::text::render(&sample::results(&[Placement::Far]));
        assert!(text.ends_with(OFFER), "{text}");
        assert!(line(&text, "far:", "round trip 64 B").contains("archive: 0."), "{text}");
    }
}
