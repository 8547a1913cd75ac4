//! `shmpipe nats status`: the end of a stream, and how far a pipe is.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use shmpipe::{Address, SetupError};

use crate::args::Status;
use crate::bridge::Surroundings;
use crate::durability::Doubts;
use crate::exit::{Code, Early, Failure, Outcome};
use crate::frame::{Body, Frame, How};
use crate::jetstream::Stream;
use crate::note::{Notes, folder};
use crate::report::{SCHEMA, json, printable};
use crate::server::Server;

const TIMEOUT: Duration = Duration::from_secs(5);

/// What is shown; with `--json`, as it is. Null means not known, or none.
#[derive(Debug, Default, Serialize)]
struct Shown {
    schema: u32,
    stream: String,
    server_version: String,
    replicas: usize,
    frames: u64,
    stream_bytes: u64,
    last_sequence: u64,
    /// Of the last frame.
    source_pipe: Option<String>,
    source_position_bytes: Option<u64>,
    publisher_epoch: Option<u64>,
    /// Since the last frame was made.
    age_seconds: Option<f64>,
    /// How the producer ended, if that is the last thing.
    end: Option<&'static str>,
    abort_code: Option<u32>,
    /// For a pipe that is published: bytes of its ring that are not released. For one that is filled: messages of the stream that it
    /// does not have.
    unpublished_bytes: Option<u64>,
    frames_behind: Option<u64>,
    doubts: Vec<String>,
}

pub fn show(settings: &Status, around: &Surroundings) -> Outcome {
    let shown = match look(settings, around) {
        Ok(shown) => shown,
        Err(Early::Stopped) => return Ok(()),
        Err(Early::Failed(failure)) => return Err(failure),
    };
    let text = if around.report.is_json() { json(&shown) + "\n" } else { printable_lines(&shown) };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(Code::Failure, error)),
        _ => Ok(()),
    }
}

fn look(settings: &Status, around: &Surroundings) -> Result<Shown, Early> {
    let Surroundings { login, report, stop, stats, runtime } = around.clone();
    let server = Server::new(login, report, stop, runtime, stats);
    let mut stream = Stream::new(server, &settings.stream, "", TIMEOUT);
    let Some(info) = stream.find()? else {
        return Err(
            Failure::new(Code::NotFound, format_args!("there is no stream {}", settings.stream)).into()
        );
    };
    let version = stream.server.connection()?.client.server_info().version;
    let doubts = Doubts::of(&info, &version, stream.server.login().monitor.as_deref());
    let last_sequence = info.state.last_sequence;
    let mut shown = Shown {
        schema: SCHEMA,
        stream: settings.stream.clone(),
        server_version: version,
        replicas: info.config.num_replicas,
        frames: info.state.messages,
        stream_bytes: info.state.bytes,
        last_sequence,
        doubts: doubts.sync.into_iter().chain(doubts.others).collect(),
        ..Shown::default()
    };
    if let Some(bytes) = stream.message(last_sequence)? {
        let frame = Frame::parse(bytes).map_err(|error| {
            Failure::new(Code::Unfit, format_args!("message {last_sequence} of the stream: {error}"))
        })?;
        shown.source_pipe = Some(frame.header.pipe.to_string());
        shown.source_position_bytes = Some(frame.header.end.position);
        shown.publisher_epoch = Some(frame.header.epoch);
        shown.age_seconds = Some(crate::publish::now().saturating_sub(frame.header.time) as f64 / 1e9);
        if let Body::End { how, .. } = frame.body {
            (shown.end, shown.abort_code) = match how {
                How::Closed => (Some("closed"), None),
                How::Aborted { code } => (Some("aborted"), Some(code)),
                How::Died => (Some("died"), None),
            };
        }
    }
    if let Some(pipe) = &settings.pipe {
        let address = Address::try_from(pipe.as_str()).map_err(SetupError::from)?;
        let snapshot = shmpipe::inspect(&address)?;
        if shown.source_pipe == Some(snapshot.segment_id.to_string()) {
            shown.unpublished_bytes = Some(snapshot.used);
        } else if let Some(note) = Notes::peek(&folder(settings.state.as_deref()), &address) {
            shown.frames_behind = Some((last_sequence + 1).saturating_sub(note.sequence));
        }
    }
    Ok(shown)
}

fn printable_lines(shown: &Shown) -> String {
    let number = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
    let end = match (shown.end, shown.abort_code) {
        (Some(end), Some(code)) => format!("{end} with code {code}"),
        (end, _) => end.unwrap_or("-").to_owned(),
    };
    let mut lines = vec![
        ("stream", shown.stream.clone()),
        ("server", format!("{}, replicas {}", shown.server_version, shown.replicas)),
        (
            "frames",
            format!(
                "{} in {} bytes, the last one number {}",
                shown.frames, shown.stream_bytes, shown.last_sequence
            ),
        ),
        ("source", format!("pipe {}", shown.source_pipe.as_deref().unwrap_or("-"))),
        ("position", number(shown.source_position_bytes)),
        ("publisher", format!("epoch {}", number(shown.publisher_epoch))),
        ("age", shown.age_seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.1} s"))),
        ("end", end),
    ];
    if let Some(bytes) = shown.unpublished_bytes {
        lines.push(("this pipe", format!("{bytes} bytes to publish")));
    }
    if let Some(frames) = shown.frames_behind {
        lines.push(("this pipe", format!("{frames} frames behind, at most")));
    }
    lines.extend(shown.doubts.iter().map(|doubt| ("doubt", doubt.clone())));
    lines.iter().map(|(name, value)| format!("{name:<10} {}\n", printable(value))).collect()
}
