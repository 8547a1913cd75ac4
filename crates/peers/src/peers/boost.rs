//! Boost.Lockfree's `spsc_queue` (C++) of fixed capacity, in shared memory that is mapped here.

use std::fs::File;
use std::io;

use memfd::MemfdOptions;
use memmap2::MmapRaw;
use shmpipe_measure::{Endpoint, Invitation, Invited, Mode, Transport};

use crate::errors::refused;
use crate::foreign::{Foreign, Queues};

/// A queue each way of values of that size, polled.
pub fn at(size: usize) -> &'static dyn Transport {
    Box::leak(Box::new(Boost { size }))
}

struct Boost {
    size: usize,
}

impl Transport for Boost {
    fn name(&self) -> &'static str {
        "boost"
    }

    fn mode(&self) -> Mode {
        Mode::Polls
    }

    fn about(&self) -> &'static str {
        "Boost.Lockfree spsc_queue in a memfd (C++), compile-time capacity of 1 MiB, values of the message's size; push and \
         pop are calls into C++"
    }

    fn passes_descriptors(&self) -> bool {
        true
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let (there, back) = (memory(self.size)?, memory(self.size)?);
        let endpoint = endpoint(self.size, (&there, &back), true);
        invitation.tell(self.size);
        invitation.pass(there.into());
        invitation.pass(back.into());
        endpoint
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        let size = invited.word()?;
        let (there, back) = (File::from(invited.descriptor()?), File::from(invited.descriptor()?));
        endpoint(size, (&back, &there), false)
    }
}

/// The functions of one instance of the template; see `cpp/queue.h`.
#[repr(C)]
struct Functions {
    len: usize,
    create: unsafe extern "C" fn(*mut u8),
    push: unsafe extern "C" fn(*mut u8, *const u8) -> bool,
    pop: unsafe extern "C" fn(*mut u8, *mut u8) -> bool,
}

unsafe extern "C" {
    fn peers_boost_spsc_queue(size: usize) -> Option<&'static Functions>;
}

fn functions(size: usize) -> io::Result<&'static Functions> {
    // SAFETY: it takes any number, and gives null or a table that lives as long as the program.
    unsafe { peers_boost_spsc_queue(size) }.ok_or_else(|| refused("no slot of that size"))
}

fn memory(size: usize) -> io::Result<File> {
    let file = MemfdOptions::new().create("boost").map_err(refused)?.into_file();
    file.set_len(functions(size)?.len as u64)?;
    Ok(file)
}

fn endpoint(size: usize, (out, back): (&File, &File), create: bool) -> io::Result<Endpoint> {
    let functions = functions(size)?;
    let map = |file: &File| {
        let memory = MmapRaw::map_raw(file)?;
        if memory.len() < functions.len {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        if create {
            // SAFETY: as many bytes as the queue takes, on a page, and the partner does not run yet.
            unsafe { (functions.create)(memory.as_mut_ptr()) };
        }
        Ok(memory)
    };
    Ok(Endpoint::new(Foreign::new(Ends { out: map(out)?, back: map(back)?, functions }, size)))
}

struct Ends {
    out: MmapRaw,
    back: MmapRaw,
    functions: &'static Functions,
}

// SAFETY: the functions are those of the instance whose values have the size that `endpoint` was given.
unsafe impl Queues for Ends {
    #[inline(always)]
    unsafe fn push(&mut self, message: *const u8) -> bool {
        // SAFETY: a queue of this kind was made there; this process is its only producer. The message: the caller's promise.
        unsafe { (self.functions.push)(self.out.as_mut_ptr(), message) }
    }

    #[inline(always)]
    unsafe fn pop(&mut self, buffer: *mut u8) -> bool {
        // SAFETY: a queue of this kind was made there; this process is its only consumer. The buffer: the caller's promise.
        unsafe { (self.functions.pop)(self.back.as_mut_ptr(), buffer) }
    }
}
