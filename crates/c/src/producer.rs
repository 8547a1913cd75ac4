//! The sending end.

use crate::border::{Handle, Misuse, SHORT, Timeout, at, bytes, result, with};
use crate::cancel::shmpipe_cancel_handle;
use crate::code::Failed;
use crate::end::{End, Ended, finish, peer_code};
use libc::iovec;
use shmpipe::{
    Batch, CloseError, Payload, Position, Producer, Reservation, Short, Tagged, Vectored, WithDescriptor,
};
use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::mem::transmute;

/// The sending end of a pipe. Closing it ends the stream for the consumer.
pub struct shmpipe_producer(pub(crate) End<Producer, Open>);

/// What is open in a producer. It borrows the producer, which lies beside it in the handle and does not move.
pub(crate) enum Open {
    Reservation(Reservation<'static>),
    Batch(Batch<'static>),
}

impl Handle for shmpipe_producer {
    const NAME: &'static str = "producer";

    fn poison(&self) {
        self.0.common.poison();
    }
}

impl Ended for shmpipe_producer {
    type Endpoint = Producer;
    type Open = Open;

    fn end(&self) -> &End<Producer, Open> {
        &self.0
    }

    fn into_end(self) -> End<Producer, Open> {
        self.0
    }

    fn abort(producer: Producer, code: u32) -> Result<(), CloseError> {
        producer.abort(code)
    }
}

impl shmpipe_producer {
    pub(crate) fn handle(producer: Producer) -> *mut Self {
        let pipe = producer.pipe().clone();
        Box::into_raw(Box::new(shmpipe_producer(End::new(producer, pipe))))
    }

    /// The producer, for a call of its own.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "as in End::idle")]
    fn idle(&self) -> Result<&mut Producer, Misuse> {
        // SAFETY: no function here uses the result after calling another one.
        unsafe { self.0.idle() }
    }

    #[allow(clippy::mut_from_ref, reason = "as in End::idle")]
    fn with_descriptor(&self) -> Result<Option<&mut WithDescriptor<Producer>>, Misuse> {
        // SAFETY: as above.
        unsafe { self.0.with_descriptor() }
    }

    #[allow(clippy::mut_from_ref, reason = "as in End::idle")]
    fn reservation(&self) -> Result<&mut Reservation<'static>, Misuse> {
        // SAFETY: as above.
        match unsafe { self.0.opened() }? {
            Open::Reservation(reservation) => Ok(reservation),
            Open::Batch(_) => Err(Misuse::State { why: "a batch is open in the handle, no reservation" }),
        }
    }

    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "as in End::idle")]
    fn batch(&self) -> Result<&mut Batch<'static>, Misuse> {
        // SAFETY: as above.
        match unsafe { self.0.opened() }? {
            Open::Batch(batch) => Ok(batch),
            Open::Reservation(_) => {
                Err(Misuse::State { why: "a reservation is open in the handle, no batch" })
            }
        }
    }

    /// Takes the reservation out, to end it.
    #[inline(always)]
    fn take_reservation(&self) -> Result<Reservation<'static>, Misuse> {
        self.reservation()?;
        match self.0.take_open()? {
            Open::Reservation(reservation) => Ok(reservation),
            Open::Batch(_) => unreachable!("it was a reservation"),
        }
    }

    /// Takes the batch out, to end it.
    #[inline(always)]
    fn take_batch(&self) -> Result<Batch<'static>, Misuse> {
        self.batch()?;
        match self.0.take_open()? {
            Open::Batch(batch) => Ok(batch),
            Open::Reservation(_) => unreachable!("it was a batch"),
        }
    }

    /// Sends now or not at all, also where the handle has a descriptor.
    fn send_now(&self, payload: impl Payload) -> Result<Position, Failed> {
        match self.with_descriptor()? {
            Some(producer) => Ok(producer.try_send(payload)?.ok_or(shmpipe::TrySendError::Full)?),
            None => Ok(self.idle()?.try_send(payload)?),
        }
    }

    fn send(&self, payload: impl Payload, timeout: Timeout) -> Result<Position, Failed> {
        Ok(match timeout {
            Timeout::Now => self.send_now(payload)?,
            Timeout::Forever => self.idle()?.send(payload)?,
            Timeout::For(duration) => self.idle()?.send_timeout(payload, duration)?,
        })
    }
}

