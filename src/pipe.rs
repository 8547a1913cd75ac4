//! An open pipe, whose two roles can be claimed.

use crate::address::Address;
use crate::backend;
use crate::error::SetupError;
use crate::options::{Difference, Existing, Options, Wait};
use crate::position::{Position, SegmentId};
use crate::protocol::latency::Sampling;
use crate::protocol::record;
use crate::protocol::ring::Ring;
use crate::protocol::wakeup::WakeMode;
use crate::segment::identity::Way;
use crate::segment::{Segment, ring};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// An open pipe: a handle of the segment, without a role yet.
///
/// A pipe has one direction, from its [`Producer`](crate::Producer) to its [`Consumer`](crate::Consumer), or two, if it was created
/// with [`Options::duplex`]; then a process claims a side of it: see [`Duplex`](crate::Duplex).
///
/// It is cheap to clone and can be shared between threads. The segment stays mapped until the last clone and the last producer or
/// consumer are dropped.
///
/// ```
/// let pipe = shmpipe::Pipe::open_or_create("memfd")?;
/// let mut producer = pipe.producer()?;
/// let mut consumer = pipe.consumer()?; // usually in another process
/// producer.send(b"hello")?;
/// assert_eq!(consumer.recv()?.to_vec(), b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # After a fork
/// A forked child does not inherit the mapping. There, dropping a handle, producer, consumer, message, drain, batch or reservation
/// does nothing, and claiming a role fails. Nothing else may be done with them: it would access memory that is not mapped, or that has another use by then. To use
/// the pipe, the child calls [`reopen`](Pipe::reopen).
#[derive(Clone, Debug)]
pub struct Pipe {
    segment: Arc<Segment>,
    options: Options,
    wait: Wait,
    differences: Vec<Difference>,
}

impl Pipe {
    /// Opens a pipe with the default [`Options`], or creates it if there is none.
    ///
    /// ```
    /// let pipe = shmpipe::Pipe::open_or_create("memfd")?;
    /// assert!(pipe.created());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The [`SetupError`]s of [`Options::open_or_create`].
    pub fn open_or_create<A>(address: A) -> Result<Pipe, SetupError>
    where
        A: TryInto<Address>,
        SetupError: From<A::Error>,
    {
        Options::new().open_or_create(address)
    }

