//! What a process uses, and whether it grows.

use crate::objects;
use crate::verdict::Failure;
use procfs::process::Process;

/// What is counted of a process: descriptors, mappings, KiB of its own memory (without what it shares), System V objects.
type Counts = [u64; 4];

const NAMES: [&str; 4] = ["descriptors", "mappings", "KiB of memory", "System V objects"];

/// How much more there may be at the end.
///
/// A leak of one for each claim would be ten a second: dozens between the two fifths of half a minute, thousands in twenty minutes. A
/// descriptor or two are open for a moment while a pipe is opened, which a look may meet or not, and the same goes for
/// mappings; the heap of the C library may take a step (128 KiB) and does not give it back. Segments and sets are as many as pipes,
/// always.
pub const ALLOWED: Counts = [4, 6, 384, 0];

/// What one process has used at most, in two fifths of the time.
#[derive(Debug)]
pub struct Usage {
    pid: i32,
    name: &'static str,
    early: Counts,
    late: Counts,
}

impl Usage {
    pub fn new(pid: i32, name: &'static str) -> Self {
        Usage { pid, name, early: [0; 4], late: [0; 4] }
    }

    /// Looks at it when this part of the time, from 0 to 1, has passed.
    pub fn look(&mut self, part: f64) -> Result<(), Failure> {
        // On a busy machine a whole fifth may pass between two looks.
        let window = match part {
            ..0.2 => return Ok(()),
            _ if part < 0.4 || self.early == [0; 4] => &mut self.early,
            0.8.. => &mut self.late,
            _ => return Ok(()),
        };
        let process = Process::new(self.pid)?;
        let own = process.status()?.rssanon.unwrap_or(0);
        let found = [process.fd_count()? as u64, process.maps()?.len() as u64, own, objects::count()];
        for (most, found) in window.iter_mut().zip(found) {
            *most = found.max(*most);
        }
        Ok(())
    }

    pub fn must_be_flat(&self, allowed: &Counts) -> Result<(), Failure> {
        if self.early[0] == 0 || self.late[0] == 0 {
            return Err(Failure::Failed(format!("nobody has looked at what the {} uses", self.name)));
        }
        for (number, name) in NAMES.into_iter().enumerate() {
            let (early, late) = (self.early[number], self.late[number]);
            if late > early + allowed[number] {
                return Err(Failure::Failed(format!(
                    "{name} of the {} (process {}) have grown: at most {early} in the second fifth of the time, {late} in the last",
                    self.name, self.pid
                )));
            }
        }
        Ok(())
    }

    /// The most that were open.
    pub fn descriptors(&self) -> u64 {
        self.early[0].max(self.late[0])
    }

    /// By how much its memory has grown.
    pub fn grown_kib(&self) -> u64 {
        self.late[2].saturating_sub(self.early[2])
    }
}
