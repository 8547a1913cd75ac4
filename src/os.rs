//! What this crate asks of Linux beside shared memory.

pub(crate) mod fork;
pub(crate) mod maps;
pub(crate) mod membarrier;
pub(crate) mod process;
pub(crate) mod sysvipc;
