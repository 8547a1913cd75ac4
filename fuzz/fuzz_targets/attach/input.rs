//! The fuzzer's input: changes of the segment, and calls of the library.

use arbitrary::Arbitrary;
use shmpipe_fuzz::spoil::Patch;

/// One run.
#[derive(Debug, Arbitrary)]
pub struct Input<'a> {
    /// Start from a used pipe: both sides have closed, and the ring has records, one behind a wrap.
    pub used: bool,
    pub patches: Vec<Patch<'a>>,
    pub steps: Vec<Step<'a>>,
}

/// A call.
#[derive(Debug, Arbitrary)]
pub enum Step<'a> {
    Patch(Patch<'a>),
    /// Sets a semaphore, but not INIT, for which all calls would wait.
    Semaphore {
        number: u8,
        value: Setting,
    },
    /// Puts another set into the header: that of another pipe, or one that belongs to no pipe.
    OtherSet {
        foreign: bool,
    },
    /// With `alone`, the harness is detached meanwhile, so that there is no other attachment.
    Open {
        alone: bool,
        schema: bool,
    },
    Producer,
    Consumer,
    /// Sends some bytes.
    Send(u8),
    /// Takes all messages.
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
    Creating,
    Any(u16),
}
