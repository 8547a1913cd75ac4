//! `metrics`: OpenMetrics text with the counters of pipes, printed or served.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use serde_json::Value;

use crate::process::{Name, Running, ask, run, start};

/// The text of metrics, checked: each family in one piece with its help and type, each series once, the end marked.
struct Exposition {
    samples: BTreeMap<String, f64>,
    families: BTreeSet<String>,
}

impl Exposition {
    #[track_caller]
    fn parse(text: &str) -> Exposition {
        let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
        let (mut current, mut kind) = (String::new(), String::new());
        let body = text.strip_suffix("# EOF\n").expect("an end");
        for line in body.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words[..] {
                ["#", "HELP", name, help] => {
                    assert!(families.insert(name.to_owned()), "{name} comes twice");
                    assert!(!help.is_empty());
                    current = name.to_owned();
                }
                ["#", "TYPE", name, of] => {
                    assert_eq!(name, current);
                    kind = of.to_owned();
                    assert!(["gauge", "counter", "histogram"].contains(&of), "{line}");
                }
                ["#", "UNIT", name, unit] => {
                    assert_eq!(name, current);
                    assert!(name.ends_with(&format!("_{unit}")), "{line}");
                }
                _ => {
                    let (series, value) = line.rsplit_once(' ').unwrap();
                    let (named, labels) = series.split_once('{').unwrap();
                    let suffixes: &[&str] = match &kind[..] {
                        "counter" => &["_total"],
                        "histogram" => &["_sum", "_count", "_bucket"],
                        _ => &[""],
                    };
                    let suffix = named.strip_prefix(&current).expect(line);
                    assert!(suffixes.contains(&suffix), "{line} in {current}");
                    let is_of_pipe = labels.starts_with("pipe=\"") || labels.contains(",pipe=\"");
                    assert!(is_of_pipe && (suffix == "_bucket") == labels.starts_with("le="), "{line}");
                    let twice = samples.insert(series.to_owned(), value.parse().unwrap());
                    assert_eq!(twice, None, "{series} comes twice");
                }
            }
        }
        Exposition { samples, families }
    }

    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        *self.samples.get(series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.samples))
    }
}

fn metrics(words: &[&str]) -> Exposition {
    let finished = ask(&[&["metrics"], words].concat()).code(0).quiet();
    Exposition::parse(std::str::from_utf8(&finished.out).unwrap())
}

#[test]
fn counters_are_those_of_the_pipe() {
    let name = Name::new("metrics");
    run(&["send", &name, "--capacity", "8KiB"], b"four\nfives\n").code(0);
    run(&["recv", &name, "--count", "1"], b"").code(0);
    let found = metrics(&[&name]);
    for (series, value) in [
        ("readable{pipe=P}", 1.0),
        ("capacity_bytes{pipe=P}", 8192.0),
        ("segment_bytes{pipe=P}", 8192.0 + 4096.0),
        ("used_bytes{pipe=P,direction=\"forth\"}", 16.0),
        ("unread_messages{pipe=P,direction=\"forth\"}", 1.0),
        ("sent_messages_total{pipe=P,direction=\"forth\"}", 2.0),
        ("sent_bytes_total{pipe=P,direction=\"forth\"}", 9.0),
        ("released_messages_total{pipe=P,direction=\"forth\"}", 1.0),
        ("released_bytes_total{pipe=P,direction=\"forth\"}", 4.0),
        ("dropped_messages_total{pipe=P,direction=\"forth\"}", 0.0),
        ("claims_total{pipe=P,direction=\"forth\",role=\"producer\"}", 1.0),
        ("claims_total{pipe=P,direction=\"forth\",role=\"consumer\"}", 1.0),
        ("side_state{pipe=P,direction=\"forth\",role=\"producer\",state=\"closed\"}", 1.0),
        ("side_state{pipe=P,direction=\"forth\",role=\"producer\",state=\"alive\"}", 0.0),
    ] {
        let series = format!("shmpipe_{}", series.replace("=P", &format!("=\"{}\"", &*name)));
        assert_eq!(found.value(&series), value, "{series}");
    }
    assert!(
        found
            .samples
            .keys()
            .any(|series| series.starts_with("shmpipe_pipe_info{") && series.contains("kind=\"sysv\""))
    );
}

