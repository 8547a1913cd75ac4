//! The consumer's side.

use super::words::{BEGUN, DUPLICATES, ENDED, LEAVE, RELEASED, STOP, TAKEN};
use super::{ABORTED, Orders, Tenure, Term, bytes, dawdle, hold, nap, play};
use shmpipe::{Consumer, Record, RecvTimeoutError};
use shmpipe_testing::journal::Journal;
use shmpipe_testing::rng::Rng;
use std::time::{Duration, Instant};

/// How long a consumer waits for a message before it checks whether to end.
const RECV_TIMEOUT: Duration = Duration::from_millis(20);

/// Takes and checks messages until it is killed or the journal ends it.
pub fn consume(words: &[String]) {
    play(words, |orders, journal| {
        let pipe = orders.open(journal);
        let consumer = orders.insist(journal, || pipe.consumer());
        match orders.trusting {
            false => take_all(consumer, orders, journal),
            // SAFETY: only this program opens this pipe, and it follows the protocol.
            true => take_all(unsafe { consumer.trust_peer() }, orders, journal),
        }
    });
}

pub(super) fn take_all<P>(mut consumer: Consumer<P>, orders: &Orders, journal: &Journal) {
    let mut rng = Rng(orders.seed);
    let tenure = Tenure::new(journal, 1, orders.ordinal);
    let [next, last] = journal.entry(TAKEN);
    journal.set(BEGUN[1], orders.ordinal);
    let mut taker = Taker { journal, max: consumer.max_len(), next, last, repeating: true };
    let term = Term::new(orders, &mut rng);
    while journal.get(LEAVE[1]) != orders.ordinal && (!term.is_over() || journal.get(STOP) != 0) {
        tenure.renew();
        // Before the receive: a last message may be sent after that has timed out.
        let is_last = journal.get(ENDED) != 0;
        let taken = match rng.below(8) {
            0 => drain(&mut consumer, &mut taker, &mut rng),
            _ => receive(&mut consumer, &mut taker, &mut rng, orders.staying),
        };
        match taken {
            Ok(()) | Err(RecvTimeoutError::PeerDied | RecvTimeoutError::PeerAborted { code: ABORTED }) => {}
            Err(RecvTimeoutError::Closed | RecvTimeoutError::TimedOut) if is_last => break,
            // Another producer comes.
            Err(RecvTimeoutError::Closed | RecvTimeoutError::TimedOut) => nap(50),
            Err(error) => panic!("{error}"),
        }
        if orders.dawdling {
            dawdle(&mut rng);
        }
    }
    let ended = if rng.below(2) == 0 { consumer.abort(ABORTED) } else { consumer.close() };
    ended.expect("a pipe that is still there");
}

fn drain<P>(
    consumer: &mut Consumer<P>,
    taker: &mut Taker<'_>,
    rng: &mut Rng,
) -> Result<(), RecvTimeoutError> {
    let mut drain = consumer.drain(rng.below(20) as usize);
    let mut last = None;
    while let Some(record) = drain.next()? {
        taker.take(&record);
        last = Some(record.tag());
    }
    hold(rng);
    if rng.below(8) == 0 {
        drain.requeue();
        taker.repeating = true;
    } else {
        drain.release();
        last.into_iter().for_each(|tag| taker.released(tag));
    }
    Ok(())
}

fn receive<P>(
    consumer: &mut Consumer<P>,
    taker: &mut Taker<'_>,
    rng: &mut Rng,
    staying: bool,
) -> Result<(), RecvTimeoutError> {
    let message = match rng.below(4) {
        0 => consumer.recv_deadline(Instant::now() + RECV_TIMEOUT)?,
        // Its predecessor may already have had the error for the end of the peer, which then does not repeat.
        _ if staying => consumer.recv_deadline(Instant::now() + RECV_TIMEOUT)?,
        _ => consumer.recv()?,
    };
    taker.take(&message);
    let tag = message.tag();
    hold(rng);
    if rng.below(64) == 0 {
        message.requeue();
        taker.repeating = true;
    } else {
        drop(message);
        taker.released(tag);
    }
    Ok(())
}

/// A consumer's own words of the journal, in private memory.
struct Taker<'a> {
    journal: &'a Journal,
    max: usize,
    next: u64,
    /// The position of the last record taken, plus 1.
    last: u64,
    /// Every record since the last claim or `keep` was a repeat.
    repeating: bool,
}

impl Taker<'_> {
    /// Checks a record, and enters it in the journal if it is new.
    fn take<P>(&mut self, record: &Record<'_, P>) {
        let position = record.position().get();
        let is_new = position >= self.last;
        let number = self.number(record.tag());
        assert_eq!(
            number >= self.next,
            is_new,
            "{number} at {position}, expected {} behind {}",
            self.next,
            self.last
        );
        if is_new {
            assert_eq!(number, self.next, "lost: {} at {position}", self.next);
            self.repeating = false;
        } else {
            assert!(self.repeating, "{number} at {position} repeats after new ones");
            let released = self.journal.get(RELEASED);
            assert!(number >= released, "{number} at {position} repeats and was released: {released}");
            self.journal.set(DUPLICATES, self.journal.get(DUPLICATES) + 1);
        }
        assert!(record.to_vec() == bytes(number, self.max), "torn: {number} at {position}");
        if is_new {
            self.next = number + 1;
            self.last = position + 1;
            self.journal.set_entry(TAKEN, [self.next, self.last]);
        }
    }

    /// The number of the record with this tag: the one closest to the next. A ring holds fewer than 2^31 records.
    fn number(&self, tag: u32) -> u64 {
        self.next.wrapping_add_signed(i64::from((tag as i32).wrapping_sub(self.next as i32)))
    }

    /// Enters the release of the record with this tag and of all before it.
    fn released(&self, tag: u32) {
        self.journal.set(RELEASED, self.number(tag) + 1);
    }
}
