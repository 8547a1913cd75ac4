//! Watching a pipe without taking part.

use crate::errors;
use crate::producer::peer_name;
use pyo3::prelude::*;
use std::time::Duration;

/// The state of a pipe at one moment, from inspect. The two sides run meanwhile, so the numbers need not agree to the byte.
#[pyclass(frozen, get_all, module = "shmpipe")]
pub struct Snapshot {
    /// The bytes that the ring holds, in each direction.
    capacity: u64,
    /// The bytes of the longest message.
    max_len: u64,
    /// The number that the creator set; 0 without one.
    schema: u64,
    /// Whether it is removed once both sides have closed.
    remove_on_close: bool,
    /// Whether the next process that looks for it removes it once it is left over.
    remove_leftover: bool,
    /// The bytes of the ring between the read and the write position; in a duplex pipe of the ring from side A to side B.
    used: u64,
    /// The messages that were sent and not yet released; in a duplex pipe those of both directions.
    unread: u64,
    /// The messages that producers counted as dropped.
    dropped: u64,
    /// How long messages were under way; None if the pipe does not measure it.
    latency: Option<Py<Latency>>,
    /// The producer's side; in a duplex pipe side A, as it sends.
    producer: Py<Side>,
    /// The consumer's side; in a duplex pipe side B, as it receives.
    consumer: Py<Side>,
    /// The direction from side B to side A of a duplex pipe. None if the pipe has one direction, or is a file of another user.
    back: Option<Py<Direction>>,
}

/// A direction of a duplex pipe at one moment, of a Snapshot.
#[pyclass(frozen, get_all, module = "shmpipe")]
pub struct Direction {
    /// The bytes of its ring between the read and the write position.
    used: u64,
    /// The messages that were sent and not yet released.
    unread: u64,
    /// The messages that producers counted as dropped.
    dropped: u64,
    /// How long messages were under way; None if the pipe does not measure it.
    latency: Option<Py<Latency>>,
    /// The side that sends.
    producer: Py<Side>,
    /// The side that receives.
    consumer: Py<Side>,
}

/// A side of a pipe at one moment, of a Snapshot.
#[pyclass(frozen, get_all, module = "shmpipe")]
pub struct Side {
    /// "never came", "open", "closed", "aborted", "died" or "unknown".
    state: &'static str,
    /// The process that has the role, if one has and is visible from here.
    pid: Option<u32>,
    /// The write position, or the read position.
    position: u64,
    /// The messages sent, or released.
    messages: u64,
    /// The bytes of those.
    bytes: u64,
}

/// How long some of the messages were under way since the pipe was created, in seconds: from the commit to the moment at which the
/// consumer found them. A percentile is at most an eighth above the true one, and None without samples.
#[pyclass(frozen, module = "shmpipe")]
pub struct Latency(shmpipe::Latency);

impl Direction {
    fn new(py: Python<'_>, direction: &shmpipe::Direction) -> PyResult<Self> {
        Ok(Direction {
            used: direction.used,
            unread: direction.unread(),
            dropped: direction.dropped,
            latency: Latency::new(py, direction.latency.as_ref())?,
            producer: Side::new(py, &direction.producer)?,
            consumer: Side::new(py, &direction.consumer)?,
        })
    }
}

impl Side {
    fn new(py: Python<'_>, side: &shmpipe::Side) -> PyResult<Py<Self>> {
        let &shmpipe::Side { peer, pid, position, messages, bytes, .. } = side;
        Py::new(py, Side { state: peer_name(peer), pid, position, messages, bytes })
    }
}

impl Latency {
    fn new(py: Python<'_>, latency: Option<&shmpipe::Latency>) -> PyResult<Option<Py<Self>>> {
        latency.map(|latency| Py::new(py, Latency(latency.clone()))).transpose()
    }

    fn quantile(&self, at: f64) -> Option<f64> {
        self.0.quantile(at).as_ref().map(Duration::as_secs_f64)
    }
}

/// Returns the state of a pipe, without taking part: it needs permission to read, and takes no role.
///
/// Raises NotFound if there is none, and other SetupErrors.
#[pyfunction]
pub fn inspect(py: Python<'_>, address: &str) -> PyResult<Snapshot> {
    let found = py.detach(|| shmpipe::inspect(address)).map_err(errors::setup)?;
    let back = found.back.as_ref().map(|back| Py::new(py, Direction::new(py, back)?)).transpose()?;
    Ok(Snapshot {
        capacity: found.capacity,
        max_len: found.max_len,
        schema: found.schema,
        remove_on_close: found.remove_on_close,
        remove_leftover: found.remove_leftover,
        used: found.used,
        unread: found.unread(),
        dropped: found.dropped,
        latency: Latency::new(py, found.latency.as_ref())?,
        producer: Side::new(py, &found.producer)?,
        consumer: Side::new(py, &found.consumer)?,
        back,
    })
}

#[pymethods]
impl Snapshot {
    fn __repr__(&self) -> String {
        let Snapshot { used, capacity, unread, producer, consumer, .. } = self;
        let (producer, consumer) = (producer.get().state, consumer.get().state);
        format!(
            "<shmpipe.Snapshot {used} of {capacity} bytes used, unread {unread}, producer {producer}, consumer {consumer}>"
        )
    }
}

#[pymethods]
impl Direction {
    fn __repr__(&self) -> String {
        let Direction { used, unread, producer, consumer, .. } = self;
        let (producer, consumer) = (producer.get().state, consumer.get().state);
        format!(
            "<shmpipe.Direction {used} bytes used, unread {unread}, producer {producer}, consumer {consumer}>"
        )
    }
}

#[pymethods]
impl Side {
    fn __repr__(&self) -> String {
        let Side { state, position, messages, .. } = self;
        format!("<shmpipe.Side {state} at {position}, messages {messages}>")
    }
}

#[pymethods]
impl Latency {
    /// The messages sampled: about sixteen in each pass through the ring, at least one in 64 KiB, and each one that wakes the consumer.
    #[getter]
    fn samples(&self) -> u64 {
        self.0.samples()
    }

    /// What half of them did not exceed.
    #[getter]
    fn p50(&self) -> Option<f64> {
        self.quantile(0.5)
    }

    /// What 90 % of them did not exceed.
    #[getter]
    fn p90(&self) -> Option<f64> {
        self.quantile(0.9)
    }

    /// What 99 % of them did not exceed.
    #[getter]
    fn p99(&self) -> Option<f64> {
        self.quantile(0.99)
    }

    /// What 99.9 % of them did not exceed.
    #[getter]
    fn p999(&self) -> Option<f64> {
        self.quantile(0.999)
    }

    /// What 99.99 % of them did not exceed.
    #[getter]
    fn p9999(&self) -> Option<f64> {
        self.quantile(0.9999)
    }

    /// The mean; 0 without samples.
    #[getter]
    fn mean(&self) -> f64 {
        self.0.mean().as_secs_f64()
    }

    /// The longest since the pipe was created; 0 without samples.
    #[getter]
    fn max(&self) -> f64 {
        self.0.max().as_secs_f64()
    }

    /// The latency of the messages that an earlier snapshot of the same pipe did not have.
    fn since(&self, earlier: &Latency) -> Latency {
        Latency(self.0.since(&earlier.0))
    }

    fn __repr__(&self) -> String {
        format!("<shmpipe.Latency of {} samples>", self.samples())
    }
}
