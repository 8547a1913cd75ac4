//! A publisher against a log that loses requests and acknowledgements, delivers frames late, and lets publishers be killed.

use super::*;
use crate::frame::{Body, Frame};
use shmpipe::{Options, Pipe, Tagged};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What happens to an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Acknowledged,
    /// It is appended, and the acknowledgement is lost.
    Unanswered,
    /// It is lost.
    Lost,
    /// It arrives later.
    Late,
    /// The publisher is killed before, or after it is appended.
    KilledBefore,
    KilledAfter,
}

/// A log as the server keeps it.
#[derive(Default)]
struct Stored {
    frames: Vec<Bytes>,
    /// Frames on their way, with the sequence that each expects.
    late: Vec<(Bytes, u64)>,
}

impl Stored {
    fn append(&mut self, frame: Bytes, after: u64) -> Appended {
        if self.frames.len() as u64 != after {
            return Appended::WrongSequence;
        }
        self.frames.push(frame);
        Appended::At(after + 1)
    }

    /// Frames that come late arrive.
    fn arrive(&mut self) {
        for (frame, after) in std::mem::take(&mut self.late) {
            self.append(frame, after);
        }
    }
}

/// The log of one publisher.
struct FakeLog {
    stored: Rc<RefCell<Stored>>,
    fate: Box<dyn FnMut() -> Fate>,
}

impl Log for FakeLog {
    fn tail(&mut self) -> Result<Tail, Early> {
        let stored = self.stored.borrow();
        let frame = stored.frames.last().map(|bytes| Frame::parse(bytes.clone()).unwrap().header);
        Ok(Tail { sequence: stored.frames.len() as u64, frame })
    }

    fn append(&mut self, frame: &Bytes, after: u64) -> Result<Appended, Early> {
        let fate = (self.fate)();
        let stored = &mut self.stored.borrow_mut();
        // Half of the late ones are overtaken.
        if fate == Fate::Acknowledged || fate == Fate::KilledAfter {
            stored.arrive();
        }
        match fate {
            Fate::Acknowledged => return Ok(stored.append(frame.clone(), after)),
            Fate::Unanswered => drop(stored.append(frame.clone(), after)),
            Fate::Lost => {}
            Fate::Late => stored.late.push((frame.clone(), after)),
            Fate::KilledBefore => return Err(Early::Stopped),
            Fate::KilledAfter => {
                stored.append(frame.clone(), after);
                return Err(Early::Stopped);
            }
        }
        Ok(Appended::Unknown)
    }
}

fn settings() -> Settings {
    Settings { frame: 2048, linger: Duration::ZERO, follow: false, skip_to: None, after: None }
}

fn begin(
    pipe: &Pipe,
    stored: &Rc<RefCell<Stored>>,
    settings: Settings,
    fate: impl FnMut() -> Fate + 'static,
) -> Result<Publisher<FakeLog>, Early> {
    let log = FakeLog { stored: stored.clone(), fate: Box::new(fate) };
    let consumer = pipe.consumer().unwrap();
    let (stop, report) = (Stop::new(Duration::ZERO), Report::new(false));
    let mut publisher = Publisher::new(log, consumer, settings, stop, Stats::default(), report);
    publisher.take_over()?;
    Ok(publisher)
}

fn always() -> impl FnMut() -> Fate {
    || Fate::Acknowledged
}

fn pipe() -> Pipe {
    Options::new().capacity(16 << 10).keep_unread_on_panic(true).create("memfd").unwrap()
}

/// The messages of a log, with their tags; checks that its frames are a chain.
fn received(stored: &Rc<RefCell<Stored>>) -> Vec<(u32, Vec<u8>)> {
    let mut messages = Vec::new();
    let mut at = None;
    let mut joins = false;
    for bytes in &stored.borrow().frames {
        let Frame { header, body } = Frame::parse(bytes.clone()).unwrap();
        assert!(at.is_none_or(|at| at == header.start), "{at:?}, {header:?}");
        at = Some(header.end);
        let Body::Messages(parts) = body else { continue };
        for part in parts.iter() {
            match messages.last_mut() {
                Some((_, bytes)) if std::mem::take(&mut joins) => {
                    <Vec<u8> as Extend<&u8>>::extend(bytes, part.bytes);
                }
                _ => messages.push((part.tag, part.bytes.to_vec())),
            }
        }
        joins = header.end.offset > 0;
    }
    messages
}

fn failure(early: Early) -> Failure {
    match early {
        Early::Failed(failure) => failure,
        Early::Stopped => panic!("stopped"),
    }
}

/// Numbers that look random.
fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

#[test]
fn whatever_is_lost_late_or_killed_each_message_is_there_once() {
    for seed in 0..100 {
        let pipe = pipe();
        let mut producer = pipe.producer().unwrap();
        let stored = Rc::default();
        let mut random = numbers(seed);
        let mut sent = Vec::new();
        for _ in 0..6 {
            for _ in 0..random(8) {
                let length = match random(5) {
                    0 => random(3),
                    // Up to three frames.
                    1 => random(6000),
                    _ => random(600),
                };
                let message = (random(1 << 30) as u32, vec![random(256) as u8; length as usize]);
                if producer.try_send(Tagged(message.0, &message.1)).is_ok() {
                    sent.push(message);
                }
            }
            let mut fates = numbers(seed * 1000 + sent.len() as u64);
            let fate = move || match fates(12) {
                0 => Fate::Unanswered,
                1 => Fate::Lost,
                2 => Fate::Late,
                3 => Fate::KilledBefore,
                4 => Fate::KilledAfter,
                _ => Fate::Acknowledged,
            };
            if let Ok(mut publisher) = begin(&pipe, &stored, settings(), fate) {
                while let Ok(false) = publisher.is_empty() {
                    if publisher.publish_messages().is_err() {
                        break;
                    }
                }
            }
        }
        producer.close().unwrap();
        begin(&pipe, &stored, settings(), always()).unwrap().run().unwrap();
        assert_eq!(received(&stored), sent, "seed {seed}");
    }
}

