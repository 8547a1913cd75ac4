//! Which pipes there are.

use super::{Snapshot, inspect, snapshot};
use crate::address::{Address, AddressForm, Key, Name};
use crate::backend::file::{self, PipeFile, permissions};
use crate::backend::sysv::{self, SetTarget};
use crate::backend::view;
use crate::error::{Lost, SetupError};
use crate::permissions::Permissions;
use crate::segment::Object;
use crate::sys::maps::SharedMappings;
use crate::sys::sysvipc::{self, Row};
use std::fmt;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

/// The pipes of this machine, as far as they can be found: from [`list`].
///
/// ```
/// let listing = shmpipe::list();
/// println!("{} pipes", listing.pipes.len());
/// if let Some(error) = listing.sysv_error {
///     eprintln!("without System V pipes: {error}");
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Listing {
    /// The pipes, each once.
    pub pipes: Vec<Listed>,
    /// Why System V pipes are missing, if they are.
    pub sysv_error: Option<SetupError>,
}

/// A pipe in a [`Listing`].
///
/// ```
/// for pipe in shmpipe::list().pipes {
///     match pipe.snapshot {
///         Ok(snapshot) => println!("{}: {} unread", pipe.location, snapshot.unread()),
///         Err(error) => println!("{}: {error}", pipe.location),
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Listed {
    /// Where it was found.
    pub location: Location,
    /// What the kernel knows its segment as.
    pub object: Object,
    /// Owner, group and mode.
    pub permissions: Permissions,
    /// Its state, or why that cannot be read. The address in the snapshot of a memfd is a descriptor that is closed by now; it
    /// is found at [`location`](Self::location).
    pub snapshot: Result<Snapshot, SetupError>,
    /// The processes that have it mapped, as far as they are visible from here. Watchers are among them.
    pub pids: Vec<u32>,
    /// Whether any process has it open, visible from here or not. Watchers do not count.
    pub is_open: bool,
}

/// Where a pipe was found.
///
/// It prints as an address, or as the path of a descriptor: `/proc/PID/fd/N`.
///
/// ```
/// use shmpipe::Location;
///
/// let location = Location::Descriptor { pid: 12, fd: 3 };
/// assert_eq!(location.to_string(), "/proc/12/fd/3");
/// assert_eq!(location.address(), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// At an address that opens it.
    Address(Address),
    /// In a memfd that a process has open.
    Descriptor {
        /// The process.
        pid: u32,
        /// Its descriptor.
        fd: u32,
    },
    /// In a file without a name that a process has open.
    Removed {
        /// The path that it had, or its directory.
        path: PathBuf,
        /// The process.
        pid: u32,
        /// Its descriptor.
        fd: u32,
    },
}

impl Location {
    /// Returns the address that opens it, if there is one.
    #[must_use]
    pub fn address(&self) -> Option<&Address> {
        match self {
            Location::Address(address) => Some(address),
            Location::Descriptor { .. } | Location::Removed { .. } => None,
        }
    }
}

/// An address, or the path of a descriptor: `/proc/PID/fd/N`.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Address(address) => address.fmt(f),
            Location::Descriptor { pid, fd } | Location::Removed { pid, fd, .. } => {
                write!(f, "/proc/{pid}/fd/{fd}")
            }
        }
    }
}