/// Parts of one message. A few are put together without an allocation.
///
/// # Safety
/// The array and its parts are readable while `act` runs.
unsafe fn with_parts<T>(
    parts: *const iovec,
    count: usize,
    act: impl FnOnce(&[&[u8]]) -> Result<T, Failed>,
) -> Result<T, Failed> {
    const FEW: usize = 16;
    if count > 0 && parts.is_null() {
        return Err(Misuse::Null { argument: "parts" }.into());
    }
    // SAFETY: the caller's promise.
    let part = |index| unsafe {
        let iovec { iov_base, iov_len } = parts.add(index).read();
        bytes(iov_base, iov_len)
    };
    if count <= FEW {
        let mut few = [&[][..]; FEW];
        for (index, slot) in few[..count].iter_mut().enumerate() {
            *slot = part(index)?;
        }
        act(&few[..count])
    } else {
        act(&(0..count).map(part).collect::<Result<Vec<_>, _>>()?)
    }
}

/// # Safety
/// `to` is NULL or valid.
unsafe fn report(position: Position, to: *mut u64) {
    if !to.is_null() {
        // SAFETY: the caller's promise.
        unsafe { to.write(position.get()) };
    }
}

/// Sends a message; blocks while the pipe is full.
///
/// Copies the bytes. `data` may be NULL if `length` is 0. Makes a system call only to wake a sleeping consumer,
/// or to sleep.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_send(
    producer: *mut shmpipe_producer,
    data: *const c_void,
    length: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        match send_short(producer, data, length) {
            Short::Done => 0,
            Short::FollowUp => follow_up(producer, data, length),
            Short::Nothing => send_at_length(producer, data, length),
        }
    }
}

/// Sends a short message where that is known to be possible. It does not panic, so it catches nothing.
///
/// # Safety
/// The promises of every function.
#[inline(always)]
unsafe fn send_short(producer: *const shmpipe_producer, data: *const c_void, length: usize) -> Short {
    if producer.is_null() || data.is_null() || !SHORT.contains(&length) {
        return Short::Nothing;
    }
    // SAFETY: the caller's promise.
    let (producer, message) =
        unsafe { ((*producer).0.short(), std::slice::from_raw_parts(data.cast::<u8>(), length)) };
    producer.map_or(Short::Nothing, |producer| producer.send_short(message))
}

/// What remains of a short path: it wakes a sleeping consumer, or looks for space for more such messages. In its own function, so that
/// the short path saves few registers.
///
/// # Safety
/// The handle has just taken the short path, with these arguments.
#[cold]
#[inline(never)]
unsafe extern "C" fn follow_up(producer: *const shmpipe_producer, _: *const c_void, length: usize) -> c_int {
    // SAFETY: the caller's promise, so the endpoint is there.
    if let Some(producer) = unsafe { (*producer).0.short() } {
        producer.follow_up(length);
    }
    // As if it were not known, or the call would not be the last thing that the short path does.
    black_box(0)
}

#[inline(never)]
unsafe extern "C" fn send_at_length(
    producer: *const shmpipe_producer,
    data: *const c_void,
    length: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |producer| {
        // SAFETY: as above.
        let message = unsafe { bytes(data, length) }?;
        producer.idle()?.send(message)?;
        Ok(())
    })
}

/// Sends a message if there is space now; otherwise SHMPIPE_ERR_FULL.
///
/// Does not notice that the consumer died, nor that the pipe was removed: shmpipe_producer_check() does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_try_send(
    producer: *mut shmpipe_producer,
    data: *const c_void,
    length: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |producer| {
        // SAFETY: as above.
        let message = unsafe { bytes(data, length) }?;
        producer.send_now(message)?;
        Ok(())
    })
}

/// Sends a message; blocks for `timeout` nanoseconds at most while the pipe is full.
///
/// 0 does not wait, as shmpipe_try_send(). A negative timeout, SHMPIPE_FOREVER, never passes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_send_timeout(
    producer: *mut shmpipe_producer,
    data: *const c_void,
    length: usize,
    timeout: i64,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |producer| {
        // SAFETY: as above.
        let message = unsafe { bytes(data, length) }?;
        producer.send(message, Timeout::of(timeout))?;
        Ok(())
    })
}

/// Sends parts as one message, with a tag; blocks for `timeout` nanoseconds at most.
///
/// The tag is a number that the application defines; without one it is 0. `position`, unless it is NULL, gets the position of the
/// message, which the consumer gets too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_sendv(
    producer: *mut shmpipe_producer,
    parts: *const iovec,
    count: usize,
    tag: u32,
    timeout: i64,
    position: *mut u64,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |producer| unsafe {
        let sent = with_parts(parts, count, |parts| {
            producer.send(Tagged(tag, Vectored(parts)), Timeout::of(timeout))
        })?;
        report(sent, position);
        Ok(())
    })
}

