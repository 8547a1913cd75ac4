//! The producer's side.

use super::words::{ATTEMPT, BEGUN, ENDED, LEAVE, SENT, STOP};
use super::{ABORTED, Orders, Tenure, Term, bytes, dawdle, hold, message, nap, play};
use shmpipe::{Pipe, Producer, SendError, Tagged, Vectored};
use shmpipe_testing::journal::Journal;
use shmpipe_testing::rng::Rng;

/// Sends messages until it is killed or the journal ends it.
pub fn produce(words: &[String]) {
    play(words, |orders, journal| {
        let pipe = orders.open(journal);
        let producer = orders.insist(journal, || pipe.producer());
        match orders.trusting {
            false => send_all(producer, orders, journal, &pipe),
            // SAFETY: only this program opens this pipe, and it follows the protocol.
            true => send_all(unsafe { producer.trust_peer() }, orders, journal, &pipe),
        }
        // If all must stop, no producer follows.
        journal.set(ENDED, journal.get(STOP));
    });
}

pub(super) fn send_all<P>(mut producer: Producer<P>, orders: &Orders, journal: &Journal, pipe: &Pipe) {
    let mut rng = Rng(orders.seed);
    let tenure = Tenure::new(journal, 0, orders.ordinal);
    // Our predecessor's last attempt is in the pipe as a whole, or not at all. The position of the tail tells which.
    let [first, count, before] = journal.entry(ATTEMPT);
    let now = producer.position().get();
    assert!(now >= before, "the tail is at {now}, and was at {before}");
    let mut next = if now > before { first + count } else { first };
    journal.set(BEGUN[0], orders.ordinal);
    let term = Term::new(orders, &mut rng);
    while journal.get(STOP) == 0 && journal.get(LEAVE[0]) != orders.ordinal && !term.is_over() {
        tenure.renew();
        let position = producer.position().get();
        let way = rng.below(8);
        let count = if way == 0 { fitting(next, 1 + rng.below(12), pipe) } else { 1 };
        journal.set_entry(ATTEMPT, [next, count, position]);
        send(&mut producer, next, count, way, &mut rng);
        next += count;
        if orders.dawdling {
            dawdle(&mut rng);
        }
    }
    journal.set_entry(ATTEMPT, [next, 0, producer.position().get()]);
    journal.set(SENT, next);
    // One that certainly has a successor aborts as often as it closes. The end of the last one must be reported more than once, until
    // the consumer finds the journal ended.
    let has_successor = journal.get(LEAVE[0]) == orders.ordinal;
    let ended = if has_successor && rng.below(2) == 0 { producer.abort(ABORTED) } else { producer.close() };
    ended.expect("a pipe that is still there");
}

/// How many of `count` messages fit into the ring as one batch, wherever the tail is.
fn fitting(first: u64, count: u64, pipe: &Pipe) -> u64 {
    let mut size = pipe.capacity() / 2 + 8;
    let fits = |number: &u64| {
        size += 8 + message(*number, pipe.max_len()).0.next_multiple_of(8) as u64;
        size <= pipe.capacity()
    };
    ((first..first + count).take_while(fits).count() as u64).max(1)
}

/// Handles an error: panics unless the consumer has ended, since a successor comes.
fn insist(error: &SendError) {
    match error {
        SendError::PeerDied | SendError::PeerAborted { code: ABORTED } => {}
        SendError::Closed => nap(50),
        error => panic!("{error}"),
    }
}

/// Retries `send` until it succeeds.
fn until_sent<T>(mut send: impl FnMut() -> Result<T, SendError>) -> T {
    loop {
        match send() {
            Ok(sent) => return sent,
            Err(error) => insist(&error),
        }
    }
}

fn send<P>(producer: &mut Producer<P>, next: u64, count: u64, way: u64, rng: &mut Rng) {
    let max = producer.max_len();
    let tag = next as u32;
    let content = bytes(next, max);
    let length = content.len();
    match way {
        0 => {
            let mut batch = producer.batch();
            for number in next..next + count {
                let content = bytes(number, max);
                until_sent(|| batch.push(Tagged(number as u32, &content)));
            }
            hold(rng);
            batch.commit();
        }
        1 | 2 => {
            let reserved = length + rng.below((max - length) as u64 + 1) as usize;
            let mut space = loop {
                match producer.reserve(reserved) {
                    Ok(space) => break space,
                    Err(error) => insist(&error),
                }
            };
            space.write(0, &vec![0xFF; reserved]);
            space.tag(tag);
            hold(rng);
            space.write(0, &content);
            if way == 1 {
                space.commit_len(length);
            } else {
                drop(space);
                until_sent(|| producer.send(Tagged(tag, &content)));
            }
        }
        3 => {
            let (first, second) = content.split_at(length / 2);
            until_sent(|| producer.send(Tagged(tag, Vectored(&[first, second]))));
        }
        _ => {
            until_sent(|| producer.send(Tagged(tag, &content)));
        }
    };
}
