//! Which pipes there are.

use super::{Snapshot, inspect, snapshot};
use crate::address::{Address, AddressForm, Key, Location, Name};
use crate::backend::file::{self, PipeFile, permissions};
use crate::backend::sysv::{self, SetTarget};
use crate::backend::view;
use crate::error::{Lost, SetupError, failed};
use crate::permissions::Permissions;
use crate::segment::Object;
use crate::sys::maps::SharedMappings;
use crate::sys::sysvipc::{self, Row};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::os::unix::fs::MetadataExt;
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
    /// Why pipes in files and memfds, or processes, may be missing: this process can open no more files, for example.
    pub files_error: Option<SetupError>,
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
    /// Its state, or why that cannot be read. If no address opens it, the address in the snapshot is
    /// `file:` and the path at [`location`](Self::location).
    pub snapshot: Result<Snapshot, SetupError>,
    /// The processes that have it mapped, as far as they are visible from here. Watchers are among them.
    pub pids: Vec<u32>,
    /// Whether any process has it open, visible from here or not. Watchers count only on a System V pipe without its semaphore
    /// set.
    pub is_open: bool,
}

/// Lists the pipes of this machine.
///
/// These are System V pipes of this IPC namespace, files in `/dev/shm`, and the files and memfds that processes have open, as far
/// as we may look into them. For root those are all processes, otherwise this user's.
///
/// System V pipes are recognised by their semaphore sets. Other segments are not attached, since that would raise their attach
/// count, on which their owners may rely; [`list_unguarded`] does. A pipe that we may not read is listed with that error.
///
/// Reads `/proc/PID/maps` of all processes, which takes some milliseconds. Opens regular files only, for reading, and only on file
/// systems that can hold a pipe.
///
/// ```
/// for pipe in shmpipe::list().pipes {
///     println!("{} is open in {:?}", pipe.location, pipe.pids);
/// }
/// ```
#[must_use]
pub fn list() -> Listing {
    let mut mappings = SharedMappings::now();
    let (mut pipes, sysv_error) = match of_sysv(&mappings) {
        Ok(pipes) => (pipes, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let mut known = HashMap::new();
    let missing = file::find(&mappings, |found| {
        let pid = found.opener.map(|(pid, _)| pid);
        match known.entry((found.metadata.dev(), found.metadata.ino())) {
            Entry::Vacant(entry) => {
                entry.insert(pipes.len());
                pipes.push(of_file(&found));
            }
            Entry::Occupied(entry) => {
                let listed: &mut Listed = &mut pipes[*entry.get()];
                listed.is_open |= found.is_open();
                listed.pids.extend(pid);
            }
        }
    });
    let files_error = mappings.missing.0.take().or(missing).map(failed("opening what a process has open"));
    Listing { pipes, sysv_error, files_error }
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
    let unguarded = super::sysvipc::unguarded()?.into_iter().filter_map(|segment| {
        let by_id = Address(AddressForm::Id(segment.id));
        let view = view(&by_id, Duration::ZERO).ok()?;
        let Object::SysV { sem_id: None, .. } = view.object else { return None };
        let snapshot = snapshot(&view, address_of(view.identity.name(), segment.key, segment.id));
        Some((segment.id, snapshot))
    });
    let unguarded: Vec<_> = unguarded.collect();
    if unguarded.is_empty() {
        return Ok(Vec::new());
    }
    let mappings = SharedMappings::now();
    let pipes = unguarded.into_iter().map(|(id, snapshot)| Listed {
        location: Location::Address(snapshot.address.clone()),
        object: snapshot.object,
        permissions: snapshot.permissions,
        pids: mappings.of_segment(id).0,
        is_open: snapshot.is_open,
        snapshot: Ok(snapshot),
    });
    Ok(pipes.collect())
}

/// Returns the state of a pipe where [`list`] has found it, also of one that no address opens.
///
/// Otherwise as [`inspect`]. Such a pipe is found at a descriptor of a process, which may lead to another one by now:
/// [`Snapshot::segment_id`] tells.
///
/// ```
/// # let _pipe = shmpipe::Options::new().create("memfd")?;
/// for pipe in shmpipe::list().pipes {
///     if let Ok(snapshot) = shmpipe::inspect_at(&pipe.location) {
///         println!("{}: {} bytes used", pipe.location, snapshot.used);
///     }
/// }
/// # Ok::<(), shmpipe::SetupError>(())
/// ```
///
/// # Errors
/// * [`NotFound`](SetupError::NotFound) if no pipe is there any more, or the process has ended.
/// * [`Lost::Removed`] at [`Location::Removed`], as in the listing.
/// * Those of [`inspect`].
pub fn inspect_at(location: &Location) -> Result<Snapshot, SetupError> {
    let address = location.as_address();
    let view = match location {
        Location::Address(address) => return inspect(address.clone()),
        Location::Removed { .. } => return Err(SetupError::Lost { lost: Lost::Removed, address }),
        Location::Path(link) => file::view_at(link, &address),
        Location::Descriptor { .. } => file::view_at(location.to_string().as_ref(), &address),
    };
    match view {
        Ok(Some(view)) => Ok(snapshot(&view?, address)),
        Ok(None) => Err(SetupError::NotFound { address }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SetupError::NotFound { address }),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(SetupError::PermissionDenied { address, key: None, permissions: None })
        }
        Err(error) => Err(failed("opening what a process has open")(error)),
    }
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

fn of_file(pipe: &PipeFile) -> Listed {
    let location = pipe.location();
    let address = location.as_address();
    let snapshot = match location {
        Location::Removed { .. } => Err(SetupError::Lost { lost: Lost::Removed, address }),
        _ => pipe.view(&address).map(|view| snapshot(&view, address)),
    };
    Listed {
        location,
        object: Object::File { device: pipe.metadata.dev(), inode: pipe.metadata.ino() },
        permissions: permissions(&pipe.metadata),
        snapshot,
        pids: pipe.opener.into_iter().map(|(pid, _)| pid).collect(),
        is_open: pipe.is_open(),
    }
}
