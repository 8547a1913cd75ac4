//! The operating system, beside shared memory: a folder for each.

mod linux;

pub(crate) use linux::*;
