//! The words of the journal. Each side writes to cache lines of its own.

/// Set to end both: the producer after the current send, the consumer after the last message.
pub const STOP: usize = 0;
/// The ordinal of the producer, and of the consumer, that must close and end now.
pub const LEAVE: [usize; 2] = [1, 2];
/// How often an open or a claim was retried because another process blocked it. Both sides count here.
pub const RETRIES: usize = 3;
/// Set when the last producer has closed.
pub const ENDED: usize = 4;

/// An entry: the first number and the count of the messages that the producer is about to send, and the tail before.
pub const ATTEMPT: usize = 8;
/// How many messages had been sent when the last producer closed.
pub const SENT: usize = 15;

/// An entry: the number of the next new message, and the position of the last one taken, plus 1.
pub const TAKEN: usize = 16;
/// All messages before this number were released.
pub const RELEASED: usize = 21;
/// How many messages were repeats.
pub const DUPLICATES: usize = 22;

/// The ordinal of the last producer, and consumer, to begin.
pub const BEGUN: [usize; 2] = [24, 40];
/// The ordinal of the last producer, and consumer, to use its role: see `Tenure`.
pub const HOLDER: [usize; 2] = [32, 48];
