//! Tables: those that poll apart from those that sleep, each with shmpipe in its own mode.

use shmpipe_measure::latency::{self, Latency};
use shmpipe_measure::paced::{self, Paced};
use shmpipe_measure::{Collected, Experiment, FEWEST, Mode, Series};

use crate::peers::Company;
use crate::run::Field;

/// A kind of waiting. Figures of one are never put beside those of the other.
struct Kind {
    title: &'static str,
    /// With what the others are compared.
    baseline: &'static str,
    polls: bool,
}

impl Kind {
    const BOTH: [Kind; 2] = [
        Kind { title: "polling", baseline: "shmpipe-spin", polls: true },
        Kind { title: "sleeping", baseline: "shmpipe", polls: false },
    ];

    fn has(&self, mode: Mode) -> bool {
        (mode == Mode::Polls) == self.polls
    }
}

/// The tables of one experiment, and the cells in which a peer is ahead.
pub fn slices(collected: &Collected, experiment: Experiment, company: Company) {
    for kind in Kind::BOTH {
        let Kind { title, baseline, .. } = kind;
        let mut part = collected.clone();
        part.series.retain(|series| kind.has(series.mode));
        if part.series.is_empty() {
            continue;
        }
        println!("{experiment} {company}, {title}\n{}\n", part.table(experiment, baseline));
        let ahead: Vec<String> =
            part.series.iter().flat_map(|series| ahead(&part, series, baseline)).collect();
        if !ahead.is_empty() {
            println!("less time than {baseline}: {}\n", ahead.join("; "));
        }
    }
    println!("{}\n", collected.floor_report());
}

/// Where a peer takes less time than the baseline.
fn ahead(collected: &Collected, series: &Series, baseline: &str) -> Vec<String> {
    let (experiment, size) = (series.config.experiment, series.config.size);
    let Some(base) = collected.find(experiment, baseline, size) else { return Vec::new() };
    let mut ahead = Vec::new();
    for &placement in &collected.placements {
        let enough = |series: &Series| series.cell(placement).n >= FEWEST;
        let ratio = collected.ratio(experiment, size, series.transport, baseline, placement);
        if let Some(ratio) = ratio.filter(|ratio| *ratio < 1.0 && enough(series) && enough(base)) {
            ahead.push(format!("{} {size} B {placement} {ratio:.2}", series.transport));
        }
    }
    ahead
}

/// The percentiles of round trips.
pub fn latencies(all: &[Latency], company: Company) {
    for kind in Kind::BOTH {
        let part: Vec<Latency> = all.iter().filter(|latency| kind.has(latency.mode)).cloned().collect();
        if !part.is_empty() {
            println!("each round trip {company}, {}\n{}\n", kind.title, latency::table(&part));
        }
    }
}

/// The percentiles of paced messages.
pub fn paced(all: &[Paced], company: Company) {
    for kind in Kind::BOTH {
        let part: Vec<Paced> = all.iter().filter(|paced| kind.has(paced.mode)).cloned().collect();
        if !part.is_empty() {
            println!("one way at a given rate {company}, {}\n{}\n", kind.title, paced::table(&part));
        }
    }
}

/// How each peer is set.
pub fn legend(field: &Field) {
    println!("{}:", field.company);
    let mut told: Vec<&str> = Vec::new();
    for transport in field.lineups.iter().flat_map(|(_, transports)| transports) {
        if !told.contains(&transport.name()) {
            told.push(transport.name());
            println!("{} ({}): {}.", transport.name(), transport.mode(), transport.about());
        }
    }
    println!();
}
