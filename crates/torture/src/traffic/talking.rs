//! A side of a duplex pipe: both a producer's side and a consumer's, in two threads, with a journal for each direction.

use super::receiving::take_all;
use super::sending::send_all;
use super::words::{ENDED, STOP};
use super::{Orders, play};
use shmpipe::{Consumer, DuplexSide, Pipe, Producer};
use shmpipe_testing::journal::Journal;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{process, thread};

/// Talks to side B until it is killed or the journals end it.
pub fn talk_as_a(words: &[String]) {
    talk(words, DuplexSide::A);
}

/// Talks to side A in the same way.
pub fn talk_as_b(words: &[String]) {
    talk(words, DuplexSide::B);
}

fn talk(words: &[String], side: DuplexSide) {
    play(words, |orders, journal| {
        let pipe = orders.open(journal);
        let duplex = orders.insist(journal, || pipe.duplex_as(side));
        match orders.trusting {
            false => talk_in_two_threads(duplex.split(), orders, &pipe, side),
            // SAFETY: only this program opens this pipe, and it follows the protocol.
            true => talk_in_two_threads(unsafe { duplex.trust_peer() }.split(), orders, &pipe, side),
        }
    });
}

fn talk_in_two_threads<P: Send + 'static>(
    (producer, consumer): (Producer<P>, Consumer<P>),
    orders: &Orders,
    pipe: &Pipe,
    side: DuplexSide,
) {
    let journal = |of: DuplexSide| Journal::open(&orders.journals[of as usize]);
    let (sent, received) = (journal(side), journal(side.peer()));
    let receiver = Orders { seed: orders.seed.rotate_left(32), ..orders.clone() };
    let receiving = thread::spawn(move || {
        let take = AssertUnwindSafe(|| take_all(consumer, &receiver, &received));
        // The other thread may wait for something that does not come any more.
        catch_unwind(take).unwrap_or_else(|_| process::exit(101));
    });
    send_all(producer, orders, &sent, pipe);
    // If all must stop, no producer follows.
    sent.set(ENDED, sent.get(STOP));
    receiving.join().expect("a panic ends the process");
}
