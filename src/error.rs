//! Errors, one family each for setting up, sending and receiving. Each says what was found, what was expected and
//! what to do.

use crate::address::{Address, AddressError};
use crate::permissions::Permissions;
use crate::protocol::bell::WakeMode;
use crate::protocol::corruption::Corruption;
use crate::protocol::peer::Role;
use std::fmt;
use std::io;
use std::path::PathBuf;

const REMOVED: &str = "the pipe was removed while in use; open it anew";
const REPLACED: &str =
    "the pipe was removed while in use, and another one is in its place; whoever opens it anew gets that one";
const CLAIMS_LOST: &str = "our role is no longer kept for us: the semaphore set is gone (systemd's RemoveIPC? ipcrm?), or somebody \
     else has taken the role; end all that use the pipe, then open it anew";

/// How a pipe was lost under those who use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// It was removed.
    Removed,
    /// It was removed, and its address leads to another one.
    Replaced,
    /// It is there, and what guards its roles does not know of so many who are attached.
    Claims { attached: u64 },
}

impl From<Loss> for SendError {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Removed => SendError::Removed,
            Loss::Replaced => SendError::Replaced,
            Loss::Claims { .. } => SendError::ClaimsLost,
        }
    }
}

impl From<Loss> for RecvError {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Removed => RecvError::Removed,
            Loss::Replaced => RecvError::Replaced,
            Loss::Claims { .. } => RecvError::ClaimsLost,
        }
    }
}

/// Why a message was not sent. Nothing of it is in the pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The message, or the batch, is longer than this pipe can ever take.
    TooLarge {
        /// Bytes of the message; of a batch, the bytes that it would take in the ring.
        length: usize,
        /// Bytes that fit.
        max: usize,
    },
    /// There is no space now; the consumer has to release something first. Only `try_` calls say so.
    Full,
    /// The deadline passed before there was space.
    TimedOut,
    /// A [`Stopper`](crate::Stopper) ended the wait.
    Stopped,
    /// The consumer has closed while this producer was attached.
    Closed,
    /// The consumer has died. Said once; the next call waits for its successor.
    Abandoned,
    /// The pipe was removed, so that nobody will come to it any more; or this process has left its IPC namespace.
    Removed,
    /// The pipe was removed, and its address leads to another one now.
    Replaced,
    /// The pipe is there, and what kept a second producer away is not: its semaphore set was removed, or our claim in it, or
    /// there is a second one.
    ClaimsLost,
    /// The segment holds what no correct consumer writes.
    Corrupt(Corruption),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::TooLarge { length, max } => {
                write!(
                    f,
                    "{length} bytes are more than the {max} that fit; split it or make a pipe of larger capacity"
                )
            }
            SendError::Full => {
                f.write_str("the pipe is full; try again when the consumer has released something")
            }
            SendError::TimedOut => f.write_str("the pipe stayed full until the deadline"),
            SendError::Stopped => f.write_str("the wait for space was stopped"),
            SendError::Closed => f.write_str("the consumer has closed the pipe"),
            SendError::Abandoned => {
                f.write_str("the consumer has died; send again to wait for its successor")
            }
            SendError::Removed => f.write_str(REMOVED),
            SendError::Replaced => f.write_str(REPLACED),
            SendError::ClaimsLost => f.write_str(CLAIMS_LOST),
            SendError::Corrupt(corruption) => corruption.fmt(f),
        }
    }
}

impl std::error::Error for SendError {}

