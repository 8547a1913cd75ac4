//! An end that is killed at each instruction, one after the other: it runs step by step under ptrace, and after every
//! step that changed the segment, a copy of what it would leave if it were killed there is given to its successors.

use shmpipe::{Consumer, Options, Pipe, Producer, RecvError};
use shmpipe_testing::name::{Name, Objects};
use shmpipe_testing::process::{Line, part as play};
use shmpipe_testing::raw::Attached;
use shmpipe_testing::traced::{Traced, be_asked, be_traced, mark, share_a_core};

#[test]
fn part() {
    play(&[("producer", be_producer), ("consumer", be_consumer), ("asked", be_asked)]);
}

const CAPACITY: usize = 4096;

/// Where the words begin that change, behind the identity of the segment.
const CHANGING: usize = 512;

/// What message `tag` holds.
fn content(tag: u32, length: usize) -> Vec<u8> {
    (0..length).map(|i| (tag as usize * 7 + i * 13) as u8 | 1).collect()
}

/// A second pipe of the same size, for the successors to try.
struct Trial {
    pipe: Pipe,
    memory: Attached,
    _name: Name,
}

impl Trial {
    fn new() -> Self {
        let name = Name::new();
        let pipe = Options::new().capacity(CAPACITY as u64).create(&name).unwrap();
        Trial { pipe, memory: Attached::new(name.segment().unwrap()), _name: name }
    }

