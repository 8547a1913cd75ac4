//! A request to open, create, inspect or remove a pipe, and the checks that a segment of any kind must pass before it is accepted
//! as a pipe.

use super::Mapping;
use crate::address::{Address, AddressForm, Name};
use crate::error::{Distrust, Mismatch, MissingFeature, SetupError, Unsupported};
use crate::options::{Existing, Options, Wait};
use crate::permissions::Permissions;
use crate::protocol::wakeup::WakeMode;
use crate::segment::identity::{Identity, Parameters, READY, Ready};
use crate::sys::membarrier;
use std::time::{Duration, Instant};

/// A pipe at an address, and the users besides root and our own whose pipes the caller trusts.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) address: &'a Address,
    trusted: &'a [u32],
}

/// Why an attempt failed.
pub(crate) enum AttemptError {
    /// Another process removed or created the pipe meanwhile.
    Retry,
    Failed(SetupError),
}

impl From<SetupError> for AttemptError {
    fn from(error: SetupError) -> Self {
        AttemptError::Failed(error)
    }
}

/// Repeats an operation on the pipe at `address` until no other process interferes.
pub(crate) fn retry<T>(
    address: &Address,
    mut attempt: impl FnMut() -> Result<T, AttemptError>,
) -> Result<T, SetupError> {
    let deadline = Instant::now() + RETRY_TIMEOUT;
    for attempts in 0..MAX_ATTEMPTS {
        if attempts >= MIN_ATTEMPTS && Instant::now() > deadline {
            break;
        }
        match attempt() {
            Ok(done) => return Ok(done),
            Err(AttemptError::Failed(error)) => return Err(error),
            Err(AttemptError::Retry) => {}
        }
    }
    Err(SetupError::Busy { address: address.clone(), pid: None })
}

/// The mode bit that lets every user write.
const OTHERS_WRITE: u32 = 0o002;

/// How often an operation is attempted at most.
const MAX_ATTEMPTS: u32 = 1000;

/// How often it is attempted even after [`RETRY_TIMEOUT`]: on a busy machine the attempts may have been slow only for lack of a
/// processor.
const MIN_ATTEMPTS: u32 = 10;

/// How long it is attempted: each attempt may wait for a lock.
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);

impl<'a> Request<'a> {
    pub(crate) fn new(address: &'a Address, trusted: &'a [u32]) -> Self {
        Request { address, trusted }
    }

    pub(crate) fn name(&self) -> Option<&'a Name> {
        match &self.address.0 {
            AddressForm::Name(name) => Some(name),
            _ => None,
        }
    }

    pub(crate) fn not_found(&self) -> SetupError {
        SetupError::NotFound { address: self.address.clone() }
    }

    pub(crate) fn cannot_create(&self) -> SetupError {
        SetupError::Unsupported(Unsupported::Create { address: self.address.clone() })
    }

    pub(crate) fn cannot_open(&self) -> SetupError {
        SetupError::Unsupported(Unsupported::Open { address: self.address.clone() })
    }

    pub(crate) fn cannot_remove(&self) -> SetupError {
        SetupError::Unsupported(Unsupported::Remove { address: self.address.clone() })
    }

    pub(crate) fn foreign(&self, what: &'static str, found: u64, expected: u64) -> SetupError {
        SetupError::Foreign { address: self.address.clone(), what, found, expected }
    }

    pub(crate) fn is_trusted(&self, uid: u32) -> bool {
        // SAFETY: the call has no arguments and cannot fail.
        uid == 0 || uid == unsafe { libc::geteuid() } || self.trusted.contains(&uid)
    }

    /// Rejects a segment or semaphore set that an untrusted user created or owns. Its creator can change it at any time, and may
    /// have forged it to look like a pipe.
    pub(crate) fn check_trust(&self, uid: u32, creator: u32) -> Result<(), SetupError> {
        if self.is_trusted(uid) && self.is_trusted(creator) {
            return Ok(());
        }
        Err(SetupError::Untrusted(Distrust::Owner { address: self.address.clone(), uid, creator }))
    }

    /// Rejects an object that every user may write to, unless the options request such a mode: any writer can act as the peer.
    pub(crate) fn check_mode(
        &self,
        options: &Options,
        what: &'static str,
        permissions: Permissions,
    ) -> Result<(), SetupError> {
        let requested = options.mode.is_some_and(|mode| mode & OTHERS_WRITE != 0);
        if permissions.mode & OTHERS_WRITE == 0 || requested {
            return Ok(());
        }
        Err(SetupError::Untrusted(Distrust::WorldWritable {
            address: self.address.clone(),
            what,
            permissions,
        }))
    }

    /// The state of the `ready` word, or an error if the segment is not a pipe of this machine.
    pub(crate) fn readiness(&self, mapping: &Mapping) -> Result<Ready, SetupError> {
        match Ready::of(mapping.header()) {
            Ready::OtherByteOrder => Err(SetupError::Incompatible(Mismatch::ByteOrder)),
            Ready::Foreign(found) => Err(self.foreign("the first word", found, READY)),
            ready => Ok(ready),
        }
    }

    /// Reads and checks the identity of a complete segment of `size` bytes.
    pub(crate) fn identify(&self, mapping: &Mapping, size: u64) -> Result<Identity, SetupError> {
        let identity = Identity::read(mapping.header());
        identity.check(size)?;
        let found = identity.name().unwrap_or_default();
        match self.name() {
            Some(requested) if requested.as_str() != found => Err(SetupError::Incompatible(Mismatch::Name {
                requested: requested.as_str().to_owned(),
                found: found.to_owned(),
            })),
            _ => Ok(identity),
        }
    }

    /// Checks whether the caller accepts an existing pipe, and this one.
    pub(crate) fn check_existing(
        &self,
        identity: &Identity,
        options: &Options,
        existing: Existing,
    ) -> Result<(), SetupError> {
        if existing == Existing::Refused {
            return Err(SetupError::Exists { address: self.address.clone() });
        }
        if identity.is_duplex() != options.duplex {
            return Err(SetupError::Incompatible(Mismatch::Directions { duplex: identity.is_duplex() }));
        }
        if identity.schema != options.schema {
            return Err(SetupError::Incompatible(Mismatch::Schema {
                found: identity.schema,
                expected: options.schema,
            }));
        }
        Ok(())
    }
}

/// The parameters of a new segment.
pub(crate) fn parameters(options: &Options) -> Result<Parameters, SetupError> {
    let default = || if membarrier::is_available() { WakeMode::Membarrier } else { WakeMode::Fence };
    Ok(Parameters {
        capacity: options.rounded_capacity().unwrap_or(Ok(1 << 20))?,
        duplex: options.duplex,
        schema: options.schema,
        wake_mode: options.wake_mode.unwrap_or_else(default),
        remove_on_close: options.remove_on_close.unwrap_or(false),
        remove_leftover: options.remove_leftover.unwrap_or(false),
        measure_latency: options.measure_latency.unwrap_or(false),
    })
}

/// Prepares this process to wake and be woken in the pipe's wake mode.
pub(crate) fn prepare_wake_mode(identity: &Identity, options: &Options) -> Result<(), SetupError> {
    let mode = identity.wake_mode().expect("a known wake mode was checked for");
    if mode == WakeMode::Membarrier {
        membarrier::register().map_err(|source| SetupError::Kernel(MissingFeature::Wake { mode, source }))?;
    }
    if mode == WakeMode::Never && options.wait == Some(Wait::Block) {
        return Err(SetupError::Unsupported(Unsupported::Block));
    }
    Ok(())
}
