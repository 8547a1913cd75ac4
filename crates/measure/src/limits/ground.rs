//! The memory for limits, and the operations of both sides on it.

use std::hint::black_box;
use std::io;
use std::slice;
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};
use std::time::{Duration, Instant};

use super::{Copying, LONGEST, Limit, Storing};
use crate::control::Line;
use crate::errors::unfit;
use crate::futex;
use crate::patience::Patience;
use crate::segment::Segment;

/// The words before the buffers.
///
/// ```text
/// 0        turn        both write it in turn: odd from the session, even from its partner
/// 128      second      written before the turn is passed on, read by its receiver
/// 256      bed         as turn, but a waiter sleeps on it
/// 384 512  full        for each of the two buffers: 1 from the partner, 0 from the session
/// 4096     the first buffer, then the second
/// ```
#[repr(C)]
struct Words {
    turn: Line<AtomicU64>,
    second: Line<AtomicU64>,
    bed: Line<AtomicU32>,
    full: [Line<AtomicU32>; 2],
}

const BYTES: usize = 4096;

/// One side of it.
pub(crate) struct Ground {
    segment: Segment,
    /// The number of turns so far, which both sides count.
    passed: u64,
    /// The same for the bed.
    woken: u32,
    /// This side's private buffer for copies.
    own: Vec<u8>,
    /// The duration of two successive readings of the clock.
    clock: Duration,
}

impl Ground {
    pub(super) fn create() -> io::Result<Ground> {
        Segment::create(BYTES + 2 * LONGEST).map(Ground::on)
    }

    /// The partner's side of what the session has created.
    pub(super) fn join(id: i32) -> io::Result<Ground> {
        Segment::join(id, BYTES + 2 * LONGEST).map(Ground::on)
    }

    fn on(segment: Segment) -> Ground {
        let clock = (0..64).map(|_| Instant::now().elapsed()).min().unwrap_or_default();
        Ground { segment, passed: 0, woken: 0, own: vec![1; LONGEST], clock }
    }

    pub(super) fn id(&self) -> i32 {
        self.segment.id()
    }

    fn words(&self) -> &Words {
        // SAFETY: the segment is longer than this, page-aligned and lives as long as the reference. All of its words are atomics,
        // for which every bit pattern is valid, so the other side may write them.
        unsafe { &*self.segment.base().cast::<Words>() }
    }

    fn buffer(&self, number: usize) -> *mut u8 {
        // SAFETY: the segment holds two buffers of this length after its words.
        unsafe { self.segment.base().add(BYTES + (number % 2) * LONGEST) }
    }

    /// The session's part. Returns the duration of `count` operations.
    pub(super) fn ask(&mut self, limit: Limit, size: usize, count: u64) -> io::Result<Duration> {
        let mut took = Duration::ZERO;
        let start = Instant::now();
        match limit {
            Limit::TwoLines => {
                for _ in 0..count {
                    self.pass_with_second();
                    self.get_with_second()?;
                }
            }
            Limit::Futex => {
                for _ in 0..count {
                    self.wake();
                    self.sleep()?;
                }
            }
            Limit::HandOver(copying) => {
                for number in 0..count {
                    self.take(copying, size, number)?;
                }
            }
            Limit::Read(_) => {
                for _ in 0..count {
                    self.pass();
                    self.get()?;
                    let start = Instant::now();
                    let sum = self.read(size);
                    took += start.elapsed();
                    self.check(sum, size)?;
                }
                return Ok(took.saturating_sub(self.clock * count as u32));
            }
            Limit::Write(storing) => {
                for _ in 0..count {
                    let start = Instant::now();
                    self.write(storing, size);
                    took += start.elapsed();
                    self.pass();
                    self.get()?;
                }
                return Ok(took.saturating_sub(self.clock * count as u32));
            }
        }
        Ok(start.elapsed())
    }