    /// The tags of the messages that are there, in order, each checked and released.
    fn take_all(consumer: &mut Consumer) -> Vec<u32> {
        let mut tags = vec![];
        loop {
            match consumer.try_recv() {
                Ok(message) => {
                    assert!(
                        message.to_vec() == content(message.tag(), message.len()),
                        "torn: {}",
                        message.tag()
                    );
                    tags.push(message.tag());
                }
                Err(RecvError::Empty | RecvError::Closed) => return tags,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// What successors find in `state`: the tags of the messages.
    fn judge(&self, state: &[u8]) -> Vec<u32> {
        // The producer's successor first, then the consumer's.
        self.memory.copy_from(CHANGING, state);
        let mut producer = self.pipe.producer().unwrap();
        let mut consumer = self.pipe.consumer().unwrap();
        let found = Self::take_all(&mut consumer);
        Self::goes_on(&mut producer, &mut consumer);
        drop((producer, consumer));

        // A consumer that is there takes all before the producer's successor comes, so that the write position may lag
        // behind the read position.
        self.memory.copy_from(CHANGING, state);
        let mut consumer = self.pipe.consumer().unwrap();
        assert_eq!(Self::take_all(&mut consumer), found);
        let mut producer = self.pipe.producer().unwrap();
        assert_eq!(Self::take_all(&mut consumer), [], "taken twice");
        Self::goes_on(&mut producer, &mut consumer);
        found
    }

    /// The ring is empty, and works, once around.
    fn goes_on(producer: &mut Producer, consumer: &mut Consumer) {
        for tag in 1..=5 {
            producer.try_reserve(800).unwrap().commit_len(0);
            assert!(consumer.try_recv().unwrap().is_empty());
            let mut space = producer.try_reserve(900).unwrap();
            space.write(0, &content(tag, 900));
            space.tag(tag);
            space.commit();
            assert_eq!(Self::take_all(consumer), [tag]);
        }
    }
}

/// Runs one thing of a process to its end, and has every state of the segment on the way judged. Says how many there were,
/// and that of the findings, which are `before` first and `after` from some state on, when it had come to the end.
fn each_step(traced: &Traced, memory: &Attached, trial: &Trial, before: &[u32], after: &[u32]) -> usize {
    let mut state = vec![0; 4096 + CAPACITY - CHANGING];
    memory.copy_to(CHANGING, &mut state);
    assert_eq!(trial.judge(&state), before);
    let (mut states, mut done) = (1, before == after);
    let mut now = state.clone();

    while traced.step() {
        memory.copy_to(CHANGING, &mut now);
        if now == state {
            continue;
        }
        state.copy_from_slice(&now);
        states += 1;
        let found = trial.judge(&state);
        if found == after {
            done = true;
        } else {
            assert_eq!(found, before, "state {states}: all of it or nothing");
            assert!(!done, "state {states}: it had happened");
        }
    }
    assert!(done, "it has not happened");
    states
}

/// What the producer does: the lengths of what it sends, and how.
const SENDS: [(&str, &[usize]); 16] = [
    ("send", &[5]),
    ("send", &[0]),
    ("reserve", &[200]),
    ("shorter", &[10]),
    ("dropped", &[]),
    ("batch", &[8, 0, 50]),
    ("send", &[1700]),
    // Over the end of the ring.
    ("send", &[2040]),
    // From here on the ring is full of old bytes.
    ("batch", &[100, 1, 300]),
    ("shorter", &[3]),
    ("send", &[1000]),
    // Over the end with the first record, and later with a later one.
    ("batch", &[900, 20]),
    ("send", &[2040]),
    ("batch", &[500, 700]),
    ("shorter", &[0]),
    ("close", &[]),
];

fn be_producer(mut line: Line) {
    let pipe = Pipe::open(line.words[0].as_str()).unwrap();
    let contents: Vec<Vec<Vec<u8>>> = (0..)
        .zip(SENDS)
        .map(|(number, (_, lengths))| {
            (0..).zip(lengths).map(|(i, &length)| content(number * 16 + i, length)).collect()
        })
        .collect();
    rehearse(|pipe| {
        // Somebody has to make room.
        let mut consumer = pipe.consumer().unwrap();
        produce(&pipe, &contents, || drop(Trial::take_all(&mut consumer)));
    });
    be_traced(&mut line);
    produce(&pipe, &contents, mark);
}

/// Does all of it on another pipe, so that nothing is done for the first time when it is done step by step.
fn rehearse(all: impl FnOnce(Pipe)) {
    let pipe = Options::new().capacity(CAPACITY as u64).create("sysv:private").unwrap();
    let _objects = Objects::of(&pipe);
    all(pipe);
}

fn produce(pipe: &Pipe, contents: &[Vec<Vec<u8>>], mut mark: impl FnMut()) {
    let dirt = [0xFF; 400];
    mark();
    let mut producer = Some(pipe.producer().unwrap());
    for ((number, (way, lengths)), contents) in (0..).zip(SENDS).zip(contents) {
        let tag = |i: usize| number * 16 + i as u32;
        mark();
        let end = producer.as_mut().unwrap();
        match way {
            "send" => drop(end.send_tagged(tag(0), &contents[0]).unwrap()),
            "reserve" | "shorter" => {
                let length = lengths[0];
                let mut space = end.reserve(if way == "shorter" { 400 } else { length }).unwrap();
                if way == "shorter" {
                    space.write(0, &dirt);
                }
                space.write(0, &contents[0]);
                space.tag(tag(0));
                space.commit_len(length);
            }
            "dropped" => end.reserve(400).unwrap().write(0, &dirt),
            "batch" => {
                let mut batch = end.batch();
                for (i, content) in contents.iter().enumerate() {
                    batch.push_tagged(tag(i), content).unwrap();
                }
                batch.commit();
            }
            _ => producer.take().unwrap().close().unwrap(),
        }
    }
    mark();
}

#[test]
fn a_producer_killed_at_any_instruction_has_sent_all_of_it_or_nothing() {
    let name = Name::new();
    let pipe = Options::new().capacity(CAPACITY as u64).create(&name).unwrap();
    let memory = Attached::new(name.segment().unwrap());
    let trial = Trial::new();
    share_a_core();
    let Some(traced) = Traced::start("producer", &[name.as_str()]) else { return };
    let mut consumer = pipe.consumer().unwrap();
    let mut states = each_step(&traced, &memory, &trial, &[], &[]);
    let mut before = vec![];
    for (number, (_, lengths)) in (0..).zip(SENDS) {
        // Now and then something of before is still there, where there is room for both.
        if !matches!(number, 1 | 2 | 4 | 5 | 9) {
            Trial::take_all(&mut consumer);
            before.clear();
        }
        let sent = (0..lengths.len()).map(|i| number * 16 + i as u32);
        let after: Vec<u32> = before.iter().copied().chain(sent).collect();
        states += each_step(&traced, &memory, &trial, &before, &after);
        before = after;
    }
    assert_eq!(Trial::take_all(&mut consumer), before);
    assert!(states > 300, "{states} states");
}

/// What the consumer does, and how many messages are gone after that.
const TAKES: [(&str, usize); 8] = [
    ("recv", 1),
    ("keep", 0),
    ("drain", 3),
    ("drain and keep", 0),
    ("recv", 1),
    ("try_recv", 1),
    ("drain", 3),
    ("close", 0),
];

fn be_consumer(mut line: Line) {
    let pipe = Pipe::open(line.words[0].as_str()).unwrap();
    rehearse(|pipe| {
        let mut producer = pipe.producer().unwrap();
        consume(&pipe, || {
            while producer.free().unwrap() > 1000 {
                producer.send(&content(0, 300)).unwrap();
            }
        });
    });
    be_traced(&mut line);
    consume(&pipe, mark);
}

fn consume(pipe: &Pipe, mut mark: impl FnMut()) {
    let mut bytes = vec![0; 2040];
    mark();
    let mut consumer = Some(pipe.consumer().unwrap());
    for (way, count) in TAKES {
        mark();
        let end = consumer.as_mut().unwrap();
        match way {
            "recv" => drop(end.recv().unwrap().copy_to(&mut bytes)),
            "try_recv" => drop(end.try_recv().unwrap().copy_to(&mut bytes)),
            "keep" => end.recv().unwrap().keep(),
            "drain" => {
                let mut drain = end.drain(count);
                while drain.next().unwrap().is_some() {}
            }
            "drain and keep" => {
                let mut drain = end.drain(2);
                while drain.next().unwrap().is_some() {}
                drain.keep();
            }
            _ => consumer.take().unwrap().close().unwrap(),
        }
    }
    mark();
}

#[test]
fn a_consumer_killed_at_any_instruction_has_released_what_it_took_or_nothing() {
    let name = Name::new();
    let pipe = Options::new().capacity(CAPACITY as u64).create(&name).unwrap();
    let memory = Attached::new(name.segment().unwrap());
    let trial = Trial::new();
    let mut producer = pipe.producer().unwrap();
    let mut tag = 0;
    let mut there = vec![];
    share_a_core();
    let Some(traced) = Traced::start("consumer", &[name.as_str()]) else { return };
    let mut states = each_step(&traced, &memory, &trial, &[], &[]);
    for (_, count) in TAKES {
        // Of such lengths that some of them stand behind a wrap.
        while there.len() < 4 {
            tag += 1;
            producer.try_send(&[]).unwrap();
            producer.send_tagged(tag, &content(tag, 300 + 20 * tag as usize % 200)).unwrap();
            there.extend([0, tag]);
        }
        let left = there[count..].to_vec();
        states += each_step(&traced, &memory, &trial, &there, &left);
        there = left;
    }
    // Few of its steps change anything.
    assert!(states > 20, "{states} states");
}

#[test]
fn a_last_message_is_received_before_the_close_at_whatever_instruction_both_come() {
    let name = Name::new();
    let pipe = Options::new().capacity(CAPACITY as u64).create(&name).unwrap();
    share_a_core();
    let Some(mut traced) = Traced::start("asked", &[name.as_str(), "consumer"]) else { return };
    let (empty, closed) = (RecvError::Empty.to_string(), RecvError::Closed.to_string());
    // What release builds do in one instruction takes dozens without optimization.
    for steps in (0..).step_by(if cfg!(debug_assertions) { 16 } else { 1 }) {
        let mut producer = pipe.producer().unwrap();
        traced.prepare("try_recv");
        let over = !(0..steps).all(|_| traced.step());
        producer.send(&[1; 100]).unwrap();
        producer.close().unwrap();
        let mut results = vec![if over { traced.result() } else { traced.finish() }];
        while results.last() != Some(&closed) {
            traced.prepare("try_recv");
            results.push(traced.finish());
        }
        results.retain(|result| *result != empty);
        assert_eq!(results, ["100 bytes", &closed], "after {steps} instructions");
        if over {
            assert!(steps > 20);
            break;
        }
    }
}