/// Lists the pipes of this machine.
///
/// These are System V pipes of this IPC namespace, files in `/dev/shm`, and the files and memfds that processes have open, as far
/// as we may look into them. For root those are all processes, otherwise this user's.
///
/// System V pipes are recognised by their semaphore sets. Other segments are not attached, since that would raise their attach
/// count, on which their owners may rely; [`list_unguarded`] does. A pipe that we may not read is listed with that error.
///
/// Reads `/proc/PID/maps` of all processes, which takes some milliseconds.
///
/// ```
/// for pipe in shmpipe::list().pipes {
///     println!("{} is open in {:?}", pipe.location, pipe.pids);
/// }
/// ```
#[must_use]
pub fn list() -> Listing {
    let mappings = SharedMappings::now();
    let (mut pipes, sysv_error) = match of_sysv(&mappings) {
        Ok(pipes) => (pipes, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    pipes.extend(file::find(&mappings).into_iter().filter_map(of_file));
    Listing { pipes, sysv_error }
}

/// Lists System V pipes whose semaphore set is gone.
///
/// To find them it attaches every segment of a pipe's size that no pipe's set guards, if it may, for a moment.
///
/// ```no_run
/// for pipe in shmpipe::list_unguarded()? {
///     println!("{} lost its semaphore set", pipe.location);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`SetupError::Os`] if `/proc/sysvipc` cannot be read.
pub fn list_unguarded() -> Result<Vec<Listed>, SetupError> {
    let objects = super::sysvipc::objects()?;
    let pipes = objects.unguarded().filter_map(|segment| {
        let by_id = Address(AddressForm::Id(segment.id));
        let mut snapshot = inspect(&by_id).ok()?;
        if !matches!(snapshot.object, Object::SysV { sem_id: None, .. }) {
            return None;
        }
        snapshot.address = address_of(snapshot.name.as_deref(), segment.key, segment.id);
        Some(Listed {
            location: Location::Address(snapshot.address.clone()),
            object: snapshot.object,
            permissions: snapshot.permissions,
            pids: segment.pids.clone(),
            is_open: snapshot.is_open,
            snapshot: Ok(snapshot),
        })
    });
    Ok(pipes.collect())
}

/// Why `/proc/sysvipc` could not be read.
pub(super) fn failed(call: &'static str) -> impl Fn(std::io::Error) -> SetupError {
    move |source| SetupError::Os { call, source }
}

fn of_sysv(mappings: &SharedMappings) -> Result<Vec<Listed>, SetupError> {
    let segments = sysvipc::segments().map_err(failed("reading /proc/sysvipc/shm"))?;
    let sets = sysvipc::sets().map_err(failed("reading /proc/sysvipc/sem"))?;
    Ok(sets.iter().filter_map(|set| of_set(set, &segments, mappings)).collect())
}

/// The pipe that a set guards, if it guards one.
fn of_set(set: &Row, segments: &[Row], mappings: &SharedMappings) -> Option<Listed> {
    let target = sysv::target_of_set(set);
    // Any process can create a set that names any segment: the two must have been created together.
    let belongs = |segment: &&Row| match target {
        SetTarget::NoPipe => false,
        SetTarget::Segment(id) if segment.key == 0 => segment.id == id && segment.creator == set.creator,
        SetTarget::Segment(id) => segment.id == id && segment.key == set.key,
        SetTarget::Denied => segment.key == set.key && segment.key != 0,
    };
    let segment = segments.iter().find(belongs)?;
    let by_id = Address(AddressForm::Id(segment.id));
    let snapshot = match target {
        SetTarget::Segment(_) => view(&by_id, Duration::ZERO).map(|view| {
            let address = address_of(view.identity.name(), segment.key, segment.id);
            snapshot(&view, address)
        }),
        _ => Err(SetupError::PermissionDenied {
            address: by_id.clone(),
            key: Some(segment.key),
            permissions: Some(segment.permissions),
        }),
    };
    if matches!(snapshot, Err(SetupError::NotFound { .. })) {
        return None;
    }
    let (pids, _) = mappings.of_segment(segment.id);
    Some(Listed {
        location: Location::Address(
            snapshot.as_ref().map_or(by_id, |snapshot: &Snapshot| snapshot.address.clone()),
        ),
        object: Object::SysV { key: segment.key, shm_id: segment.id, sem_id: Some(set.id) },
        permissions: segment.permissions,
        is_open: snapshot.as_ref().map_or(!pids.is_empty(), |snapshot| snapshot.is_open),
        snapshot,
        pids,
    })
}

/// The friendliest address of a segment: its name, if that leads to it, else its key, else its identifier.
fn address_of(name: Option<&str>, key: i32, id: i32) -> Address {
    let key = Key::new(key);
    let name = name.and_then(|name| Name::new(name).ok()).filter(|name| Some(name.key()) == key);
    Address(match (name, key) {
        (Some(name), _) => AddressForm::Name(name),
        (None, Some(key)) => AddressForm::Key(key),
        (None, None) => AddressForm::Id(id),
    })
}

fn of_file(pipe: PipeFile) -> Option<Listed> {
    let is_open = pipe.is_open();
    let PipeFile { location, file, metadata, openers } = pipe;
    let (location, snapshot) = match (location, openers.first()) {
        (file::Location::Named(address), _) => (Location::Address(address.clone()), inspect(address)),
        (file::Location::Memfd, Some(&(pid, fd))) => {
            (Location::Descriptor { pid, fd }, inspect(Address(AddressForm::Descriptor(file.as_raw_fd()))))
        }
        (file::Location::Removed(path), Some(&(pid, fd))) => {
            let location = Location::Removed { path, pid, fd };
            let address = Address(AddressForm::File(location.to_string().into()));
            (location, Err(SetupError::Lost { lost: Lost::Removed, address }))
        }
        (file::Location::Memfd | file::Location::Removed(_), None) => return None,
    };
    // Found again by its address, it may be gone.
    if matches!(snapshot, Err(SetupError::NotFound { .. })) {
        return None;
    }
    Some(Listed {
        location,
        object: Object::File { device: metadata.dev(), inode: metadata.ino() },
        permissions: permissions(&metadata),
        snapshot,
        pids: openers.into_iter().map(|(pid, _)| pid).collect(),
        is_open,
    })
}
