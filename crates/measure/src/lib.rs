//! Measures how fast messages get from one process to another, through shmpipe and its alternatives.
//!
//! It serves `shmpipe bench` and the benches of shmpipe. Its interface follows theirs, and may change with every version.
//!
//! # Why slices
//! On a virtual machine the CPUs move: within seconds, two of them turn from threads of one core into distant cores, and
//! everything between them takes several times as long. A figure then shows where the machine was, not which code is
//! better. So this crate measures in *slices* of about half a millisecond, each between two *floors*. A floor is the cost of a
//! round trip of one cache line between the same two processes, the least that any exchange can cost. A slice whose floors
//! differ does not count. The floor determines the [`Placement`], and figures of different placements are never combined.
//! Slices of all configurations alternate, so that their ratios compare equals.
//!
//! Slices cannot show the effect of where the memory lies. The kernel's choice holds for a whole session and changes figures by
//! tens of percent, so [`collect_in_sessions`] starts a new session every other second.
//!
//! # Two processes
//! The [`Session`]'s partner is the same program, started again by exec. The two share only what any two processes can share, by
//! identifier or inherited descriptor. A program that measures calls [`serve_if_partner`] first:
//!
//! ```no_run
//! use shmpipe_measure::{Experiment, Machine, Plan, Session, Settings, Until, collect, serve_if_partner, transports};
//!
//! fn main() -> std::io::Result<()> {
//!     serve_if_partner(transports::ALL);
//!     let mut session = Session::start(&Settings::default(), transports::ALL)?;
//!     println!("{}", Machine::of(&session));
//!
//!     let shmpipe = session.transport("shmpipe")?;
//!     println!("{}", session.checked_stream(shmpipe, 1_000_000, 4096, 1)?);
//!
//!     let until = Until::Elapsed(std::time::Duration::from_secs(5));
//!     let plan = Plan::new(until).with(&session, Experiment::RoundTrip, &[8, 64]);
//!     let collected = collect(&mut session, &plan)?;
//!     println!("{}\n{}", collected.table(Experiment::RoundTrip, "classic"), collected.floor_report());
//!     Ok(())
//! }
//! ```
//!
//! To measure other transports than [`transports`], implement [`Channel`] and [`Transport`].
//!
//! # Two threads
//! Transports that only work within one process are measured between threads ([`Settings::between`]), and so is everything
//! compared with them. Figures of threads and of processes are not comparable.
//!
//! # What is measured
//! [`collect`]: medians of round trips and of streams. [`latency`]: each round trip, for the tail. [`first_lap`]: the same
//! in a new ring. [`paced`]: one-way delays at a given rate, from the time at which a message was due. [`sleeping`]: the wake-up
//! of a sleeping consumer, and the cost of an idle one. [`slow`]: the processor time of a side whose partner is slow. [`limits`]: the limits of hardware and kernel, without a transport.
#![cfg(target_os = "linux")]

// `transports/shmpipe.rs` uses this name of the crate, because it is also compiled as a crate of its own.
extern crate self as shmpipe_measure;

mod affinity;
pub mod bench;
mod both_ends;
mod channel;
mod checked;
mod clock;
mod cold;
mod collected;
mod control;
mod endpoint;
mod errors;
pub mod first_lap;
mod floor;
mod futex;
mod guard;
mod hgrm;
mod idle;
mod invitation;
pub mod latency;
pub mod limits;
mod machine;
pub mod paced;
mod partner;
mod patience;
mod placement;
mod pool;
pub mod report;
mod scratch;
mod segment;
mod session;
mod settings;
pub mod sleeping;
mod slices;
pub mod slow;
mod splitmix;
mod statistics;
mod table;
pub mod transports;
mod watchdog;

pub use affinity::allowed_cpus;
pub use both_ends::both_ends;
pub use channel::{Channel, Incoming, Outgoing};
pub use checked::Checked;
pub use collected::{Cell, Collected, FEWEST, Series};
pub use control::Leftover;
pub use endpoint::Endpoint;
pub use guard::SignalsHeld;
pub use idle::Idle;
pub use invitation::{Invitation, Invited};
pub use machine::Machine;
pub use partner::{is_partner, serve_if_partner};
pub use patience::Patience;
pub use placement::{NEAR_BELOW_NS, Placement};
pub use pool::HugePages;
pub use scratch::{Directory, Scratch};
pub use session::{Config, Experiment, FLOOR_TOLERANCE, FLOOR_TRIPS, Session, Slice};
pub use settings::{Between, Settings};
pub use slices::{Plan, Until, collect, collect_in_sessions};
pub use statistics::{Spread, median};
pub use transports::{Mode, Transport};
