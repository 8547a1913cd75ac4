//! A shmpipe each way, in each kind of shared memory, with its pages prepared in various ways.

use shmpipe::os::unix::PipeExt;
use std::fmt::Display;
use std::io;
use std::os::fd::AsRawFd;

use shmpipe::{Options, Pipe};

use super::shmpipe::{Copying, announce, refused};
use super::{Invitation, Invited, Mode, Transport};
use crate::control::Leftover;
use crate::endpoint::Endpoint;
use crate::scratch::{Directory, Scratch};

/// A kind of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A System V segment and its semaphore set.
    SysV,
    /// A file in `/dev/shm`.
    Posix,
    /// A file in `/var/tmp`.
    File,
    /// A sealed memfd, which the partner inherits.
    Memfd,
}

impl Kind {
    /// Each of them.
    pub const ALL: [Kind; 4] = [Kind::SysV, Kind::Posix, Kind::File, Kind::Memfd];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::SysV => "sysv",
            Kind::Posix => "posix",
            Kind::File => "file",
            Kind::Memfd => "memfd",
        }
    }

    /// An address that creates a pipe, and the file that this creates, if any.
    pub fn fresh(self) -> (String, Option<Scratch>) {
        let in_file = |directory| {
            let scratch = Scratch::new(directory);
            match directory {
                Directory::Shm => (format!("posix:/{}", scratch.name()), Some(scratch)),
                Directory::Disk => (format!("file:{}", scratch.path()), Some(scratch)),
            }
        };
        match self {
            Kind::SysV => ("sysv:private".to_owned(), None),
            Kind::Posix => in_file(Directory::Shm),
            Kind::File => in_file(Directory::Disk),
            Kind::Memfd => ("memfd".to_owned(), None),
        }
    }
}

/// The side that faults in the pages before the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prefault {
    /// By the default of the options.
    Default,
    Nobody,
    /// The creator of the pipe: the parent.
    Creator,
    Both,
}

struct Backend {
    name: &'static str,
    kind: Kind,
    prefault: Prefault,
    huge_pages: bool,
    /// Whether the ring is used before anything is timed.
    used: bool,
    /// Whether only the direction from the partner has a ring of full size.
    one_way: bool,
}

const fn usual(name: &'static str, kind: Kind) -> Backend {
    Backend { name, kind, prefault: Prefault::Default, huge_pages: false, used: true, one_way: false }
}

const fn untouched(name: &'static str, kind: Kind, prefault: Prefault) -> Backend {
    Backend { name, kind, prefault, huge_pages: false, used: false, one_way: false }
}

const fn large(name: &'static str, kind: Kind, prefault: Prefault, huge_pages: bool) -> Backend {
    Backend { name, kind, prefault, huge_pages, used: false, one_way: true }
}

/// Every kind of shared memory, with default options.
pub const BACKENDS: &[&dyn Transport] = &[
    &usual("sysv", Kind::SysV),
    &usual("posix", Kind::Posix),
    &usual("file", Kind::File),
    &usual("memfd", Kind::Memfd),
];

/// The same, unused: only the side in the name has touched pages of the ring.
pub const FIRST_LAPS: &[&dyn Transport] = &[
    &untouched("sysv-untouched", Kind::SysV, Prefault::Nobody),
    &untouched("sysv-creator", Kind::SysV, Prefault::Creator),
    &untouched("sysv-both", Kind::SysV, Prefault::Both),
    &untouched("posix-untouched", Kind::Posix, Prefault::Nobody),
    &untouched("posix-creator", Kind::Posix, Prefault::Creator),
    &untouched("posix-both", Kind::Posix, Prefault::Both),
    &untouched("file-untouched", Kind::File, Prefault::Nobody),
    &untouched("file-creator", Kind::File, Prefault::Creator),
    &untouched("file-both", Kind::File, Prefault::Both),
    &untouched("memfd-untouched", Kind::Memfd, Prefault::Nobody),
    &untouched("memfd-creator", Kind::Memfd, Prefault::Creator),
    &untouched("memfd-both", Kind::Memfd, Prefault::Both),
];

/// Large rings, only in the direction from the partner.
pub struct LargeRing {
    /// The kind of shared memory.
    pub kind: Kind,
    /// Whether it requests huge pages.
    pub huge_pages: bool,
    /// Faulted in by both sides.
    pub steady: &'static dyn Transport,
    /// Not faulted in. Pages must be faulted in before the kernel can collapse them.
    pub untouched: Option<&'static dyn Transport>,
}

