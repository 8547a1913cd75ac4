//! Unix sockets as a hand-over needs them: a connection that does not wait for ever, what the kernel knows of the other
//! end, and a descriptor that goes with a message.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long the other end may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The bytes that a descriptor goes with.
pub(super) type Greeting = [u8; 8];

/// Connects to whoever listens at a path, if he has room for us before long: the standard library would wait for ever.
pub(crate) fn knock(path: &Path) -> io::Result<UnixStream> {
    // SAFETY: the call takes no pointers; the kernel has just opened the descriptor for us.
    let stream = unsafe {
        match libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) {
            -1 => return Err(io::Error::last_os_error()),
            descriptor => UnixStream::from(OwnedFd::from_raw_fd(descriptor)),
        }
    };
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // SAFETY: all zero is an address of no length.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let name = path.as_os_str().as_bytes();
    // One more for the terminator.
    if name.len() >= address.sun_path.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, byte) in address.sun_path.iter_mut().zip(name) {
        *to = *byte as libc::c_char;
    }
    loop {
        // SAFETY: the pointer is to an address of that size.
        let done = unsafe {
            let size = size_of_val(&address) as libc::socklen_t;
            libc::connect(stream.as_raw_fd(), (&raw const address).cast(), size)
        };
        match io::Error::last_os_error() {
            _ if done == 0 => return Ok(stream),
            error if error.kind() == io::ErrorKind::Interrupted => {}
            error => return Err(error),
        }
    }
}

/// An option of a socket.
pub(super) fn option<T: Copy>(stream: &UnixStream, name: libc::c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes `length` bytes at most to the value, which has as many.
    let done = unsafe {
        let to = value.as_mut_ptr().cast();
        libc::getsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, name, to, &raw mut length)
    };
    if done == -1 || length as usize != size_of::<T>() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has written all of it; the types used here are integers and structs of integers.
    Ok(unsafe { value.assume_init() })
}

/// Space for one descriptor beside a message, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

// SAFETY: the function computes with its argument alone.
const CONTROL: usize = unsafe { libc::CMSG_SPACE(size_of::<libc::c_int>() as u32) } as usize;

/// Calls `transfer` with a message of `greeting` and room for one descriptor.
fn with_message<T>(
    greeting: &mut Greeting,
    control: &mut Control,
    transfer: impl FnOnce(&mut libc::msghdr) -> T,
) -> T {
    let mut part = libc::iovec { iov_base: greeting.as_mut_ptr().cast(), iov_len: greeting.len() };
    // SAFETY: all zero is a message of nothing.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL as _;
    transfer(&mut message)
}

pub(super) fn send(stream: &UnixStream, greeting: Greeting, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let (mut bytes, mut control) = (greeting, Control([0; CONTROL]));
    let sent = with_message(&mut bytes, &mut control, |message| {
        // SAFETY: `control` has room for the header and one descriptor, so that there is a first header, and its data
        // may be written. The message and what it points to live until the call returns.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<libc::c_int>() as u32) as _;
            libc::CMSG_DATA(header).cast::<libc::c_int>().write_unaligned(descriptor.as_raw_fd());
            libc::sendmsg(stream.as_raw_fd(), message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
        }
    });
    if sent == greeting.len() as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What was sent: a greeting, zeros if fewer came, and descriptors, one if all is well.
pub(super) fn take(stream: &UnixStream) -> io::Result<(Greeting, Vec<OwnedFd>)> {
    let (mut greeting, mut control) = (Greeting::default(), Control([0; CONTROL]));
    let (got, descriptors) = with_message(&mut greeting, &mut control, |message| {
        loop {
            // SAFETY: the message and what it points to live until the call returns.
            let got = unsafe { libc::recvmsg(stream.as_raw_fd(), message, libc::MSG_CMSG_CLOEXEC) };
            if got == -1 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
                continue;
            }
            // SAFETY: the kernel has filled `control`, and set its length, which the macros go by.
            break (got, if got < 0 { vec![] } else { unsafe { received(message) } });
        }
    });
    match got {
        -1 => Err(io::Error::last_os_error()),
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok((greeting, descriptors)),
    }
}

/// The descriptors that came with a message. There is room for one, but for alignment's sake the kernel may find room for two.
///
/// # Safety
/// The message is as `recvmsg` has left it, and nobody else takes its descriptors.
unsafe fn received(message: &libc::msghdr) -> Vec<OwnedFd> {
    // SAFETY: the caller's promise; a header is as long as it says, and holds descriptors that the kernel has just opened for
    // us.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(message);
        if header.is_null()
            || (*header).cmsg_level != libc::SOL_SOCKET
            || (*header).cmsg_type != libc::SCM_RIGHTS
        {
            return vec![];
        }
        let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
        let first = libc::CMSG_DATA(header).cast::<libc::c_int>();
        let number = |i| first.add(i).read_unaligned();
        (0..bytes / size_of::<libc::c_int>()).map(|i| OwnedFd::from_raw_fd(number(i))).collect()
    }
}
