//! What producers and consumers have in common: what is open in a handle, and what a set and an event loop do with it.

use crate::border::{Handle, Misuse, at, hook, with, without_handle};
use crate::set::Membership;
use shmpipe::{CloseError, Peer, Pipe, SetupError, WithDescriptor};
use std::cell::{Cell, UnsafeCell};
use std::ffi::c_int;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a side knows about the other one.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum shmpipe_peer {
    /// Unknown, because the pipe was removed.
    SHMPIPE_PEER_UNKNOWN = 0,
    /// No process has claimed this role since the pipe was created.
    SHMPIPE_PEER_NEVER_CAME = 1,
    /// It is attached, or was a moment ago.
    SHMPIPE_PEER_OPEN = 2,
    /// It closed.
    SHMPIPE_PEER_CLOSED = 3,
    /// It aborted, and no successor has attached.
    SHMPIPE_PEER_ABORTED = 4,
    /// It died without closing, and no successor has attached.
    SHMPIPE_PEER_DIED = 5,
}

pub(crate) fn peer_code(peer: Peer) -> shmpipe_peer {
    match peer {
        Peer::NeverCame => shmpipe_peer::SHMPIPE_PEER_NEVER_CAME,
        Peer::Open => shmpipe_peer::SHMPIPE_PEER_OPEN,
        Peer::Closed => shmpipe_peer::SHMPIPE_PEER_CLOSED,
        Peer::Aborted { .. } => shmpipe_peer::SHMPIPE_PEER_ABORTED,
        Peer::Died => shmpipe_peer::SHMPIPE_PEER_DIED,
        _ => shmpipe_peer::SHMPIPE_PEER_UNKNOWN,
    }
}

/// Something is open in the handle: a reservation, a batch, or borrowed messages.
const OPEN: u8 = 1;
/// A set waits for the handle, and does not know yet that it is used.
const UNTOUCHED: u8 = 2;
/// The handle has a descriptor.
const DESCRIPTOR: u8 = 4;
/// A call has panicked.
const PANICKED: u8 = 8;
/// A descriptor is being made, or that has panicked.
const GONE: u8 = 16;

/// What no word of a process holds: that is 0, or odd.
const NEVER: u64 = 2;

/// An endpoint, and what is open in it.
///
/// What is open borrows the endpoint, and is stored beside it. So nothing here is ever borrowed as a whole: each part lies in a cell of
/// its own.
pub(crate) struct End<E, O> {
    pub(crate) common: Common,
    end: UnsafeCell<Kind<E>>,
    open: UnsafeCell<Option<O>>,
    pub(crate) is_trusted: Cell<bool>,
}

/// What a handle knows of itself, whatever its endpoint: all that a set asks.
pub(crate) struct Common {
    /// What makes a call leave the short path; see the constants.
    busy: Cell<u8>,
    /// A word of the process, which holds `number` unless it is a forked child.
    word: &'static AtomicU64,
    number: u64,
    /// What `word` holds if the short path may be taken: [`NEVER`] while `busy`.
    short: Cell<u64>,
    /// For the question whose handle it is, which is asked whatever is open.
    pub(crate) pipe: Pipe,
    member: UnsafeCell<Option<Box<Membership>>>,
}

enum Kind<E> {
    Plain(E),
    WithDescriptor(Box<WithDescriptor<E>>),
    /// While a descriptor is made, and after that has panicked.
    Gone,
}

impl<E, O> End<E, O> {
    pub(crate) fn new(endpoint: E, pipe: Pipe) -> Self {
        End {
            common: Common::new(pipe),
            end: UnsafeCell::new(Kind::Plain(endpoint)),
            open: UnsafeCell::new(None),
            is_trusted: Cell::new(false),
        }
    }

    /// The endpoint, for the short path of a call. `None` says nothing: `idle` says why.
    ///
    /// # Safety
    /// As for `idle`.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "the endpoint is in a cell")]
    pub(crate) unsafe fn short(&self) -> Option<&mut E> {
        // Relaxed: only this process writes the word, and nothing is read through it.
        if self.common.word.load(Ordering::Relaxed) != self.common.short.get() || hook::is_armed() {
            return None;
        }
        // SAFETY: as in `idle`.
        match unsafe { &mut *self.end.get() } {
            Kind::Plain(endpoint) => Some(endpoint),
            // SAFETY: the endpoint is elsewhere only with DESCRIPTOR, or with GONE.
            _ => unsafe { std::hint::unreachable_unchecked() },
        }
    }

    /// The endpoint, for a call of its own: nothing may be open in it.
    ///
    /// # Safety
    /// The result is not used after the next call of a function here.
    #[allow(clippy::mut_from_ref, reason = "the endpoint is in a cell")]
    pub(crate) unsafe fn idle(&self) -> Result<&mut E, Misuse> {
        self.common.check_unless(OPEN)?;
        // SAFETY: one thread uses the handle, by the caller's promise, and no other reference to the endpoint is in use: what is open
        // holds one, and then this one is not made.
        match unsafe { &mut *self.end.get() } {
            Kind::Plain(endpoint) => Ok(endpoint),
            Kind::WithDescriptor(_) => {
                Err(Misuse::State { why: "the handle has a descriptor; use calls with a timeout of 0" })
            }
            Kind::Gone => Err(Misuse::State { why: "the handle lost its endpoint; close it" }),
        }
    }

