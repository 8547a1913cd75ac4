//! System V objects of pipes that do not belong together.

use std::mem::{Discriminant, discriminant};
use std::thread;
use std::time::Duration;

use shmpipe::sysvipc::{self, Objects, Segment, Set};
use shmpipe::{Object, SetupError};

use super::check::Check;
use crate::output::process;

const NAME: &str = "System V";

/// Something wrong with a segment, or with a semaphore set.
#[derive(Debug)]
enum Wrong {
    /// The segment of a pipe's set is gone.
    NoSegment { set: Set },
    /// The segment under the key of a pipe's set is not the pipe's.
    Foreign { set: Set, segment: Segment },
    /// The segment was removed while processes had it open.
    Removed { set: Set, segment: Segment },
    /// The creator of a pipe died before it was complete.
    Incomplete { set: Set },
    /// The set of a pipe is gone.
    NoSet { key: i32, shm_id: i32, pids: Vec<u32>, is_open: bool },
}

impl Wrong {
    /// What identifies it in a second look: the variant, the set and the segment.
    fn id(&self) -> (Discriminant<Wrong>, Option<i32>, Option<i32>) {
        let (set, segment) = match self {
            Wrong::NoSegment { set } | Wrong::Incomplete { set } => (Some(set.id), None),
            Wrong::Foreign { set, segment } | Wrong::Removed { set, segment } => {
                (Some(set.id), Some(segment.id))
            }
            Wrong::NoSet { shm_id, .. } => (None, Some(*shm_id)),
        };
        (discriminant(self), set, segment)
    }

    /// The processes that have the segment attached.
    fn pids(&self) -> &[u32] {
        match self {
            Wrong::NoSegment { .. } | Wrong::Incomplete { .. } => &[],
            Wrong::Foreign { segment, .. } | Wrong::Removed { segment, .. } => &segment.pids,
            Wrong::NoSet { pids, .. } => pids,
        }
    }

    fn keep_pids(&mut self, kept: &[u32]) {
        match self {
            Wrong::NoSegment { .. } | Wrong::Incomplete { .. } => {}
            Wrong::Foreign { segment, .. } | Wrong::Removed { segment, .. } => {
                segment.pids.retain(|pid| kept.contains(pid));
            }
            Wrong::NoSet { pids, .. } => pids.retain(|pid| kept.contains(pid)),
        }
    }
}

/// Checks all sets, and the segments that may be pipes without one.
pub fn check() -> Check {
    // A pipe that is being created or removed also looks wrong, but only for a moment: look twice.
    let wrong = look().and_then(|first| {
        if !first.is_empty() {
            thread::sleep(Duration::from_millis(100));
        }
        let again = look()?;
        let still = first.into_iter().filter_map(|mut wrong| {
            let again = again.iter().find(|again| again.id() == wrong.id())?;
            wrong.keep_pids(again.pids());
            Some(wrong)
        });
        Ok(still.collect::<Vec<_>>())
    });
    let wrong = match wrong {
        Ok(wrong) => wrong,
        Err(error) => return Check::impossible(NAME, error.to_string()),
    };
    let mut check = Check::new(NAME);
    check.fact("wrong", wrong.len());
    check.summary(match wrong.len() {
        0 => "segments and semaphore sets belong together".to_owned(),
        1 => "1 object that should not be there".to_owned(),
        more => format!("{more} objects that should not be there"),
    });
    for wrong in wrong {
        report(&mut check, wrong);
    }
    check
}

fn look() -> Result<Vec<Wrong>, SetupError> {
    let objects = sysvipc::objects()?;
    let mut wrong: Vec<Wrong> = objects.sets.iter().filter_map(|set| of_set(set, &objects)).collect();
    wrong.extend(shmpipe::list_unguarded()?.into_iter().filter_map(|pipe| match pipe.object {
        Object::SysV { key, shm_id, .. } => {
            Some(Wrong::NoSet { key, shm_id, pids: pipe.pids, is_open: pipe.is_open })
        }
        _ => None,
    }));
    Ok(wrong)
}

