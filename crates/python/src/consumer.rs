//! The consumer.

use crate::buffer::Items;
use crate::cell::{Cell, End};
use crate::errors;
use crate::message::Message;
use crate::producer::{LONG, peer_name};
use crate::waiting::Deadline;
use pyo3::exceptions::{PyBaseException, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use shmpipe::{CancelHandle, CloseError, RecvTimeoutError, Trusted, TryRecvError};

/// A consumer, with or without a promise about its producer.
pub enum Receiver {
    Plain(Box<shmpipe::Consumer>),
    /// At a place of its own, which a borrowed message needs.
    Trusted(Box<shmpipe::Consumer<Trusted>>),
}

/// Does the same with either.
macro_rules! with_either {
    ($receiver:expr, $consumer:ident => $act:expr) => {
        match $receiver {
            Receiver::Plain($consumer) => $act,
            Receiver::Trusted($consumer) => $act,
        }
    };
}

/// Receives messages.
///
/// A context manager: closes the pipe at the end of the block, or aborts it if an exception ends the block. An iterator: of messages
/// as bytes, until the producer closes.
#[pyclass(frozen, module = "shmpipe")]
pub struct Consumer {
    cell: Cell<Receiver>,
    max_len: usize,
}

impl End for Receiver {
    fn cancel_handle(&self) -> CancelHandle {
        with_either!(self, consumer => consumer.cancel_handle())
    }

    fn close(self) -> Result<(), CloseError> {
        with_either!(self, consumer => consumer.close())
    }

    fn abort(self, code: u32) -> Result<(), CloseError> {
        with_either!(self, consumer => consumer.abort(code))
    }
}

impl Consumer {
    pub fn new(receiver: Receiver) -> Self {
        let max_len = with_either!(&receiver, consumer => consumer.max_len());
        Consumer { max_len, cell: Cell::new(receiver) }
    }

    /// Gives back what a message borrowed.
    pub fn give_back(&self, consumer: Box<shmpipe::Consumer<Trusted>>) {
        self.cell.give_back(Receiver::Trusted(consumer));
    }
}

/// Waits for a message.
pub fn wait_for_message<P: Send>(
    py: Python<'_>,
    consumer: &mut shmpipe::Consumer<P>,
    deadline: &Deadline,
) -> PyResult<()> {
    let waited = deadline.wait(
        py,
        |error| matches!(error, RecvTimeoutError::TimedOut),
        |until| consumer.wait_for_message(Some(until)),
    )?;
    waited.map_err(errors::recv_timeout)
}

/// Copies the message into a new object, and releases it. If there is no memory for it, it stays in the pipe.
#[inline]
fn take<'py, P: Send>(
    py: Python<'py>,
    message: shmpipe::Message<'_, P>,
) -> PyResult<(u32, Bound<'py, PyBytes>)> {
    let (length, tag) = (message.len(), message.tag());
    let mut message = Some(message);
    let copied = PyBytes::new_with(py, length, |bytes| {
        let message = message.take().expect("called once");
        let copy = move || message.copy_to(bytes).map(|_| message.release());
        // No other thread knows the new object yet.
        let copied = if length >= LONG { py.detach(copy) } else { copy() };
        copied.map_err(|error| errors::wrong_size(error.message, error.expected))
    });
    if let Some(message) = message {
        message.requeue();
    }
    Ok((tag, copied?))
}

/// Receives a message, and waits for it.
#[inline]
fn recv_one<'py, P: Send>(
    py: Python<'py>,
    consumer: &mut shmpipe::Consumer<P>,
    deadline: &Deadline,
) -> PyResult<(u32, Bound<'py, PyBytes>)> {
    loop {
        match consumer.try_recv() {
            Ok(message) => return take(py, message),
            Err(TryRecvError::Empty) => {}
            Err(error) => return Err(errors::try_recv(error)),
        }
        wait_for_message(py, consumer, deadline)?;
    }
}

/// When so many bytes are taken, a drain ends: more of them would leave the caches before the caller gets to them.
const DRAIN_BYTES: usize = 64 << 10;

/// Moves up to `limit` messages into a list. Those that there is no memory for stay in the pipe, and so do all others then.
fn drain<'py, P>(
    py: Python<'py>,
    consumer: &mut shmpipe::Consumer<P>,
    limit: usize,
) -> PyResult<Bound<'py, PyList>> {
    let messages = PyList::empty(py);
    let mut drain = consumer.drain(limit);
    let mut taken = 0;
    while taken < DRAIN_BYTES {
        let appended = match drain.next() {
            Ok(Some(record)) => {
                taken += record.len();
                let copied = PyBytes::new_with(py, record.len(), |bytes| {
                    let copied = record.copy_to(bytes).map(drop);
                    copied.map_err(|error| errors::wrong_size(error.message, error.expected))
                });
                copied.and_then(|bytes| messages.append(bytes))
            }
            Ok(None) => break,
            Err(corruption) if messages.is_empty() => Err(errors::corrupt(corruption)),
            // The next call says so.
            Err(_) => break,
        };
        if let Err(error) = appended {
            drain.requeue();
            return Err(error);
        }
    }
    drain.release();
    Ok(messages)
}

