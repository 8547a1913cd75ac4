//! A subscriber of a stream that a test makes, killed at each step, or unable to write its notes.

use super::*;
use crate::frame::Filling;
use shmpipe::{Options, RecvError};
use shmpipe_testing::process::{Line, Process};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU32, Ordering};

/// The messages of a stream, the first of which has this sequence. At their end the subscriber is stopped.
struct FakeSource {
    frames: Vec<Bytes>,
    first: u64,
    next: u64,
}

impl Source for FakeSource {
    fn next(&mut self, _: Duration) -> Result<Option<Delivered>, Early> {
        failpoint::reach();
        let sequence = self.next.max(self.first);
        let last = self.first + self.frames.len() as u64 - 1;
        if sequence > last {
            return Err(Early::Stopped);
        }
        self.next = sequence + 1;
        let bytes = self.frames[(sequence - self.first) as usize].clone();
        Ok(Some(Delivered { sequence, pending: last - sequence, bytes }))
    }
}

const SOURCE: PipeId = PipeId(7);

/// Makes the frames of a publisher.
#[derive(Default)]
struct Frames {
    frames: Vec<Bytes>,
    at: Place,
    ended: u64,
}

impl Frames {
    fn header(&self) -> Header {
        Header { pipe: SOURCE, start: self.at, end: self.at, ended: self.ended, ..Header::default() }
    }

    fn begin(&mut self) {
        let begin = Begin { capacity: 1 << 20, schema: 0, after: (SOURCE, self.at), skipped: false };
        self.frames.push(begin.seal(&self.header()));
    }

    /// Appends messages. The first one continues one of which there is a part; the last one is continued if it is to be `cut`.
    fn messages(&mut self, messages: &[(u32, &[u8])], cut: bool) {
        let mut header = self.header();
        let mut filling = Filling::new(1 << 20);
        for (number, (tag, bytes)) in messages.iter().enumerate() {
            filling.push(*tag, bytes.len(), |to| to.extend_from_slice(bytes));
            self.at = match cut && number + 1 == messages.len() {
                false => Place::at(self.at.position + self.at.offset + 8 + bytes.len() as u64),
                true => Place { offset: self.at.offset + bytes.len() as u64, ..self.at },
            };
        }
        header.end = self.at;
        self.frames.push(filling.seal(&header));
    }

    fn end(&mut self, how: How, claim: u64) {
        self.ended = claim;
        self.frames.push(how.seal(claim, &self.header()));
    }
}

/// A pipe to fill and a folder for its notes, both removed in the end.
struct Sink {
    address: String,
    folder: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Sink {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Relaxed: it only has to differ each time.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let address = format!("posix:/nats-unit-{}-{number}", std::process::id());
        Options::new().capacity(256 << 10).create(&*address).unwrap();
        Sink { address, folder: tempfile::tempdir().unwrap(), _alone: failpoint::alone() }
    }

    fn pipe(&self) -> Pipe {
        Options::new().keep_unread_on_panic(true).open(&*self.address).unwrap()
    }

    fn subscriber(&self, frames: &[Bytes], first: u64, skip_to: Option<u64>) -> Subscriber<FakeSource> {
        subscriber(self.pipe(), self.folder.path(), frames, first, skip_to)
    }

    /// Receives until the stream's last message, and then stops.
    fn fill(&self, frames: &[Bytes]) -> Result<(), Early> {
        self.fill_from(frames, 1, None)
    }

    /// The same, from a stream whose first message has this sequence.
    fn fill_from(&self, frames: &[Bytes], first: u64, skip_to: Option<u64>) -> Result<(), Early> {
        let mut subscriber = self.subscriber(frames, first, skip_to);
        let outcome = subscriber.run();
        subscriber.abort(STOPPED).unwrap();
        match outcome {
            Ok(()) | Err(Early::Stopped) => Ok(()),
            failed => failed,
        }
    }

