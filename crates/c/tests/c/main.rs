//! The C interface, from C: programs that are compiled with the header and linked with the library.
//!
//! Needs a C compiler, `cc`. A test that needs more says so and passes where that is missing.

mod compiler;
mod examples;
mod exports;
mod header;
mod programs;
mod sides;
