//! The command line, run as a user runs it: real processes, real signals, real segments.

mod bench;
mod binary;
mod codes;
mod deaths;
mod demo;
mod doctor;
mod duplex;
mod foreign;
mod help;
mod interrupts;
mod keep;
mod kinds;
mod limits;
mod lines;
mod markup;
mod memory;
mod messages;
mod metrics;
mod names;
mod place;
mod process;
mod serve;
mod stale;
mod streams;
mod terminal;
mod watching;
