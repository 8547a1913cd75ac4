//! The receiving end.

use crate::border::{Handle, Misuse, SHORT, Timeout, at, buffer, result, with};
use crate::cancel::shmpipe_cancel_handle;
use crate::code::{Done, Failed};
use crate::end::{End, Ended, finish, peer_code};
use shmpipe::{CloseError, Consumer, Drain, Message, Record, Short, TryRecvError, WithDescriptor, WrongSize};
use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::mem::{ManuallyDrop, transmute};
use std::ptr::null;

/// The receiving end of a pipe. Closing it ends the stream for the producer.
pub struct shmpipe_consumer(pub(crate) End<Consumer, Borrowed>);

/// Borrowed messages. They borrow the consumer, which lies beside them in the handle and does not move. Dropped, they stay in the pipe.
pub(crate) struct Borrowed {
    /// The last of them.
    last: Option<Record<'static>>,
    drain: ManuallyDrop<Drain<'static>>,
}

/// A message received.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmpipe_message {
    /// Where its bytes are: in the caller's buffer, or in the ring. NULL for a borrowed message without the promise.
    pub data: *const c_void,
    /// Bytes of the message.
    pub length: usize,
    /// Its position in the stream. With the id of the pipe it identifies the message for ever, also if it is received twice.
    pub position: u64,
    /// The tag that the producer set; 0 without one.
    pub tag: u32,
}

impl Handle for shmpipe_consumer {
    const NAME: &'static str = "consumer";

    fn poison(&self) {
        self.0.common.poison();
    }
}

impl Ended for shmpipe_consumer {
    type Endpoint = Consumer;
    type Open = Borrowed;

    fn end(&self) -> &End<Consumer, Borrowed> {
        &self.0
    }

    fn into_end(self) -> End<Consumer, Borrowed> {
        self.0
    }

    fn abort(consumer: Consumer, code: u32) -> Result<(), CloseError> {
        consumer.abort(code)
    }
}

impl shmpipe_consumer {
    pub(crate) fn handle(consumer: Consumer) -> *mut Self {
        let pipe = consumer.pipe().clone();
        Box::into_raw(Box::new(shmpipe_consumer(End::new(consumer, pipe))))
    }

    /// The consumer, for a call of its own.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "as in End::idle")]
    fn idle(&self) -> Result<&mut Consumer, Misuse> {
        // SAFETY: no function here uses the result after calling another one.
        unsafe { self.0.idle() }
    }

    #[allow(clippy::mut_from_ref, reason = "as in End::idle")]
    fn with_descriptor(&self) -> Result<Option<&mut WithDescriptor<Consumer>>, Misuse> {
        // SAFETY: as above.
        unsafe { self.0.with_descriptor() }
    }

