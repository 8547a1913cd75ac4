//! The segments of `verification/vectors`, which were made from LAYOUT.md alone: the library finds in them what they say.

use serde::Deserialize;
use shmpipe::{CheckError, Consumer, Options, Pipe, Record, SetupError, TryRecvError};
use shmpipe_testing::backend::{Backend, Place};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    why: String,
    size: usize,
    bytes: BTreeMap<usize, String>,
    messages: Option<Vec<Message>>,
    back: Option<Vec<Message>>,
    end: Option<String>,
    tail: Option<u64>,
    #[serde(default)]
    refuse: bool,
    claim: Option<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    position: u64,
    tag: u32,
    payload: String,
}

impl From<&Record<'_>> for Message {
    fn from(record: &Record<'_>) -> Self {
        let payload = record.to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
        Message { position: record.position().get(), tag: record.tag(), payload }
    }
}

impl Vector {
    fn segment(&self) -> Vec<u8> {
        let mut segment = vec![0; self.size];
        for (&at, digits) in &self.bytes {
            let bytes =
                (0..digits.len()).step_by(2).map(|n| u8::from_str_radix(&digits[n..n + 2], 16).unwrap());
            segment.splice(at..at + digits.len() / 2, bytes);
        }
        segment
    }

    /// A file with these bytes.
    fn place(&self) -> Place {
        let place = Backend::File.place();
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path(&place)).unwrap();
        file.write_all(&self.segment()).unwrap();
        place
    }
}

fn path(place: &Place) -> &str {
    place.as_str().strip_prefix("file:").unwrap()
}

fn vectors() -> Vec<Vector> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/verification/vectors/segments.json");
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

fn receive(consumer: &mut Consumer) -> (Vec<Message>, TryRecvError) {
    let mut messages = vec![];
    loop {
        match consumer.try_recv() {
            Ok(message) => {
                messages.push(Message::from(&*message));
                message.release();
                assert!(messages.len() < 10, "more messages than any segment has: {messages:?}");
            }
            Err(end) => return (messages, end),
        }
    }
}

/// The end in the words of the vectors.
fn end_of(consumer: &mut Consumer, seen: TryRecvError) -> String {
    match (seen, consumer.check()) {
        (TryRecvError::Corrupt(_), _) => "corrupt".into(),
        (TryRecvError::PeerAborted { code }, _) => format!("aborted {code}"),
        (TryRecvError::Closed, Err(CheckError::Closed)) => "closed".into(),
        (TryRecvError::Empty, Err(CheckError::PeerDied)) => "died".into(),
        (TryRecvError::Empty, Ok(())) => "none".into(),
        other => panic!("{other:?}"),
    }
}

/// The tests below look at every segment: at what a consumer finds, or at who refuses it.
#[test]
fn every_segment_says_what_to_expect_of_it() {
    let vectors = vectors();
    let readme = include_str!("../verification/vectors/README.md");
    assert!(readme.contains(&format!("`segments.json` has {} segments", vectors.len())));
    let mut names: Vec<_> = vectors.iter().map(|vector| &vector.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), vectors.len());
    for Vector { name, why, messages, back, end, tail, refuse, claim, .. } in &vectors {
        assert!(!why.is_empty(), "{name}");
        assert_eq!(
            [end.is_some(), *refuse, claim.is_some()].iter().filter(|said| **said).count(),
            1,
            "{name}"
        );
        assert_eq!(messages.is_some(), end.is_some(), "{name}");
        assert!(end.is_some() || back.is_none(), "{name}");
        // Only after what is corrupt there is no next message.
        assert_eq!(tail.is_some(), end.as_ref().is_some_and(|end| end != "corrupt"), "{name}");
    }
}

#[test]
fn a_consumer_finds_the_messages_and_the_end() {
    for vector in vectors().iter().filter(|vector| vector.end.is_some() && vector.back.is_none()) {
        let place = vector.place();
        let mut consumer = Pipe::open(&place).unwrap().consumer().unwrap();
        let (messages, seen) = receive(&mut consumer);
        assert_eq!(Some(messages), vector.messages, "{}", vector.name);
        assert_eq!(Some(end_of(&mut consumer, seen)), vector.end, "{}", vector.name);
    }
}

#[test]
fn a_producer_goes_on_at_the_tail() {
    for vector in vectors().into_iter().filter(|vector| vector.tail.is_some() && vector.back.is_none()) {
        let place = vector.place();
        let pipe = Pipe::open(&place).unwrap();
        let position = pipe.producer().unwrap().send(b"new").unwrap();
        assert_eq!(Some(position.get()), vector.tail, "{}", vector.name);
        // What was there comes first.
        let (mut messages, _) = receive(&mut pipe.consumer().unwrap());
        let new = messages.pop().unwrap();
        assert_eq!((Some(messages), new.payload.as_str()), (vector.messages, "6e6577"), "{}", vector.name);
    }
}

#[test]
fn a_side_of_a_duplex_pipe_finds_what_was_sent_to_it() {
    for vector in vectors().iter() {
        let Some(back) = &vector.back else { continue };
        let place = vector.place();
        let pipe = Options::new().duplex(true).open(&place).unwrap();
        let mut b = pipe.duplex_as(shmpipe::DuplexSide::B).unwrap();
        let (messages, seen) = receive(b.consumer());
        assert_eq!(Some(messages), vector.messages);
        assert_eq!(Some(end_of(b.consumer(), seen)), vector.end);
        let mut a = pipe.duplex_as(shmpipe::DuplexSide::A).unwrap();
        assert_eq!(receive(a.consumer()).0, *back);
        assert_eq!(Some(a.producer().send(b"new").unwrap().get()), vector.tail);
    }
}

#[test]
fn what_must_be_refused_is_refused_and_left_as_it_is() {
    for vector in vectors().iter().filter(|vector| vector.refuse) {
        let place = vector.place();
        let error = Pipe::open(&place).and_then(|pipe| pipe.consumer()).unwrap_err();
        let refused = matches!(
            error,
            SetupError::Foreign { .. } | SetupError::Incompatible(_) | SetupError::Damaged(_)
        );
        assert!(refused, "{}: {error:?}", vector.name);
        assert!(fs::read(path(&place)).unwrap() == vector.segment(), "{}: written to", vector.name);
    }
}

#[test]
fn a_producer_refuses_a_header_of_nonsense() {
    for vector in vectors().iter().filter(|vector| vector.claim.is_some()) {
        assert_eq!(vector.claim.as_deref(), Some("corrupt"));
        let place = vector.place();
        let error = Pipe::open(&place).unwrap().producer().unwrap_err();
        assert!(matches!(error, SetupError::Damaged(_)), "{}: {error:?}", vector.name);
    }
}
