//! `shmpipe doctor`: looks for problems with pipes on this machine, and says how to fix them.

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
mod rmid_forced;
mod sizes;
mod undo;
mod waiting;

use shmpipe::{Address, sysvipc};

use crate::exit::{End, Outcome};
use crate::output::report::{self, Report};
use crate::system::{pipes, users};

pub fn run(address: Option<&Address>, report: Report) -> Outcome {
    let (pipes, trouble) = pipes::find_with_lasting_pids();
    let asked = address.map(shmpipe::inspect);
    let snapshot = asked.as_ref().and_then(|asked| asked.as_ref().ok());
    let objects = sysvipc::objects();
    let owner = snapshot.map_or_else(users::current, |snapshot| snapshot.permissions.uid);
    let mut checks = vec![
        namespaces::check(),
        limits::check(objects.as_ref()),
        devshm::check(),
        logind::check(owner),
        undo::check(),
        rmid_forced::check(),
        locks::check(),
        barrier::check(),
        waiting::check(),
        memory::locking(),
        memory::huge_pages(),
        leftovers::check(&pipes, address.zip(snapshot), trouble),
        objects::check(),
    ];
    if let (Some(address), Some(asked)) = (address, asked) {
        let listed = asked
            .as_ref()
            .ok()
            .and_then(|asked| pipes.iter().find(|listed| pipes::id(listed) == Some(asked.segment_id)));
        let pids = listed.map_or(&[][..], |listed| &listed.pids);
        let segments = objects.as_ref().map_or(&[][..], |objects| &objects.segments);
        checks.extend(pipe::check(address, asked, pids, segments));
    }
    report::print(&match report {
        Report::Json => check::json(&checks, address.map(ToString::to_string)),
        Report::Text => check::text(&checks),
    })?;
    match checks.iter().all(|check| check.findings.is_empty()) {
        true => Ok(End::Done),
        false => Ok(End::Findings),
    }
}
