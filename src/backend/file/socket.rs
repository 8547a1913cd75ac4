//! Unix sockets for fd passing: connecting with a timeout, the credentials of the other end, and messages that carry a
//! descriptor.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long to wait for the other end.
const PEER_TIMEOUT: Duration = Duration::from_secs(5);

/// The bytes that accompany a descriptor.
pub(super) type Magic = [u8; 8];

/// Connects to the server at a path, which must have room in its backlog within [`PEER_TIMEOUT`]. The standard library's
/// `connect` has no timeout.
pub(crate) fn connect_within(path: &Path) -> io::Result<UnixStream> {
    // SAFETY: the call takes no pointers; the descriptor is new, and nothing else owns it.
    let stream = unsafe {
        match libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) {
            -1 => return Err(io::Error::last_os_error()),
            descriptor => UnixStream::from(OwnedFd::from_raw_fd(descriptor)),
        }
    };
    stream.set_write_timeout(Some(PEER_TIMEOUT))?;
    stream.set_read_timeout(Some(PEER_TIMEOUT))?;
    // SAFETY: the struct consists of integers, for which all zeros is a valid value.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let name = path.as_os_str().as_bytes();
    // One byte is left for the terminator.
    if name.len() >= address.sun_path.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, byte) in address.sun_path.iter_mut().zip(name) {
        *to = *byte as libc::c_char;
    }
    loop {
        // SAFETY: the pointer is to an address of `size` bytes.
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

/// The value of a socket option.
pub(super) fn socket_option<T: Copy>(stream: &UnixStream, name: libc::c_int) -> io::Result<T> {
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

/// A control buffer for one descriptor, aligned as the kernel requires.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

// SAFETY: the function only computes with its argument.
const CONTROL: usize = unsafe { libc::CMSG_SPACE(size_of::<libc::c_int>() as u32) } as usize;

/// Calls `transfer` with a message header for `magic` and a control buffer for one descriptor.
fn with_message<T>(
    magic: &mut Magic,
    control: &mut Control,
    transfer: impl FnOnce(&mut libc::msghdr) -> T,
) -> T {
    let mut iov = libc::iovec { iov_base: magic.as_mut_ptr().cast(), iov_len: magic.len() };
    // SAFETY: null pointers and zero lengths make an empty message header.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL as _;
    transfer(&mut message)
}

pub(super) fn send(stream: &UnixStream, magic: Magic, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let (mut bytes, mut control) = (magic, Control([0; CONTROL]));
    let sent = with_message(&mut bytes, &mut control, |message| {
        // SAFETY: `control` has room for the header and one descriptor, so there is a first header and its data may be written.
        // The message and the buffers that it points to live until the call returns.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<libc::c_int>() as u32) as _;
            libc::CMSG_DATA(header).cast::<libc::c_int>().write_unaligned(descriptor.as_raw_fd());
            libc::sendmsg(stream.as_raw_fd(), message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
        }
    });
    if sent == magic.len() as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Receives the magic bytes, with zeros for bytes that did not arrive, and all descriptors; a correct peer sends one.
pub(super) fn receive(stream: &UnixStream) -> io::Result<(Magic, Vec<OwnedFd>)> {
    let (mut magic, mut control) = (Magic::default(), Control([0; CONTROL]));
    let (got, descriptors) = with_message(&mut magic, &mut control, |message| {
        loop {
            // SAFETY: the message and the buffers that it points to live until the call returns.
            let got = unsafe { libc::recvmsg(stream.as_raw_fd(), message, libc::MSG_CMSG_CLOEXEC) };
            if got == -1 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
                continue;
            }
            // SAFETY: recvmsg has filled `control` and set its length, which the macros use. The descriptors are taken once.
            break (got, if got < 0 { vec![] } else { unsafe { received(message) } });
        }
    });
    match got {
        -1 => Err(io::Error::last_os_error()),
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok((magic, descriptors)),
    }
}

/// The descriptors of a received message. The buffer has room for one, but because of its alignment the kernel may fit in two.
///
/// # Safety
/// `recvmsg` has filled in the message, and no other code takes its descriptors.
unsafe fn received(message: &libc::msghdr) -> Vec<OwnedFd> {
    // SAFETY: by the caller's contract, the header is as long as it says and holds new descriptors that nothing else owns.
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
