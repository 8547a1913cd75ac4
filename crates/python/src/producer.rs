//! The producer.

use crate::buffer::{Bytes, Items};
use crate::cell::{Cell, End};
use crate::errors;
use crate::fork::Process;
use crate::waiting::Deadline;
use pyo3::exceptions::{PyBaseException, PyMemoryError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use shmpipe::{CancelHandle, CloseError, Peer, SendTimeoutError, Tagged, TrySendError};

/// From this length on, a message is copied without the interpreter.
pub const LONG: usize = 64 << 10;

/// A batch becomes visible with this many messages,
const BATCH: usize = 64;

/// or with this many bytes of them. More would make the other end wait for what leaves the caches before it gets it.
const BATCH_BYTES: usize = 16 << 10;

/// Sends messages.
///
/// A context manager: closes the pipe at the end of the block, or aborts it if an exception ends the block.
#[pyclass(frozen, module = "shmpipe")]
pub struct Producer {
    cell: Cell<shmpipe::Producer>,
    max_len: usize,
}

impl End for shmpipe::Producer {
    fn cancel_handle(&self) -> CancelHandle {
        self.cancel_handle()
    }

    fn close(self) -> Result<(), CloseError> {
        self.close()
    }

    fn abort(self, code: u32) -> Result<(), CloseError> {
        self.abort(code)
    }
}

impl Producer {
    pub fn new(producer: shmpipe::Producer) -> Self {
        Producer { max_len: producer.max_len(), cell: Cell::new(producer) }
    }
}

pub fn peer_name(peer: Peer) -> &'static str {
    match peer {
        Peer::NeverCame => "never came",
        Peer::Open => "open",
        Peer::Closed => "closed",
        Peer::Aborted { .. } => "aborted",
        Peer::Died => "died",
        Peer::Unknown => "unknown",
    }
}

/// Sends one message.
#[inline]
fn send_one(
    py: Python<'_>,
    producer: &mut shmpipe::Producer,
    bytes: &Bytes<'_, '_>,
    tag: u32,
    deadline: &Deadline,
) -> PyResult<u64> {
    let message = bytes.as_slice();
    let is_detached = message.len() >= LONG && bytes.are_immutable();
    if !is_detached {
        match producer.try_send(Tagged(tag, message)) {
            Ok(position) => return Ok(position.get()),
            Err(TrySendError::Full) => {}
            Err(error) => return Err(errors::try_send(error)),
        }
    }
    if bytes.are_immutable() {
        return send_detached(py, producer, message, tag, deadline);
    }
    if deadline.is_over() {
        py.check_signals()?;
        return Err(errors::timed_out());
    }
    // Other threads may change the message while this one waits.
    let mut copy = Vec::new();
    copy.try_reserve_exact(message.len()).map_err(|error| PyMemoryError::new_err(error.to_string()))?;
    copy.extend_from_slice(message);
    send_detached(py, producer, &copy, tag, deadline)
}

/// Sends one message, and waits for space, without the interpreter.
#[cold]
fn send_detached(
    py: Python<'_>,
    producer: &mut shmpipe::Producer,
    message: &[u8],
    tag: u32,
    deadline: &Deadline,
) -> PyResult<u64> {
    let mut sent = 0;
    let waited = deadline.wait(
        py,
        |error| matches!(error, SendTimeoutError::TimedOut),
        |until| producer.send_deadline(Tagged(tag, message), until).map(|position| sent = position.get()),
    )?;
    waited.map(|()| sent).map_err(errors::send_timeout)
}

/// What `send_all` has sent, and what ended it too early.
type Sent = (usize, PyResult<()>);

