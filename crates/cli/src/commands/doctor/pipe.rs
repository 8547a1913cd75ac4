//! One pipe: whether it can be used, by whom it is, and what its two sides do.

use std::path::PathBuf;
use std::time::SystemTime;

use shmpipe::sysvipc::Segment;
use shmpipe::{Address, AddressKind, Object, Peer, SetupError, Side, Snapshot};

use super::check::Check;
use super::{leftovers, namespaces};
use crate::exit;
use crate::output::process;
use crate::output::units;
use crate::system::pipes;
use crate::system::processes::Who;
use crate::system::users;

/// Looks at the pipe and at its sides. `pids` are the processes that have it mapped, as far as we may see.
pub fn check(
    address: &Address,
    snapshot: Result<Snapshot, SetupError>,
    pids: &[u32],
    segments: &[Segment],
) -> Vec<Check> {
    let mut pipe = Check::new("pipe");
    removed_segments(&mut pipe, address, snapshot.as_ref().ok(), segments);
    match snapshot {
        Err(error) => {
            unusable(&mut pipe, address, &error);
            vec![pipe]
        }
        Ok(snapshot) => {
            itself(&mut pipe, address, &snapshot, pids);
            let side = |name, side, other| a_side(name, address, side, other);
            let producer = side("producer", &snapshot.producer, &snapshot.consumer);
            let consumer = side("consumer", &snapshot.consumer, &snapshot.producer);
            vec![pipe, producer, consumer]
        }
    }
}

/// Reports which processes still have an older segment attached that was removed from that address.
fn removed_segments(check: &mut Check, address: &Address, snapshot: Option<&Snapshot>, segments: &[Segment]) {
    let (key, now) = match snapshot.map(|snapshot| snapshot.object) {
        Some(Object::SysV { key, shm_id, .. }) => (Some(key).filter(|&key| key != 0), Some(shm_id)),
        _ => (address.key().ok().flatten(), None),
    };
    let older = segments
        .iter()
        .filter(|segment| key.is_some() && segment.created_under == key && Some(segment.id) != now);
    let mut pids: Vec<u32> = older.flat_map(|segment| segment.pids.iter().copied()).collect();
    pids.sort_unstable();
    pids.dedup();
    if !pids.is_empty() {
        leftovers::removed(check, &address.to_string(), &pids);
    }
}

/// Why it cannot be used, and what helps.
fn unusable(check: &mut Check, address: &Address, error: &SetupError) {
    check.fact("error", exit::code_of(error).name());
    if let SetupError::Os { .. } | SetupError::Busy { .. } = error {
        return check.cannot_tell(error.to_string());
    }
    check.summary(format!("{address} cannot be used"));
    let path = path_of(address).map(|path| path.display().to_string());
    let (why, mend) = match error {
        SetupError::NotFound { .. } if address.kind() == AddressKind::SysV && !namespaces::ipc_is_the_machines() => (
            "it may be in another IPC namespace: this process has one of its own, and sees only what is in it",
            "nsenter --ipc --target PID shmpipe doctor ...   # PID: a process that has the pipe; Docker: --ipc=host".to_owned(),
        ),
        SetupError::NotFound { .. } | SetupError::Removed { .. } => (
            "neither side can use it before it is made; whoever sends or receives makes it",
            match address.to_string().strip_prefix("memfd:") {
                Some(path) => format!("shmpipe serve {path}"),
                None if path.is_some() && namespaces::container().is_some() => format!(
                    "shmpipe create {address}   # or, where it is in another mount namespace: nsenter --mount --target PID ...; \
                     Docker: --ipc=container:NAME for posix:, a volume for file:"
                ),
                None => format!("shmpipe create {address}"),
            },
        ),
        SetupError::PermissionDenied { permissions, .. } => (
            "both sides need to read and write it",
            match permissions {
                Some(permissions) => format!("sudo -u {} shmpipe doctor {address}", users::name(permissions.uid)),
                None => format!("sudo shmpipe doctor {address}"),
            },
        ),
        SetupError::Untrusted { uid, .. } | SetupError::Stranger { uid, .. } => (
            "whoever owns a pipe can remove it and take its roles; only root and ourselves are trusted unasked",
            format!("shmpipe recv {address} --trust-uid {uid}"),
        ),
        SetupError::WorldWritable { permissions, .. } => (
            "whoever may write to it can be the other end, and change every message",
            format!("shmpipe rm {address}   # and make it anew; or, if that is meant: shmpipe recv {address} --mode {:o}", permissions.mode),
        ),
        SetupError::NoUndo { .. } => (
            "the role of a side that is killed would stay taken for ever",
            "shmpipe doctor   # says more; use a memfd:, posix: or file: address".to_owned(),
        ),
        SetupError::ClaimsLost { .. } => (
            "one of them may still send or receive, and a second one would spoil what it does",
            format!("shmpipe ls   # and end those who have it open; then shmpipe rm {address}"),
        ),
        SetupError::HalfMade { .. } => ("its creator died", format!("shmpipe rm {address}")),
        SetupError::Foreign { .. } | SetupError::NotAFile { .. } => (
            "somebody else uses that place; it is left alone",
            match &path {
                Some(path) => format!("ls -l {path}   # shows what it is; use another path"),
                None => "ipcs -m -p   # shows whose it is; use another name or key".to_owned(),
            },
        ),
        SetupError::FileSystem { .. } => (
            "two processes that map a file there need not see the same bytes",
            format!("df -T {}   # use a path on a local disk, or posix:/NAME", path.unwrap_or_default()),
        ),
        SetupError::OtherName { .. } => {
            ("two names with the same key cannot be used at the same time", "shmpipe ls   # and use another name".to_owned())
        }
        SetupError::Unsealed { .. } => (
            "whoever has it could cut it, and end every process that touches what was cut",
            "shmpipe serve PATH   # makes one that is sealed".to_owned(),
        ),
        _ => ("it is refused to both sides", format!("shmpipe rm --force {address}")),
    };
    check.find(error.to_string(), why, mend);
}