/// Reserves space for a message of up to `length` bytes, to write it in place; blocks for `timeout` nanoseconds at most.
///
/// Nothing is sent before shmpipe_commit(). Until then no other call of the handle sends. `space`, unless it is NULL, gets the
/// address to write to; NULL without the promise of shmpipe_producer_trust_peer(): then shmpipe_reserved_write() writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_reserve(
    producer: *mut shmpipe_producer,
    length: usize,
    timeout: i64,
    space: *mut *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |handle| {
        let producer = handle.idle()?;
        let mut reservation = match Timeout::of(timeout) {
            Timeout::Now => producer.try_reserve(length)?,
            Timeout::Forever => producer.reserve(length)?,
            Timeout::For(duration) => producer.reserve_timeout(length, duration)?,
        };
        let at = match handle.0.is_trusted.get() {
            true => reservation.as_mut_ptr().cast(),
            false => std::ptr::null_mut(),
        };
        // SAFETY: the producer stays where it is until the reservation is gone: the handle is on the heap, and ends it first.
        let reservation = unsafe { transmute::<Reservation<'_>, Reservation<'static>>(reservation) };
        handle.0.open(Open::Reservation(reservation));
        if !space.is_null() {
            // SAFETY: the caller's promise.
            unsafe { space.write(at) };
        }
        Ok(())
    })
}

/// Copies bytes into the reservation at `offset`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_reserved_write(
    producer: *mut shmpipe_producer,
    offset: usize,
    data: *const c_void,
    length: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |producer| {
        // SAFETY: as above.
        let written = unsafe { bytes(data, length) }?;
        let reservation = producer.reservation()?;
        if offset.checked_add(written.len()).is_none_or(|end| end > reservation.len()) {
            return Err(Misuse::Argument { why: "the bytes reach beyond the reservation" }.into());
        }
        reservation.write(offset, written);
        Ok(())
    })
}

/// Sends the first `length` bytes of the reservation as the message, and ends it. Never blocks.
///
/// `position`, unless it is NULL, gets the position of the message.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_commit(
    producer: *mut shmpipe_producer,
    length: usize,
    tag: u32,
    position: *mut u64,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |producer| {
        if length > producer.reservation()?.len() {
            return Err(Misuse::Argument { why: "the length is more than was reserved" }.into());
        }
        let mut reservation = producer.take_reservation()?;
        reservation.tag(tag);
        // SAFETY: the caller's promise.
        unsafe { report(reservation.commit_len(length), position) };
        Ok(())
    })
}

/// Ends the reservation without a message.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_abandon(producer: *mut shmpipe_producer) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |producer| {
        drop(producer.take_reservation()?);
        Ok(())
    })
}

/// Begins a batch: messages that become visible all at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_batch_begin(producer: *mut shmpipe_producer) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |handle| {
        let batch = handle.idle()?.batch();
        // SAFETY: as in `shmpipe_reserve`.
        let batch = unsafe { transmute::<Batch<'_>, Batch<'static>>(batch) };
        handle.0.open(Open::Batch(batch));
        Ok(())
    })
}

/// Adds a message to the batch; blocks while the pipe is full.
///
/// A failure leaves the batch as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_batch_push(
    producer: *mut shmpipe_producer,
    data: *const c_void,
    length: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |producer| {
        // SAFETY: as above.
        let message = unsafe { bytes(data, length) }?;
        producer.batch()?.push(message)?;
        Ok(())
    })
}

/// Adds parts as one message to the batch, with a tag; blocks for `timeout` nanoseconds at most.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_batch_pushv(
    producer: *mut shmpipe_producer,
    parts: *const iovec,
    count: usize,
    tag: u32,
    timeout: i64,
    position: *mut u64,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |producer| unsafe {
        let batch = producer.batch()?;
        let pushed = with_parts(parts, count, |parts| {
            let message = Tagged(tag, Vectored(parts));
            Ok(match Timeout::of(timeout) {
                Timeout::Now => batch.try_push(message)?,
                Timeout::Forever => batch.push(message)?,
                Timeout::For(duration) => batch.push_timeout(message, duration)?,
            })
        })?;
        report(pushed, position);
        Ok(())
    })
}

/// Sends all messages of the batch at once, and ends it. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_batch_commit(producer: *mut shmpipe_producer) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |producer| {
        producer.take_batch()?.commit();
        Ok(())
    })
}

