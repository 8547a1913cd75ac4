//! The driver: one thread of the process that watches the pipes that no thread blocks for, such as those that futures wait for.
//!
//! An endpoint is *registered* with it. To wait, the thread that has the endpoint stores a [`Waker`], announces a sleep and looks again,
//! as a thread does that goes to sleep itself. The driver watches the words of all registered endpoints. When one changes it wakes the
//! waker, and every 100 ms it asks the kernel about the peers of those that wait. Only the thread that has the endpoint acts on it.

use crate::endpoint::wait::{SLICE, SPINS_PER_CLOCK_READ};
use crate::endpoint::watched::Watched;
use crate::error::{CheckError, SetupError, Unsupported, failed};
use crate::protocol::liveness::{Role, State};
use crate::protocol::sleep::{Interest, Sleep};
use crate::protocol::sync::{Futex, Mutex, spin_loop};
use crate::protocol::wakeup::{self, WakeMode};
use crate::segment::Segment;
use crate::sys::fork::NoFork;
use crate::sys::process::Process;
use crate::waiting::watch::{self, Subject, Watch};
use crate::waiting::words::EndpointWord;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// What the driver and the thread that has an endpoint share.
#[derive(Default)]
struct Slot(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    waker: Option<Waker>,
    /// Whether to ask the kernel about the peer. If not, its end was reported.
    asks_about_peer: bool,
    /// Whether the kernel said something that the endpoint must look into.
    is_suspect: bool,
}

impl Slot {
    fn with<T>(&self, act: impl FnOnce(&mut Waiting) -> T) -> T {
        act(&mut self.0.lock().expect(NO_PANIC))
    }
}

/// A registered endpoint, as the driver sees it.
struct Subscriber {
    word: EndpointWord,
    claimed_role: Role,
    slot: Arc<Slot>,
}

impl Subject for Subscriber {
    type Notice = Arc<Slot>;

    const TICK: Option<Duration> = Some(SLICE);

    fn word(&self) -> &Futex {
        self.word.word()
    }

    fn notice(&self) -> Arc<Slot> {
        self.slot.clone()
    }

    fn send(slot: Arc<Slot>) {
        if let Some(waker) = slot.with(|waiting| waiting.waker.take()) {
            // Its panic is none of the other endpoints' business.
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }

    fn tick(&self) -> bool {
        let Some(asks_about_peer) =
            self.slot.with(|waiting| waiting.waker.is_some().then_some(waiting.asks_about_peer))
        else {
            return false;
        };
        let Segment { roles, mapping, .. } = &*self.word.segment;
        let (header, role) = (mapping.header(), self.claimed_role);
        let holds = roles.holds(header, role);
        let peer_is_there = || roles.is_free(header, role.peer()).map(|is_free| !is_free);
        let is_fine = matches!(holds, Ok(true)) && (!asks_about_peer || matches!(peer_is_there(), Ok(true)));
        if !is_fine {
            self.slot.with(|waiting| waiting.is_suspect = true);
        }
        !is_fine
    }
}

/// The threads of a process, each with its free places.
struct Driver {
    process: Process,
    threads: Vec<(Watch<Subscriber>, Vec<usize>)>,
}

static DRIVER: std::sync::Mutex<Option<Driver>> = std::sync::Mutex::new(None);

/// Runs `act` with the driver of this process. No thread forks meanwhile: a child would find the lock held.
fn with_driver<T>(act: impl FnOnce(&mut Driver) -> T) -> T {
    let _no_fork = NoFork::now();
    // Each change is complete before anything can panic.
    let mut driver = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
    if driver.as_ref().is_some_and(|driver| !driver.process.is_current()) {
        // The threads are the parent's.
        mem::forget(driver.take());
    }
    act(driver.get_or_insert_with(|| Driver { process: Process::current(), threads: vec![] }))
}

/// A registered endpoint.
pub(crate) struct Registered {
    thread: usize,
    place: usize,
    process: Process,
    slot: Arc<Slot>,
    /// What was announced, and is not answered yet as far as known.
    asleep: Option<(Interest, Sleep)>,
    patience: Patience,
}

/// Whether a poll that finds nothing looks again for a moment before it leaves the rest to the driver, which takes two wake-ups.
///
/// It does so only while that pays: a look of up to [`MOMENT`](Self::MOMENT) that finds nothing costs a credit, and a wait that was over
/// within [`SOON`](Self::SOON) earns one. So a conversation is as quick as between threads, and a thread that has other tasks is not
/// held up by pipes in which nothing happens.
#[derive(Debug, Default)]
struct Patience {
    credit: u32,
    /// When the latest wait began.
    since: Option<Instant>,
}

impl Patience {
    const MOMENT: Duration = Duration::from_micros(10);
    /// Two wake-ups and a moment.
    const SOON: Duration = Duration::from_micros(60);
    const MOST: u32 = 4;

    /// Looks for a moment, if that pays. Returns whether `is_there` was true.
    fn look(&mut self, mut is_there: impl FnMut() -> bool) -> bool {
        if self.credit == 0 {
            return false;
        }
        let since = Instant::now();
        loop {
            for _ in 0..SPINS_PER_CLOCK_READ {
                if is_there() {
                    self.credit = Self::MOST;
                    return true;
                }
                spin_loop();
            }
            if since.elapsed() >= Self::MOMENT {
                self.credit -= 1;
                return false;
            }
        }
    }

