//! Files generated from the archive: `docs/machines.md`, the table in `README.md`, the summary.

use std::fs;
use std::io;
use std::path::Path;

use super::archive::{Archive, Entry, Machine};
use super::measure::RESULTS;
use super::plan::{CAPACITY, SIZES};
use super::row::{Kind, Report, Row, Source};
use super::summary::{self, Summary, ratios};
use crate::errors::{about, unfit};
use crate::limits::Limit;
use crate::placement::Placement;
use crate::transports::{CLASSIC, FUTEX, SHMPIPE, SHMPIPE_BATCH, SHMPIPE_SPIN, SHMPIPE_TRUSTED};

const PAGE: &str = "docs/machines.md";
const README: &str = "README.md";

/// The table in `README.md` is between these lines.
const BEGIN: &str = "<!-- machines: made by `cargo bench --bench report -- --page`; do not edit -->";
const END: &str = "<!-- machines: end -->";

const HEAD: &str = "\
<!-- Made by `cargo bench --bench report -- --page` from benches/results/. Do not edit. -->
# Machines

Every processor on which the ring was ever measured, in each placement of the two processes: *near* where one cache line goes to and
fro in less than 80 ns (up to 160, where 80 runs through the middle of one placement: the file says so), else *far*. The newest file of each
counts. Where a table does not say otherwise, a figure is the ratio to the *classic ring* in the same run, a ratio of medians;
below 1 is faster than the classic ring. The ring has 1 MiB each way. The worst ratio of each table is in bold. [benchmarks.md](benchmarks.md#the-archive) says how to add a machine and when a newer result counts as worse.
";

/// A generated file, and its text.
pub(super) struct Made {
    pub(super) path: &'static str,
    pub(super) text: String,
}

/// All files generated from the archive. Only a part of `README.md` is generated; the rest is copied from the folder `root`.
pub(super) fn all(root: &Path, archive: &Archive) -> io::Result<Vec<Made>> {
    let summary = Summary::of(archive);
    let readme =
        fs::read_to_string(root.join(README)).map_err(|error| about(format_args!("{README}"), error))?;
    Ok(vec![
        Made { path: PAGE, text: page(archive) },
        Made { path: README, text: with_table(&readme, &table(&summary))? },
        Made { path: summary::PATH, text: summary.to_json()? },
    ])
}

/// The files that are not current.
pub(super) fn stale(root: &Path, archive: &Archive) -> io::Result<Vec<&'static str>> {
    let current = |made: &Made| fs::read_to_string(root.join(made.path)).is_ok_and(|text| text == made.text);
    Ok(all(root, archive)?.iter().filter(|made| !current(made)).map(|made| made.path).collect())
}

/// Writes the files that are not current, and returns their names.
pub(super) fn write(root: &Path, archive: &Archive) -> io::Result<Vec<&'static str>> {
    let stale = stale(root, archive)?;
    for made in all(root, archive)?.iter().filter(|made| stale.contains(&made.path)) {
        let written = fs::write(root.join(made.path), &made.text);
        written.map_err(|error| about(format_args!("{}", made.path), error))?;
    }
    Ok(stale)
}

