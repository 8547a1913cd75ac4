//! Words that change while they are read: the value checked is the value used.

use crate::attacker::{Attacked, CAPACITY, HEAD, MAX, RING};
use crate::words::meanwhile;
use shmpipe::{Consumer, Record, TryRecvError};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::rng::Rng;
use shmpipe_testing::traced::{Traced, share_a_core};
use shmpipe_testing::within;
use std::hint::spin_loop;
use std::time::{Duration, Instant};

/// Enough to meet a failure that occurs once in four calls.
const CALLS: u32 = 24;

/// Repeats `call` with another of `values` at `offset` after each instruction. Passes each result to `check`, and claims the
/// role again after a failed call.
fn stepped(
    attacked: &Attacked,
    [claim, call]: [&str; 2],
    offset: usize,
    values: &[u64],
    check: impl Fn(&str) -> bool,
) {
    share_a_core();
    let mut rng = Rng::of_this_run("fetch");
    let Some(mut victim) = Traced::start("stepped", &[attacked.place.as_str()]) else { return };
    let (mut good, mut bad) = (0, 0);
    let mut is_claimed = false;
    while good + bad < CALLS || good.min(bad) == 0 {
        if !is_claimed {
            attacked.hostile.set(offset, values[0]);
            victim.prepare(claim);
            assert_eq!(victim.finish(), "true");
        }
        victim.prepare(call);
        while victim.step() {
            attacked.hostile.set(offset, values[rng.below(values.len() as u64) as usize]);
        }
        let result = victim.result();
        is_claimed = result != "false";
        assert!(!is_claimed || check(&result), "{result}");
        if is_claimed { good += 1 } else { bad += 1 }
    }
}

/// Row 4 under ptrace: the word changes after every instruction.
pub fn a_length_changed_between_any_two_instructions(backend: Backend) {
    let attacked = Attacked::new(backend);
    let values = [17, 50, 0x7FFF_FFFF, MAX + 2];
    stepped(&attacked, ["consumer", "copy"], RING, &values, |result| {
        ["16 bytes, intact", "49 bytes, intact"].contains(&result)
    });
}

/// Row 2 under ptrace.
pub fn a_position_changed_between_any_two_instructions(backend: Backend) {
    let attacked = Attacked::new(backend);
    attacked.pipe.producer().unwrap().send(&[1; 1000]).unwrap();
    let values = [0, 0, 1 << 20, u64::MAX - 7];
    stepped(&attacked, ["producer", "free"], HEAD, &values, |result| {
        result == format!("{} free", CAPACITY - 8 - 1008)
    });
}

/// Writes the values in turn, for about as long as a few loads of the other side take.
fn flip(set: impl Fn(u64), values: &[u64]) -> impl FnMut() {
    let mut turn = 0;
    move || {
        for _ in 0..1000 {
            turn += 1;
            set(values[turn % values.len()]);
            (0..turn % 16).for_each(|_| spin_loop());
        }
    }
}

const SHORT: u64 = 16;

/// Receives the message at the head, in either way, and requeues it. Returns its length.
fn taken(
    consumer: &mut Consumer,
    by_drain: bool,
    to: &mut [u8; 2 * MAX as usize],
) -> Result<u64, TryRecvError> {
    if by_drain {
        let mut drain = consumer.drain(1);
        let length = drain.next()?.map_or(0, |record| copied(&record, to));
        drain.requeue();
        return Ok(length);
    }
    let message = consumer.try_recv()?;
    let length = copied(&message, to);
    message.requeue();
    Ok(length)
}

fn copied(record: &Record<'_>, to: &mut [u8; 2 * MAX as usize]) -> u64 {
    let length = record.len();
    assert!([SHORT, MAX].contains(&(length as u64)), "{length} bytes");
    assert_eq!(record.copy_to(&mut to[..length]), Ok(length));
    assert!(to[..length].iter().all(|&byte| byte == 0x5A), "not the payload");
    assert!(to[length..].iter().all(|&byte| byte == 0xEE), "written after {length} bytes");
    to.fill(0xEE);
    assert_eq!(record.to_vec().len(), length);
    length as u64
}

/// Row 4: the length is loaded once, and the copy has the length that was checked.
pub fn a_length_changed_between_check_and_use(backend: Backend) {
    let attacked = Attacked::new(backend);
    let hostile = &attacked.hostile;
    (RING + 8..RING + CAPACITY as usize).step_by(8).for_each(|at| hostile.set(at, 0x5A5A_5A5A_5A5A_5A5A));
    hostile.set(RING, SHORT + 1);
    let mut consumer = attacked.pipe.consumer().unwrap();
    let mut to = [0xEE; 2 * MAX as usize];
    let (mut short, mut long, mut corrupt) = (0u32, 0u32, 0u32);
    let values = [SHORT + 1, MAX + 1, SHORT + 1, 0x7FFF_FFFF, MAX + 1, MAX + 2];
    meanwhile(flip(|value| hostile.set(RING, value), &values), || {
        let end = within(Duration::from_millis(700));
        while Instant::now() < end || short.min(long).min(corrupt) == 0 {
            match taken(&mut consumer, (short + long) % 2 == 0, &mut to) {
                Ok(SHORT) => short += 1,
                Ok(_) => long += 1,
                Err(TryRecvError::Corrupt(corruption)) => {
                    assert!([0x7FFF_FFFF, MAX + 2].contains(&corruption.found()), "{corruption}");
                    corrupt += 1;
                    drop(consumer);
                    consumer = attacked.pipe.consumer().unwrap();
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    });
}

/// Row 2: the producer never assumes more free space than the ring has.
pub fn a_position_changed_between_check_and_use(backend: Backend) {
    let attacked = Attacked::new(backend);
    let hostile = &attacked.hostile;
    let mut producer = attacked.pipe.producer().unwrap();
    producer.send(&[1; 1000]).unwrap();
    let tail = producer.position().get();
    let values = [0, tail, 0, tail + 8, tail, u64::MAX - 7, 8, 4];
    let (mut fine, mut corrupt) = (0u32, 0u32);
    meanwhile(flip(|value| hostile.set(HEAD, value), &values), || {
        let end = within(Duration::from_millis(700));
        while Instant::now() < end || fine.min(corrupt) == 0 {
            match producer.free() {
                Ok(free) => {
                    let believed = producer.position().get().wrapping_sub(CAPACITY - 8 - free);
                    assert!(
                        free <= CAPACITY - 8 && values.contains(&believed),
                        "{free} free, head {believed}"
                    );
                    fine += 1;
                }
                Err(corruption) => {
                    assert_eq!(corruption.word(), "head");
                    assert!(values.contains(&corruption.found()), "{corruption}");
                    corrupt += 1;
                    drop(producer);
                    producer = loop {
                        // A claim fails while the position is invalid.
                        if let Ok(producer) = attacked.pipe.producer() {
                            break producer;
                        }
                    };
                }
            }
        }
    });
}
