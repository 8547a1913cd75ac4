//! The namespaces of this process: only processes in the same ones see the same pipes.

use std::fs;
use std::io;
use std::path::Path;

use super::check::Check;

const NAME: &str = "namespaces";

/// The inode numbers of the namespaces that a machine starts with (include/linux/proc_ns.h): the same everywhere.
const INITIAL_IPC: u64 = 0xefff_ffff;
const INITIAL_PID: u64 = 0xefff_fffc;
const INITIAL_USER: u64 = 0xefff_fffd;

/// Which namespace this process is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Namespace {
    /// The initial one of the machine, or that of process 1 where the initial one is not known.
    Machine,
    Own,
    Unknown,
}

impl Namespace {
    fn word(self) -> &'static str {
        match self {
            Namespace::Machine => "machine",
            Namespace::Own => "own",
            Namespace::Unknown => "unknown",
        }
    }
}

pub fn check() -> Check {
    let mut check = Check::new(NAME);
    let first = |kind: &str| inode(1, kind).ok();
    let by_number = |kind: &str, initial: u64| match inode("self", kind) {
        Ok(number) if number == initial => Namespace::Machine,
        Ok(_) => Namespace::Own,
        Err(_) => Namespace::Unknown,
    };
    let (ipc, pid, user) =
        (by_number("ipc", INITIAL_IPC), by_number("pid", INITIAL_PID), by_number("user", INITIAL_USER));
    // The number of the first mount namespace differs between kernels.
    let mnt = match (inode("self", "mnt"), first("mnt")) {
        (Ok(ours), Some(theirs)) if ours != theirs || pid == Namespace::Own => Namespace::Own,
        (Ok(_), Some(_)) => Namespace::Machine,
        _ => Namespace::Unknown,
    };
    for (key, kind, whose) in
        [("ipc", "ipc", ipc), ("mount", "mnt", mnt), ("pid", "pid", pid), ("user", "user", user)]
    {
        check.fact(key, whose.word());
        if let (Namespace::Unknown, Err(error)) = (whose, inode("self", kind).and_then(|_| inode(1, kind))) {
            check.unknown(format!("the {key} namespace of process 1: {error}"));
        }
    }
    let container = container();
    check.fact("container", container);
    check.summary(summary(&[("IPC", ipc), ("mount", mnt), ("pid", pid), ("user", user)], container));
    check
}

/// Whether names and keys mean the same here as on the rest of the machine. If not, that can be why a pipe is not found.
pub fn ipc_is_the_machines() -> bool {
    inode("self", "ipc").is_ok_and(|number| number == INITIAL_IPC)
}

/// The container engine, if there are signs of a container: a file of the engine, or another pid namespace than the machine's.
pub fn container() -> Option<&'static str> {
    [("/run/.containerenv", "podman"), ("/.dockerenv", "docker")]
        .into_iter()
        .find_map(|(mark, engine)| Path::new(mark).exists().then_some(engine))
        .or_else(|| inode("self", "pid").is_ok_and(|number| number != INITIAL_PID).then_some("unknown"))
}

/// The number of a namespace, from a link like `ipc:[4026531839]`.
fn inode(process: impl ToString, kind: &str) -> io::Result<u64> {
    let link = fs::read_link(format!("/proc/{}/ns/{kind}", process.to_string()))?;
    let text = link.to_string_lossy().into_owned();
    let number = text.split_once('[').and_then(|(_, number)| number.trim_end_matches(']').parse().ok());
    number.ok_or_else(|| io::Error::other(format!("{text:?} cannot be parsed")))
}

fn summary(namespaces: &[(&str, Namespace)], container: Option<&str>) -> String {
    let of = |whose| {
        let names: Vec<&str> =
            namespaces.iter().filter(|(_, its)| *its == whose).map(|(name, _)| *name).collect();
        names.join(", ")
    };
    let mut parts = Vec::new();
    for (whose, words) in [(Namespace::Machine, "the machine's"), (Namespace::Own, "own")] {
        let names = of(whose);
        if !names.is_empty() {
            parts.push(format!("{words}: {names}"));
        }
    }
    match container {
        Some("unknown") => parts.push("in a container".to_owned()),
        Some(engine) => parts.push(format!("in a container ({engine})")),
        None => {}
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_namespaces_are_distinguished_from_the_machines() {
        use Namespace::{Machine, Own, Unknown};
        let of = |ipc, mnt, container| summary(&[("IPC", ipc), ("mount", mnt)], container);
        assert_eq!(of(Machine, Machine, None), "the machine's: IPC, mount");
        assert_eq!(of(Own, Machine, None), "the machine's: mount; own: IPC");
        assert_eq!(of(Own, Unknown, Some("docker")), "own: IPC; in a container (docker)");
    }
}
