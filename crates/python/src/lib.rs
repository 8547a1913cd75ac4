//! The module `shmpipe._shmpipe`: pipes and their ends as Python objects. The package `shmpipe` (in `python/`) gives them to users, with
//! the exceptions and what only asyncio needs.
//!
//! Every class is frozen and may be shared between threads. An end is used by one thread at a time: a call that finds another one in
//! progress fails. Calls that wait detach from the interpreter, and look for signals every 100 ms.

mod buffer;
mod cell;
mod consumer;
mod descriptor;
mod errors;
mod fork;
mod message;
mod pipe;
mod producer;
mod snapshot;
mod tap;
mod waiting;

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;

#[pymodule(name = "_shmpipe")]
mod module {
    use super::*;

    #[pymodule_export]
    use super::consumer::Consumer;
    #[pymodule_export]
    use super::descriptor::{DescriptorConsumer, DescriptorProducer};
    #[pymodule_export]
    use super::message::Message;
    #[pymodule_export]
    use super::pipe::{Pipe, create, open, open_or_create, unlink};
    #[pymodule_export]
    use super::producer::Producer;
    #[pymodule_export]
    use super::snapshot::{Direction, Latency, Side, Snapshot, inspect};
    #[pymodule_export]
    use super::tap::{Missed, Passed, Tap};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // SAFETY: this thread has an interpreter.
        if unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) } != 0 {
            let why = "shmpipe does not load in a subinterpreter: its exceptions are those of the main one";
            return Err(PyImportError::new_err(why));
        }
        fork::register()?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("PANICKED", shmpipe::PANICKED)
    }
}