    /// Opens an existing pipe with the default [`Options`].
    ///
    /// ```
    /// use shmpipe::Pipe;
    ///
    /// let creator = Pipe::open_or_create("memfd")?;
    /// let pipe = Pipe::open(creator.address())?;
    /// assert_eq!(pipe.id(), creator.id());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The [`SetupError`]s of [`Options::open`].
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
        let segment = match backend::attach(&address, options, existing) {
            Err(SetupError::Exists { .. } | SetupError::Incompatible(_))
                if unlink_leftover(&address).unwrap_or(false) =>
            {
                backend::attach(&address, options, existing)?
            }
            attached => attached?,
        };
        if segment.created || !segment.is_left_over() {
            return Ok(Self::of(segment, options));
        }
        segment.remove_leftover();
        // Once: it stays if another process has it open by now.
        Ok(Self::of(backend::attach(&address, options, existing)?, options))
    }

    /// Whether the segment has a word for the messages that the producer drops.
    pub(crate) fn counts_dropped(&self) -> bool {
        self.segment.identity.counts_dropped()
    }

    /// Which messages are sampled for their latency.
    pub(crate) fn sampling(&self) -> Sampling {
        self.segment.identity.sampling()
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

    /// Opens the same segment once more, with its own mapping and claims.
    ///
    /// A forked child calls this to use the pipe, since it inherits neither.
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
    /// [`SetupError::Lost`] if the pipe was removed, and the errors of
    /// [`Options::open`].
    pub fn reopen(&self) -> Result<Pipe, SetupError> {
        Ok(Pipe::of(self.segment.reopen(&self.options)?, &self.options))
    }

    /// Returns whether this handle was opened by another process, of which this one is a forked child.
    ///
    /// Then it leads nowhere, as do producers and consumers that were claimed through it: see [After a fork](#after-a-fork). Costs
    /// one load.
    ///
    /// ```
    /// let pipe = shmpipe::Options::new().create("memfd")?;
    /// assert!(!pipe.is_inherited());
    /// // SAFETY: the child does nothing but exit.
    /// match unsafe { libc::fork() } {
    ///     0 => unsafe { libc::_exit(pipe.is_inherited().into()) },
    ///     child => {
    ///         let mut status = 0;
    ///         // SAFETY: the pointer is to an int.
    ///         unsafe { libc::waitpid(child, &raw mut status, 0) };
    ///         assert_eq!(libc::WEXITSTATUS(status), 1);
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn is_inherited(&self) -> bool {
        !self.segment.mapping.process().is_surely_current() && self.is_inherited_after_all()
    }

    /// A word and the number that it holds in the process that opened the pipe, and only there. Some kernels do not tell a child: there
    /// it never holds the number. For a short path: see [`is_inherited`](Self::is_inherited).
    #[doc(hidden)]
    #[must_use]
    pub fn process_word(&self) -> (&'static AtomicU64, u64) {
        self.segment.mapping.process().word_and_number()
    }

    #[cold]
    #[inline(never)]
    fn is_inherited_after_all(&self) -> bool {
        !self.segment.mapping.process().is_current()
    }

    /// Returns an address by which another process can open this pipe.
    ///
    /// It is the address that this pipe was opened by, or `sysv:id:N` for `sysv:private`. The address of a memfd, `fd:N`, is
    /// valid in this process and in those that inherit the descriptor.
    ///
    /// ```
    /// let pipe = shmpipe::Pipe::open_or_create("memfd")?;
    /// assert!(pipe.address().to_string().starts_with("fd:"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.segment.address
    }

    /// Returns the random number that distinguishes this segment from every other.
    #[must_use]
    pub fn id(&self) -> SegmentId {
        SegmentId(self.segment.identity.segment_id)
    }

    /// Returns the bytes of ring data, in each direction.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.segment.identity.capacity
    }

    /// Returns the bytes of the longest message: half the capacity, less 8.
    #[must_use]
    pub fn max_len(&self) -> usize {
        record::max_length(self.capacity()) as usize
    }

    /// Returns where the record ends of a message of this length that is sent at this position: the
    /// [`position`](crate::Producer::position) of the producer after that.
    ///
    /// A program that sends the same messages again, after it was killed, finds with it how many of them are in the pipe already,
    /// if it was the only one that has sent since the pipe was created. Not for longer messages than
    /// [`max_len`](Self::max_len), and not for those that were committed shorter than reserved. Pure arithmetic.
    ///
    /// ```
    /// use shmpipe::Position;
    ///
    /// let pipe = shmpipe::Options::new().capacity(4096).create("memfd")?;
    /// let mut producer = pipe.producer()?;
    /// let lines = ["one", "two", "three"];
    /// producer.send(lines[0])?;
    /// drop(producer);
    ///
    /// let mut producer = pipe.producer()?;
    /// let mut at = Position::default();
    /// for line in lines {
    ///     if at == producer.position() {
    ///         producer.send(line)?;
    ///     }
    ///     at = pipe.position_after(at, line.len());
    /// }
    /// assert_eq!(at, producer.position());
    /// assert_eq!(shmpipe::inspect(pipe.address())?.unread(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn position_after(&self, at: Position, length: usize) -> Position {
        let Position(at) = at;
        let to_end = self.capacity() - at % self.capacity();
        let size = record::size(length as u64);
        Position(at.wrapping_add(size + if size > to_end { to_end } else { 0 }))
    }

    /// Returns whether the pipe has two directions: see [`Options::duplex`].
    #[must_use]
    pub fn is_duplex(&self) -> bool {
        self.segment.identity.is_duplex()
    }

    /// Returns the schema id that the creator set.
    #[must_use]
    pub fn schema(&self) -> u64 {
        self.segment.identity.schema
    }

    /// Returns how sleepers are woken.
    #[must_use]
    pub fn wake_mode(&self) -> WakeMode {
        wake_mode(&self.segment)
    }

    /// Returns whether this handle created the segment.
    #[must_use]
    pub fn created(&self) -> bool {
        self.segment.created
    }

    /// Returns the [`Options`] that differ from the properties of the existing segment; empty if this handle created it.
    ///
    /// ```
    /// # use shmpipe::{Difference, Options};
    /// # let pipe = Options::new().capacity(4096).create("memfd")?;
    /// # let address = pipe.address();
    /// let pipe = Options::new().capacity(8192).open_or_create(address)?;
    /// for difference in pipe.differences() {
    ///     eprintln!("{difference}");
    /// }
    /// # assert_eq!(pipe.differences().len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn differences(&self) -> &[Difference] {
        &self.differences
    }

    pub(crate) fn wait(&self) -> Wait {
        self.wait
    }

    pub(crate) fn keeps_unread_on_panic(&self) -> bool {
        self.options.keep_unread_on_panic
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// The ring of a direction that the pipe has.
    pub(crate) fn ring(&self, way: Way) -> Ring {
        let Segment { mapping, identity, .. } = &*self.segment;
        // SAFETY: the mapping lives as long as the segment, of which every user of the ring holds a clone. It is writable.
        unsafe { ring(mapping, identity, way) }
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
        unless_equal(options.remove_leftover, identity.remove_leftover(), |requested, actual| {
            Difference::RemoveLeftover { requested, actual }
        }),
        unless_equal(options.measure_latency, identity.sampling().is_on(), |requested, actual| {
            Difference::MeasureLatency { requested, actual }
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Removes a pipe that has neither producer nor consumer.
///
/// A process that still has it open keeps its mapping, and gets [`Lost`](crate::Lost) when it waits or claims. Waits some seconds
/// for a process that is opening, creating or removing the pipe, then fails with [`SetupError::Busy`].
///
/// ```
/// use shmpipe::{Options, Pipe, SetupError, unlink};
///
/// let pipe = Options::new().create("sysv:private")?;
/// unlink(pipe.address())?;
/// assert!(matches!(Pipe::open(pipe.address()), Err(SetupError::NotFound { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// * [`SetupError::Address`] if the address does not parse.
/// * [`SetupError::NotFound`] if there is no pipe.
/// * [`SetupError::RoleTaken`] while the pipe has a producer or consumer.
/// * [`Unsupported::Remove`](crate::error::Unsupported::Remove) for an address without a name to remove.
/// * [`Foreign`](SetupError::Foreign), [`Incompatible`](SetupError::Incompatible) or [`Damaged`](SetupError::Damaged) if the
///   object there is not a pipe that this version can read; it stays.
/// * [`PermissionDenied`](SetupError::PermissionDenied), [`File`](SetupError::File), [`Busy`](SetupError::Busy) or
///   [`Os`](SetupError::Os).
pub fn unlink<A>(address: A) -> Result<(), SetupError>
where
    A: TryInto<Address>,
    SetupError: From<A::Error>,
{
    backend::unlink(&address.try_into()?, false)
}

/// Removes a pipe even while its roles are held, or if it is damaged.
///
/// Its producer and consumer continue on their mappings until one of them waits, which returns
/// [`Lost::Removed`](crate::Lost::Removed).
///
/// ```
/// use shmpipe::{Lost, Options, RecvError, unlink_force};
///
/// let pipe = Options::new().create("sysv:private")?;
/// let mut consumer = pipe.consumer()?;
/// unlink_force(pipe.address())?;
/// assert!(matches!(consumer.recv(), Err(RecvError::Lost(Lost::Removed))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Those of [`unlink`], except [`RoleTaken`](SetupError::RoleTaken). Of
/// [`Incompatible`](SetupError::Incompatible) only [`Mismatch::Name`](crate::error::Mismatch::Name) remains, of
/// [`Damaged`](SetupError::Damaged) only [`Damage::Unbacked`](crate::error::Damage::Unbacked).
pub fn unlink_force<A>(address: A) -> Result<(), SetupError>
where
    A: TryInto<Address>,
    SetupError: From<A::Error>,
{
    backend::unlink(&address.try_into()?, true)
}

/// Removes a pipe that was created with [`Options::remove_leftover`] and is left over. Returns whether it did.
///
/// Any other pipe stays as it is. Costs some system calls. A pipe of another user, unless that is root, is refused.
///
/// ```
/// use shmpipe::{Options, unlink_leftover};
///
/// # let address = format!("unlink-leftover-doc-{}", std::process::id());
/// let pipe = Options::new().remove_leftover(true).create(&address)?;
/// let mut consumer = pipe.consumer()?;
/// pipe.producer()?.send(b"unread")?;
/// drop(pipe);
/// assert!(!unlink_leftover(&address)?);
/// assert_eq!(consumer.recv()?.to_vec(), b"unread");
/// assert!(consumer.recv().is_err()); // hears that the producer closed
/// drop(consumer);
/// assert!(unlink_leftover(&address)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Those of [`inspect`](crate::inspect), and those of [`Options::open`] except for what the options request.
pub fn unlink_leftover<A>(address: A) -> Result<bool, SetupError>
where
    A: TryInto<Address>,
    SetupError: From<A::Error>,
{
    let address = address.try_into()?;
    let view = backend::view(&address, Duration::ZERO)?;
    let (identity, permissions) = (view.identity, view.permissions);
    // Not opened then: that would count as a use of it.
    if !identity.remove_leftover() || view.is_open {
        return Ok(false);
    }
    drop(view);
    let options = Options {
        duplex: identity.is_duplex(),
        schema: identity.schema,
        mode: Some(permissions.mode),
        prefault: Some(false),
        allow_rmid_forced: true,
        ..Options::default()
    };
    let segment = backend::attach(&address, &options, Existing::Required)?;
    if segment.identity.segment_id != identity.segment_id || !segment.is_left_over() {
        return Ok(false);
    }
    segment.remove_leftover();
    match backend::view(&address, Duration::ZERO) {
        Err(SetupError::NotFound { .. }) => Ok(true),
        found => Ok(found?.identity.segment_id != identity.segment_id),
    }
}

impl Options {
    /// Creates a new pipe.
    ///
    /// ```
    /// let pipe = shmpipe::Options::new().capacity(1 << 16).create("memfd")?;
    /// assert_eq!(pipe.capacity(), 65536);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// * [`SetupError::Address`] if the address does not parse.
    /// * [`SetupError::Exists`] if there is a pipe already.
    /// * [`Unsupported::Create`](crate::error::Unsupported::Create) if the address names existing pipes only,
    ///   [`Unsupported::Block`](crate::error::Unsupported::Block) for [`Wait::Block`] with [`WakeMode::Never`].
    /// * [`Limit`](SetupError::Limit) if memory, space or a kernel limit falls short, [`Kernel`](SetupError::Kernel) if the
    ///   kernel lacks a feature, [`File`](SetupError::File) if the directory or its file system cannot hold a pipe.
    /// * [`Foreign`](SetupError::Foreign), [`Incompatible`](SetupError::Incompatible), [`Damaged`](SetupError::Damaged) or
    ///   [`Untrusted`](SetupError::Untrusted) if something other than a usable pipe is at the address.
    /// * [`PermissionDenied`](SetupError::PermissionDenied), [`Busy`](SetupError::Busy) or [`Os`](SetupError::Os).
    pub fn create<A>(&self, address: A) -> Result<Pipe, SetupError>
    where
        A: TryInto<Address>,
        SetupError: From<A::Error>,
    {
        Pipe::attach(address.try_into()?, self, Existing::Refused)
    }

    /// Opens an existing pipe.
    ///
    /// Waits some seconds for a process that is creating or removing it, then fails with [`SetupError::Busy`].
    ///
    /// ```
    /// use shmpipe::Options;
    ///
    /// let creator = Options::new().schema(7).create("memfd")?;
    /// let pipe = Options::new().schema(7).open(creator.address())?;
    /// assert!(!pipe.created());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// * [`SetupError::Address`] if the address does not parse.
    /// * [`SetupError::NotFound`] if there is no pipe.
    /// * [`Unsupported::Open`](crate::error::Unsupported::Open) if the address always creates a pipe,
    ///   [`Unsupported::Block`](crate::error::Unsupported::Block) for [`Wait::Block`] on a pipe with [`WakeMode::Never`].
    /// * [`Untrusted`](SetupError::Untrusted) if an untrusted user could change the pipe.
    /// * [`Foreign`](SetupError::Foreign), [`Incompatible`](SetupError::Incompatible) or [`Damaged`](SetupError::Damaged) if the
    ///   object there is not a pipe that this version and these options can use.
    /// * [`Limit`](SetupError::Limit) if an option needs more memory or space than there is, [`Kernel`](SetupError::Kernel) if
    ///   the kernel lacks a feature, [`File`](SetupError::File) if the file or its file system cannot hold a pipe.
    /// * [`PermissionDenied`](SetupError::PermissionDenied), [`Busy`](SetupError::Busy) or [`Os`](SetupError::Os).
    pub fn open<A>(&self, address: A) -> Result<Pipe, SetupError>
    where
        A: TryInto<Address>,
        SetupError: From<A::Error>,
    {
        Pipe::attach(address.try_into()?, self, Existing::Required)
    }

    /// Opens a pipe, or creates it if there is none.
    ///
    /// Any number of processes may do this at the same time; all get the same pipe. An existing pipe keeps its properties;
    /// [`Pipe::differences`] lists those that differ from the options. A pipe whose creator died halfway is recreated.
    ///
    /// ```
    /// use shmpipe::Options;
    ///
    /// let mut producer = Options::new().capacity(1 << 22).open_or_create("memfd")?.producer()?;
    /// producer.send(b"hello")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`open`](Options::open) and [`create`](Options::create), except [`Exists`](SetupError::Exists) and
    /// [`Unsupported`](SetupError::Unsupported) by the address. [`NotFound`](SetupError::NotFound) remains only for an address
    /// that names existing pipes: `sysv:id:N`, `fd:N` and `memfd:PATH`.
    pub fn open_or_create<A>(&self, address: A) -> Result<Pipe, SetupError>
    where
        A: TryInto<Address>,
        SetupError: From<A::Error>,
    {
        Pipe::attach(address.try_into()?, self, Existing::Welcome)
    }
}
