//! The run: successive sessions, each saved at its end, and then one file for each placement.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use super::gathered::Gathered;
use super::identity::{Cpu, Topology};
use super::options::Options;
use super::partial::{Key, Partial, Step};
use super::peers;
use super::plan::{self, CAPACITY, GROUPS};
use super::row::{PlacedRows, Report, Run, SCHEMA, Source};
use crate::affinity;
use crate::errors::{about, unfit};
use crate::machine::{self, Machine};
use crate::placement::{NEAR_BELOW_NS, Placement};
use crate::session::Session;
use crate::settings::Settings;

/// The shortest duration of a session, when earlier ones took too long.
const SHORTEST: Duration = Duration::from_millis(300);

/// The folder of results, relative to the root of the repository.
pub(super) const RESULTS: &str = "benches/results";

/// Measures everything and writes the files.
pub(super) fn run(root: &Path, options: &Options) -> io::Result<()> {
    let settings = Settings {
        cpus: options.cpus,
        near_below_ns: options.near_below_ns.unwrap_or(NEAR_BELOW_NS),
        capacity: CAPACITY,
        ..Settings::default()
    };
    if settings.cpus.is_none() && affinity::allowed_cpus()?.len() < 2 {
        return Err(unfit(
            "this process may run on one CPU only, where every message is a change of context: allow it two, \
             by taskset or the container's limits",
        ));
    }
    let code = Code::of(root, options)?;
    // released before the next one: there can be only one
    let (machine, cpus) = {
        let session = Session::start(&settings, &[])?;
        (Machine::of(&session), session.cpus())
    };
    let known = |key: &str| {
        let found = machine.lines().iter().find(|(what, _)| *what == key);
        found.map_or_else(String::new, |(_, how)| how.clone())
    };
    let key = Key {
        schema: SCHEMA,
        commit: code.commit.clone(),
        changes: code.changes,
        cpu: Cpu::here(),
        kernel: known("kernel"),
        compiler: known("compiler"),
        seconds: options.seconds,
        cpus: options.cpus,
        near_below_ns: options.near_below_ns,
    };
    let (mut partial, before) =
        Partial::open(&root.join("target/report/partial.jsonl"), &key, options.fresh)?;
    let (gathered, sessions) = measure(&settings, options, &mut partial, before)?;
    let near_below_ns = options.near_below_ns.unwrap_or_else(|| gathered.border());
    let gathered = gathered.with_border(near_below_ns);
    eprintln!(
        "report: near is below {near_below_ns} ns; near {}, far {} slices and messages, {} discarded",
        gathered.n(Placement::Near),
        gathered.n(Placement::Far),
        gathered.discarded()
    );
    let (mut peers, mut peers_missing) = (Vec::new(), None);
    if options.peers {
        match peers::measure(root, options, near_below_ns) {
            Ok(rows) => peers = rows,
            Err(error) => {
                eprintln!("report: no peers: {error}");
                peers_missing = Some(error.to_string());
            }
        }
    }
    let placed = gathered.placed();
    if placed.is_empty() {
        return Err(io::Error::other(
            "too few slices for a file: the machine is busy, or --seconds is short",
        ));
    }
    let report = |PlacedRows { placement, rows }: PlacedRows| {
        let its_peers = peers.iter().find(|peers| peers.placement == placement);
        let its_peers = its_peers.map(|peers| peers.rows.clone()).unwrap_or_default();
        let unmet = || format!("no slice of them found the two processors {placement}");
        let peers_missing = match (&peers_missing, options.peers && its_peers.is_empty()) {
            (Some(why), _) => Some(why.clone()),
            (None, true) => Some(unmet()),
            (None, false) => None,
        };
        Report {
            schema: SCHEMA,
            source: Source::Measured,
            source_note: None,
            date: date(SystemTime::now()),
            time: Some(time(SystemTime::now())),
            commit: code.commit.clone(),
            dirty: code.dirty,
            placement,
            cpu: key.cpu.clone(),
            topology: Topology::of(cpus),
            hypervisor: machine::hypervisor(),
            capacity: CAPACITY,
            machine: lines(&machine),
            run: Some(Run {
                seconds: options.seconds,
                sessions,
                discarded: gathered.discarded(),
                near_below_ns,
            }),
            accepted: Vec::new(),
            rows,
            peers: its_peers,
            peers_missing,
        }
    };
    let reports: Vec<Report> = placed.into_iter().map(report).collect();
    let folder = options.out.clone().unwrap_or_else(|| root.join(RESULTS));
    write(&folder, &reports)?;
    for placement in Placement::OF_TWO_CPUS {
        if !reports.iter().any(|report| report.placement == placement) {
            eprintln!(
                "report: no file for {placement}: fewer than half of the round trips and streams were seen there"
            );
        }
    }
    partial.remove()
}

