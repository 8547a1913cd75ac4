//! The words of the journal. What one side writes has cache lines of its own.

/// Set when both are to end: the producer after what it is doing, the consumer after the last message.
pub const STOP: usize = 0;
/// The ordinal of the producer, and of the consumer, that is to close now and end.
pub const LEAVE: [usize; 2] = [1, 2];
/// How often somebody was told to try again, since others were on their way through for too long. Both sides count here.
pub const DOUBTS: usize = 3;
/// Set when the last producer has closed.
pub const ENDED: usize = 4;

/// An entry: what the producer is about to send (the first number, how many messages) and where the ring ends before.
pub const ATTEMPT: usize = 8;
/// How many messages had been sent when the last producer ended in good order.
pub const SENT: usize = 15;

/// An entry: the number of the next message that the consumer expects, and the position of the last one it took, plus 1.
pub const TAKEN: usize = 16;
/// Every message before this number was released.
pub const RELEASED: usize = 21;
/// How many messages came a second time.
pub const DUPLICATES: usize = 22;

/// Which producer, and consumer, has begun last: the first, the second, and so on.
pub const BEGUN: [usize; 2] = [24, 40];
/// Which producer, and consumer, has done something last: see `Tenure`.
pub const HOLDER: [usize; 2] = [32, 48];
