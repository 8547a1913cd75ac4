//! Ends with a descriptor, for event loops: what `shmpipe.aio` is made of.

use crate::buffer::Bytes;
use crate::cell::{Cell, End};
use crate::errors;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use shmpipe::{CancelHandle, CloseError, Tagged, WithDescriptor};
use std::os::fd::AsRawFd;

/// A consumer with a descriptor, which is readable while try_recv should be called.
#[pyclass(frozen, module = "shmpipe")]
pub struct DescriptorConsumer {
    cell: Cell<WithDescriptor<shmpipe::Consumer>>,
    descriptor: i32,
}

/// A producer with a descriptor, which is readable while try_send should be called.
#[pyclass(frozen, module = "shmpipe")]
pub struct DescriptorProducer {
    cell: Cell<WithDescriptor<shmpipe::Producer>>,
    descriptor: i32,
}

/// An end with a descriptor ends as it does without.
macro_rules! with_descriptor {
    ($($end:ty),*) => {$(
        impl End for WithDescriptor<$end> {
            fn cancel_handle(&self) -> CancelHandle {
                self.get_ref().cancel_handle()
            }

            fn close(self) -> Result<(), CloseError> {
                self.into_inner().close()
            }

            fn abort(self, code: u32) -> Result<(), CloseError> {
                self.into_inner().abort(code)
            }
        }
    )*};
}

with_descriptor!(shmpipe::Consumer, shmpipe::Producer);

impl DescriptorConsumer {
    pub fn new(consumer: WithDescriptor<shmpipe::Consumer>) -> Self {
        DescriptorConsumer { descriptor: consumer.as_raw_fd(), cell: Cell::new(consumer) }
    }
}

impl DescriptorProducer {
    pub fn new(producer: WithDescriptor<shmpipe::Producer>) -> Self {
        DescriptorProducer { descriptor: producer.as_raw_fd(), cell: Cell::new(producer) }
    }
}

#[pymethods]
impl DescriptorConsumer {
    /// The descriptor. Never read it.
    fn fileno(&self) -> PyResult<i32> {
        self.cell.with(|_| Ok(self.descriptor))
    }

    /// Receives the next message, if there is one. If not, None, and the descriptor is unreadable until there is one, or an end.
    ///
    /// Never waits. Raises Closed, PeerAborted, PeerDied, Lost or Corrupt.
    fn try_recv<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        self.cell.with(|consumer| match consumer.try_recv() {
            Ok(Some(message)) => {
                let copied = PyBytes::new_with(py, message.len(), |bytes| {
                    let copied = message.copy_to(bytes).map(drop);
                    copied.map_err(|error| errors::wrong_size(error.message, error.expected))
                });
                match copied {
                    Ok(bytes) => {
                        message.release();
                        Ok(Some(bytes))
                    }
                    Err(error) => {
                        message.requeue();
                        Err(error)
                    }
                }
            }
            Ok(None) => Ok(None),
            Err(error) => Err(errors::recv(error)),
        })
    }

    /// Closes this end. Does nothing if it is closed. Raises Lost if the pipe or the role was lost before.
    fn close(&self) -> PyResult<()> {
        self.cell.close()
    }

    /// Closes this end in error: the other one gets the abort and its code.
    fn abort(&self, code: u32) -> PyResult<()> {
        self.cell.abort(code)
    }

    /// Whether this end is closed.
    #[getter]
    fn closed(&self) -> bool {
        self.cell.is_closed()
    }
}

#[pymethods]
impl DescriptorProducer {
    /// The descriptor. Never read it.
    fn fileno(&self) -> PyResult<i32> {
        self.cell.with(|_| Ok(self.descriptor))
    }

    /// Sends a message, if there is space. If not, False, and the descriptor is unreadable until there is, or an end.
    ///
    /// Never waits. Raises Closed, PeerAborted, PeerDied, TooLarge, Lost or Corrupt.
    #[pyo3(signature = (message, *, tag = 0))]
    fn try_send(&self, message: &Bound<'_, PyAny>, tag: u32) -> PyResult<bool> {
        let bytes = Bytes::of(message)?;
        self.cell.with(|producer| {
            let sent = producer.try_send(Tagged(tag, bytes.as_slice()));
            sent.map(|position| position.is_some()).map_err(errors::send)
        })
    }

    /// Closes this end. Does nothing if it is closed. Raises Lost if the pipe or the role was lost before.
    fn close(&self) -> PyResult<()> {
        self.cell.close()
    }

    /// Closes this end in error: the other one gets the abort and its code.
    fn abort(&self, code: u32) -> PyResult<()> {
        self.cell.abort(code)
    }

    /// Whether this end is closed.
    #[getter]
    fn closed(&self) -> bool {
        self.cell.is_closed()
    }
}