/// Why no message was received. Nothing was taken from the pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecvError {
    /// There is no message now. Only `try_recv` says so.
    Empty,
    /// The deadline passed before there was a message.
    TimedOut,
    /// A [`Stopper`](crate::Stopper) ended the wait.
    Stopped,
    /// The producer has closed and everything was received. Said as often as asked, until a new producer comes.
    Closed,
    /// The producer has died and everything was received. Said once; the next call waits for its successor.
    Abandoned,
    /// The pipe was removed, so that nobody will come to it any more; or this process has left its IPC namespace.
    Removed,
    /// The pipe was removed, and its address leads to another one now.
    Replaced,
    /// The pipe is there, and what kept a second consumer away is not: its semaphore set was removed, or our claim in it, or
    /// there is a second one.
    ClaimsLost,
    /// The message has another size than the caller's value or slice.
    WrongSize {
        /// Bytes of the message.
        found: usize,
        /// Bytes of the value, or the most that the slice takes.
        expected: usize,
    },
    /// The segment holds what no correct producer writes.
    Corrupt(Corruption),
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecvError::Empty => {
                f.write_str("the pipe is empty; try again when the producer has sent something")
            }
            RecvError::TimedOut => f.write_str("the pipe stayed empty until the deadline"),
            RecvError::Stopped => f.write_str("the wait for a message was stopped"),
            RecvError::Closed => f.write_str("the producer has closed the pipe and everything was received"),
            RecvError::Abandoned => f.write_str(
                "the producer has died and everything was received; receive again to wait for its successor",
            ),
            RecvError::Removed => f.write_str(REMOVED),
            RecvError::Replaced => f.write_str(REPLACED),
            RecvError::ClaimsLost => f.write_str(CLAIMS_LOST),
            RecvError::WrongSize { found, expected } => {
                write!(
                    f,
                    "the message has {found} bytes, the caller's memory {expected}; take it as bytes instead"
                )
            }
            RecvError::Corrupt(corruption) => corruption.fmt(f),
        }
    }
}

impl std::error::Error for RecvError {}

