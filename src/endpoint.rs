//! The two ends of a pipe: what a caller sends and receives with, and how it waits.

mod claim;
pub(crate) mod consumer;
mod distance;
pub(crate) mod producer;
pub(crate) mod stop;
pub(crate) mod trust;
pub(crate) mod wait;

use crate::error::SetupError;
use crate::pipe::Pipe;
use consumer::Consumer;
use producer::Producer;

impl Pipe {
    /// Claims the producer's role and goes on where the last producer stopped: what it committed is in the pipe,
    /// what it did not commit is gone.
    ///
    /// Walks over the records committed since the last producer noted its position, at most one batch.
    ///
    /// # Errors
    /// [`SetupError::RoleTaken`] while there is a producer, in this process or another; [`SetupError::Corrupt`] if
    /// the ring holds what no correct peer writes.
    pub fn producer(&self) -> Result<Producer, SetupError> {
        Producer::claim(self)
    }

    /// Claims the consumer's role and goes on where the last consumer stopped: what it took and did not release
    /// comes again, with the same positions.
    ///
    /// # Errors
    /// [`SetupError::RoleTaken`] while there is a consumer, in this process or another; [`SetupError::Corrupt`] if
    /// the header holds what no correct peer writes.
    pub fn consumer(&self) -> Result<Consumer, SetupError> {
        Consumer::claim(self)
    }
}
