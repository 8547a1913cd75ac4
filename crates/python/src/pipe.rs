//! Opening pipes.

use crate::consumer::{Consumer, Receiver};
use crate::descriptor::{DescriptorConsumer, DescriptorProducer};
use crate::errors;
use crate::producer::Producer;
use crate::waiting::nap_of;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use shmpipe::os::unix::OptionsExt;
use shmpipe::{Options, Wait, WakeMode};

/// A pipe that is open in this process.
///
/// Made by open, create and open_or_create.
#[pyclass(frozen, module = "shmpipe")]
pub struct Pipe(shmpipe::Pipe);

/// What a call of Python gives as a strategy of waiting: a name, or seconds to sleep between two looks.
#[derive(FromPyObject)]
pub enum HowToWait {
    Sleep(f64),
    Name(String),
}

impl HowToWait {
    fn get(self) -> PyResult<Wait> {
        match self {
            HowToWait::Sleep(seconds) => nap_of(seconds).map(Wait::Sleep),
            HowToWait::Name(name) => match name.as_str() {
                "block" => Ok(Wait::Block),
                "yield" => Ok(Wait::Yield),
                "spin" => Ok(Wait::Spin),
                _ => Err(PyValueError::new_err(format!(
                    "wait is {name:?}; it is \"block\", \"yield\", \"spin\" or a number of seconds"
                ))),
            },
        }
    }
}

fn wake_mode_of(name: &str) -> PyResult<WakeMode> {
    match name {
        "membarrier" => Ok(WakeMode::Membarrier),
        "fence" => Ok(WakeMode::Fence),
        "never" => Ok(WakeMode::Never),
        _ => Err(PyValueError::new_err(format!(
            "wake_mode is {name:?}; it is \"membarrier\", \"fence\" or \"never\""
        ))),
    }
}

fn options(wait: Option<HowToWait>, schema: Option<u64>) -> PyResult<Options> {
    let mut options = Options::new();
    if let Some(wait) = wait {
        options = options.wait(wait.get()?);
    }
    if let Some(schema) = schema {
        options = options.schema(schema);
    }
    Ok(options)
}

#[allow(clippy::too_many_arguments, reason = "keywords")]
fn options_of_new(
    capacity: Option<u64>,
    wait: Option<HowToWait>,
    wake_mode: Option<&str>,
    schema: Option<u64>,
    mode: Option<u32>,
    remove_on_close: bool,
    remove_leftover: bool,
    measure_latency: bool,
) -> PyResult<Options> {
    let mut options = options(wait, schema)?
        .remove_on_close(remove_on_close)
        .remove_leftover(remove_leftover)
        .measure_latency(measure_latency);
    if let Some(capacity) = capacity {
        options = options.capacity(capacity);
    }
    if let Some(name) = wake_mode {
        options = options.wake_mode(wake_mode_of(name)?);
    }
    if let Some(mode) = mode {
        options = options.mode(mode);
    }
    Ok(options)
}

/// Opens an existing pipe.
///
/// Raises NotFound if there is none, and other SetupErrors.
#[pyfunction]
#[pyo3(signature = (address, *, wait = None, schema = None))]
pub fn open(py: Python<'_>, address: &str, wait: Option<HowToWait>, schema: Option<u64>) -> PyResult<Pipe> {
    let options = options(wait, schema)?;
    py.detach(|| options.open(address)).map(Pipe).map_err(errors::setup)
}

/// Creates a pipe.
///
/// With remove_on_close=True, it is removed once both sides have closed. With remove_leftover=True, the next process that looks for it
/// removes it if it is left over: it was used, is empty and is open nowhere, for example because both sides were killed. With
/// measure_latency=True, it measures how long some of its messages are under way, for inspect.
///
/// Raises Exists if there is one, and other SetupErrors.
#[pyfunction]
#[pyo3(signature = (address, *, capacity = None, wait = None, wake_mode = None, schema = None, mode = None, remove_on_close = false, remove_leftover = false, measure_latency = false))]
#[allow(clippy::too_many_arguments, reason = "keywords")]
pub fn create(
    py: Python<'_>,
    address: &str,
    capacity: Option<u64>,
    wait: Option<HowToWait>,
    wake_mode: Option<&str>,
    schema: Option<u64>,
    mode: Option<u32>,
    remove_on_close: bool,
    remove_leftover: bool,
    measure_latency: bool,
) -> PyResult<Pipe> {
    let options = options_of_new(
        capacity,
        wait,
        wake_mode,
        schema,
        mode,
        remove_on_close,
        remove_leftover,
        measure_latency,
    )?;
    py.detach(|| options.create(address)).map(Pipe).map_err(errors::setup)
}

