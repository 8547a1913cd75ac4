//! A partner thread in this process, which does all that a partner process does.
//!
//! It attaches the control segment and the memory of joinable transports a second time, so that it uses other addresses than
//! the session, as a process would.

use std::io;
use std::rc::Rc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{join_all, obey};
use crate::affinity;
use crate::control::Control;
use crate::errors::about;
use crate::floor::Floor;
use crate::invitation::Letter;
use crate::transports::Transport;
use crate::watchdog::{AGAIN, Sleeper};

/// One of the two threads has ended or is about to, so the other must not wait for it.
static SEVERED: AtomicBool = AtomicBool::new(false);

/// An error if the other thread has ended. For both threads.
pub(super) fn still_lives() -> io::Result<()> {
    // ORDERING: Acquire, with the Release store in `sever`: sees all that the other thread did before it ended.
    if SEVERED.load(Acquire) {
        return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the other thread has ended"));
    }
    Ok(())
}

/// Resets the flag for a new session.
pub(crate) fn begin() {
    // Relaxed: the last session's thread has ended, and this thread starts the next one
    SEVERED.store(false, Relaxed);
}

fn sever() {
    // ORDERING: Release, with the Acquire load in `still_lives`.
    SEVERED.store(true, Release);
}

/// The session's handle of the partner thread. A thread cannot be killed, so it gets a request to end, and is abandoned if it
/// does not.
pub(crate) struct Thread {
    handle: Option<JoinHandle<io::Result<()>>>,
    shared: Arc<Shared>,
}

/// Signals between the two threads at the end.
#[derive(Default)]
struct Shared {
    /// The partner thread, once it has started.
    partner: OnceLock<Sleeper>,
    /// The session knows that the partner has ended, or does not wait for it.
    noticed: AtomicBool,
}

/// The arguments of the partner thread.
pub(crate) struct Start {
    /// The identifier of the control segment.
    pub(crate) control: i32,
    /// The number of throws of the ball so far.
    pub(crate) thrown: u64,
    /// The CPU to run on.
    pub(crate) cpu: Option<usize>,
    /// The invitation of each transport.
    pub(crate) letters: Vec<(&'static dyn Transport, Letter)>,
}

impl Thread {
    /// Starts it. It catches the ball once before it joins the transports, and once after that.
    pub(crate) fn start(start: Start) -> io::Result<Thread> {
        let thread = thread::Builder::new().name("shmpipe-partner".to_owned());
        let shared = Arc::new(Shared::default());
        let (theirs, session) = (Arc::clone(&shared), Sleeper::this());
        let handle = thread.spawn(move || {
            let _ = theirs.partner.set(Sleeper::this());
            let _ending = Ending { shared: theirs, session }; // dropped when all else has been, in a panic too
            serve(start)
        });
        let handle =
            handle.map_err(|error| about(format_args!("cannot start the partner's thread"), error))?;
        Ok(Thread { handle: Some(handle), shared })
    }

    /// Waits a moment for it to end by itself, and returns how it ended.
    pub(crate) fn ending(&mut self, patience: Duration) -> Option<String> {
        self.wait(patience, || {})
    }

    /// Ends its waits in polling loops and in interruptible calls. The caller has dropped all transports, which ends most
    /// other waits. Returns whether the thread has ended.
    pub(crate) fn end(&mut self, patience: Duration) -> bool {
        sever();
        let shared = Arc::clone(&self.shared);
        let interrupt = || {
            if let Some(partner) = shared.partner.get() {
                partner.interrupt();
            }
        };
        self.handle.is_none() || self.wait(patience, interrupt).is_some()
    }

    fn wait(&mut self, patience: Duration, nudge: impl Fn()) -> Option<String> {
        self.shared.noticed.store(true, Relaxed); // read by a thread that is waited for here
        let start = Instant::now();
        let handle = self.handle.as_ref()?;
        handle.thread().unpark();
        while !handle.is_finished() {
            if start.elapsed() >= patience {
                return None;
            }
            nudge();
            thread::sleep(Duration::from_millis(1));
        }
        Some(match self.handle.take()?.join() {
            Ok(Ok(())) => "in good order".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it panicked".to_owned(),
        })
    }
}

/// At the end of the partner thread, notifies the session, even in a sleeping call.
struct Ending {
    shared: Arc<Shared>,
    session: Sleeper,
}

impl Drop for Ending {
    fn drop(&mut self) {
        sever();
        // Relaxed: no data depends on it
        while !self.shared.noticed.load(Relaxed) {
            self.session.interrupt();
            thread::park_timeout(AGAIN);
        }
    }
}

fn serve(start: Start) -> io::Result<()> {
    let Start { control, thrown, cpu, letters } = start;
    let control = Rc::new(Control::join(control)?);
    if let Some(cpu) = cpu {
        affinity::pin(cpu)?;
    }
    let mut floor = Floor::resume(Rc::clone(&control), thrown);
    floor.answer_untimed(1)?;
    let mut endpoints = join_all(letters)?;
    floor.answer_untimed(1)?; // everything is joined
    obey(&control, &mut floor, &mut endpoints)
}
