//! Pipes: create, open, remove, and claim roles.

use crate::border::{Handle, Misuse, at, result, text, with, without_handle};
use crate::code::{Done, Failed};
use crate::consumer::shmpipe_consumer;
use crate::options::{options_at, shmpipe_options, shmpipe_wake_mode};
use crate::producer::shmpipe_producer;
use shmpipe::os::unix::PipeExt;
use shmpipe::{Address, DuplexSide, Options, Pipe, SetupError, WakeMode, unlink, unlink_force};
use std::ffi::{CString, c_char, c_int};
use std::mem::offset_of;
use std::os::fd::AsRawFd;

/// An open pipe, without a role yet. Several threads may use it at the same time.
pub struct shmpipe_pipe {
    pipe: Pipe,
    address: CString,
    differences: CString,
}

const _: fn() = || {
    fn is_shared<T: Sync>() {}
    is_shared::<shmpipe_pipe>();
};

impl Handle for shmpipe_pipe {
    const NAME: &'static str = "pipe";

    fn poison(&self) {
        // Nothing is changed through it: a panic leaves it as it was.
    }
}

/// The properties of a pipe. Later versions may have more members, at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmpipe_pipe_info {
    /// The random number that distinguishes this segment from every other.
    pub id: u64,
    /// Bytes of ring data, in each direction.
    pub capacity: u64,
    /// Bytes of the longest message.
    pub max_len: u64,
    /// The number that the creator set.
    pub schema: u64,
    /// Permission bits.
    pub mode: u32,
    /// One of shmpipe_wake_mode.
    pub wake_mode: c_int,
    /// A descriptor of the pipe's file, which stays the library's; -1 for a System V segment.
    pub fd: c_int,
    /// Whether this handle created the pipe.
    pub created: bool,
    /// Whether the pipe has two directions.
    pub duplex: bool,
}

/// A side of a pipe with two directions.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum shmpipe_side {
    /// The first that is free. Not for a process that may be restarted.
    SHMPIPE_SIDE_ANY = 0,
    /// Side A.
    SHMPIPE_SIDE_A = 1,
    /// Side B.
    SHMPIPE_SIDE_B = 2,
}

/// A struct that may grow, at its end.
pub(crate) trait Growing: Copy {
    /// Bytes up to the end of the last member. A later version may have one in what is padding now.
    const END: usize;
}

impl Growing for shmpipe_pipe_info {
    const END: usize = offset_of!(Self, duplex) + size_of::<bool>();
}

/// Writes a copy of a struct: as many bytes as the caller's version of it has.
///
/// # Safety
/// `to` is valid for `size` bytes.
pub(crate) unsafe fn write_sized<T: Growing>(value: &T, to: *mut T, size: usize) -> Done {
    let to = result(to, "the result")?;
    if size < size_of::<u64>() {
        return Err(Misuse::Argument { why: "the size is not that of the struct; pass sizeof" }.into());
    }
    let known = size.min(T::END);
    // SAFETY: the caller's promise; both are at least that long.
    unsafe {
        to.cast::<u8>().copy_from_nonoverlapping((&raw const *value).cast(), known);
        // What a newer header has in addition.
        to.cast::<u8>().add(known).write_bytes(0, size - known);
    }
    Ok(())
}

/// # Safety
/// The pointers are NULL or valid.
unsafe fn attach(
    address: *const c_char,
    options: *const shmpipe_options,
    pipe: *mut *mut shmpipe_pipe,
    how: impl FnOnce(Options, &str) -> Result<Pipe, SetupError>,
) -> c_int {
    without_handle(|| {
        let pipe = result(pipe, "pipe")?;
        // SAFETY: the caller's promise.
        let (address, options) = unsafe { (text(address, "address")?, options_at(options)) };
        let opened = how(options, address)?;
        // SAFETY: not NULL, so valid.
        unsafe { pipe.write(shmpipe_pipe::handle(opened)) };
        Ok(())
    })
}

