//! The results as tables for a terminal.

use shmpipe_measure::Placement;

use super::archive;
use super::results::{Cost, Floor, Group, OneWay, Percentiles, Results, Subject};
use super::summary::{Figure, Headline, headlines, show_percent};
use crate::output::columns;
use crate::output::units::{show_count, show_figures, show_size, show_time};

const DASH: &str = "-";

pub fn render(results: &Results) -> String {
    let mut text = format!("{}\n", results.run.command);
    let machine = results.machine.iter().map(|(what, how)| vec![format!("  {what}"), how.clone()]);
    text += &columns::align(&machine.collect::<Vec<_>>());
    text += "\nTHE TRANSPORTS\n";
    for about in &results.transports {
        text += &format!("  {}: {}\n", about.transport, about.about);
    }
    text += &floors(results);
    for group in results.groups() {
        text += &format!("\n{}\n{}\n", group.title().to_uppercase(), group.explained());
        for place in results.seen() {
            text += &singly(results, group, place);
            text += &by_size(results, group, place);
            text += &throughput(results, group, place);
            text += &one_way(results, group, place);
        }
    }
    text + &waiting(results) + &summary(results) + &legend(results) + &archive::render(results)
}

/// The placement as a part of a title.
pub fn whereabouts(place: Placement) -> &'static str {
    match place {
        Placement::Near => ", while the two CPUs were near",
        Placement::Far => ", while the two CPUs were far apart",
        Placement::OneCpu => ", both processes on one CPU",
    }
}

fn floors(results: &Results) -> String {
    let near_below = results.run.near_below_nanoseconds;
    let mut text = format!(
        "\nTHE TWO CPUS\nOne cache line there and back, around every slice: the least time for any exchange between them. \
         Near: below {near_below} ns.\n"
    );
    let rows = results.floors.iter().map(|floor| {
        let Floor { placement, slices, nanoseconds, .. } = floor;
        let few = *slices > 0 && !results.seen().any(|place| place == floor.place);
        let few = if few { ", too few for tables" } else { "" };
        let cells = [format!("  {placement}"), format!("n = {slices}{few}"), time(*nanoseconds)];
        let quartiles = quartiles(floor.lower_quartile_nanoseconds, floor.upper_quartile_nanoseconds);
        cells.into_iter().chain([quartiles]).collect()
    });
    text += &columns::align(&rows.collect::<Vec<_>>());
    if results.run.near_and_far_are_the_same {
        text += "The border divides a single placement of this machine, so near and far are the same here; see --near-below.\n";
    }
    text
}

fn quartiles(lower: Option<f64>, upper: Option<f64>) -> String {
    match (lower, upper) {
        (Some(lower), Some(upper)) => format!("half of them {} to {}", show_time(lower), show_time(upper)),
        _ => String::new(),
    }
}

fn time(nanoseconds: Option<f64>) -> String {
    nanoseconds.map_or(DASH.to_owned(), show_time)
}

fn is_of(subject: &Subject, group: Group, place: Placement) -> bool {
    subject.group == group && subject.place == place
}

/// A table of percentiles, the floor first: the rows of the group, the placement and the size, each with a remark.
fn percentiles<'a>(
    rows: impl Iterator<Item = (&'a Percentiles, String)>,
    group: Group,
    place: Placement,
    size: usize,
) -> String {
    let rows = rows.filter(|(row, _)| {
        row.subject.place == place
            && (row.is_floor() || row.subject.group == group && row.subject.message_bytes == size)
    });
    let head = ["  ", "waits", "p50", "p90", "p99", "p99.9", "p99.99", "max", "n", ""];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    let mut occurred = false;
    for (row, remark) in rows {
        occurred |= row.count > 0;
        let name = if row.is_floor() { "(the floor)" } else { row.subject.transport };
        let shown = row.shown().map(|ns| time(ns.map(|ns| ns as f64)));
        let words = [format!("  {name}"), row.subject.waits.clone()];
        table.push(words.into_iter().chain(shown).chain([row.count.to_string(), remark]).collect());
    }
    if occurred { columns::align_figures(&table, 2) } else { "  n = 0\n".to_owned() }
}

fn singly(results: &Results, group: Group, place: Placement) -> String {
    let tables = results.singly_timed().into_iter().map(|size| {
        let rows = results.singly.iter().map(|row| (&row.percentiles, String::new()));
        format!(
            "\nSingle round trips of {}{}\n{}",
            show_size(size as u64),
            whereabouts(place),
            percentiles(rows, group, place, size)
        )
    });
    tables.collect()
}

fn one_way(results: &Results, group: Group, place: Placement) -> String {
    let Some(size) = results.paced_size() else { return String::new() };
    let rows = results.one_way.iter().map(|row| {
        let OneWay { percentiles, kept_up_slices, slices, .. } = row;
        let behind = if kept_up_slices < slices { "fell behind" } else { "" };
        (percentiles, behind.to_owned())
    });
    format!(
        "\nOne way, {}, {} messages/s{}: from the scheduled time of each message\n{}",
        show_size(size as u64),
        show_count(results.run.paced_messages_per_second),
        whereabouts(place),
        percentiles(rows, group, place, size)
    )
}

