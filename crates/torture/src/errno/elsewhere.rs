//! The harness sets registers of x86-64 to make system calls fail.

use crate::run::{Harness, Run};
use crate::verdict::{Failure, Outcome};
use clap::Args;

/// Makes each system call fail with each error that it can return (only on x86-64)
#[derive(Debug, Args)]
pub struct Errno {}

impl Harness for Errno {
    fn run(&self, _: &Run) -> Outcome {
        Err(Failure::CannotRunHere("the processor is not x86-64".to_owned()))
    }
}
