//! A pipe between two unrelated processes at the speed of shared memory.
//!
//! One producer, one consumer; lossless, ordered messages of any length; a ring buffer in a System V segment, a POSIX
//! shared memory object, a file or a memfd. It keeps
//! what people like about a pipe: it blocks when full and when empty, ends when the writer closes, and says so when
//! the reader is gone. It adds what shared memory allows: no system call and no kernel copy per message, message
//! boundaries, contents that outlive both processes, and either side coming back after `kill -9` with nothing lost
//! that was committed.
//!
//! ```no_run
//! # fn producer() -> Result<(), Box<dyn std::error::Error>> {
//! // In one process:
//! let mut producer = shmpipe::Pipe::open_or_create("ticks")?.producer()?;
//! producer.send(b"EURUSD 1.0842")?;
//! producer.close()?;
//! # Ok(()) }
//!
//! # fn consumer() -> Result<(), Box<dyn std::error::Error>> {
//! // In another, started before or after:
//! let mut consumer = shmpipe::Pipe::open_or_create("ticks")?.consumer()?;
//! loop {
//!     match consumer.recv() {
//!         Ok(message) => println!("{}", String::from_utf8_lossy(&message.to_vec())),
//!         Err(shmpipe::RecvError::Closed) => break,
//!         Err(error) => return Err(error.into()),
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! # Concepts
//! * An [`Address`] names a pipe, and says what kind of shared memory it lies in: `ticks`, `sysv:0x4d2`, `posix:/ticks`,
//!   `file:PATH`, ...
//! * [`Options`] make or open one; the result is a [`Pipe`], a mapped *segment* without a role.
//! * Of a pipe, the *role* of [`Producer`] and of [`Consumer`] can each be claimed by one process at a time. The kernel
//!   gives a role back when its holder dies, whatever it died of.
//! * A *record* is a message in the ring: a header word, the payload, padding to 8 bytes. Its [`Position`] is the
//!   number of bytes before it since the pipe was made, and identifies it for ever together with the [`SegmentId`].
//! * The producer [reserves](Producer::reserve) and [commits](Reservation::commit), the consumer
//!   [reads](Consumer::recv) and releases by dropping the [`Message`]. Everything else is built on these two.
//!
//! # Cost
//! A message costs one pass over its payload on each side and, for small ones, one cache line that moves from one
//! core to the other. No system call, no full fence, no locked instruction, no allocation. A side that has to wait
//! polls for 20 microseconds, yields for 80 more and then sleeps on a futex ([`Wait::Block`]); who sends to a sleeper
//! pays for one system call. What the memory is makes no difference. Memory: the capacity and one page in the segment, a
//! few hundred bytes in each process.
//!
//! # After a crash
//! A record is wholly in the pipe or not at all, at whatever instruction its producer is killed. A successor claims
//! the role and goes on behind the last committed record. A consumer that is killed loses nothing: what it took and did
//! not release comes again to its successor, with the same positions, so that a sink that stores the position with
//! its own data takes each record exactly once.
//!
//! # Safety against the other process
//! By default nothing that the other process does to the shared memory is undefined behaviour here: header words are
//! loaded once, checked against private memory and copied, payloads are copied in and out. A violation is an error
//! that poisons the endpoint. Borrowing messages in place is one promise away: [`Consumer::trust_peer`],
//! [`Producer::trust_peer`].
//!
//! # What it is not
//! No broadcast and no second producer; no network; no protection of the data against power loss; 64-bit Linux only.
//!
//! DESIGN.md has the protocol, the proofs and the memory orderings, LAYOUT.md the segment byte for byte.

#![cfg_attr(shmpipe_loom, allow(dead_code, unused_imports))]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!(
    "shmpipe is for 64-bit Linux: positions are words of 64 bits, and its roles, futexes and barriers are the kernel's"
);

#[cfg(not(shmpipe_loom))]
mod address;
#[cfg(not(shmpipe_loom))]
mod backend;
#[cfg(not(shmpipe_loom))]
mod endpoint;
#[cfg(not(shmpipe_loom))]
mod error;
#[cfg(not(shmpipe_loom))]
pub mod handoff;
#[cfg(not(shmpipe_loom))]
mod inspect;
#[cfg(not(shmpipe_loom))]
mod options;
#[cfg(not(shmpipe_loom))]
mod os;
#[cfg(not(shmpipe_loom))]
mod permissions;
#[cfg(not(shmpipe_loom))]
mod pipe;
#[cfg(not(shmpipe_loom))]
mod position;
mod protocol;
#[cfg(not(shmpipe_loom))]
mod segment;

pub use protocol::bell::WakeMode;
pub use protocol::corruption::Corruption;
pub use protocol::peer::{Peer, Role};

#[cfg(not(shmpipe_loom))]
pub use {
    address::{Address, AddressError, AddressKind},
    endpoint::consumer::{Consumer, Drain, Message, Record},
    endpoint::producer::{Batch, Producer, Reservation},
    endpoint::stop::Stopper,
    endpoint::trust::{Trusted, Untrusted},
    error::{RecvError, SendError, SetupError},
    inspect::{Listed, Listing, Location, Side, Snapshot, inspect, list, list_unguarded, sysvipc},
    options::{Kept, Options, Wait},
    permissions::Permissions,
    pipe::{Pipe, unlink, unlink_force},
    position::{Position, SegmentId},
    segment::Object,
    segment::pages::Memory,
};

/// The README's code, compiled.
#[cfg(all(doctest, not(shmpipe_loom)))]
#[doc = include_str!("../README.md")]
struct Readme;
