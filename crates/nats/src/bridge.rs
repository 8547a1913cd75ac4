//! A bridge from start to end: what it needs is opened, checked or created, and then it runs in a thread of its own.

use std::time::Duration;

use async_nats::jetstream::stream::Info;
use shmpipe::{Address, Options, Pipe, SetupError};
use tokio::runtime::Handle;

use crate::args::{Publish, Subscribe};
use crate::durability::Doubts;
use crate::exit::{Code, Early, Failure};
use crate::frame::{Body, Frame, HEADER, PART};
use crate::jetstream::{Feed, Parameters, Stream, unfit};
use crate::note::{Note, Notes, folder};
use crate::publish::{self, Publisher};
use crate::report::Report;
use crate::server::{Login, Server};
use crate::stats::Stats;
use crate::stop::Stop;
use crate::subscribe::{self, STOPPED, Subscriber};
use crate::values::From;

const LINGER: Duration = Duration::from_millis(1);
const FRAME: u64 = 256 << 10;
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
const SETTLE: Duration = Duration::from_secs(5);

/// The smallest frame worth its header.
const SMALLEST_FRAME: u64 = 1 << 10;

/// The largest ring that a subscriber creates because a stream says so.
const LARGEST: u64 = 1 << 30;

/// What every bridge has.
#[derive(Clone)]
pub struct Surroundings {
    pub login: Login,
    pub report: Report,
    pub stop: Stop,
    pub stats: Stats,
    pub runtime: Handle,
}

impl Surroundings {
    fn stream(&self, name: &str, subject: &str, ack_timeout: Duration) -> Stream {
        let Surroundings { login, report, stop, stats, runtime } = self.clone();
        Stream::new(Server::new(login, report, stop, runtime, stats), name, subject, ack_timeout)
    }
}

/// How to open a pipe, whatever its schema, or to create one.
fn open_or_create(address: &Address, new: impl FnOnce() -> Result<Options, Early>) -> Result<Pipe, Early> {
    match shmpipe::inspect(address) {
        Ok(snapshot) => {
            // What a panic drops must come again.
            let options = Options::new().schema(snapshot.schema).keep_unread_on_panic(true);
            Ok(options.open(address)?)
        }
        Err(SetupError::NotFound { .. }) => Ok(new()?.keep_unread_on_panic(true).open_or_create(address)?),
        Err(error) => Err(error.into()),
    }
}

fn address(text: &str) -> Result<Address, Failure> {
    Address::try_from(text).map_err(|error| Failure::new(Code::Usage, error))
}

/// Runs a publisher to its end. A stop is an end in order.
pub fn publish(settings: &Publish, around: &Surroundings) -> Result<(), Failure> {
    in_order(try_publish(settings, around))
}

/// Runs a subscriber to its end.
pub fn subscribe(settings: &Subscribe, around: &Surroundings) -> Result<(), Failure> {
    in_order(try_subscribe(settings, around))
}

fn in_order(outcome: Result<(), Early>) -> Result<(), Failure> {
    match outcome {
        Ok(()) | Err(Early::Stopped) => Ok(()),
        Err(Early::Failed(failure)) => Err(failure),
    }
}

fn try_publish(settings: &Publish, around: &Surroundings) -> Result<(), Early> {
    let address = address(&settings.pipe)?;
    let new = || {
        let options = Options::new();
        Ok(settings.capacity.map_or(options.clone(), |size| options.capacity(size.0)))
    };
    let pipe = open_or_create(&address, new)?;
    let subject = settings.subject.clone().unwrap_or_else(|| format!("shmpipe.{}", settings.stream));
    let ack_timeout = settings.ack_timeout.map_or(ACK_TIMEOUT, |time| time.0);
    let mut stream = around.stream(&settings.stream, &subject, ack_timeout);
    let parameters = Parameters {
        replicas: settings.replicas,
        max_bytes: settings.max_bytes.map(|size| size.0),
        max_age: settings.max_age.map(|time| time.0),
        memory: settings.memory,
        allow_discard: settings.allow_discard,
    };
    let info = match stream.find()? {
        Some(info) => info,
        None => stream.create(&parameters)?,
    };
    check(&mut stream, &info, &subject, &parameters, settings.require_sync)?;
    let longest = stream.longest(&info)? as u64;
    // The rest of the ring takes messages while a frame is on its way.
    let quarter = (pipe.capacity() / 4).max(SMALLEST_FRAME);
    let frame = settings.frame_size.map_or(FRAME, |size| size.0).min(quarter).min(longest);
    if frame < HEADER as u64 + PART as u64 + 1
        || settings.frame_size.is_some_and(|size| size.0 < SMALLEST_FRAME)
    {
        let text = format!(
            "frames of {frame} bytes are too small: {SMALLEST_FRAME} at least, and the server takes {longest} at most"
        );
        return Err(Failure::new(Code::Usage, text).into());
    }
    let settings = publish::Settings {
        frame: frame as usize,
        linger: settings.linger.map_or(LINGER, |time| time.0),
        follow: settings.follow,
        skip_to: settings.skip_to,
        after: settings.after,
        settle: SETTLE,
    };
    let Surroundings { report, stop, stats, .. } = around.clone();
    let consumer = pipe.consumer()?;
    let mut publisher = Publisher::new(stream, consumer, settings, stop, stats, report);
    match publisher.run() {
        Err(Early::Failed(failure)) => {
            // What failed first counts.
            let _ = publisher.abort(&failure);
            Err(failure.into())
        }
        Ok(()) | Err(Early::Stopped) => Ok(publisher.close()?),
    }
}

