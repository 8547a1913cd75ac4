//! A partner process: the same program, started again by exec.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::{INVITATION, Role};
use crate::control::Control;
use crate::errors::about;
use crate::guard::hold;
use crate::watchdog::Watchdog;

/// The partner process if this is the parent, otherwise 0.
static WATCHED: AtomicI32 = AtomicI32::new(0);

/// An error if the partner process has ended. Never an error in the partner, which the kernel ends with its parent.
pub(super) fn still_lives() -> io::Result<()> {
    // Relaxed: written by the waiting thread, or before the other one started
    let process = WATCHED.load(Relaxed);
    if process == 0 {
        return Ok(());
    }
    // SAFETY: siginfo_t is plain data, for which all zero is a value.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is live; WNOWAIT leaves the child for its owner to reap.
    let gone = unsafe { libc::waitid(libc::P_PID, process as libc::id_t, &mut info, options) } == -1
        // SAFETY: waitid has written it, or left it zero if the child has not ended.
        || unsafe { info.si_pid() } != 0;
    if gone {
        Err(io::Error::new(io::ErrorKind::BrokenPipe, "the partner process has ended"))
    } else {
        Ok(())
    }
}

/// The parent's handle of the process, which is killed and reaped when this is dropped.
pub(crate) struct Process {
    child: Child,
    /// Dropped after the child has ended.
    watchdog: Option<Watchdog>,
}

impl Process {
    /// Starts the running program again. It inherits the descriptors, which are then closed here.
    pub(crate) fn start(control: &Control, role: Role, descriptors: Vec<OwnedFd>) -> io::Result<Process> {
        // the running file, even if another one has its name now
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0(env::args_os().next().as_deref().unwrap_or(OsStr::new("shmpipe-partner")))
            .env(INVITATION, format!("{} {} {role}", control.id(), process::id()))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        // SAFETY: between fork and exec the closure only makes system calls. It neither allocates nor locks.
        unsafe {
            command.pre_exec(move || {
                for &descriptor in &raw {
                    if libc::fcntl(descriptor, libc::F_SETFD, 0) == -1 {
                        return Err(io::Error::last_os_error());
                    }
                }
                // held back until the child has installed its cleanup handler
                hold(libc::SIG_BLOCK, &[libc::SIGTERM])?;
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) == -1 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child =
            command.spawn().map_err(|error| about(format_args!("cannot start the partner"), error))?;
        WATCHED.store(child.id() as i32, Relaxed); // read by this thread, and by those that it starts later
        let mut process = Process { child, watchdog: None };
        process.watchdog = Some(Watchdog::over(process.id())?);
        Ok(process)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits a moment for it to end by itself, and returns how it ended.
    pub(crate) fn ending(&mut self, patience: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if start.elapsed() < patience => thread::sleep(Duration::from_millis(1)),
                _ => return None,
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        WATCHED.store(0, Relaxed); // read by this thread
        // both fail for a child that was already reaped, which does not matter
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
