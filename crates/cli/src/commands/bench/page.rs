//! The report: one self-contained page for monitors and phones, in light and dark themes.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use shmpipe_measure::Placement;

use super::chart::{self, Axis, Curve, Format, Ink, Kind};
use super::plan::is_ours;
use super::results::{Cost, Group, Percentiles, Results, Subject};
use super::summary::{Figure, Headline, headlines, show_percent};
use super::text::whereabouts;
use crate::output::units::{self, show_amount, show_count, show_figures, show_size};

const STYLE: &str = include_str!("page.css");

/// Shown instead of a missing figure.
const DASH: &str = "–";

pub fn render(results: &Results) -> String {
    let run = &results.run;
    let cpu = results.machine.iter().find(|(what, _)| *what == "cpu").map_or("", |(_, how)| how);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "shmpipe bench: " (cpu) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    p.over { "shmpipe " (run.version) " bench" }
                    h1 { "Messages between two processes of one machine" }
                    p.under { (cpu) br; time datetime=(run.measured_at) { (day_and_time(&run.measured_at)) } }
                    pre.command tabindex="0" { code { (run.command) } }
                }
                main {
                    (summary(results))
                    (two_cpus(results))
                    @for group in results.groups() { (group_section(results, group)) }
                    (waiting(results))
                    (method(results))
                }
            }
        }
    };
    page.into_string()
}

/// `2026-11-21T09:14:06Z` as text for people.
fn day_and_time(stamp: &str) -> String {
    let (day, time) = stamp.split_once('T').unwrap_or((stamp, ""));
    format!("{day}, {} UTC", time.get(..5).unwrap_or(time))
}

/// With the micro sign, which a terminal may lack.
fn show_time(nanoseconds: f64) -> String {
    with_micro(&units::show_time(nanoseconds))
}

fn with_micro(time: &str) -> String {
    time.replace(" us", " µs")
}

fn time(nanoseconds: Option<f64>) -> String {
    nanoseconds.map_or(DASH.to_owned(), show_time)
}

fn summary(results: &Results) -> Markup {
    html! {
        section aria-labelledby="summary" {
            h2 id="summary" { "Summary" }
            dl.tiles {
                @for Headline { what, figures } in headlines(results) {
                    div.tile {
                        dt { (what) }
                        @for Figure { figure, remark } in figures {
                            dd { span.figure { (with_micro(&figure)) } " " span.remark { (remark) } }
                        }
                    }
                }
            }
        }
    }
}