impl shmpipe_pipe {
    fn handle(pipe: Pipe) -> *mut Self {
        let text = |text: String| CString::new(text).unwrap_or_default();
        let address = text(pipe.address().to_string());
        let differences: Vec<_> = pipe.differences().iter().map(ToString::to_string).collect();
        let differences = text(differences.join("; "));
        Box::into_raw(Box::new(shmpipe_pipe { pipe, address, differences }))
    }

    fn usable(&self) -> Result<&Pipe, Misuse> {
        if self.pipe.is_inherited() { Err(Misuse::Forked) } else { Ok(&self.pipe) }
    }
}

/// Creates a pipe. Fails with SHMPIPE_ERR_EXISTS if there is one.
///
/// `address` is a name such as "ticks", or "sysv:0x4d2", "posix:/ticks", "file:PATH", "memfd" and so on: see the manual.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_create(
    address: *const c_char,
    options: *const shmpipe_options,
    pipe: *mut *mut shmpipe_pipe,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { attach(address, options, pipe, |options, address| options.create(address)) }
}

/// Opens a pipe. Fails with SHMPIPE_ERR_NOT_FOUND if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_open(
    address: *const c_char,
    options: *const shmpipe_options,
    pipe: *mut *mut shmpipe_pipe,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { attach(address, options, pipe, |options, address| options.open(address)) }
}

/// Opens a pipe, or creates it if there is none. It does not matter which side starts first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_open_or_create(
    address: *const c_char,
    options: *const shmpipe_options,
    pipe: *mut *mut shmpipe_pipe,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { attach(address, options, pipe, |options, address| options.open_or_create(address)) }
}

/// Opens the same pipe once more, as a forked child must.
///
/// `pipe` is a handle from before the fork, which stays the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_reopen(
    pipe: *const shmpipe_pipe,
    reopened: *mut *mut shmpipe_pipe,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(pipe) }, |pipe| {
        let to = result(reopened, "reopened")?;
        let reopened = pipe.pipe.reopen()?;
        // SAFETY: not NULL, so valid.
        unsafe { to.write(shmpipe_pipe::handle(reopened)) };
        Ok(())
    })
}

/// Gives a handle back. NULL does nothing. Roles that were claimed through it stay, and the pipe does too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_pipe_free(pipe: *mut shmpipe_pipe) {
    without_handle(|| {
        if !pipe.is_null() {
            // SAFETY: the caller gives it back, which `handle` made.
            drop(unsafe { Box::from_raw(pipe) });
        }
        Ok(())
    });
}

/// Removes a pipe that has neither a producer nor a consumer. Fails with SHMPIPE_ERR_TAKEN if it has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_unlink(address: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    without_handle(|| Ok(unlink(unsafe { text(address, "address") }?)?))
}

/// Removes a pipe also while it is in use: both sides then fail with SHMPIPE_ERR_LOST.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_unlink_force(address: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    without_handle(|| Ok(unlink_force(unsafe { text(address, "address") }?)?))
}

/// Returns an address by which another process can open the pipe. Valid as long as the handle; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_pipe_address(pipe: *const shmpipe_pipe) -> *const c_char {
    // SAFETY: the caller's promise.
    unsafe { at(pipe) }.map_or(std::ptr::null(), |pipe| pipe.address.as_ptr())
}

/// Returns how the options differ from the pipe that was opened, as a text; an empty one if they do not. Valid as long as the
/// handle; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_pipe_differences(pipe: *const shmpipe_pipe) -> *const c_char {
    // SAFETY: the caller's promise.
    unsafe { at(pipe) }.map_or(std::ptr::null(), |pipe| pipe.differences.as_ptr())
}

