//! What there is to know when something is not as it should be.

use super::words::{ATTEMPT, BEGUN, HOLDER, RELEASED, SENT, TAKEN};
use shmpipe_testing::backend::Place;
use shmpipe_testing::journal::Journal;
use std::fs;

/// Says it on standard error, of a pipe, its journal and its two processes: how many of each were started, and the living ones.
pub fn describe(place: &Place, journal: &Journal, started: [u64; 2], pids: [Option<i32>; 2]) {
    eprintln!("pipe: {:#?}", shmpipe::inspect(place));
    eprintln!(
        "journal: about to send, how many, from {:?}; sent {}; next to take, behind {:?}; released {}",
        journal.entry::<3>(ATTEMPT),
        journal.get(SENT),
        journal.entry::<2>(TAKEN),
        journal.get(RELEASED)
    );
    for (which, name) in ["producer", "consumer"].into_iter().enumerate() {
        let [begun, holder] = [BEGUN, HOLDER].map(|words| journal.get(words[which]));
        eprintln!("{name}: {} started, begun {begun}, role used by {holder}", started[which]);
        let Some(pid) = pids[which] else { continue };
        for file in ["wchan", "syscall", "stat", "stack"] {
            let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            eprintln!("  {file}: {}", text.trim_end().replace('\n', "; "));
        }
    }
}
