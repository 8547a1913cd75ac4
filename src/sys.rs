//! What we use of the operating system apart from shared memory, with a folder for each system. Linux only; a port also touches
//! `backend`, `segment`, `inspect` and `os`.

mod linux;

pub(crate) use linux::*;