    /// The next message, now or not at all, also where the handle has a descriptor.
    fn recv_now(&self) -> Result<Message<'_>, Failed> {
        match self.with_descriptor()? {
            Some(consumer) => Ok(consumer.try_recv()?.ok_or(TryRecvError::Empty)?),
            None => Ok(self.idle()?.try_recv()?),
        }
    }

    fn recv(&self, timeout: Timeout) -> Result<Message<'_>, Failed> {
        Ok(match timeout {
            Timeout::Now => self.recv_now()?,
            Timeout::Forever => self.idle()?.recv()?,
            Timeout::For(duration) => self.idle()?.recv_timeout(duration)?,
        })
    }

    /// What is there now, up to `limit` messages.
    fn drain(&self, limit: usize) -> Result<Drain<'_>, Misuse> {
        Ok(match self.with_descriptor()? {
            Some(consumer) => consumer.drain(limit),
            None => self.idle()?.drain(limit),
        })
    }

    /// The next message, as one more that is borrowed, if there is one now. The drain, if it is open, has another one.
    ///
    /// # Safety
    /// `message` is NULL or valid.
    unsafe fn borrow_one(&self, message: *mut shmpipe_message) -> Result<bool, Failed> {
        if !self.0.common.is_open() {
            // SAFETY: the consumer stays where it is until the drain is gone: the handle is on the heap, and ends it first.
            let drain = unsafe { transmute::<Drain<'_>, Drain<'static>>(self.drain(usize::MAX)?) };
            self.0.open(Borrowed { last: None, drain: ManuallyDrop::new(drain) });
        }
        // SAFETY: no other reference to what is open is in use.
        let Borrowed { last, drain } = unsafe { self.0.opened() }?;
        let next = drain.next();
        let is_none = !matches!(next, Ok(Some(_)));
        let taken = next.map(|next| {
            next.map(|record| {
                let data = if self.0.is_trusted.get() { record.as_ptr().cast() } else { null() };
                // SAFETY: the record stays in the ring until the drain is gone, and with the drain it goes.
                *last = Some(unsafe { transmute::<Record<'_>, Record<'static>>(record) });
                last.as_ref().map(|record| describe(record, data))
            })
        });
        if is_none && drain.taken() == 0 {
            // Nothing is borrowed.
            self.0.take_open()?;
        }
        let Some(described) = taken?.flatten() else { return Ok(false) };
        if !message.is_null() {
            // SAFETY: the caller's promise.
            unsafe { message.write(described) };
        }
        Ok(true)
    }
}

#[inline(always)]
fn describe(record: &Record<'_>, data: *const c_void) -> shmpipe_message {
    shmpipe_message { data, length: record.len(), position: record.position().get(), tag: record.tag() }
}

/// Copies a message out and releases it. One that does not fit stays in the pipe.
///
/// # Safety
/// `to` is NULL or valid.
#[inline(always)]
unsafe fn take(message: Message<'_>, buffer: &mut [u8], to: *mut shmpipe_message) -> Done {
    if !to.is_null() {
        // SAFETY: the caller's promise.
        unsafe { to.write(describe(&message, buffer.as_ptr().cast())) };
    }
    match message.copy_to(buffer) {
        Ok(_) => {
            message.release();
            Ok(())
        }
        Err(wrong) => too_small(message, wrong),
    }
}

#[cold]
#[inline(never)]
fn too_small(message: Message<'_>, wrong: WrongSize) -> Done {
    message.requeue();
    Err(wrong.into())
}

/// Receives the next message into a buffer; blocks while the pipe is empty.
///
/// `message`, unless it is NULL, gets its length, tag and position. If the buffer is too small, SHMPIPE_ERR_TOO_SMALL: the message
/// stays in the pipe, and `message` says how long it is. Makes a system call only to wake a sleeping
/// producer, or to sleep.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_recv(
    consumer: *mut shmpipe_consumer,
    buffer: *mut c_void,
    capacity: usize,
    message: *mut shmpipe_message,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        match recv_short(consumer, buffer, capacity, message) {
            Short::Done => 0,
            Short::FollowUp => follow_up(consumer),
            Short::Nothing => recv_at_length(consumer, buffer, capacity, message),
        }
    }
}

/// Receives a short message that is there. It does not panic, so it catches nothing.
///
/// # Safety
/// The promises of every function.
#[inline(always)]
unsafe fn recv_short(
    consumer: *const shmpipe_consumer,
    buffer: *mut c_void,
    capacity: usize,
    to: *mut shmpipe_message,
) -> Short {
    if consumer.is_null() || buffer.is_null() {
        return Short::Nothing;
    }
    // SAFETY: the caller's promise.
    let Some(consumer) = (unsafe { (*consumer).0.short() }) else {
        return Short::Nothing;
    };
    consumer.recv_short(|record| {
        if !SHORT.contains(&record.len()) {
            return false;
        }
        if !to.is_null() {
            // SAFETY: the caller's promise.
            unsafe { to.write(describe(record, buffer)) };
        }
        if record.len() > capacity {
            return false;
        }
        // SAFETY: the caller's promise; the buffer has `capacity` bytes, and the message no more.
        record.copy_to(unsafe { std::slice::from_raw_parts_mut(buffer.cast(), record.len()) }).is_ok()
    })
}