    /// The partner's part.
    pub(super) fn answer(&mut self, limit: Limit, size: usize, count: u64) -> io::Result<()> {
        if size > LONGEST {
            return Err(unfit("a limit of more bytes than there are"));
        }
        for number in 0..count {
            match limit {
                Limit::TwoLines => {
                    self.get_with_second()?;
                    self.pass_with_second();
                }
                Limit::Futex => {
                    self.sleep()?;
                    self.wake();
                }
                Limit::HandOver(copying) => self.give(copying, size, number)?,
                Limit::Read(storing) => {
                    self.get()?;
                    self.write(storing, size);
                    self.pass();
                }
                Limit::Write(_) => {
                    self.get()?;
                    let sum = self.read(size);
                    self.check(sum, size)?;
                    self.pass();
                }
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn pass(&mut self) {
        self.passed += 1;
        // ORDERING: Release, with the Acquire load in `get` of the other side: the side with the turn sees all writes from
        // before it was passed on.
        self.words().turn.0.store(self.passed, Release);
    }

    #[inline(always)]
    fn get(&mut self) -> io::Result<()> {
        let mut patience = Patience::new();
        // ORDERING: Acquire, with the Release store in `pass`.
        while self.words().turn.0.load(Acquire) == self.passed {
            patience.pause()?;
        }
        self.passed += 1;
        Ok(())
    }

    #[inline(always)]
    fn pass_with_second(&mut self) {
        self.words().second.0.store(self.passed + 1, Relaxed); // the turn publishes it
        self.pass();
    }

    #[inline(always)]
    fn get_with_second(&mut self) -> io::Result<()> {
        self.get()?;
        // Relaxed: the turn has published the word
        let found = self.words().second.0.load(Relaxed);
        if found == self.passed { Ok(()) } else { Err(stale("second line", found, self.passed)) }
    }

    #[inline(always)]
    fn wake(&mut self) {
        self.woken = self.woken.wrapping_add(1);
        let bed = &self.words().bed.0;
        // ORDERING: Release, with the Acquire load in `sleep`.
        bed.store(self.woken, Release);
        futex::wake(bed);
    }

    #[inline(always)]
    fn sleep(&mut self) -> io::Result<()> {
        let bed = &self.words().bed.0;
        // ORDERING: Acquire, with the Release store in `wake`.
        while bed.load(Acquire) == self.woken {
            futex::wait(bed, self.woken)?;
        }
        self.woken = self.woken.wrapping_add(1);
        Ok(())
    }

    /// Writes every byte of the first buffer, and waits until the store buffer is empty.
    #[inline(always)]
    fn write(&mut self, storing: Storing, size: usize) {
        let first = self.passed;
        match storing {
            Storing::Plain => {
                // SAFETY: `size` is at most LONGEST, as checked before, and the buffer starts on a page. This side has the turn,
                // without which the other side accesses nothing.
                let words = unsafe { slice::from_raw_parts_mut(self.buffer(0).cast::<u64>(), size / 8) };
                for (number, word) in words.iter_mut().enumerate() {
                    *word = first.wrapping_add(number as u64);
                }
            }
            #[cfg(target_arch = "x86_64")]
            Storing::Past => {
                for number in (0..size / 8).step_by(2) {
                    let pair = [first.wrapping_add(number as u64), first.wrapping_add(number as u64 + 1)];
                    // SAFETY: as above, and pairs of words start at multiples of 16. The fence follows.
                    unsafe { past::store(pair.as_ptr().cast(), self.buffer(0).add(8 * number)) };
                }
                past::fence();
            }
        }
        // ORDERING: SeqCst, without a partner: drains the store buffer before the clock is read.
        fence(SeqCst);
    }

    /// Reads every byte of the first buffer, and returns the sum of its words.
    #[inline(always)]
    fn read(&self, size: usize) -> u64 {
        // SAFETY: `size` is at most LONGEST, as checked before, and the buffer starts on a page. This side has the turn,
        // without which the other side writes nothing.
        let words = unsafe { slice::from_raw_parts(self.buffer(0).cast::<u64>(), size / 8) };
        black_box(words.iter().fold(0, |sum: u64, word| sum.wrapping_add(*word)))
    }

    /// Checks that the sum is that of the other side's writes.
    fn check(&self, sum: u64, size: usize) -> io::Result<()> {
        let (first, words) = (self.passed - 1, size as u64 / 8);
        let expected = first.wrapping_mul(words).wrapping_add(words * (words - 1) / 2);
        if sum == expected { Ok(()) } else { Err(stale("buffer", sum, expected)) }
    }

    /// Copies one block into the next of the two buffers.
    #[inline(always)]
    fn give(&mut self, copying: Copying, size: usize, number: u64) -> io::Result<()> {
        self.own[..8].copy_from_slice(&number.to_le_bytes());
        self.wait_until_full_is(0, number)?;
        // SAFETY: `size` is at most LONGEST, the length of both. The buffer is empty, and only this side fills it.
        unsafe { copying.copy_in(self.own.as_ptr(), self.buffer(number as usize), size) };
        // ORDERING: Release, with the Acquire load in `wait_until_full_is` of the other side.
        self.words().full[number as usize % 2].0.store(1, Release);
        Ok(())
    }

    /// Copies one block out of the next of the two buffers.
    #[inline(always)]
    fn take(&mut self, copying: Copying, size: usize, number: u64) -> io::Result<()> {
        self.wait_until_full_is(1, number)?;
        // SAFETY: `size` is at most LONGEST, the length of both. The buffer is full, and only this side empties it.
        unsafe { copying.copy_out(self.buffer(number as usize), self.own.as_mut_ptr(), size) };
        // ORDERING: Release, as in `give`.
        self.words().full[number as usize % 2].0.store(0, Release);
        let found = u64::from_le_bytes(self.own[..8].try_into().expect("eight bytes"));
        black_box(&mut self.own);
        if found == number { Ok(()) } else { Err(stale("block", found, number)) }
    }

    #[inline(always)]
    fn wait_until_full_is(&self, full: u32, number: u64) -> io::Result<()> {
        let mut patience = Patience::new();
        // ORDERING: Acquire, with the Release stores in `give` and `take` of the other side: the copy is complete.
        while self.words().full[number as usize % 2].0.load(Acquire) != full {
            patience.pause()?;
        }
        Ok(())
    }
}

#[cold]
fn stale(what: &str, found: u64, expected: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the {what} holds {found:#x}, expected {expected:#x}"))
}

impl Copying {
    /// # Safety
    /// * `len` bytes are readable at `from` and writable at `to`, and no one else accesses either.
    /// * `to` and `len` are multiples of 16.
    #[inline(always)]
    unsafe fn copy_in(self, from: *const u8, to: *mut u8, len: usize) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Copying::Past => {
                for at in (0..len).step_by(16) {
                    // SAFETY: the caller's; the fence follows.
                    unsafe { past::store(from.add(at), to.add(at)) };
                }
                past::fence();
            }
            // SAFETY: the caller's.
            _ => unsafe { self.copy_out(from, to, len) },
        }
    }

    /// # Safety
    /// `len` bytes are readable at `from` and writable at `to`, and no one else accesses either.
    #[inline(always)]
    unsafe fn copy_out(self, from: *const u8, to: *mut u8, len: usize) {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the caller's; the direction flag is clear, as always outside of code that sets it.
            Copying::Movsb => unsafe {
                std::arch::asm!(
                    "rep movsb",
                    inout("rcx") len => _,
                    inout("rsi") from => _,
                    inout("rdi") to => _,
                    options(nostack, preserves_flags),
                );
            },
            // SAFETY: the caller's; the two do not overlap, since one is this side's private memory.
            _ => unsafe { to.copy_from_nonoverlapping(from, len) },
        }
    }
}

/// Non-temporal stores.
#[cfg(target_arch = "x86_64")]
mod past {
    use std::arch::x86_64::{_mm_loadu_si128, _mm_sfence, _mm_stream_si128};