/// Copies messages of `size` bytes into `to`, one after the other. Returns how many.
fn fill<P>(consumer: &mut shmpipe::Consumer<P>, size: usize, to: &mut [u8]) -> PyResult<usize> {
    let most = to.len() / size;
    let (mut count, mut other) = (0, None);
    let mut drain = consumer.drain(most);
    while other.is_none() {
        match drain.next() {
            Ok(Some(record)) => match record.copy_to(&mut to[count * size..]) {
                Ok(length) if length == size => count += 1,
                Ok(length) => other = Some(errors::wrong_size(length, size)),
                Err(error) => other = Some(errors::wrong_size(error.message, size)),
            },
            Ok(None) => break,
            Err(corruption) => other = Some(errors::corrupt(corruption)),
        }
    }
    match other {
        None => drain.release(),
        Some(error) => {
            drain.requeue();
            if count == 0 {
                return Err(error);
            }
            // What came before it is received. The next call says why there was no more.
            let mut drain = consumer.drain(count);
            while let Ok(Some(_)) = drain.next() {}
            drain.release();
        }
    }
    Ok(count)
}

#[pymethods]
impl Consumer {
    /// Receives the next message, as bytes.
    ///
    /// Waits for it. Raises Timeout, Closed, PeerAborted, PeerDied, Cancelled, Lost or Corrupt.
    #[pyo3(signature = (timeout = None))]
    fn recv<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyBytes>> {
        self.recv_tagged(py, timeout).map(|(_, message)| message)
    }

