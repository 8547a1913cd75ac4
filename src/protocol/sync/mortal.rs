//! Loom's atomics in a process that can be killed between any two of its stores.
//!
//! A model runs the victim's code to its end. But from some step on, the victim's stores and wake-ups have no effect, and it does not
//! sleep. To the other threads, this looks as if the victim was killed at that step.

use super::Ordering;
use std::cell::Cell;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Immortal,
    /// Dies after this many more steps.
    Steps(u32),
    Dead,
}

loom::thread_local! {
    static LIFE: Cell<Life> = Cell::new(Life::Immortal);
}

/// Runs `victim` as a process that is killed after `steps` steps: stores, sleeps and wake-ups. Returns whether it was killed before its
/// end.
pub(crate) fn killed_after(steps: u32, victim: impl FnOnce()) -> bool {
    LIFE.with(|life| life.set(Life::Steps(steps)));
    victim();
    LIFE.with(|life| life.replace(Life::Immortal)) == Life::Dead
}

/// A fence, if the calling process is still alive.
pub(crate) fn fence(order: Ordering) {
    if LIFE.with(|life| !matches!(life.get(), Life::Steps(0) | Life::Dead)) {
        loom::sync::atomic::fence(order);
    }
}

/// Takes a step of the calling process. Returns whether it is still alive.
pub(super) fn step() -> bool {
    LIFE.with(|life| {
        let (next, alive) = match life.get() {
            Life::Immortal => (Life::Immortal, true),
            Life::Steps(0) | Life::Dead => (Life::Dead, false),
            Life::Steps(steps) => (Life::Steps(steps - 1), true),
        };
        life.set(next);
        alive
    })
}

macro_rules! atomic {
    ($name:ident, $value:ty) => {
        pub(crate) struct $name(loom::sync::atomic::$name);

        impl $name {
            pub(crate) fn new(value: $value) -> Self {
                $name(loom::sync::atomic::$name::new(value))
            }

            pub(crate) fn load(&self, order: Ordering) -> $value {
                self.0.load(order)
            }

            pub(crate) fn store(&self, value: $value, order: Ordering) {
                if step() {
                    self.0.store(value, order);
                }
            }

            #[allow(dead_code, reason = "no model needs it for every type")]
            pub(crate) fn fetch_add(&self, more: $value, order: Ordering) {
                if step() {
                    self.0.fetch_add(more, order);
                }
            }

            /// Of a dead process, it succeeds and has no effect, so that the victim's code comes to its end.
            #[allow(dead_code, reason = "no model needs it for every type")]
            pub(crate) fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                if step() { self.0.compare_exchange(current, new, success, failure) } else { Ok(current) }
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