/// Sends messages, up to `most` of them in a batch. All that the iterator has returned are sent, also if an error ends it, unless that is
/// the error of sending one.
fn send_all<'a, 'py>(
    py: Python<'_>,
    producer: &mut shmpipe::Producer,
    tag: u32,
    deadline: &Deadline,
    most: usize,
    mut messages: impl Iterator<Item = PyResult<Bytes<'a, 'py>>>,
) -> Sent {
    let process = Process::current();
    let mut sent = 0;
    loop {
        let (mut batch, mut length) = (producer.batch(), 0);
        // How it ended, or a message that did not fit.
        let left = loop {
            let message = messages.next();
            // The iterator may have forked.
            if let Err(error) = process.check() {
                return (sent, Err(error));
            }
            let message = match message {
                None => break Some(Err(Ok(()))),
                Some(Err(error)) => break Some(Err(Err(error))),
                Some(Ok(message)) => message,
            };
            match batch.try_push(Tagged(tag, message.as_slice())) {
                Ok(_) => length += message.as_slice().len(),
                Err(TrySendError::Full) => break Some(Ok(message)),
                // A batch never takes more than the ring.
                Err(TrySendError::TooLarge { .. }) if !batch.is_empty() => break Some(Ok(message)),
                Err(error) => break Some(Err(Err(errors::try_send(error)))),
            }
            if batch.len() == most || length >= BATCH_BYTES {
                break None;
            }
        };
        sent += batch.len();
        batch.commit();
        let ended = match left {
            None => Ok(()),
            Some(Err(ended)) => return (sent, ended),
            Some(Ok(message)) => send_one(py, producer, &message, tag, deadline).map(|_| sent += 1),
        };
        // A handler may have forked.
        let ended = ended.and_then(|()| py.check_signals()).and_then(|()| process.check());
        if ended.is_err() {
            return (sent, ended);
        }
    }
}

fn counted((sent, ended): Sent) -> PyResult<usize> {
    match ended {
        Ok(()) => Ok(sent),
        Err(error) => Err(errors::with(error, "sent", sent)),
    }
}

#[pymethods]
impl Producer {
    /// Sends a message: bytes, or any object with a contiguous buffer. Returns its position.
    ///
    /// Waits while the pipe is full. Raises Timeout, Closed, PeerAborted, PeerDied, TooLarge, Cancelled, Lost or Corrupt.
    #[pyo3(signature = (message, *, tag = 0, timeout = None))]
    fn send(&self, message: &Bound<'_, PyAny>, tag: u32, timeout: Option<f64>) -> PyResult<u64> {
        let (deadline, bytes) = (Deadline::from_timeout(timeout)?, Bytes::of(message)?);
        self.cell.with(|producer| send_one(message.py(), producer, &bytes, tag, &deadline))
    }

    /// Sends a message unless the pipe is full. Returns whether it did.
    ///
    /// Never waits. Raises Closed, PeerAborted, TooLarge or Corrupt. Does not notice that the consumer died: check does.
    #[pyo3(signature = (message, *, tag = 0))]
    fn try_send(&self, message: &Bound<'_, PyAny>, tag: u32) -> PyResult<bool> {
        let bytes = Bytes::of(message)?;
        self.cell.with(|producer| match producer.try_send(Tagged(tag, bytes.as_slice())) {
            Ok(_) => Ok(true),
            Err(TrySendError::Full) => Ok(false),
            Err(error) => Err(errors::try_send(error)),
        })
    }

    /// Sends every message of an iterable. Returns how many.
    ///
    /// Those of a list or a tuple in batches of up to 64 messages or 16 KiB, at a fraction of the cost of as many calls of send. An
    /// exception has the number of messages sent before it as its attribute `sent`; the next one was taken from the iterable.
    #[pyo3(signature = (messages, *, tag = 0, timeout = None))]
    fn send_many(&self, messages: &Bound<'_, PyAny>, tag: u32, timeout: Option<f64>) -> PyResult<usize> {
        let deadline = Deadline::from_timeout(timeout)?;
        let py = messages.py();
        // What any other iterable gives may be long in coming.
        let is_at_hand =
            messages.is_exact_instance_of::<PyList>() || messages.is_exact_instance_of::<PyTuple>();
        let most = if is_at_hand { BATCH } else { 1 };
        let messages = messages.try_iter()?.map(|message| Bytes::of(&message?));
        self.cell.with(|producer| counted(send_all(py, producer, tag, &deadline, most, messages)))
    }

    /// Sends each item of a buffer as a message, such as each element of an array of numpy. Returns how many.
    ///
    /// The other end receives them with Consumer.recv_items, or one by one. An exception has the number of messages sent before it
    /// as its attribute `sent`.
    #[pyo3(signature = (items, *, tag = 0, timeout = None))]
    fn send_items(&self, items: &Bound<'_, PyAny>, tag: u32, timeout: Option<f64>) -> PyResult<usize> {
        let (deadline, found) = (Deadline::from_timeout(timeout)?, Items::of(items)?);
        self.cell.with(|producer| {
            counted(send_all(items.py(), producer, tag, &deadline, BATCH, found.messages().map(Ok)))
        })
    }

