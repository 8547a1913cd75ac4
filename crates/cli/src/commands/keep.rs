//! `shmpipe keep`: keeps a pipe open until a signal ends it.

use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::stat::fstat;
use shmpipe::os::unix::PipeExt;
use shmpipe::{AddressKind, Lost, Object, Pipe, Snapshot};

use crate::args;
use crate::exit::{Code, End, Failure, Outcome};
use crate::output::description::Description;
use crate::output::printable;
use crate::output::report::{self, Report};
use crate::system::{signals, stdio};

/// How often to check whether the pipe was removed.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

pub fn run(arguments: &args::Keep, report: Report) -> Outcome {
    if arguments.address.to_string() == "memfd" {
        let text = "a new memfd has no name that others could open; use \"shmpipe serve PATH\"";
        return Err(Failure::new(Code::Usage, text));
    }
    signals::install()?;
    let pipe = arguments.options().open_or_create(&arguments.address)?;
    let snapshot = shmpipe::inspect(pipe.address())?;
    report::print(&match report {
        Report::Json => report::json(&Description::of(&snapshot)) + "\n",
        Report::Text => format!("{}\n", printable(&pipe.address().to_string())),
    })?;
    report.note(format_args!(
        "keeping the pipe at {}, which {}, until interrupted",
        pipe.address(),
        if pipe.created() { "was created" } else { "existed" }
    ));
    loop {
        if let Some(signal) = signals::received() {
            return Ok(End::Signal(signal));
        }
        if is_removed(&pipe, &snapshot) {
            return Err(Failure::new(Code::NotFound, Lost::Removed));
        }
        stdio::pause(Instant::now() + CHECK_INTERVAL);
    }
}

/// Whether the pipe was removed. Does not attach to it, since a claim counts the attachments.
fn is_removed(pipe: &Pipe, snapshot: &Snapshot) -> bool {
    match (&snapshot.object, pipe.fd()) {
        (Object::SysV { shm_id, .. }, _) => is_segment_removed(*shm_id),
        // A memfd has no name to lose.
        (_, Some(file)) if matches!(pipe.address().kind(), AddressKind::Posix | AddressKind::File) => {
            fstat(file).is_ok_and(|status| status.st_nlink == 0)
        }
        _ => false,
    }
}

fn is_segment_removed(segment: i32) -> bool {
    /// The mode bit of a segment that was removed and lives on for the processes that have it attached (linux/shm.h).
    const SHM_DEST: u32 = 0o1000;
    let mut status = MaybeUninit::<libc::shmid_ds>::zeroed();
    // SAFETY: the kernel writes at most a `shmid_ds` to the pointer.
    let done = unsafe { libc::shmctl(segment, libc::IPC_STAT, status.as_mut_ptr()) };
    // SAFETY: zeros, or what the kernel wrote, are a valid value: the struct consists of integers.
    let status = unsafe { status.assume_init() };
    match done {
        -1 => matches!(Errno::last(), Errno::EINVAL | Errno::EIDRM),
        _ => u32::from(status.shm_perm.mode) & SHM_DEST != 0,
    }
}
