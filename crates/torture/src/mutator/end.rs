//! An end under attack.

use shmpipe::error::{Damage, Shortage};
use shmpipe::{
    Consumer, Corruption, Lost, Options, Pipe, Producer, Record, Role, SetupError, TryRecvError,
    TrySendError, Wait,
};
use shmpipe_testing::errors::{AnyRecvError, AnySendError};
use shmpipe_testing::guarded::{Brink, guarded};
use shmpipe_testing::journal::Journal;
use shmpipe_testing::layout::RING;
use shmpipe_testing::process::Line;
use shmpipe_testing::rng::Rng;
use std::thread;
use std::time::{Duration, Instant};

/// The word of the journal with the round. In odd rounds the ends use the pipe, in even ones they leave it.
pub const ROUND: usize = 0;

/// For each role, the word with the round in which the end has closed.
pub const PARKED: [usize; 2] = [8, 9];
/// The number of its calls.
pub const CALLS: [usize; 2] = [16, 17];
/// The number of its messages.
pub const MESSAGES: [usize; 2] = [24, 25];
/// The number of times that it found corruption.
pub const POISONS: [usize; 2] = [32, 33];

pub fn produce(line: Line) {
    play(line, Role::Producer);
}

pub fn consume(line: Line) {
    play(line, Role::Consumer);
}

/// Claims and closes by the rounds in the journal, until the parent closes the line.
fn play(mut line: Line, role: Role) {
    let [address, journal, capacity, seed] = line.words.clone().try_into().expect("four words");
    let (journal, capacity): (_, usize) = (Journal::open(&journal), capacity.parse().expect("a number"));
    let mut rng = Rng(seed.parse().expect("a number"));
    let (pipe, _) = guarded(RING + capacity, || {
        Options::new().wait(Wait::Yield).open(address.as_str()).expect("a good pipe")
    });
    line.say("ready");
    thread::spawn(move || {
        while line.hear().is_some() {}
        std::process::exit(0);
    });
    let mut part = Attacked { role, journal, pipe, brink: Brink::new(2 * capacity), rng: Rng(0), round: 0 };
    loop {
        let round = part.journal.get(ROUND);
        if round % 2 == 1 && part.journal.get(PARKED[role as usize]) != round {
            part.rng = Rng(rng.word());
            part.round = round;
            part.take_part();
        }
        // Stores the round that it played: the next one may have begun.
        part.journal.set(PARKED[role as usize], round);
        thread::sleep(Duration::from_micros(20));
    }
}

struct Attacked {
    role: Role,
    journal: Journal,
    pipe: Pipe,
    brink: Brink,
    rng: Rng,
    round: u64,
}

/// Why an end leaves.
enum Over {
    /// The round is over, the peer seems to have closed, or another process seems to have our role.
    Left,
    Corrupt(Corruption),
}

impl Attacked {
    fn take_part(&mut self) {
        self.count(CALLS[self.role as usize]);
        let pipe = self.pipe.clone();
        let over = match self.role {
            Role::Producer => pipe.producer().map(|producer| self.send_all(producer)),
            Role::Consumer => pipe.consumer().map(|consumer| self.receive_all(consumer)),
        };
        match over {
            Ok(Over::Left) => {}
            Ok(Over::Corrupt(corruption)) => self.poisoned(corruption),
            Err(SetupError::Damaged(Damage::Ring(corruption))) => self.poisoned(corruption),
            // A state word with the largest epoch.
            Err(SetupError::Limit(Shortage::Claims { .. })) => self.count(POISONS[self.role as usize]),
            Err(error) => panic!("{error}"),
        }
    }

    fn poisoned(&mut self, corruption: Corruption) {
        assert!(["record header", "head", "tail", "state"].contains(&corruption.word()), "{corruption}");
        self.count(POISONS[self.role as usize]);
    }

    fn count(&self, word: usize) {
        self.journal.set(word, self.journal.get(word) + 1);
    }

    fn is_over(&self) -> bool {
        self.journal.get(ROUND) != self.round
    }