/// Why a pipe could not be made, opened, claimed, closed or removed.
#[derive(Debug)]
#[non_exhaustive]
pub enum SetupError {
    /// The address does not parse, or does not fit the call.
    Address(AddressError),
    /// There is no pipe at this address.
    NotFound {
        /// Where it was looked for.
        address: Address,
    },
    /// There is a pipe at this address already.
    Exists {
        /// Where it is.
        address: Address,
    },
    /// An address that names an existing segment cannot make one, one that makes a new one cannot find one, and what has
    /// no name cannot be removed.
    CannotMake {
        /// The address.
        address: Address,
    },
    /// The system does not let us.
    PermissionDenied {
        /// The pipe.
        address: Address,
        /// The key, if it is a System V pipe; 0 if that has none.
        key: Option<i32>,
        /// Who may, if that can be told.
        permissions: Option<Permissions>,
    },
    /// The segment was made or is owned by somebody who is neither root nor ourselves nor named as trusted.
    Untrusted {
        /// The pipe.
        address: Address,
        /// Its owner.
        uid: u32,
        /// Its creator.
        creator: u32,
    },
    /// Who is at the other end of a hand-over is neither root nor ourselves nor named as trusted. Nothing was given or
    /// taken.
    Stranger {
        /// Where it was to be handed over.
        address: Address,
        /// The user.
        uid: u32,
        /// The process, 0 if it is not visible from here.
        pid: u32,
    },
    /// A pipe that is found by its address is not handed over.
    CannotHandOver {
        /// The address.
        address: Address,
    },
    /// What was handed over can be resized, or is no memfd.
    Unsealed {
        /// Where it came from.
        address: Address,
        /// The seals that it lacks (`F_SEAL_...`).
        missing: u32,
    },
    /// What is at the path is not a file of its own.
    NotAFile {
        /// The address.
        address: Address,
        /// What it is.
        found: &'static str,
    },
    /// The file is on a file system of which it is not known that processes share its pages, that locks stay, and that space
    /// which was set aside does.
    FileSystem {
        /// The address.
        address: Address,
        /// Its magic number (`statfs`).
        magic: u32,
        /// Its name, if it is one that people try.
        name: Option<&'static str>,
    },
    /// In the directory of the file none can be made.
    Directory {
        /// The address.
        address: Address,
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is on a file system that is mounted for reading alone here. Both ends write.
    ReadOnly {
        /// The address.
        address: Address,
    },
    /// The file was made before the machine was last started: what the file system has kept of it need not fit together.
    Stale {
        /// The address.
        address: Address,
    },
    /// There is no space for the file.
    NoSpace {
        /// The address.
        address: Address,
        /// Bytes that it needs.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// There is something at this address that is no pipe. It was not written to.
    Foreign {
        /// The address.
        address: Address,
        /// What looked different.
        what: &'static str,
        /// What was found there.
        found: u64,
        /// What a pipe has there.
        expected: u64,
    },
    /// The segment under this key belongs to a pipe of another name: two names have the same hash.
    OtherName {
        /// The name asked for.
        asked: String,
        /// The name in the segment; empty if it was made under a key.
        found: String,
    },
    /// The segment was made on a machine, or by a program, of the other byte order.
    ByteOrder,
    /// The segment has another layout version.
    LayoutVersion {
        /// The version in the segment.
        found: u32,
        /// The version of this crate.
        expected: u32,
    },
    /// The segment demands features that this version does not know.
    Features {
        /// The bits not known.
        unknown: u64,
    },
    /// A word of the header holds what no correct creator writes.
    Malformed {
        /// Which word.
        word: &'static str,
        /// What it holds.
        found: u64,
    },
    /// The segment is smaller than its header says.
    TooSmall {
        /// Bytes that it has.
        size: u64,
        /// Bytes that it needs.
        needed: u64,
    },
    /// The segment has another schema id.
    Schema {
        /// The schema in the segment.
        found: u64,
        /// The schema asked for.
        expected: u64,
    },
    /// The segment's creator died before it was complete. [`Options::open_or_create`](crate::Options::open_or_create)
    /// repairs that.
    HalfMade {
        /// The pipe.
        address: Address,
        /// The process that made it.
        pid: u32,
    },
    /// A capacity that no ring may have.
    CapacityTooLarge {
        /// Bytes asked for.
        asked: u64,
        /// Bytes that a ring may have.
        largest: u64,
    },
    /// A limit of the system is reached.
    Limit {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: u64,
        /// What was asked of it.
        asked: u64,
        /// Where it is raised.
        place: &'static str,
    },
    /// Huge pages were asked for and cannot be had, for a reason that is not a number.
    NoHugePages {
        /// What stands in the way.
        obstacle: String,
        /// What takes it away.
        remedy: &'static str,
    },
    /// A part of the segment has neither memory nor space behind it, so that touching it would be a SIGBUS: its file was cut,
    /// or its file system or its pool of huge pages is full.
    Unbacked {
        /// Bytes of the segment.
        bytes: u64,
    },
    /// Somebody holds the role.
    RoleTaken {
        /// Which.
        role: Role,
        /// A hint at the holder: its process id, if it is visible from here.
        pid: Option<u32>,
    },
    /// Somebody is attached to the segment of whom its semaphore set does not know, and may still use a role: the set was
    /// removed under them, or they have left the IPC namespace, which gives their claims back and leaves them the segment.
    /// Said after a second, since whoever looks at a segment is attached for a moment too.
    ClaimsLost {
        /// The pipe.
        address: Address,
        /// How many are attached who are not accounted for.
        attached: u64,
    },
    /// Anybody may write to the segment, the file or the semaphore set: mode `..2`. Accepted if
    /// [`Options::mode`](crate::Options::mode) asks for such a mode.
    WorldWritable {
        /// The pipe.
        address: Address,
        /// What anybody may write to.
        what: &'static str,
        /// Its owner and mode.
        permissions: Permissions,
    },
    /// The kernel accepts `SEM_UNDO` and does not undo: the role of an end that is killed would stay taken for ever. See
    /// [`Options::assume_exclusive`](crate::Options::assume_exclusive).
    NoUndo {
        /// The pipe.
        address: Address,
    },
    /// Another process has been setting up or removing this pipe for longer than it should take.
    Busy {
        /// The pipe.
        address: Address,
        /// A hint at that process.
        pid: Option<u32>,
    },
    /// This process cannot wake, or be woken, the way the segment demands.
    CannotWake {
        /// What the segment demands.
        mode: WakeMode,
        /// Why it cannot be had.
        source: io::Error,
    },
    /// [`Wait::Block`](crate::Wait::Block) was asked for on a segment where nobody sleeps.
    NeverSleeps,
    /// The pipe was removed while it was in use.
    Removed {
        /// The pipe.
        address: Address,
    },
    /// The pipe was removed while it was in use, and its address leads to another one now.
    Replaced {
        /// The pipe.
        address: Address,
    },
    /// The handle was opened before a fork, by the parent; a child does not inherit what is mapped.
    Forked {
        /// The pipe.
        address: Address,
    },
    /// The ring holds what no correct peer writes.
    Corrupt(Corruption),
    /// A system call failed for another reason.
    Os {
        /// The call.
        call: &'static str,
        /// The reason.
        source: io::Error,
    },
}

/// Says of the error of a system call which call it was.
pub(crate) fn failed(call: &'static str) -> impl Fn(io::Error) -> SetupError {
    move |source| SetupError::Os { call, source }
}

/// "process 12" or "a process not visible from here".
struct Who(Option<u32>);

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("a process not visible from here"),
        }
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetupError::Address(error) => error.fmt(f),
            SetupError::NotFound { address } => {
                write!(f, "there is no pipe at {address}; create it, or start the other side first")
            }
            SetupError::Exists { address } => {
                write!(f, "there is a pipe at {address} already; open it, or remove it first")
            }
            SetupError::CannotMake { address } => {
                write!(
                    f,
                    "{address} cannot be used so: sysv:id:N, fd:N and memfd:PATH only open, sysv:private and memfd only \
                     create, and a memfd goes with the last process that has it"
                )
            }
            SetupError::PermissionDenied { address, key, permissions } => {
                write!(f, "no permission for the pipe at {address}")?;
                if let Some(key) = key {
                    write!(f, ", key {key:#x}")?;
                }
                if let Some(permissions) = permissions {
                    write!(f, ", {permissions}")?;
                }
                f.write_str("; both ends need read and write permission")
            }
            SetupError::Untrusted { address, uid, creator } => write!(
                f,
                "the pipe at {address} was made by user {creator} and belongs to user {uid}; \
                 only root's and our own are trusted, unless the user is named as trusted"
            ),
            SetupError::Stranger { address, uid, pid } => write!(
                f,
                "user {uid} (process {pid}) is at the other end of {address}; only root and our own user are trusted, \
                 unless the user is named as trusted"
            ),
            SetupError::CannotHandOver { address } => {
                write!(
                    f,
                    "the pipe at {address} is not handed over: a memfd is; open the other one by its address"
                )
            }
            SetupError::Unsealed { address, missing } => {
                let seals = [
                    (libc::F_SEAL_SEAL, "F_SEAL_SEAL"),
                    (libc::F_SEAL_SHRINK, "F_SEAL_SHRINK"),
                    (libc::F_SEAL_GROW, "F_SEAL_GROW"),
                ];
                let lacks =
                    seals.iter().filter(|(seal, _)| missing & *seal as u32 != 0).map(|(_, name)| *name);
                let lacks = lacks.collect::<Vec<_>>().join(", ");
                write!(
                    f,
                    "what {address} leads to lacks {lacks}, so that its size could change under us; expected a memfd made by this library"
                )
            }
            SetupError::NotAFile { address, found } => {
                write!(
                    f,
                    "what is at {address} is {found}, expected a regular file; give the path of the file itself"
                )
            }
            SetupError::FileSystem { address, magic, name } => {
                write!(f, "{address} is on ")?;
                match name {
                    Some(name) => write!(f, "{name} ({magic:#x})")?,
                    None => write!(f, "a file system of the unknown kind {magic:#x}")?,
                }
                f.write_str(
                    ", which does not promise what a pipe needs: shared pages, locks that stay, space that was set aside; use tmpfs, ext4 or xfs (in a container, a volume)",
                )
            }
            SetupError::Directory { address, directory, source } => write!(
                f,
                "the file of {address} cannot be made in {} ({source}); make the directory and give us write permission, or use another",
                directory.display()
            ),
            SetupError::ReadOnly { address } => write!(
                f,
                "{address} is on a file system that is mounted read-only here; both ends need to write, mount it so"
            ),
            SetupError::Stale { address } => write!(
                f,
                "the pipe at {address} was made before the machine was last started, so that its contents may be incomplete; \
                 remove it, or ask for stale pipes to be made anew"
            ),
            SetupError::NoSpace { address, needed, free } => write!(
                f,
                "the pipe at {address} needs {needed} bytes, the file system has {free} left; make room or ask for a smaller capacity"
            ),
            SetupError::Foreign { address, what, found, expected } => write!(
                f,
                "what is at {address} is no pipe: {what} is {found:#x}, expected {expected:#x}; use another name or key"
            ),
            SetupError::OtherName { asked, found } if found.is_empty() => write!(
                f,
                "the pipe under the key of {asked:?} was made by key, without a name; open it by its key"
            ),
            SetupError::OtherName { asked, found } => write!(
                f,
                "the names {asked:?} and {found:?} have the same key, and {found:?} is in use; choose another name"
            ),
            SetupError::ByteOrder => {
                f.write_str("the segment has the other byte order; both ends must have the same")
            }
            SetupError::LayoutVersion { found, expected } => write!(
                f,
                "the segment has layout version {found}, expected {expected}; \
                 let both ends use the same version, or remove the segment"
            ),
            SetupError::Features { unknown } => {
                write!(
                    f,
                    "the segment demands features unknown here (bits {unknown:#x}); use a newer version"
                )
            }
            SetupError::Malformed { word, found } => {
                write!(
                    f,
                    "the {word} in the header holds {found}, which no creator writes; remove the segment"
                )
            }
            SetupError::TooSmall { size, needed } => {
                write!(f, "the segment has {size} bytes, its header asks for {needed}; remove the segment")
            }
            SetupError::Schema { found, expected } => {
                write!(f, "the pipe carries schema {found:#x}, expected {expected:#x}; both ends must agree")
            }
            SetupError::HalfMade { address, pid } => write!(
                f,
                "the pipe at {address} is half-made: its creator, process {pid}, died; \
                 create it again or remove it"
            ),
            SetupError::CapacityTooLarge { asked, largest } => {
                write!(f, "a capacity of {asked} bytes was asked for, {largest} at most are possible")
            }
            SetupError::Limit { name, value, asked, place } => {
                write!(f, "the system's limit {name} is {value}, asked for {asked}; raise it in {place}")
            }
            SetupError::NoHugePages { obstacle, remedy } => {
                write!(f, "huge pages cannot be had: {obstacle}; {remedy}, or do without")
            }
            SetupError::Unbacked { bytes } => write!(
                f,
                "there is nothing behind a part of the {bytes} bytes of the segment: its file was cut, \
                 or its file system is full; make space and create it again"
            ),
            SetupError::RoleTaken { role, pid } => {
                write!(f, "{} is the {role} of this pipe already; there can be one only", Who(*pid))
            }
            SetupError::ClaimsLost { address, attached } => write!(
                f,
                "{attached} are attached to the pipe at {address} of whom its semaphore set does not know, so that one of them may \
                 still use a role (the set was removed, or they left the IPC namespace); end them, then try again"
            ),
            SetupError::WorldWritable { address, what, permissions } => write!(
                f,
                "anybody may write to the {what} of the pipe at {address} ({permissions}); expected a mode without write \
                 permission for others: make it anew, or ask for such a mode if that is meant"
            ),
            SetupError::NoUndo { address } => write!(
                f,
                "this kernel does not give back what a killed process held (SEM_UNDO), as gVisor does not, so that the roles of \
                 the pipe at {address} could be lost for ever; use a memfd, posix: or file: address, or vouch for one producer and one \
                 consumer at a time (assume_exclusive)"
            ),
            SetupError::Busy { address, pid } => {
                write!(f, "{} is still setting up the pipe at {address}; end it, or try again", Who(*pid))
            }
            SetupError::CannotWake { mode, source } => write!(
                f,
                "the pipe wakes sleepers by {mode}, which this process cannot ({source}); make it with another wake mode"
            ),
            SetupError::NeverSleeps => {
                f.write_str("on this pipe nobody sleeps (wake mode never); wait by spin or yield")
            }
            SetupError::Removed { address } => write!(f, "the pipe at {address} was removed; open it anew"),
            SetupError::Replaced { address } => write!(
                f,
                "the pipe at {address} was removed, and another one is in its place; whoever opens it anew gets that one"
            ),
            SetupError::Forked { address } => {
                write!(f, "the pipe at {address} was opened before a fork; a child opens it anew")
            }
            SetupError::Corrupt(corruption) => corruption.fmt(f),
            SetupError::Os { call, source } => write!(f, "{call} failed: {source}"),
        }
    }
}

impl std::error::Error for SetupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SetupError::Address(error) => Some(error),
            SetupError::CannotWake { source, .. }
            | SetupError::Directory { source, .. }
            | SetupError::Os { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<AddressError> for SetupError {
    fn from(error: AddressError) -> Self {
        SetupError::Address(error)
    }
}

impl From<std::convert::Infallible> for SetupError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