/// Large rings on small and on huge pages.
pub const LARGE: &[LargeRing] = &[
    LargeRing {
        kind: Kind::SysV,
        huge_pages: false,
        steady: &large("sysv-4k", Kind::SysV, Prefault::Both, false),
        untouched: Some(&large("sysv-4k-untouched", Kind::SysV, Prefault::Nobody, false)),
    },
    LargeRing {
        kind: Kind::SysV,
        huge_pages: true,
        steady: &large("sysv-huge", Kind::SysV, Prefault::Both, true),
        untouched: Some(&large("sysv-huge-untouched", Kind::SysV, Prefault::Nobody, true)),
    },
    LargeRing {
        kind: Kind::Posix,
        huge_pages: false,
        steady: &large("posix-4k", Kind::Posix, Prefault::Both, false),
        untouched: Some(&large("posix-4k-untouched", Kind::Posix, Prefault::Nobody, false)),
    },
    LargeRing {
        kind: Kind::Posix,
        huge_pages: true,
        steady: &large("posix-huge", Kind::Posix, Prefault::Both, true),
        untouched: None,
    },
    LargeRing {
        kind: Kind::Memfd,
        huge_pages: true,
        steady: &large("memfd-huge", Kind::Memfd, Prefault::Both, true),
        untouched: Some(&large("memfd-huge-untouched", Kind::Memfd, Prefault::Nobody, true)),
    },
];

/// Bytes of the direction to the partner if it is not used.
const SMALL: u64 = 64 << 10;

impl Backend {
    /// The options of one side, the `creator` or the other.
    fn options(&self, creator: bool) -> Options {
        let options = Options::new().huge_pages(self.huge_pages).allow_rmid_forced(true);
        match self.prefault {
            Prefault::Default => options,
            Prefault::Nobody => options.prefault(false),
            Prefault::Creator => options.prefault(creator),
            Prefault::Both => options.prefault(true),
        }
    }

    /// Creates a pipe, which is in the invitation and is removed with the session.
    fn make_one(&self, invitation: &mut Invitation<'_>, capacity: u64) -> io::Result<Pipe> {
        let options = self.options(true).capacity(capacity);
        let (address, file) = self.kind.fresh();
        if let Some(file) = file {
            invitation.leaves(Leftover::File(file))?;
        }
        let pipe = options.create(address.as_str()).map_err(refused)?;
        match (self.kind, pipe.fd()) {
            (Kind::Memfd, Some(descriptor)) => invitation.pass(descriptor.try_clone_to_owned()?),
            _ => {
                if let Err(error) = announce(&pipe, invitation) {
                    // it is not listed for removal; report the first error, even if the removal fails
                    let _ = ::shmpipe::unlink_force(pipe.address());
                    return Err(error);
                }
            }
        }
        Ok(pipe)
    }

    fn open_one(&self, invited: &mut Invited<'_>) -> io::Result<Pipe> {
        let options = self.options(false);
        let open = |address: &dyn Display| options.open(address.to_string().as_str()).map_err(refused);
        if self.kind == Kind::Memfd {
            let descriptor = invited.descriptor()?;
            return open(&format_args!("fd:{}", descriptor.as_raw_fd()));
        }
        open(&invited.word::<String>()?)
    }
}

impl Transport for Backend {
    fn name(&self) -> &'static str {
        self.name
    }

    fn mode(&self) -> Mode {
        Mode::PollsThenSleeps
    }

    fn about(&self) -> &'static str {
        match self.kind {
            Kind::SysV => "a shmpipe in a System V segment",
            Kind::Posix => "a shmpipe in a file in /dev/shm",
            Kind::File => "a shmpipe in a file in /var/tmp",
            Kind::Memfd => "a shmpipe in a sealed memfd that the partner has inherited",
        }
    }

    fn passes_descriptors(&self) -> bool {
        self.kind == Kind::Memfd
    }

    fn warm_up_bytes(&self, capacity: usize) -> usize {
        if self.used { capacity } else { 0 }
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let capacity = invitation.capacity() as u64;
        let out = self.make_one(invitation, if self.one_way { capacity.min(SMALL) } else { capacity })?;
        let back = self.make_one(invitation, capacity)?;
        let (producer, consumer) = (out.producer().map_err(refused)?, back.consumer().map_err(refused)?);
        Ok(Endpoint::new(Copying { producer, consumer }))
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        let (back, out) = (self.open_one(invited)?, self.open_one(invited)?);
        let (producer, consumer) = (out.producer().map_err(refused)?, back.consumer().map_err(refused)?);
        Ok(Endpoint::new(Copying { producer, consumer }))
    }
}
