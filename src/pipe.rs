//! An open pipe, whose two roles can be claimed.

use crate::address::Address;
use crate::backend;
use crate::error::SetupError;
use crate::options::{Difference, Existing, Options, Wait};
use crate::position::SegmentId;
use crate::protocol::layout::HEADER;
use crate::protocol::record;
use crate::protocol::ring::Ring;
use crate::protocol::wakeup::WakeMode;
use crate::segment::Segment;
use std::sync::Arc;

/// An open pipe: a handle of the segment, without a role yet.
///
/// It is cheap to clone and can be shared between threads. The segment stays mapped until the last clone and the last producer or
/// consumer are dropped.
///
/// A forked child does not inherit the mapping. There, dropping a handle, producer or consumer does nothing, and claiming a role
/// fails. Nothing else may be done with them: it would access memory that is not mapped, or that has another use by then. To use
/// the pipe, the child calls [`reopen`](Pipe::reopen).
#[derive(Clone, Debug)]
pub struct Pipe {
    segment: Arc<Segment>,
    options: Options,
    wait: Wait,
    differences: Vec<Difference>,
}

impl Pipe {
    /// Opens or creates a pipe with the default [`Options`].
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

    /// Opens an existing pipe with the default [`Options`].
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
        let differences = if segment.created { vec![] } else { differences(&segment, options) };
        let wait = options.wait.unwrap_or(default);
        Pipe { segment: Arc::new(segment), options: options.clone(), wait, differences }
    }

    /// Opens the same segment once more, with its own mapping and claims. A forked child calls this to use the pipe, since it
    /// inherits neither.
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
    /// [`SetupError::Lost`] if the pipe was removed, and the errors of [`Options::open`].
    pub fn reopen(&self) -> Result<Pipe, SetupError> {
        Ok(Pipe::of(self.segment.reopen(&self.options)?, &self.options))
    }

    /// An address by which another process can open this pipe: the one it was opened by, or `sysv:id:N` for `sysv:private`. The
    /// address of a memfd, `fd:N`, is valid in this process and in those that inherit the descriptor.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.segment.address
    }

    /// The random number that distinguishes this segment from every other.
    #[must_use]
    pub fn id(&self) -> SegmentId {
        SegmentId(self.segment.identity.segment_id)
    }

    /// Bytes of ring data.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.segment.identity.capacity
    }

    /// Bytes of the longest message: half the capacity, less 8.
    #[must_use]
    pub fn max_len(&self) -> usize {
        record::max_length(self.capacity()) as usize
    }

    /// The schema id that the creator set.
    #[must_use]
    pub fn schema(&self) -> u64 {
        self.segment.identity.schema
    }

    /// How sleepers are woken.
    #[must_use]
    pub fn wake_mode(&self) -> WakeMode {
        wake_mode(&self.segment)
    }

    /// Whether this handle created the segment.
    #[must_use]
    pub fn created(&self) -> bool {
        self.segment.created
    }

    /// The [`Options`] that differ from the properties of the existing segment; empty if this handle created it.
    #[must_use]
    pub fn differences(&self) -> &[Difference] {
        &self.differences
    }

    pub(crate) fn wait(&self) -> Wait {
        self.wait
    }

    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }

    pub(crate) fn ring(&self) -> Ring {
        let base = self.segment.mapping.base();
        // SAFETY: the header is at the start of the mapping and the ring HEADER bytes behind it. `Identity::check` has checked
        // that both fit, and shmat and mmap align to pages. The mapping lives as long as the segment, of which every user of the
        // ring holds a clone. No other reference to the ring is created.
        unsafe {
            let words = base.add(HEADER as usize).cast();
            Ring::new(self.segment.header(), words, self.capacity())
        }
    }
}

fn wake_mode(segment: &Segment) -> WakeMode {
    segment.identity.wake_mode().expect("a known wake mode was checked for at attach")
}

fn differences(segment: &Segment, options: &Options) -> Vec<Difference> {
    fn unless_equal<T: PartialEq>(
        requested: Option<T>,
        actual: T,
        difference: impl FnOnce(T, T) -> Difference,
    ) -> Option<Difference> {
        requested.filter(|requested| *requested != actual).map(|requested| difference(requested, actual))
    }
    let Segment { identity, permissions, .. } = segment;
    let capacity = options.rounded_capacity().and_then(Result::ok);
    [
        unless_equal(capacity, identity.capacity, |requested, actual| Difference::Capacity {
            requested,
            actual,
        }),
        unless_equal(options.mode, permissions.mode, |requested, actual| Difference::Mode {
            requested,
            actual,
        }),
        unless_equal(options.uid, permissions.uid, |requested, actual| Difference::Uid { requested, actual }),
        unless_equal(options.gid, permissions.gid, |requested, actual| Difference::Gid { requested, actual }),
        unless_equal(options.wake_mode, wake_mode(segment), |requested, actual| Difference::WakeMode {
            requested,
            actual,
        }),
        unless_equal(options.remove_on_close, identity.remove_on_close(), |requested, actual| {
            Difference::RemoveOnClose { requested, actual }
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Removes a pipe. A process that still has it open keeps its mapping, and gets [`Lost`](crate::Lost) when it waits or claims.
///
/// # Errors
/// [`SetupError::RoleTaken`] while the pipe has a producer or consumer, [`SetupError::NotFound`] if there is no pipe.
pub fn unlink<A>(address: A) -> Result<(), SetupError>
where
    A: TryInto<Address>,
    SetupError: From<A::Error>,
{
    backend::unlink(&address.try_into()?, false)
}

/// Removes a pipe even while its roles are held. Its producer and consumer continue on their mappings until one of them waits,
/// which returns [`Lost::Removed`](crate::Lost::Removed).
///
/// # Errors
/// [`SetupError::NotFound`] if there is no pipe; for the others see [`SetupError`].
pub fn unlink_force<A>(address: A) -> Result<(), SetupError>
where
    A: TryInto<Address>,
    SetupError: From<A::Error>,
{
    backend::unlink(&address.try_into()?, true)
}

impl Options {
    /// Creates a new pipe.
    ///
    /// # Errors
    /// [`SetupError::Exists`] if there is one already; for the others see [`SetupError`].
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
    /// [`SetupError::NotFound`] if there is none; for the others see [`SetupError`].
    pub fn open<A>(&self, address: A) -> Result<Pipe, SetupError>
    where
        A: TryInto<Address>,
        SetupError: From<A::Error>,
    {
        Pipe::attach(address.try_into()?, self, Existing::Required)
    }

    /// Opens a pipe, or creates it if there is none. Any number of processes may do this at the same time; all get the same pipe.
    /// An existing pipe keeps its properties; [`Pipe::differences`] lists those that differ from the options.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn open_or_create<A>(&self, address: A) -> Result<Pipe, SetupError>
    where
        A: TryInto<Address>,
        SetupError: From<A::Error>,
    {
        Pipe::attach(address.try_into()?, self, Existing::Welcome)
    }
}
