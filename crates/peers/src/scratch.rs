//! Where the peers put their files, and how these go away.
//!
//! Everything of one run that has a name in `/dev/shm` starts with the run's own, `shmpipe-peers-PID-N`. Most of it is
//! unlinked as soon as both processes have opened it. The rest goes when the run ends, by itself or by a signal; what a
//! run leaves that was killed, the next one removes: a run holds a lock on its directory, so it is known to be over when
//! the lock is free.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

const ROOT: &str = "/dev/shm";
const PREFIX: &str = "shmpipe-peers-";

/// The names of this run.
static RUN: OnceLock<String> = OnceLock::new();
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Removes what the run has left when it is dropped.
pub struct Scratch {
    run: String,
    _lock: File,
}

impl Scratch {
    /// Removes what runs that are over have left, and makes this run's directory. From here on a signal that ends the
    /// process removes it first.
    pub fn open() -> io::Result<Scratch> {
        let root = Path::new(ROOT);
        sweep(root)?;
        let mut number = 0;
        let run = loop {
            let run = format!("{PREFIX}{}-{number}", process::id());
            match fs::create_dir(root.join(&run)) {
                Ok(()) => break run,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error),
            }
        };
        let directory = root.join(&run);
        let lock = File::open(&directory)?;
        lock.lock()?;
        let scratch = Scratch { run: run.clone(), _lock: lock };
        // where ipc-channel puts the socket by which two processes find each other
        let _ = tempfile::env::override_temp_dir(&directory); // fails only if it was set before, and it was not
        RUN.set(run.clone()).map_err(|_| io::Error::from(io::ErrorKind::ResourceBusy))?;
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])?;
        thread::Builder::new().name("clean up".to_owned()).spawn(move || {
            if let Some(signal) = signals.forever().next() {
                remove(root, &run);
                // ends the process as if the signal had not been caught; if it cannot, there is nothing left to try
                let _ = low_level::emulate_default_handler(signal);
            }
        })?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(Path::new(ROOT), &self.run);
    }
}

/// The run's name, with which everything of it in `/dev/shm` starts.
///
/// # Errors
/// `NotFound` before [`Scratch::open`].
pub fn run() -> io::Result<&'static str> {
    RUN.get().map(String::as_str).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The run's directory.
pub fn directory() -> io::Result<PathBuf> {
    Ok(Path::new(ROOT).join(run()?))
}

/// A new path in the run's directory.
pub fn path(peer: &str) -> io::Result<PathBuf> {
    Ok(directory()?.join(format!("{peer}-{}", number())))
}

/// A new name for POSIX shared memory, without a slash.
pub fn name(peer: &str) -> io::Result<String> {
    Ok(format!("{}.{peer}-{}", run()?, number()))
}

fn number() -> u32 {
    COUNT.fetch_add(1, Relaxed) // only has to differ each time
}

/// Removes what has a name of that run: its directory, and what starts with its name and a dot.
fn remove(root: &Path, run: &str) {
    let dotted = format!("{run}.");
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&dotted) {
            // gone already, or somebody else's: either way there is no more to do here
            let _ = fs::remove_file(entry.path());
        }
    }
    let _ = fs::remove_dir_all(root.join(run));
}

/// Removes the leftovers of runs that are over.
fn sweep(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) && entry.file_type()?.is_dir() {
            let Ok(directory) = File::open(entry.path()) else { continue };
            if directory.try_lock().is_ok() {
                remove(root, &name);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_run_has_left_goes_and_a_living_one_keeps_its_own() {
        let root = std::env::temp_dir().join(format!("{PREFIX}test-{}", process::id()));
        fs::create_dir(&root).unwrap();
        let make = |run: &str| {
            let directory = root.join(format!("{PREFIX}{run}"));
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("inside"), "x").unwrap();
            fs::write(root.join(format!("{PREFIX}{run}.beside")), "x").unwrap();
            File::open(directory).unwrap()
        };
        drop(make("1-0"));
        let alive = make("1-00");
        alive.lock().unwrap();
        fs::write(root.join("another"), "x").unwrap();

        sweep(&root).unwrap();
        let mut left: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(left, ["another", "shmpipe-peers-1-00", "shmpipe-peers-1-00.beside"]);
    }
}
