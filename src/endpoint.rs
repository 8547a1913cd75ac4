//! The two ends of a pipe: what a program sends and receives with, and how it waits.

pub(crate) mod batch;
pub(crate) mod cancel;
mod claim;
pub(crate) mod consumer;
mod deadline;
mod distance;
pub(crate) mod drain;
pub(crate) mod message;
pub(crate) mod payload;
pub(crate) mod producer;
pub(crate) mod reservation;
mod stream_backoff;
pub(crate) mod trust;
mod wait;

use crate::error::SetupError;
use crate::pipe::Pipe;
use consumer::Consumer;
use producer::Producer;

impl Pipe {
    /// Claims the producer role and continues where the last producer stopped: what it committed is in the pipe, what it did not
    /// commit is gone.
    ///
    /// Walks over the records committed since the last producer stored its position, at most one batch.
    ///
    /// # Errors
    /// [`SetupError::RoleTaken`] while there is a producer, in this process or another; [`SetupError::Damaged`] if
    /// the ring holds what no correct peer writes.
    pub fn producer(&self) -> Result<Producer, SetupError> {
        Producer::claim(self)
    }

    /// Claims the consumer role and continues where the last consumer stopped: what it received and did not release is received
    /// again, with the same positions.
    ///
    /// # Errors
    /// [`SetupError::RoleTaken`] while there is a consumer, in this process or another; [`SetupError::Damaged`] if
    /// the header holds what no correct peer writes.
    pub fn consumer(&self) -> Result<Consumer, SetupError> {
        Consumer::claim(self)
    }
}