    /// Sends any object, by pickle.
    ///
    /// Only between processes that trust each other: to unpickle is to run what the sender chose.
    #[pyo3(signature = (object, *, tag = 0, timeout = None))]
    fn send_object(&self, object: &Bound<'_, PyAny>, tag: u32, timeout: Option<f64>) -> PyResult<u64> {
        let pickled = object.py().import("pickle")?.call_method1("dumps", (object, 5))?;
        self.send(&pickled, tag, timeout)
    }

    /// Waits until the consumer has released every message.
    ///
    /// Raises Timeout, Closed, PeerAborted, PeerDied, Cancelled, Lost or Corrupt.
    #[pyo3(signature = (timeout = None))]
    fn flush(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let deadline = Deadline::from_timeout(timeout)?;
        self.cell.with(|producer| {
            let is_timeout = |error: &_| matches!(error, shmpipe::FlushError::TimedOut);
            let flushed = deadline.wait(py, is_timeout, |until| producer.flush(Some(until)))?;
            flushed.map_err(errors::flush)
        })
    }

    /// Waits until a consumer attaches.
    ///
    /// Raises Timeout, Cancelled or Lost.
    #[pyo3(signature = (timeout = None))]
    fn wait_for_peer(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let deadline = Deadline::from_timeout(timeout)?;
        self.cell.with(|producer| {
            let is_timeout = |error: &_| matches!(error, shmpipe::WaitError::TimedOut);
            let waited = deadline.wait(py, is_timeout, |until| producer.wait_for_peer(Some(until)))?;
            waited.map_err(errors::wait)
        })
    }

    /// Asks the kernel whether the consumer lives and this end still has its role. For programs that only call try_send.
    ///
    /// Raises Closed, PeerAborted, PeerDied, Lost or Corrupt.
    fn check(&self) -> PyResult<()> {
        self.cell.with(|producer| producer.check().map_err(errors::check))
    }

    /// The state of the consumer: "never came", "open", "closed", "aborted", "died" or "unknown". A system call.
    #[getter]
    fn peer(&self) -> PyResult<&'static str> {
        self.cell.with(|producer| Ok(peer_name(producer.peer())))
    }

    /// The bytes that are free in the ring.
    #[getter]
    fn free(&self) -> PyResult<u64> {
        self.cell.with(|producer| producer.free().map_err(errors::corrupt))
    }

    /// The bytes of the longest message.
    #[getter]
    fn max_len(&self) -> usize {
        self.max_len
    }

    /// Adds to the number of messages that were dropped since the pipe was created, which `shmpipe stat` shows.
    #[pyo3(signature = (messages = 1))]
    fn count_dropped(&self, messages: u64) -> PyResult<()> {
        self.cell.with(|producer| {
            producer.count_dropped(messages);
            Ok(())
        })
    }

    /// Ends the wait of another thread, and all later ones, with Cancelled. May be called from any thread.
    fn cancel(&self) {
        self.cell.cancel();
    }

    /// Closes this end: the consumer receives what was sent, and then hears that it is closed. Does nothing if it is closed.
    ///
    /// May be called from any thread: a call in another one ends, a wait with Cancelled, and then the end closes. Raises Lost if the
    /// pipe or the role was lost before; the end is closed nevertheless.
    fn close(&self) -> PyResult<()> {
        self.cell.close()
    }

    /// Closes this end in error: the consumer receives what was sent, and then gets the abort and its code.
    /// Otherwise as close.
    fn abort(&self, code: u32) -> PyResult<()> {
        self.cell.abort(code)
    }

    /// Whether this end is closed.
    #[getter]
    fn closed(&self) -> bool {
        self.cell.is_closed()
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __exit__(
        &self,
        _class: &Bound<'_, PyAny>,
        exception: Option<&Bound<'_, PyBaseException>>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if exception.is_some() { self.abort(shmpipe::PANICKED) } else { self.close() }
    }
}
