//! Why a pipe could not be created, opened, claimed or removed.

use super::Lost;
use crate::address::{Address, AddressError, Escaped};
use crate::permissions::Permissions;
use crate::protocol::corruption::Corruption;
use crate::protocol::liveness::{DuplexSide, Role, State, TakeoverError};
use crate::protocol::wakeup::WakeMode;
use crate::sys::limits::{self, Exceeded};
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a pipe could not be created, opened, claimed, removed or inspected.
///
/// Seven of its kinds hold a type of [`shmpipe::error`](crate::error) with the details.
///
/// ```
/// use shmpipe::{Pipe, SetupError};
///
/// # let address = "fd:1000000";
/// match Pipe::open(address).and_then(|pipe| pipe.consumer()) {
///     Ok(consumer) => println!("{} bytes", consumer.capacity()),
///     Err(SetupError::NotFound { .. }) => println!("the producer has not started yet"),
///     Err(SetupError::RoleTaken { pid, .. }) => println!("process {pid:?} is the consumer"),
///     Err(error) => println!("{error}"),
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum SetupError {
    /// The address does not parse.
    Address(AddressError),
    /// There is no pipe at this address.
    NotFound {
        /// The address.
        address: Address,
    },
    /// There is a pipe at this address already.
    Exists {
        /// The address.
        address: Address,
    },
    /// This kind of pipe, or this handle of it, cannot do what the call asks for.
    Unsupported(Unsupported),
    /// The system denies access.
    PermissionDenied {
        /// The pipe.
        address: Address,
        /// The key of a System V pipe; 0 if that has none.
        key: Option<i32>,
        /// Who has access, if that is known.
        permissions: Option<Permissions>,
    },
    /// A user who is not trusted could change the pipe.
    Untrusted(Distrust),
    /// The file, or the file system that it is on, cannot hold a pipe.
    File(FileProblem),
    /// What is at this address is no pipe. It was not written to.
    Foreign {
        /// The address.
        address: Address,
        /// What differs from a pipe.
        what: &'static str,
        /// What was found there.
        found: u64,
        /// What a pipe has there.
        expected: u64,
    },
    /// The pipe is another one than the caller expects, or of another version.
    Incompatible(Mismatch),
    /// The pipe's contents cannot be used.
    Damaged(Damage),
    /// Something is not available in the amount requested.
    Limit(Shortage),
    /// Another process, or another handle in this one, holds the role.
    RoleTaken {
        /// The role.
        role: Role,
        /// The process id that the holder recorded, if it is visible from here.
        pid: Option<u32>,
    },
    /// Another process, or another handle in this one, holds the side of a duplex pipe.
    SideTaken {
        /// The side.
        side: DuplexSide,
        /// The process id that the holder recorded, if it is visible from here.
        pid: Option<u32>,
    },
    /// Another process has been creating or removing this pipe for longer than that should take.
    Busy {
        /// The pipe.
        address: Address,
        /// That process, if known.
        pid: Option<u32>,
    },
    /// The kernel, or this process, lacks something that pipes depend on.
    Kernel(MissingFeature),
    /// The pipe was removed while it was open.
    Lost {
        /// The pipe.
        address: Address,
        /// What happened.
        lost: Lost,
    },
    /// A system call failed for another reason.
    Os {
        /// The call.
        call: &'static str,
        /// The reason.
        source: io::Error,
    },
}

