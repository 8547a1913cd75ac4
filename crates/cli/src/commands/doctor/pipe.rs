//! One pipe: whether it can be used, and the state of its two sides.

use shmpipe::error::{Damage, Distrust, FileProblem, Mismatch, MissingFeature};
use shmpipe::{Address, AddressKind, Lost, Object, Peer, SetupError, Side, Snapshot};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::SystemTime;

use shmpipe::sysvipc::Segment;

use super::check::Check;
use super::{leftovers, namespaces};
use crate::exit;
use crate::output::description::{sides, the};
use crate::output::process;
use crate::output::units;
use crate::output::{shell, shell_address};
use crate::system::pipes;
use crate::system::processes::ProcessInfo;
use crate::system::users;

/// Checks the pipe and its sides. `pids` are the visible processes that have it mapped.
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
            check_pipe(&mut pipe, address, &snapshot, pids);
            let [(first_name, first), (second_name, second)] = sides(&snapshot);
            let first_check = check_side(first_name, address, first, second);
            vec![pipe, first_check, check_side(second_name, address, second, first)]
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

/// Reports why it cannot be used, and the fix.
fn unusable(check: &mut Check, address: &Address, error: &SetupError) {
    check.fact("error", exit::code_of(error).name());
    if let SetupError::Os { .. } | SetupError::Busy { .. } = error {
        return check.unknown(error.to_string());
    }
    check.summary(format!("{address} cannot be used"));
    let path = path_of(address).map(shell);
    let quoted = shell_address(address);
    let (why, fix) = match error {
        SetupError::NotFound { .. } if address.kind() == AddressKind::SysV && !namespaces::ipc_is_the_machines() => (
            "it may be in another IPC namespace: this process is in one of its own and sees only the pipes there",
            "nsenter --ipc --target PID shmpipe doctor ...   # PID: a process that has the pipe; Docker: --ipc=host".to_owned(),
        ),
        SetupError::NotFound { .. } | SetupError::Lost { lost: Lost::Removed, .. } => (
            "it must be created first; send and recv do that",
            match address.to_os_string().as_bytes().strip_prefix(b"memfd:") {
                Some(path) => format!("shmpipe serve {}", shell(OsStr::from_bytes(path))),
                None if path.is_some() && namespaces::container().is_some() => format!(
                    "shmpipe create {quoted}   # or, where it is in another mount namespace: nsenter --mount --target PID ...; \
                     Docker: --ipc=container:NAME for posix:, a volume for file:"
                ),
                None => format!("shmpipe create {quoted}"),
            },
        ),
        SetupError::PermissionDenied { permissions, .. } => (
            "both sides need read and write permission",
            match permissions {
                Some(permissions) => format!("sudo -u {} shmpipe doctor {quoted}", users::name(permissions.uid)),
                None => format!("sudo shmpipe doctor {quoted}"),
            },
        ),
        SetupError::Untrusted(Distrust::Owner { uid, .. }) | SetupError::Untrusted(Distrust::Peer { uid, .. }) => (
            "the owner of a pipe can remove it and take its roles; only root and the current user are trusted by default",
            format!("shmpipe recv {quoted} --trust-uid {uid}"),
        ),
        SetupError::Untrusted(Distrust::WorldWritable { permissions, .. }) => (
            "every user who may write to it can be the other side, and change every message",
            format!("shmpipe rm {quoted}   # then recreate it; or, if intended: shmpipe recv {quoted} --mode {:o}", permissions.mode),
        ),
        SetupError::Kernel(MissingFeature::Undo { .. }) => (
            "a process killed while it creates, opens or removes the pipe would leave it locked",
            "shmpipe doctor   # has details; use a memfd:, posix: or file: address".to_owned(),
        ),
        SetupError::Damaged(Damage::Incomplete { .. }) => ("its creator died", format!("shmpipe rm {quoted}")),
        SetupError::Foreign { .. } | SetupError::File(FileProblem::NotRegular { .. }) => (
            "another program uses that address; it is left alone",
            match &path {
                Some(path) => format!("ls -l {path}   # shows the file; use another path"),
                None => "ipcs -m -p   # shows its owner; use another name or key".to_owned(),
            },
        ),
        SetupError::File(FileProblem::FileSystem { .. }) => (
            "processes that map a file there may not see the same bytes",
            format!("df -T {}   # use a path on a local disk, or posix:/NAME", path.unwrap_or_default()),
        ),
        SetupError::Incompatible(Mismatch::Name { .. }) => {
            ("two names with the same key cannot be used at the same time", "shmpipe ls   # then use another name".to_owned())
        }
        SetupError::Untrusted(Distrust::Unsealed { .. }) => (
            "a process that has it could shrink it, which would kill every process that then touches it",
            "shmpipe serve PATH   # creates a sealed one".to_owned(),
        ),
        _ => ("both sides refuse it", format!("shmpipe rm --force {quoted}")),
    };
    check.find(error.to_string(), why, fix);
}

