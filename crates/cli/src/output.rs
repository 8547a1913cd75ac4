//! Output, for people and for programs.

pub mod columns;
pub mod description;
pub mod process;
pub mod progress;
pub mod report;
pub mod units;

/// Text that is safe to print on a terminal: with control characters escaped. Other users choose the names and paths of pipes.
pub fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}
