//! Inspecting a pipe whose words a hostile process writes.

use crate::attacker::{Attacked, CAPACITY, RING, WRAP, edges, list_alone};
use crate::words::meanwhile;
use shmpipe::error::{Damage, Mismatch};
use shmpipe::{SetupError, inspect};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::rng::Rng;
use shmpipe_testing::within;
use std::time::{Duration, Instant};

/// A snapshot may contain nonsense, but no word makes `inspect` panic, hang or return an unexpected error.
pub fn inspecting_what_a_hostile_process_writes(backend: Backend) {
    let attacked = Attacked::new(backend);
    let hostile = &attacked.hostile;
    let image = attacked.image();
    let try_inspect = |what: &dyn std::fmt::Debug| match inspect(&attacked.place) {
        Ok(seen) => {
            assert!(seen.used <= CAPACITY, "{what:?}: {} used", seen.used);
            assert!(!format!("{seen:?}").is_empty());
        }
        Err(
            SetupError::Foreign { .. }
            | SetupError::Damaged(Damage::Header { .. })
            | SetupError::Damaged(Damage::TooSmall { .. })
            | SetupError::Incompatible(Mismatch::LayoutVersion { .. })
            | SetupError::Incompatible(Mismatch::ByteOrder)
            | SetupError::Incompatible(Mismatch::Features { .. })
            | SetupError::Incompatible(Mismatch::Name { .. })
            | SetupError::Damaged(Damage::Incomplete { .. })
            | SetupError::Damaged(Damage::Stale { .. }),
        ) => {}
        Err(error) => panic!("{what:?}: {error:?}"),
    };
    // Every word that can differ from zero, and the first words of the ring.
    for at in (8..168).chain(512..1200).step_by(8).chain([RING, RING + 8]) {
        // Not all edges, since each inspection takes a while.
        for value in edges(hostile.get(at)).into_iter().step_by(31).chain([u64::MAX]) {
            hostile.set(at, value);
            try_inspect(&(at, value));
        }
        hostile.copy_from(at, &image[at..at + 8]);
    }
    // Endless rings.
    for word in [1, WRAP, 9, 2041] {
        (RING..RING + CAPACITY as usize).step_by(8).for_each(|at| hostile.set(at, word));
        try_inspect(&word);
    }
    // All words at once, during an inspection.
    let mut rng = Rng::of_this_run("watching");
    let scribble = || {
        for _ in 0..20 {
            let at = 8 + 8 * rng.below(1200 / 8) as usize;
            let value = if rng.below(2) == 0 { rng.word() } else { rng.below(64) };
            hostile.set(at, value);
        }
        hostile.copy_from(0, &image[..512]);
    };
    meanwhile(scribble, || {
        let until = within(Duration::from_millis(300));
        while Instant::now() < until {
            try_inspect(&"scribbled");
        }
        (0..5).for_each(|_| drop(list_alone()));
    });
}