    /// The same of [`steps`] in another process, which is killed at this step. Returns whether it was.
    fn fill_and_kill(&self, step: u32) -> bool {
        let folder = self.folder.path().to_str().unwrap();
        let status = Process::start("filling", &[&self.address, folder, &step.to_string()]).wait();
        let is_killed = status.signal() == Some(libc::SIGKILL);
        assert!(is_killed || status.success(), "step {step}: {status}");
        is_killed
    }

    fn producer(&self) -> shmpipe::Side {
        shmpipe::inspect(&*self.address).unwrap().producer
    }

    /// What the pipe has, with tags, and how it ended.
    fn received(&self) -> (Vec<(u32, Vec<u8>)>, RecvError) {
        let mut consumer = self.pipe().consumer().unwrap();
        let mut messages = Vec::new();
        loop {
            match consumer.recv().map(|message| (message.tag(), message.to_vec())) {
                Ok(message) => messages.push(message),
                Err(end) => return (messages, end),
            }
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = shmpipe::unlink_force(&*self.address);
    }
}

fn subscriber(
    pipe: Pipe,
    folder: &Path,
    frames: &[Bytes],
    first: u64,
    skip_to: Option<u64>,
) -> Subscriber<FakeSource> {
    let notes = Notes::open(folder, pipe.address()).unwrap();
    let (note, at) = match notes.last() {
        Some(note) => (note, Some(note.position)),
        None => (Note { segment: pipe.id().get(), sequence: first, ..Note::default() }, None),
    };
    let source = FakeSource { frames: frames.to_vec(), first, next: note.sequence };
    let settings = Settings { follow: true, skip_to };
    let (stop, report) = (Stop::new(Duration::ZERO), Report::new(false));
    Subscriber::new(source, pipe, notes, note, at, settings, stop, Stats::default(), report)
}

#[track_caller]
fn failure(outcome: Result<(), Early>) -> Failure {
    match outcome {
        Err(Early::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

/// The process that [`Sink::fill_and_kill`] starts: fills a pipe, with its notes in a folder, until it is killed at a step.
pub fn fill(line: Line) {
    let [address, folder, step] = &line.words[..] else { panic!("{:?}", line.words) };
    let pipe = Options::new().keep_unread_on_panic(true).open(address.as_str()).unwrap();
    let mut subscriber = subscriber(pipe, Path::new(folder), &steps().0, 1, None);
    failpoint::kill_at(step.parse().unwrap());
    let outcome = subscriber.run();
    subscriber.abort(STOPPED).unwrap();
    assert!(matches!(outcome, Err(Early::Stopped)), "{outcome:?}");
}

type Messages = Vec<(u32, Vec<u8>)>;

/// A stream with all that there is, and the messages that arrive.
fn steps() -> (Vec<Bytes>, Messages) {
    let mut frames = Frames::default();
    let short: Vec<[u8; 4]> = (0..300u32).map(u32::to_le_bytes).collect();
    let short: Vec<(u32, &[u8])> = short.iter().zip(0..).map(|(bytes, tag)| (tag, &bytes[..])).collect();
    frames.begin();
    // More than become visible at once.
    frames.messages(&short, false);
    frames.end(How::Aborted { code: 3 }, 1);
    frames.messages(&[(1000, b"whole"), (1001, b"in three ")], true);
    frames.begin();
    frames.messages(&[(1001, b"parts, ")], true);
    frames.messages(&[(1001, b"joined"), (1002, b"")], false);
    frames.end(How::Aborted { code: 5 }, 2);
    let mut expected: Messages = short.iter().map(|(tag, bytes)| (*tag, bytes.to_vec())).collect();
    expected.extend([(1000, b"whole".to_vec()), (1001, b"in three parts, joined".to_vec()), (1002, vec![])]);
    (frames.frames, expected)
}

#[test]
fn kill_at_any_step_delivers_each_message_once_and_the_end() {
    let (frames, expected) = steps();
    let mut steps = 0;
    loop {
        let sink = Sink::new();
        if !sink.fill_and_kill(steps) {
            break;
        }
        // The next one is killed too, somewhere.
        sink.fill_and_kill(steps * 7 % 11);
        let before = sink.producer();
        sink.fill(&frames).unwrap();
        // An end that is there is not repeated.
        if before.peer == (Peer::Aborted { code: 5 }) {
            assert_eq!(sink.producer().epoch, before.epoch, "step {steps}");
        }
        let (messages, end) = sink.received();
        assert!(messages == expected, "step {steps}: {} messages", messages.len());
        assert_eq!(end, RecvError::PeerAborted { code: 5 }, "step {steps}");
        steps += 1;
    }
    // Two around each note, one at each commit and at each end, one before each message of the stream.
    assert!(steps > 25, "{steps}");
}

#[test]
fn an_end_that_cannot_be_noted_is_no_close() {
    let mut frames = Frames::default();
    frames.begin();
    frames.messages(&[(1, b"hello")], false);
    frames.end(How::Closed, 1);
    let sink = Sink::new();
    let mut subscriber = sink.subscriber(&frames.frames, 1, None);
    // The note of the messages is written.
    failpoint::fail_write(1);
    let failed = failure(subscriber.run());
    assert_eq!(failed.code, Code::Failure);
    subscriber.abort(failed.code as u32).unwrap();
    let (messages, end) = sink.received();
    assert_eq!((messages.len(), end), (1, RecvError::PeerAborted { code: Code::Failure as u32 }));
    // The next one says it.
    sink.fill(&frames.frames).unwrap();
    assert_eq!(sink.received(), (vec![], RecvError::Closed));
}

#[test]
fn an_end_that_was_removed_from_the_stream_is_an_error_with_its_position() {
    let mut frames = Frames::default();
    frames.begin();
    frames.messages(&[(1, b"before")], false);
    frames.end(How::Aborted { code: 3 }, 1);
    frames.begin();
    frames.messages(&[(2, b"after")], false);
    let sink = Sink::new();
    sink.fill(&frames.frames[..2]).unwrap();
    // The chain has no hole: an end has no length.
    let rest = &frames.frames[3..];
    for skip_to in [None, Some(13)] {
        let failed = failure(sink.fill_from(rest, 4, skip_to));
        assert_eq!(failed.code, Code::Missing);
        assert!(failed.message.contains("claim 1 ended before position 14"), "{}", failed.message);
    }
    sink.fill_from(rest, 4, Some(14)).unwrap();
    let (messages, _) = sink.received();
    assert_eq!(messages, [(1, b"before".to_vec()), (2, b"after".to_vec())]);
}

#[test]
fn a_stream_may_lose_what_an_idle_subscriber_has() {
    let mut frames = Frames::default();
    frames.begin();
    frames.messages(&[(1, b"before")], false);
    frames.begin();
    frames.messages(&[(2, b"after")], false);
    let sink = Sink::new();
    sink.fill(&frames.frames[..2]).unwrap();
    sink.fill_from(&frames.frames[2..], 3, None).unwrap();
    assert_eq!(sink.received().0, [(1, b"before".to_vec()), (2, b"after".to_vec())]);
}

#[test]
fn messages_that_were_removed_before_the_first_one_came_are_missing() {
    let mut frames = Frames::default();
    frames.begin();
    frames.messages(&[(1, b"removed")], false);
    frames.messages(&[(2, b"left")], false);
    let sink = Sink::new();
    let fill = |skip_to| {
        let mut subscriber = sink.subscriber(&frames.frames[2..], 3, skip_to);
        subscriber.note.sequence = 1;
        let outcome = subscriber.run();
        subscriber.abort(STOPPED).unwrap();
        outcome
    };
    let failed = failure(fill(None));
    assert_eq!(failed.code, Code::Missing);
    assert!(failed.message.contains("messages 1 to 2 of the stream"), "{}", failed.message);
    assert!(matches!(fill(Some(15)), Err(Early::Stopped)));
    assert_eq!(sink.received().0, [(2, b"left".to_vec())]);
}