/// Reports the properties of a pipe. `size` is sizeof *info.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_pipe_get_info(
    pipe: *const shmpipe_pipe,
    info: *mut shmpipe_pipe_info,
    size: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(pipe) }, |pipe| {
        let pipe = pipe.usable()?;
        let found = shmpipe_pipe_info {
            id: pipe.id().get(),
            capacity: pipe.capacity(),
            max_len: pipe.max_len() as u64,
            schema: pipe.schema(),
            mode: pipe.mode(),
            wake_mode: code_of(pipe.wake_mode()),
            fd: pipe.fd().map_or(-1, |fd| fd.as_raw_fd()),
            created: pipe.created(),
            duplex: pipe.is_duplex(),
        };
        // SAFETY: the caller's promise.
        unsafe { write_sized(&found, info, size) }
    })
}

pub(crate) fn code_of(mode: WakeMode) -> c_int {
    (match mode {
        WakeMode::Fence => shmpipe_wake_mode::SHMPIPE_WAKE_FENCE,
        WakeMode::Never => shmpipe_wake_mode::SHMPIPE_WAKE_NEVER,
        _ => shmpipe_wake_mode::SHMPIPE_WAKE_MEMBARRIER,
    }) as c_int
}

/// Claims the producer role and continues where the last producer stopped.
///
/// Fails with SHMPIPE_ERR_TAKEN while there is a producer. The pipe's handle can be given back then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_pipe_producer(
    pipe: *const shmpipe_pipe,
    producer: *mut *mut shmpipe_producer,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(pipe) }, |pipe| {
        let to = result(producer, "producer")?;
        let producer = pipe.usable()?.producer()?;
        // SAFETY: not NULL, so valid.
        unsafe { to.write(shmpipe_producer::handle(producer)) };
        Ok(())
    })
}

/// Claims the consumer role and continues where the last consumer stopped: what it did not release is received again.
///
/// Fails with SHMPIPE_ERR_TAKEN while there is a consumer. The pipe's handle can be given back then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_pipe_consumer(
    pipe: *const shmpipe_pipe,
    consumer: *mut *mut shmpipe_consumer,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(pipe) }, |pipe| {
        let to = result(consumer, "consumer")?;
        let consumer = pipe.usable()?.consumer()?;
        // SAFETY: not NULL, so valid.
        unsafe { to.write(shmpipe_consumer::handle(consumer)) };
        Ok(())
    })
}

/// Claims a side of a pipe with two directions: a producer to the other side, and a consumer of what that sends.
///
/// `side` is one of shmpipe_side. `taken`, unless it is NULL, gets the side that was claimed. Two threads may use the two handles at
/// the same time. The side is free when both are closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_pipe_duplex(
    pipe: *const shmpipe_pipe,
    side: c_int,
    producer: *mut *mut shmpipe_producer,
    consumer: *mut *mut shmpipe_consumer,
    taken: *mut c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(pipe) }, |pipe| {
        let (to_producer, to_consumer) = (result(producer, "producer")?, result(consumer, "consumer")?);
        let pipe = pipe.usable()?;
        let duplex = match side {
            0 => pipe.duplex(),
            1 => pipe.duplex_as(DuplexSide::A),
            2 => pipe.duplex_as(DuplexSide::B),
            _ => return Err(Failed::from(Misuse::Argument { why: "the side is none of shmpipe_side" })),
        }?;
        let claimed = match duplex.side() {
            DuplexSide::A => shmpipe_side::SHMPIPE_SIDE_A,
            DuplexSide::B => shmpipe_side::SHMPIPE_SIDE_B,
        };
        let (producer, consumer) = duplex.split();
        // SAFETY: not NULL, so valid.
        unsafe {
            to_producer.write(shmpipe_producer::handle(producer));
            to_consumer.write(shmpipe_consumer::handle(consumer));
            if !taken.is_null() {
                taken.write(claimed as c_int);
            }
        }
        Ok(())
    })
}

/// The address of a pipe to inspect.
///
/// # Safety
/// It is NULL or valid.
pub(crate) unsafe fn address_at(address: *const c_char) -> Result<Address, Failed> {
    // SAFETY: the caller's promise.
    Ok(unsafe { text(address, "address") }?.parse::<Address>()?)
}
