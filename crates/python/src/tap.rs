//! Looking at the messages that pass, without taking part.

use crate::errors;
use crate::fork::Process;
use crate::producer::peer_name;
use crate::waiting::{nap_of, sleep};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use shmpipe::{Address, Lost, Peer, RecvError, SegmentId, SetupError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often to ask, while nothing passes, what became of the producer and of the pipe.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Looks at the messages that pass through a pipe, without taking part: those sent from now on, or with unread=True first those that the
/// consumer has not released. In a duplex pipe, those from side A to side B.
///
/// Needs permission to read, takes no role and makes no side wait. So the producer may overwrite a message before the tap has copied
/// it; what the tap missed it says. Threads may share one: each message goes to one of them.
///
/// Raises NotFound if there is no pipe, and other SetupErrors.
#[pyclass(frozen, module = "shmpipe")]
pub struct Tap {
    /// Locked only by a thread that has the interpreter, and only while it runs no code of the interpreter that could lock it again.
    tap: Mutex<shmpipe::Tap>,
    address: Address,
    id: SegmentId,
    process: Process,
}

/// A message that a Tap has seen.
#[pyclass(frozen, get_all, module = "shmpipe")]
pub struct Passed {
    /// The position that Producer.send returned.
    position: u64,
    /// The tag that the producer set; 0 without one.
    tag: u32,
    /// The message: a copy.
    data: Py<PyBytes>,
}

/// What a Tap has missed: the producer overwrote messages before the tap had copied them.
#[pyclass(frozen, get_all, module = "shmpipe")]
pub struct Missed {
    /// The bytes of the stream that they took.
    bytes: u64,
}

/// What passes, until the producer closes: see [`Tap::follow`].
#[pyclass(frozen, module = "shmpipe")]
pub struct Follow {
    tap: Py<Tap>,
    interval: Duration,
}

#[derive(IntoPyObject)]
pub enum Seen {
    Passed(Passed),
    Missed(Missed),
}

impl Tap {
    fn new(tap: shmpipe::Tap, unread: bool, address: Address) -> Self {
        let tap = if unread { tap.with_unread() } else { tap };
        Tap { id: tap.id(), tap: Mutex::new(tap), address, process: Process::current() }
    }

    fn tap(&self) -> PyResult<MutexGuard<'_, shmpipe::Tap>> {
        self.process.check()?;
        Ok(self.tap.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether nothing more will pass, once nothing does. An end that is not a close is an error.
    fn is_over(&self, py: Python<'_>, producer: Peer) -> PyResult<bool> {
        match producer {
            Peer::Open => Ok(false),
            Peer::Closed => Ok(true),
            Peer::Aborted { code } => Err(errors::recv(RecvError::PeerAborted { code })),
            Peer::Died => Err(errors::recv(RecvError::PeerDied)),
            Peer::NeverCame | Peer::Unknown => self.check_in_place(py).map(|()| false),
        }
    }

    /// Fails if the pipe was removed: then no producer will come.
    fn check_in_place(&self, py: Python<'_>) -> PyResult<()> {
        match py.detach(|| shmpipe::inspect(&self.address)) {
            Ok(found) if found.segment_id == self.id => Ok(()),
            Ok(_) => Err(errors::lost(Lost::Replaced)),
            Err(SetupError::NotFound { .. }) => Err(errors::lost(Lost::Removed)),
            Err(error) => Err(errors::setup(error)),
        }
    }
}

#[pymethods]
impl Tap {
    #[new]
    #[pyo3(signature = (address, *, unread = false))]
    fn open(py: Python<'_>, address: &str, unread: bool) -> PyResult<Self> {
        let opened = py.detach(|| {
            let address = Address::try_from(address)?;
            shmpipe::Tap::open(&address).map(|tap| Tap::new(tap, unread, address))
        });
        opened.map_err(errors::setup)
    }

    /// Opens a tap on the other direction of a duplex pipe. None if the pipe has one direction.
    #[pyo3(signature = (*, unread = false))]
    fn back(&self, unread: bool) -> PyResult<Option<Self>> {
        Ok(self.tap()?.back().map(|back| Tap::new(back, unread, self.address.clone())))
    }

    /// Returns the next message that passed, or what was missed before it, or None if no other was sent yet.
    ///
    /// Never waits. Look again after a pause, such as a millisecond: a tap that looks without one takes cache lines from the two sides.
    /// Raises Corrupt, and Lost in a forked child.
    fn next(&self, py: Python<'_>) -> PyResult<Option<Seen>> {
        let mut tap = self.tap()?;
        match tap.next().map_err(errors::corrupt)? {
            Some(shmpipe::Passed::Message { position, tag, bytes, .. }) => {
                let data = PyBytes::new_with(py, bytes.len(), |copy| {
                    copy.copy_from_slice(bytes);
                    Ok(())
                })?;
                Ok(Some(Seen::Passed(Passed { position: position.get(), tag, data: data.unbind() })))
            }
            Some(shmpipe::Passed::Missed { bytes, .. }) => Ok(Some(Seen::Missed(Missed { bytes }))),
            _ => Ok(None),
        }
    }

    /// Returns an iterator over what passes, as next returns it, which sleeps for `interval` seconds where nothing does.
    ///
    /// Ends when the producer has closed and everything was seen. Raises PeerAborted or PeerDied instead if it did not close, Lost if the
    /// pipe is removed before a producer came, and otherwise as next.
    #[pyo3(signature = (interval = 0.001))]
    fn follow(slf: Bound<'_, Self>, interval: f64) -> PyResult<Follow> {
        Ok(Follow { interval: nap_of(interval)?, tap: slf.unbind() })
    }

    /// The state of the producer: "never came", "open", "closed", "aborted", "died" or "unknown". A system call.
    #[getter]
    fn producer(&self) -> PyResult<&'static str> {
        Ok(peer_name(self.tap()?.producer()))
    }
}

#[pymethods]
impl Passed {
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let Passed { position, tag, data } = self;
        let data = data.bind(py).repr()?;
        Ok(format!("<shmpipe.Passed at {position}, tag {tag}: {data}>"))
    }
}

#[pymethods]
impl Missed {
    fn __repr__(&self) -> String {
        format!("<shmpipe.Missed {} bytes>", self.bytes)
    }
}

#[pymethods]
impl Follow {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Seen>> {
        let tap = self.tap.get();
        let mut checked: Option<Instant> = None;
        loop {
            if let Some(seen) = tap.next(py)? {
                return Ok(Some(seen));
            }
            if checked.is_none_or(|checked| checked.elapsed() >= CHECK_INTERVAL) {
                checked = Some(Instant::now());
                let producer = tap.tap()?.producer();
                if producer != Peer::Open {
                    // What it sent before it ended comes first.
                    if let Some(seen) = tap.next(py)? {
                        return Ok(Some(seen));
                    }
                    if tap.is_over(py, producer)? {
                        return Ok(None);
                    }
                }
            }
            sleep(py, self.interval)?;
        }
    }
}
