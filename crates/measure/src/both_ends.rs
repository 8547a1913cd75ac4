//! Both ends of a pipe in one thread: the cost of a message without transfers between cores.

use shmpipe::{Consumer, Options, Producer, SetupError, unlink_force};

use crate::guard::SignalsHeld;

/// Creates both ends of a pipe, and removes the pipe, so that nothing can be left over. The ends must not wait: a waiting call
/// fails because the pipe was removed.
///
/// # Errors
/// Those of creating a pipe and claiming its roles.
pub fn both_ends(capacity: u64) -> Result<(Producer, Consumer), SetupError> {
    let held = SignalsHeld::new();
    let _held = held.map_err(|source| SetupError::Os { call: "pthread_sigmask", source })?;
    let pipe = Options::new().capacity(capacity).allow_rmid_forced(true).create("sysv:private")?;
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