/// What a pipe, or a handle, cannot do.
///
/// ```
/// use shmpipe::{Pipe, SetupError, error::Unsupported};
///
/// // `memfd` always creates one.
/// let opened = Pipe::open("memfd");
/// assert!(matches!(opened, Err(SetupError::Unsupported(Unsupported::Open { .. }))));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Unsupported {
    /// The address names an existing pipe and cannot create one: `sysv:id:N`, `fd:N` and `memfd:PATH`.
    Create {
        /// The address.
        address: Address,
    },
    /// The address always creates a pipe and cannot open one: `sysv:private` and `memfd`.
    Open {
        /// The address.
        address: Address,
    },
    /// The address names nothing that could be removed: `sysv:private`, and a memfd, which disappears with the last process that
    /// has it.
    Remove {
        /// The address.
        address: Address,
    },
    /// Only a memfd is passed through a socket. Other pipes are opened by address.
    FdPassing {
        /// The address.
        address: Address,
    },
    /// [`Wait::Block`](crate::Wait::Block) on a segment whose wake mode is [`WakeMode::Never`].
    Block,
    /// The pipe has two directions, and so no producer and no consumer but two sides: see [`Pipe::duplex`](crate::Pipe::duplex).
    TwoWay {
        /// The pipe.
        address: Address,
    },
    /// The pipe has one direction, and so no sides: see [`Options::duplex`](crate::Options::duplex).
    OneWay {
        /// The pipe.
        address: Address,
    },
    /// The pipe was created by an earlier version, so its producers may not announce what they overwrite: see [`Tap`](crate::Tap).
    Tap {
        /// The pipe.
        address: Address,
    },
    /// The handle was opened before a `fork`, by the parent. A child does not inherit the mapping.
    AfterFork {
        /// The pipe.
        address: Address,
    },
}

/// Why a pipe, or the process that offers it, is not trusted.
///
/// ```
/// # use std::os::fd::AsRawFd;
/// use shmpipe::{Pipe, SetupError, error::Distrust};
///
/// // A file that another process could truncate, instead of a sealed memfd.
/// let file = std::fs::File::open("/proc/self/exe")?;
/// let opened = Pipe::open(format!("fd:{}", file.as_raw_fd()));
/// assert!(matches!(opened, Err(SetupError::Untrusted(Distrust::Unsealed { .. }))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Distrust {
    /// A user other than root, ourselves and those named as trusted created or owns the segment.
    Owner {
        /// The pipe.
        address: Address,
        /// Its owner.
        uid: u32,
        /// Its creator.
        creator: u32,
    },
    /// The process at the other end of the socket runs as a user other than root, ourselves and those named as trusted. No
    /// descriptor was passed.
    Peer {
        /// The socket.
        address: Address,
        /// The user.
        uid: u32,
        /// The process, 0 if it is not visible from here.
        pid: u32,
    },
    /// Every user may write to the segment, the file or the semaphore set: mode `..2`. Accepted if
    /// [`OptionsExt::mode`](crate::os::unix::OptionsExt::mode) asks for such a mode.
    WorldWritable {
        /// The pipe.
        address: Address,
        /// What every user may write to.
        what: &'static str,
        /// Its owner and mode.
        permissions: Permissions,
    },
    /// The descriptor received is no memfd, or one that can be resized.
    Unsealed {
        /// Where it came from.
        address: Address,
        /// The seals that it lacks (`F_SEAL_...`).
        missing: u32,
    },
}

/// Why a file cannot hold a pipe.
///
/// ```
/// use shmpipe::{Pipe, SetupError, error::FileProblem};
///
/// let opened = Pipe::open("file:/dev");
/// assert!(matches!(opened, Err(SetupError::File(FileProblem::NotRegular { .. }))));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum FileProblem {
    /// The path leads to something other than a regular file with one name.
    NotRegular {
        /// The address.
        address: Address,
        /// What is there.
        found: &'static str,
    },
    /// The file system is not known to share pages between processes, to keep locks, and to keep space that was allocated.
    FileSystem {
        /// The address.
        address: Address,
        /// Its magic number (`statfs`).
        magic: u32,
        /// Its name, if it is one that people try.
        name: Option<&'static str>,
    },
    /// The directory does not allow a new file.
    Directory {
        /// The address.
        address: Address,
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file system is mounted read-only here. Both ends write.
    ReadOnly {
        /// The address.
        address: Address,
    },
}