/// The pipe without its sides.
fn itself(check: &mut Check, address: &Address, snapshot: &Snapshot, pids: &[u32]) {
    let Snapshot { permissions, used, capacity, is_open, .. } = snapshot;
    let age = SystemTime::now().duration_since(snapshot.created).unwrap_or_default();
    let unread = snapshot.unread();
    check.fact("used_bytes", *used);
    check.fact("capacity_bytes", *capacity);
    check.fact("unread_messages", unread);
    check.fact("age_seconds", age.as_secs());
    check.fact("owner_uid", permissions.uid);
    check.fact("creator_uid", snapshot.creator);
    check.fact("mode", format!("{:04o}", permissions.mode));
    check.fact("open_in_pids", pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    check.summary(format!(
        "{} of {} used, {unread} unread; {} old, of {}, mode {:04o}; open in {}",
        units::show_size(*used),
        units::show_size(*capacity),
        units::show_age(age),
        users::name(permissions.uid),
        permissions.mode,
        match pids.len() {
            0 if *is_open => "processes that we may not see".to_owned(),
            0 => "no process".to_owned(),
            1 => "1 process".to_owned(),
            more => format!("{more} processes"),
        },
    ));
    let path = path_of(address);
    let is_reached = path.is_some() || matches!(snapshot.object, Object::SysV { .. });
    // A memfd is for those who are given it, whatever its mode.
    if permissions.mode & 0o006 != 0 && is_reached {
        let mode = permissions.mode & 0o770;
        let (what, why) = match permissions.mode & 0o002 {
            0 => ("read", "everybody sees what is sent through it"),
            _ => ("write", "every user of this machine may take a role, send nonsense or remove it"),
        };
        check.find(
            format!("everybody may {what} it (mode {:04o})", permissions.mode),
            why,
            match path {
                Some(path) => format!("chmod {mode:04o} {}", path.display()),
                None => {
                    format!("shmpipe rm {address} && shmpipe create {address} --mode {mode:04o}   # what is in it is lost")
                }
            },
        );
    }
    if snapshot.stale {
        check.find(
            "it was made before the machine was last started",
            "what the file system has kept of it need not fit together, so that it is refused",
            format!("shmpipe recv {address} --remake-stale   # or: shmpipe rm {address}; what is in it is lost either way"),
        );
    }
    if pipes::has_lost_set(snapshot) {
        let kill = match pids.is_empty() {
            true => String::new(),
            false => {
                format!("kill {}; ", pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
            }
        };
        check.find(
            "its semaphore set is gone",
            "nobody can tell who has a role, so that it is refused while anybody has it open; systemd-logind removes sets \
             when their user logs out (RemoveIPC)",
            format!("{kill}shmpipe recv {address}   # or, with all that is in it: shmpipe rm --force {address}"),
        );
    }
}

/// One side, and what it does to the other.
fn a_side(name: &'static str, address: &Address, side: &Side, other: &Side) -> Check {
    let mut check = Check::new(name);
    let who = side.pid.and_then(Who::is);
    let state = match side.peer {
        Peer::NeverCame => "never_came",
        Peer::Open => "alive",
        Peer::Closed => "closed",
        Peer::Died => "died",
        Peer::Unknown => "unknown",
    };
    check.fact("state", state);
    check.fact("pid", side.pid);
    check.fact("command", who.as_ref().map(|who| who.command.clone()));
    check.fact("uid", who.as_ref().map(|who| who.uid));
    check.fact("process_age_seconds", who.as_ref().and_then(|who| who.age).map(|age| age.as_secs()));
    check.fact("claims", side.epoch);
    check.fact("messages", side.messages);
    check.fact("position_bytes", side.position);
    let claims = match side.epoch {
        1 => "claimed once".to_owned(),
        n => format!("claimed {n} times"),
    };
    check.summary(match (side.peer, side.pid) {
        (Peer::NeverCame, _) => "has never come".to_owned(),
        (Peer::Open, Some(pid)) => format!("{}; {claims}", process::describe(pid)),
        (Peer::Open, None) => format!("a process not visible from here; {claims}"),
        (Peer::Closed, _) => format!("has closed; {claims}"),
        (Peer::Died, _) => format!("has died, and nobody has taken its place; {claims}"),
        (Peer::Unknown, _) => format!("cannot be told; {claims}"),
    });
    let (command, waits) = match name {
        "producer" => ("send", "the consumer waits for what does not come"),
        _ => ("recv", "the producer waits as soon as the pipe is full"),
    };
    if side.peer == Peer::Died && other.peer == Peer::Open {
        check.find(
            format!("the {name} has died, and the other side is still there"),
            format!("{waits}; a successor goes on where it stopped"),
            format!("shmpipe {command} {address}   # or start its program again"),
        );
    }
    if let Some(who) = who.filter(|who| who.stopped && side.peer == Peer::Open) {
        check.find(
            format!("the {name}, {}, is stopped", process::Shown(&who)),
            format!("it keeps its role and does nothing, and {waits}"),
            format!("kill -CONT {}", who.pid),
        );
    }
    check
}

fn path_of(address: &Address) -> Option<PathBuf> {
    address.path().ok().flatten()
}