#[test]
fn latencies_are_a_histogram_of_the_pipes_that_measure_them() {
    let name = Name::new("metrics-latency");
    run(&["send", &name, "--measure-latency", "--capacity", "4KiB"], &b"0123456789abcde\n".repeat(100))
        .code(0);
    run(&["recv", &name], b"").code(0);
    let found = metrics(&[&name]);
    // 100 records of 24 bytes cross 2400 / 256 steps.
    let of = |what: &str| format!("shmpipe_latency_seconds_{what}pipe=\"{}\",direction=\"forth\"}}", &*name);
    assert_eq!(found.value(&of("count{")), 9.0);
    assert_eq!(found.value(&of("bucket{le=\"+Inf\",")), 9.0);
    assert_eq!(found.value(&of("bucket{le=\"1.28e-7\",")), 0.0);
    let buckets =
        found.samples.iter().filter(|(series, _)| series.starts_with("shmpipe_latency_seconds_bucket"));
    let mut buckets: Vec<(f64, f64)> = buckets
        .map(|(series, &value)| {
            let bound = series.split('"').nth(1).unwrap();
            (if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() }, value)
        })
        .collect();
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    assert_eq!(buckets.len(), 25);
    assert!(buckets.is_sorted_by(|one, other| one.1 <= other.1), "{buckets:?}");
    let seconds = found.value(&of("sum{"));
    assert!(seconds > 9.0 * 128e-9, "{seconds}");
}

#[test]
fn all_pipes_are_found_without_names() {
    let name = Name::new("metrics-all");
    ask(&["create", &name]).code(0);
    // Other tests create and remove pipes meanwhile.
    let finished = ask(&["metrics"]).code(0);
    let found = Exposition::parse(std::str::from_utf8(&finished.out).unwrap());
    assert_eq!(found.value(&format!("shmpipe_capacity_bytes{{pipe=\"{}\"}}", &*name)), 1_048_576.0);
}

#[test]
fn a_duplex_pipe_has_both_directions() {
    let name = Name::new("metrics-duplex");
    let pipe = shmpipe::Options::new().duplex(true).create(&*name).unwrap();
    pipe.duplex_as(shmpipe::DuplexSide::B).unwrap().send(b"back").unwrap();
    let found = metrics(&[&name]);
    let sent = |way: &str| {
        found.value(&format!("shmpipe_sent_messages_total{{pipe=\"{}\",direction=\"{way}\"}}", &*name))
    };
    assert_eq!((sent("forth"), sent("back")), (0.0, 1.0));
}

#[test]
fn an_abort_has_its_code() {
    let name = Name::new("metrics-abort");
    let pipe = shmpipe::Pipe::open_or_create(&*name).unwrap();
    pipe.producer().unwrap().abort(7).unwrap();
    let found = metrics(&[&name]);
    let side = format!("pipe=\"{}\",direction=\"forth\",role=\"producer\"", &*name);
    assert_eq!(found.value(&format!("shmpipe_abort_code{{{side}}}")), 7.0);
    assert_eq!(found.value(&format!("shmpipe_side_state{{{side},state=\"aborted\"}}")), 1.0);
}

#[test]
fn a_name_cannot_break_the_text() {
    let finished = ask(&["metrics", "file:/nowhere/\"\\\n# EOF"]).code(0);
    let found = Exposition::parse(std::str::from_utf8(&finished.out).unwrap());
    assert_eq!(found.value("shmpipe_readable{pipe=\"file:/nowhere/\\\"\\\\\\n# EOF\"}"), 0.0);
}

#[test]
fn a_missing_pipe_is_reported_and_the_others_are_printed() {
    let (name, missing) = (Name::new("metrics-there"), Name::new("metrics-missing"));
    ask(&["create", &name]).code(0);
    // A pipe that is named twice comes once.
    let finished = ask(&["metrics", &missing, &name, &name]).code(0);
    let found = Exposition::parse(std::str::from_utf8(&finished.out).unwrap());
    finished.said(&[&missing, "no pipe"]);
    let readable = |name: &str| found.value(&format!("shmpipe_readable{{pipe=\"{name}\"}}"));
    assert_eq!((readable(&missing), readable(&name)), (0.0, 1.0));
    assert!(!found.samples.contains_key(&format!("shmpipe_capacity_bytes{{pipe=\"{}\"}}", &*missing)));
}

