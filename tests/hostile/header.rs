//! The page with the identity of the pipe, rewritten while the pipe is in use.

use crate::attacker::{Attacked, CAPACITY, MAX};
use crate::words::meanwhile;
use shmpipe::error::Damage;
use shmpipe::{Options, Wait};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::rng::Rng;

/// A record of all that a pair does in some laps of the ring: positions, lengths, contents, errors.
fn course(attacked: &Attacked) -> Vec<String> {
    let (mut producer, mut consumer) = attacked.ends();
    let mut rng = Rng(6);
    let mut course = vec![];
    for number in 0..3000u32 {
        let length = rng.below(MAX + 100) as usize;
        let sent = producer.try_send(&vec![number as u8; length]);
        course.push(format!("{sent:?} {:?}", producer.free()));
        if rng.below(3) > 0 {
            let received =
                consumer.try_recv().map(|message| (message.position(), message.tag(), message.to_vec()));
            course.push(format!("{received:?}"));
        }
    }
    let pipe = &attacked.pipe;
    course
        .push(format!("{:?}", (pipe.capacity(), pipe.max_len(), pipe.schema(), pipe.wake_mode(), pipe.id())));
    course.push(format!(
        "{:?}",
        (producer.max_len(), producer.capacity(), consumer.max_len(), consumer.peer())
    ));
    course
}

/// Row 6: the header is read once, when the pipe is opened.
pub fn the_header_rewritten_while_in_use(backend: Backend) {
    let options = Options::new().wait(Wait::Block).schema(77);
    let undisturbed = course(&Attacked::with(backend, &options));
    let attacked = Attacked::with(backend, &options);
    let hostile = &attacked.hostile;
    let image = attacked.image();
    let mut rng = Rng(7);
    let rewrite = || {
        for at in (0..512).step_by(8) {
            let value = match rng.below(4) {
                0 => 0,
                1 => u64::MAX,
                // A capacity of another ring, a wake mode of another pipe.
                2 => 1 << rng.below(42),
                _ => rng.word(),
            };
            hostile.set(at, value);
        }
    };
    let disturbed = meanwhile(rewrite, || course(&attacked));
    let id = |line: &str| line.split("SegmentId").next().unwrap().to_owned();
    for (number, (one, other)) in undisturbed.iter().zip(&disturbed).enumerate() {
        assert_eq!(id(one), id(other), "line {number}");
    }
    assert_eq!(undisturbed.len(), disturbed.len());
    assert_eq!(attacked.pipe.capacity(), CAPACITY);
    // A later opener uses the current header.
    hostile.copy_from(0, &image[..512]);
    hostile.set(24, 2 * CAPACITY);
    let error = shmpipe::inspect(&attacked.place).unwrap_err();
    assert!(matches!(error, shmpipe::SetupError::Damaged(Damage::TooSmall { .. })), "{error:?}");
    hostile.copy_from(0, &image[..512]);
}
