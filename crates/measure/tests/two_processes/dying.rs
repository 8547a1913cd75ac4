//! Partners that die in the middle of a slice.

use std::thread;
use std::time::{Duration, Instant};

use shmpipe_measure::{Config, Experiment, Session, Settings, transports};

pub fn partner_death_during_a_slice_is_an_error() {
    for transport in transports::ALL {
        for experiment in [Experiment::RoundTrip, Experiment::Streaming] {
            let settings = Settings { capacity: 1 << 14, ..Settings::default() };
            let mut session = Session::start(&settings, &[*transport]).unwrap();
            let partner = session.partner_id() as i32;
            let killer = thread::spawn(move || {
                thread::sleep(Duration::from_millis(50));
                super::kill(partner, libc::SIGKILL);
            });
            let start = Instant::now();
            // more messages than it can send, so that it dies before the last
            let config = Config { experiment, transport: 0, size: 64 };
            let error = session.slice(config, u64::MAX).unwrap_err();
            killer.join().unwrap();
            let (name, took) = (transport.name(), start.elapsed());
            assert!(error.to_string().contains("the partner process ended early"), "{name}: {error}");
            assert!(took < Duration::from_secs(20), "{name}: an error after {took:?}");
        }
    }
}
