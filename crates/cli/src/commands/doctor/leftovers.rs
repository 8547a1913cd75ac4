//! Pipes that ended pairs left behind.

use shmpipe::{Address, Listed, Location, Peer, SetupError, Snapshot};

use super::check::Check;
use crate::output::description::{sides, the};
use crate::output::process;
use crate::output::units;
use crate::output::{shell_address, show_path};
use crate::system::pipes;

const NAME: &str = "leftovers";

/// At most this many are listed by name.
const NAMED: usize = 5;

/// Looks for pipes that were used and that no process has open: among all pipes, and the one that the user asked about, which
/// need not be among them. `trouble`: why pipes are missing.
pub fn check(pipes: &[Listed], asked: Option<(&Address, &Snapshot)>, trouble: Option<SetupError>) -> Check {
    let mut check = Check::new(NAME);
    let asked =
        asked.filter(|(_, asked)| pipes.iter().all(|listed| pipes::id(listed) != Some(asked.segment_id)));
    let readable =
        pipes.iter().filter_map(|listed| Some((listed.location.address()?, listed.snapshot.as_ref().ok()?)));
    let left: Vec<(&Address, &Snapshot)> =
        readable.chain(asked).filter(|(_, snapshot)| !snapshot.is_open && has_been_used(snapshot)).collect();
    let (mut empty, mut waiting) = (Vec::new(), 0);
    for &(address, snapshot) in &left {
        match (snapshot.unread(), who_died(snapshot)) {
            (0, _) => empty.push((address, snapshot.capacity * if snapshot.duplex { 2 } else { 1 })),
            (messages, Some(died)) => check.find(
                format!(
                    "{address}: {died} died, the pipe is open in no process, and {} unread",
                    count(messages)
                ),
                "the next user of the pipe continues in the middle of an old stream",
                format!(
                    "shmpipe {} {quoted}   # or, to drop the messages: shmpipe rm {quoted}",
                    receiving(snapshot),
                    quoted = shell_address(address),
                ),
            ),
            // The producer closed before a consumer came: intended.
            (_, None) => waiting += 1,
        }
    }
    for listed in pipes {
        if let Location::Removed { path, .. } = &listed.location {
            removed(&mut check, &show_path(path), &listed.pids);
        }
    }
    if let [(first, _), ..] = empty[..] {
        let bytes: u64 = empty.iter().map(|(_, size)| size).sum();
        let named = || empty.iter().take(NAMED).map(|&(address, _)| address);
        let names: Vec<String> = named().map(Address::to_string).collect();
        let words: Vec<String> = named().map(shell_address).collect();
        let more =
            if empty.len() > NAMED { format!(" and {} more", empty.len() - NAMED) } else { String::new() };
        let pipes = if empty.len() == 1 { "pipe" } else { "pipes" };
        check.find(
            format!("{} {pipes} open in no process and empty: {}{more}", empty.len(), names.join(", ")),
            match empty.len() {
                1 => format!("it takes {} of memory until it is removed", units::show_size(bytes)),
                _ => format!("they take {} of memory until they are removed", units::show_size(bytes)),
            },
            match empty.len() {
                1 => format!("shmpipe rm {}", shell_address(first)),
                ..=NAMED => format!("shmpipe rm --stale {}", words.join(" ")),
                _ => "shmpipe rm --stale".to_owned(),
            },
        );
    }
    let open = pipes.iter().filter(|listed| listed.is_open).count()
        + usize::from(asked.is_some_and(|(_, asked)| asked.is_open));
    let all = pipes.len() + usize::from(asked.is_some());
    check.fact("pipes", all);
    check.fact("open", open);
    check.fact("left_empty", empty.len());
    check.fact("left_with_messages", left.len() - empty.len());
    check.fact("waiting_for_a_consumer", waiting);
    check.summary(match (all, waiting) {
        (0, _) => "there are no pipes".to_owned(),
        (1, 0) => format!("1 pipe, {open} open"),
        (all, 0) => format!("{all} pipes, {open} open"),
        (all, _) => format!("{all} pipes, {open} open, {waiting} with messages for a future consumer"),
    });
    if let Some(trouble) = trouble {
        check.unknown(trouble.to_string());
    }
    let unreadable = pipes
        .iter()
        .filter(|listed| !matches!(listed.location, Location::Removed { .. }))
        .find_map(|listed| Some((listed, listed.snapshot.as_ref().err()?)));
    if let Some((listed, error)) = unreadable {
        check.unknown(format!("{}: {error}", listed.location));
    }
    check
}

/// Reports processes that still have a removed pipe open.
pub fn removed(check: &mut Check, from: &str, pids: &[u32]) {
    let who: Vec<String> = pids.iter().map(|&pid| process::describe(pid)).collect();
    let list: Vec<String> = pids.iter().map(ToString::to_string).collect();
    check.find(
        format!("a pipe that was removed from {from} is still open: {}", who.join(", ")),
        "no other process can find it; its users get an error when they next wait",
        format!("kill {}   # then restart them", list.join(" ")),
    );
}

fn has_been_used(snapshot: &Snapshot) -> bool {
    snapshot.producer.epoch > 0 || snapshot.consumer.epoch > 0
}

fn who_died(snapshot: &Snapshot) -> Option<String> {
    match sides(snapshot).map(|(name, side)| (name, side.peer)) {
        [(_, Peer::Died), (_, Peer::Died)] => Some("both sides".to_owned()),
        [(name, Peer::Died), _] | [_, (name, Peer::Died)] => Some(the(name)),
        _ => None,
    }
}

/// The command that receives from a pipe.
pub fn receiving(snapshot: &Snapshot) -> &'static str {
    if snapshot.duplex { "duplex" } else { "recv" }
}

fn count(messages: u64) -> String {
    match messages {
        1 => "1 message is".to_owned(),
        _ => format!("{messages} messages are"),
    }
}
