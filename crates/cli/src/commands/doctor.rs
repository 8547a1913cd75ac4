//! `shmpipe doctor`: looks for what stands, or will stand, in the way of pipes on this machine, and says how to mend it.

mod barrier;
mod check;
mod devshm;
mod leftovers;
mod limits;
mod locks;
mod logind;
mod memory;
mod namespaces;
mod objects;
mod pipe;
mod undo;

use shmpipe::Address;

use crate::exit::{End, Outcome};
use crate::output::report::{self, Report};
use crate::system::pipes::{self, Found};
use crate::system::processes::Shared;

/// Bytes of a pipe of the default capacity, with its header.
const PIPE: u64 = (1 << 20) + 4096;

pub fn run(address: Option<&Address>, report: Report) -> Outcome {
    let shared = Shared::lasting();
    let (pipes, trouble) = pipes::find(&shared);
    let asked = address.map(|address| pipes::at(address, &pipes));
    let one = asked.iter().flatten().filter(|one| pipes.iter().all(|known| known.id() != one.id()));
    let all: Vec<&Found> = pipes.iter().chain(one).collect();
    // SAFETY: takes nothing and cannot fail.
    let us = unsafe { libc::geteuid() };
    let owner = asked.iter().flatten().next().map_or(us, |one| one.permissions.uid);
    let mut checks = vec![
        namespaces::check(),
        limits::check(),
        devshm::check(),
        logind::check(owner),
        undo::check(),
        locks::check(),
        barrier::check(),
        memory::locking(),
        memory::huge_pages(),
        leftovers::check(&all, trouble),
        objects::check(&shared),
    ];
    if let (Some(address), Some(found)) = (address, asked) {
        checks.extend(pipe::check(address, found, &shared));
    }
    report::answer(&match report {
        Report::Programs => check::for_programs(&checks, address.map(ToString::to_string)),
        Report::People => check::for_people(&checks),
    })?;
    match checks.iter().all(|check| check.findings.is_empty()) {
        true => Ok(End::Done),
        false => Ok(End::Findings),
    }
}

fn page_size() -> u64 {
    // SAFETY: takes a number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    size.try_into().unwrap_or(4096)
}