#[test]
fn an_end_is_published_once_also_if_the_publisher_is_killed_around_it() {
    for fate in [Fate::KilledBefore, Fate::KilledAfter, Fate::Unanswered, Fate::Lost] {
        let pipe = pipe();
        let stored = Rc::default();
        let mut producer = pipe.producer().unwrap();
        producer.send(b"the last one").unwrap();
        producer.abort(5).unwrap();
        let appends = AtomicU64::new(0);
        // The begin and the message are acknowledged.
        let fate =
            move || if appends.fetch_add(1, Ordering::Relaxed) == 2 { fate } else { Fate::Acknowledged };
        let _ = begin(&pipe, &stored, settings(), fate).unwrap().run();
        let outcome = begin(&pipe, &stored, settings(), always()).unwrap().run();
        assert_eq!(failure(outcome.unwrap_err()).code, Code::PeerGone);
        let frames: Vec<Frame> =
            stored.borrow().frames.iter().map(|bytes| Frame::parse(bytes.clone()).unwrap()).collect();
        let ends = frames.iter().filter_map(|frame| match frame.body {
            Body::End { how, claim } => Some((how, claim)),
            _ => None,
        });
        let ends = ends.collect::<Vec<_>>();
        assert_eq!(ends, [(How::Aborted { code: 5 }, 1)]);
    }
}

#[test]
fn a_log_that_lost_what_it_acknowledged_is_an_error_with_positions() {
    let pipe = pipe();
    let stored = Rc::<RefCell<Stored>>::default();
    let mut producer = pipe.producer().unwrap();
    producer.send(&[0; 100]).unwrap();
    let mut publisher = begin(&pipe, &stored, settings(), always()).unwrap();
    publisher.publish_messages().unwrap();
    stored.borrow_mut().frames.pop();
    // While it runs,
    producer.send(&[0; 100]).unwrap();
    let failure_now = failure(publisher.publish_messages().unwrap_err());
    assert_eq!(failure_now.code, Code::Missing);
    assert!(failure_now.message.contains("position 112"), "{}", failure_now.message);
    drop(publisher);
    // at its next start,
    let error = failure(begin(&pipe, &stored, settings(), always()).err().unwrap());
    assert_eq!(error.code, Code::Missing);
    assert!(
        error.message.contains("position 112") && error.message.contains("ends at position 0"),
        "{}",
        error.message
    );
    // and with a log that has nothing at all.
    let nothing = Rc::default();
    let error = failure(begin(&pipe, &nothing, settings(), always()).err().unwrap());
    assert_eq!(error.code, Code::Missing);
    // Allowed for this position and no other one, and said in the log.
    let error = begin(&pipe, &stored, Settings { skip_to: Some(111), ..settings() }, always()).err().unwrap();
    assert_eq!(failure(error).code, Code::Missing);
    let skip = Settings { skip_to: Some(112), ..settings() };
    begin(&pipe, &stored, skip, always()).unwrap().publish_messages().unwrap();
    let begun = Frame::parse(stored.borrow().frames[1].clone()).unwrap();
    let Body::Begin(Begin { skipped, after, .. }) = begun.body else { panic!("{begun:?}") };
    assert!(skipped);
    assert_eq!((after.1, begun.header.start), (Place::at(0), Place::at(112)));
}

#[test]
fn a_publisher_whose_stream_was_taken_over_is_fenced() {
    let (ours, theirs) = (pipe(), pipe());
    let stored = Rc::default();
    ours.producer().unwrap().send(b"ours").unwrap();
    let mut publisher = begin(&ours, &stored, settings(), always()).unwrap();
    // Another pipe gets the stream only if that is said.
    let error = failure(begin(&theirs, &stored, settings(), always()).err().unwrap());
    assert_eq!(error.code, Code::Unfit);
    let after = Settings { after: Some(After::Pipe(ours.id().get())), ..settings() };
    begin(&theirs, &stored, after, always()).unwrap();
    let error = failure(publisher.publish_messages().unwrap_err());
    assert_eq!(error.code, Code::Taken);
    assert!(error.message.contains("fenced"), "{}", error.message);
    // Its message is still in the pipe.
    drop(publisher);
    assert_eq!(ours.consumer().unwrap().recv().unwrap().to_vec(), b"ours");
    assert_eq!(received(&stored), []);
}

#[test]
fn a_successor_of_a_producer_goes_on_in_the_same_stream() {
    let pipe = pipe();
    let stored = Rc::default();
    for number in 0..3u32 {
        let mut producer = pipe.producer().unwrap();
        producer.send(Tagged(number, b"hello")).unwrap();
        producer.close().unwrap();
        begin(&pipe, &stored, settings(), always()).unwrap().run().unwrap();
    }
    let tags: Vec<u32> = received(&stored).iter().map(|(tag, _)| *tag).collect();
    assert_eq!(tags, [0, 1, 2]);
}
