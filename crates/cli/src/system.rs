//! The machine, beyond the library: processes, users, signals, standard input and output.

pub mod pipes;
pub mod processes;
pub mod signals;
pub mod stdio;
pub mod users;
