//! What an end does between two marks, in words that its process understands.

use shmpipe::{Consumer, Pipe, Producer};
use shmpipe_testing::process::Line;
use shmpipe_testing::rng::Rng;
use shmpipe_testing::traced::{be_traced, mark};

/// Bytes of a message sent by `send_value`.
pub const VALUE: usize = 24;

/// The ways to send, to receive, and to come and go. Each but the last ones is one call, or one batch, of the public interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    TrySend,
    Send,
    SendTagged,
    SendValue,
    SendGathered,
    Reserve,
    /// Filled, and then committed with less.
    Shorter,
    Dropped,
    Batch,
    BatchDropped,
    TryRecv,
    Recv,
    Append,
    Keep,
    Drain,
    DrainKept,
    Claim,
    Close,
    Drop,
    Nothing,
}

pub const SENDING: [Way; 10] = [
    Way::TrySend,
    Way::Send,
    Way::SendTagged,
    Way::SendValue,
    Way::SendGathered,
    Way::Reserve,
    Way::Shorter,
    Way::Dropped,
    Way::Batch,
    Way::BatchDropped,
];

pub const RECEIVING: [Way; 6] = [Way::TryRecv, Way::Recv, Way::Append, Way::Keep, Way::Drain, Way::DrainKept];

const OTHERS: [Way; 4] = [Way::Claim, Way::Close, Way::Drop, Way::Nothing];

/// One thing that an end does.
#[derive(Clone, Debug)]
pub struct Act {
    pub way: Way,
    /// What is in its messages, and the tag of the first one.
    pub number: u32,
    /// Bytes of the messages; for [`Way::Shorter`] what is reserved, then what is committed; of a drain the most that it takes.
    pub lengths: Vec<usize>,
}

/// A message: its tag and its bytes.
pub type Message = (u32, Vec<u8>);

/// Bytes that no other number has, and none of which is zero, so that whatever is left of them shows.
pub fn content(number: u32, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Rng(u64::from(number) << 32 | length as u64).fill(&mut bytes);
    bytes.iter_mut().for_each(|byte| *byte |= 1);
    bytes
}

impl Act {
    pub fn new(way: Way, number: u32, lengths: impl Into<Vec<usize>>) -> Self {
        Act { way, number, lengths: lengths.into() }
    }

    /// An act of coming, going, or idling.
    pub fn of(way: Way) -> Self {
        Act::new(way, 0, [])
    }

    fn said(text: &str) -> Self {
        let mut words = text.split(' ');
        let name = words.next().unwrap();
        let mut ways = SENDING.iter().chain(&RECEIVING).chain(&OTHERS);
        let way = *ways.find(|way| format!("{way:?}") == name).expect("a way that is known");
        let mut numbers = words.map(|word| word.parse().unwrap());
        Act { way, number: numbers.next().unwrap() as u32, lengths: numbers.collect() }
    }

    pub fn to_words(&self) -> String {
        let lengths: String = self.lengths.iter().map(|length| format!(" {length}")).collect();
        format!("{:?} {}{lengths}", self.way, self.number)
    }

    /// What it tries to send, committed or not.
    fn messages(&self) -> Vec<Message> {
        let tag = |i: usize| match self.way {
            Way::TrySend | Way::Send | Way::SendValue => 0,
            _ => self.number + i as u32,
        };
        let lengths = match self.way {
            Way::Shorter => &self.lengths[1..],
            _ => &self.lengths,
        };
        (0..).zip(lengths).map(|(i, &length)| (tag(i), content(self.number + i as u32, length))).collect()
    }

    /// The messages that are in the pipe when it is done.
    pub fn sent(&self) -> Vec<Message> {
        match self.way {
            Way::Dropped | Way::BatchDropped => vec![],
            way if SENDING.contains(&way) => self.messages(),
            _ => vec![],
        }
    }

    /// How many of the messages that are there it takes for good.
    pub fn taken(&self, there: usize) -> usize {
        match self.way {
            Way::TryRecv | Way::Recv | Way::Append => 1,
            Way::Drain => there.min(self.lengths[0]),
            _ => 0,
        }
    }

    /// More bytes than it needs in the ring, wherever it wraps.
    pub fn room(&self) -> usize {
        let record = |length: &usize| 8 + length.next_multiple_of(8);
        let longest = self.lengths.iter().map(record).max().unwrap_or(0);
        self.lengths.iter().map(record).sum::<usize>() + longest + 16
    }
}