    /// A poll has found nothing.
    fn begin(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    /// A poll has found something.
    fn end(&mut self) {
        if self.since.take().is_some_and(|since| since.elapsed() < Self::SOON) {
            self.credit = Self::MOST.min(self.credit + 1);
        }
    }
}

impl Registered {
    /// Fails if no peer would ever wake the endpoint, or if a thread cannot be started.
    pub(crate) fn new(endpoint: &dyn Watched) -> Result<Self, SetupError> {
        if endpoint.pipe().wake_mode() == WakeMode::Never {
            return Err(SetupError::Unsupported(Unsupported::Block));
        }
        let slot = Arc::new(Slot::default());
        let word = EndpointWord::of(endpoint);
        let subscriber = Subscriber { word, claimed_role: endpoint.claimed_role(), slot: slot.clone() };
        with_driver(|driver| {
            let Driver { process, threads } = driver;
            let thread = match threads.iter().position(|(_, free)| !free.is_empty()) {
                Some(thread) => thread,
                None => {
                    let started = Watch::start();
                    let watch = started.map_err(failed("pthread_create"))?;
                    threads.push((watch, (0..watch::MOST).rev().collect()));
                    threads.len() - 1
                }
            };
            let (watch, free) = &mut threads[thread];
            let place = free.pop().expect("a thread with a free place");
            watch.insert(place, subscriber);
            Ok(Registered {
                thread,
                place,
                process: *process,
                slot,
                asleep: None,
                patience: Patience::default(),
            })
        })
    }

    /// Whether what is awaited is there. If not, the waker will be woken when it may be, or when there is an end.
    pub(crate) fn poll_ready(
        &mut self,
        endpoint: &mut dyn Watched,
        interest: Interest,
        waker: &Waker,
    ) -> Poll<Result<(), CheckError>> {
        self.poll_until(endpoint, interest, waker, |endpoint, is_suspect| {
            if is_suspect { endpoint.check(interest) } else { endpoint.poll(interest) }
        })
    }

    /// As [`poll_ready`](Self::poll_ready), with another question, which is also told whether the kernel is to be asked.
    pub(crate) fn poll_until<E>(
        &mut self,
        endpoint: &mut dyn Watched,
        interest: Interest,
        waker: &Waker,
        mut is_ready: impl FnMut(&mut dyn Watched, bool) -> Result<bool, E>,
    ) -> Poll<Result<(), E>> {
        for _ in 0..MOST_LOOKS {
            let state = endpoint.peer_state();
            let is_suspect = self.slot.with(|waiting| mem::take(&mut waiting.is_suspect));
            match is_ready(endpoint, is_suspect) {
                Ok(false) => {}
                done => {
                    self.patience.end();
                    self.forget_waker(endpoint);
                    return Poll::Ready(done.map(drop));
                }
            }
            if self.asleep.is_none() && self.patience.look(|| endpoint.has(interest)) {
                continue;
            }
            self.patience.begin();
            // Before the last look: an answer to the sleep from now on finds the waker.
            let replaced = self.slot.with(|waiting| {
                waiting.asks_about_peer = endpoint.may_die(state);
                let is_known = waiting.waker.as_ref().is_some_and(|known| known.will_wake(waker));
                if is_known { None } else { waiting.waker.replace(waker.clone()) }
            });
            // Without the lock: it may run any code.
            drop(replaced);
            if self.falls_asleep(endpoint, interest, state) {
                return Poll::Pending;
            }
        }
        // Something happens at every look, and is never what is awaited. A correct peer does not do that for long.
        waker.wake_by_ref();
        Poll::Pending
    }

    /// Announces a sleep, unless one is, and looks once more. Returns whether there is still nothing.
    fn falls_asleep(&mut self, endpoint: &dyn Watched, interest: Interest, state: State) -> bool {
        let mode = endpoint.pipe().wake_mode();
        let sleep = match self.asleep {
            Some((announced, sleep)) if announced == interest && !sleep.is_answered() => sleep,
            _ => {
                let sleep = endpoint.announce(interest, state);
                wakeup::before_sleeping(mode);
                sleep
            }
        };
        let is_pending = sleep.is_pending();
        self.asleep = is_pending.then_some((interest, sleep));
        is_pending
    }

    /// Ends a wait: nothing is woken any more.
    pub(crate) fn forget_waker(&mut self, endpoint: &dyn Watched) {
        if !self.process.is_current() {
            return;
        }
        drop(self.slot.with(|waiting| waiting.waker.take()));
        if self.asleep.take().is_some() {
            endpoint.withdraw();
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if self.process.is_current() {
            with_driver(|driver| {
                let (watch, free) = &mut driver.threads[self.thread];
                watch.remove(self.place);
                free.push(self.place);
            });
        }
    }
}

/// How often a poll looks, so that each does bounded work.
const MOST_LOOKS: u32 = 16;

const NO_PANIC: &str = "no thread panics while it holds a slot";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_looks_for_a_moment_only_while_that_pays() {
        let mut patience = Patience::default();
        assert!(!patience.look(|| unreachable!("it has not paid yet")));
        // A wait that was soon over.
        patience.begin();
        patience.end();
        assert_eq!(patience.credit, 1);
        let mut looks = 0;
        let found = patience.look(|| {
            looks += 1;
            looks == 3
        });
        assert!(found && patience.credit == Patience::MOST);
        for _ in 0..Patience::MOST {
            assert!(!patience.look(|| false));
        }
        assert!(!patience.look(|| unreachable!("it has stopped paying")));
        // A wait that was long earns nothing.
        patience.since = Instant::now().checked_sub(Patience::SOON);
        patience.end();
        assert_eq!((patience.credit, patience.since), (0, None));
    }
}
