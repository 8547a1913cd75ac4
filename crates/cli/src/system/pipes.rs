//! All pipes of this machine, of every kind.

use std::fmt;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use shmpipe::{Address, Object, Permissions, SegmentId, SetupError, Snapshot};

use crate::system::files::{self, Kind, PipeFile};
use crate::system::processes::Shared;
use crate::system::sysvipc;

/// A pipe that was found.
#[derive(Debug)]
pub struct Found {
    pub place: Place,
    pub permissions: Permissions,
    /// What it is like, or why that cannot be told.
    pub snapshot: Result<Snapshot, SetupError>,
    /// Processes that have it mapped, as far as we may see.
    pub openers: Vec<u32>,
    /// Whether any process has it open, whether we may see that one or not.
    pub is_open: bool,
}

/// Where a pipe was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Whoever has this opens it.
    At(Address),
    /// A memfd: a process has it as that descriptor.
    Descriptor { pid: u32, number: u32 },
    /// A file without its name, which a process has open.
    Removed { path: PathBuf, pid: u32, number: u32 },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::At(address) => address.fmt(f),
            Place::Descriptor { pid, number } | Place::Removed { pid, number, .. } => {
                write!(f, "/proc/{pid}/fd/{number}")
            }
        }
    }
}

impl Place {
    pub fn address(&self) -> Option<&Address> {
        match self {
            Place::At(address) => Some(address),
            Place::Descriptor { .. } | Place::Removed { .. } => None,
        }
    }
}

/// All of them that can be found: System V segments, files in /dev/shm, and the files and memfds that processes have
/// open into which we may look. Each is found once. Also why System V segments could not be looked for.
pub fn find(shared: &Shared) -> (Vec<Found>, Option<SetupError>) {
    let (mut found, error) = match of_system_v(shared) {
        Ok(found) => (found, None),
        Err(error) => (vec![], Some(error)),
    };
    found.extend(files::find(shared).into_iter().filter_map(of_file));
    (found, error)
}

fn of_system_v(shared: &Shared) -> Result<Vec<Found>, SetupError> {
    let listed = shmpipe::list()?;
    let known: Vec<i32> = listed.iter().map(|listed| listed.shm_id).collect();
    let guarded = listed.into_iter().map(|listed| (listed.shm_id, listed.permissions, listed.snapshot));
    // Those whose set is gone the library does not list.
    let unguarded = sysvipc::segments().unwrap_or_default().into_iter().filter_map(|segment| {
        let snapshot = (!known.contains(&segment.id)).then(|| without_set(&segment)).flatten()?;
        Some((segment.id, snapshot.permissions, Ok(snapshot)))
    });
    let found = guarded.chain(unguarded).filter_map(|(shm_id, permissions, snapshot)| {
        let address = match &snapshot {
            Ok(snapshot) => snapshot.address.clone(),
            Err(_) => format!("sysv:id:{shm_id}").parse().ok()?,
        };
        let openers = shared.segment(shm_id);
        let is_open = snapshot.as_ref().map_or(!openers.is_empty(), segment_is_open);
        Some(Found { place: Place::At(address), permissions, snapshot, openers, is_open })
    });
    Ok(found.collect())
}

/// Whether anybody has a System V pipe open. Attached are also those who only look at it for a moment, and its guests are
/// also those who have called `exec` since and have nothing any more.
fn segment_is_open(snapshot: &Snapshot) -> bool {
    let guests = match snapshot.object {
        Object::SysV { sem_id: Some(set), .. } => sysvipc::guests(set),
        _ => None,
    };
    snapshot.attached.is_none_or(|attached| attached > 0) && guests.is_none_or(|guests| guests > 0)
}

