//! The server from which a memfd was received: another one at its socket may hand out another pipe by now.

use std::time::{Duration, Instant};

use shmpipe::{Address, Pipe, SegmentId};

/// How often to look. Each look is a connection.
const INTERVAL: Duration = Duration::from_secs(1);

/// The server of a pipe.
pub struct Server {
    address: Address,
    id: SegmentId,
    next_look: Instant,
}

impl Server {
    /// `None` for a pipe of another kind, whose replacement the library notices.
    pub fn of(pipe: &Pipe) -> Option<Self> {
        let address = pipe.address();
        let is_served = address.to_string().starts_with("memfd:");
        is_served.then(|| Server {
            address: address.clone(),
            id: pipe.id(),
            next_look: Instant::now() + INTERVAL,
        })
    }

    pub fn next_look(&self) -> Instant {
        self.next_look
    }

    /// Looks, if it is time, whether the socket leads to another pipe. Without a server, or if it passes on nothing, it does not.
    pub fn hands_out_another(&mut self) -> bool {
        let now = Instant::now();
        if now < self.next_look {
            return false;
        }
        self.next_look = now + INTERVAL;
        shmpipe::inspect(&self.address).is_ok_and(|found| found.segment_id != self.id)
    }
}
