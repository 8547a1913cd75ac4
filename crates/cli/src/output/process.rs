//! Processes, as text for people.

use std::fmt;

use crate::output::units;
use crate::system::processes::ProcessInfo;
use crate::system::users;

/// A process with its program, its user and its age: `process 12 (recv, root, for 3m 5s)`.
pub struct Shown<'a>(pub &'a ProcessInfo);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProcessInfo { pid, command, uid, age, .. } = self.0;
        write!(f, "process {pid} ({command}, {}", users::name(*uid))?;
        if let Some(age) = age {
            write!(f, ", for {}", units::show_age(*age))?;
        }
        f.write_str(")")
    }
}

/// A process by its id, with what is known about it.
pub fn describe(pid: u32) -> String {
    ProcessInfo::of(pid).map_or_else(|| format!("process {pid}"), |who| Shown(&who).to_string())
}