fn two_cpus(results: &Results) -> Markup {
    let run = &results.run;
    html! {
        section aria-labelledby="cpus" {
            h2 id="cpus" { "The two CPUs" }
            p {
                "Before and after every slice of messages, one cache line goes from one CPU to the other and back. That is the "
                em { "floor" } ": no exchange between the two takes less. Below "
                (run.near_below_nanoseconds) " ns the CPUs count as near (two threads of one core, for example), else as far apart. "
                "Figures of near and far are never mixed."
            }
            @if run.near_and_far_are_the_same {
                p.note {
                    "The border divides a single placement of this machine, so near and far are the same here. "
                    "Set another border with " code { "--near-below" } "."
                }
            }
            div.scroll tabindex="0" role="group" aria-label="The floor by placement" {
                table {
                    thead { tr {
                        th scope="col" { "placement" } th scope="col" { "slices" }
                        th scope="col" { "median" } th scope="col" { "quartiles" }
                    } }
                    tbody {
                        @for floor in &results.floors {
                            tr {
                                th scope="row" { (floor.placement) }
                                td {
                                    "n = " (floor.slices)
                                    @if floor.slices == 0 { small { "did not occur" } }
                                    @else if !results.seen().any(|place| place == floor.place) { small { "too few for tables" } }
                                }
                                td { (time(floor.nanoseconds)) }
                                td { (range(floor.lower_quartile_nanoseconds, floor.upper_quartile_nanoseconds)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn range(lower: Option<f64>, upper: Option<f64>) -> String {
    match (lower, upper) {
        (Some(lower), Some(upper)) => {
            let (low, high) = (show_time(lower), show_time(upper));
            match (low.split_once(' '), high.split_once(' ')) {
                (Some((figure, unit)), Some((_, same))) if unit == same => format!("{figure}–{high}"),
                _ => format!("{low}–{high}"),
            }
        }
        _ => DASH.to_owned(),
    }
}

fn group_section(results: &Results, group: Group) -> Markup {
    let id = match group {
        Group::Polling => "polling",
        Group::Sleeping => "sleeping",
    };
    html! {
        section aria-labelledby=(id) {
            h2 id=(id) { (group.title()) }
            p { (group.explained()) }
            @for place in results.seen() {
                @for size in results.singly_timed() { (singly(results, group, place, size)) }
                (by_size(results, group, place))
                (throughput(results, group, place))
                (one_way(results, group, place))
            }
        }
    }
}

fn is_of(subject: &Subject, group: Group, place: Placement) -> bool {
    subject.group == group && subject.place == place
}

/// The ink of a transport: by its kind, and its number among those of that kind in its group.
fn ink(results: &Results, transport: &str) -> Ink {
    let Some(this) = results.transports.iter().find(|about| about.transport == transport) else {
        return Ink::Floor;
    };
    let alike = results
        .transports
        .iter()
        .filter(|other| other.group == this.group && kind(other.transport) == kind(transport));
    let before = alike.take_while(|other| other.transport != transport).count();
    Ink::Transport(kind(transport), before)
}

fn kind(transport: &str) -> Kind {
    let word = transport.split('-').next().unwrap_or(transport);
    match word {
        _ if is_ours(transport) => Kind::Ours,
        "pipe" | "fifo" => Kind::Pipe,
        "unix" | "tcp" | "seqpacket" | "dgram" => Kind::Socket,
        _ if transport.ends_with("queue") => Kind::Queue,
        _ => Kind::Memory,
    }
}

/// A plot in both formats, of which the page shows one. `title` is its label for screen readers.
fn figure(x: &Axis, y: &Axis, curves: &[Curve], title: &str, remark: &str) -> Markup {
    let described = format!("{title}. The figures are in the table below the plot.");
    html! {
        figure {
            div.wide { (PreEscaped(chart::draw(x, y, curves, Format::Wide, &described))) }
            div.narrow { (PreEscaped(chart::draw(x, y, curves, Format::Narrow, &described))) }
            figcaption { (remark) }
        }
    }
}

/// The labels of a distribution.
struct Shown<'a> {
    title: &'a str,
    remark: &'a str,
    /// The label of the vertical axis.
    what: &'a str,
    /// The label of the horizontal axis.
    of_all: &'a str,
    counted: &'a str,
}

/// The plot and the table of the rows of that group, placement and size, with the floor; or a note that there are none.
fn percentiles<'a>(
    results: &Results,
    rows: impl Iterator<Item = (&'a Percentiles, Option<String>)>,
    (group, place, size): (Group, Placement, usize),
    shown: &Shown<'_>,
) -> Markup {
    let rows: Vec<(&Percentiles, Option<String>)> = rows
        .filter(|(row, _)| {
            row.subject.place == place
                && (row.is_floor() || row.subject.group == group && row.subject.message_bytes == size)
        })
        .collect();
    let name = |row: &Percentiles| if row.is_floor() { "the floor" } else { row.subject.transport };
    let curves: Vec<Curve> = rows
        .iter()
        .map(|(row, _)| Curve {
            name: name(row).to_owned(),
            ink: ink(results, row.subject.transport),
            points: row.curve.iter().map(|point| (point.one_in, point.nanoseconds.max(1) as f64)).collect(),
            marked: false,
        })
        .collect();
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let rarest = points().fold(100.0_f64, |most, point| most.max(point.0));
    let ticks = (0..8).map(|nines| match nines {
        0 => (2.0, "50 %".to_owned()),
        1 => (10.0, "90 %".to_owned()),
        2 => (100.0, "99 %".to_owned()),
        nines => (10_f64.powi(nines), format!("99.{} %", "9".repeat(nines as usize - 2))),
    });
    let x = Axis {
        range: (1.0, rarest),
        ticks: ticks.filter(|(at, _)| *at <= rarest).collect(),
        title: shown.of_all.to_owned(),
    };
    let y = Axis::around(points().map(|point| point.1), shown.what, show_tick);
    let title = format!("{}: {}{}", group.title(), shown.title, whereabouts(place));
    html! {
        h3 { (shown.title) span.place { (whereabouts(place)) } }
        @if rows.iter().all(|(row, _)| row.count == 0) {
            p { "n = 0: none in this placement." }
        } @else {
            (figure(&x, &y, &curves, &title, shown.remark))
            div.scroll tabindex="0" role="group" aria-label=(title) {
                table {
                    thead { tr {
                        th scope="col" { "transport" } th.word scope="col" { "waits" }
                        @for head in ["p50", "p90", "p99", "p99.9", "p99.99", "max", shown.counted] {
                            th scope="col" { (head) }
                        }
                    } }
                    tbody {
                        @for (row, remark) in &rows {
                            tr.ours[row.subject.is_ours()] {
                                th scope="row" { (name(row)) @if let Some(remark) = remark { small { (remark) } } }
                                td.word { (row.subject.waits) }
                                @for ns in row.shown() { td { (time(ns.map(|ns| ns as f64))) } }
                                td { (grouped(row.count)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn singly(results: &Results, group: Group, place: Placement, size: usize) -> Markup {
    let rows = results.singly.iter().map(|row| (&row.percentiles, None));
    let shown = Shown {
        title: &format!("Single round trips of {}", show_size(size as u64)),
        remark: "A curve ends where fewer than ten round trips took longer. Each includes one reading of the clock, the floor too.",
        what: "a round trip",
        of_all: "of all round trips take no longer",
        counted: "round trips",
    };
    percentiles(results, rows, (group, place, size), &shown)
}

fn one_way(results: &Results, group: Group, place: Placement) -> Markup {
    let Some(size) = results.paced_size() else { return html! {} };
    let rows = results.one_way.iter().map(|row| {
        let (slices, behind) = (row.slices, row.slices - row.kept_up_slices);
        (&row.percentiles, (behind > 0).then(|| format!("fell behind in {behind} of {slices} slices")))
    });
    let rate = grouped(results.run.paced_messages_per_second as u64);
    let shown = Shown {
        title: &format!("One way, {} at {rate} messages/s", show_size(size as u64)),
        remark: "From the scheduled time of a message to its arrival, even if earlier messages were late.",
        what: "a message",
        of_all: "of all messages take no longer",
        counted: "messages",
    };
    html! {
        (percentiles(results, rows, (group, place, size), &shown))
        @let slow: Vec<&str> = results.transports.iter().filter(|about| about.group == group)
            .map(|about| about.transport).filter(|name| results.too_slow.contains(name)).collect();
        @if !slow.is_empty() { p.legend { "Left out, because they cannot carry that rate: " (slow.join(", ")) "." } }
    }
}

/// A large number with thin spaces between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A round number of nanoseconds, without trailing zeros.
fn show_tick(nanoseconds: f64) -> String {
    let (unit, factor) = match nanoseconds {
        ns if ns >= 0.9995e9 => ("s", 1e9),
        ns if ns >= 0.9995e6 => ("ms", 1e6),
        ns if ns >= 0.9995e3 => ("µs", 1e3),
        _ => ("ns", 1.0),
    };
    format!("{} {unit}", round(nanoseconds / factor))
}

fn times(floors: f64) -> String {
    if floors < 1000.0 { format!("{}×", round(floors)) } else { format!("{}×", grouped(floors as u64)) }
}

/// A number with one significant digit, as short as possible.
fn round(number: f64) -> String {
    let places = (-number.log10().floor()).max(0.0) as usize;
    format!("{number:.places$}")
}

fn sizes_axis(results: &Results) -> Axis {
    let sizes = &results.run.message_bytes;
    let (first, last) = (sizes[0] as f64, sizes[sizes.len() - 1] as f64);
    Axis {
        range: if first < last { (first / 1.3, last * 1.3) } else { (first / 2.0, first * 2.0) },
        ticks: sizes.iter().map(|&size| (size as f64, show_size(size as u64))).collect(),
        title: "message size".to_owned(),
    }
}

/// The curves of a group by size.
fn over_sizes<'a>(
    results: &'a Results,
    group: Group,
    place: Placement,
    rows: impl Iterator<Item = (&'a Subject, Option<f64>)> + Clone,
) -> Vec<Curve> {
    let transports = results.transports.iter().filter(|about| about.group == group);
    let curves = transports.map(|about| {
        let of_this =
            |subject: &Subject| is_of(subject, group, place) && subject.transport == about.transport;
        let rows = rows.clone().filter(|(subject, _)| of_this(subject));
        Curve {
            name: about.transport.to_owned(),
            ink: ink(results, about.transport),
            points: rows.filter_map(|(subject, y)| Some((subject.message_bytes as f64, y?))).collect(),
            marked: true,
        }
    });
    curves.filter(|curve| !curve.points.is_empty()).collect()
}

/// A table with a row for each transport and a column for each size.
fn table_of_sizes<'a>(
    results: &'a Results,
    group: Group,
    place: Placement,
    label: &str,
    rows: impl Iterator<Item = (&'a Subject, Markup)> + Clone,
) -> Markup {
    let sizes = &results.run.message_bytes;
    html! {
        div.scroll tabindex="0" role="group" aria-label=(label) {
            table {
                thead { tr {
                    th scope="col" { "transport" }
                    @for &size in sizes { th scope="col" { (show_size(size as u64)) } }
                } }
                tbody {
                    @for about in results.transports.iter().filter(|about| about.group == group) {
                        tr.ours[is_ours(about.transport)] {
                            th scope="row" { (about.transport) }
                            @for &size in sizes {
                                td {
                                    @match rows.clone().find(|(subject, _)| is_of(subject, group, place)
                                        && subject.transport == about.transport && subject.message_bytes == size) {
                                        Some((_, cell)) => (cell),
                                        None => (DASH),
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn few(cost: &Cost) -> Markup {
    html! { small { "n = " (cost.slices) } }
}

fn by_size(results: &Results, group: Group, place: Placement) -> Markup {
    let points = results.round_trips.iter().map(|row| (&row.subject, row.cost.times_floor));
    let curves = over_sizes(results, group, place, points);
    let y = Axis::around(
        curves.iter().flat_map(|curve| &curve.points).map(|point| point.1),
        "times the floor",
        times,
    );
    let title = format!("{}: round trips by size{}", group.title(), whereabouts(place));
    let cells = results.round_trips.iter().map(|row| {
        let cost = &row.cost;
        let cell = match (cost.nanoseconds, cost.times_floor) {
            (Some(ns), Some(times)) => html! {
                (show_time(ns)) small { (show_figures(times)) "×" }
                small { (range(cost.lower_quartile_nanoseconds, cost.upper_quartile_nanoseconds)) }
            },
            _ => few(cost),
        };
        (&row.subject, cell)
    });
    html! {
        h3 { "Round trips by size" span.place { (whereabouts(place)) } }
        (figure(&sizes_axis(results), &y, &curves, &title, "In multiples of the floor around the same slices."))
        (table_of_sizes(results, group, place, &title, cells))
        p.legend {
            "Median, multiple of the floor, and quartiles, of "
            (slices(results.round_trips.iter().map(|row| (&row.subject, &row.cost)), group, place)) " slices each."
        }
    }
}

/// The number of slices, from the fewest to the most.
fn slices<'a>(rows: impl Iterator<Item = (&'a Subject, &'a Cost)>, group: Group, place: Placement) -> String {
    let counts = rows.filter(|(subject, _)| is_of(subject, group, place)).map(|(_, cost)| cost.slices);
    let (fewest, most) = counts.fold((usize::MAX, 0), |(low, high), n| (low.min(n), high.max(n)));
    if fewest < most { format!("{fewest} to {most}") } else { most.to_string() }
}

fn throughput(results: &Results, group: Group, place: Placement) -> Markup {
    let points = results.throughputs.iter().map(|row| (&row.subject, row.gigabytes_per_second));
    let curves = over_sizes(results, group, place, points);
    let show = |gigabytes: f64| match gigabytes {
        rate if rate < 0.9995e-3 => format!("{} kB/s", round(rate * 1e6)),
        rate if rate < 0.9995 => format!("{} MB/s", round(rate * 1e3)),
        rate => format!("{} GB/s", round(rate)),
    };
    let y = Axis::around(curves.iter().flat_map(|curve| &curve.points).map(|point| point.1), "payload", show);
    let title = format!("{}: throughput by size{}", group.title(), whereabouts(place));
    let cells = results.throughputs.iter().map(|row| {
        let cell = match (row.messages_per_second, row.gigabytes_per_second) {
            (Some(messages), Some(gigabytes)) => html! {
                (show_count(messages)) "/s" small { (show_amount(1e9 * gigabytes, "B/s")) }
                small { (range(row.cost.lower_quartile_nanoseconds, row.cost.upper_quartile_nanoseconds)) }
            },
            _ => few(&row.cost),
        };
        (&row.subject, cell)
    });
    html! {
        h3 { "Throughput by size" span.place { (whereabouts(place)) } }
        (figure(&sizes_axis(results), &y, &curves, &title, "Back-to-back messages, as fast as the receiver takes them."))
        (table_of_sizes(results, group, place, &title, cells))
        p.legend {
            "Messages and bytes per second, and quartiles of the time per message; medians of "
            (slices(results.throughputs.iter().map(|row| (&row.subject, &row.cost)), group, place)) " slices each."
        }
    }
}

fn woken(results: &Results, place: Placement) -> Markup {
    let rows = results.wake_ups.iter().map(|row| {
        let awake = (row.awake_messages > 0).then(|| format!("{} found it awake", row.awake_messages));
        (&row.percentiles, awake)
    });
    let Some(size) = rows.clone().map(|(row, _)| row.subject.message_bytes).next() else { return html! {} };
    let shown = Shown {
        title: &format!("{} to a sleeping receiver", show_size(size as u64)),
        remark: "From before the send to after the receive of a message, half a millisecond after the previous one. Messages that \
                 found the receiver awake do not count.",
        what: "a message",
        of_all: "of all messages take no longer",
        counted: "wake-ups",
    };
    percentiles(results, rows, (Group::Sleeping, place, size), &shown)
}

fn waiting(results: &Results) -> Markup {
    html! {
        section aria-labelledby="waiting" {
            h2 id="waiting" { "Wake-up and idle CPU" }
            @for place in results.seen() { (woken(results, place)) }
            h3 { "Without messages" }
            p { "The CPU use of the receiving process." }
            div.scroll tabindex="0" role="group" aria-label="CPU use of waiting receivers" {
                table {
                    thead { tr {
                        th scope="col" { "transport" } th.word scope="col" { "waits" }
                        th scope="col" { "of a CPU" } th scope="col" { "observed for" }
                    } }
                    tbody {
                        @for idle in &results.idle {
                            tr.ours[is_ours(idle.transport)] {
                                th scope="row" { (idle.transport) }
                                td.word { (idle.waits) }
                                td { (show_percent(idle.cpu_percent)) }
                                td { (show_time(1e9 * idle.waited_seconds)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn method(results: &Results) -> Markup {
    let run = &results.run;
    html! {
        section aria-labelledby="method" {
            h2 id="method" { "How it was measured" }
            p {
                "Two processes, each on its own CPU, the second started by exec; "
                (run.sessions) " pairs one after the other, because the placement of their memory matters. All transports and "
                "sizes alternate in slices of half a millisecond, each between two measurements of the floor. A slice whose two "
                "floors differ by more than a tenth is discarded, because the placement changed meanwhile: "
                (grouped(run.discarded_slices)) " of " (grouped(run.slices)) ". The run took "
                (format!("{:.0} s", run.took_seconds)) "."
            }
            p {
                "Every message is copied in and copied out. Single round trips include one reading of the clock each, and so does their "
                "floor; round trips by size do not. A percentile needs at least ten longer samples, a figure at least five slices. "
                "A round trip starts when the previous one ends: an interruption delays one of them, not all that would have been "
                "sent meanwhile."
            }
            @for note in &results.notes { p.note { (note) "." } }
            h3 { "The machine" }
            dl.machine {
                @for (what, how) in &results.machine { div { dt { (what) } dd { (how) } } }
            }
            h3 { "The transports" }
            dl.machine {
                @for about in &results.transports {
                    div { dt { (about.transport) } dd { (about.about) "; " (about.waits) } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::markup::Page;
    use crate::commands::bench::sample;

    /// The rows of the tables in a part of the page.
    fn rows(part: &str) -> Vec<&str> {
        let rows = part.split("<tr").skip(1).map(|rest| rest.split_once("</tr>").unwrap().0);
        rows.filter(|row| row.contains("scope=\"row\"")).collect()
    }

    fn between<'a>(page: &'a str, from: &str, to: &str) -> &'a str {
        page.split_once(from).unwrap().1.split_once(to).unwrap().0
    }

    #[test]
    fn every_element_is_closed() {
        for placements in [&[][..], &[Placement::Far], &Placement::OF_TWO_CPUS] {
            let page = Page::parse(&render(&sample::results(placements)));
            assert_eq!(page.count("svg"), 2 * 9 * placements.len()); // nine plots in two formats
        }
    }

    #[test]
    fn machine_data_is_escaped() {
        let page = render(&sample::results(&[Placement::Far]));
        assert!(!page.contains("<script") && !page.contains("<angles") && !page.contains("<way"));
        assert_eq!(page.matches("</style>").count(), 1);
        assert_eq!(page.matches("&lt;/style&gt;&lt;script&gt;alert(").count(), 4); // twice as the CPU, title, command
        assert!(page.contains("a note with &lt;angles&gt;"));
    }

    #[test]
    fn figures_fit_their_tiles_on_a_narrow_and_a_wide_screen() {
        // CSS pixels: two tiles side by side on a screen of 360, as narrow as any; less the padding of the page, the gap, and the
        // padding of the tile.
        const NARROWEST: f64 = (360.0 - 2.0 * 16.0 - 8.0) / 2.0 - 2.0 * 14.4;
        // Of 1.4 rem, as wide as a semi-bold figure gets.
        const CHARACTER: f64 = 1.4 * 16.0 * 0.65;
        assert!(STYLE.contains(".tile { min-width: 0; padding: .8rem .9rem;"));
        let rule = STYLE.lines().find(|line| line.starts_with(".figure {")).unwrap();
        assert!(rule.contains("font-size: 1.4rem") && !rule.contains("nowrap"), "{rule}");
        let page = render(&sample::results(&Placement::OF_TWO_CPUS));
        let figures: Vec<&str> = page.split("<span class=\"figure\">").skip(1).collect();
        assert!(figures.len() > 5);
        // The widest that there is.
        for figure in figures.into_iter().chain(["below 0.01 %<"]) {
            let (figure, _) = figure.split_once('<').unwrap();
            for word in figure.split(' ') {
                assert!(word.chars().count() as f64 * CHARACTER <= NARROWEST, "{word} of {figure}");
            }
        }
    }

    #[test]
    fn polling_and_sleeping_transports_have_separate_sections() {
        let page = render(&sample::results(&[Placement::Far]));
        let sleeping = between(&page, "id=\"sleeping\"", "id=\"polling\"");
        let polling = between(&page, "id=\"polling\"", "id=\"waiting\"");
        let of = |part, name: &str| {
            let cell = format!("scope=\"row\">{name}<");
            rows(part).iter().filter(|row| row.contains(&cell)).count()
        };
        for (name, sleeps, polls) in
            [("pipe", 4, 0), ("shmpipe", 4, 0), ("shmpipe-spin", 0, 4), ("classic", 0, 4)]
        {
            assert_eq!((of(sleeping, name), of(polling, name)), (sleeps, polls), "{name}");
        }
        // four plots in two formats, and no curve of the others in them
        assert_eq!((sleeping.matches("<svg").count(), polling.matches("<svg").count()), (8, 8));
        assert!(sleeping.contains("\nposix-queue\n") && !polling.contains("\nposix-queue\n"));
        assert!(polling.contains("\nclassic\n") && !sleeping.contains("\nclassic\n"));
    }

    #[test]
    fn a_placement_that_did_not_occur_is_shown_without_plots() {
        let page = render(&sample::results(&[Placement::Far]));
        assert!(page.contains("n = 0<small>did not occur</small>"));
        assert!(!page.contains("were near"));
        let both = render(&sample::results(&Placement::OF_TWO_CPUS));
        assert_eq!(both.matches("<svg").count(), 2 * page.matches("<svg").count());
        let none = render(&sample::results(&[]));
        assert_eq!(none.matches("<svg").count(), 0);
    }

    #[test]
    fn an_unsupported_size_is_a_dash() {
        let page = render(&sample::results(&[Placement::Far]));
        let queue = rows(&page).into_iter().find(|row| row.contains("sysv-queue") && row.contains("\u{d7}"));
        assert_eq!(queue.unwrap().matches("<td>\u{2013}</td>").count(), 1);
    }

    #[test]
    fn figures_are_short() {
        assert_eq!([0.05, 0.5, 5.0, 200.0].map(round), ["0.05", "0.5", "5", "200"]);
        assert_eq!([50.0, 1e3, 2e4, 5e6, 1e9].map(show_tick), ["50 ns", "1 µs", "20 µs", "5 ms", "1 s"]);
        assert_eq!(range(Some(62.0), Some(391.0)), "62.0–391 ns");
        assert_eq!(range(Some(620.0), Some(1391.0)), "620 ns–1.39 µs");
        assert_eq!([7, 1234, 1_234_567].map(grouped), ["7", "1\u{202f}234", "1\u{202f}234\u{202f}567"]);
        assert_eq!(day_and_time("2026-11-21T09:14:06Z"), "2026-11-21, 09:14 UTC");
    }
}