/// Opens a pipe, which is created if there is none, as create does. Either side may start first.
///
/// Raises SetupErrors.
#[pyfunction]
#[pyo3(signature = (address, *, capacity = None, wait = None, wake_mode = None, schema = None, mode = None, remove_on_close = false, remove_leftover = false, measure_latency = false))]
#[allow(clippy::too_many_arguments, reason = "keywords")]
pub fn open_or_create(
    py: Python<'_>,
    address: &str,
    capacity: Option<u64>,
    wait: Option<HowToWait>,
    wake_mode: Option<&str>,
    schema: Option<u64>,
    mode: Option<u32>,
    remove_on_close: bool,
    remove_leftover: bool,
    measure_latency: bool,
) -> PyResult<Pipe> {
    let options = options_of_new(
        capacity,
        wait,
        wake_mode,
        schema,
        mode,
        remove_on_close,
        remove_leftover,
        measure_latency,
    )?;
    py.detach(|| options.open_or_create(address)).map(Pipe).map_err(errors::setup)
}

/// Removes a pipe that has neither a producer nor a consumer.
///
/// Raises RoleTaken if it has, NotFound if there is none, and other SetupErrors.
#[pyfunction]
pub fn unlink(py: Python<'_>, address: &str) -> PyResult<()> {
    py.detach(|| shmpipe::unlink(address)).map_err(errors::setup)
}

#[pymethods]
impl Pipe {
    /// Claims the producer role.
    ///
    /// Raises RoleTaken if another process, or another object of this one, has it.
    fn producer(&self, py: Python<'_>) -> PyResult<Producer> {
        py.detach(|| self.0.producer()).map(Producer::new).map_err(errors::setup)
    }

    /// Claims the consumer role.
    ///
    /// With trust_producer=True, messages may be read where they are (Consumer.borrow). That is a promise of yours: every process
    /// that can write to the pipe keeps to the protocol. Bytes that another process changes meanwhile are read as they are then.
    ///
    /// Raises RoleTaken if another process, or another object of this one, has it.
    #[pyo3(signature = (*, trust_producer = false))]
    fn consumer(&self, py: Python<'_>, trust_producer: bool) -> PyResult<Consumer> {
        let consumer = py.detach(|| self.0.consumer()).map_err(errors::setup)?;
        Ok(Consumer::new(match trust_producer {
            // SAFETY: the caller's promise.
            true => Receiver::Trusted(Box::new(unsafe { consumer.trust_peer() })),
            false => Receiver::Plain(Box::new(consumer)),
        }))
    }

    /// Claims the producer role, for an event loop: see shmpipe.aio.
    fn descriptor_producer(&self, py: Python<'_>) -> PyResult<DescriptorProducer> {
        let made = py.detach(|| self.0.producer()?.with_descriptor());
        made.map(DescriptorProducer::new).map_err(errors::setup)
    }

    /// Claims the consumer role, for an event loop: see shmpipe.aio.
    fn descriptor_consumer(&self, py: Python<'_>) -> PyResult<DescriptorConsumer> {
        let made = py.detach(|| self.0.consumer()?.with_descriptor());
        made.map(DescriptorConsumer::new).map_err(errors::setup)
    }

    /// The address, as another process uses it to open the pipe.
    #[getter]
    fn address(&self) -> String {
        self.0.address().to_string()
    }

    /// The bytes that the ring holds.
    #[getter]
    fn capacity(&self) -> u64 {
        self.0.capacity()
    }

    /// The bytes of the longest message.
    #[getter]
    fn max_len(&self) -> usize {
        self.0.max_len()
    }

    /// Whether this process has created it.
    #[getter]
    fn created(&self) -> bool {
        self.0.created()
    }

    fn __repr__(&self) -> String {
        format!("<shmpipe.Pipe {} of {} bytes>", self.0.address(), self.0.capacity())
    }
}