/// Checks the pipe without its sides.
fn check_pipe(check: &mut Check, address: &Address, snapshot: &Snapshot, pids: &[u32]) {
    let Snapshot { permissions, capacity, is_open, .. } = snapshot;
    let used = snapshot.used + snapshot.back.as_ref().map_or(0, |back| back.used);
    let capacity = if snapshot.duplex { 2 * capacity } else { *capacity };
    let receiving = leftovers::receiving(snapshot);
    let age = SystemTime::now().duration_since(snapshot.created).unwrap_or_default();
    let unread = snapshot.unread();
    check.fact("used_bytes", used);
    check.fact("capacity_bytes", capacity);
    check.fact("unread_messages", unread);
    check.fact("age_seconds", age.as_secs());
    check.fact("owner_uid", permissions.uid);
    check.fact("creator_uid", snapshot.creator);
    check.fact("mode", format!("{:04o}", permissions.mode));
    check.fact("open_in_pids", pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    check.summary(format!(
        "{} of {} used, {unread} unread; {} old, of {}, mode {:04o}; open in {}",
        units::show_size(used),
        units::show_size(capacity),
        units::show_age(age),
        users::name(permissions.uid),
        permissions.mode,
        match pids.len() {
            0 if *is_open => "processes that are not visible here".to_owned(),
            0 => "no process".to_owned(),
            1 => "1 process".to_owned(),
            more => format!("{more} processes"),
        },
    ));
    let path = path_of(address);
    let quoted = shell_address(address);
    let is_reached = path.is_some() || matches!(snapshot.object, Object::SysV { .. });
    // Only processes that receive a memfd can open it, whatever its mode.
    if permissions.mode & 0o006 != 0 && is_reached {
        let mode = permissions.mode & 0o770;
        let (what, why) = match permissions.mode & 0o002 {
            0 => ("read", "every user of this machine can read the messages"),
            _ => ("write", "every user of this machine can take a role, send garbage or remove the pipe"),
        };
        check.find(
            format!("every user may {what} it (mode {:04o})", permissions.mode),
            why,
            match path {
                Some(path) => format!("chmod {mode:04o} {}", shell(path)),
                None => {
                    format!("shmpipe rm {quoted} && shmpipe create {quoted} --mode {mode:04o}   # its messages are lost")
                }
            },
        );
    }
    if snapshot.stale {
        check.find(
            "it is from before the last boot",
            "the file system may have kept only parts of it, so it is refused",
            format!("shmpipe {receiving} {quoted} --recreate-stale   # or: shmpipe rm {quoted}; its messages are lost either way"),
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
            "without the set no process can tell which roles are taken, so the pipe is refused while it is open; \
             systemd-logind removes sets when their user logs out (RemoveIPC)",
            format!("{kill}shmpipe {receiving} {quoted}   # or, messages included: shmpipe rm --force {quoted}"),
        );
    }
}

/// Checks one side, and what it means for the other.
fn check_side(name: &'static str, address: &Address, side: &Side, other: &Side) -> Check {
    let mut check = Check::new(name);
    let who = side.pid.and_then(ProcessInfo::of);
    let state = match side.peer {
        Peer::NeverCame => "never_came",
        Peer::Open => "alive",
        Peer::Closed => "closed",
        Peer::Aborted { .. } => "aborted",
        Peer::Died => "died",
        Peer::Unknown => "unknown",
    };
    check.fact("state", state);
    check.fact("abort_code", side.peer.abort_code());
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
        (Peer::NeverCame, _) => "never attached".to_owned(),
        (Peer::Open, Some(pid)) => format!("{}; {claims}", process::describe(pid)),
        (Peer::Open, None) => format!("a process that is not visible here; {claims}"),
        (Peer::Closed, _) => format!("closed; {claims}"),
        (Peer::Aborted { code }, _) => format!("aborted with code {code}; {claims}"),
        (Peer::Died, _) => format!("died and has no successor; {claims}"),
        (Peer::Unknown, _) => format!("unknown; {claims}"),
    });
    let (command, waits) = match name {
        "producer" => ("send", "the consumer waits for messages that do not come"),
        "side A" => ("duplex --side a", "the other side waits for messages that do not come"),
        "side B" => ("duplex --side b", "the other side waits for messages that do not come"),
        _ => ("recv", "the producer blocks as soon as the pipe is full"),
    };
    if side.peer == Peer::Died && other.peer == Peer::Open {
        check.find(
            format!("{} died, and the other side is still attached", the(name)),
            format!("{waits}; a successor continues where it stopped"),
            format!("shmpipe {command} {}   # or restart its program", shell_address(address)),
        );
    }
    if let Some(who) = who.filter(|who| who.stopped && side.peer == Peer::Open) {
        check.find(
            format!("{}, {}, is stopped", the(name), process::Shown(&who)),
            format!("it holds its role and does nothing, and {waits}"),
            format!("kill -CONT {}", who.pid),
        );
    }
    check
}

fn path_of(address: &Address) -> Option<PathBuf> {
    address.path().ok().flatten()
}