/// Ends the batch without a message.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_batch_abandon(producer: *mut shmpipe_producer) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |producer| {
        drop(producer.take_batch()?);
        Ok(())
    })
}

/// Promises that the consumer obeys the protocol, for the right to write messages in place.
///
/// The promise: every process that has the pipe open for writing keeps to the layout and the protocol. A consumer that breaks them
/// can then make this program behave in any way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_producer_trust_peer(producer: *mut shmpipe_producer) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |producer| {
        producer.0.look(|_| producer.0.is_trusted.set(true))?;
        Ok(())
    })
}

/// Blocks until the consumer has released everything that was sent, for `timeout` nanoseconds at most.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_flush(producer: *mut shmpipe_producer, timeout: i64) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |producer| Ok(producer.idle()?.flush(Timeout::of(timeout).deadline())?))
}

/// Reports the bytes of the ring that records can take now. A message takes 8 bytes and its length rounded up to 8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_free_space(producer: *mut shmpipe_producer, bytes: *mut u64) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |producer| {
        let to = result(bytes, "bytes")?;
        let free = producer.idle()?.free()?;
        // SAFETY: not NULL, so valid.
        unsafe { to.write(free) };
        Ok(())
    })
}

/// Counts messages that this producer has not sent and will not send, for those who watch the pipe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_count_dropped(producer: *mut shmpipe_producer, messages: u64) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |producer| {
        producer.idle()?.count_dropped(messages);
        Ok(())
    })
}

/// Reports the position of the next message, if it fits before the end of the ring.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_producer_position(
    producer: *const shmpipe_producer,
    position: *mut u64,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |producer| {
        let to = result(position, "position")?;
        // SAFETY: not NULL, so valid.
        unsafe { to.write(producer.0.look(Producer::position)?.get()) };
        Ok(())
    })
}

/// Reports what this side knows about the consumer: one of shmpipe_peer. At most one system call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_producer_peer(producer: *const shmpipe_producer, peer: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |producer| {
        let to = result(peer, "peer")?;
        // SAFETY: not NULL, so valid.
        unsafe { to.write(peer_code(producer.0.look(Producer::peer)?) as c_int) };
        Ok(())
    })
}

/// Blocks until a consumer attaches, for `timeout` nanoseconds at most.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_producer_wait_for_peer(
    producer: *mut shmpipe_producer,
    timeout: i64,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |producer| {
        Ok(producer.idle()?.wait_for_peer(Timeout::of(timeout).deadline())?)
    })
}

/// Checks that this side still has the pipe and its role, and that the consumer has not ended. Never blocks; two to four system
/// calls.
///
/// For a program that only uses calls that do not wait: those ask the kernel nothing. Call it now and then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_producer_check(producer: *mut shmpipe_producer) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |producer| Ok(producer.idle()?.check()?))
}

/// Makes a handle that cancels blocked calls of this producer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_producer_cancel_handle(
    producer: *const shmpipe_producer,
    cancel: *mut *mut shmpipe_cancel_handle,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |producer| {
        let to = result(cancel, "cancel")?;
        let cancel = producer.0.look(Producer::cancel_handle)?;
        // SAFETY: not NULL, so valid.
        unsafe { to.write(shmpipe_cancel_handle::handle(cancel)) };
        Ok(())
    })
}

/// Gives this producer a descriptor for epoll() and the like, and reports it.
///
/// It is readable when there may be space again. From then on only calls with a timeout of 0 send; one that returns
/// SHMPIPE_ERR_FULL makes the descriptor unreadable until there is space, or the consumer ends. The descriptor stays the library's:
/// do not read or close it. If this fails, the handle is as before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_producer_fd(producer: *mut shmpipe_producer, fd: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(producer) }, |producer| {
        let to = result(fd, "fd")?;
        let descriptor = producer.0.descriptor::<Failed>(Producer::try_with_descriptor)?;
        // SAFETY: not NULL, so valid.
        unsafe { to.write(descriptor) };
        Ok(())
    })
}

/// Closes the pipe for this side and gives the handle back, whatever this returns.
///
/// The consumer receives the rest, then SHMPIPE_ERR_CLOSED. What is open in the handle is abandoned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_producer_close(producer: *mut shmpipe_producer) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { finish(producer, Producer::close) }
}

/// Ends this side with an error, and gives the handle back, whatever this returns: what it sent is not all that it had to send.
///
/// The consumer receives the rest, then SHMPIPE_ERR_PEER_ABORTED with `code`, whose meaning the application defines.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_producer_abort(producer: *mut shmpipe_producer, code: u32) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { finish(producer, |producer| producer.abort(code)) }
}