/// How an existing pipe differs from the one that the caller expects.
///
/// ```
/// use shmpipe::{Options, SetupError, error::Mismatch};
///
/// let pipe = Options::new().schema(1).create("memfd")?;
/// let opened = Options::new().schema(2).open(pipe.address());
/// assert!(matches!(opened, Err(SetupError::Incompatible(Mismatch::Schema { found: 1, expected: 2 }))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Mismatch {
    /// The segment under this key belongs to a pipe of another name: two names have the same hash.
    Name {
        /// The name requested.
        requested: String,
        /// The name in the segment; empty if it was created under a key.
        found: String,
    },
    /// The segment was created on a machine, or by a program, of the other byte order.
    ByteOrder,
    /// The segment has another layout version.
    LayoutVersion {
        /// The version in the segment.
        found: u32,
        /// The version of this crate.
        expected: u32,
    },
    /// The segment requires features that this version does not know.
    Features {
        /// The unknown bits.
        unknown: u64,
    },
    /// The pipe has two directions and the caller expects one, or the other way round: see [`Options::duplex`](crate::Options::duplex).
    Directions {
        /// Whether the pipe has two.
        duplex: bool,
    },
    /// The segment has another schema id.
    Schema {
        /// The schema in the segment.
        found: u64,
        /// The schema requested.
        expected: u64,
    },
}

/// Why the contents of a pipe cannot be used.
///
/// ```
/// use shmpipe::{Options, Pipe, SetupError, error::Damage};
///
/// # let address = "file:/dev/shm/shmpipe-doc-none";
/// let pipe = match Pipe::open(address) {
///     // Gives up the messages in it.
///     Err(SetupError::Damaged(Damage::Stale { .. })) => Options::new().recreate_stale(true).open_or_create(address),
///     opened => opened,
/// };
/// # assert!(pipe.is_err());
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Damage {
    /// The process that was creating the pipe died. [`Options::open_or_create`](crate::Options::open_or_create) recreates it.
    Incomplete {
        /// The pipe.
        address: Address,
        /// The process that was creating it.
        pid: u32,
    },
    /// The file dates from before the last boot: the file system may have kept only parts of it. See
    /// [`Options::recreate_stale`](crate::Options::recreate_stale).
    Stale {
        /// The address.
        address: Address,
    },
    /// A word of the header holds a value that no correct creator writes.
    Header {
        /// The word.
        word: &'static str,
        /// Its value.
        found: u64,
    },
    /// The segment is smaller than its header says.
    TooSmall {
        /// Bytes that it has.
        size: u64,
        /// Bytes that it needs.
        needed: u64,
    },
    /// A part of the segment has neither memory nor disk space, so that touching it would raise SIGBUS: its file was truncated,
    /// or its file system or its pool of huge pages is full.
    Unbacked {
        /// Bytes of the segment.
        bytes: u64,
    },
    /// The ring holds a value that no correct peer writes.
    Ring(Corruption),
}

/// What is not available in the amount requested.
///
/// ```
/// use shmpipe::{Options, SetupError, error::Shortage};
///
/// let created = Options::new().capacity(u64::MAX).create("memfd");
/// assert!(matches!(created, Err(SetupError::Limit(Shortage::Capacity { .. }))));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Shortage {
    /// A limit of the system.
    System {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: u64,
        /// What the call needs.
        requested: u64,
        /// Where to raise it.
        raise_in: &'static str,
    },
    /// A capacity that no ring may have.
    Capacity {
        /// Bytes requested.
        requested: u64,
        /// Bytes that a ring may have.
        largest: u64,
    },
    /// Space on the file system.
    Space {
        /// The address.
        address: Address,
        /// Bytes that the pipe needs.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// Claims: the role was claimed as often as a pipe can count.
    Claims {
        /// The role.
        role: Role,
        /// How often a role can be claimed.
        most: u64,
    },
    /// Open handles of one System V pipe: a semaphore counts them.
    Handles {
        /// How many may be open.
        max: u64,
    },
    /// Huge pages, for a reason that is not a number.
    HugePages {
        /// The reason.
        obstacle: String,
        /// What removes it.
        remedy: &'static str,
    },
}