    /// Receives the next message, as its tag and its bytes. As recv otherwise.
    #[pyo3(signature = (timeout = None))]
    fn recv_tagged<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
    ) -> PyResult<(u32, Bound<'py, PyBytes>)> {
        let deadline = Deadline::from_timeout(timeout)?;
        self.cell.with(|receiver| with_either!(receiver, consumer => recv_one(py, consumer, &deadline)))
    }

    /// Receives the next message, if there is one. None if not.
    ///
    /// Never waits. Raises Closed, PeerAborted or Corrupt. Does not notice that the producer died: check does.
    fn try_recv<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        self.cell.with(|receiver| {
            with_either!(receiver, consumer => match consumer.try_recv() {
                Ok(message) => take(py, message).map(|(_, message)| Some(message)),
                Err(TryRecvError::Empty) => Ok(None),
                Err(error) => Err(errors::try_recv(error)),
            })
        })
    }

    /// Receives up to `limit` messages: waits for the first, and takes what is there, until it has 64 KiB. A list of bytes.
    ///
    /// Costs a fraction of as many calls of recv. Raises as recv.
    #[pyo3(signature = (limit = 1024, *, timeout = None))]
    fn recv_many<'py>(
        &self,
        py: Python<'py>,
        limit: usize,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyList>> {
        let deadline = Deadline::from_timeout(timeout)?;
        self.cell.with(|receiver| {
            with_either!(receiver, consumer => loop {
                let messages = drain(py, consumer, limit)?;
                if limit == 0 || !messages.is_empty() {
                    return Ok(messages);
                }
                wait_for_message(py, consumer, &deadline)?;
            })
        })
    }

    /// Receives the next message into a writable buffer, from its start. Returns the bytes of the message.
    ///
    /// Raises WrongSize if the buffer is shorter: the message stays in the pipe. Raises otherwise as recv.
    #[pyo3(signature = (buffer, *, timeout = None))]
    fn recv_into(&self, buffer: &Bound<'_, PyAny>, timeout: Option<f64>) -> PyResult<usize> {
        let (deadline, mut to) = (Deadline::from_timeout(timeout)?, Items::of_writable(buffer)?);
        self.cell.with(|receiver| {
            with_either!(receiver, consumer => loop {
                match consumer.try_recv() {
                    Ok(message) => match message.copy_to(to.bytes_mut()) {
                        Ok(length) => {
                            message.release();
                            return Ok(length);
                        }
                        Err(error) => {
                            message.requeue();
                            return Err(errors::wrong_size(error.message, error.expected));
                        }
                    },
                    Err(TryRecvError::Empty) => {}
                    Err(error) => return Err(errors::try_recv(error)),
                }
                wait_for_message(buffer.py(), consumer, &deadline)?;
            })
        })
    }

    /// Receives messages into the items of a writable buffer, such as the elements of an array of numpy: waits for the first, and
    /// takes what is there. Returns how many.
    ///
    /// Every message is as long as an item. Raises WrongSize if the next one is not: it stays in the pipe. Raises otherwise as recv.
    #[pyo3(signature = (items, *, timeout = None))]
    fn recv_items(&self, items: &Bound<'_, PyAny>, timeout: Option<f64>) -> PyResult<usize> {
        let (deadline, mut to) = (Deadline::from_timeout(timeout)?, Items::of_writable(items)?);
        let size = to.item_size();
        self.cell.with(|receiver| {
            with_either!(receiver, consumer => loop {
                let count = fill(consumer, size, to.bytes_mut())?;
                if count > 0 || to.are_none() {
                    return Ok(count);
                }
                wait_for_message(items.py(), consumer, &deadline)?;
            })
        })
    }

    /// Receives an object, by pickle.
    ///
    /// Only between processes that trust each other: to unpickle is to run what the sender chose.
    #[pyo3(signature = (timeout = None))]
    fn recv_object<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let pickled = self.recv(py, timeout)?;
        py.import("pickle")?.call_method1("loads", (pickled,))
    }

    /// Receives the next message where it lies in shared memory, without a copy.
    ///
    /// Needs the promise of Pipe.consumer(trust_producer=True). The message is a context manager, and memoryview(message) or
    /// numpy.frombuffer(message) are its bytes. Until it is released, no other call of this consumer works, and it cannot be released
    /// while such a view exists. Raises as recv.
    #[pyo3(signature = (timeout = None))]
    fn borrow<'py>(slf: Bound<'py, Self>, timeout: Option<f64>) -> PyResult<Bound<'py, Message>> {
        let (py, consumer) = (slf.py(), slf.get());
        let deadline = Deadline::from_timeout(timeout)?;
        consumer.cell.with(|receiver| match receiver {
            Receiver::Plain(_) => Err(PyTypeError::new_err(
                "a message is borrowed only with Pipe.consumer(trust_producer=True)",
            )),
            Receiver::Trusted(consumer) => loop {
                match consumer.try_recv() {
                    Ok(message) => {
                        message.requeue();
                        return Ok(());
                    }
                    Err(TryRecvError::Empty) => {}
                    Err(error) => return Err(errors::try_recv(error)),
                }
                wait_for_message(py, consumer, &deadline)?;
            },
        })?;
        // Made first: what follows does not fail for lack of memory.
        let message = Bound::new(py, Message::unborrowed(slf.clone().unbind()))?;
        match consumer.cell.lend()? {
            Receiver::Trusted(trusted) => message.get().borrow(trusted)?,
            Receiver::Plain(_) => unreachable!("it was trusted"),
        }
        Ok(message)
    }

    /// Waits until a producer attaches, or has left something to receive.
    ///
    /// Raises Timeout, Cancelled or Lost.
    #[pyo3(signature = (timeout = None))]
    fn wait_for_peer(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let deadline = Deadline::from_timeout(timeout)?;
        self.cell.with(|receiver| {
            let is_timeout = |error: &_| matches!(error, shmpipe::WaitError::TimedOut);
            let waited = with_either!(receiver, consumer => {
                deadline.wait(py, is_timeout, |until| consumer.wait_for_peer(Some(until)))
            })?;
            waited.map_err(errors::wait)
        })
    }

    /// Asks the kernel whether the producer lives and this end still has its role. For programs that only call try_recv.
    ///
    /// Raises Closed, PeerAborted, PeerDied, Lost or Corrupt.
    fn check(&self) -> PyResult<()> {
        self.cell.with(|receiver| with_either!(receiver, consumer => consumer.check()).map_err(errors::check))
    }

    /// The state of the producer: "never came", "open", "closed", "aborted", "died" or "unknown". A system call.
    #[getter]
    fn peer(&self) -> PyResult<&'static str> {
        self.cell.with(|receiver| Ok(peer_name(with_either!(receiver, consumer => consumer.peer()))))
    }

    /// The bytes of the longest message.
    #[getter]
    fn max_len(&self) -> usize {
        self.max_len
    }

    /// Ends the wait of another thread, and all later ones, with Cancelled. May be called from any thread.
    fn cancel(&self) {
        self.cell.cancel();
    }

    /// Closes this end: the producer hears that it is closed. Does nothing if it is closed.
    ///
    /// May be called from any thread: a call in another one ends, a wait with Cancelled, and then the end closes. Raises Lost if the
    /// pipe or the role was lost before; the end is closed nevertheless.
    fn close(&self) -> PyResult<()> {
        self.cell.close()
    }

    /// Closes this end in error: the producer gets the abort and its code. While a message is borrowed, when it is released.
    /// Otherwise as close.
    fn abort(&self, code: u32) -> PyResult<()> {
        self.cell.abort(code)
    }

    /// Whether this end is closed.
    #[getter]
    fn closed(&self) -> bool {
        self.cell.is_closed()
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let never = Deadline::from_timeout(None)?;
        let next =
            self.cell.with(|receiver| with_either!(receiver, consumer => recv_one(py, consumer, &never)));
        match next {
            Ok((_, message)) => Ok(Some(message)),
            Err(error) if errors::is_closed(py, &error) => Ok(None),
            Err(error) => Err(error),
        }
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
