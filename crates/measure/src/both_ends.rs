//! Both ends of a pipe in one thread: what a message costs when nothing goes from core to core.

use shmpipe::{Consumer, Options, Producer, SetupError, unlink_force};

use crate::guard::SignalsHeld;

/// Both ends of a new pipe, already removed from the system's lists: nothing can be left behind. They must not wait: one that
/// does is told that the pipe was removed.
///
/// # Errors
/// Those of making a pipe and of taking its roles.
pub fn both_ends(capacity: u64) -> Result<(Producer, Consumer), SetupError> {
    let held = SignalsHeld::new();
    let _held = held.map_err(|source| SetupError::Os { call: "pthread_sigmask", source })?;
    let pipe = Options::new().capacity(capacity).create("sysv:private")?;
    let ends = pipe.producer().and_then(|producer| Ok((producer, pipe.consumer()?)));
    unlink_force(pipe.address())?;
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_work_and_nothing_is_listed() {
        let (mut producer, mut consumer) = both_ends(4096).unwrap();
        assert!(shmpipe::inspect(producer.pipe().address()).is_err());
        producer.try_send(b"hello").unwrap();
        assert_eq!(consumer.try_recv().unwrap().to_vec(), b"hello");
    }
}
