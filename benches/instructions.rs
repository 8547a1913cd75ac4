//! Instructions per message, counted by callgrind: a figure without noise, equal on all machines with the same compiler. A change
//! of three percent fails.
//!
//! `cargo bench --bench instructions` compares with `instructions.ini`, and `-- --help` lists the options. One process holds both
//! ends, runs under valgrind, and does everything twice: with N messages and with 2 N. The difference is the cost of N messages.
//! (A library for this would need an installed runner of the same version, and would count each function once with its setup.)
//!
//! Send and receive alternate in a row. The lengths come from memory, like those of a caller, so every row includes the five or
//! six instructions of the loop, which `loop alone` shows. Each message uses the same bytes and the same buffer.

use shmpipe::{RecvError, TryRecvError, Value, WakeMode};
use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::iter::zip;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use shmpipe_measure::both_ends;

const USAGE: &str = "\
options after `cargo bench --bench instructions --`:
  --update    write the figures of this compiler to benches/instructions.ini
  --required  fail if there is no valgrind";

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.ini");

/// The excess over the baseline that fails.
const TOLERANCE: f64 = 0.03;

/// Several laps of the ring that both ends use in turn, and half of the ring that one end fills.
const MESSAGES: usize = 4096;
const RING_IN_TURN: u64 = 64 << 10;
const RING_AT_ONCE: u64 = 2 << 20;

const BATCH: usize = 32;

/// The operations to count.
#[derive(Clone, Copy)]
enum Work {
    Nothing,
    Send,
    Receive,
    ReceiveNothing,
    Reserve,
    SendReceive,
    Value,
    BatchDrain,
}

/// The rows: name, operation, bytes of a message. None is long enough for `rep movsb`, of which valgrind counts every byte.
const ROWS: [(&str, Work, usize); 13] = [
    ("loop alone", Work::Nothing, 8),
    ("8 B send", Work::Send, 8),
    ("8 B receive", Work::Receive, 8),
    ("8 B send, receive", Work::SendReceive, 8),
    ("8 B as a value, send, receive", Work::Value, 8),
    ("13 B send, receive", Work::SendReceive, 13),
    ("32 B send, receive", Work::SendReceive, 32),
    ("64 B send, receive", Work::SendReceive, 64),
    ("256 B send, receive", Work::SendReceive, 256),
    ("1 KiB send, receive", Work::SendReceive, 1024),
    ("32 B in batches of 32, drained", Work::BatchDrain, 32),
    ("64 B reserve, write, commit", Work::Reserve, 64),
    ("try_recv, empty", Work::ReceiveNothing, 8),
];

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let has = |word: &str| words.iter().any(|found| found == word);
    let done = match () {
        () if has("--help") => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        () if has("--list") => Ok(ExitCode::SUCCESS), // no tests with names of their own
        () if has(UNDER_VALGRIND) => do_everything_twice().map(|()| ExitCode::SUCCESS),
        () if !has("--bench") => smoke(),
        () => check(has("--update"), has("--required")),
    };
    done.unwrap_or_else(|error| {
        eprintln!("instructions: {error}");
        ExitCode::FAILURE
    })
}

/// The smoke run without `--bench` (`cargo test --benches`): does everything, and counts nothing.
fn smoke() -> Result<ExitCode, Box<dyn Error>> {
    do_everything_twice()?;
    println!("smoke run, instructions: {} rows; every message as sent", ROWS.len());
    Ok(ExitCode::SUCCESS)
}

fn do_everything_twice() -> Result<(), Box<dyn Error>> {
    for (_, work, size) in ROWS {
        for messages in [MESSAGES, 2 * MESSAGES] {
            run(work, size, messages)?;
        }
    }
    Ok(())
}

