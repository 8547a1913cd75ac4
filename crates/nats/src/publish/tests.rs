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
    /// It is appended without a look at the expected sequence, behind a frame that came first.
    Unchecked,
}

/// A log as the server keeps it.
#[derive(Default)]
struct Stored {
    frames: Vec<Bytes>,
    /// How many of them were removed since, the oldest ones.
    removed: usize,
    /// How many looks at the end do not see the last one: at a leader that does not know it yet.
    unseen: u32,
    /// Frames on their way, with the sequence that each expects.
    late: Vec<(Bytes, u64)>,
}

impl Stored {
    /// The frame with this sequence, unless it was removed.
    fn frame(&self, sequence: u64) -> Option<Header> {
        let index = usize::try_from(sequence).unwrap().checked_sub(1)?;
        let bytes = self.frames.get(index).filter(|_| index >= self.removed)?;
        Some(Frame::parse(bytes.clone()).unwrap().header)
    }

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
        let mut stored = self.stored.borrow_mut();
        let mut sequence = stored.frames.len() as u64;
        if stored.unseen > 0 {
            (stored.unseen, sequence) = (stored.unseen - 1, sequence - 1);
        }
        drop(stored);
        Ok(Tail { sequence, frame: self.frame(sequence)? })
    }

    fn frame(&mut self, sequence: u64) -> Result<Option<Header>, Early> {
        Ok(self.stored.borrow().frame(sequence))
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
            Fate::Unchecked => {
                let first = stored.frames.last().unwrap_or(frame).clone();
                stored.frames.extend([first, frame.clone()]);
                return Ok(Appended::At(stored.frames.len() as u64));
            }
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
    Settings {
        frame: 2048,
        linger: Duration::ZERO,
        follow: false,
        skip_to: None,
        after: None,
        settle: Duration::ZERO,
    }
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
        let start = (header.pipe, header.start);
        let after = match body {
            Body::Begin(Begin { after, .. }) => after,
            _ => start,
        };
        assert!(at.is_none_or(|at| at == after), "{at:?}, {header:?}");
        at = Some((header.pipe, header.end));
        if after.0 != start.0 && std::mem::take(&mut joins) {
            // The rest of the message does not come.
            messages.pop();
        }
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

/// The ends of a log, with the claims that ended.
fn ends(stored: &Rc<RefCell<Stored>>) -> Vec<(How, u64)> {
    let frames = stored.borrow().frames.clone();
    let bodies = frames.into_iter().map(|bytes| Frame::parse(bytes).unwrap().body);
    let ends = bodies.filter_map(|body| match body {
        Body::End { how, claim } => Some((how, claim)),
        _ => None,
    });
    ends.collect()
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
        let ends = ends(&stored);
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
        error.message.contains("before position 112") && error.message.contains("up to position 0"),
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

fn send(pipe: &Pipe, tag: u32, bytes: &[u8]) {
    pipe.producer().unwrap().send(Tagged(tag, bytes)).unwrap();
}

fn after_any() -> Settings {
    Settings { after: Some(After::Any), ..settings() }
}

#[test]
fn a_pipe_that_gets_its_stream_back_repeats_nothing() {
    // Its last frame is a message, or the first part of one: stored, and not acknowledged before another pipe takes the stream.
    for length in [100, 6000] {
        // With frames before it, or with a begin alone.
        for earlier in 0..3u32 {
            let (ours, theirs) = (pipe(), pipe());
            let stored = Rc::default();
            for number in 0..earlier {
                send(&ours, number, b"earlier");
                begin(&ours, &stored, settings(), always()).unwrap().publish_messages().unwrap();
            }
            send(&ours, 100, &vec![1; length]);
            let appends = AtomicU64::new(0);
            let fate = move || match appends.fetch_add(1, Ordering::Relaxed) {
                0 => Fate::Acknowledged,
                _ => Fate::KilledAfter,
            };
            let mut publisher = begin(&ours, &stored, settings(), fate).unwrap();
            publisher.publish_messages().unwrap_err();
            drop(publisher);
            for number in 0..3u32 {
                send(&theirs, 200 + number, b"theirs");
                begin(&theirs, &stored, after_any(), always()).unwrap().publish_messages().unwrap();
            }
            begin(&ours, &stored, after_any(), always()).unwrap().run().unwrap();
            let tags: Vec<u32> = received(&stored).iter().map(|(tag, _)| *tag).collect();
            let before = (0..earlier).chain((length == 100).then_some(100));
            let expected = before.chain(200..203).chain((length == 6000).then_some(100));
            assert_eq!(tags, expected.collect::<Vec<_>>(), "{length} bytes, {earlier} messages before");
            assert_eq!(received(&stored).iter().find(|(tag, _)| *tag == 100).unwrap().1, vec![1; length]);
        }
    }
}

#[test]
fn a_pipe_that_gets_its_stream_back_ends_once() {
    let (ours, theirs) = (pipe(), pipe());
    let stored = Rc::default();
    ours.producer().unwrap().close().unwrap();
    begin(&ours, &stored, settings(), always()).unwrap().run().unwrap();
    begin(&theirs, &stored, after_any(), always()).unwrap();
    begin(&ours, &stored, after_any(), always()).unwrap().run().unwrap();
    assert_eq!(ends(&stored), [(How::Closed, 1)]);
}

#[test]
fn a_pipe_whose_front_the_stream_does_not_have_is_an_error_also_behind_another_pipe() {
    let (ours, theirs) = (pipe(), pipe());
    let stored = Rc::<RefCell<Stored>>::default();
    let publish = |stored: &Rc<RefCell<Stored>>, settings: Settings| {
        send(&ours, 0, &[0; 100]);
        begin(&ours, stored, settings, always())?.publish_messages()
    };
    publish(&stored, settings()).unwrap();
    // Another stream has it.
    let other = Rc::default();
    begin(&theirs, &other, settings(), always()).unwrap();
    let error = failure(publish(&other, after_any()).unwrap_err());
    assert_eq!(error.code, Code::Missing);
    assert!(error.message.contains("before position 112"), "{}", error.message);
    // The server has lost it, and the other pipe has taken the stream over.
    stored.borrow_mut().frames.pop();
    begin(&theirs, &stored, after_any(), always()).unwrap();
    let error = failure(publish(&stored, after_any()).unwrap_err());
    assert_eq!(error.code, Code::Missing);
    assert!(error.message.contains("up to position 0"), "{}", error.message);
    publish(&stored, Settings { skip_to: Some(112), ..after_any() }).unwrap();
    let begun = Frame::parse(stored.borrow().frames[2].clone()).unwrap();
    let Body::Begin(Begin { skipped: true, .. }) = begun.body else { panic!("{begun:?}") };
}

#[test]
fn a_pipe_whose_frames_may_have_been_removed_is_an_error_and_a_new_one_is_not() {
    let (ours, theirs) = (pipe(), pipe());
    let stored = Rc::<RefCell<Stored>>::default();
    begin(&ours, &stored, settings(), always()).unwrap();
    begin(&theirs, &stored, after_any(), always()).unwrap();
    stored.borrow_mut().removed = 1;
    let error = failure(begin(&ours, &stored, after_any(), always()).err().unwrap());
    assert_eq!(error.code, Code::Missing);
    assert!(error.message.contains("--skip-to 0"), "{}", error.message);
    begin(&pipe(), &stored, after_any(), always()).unwrap();
    begin(&ours, &stored, Settings { skip_to: Some(0), ..after_any() }, always()).unwrap();
}

#[test]
fn the_end_of_a_producer_is_not_taken_for_that_of_its_predecessor() {
    for round in 0..300 {
        let pipe = pipe();
        let stored = Rc::default();
        let first = pipe.producer().unwrap();
        let producers = thread::spawn({
            let pipe = pipe.clone();
            move || {
                first.close().unwrap();
                let second = pipe.producer().unwrap();
                // Not too late for a look at the first one that is not over yet.
                for _ in 0..round % 10 * 100 {
                    std::hint::spin_loop();
                }
                second.abort(7).unwrap();
            }
        });
        // It may end with the first one.
        let _ = begin(&pipe, &stored, settings(), always()).unwrap().run();
        producers.join().unwrap();
        let error = failure(begin(&pipe, &stored, settings(), always()).unwrap().run().unwrap_err());
        assert_eq!(error.message, "the producer aborted with code 7");
        assert_eq!(ends(&stored).last(), Some(&(How::Aborted { code: 7 }, 2)), "round {round}");
    }
}

#[test]
fn a_producer_that_closes_while_it_is_looked_at_has_closed() {
    let look = |mut seen: Vec<(Peer, u64)>| {
        seen.reverse();
        latest(move || Ok::<_, Failure>(seen.pop().expect("not looked at once more"))).unwrap()
    };
    let died = (Peer::Died, 1);
    assert_eq!(look(vec![died, died]), (Some(How::Died), 1));
    assert_eq!(look(vec![died, (Peer::Closed, 1), (Peer::Closed, 1)]), (Some(How::Closed), 1));
    assert_eq!(look(vec![died, (Peer::Open, 2), (Peer::Open, 2)]), (None, 2));
    // The role was free, and its next holder has stored its own state.
    assert_eq!(look(vec![died, (Peer::Died, 2), (Peer::Open, 2)]), (None, 2));
    assert_eq!(look(vec![(Peer::Aborted { code: 7 }, 3)]), (Some(How::Aborted { code: 7 }), 3));
}

#[test]
fn a_log_that_does_not_check_the_sequence_is_an_error() {
    // At the begin, and at a message.
    for checked in 0..2 {
        let pipe = pipe();
        let mut producer = pipe.producer().unwrap();
        producer.send(b"hello").unwrap();
        let appends = AtomicU64::new(0);
        let fate = move || match appends.fetch_add(1, Ordering::Relaxed) == checked {
            true => Fate::Unchecked,
            false => Fate::Acknowledged,
        };
        let published = begin(&pipe, &Rc::default(), settings(), fate)
            .and_then(|mut publisher| publisher.publish_messages());
        let error = failure(published.unwrap_err());
        assert_eq!(error.code, Code::Unfit);
        assert!(error.message.contains("expected last sequence"), "{}", error.message);
    }
}

#[test]
fn a_stream_whose_frames_were_all_removed_goes_on() {
    let pipe = pipe();
    let stored = Rc::<RefCell<Stored>>::default();
    let mut tags = Vec::new();
    let remove_all = || {
        let mut stored = stored.borrow_mut();
        stored.removed = stored.frames.len();
    };
    for number in 0..3 {
        // At a start,
        remove_all();
        let mut appends = 0;
        let fate = move || {
            appends += 1;
            // and when an append has no answer.
            if appends == 3 { Fate::Lost } else { Fate::Acknowledged }
        };
        let mut publisher = begin(&pipe, &stored, settings(), fate).unwrap();
        for tag in [2 * number, 2 * number + 1] {
            send(&pipe, tag, b"hello");
            publisher.publish_messages().unwrap();
            remove_all();
            tags.push(tag);
        }
    }
    assert_eq!(received(&stored).iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), tags);
}

#[test]
fn a_leader_that_does_not_know_the_end_yet_has_lost_nothing() {
    let pipe = pipe();
    let stored = Rc::<RefCell<Stored>>::default();
    // Far longer than it takes.
    let patient = Settings { settle: Duration::from_secs(60), ..settings() };
    let mut appends = 0;
    let fate = move || {
        appends += 1;
        if appends == 3 { Fate::Lost } else { Fate::Acknowledged }
    };
    let mut publisher = begin(&pipe, &stored, patient.clone(), fate).unwrap();
    for tag in 0..2 {
        send(&pipe, tag, b"hello");
        stored.borrow_mut().unseen = 2;
        publisher.publish_messages().unwrap();
    }
    drop(publisher);
    stored.borrow_mut().unseen = 2;
    begin(&pipe, &stored, patient, always()).unwrap();
    assert_eq!(received(&stored).len(), 2);
}

#[test]
fn a_stream_that_ends_where_no_message_of_the_pipe_does_is_an_error() {
    let pipe = pipe();
    send(&pipe, 0, b"hello");
    let stored = Rc::<RefCell<Stored>>::default();
    let publisher = begin(&pipe, &stored, settings(), always()).unwrap();
    // Between messages, within one that is shorter, and within one that is not there.
    for (position, offset) in [(8, 0), (0, 5), (0, 6), (16, 1), (24, 0), (8, 1)] {
        let mut filling = Filling::new(2048);
        filling.push(0, 1, |to| to.push(0));
        let frame = filling.seal(&publisher.header(Place { position, offset }));
        stored.borrow_mut().frames.push(frame);
    }
    drop(publisher);
    while stored.borrow().frames.len() > 1 {
        let error = failure(begin(&pipe, &stored, settings(), always()).err().unwrap());
        assert_eq!(error.code, Code::Unfit, "{}", error.message);
        stored.borrow_mut().frames.pop();
    }
    // Nothing was released.
    begin(&pipe, &stored, settings(), always()).unwrap().publish_messages().unwrap();
    assert_eq!(received(&stored), [(0, b"hello".to_vec())]);
}