    /// # Safety
    /// * 16 bytes are readable at `from` and writable at `to`, and no one else accesses either.
    /// * `to` is a multiple of 16.
    /// * [`fence`] is called before the stores are published.
    #[inline(always)]
    pub(super) unsafe fn store(from: *const u8, to: *mut u8) {
        // SAFETY: the caller's, in order.
        unsafe { _mm_stream_si128(to.cast(), _mm_loadu_si128(from.cast())) };
    }

    /// Orders such stores before later stores.
    #[inline(always)]
    pub(super) fn fence() {
        // SAFETY: every x86-64 has SSE.
        unsafe { _mm_sfence() };
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn both_sides_agree_on_every_limit() {
        let mut session = Ground::create().unwrap();
        let id = session.id();
        let partner = thread::spawn(move || {
            let mut partner = Ground::join(id).unwrap();
            for round in 0..3 {
                for limit in Limit::ALL {
                    partner.answer(*limit, 4096, 10 + round).unwrap();
                }
            }
        });
        for round in 0..3 {
            for limit in Limit::ALL {
                let took = session.ask(*limit, 4096, 10 + round).unwrap();
                assert!(!limit.has_bytes() || took > Duration::ZERO, "{limit:?} takes no time");
            }
        }
        partner.join().unwrap();
    }

    #[test]
    fn missing_write_is_an_error() {
        let mut ground = Ground::create().unwrap();
        ground.write(Storing::Plain, 4096);
        ground.passed = 1;
        ground.check(ground.read(4096), 4096).unwrap();
        // SAFETY: inside the buffer, which has no other user.
        unsafe { ground.buffer(0).add(4095).write(1) };
        assert!(ground.check(ground.read(4096), 4096).is_err());
        ground.own[..8].copy_from_slice(&7_u64.to_le_bytes());
        ground.words().full[0].0.store(1, Relaxed);
        assert!(ground.take(Copying::Memcpy, 64, 4).is_err());
    }
}
