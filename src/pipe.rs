//! An open pipe, of which the two roles can be claimed.

use crate::address::Address;
use crate::bell::WakeMode;
use crate::consumer::Consumer;
use crate::error::SetupError;
use crate::layout::HEADER;
use crate::options::{Existing, Kept, Options};
use crate::producer::Producer;
use crate::record;
use crate::ring::Ring;
use crate::sysv::{self, Attachment};
use crate::wait::Wait;
use std::fmt;
use std::sync::Arc;

/// An open pipe: a handle of the segment, without a role as yet.
///
/// It is cheap to clone and may be shared between threads. The segment stays mapped until the last clone and the
/// last endpoint are dropped.
///
/// A child made by `fork` does not inherit the mapping. There, dropping a handle or an endpoint does nothing, claiming
/// a role is refused, and nothing else may be done with them: it would touch memory that is not there, or that is
/// something else by then. To take part, the child opens the pipe anew, by [`address`](Pipe::address).
#[derive(Clone, Debug)]
pub struct Pipe {
    attachment: Arc<Attachment>,
    wait: Wait,
    kept: Vec<Kept>,
}

/// The random number of a segment, which tells it from every other that ever had its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub(crate) u64);

impl SegmentId {
    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Where a record stands in the stream: bytes since the pipe was made. Together with the [`SegmentId`] it identifies
/// a record for ever, so that a sink which stores both with its own data takes each record exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub(crate) u64);

impl Position {
    /// The number of bytes.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Pipe {
    /// Opens a pipe with the default [`Options`], or makes it.
    ///
    /// # Errors
    /// See [`Options::open_or_create`].
    pub fn open_or_create<A>(address: A) -> Result<Pipe, SetupError>
    where
        A: TryInto<Address>,
        SetupError: From<A::Error>,
    {
        Options::new().open_or_create(address)
    }

    /// Opens a pipe that somebody has made, with the default [`Options`].
    ///
    /// # Errors
    /// See [`Options::open`].
    pub fn open<A>(address: A) -> Result<Pipe, SetupError>
    where
        A: TryInto<Address>,
        SetupError: From<A::Error>,
    {
        Options::new().open(address)
    }

    pub(crate) fn attach(
        address: Address,
        options: &Options,
        existing: Existing,
    ) -> Result<Pipe, SetupError> {
        let capacity = options.rounded_capacity().transpose()?;
        let attachment = Arc::new(sysv::attach(&address, options, existing)?);
        let default = match wake_mode(&attachment) {
            WakeMode::Never => Wait::Yield,
            WakeMode::Membarrier | WakeMode::Fence => Wait::Block,
        };
        let kept = if attachment.created { vec![] } else { kept(&attachment, options, capacity) };
        Ok(Pipe { attachment, wait: options.wait.unwrap_or(default), kept })
    }

    /// Claims the producer's role and goes on where the last producer stopped: what it committed is in the pipe,
    /// what it did not commit is gone.
    ///
    /// Walks over the records committed since the last producer noted its position, at most one batch.
    ///
    /// # Errors
    /// [`SetupError::RoleTaken`] while there is a producer, in this process or another; [`SetupError::Corrupt`] if
    /// the ring holds what no correct peer writes.
    pub fn producer(&self) -> Result<Producer, SetupError> {
        Producer::claim(self)
    }

    /// Claims the consumer's role and goes on where the last consumer stopped: what it took and did not release
    /// comes again, with the same positions.
    ///
    /// # Errors
    /// [`SetupError::RoleTaken`] while there is a consumer, in this process or another; [`SetupError::Corrupt`] if
    /// the header holds what no correct peer writes.
    pub fn consumer(&self) -> Result<Consumer, SetupError> {
        Consumer::claim(self)
    }

    /// An address under which another process finds this pipe: the one it was opened by, except that of
    /// `sysv:private`, which is `sysv:id:N`.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.attachment.address
    }

    /// The random number that tells this segment from every other.
    #[must_use]
    pub fn id(&self) -> SegmentId {
        SegmentId(self.attachment.identity.segment_id)
    }

    /// Bytes of ring data.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.attachment.identity.capacity
    }

    /// Bytes of the longest message: half the capacity less 8.
    #[must_use]
    pub fn max_len(&self) -> usize {
        record::max_length(self.capacity()) as usize
    }

    /// The schema id that the creator gave.
    #[must_use]
    pub fn schema(&self) -> u64 {
        self.attachment.identity.schema
    }

    /// How sleepers are woken.
    #[must_use]
    pub fn wake_mode(&self) -> WakeMode {
        wake_mode(&self.attachment)
    }

    /// Permission bits of the segment when it was opened.
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.attachment.permissions.mode
    }

    /// Whether this handle's opening has made the segment.
    #[must_use]
    pub fn created(&self) -> bool {
        self.attachment.created
    }

    /// The wishes in the [`Options`] that the existing segment does not fulfil; empty if we made it.
    #[must_use]
    pub fn kept(&self) -> &[Kept] {
        &self.kept
    }

    pub(crate) fn wait(&self) -> Wait {
        self.wait
    }

    pub(crate) fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    pub(crate) fn ring(&self) -> Ring {
        let base = self.attachment.mapping.base();
        // SAFETY: the header is at the start of the mapping and the ring HEADER bytes on; that both fit was checked
        // when the identity was read, and shmat aligns to pages. The mapping lives as long as the attachment, of
        // which every user of the ring holds a clone; no other reference to the ring is made.
        unsafe {
            let words = base.add(HEADER as usize).cast();
            Ring::new(self.attachment.header(), words, self.capacity())
        }
    }
}

fn wake_mode(attachment: &Attachment) -> WakeMode {
    attachment.identity.wake_mode().expect("a known wake mode was checked for at attach")
}

fn kept(attachment: &Attachment, options: &Options, capacity: Option<u64>) -> Vec<Kept> {
    fn differs<T: PartialEq>(asked: Option<T>, found: T, kept: impl FnOnce(T, T) -> Kept) -> Option<Kept> {
        asked.filter(|asked| *asked != found).map(|asked| kept(asked, found))
    }
    let identity = &attachment.identity;
    let permissions = attachment.permissions;
    [
        differs(capacity, identity.capacity, |asked, found| Kept::Capacity { asked, found }),
        differs(options.mode, permissions.mode, |asked, found| Kept::Mode { asked, found }),
        differs(options.uid, permissions.uid, |asked, found| Kept::Uid { asked, found }),
        differs(options.gid, permissions.gid, |asked, found| Kept::Gid { asked, found }),
        differs(options.wake_mode, wake_mode(attachment), |asked, found| Kept::WakeMode { asked, found }),
        differs(options.remove_on_close, identity.remove_on_close(), |asked, found| Kept::RemoveOnClose {
            asked,
            found,
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Removes a pipe. Whoever has it open keeps what is mapped, and finds out.
///
/// # Errors
/// [`SetupError::RoleTaken`] while somebody is its producer or consumer, [`SetupError::NotFound`] if there is none.
pub fn unlink<A>(address: A) -> Result<(), SetupError>
where
    A: TryInto<Address>,
    SetupError: From<A::Error>,
{
    sysv::unlink(&address.try_into()?, false)
}

/// Removes a pipe even while its roles are held: its ends go on with what is mapped until one of them waits, and then
/// get `Removed`.
///
/// # Errors
/// [`SetupError::NotFound`] if there is none, and whatever else stands in the way.
pub fn unlink_force<A>(address: A) -> Result<(), SetupError>
where
    A: TryInto<Address>,
    SetupError: From<A::Error>,
{
    sysv::unlink(&address.try_into()?, true)
}
