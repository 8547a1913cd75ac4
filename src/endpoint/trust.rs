//! Marker types for what an endpoint assumes about the peer.

/// Assume nothing about the peer: copy bytes in and out, never borrow them. The default.
#[derive(Clone, Copy, Debug)]
pub struct Untrusted;

/// The caller guarantees that the peer obeys the protocol: see [`Producer::trust_peer`](crate::Producer::trust_peer) and
/// [`Consumer::trust_peer`](crate::Consumer::trust_peer).
#[derive(Clone, Copy, Debug)]
pub struct Trusted;
