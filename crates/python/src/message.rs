//! A message where it lies in shared memory.

use crate::consumer::Consumer;
use crate::errors;
use crate::fork::Process;
use pyo3::exceptions::{PyBaseException, PyBufferError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use shmpipe::Trusted;
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, PoisonError};

type Receiver = shmpipe::Consumer<Trusted>;

/// A message that is borrowed: it lies in shared memory until it is released.
///
/// memoryview(message) and numpy.frombuffer(message) are its bytes, read-only. While such a view exists, release raises BufferError.
#[pyclass(frozen, module = "shmpipe")]
pub struct Message {
    owner: Py<Consumer>,
    process: Process,
    /// No code of the interpreter runs while it is locked: that may be a finalizer, which locks it again.
    held: Mutex<Held>,
}

struct Held {
    /// None when the message is released.
    borrowed: Option<Borrowed>,
    /// Its bytes, tag and position, which are known for longer.
    bytes: *const [u8],
    tag: u32,
    position: u64,
    /// Views of it, and copies in progress.
    exports: usize,
    /// Whether the last view releases it.
    is_over: bool,
}

// SAFETY: the pointer is only used while the message is borrowed, whose bytes any thread may read.
unsafe impl Send for Held {}

/// A message, and the consumer that it borrows.
struct Borrowed {
    /// Initialized. Hidden, since it is dropped before the consumer is used again.
    message: MaybeUninit<shmpipe::Message<'static, Trusted>>,
    consumer: NonNull<Receiver>,
}

// SAFETY: both the message and the consumer may move to another thread, and the pointer is the only one to the consumer.
unsafe impl Send for Borrowed {}

impl Borrowed {
    /// Releases the message, and returns its consumer.
    fn release(self) -> Box<Receiver> {
        // SAFETY: initialized, and not used again.
        unsafe { self.message.assume_init() }.release();
        // SAFETY: the pointer is from `Box::leak`, and the message, which borrowed the consumer, is gone.
        unsafe { Box::from_raw(self.consumer.as_ptr()) }
    }
}

impl Message {
    /// A message to be: see [`borrow`](Self::borrow).
    pub fn unborrowed(owner: Py<Consumer>) -> Self {
        let bytes: &[u8] = &[];
        let held = Held { borrowed: None, bytes, tag: 0, position: 0, exports: 0, is_over: false };
        Message { owner, process: Process::current(), held: Mutex::new(held) }
    }

    /// Receives the message that is there.
    pub fn borrow(&self, consumer: Box<Receiver>) -> PyResult<()> {
        let consumer = NonNull::from(Box::leak(consumer));
        // SAFETY: the consumer stays where it is, and no other code uses it, until the message is gone: see `Borrowed::release`.
        let received = unsafe { &mut *consumer.as_ptr() }.try_recv();
        match received {
            Ok(message) => {
                let mut held = self.held();
                (held.bytes, held.tag, held.position) =
                    (&raw const message[..], message.tag(), message.position().get());
                held.borrowed = Some(Borrowed { message: MaybeUninit::new(message), consumer });
                Ok(())
            }
            Err(error) => {
                // SAFETY: the pointer is from `Box::leak`, and there is no message.
                self.owner.get().give_back(unsafe { Box::from_raw(consumer.as_ptr()) });
                Err(errors::try_recv(error))
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the message from being released, and returns its bytes.
    fn export(&self) -> PyResult<*const [u8]> {
        self.process.check()?;
        let mut held = self.held();
        if held.borrowed.is_none() || held.is_over {
            drop(held);
            return Err(PyValueError::new_err("the message is released"));
        }
        held.exports += 1;
        Ok(held.bytes)
    }

    /// Ends what [`export`](Self::export) began.
    fn end_export(&self) {
        let mut held = self.held();
        held.exports -= 1;
        if held.exports == 0 && held.is_over {
            self.give_back(held);
        }
    }

    /// Releases the message, unless it is. There are no views.
    fn give_back(&self, mut held: MutexGuard<'_, Held>) {
        let borrowed = held.borrowed.take();
        drop(held);
        if let Some(borrowed) = borrowed {
            self.owner.get().give_back(borrowed.release());
        }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // Each view refers to this object.
        self.give_back(self.held());
    }
}

#[pymethods]
impl Message {
    /// Releases the message: its memory is used again, and the consumer can be used again. Does nothing if it is released.
    ///
    /// Raises BufferError while a view of it exists.
    fn release(&self) -> PyResult<()> {
        let held = self.held();
        match held.exports {
            0 => {
                self.give_back(held);
                Ok(())
            }
            exports => {
                drop(held);
                Err(PyBufferError::new_err(format!(
                    "views of the message exist ({exports}); release them first"
                )))
            }
        }
    }

    /// The tag that the producer set; 0 without one.
    #[getter]
    fn tag(&self) -> u32 {
        self.held().tag
    }

    /// The position that Producer.send returned.
    #[getter]
    fn position(&self) -> u64 {
        self.held().position
    }

    /// The message as bytes: a copy.
    fn tobytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.export()?;
        let copied = PyBytes::new_with(py, bytes.len(), |to| {
            // SAFETY: exported, so it lies there; the producer is trusted not to change it.
            to.copy_from_slice(unsafe { &*bytes });
            Ok(())
        });
        self.end_export();
        copied
    }

    fn __len__(&self) -> usize {
        self.held().bytes.len()
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// Releases the message. If an exception ends the block and a view exists, the last one releases it.
    fn __exit__(
        &self,
        _class: &Bound<'_, PyAny>,
        exception: Option<&Bound<'_, PyBaseException>>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if exception.is_some() {
            let mut held = self.held();
            if held.exports > 0 {
                held.is_over = true;
                return Ok(());
            }
        }
        self.release()
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        const READ_ONLY: c_int = 1;
        // SAFETY: `view` is the interpreter's. Without an object it is refused, whatever follows.
        unsafe { (*view).obj = ptr::null_mut() };
        let bytes = slf.get().export()?;
        // A message is never longer than half the address space.
        let (pointer, length) = (bytes.cast::<u8>().cast_mut().cast(), bytes.len() as ffi::Py_ssize_t);
        // SAFETY: as above. The bytes stay where they are while there are exports, and the view keeps `slf`.
        if unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), pointer, length, READ_ONLY, flags) } != 0 {
            slf.get().end_export();
            return Err(PyErr::fetch(slf.py()));
        }
        Ok(())
    }

    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.end_export();
    }
}