/// What the kernel or this process lacks.
///
/// ```
/// use shmpipe::{Options, Pipe, SetupError, WakeMode, error::MissingFeature};
///
/// let pipe = match Pipe::open_or_create("memfd") {
///     // A seccomp filter forbids `membarrier`, perhaps.
///     Err(SetupError::Kernel(MissingFeature::Wake { .. })) => Options::new().wake_mode(WakeMode::Fence).create("memfd")?,
///     opened => opened?,
/// };
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum MissingFeature {
    /// The kernel accepts `SEM_UNDO` and does not undo, so that a lock of a killed process would never become free. See
    /// [`Options::allow_missing_undo`](crate::Options::allow_missing_undo).
    Undo {
        /// The pipe.
        address: Address,
    },
    /// The sysctl `kernel.shm_rmid_forced` is 1: the kernel removes a System V segment with its last attachment, and the messages
    /// in it. See [`Options::allow_rmid_forced`](crate::Options::allow_rmid_forced).
    LastingSegments {
        /// The pipe.
        address: Address,
    },
    /// The kernel does not show a removed System V segment that is still attached, so that a process could not see whether
    /// another one lives.
    RemovedSegments,
    /// This process cannot wake, or be woken, in the segment's wake mode.
    Wake {
        /// The wake mode.
        mode: WakeMode,
        /// Why it is not available.
        source: io::Error,
    },
}

/// The error of a call; that of a limit, if one was in its way.
pub(crate) fn os(call: &'static str, source: io::Error) -> SetupError {
    failed_to_map(call, 0)(source)
}

/// [`os`], as a function.
pub(crate) fn failed(call: &'static str) -> impl Fn(io::Error) -> SetupError {
    failed_to_map(call, 0)
}

