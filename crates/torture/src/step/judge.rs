//! Successors that judge the state a killed process leaves.

use super::act::{Message, content};
use shmpipe::{Consumer, Options, Pipe, Producer, TryRecvError, WakeMode};
use shmpipe_testing::layout::{self, side};
use shmpipe_testing::name::Objects;
use shmpipe_testing::raw::Attached;

/// The first offset after the identity, which does not change.
pub const CHANGING: usize = layout::TAIL;

/// The number of bytes from there to the end of the segment.
pub fn changing(capacity: usize) -> usize {
    layout::RING + capacity - CHANGING
}

/// A second pipe of the same size, for the successors.
#[derive(Debug)]
pub struct Judge {
    pipe: Pipe,
    memory: Attached,
    last: Message,
    laps: Vec<Message>,
    _objects: Objects,
}

/// Takes and releases all messages.
pub fn take_all(consumer: &mut Consumer) -> Result<Vec<Message>, String> {
    let mut messages = vec![];
    loop {
        match consumer.try_recv() {
            Ok(message) => messages.push((message.tag(), message.to_vec())),
            Err(TryRecvError::Empty | TryRecvError::Closed | TryRecvError::PeerAborted { .. }) => {
                return Ok(messages);
            }
            Err(error) => return Err(format!("after {} messages: {error}", messages.len())),
        }
    }
}

impl Judge {
    pub fn new(capacity: usize) -> Self {
        let options = Options::new().capacity(capacity as u64).wake_mode(WakeMode::Never);
        let pipe = options.create("sysv:private").unwrap();
        let objects = Objects::of(&pipe);
        let memory = Attached::new(objects.segment());
        let long = capacity / 5 + 80;
        let laps = (1..=5).map(|tag| (tag, content(u32::MAX - tag, long))).collect();
        Judge { pipe, memory, last: (7, content(u32::MAX, 13)), laps, _objects: objects }
    }

    /// The messages that successors find in `state`, after which the ring must work. Tries both orders: the producer's successor
    /// first, and the consumer's first.
    pub fn judge(&self, state: &[u8]) -> Result<Vec<Message>, String> {
        let failed = |who: &'static str| move |error: String| format!("{who}'s successor first: {error}");
        let found = self.producer_first(state).map_err(failed("the producer"))?;
        self.consumer_first(state, &found).map_err(failed("the consumer"))?;
        Ok(found)
    }

    /// Copies a state. Its process lives on, and would hold its roles; the kernel gives back those of a dead one.
    fn restore(&self, state: &[u8]) {
        self.memory.copy_from(CHANGING, state);
        for words in [layout::PRODUCER, layout::CONSUMER] {
            self.memory.set(words + side::CLAIM, 0);
        }
    }

    fn producer_first(&self, state: &[u8]) -> Result<Vec<Message>, String> {
        self.restore(state);
        let mut producer = self.pipe.producer().map_err(|error| format!("no producer: {error}"))?;
        let mut consumer = self.pipe.consumer().map_err(|error| format!("no consumer: {error}"))?;
        // Sends one more message right after those in the ring, if there is space.
        let more = producer.try_reserve(self.last.1.len()).map(|mut space| {
            space.write(0, &self.last.1);
            space.tag(self.last.0);
            space.commit();
        });
        let mut found = take_all(&mut consumer)?;
        if more.is_ok() && found.pop().as_ref() != Some(&self.last) {
            return Err("the next message is not received".to_owned());
        }
        self.works(&mut producer, &mut consumer)?;
        Ok(found)
    }

    /// The consumer takes all messages before the producer's successor claims, so the tail may lag behind the head.
    fn consumer_first(&self, state: &[u8], found: &[Message]) -> Result<(), String> {
        self.restore(state);
        let mut consumer = self.pipe.consumer().map_err(|error| format!("no consumer: {error}"))?;
        if take_all(&mut consumer)? != found {
            return Err("it finds other messages".to_owned());
        }
        let mut producer = self.pipe.producer().map_err(|error| format!("no producer: {error}"))?;
        match take_all(&mut consumer)?.len() {
            0 => self.works(&mut producer, &mut consumer),
            count => Err(format!("{count} messages repeat")),
        }
    }

    /// Checks that the empty ring works for one lap.
    fn works(&self, producer: &mut Producer, consumer: &mut Consumer) -> Result<(), String> {
        let long = self.laps[0].1.len();
        for message in &self.laps {
            let full = |error| format!("the empty ring takes no message: {error}");
            producer.try_reserve(long).map_err(full)?.commit_len(0);
            let mut space = producer.try_reserve(long).map_err(full)?;
            space.write(0, &message.1);
            space.tag(message.0);
            space.commit();
            let taken = take_all(consumer)?;
            if taken != [(0, vec![]), message.clone()] {
                return Err(format!("message {} of the next lap is not received", message.0));
            }
        }
        Ok(())
    }
}
