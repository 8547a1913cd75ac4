//! The operations of an end between two marks, as commands to its process.

use shmpipe::{Consumer, Pipe, Producer, Tagged, Value, Vectored};
use shmpipe_testing::process::Line;
use shmpipe_testing::rng::Rng;
use shmpipe_testing::traced::{abort_on_panic, be_traced, mark};

/// Bytes of a message sent by `send_value`.
pub const VALUE: usize = 24;

/// The ways to send, receive, claim and end. Each is one call, or one batch, of the public interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    TrySend,
    Send,
    SendTagged,
    SendValue,
    SendGathered,
    Reserve,
    /// A reservation that is filled, and then committed with less.
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
    Abort,
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

const OTHERS: [Way; 5] = [Way::Claim, Way::Close, Way::Abort, Way::Drop, Way::Nothing];

/// One operation of an end.
#[derive(Clone, Debug)]
pub struct Act {
    pub way: Way,
    /// Determines the content of its messages, and is the tag of the first.
    pub number: u32,
    /// The lengths of the messages. For [`Way::Shorter`], the reserved and the committed length. For a drain, its limit.
    pub lengths: Vec<usize>,
}

/// A message: its tag and its bytes.
pub type Message = (u32, Vec<u8>);

/// Bytes that differ for each number. None is zero, so that leftovers show.
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

    /// A claim, an end, or nothing.
    pub fn of(way: Way) -> Self {
        Act::new(way, 0, [])
    }

    fn said(text: &str) -> Self {
        let mut words = text.split(' ');
        let name = words.next().unwrap();
        let mut ways = SENDING.iter().chain(&RECEIVING).chain(&OTHERS);
        let way = *ways.find(|way| format!("{way:?}") == name).expect("a known way");
        let mut numbers = words.map(|word| word.parse().unwrap());
        Act { way, number: numbers.next().unwrap() as u32, lengths: numbers.collect() }
    }

    pub fn to_words(&self) -> String {
        let lengths: String = self.lengths.iter().map(|length| format!(" {length}")).collect();
        format!("{:?} {}{lengths}", self.way, self.number)
    }

    /// The messages that it writes, committed or not.
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

    /// The messages that it adds to the pipe.
    pub fn sent(&self) -> Vec<Message> {
        match self.way {
            Way::Dropped | Way::BatchDropped => vec![],
            way if SENDING.contains(&way) => self.messages(),
            _ => vec![],
        }
    }

    /// How many of the messages in the pipe it takes and releases.
    pub fn taken(&self, there: usize) -> usize {
        match self.way {
            Way::TryRecv | Way::Recv | Way::Append => 1,
            Way::Drain => there.min(self.lengths[0]),
            _ => 0,
        }
    }

    /// An upper bound of the bytes that it needs in the ring, wherever it wraps.
    pub fn room(&self) -> usize {
        let record = |length: &usize| 8 + length.next_multiple_of(8);
        let longest = self.lengths.iter().map(record).max().unwrap_or(0);
        self.lengths.iter().map(record).sum::<usize>() + longest + 16
    }
}

/// The main function of the producer: runs each act between two marks.
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

/// Runs first-time initialization before the single steps begin, and makes a panic end the process at once.
fn rehearse(pipe: &Pipe) {
    abort_on_panic();
    drop(pipe.producer().unwrap());
    drop(pipe.consumer().unwrap());
}

#[inline(never)]
fn send(pipe: &Pipe, producer: &mut Option<Producer>, act: &Act, messages: &[Message]) {
    match act.way {
        Way::Claim => return *producer = Some(pipe.producer().unwrap()),
        Way::Close => return producer.take().unwrap().close().unwrap(),
        Way::Abort => return producer.take().unwrap().abort(act.number).unwrap(),
        Way::Drop => return *producer = None,
        Way::Nothing => return,
        _ => {}
    }
    let end = producer.as_mut().unwrap();
    let bytes = messages.first().map_or(&[][..], |(_, bytes)| bytes);
    match act.way {
        Way::TrySend => drop(end.try_send(bytes).unwrap()),
        Way::Send => drop(end.send(bytes).unwrap()),
        Way::SendTagged => drop(end.send(Tagged(act.number, bytes)).unwrap()),
        Way::SendValue => drop(end.send(Value::<[u8; VALUE]>(bytes.try_into().unwrap())).unwrap()),
        Way::SendGathered => {
            let (first, rest) = bytes.split_at(bytes.len() / 3);
            end.send(Tagged(act.number, Vectored(&[first, &[], rest]))).unwrap();
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
                batch.push(Tagged(*tag, bytes)).unwrap();
            }
            if act.way == Way::Batch {
                batch.commit();
            }
        }
        _ => {}
    }
}

/// Fills reservations whose bytes are not sent.
static DIRT: [u8; 1 << 14] = [0xFF; 1 << 14];

/// The main function of the consumer.
pub fn consume(mut line: Line) {
    let pipe = Pipe::open(line.words[0].as_str()).unwrap();
    let mut consumer = None;
    let mut bytes = vec![0; DIRT.len()];
    rehearse(&pipe);
    be_traced(&mut line);
    // The harness reads the received bytes through /proc.
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
        Way::Abort => return consumer.take().unwrap().abort(act.number).unwrap(),
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
        Way::Keep => end.recv().unwrap().requeue(),
        Way::Drain | Way::DrainKept => {
            let mut drain = end.drain(act.lengths[0]);
            while let Some(record) = drain.next().unwrap() {
                record.copy_to(bytes).unwrap();
            }
            if act.way == Way::DrainKept {
                drain.requeue();
            }
        }
        _ => {}
    }
}