    /// The endpoint with its descriptor, if it has one. Nothing may be open.
    ///
    /// # Safety
    /// As for `idle`.
    #[allow(clippy::mut_from_ref, reason = "as above")]
    pub(crate) unsafe fn with_descriptor(&self) -> Result<Option<&mut WithDescriptor<E>>, Misuse> {
        if !self.common.is(DESCRIPTOR) {
            return Ok(None);
        }
        self.common.check_unless(OPEN)?;
        // SAFETY: nothing is open, so there is no other reference.
        match unsafe { &mut *self.end.get() } {
            Kind::WithDescriptor(endpoint) => Ok(Some(endpoint)),
            _ => Ok(None),
        }
    }

    /// Opens something in the handle, which borrows the endpoint from `idle` or `with_descriptor`.
    pub(crate) fn open(&self, open: O) {
        // SAFETY: one thread uses the handle, and nothing is open, so there is no reference.
        unsafe { *self.open.get() = Some(open) };
        self.common.set(OPEN);
    }

    /// What is open.
    ///
    /// # Safety
    /// As for `idle`.
    #[allow(clippy::mut_from_ref, reason = "as above")]
    pub(crate) unsafe fn opened(&self) -> Result<&mut O, Misuse> {
        self.common.check_unless(0)?;
        // SAFETY: one thread uses the handle, and no call keeps such a reference.
        let open = unsafe { &mut *self.open.get() };
        open.as_mut().ok_or(Misuse::State { why: "nothing of that kind is open in the handle" })
    }

    /// Takes out what is open, to end it.
    pub(crate) fn take_open(&self) -> Result<O, Misuse> {
        self.common.check_unless(0)?;
        self.common.clear(OPEN);
        // SAFETY: as in `opened`.
        let open = unsafe { (*self.open.get()).take() };
        open.ok_or(Misuse::State { why: "nothing of that kind is open in the handle" })
    }

    /// What the endpoint says of itself, with or without a descriptor. Nothing may be open.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&E) -> T) -> Result<T, Misuse> {
        self.common.check_unless(OPEN)?;
        // SAFETY: nothing is open, so there is no mutable reference.
        match unsafe { &*self.end.get() } {
            Kind::Plain(endpoint) => Ok(look(endpoint)),
            Kind::WithDescriptor(endpoint) => Ok(look(endpoint.get_ref())),
            Kind::Gone => Err(Misuse::State { why: "the handle lost its endpoint; close it" }),
        }
    }

    /// Gives the handle a descriptor, unless it has one. Returns it. If that fails, the handle is as before.
    pub(crate) fn descriptor<F: From<Misuse> + From<SetupError>>(
        &self,
        make: impl FnOnce(E) -> Result<WithDescriptor<E>, (E, SetupError)>,
    ) -> Result<c_int, F> {
        use std::os::fd::AsRawFd;
        self.common.check_unless(OPEN)?;
        if self.common.member().is_some() {
            return Err(
                Misuse::State { why: "a set waits for the handle; remove it from there first" }.into()
            );
        }
        // SAFETY: nothing is open, so there is no reference.
        let end = unsafe { &mut *self.end.get() };
        match end {
            Kind::WithDescriptor(endpoint) => return Ok(endpoint.as_raw_fd()),
            Kind::Gone => return Err(Misuse::State { why: "the handle lost its endpoint; close it" }.into()),
            Kind::Plain(_) => {}
        }
        let Kind::Plain(endpoint) = std::mem::replace(end, Kind::Gone) else { unreachable!() };
        self.common.set(GONE);
        let made = make(endpoint);
        self.common.clear(GONE);
        match made {
            Ok(made) => {
                let descriptor = made.as_raw_fd();
                *end = Kind::WithDescriptor(Box::new(made));
                self.common.set(DESCRIPTOR);
                Ok(descriptor)
            }
            Err((endpoint, error)) => {
                *end = Kind::Plain(endpoint);
                Err(error.into())
            }
        }
    }

    /// The cell of the endpoint, for a set.
    ///
    /// # Safety
    /// As for `idle`.
    #[allow(clippy::mut_from_ref, reason = "as above")]
    pub(crate) unsafe fn for_set(&self) -> &mut E {
        // SAFETY: the set looks at its members only while nothing is open in them.
        match unsafe { &mut *self.end.get() } {
            Kind::Plain(endpoint) => endpoint,
            _ => unreachable!("no handle with a descriptor joins a set, and no member gets one"),
        }
    }

    /// Ends what is open, as if it had not begun, and leaves the set, which knows the handle by its address.
    fn prepare_end(&self) {
        self.common.clear(OPEN);
        // SAFETY: one thread uses the handle, and no call keeps a reference to what is open.
        drop(unsafe { (*self.open.get()).take() });
        self.common.leave();
    }

    /// Takes the endpoint out to end it, after [`prepare_end`](Self::prepare_end). `None` if a panic has lost it.
    fn into_endpoint(self) -> Option<E> {
        match self.end.into_inner() {
            Kind::Plain(endpoint) => Some(endpoint),
            Kind::WithDescriptor(endpoint) => Some(endpoint.into_inner()),
            Kind::Gone => None,
        }
    }
}

