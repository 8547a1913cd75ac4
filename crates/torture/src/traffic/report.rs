//! A report of the state for a failure.

use super::words::{ATTEMPT, BEGUN, HOLDER, RELEASED, SENT, TAKEN};
use shmpipe_testing::backend::Place;
use shmpipe_testing::journal::Journal;
use std::fs;

/// Prints the state of a pipe, its journal and its two processes on standard error. Of each process, the number started so far.
pub fn describe(place: &Place, journal: &Journal, processes: [(&str, u64, Option<i32>); 2]) {
    eprintln!("pipe: {:#?}", shmpipe::inspect(place));
    eprintln!(
        "journal: attempt (first, count, position) {:?}; sent {}; taken (next, last position + 1) {:?}; released {}",
        journal.entry::<3>(ATTEMPT),
        journal.get(SENT),
        journal.entry::<2>(TAKEN),
        journal.get(RELEASED)
    );
    for (which, (name, started, pid)) in processes.into_iter().enumerate() {
        let [begun, holder] = [BEGUN, HOLDER].map(|words| journal.get(words[which]));
        eprintln!("{name}: {started} started, {begun} last to begin, {holder} last to use the role");
        let Some(pid) = pid else { continue };
        for file in ["wchan", "syscall", "stat", "stack"] {
            let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            eprintln!("  {file}: {}", text.trim_end().replace('\n', "; "));
        }
    }
}
