//! All pipes of this machine.

use std::thread;
use std::time::Duration;

use shmpipe::{Listed, Listing, Location, Object, SegmentId, SetupError, Snapshot};

/// Longer than a watcher has a pipe mapped.
const WATCHED: Duration = Duration::from_millis(100);

/// [`all`], without leftovers that were created to be removed by who looks: they are removed.
pub fn find() -> (Vec<Listed>, Option<SetupError>) {
    let (mut pipes, trouble) = all();
    pipes.retain(|pipe| !is_removed_leftover(pipe));
    (pipes, trouble)
}

/// Removes it if it is such a leftover, and if `unlink_leftover` trusts its owner.
fn is_removed_leftover(pipe: &Listed) -> bool {
    let (Location::Address(address), Ok(snapshot)) = (&pipe.location, &pipe.snapshot) else { return false };
    snapshot.remove_leftover && !snapshot.is_open && shmpipe::unlink_leftover(address).unwrap_or(false)
}

/// Finds all pipes, also those whose semaphore set is gone. The error says why some are missing.
pub fn all() -> (Vec<Listed>, Option<SetupError>) {
    let Listing { mut pipes, sysv_error, files_error, .. } = shmpipe::list();
    pipes.extend(shmpipe::list_unguarded().unwrap_or_default());
    (pipes, sysv_error.or(files_error))
}

/// Finds all pipes, without the pids of watchers: looks twice, since a watcher has a pipe mapped only for a moment.
pub fn find_with_lasting_pids() -> (Vec<Listed>, Option<SetupError>) {
    let (mut pipes, error) = find();
    thread::sleep(WATCHED);
    let (later, _) = find();
    for pipe in &mut pipes {
        let later = later.iter().find(|later| later.object == pipe.object);
        pipe.pids.retain(|pid| later.is_some_and(|later| later.pids.contains(pid)));
    }
    (pipes, error)
}

/// The number of a pipe's segment, if it may be read.
pub fn id(pipe: &Listed) -> Option<SegmentId> {
    pipe.snapshot.as_ref().ok().map(|snapshot| snapshot.segment_id)
}

/// Whether a System V pipe has lost its semaphore set.
pub fn has_lost_set(snapshot: &Snapshot) -> bool {
    matches!(snapshot.object, Object::SysV { sem_id: None, .. })
}
