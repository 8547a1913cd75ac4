//! The content of an archive file.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use super::identity::{Cpu, Topology};
use super::json;
use crate::placement::Placement;

/// The version of the files' format.
pub const SCHEMA: u32 = 1;

/// The kinds of figures, in the order of the rows in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A round trip of one cache line: the floor.
    OneLine,
    /// Another limit of the hardware or the kernel; see [`limits`](crate::limits).
    Limit,
    /// A message to the partner and one of the same size back.
    RoundTrip,
    /// Successive messages, timed by the receiver.
    Streaming,
    /// The delay of messages at a fixed rate.
    Paced,
    /// The delay of a message to a sleeping consumer.
    WakeUp,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::OneLine => "one line",
            Kind::Limit => "limit",
            Kind::RoundTrip => "round trip",
            Kind::Streaming => "streaming",
            Kind::Paced => "paced",
            Kind::WakeUp => "wake-up",
        })
    }
}

/// One figure. Fields that were not measured, or are unknown for an old figure, are absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Its kind.
    pub experiment: Kind,
    /// Bytes of the ring, each way. Absent for limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<usize>,
    /// Bytes of a message or a block; 0 without data.
    pub bytes: usize,
    /// The transport, or the limit.
    pub transport: String,
    /// How the transport waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
    /// Messages per second, if paced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Slices, or messages if each is timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    /// Nanoseconds of one message, round trip or block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median_ns: Option<f64>,
    /// The quartiles of the slices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quartiles_ns: Option<[f64; 2]>,
    /// The ratio of the medians to the classic ring's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_classic: Option<f64>,
    /// The range of that ratio, if an old source gives one; `to_classic` is then its middle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_classic_range: Option<[f64; 2]>,
    /// The median of the slices' costs in units of their floors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_floor: Option<f64>,
    /// Sessions with enough slices for a median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    /// The quartiles of the sessions' medians.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions_ns: Option<[f64; 2]>,
    /// The quartiles of the sessions' ratios to the classic ring, which show how the ratio varies between sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions_to_classic: Option<[f64; 2]>,
}

impl Row {
    /// A row without figures.
    pub fn new(experiment: Kind, bytes: usize, transport: &str) -> Row {
        Row {
            experiment,
            capacity: None,
            bytes,
            transport: transport.to_owned(),
            waits: None,
            rate: None,
            n: None,
            median_ns: None,
            quartiles_ns: None,
            to_classic: None,
            to_classic_range: None,
            to_floor: None,
            sessions: None,
            sessions_ns: None,
            sessions_to_classic: None,
        }
    }

    /// The name of the row, unique in its file.
    pub fn name(&self) -> String {
        let mut name = format!("{}, {} B, {}", self.experiment, self.bytes, self.transport);
        if let Some(capacity) = self.capacity {
            name += &format!(", ring of {capacity} B");
        }
        if let Some(rate) = self.rate {
            name += &format!(", {rate}/s");
        }
        name
    }
}

/// Rows of one placement from another tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlacedRows {
    /// Where the two sides ran.
    pub placement: Placement,
    /// The rows.
    pub rows: Vec<Row>,
}

/// The source of the figures of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// This bench wrote the file.
    Measured,
    /// The figures were copied from a document.
    Transcribed,
}

/// How it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The intended duration.
    pub seconds: f64,
    /// Successive pairs of processes.
    pub sessions: u32,
    /// Slices of all placements that did not count, because their floors differed.
    pub discarded: u64,
    /// Floors below this many nanoseconds counted as near.
    pub near_below_ns: f64,
}

/// A row that may be worse than before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// The row's [name](Row::name).
    pub row: String,
    /// The reason.
    pub why: String,
}

/// One file: one run on one machine in one placement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The source of the figures.
    pub source: Source,
    /// The document of transcribed figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_note: Option<String>,
    /// The day of the measurement, as 2026-11-29 (UTC).
    pub date: String,
    /// The time of that day, as 23:59 (UTC), which orders files of one day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// The commit of the measured code.
    pub commit: String,
    /// `src/` differed from that commit.
    pub dirty: bool,
    /// Where the two processes ran.
    pub placement: Placement,
    /// The processor.
    pub cpu: Cpu,
    /// The topology of the processors, as reported by the kernel.
    #[serde(default, skip_serializing_if = "Topology::is_empty")]
    pub topology: Topology,
    /// Whether the processor reports a hypervisor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<bool>,
    /// The default bytes of the ring, each way, of the rows.
    pub capacity: usize,
    /// More about the machine: kernel, compiler, clock and so on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub machine: BTreeMap<String, String>,
    /// How it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// Rows that may be worse than in an older file. Entered manually.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<Accepted>,
    /// The figures.
    pub rows: Vec<Row>,
    /// Other queues, and ours in the same run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Row>,
    /// Why there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers_missing: Option<String>,
}

