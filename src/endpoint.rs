//! The two ends of a pipe, and both directions of a duplex pipe in one: what a program sends and receives with, and how it waits.

pub(crate) mod activity;
pub(crate) mod batch;
pub(crate) mod bytes;
pub(crate) mod cancel;
mod claim;
pub(crate) mod consumer;
pub(crate) mod deadline;
mod distance;
pub(crate) mod drain;
pub(crate) mod duplex;
pub(crate) mod iter;
pub(crate) mod message;
pub(crate) mod pace;
pub(crate) mod payload;
pub(crate) mod producer;
pub(crate) mod reservation;
pub(crate) mod short;
mod stream_backoff;
pub(crate) mod trust;
pub(crate) mod wait;
pub(crate) mod watched;

use crate::error::{SetupError, Unsupported};
use crate::pipe::Pipe;
use consumer::Consumer;
use producer::Producer;

impl Pipe {
    /// Claims the producer role and continues where the last producer stopped.
    ///
    /// What it committed is in the pipe, what it did not commit is gone. Walks over the records committed since the last producer
    /// stored its position, at most one batch.
    ///
    /// Does not wait for a live producer to leave. Waits up to a second for the kernel to release the role of a dead one.
    ///
    /// ```
    /// use shmpipe::{Pipe, Role, SetupError};
    ///
    /// let pipe = Pipe::open_or_create("memfd")?;
    /// let first = pipe.producer()?;
    /// let second = pipe.producer();
    /// assert!(matches!(second, Err(SetupError::RoleTaken { role: Role::Producer, .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// * [`SetupError::RoleTaken`] while there is a producer, in this process or another.
    /// * [`Damage::Ring`](crate::error::Damage::Ring) if a peer broke the protocol in the ring.
    /// * [`SetupError::Lost`] if the pipe was removed, or this thread left its IPC namespace.
    /// * [`Unsupported::AfterFork`](crate::error::Unsupported::AfterFork) in a forked child, which must [`reopen`](Pipe::reopen)
    ///   the pipe, and [`Unsupported::TwoWay`](crate::error::Unsupported::TwoWay) if the pipe has two directions.
    /// * [`PermissionDenied`](SetupError::PermissionDenied) or [`Os`](SetupError::Os).
    pub fn producer(&self) -> Result<Producer, SetupError> {
        check_directions(self, false)?;
        Producer::claim(self)
    }

    /// Claims the consumer role and continues where the last consumer stopped.
    ///
    /// What it received and did not release is received again, with the same positions.
    ///
    /// Does not wait for a live consumer to leave. Waits up to a second for the kernel to release the role of a dead one.
    ///
    /// ```
    /// let pipe = shmpipe::Pipe::open_or_create("memfd")?;
    /// pipe.producer()?.send(b"kept until received")?;
    /// let mut consumer = pipe.consumer()?;
    /// assert_eq!(consumer.recv()?.to_vec(), b"kept until received");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`producer`](Pipe::producer): [`SetupError::RoleTaken`] while there is a consumer,
    /// [`Damage::Ring`](crate::error::Damage::Ring) if a peer broke the protocol, and
    /// [`Lost`](SetupError::Lost), [`Unsupported`](SetupError::Unsupported), [`PermissionDenied`](SetupError::PermissionDenied) or [`Os`](SetupError::Os).
    pub fn consumer(&self) -> Result<Consumer, SetupError> {
        check_directions(self, false)?;
        Consumer::claim(self)
    }
}

/// Fails if the pipe has two directions and one is needed, or the other way round.
fn check_directions(pipe: &Pipe, duplex: bool) -> Result<(), SetupError> {
    let address = || pipe.address().clone();
    match (pipe.is_duplex(), duplex) {
        (true, false) => Err(SetupError::Unsupported(Unsupported::TwoWay { address: address() })),
        (false, true) => Err(SetupError::Unsupported(Unsupported::OneWay { address: address() })),
        _ => Ok(()),
    }
}