/// What remains of a short path: it wakes a sleeping producer. In its own function, so that the short path saves few registers.
///
/// # Safety
/// The handle has just taken the short path.
#[cold]
#[inline(never)]
unsafe extern "C" fn follow_up(consumer: *const shmpipe_consumer) -> c_int {
    // SAFETY: the caller's promise, so the endpoint is there.
    if let Some(consumer) = unsafe { (*consumer).0.short() } {
        consumer.follow_up();
    }
    // As if it were not known, or the call would not be the last thing that the short path does.
    black_box(0)
}

#[inline(never)]
unsafe extern "C" fn recv_at_length(
    consumer: *const shmpipe_consumer,
    buffer: *mut c_void,
    capacity: usize,
    message: *mut shmpipe_message,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(consumer) }, |consumer| unsafe {
        let buffer = self::buffer(buffer, capacity)?;
        take(consumer.idle()?.recv()?, buffer, message)
    })
}

/// Receives the next message into a buffer if there is one now; otherwise SHMPIPE_ERR_EMPTY.
///
/// Does not notice that the producer died, nor that the pipe was removed: shmpipe_consumer_check() does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_try_recv(
    consumer: *mut shmpipe_consumer,
    buffer: *mut c_void,
    capacity: usize,
    message: *mut shmpipe_message,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(consumer) }, |consumer| unsafe {
        let buffer = self::buffer(buffer, capacity)?;
        take(consumer.recv_now()?, buffer, message)
    })
}

/// Receives the next message into a buffer; blocks for `timeout` nanoseconds at most while the pipe is empty.
///
/// 0 does not wait, as shmpipe_try_recv(). A negative timeout, SHMPIPE_FOREVER, never passes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_recv_timeout(
    consumer: *mut shmpipe_consumer,
    buffer: *mut c_void,
    capacity: usize,
    timeout: i64,
    message: *mut shmpipe_message,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(consumer) }, |consumer| unsafe {
        let buffer = self::buffer(buffer, capacity)?;
        take(consumer.recv(Timeout::of(timeout))?, buffer, message)
    })
}

/// Receives up to `most` messages into one buffer, and releases them together.
///
/// Blocks for `timeout` nanoseconds at most for the first, and takes what has arrived by then and fits. Each message begins at a
/// multiple of 8 bytes from the start of the buffer. `count` gets how many there are: never 0 on success. If not even the first fits,
/// SHMPIPE_ERR_TOO_SMALL: it stays in the pipe, and `messages[0]` says how long it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_recv_batch(
    consumer: *mut shmpipe_consumer,
    buffer: *mut c_void,
    capacity: usize,
    messages: *mut shmpipe_message,
    most: usize,
    timeout: i64,
    count: *mut usize,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(consumer) }, |consumer| {
        // SAFETY: as above.
        let memory = unsafe { self::buffer(buffer, capacity) }?;
        let (messages, count) = (result(messages, "messages")?, result(count, "count")?);
        if most == 0 {
            return Err(Misuse::Argument { why: "no message is to be received: most is 0" }.into());
        }
        consumer.recv(Timeout::of(timeout))?.requeue();
        let (mut taken, mut used, mut wrong) = (0, 0, None);
        let mut drain = consumer.drain(most)?;
        loop {
            let record = match drain.next() {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(corruption) if taken == 0 => {
                    drain.requeue();
                    return Err(corruption.into());
                }
                // The next call says so.
                Err(_) => break,
            };
            let start = memory.as_ptr().wrapping_add(used.min(capacity));
            let to = memory.get_mut(used..).unwrap_or_default();
            let described = describe(&record, start.cast());
            match record.copy_to(to) {
                Err(error) => {
                    wrong = Some((described, error));
                    break;
                }
                Ok(length) => {
                    // SAFETY: the caller's promise: there are `most` of them.
                    unsafe { messages.add(taken).write(described) };
                    taken += 1;
                    used = (used + length).next_multiple_of(8);
                }
            }
        }
        let Some((described, wrong)) = wrong else {
            drain.release();
            // SAFETY: the caller's promise.
            unsafe { count.write(taken) };
            return if taken == 0 { Err(TryRecvError::Empty.into()) } else { Ok(()) };
        };
        // The drain has taken one too many.
        drain.requeue();
        if taken == 0 {
            // SAFETY: the caller's promise.
            unsafe { messages.write(described) };
            return Err(wrong.into());
        }
        let mut drain = consumer.drain(taken)?;
        while drain.next()?.is_some() {}
        drain.release();
        // SAFETY: the caller's promise.
        unsafe { count.write(taken) };
        Ok(())
    })
}

