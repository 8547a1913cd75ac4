//! `shmpipe rm --stale`: removes pipes that no process has open and that are empty.

use shmpipe::error::Damage;
use shmpipe::os::unix::OptionsExt;
use shmpipe::{
    Address, Consumer, DuplexSide, Listed, Location, Lost, Object, Options, Pipe, Producer, SetupError,
    Snapshot, TryRecvError,
};
use std::fmt;

use serde::Serialize;

use super::{Failures, Removed};
use crate::exit::{Failure, Outcome};
use crate::output::printable;
use crate::output::report::{self, Report, SCHEMA};
use crate::system::{pipes, users};

/// A pipe that was not removed, as a JSON object.
#[derive(Serialize)]
struct Difference {
    schema: u32,
    kept: String,
    because: &'static str,
    unread_messages: u64,
}

/// What happened to a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Removed,
    Difference(Reason),
}

/// Why a pipe was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// A process has it open.
    InUse,
    /// It was created for later use.
    Unused,
    /// It has unread messages.
    Unread(u64),
}

impl Reason {
    /// The value in JSON.
    fn word(self) -> &'static str {
        match self {
            Reason::InUse => "in_use",
            Reason::Unused => "unused",
            Reason::Unread(_) => "unread",
        }
    }

    fn messages(self) -> u64 {
        match self {
            Reason::InUse | Reason::Unused => 0,
            Reason::Unread(messages) => messages,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::InUse => return f.write_str("a process has it open"),
            Reason::Unused => f.write_str("it was never used")?,
            Reason::Unread(1) => f.write_str("1 message is unread")?,
            Reason::Unread(messages) => write!(f, "{messages} messages are unread")?,
        }
        f.write_str(" (--force removes it anyway)")
    }
}

/// Removes the stale ones of these pipes, or of all pipes of this user (of all users, for root). With `force` also pipes with
/// messages and unused ones, but never one that a process has open.
pub fn run(addresses: &[Address], force: bool, report: Report) -> Outcome {
    let mut failures = Failures::default();
    if addresses.is_empty() {
        let (mut pipes, trouble) = pipes::all();
        if let Some(trouble) = trouble {
            report.note(trouble);
        }
        pipes.sort_by_cached_key(|pipe| pipe.location.to_string());
        // A pipe that cannot be read, or that another user owns, is left alone. So is one without an address; one without a
        // name goes with its last user.
        for pipe in pipes.into_iter().filter(may_remove) {
            let (Location::Address(address), Ok(snapshot)) = (pipe.location, pipe.snapshot) else { continue };
            match remove_if_stale(&address, &snapshot, force) {
                Ok(Fate::Difference(Reason::InUse)) => {}
                Ok(fate) => answer(&address, fate, report)?,
                Err(failure) => failures.add(failure.about(&address), report),
            }
        }
        return failures.outcome();
    }
    for address in addresses {
        let fate = shmpipe::inspect(address)
            .map_err(Failure::from)
            .and_then(|snapshot| remove_if_stale(address, &snapshot, force));
        match fate {
            Ok(fate) => answer(address, fate, report)?,
            Err(failure) => failures.add(failure.about(address), report),
        }
    }
    failures.outcome()
}

fn may_remove(pipe: &Listed) -> bool {
    let user = users::current();
    user == 0 || user == pipe.permissions.uid
}

fn answer(address: &Address, fate: Fate, report: Report) -> Result<(), Failure> {
    report::print(&match (fate, report) {
        (Fate::Removed, Report::Text) => format!("{}: removed\n", printable(&address.to_string())),
        (Fate::Removed, Report::Json) => report::json(&Removed::new(address)) + "\n",
        (Fate::Difference(reason), Report::Text) => {
            format!("{}: kept, {reason}\n", printable(&address.to_string()))
        }
        (Fate::Difference(reason), Report::Json) => {
            let (because, unread_messages) = (reason.word(), reason.messages());
            report::json(&Difference { schema: SCHEMA, kept: address.to_string(), because, unread_messages })
                + "\n"
        }
    })
}

fn remove_if_stale(address: &Address, snapshot: &Snapshot, force: bool) -> Result<Fate, Failure> {
    match snapshot.unread() {
        _ if snapshot.is_open => Ok(Fate::Difference(Reason::InUse)),
        messages if messages > 0 && !force => Ok(Fate::Difference(Reason::Unread(messages))),
        _ if snapshot.producer.epoch == 0 && snapshot.consumer.epoch == 0 && !force => {
            Ok(Fate::Difference(Reason::Unused))
        }
        _ => match remove_one(address, snapshot, force) {
            Err(SetupError::RoleTaken { .. } | SetupError::SideTaken { .. } | SetupError::Busy { .. }) => {
                Ok(Fate::Difference(Reason::InUse))
            }
            // Another process was faster.
            Err(SetupError::NotFound { .. } | SetupError::Lost { lost: Lost::Removed, .. }) => {
                Ok(Fate::Removed)
            }
            fate => Ok(fate?),
        },
    }
}

/// Holds both roles while it checks again and removes: messages sent since the first look are kept, and no process can attach in
/// between.
fn remove_one(address: &Address, snapshot: &Snapshot, force: bool) -> Result<Fate, SetupError> {
    if snapshot.stale {
        // No process can have it open, and none can open it.
        return shmpipe::unlink(address).map(|()| Fate::Removed);
    }
    let options = Options::new()
        .schema(snapshot.schema)
        .duplex(snapshot.duplex)
        .allow_rmid_forced(true)
        .trust_uid(snapshot.permissions.uid)
        .trust_uid(snapshot.creator);
    let address = exactly(address, snapshot);
    let pipe = options.open(&address)?;
    if pipe.id() != snapshot.segment_id {
        return Ok(Fate::Difference(Reason::InUse));
    }
    let (_producers, mut consumers) = claim_all(&pipe)?;
    for consumer in consumers.iter_mut().filter(|_| !force) {
        match consumer.try_recv() {
            Ok(message) => {
                message.requeue();
                let unread = shmpipe::inspect(&address)?.unread().max(1);
                return Ok(Fate::Difference(Reason::Unread(unread)));
            }
            Err(TryRecvError::Corrupt(corruption)) => {
                return Err(SetupError::Damaged(Damage::Ring(corruption)));
            }
            Err(_) => {}
        }
    }
    // Another pipe may have its name by now.
    if shmpipe::inspect(&address)?.segment_id != snapshot.segment_id {
        return Ok(Fate::Difference(Reason::InUse));
    }
    shmpipe::unlink_force(&address).map(|()| Fate::Removed)
}

/// All ends of a pipe: those of each direction.
fn claim_all(pipe: &Pipe) -> Result<(Vec<Producer>, Vec<Consumer>), SetupError> {
    let ends = match pipe.is_duplex() {
        false => vec![(pipe.producer()?, pipe.consumer()?)],
        true => {
            let (a, b) = (pipe.duplex_as(DuplexSide::A)?, pipe.duplex_as(DuplexSide::B)?);
            vec![a.split(), b.split()]
        }
    };
    Ok(ends.into_iter().unzip())
}

/// An address that leads to this very pipe, whatever is created under its name meanwhile, if there is one.
fn exactly(address: &Address, snapshot: &Snapshot) -> Address {
    match snapshot.object {
        Object::SysV { shm_id, .. } => {
            format!("sysv:id:{shm_id}").parse().unwrap_or_else(|_| address.clone())
        }
        _ => address.clone(),
    }
}
