//! What is assumed about the other process: the marker types of the endpoints.

/// Nothing is assumed about the other process: bytes are copied in and out, never borrowed. The default.
#[derive(Clone, Copy, Debug)]
pub struct Untrusted;

/// The other process obeys the protocol, somebody has promised: see
/// [`Producer::trust_peer`](crate::Producer::trust_peer) and [`Consumer::trust_peer`](crate::Consumer::trust_peer).
#[derive(Clone, Copy, Debug)]
pub struct Trusted;