/// [`failed`], for a call that would have mapped this many bytes.
pub(crate) fn failed_to_map(call: &'static str, bytes: u64) -> impl Fn(io::Error) -> SetupError {
    move |source| match limits::exceeded(&source, bytes) {
        Some(Exceeded { name, value, requested, raise_in }) => {
            SetupError::Limit(Shortage::System { name, value, requested, raise_in })
        }
        None => SetupError::Os { call, source },
    }
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
                write!(f, "no pipe at {address}; create it, or start the other side first")
            }
            SetupError::Exists { address } => {
                write!(f, "a pipe exists at {address} already; open it, or remove it first")
            }
            SetupError::Unsupported(unsupported) => unsupported.fmt(f),
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
            SetupError::Untrusted(distrust) => distrust.fmt(f),
            SetupError::File(problem) => problem.fmt(f),
            SetupError::Foreign { address, what, found, expected } => write!(
                f,
                "{address} is not a pipe: {what} is {found:#x}, expected {expected:#x}; use another name or key"
            ),
            SetupError::Incompatible(mismatch) => mismatch.fmt(f),
            SetupError::Damaged(damage) => damage.fmt(f),
            SetupError::Limit(shortage) => shortage.fmt(f),
            SetupError::RoleTaken { role, pid } => {
                write!(f, "{} is already the {role} of this pipe, which has only one", Who(*pid))
            }
            SetupError::SideTaken { side, pid } => {
                write!(f, "{} already holds {side} of this pipe; take the other side", Who(*pid))
            }
            SetupError::Busy { address, pid } => write!(
                f,
                "{} is still creating or removing the pipe at {address}; stop it, or retry",
                Who(*pid)
            ),
            SetupError::Kernel(missing) => missing.fmt(f),
            SetupError::Lost { address, lost } => write!(f, "{address}: {lost}"),
            SetupError::Os { call, source } => write!(f, "{call} failed: {source}"),
        }
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsupported::Create { address } => write!(
                f,
                "cannot create {address}: sysv:id:N, fd:N and memfd:PATH name existing pipes; use open"
            ),
            Unsupported::Open { address } => write!(
                f,
                "cannot open {address}: sysv:private and memfd always create a pipe; use create, or the address of that pipe"
            ),
            Unsupported::Remove { address } => write!(
                f,
                "cannot remove {address}: it has no name; a memfd disappears with the last process that has it, a private segment \
                 is removed as sysv:id:N"
            ),
            Unsupported::FdPassing { address } => {
                write!(
                    f,
                    "cannot pass the pipe at {address} through a socket, only a memfd; open it by its address"
                )
            }
            Unsupported::Block => {
                f.write_str("cannot block on a pipe with wake mode never; wait by spin or yield")
            }
            Unsupported::TwoWay { address } => write!(
                f,
                "the pipe at {address} has two directions, so it has no producer and no consumer; claim a side of it (duplex)"
            ),
            Unsupported::OneWay { address } => write!(
                f,
                "the pipe at {address} has one direction, so it has no sides; claim its producer or its consumer, or create it with \
                 two (duplex)"
            ),
            Unsupported::Tap { address } => write!(
                f,
                "the pipe at {address} was created by an earlier version of shmpipe, whose producers do not announce what they \
                 overwrite; recreate the pipe to tap it"
            ),
            Unsupported::AfterFork { address } => {
                write!(f, "the pipe at {address} was opened before a fork; reopen it in the child")
            }
        }
    }
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Distrust::Owner { address, uid, creator } => write!(
                f,
                "user {creator} created the pipe at {address} and user {uid} owns it, expected root or our own user; \
                 name that user as trusted, or use another address"
            ),
            Distrust::Peer { address, uid, pid } => write!(
                f,
                "user {uid} (process {pid}) is at the other end of {address}, expected root or our own user; name that user as \
                 trusted, or use another address"
            ),
            Distrust::WorldWritable { address, what, permissions } => write!(
                f,
                "every user may write to the {what} of the pipe at {address} ({permissions}), expected a mode without write \
                 permission for others; recreate it, or request such a mode if that is meant"
            ),
            Distrust::Unsealed { address, missing } => {
                // The seals of memfd_create(2), in the order of their bits.
                let names = ["F_SEAL_SEAL", "F_SEAL_SHRINK", "F_SEAL_GROW"];
                let missing = names.iter().enumerate().filter(|(bit, _)| missing & 1 << bit != 0);
                let missing = missing.map(|(_, name)| *name).collect::<Vec<_>>().join(", ");
                write!(
                    f,
                    "the descriptor from {address} lacks {missing}, so that its size could change while it is mapped; expected a \
                     memfd created by this library"
                )
            }
        }
    }
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileProblem::NotRegular { address, found } => {
                write!(f, "{address} is {found}, expected a regular file; give the path of the file itself")
            }
            FileProblem::FileSystem { address, magic, name } => {
                write!(f, "{address} is on ")?;
                match name {
                    Some(name) => write!(f, "{name} ({magic:#x})")?,
                    None => write!(f, "a file system of the unknown kind {magic:#x}")?,
                }
                f.write_str(
                    ", which does not guarantee what a pipe needs: shared pages, locks that stay, allocated space that stays; \
                     use tmpfs, ext4 or xfs (in a container, a volume)",
                )
            }
            FileProblem::Directory { address, directory, source } => write!(
                f,
                "cannot create the file of {address} in {} ({source}); create the directory with write permission for us, or use \
                 another",
                Escaped(directory.as_os_str())
            ),
            FileProblem::ReadOnly { address } => write!(
                f,
                "{address} is on a file system that is mounted read-only, but both ends write; mount it read-write"
            ),
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Name { requested, found } if found.is_empty() => write!(
                f,
                "the pipe under the key of {requested:?} was created by key, without a name; open it by its key"
            ),
            Mismatch::Name { requested, found } => write!(
                f,
                "the names {requested:?} and {found:?} have the same key, and {found:?} is in use; choose another name"
            ),
            Mismatch::ByteOrder => {
                f.write_str("the segment has the other byte order; run both ends with the same byte order")
            }
            Mismatch::LayoutVersion { found, expected } => write!(
                f,
                "the segment has layout version {found}, expected {expected}; \
                 use the same version at both ends, or remove the segment"
            ),
            Mismatch::Features { unknown } => {
                write!(f, "the segment requires unknown features (bits {unknown:#x}); use a newer version")
            }
            Mismatch::Directions { duplex: true } => {
                f.write_str("the pipe has two directions, expected one; open it as a duplex pipe (duplex)")
            }
            Mismatch::Directions { duplex: false } => f.write_str(
                "the pipe has one direction, expected two; open it as a one-way pipe, or recreate it",
            ),
            Mismatch::Schema { found, expected } => {
                write!(
                    f,
                    "the pipe has schema {found:#x}, expected {expected:#x}; use the same schema at both ends"
                )
            }
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Incomplete { address, pid } => write!(
                f,
                "the pipe at {address} is incomplete: its creator, process {pid}, died; recreate or remove it"
            ),
            Damage::Stale { address } => write!(
                f,
                "the pipe at {address} dates from before the last boot, so that its contents may be incomplete; remove it, or \
                 open it with recreate_stale"
            ),
            Damage::Header { word, found } => {
                write!(f, "the {word} in the header is {found}, which no creator writes; remove the segment")
            }
            Damage::TooSmall { size, needed } => {
                write!(f, "the segment has {size} bytes, its header needs {needed}; remove the segment")
            }
            Damage::Unbacked { bytes } => write!(
                f,
                "part of the segment's {bytes} bytes has no memory behind it: its file was truncated or its file system is full; \
                 free space and recreate it"
            ),
            Damage::Ring(corruption) => corruption.fmt(f),
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shortage::System { name, value, requested, raise_in } => {
                write!(f, "the system's limit {name} is {value}, needed {requested}; raise it in {raise_in}")
            }
            Shortage::Capacity { requested, largest } => {
                write!(f, "cannot create a ring of {requested} bytes, the largest has {largest}")
            }
            Shortage::Space { address, needed, free } => write!(
                f,
                "the pipe at {address} needs {needed} bytes, the file system has {free} left; free space or request a smaller \
                 capacity"
            ),
            Shortage::Claims { role, most } => {
                write!(
                    f,
                    "the role of the {role} was claimed {most} times, which is the most that a pipe counts; recreate it"
                )
            }
            Shortage::Handles { max } => {
                write!(f, "{max} handles of the pipe are open, more than the kernel can count; close some")
            }
            Shortage::HugePages { obstacle, remedy } => {
                write!(f, "no huge pages: {obstacle}; {remedy}, or do without")
            }
        }
    }
}

