//! Words that change while they are looked at: what is checked is what is used.

use crate::attacker::{Attacked, CAPACITY, HEAD, MAX, RING};
use crate::words::meanwhile;
use shmpipe::{Consumer, Record, TryRecvError};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::rng::Rng;
use shmpipe_testing::traced::{Traced, share_a_core};
use shmpipe_testing::within;
use std::hint::spin_loop;
use std::time::{Duration, Instant};

/// Enough for what goes wrong one time in four.
const CALLS: u32 = 24;

/// Does it again and again, with another of `values` at `offset` after each instruction; says what comes of it to `check`, and starts
/// anew with `claim` where nothing did.
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
        let said = victim.result();
        is_claimed = said != "false";
        assert!(!is_claimed || check(&said), "{said}");
        if is_claimed { good += 1 } else { bad += 1 }
    }
}

/// Row 4 once more, by force: another word after each instruction.
pub fn a_length_changed_between_any_two_instructions(backend: Backend) {
    let attacked = Attacked::new(backend);
    let values = [17, 50, 0x7FFF_FFFF, MAX + 2];
    stepped(&attacked, ["consumer", "copy"], RING, &values, |said| {
        ["16 bytes, as said", "49 bytes, as said"].contains(&said)
    });
}

/// Row 2 in the same way.
pub fn a_position_changed_between_any_two_instructions(backend: Backend) {
    let attacked = Attacked::new(backend);
    attacked.pipe.producer().unwrap().send(&[1; 1000]).unwrap();
    let values = [0, 0, 1 << 20, u64::MAX - 7];
    stepped(&attacked, ["producer", "free"], HEAD, &values, |said| {
        said == format!("{} free", CAPACITY - 1008)
    });
}

/// Writes one value after the other for as long as it takes the other side to look a few times.
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

/// Takes what stands at the head, by either way, and leaves it there; its length.
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
    assert!(to[length..].iter().all(|&byte| byte == 0xEE), "written behind {length} bytes");
    to.fill(0xEE);
    assert_eq!(record.to_vec().len(), length);
    length as u64
}

/// Row 4: the length is loaded once; what is copied has the length that was checked.
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

/// The same of the read position: the producer never believes that there is more room than the ring has.
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
                    let believed = producer.position().get().wrapping_sub(CAPACITY - free);
                    assert!(free <= CAPACITY && values.contains(&believed), "{free} free, head {believed}");
                    fine += 1;
                }
                Err(corruption) => {
                    assert_eq!(corruption.word(), "head");
                    assert!(values.contains(&corruption.found()), "{corruption}");
                    corrupt += 1;
                    drop(producer);
                    producer = loop {
                        // On a position that is none nobody becomes the producer.
                        if let Ok(producer) = attacked.pipe.producer() {
                            break producer;
                        }
                    };
                }
            }
        }
    });
}
