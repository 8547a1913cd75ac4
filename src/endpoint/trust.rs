//! Marker types for what an endpoint assumes about the peer.

/// Assumes nothing about the peer: the endpoint copies bytes in and out and never lends them.
///
/// The default.
///
/// ```
/// /// Works with either kind of consumer.
/// fn receive<P>(consumer: &mut shmpipe::Consumer<P>) -> Result<Vec<u8>, shmpipe::RecvError> {
///     consumer.recv().map(|message| message.to_vec())
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Untrusted;

/// Assumes that the peer obeys the protocol, by a guarantee of the caller: see
/// [`Producer::trust_peer`](crate::Producer::trust_peer) and [`Consumer::trust_peer`](crate::Consumer::trust_peer).
///
/// ```
/// /// Parses each message in place, without a copy.
/// fn receive(consumer: &mut shmpipe::Consumer<shmpipe::Trusted>) -> Result<usize, shmpipe::RecvError> {
///     consumer.recv().map(|message| message.iter().filter(|&&byte| byte == b'\n').count())
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Trusted;
