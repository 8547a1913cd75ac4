//! The cost of an idle receiver.

use std::io;
use std::mem;
use std::thread;
use std::time::{Duration, Instant};

use crate::control::Verb;
use crate::errors::failed;
use crate::session::Session;

/// How long a receiver has waited before the count begins: a receiver that polls first sleeps by then.
const SETTLE: Duration = Duration::from_millis(20);

/// The CPU time of a process that waits for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// The duration of the wait.
    pub waited: Duration,
    /// The CPU time in it, in the kernel and in user code.
    pub ran: Duration,
}

impl Idle {
    /// The share of one processor: 1 for a receiver that polls.
    pub fn share(&self) -> f64 {
        self.ran.as_secs_f64() / self.waited.as_secs_f64().max(1e-9)
    }
}

impl Session {
    /// Makes the partner wait for a message of `size` bytes for `duration`, and returns the cost.
    ///
    /// # Errors
    /// As [`slice`](Session::slice).
    pub fn idle(&mut self, transport: usize, size: usize, duration: Duration) -> io::Result<Idle> {
        let partner = self.partner_id();
        let (idle, _) = self.bracketed(self.order(Verb::Answer, transport, size, 1)?, |work| {
            thread::sleep(SETTLE);
            let (before, start) = (processor_time(partner)?, Instant::now());
            thread::sleep(duration);
            let (after, waited) = (processor_time(partner)?, start.elapsed());
            work.ask(size, 1)?;
            Ok(Idle { waited, ran: after.saturating_sub(before) })
        })?;
        Ok(idle)
    }
}

/// The CPU time of all threads of the process so far.
pub(crate) fn processor_time(process: u32) -> io::Result<Duration> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is live; the system writes it.
    let found = unsafe { libc::clock_getcpuclockid(process as libc::pid_t, &mut clock) };
    if found != 0 {
        return Err(io::Error::from_raw_os_error(found));
    }
    // SAFETY: timespec is plain numbers, for which all zero is a value.
    let mut time: libc::timespec = unsafe { mem::zeroed() };
    // SAFETY: `time` is live; the kernel writes it.
    if unsafe { libc::clock_gettime(clock, &mut time) } == -1 {
        return Err(failed(format_args!("clock_gettime of process {process}")));
    }
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_grows_while_a_process_runs() {
        let id = std::process::id();
        let before = processor_time(id).unwrap();
        while processor_time(id).unwrap() < before + Duration::from_millis(2) {}
        let share = |ran| Idle { waited: Duration::from_secs(2), ran }.share();
        assert_eq!((share(Duration::ZERO), share(Duration::from_secs(1))), (0.0, 0.5));
    }

    #[test]
    fn missing_process_is_an_error() {
        let beyond = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
        assert!(processor_time(beyond.trim().parse().unwrap()).is_err());
    }
}
