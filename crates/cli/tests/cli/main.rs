//! The command line, run as a user runs it: real processes, real signals, real segments.

mod bench;
mod binary;
mod codes;
mod deaths;
mod demo;
mod doctor;
mod foreign;
mod interrupts;
mod lines;
mod markup;
mod process;
mod stale;
mod terminal;
mod watching;