impl Report {
    /// `amd-25-1-near-2026-11-29-9b5f769.json`: processor, placement, day, commit, and special marks.
    pub fn file_name(&self) -> String {
        let Report { cpu, placement, date, commit, dirty, source, .. } = self;
        let place = match placement {
            Placement::OneCpu => "one-cpu".to_owned(),
            other => other.to_string(),
        };
        let dirty = if *dirty { "-dirty" } else { "" };
        let transcribed = if *source == Source::Transcribed { "-transcribed" } else { "" };
        format!("{}-{place}-{date}-{commit}{dirty}{transcribed}.json", cpu.slug())
    }

    /// The file's text, with one line for each row, so that diffs are readable.
    ///
    /// # Errors
    /// None, since every report has a text.
    pub fn to_json(&self) -> io::Result<String> {
        json::lines(self, 2)
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// `InvalidData` for a text that is not JSON, has another [`SCHEMA`], lacks a field or has an unknown one.
    pub fn from_json(text: &str) -> io::Result<Report> {
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let version: Version = serde_json::from_str(text).map_err(io::Error::from)?;
        if version.schema != SCHEMA {
            let found = version.schema;
            let why =
                format!("its schema is {found}, expected {SCHEMA}: another version of this bench wrote it");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(serde_json::from_str(text)?)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::ops::Deref;
    use std::path::{Path, PathBuf};
    use std::{env, fs, process};

    /// A temporary folder, which is removed even if the test fails.
    pub struct Folder(PathBuf);

    impl Folder {
        pub fn new(name: &str) -> Folder {
            let path = env::temp_dir().join(format!("shmpipe-{name}-{}", process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
    }

    impl Deref for Folder {
        type Target = Path;

        fn deref(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// A report of a machine that does not exist.
    pub fn report(date: &str, commit: &str, placement: Placement, rows: Vec<Row>) -> Report {
        Report {
            schema: SCHEMA,
            source: Source::Measured,
            source_note: None,
            date: date.to_owned(),
            time: None,
            commit: commit.to_owned(),
            dirty: false,
            placement,
            cpu: Cpu {
                vendor: "AuthenticAMD".to_owned(),
                family: Some(25),
                model: Some(1),
                name: Some("AMD EPYC".to_owned()),
                ..Cpu::default()
            },
            topology: Topology::default(),
            hypervisor: Some(true),
            capacity: 1 << 20,
            machine: BTreeMap::from([("kernel".to_owned(), "Linux 6.18".to_owned())]),
            run: Some(Run { seconds: 330.0, sessions: 165, discarded: 7, near_below_ns: 80.0 }),
            accepted: Vec::new(),
            rows,
            peers: Vec::new(),
            peers_missing: None,
        }
    }

    /// A row of ours with a ratio and its variation between sessions.
    pub fn row(experiment: Kind, bytes: usize, ratio: f64, sessions: [f64; 2]) -> Row {
        Row {
            capacity: Some(1 << 20),
            to_classic: Some(ratio),
            n: Some(100),
            median_ns: Some(100.0 * ratio),
            sessions: Some(20),
            sessions_to_classic: Some(sessions),
            ..Row::new(experiment, bytes, "shmpipe")
        }
    }

    #[test]
    fn report_round_trips_through_its_file() {
        let rows = vec![row(Kind::RoundTrip, 8, 0.74, [0.73, 0.76]), Row::new(Kind::Limit, 65536, "read")];
        let report = report("2026-11-29", "9b5f769", Placement::Near, rows);
        let text = report.to_json().unwrap();
        assert_eq!(Report::from_json(&text).unwrap(), report);
        let lines: Vec<_> = text.lines().filter(|line| line.contains("\"experiment\"")).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(text.contains("\n    \"vendor\": \"AuthenticAMD\",\n"), "{text}");
    }

    #[test]
    fn file_name_describes_the_content() {
        let mut report = report("2026-11-29", "9b5f769", Placement::Near, Vec::new());
        assert_eq!(report.file_name(), "amd-25-1-near-2026-11-29-9b5f769.json");
        (report.dirty, report.placement) = (true, Placement::Far);
        assert_eq!(report.file_name(), "amd-25-1-far-2026-11-29-9b5f769-dirty.json");
        report.source = Source::Transcribed;
        assert_eq!(report.file_name(), "amd-25-1-far-2026-11-29-9b5f769-dirty-transcribed.json");
    }

    #[test]
    fn other_schemas_and_unknown_fields_are_refused() {
        let text = report("2026-11-29", "9b5f769", Placement::Near, Vec::new()).to_json().unwrap();
        let newer = text.replace("\"schema\": 1", "\"schema\": 2");
        assert!(Report::from_json(&newer).unwrap_err().to_string().contains("its schema is 2, expected 1"));
        let misspelt = text.replace("\"dirty\"", "\"drity\"");
        assert!(Report::from_json(&misspelt).unwrap_err().to_string().contains("drity"));
    }
}