/// A segment that is a pipe although no set guards it. One that does not have a pipe's size is not looked into:
/// attaching it would raise its attach count, by which its owner may go.
pub fn without_set(segment: &sysvipc::Row) -> Option<Snapshot> {
    /// The header in front of the ring, whose size is a power of two.
    const HEADER: u64 = 4096;
    let ring = segment.size.checked_sub(HEADER)?;
    if segment.removed || ring < 4096 || !ring.is_power_of_two() {
        return None;
    }
    let address = match segment.key {
        0 => format!("sysv:id:{}", segment.id),
        key => format!("sysv:{key:#x}"),
    };
    let snapshot = match shmpipe::inspect(address) {
        // Its key is its name's.
        Err(SetupError::OtherName { found, .. }) => shmpipe::inspect(found),
        snapshot => snapshot,
    };
    snapshot.ok().filter(has_lost_set)
}

/// Whether a System V pipe has lost its semaphore set.
pub fn has_lost_set(snapshot: &Snapshot) -> bool {
    matches!(snapshot.object, Object::SysV { sem_id: None, .. })
}

fn of_file(pipe: PipeFile) -> Option<Found> {
    let is_open = pipe.is_open();
    let PipeFile { kind, file, metadata, openers } = pipe;
    let first = openers.first().map(|&(pid, number)| (pid, number));
    let (place, snapshot) = match (kind, first) {
        (Kind::Named(address), _) => (Place::At(address.clone()), shmpipe::inspect(address)),
        (Kind::Memfd, Some((pid, number))) => {
            (Place::Descriptor { pid, number }, shmpipe::inspect(format!("fd:{}", file.as_raw_fd())))
        }
        (Kind::Removed(path), Some((pid, number))) => {
            let place = Place::Removed { path, pid, number };
            let address = format!("file:{place}").parse().ok()?;
            (place, Err(SetupError::Removed { address }))
        }
        (Kind::Memfd | Kind::Removed(_), None) => return None,
    };
    Some(Found {
        place,
        permissions: Permissions { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode() & 0o777 },
        // Found again by name, it may be gone.
        snapshot: match snapshot {
            Err(SetupError::NotFound { .. }) => return None,
            snapshot => snapshot,
        },
        openers: openers.into_iter().map(|(pid, _)| pid).collect(),
        is_open,
    })
}

/// The pipe at an address. `found` are those that were found; a file that nobody has open need not be among them.
pub fn at(address: &Address, found: &[Found]) -> Result<Found, SetupError> {
    let snapshot = shmpipe::inspect(address)?;
    let known = found.iter().find(|known| known.id() == Some(snapshot.segment_id));
    Ok(Found {
        place: Place::At(address.clone()),
        permissions: snapshot.permissions,
        openers: known.map(|known| known.openers.clone()).unwrap_or_default(),
        is_open: match known {
            Some(known) => known.is_open,
            None => path_of(address).is_some_and(|path| files::is_open(&path)),
        },
        snapshot: Ok(snapshot),
    })
}

impl Found {
    /// The random number of the segment, if we may look into it.
    pub fn id(&self) -> Option<SegmentId> {
        self.snapshot.as_ref().ok().map(|snapshot| snapshot.segment_id)
    }
}

/// The absolute path of a pipe in a file, if it has one.
pub fn path_of(address: &Address) -> Option<PathBuf> {
    let text = address.to_string();
    match (text.strip_prefix("posix:/"), text.strip_prefix("file:")) {
        (Some(name), _) => Some(PathBuf::from(files::POSIX).join(name)),
        (_, Some(path)) => std::path::absolute(path).ok(),
        _ => None,
    }
}

/// An address that leads to this very pipe, whatever is made under its name meanwhile, if there is one.
pub fn exactly(address: &Address, snapshot: &Snapshot) -> Address {
    match snapshot.object {
        Object::SysV { shm_id, .. } => {
            format!("sysv:id:{shm_id}").parse().unwrap_or_else(|_| address.clone())
        }
        _ => address.clone(),
    }
}

/// Messages that were sent and not yet released. Its two sides count for themselves, so that after a kill the number
/// may be off by those of one call.
pub fn unread(snapshot: &Snapshot) -> u64 {
    match snapshot.used {
        0 => 0,
        _ => snapshot.producer.messages.saturating_sub(snapshot.consumer.messages).max(1),
    }
}
