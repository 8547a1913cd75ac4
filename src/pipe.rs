//! An open pipe, of which the two roles can be claimed.

use crate::address::Address;
use crate::backend;
use crate::error::SetupError;
use crate::options::{Existing, Kept, Options, Wait};
use crate::position::SegmentId;
use crate::protocol::bell::WakeMode;
use crate::protocol::layout::HEADER;
use crate::protocol::record;
use crate::protocol::ring::Ring;
use crate::segment::Segment;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// An open pipe: a handle of the segment, without a role as yet.
///
/// It is cheap to clone and may be shared between threads. The segment stays mapped until the last clone and the
/// last endpoint are dropped.
///
/// A child made by `fork` does not inherit the mapping. There, dropping a handle or an endpoint does nothing, claiming
/// a role is refused, and nothing else may be done with them: it would touch memory that is not there, or that is
/// something else by then. To take part, the child calls [`reopen`](Pipe::reopen).
#[derive(Clone, Debug)]
pub struct Pipe {
    segment: Arc<Segment>,
    options: Options,
    wait: Wait,
    kept: Vec<Kept>,
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
        options.rounded_capacity().transpose()?;
        Ok(Self::of(backend::attach(&address, options, existing)?, options))
    }

    pub(crate) fn of(segment: Segment, options: &Options) -> Pipe {
        let default = match wake_mode(&segment) {
            WakeMode::Never => Wait::Yield,
            WakeMode::Membarrier | WakeMode::Fence => Wait::Block,
        };
        let kept = if segment.created { vec![] } else { kept(&segment, options) };
        let wait = options.wait.unwrap_or(default);
        Pipe { segment: Arc::new(segment), options: options.clone(), wait, kept }
    }

    /// Opens the same segment once more, with a mapping and claims of its own. This is what a child made by `fork` calls to
    /// take part: it inherits neither.
    ///
    /// ```
    /// let pipe = shmpipe::Options::new().create("memfd")?;
    /// // SAFETY: the child does nothing but receive and exit.
    /// match unsafe { libc::fork() } {
    ///     0 => {
    ///         let mut consumer = pipe.reopen().unwrap().consumer().unwrap();
    ///         let taken = consumer.recv().unwrap().to_vec();
    ///         unsafe { libc::_exit(taken.len() as i32) };
    ///     }
    ///     child => {
    ///         pipe.producer()?.send(b"hello")?;
    ///         let mut status = 0;
    ///         // SAFETY: the pointer is to an int.
    ///         unsafe { libc::waitpid(child, &raw mut status, 0) };
    ///         assert_eq!(libc::WEXITSTATUS(status), 5);
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SetupError::Removed`] if the pipe is no longer where it was, and whatever [`Options::open`] may return.
    pub fn reopen(&self) -> Result<Pipe, SetupError> {
        Ok(Pipe::of(self.segment.again(&self.options)?, &self.options))
    }

    /// A descriptor of the file that the pipe lies in; none for a System V segment. It holds no locks and is closed on
    /// `exec`. A memfd is handed on by it: to a child, which inherits it, as the address `fd:N` (after clearing
    /// `FD_CLOEXEC`), or through a Unix socket, for which there is [`handoff`](crate::handoff).
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.segment.descriptor()
    }

    /// An address under which another process finds this pipe: the one it was opened by, except that of
    /// `sysv:private`, which is `sysv:id:N`. That of a memfd, `fd:N`, is good in this process and in those that inherit
    /// the descriptor.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.segment.address
    }

    /// The random number that tells this segment from every other.
    #[must_use]
    pub fn id(&self) -> SegmentId {
        SegmentId(self.segment.identity.segment_id)
    }

    /// Bytes of ring data.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.segment.identity.capacity
    }

    /// Bytes of the longest message: half the capacity less 8.
    #[must_use]
    pub fn max_len(&self) -> usize {
        record::max_length(self.capacity()) as usize
    }

    /// The schema id that the creator gave.
    #[must_use]
    pub fn schema(&self) -> u64 {
        self.segment.identity.schema
    }

    /// How sleepers are woken.
    #[must_use]
    pub fn wake_mode(&self) -> WakeMode {
        wake_mode(&self.segment)
    }

    /// Permission bits of the segment when it was opened.
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.segment.permissions.mode
    }

    /// Whether this handle's opening has made the segment.
    #[must_use]
    pub fn created(&self) -> bool {
        self.segment.created
    }

    /// The wishes in the [`Options`] that the existing segment does not fulfil; empty if we made it.
    #[must_use]
    pub fn kept(&self) -> &[Kept] {
        &self.kept
    }

    pub(crate) fn wait(&self) -> Wait {
        self.wait
    }

    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }

    pub(crate) fn ring(&self) -> Ring {
        let base = self.segment.mapping.base();
        // SAFETY: the header is at the start of the mapping and the ring HEADER bytes on; that both fit was checked
        // when the identity was read, and shmat aligns to pages. The mapping lives as long as the segment, of
        // which every user of the ring holds a clone; no other reference to the ring is made.
        unsafe {
            let words = base.add(HEADER as usize).cast();
            Ring::new(self.segment.header(), words, self.capacity())
        }
    }
}

fn wake_mode(segment: &Segment) -> WakeMode {
    segment.identity.wake_mode().expect("a known wake mode was checked for at attach")
}

fn kept(segment: &Segment, options: &Options) -> Vec<Kept> {
    fn differs<T: PartialEq>(asked: Option<T>, found: T, kept: impl FnOnce(T, T) -> Kept) -> Option<Kept> {
        asked.filter(|asked| *asked != found).map(|asked| kept(asked, found))
    }
    let identity = &segment.identity;
    let permissions = segment.permissions;
    [
        differs(options.rounded_capacity().and_then(Result::ok), identity.capacity, |asked, found| {
            Kept::Capacity { asked, found }
        }),
        differs(options.mode, permissions.mode, |asked, found| Kept::Mode { asked, found }),
        differs(options.uid, permissions.uid, |asked, found| Kept::Uid { asked, found }),
        differs(options.gid, permissions.gid, |asked, found| Kept::Gid { asked, found }),
        differs(options.wake_mode, wake_mode(segment), |asked, found| Kept::WakeMode { asked, found }),
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
    backend::unlink(&address.try_into()?, false)
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
    backend::unlink(&address.try_into()?, true)
}

impl Options {
    /// Makes a new pipe.
    ///
    /// # Errors
    /// [`SetupError::Exists`] if there is one already, and whatever else stands in the way.
    pub fn create<A>(&self, address: A) -> Result<Pipe, SetupError>
    where
        A: TryInto<Address>,
        SetupError: From<A::Error>,
    {
        Pipe::attach(address.try_into()?, self, Existing::Refused)
    }

    /// Opens an existing pipe.
    ///
    /// # Errors
    /// [`SetupError::NotFound`] if there is none, and whatever else stands in the way.
    pub fn open<A>(&self, address: A) -> Result<Pipe, SetupError>
    where
        A: TryInto<Address>,
        SetupError: From<A::Error>,
    {
        Pipe::attach(address.try_into()?, self, Existing::Required)
    }

    /// Opens a pipe, or makes it if there is none. Any number of processes may do this at the same time and all get
    /// the same one. An existing pipe keeps its properties; [`Pipe::kept`] tells which wishes it does not fulfil.
    ///
    /// # Errors
    /// Whatever stands in the way; see [`SetupError`].
    pub fn open_or_create<A>(&self, address: A) -> Result<Pipe, SetupError>
    where
        A: TryInto<Address>,
        SetupError: From<A::Error>,
    {
        Pipe::attach(address.try_into()?, self, Existing::Welcome)
    }
}