fn run(work: Work, size: usize, messages: usize) -> Result<(), Box<dyn Error>> {
    let content: Vec<u8> = (0..size).map(|i| i as u8 | 1).collect();
    let mut buffer = vec![0; size];
    // The compiler must load address and length each time.
    let all = black_box(vec![content.as_slice(); messages]);
    let to = black_box(buffer.as_mut_slice());
    let capacity = if matches!(work, Work::SendReceive | Work::Value | Work::BatchDrain) {
        RING_IN_TURN
    } else {
        RING_AT_ONCE
    };
    let (mut producer, mut consumer) = both_ends(capacity)?;
    if producer.pipe().wake_mode() != WakeMode::Membarrier {
        return Err("no membarrier here: the fences would be counted too".into());
    }
    if matches!(work, Work::Receive) {
        for message in &all {
            producer.send(message)?;
        }
    }
    match work {
        Work::Nothing => counted(&mut || {
            for message in &all {
                black_box(message.len());
            }
        }),
        Work::Send => counted(&mut || {
            for message in &all {
                producer.send(*message).unwrap();
            }
        }),
        Work::Receive => counted(&mut || {
            for _ in &all {
                consumer.recv().unwrap().copy_to(to).unwrap();
            }
        }),
        Work::ReceiveNothing => counted(&mut || {
            for _ in &all {
                assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
            }
        }),
        Work::Reserve => counted(&mut || {
            for message in &all {
                let mut space = producer.reserve(message.len()).unwrap();
                space.write(0, message);
                space.commit();
            }
        }),
        Work::SendReceive => counted(&mut || {
            for message in &all {
                producer.send(*message).unwrap();
                consumer.recv().unwrap().copy_to(to).unwrap();
            }
        }),
        Work::Value => counted(&mut || {
            for message in &all {
                let value = u64::from_ne_bytes((*message).try_into().unwrap());
                producer.send(Value(&value)).unwrap();
                to.copy_from_slice(&consumer.recv().unwrap().value::<u64>().unwrap().to_ne_bytes());
            }
        }),
        Work::BatchDrain => counted(&mut || {
            for some in all.chunks(BATCH) {
                let mut batch = producer.batch();
                for message in some {
                    batch.push(message).unwrap();
                }
                batch.commit();
                let mut drain = consumer.drain(BATCH);
                while let Some(record) = drain.next().unwrap() {
                    record.copy_to(to).unwrap();
                }
            }
        }),
    }
    drop(producer);
    match work {
        Work::Nothing | Work::ReceiveNothing => {}
        Work::Send | Work::Reserve => {
            for _ in 0..messages {
                let message = consumer.recv()?;
                assert_eq!(message.to_vec(), content);
            }
        }
        Work::Receive | Work::SendReceive | Work::Value | Work::BatchDrain => assert_eq!(buffer, content),
    }
    assert_eq!(consumer.recv().unwrap_err(), RecvError::Closed, "messages that were not sent");
    Ok(())
}

/// Valgrind counts from the entry to the exit of this function.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
    // Valgrind does not see the exit of a function that ends with a jump to another.
    black_box(work);
}

/// Two patterns for its name in valgrind, which keeps the first of two options for one pattern. The name may end in a hash.
const ENTERED: &str = "instructions::counted*";
const LEFT: &str = "*::counted*";

/// The variable that marks a run under valgrind.
const UNDER_VALGRIND: &str = "--under-valgrind";

/// Counts, compares, and prints.
fn check(update: bool, required: bool) -> Result<ExitCode, Box<dyn Error>> {
    if let Err(error) = Command::new("valgrind").arg("--version").output() {
        let what = format!("SKIPPED, nothing was counted: valgrind does not start ({error})");
        return if required { Err(what.into()) } else { Ok(notice(&what)) };
    }
    let figures = count()?;
    let compiler = Compiler::current()?;
    let text = fs::read_to_string(BASELINE).map_err(|error| format!("{BASELINE}: {error}"))?;
    let mut baseline = Baseline::parse(&text)?;
    let known = baseline.section(&compiler.name).cloned();
    let bars = baseline.section(BARS).cloned().unwrap_or_default();
    let mut failed = Vec::new();
    let mut faster = false;
    println!("{}\n", compiler.name);
    println!("{:<32} {:>12} {:>10} {:>8} {:>6}", "", "instructions", "baseline", "change", "bar");
    for (name, now) in &figures {
        let before = known.as_ref().and_then(|rows| find(rows, name));
        let bar = find(&bars, name);
        let change = before.map(|before| now / before - 1.0);
        println!(
            "{name:<32} {now:>12.2} {:>10} {:>8} {:>6}",
            shown(before, |before| format!("{before:.2}")),
            shown(change, |change| format!("{:+.1} %", change * 100.0)),
            shown(bar, |bar| format!("{bar}")),
        );
        faster |= change.is_some_and(|change| change < -TOLERANCE);
        if change.is_some_and(|change| change > TOLERANCE) {
            failed.push(format!("{name}: more than {:.0} % above the baseline", TOLERANCE * 100.0));
        }
        // A target that was never met is only shown.
        if bar.is_some_and(|bar| *now > bar && before.is_some_and(|before| before <= bar)) {
            failed.push(format!("{name}: the bar was met before"));
        }
    }
    println!();
    if update && compiler.has_flags {
        return Err("not written: RUSTFLAGS are set, and the baseline is to be without".into());
    }
    if update {
        baseline.set(&compiler.name, figures);
        fs::write(BASELINE, baseline.to_string())?;
        return Ok(notice(&format!("the figures are in {BASELINE} now")));
    }
    if compiler.has_flags {
        return Ok(notice("NOT COMPARED: RUSTFLAGS are set, and the baseline was made without"));
    }
    if known.is_none() {
        return Ok(notice("NOT COMPARED: the baseline does not know this compiler; `-- --update` adds it"));
    }
    if !failed.is_empty() {
        return Err(failed.join("\n              ").into());
    }
    if faster {
        return Ok(notice("better than the baseline by more than it tolerates: `-- --update` keeps it"));
    }
    Ok(ExitCode::SUCCESS)
}

