//! A short bench. Its figures are not checked: the machine is busy with tests.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use serde_json::Value;

use crate::markup::Page;
use crate::process::{Directory, Finished, Running, ask, eventually, shmpipe};
use crate::terminal::{terminal, wait_for};

const TRANSPORTS: [&str; 4] = ["shmpipe", "shmpipe-spin", "pipe", "unix"];
const SIZES: [u64; 2] = [64, 1024];

/// A short run with additional arguments, and its process id. A longer one if other tests keep the machine too busy for figures.
fn short(words: &[&str]) -> (u32, Finished) {
    for time in ["1s", "6s", "20s"] {
        let short =
            ["bench", "--time", time, "--sizes", "1KiB,64", "--transports", "pipe,unix,shmpipe,shmpipe-spin"];
        let bench =
            Running::start(shmpipe(&[&short, words].concat()).stdout(Stdio::piped()).stderr(Stdio::piped()));
        let (pid, bench) = (bench.id(), bench.finish().code(0).quiet());
        if !text(&bench).contains("too few slices count for tables") {
            return (pid, bench);
        }
    }
    panic!("the machine is too busy for any slice to count");
}

fn text(finished: &Finished) -> String {
    String::from_utf8(finished.out.clone()).unwrap()
}

fn objects(finished: &Finished) -> Vec<Value> {
    text(finished).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

/// Segments and message queues that a process created and left. (A semaphore set does not show its creator, but is removed with
/// its segment.)
pub fn left_by(pid: u32) -> Vec<String> {
    let mut left = Vec::new();
    for (list, column) in [("shm", 4), ("msg", 6)] {
        let rows = fs::read_to_string(format!("/proc/sysvipc/{list}")).unwrap();
        let is_its = |row: &&str| row.split_whitespace().nth(column) == Some(&pid.to_string());
        left.extend(rows.lines().filter(is_its).map(|row| format!("{list}: {row}")));
    }
    left
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    tasks.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

fn is_there(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn the_bench_prints_all_measurements_as_json() {
    let (pid, bench) = short(&["--json"]);
    eventually(|| left_by(pid).is_empty().then_some(()));
    let objects = objects(&bench);
    assert!(objects.iter().all(|object| object["schema"] == 1));

    let run = of_kind(&objects, "bench").next().unwrap();
    assert_eq!(run["message_bytes"], Value::from(SIZES.to_vec()));
    assert!(run["command"].as_str().unwrap().starts_with("shmpipe bench --time "));
    let listed: Vec<&str> =
        of_kind(&objects, "transport").map(|object| object["transport"].as_str().unwrap()).collect();
    assert_eq!(listed, TRANSPORTS);

    // every placement has a row, even one that did not occur, and every slice is in one of them or discarded
    let placements: Vec<&Value> = of_kind(&objects, "floor").map(|object| &object["placement"]).collect();
    assert_eq!(placements, ["near", "far"]);
    let slices: u64 = of_kind(&objects, "floor").map(|object| object["slices"].as_u64().unwrap()).sum();
    let (all, discarded) = (run["slices"].as_u64().unwrap(), run["discarded_slices"].as_u64().unwrap());
    assert_eq!(slices + discarded, all);

    for kind in ["round_trip_by_size", "throughput"] {
        let rows: BTreeSet<_> = of_kind(&objects, kind)
            .map(|row| [&row["transport"], &row["placement"], &row["message_bytes"]].map(Value::to_string))
            .collect();
        assert_eq!(rows.len(), TRANSPORTS.len() * placements.len() * SIZES.len(), "{kind}: {rows:?}");
        for row in of_kind(&objects, kind) {
            let figure = row["nanoseconds"].as_f64();
            assert_eq!(figure.is_some(), row["slices"].as_u64().unwrap() >= 5, "{row}");
            assert!(figure.is_none_or(|ns| ns > 0.0), "{row}");
        }
    }
    for row in of_kind(&objects, "throughput").filter(|row| !row["nanoseconds"].is_null()) {
        let (ns, size) = (row["nanoseconds"].as_f64().unwrap(), row["message_bytes"].as_f64().unwrap());
        let near = |found: &Value, expected: f64| (found.as_f64().unwrap() / expected - 1.0).abs() < 1e-9;
        assert!(near(&row["messages_per_second"], 1e9 / ns), "{row}");
        assert!(near(&row["gigabytes_per_second"], size / ns), "{row}");
    }

    for kind in ["round_trip", "one_way"] {
        let timed: BTreeSet<_> =
            of_kind(&objects, kind).map(|row| row["transport"].as_str().unwrap()).collect();
        for name in TRANSPORTS.into_iter().chain(["floor"]) {
            let slow = of_kind(&objects, "too_slow").any(|row| row["transport"] == name);
            assert!(timed.contains(name) || kind == "one_way" && slow, "{kind} of {name}: {timed:?}");
        }
    }
    let woken: BTreeSet<_> =
        of_kind(&objects, "wake_up").map(|row| row["transport"].as_str().unwrap()).collect();
    assert_eq!(woken.into_iter().collect::<Vec<_>>(), ["pipe", "shmpipe", "unix"]);
    // the curves rise, and agree with the rows where both have a point
    for row in of_kind(&objects, "round_trip") {
        let same = |point: &&Value| {
            ["transport", "placement", "message_bytes"].iter().all(|key| point[*key] == row[*key])
                && point["of"] == "round_trip"
        };
        let curve: Vec<&Value> = of_kind(&objects, "percentile").filter(same).collect();
        let heights: Vec<u64> = curve.iter().map(|point| point["nanoseconds"].as_u64().unwrap()).collect();
        assert!(heights.is_sorted(), "{heights:?}");
        let p90 = curve.iter().find(|point| point["percentile"] == 90.0);
        assert_eq!(p90.map_or(&Value::Null, |point| &point["nanoseconds"]), &row["p90_nanoseconds"], "{row}");
    }

    let idle = |name: &str| {
        let row = of_kind(&objects, "idle").find(|row| row["transport"] == name).unwrap();
        (row["group"].as_str().unwrap().to_owned(), row["cpu_percent"].as_f64().unwrap())
    };
    for (name, group) in TRANSPORTS.into_iter().zip(["sleeping", "polling", "sleeping", "sleeping"]) {
        let (its, percent) = idle(name);
        assert_eq!(its, group);
        // a short sample is off by at most one tick of the clock
        assert!((0.0..=200.0).contains(&percent), "{name}: {percent}");
    }
}

#[test]
fn the_bench_prints_polling_and_sleeping_transports_in_separate_tables() {
    let (_, bench) = short(&[]);
    let text = text(&bench);
    for part in ["THE TWO CPUS", "near", "far", "n = ", "SUMMARY", "of a CPU", "pairs of processes"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let (sleeping, polling) = text.split_once("RECEIVERS THAT POLL").unwrap();
    let begin = |part: &str, name: &str| {
        part.lines().filter(|line| line.split_whitespace().next() == Some(name)).count()
    };
    let (_, sleeping) = sleeping.split_once("RECEIVERS THAT SLEEP").unwrap();
    let (polling, _) = polling.split_once("WAKE-UP AND IDLE CPU").unwrap();
    assert!(begin(sleeping, "pipe") > 1 && begin(sleeping, "shmpipe") > 1, "{text}");
    assert!(begin(polling, "shmpipe-spin") > 1, "{text}");
    assert_eq!((begin(sleeping, "shmpipe-spin"), begin(polling, "pipe")), (0, 0), "{text}");
}

#[test]
fn the_report_is_one_well_formed_self_contained_file() {
    // the report quotes the command line, which must stay text
    let directory = Directory::new("bench");
    let file = directory.file("report <script>alert(1)<!-- &amp; \"quoted\" 'too'.html");
    let (_, bench) = short(&["--json", "--html", &file]);
    let html = fs::read_to_string(&file).unwrap();
    let page = Page::parse(&html);
    for (loads, why) in
        [("src", "a source"), ("href", "a link"), ("srcset", "a source"), ("onload", "a script")]
    {
        assert_eq!(page.attributes(loads), [], "{why}");
    }
    for element in ["script", "link", "img", "iframe", "object", "use", "image"] {
        assert_eq!(page.count(element), 0, "{element}");
    }
    for word in ["http:", "https:", "url(", "@import", "@font-face"] {
        assert!(!html.contains(word), "{word}");
    }
    assert!(html.contains("prefers-color-scheme: dark"));
    let text = page.text();
    assert!(text.contains(&file[file.len() - 30..].replace('\'', r"'\''")), "{text}");

    // a plot of each kind for each group and placement with figures, each in two formats, each with a label for screen readers
    let objects = objects(&bench);
    let labels = page.attributes("aria-label");
    let plots: Vec<&str> =
        labels.iter().filter(|(element, _)| element == "svg").map(|(_, label)| &**label).collect();
    assert_eq!(plots.len(), page.count("svg"));
    let often = |placement: &Value| {
        let rows = ["round_trip_by_size", "throughput"].into_iter().flat_map(|kind| of_kind(&objects, kind));
        let here: Vec<_> = rows.filter(|row| row["placement"] == *placement).collect();
        let known = here.iter().filter(|row| !row["nanoseconds"].is_null()).count();
        2 * known >= here.len()
    };
    let placements = of_kind(&objects, "floor").filter(|row| often(&row["placement"])).count();
    assert!(placements > 0);
    let by_size = |title: &str| plots.iter().filter(|label| label.contains(title)).count();
    assert_eq!(by_size(": round trips by size"), 2 * 2 * placements);
    assert_eq!(by_size(": throughput by size"), 2 * 2 * placements);

    // the same figures as in JSON
    for name in TRANSPORTS {
        assert!(text.contains(name));
    }
    for row in of_kind(&objects, "machine") {
        assert!(text.contains(row["how"].as_str().unwrap()), "{row}");
    }
    for row in of_kind(&objects, "floor") {
        assert!(text.contains(&format!("n = {}", row["slices"])), "{row}");
    }
}

#[test]
fn a_signal_ends_the_bench_in_order_at_any_moment() {
    let signals = [(libc::SIGINT, 130), (libc::SIGTERM, 143), (libc::SIGHUP, 129)];
    let directory = Directory::new("bench-signal");
    for (number, milliseconds) in [0, 40, 150, 400, 700, 1000].into_iter().enumerate() {
        let (signal, code) = signals[number % signals.len()];
        let file = directory.file(&format!("interrupted-{number}.html"));
        let bench = Running::start(
            shmpipe(&["bench", "--full", "--html", &file]).stdout(Stdio::piped()).stderr(Stdio::piped()),
        );
        let (pid, partner) = (bench.id(), eventually(|| children(bench.id()).first().copied()));
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        bench.signal(signal);
        bench.finish().code(code).quiet().quiet_on_stdout();
        // A listing of all pipes keeps a removed segment for a moment.
        eventually(|| left_by(pid).is_empty().then_some(()));
        eventually(|| (!is_there(partner)).then_some(()));
        assert!(directory.files().is_empty(), "a report of a run that did not end");
    }
}

#[test]
fn a_killed_bench_leaves_nothing() {
    let bench = Running::start(shmpipe(&["bench", "--full"]).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let (pid, partner) = (bench.id(), eventually(|| children(bench.id()).first().copied()));
    // both run, and the transports have their objects
    eventually(|| (!left_by(pid).is_empty()).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(500));
    bench.signal(libc::SIGKILL);
    bench.finish().killed();
    eventually(|| (left_by(pid).is_empty() && !is_there(partner)).then_some(()));
}

#[test]
fn wrong_options_are_refused_before_anything_is_measured() {
    let folder = env!("CARGO_TARGET_TMPDIR");
    let missing = format!("{folder}/no/such/folder/report.html");
    for (words, code, said) in [
        (&["--pin", "0,0"][..], 2, "expected two different CPUs"),
        (&["--pin", "0"], 2, "expected two CPUs"),
        (&["--pin", "0,100000"], 2, "CPU 100000 is not among those allowed"),
        (&["--sizes", "0"], 2, "expected at least one byte"),
        (&["--sizes", "8,x"], 2, "expected a whole number of bytes"),
        (&["--sizes", "2MiB"], 2, "2097152 bytes are more than 1048576"),
        (&["--transports", "pipe,carrier-pigeon"], 2, "there is no carrier-pigeon; there are"),
        (&["--near-below", "0"], 2, "expected a number of nanoseconds above 0"),
        (&["--quick", "--full"], 2, "cannot be used with"),
        (&["--quick", "--time", "3s"], 2, "cannot be used with"),
        (&["--html", folder], 1, "is a directory"),
        (&["--html", &missing], 1, "o such file or directory"),
    ] {
        let words = [&["bench"], words].concat();
        let refused = ask(&words).code(code).quiet_on_stdout();
        assert!(refused.err.contains(said), "{words:?} said {:?}", refused.err);
        let refused = ask(&[&words[..], &["--json"]].concat()).code(code).said(&[]);
        let error: Value = serde_json::from_str(&refused.err).unwrap();
        assert_eq!((&error["schema"], &error["exit_code"]), (&1.into(), &code.into()), "{words:?}");
    }
}

/// The command line, allowed to use only one CPU.
fn on_one_cpu(words: &[&str]) -> std::process::Command {
    let mut command = shmpipe(words);
    // SAFETY: both calls may be made between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            let size = size_of_val(&set);
            if libc::sched_getaffinity(0, size, &mut set) == -1 {
                return Err(std::io::Error::last_os_error());
            }
            let first = (0..libc::CPU_SETSIZE as usize).find(|&cpu| libc::CPU_ISSET(cpu, &set));
            libc::CPU_ZERO(&mut set);
            libc::CPU_SET(first.unwrap_or(0), &mut set);
            match libc::sched_setaffinity(0, size, &set) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    command
}

#[test]
fn on_one_cpu_only_sleeping_transports_are_measured() {
    let words =
        ["bench", "--time", "1s", "--sizes", "64", "--transports", "pipe,shmpipe,shmpipe-spin", "--json"];
    let bench = Running::start(on_one_cpu(&words).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let objects = objects(&bench.finish().code(0).quiet());
    let of = |kind: &'static str, key: &'static str| -> Vec<String> {
        of_kind(&objects, kind).map(|object| object[key].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(of("transport", "transport"), ["shmpipe", "pipe"]);
    assert_eq!(of("floor", "placement"), ["one cpu"]);
    assert!(of("note", "note")[0].contains("only one CPU"));

    let words = ["bench", "--transports", "shmpipe-spin"];
    let bench = Running::start(on_one_cpu(&words).stdout(Stdio::piped()).stderr(Stdio::piped()));
    bench.finish().code(1).said(&["only one CPU is allowed"]);
}

#[test]
fn a_bar_is_shown_on_a_terminal_and_cleared() {
    let ((mut screen, theirs), mut seen) = (terminal(), Vec::new());
    let mut command = shmpipe(&["bench", "--time", "3s", "--sizes", "64", "--transports", "pipe"]);
    let bench = Running::start(command.stdout(Stdio::piped()).stderr(theirs));
    drop(command);
    wait_for(&mut screen, &mut seen, "round trips and throughput by size");
    wait_for(&mut screen, &mut seen, "%   1s");
    bench.finish().code(0);
    // the last output clears the line
    eventually(|| {
        let mut buffer = [0; 4096];
        match screen.read(&mut buffer) {
            Ok(read) if read > 0 => seen.extend_from_slice(&buffer[..read]),
            _ => return Some(()),
        }
        None
    });
    assert!(seen.ends_with(b"\r\x1b[2K"), "{:?}", String::from_utf8_lossy(&seen));
}
