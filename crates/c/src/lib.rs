//! The C interface of [`shmpipe`]. `include/shmpipe.h` is generated from this crate, comments included, and `docs/c.md` is its manual.
//!
//! Every function
//! * takes opaque handles, which it checks for NULL, for a fork, and for what is open in them;
//! * returns 0 or a negative [`shmpipe_code`], and leaves the sentence of a failure in the thread;
//! * catches a panic, which makes the handle refuse everything but its end.
//!
//! # Promises
//! What no function can check, and each relies on:
//! * A pointer is NULL, or valid for what the function does with it: a handle was returned by this library and not given back since,
//!   memory has the size that is passed with it, a string ends with a zero byte.
//! * One thread at a time uses a handle. The exception is a cancel handle.

#![allow(non_camel_case_types, reason = "the names are those in C")]
#![allow(clippy::missing_safety_doc, reason = "the promises are the same for all functions: see above")]

// In the order of the header, which the empty lines keep.
mod border;

mod code;

mod options;

mod pipe;

mod end;

mod producer;

mod consumer;

mod cancel;

mod set;

mod snapshot;

mod tap;

pub use border::*;
pub use cancel::*;
pub use code::*;
pub use consumer::*;
pub use end::*;
pub use options::*;
pub use pipe::*;
pub use producer::*;
pub use set::*;
pub use snapshot::*;
pub use tap::*;
