//! What a process sees that reads the ring without the library.

use crate::attacker::{Attacked, CAPACITY, MAX, RING};
use shmpipe::Vectored;
use shmpipe_testing::backend::Backend;

/// A byte that is never sent.
const SECRET: u8 = 0xA7;

fn shown(attacked: &Attacked) -> bool {
    attacked.image()[RING..].contains(&SECRET)
}

/// Row 27: the sender's memory around a message does not reach the ring, for any length and address. The padding of a
/// record does not show bytes of an earlier message.
pub fn padding_shows_nothing_of_the_senders_memory(backend: Backend) {
    let attacked = Attacked::new(backend);
    let (mut producer, mut consumer) = attacked.ends();
    let mut memory = vec![SECRET; MAX as usize + 256];
    // Except lengths whose header word contains that byte.
    let lengths = (0..300usize).chain([1000, 1023, 1500, 2033, 2039, 2040]);
    for length in lengths.filter(|length| (length + 1).to_le_bytes()[0] != SECRET) {
        for offset in [0, 1, 7, 8, 63, 100] {
            memory[offset..offset + length].fill(1);
            let message = &memory[offset..offset + length];
            producer.send(message).unwrap();
            // The other ways to send.
            consumer.recv().unwrap().release();
            let mut batch = producer.batch();
            batch.push(message).unwrap();
            batch.commit();
            consumer.recv().unwrap().release();
            producer.send(Vectored(&[&message[..length / 2], &message[length / 2..]])).unwrap();
            consumer.recv().unwrap().release();
            let mut space = producer.reserve((length + 9).min(MAX as usize)).unwrap();
            space.write(0, message);
            space.commit_len(length);
            consumer.recv().unwrap().release();
            memory[offset..offset + length].fill(SECRET);
        }
        assert!(!shown(&attacked), "{length} bytes");
    }
    // Short messages over the bytes of long ones: sent, reserved, and shorter than reserved.
    let spares = [None, Some(0), Some(20)];
    for (length, spare) in (1..40usize).flat_map(|length| spares.map(|spare| (length, spare))) {
        for _ in 0..10 {
            producer.send(&[2; 1000]).unwrap();
            consumer.recv().unwrap().release();
        }
        let position = match spare {
            Some(spare) => {
                let mut space = producer.reserve(length + spare).unwrap();
                space.write(0, &vec![1; length]);
                space.commit_len(length)
            }
            None => producer.send(&vec![1; length]).unwrap(),
        };
        let index = RING + (position.get() % CAPACITY) as usize;
        let record = &attacked.image()[index + 8..index + 8 + length.next_multiple_of(8)];
        assert!(record[..length].iter().all(|&byte| byte == 1));
        assert!(record[length..].iter().all(|&byte| byte == 0), "{length}: {record:?}");
        consumer.recv().unwrap().release();
    }
}

/// A reservation is shared memory from the start: the peer can read what is written to it, sent or not. Bytes not written
/// keep what the ring held before, and show nothing of this process.
pub fn a_reservation_shows_only_what_was_written_to_it(backend: Backend) {
    let attacked = Attacked::new(backend);
    let (mut producer, mut consumer) = attacked.ends();
    // Something on the stack and on the heap that could leak.
    let secret = std::hint::black_box(vec![SECRET; 4096]);
    producer.reserve(MAX as usize).unwrap().commit();
    assert_eq!(consumer.recv().unwrap().to_vec(), [0; MAX as usize]);
    producer.reserve(600).unwrap().commit_len(500);
    assert_eq!(consumer.recv().unwrap().to_vec(), [0; 500]);
    drop(producer.reserve(700).unwrap());
    assert!(!shown(&attacked), "{}", secret.len());
    // As documented, bytes written are visible even if the reservation is dropped.
    let mut space = producer.reserve(300).unwrap();
    space.write(100, &[SECRET; 50]);
    drop(space);
    assert!(shown(&attacked));
}
