//! The resources of a process, and whether they grow.

use crate::objects;
use crate::verdict::Failure;
use procfs::process::Process;

/// Descriptors, mappings, KiB of private memory, System V objects.
type Counts = [u64; 4];

const NAMES: [&str; 4] = ["descriptors", "mappings", "KiB of memory", "System V objects"];

/// The growth that passes.
///
/// A leak of one for each claim is ten a second: dozens between the two fifths of half a minute, thousands in twenty minutes. An
/// open holds a descriptor and a mapping or two for a moment, which only some measurements catch. The C library's heap may grow by a
/// step of 128 KiB, and does not shrink. The number of segments and sets is always that of pipes.
pub const ALLOWED: Counts = [4, 6, 384, 0];

/// The maximum of each count of a process, in two fifths of the time.
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

    /// Measures the process. `part` is the part of the time, from 0 to 1, that has passed.
    pub fn measure(&mut self, part: f64) -> Result<(), Failure> {
        // On a busy machine a whole fifth may pass between two measurements.
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
            return Err(Failure::Failed(format!("the {} was not measured in both fifths", self.name)));
        }
        for (number, name) in NAMES.into_iter().enumerate() {
            let (early, late) = (self.early[number], self.late[number]);
            if late > early + allowed[number] {
                return Err(Failure::Failed(format!(
                    "{name} of the {} (process {}) grow: at most {early} in the second fifth of the time, {late} in the last",
                    self.name, self.pid
                )));
            }
        }
        Ok(())
    }

    /// The most descriptors.
    pub fn descriptors(&self) -> u64 {
        self.early[0].max(self.late[0])
    }

    /// The growth of its memory.
    pub fn grown_kib(&self) -> u64 {
        self.late[2].saturating_sub(self.early[2])
    }
}