/// All sessions that fit the time, with those of the interrupted run.
fn measure(
    settings: &Settings,
    options: &Options,
    partial: &mut Partial,
    before: Vec<Step>,
) -> io::Result<(Gathered, u32)> {
    let time = Duration::from_secs_f64(options.seconds);
    let schedule = plan::schedule(time);
    let mut spent: f64 = before.iter().map(|step| step.seconds).sum();
    let mut progress = Progress::new(schedule.len(), options.seconds);
    if !before.is_empty() {
        eprintln!("report: continues after {} of {} sessions", before.len(), schedule.len());
    }
    let mut sessions = before.len();
    let mut gathered = Gathered::default();
    before.into_iter().for_each(|step| gathered.add(step.part));
    let mut checked = vec![false; GROUPS.len()];
    let begun = sessions;
    for (number, &group) in schedule.iter().enumerate().skip(begun) {
        // skips sessions that exceed the time, unless their group was not measured at all
        if spent > options.seconds && number >= GROUPS.len() {
            break;
        }
        let start = Instant::now();
        let its = &GROUPS[group];
        progress.says(number, its.name, spent);
        let named = |error| about(format_args!("{}", its.name), error);
        // delays get their placement when measured, by the border from the floors so far
        let near_below_ns = options.near_below_ns.unwrap_or_else(|| gathered.border());
        let settings = Settings { near_below_ns, ..settings.clone() };
        let mut session = its.start(&settings).map_err(named)?;
        if !checked[group] {
            its.check(&mut session).map_err(named)?;
            checked[group] = true;
        }
        let share = (number + 1) as f64 / schedule.len() as f64;
        let due = Duration::from_secs_f64((options.seconds * share - spent).max(0.0));
        let left = due.saturating_sub(start.elapsed()).max(SHORTEST);
        let part = its.measure(&mut session, left, number as u64 + 1).map_err(named)?;
        drop(session);
        let seconds = start.elapsed().as_secs_f64();
        spent += seconds;
        let step = Step { group, seconds, part };
        partial.add(&step)?;
        gathered.add(step.part);
        sessions += 1;
    }
    progress.done();
    eprintln!("report: {sessions} sessions in {spent:.0} s");
    Ok((gathered, sessions as u32))
}

/// A progress line on standard error, which is overwritten on a terminal and repeated now and then elsewhere.
struct Progress {
    sessions: usize,
    seconds: f64,
    terminal: bool,
    last: Option<Instant>,
}

impl Progress {
    const NOW_AND_THEN: Duration = Duration::from_secs(15);

    fn new(sessions: usize, seconds: f64) -> Progress {
        Progress { sessions, seconds, terminal: io::stderr().is_terminal(), last: None }
    }

    fn says(&mut self, number: usize, what: &str, spent: f64) {
        let left = (self.seconds - spent).max(0.0).ceil() as u64;
        let line = format!(
            "report: session {} of {}, {what}; {}:{:02} left",
            number + 1,
            self.sessions,
            left / 60,
            left % 60
        );
        if self.terminal {
            eprint!("\r{line:70}");
            let _ = io::stderr().flush();
        } else if self.last.is_none_or(|last| last.elapsed() >= Self::NOW_AND_THEN) {
            eprintln!("{line}");
            self.last = Some(Instant::now());
        }
    }

    fn done(&self) {
        if self.terminal {
            eprintln!();
        }
    }
}

/// The measured code.
struct Code {
    commit: String,
    /// `src/` differs from the commit.
    dirty: bool,
    /// A hash of all differences in the measured and the measuring code.
    changes: u64,
}

impl Code {
    fn of(root: &Path, options: &Options) -> io::Result<Code> {
        let git = |words: &[&str]| {
            let output = Command::new("git").arg("-C").arg(root).args(words).output()?;
            if output.status.success() {
                return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
            }
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(io::Error::other(why))
        };
        if let Some(commit) = &options.commit {
            return Ok(Code { commit: commit.clone(), dirty: false, changes: 0 });
        }
        let code = || {
            let commit = git(&["rev-parse", "--short=7", "HEAD"])?;
            let dirty = !git(&["status", "--porcelain", "--", "src"])?.is_empty();
            let measured = ["--", "src", "crates/measure/src", "benches/report.rs"];
            let mut hasher = DefaultHasher::new();
            for words in [&["status", "--porcelain"], &["diff", "HEAD"]] {
                git(&[&words[..], &measured[..]].concat())?.hash(&mut hasher);
            }
            io::Result::Ok(Code { commit, dirty, changes: hasher.finish() })
        };
        code().map_err(|error| {
            about(format_args!("git does not tell which commit this is: name it with --commit"), error)
        })
    }
}

fn lines(machine: &Machine) -> BTreeMap<String, String> {
    machine.lines().iter().map(|(what, how)| ((*what).to_owned(), how.clone())).collect()
}

fn write(folder: &Path, reports: &[Report]) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(folder).map_err(|error| about(format_args!("{}", folder.display()), error))?;
    let write = |report: &Report| {
        let path = folder.join(report.file_name());
        let written = fs::write(&path, report.to_json()?);
        written.map_err(|error| about(format_args!("{}", path.display()), error))?;
        println!("{}", path.display());
        Ok(path)
    };
    reports.iter().map(write).collect()
}

/// The time of the day (UTC), as 23:59.
fn time(now: SystemTime) -> String {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    format!("{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60)
}

/// The day in UTC, as 2026-11-29.
fn date(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut days = seconds / 86_400;
    let leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}

/// One session of each group, as short as possible. Writes no file.
pub(super) fn smoke() -> io::Result<()> {
    let settings = Settings { capacity: CAPACITY, ..Settings::default() };
    let mut gathered = Gathered::default();
    for group in GROUPS {
        let mut session = group.start(&settings)?;
        group.check(&mut session)?;
        gathered.add(group.measure(&mut session, Duration::ZERO, 1)?);
    }
    let all = [Placement::Near, Placement::Far, Placement::OneCpu];
    let n: u64 = all.into_iter().map(|placement| gathered.n(placement)).sum();
    assert!(n > 0, "no slice of anything");
    println!("smoke run, report: {n} slices and messages in {} groups; every byte intact", GROUPS.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_follow_the_calendar() {
        let day = |seconds| date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(951_782_399), "2000-02-28");
        assert_eq!(day(951_782_400), "2000-02-29");
        assert_eq!(day(1_795_910_400), "2026-11-29");
        assert_eq!(day(4_102_444_799), "2099-12-31");
    }
}
