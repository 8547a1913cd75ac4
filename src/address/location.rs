//! Where a pipe was found.

use super::{Address, AddressForm, Escaped};
use std::fmt;
use std::path::PathBuf;

/// Where a pipe was found.
///
/// It prints as an address, as a path, or as the path of a descriptor: `/proc/PID/fd/N`.
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
    /// In a file whose path could not be found, as when it was moved to another directory: the path of a descriptor of a process
    /// that has it open.
    Path(PathBuf),
    /// In a memfd that a process has open.
    Descriptor {
        /// The process.
        pid: u32,
        /// Its descriptor.
        fd: u32,
    },
    /// In a file without a name that a process has open. It was removed, or its creator is about to give it its name.
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
            Location::Path(_) | Location::Descriptor { .. } | Location::Removed { .. } => None,
        }
    }

    /// An address for a snapshot and for errors.
    pub(crate) fn as_address(&self) -> Address {
        match self {
            Location::Address(address) => address.clone(),
            Location::Path(path) => Address(AddressForm::File(path.clone())),
            _ => Address(AddressForm::File(self.to_string().into())),
        }
    }
}

/// An address, a path, or the path of a descriptor: `/proc/PID/fd/N`.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Address(address) => address.fmt(f),
            Location::Path(path) => Escaped(path.as_os_str()).fmt(f),
            Location::Descriptor { pid, fd } | Location::Removed { pid, fd, .. } => {
                write!(f, "/proc/{pid}/fd/{fd}")
            }
        }
    }
}