/// Refuses a stream that may lose messages, and says what speaks against the others.
fn check(
    stream: &mut Stream,
    info: &Info,
    subject: &str,
    parameters: &Parameters,
    require_sync: bool,
) -> Result<(), Early> {
    let name = stream.name.clone();
    let faults = unfit(&info.config, subject, parameters);
    if !faults.is_empty() {
        let text = format!("the stream {name} cannot carry a pipe: {}", faults.join("; "));
        return Err(Failure::new(Code::Unfit, text).into());
    }
    let version = stream.server.connection()?.client.server_info().version;
    let doubts = Doubts::of(info, &version, stream.server.login().monitor.as_deref());
    if require_sync && !doubts.sync.is_empty() {
        let text = format!("--require-sync: {}", doubts.sync.join("; "));
        return Err(Failure::new(Code::Unfit, text).into());
    }
    for doubt in doubts.sync.iter().chain(&doubts.others) {
        stream.server.report.note(doubt);
    }
    Ok(())
}

fn try_subscribe(settings: &Subscribe, around: &Surroundings) -> Result<(), Early> {
    let address = address(&settings.pipe)?;
    let mut notes = Notes::open(&folder(settings.state.as_deref()), &address)?;
    let mut stream = around.stream(&settings.stream, "", ACK_TIMEOUT);
    let info = find(&mut stream, settings, around)?;
    let pipe = open_or_create(&address, || new_pipe(&mut stream, settings, around))?;
    let mut start = start(&mut notes, &pipe, &info, settings)?;
    find_again(&mut stream, &mut start.note)?;
    let Surroundings { report, stop, stats, .. } = around.clone();
    let feed = Feed::new(stream, start.note.sequence);
    let follow = subscribe::Settings { follow: settings.follow, skip_to: settings.skip_to };
    let mut subscriber =
        Subscriber::new(feed, pipe, notes, start.note, start.at, follow, stop, stats, report);
    let outcome = subscriber.run();
    let code = match &outcome {
        Ok(()) => return Ok(()),
        Err(Early::Stopped) => STOPPED,
        Err(Early::Failed(failure)) => failure.code as u32,
    };
    let aborted = subscriber.abort(code);
    outcome?;
    Ok(aborted?)
}

/// The stream, which may not exist yet.
fn find(stream: &mut Stream, settings: &Subscribe, around: &Surroundings) -> Result<Info, Early> {
    let mut said = false;
    loop {
        if let Some(info) = stream.find()? {
            return Ok(info);
        }
        let missing = format!("there is no stream {}", settings.stream);
        if !settings.follow {
            return Err(Failure::new(Code::NotFound, missing).into());
        }
        if !std::mem::replace(&mut said, true) {
            around.report.note(format_args!("{missing} yet; waiting for it"));
        }
        pause(around)?;
    }
}

fn pause(around: &Surroundings) -> Result<(), Early> {
    around.stop.sleep(&around.runtime, Duration::from_millis(500));
    if around.stop.is_asked() { Err(Early::Stopped) } else { Ok(()) }
}