#[test]
fn the_format_of_prometheus_names_counters_as_their_samples() {
    let name = Name::new("metrics-format");
    ask(&["create", &name]).code(0);
    let text =
        String::from_utf8(ask(&["metrics", &name, "--format", "prometheus"]).code(0).quiet().out).unwrap();
    assert!(
        text.contains("\n# TYPE shmpipe_sent_messages_total counter\nshmpipe_sent_messages_total{"),
        "{text}"
    );
    assert!(!text.contains("# EOF") && !text.contains("# UNIT"));
}

#[test]
fn the_families_are_those_of_the_document_and_the_dashboard_uses_no_others() {
    let name = Name::new("metrics-names");
    ask(&["create", &name]).code(0);
    let finished = ask(&["metrics", &name, "--format", "prometheus"]).code(0);
    let text = String::from_utf8(finished.out).unwrap();
    let names: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(names.len(), metrics(&[&name]).families.len());
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let page = std::fs::read_to_string(docs.join("operating.md")).unwrap();
    let documented: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|n| n.starts_with("shmpipe_"))
        .collect();
    assert_eq!(names, documented);
    let dashboard = std::fs::read_to_string(docs.join("operating/grafana.json")).unwrap();
    serde_json::from_str::<Value>(&dashboard).unwrap();
    let words = dashboard.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let used: BTreeSet<&str> = words.filter(|word| word.starts_with("shmpipe_")).collect();
    assert!(used.len() >= 6 && used.is_subset(&names), "{used:?}");
}

/// Sends a request; returns the status line, the headers and the body.
fn request(url: &str, method: &str, headers: &str) -> (String, String) {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn listening(words: &[&str]) -> (Running, String) {
    let server = start(&[&["metrics", "--listen", "127.0.0.1:0"], words].concat());
    let said = server.wait_for_output(|said| said.ends_with(b"\n"));
    (server, String::from_utf8(said).unwrap().trim_end().to_owned())
}

#[test]
fn a_server_answers_until_a_signal() {
    let name = Name::new("metrics-http");
    let (server, url) = listening(&[&name]);
    let openmetrics = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let readable = || {
        let (head, body) = request(&url, "GET", openmetrics);
        assert!(
            head.starts_with("HTTP/1.1 200 ")
                && head.contains("Content-Type: application/openmetrics-text; version=1.0.0"),
            "{head}"
        );
        Exposition::parse(&body).value(&format!("shmpipe_readable{{pipe=\"{}\"}}", &*name))
    };
    assert_eq!(readable(), 0.0);
    ask(&["create", &name]).code(0);
    assert_eq!(readable(), 1.0);
    let (head, body) = request(&url, "GET", "");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4") && !body.contains("# EOF"), "{head}");
    assert!(request(&format!("{url}x"), "GET", "").0.starts_with("HTTP/1.1 404 "));
    assert!(request(&url, "DELETE", "").0.starts_with("HTTP/1.1 405 "));
    assert_eq!(request(&url, "HEAD", "").1, "");
    server.signal(libc::SIGTERM);
    server.finish().code(143).quiet();
}

#[test]
fn a_server_reports_its_url_as_json() {
    let (server, said) = listening(&["--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["schema"], 1);
    assert!(request(said["url"].as_str().unwrap(), "GET", "").0.starts_with("HTTP/1.1 200 "));
    server.signal(libc::SIGINT);
    server.finish().code(130).quiet();
}

#[test]
fn impossible_addresses_are_errors() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    ask(&["metrics", "--listen", &address]).code(1).said(&[&address, "in use"]);
    for words in [["--listen", "127.0.0.1"], ["--listen", "127.0.0.1:99999"], ["--format", "xml"]] {
        ask(&["metrics", words[0], words[1]]).code(2).quiet_on_stdout();
    }
    ask(&["metrics", "--listen", "127.0.0.1:0", "--format", "prometheus"]).code(2).quiet_on_stdout();
}
