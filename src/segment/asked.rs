//! What a call asks for, and the checks that a segment of any kind has to pass before it is believed to be a pipe.

use super::Mapping;
use crate::address::{Address, Name, Place};
use crate::error::SetupError;
use crate::options::{Existing, Options, Wait};
use crate::os::membarrier;
use crate::permissions::Permissions;
use crate::protocol::bell::WakeMode;
use crate::segment::identity::{Identity, READY, Ready, Wishes};
use std::time::{Duration, Instant};

/// What a call asks for: a pipe at an address, which root, we ourselves and the users named as trusted may have made.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) address: &'a Address,
    trusted: &'a [u32],
}

/// Why an attempt ended.
pub(crate) enum Trouble {
    /// Somebody removed, or made, the pipe meanwhile.
    Again,
    Failed(SetupError),
}

impl From<SetupError> for Trouble {
    fn from(error: SetupError) -> Self {
        Trouble::Failed(error)
    }
}

/// Attempts something on the pipe at `address` until nobody gets in between.
pub(crate) fn persist<T>(
    address: &Address,
    mut attempt: impl FnMut() -> Result<T, Trouble>,
) -> Result<T, SetupError> {
    let deadline = Instant::now() + PATIENCE;
    for attempts in 0..ATTEMPTS {
        if attempts >= FEW && Instant::now() > deadline {
            break;
        }
        match attempt() {
            Ok(done) => return Ok(done),
            Err(Trouble::Failed(error)) => return Err(error),
            Err(Trouble::Again) => {}
        }
    }
    Err(SetupError::Busy { address: address.clone(), pid: None })
}

/// The bit of a mode that lets anybody write.
const OTHERS_WRITE: u32 = 0o002;

/// How often a call starts again because somebody removed or made the pipe meanwhile, and for how long, since each time may have
/// been a long wait; but a few times in any case, since it may have been long for want of a processor.
const ATTEMPTS: u32 = 1000;
const FEW: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(10);

impl<'a> Asked<'a> {
    pub(crate) fn new(address: &'a Address, trusted: &'a [u32]) -> Self {
        Asked { address, trusted }
    }

    pub(crate) fn name(&self) -> Option<&'a Name> {
        match &self.address.0 {
            Place::Name(name) => Some(name),
            _ => None,
        }
    }

    pub(crate) fn not_found(&self) -> SetupError {
        SetupError::NotFound { address: self.address.clone() }
    }

    pub(crate) fn cannot_make(&self) -> SetupError {
        SetupError::CannotMake { address: self.address.clone() }
    }

    pub(crate) fn foreign(&self, what: &'static str, found: u64, expected: u64) -> SetupError {
        SetupError::Foreign { address: self.address.clone(), what, found, expected }
    }

    pub(crate) fn is_trusted(&self, uid: u32) -> bool {
        // SAFETY: the call has no arguments and cannot fail.
        uid == 0 || uid == unsafe { libc::geteuid() } || self.trusted.contains(&uid)
    }

    /// Refuses a segment, or what guards it, that somebody not trusted has made or owns: its maker can always change it,
    /// and may have made it to look like a pipe.
    pub(crate) fn check_trust(&self, uid: u32, creator: u32) -> Result<(), SetupError> {
        if self.is_trusted(uid) && self.is_trusted(creator) {
            return Ok(());
        }
        Err(SetupError::Untrusted { address: self.address.clone(), uid, creator })
    }

    /// Refuses what anybody may write to, unless a mode like that is asked for: whoever writes to it is the other end.
    pub(crate) fn check_mode(
        &self,
        options: &Options,
        what: &'static str,
        permissions: Permissions,
    ) -> Result<(), SetupError> {
        let wanted = options.mode.is_some_and(|mode| mode & OTHERS_WRITE != 0);
        if permissions.mode & OTHERS_WRITE == 0 || wanted {
            return Ok(());
        }
        Err(SetupError::WorldWritable { address: self.address.clone(), what, permissions })
    }

    /// What `ready` tells, unless the segment is foreign.
    pub(crate) fn readiness(&self, mapping: &Mapping) -> Result<Ready, SetupError> {
        match Ready::of(mapping.header()) {
            Ready::OtherByteOrder => Err(SetupError::ByteOrder),
            Ready::Foreign(found) => Err(self.foreign("the first word", found, READY)),
            ready => Ok(ready),
        }
    }

    /// Checks what a complete segment of `size` bytes says of itself.
    pub(crate) fn identify(&self, mapping: &Mapping, size: u64) -> Result<Identity, SetupError> {
        let identity = Identity::read(mapping.header());
        identity.check(size)?;
        let found = identity.name().unwrap_or_default();
        match self.name() {
            Some(asked) if asked.as_str() != found => {
                Err(SetupError::OtherName { asked: asked.as_str().to_owned(), found: found.to_owned() })
            }
            _ => Ok(identity),
        }
    }

    /// Whether an existing pipe is what the caller wants.
    pub(crate) fn check_wanted(
        &self,
        identity: &Identity,
        options: &Options,
        existing: Existing,
    ) -> Result<(), SetupError> {
        if existing == Existing::Refused {
            return Err(SetupError::Exists { address: self.address.clone() });
        }
        if identity.schema != options.schema {
            return Err(SetupError::Schema { found: identity.schema, expected: options.schema });
        }
        Ok(())
    }
}

/// What a new segment is made with.
pub(crate) fn wishes(options: &Options) -> Result<Wishes, SetupError> {
    let default = || if membarrier::is_available() { WakeMode::Membarrier } else { WakeMode::Fence };
    Ok(Wishes {
        capacity: options.rounded_capacity().unwrap_or(Ok(1 << 20))?,
        schema: options.schema,
        wake_mode: options.wake_mode.unwrap_or_else(default),
        remove_on_close: options.remove_on_close.unwrap_or(false),
    })
}

/// Makes this process ready to wake and to be woken as a pipe demands.
pub(crate) fn join(identity: &Identity, options: &Options) -> Result<(), SetupError> {
    let mode = identity.wake_mode().expect("a known wake mode was checked for");
    if mode == WakeMode::Membarrier {
        membarrier::register().map_err(|source| SetupError::CannotWake { mode, source })?;
    }
    if mode == WakeMode::Never && options.wait == Some(Wait::Block) {
        return Err(SetupError::NeverSleeps);
    }
    Ok(())
}
