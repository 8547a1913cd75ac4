//! System calls are made to fail by way of registers that other processors do not have.

use crate::run::{Harness, Run};
use crate::verdict::{Failure, Outcome};
use clap::Args;

/// Makes each system call fail with each error that it can return (x86-64 alone)
#[derive(Debug, Args)]
pub struct Errno {}

impl Harness for Errno {
    fn run(&self, _: &Run) -> Outcome {
        Err(Failure::CannotRunHere("the processor is no x86-64".to_owned()))
    }
}