    fn send_all(&mut self, mut producer: Producer) -> Over {
        let capacity = producer.capacity();
        while !self.is_over() {
            let before = producer.position().get();
            let length = self.rng.log_uniform(producer.max_len() as u64) as usize;
            let mut messages = 1;
            let message = self.brink.lend(length, self.rng.0 as u8);
            let deadline = Instant::now() + Duration::from_millis(10);
            let sent = match self.rng.below(8) {
                0 => producer.send_deadline(&*message, deadline).map(Some).map_err(AnySendError::from),
                1 => {
                    let more = self.rng.below((producer.max_len() - length) as u64 + 1) as usize;
                    let space = producer.try_reserve(length + more).map(|mut space| {
                        space.write(0, message);
                        Some(space.commit_len(length))
                    });
                    space.map_err(AnySendError::from)
                }
                2 => {
                    // A push waits without a deadline. The cancelled handle makes it fail when a message does not fit.
                    producer.cancel_handle().cancel();
                    let mut batch = producer.batch();
                    let sent = (0..8).map(|_| batch.push(&*message)).take_while(Result::is_ok).last();
                    messages = batch.len() as u64;
                    batch.commit();
                    Ok(sent.and_then(Result::ok))
                }
                3 => producer.free().map_err(AnySendError::from).map(|free| {
                    assert!(free <= capacity - 8 && free % 8 == 0, "{free} bytes free of {capacity}");
                    messages = 0;
                    None
                }),
                _ => producer.try_send(&*message).map(Some).map_err(AnySendError::from),
            };
            self.count(CALLS[self.role as usize]);
            let after = producer.position().get();
            match sent {
                Ok(sent) => {
                    let record = 8 + length.next_multiple_of(8) as u64;
                    assert!(
                        sent.is_none_or(|start| start.get().wrapping_add(record) == after),
                        "{sent:?}, {after}"
                    );
                    let most = messages * record + capacity / 2;
                    assert!(after.wrapping_sub(before) <= most.min(capacity - 8), "{before} to {after}");
                    self.count_messages(messages);
                }
                Err(error) => {
                    assert_eq!(after, before, "{error:?}");
                    match error {
                        AnySendError::Full | AnySendError::TimedOut | AnySendError::Cancelled => {}
                        AnySendError::Closed
                        | AnySendError::PeerAborted { .. }
                        | AnySendError::PeerDied
                        | AnySendError::Lost(Lost::Role) => return Over::Left,
                        AnySendError::Corrupt(corruption) => {
                            assert_eq!(
                                producer.try_send(b"once more"),
                                Err(TrySendError::Corrupt(corruption))
                            );
                            assert_eq!(producer.free(), Err(corruption));
                            return Over::Corrupt(corruption);
                        }
                        error => panic!("{error:?}"),
                    }
                }
            }
        }
        Over::Left
    }

    fn count_messages(&self, more: u64) {
        let word = MESSAGES[self.role as usize];
        self.journal.set(word, self.journal.get(word) + more);
    }

    fn receive_all(&mut self, mut consumer: Consumer) -> Over {
        let capacity = consumer.capacity();
        while !self.is_over() {
            let before = consumer.position().get();
            let deadline = Instant::now() + Duration::from_millis(10);
            let received = match self.rng.below(8) {
                0 => {
                    let received = consumer.recv_deadline(deadline);
                    received.map(|message| (1, take(&message, &mut self.brink))).map_err(AnyRecvError::from)
                }
                1 => {
                    let mut drain = consumer.drain(1 + self.rng.below(100) as usize);
                    let (mut all, mut end) = (0, before);
                    loop {
                        match drain.next() {
                            Ok(Some(record)) => end = take(&record, &mut self.brink),
                            Ok(None) if all == 0 => break Err(AnyRecvError::Empty),
                            Ok(None) => break Ok((all, end)),
                            Err(error) => {
                                drain.requeue();
                                break Err(error.into());
                            }
                        }
                        all += 1;
                    }
                }
                2 => consumer.try_recv().map_err(AnyRecvError::from).map(|message| {
                    take(&message, &mut self.brink);
                    message.requeue();
                    (0, before)
                }),
                _ => {
                    let received = consumer.try_recv().map_err(AnyRecvError::from);
                    received.map(|message| (1, take(&message, &mut self.brink)))
                }
            };
            self.count(CALLS[self.role as usize]);
            let after = consumer.position().get();
            match received {
                Ok((messages, end)) => {
                    assert_eq!(after, end, "from {before}");
                    assert!(
                        after % 8 == 0 && after.wrapping_sub(before) <= capacity - 8,
                        "{before} to {after}"
                    );
                    self.count_messages(messages);
                }
                Err(error) => {
                    assert_eq!(after, before, "{error:?}");
                    match error {
                        AnyRecvError::Empty | AnyRecvError::TimedOut => {}
                        AnyRecvError::Closed
                        | AnyRecvError::PeerAborted { .. }
                        | AnyRecvError::PeerDied
                        | AnyRecvError::Lost(Lost::Role) => return Over::Left,
                        AnyRecvError::Corrupt(corruption) => {
                            assert_eq!(consumer.try_recv().err(), Some(TryRecvError::Corrupt(corruption)));
                            assert_eq!(consumer.drain(1).next().err(), Some(corruption));
                            return Over::Corrupt(corruption);
                        }
                        error => panic!("{error:?}"),
                    }
                }
            }
        }
        Over::Left
    }
}

/// Copies a record into a buffer right before a guard page, and returns the record's end.
fn take(record: &Record<'_>, brink: &mut Brink) -> u64 {
    let length = record.len();
    assert_eq!(record.copy_to(brink.lend(length, 0)), Ok(length));
    brink.returned(length);
    record.position().get().wrapping_add(8 + length.next_multiple_of(8) as u64)
}
