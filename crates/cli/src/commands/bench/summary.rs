//! The most important figures: at the start of the page, and at the end of the text.

use shmpipe_measure::Placement;

use super::plan::is_ours;
use super::results::Results;
use crate::output::units::{show_count, show_figures, show_size, show_time};

/// A result, with its figure in each placement that has one.
pub struct Headline {
    pub what: String,
    pub figures: Vec<Figure>,
}

pub struct Figure {
    pub figure: String,
    /// The placement of the CPUs, and more.
    pub remark: String,
}

pub fn headlines(results: &Results) -> Vec<Headline> {
    let ours = results.transports.iter().map(|about| about.transport).find(|name| is_ours(name));
    let mut all = vec![headline(results, "One cache line there and back (the floor)".to_owned(), |place| {
        let floor = results.floors.iter().find(|floor| floor.place == place)?;
        Some((show_time(floor.nanoseconds?), format!("n = {}", floor.slices)))
    })];
    let Some(ours) = ours else { return all };
    let trips = |place| {
        let rows = results.round_trips.iter().filter(move |row| {
            row.subject.transport == ours
                && row.subject.place == place
                && Some(&row.subject.message_bytes) == results.singly_timed().first()
        });
        rows.map(|row| &row.cost).next()
    };
    let size = results.singly_timed().first().map_or(0, |&size| size as u64);
    all.push(headline(results, format!("Round trip of {} over {ours}", show_size(size)), |place| {
        let cost = trips(place)?;
        Some((show_time(cost.nanoseconds?), format!("{} times the floor", show_figures(cost.times_floor?))))
    }));
    let highest = |place, of: fn(&super::results::Throughput) -> Option<f64>| {
        let rows = results
            .throughputs
            .iter()
            .filter(move |row| row.subject.transport == ours && row.subject.place == place);
        let known = rows.map(|row| Some((of(row)?, show_size(row.subject.message_bytes as u64))));
        // The highest of all sizes: unknown if one of them is.
        known.collect::<Option<Vec<_>>>()?.into_iter().max_by(|a, b| a.0.total_cmp(&b.0))
    };
    all.push(headline(results, format!("Highest message rate over {ours}"), |place| {
        let (messages, size) = highest(place, |row| row.messages_per_second)?;
        Some((format!("{}/s", show_count(messages)), format!("of {size}")))
    }));
    all.push(headline(results, format!("Highest byte rate over {ours}"), |place| {
        let (gigabytes, size) = highest(place, |row| row.gigabytes_per_second)?;
        Some((format!("{} GB/s", show_figures(gigabytes)), format!("by {size}")))
    }));
    if let Some(idle) = results.idle.iter().find(|idle| idle.transport == ours) {
        let figure = show_percent(idle.cpu_percent);
        let figures = vec![Figure { figure, remark: "of a CPU".to_owned() }];
        all.push(Headline { what: "Its receiver without messages".to_owned(), figures });
    }
    all.retain(|headline| !headline.figures.is_empty());
    all
}

fn headline(
    results: &Results,
    what: String,
    figure: impl Fn(Placement) -> Option<(String, String)>,
) -> Headline {
    let figures = results.seen().filter_map(|place| {
        let (figure, remark) = figure(place)?;
        let remark = match place {
            Placement::Near => format!("near, {remark}"),
            Placement::Far => format!("far, {remark}"),
            Placement::OneCpu => remark,
        };
        Some(Figure { figure, remark })
    });
    Headline { what, figures: figures.collect() }
}

/// A share of a CPU.
pub fn show_percent(percent: f64) -> String {
    match percent {
        percent if percent < 0.005 => "below 0.01 %".to_owned(),
        percent if percent < 9.995 => format!("{percent:.2} %"),
        percent => format!("{percent:.0} %"),
    }
}
