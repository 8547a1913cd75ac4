//! A pipe between two unrelated processes at the speed of shared memory.
//!
//! One producer, one consumer; lossless, ordered messages of up to half the ring less 8 bytes; a ring buffer in a System V segment,
//! a POSIX shared memory object, a file or a memfd. Like a Unix pipe, it blocks when full or empty, signals end of stream when the
//! producer closes, and returns an error when the consumer is gone. Unlike one, it needs no system call and no kernel copy per
//! message, keeps message boundaries, and survives `kill -9` of either side with nothing lost that was committed.
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
//!         // The message is dropped after the line is printed: that releases its space to the producer.
//!         Ok(message) => println!("{}", String::from_utf8_lossy(&message.to_vec())),
//!         Err(shmpipe::RecvError::Closed) => break,
//!         Err(error) => return Err(error.into()),
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! # Concepts
//! * An [`Address`] names a pipe and the kind of shared memory it lies in: `ticks`, `sysv:0x4d2`, `posix:/ticks`, `file:PATH`, ...
//! * [`Options`] create or open a [`Pipe`]: a mapped *segment*, without a role yet.
//! * Messages both ways through one address: [`Options::duplex`] and [`Duplex`].
//! * A process claims the *role* of [`Producer`] or [`Consumer`]. Each role has one holder at a time. When a holder dies, the
//!   kernel frees its role.
//! * A *record* is a message in the ring: a header word, the payload, padding to 8 bytes. Its [`Position`], the number of bytes
//!   before it since the pipe was created, identifies it together with the [`SegmentId`].
//! * The producer [reserves](Producer::reserve) and [commits](Reservation::commit). The consumer [receives](Consumer::recv), and
//!   releases by dropping the [`Message`]. Everything else builds on these.
//!
//! # Cost
//! A message costs one pass over its payload on each side and, if it is small, one cache line that moves between the cores. No
//! system call, no full fence, no locked instruction, no allocation. A side that waits spins for 20 microseconds, yields for 80
//! more and then sleeps on a futex ([`Wait::Block`]), at once if its waits are long; waking it costs the other side one system call.
//! The kind of shared memory makes no difference, except that a file on a disk file system is slower. Memory: the capacity and one
//! page in the segment, a few hundred bytes in each process.
//!
//! # After a crash
//! A record is in the pipe completely or not at all, at whatever instruction its producer is killed. A successor claims the role and
//! continues after the last committed record. A killed consumer loses nothing: its successor receives again what was received and
//! not released, at the same positions. Only those messages repeat. A sink that stores the position with its data can discard the
//! repeats.
//!
//! # Safety against the other process
//! By default, nothing that the other process does to the shared memory is undefined behaviour here. Header words are loaded
//! once and checked against private memory; payloads are copied in and out. A violation is an error, and every later send or receive
//! returns the same. A peer that truncates the file of `posix:` or `file:` ends this process by SIGBUS.
//! [`Consumer::trust_peer`] and [`Producer::trust_peer`] are the `unsafe` promise that allows reading and writing in place.
//!
//! # What it is not
//! No broadcast and no second producer in a direction; no network; no protection of the data against power loss; 64-bit Linux only.
//!
//! DESIGN.md has the protocol, the proofs and the memory orderings, LAYOUT.md the segment byte for byte.

// The models use the protocol alone.
#![cfg_attr(shmpipe_loom, allow(dead_code, unused_imports))]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!(
    "shmpipe is for 64-bit Linux: positions are words of 64 bits, and its roles, futexes and barriers are the kernel's"
);

mod address;
mod backend;
mod endpoint;
pub mod error;
mod inspect;
mod options;
pub mod os;
mod permissions;
mod pipe;
mod position;
mod protocol;
mod segment;
mod sys;
mod waiting;

/// The traits that [`Value`] and [`Record::value`] ask for are this crate's.
pub use bytemuck;
pub use protocol::corruption::Corruption;
pub use protocol::layout::VERSION as LAYOUT_VERSION;
pub use protocol::liveness::{DuplexSide, PANICKED, Peer, Role};
pub use protocol::sleep::Interest;
pub use protocol::wakeup::WakeMode;

#[cfg(feature = "async")]
pub use waiting::asynchronous::{AsyncConsumer, AsyncProducer};

pub use {
    address::{Address, AddressError, AddressKind},
    endpoint::activity::Activity,
    endpoint::batch::Batch,
    endpoint::bytes::{ByteReader, ByteWriter},
    endpoint::cancel::CancelHandle,
    endpoint::consumer::Consumer,
    endpoint::drain::Drain,
    endpoint::duplex::Duplex,
    endpoint::iter::Messages,
    endpoint::message::{Message, Record},
    endpoint::payload::{Payload, Tagged, Value, Vectored},
    endpoint::producer::Producer,
    endpoint::reservation::Reservation,
    endpoint::short::Short,
    endpoint::trust::{Trusted, Untrusted},
    error::{
        AddError, CheckError, CloseError, FlushError, Lost, NotAdded, RecvError, RecvTimeoutError, SendError,
        SendTimeoutError, SetupError, TryRecvError, TrySendError, WaitError, WaitSetError, WrongSize,
    },
    inspect::{
        Direction, Latency, Listed, Listing, Location, Passed, Side, Snapshot, Tap, inspect, inspect_at,
        list, list_unguarded, sysvipc,
    },
    options::{Difference, Options, Wait},
    permissions::Permissions,
    pipe::{Pipe, unlink, unlink_force, unlink_leftover},
    position::{Position, SegmentId},
    segment::Object,
    segment::pages::Memory,
    waiting::descriptor::WithDescriptor,
    waiting::member::{Endpoint, Member},
    waiting::ready::{Event, Readiness, Ready},
    waiting::set::{Key, WaitSet},
};

/// The README's code, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
