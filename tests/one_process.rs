//! Both ends in one process: what the primitives do, message by message.

use shmpipe::{Options, Pipe, RecvError, SendError, unlink};

fn private(capacity: u64) -> Pipe {
    Options::new().capacity(capacity).remove_on_close(true).create("sysv:private").unwrap()
}

#[test]
fn messages_come_in_order_and_whole() {
    let pipe = private(4096);
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    for round in 0..10_000usize {
        let message: Vec<u8> = (0..round % 700).map(|i| (i + round) as u8).collect();
        let sent = producer.send_tagged(round as u32, &message).unwrap();
        let received = consumer.recv().unwrap();
        assert_eq!((received.position(), received.tag()), (sent, round as u32));
        assert_eq!(received.to_vec(), message);
    }
    assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Empty);
    drop(producer);
    assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Closed);
    assert!(matches!(unlink(pipe.address()), Err(shmpipe::SetupError::RoleTaken { .. })));
    let _ = SendError::Full;
}