/// Borrows the next message where it is; blocks for `timeout` nanoseconds at most while the pipe is empty.
///
/// It stays in the pipe until shmpipe_release(), or is received again after shmpipe_requeue(). If this process ends before, the next
/// consumer receives it. With the promise of shmpipe_consumer_trust_peer(), `message->data` is where it lies in the ring; without, it
/// is NULL, and shmpipe_borrowed_copy() copies it out. Until the release, no other call of the handle receives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_borrow(
    consumer: *mut shmpipe_consumer,
    timeout: i64,
    message: *mut shmpipe_message,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(consumer) }, |consumer| {
        if consumer.0.common.is_open() {
            return Err(
                Misuse::State { why: "messages are borrowed: borrow the next one, or release" }.into()
            );
        }
        // SAFETY: the caller's promise.
        while !unsafe { consumer.borrow_one(message) }? {
            consumer.recv(Timeout::of(timeout))?.requeue();
        }
        Ok(())
    })
}

/// Borrows one more message if there is one now; otherwise SHMPIPE_ERR_EMPTY. Never blocks.
///
/// All that are borrowed are released together. Says nothing of the producer's end: SHMPIPE_ERR_EMPTY then too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_borrow_next(
    consumer: *mut shmpipe_consumer,
    message: *mut shmpipe_message,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(consumer) }, |consumer| match unsafe { consumer.borrow_one(message) }? {
        true => Ok(()),
        false => Err(TryRecvError::Empty.into()),
    })
}

/// Copies the message that was borrowed last to a buffer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_borrowed_copy(
    consumer: *const shmpipe_consumer,
    buffer: *mut c_void,
    capacity: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(consumer) }, |consumer| {
        // SAFETY: as above.
        let buffer = unsafe { self::buffer(buffer, capacity) }?;
        // SAFETY: no other reference to what is open is in use.
        let borrowed = unsafe { consumer.0.opened() }?;
        let last = borrowed.last.as_ref().ok_or(Misuse::State { why: "no message is borrowed" })?;
        last.copy_to(buffer)?;
        Ok(())
    })
}

/// Releases all borrowed messages: their space is the producer's again. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_release(consumer: *mut shmpipe_consumer) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(consumer) }, |consumer| {
        ManuallyDrop::into_inner(consumer.0.take_open()?.drain).release();
        Ok(())
    })
}

/// Leaves all borrowed messages in the pipe: they are received again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_requeue(consumer: *mut shmpipe_consumer) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(consumer) }, |consumer| {
        consumer.0.take_open()?;
        Ok(())
    })
}

/// Promises that the producer obeys the protocol, for the right to read messages in place.
///
/// The promise: every process that has the pipe open for writing keeps to the layout and the protocol, and writes to no message that
/// it has sent. A producer that breaks them can then change a message while this program reads it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_consumer_trust_peer(consumer: *mut shmpipe_consumer) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(consumer) }, |consumer| {
        consumer.0.look(|_| consumer.0.is_trusted.set(true))?;
        Ok(())
    })
}

