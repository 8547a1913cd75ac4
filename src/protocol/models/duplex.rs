//! Both directions of a duplex pipe.

use super::pipe::{Pipe, explore, side};
use crate::protocol::half::Half;
use crate::protocol::liveness::{End, Phase};
use crate::protocol::sync::spin_loop;
use crate::protocol::wakeup::WakeMode::Never;
use crate::protocol::writer::ReserveError;
use loom::thread;

#[test]
fn a_side_that_sees_its_peer_attach_can_send_to_it() {
    explore(4, || {
        let (forth, back) = (Pipe::new(Never, 32), Pipe::new(Never, 32));
        let (mut out, to_us) = side(&forth, &back);
        // Their last holder closed, and we know.
        let (mut sender, mut receiver) = side(&back, &forth);
        receiver.reader.end(End::Closed);
        sender.writer.end(End::Closed);
        assert_eq!(out.try_send(&[1; 8]), Err(ReserveError::Ended(End::Closed)));
        let successor = thread::spawn(move || side(&back, &forth));
        while to_us.reader.peer_state().phase() != Some(Phase::Open) {
            spin_loop();
        }
        assert!(out.try_send(&[1; 8]).is_ok());
        let (_, mut receiver) = successor.join().unwrap();
        assert_eq!(receiver.try_recv().unwrap(), [1; 8]);
    });
}

#[test]
fn a_side_that_receives_a_close_is_not_sent_to_any_more() {
    explore(4, || {
        let (forth, back) = (Pipe::new(Never, 32), Pipe::new(Never, 32));
        let (mut out, mut to_us) = side(&forth, &back);
        let (mut sender, mut receiver) = side(&back, &forth);
        let closer = thread::spawn(move || {
            // In the order in which an endpoint ends them.
            receiver.reader.end(End::Closed);
            sender.writer.end(End::Closed);
        });
        assert!(to_us.recv_or_end().is_err());
        assert_eq!(out.try_send(&[1; 8]), Err(ReserveError::Ended(End::Closed)));
        closer.join().unwrap();
    });
}