/// How to create a pipe: as the publisher's, which the first frame describes.
fn new_pipe(stream: &mut Stream, settings: &Subscribe, around: &Surroundings) -> Result<Options, Early> {
    loop {
        let state = stream.info()?.state;
        if state.last_sequence > 0 {
            let first = stream.message(state.first_sequence)?;
            let frame = first.map(Frame::parse).and_then(Result::ok);
            let (capacity, schema) = match frame {
                Some(Frame { body: Body::Begin(begin), .. }) => (Some(begin.capacity), begin.schema),
                _ => (None, 0),
            };
            let options = Options::new().schema(schema);
            let capacity = match settings.capacity {
                Some(size) => Some(size.0),
                None => capacity.map(bounded).transpose()?,
            };
            return Ok(capacity.map_or(options.clone(), |bytes| options.capacity(bytes)));
        }
        pause(around)?;
    }
}

/// The bytes of a ring that a frame asks for. Each process that may publish can choose them.
fn bounded(capacity: u64) -> Result<u64, Failure> {
    if capacity <= LARGEST {
        return Ok(capacity);
    }
    let text = format!(
        "the publisher's pipe has a ring of {capacity} bytes; --capacity says how many this one gets, {LARGEST} at most without it"
    );
    Err(Failure::new(Code::Unfit, text))
}

/// Where a subscriber starts.
struct Start {
    note: Note,
    at: Option<u64>,
}

/// Finds where the pipe is in a stream that the server shortened, and that went on with other sequences.
fn find_again(stream: &mut Stream, note: &mut Note) -> Result<(), Early> {
    let Some(source) = note.source else { return Ok(()) };
    let is_there = stream.header(note.sequence)?.is_some_and(|next| source == (next.pipe, next.start))
        || stream.header(note.sequence - 1)?.is_some_and(|last| source == (last.pipe, last.end));
    if !is_there && let Some(sequence) = stream.sequence_of(source, note.sequence)? {
        let (was, place) = (note.sequence, source.1);
        stream.server.report.note(format_args!(
            "the stream goes on at position {place} with message {sequence}, which was to be {was}: the server has lost messages"
        ));
        note.sequence = sequence;
    }
    Ok(())
}

fn start(notes: &mut Notes, pipe: &Pipe, info: &Info, settings: &Subscribe) -> Result<Start, Early> {
    let segment = pipe.id().get();
    let created = info.created.unix_timestamp_nanos() as u64;
    let stream = u64::from(crc32fast::hash(settings.stream.as_bytes()));
    let from = settings.from;
    if let Some(note) = notes.last() {
        let is_same_stream = (note.created, note.stream) == (created, stream);
        // Without a source, it only says where the stream begins, for whichever pipe comes.
        if is_same_stream && (note.segment == segment || note.source.is_none()) {
            return Ok(Start { note: Note { segment, ..note }, at: note.source.map(|_| note.position) });
        }
        if let (None, Some((pipe, place))) = (from, note.source) {
            let reached = format!("position {place} of the pipe {pipe}, message {}", note.sequence);
            let what = match note.segment == segment {
                true => format!(
                    "this pipe has received another stream, or one of this name that was deleted, up to {reached}"
                ),
                false => format!(
                    "this pipe was recreated; the one before it had received the stream up to {reached}"
                ),
            };
            let text = format!("{what}; --from first, or --from {}, says where it begins", note.sequence);
            return Err(Failure::new(Code::Missing, text).into());
        }
    }
    let used = shmpipe::inspect(pipe.address())?.producer.position > 0;
    if used && from.is_none() {
        let text = "the pipe has carried messages, and nothing is noted about them; --from says which message of the stream comes next";
        return Err(Failure::new(Code::Missing, text).into());
    }
    let sequence = match from {
        None | Some(From::First) => info.state.first_sequence.max(1),
        Some(From::New) => info.state.last_sequence + 1,
        Some(From::Sequence(sequence)) => sequence.max(1),
    };
    let note = Note { segment, created, stream, sequence, ..Note::default() };
    // A successor begins there too, also if nothing has come by then.
    notes.write(note)?;
    Ok(Start { note, at: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_asks_for_a_huge_pipe_is_refused() {
        assert_eq!(bounded(4 << 20), Ok(4 << 20));
        assert_eq!(bounded(LARGEST), Ok(LARGEST));
        let refused = bounded(1 << 40).unwrap_err();
        assert_eq!(refused.code, Code::Unfit);
        assert!(refused.message.contains("1099511627776 bytes"), "{}", refused.message);
    }
}