fn notice(what: &str) -> ExitCode {
    println!("instructions: {what}");
    ExitCode::SUCCESS
}

fn shown(value: Option<f64>, form: impl FnOnce(f64) -> String) -> String {
    value.map_or("-".to_owned(), form)
}

fn find(rows: &[(String, f64)], name: &str) -> Option<f64> {
    rows.iter().find(|(found, _)| found == name).map(|(_, figure)| *figure)
}

/// Runs this program under valgrind. Returns the cost of one message for each row.
fn count() -> Result<Vec<(String, f64)>, Box<dyn Error>> {
    let scratch = Scratch::new()?;
    let out = scratch.0.join("counted");
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--dump-line=no", "--error-exitcode=1"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(format!("--zero-before={ENTERED}"))
        .arg(format!("--dump-after={LEFT}"))
        .arg(env::current_exe()?)
        .arg(UNDER_VALGRIND)
        .output()?;
    if !run.status.success() {
        return Err(format!("valgrind: {}\n{}", run.status, String::from_utf8_lossy(&run.stderr)).into());
    }
    let mut figures = Vec::new();
    for (row, (name, _, _)) in ROWS.into_iter().enumerate() {
        // Dumps are numbered from 1.
        let [once, twice] = [1, 2].map(|dump| total(&out, 2 * row + dump));
        figures.push((name.to_owned(), (twice? - once?) as f64 / MESSAGES as f64));
    }
    Ok(figures)
}

/// The instructions in one of callgrind's dumps.
fn total(out: &Path, dump: usize) -> Result<i64, Box<dyn Error>> {
    let path = format!("{}.{dump}", out.display());
    let text =
        fs::read_to_string(&path).map_err(|error| format!("{path}: {error}; is there no {ENTERED}?"))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    Ok(total.ok_or_else(|| format!("{path} has no totals"))?.trim().parse()?)
}

/// A directory for callgrind's files.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch, Box<dyn Error>> {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("instructions-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It is in the build directory, where leftovers do no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The compiler and target, on which the figures depend.
struct Compiler {
    name: String,
    has_flags: bool,
}

impl Compiler {
    /// Those that cargo has used: it passes on both variables, and rustup its choice of a toolchain.
    fn current() -> Result<Compiler, Box<dyn Error>> {
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let text = String::from_utf8(Command::new(rustc).arg("-vV").output()?.stdout)?;
        let version = text.lines().next().ok_or("rustc does not say its version")?;
        let host =
            text.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc does not say its host")?;
        let has_flags =
            env::var_os("RUSTFLAGS").is_some_and(|flags| !flags.to_string_lossy().trim().is_empty());
        Ok(Compiler { name: format!("{version} {host}"), has_flags })
    }
}

/// The section of the target figures.
const BARS: &str = "bars";

/// The baseline: sections of figures, one for each compiler.
struct Baseline {
    head: String,
    sections: Vec<(String, Vec<(String, f64)>)>,
}

impl Baseline {
    /// Comments, `[section]` and `row = figure`.
    fn parse(text: &str) -> Result<Baseline, Box<dyn Error>> {
        let mut baseline = Baseline { head: String::new(), sections: Vec::new() };
        for (number, line) in zip(1.., text.lines()) {
            let wrong = || format!("{BASELINE}:{number}: neither [section] nor `row = figure`: {line}");
            if line.starts_with('#') {
                writeln!(baseline.head, "{line}")?;
            } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                baseline.sections.push((name.to_owned(), Vec::new()));
            } else if !line.is_empty() {
                let (name, figure) = line.split_once('=').ok_or_else(wrong)?;
                let figure = figure.trim().parse().map_err(|_| wrong())?;
                let (_, rows) = baseline.sections.last_mut().ok_or_else(wrong)?;
                rows.push((name.trim().to_owned(), figure));
            }
        }
        Ok(baseline)
    }

    fn section(&self, name: &str) -> Option<&Vec<(String, f64)>> {
        self.sections.iter().find(|(found, _)| found == name).map(|(_, rows)| rows)
    }

    fn set(&mut self, name: &str, rows: Vec<(String, f64)>) {
        match self.sections.iter_mut().find(|(found, _)| found == name) {
            Some(section) => section.1 = rows,
            None => self.sections.push((name.to_owned(), rows)),
        }
    }
}

impl std::fmt::Display for Baseline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.head)?;
        for (name, rows) in &self.sections {
            writeln!(f, "\n[{name}]")?;
            for (row, figure) in rows {
                let places = if name == BARS { 0 } else { 2 };
                writeln!(f, "{row} = {figure:.places$}")?;
            }
        }
        Ok(())
    }
}
