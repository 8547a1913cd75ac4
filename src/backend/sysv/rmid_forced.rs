//! The sysctl `kernel.shm_rmid_forced`: with 1, the kernel removes a segment with its last attachment, unread messages included.

use crate::address::Address;
use crate::error::{MissingFeature, SetupError};
use crate::options::Options;
use std::fs;

/// Shows the value in the IPC namespace of the thread that reads it.
const SYSCTL: &str = "/proc/sys/kernel/shm_rmid_forced";

/// Fails where segments do not outlive their last attachment, unless the options allow it.
pub(super) fn check(address: &Address, options: &Options) -> Result<(), SetupError> {
    if options.allow_rmid_forced || !is_set() {
        return Ok(());
    }
    Err(SetupError::Kernel(MissingFeature::LastingSegments { address: address.clone() }))
}

/// Whether the sysctl is set. Where `/proc` does not show it, the default of every kernel counts: 0.
fn is_set() -> bool {
    fs::read_to_string(SYSCTL).is_ok_and(|value| value.trim() != "0")
}
