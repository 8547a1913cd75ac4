//! What pairs that have ended left behind.

use shmpipe::{Peer, SetupError, Snapshot};

use super::check::Check;
use crate::output::process;
use crate::output::units;
use crate::system::pipes::{self, Found, Place};

const NAME: &str = "leftovers";

/// More names than these are not listed one by one.
const NAMED: usize = 5;

/// Looks for pipes that somebody has used and that nobody has open any more. `trouble`: why not all could be found.
pub fn check(pipes: &[&Found], trouble: Option<SetupError>) -> Check {
    let mut check = Check::new(NAME);
    let used = |found: &&Found| found.snapshot.as_ref().is_ok_and(has_been_used);
    let left: Vec<&Found> = pipes.iter().copied().filter(|found| !found.is_open).filter(used).collect();
    let (mut empty, mut waiting) = (Vec::new(), 0);
    for found in &left {
        let (Ok(snapshot), Place::At(address)) = (&found.snapshot, &found.place) else { continue };
        match (pipes::unread(snapshot), who_died(snapshot)) {
            (0, _) => empty.push((address, snapshot.capacity)),
            (messages, Some(died)) => check.find(
                format!("{address}: {died} died, nobody has the pipe open, and {} unread", count(messages)),
                "whoever opens it next goes on in the middle of an old stream",
                format!("shmpipe recv {address}   # or, unread: shmpipe rm {address}"),
            ),
            // The producer closed before the consumer came: that is how it may be.
            (_, None) => waiting += 1,
        }
    }
    for found in pipes {
        if let Place::Removed { path, .. } = &found.place {
            removed(&mut check, &path.display().to_string(), &found.openers);
        }
    }
    if let [(first, _), ..] = empty[..] {
        let bytes: u64 = empty.iter().map(|(_, size)| size).sum();
        let names: Vec<String> = empty.iter().take(NAMED).map(|(address, _)| address.to_string()).collect();
        let more =
            if empty.len() > NAMED { format!(" and {} more", empty.len() - NAMED) } else { String::new() };
        let (pipes, have) = if empty.len() == 1 { ("pipe", "has") } else { ("pipes", "have") };
        check.find(
            format!(
                "{} {pipes} that nobody has open and that {have} nothing left to read: {}{more}",
                empty.len(),
                names.join(", ")
            ),
            match empty.len() {
                1 => format!("it keeps {} of memory until it is removed", units::show_size(bytes)),
                _ => format!("they keep {} of memory until they are removed", units::show_size(bytes)),
            },
            match empty.len() {
                1 => format!("shmpipe rm {first}"),
                ..=NAMED => format!("shmpipe rm --stale {}", names.join(" ")),
                _ => "shmpipe rm --stale".to_owned(),
            },
        );
    }
    let open = pipes.iter().filter(|found| found.is_open).count();
    check.fact("pipes", pipes.len());
    check.fact("open", open);
    check.fact("left_empty", empty.len());
    check.fact("left_with_messages", left.len() - empty.len());
    check.fact("waiting_for_a_consumer", waiting);
    check.summary(match (pipes.len(), waiting) {
        (0, _) => "there are no pipes".to_owned(),
        (1, 0) => format!("1 pipe, {open} open"),
        (all, 0) => format!("{all} pipes, {open} open"),
        (all, _) => format!("{all} pipes, {open} open, {waiting} with messages for a consumer yet to come"),
    });
    if let Some(trouble) = trouble {
        check.cannot_tell(trouble.to_string());
    }
    let is_told = |found: &&&Found| !matches!(found.place, Place::Removed { .. });
    if let Some((found, error)) =
        pipes.iter().filter(is_told).find_map(|found| Some((found, found.snapshot.as_ref().err()?)))
    {
        check.cannot_tell(format!("{}: {error}", found.place));
    }
    check
}

/// Processes have a pipe open that was removed.
pub fn removed(check: &mut Check, from: &str, openers: &[u32]) {
    let who: Vec<String> = openers.iter().map(|&pid| process::describe(pid)).collect();
    let pids: Vec<String> = openers.iter().map(ToString::to_string).collect();
    check.find(
        format!("a pipe that was removed from {from} is still open: {}", who.join(", ")),
        "nobody else finds that one any more; its ends hear of it when they wait",
        format!("kill {}   # and start them again", pids.join(" ")),
    );
}

fn has_been_used(snapshot: &Snapshot) -> bool {
    snapshot.producer.epoch > 0 || snapshot.consumer.epoch > 0
}

fn who_died(snapshot: &Snapshot) -> Option<&'static str> {
    match (snapshot.producer.peer, snapshot.consumer.peer) {
        (Peer::Died, Peer::Died) => Some("both sides have"),
        (Peer::Died, _) => Some("the producer has"),
        (_, Peer::Died) => Some("the consumer has"),
        _ => None,
    }
}

fn count(messages: u64) -> String {
    match messages {
        1 => "1 message is".to_owned(),
        _ => format!("{messages} messages are"),
    }
}