impl Common {
    fn new(pipe: Pipe) -> Self {
        let (word, number) = pipe.process_word();
        let (busy, short) = (Cell::new(0), Cell::new(number));
        Common { busy, word, number, short, pipe, member: UnsafeCell::new(None) }
    }

    pub(crate) fn poison(&self) {
        self.set(PANICKED);
    }

    fn set(&self, bit: u8) {
        self.busy.set(self.busy.get() | bit);
        self.short.set(NEVER);
    }

    fn clear(&self, bit: u8) {
        self.busy.set(self.busy.get() & !bit);
        if self.busy.get() == 0 {
            self.short.set(self.number);
        }
    }

    fn is(&self, bits: u8) -> bool {
        self.busy.get() & bits != 0
    }

    pub(crate) fn is_inherited(&self) -> bool {
        self.pipe.is_inherited()
    }

    /// Whether something is open.
    pub(crate) fn is_open(&self) -> bool {
        self.is(OPEN)
    }

    /// Fails if the handle cannot be used, or is in a state that the call does not allow. Tells its set that it is used.
    fn check_unless(&self, refused: u8) -> Result<(), Misuse> {
        if self.is(PANICKED) {
            return Err(Misuse::Panicked);
        }
        if self.is_inherited() {
            return Err(Misuse::Forked);
        }
        if self.is(refused) {
            let why = "something is open in the handle: end it first, by commit and abandon, or release and requeue";
            return Err(Misuse::State { why });
        }
        if self.is(UNTOUCHED) {
            self.clear(UNTOUCHED);
            if let Some(member) = self.member() {
                member.touch();
            }
        }
        Ok(())
    }

    /// Fails if no set can wait for the handle, now or at all.
    pub(crate) fn check_for_set(&self) -> Result<(), Misuse> {
        self.check_unless(OPEN)?;
        if self.is(DESCRIPTOR) {
            return Err(Misuse::State { why: "the handle has a descriptor, so no set can wait for it" });
        }
        if self.is(GONE) {
            return Err(Misuse::State { why: "the handle lost its endpoint; close it" });
        }
        Ok(())
    }

    pub(crate) fn member(&self) -> Option<&Membership> {
        // SAFETY: one thread uses the handle and its set.
        unsafe { (*self.member.get()).as_deref() }
    }

    pub(crate) fn join(&self, member: Option<Box<Membership>>) {
        // SAFETY: as in `member`, and no reference is in use.
        unsafe { *self.member.get() = member };
        self.await_touch();
    }

    /// From now on, the first use of the handle notifies its set, if it is in one.
    pub(crate) fn await_touch(&self) {
        match self.member() {
            Some(_) => self.set(UNTOUCHED),
            None => self.clear(UNTOUCHED),
        }
    }

    /// Leaves the set, if it is in one.
    pub(crate) fn leave(&self) {
        if let Some(member) = self.member() {
            // A child has no part in the set of its parent.
            if !self.is_inherited() {
                member.leave();
            }
            self.join(None);
        }
    }
}

/// The handle of an endpoint.
pub(crate) trait Ended: Handle + Sized {
    type Endpoint;
    type Open;

    fn end(&self) -> &End<Self::Endpoint, Self::Open>;

    fn into_end(self) -> End<Self::Endpoint, Self::Open>;

    fn abort(endpoint: Self::Endpoint, code: u32) -> Result<(), CloseError>;
}

/// Ends an endpoint as `end` does, or as a Rust program that panics if a call has, and gives the handle back.
///
/// # Safety
/// The pointer is NULL, or a handle that is given back.
pub(crate) unsafe fn finish<H: Ended>(
    handle: *mut H,
    end: impl FnOnce(H::Endpoint) -> Result<(), CloseError>,
) -> c_int {
    // SAFETY: the caller's promise.
    let given = unsafe { at(handle) };
    let prepared = with(given, |handle| {
        handle.end().prepare_end();
        Ok(())
    });
    let Some(given) = given else { return prepared };
    if given.end().common.is(OPEN) || given.end().common.member().is_some() {
        // That panicked on the way. What still refers to the handle keeps it.
        return prepared;
    }
    let has_panicked = given.end().common.is(PANICKED);
    let ended = without_handle(|| {
        // SAFETY: the caller's promise, and nothing refers to the handle.
        let handle = unsafe { Box::from_raw(handle) };
        if let Some(endpoint) = handle.into_end().into_endpoint() {
            if has_panicked { H::abort(endpoint, shmpipe::PANICKED) } else { end(endpoint) }?;
        }
        Ok(())
    });
    if prepared == 0 { ended } else { prepared }
}