fn of_set(set: &Set, objects: &Objects) -> Option<Wrong> {
    let (set, pipe) = (*set, set.pipe?);
    if pipe.is_locked {
        return None;
    }
    if !pipe.is_complete {
        return Some(Wrong::Incomplete { set });
    }
    let under_key =
        || objects.segments.iter().find(|segment| set.key != 0 && segment.key == set.key).cloned();
    match objects.segment(pipe.segment) {
        Some(segment) if segment.is_removed => Some(Wrong::Removed { set, segment: segment.clone() }),
        Some(segment) if segment.key == set.key => None,
        _ => Some(match under_key() {
            Some(segment) => Wrong::Foreign { set, segment },
            None => Wrong::NoSegment { set },
        }),
    }
}

/// The address of a key, or the identifier of an object without one.
fn named(key: i32, kind: &str, id: i32) -> String {
    match key {
        0 => format!("{kind} {id}"),
        key => format!("sysv:{key:#x}"),
    }
}

fn report(check: &mut Check, wrong: Wrong) {
    let holders = |pids: &[u32]| {
        let who: Vec<String> = pids.iter().map(|&pid| process::describe(pid)).collect();
        let kill: Vec<String> = pids.iter().map(ToString::to_string).collect();
        match pids.is_empty() {
            true => (
                "processes that are not visible here have it open".to_owned(),
                "ipcs -m -p   # shows who".to_owned(),
            ),
            false => (format!("open in {}", who.join(", ")), format!("kill {}", kill.join(" "))),
        }
    };
    match wrong {
        Wrong::NoSegment { set } => check.find(
            format!("the semaphore set {} of a pipe has no segment", set.id),
            "it counts towards the limit; the process that removed the pipe was killed meanwhile, or removed only the segment",
            match set.key {
                0 => format!("ipcrm -s {}", set.id),
                key => format!("shmpipe rm sysv:{key:#x}"),
            },
        ),
        Wrong::Foreign { set, segment } => check.find(
            format!("the segment under {} (shmid {}) is not a pipe, but the set under that key is a pipe's (semid {})", named(set.key, "", 0), segment.id, set.id),
            "no pipe can be created or opened there while another program uses the key",
            format!("ipcrm -s {}   # and use another name or key; ipcs -m -i {} shows the owner of the segment", set.id, segment.id),
        ),
        Wrong::Removed { set, segment } => {
            let (who, kill) = holders(&segment.pids);
            check.find(
                format!("{} was removed while it was open: {who}", named(set.key, "shmid", segment.id)),
                "no other process can find this pipe; its users get an error when they next wait",
                format!("{kill}; ipcrm -s {}", set.id),
            );
        }
        Wrong::Incomplete { set } => check.find(
            format!("{} is incomplete: its creator died", named(set.key, "the pipe of semid", set.id)),
            "it is repaired when a sender or receiver opens it; until then it only takes space",
            match set.key {
                0 => format!("ipcrm -s {}", set.id),
                key => format!("shmpipe rm sysv:{key:#x}"),
            },
        ),
        Wrong::NoSet { key, shm_id, pids, is_open } => {
            let address = match key {
                0 => format!("sysv:id:{shm_id}"),
                key => format!("sysv:{key:#x}"),
            };
            let why = "without the set nothing excludes a second producer or consumer, so the pipe is refused while it is \
                       open; systemd-logind removes sets when their user logs out (RemoveIPC)";
            match is_open {
                false => check.find(
                    format!("the semaphore set of {address} is gone"),
                    "it gets a new one when a sender or receiver opens it; systemd-logind removes sets when their user logs out (RemoveIPC)",
                    format!("shmpipe recv {address}   # or, messages included: shmpipe rm {address}"),
                ),
                true => {
                    let (who, kill) = holders(&pids);
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
