//! The memory of Python's objects.

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::slice;

/// The bytes of a message that a program sends.
pub enum Bytes<'a, 'py> {
    /// Nothing changes these.
    Immutable(Bound<'py, PyBytes>),
    /// Of any other object with a buffer.
    Buffer(PyUntypedBuffer),
    /// One of [`Items`].
    Item(&'a Items, usize),
}

impl<'py> Bytes<'_, 'py> {
    #[inline]
    pub fn of(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        match object.cast::<PyBytes>() {
            Ok(bytes) => Ok(Bytes::Immutable(bytes.clone())),
            Err(_) => Self::of_buffer(object),
        }
    }

    #[cold]
    fn of_buffer(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        let buffer = PyUntypedBuffer::get(object).map_err(|_| {
            let class = object.get_type();
            PyTypeError::new_err(format!("a message is bytes or has a buffer, and this is of {class}"))
        })?;
        contiguous(buffer).map(Bytes::Buffer)
    }

    pub fn are_immutable(&self) -> bool {
        matches!(self, Bytes::Immutable(_))
    }

    /// The bytes. Unless they are immutable, the caller has the interpreter as long as it uses them, and runs no Python code, which
    /// could change them. A thread of the program that changes them without the interpreter, such as one in numpy, breaks its own
    /// message, as it does with every function that takes a buffer.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Immutable(bytes) => bytes.as_bytes(),
            // SAFETY: the buffer is contiguous and stays exported while `self` exists.
            Bytes::Buffer(buffer) => unsafe { of_memory(buffer.buf_ptr().cast(), buffer.len_bytes()) },
            Bytes::Item(items, index) => {
                let size = items.item_size();
                // SAFETY: as above, and the item is one of those in the buffer.
                unsafe { of_memory(items.0.buf_ptr().cast::<u8>().add(index * size), size) }
            }
        }
    }
}

fn contiguous(buffer: PyUntypedBuffer) -> PyResult<PyUntypedBuffer> {
    if buffer.is_c_contiguous() {
        Ok(buffer)
    } else {
        Err(PyBufferError::new_err("the buffer is not contiguous; copy it first"))
    }
}

/// Items of one size in a buffer.
pub struct Items(PyUntypedBuffer);

impl Items {
    pub fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = contiguous(PyUntypedBuffer::get(object)?)?;
        if buffer.item_size() == 0 {
            return Err(PyBufferError::new_err("the items of the buffer have no bytes"));
        }
        Ok(Items(buffer))
    }

    pub fn of_writable(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let items = Self::of(object)?;
        if items.0.readonly() {
            return Err(PyBufferError::new_err("the buffer is read-only"));
        }
        Ok(items)
    }

    pub fn item_size(&self) -> usize {
        self.0.item_size()
    }

    /// Each item, as a message.
    pub fn messages(&self) -> impl Iterator<Item = Bytes<'_, '_>> {
        (0..self.0.len_bytes() / self.item_size()).map(|index| Bytes::Item(self, index))
    }

    pub fn are_none(&self) -> bool {
        self.0.len_bytes() == 0
    }

    /// The bytes of a buffer made by [`of_writable`](Self::of_writable). The caller has the interpreter as long as it uses them: see
    /// [`Bytes::as_slice`].
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        assert!(!self.0.readonly(), "made for writing");
        match self.0.len_bytes() {
            0 => &mut [],
            // SAFETY: the buffer is contiguous, may be written to, and stays exported while `self` exists.
            length => unsafe { slice::from_raw_parts_mut(self.0.buf_ptr().cast(), length) },
        }
    }
}

/// # Safety
/// As of [`slice::from_raw_parts`], but with a length of 0 the pointer may be any.
unsafe fn of_memory<'a>(pointer: *const u8, length: usize) -> &'a [u8] {
    match length {
        0 => &[],
        // SAFETY: the caller's promise.
        length => unsafe { slice::from_raw_parts(pointer, length) },
    }
}
