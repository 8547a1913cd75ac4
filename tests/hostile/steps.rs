//! A victim runs under ptrace, one instruction at a time, and a hostile process writes between any two of them. Each call
//! still takes a bounded number of steps. The test reads no clock.

use crate::attacker::{
    Attacked, CAPACITY, CONSUMER, EVENT_COUNT, HEAD, PRODUCER, RING, STATE, TAIL, WAITER_EPOCH,
    WAKE_THRESHOLD, WRAP,
};
use shmpipe::{Consumer, Options, Wait};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::process::Line;
use shmpipe_testing::raw::Attached;
use shmpipe_testing::rng::Rng;
use shmpipe_testing::traced::{Traced, be_traced, mark, share_a_core};

/// The most instructions of one call in an unoptimised build, including the formatting of errors. The longest call without
/// an attack takes a fifth of that.
const STEPS: u32 = 10_000;

/// The victim: runs each command between two marks.
pub fn be_stepped(mut line: Line) {
    let pipe = Options::new().wait(Wait::Spin).open(line.words[0].as_str()).unwrap();
    let mut producer = None;
    let mut consumer = None;
    be_traced(&mut line);
    mark();
    while let Some(command) = line.hear() {
        mark();
        let done = match command.as_str() {
            "producer" => {
                drop(producer.take());
                producer = pipe.producer().ok();
                done(producer.is_some())
            }
            "consumer" => {
                drop(consumer.take());
                consumer = pipe.consumer().ok();
                done(consumer.is_some())
            }
            "try_send" => {
                done(producer.as_mut().is_some_and(|producer| producer.try_send(&[1; 100]).is_ok()))
            }
            "try_reserve" => {
                done(producer.as_mut().is_some_and(|producer| producer.try_reserve(900).is_ok()))
            }
            "free" => match producer.as_mut().unwrap().free() {
                Ok(free) => format!("{free} free"),
                Err(_) => done(false),
            },
            "try_recv" => done(consumer.as_mut().is_some_and(|consumer| consumer.try_recv().is_ok())),
            "drain one" => done(consumer.as_mut().is_some_and(|consumer| consumer.drain(1).next().is_ok())),
            "copy" => copy(consumer.as_mut().unwrap()),
            command => panic!("{command}"),
        };
        mark();
        line.say(done);
        mark();
    }
}

fn done(well: bool) -> String {
    well.to_string()
}

/// Copies the message to memory of exactly its length, and requeues it.
fn copy(consumer: &mut Consumer) -> String {
    let mut to = [0xEE; 100];
    let Ok(message) = consumer.try_recv() else { return done(false) };
    let length = message.len();
    let Some(exactly) = to.get_mut(..length).filter(|_| length < 100) else {
        return format!("{length} bytes");
    };
    let copied = message.copy_to(exactly);
    let is_whole = to[length] == 0xEE && copied == Ok(length);
    message.requeue();
    format!("{length} bytes, {}", if is_whole { "intact" } else { "damaged" })
}

/// The writes between two instructions.
type Attack = fn(&Attached, &mut Rng);

/// A new claim, a new sleep, a new wake threshold, another message.
fn advances(hostile: &Attached, rng: &mut Rng) {
    for side in [PRODUCER, CONSUMER] {
        hostile.set(side + STATE, hostile.get(side + STATE).wrapping_add(4) | 1);
        hostile.set_u32(side + EVENT_COUNT, rng.word() as u32);
        hostile.set_u32(side + WAITER_EPOCH, rng.word() as u32 | 1);
        hostile.set(side + WAKE_THRESHOLD, 0);
    }
    hostile.set(HEAD, hostile.get(HEAD).wrapping_add(8));
    hostile.set(TAIL, hostile.get(TAIL).wrapping_add(8));
}

/// No record, a record, a wrap, at random.
fn changes_its_mind(hostile: &Attached, rng: &mut Rng) {
    for at in 0..4 {
        hostile.set(RING + 8 * at, [0, 1, 109, WRAP, 0, 2][rng.below(6) as usize]);
    }
    hostile.set(HEAD, rng.below(4) * 8);
    hostile.set(PRODUCER + STATE, [0, 5, 6, 9][rng.below(4) as usize]);
    hostile.set(CONSUMER + STATE, [0, 5, 6, 9][rng.below(4) as usize]);
}

fn writes_anything(hostile: &Attached, rng: &mut Rng) {
    for _ in 0..4 {
        let at = TAIL + 8 * rng.below((RING - TAIL + 64) as u64 / 8) as usize;
        hostile.set(at, rng.word());
    }
}

/// Rows 7 and 8: endless work, and a livelock in which the peer is always one step ahead.
pub fn a_call_takes_a_bounded_number_of_steps_whatever_is_written_between_them(backend: Backend) {
    share_a_core();
    let attacks: [(&str, Attack); 3] = [
        ("advances", advances),
        ("changes its mind", changes_its_mind),
        ("writes anything", writes_anything),
    ];
    let attacked = Attacked::new(backend);
    drop(attacked.ends());
    let image = attacked.image();
    let mut rng = Rng::of_this_run("steps");
    let mut longest = 0;
    for (name, attack) in attacks {
        for calls in [
            ["producer", "try_send", "try_send", "free", "try_reserve"],
            ["consumer", "try_recv", "try_recv", "drain one", "try_recv"],
        ] {
            attacked.hostile.copy_from(0, &image);
            let Some(mut victim) = Traced::start("stepped", &[attacked.place.as_str()]) else { return };
            for call in calls {
                victim.prepare(call);
                // A claim makes system calls. The next test counts its steps.
                if ["producer", "consumer"].contains(&call) {
                    assert_eq!(victim.finish(), "true");
                    continue;
                }
                let mut steps = 0;
                while victim.step() {
                    attack(&attacked.hostile, &mut rng);
                    steps += 1;
                    assert!(steps < STEPS, "{call}, with a peer that {name}");
                }
                longest = longest.max(steps);
                victim.result();
            }
        }
    }
    eprintln!("{backend:?}: at most {longest} instructions");
}

/// A claim walks over the ring once, whatever it contains and however it grows meanwhile.
pub fn a_claim_takes_a_bounded_number_of_steps_in_a_ring_full_of_records(backend: Backend) {
    share_a_core();
    let attacked = Attacked::new(backend);
    (RING..RING + CAPACITY as usize).step_by(64).for_each(|at| attacked.hostile.set(at, 57));
    let Some(mut victim) = Traced::start("stepped", &[attacked.place.as_str()]) else { return };
    victim.prepare("producer");
    let mut rng = Rng(8);
    let mut steps = 0;
    while victim.step() {
        // The read position stays, since a new one could end the walk by chance.
        attacked.hostile.set(CONSUMER + STATE, rng.word());
        attacked.hostile.set(RING + 64 * rng.below(CAPACITY / 64) as usize, 57);
        steps += 1;
        assert!(steps < 10 * STEPS, "an endless walk");
    }
    eprintln!("{backend:?}: {steps} instructions for {} records", CAPACITY / 64);
    assert_eq!(victim.result(), "false", "it is corrupt");
}
