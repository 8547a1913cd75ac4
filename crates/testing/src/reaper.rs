//! A process that cleans up after a test program that was killed, whose destructors did not run.

use super::raw;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Something to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Thing {
    /// Segment and set under a key.
    Key = 1,
    /// A segment, by its identifier.
    Segment = 2,
    /// A set, by its identifier.
    Set = 3,
    /// The files of the process with this number: see [`directory`].
    Files = 4,
}

/// The directory for the files of this test program. The reaper removes it, and the files in /dev/shm whose names start with
/// [`prefix`], when the program ends.
pub fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let pid = std::process::id();
        remember(Thing::Files, pid as i32);
        let directory = directory_of(pid);
        fs::create_dir(&directory).unwrap();
        directory
    })
}

fn directory_of(pid: u32) -> PathBuf {
    std::env::temp_dir().join(format!("shmpipe-{}", prefix(pid)))
}

/// The prefix of all names of a test program, its files in /dev/shm included.
pub fn prefix(pid: u32) -> String {
    format!("t-{pid}-")
}

fn remove_files(pid: u32) {
    let _ = fs::remove_dir_all(directory_of(pid));
    let shared = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    for file in shared.filter(|file| file.file_name().as_encoded_bytes().starts_with(prefix(pid).as_bytes()))
    {
        let _ = fs::remove_file(file.path());
    }
}

/// Registers a thing for removal when this program ends.
pub fn remember(thing: Thing, number: i32) {
    write([thing as i32, number]);
}

/// Cancels the removal of a thing.
pub fn forget(thing: Thing, number: i32) {
    write([-(thing as i32), number]);
}

fn write(message: [i32; 2]) {
    static PIPE: OnceLock<i32> = OnceLock::new();
    let pipe = *PIPE.get_or_init(start);
    // SAFETY: the message is live. It is shorter than PIPE_BUF, so the write is atomic.
    let written = unsafe { libc::write(pipe, message.as_ptr().cast(), size_of_val(&message)) };
    assert_eq!(written as usize, size_of_val(&message));
}

fn start() -> i32 {
    let mut ends = [0; 2];
    // SAFETY: the pointer is to two ints.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    let [from, to] = ends;
    // SAFETY: the child uses the heap, which glibc keeps usable across fork, and no lock that another thread may hold.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => work(from),
        _ => {
            // SAFETY: this is the only user of the descriptor.
            unsafe { libc::close(from) };
            to
        }
    }
}

/// Reads until the other end of the pipe closes, which is when the test program ends. Then cleans up.
fn work(from: i32) -> ! {
    let mut things = [[0; 2]; 4096];
    let end = from as libc::c_uint;
    // SAFETY: closes all descriptors but our own, which no thread of this process uses: fork copies only the calling thread. Other
    // processes may wait for their end, or for a lock that one of them holds. The new session shields us from the terminal's
    // signals to the tests.
    unsafe {
        libc::setsid();
        libc::syscall(libc::SYS_close_range, 0, end - 1, 0);
        libc::syscall(libc::SYS_close_range, end + 1, libc::c_uint::MAX, 0);
    }
    let mut message = [0; 2];
    // SAFETY: the pointer is to two ints.
    while unsafe { libc::read(from, message.as_mut_ptr().cast(), size_of_val(&message)) } > 0 {
        let [kind, number] = message;
        let wanted = if kind > 0 { [0; 2] } else { [-kind, number] };
        if let Some(thing) = things.iter_mut().find(|thing| **thing == wanted) {
            *thing = if kind > 0 { message } else { [0; 2] };
        }
    }
    for [kind, number] in things {
        match kind {
            1 => remove_key(number),
            2 => raw::remove_segment(number),
            3 => raw::remove_set(number),
            4 => remove_files(number as u32),
            _ => {}
        }
    }
    // SAFETY: ends the process without running destructors of the test program.
    unsafe { libc::_exit(0) }
}

/// Removes segment and set under a key.
pub fn remove_key(key: i32) {
    raw::find_segment(key).into_iter().for_each(raw::remove_segment);
    raw::find_set(key).into_iter().for_each(raw::remove_set);
}
