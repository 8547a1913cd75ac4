//! Output, for people and for programs.

pub mod columns;
pub mod description;
pub mod process;
pub mod progress;
pub mod report;
pub mod units;
