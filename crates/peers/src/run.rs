//! Checks everything, then measures size after size, turn after turn.
//!
//! A queue of values has to be made for one size, so a session has one size. The turns are short and come round again, so
//! that every size sees the machine in all its moods.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use shmpipe_measure::report::{Gathered, Part};
use shmpipe_measure::{
    Collected, Experiment, Machine, Mode, Session, Settings, Transport, collect_in_sessions, latency, paced,
};

use crate::errors::{about, unfit};
use crate::options::{Options, What};
use crate::peers::Company;
use crate::report;
use crate::scratch::Scratch;

/// How long a turn of one size lasts.
const TURN: Duration = Duration::from_millis(1500);

/// How often the messages of the check go round a ring: what loses messages under pressure must not pass.
const LAPS: u64 = 3;
/// So many at most where each may take two changes of context.
const MOST_ASLEEP: u64 = 20_000;

/// Those of one company at each size.
pub struct Field {
    pub company: Company,
    pub lineups: Vec<Lineup>,
}

/// A size, and what is compared at it.
pub type Lineup = (usize, Vec<&'static dyn Transport>);

/// Carries out the command line.
///
/// # Errors
/// Those of the peers and of the system.
pub fn run(options: &Options) -> io::Result<()> {
    let fields = fields(options)?;
    if options.list {
        fields.iter().for_each(report::legend);
        return Ok(());
    }
    let duration = Duration::try_from_secs_f64(options.seconds);
    let duration = duration.map_err(|error| unfit(format!("--seconds {}: {error}", options.seconds)))?;
    if let (Some(path), true) = (&options.json, fields.len() != 1) {
        let count = fields.len();
        return Err(unfit(format!(
            "--json {}: a file is of one company, these are {count}; choose by --company",
            path.display()
        )));
    }
    let mut gathered = Gathered::default();
    let _scratch = Scratch::open()?;
    for field in &fields {
        check(&settings(options, field.company)?, field)?;
    }
    if options.check {
        return Ok(());
    }
    let experiments: &[What] = match &options.experiment[..] {
        [] => &[What::RoundTrip, What::Streaming],
        chosen => chosen,
    };
    for field in &fields {
        let settings = settings(options, field.company)?;
        println!("\n{}\n", Machine::of(&Session::start(&settings, &[])?));
        for what in experiments {
            match what {
                What::RoundTrip => {
                    in_slices(Experiment::RoundTrip, &settings, field, duration, &mut gathered)?
                }
                What::Streaming => {
                    in_slices(Experiment::Streaming, &settings, field, duration, &mut gathered)?
                }
                What::Latency => one_by_one(&settings, field, duration)?,
                What::Paced => at_rates(&options.rates, &settings, field, duration)?,
            }
        }
        report::legend(field);
    }
    match &options.json {
        Some(path) => {
            write(&gathered, path).map_err(|error| about(format_args!("{}", path.display()), error))
        }
        None => Ok(()),
    }
}

fn write(gathered: &Gathered, path: &Path) -> io::Result<()> {
    let placed = gathered.placed();
    if placed.is_empty() {
        return Err(io::Error::other(
            "too few slices of round trips and streams for any row; measure longer",
        ));
    }
    fs::write(path, serde_json::to_string(&placed)?)
}

/// What the command line names.
fn fields(options: &Options) -> io::Result<Vec<Field>> {
    let companies = if options.company.is_empty() { Company::ALL } else { &options.company };
    let field = |&company: &Company| {
        let lineups = options.sizes.iter().map(|&size| (size, company.at(size))).collect();
        Field { company, lineups }
    };
    let mut fields: Vec<Field> = companies.iter().map(field).collect();
    if options.peers.is_empty() {
        return Ok(fields);
    }
    let known = fields.iter().flat_map(|field| &field.lineups).flat_map(|(_, transports)| transports);
    for name in &options.peers {
        if !known.clone().any(|transport| transport.name() == name) {
            return Err(unfit(format!("no peer {name} at these sizes: see --list")));
        }
    }
    for field in &mut fields {
        for (_, transports) in &mut field.lineups {
            transports.retain(|transport| options.peers.iter().any(|name| name == transport.name()));
        }
        field.lineups.retain(|(_, transports)| !transports.is_empty());
    }
    fields.retain(|field| !field.lineups.is_empty());
    Ok(fields)
}

fn settings(options: &Options, company: Company) -> io::Result<Settings> {
    let cpus = match options.cpus[..] {
        [] => None,
        [a, b] => Some((a, b)),
        _ => return Err(unfit("--cpus needs two numbers")),
    };
    let (between, capacity, near_below_ns) = (company.between(), options.capacity, options.near_below);
    Ok(Settings { between, cpus, capacity, near_below_ns, ..Settings::default() })
}

/// Every peer delivers every byte, both ways.
fn check(settings: &Settings, field: &Field) -> io::Result<()> {
    for (size, transports) in &field.lineups {
        let mut session = Session::start(settings, transports)?;
        for (i, transport) in transports.iter().enumerate() {
            if session.fits(i, *size) {
                let lap = (settings.capacity / (*size).max(1)) as u64 + 1;
                let most = if transport.mode() == Mode::Sleeps { MOST_ASLEEP } else { u64::MAX };
                let checked = session.check_both_ways(i, *size, (LAPS * lap).min(most));
                let name = transport.name();
                checked.map_err(|error| about(format_args!("{name}, messages of {size} bytes"), error))?;
            }
        }
        println!(
            "{size} bytes {}: every byte intact, both ways, over {} transports",
            field.company,
            transports.len()
        );
    }
    Ok(())
}

fn in_slices(
    experiment: Experiment,
    settings: &Settings,
    field: &Field,
    time: Duration,
    gathered: &mut Gathered,
) -> io::Result<()> {
    let mut all: Option<Collected> = None;
    turns(field, time, |(size, transports), turn| {
        let collected = collect_in_sessions(settings, transports, &[(experiment, &[*size])], turn)?;
        gathered.add(Part::of_slices(&collected, settings.capacity));
        match &mut all {
            Some(all) => all.append(collected),
            None => all = Some(collected),
        }
        Ok(())
    })?;
    if let Some(all) = all {
        report::slices(&all, experiment, field.company);
    }
    Ok(())
}

fn one_by_one(settings: &Settings, field: &Field, time: Duration) -> io::Result<()> {
    let mut all = Vec::new();
    turns(field, time, |(size, transports), turn| {
        latency::append(&mut all, latency::collect_in_sessions(settings, transports, &[*size], turn)?)
    })?;
    report::latencies(&all, field.company);
    Ok(())
}

fn at_rates(rates: &[f64], settings: &Settings, field: &Field, time: Duration) -> io::Result<()> {
    let mut all = Vec::new();
    turns(field, time, |(size, transports), turn| {
        paced::append(&mut all, paced::collect_in_sessions(settings, transports, &[*size], rates, turn)?)
    })?;
    report::paced(&all, field.company);
    Ok(())
}

/// A turn for every size, and again, until the time is over.
fn turns(
    field: &Field,
    time: Duration,
    mut measure: impl FnMut(&Lineup, Duration) -> io::Result<()>,
) -> io::Result<()> {
    let turn = TURN.min(time / field.lineups.len().max(1) as u32);
    let start = Instant::now();
    loop {
        for lineup in &field.lineups {
            measure(lineup, turn)?;
        }
        if start.elapsed() >= time {
            return Ok(());
        }
    }
}
