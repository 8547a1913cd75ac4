//! Slow sides: how often one wakes the other.

use shmpipe::{Options, Wait, WakeMode, inspect};
use shmpipe_testing::backend::Backend;
use std::thread;
use std::time::Duration;

pub fn a_producer_ahead_of_its_consumer_sleeps_once_per_share(backend: Backend) {
    const MESSAGES: u64 = 1000;
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(1 << 16)).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    thread::scope(|scope| {
        scope.spawn(move || (0..MESSAGES).map(|_| producer.send(&[7; 248]).unwrap()).count());
        for _ in 0..MESSAGES {
            consumer.recv().unwrap().release();
            thread::sleep(Duration::from_micros(100));
        }
    });
    // A share is 64 messages.
    let woken = inspect(&place).unwrap().consumer.wakeups;
    assert!(woken < MESSAGES / 8, "woken {woken} times for {MESSAGES} messages");
}

pub fn a_napping_consumer_is_never_woken(backend: Backend) {
    for mode in [WakeMode::Membarrier, WakeMode::Fence, WakeMode::Never] {
        let place = backend.place();
        let nap = Options::new().wake_mode(mode).wait(Wait::Sleep(Duration::from_millis(2)));
        let pipe = place.create(&nap).unwrap();
        let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
        thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..20 {
                    thread::sleep(Duration::from_millis(5));
                    producer.send(b"a line").unwrap();
                }
            });
            (0..20).for_each(|_| assert_eq!(consumer.recv().unwrap().to_vec(), b"a line"));
        });
        let seen = inspect(&place).unwrap();
        // Closing wakes a sleeper without counting it.
        assert_eq!((seen.producer.wakeups, seen.consumer.wakeups), (0, 0), "{mode}");
        assert_ne!(seen.consumer.waits, 0);
    }
}