/// Plays the producer: does one act after the other, each between two marks.
pub fn produce(mut line: Line) {
    let pipe = Pipe::open(line.words[0].as_str()).unwrap();
    let mut producer = None;
    rehearse(&pipe);
    be_traced(&mut line);
    line.say(0);
    mark();
    while let Some(said) = line.hear() {
        let act = Act::said(&said);
        let messages = act.messages();
        mark();
        send(&pipe, &mut producer, &act, &messages);
        mark();
    }
}

/// So that nothing is done for the first time when it is done step by step, and that a panic, which would be a failure, ends it soon.
fn rehearse(pipe: &Pipe) {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::abort();
    }));
    drop(pipe.producer().unwrap());
    drop(pipe.consumer().unwrap());
}

#[inline(never)]
fn send(pipe: &Pipe, producer: &mut Option<Producer>, act: &Act, messages: &[Message]) {
    match act.way {
        Way::Claim => return *producer = Some(pipe.producer().unwrap()),
        Way::Close => return producer.take().unwrap().close().unwrap(),
        Way::Drop => return *producer = None,
        Way::Nothing => return,
        _ => {}
    }
    let end = producer.as_mut().unwrap();
    let bytes = messages.first().map_or(&[][..], |(_, bytes)| bytes);
    match act.way {
        Way::TrySend => drop(end.try_send(bytes).unwrap()),
        Way::Send => drop(end.send(bytes).unwrap()),
        Way::SendTagged => drop(end.send_tagged(act.number, bytes).unwrap()),
        Way::SendValue => drop(end.send_value::<[u8; VALUE]>(bytes.try_into().unwrap()).unwrap()),
        Way::SendGathered => {
            let (first, rest) = bytes.split_at(bytes.len() / 3);
            end.send_gathered(act.number, &[first, &[], rest]).unwrap();
        }
        Way::Reserve | Way::Dropped | Way::Shorter => {
            let mut space = end.reserve(act.lengths[0]).unwrap();
            if act.way != Way::Reserve {
                space.write(0, &DIRT[..act.lengths[0]]);
            }
            match act.way {
                Way::Dropped => {}
                _ => {
                    space.write(0, bytes);
                    space.tag(act.number);
                    space.commit_len(bytes.len());
                }
            }
        }
        Way::Batch | Way::BatchDropped => {
            let mut batch = end.batch();
            for (tag, bytes) in messages {
                batch.push_tagged(*tag, bytes).unwrap();
            }
            if act.way == Way::Batch {
                batch.commit();
            }
        }
        _ => {}
    }
}

/// What a reservation is filled with that is not sent.
static DIRT: [u8; 1 << 14] = [0xFF; 1 << 14];

/// Plays the consumer.
pub fn consume(mut line: Line) {
    let pipe = Pipe::open(line.words[0].as_str()).unwrap();
    let mut consumer = None;
    let mut bytes = vec![0; DIRT.len()];
    rehearse(&pipe);
    be_traced(&mut line);
    // What it has received is looked at from outside.
    line.say(bytes.as_ptr() as usize);
    mark();
    while let Some(said) = line.hear() {
        let act = Act::said(&said);
        bytes.clear();
        bytes.resize(DIRT.len(), 0);
        mark();
        receive(&pipe, &mut consumer, &act, &mut bytes);
        mark();
    }
}

#[inline(never)]
fn receive(pipe: &Pipe, consumer: &mut Option<Consumer>, act: &Act, bytes: &mut Vec<u8>) {
    match act.way {
        Way::Claim => return *consumer = Some(pipe.consumer().unwrap()),
        Way::Close => return consumer.take().unwrap().close().unwrap(),
        Way::Drop => return *consumer = None,
        Way::Nothing => return,
        _ => {}
    }
    let end = consumer.as_mut().unwrap();
    match act.way {
        Way::TryRecv => drop(end.try_recv().unwrap().copy_to(bytes).unwrap()),
        Way::Recv => drop(end.recv().unwrap().copy_to(bytes).unwrap()),
        Way::Append => {
            bytes.clear();
            end.recv().unwrap().append_to(bytes);
        }
        Way::Keep => end.recv().unwrap().keep(),
        Way::Drain | Way::DrainKept => {
            let mut drain = end.drain(act.lengths[0]);
            while let Some(record) = drain.next().unwrap() {
                record.copy_to(bytes).unwrap();
            }
            if act.way == Way::DrainKept {
                drain.keep();
            }
        }
        _ => {}
    }
}
