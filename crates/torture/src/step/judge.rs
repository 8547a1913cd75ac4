//! What the successors of a killed process make of what it has left.

use super::act::{Message, content};
use shmpipe::{Consumer, Options, Pipe, Producer, RecvError, WakeMode};
use shmpipe_testing::layout;
use shmpipe_testing::name::Objects;
use shmpipe_testing::raw::{self, Attached};

/// Where the words begin that change, behind the identity of the segment.
pub const CHANGING: usize = layout::TAIL;

/// The bytes of a segment that change.
pub fn changing(capacity: usize) -> usize {
    layout::RING + capacity - CHANGING
}

/// A second pipe of the same size, for the successors to try.
#[derive(Debug)]
pub struct Judge {
    pipe: Pipe,
    memory: Attached,
    last: Message,
    laps: Vec<Message>,
    _objects: Objects,
}

/// The messages that are there, in order, each released.
pub fn take_all(consumer: &mut Consumer) -> Result<Vec<Message>, String> {
    let mut messages = vec![];
    loop {
        match consumer.try_recv() {
            Ok(message) => messages.push((message.tag(), message.to_vec())),
            Err(RecvError::Empty | RecvError::Closed) => return Ok(messages),
            Err(error) => return Err(format!("after {} messages: {error}", messages.len())),
        }
    }
}

impl Judge {
    pub fn new(capacity: usize) -> Self {
        let options = Options::new().capacity(capacity as u64).wake_mode(WakeMode::Never);
        let pipe = options.create("sysv:private").unwrap();
        let objects = Objects::of(&pipe);
        let memory = Attached::new(raw::ids(&shmpipe::inspect(pipe.address()).unwrap()).shm_id);
        let long = capacity / 5 + 80;
        let laps = (1..=5).map(|tag| (tag, content(u32::MAX - tag, long))).collect();
        Judge { pipe, memory, last: (7, content(u32::MAX, 13)), laps, _objects: objects }
    }

    /// The messages that successors find in `state`, in which the ring works for both of them. Once the producer's successor
    /// comes first, and once the consumer's.
    pub fn judge(&self, state: &[u8]) -> Result<Vec<Message>, String> {
        let failed = |who: &'static str| move |error: String| format!("{who}'s successor first: {error}");
        let found = self.producer_first(state).map_err(failed("the producer"))?;
        self.consumer_first(state, &found).map_err(failed("the consumer"))?;
        Ok(found)
    }

    fn producer_first(&self, state: &[u8]) -> Result<Vec<Message>, String> {
        self.memory.copy_from(CHANGING, state);
        let mut producer = self.pipe.producer().map_err(|error| format!("no producer: {error}"))?;
        let mut consumer = self.pipe.consumer().map_err(|error| format!("no consumer: {error}"))?;
        // Right behind what was there, if there is room.
        let more = producer.try_reserve(self.last.1.len()).map(|mut space| {
            space.write(0, &self.last.1);
            space.tag(self.last.0);
            space.commit();
        });
        let mut found = take_all(&mut consumer)?;
        if more.is_ok() && found.pop().as_ref() != Some(&self.last) {
            return Err("what is sent next is not received".to_owned());
        }
        self.goes_on(&mut producer, &mut consumer)?;
        Ok(found)
    }

    /// A consumer that is there takes all before the producer's successor comes, so that the write position may lag behind the
    /// read position.
    fn consumer_first(&self, state: &[u8], found: &[Message]) -> Result<(), String> {
        self.memory.copy_from(CHANGING, state);
        let mut consumer = self.pipe.consumer().map_err(|error| format!("no consumer: {error}"))?;
        if take_all(&mut consumer)? != found {
            return Err("it finds something else".to_owned());
        }
        let mut producer = self.pipe.producer().map_err(|error| format!("no producer: {error}"))?;
        match take_all(&mut consumer)?.len() {
            0 => self.goes_on(&mut producer, &mut consumer),
            count => Err(format!("{count} messages come twice")),
        }
    }

    /// The ring, which is empty, works once around.
    fn goes_on(&self, producer: &mut Producer, consumer: &mut Consumer) -> Result<(), String> {
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