impl fmt::Display for MissingFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MissingFeature::Undo { address } => write!(
                f,
                "this kernel does not undo what a killed process held (SEM_UNDO), as gVisor does not, so that the pipe at \
                 {address} could stay locked; use a memfd, posix: or file: address, or accept that (allow_missing_undo)"
            ),
            MissingFeature::RemovedSegments => f.write_str(
                "the kernel does not show removed System V segments that are attached, so the death of the other side would go \
                 unnoticed; use another kind of pipe",
            ),
            MissingFeature::LastingSegments { address } => write!(
                f,
                "kernel.shm_rmid_forced is 1, so the kernel would remove the pipe at {address} with the last process that has it \
                 open, unread messages included; set it to 0, use a memfd, posix: or file: address, or let a process keep the pipe \
                 open (shmpipe keep) and allow it (allow_rmid_forced)"
            ),
            MissingFeature::Wake { mode, source } => write!(
                f,
                "the pipe wakes sleepers by {mode}, which this process cannot ({source}); create it with another wake mode"
            ),
        }
    }
}

impl std::error::Error for SetupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SetupError::Address(error) => Some(error),
            SetupError::Kernel(MissingFeature::Wake { source, .. })
            | SetupError::File(FileProblem::Directory { source, .. })
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

impl SetupError {
    /// For a role that was claimed and cannot be taken over.
    pub(crate) fn of_takeover(role: Role) -> impl Fn(TakeoverError) -> Self {
        move |error| match error {
            TakeoverError::Corrupt(corruption) => SetupError::Damaged(Damage::Ring(corruption)),
            TakeoverError::OutOfEpochs => {
                SetupError::Limit(Shortage::Claims { role, most: State::LAST_EPOCH })
            }
        }
    }
}
