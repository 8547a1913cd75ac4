//! What a set waits for.

use crate::endpoint::consumer::Consumer;
use crate::endpoint::duplex::Duplex;
use crate::endpoint::producer::Producer;
use crate::endpoint::watched::Watched;
use std::fmt;

/// An endpoint, as a [`WaitSet`](crate::WaitSet) uses it.
///
/// Made from a reference to a [`Consumer`] or a [`Producer`] by [`From`].
pub struct Endpoint<'a>(pub(super) &'a mut dyn Watched);

impl fmt::Debug for Endpoint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("role", &self.0.role())
            .field("address", self.0.pipe().address())
            .finish_non_exhaustive()
    }
}

impl<'a, P> From<&'a mut Consumer<P>> for Endpoint<'a> {
    fn from(consumer: &'a mut Consumer<P>) -> Self {
        Endpoint(&mut consumer.inner)
    }
}

impl<'a, P> From<&'a mut Producer<P>> for Endpoint<'a> {
    fn from(producer: &'a mut Producer<P>) -> Self {
        Endpoint(&mut producer.inner)
    }
}

/// Something with an endpoint for which a [`WaitSet`](crate::WaitSet) waits.
///
/// A consumer or a producer, a reference to one, or a type of the application that has one beside what belongs to it:
///
/// ```
/// use shmpipe::{Consumer, Endpoint, Interest, Member, Pipe, WaitSet};
///
/// struct Feed {
///     name: String,
///     consumer: Consumer,
/// }
///
/// impl Member for Feed {
///     fn endpoint(&mut self) -> Endpoint<'_> {
///         (&mut self.consumer).into()
///     }
/// }
///
/// let mut set = WaitSet::new();
/// let consumer = Pipe::open_or_create("memfd")?.consumer()?;
/// set.add(Feed { name: "eurex".into(), consumer }, Interest::Message)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Member {
    /// Returns the endpoint: the same one at every call.
    fn endpoint(&mut self) -> Endpoint<'_>;
}

impl<P> Member for Consumer<P> {
    fn endpoint(&mut self) -> Endpoint<'_> {
        self.into()
    }
}

impl<P> Member for Producer<P> {
    fn endpoint(&mut self) -> Endpoint<'_> {
        self.into()
    }
}

/// Waits for what the other side sends. To wait for space too, [`split`](Duplex::split) it and add both halves.
impl<P> Member for Duplex<P> {
    fn endpoint(&mut self) -> Endpoint<'_> {
        self.consumer().into()
    }
}

impl<M: Member + ?Sized> Member for &mut M {
    fn endpoint(&mut self) -> Endpoint<'_> {
        (**self).endpoint()
    }
}

impl<M: Member + ?Sized> Member for Box<M> {
    fn endpoint(&mut self) -> Endpoint<'_> {
        (**self).endpoint()
    }
}