/// A table with a row for each transport and a column for each size.
fn matrix<'a>(
    results: &'a Results,
    group: Group,
    place: Placement,
    rows: impl Iterator<Item = (&'a Subject, String)> + Clone,
) -> String {
    let sizes = &results.run.message_bytes;
    let mut table = vec![vec!["  ".to_owned()]];
    table[0].extend(sizes.iter().map(|&size| show_size(size as u64)));
    for about in results.transports.iter().filter(|about| about.group == group) {
        let mut row = vec![format!("  {}", about.transport)];
        row.extend(sizes.iter().map(|&size| {
            let mut rows = rows.clone();
            let found = rows.find(|(subject, _)| {
                is_of(subject, group, place)
                    && subject.transport == about.transport
                    && subject.message_bytes == size
            });
            found.map_or(DASH.to_owned(), |(_, cell)| cell)
        }));
        table.push(row);
    }
    columns::align_figures(&table, 1)
}

fn by_size(results: &Results, group: Group, place: Placement) -> String {
    let cell = |cost: &Cost| match (cost.nanoseconds, cost.times_floor) {
        (Some(ns), Some(times)) => format!("{} {:>4}x", show_time(ns), show_figures(times)),
        _ => format!("n={}", cost.slices),
    };
    let rows = results.round_trips.iter().map(|trip| (&trip.subject, cell(&trip.cost)));
    format!(
        "\nRound trips by size{}: median, and multiple of the floor\n{}",
        whereabouts(place),
        matrix(results, group, place, rows)
    )
}

fn throughput(results: &Results, group: Group, place: Placement) -> String {
    let rows = results.throughputs.iter().map(|row| {
        let cell = match (row.messages_per_second, row.gigabytes_per_second) {
            (Some(messages), Some(gigabytes)) => {
                format!("{} {:>5}", show_count(messages), show_count(1e9 * gigabytes))
            }
            _ => format!("n={}", row.cost.slices),
        };
        (&row.subject, cell)
    });
    format!(
        "\nThroughput by size{}: messages/s, and bytes/s\n{}",
        whereabouts(place),
        matrix(results, group, place, rows)
    )
}

fn waiting(results: &Results) -> String {
    let mut text = "\nWAKE-UP AND IDLE CPU\n".to_owned();
    for place in results.seen() {
        let rows = || {
            results.wake_ups.iter().map(|row| {
                let awake = if row.awake_messages > 0 {
                    format!("{} found it awake", row.awake_messages)
                } else {
                    String::new()
                };
                (&row.percentiles, awake)
            })
        };
        let Some((first, _)) = rows().next() else { continue };
        let size = first.subject.message_bytes;
        text += &format!(
            "\nTo a sleeping receiver, {}{}: from before send to after recv\n{}",
            show_size(size as u64),
            whereabouts(place),
            percentiles(rows(), Group::Sleeping, place, size)
        );
    }
    let mut table = vec![["  ", "waits", "of a CPU", "observed for"].map(str::to_owned).to_vec()];
    table.extend(results.idle.iter().map(|idle| {
        vec![
            format!("  {}", idle.transport),
            idle.waits.clone(),
            show_percent(idle.cpu_percent),
            show_time(1e9 * idle.waited_seconds),
        ]
    }));
    format!("{text}\nA receiver without messages\n{}", columns::align_figures(&table, 2))
}

fn summary(results: &Results) -> String {
    let headlines = headlines(results).into_iter().flat_map(|Headline { what, figures }| {
        figures.into_iter().enumerate().map(move |(number, Figure { figure, remark })| {
            let what = if number == 0 { format!("  {what}") } else { String::new() };
            vec![what, figure, remark]
        })
    });
    format!("\nSUMMARY\n{}", columns::align(&headlines.collect::<Vec<_>>()))
}

fn legend(results: &Results) -> String {
    let run = &results.run;
    let mut text = format!(
        "\n{} slices in {} pairs of processes, {:.0} s; {} discarded because the placement changed meanwhile.\n\
         n=: too few slices for a figure. -: size not supported, or too few samples beyond that percentile.\n",
        run.slices, run.sessions, run.took_seconds, run.discarded_slices
    );
    if !results.too_slow.is_empty() {
        let (slow, rate) = (results.too_slow.join(", "), show_count(run.paced_messages_per_second));
        text += &format!("Not measured at {rate} messages/s, which they cannot carry: {slow}.\n");
    }
    for note in &results.notes {
        text += &format!("{note}.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::sample;

    #[test]
    fn placements_that_did_not_occur_are_shown_as_such() {
        let text = render(&sample::results(&[Placement::Far]));
        assert!(text.contains("near  n = 0"), "{text}");
        assert!(text.contains("far apart") && !text.contains("were near"), "{text}");
    }

    #[test]
    fn polling_and_sleeping_transports_have_separate_tables() {
        let text = render(&sample::results(&[Placement::Far]));
        let (sleeping, polling) = text.split_once("RECEIVERS THAT POLL").unwrap();
        let (_, sleeping) = sleeping.split_once("RECEIVERS THAT SLEEP").unwrap();
        let (polling, _) = polling.split_once("WAKE-UP AND IDLE CPU").unwrap();
        let rows = |part: &str, name: &str| {
            part.lines().filter(|line| line.split_whitespace().next() == Some(name)).count()
        };
        assert_eq!([rows(sleeping, "pipe"), rows(sleeping, "shmpipe"), rows(sleeping, "classic")], [4, 4, 0]);
        assert_eq!(
            [rows(polling, "pipe"), rows(polling, "shmpipe-spin"), rows(polling, "classic")],
            [0, 4, 4]
        );
    }

    #[test]
    fn figures_with_too_few_slices_are_not_shown() {
        let mut results = sample::results(&[Placement::Far]);
        let cost =
            &mut results.round_trips.iter_mut().find(|row| row.subject.place == Placement::Far).unwrap().cost;
        (cost.slices, cost.nanoseconds) = (3, None);
        assert!(render(&results).contains("n=3"));
    }
}
