//! moodycamel's ReaderWriterQueue (C++): a queue of blocks between two threads.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use shmpipe_measure::{Endpoint, Invitation, Mode, Transport};

use crate::errors::refused;
use crate::foreign::{Foreign, Queues};
use crate::slots;

/// Polling, and the variant whose consumer sleeps.
pub fn at(size: usize) -> [&'static dyn Transport; 2] {
    let with = |blocks| Box::leak(Box::new(ReaderWriterQueue { size, blocks })) as &'static dyn Transport;
    [with(false), with(true)]
}

struct ReaderWriterQueue {
    size: usize,
    blocks: bool,
}

impl Transport for ReaderWriterQueue {
    fn name(&self) -> &'static str {
        if self.blocks { "rwqueue-block" } else { "rwqueue" }
    }

    fn mode(&self) -> Mode {
        if self.blocks { Mode::PollsThenSleeps } else { Mode::Polls }
    }

    fn about(&self) -> &'static str {
        match self.blocks {
            false => {
                "moodycamel::ReaderWriterQueue (C++), values of the message's size; try_enqueue and try_dequeue are calls \
                 into C++"
            }
            true => {
                "moodycamel::BlockingReaderWriterQueue; try_enqueue (a full queue is polled), wait_dequeue_timed"
            }
        }
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let count = slots::count(invitation.capacity(), self.size);
        // SAFETY: it takes any number, and gives null or a table that lives as long as the program.
        let functions = unsafe { peers_reader_writer_queue(self.size, self.blocks) };
        let functions = functions.ok_or_else(|| refused("no slot of that size"))?;
        let queue = || Queue::new(functions, count).map(Arc::new);
        let (there, back) = (queue()?, queue()?);
        let theirs = Ends { out: Arc::clone(&back), back: Arc::clone(&there) };
        invitation.hand_over(Foreign::new(theirs, self.size))?;
        Ok(Endpoint::new(Foreign::new(Ends { out: there, back }, self.size)))
    }
}

/// The functions of one instance of the template; see `cpp/queue.h`.
#[repr(C)]
struct Functions {
    create: unsafe extern "C" fn(usize) -> *mut u8,
    destroy: unsafe extern "C" fn(*mut u8),
    push: unsafe extern "C" fn(*mut u8, *const u8) -> bool,
    pop: unsafe extern "C" fn(*mut u8, *mut u8) -> bool,
}

unsafe extern "C" {
    fn peers_reader_writer_queue(size: usize, blocks: bool) -> Option<&'static Functions>;
}

struct Queue {
    queue: NonNull<u8>,
    functions: &'static Functions,
}

// SAFETY: the queue is made for one thread that pushes and one that pops, and `Ends` keeps to that.
unsafe impl Send for Queue {}
// SAFETY: the same.
unsafe impl Sync for Queue {}

impl Queue {
    fn new(functions: &'static Functions, count: usize) -> io::Result<Queue> {
        // SAFETY: it allocates, and takes any number.
        let queue = NonNull::new(unsafe { (functions.create)(count) }).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Queue { queue, functions })
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: made by `create` of the same table, and this is the last reference to it.
        unsafe { (self.functions.destroy)(self.queue.as_ptr()) }
    }
}

/// One thread's ends: the only one that pushes to `out`, and the only one that pops from `back`.
struct Ends {
    out: Arc<Queue>,
    back: Arc<Queue>,
}

// SAFETY: the functions are those of the instance whose values have the size that `make` was given.
unsafe impl Queues for Ends {
    #[inline(always)]
    unsafe fn push(&mut self, message: *const u8) -> bool {
        // SAFETY: a queue of this kind, of which this thread is the only producer. The message: the caller's promise.
        unsafe { (self.out.functions.push)(self.out.queue.as_ptr(), message) }
    }

    #[inline(always)]
    unsafe fn pop(&mut self, buffer: *mut u8) -> bool {
        // SAFETY: a queue of this kind, of which this thread is the only consumer. The buffer: the caller's promise.
        unsafe { (self.back.functions.pop)(self.back.queue.as_ptr(), buffer) }
    }
}
