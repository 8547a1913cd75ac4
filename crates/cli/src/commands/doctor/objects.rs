//! System V objects that do not belong together as those of a pipe should.

use std::io;
use std::mem::{Discriminant, discriminant};
use std::thread;
use std::time::Duration;

use super::check::Check;
use crate::output::process;
use crate::system::pipes;
use crate::system::processes::Shared;
use crate::system::sysvipc::{self, Row, Set};

const NAME: &str = "System V";

/// What is wrong with a segment, or with a set.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// A pipe's set whose segment is gone.
    NoSegment { set: Row },
    /// A pipe's set under whose key somebody else has a segment by now.
    Foreign { set: Row, segment: Row },
    /// The segment was removed, and some have it open.
    Removed { set: Row, segment: Row },
    /// The creator of a pipe has died at it.
    HalfMade { set: Row },
    /// The set of a pipe is gone.
    NoSet { segment: Row },
}

impl Wrong {
    /// What stays the same from look to look: what is wrong, the set and the segment.
    fn id(&self) -> (Discriminant<Wrong>, Option<i32>, Option<i32>) {
        let (set, segment) = match self {
            Wrong::NoSegment { set } | Wrong::HalfMade { set } => (Some(set), None),
            Wrong::Foreign { set, segment } | Wrong::Removed { set, segment } => (Some(set), Some(segment)),
            Wrong::NoSet { segment } => (None, Some(segment)),
        };
        (discriminant(self), set.map(|row| row.id), segment.map(|row| row.id))
    }
}

/// Looks at all sets, and at the segments that might be pipes without one.
pub fn check(shared: &Shared) -> Check {
    // What is being made or removed at this moment looks wrong as well. It does not a moment later.
    let wrong = look().and_then(|first| {
        if !first.is_empty() {
            thread::sleep(Duration::from_millis(100));
        }
        let again = look()?;
        let is_still = |wrong: &Wrong| again.iter().any(|other| other.id() == wrong.id());
        Ok(first.into_iter().filter(is_still).collect::<Vec<_>>())
    });
    let wrong = match wrong {
        Ok(wrong) => wrong,
        Err(error) => return Check::impossible(NAME, format!("/proc/sysvipc: {error}")),
    };
    let mut check = Check::new(NAME);
    check.fact("wrong", wrong.len());
    check.summary(match wrong.len() {
        0 => "segments and semaphore sets belong together".to_owned(),
        1 => "1 object that should not be there".to_owned(),
        more => format!("{more} objects that should not be there"),
    });
    for wrong in wrong {
        tell(&mut check, wrong, shared);
    }
    check
}

fn look() -> io::Result<Vec<Wrong>> {
    let (segments, sets) = (sysvipc::segments()?, sysvipc::sets()?);
    let ours: Vec<(Row, Set)> = sets.iter().filter_map(|row| Some((*row, Set::of(row)?))).collect();
    let mut wrong: Vec<Wrong> = ours.iter().filter_map(|(row, set)| of_set(row, set, &segments)).collect();
    wrong.extend(
        segments
            .iter()
            .filter(|segment| is_without_set(segment, &ours))
            .map(|&segment| Wrong::NoSet { segment }),
    );
    Ok(wrong)
}

fn of_set(row: &Row, set: &Set, segments: &[Row]) -> Option<Wrong> {
    let set_row = *row;
    if set.locked {
        return None;
    }
    if !set.made {
        return Some(Wrong::HalfMade { set: set_row });
    }
    let under_key = || segments.iter().find(|segment| row.key != 0 && segment.key == row.key).copied();
    match segments.iter().find(|segment| segment.id == set.segment) {
        Some(segment) if segment.removed => Some(Wrong::Removed { set: set_row, segment: *segment }),
        Some(segment) if segment.key == row.key => None,
        _ => Some(match under_key() {
            Some(segment) => Wrong::Foreign { set: set_row, segment },
            None => Wrong::NoSegment { set: set_row },
        }),
    }
}

/// Whether a segment is a pipe that no set guards.
fn is_without_set(segment: &Row, sets: &[(Row, Set)]) -> bool {
    let is_guarded =
        sets.iter().any(|(row, set)| set.segment == segment.id || row.key == segment.key && row.key != 0);
    !is_guarded && pipes::without_set(segment).is_some()
}

/// What a pipe's key, or its set, is called on the command line.
fn named(key: i32, kind: &str, id: i32) -> String {
    match key {
        0 => format!("{kind} {id}"),
        key => format!("sysv:{key:#x}"),
    }
}

fn tell(check: &mut Check, wrong: Wrong, shared: &Shared) {
    let holders = |shm_id| {
        let pids = shared.segment(shm_id);
        let who: Vec<String> = pids.iter().map(|&pid| process::describe(pid)).collect();
        let kill: Vec<String> = pids.iter().map(ToString::to_string).collect();
        match pids.is_empty() {
            true => (
                "processes that we may not see have it open".to_owned(),
                "ipcs -m -p   # shows who".to_owned(),
            ),
            false => (format!("open in {}", who.join(", ")), format!("kill {}", kill.join(" "))),
        }
    };
    match wrong {
        Wrong::NoSegment { set } => check.find(
            format!("the semaphore set {} of a pipe has no segment", set.id),
            "it counts towards the limit; whoever removed the pipe was killed at it, or removed the segment alone",
            match set.key {
                0 => format!("ipcrm -s {}", set.id),
                key => format!("shmpipe rm sysv:{key:#x}"),
            },
        ),
        Wrong::Foreign { set, segment } => check.find(
            format!("under {} there is a segment that is no pipe (shmid {}), beside the set of a pipe (semid {})", named(set.key, "", 0), segment.id, set.id),
            "no pipe can be made or opened there as long as somebody else uses the key",
            format!("ipcrm -s {}   # and use another name or key; ipcs -m -i {} tells whose segment it is", set.id, segment.id),
        ),
        Wrong::Removed { set, segment } => {
            let (who, kill) = holders(segment.id);
            check.find(
                format!("{} was removed while it was open: {who}", named(set.key, "shmid", segment.id)),
                "nobody finds this pipe any more; its ends hear of it when they wait",
                format!("{kill}; ipcrm -s {}", set.id),
            );
        }
        Wrong::HalfMade { set } => check.find(
            format!("{} is half-made: its creator died", named(set.key, "the pipe of semid", set.id)),
            "it is mended when somebody opens it to send or receive; until then it only takes space",
            match set.key {
                0 => format!("ipcrm -s {}", set.id),
                key => format!("shmpipe rm sysv:{key:#x}"),
            },
        ),
        Wrong::NoSet { segment } => {
            let address = match segment.key {
                0 => format!("sysv:id:{}", segment.id),
                key => format!("sysv:{key:#x}"),
            };
            let why = "without it nothing keeps a second producer or consumer away, so that the pipe is refused while \
                       it is open; systemd-logind removes sets when their user logs out (RemoveIPC)";
            match segment.attached {
                0 => check.find(
                    format!("the semaphore set of {address} is gone"),
                    "it gets a new one when it is opened to send or receive; systemd-logind removes sets when their user logs out (RemoveIPC)",
                    format!("shmpipe recv {address}   # or, with all that is in it: shmpipe rm {address}"),
                ),
                _ => {
                    let (who, kill) = holders(segment.id);
                    check.find(
                        format!("the semaphore set of {address} is gone while it is open: {who}"),
                        why,
                        format!("{kill}; shmpipe rm --force {address}"),
                    );
                }
            }
        }
    }
}
