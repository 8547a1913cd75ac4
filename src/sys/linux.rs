//! Linux.

pub(crate) mod clock;
pub(crate) mod event_fd;
pub(crate) mod fork;
pub(crate) mod futex;
pub(crate) mod limits;
pub(crate) mod maps;
pub(crate) mod membarrier;
pub(crate) mod memfd;
pub(crate) mod mounts;
pub(crate) mod process;
pub(crate) mod sysvipc;
pub(crate) mod thread;