/// Blocks until there is a message, for `timeout` nanoseconds at most, and leaves it in the pipe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_wait_for_message(consumer: *mut shmpipe_consumer, timeout: i64) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(consumer) }, |consumer| {
        Ok(consumer.idle()?.wait_for_message(Timeout::of(timeout).deadline())?)
    })
}

/// Reports the position up to which everything is released.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_consumer_position(
    consumer: *const shmpipe_consumer,
    position: *mut u64,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(consumer) }, |consumer| {
        let to = result(position, "position")?;
        // SAFETY: not NULL, so valid.
        unsafe { to.write(consumer.0.look(Consumer::position)?.get()) };
        Ok(())
    })
}

/// Reports what this side knows about the producer: one of shmpipe_peer. At most one system call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_consumer_peer(consumer: *const shmpipe_consumer, peer: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(consumer) }, |consumer| {
        let to = result(peer, "peer")?;
        // SAFETY: not NULL, so valid.
        unsafe { to.write(peer_code(consumer.0.look(Consumer::peer)?) as c_int) };
        Ok(())
    })
}

/// Blocks until there is something to receive or may be soon, for `timeout` nanoseconds at most: until a producer attaches, or one has
/// come and gone whose end was not reported yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_consumer_wait_for_peer(
    consumer: *mut shmpipe_consumer,
    timeout: i64,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(consumer) }, |consumer| {
        Ok(consumer.idle()?.wait_for_peer(Timeout::of(timeout).deadline())?)
    })
}

/// Checks, if there is no message, that this side still has the pipe and its role, and that the producer has not ended. Never blocks;
/// two to four system calls.
///
/// For a program that only uses calls that do not wait: those ask the kernel nothing. Call it now and then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_consumer_check(consumer: *mut shmpipe_consumer) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(consumer) }, |consumer| Ok(consumer.idle()?.check()?))
}

/// Makes a handle that cancels blocked calls of this consumer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_consumer_cancel_handle(
    consumer: *const shmpipe_consumer,
    cancel: *mut *mut shmpipe_cancel_handle,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(consumer) }, |consumer| {
        let to = result(cancel, "cancel")?;
        let cancel = consumer.0.look(Consumer::cancel_handle)?;
        // SAFETY: not NULL, so valid.
        unsafe { to.write(shmpipe_cancel_handle::handle(cancel)) };
        Ok(())
    })
}

/// Gives this consumer a descriptor for epoll() and the like, and reports it.
///
/// It is readable when there may be a message. From then on only calls with a timeout of 0 receive; one that returns
/// SHMPIPE_ERR_EMPTY makes the descriptor unreadable until there is a message, or the producer ends: so receive until then.
/// shmpipe_borrow_next() does not. The descriptor stays the library's: do not read or close it. If this fails, the handle is as before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_consumer_fd(consumer: *mut shmpipe_consumer, fd: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(consumer) }, |consumer| {
        let to = result(fd, "fd")?;
        let descriptor = consumer.0.descriptor::<Failed>(Consumer::try_with_descriptor)?;
        // SAFETY: not NULL, so valid.
        unsafe { to.write(descriptor) };
        Ok(())
    })
}

/// Closes the pipe for this side and gives the handle back, whatever this returns.
///
/// From now on the producer gets SHMPIPE_ERR_CLOSED. Messages that were not received, or borrowed and not released, stay in the pipe
/// for the next consumer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_consumer_close(consumer: *mut shmpipe_consumer) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { finish(consumer, Consumer::close) }
}

/// Ends this side with an error, and gives the handle back, whatever this returns.
///
/// The producer gets SHMPIPE_ERR_PEER_ABORTED once, with `code`, whose meaning the application defines.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_consumer_abort(consumer: *mut shmpipe_consumer, code: u32) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { finish(consumer, |consumer| consumer.abort(code)) }
}