/// The text with the table between the two lines.
fn with_table(text: &str, table: &str) -> io::Result<String> {
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let Some((before, after)) = parts else {
        return Err(unfit(format!(
            "{README} has no table of machines: expected the lines {BEGIN} and {END}"
        )));
    };
    Ok(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

/// The ranges over all machines.
fn table(summary: &Summary) -> String {
    let columns = [Kind::RoundTrip, Kind::Streaming]
        .map(|experiment| Placement::OF_TWO_CPUS.map(|placement| (experiment, placement)))
        .concat();
    let mut head = vec!["bytes".to_owned()];
    head.extend(columns.iter().map(|(experiment, placement)| format!("{experiment}, {placement}")));
    let mut rows = Vec::new();
    for bytes in summary::SIZES {
        let mut row = vec![bytes.to_string()];
        row.extend(columns.iter().map(|&(experiment, placement)| {
            let cell = summary.find(placement, experiment, bytes);
            cell.map_or("-".to_owned(), |cell| range([cell.low, cell.high]))
        }));
        rows.push(row);
    }
    let machines = |placement| {
        let here = summary.cells.iter().filter(|cell| cell.placement == placement);
        here.map(|cell| cell.machines).max().unwrap_or(0)
    };
    format!(
        "{}\n{} kinds of processors near, {} far; not every one was measured at every size.\n",
        markdown(&head, &rows),
        machines(Placement::Near),
        machines(Placement::Far)
    )
}

fn markdown(head: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = format!("|{}\n", "---|".repeat(head.len()));
    line(head) + &rule + &rows.iter().map(|row| line(row)).collect::<String>()
}

fn range([low, high]: [f64; 2]) -> String {
    let (low, high) = (format!("{low:.2}"), format!("{high:.2}"));
    if low == high { low } else { format!("{low} to {high}") }
}

fn time(ns: f64) -> String {
    match ns {
        ns if ns < 99.95 => format!("{ns:.1} ns"),
        ns if ns < 999.5 => format!("{ns:.0} ns"),
        ns if ns < 99_950.0 => format!("{:.1} us", ns / 1e3),
        ns => format!("{:.0} us", ns / 1e3),
    }
}

/// The page of all machines.
fn page(archive: &Archive) -> String {
    let machines = archive.machines();
    let mut page = HEAD.to_owned();
    page += &identities(&machines);
    for experiment in [Kind::RoundTrip, Kind::Streaming] {
        let title = if experiment == Kind::RoundTrip { "Round trips" } else { "Streaming" };
        page += &format!("\n## {title}\n");
        for placement in Placement::OF_TWO_CPUS {
            for transport in [SHMPIPE, SHMPIPE_TRUSTED, SHMPIPE_BATCH] {
                page += &by_size(&machines, experiment, placement, transport.name());
            }
        }
    }
    page += "\n## Rings of other sizes\n\n`shmpipe`, by the bytes of the ring each way.\n";
    for experiment in [Kind::RoundTrip, Kind::Streaming] {
        for placement in Placement::OF_TWO_CPUS {
            page += &by_capacity(&machines, experiment, placement);
        }
    }
    page += &delays(&machines);
    page += &limits(&machines);
    page += &peers(&machines);
    page
}

fn identities(machines: &[Machine<'_>]) -> String {
    let head = ["design", "processor", "placed", "one line", "commit", "day", "file"].map(str::to_owned);
    let mut notes = String::new();
    let rows = machines.iter().filter_map(|machine| {
        let entry = machine.newest(|_| true)?;
        let Report { cpu, rows, source_note, .. } = &entry.report;
        let floor = rows.iter().find(|row| row.experiment == Kind::OneLine);
        let floor = floor.and_then(|row| {
            let quartiles = row.quartiles_ns.map(|[low, high]| format!(" ({} to {})", time(low), time(high)));
            Some(time(row.median_ns?) + &quartiles.unwrap_or_default())
        });
        if let Some(note) = source_note {
            notes += &format!("* {}: {note}.\n", machine.describe());
        }
        Some(vec![
            cpu.architecture().unwrap_or("-").to_owned(),
            cpu.describe(),
            machine.placement.to_string(),
            floor.unwrap_or_else(|| "-".to_owned()),
            entry.code(),
            entry.report.date.clone(),
            format!(
                "[{}](../{RESULTS}/{})",
                if entry.report.source == Source::Measured { "measured" } else { "copied" },
                entry.file
            ),
        ])
    });
    let rows: Vec<_> = rows.collect();
    let mut text = format!("\n## The machines\n\n{}", markdown(&head, &rows));
    text += "\n*One line* is the floor, a round trip of one cache line, in brackets its quartiles: wide ones mean that several placements \
             count as one.\n";
    if !notes.is_empty() {
        text += &format!("\nCopied figures:\n\n{notes}");
    }
    text
}

/// The head of a table row, and its ratios.
type Line = (Vec<String>, Vec<Option<[f64; 2]>>);

/// A table of ratios with the worst in bold.
fn ratio_table(head: &[String], rows: Vec<Line>) -> String {
    let worst = rows.iter().flat_map(|(_, cells)| cells).flatten().map(|[_, high]| *high).reduce(f64::max);
    let cell = |cell: Option<[f64; 2]>| match cell {
        None => "-".to_owned(),
        Some(ratios) if Some(ratios[1]) == worst => format!("**{}**", range(ratios)),
        Some(ratios) => range(ratios),
    };
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(words, cells)| words.into_iter().chain(cells.into_iter().map(cell)).collect())
        .collect();
    markdown(head, &rows)
}

fn by_size(machines: &[Machine<'_>], experiment: Kind, placement: Placement, transport: &str) -> String {
    let mut rows = Vec::new();
    for machine in machines.iter().filter(|machine| machine.placement == placement) {
        let its = machine.rows(experiment, |capacity| capacity == CAPACITY, transport);
        if !its.is_empty() {
            let at = |bytes: &usize| its.iter().find(|row| row.bytes == *bytes).and_then(|row| ratios(row));
            rows.push((vec![machine.cpu.short()], SIZES.iter().map(at).collect()));
        }
    }
    sized(vec![format!("{placement}, `{transport}`")], rows)
}

/// A table with a column for each size that any machine has.
fn sized(mut head: Vec<String>, rows: Vec<Line>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let full: Vec<usize> =
        (0..SIZES.len()).filter(|&i| rows.iter().any(|(_, cells)| cells[i].is_some())).collect();
    let rows = rows.into_iter().map(|(words, cells)| (words, full.iter().map(|&i| cells[i]).collect()));
    head.extend(full.iter().map(|&i| format!("{} B", SIZES[i])));
    format!("\n{}", ratio_table(&head, rows.collect()))
}

fn by_capacity(machines: &[Machine<'_>], experiment: Kind, placement: Placement) -> String {
    let mut tables = Vec::new();
    for machine in machines.iter().filter(|machine| machine.placement == placement) {
        let its = machine.rows(experiment, |capacity| capacity != CAPACITY, SHMPIPE.name());
        let mut capacities: Vec<usize> = its.iter().filter_map(|row| row.capacity).collect();
        capacities.dedup();
        for capacity in capacities {
            let at = |bytes: &usize| {
                let found = its.iter().find(|row| row.bytes == *bytes && row.capacity == Some(capacity));
                found.and_then(|row| ratios(row))
            };
            let words = vec![machine.cpu.short(), format!("{} KiB", capacity >> 10)];
            tables.push((words, SIZES.iter().map(at).collect::<Vec<_>>()));
        }
    }
    sized(vec![format!("{experiment}, {placement}"), "ring".to_owned()], tables)
}

/// The median of a row, as a time.
fn median(rows: &[Row], is_it: impl Fn(&Row) -> bool) -> Option<f64> {
    rows.iter().find(|row| is_it(row)).and_then(|row| row.median_ns)
}

fn delays(machines: &[Machine<'_>]) -> String {
    let mut rows = Vec::new();
    for machine in machines {
        let has = |report: &Report| {
            report.rows.iter().any(|row| matches!(row.experiment, Kind::Paced | Kind::WakeUp))
        };
        let Some(Entry { report, .. }) = machine.newest(has) else { continue };
        let cell = |experiment, transport: &str| {
            let found =
                median(&report.rows, |row| row.experiment == experiment && row.transport == transport);
            found.map_or("-".to_owned(), time)
        };
        let mut row = vec![machine.describe()];
        row.extend([CLASSIC, SHMPIPE, SHMPIPE_SPIN].map(|transport| cell(Kind::Paced, transport.name())));
        row.extend([FUTEX, SHMPIPE].map(|transport| cell(Kind::WakeUp, transport.name())));
        rows.push(row);
    }
    if rows.is_empty() {
        return String::new();
    }
    let head = ["", "paced, `classic`", "`shmpipe`", "`shmpipe-spin`", "wake-up, `futex`", "`shmpipe`"];
    format!(
        "\n## Delays\n\nThe median delay of a message of 64 bytes: at 10,000 messages a second, from when it should have been sent; and to \
         a consumer that sleeps, beside a bare futex.\n\n{}",
        markdown(&head.map(str::to_owned), &rows)
    )
}

fn limits(machines: &[Machine<'_>]) -> String {
    const BLOCK: usize = 65536;
    let blocks = Limit::ALL.iter().copied().filter(|limit| limit.has_bytes()).collect::<Vec<_>>();
    let mut rows = Vec::new();
    for machine in machines {
        let has = |report: &Report| report.rows.iter().any(|row| row.experiment == Kind::Limit);
        let Some(Entry { report, .. }) = machine.newest(has) else { continue };
        let of = |limit: Limit, bytes| {
            median(&report.rows, |row| {
                row.experiment == Kind::Limit && row.transport == limit.name() && row.bytes == bytes
            })
        };
        let floor = median(&report.rows, |row| row.experiment == Kind::OneLine);
        let mut row = vec![machine.describe()];
        let trips = [floor, of(Limit::TwoLines, 0), of(Limit::Futex, 0)];
        row.extend(trips.map(|ns| ns.map_or("-".to_owned(), time)));
        row.extend(
            blocks.iter().map(|&limit| {
                of(limit, BLOCK).map_or("-".to_owned(), |ns| format!("{:.1}", BLOCK as f64 / ns))
            }),
        );
        rows.push(row);
    }
    if rows.is_empty() {
        return String::new();
    }
    let mut head: Vec<String> = ["", "one line", "two lines", "bare futex"].map(str::to_owned).into();
    head.extend(blocks.iter().map(|limit| limit.name().to_owned()));
    format!(
        "\n## What the hardware allows\n\nRound trips of one cache line, of two and of two wake-ups; then 10^9 bytes a second, in blocks of 64 \
         KiB. [benchmarks.md](benchmarks.md#what-the-hardware-allows) says what each is.\n\n{}",
        markdown(&head, &rows)
    )
}

fn peers(machines: &[Machine<'_>]) -> String {
    let mut text = String::new();
    let mut missing = String::new();
    for machine in machines {
        let newest = machine.newest(|report| report.peers_missing.is_some() || !report.peers.is_empty());
        if let Some(why) = newest.and_then(|entry| entry.report.peers_missing.as_ref()) {
            missing += &format!("* {}: {why}\n", machine.describe());
        }
        let Some(Entry { report, .. }) = machine.newest(|report| !report.peers.is_empty()) else { continue };
        let rows = &report.peers;
        for experiment in [Kind::RoundTrip, Kind::Streaming] {
            let here = || rows.iter().filter(move |row| row.experiment == experiment);
            let (mut names, mut sizes): (Vec<&str>, Vec<usize>) = (Vec::new(), Vec::new());
            for row in here() {
                if !names.contains(&row.transport.as_str()) {
                    names.push(&row.transport);
                }
                if !sizes.contains(&row.bytes) {
                    sizes.push(row.bytes);
                }
            }
            if names.is_empty() {
                continue;
            }
            let mut table = Vec::new();
            for &name in &names {
                let cell = |bytes: &usize| {
                    let row = here().find(|row| row.transport == name && row.bytes == *bytes)?;
                    let time = time(row.median_ns?);
                    let ratio = row.to_classic.map(|ratio| format!(" ({ratio:.2})")).unwrap_or_default();
                    let fastest = here().filter(|row| row.bytes == *bytes).filter_map(|row| row.median_ns);
                    let is_fastest = fastest.reduce(f64::min) == row.median_ns;
                    Some(if is_fastest { format!("*{time}*{ratio}") } else { time + &ratio })
                };
                let mut line = vec![format!("`{name}`")];
                line.extend(sizes.iter().map(|bytes| cell(bytes).unwrap_or_else(|| "-".to_owned())));
                table.push(line);
            }
            let mut head = vec![format!("{}: {experiment}", machine.describe())];
            head.extend(sizes.iter().map(|size| format!("{size} B")));
            text += &format!("\n{}", markdown(&head, &table));
        }
    }
    if text.is_empty() && missing.is_empty() {
        return String::new();
    }
    let missing = if missing.is_empty() { missing } else { format!("\nNot measured:\n\n{missing}") };
    format!(
        "\n## Other queues\n\nMedians between two processes, in brackets the ratio to the classic ring in the same run; the fastest of each size in \
         italics. `shmpipe` sleeps in the kernel when a wait is long; the others here only poll.\n{text}{missing}"
    )
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::{Folder, report, row};
    use super::*;

    fn archive() -> Archive {
        let entry = |model, placement, ratios: [f64; 2]| {
            let kinds = [Kind::RoundTrip, Kind::Streaming];
            let rows =
                kinds.into_iter().zip(ratios).map(|(kind, ratio)| row(kind, 64, ratio, [ratio, ratio]));
            let mut report = report("2026-11-29", "9b5f769", placement, rows.collect());
            report.cpu.model = Some(model);
            let mut floor = Row::new(Kind::OneLine, 0, "floor");
            floor.median_ns = Some(63.8);
            report.rows.insert(0, floor);
            Entry { file: report.file_name(), report }
        };
        Archive::new(vec![
            entry(1, Placement::Near, [0.7, 0.3]),
            entry(17, Placement::Near, [1.25, 0.2]),
            entry(1, Placement::Far, [0.6, 0.1]),
        ])
    }

    #[test]
    fn page_has_every_machine_and_the_worst_in_bold() {
        let page = page(&archive());
        assert!(page.starts_with("<!-- Made by"), "{page}");
        let lines = |part: &str| page.lines().filter(|line| line.contains(part)).count();
        assert_eq!(
            lines("| AMD EPYC (family 25, model 1) | near | 63.8 ns | 9b5f769 | 2026-11-29 |"),
            1,
            "{page}"
        );
        assert_eq!(lines("| Zen 4 | **1.25** |"), 1, "{page}");
        assert_eq!(lines("| Zen 3 | 0.70 |"), 1, "{page}");
        assert_eq!(lines("| Zen 3 | **0.60** |"), 1, "{page}");
        assert_eq!(page.matches("**").count(), 2 * 4, "one in each of four tables: {page}");
    }

    #[test]
    fn page_has_peers_or_the_reason_why_not() {
        let mut archive = archive();
        let peer = |transport: &str, ns| {
            let mut row = Row::new(Kind::RoundTrip, 8, transport);
            (row.median_ns, row.to_classic) = (Some(ns), Some(ns / 100.0));
            row
        };
        archive.entries[0].report.peers = vec![peer("shmpipe", 90.0), peer("ringfire", 85.0)];
        archive.entries[1].report.peers_missing = Some("building failed".to_owned());
        let page = page(&archive);
        assert!(page.contains("| `ringfire` | *85.0 ns* (0.85) |\n"), "{page}");
        assert!(page.contains("| `shmpipe` | 90.0 ns (0.90) |\n"), "{page}");
        assert!(page.contains(": building failed\n"), "{page}");
    }

    #[test]
    fn table_has_the_range_over_all_machines() {
        let table = table(&Summary::of(&archive()));
        assert!(table.contains("| 64 | 0.70 to 1.25 | 0.60 | 0.20 to 0.30 | 0.10 |\n"), "{table}");
        assert!(table.contains("| 8 | - | - | - | - |\n"), "{table}");
        assert!(table.contains("2 kinds of processors near, 1 far"), "{table}");
    }

    #[test]
    fn only_the_marked_part_is_generated() {
        let text = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let made = with_table(&text, "new\n").unwrap();
        assert_eq!(made, format!("before\n{BEGIN}\nnew\n{END}\nafter\n"));
        assert_eq!(with_table(&made, "new\n").unwrap(), made);
        let error = with_table("no lines", "new\n").unwrap_err().to_string();
        assert!(error.contains(BEGIN) && error.contains(END), "{error}");
    }

    #[test]
    fn outdated_page_is_found() {
        let root = Folder::new("page");
        for folder in [Path::new(PAGE), Path::new(summary::PATH)].map(|path| path.parent().unwrap()) {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join(README), format!("{BEGIN}\n{END}\n")).unwrap();
        let mut archive = archive();
        assert_eq!(write(&root, &archive).unwrap(), [PAGE, README, summary::PATH]);
        assert_eq!(stale(&root, &archive).unwrap(), [""; 0]);
        archive.entries[2].report.commit = "0000000".to_owned();
        assert_eq!(stale(&root, &archive).unwrap(), [PAGE]);
        archive.entries[2].report.rows[1].to_classic = Some(9.0);
        assert_eq!(stale(&root, &archive).unwrap(), [PAGE, README, summary::PATH]);
        write(&root, &archive).unwrap();
        assert_eq!(stale(&root, &archive).unwrap(), [""; 0]);
        fs::remove_file(root.join(summary::PATH)).unwrap();
        assert_eq!(stale(&root, &archive).unwrap(), [summary::PATH]);
    }
}
