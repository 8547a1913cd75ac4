//! What the fuzzer decides: how the segment is spoilt, and what is then asked of the library.

use arbitrary::Arbitrary;
use shmpipe_fuzz::spoil::Patch;

/// One run.
#[derive(Debug, Arbitrary)]
pub struct Input<'a> {
    /// Start from a pipe that has been in use: records in the ring, one behind a wrap, both sides have come and gone.
    pub used: bool,
    pub patches: Vec<Patch<'a>>,
    pub steps: Vec<Step<'a>>,
}

/// A call.
#[derive(Debug, Arbitrary)]
pub enum Step<'a> {
    Patch(Patch<'a>),
    /// Somebody sets a semaphore: not INIT, for which everybody would have to wait.
    Semaphore {
        number: u8,
        value: Setting,
    },
    /// The header names another set: that of a pipe that must not suffer from it, or one that is no pipe's.
    OtherSet {
        foreign: bool,
    },
    /// With `alone`, the harness is not attached meanwhile, so that the library may believe that nobody is.
    Open {
        alone: bool,
        schema: bool,
    },
    Producer,
    Consumer,
    /// Sends a few bytes.
    Send(u8),
    /// Takes all that is there.
    Drain {
        keep: bool,
    },
    CloseProducer,
    CloseConsumer,
    ClosePipe,
    Inspect,
    List,
    Unlink {
        force: bool,
    },
}

/// The value of a semaphore.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Setting {
    Zero,
    One,
    Making,
    Any(u16),
}
