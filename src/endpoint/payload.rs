//! What a producer sends as one message.

use bytemuck::NoUninit;

/// What a producer sends as one message.
///
/// | type | message |
/// |---|---|
/// | a reference to what is [`AsRef<[u8]>`](AsRef): `&[u8]`, `&[u8; N]`, `&Vec<u8>`, `&str`, ... | these bytes |
/// | [`Vectored(&[a, b])`](Vectored) | the parts one after the other, without joining them in memory first |
/// | [`Value(&t)`](Value) | the bytes of a value |
/// | [`Tagged(tag, payload)`](Tagged) | any of these, with a tag |
///
/// ```
/// use shmpipe::{Options, Tagged, Value, Vectored};
///
/// let pipe = Options::new().create("memfd")?;
/// let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
/// producer.send(b"one")?;
/// producer.send(Vectored(&[b"one", b"two"]))?;
/// producer.send(Value(&1.5f64))?;
/// producer.send(Tagged(7, b"three"))?;
///
/// assert_eq!(consumer.recv()?.to_vec(), b"one");
/// assert_eq!(consumer.recv()?.to_vec(), b"onetwo");
/// assert_eq!(consumer.recv()?.value::<f64>()?, 1.5);
/// assert_eq!(consumer.recv()?.tag(), 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Payload: sealed::Sealed {}

impl<T: sealed::Sealed> Payload for T {}

/// A payload with a tag: a number that the application defines.
///
/// The tag travels in the record's header, at no cost. Without one it is 0.
///
/// ```
/// use shmpipe::Tagged;
///
/// # let pipe = shmpipe::Options::new().create("memfd")?;
/// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
/// const TRADE: u32 = 1;
/// producer.send(Tagged(TRADE, b"EURUSD 1.0842"))?;
/// assert_eq!(consumer.recv()?.tag(), TRADE);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Tagged<T>(pub u32, pub T);

/// The bytes of a value, received with [`Record::value`](crate::Record::value).
///
/// Both ends use the same type. `#[derive(NoUninit, AnyBitPattern)]` of `bytemuck` lets structs be sent.
///
/// ```
/// use shmpipe::Value;
///
/// # let pipe = shmpipe::Options::new().create("memfd")?;
/// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
/// producer.send(Value(&1.0842f64))?;
/// assert_eq!(consumer.recv()?.value::<f64>()?, 1.0842);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Value<'a, T: NoUninit>(pub &'a T);

/// Several parts that make one message, as in [`Write::write_vectored`](std::io::Write::write_vectored).
///
/// ```
/// use shmpipe::Vectored;
///
/// # let pipe = shmpipe::Options::new().create("memfd")?;
/// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
/// producer.send(Vectored(&[b"header", b": ", b"body"]))?;
/// assert_eq!(consumer.recv()?.to_vec(), b"header: body");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Vectored<'a>(pub &'a [&'a [u8]]);

/// A payload taken apart.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    pub(super) tag: u32,
    pub(super) bytes: Bytes<'a>,
}

#[derive(Clone, Copy)]
pub enum Bytes<'a> {
    Whole(&'a [u8]),
    Parts(&'a [&'a [u8]]),
}

impl Outgoing<'_> {
    /// Bytes of the message.
    pub(crate) fn length(&self) -> usize {
        match self.bytes {
            Bytes::Whole(message) => message.len(),
            Bytes::Parts(parts) => total_length(parts),
        }
    }
}

/// Bytes of all parts. Saturated, it is too large for any ring.
pub(super) fn total_length(parts: &[&[u8]]) -> usize {
    parts.iter().fold(0, |sum, part| sum.saturating_add(part.len()))
}

mod sealed {
    use super::{Bytes, NoUninit, Outgoing, Tagged, Value, Vectored};

    pub trait Sealed {
        fn outgoing(&self) -> Outgoing<'_>;
    }

    impl<T: AsRef<[u8]> + ?Sized> Sealed for &T {
        #[inline(always)]
        fn outgoing(&self) -> Outgoing<'_> {
            Outgoing { tag: 0, bytes: Bytes::Whole((*self).as_ref()) }
        }
    }

    impl<T: AsRef<[u8]> + ?Sized> Sealed for &mut T {
        #[inline(always)]
        fn outgoing(&self) -> Outgoing<'_> {
            Outgoing { tag: 0, bytes: Bytes::Whole((**self).as_ref()) }
        }
    }

    impl<T: NoUninit> Sealed for Value<'_, T> {
        #[inline(always)]
        fn outgoing(&self) -> Outgoing<'_> {
            Outgoing { tag: 0, bytes: Bytes::Whole(bytemuck::bytes_of(self.0)) }
        }
    }

    impl Sealed for Vectored<'_> {
        #[inline(always)]
        fn outgoing(&self) -> Outgoing<'_> {
            Outgoing { tag: 0, bytes: Bytes::Parts(self.0) }
        }
    }

    impl<T: Sealed> Sealed for Tagged<T> {
        #[inline(always)]
        fn outgoing(&self) -> Outgoing<'_> {
            Outgoing { tag: self.0, ..self.1.outgoing() }
        }
    }
}
