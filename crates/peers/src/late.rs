//! An end that can only be had when the partner has made its own.

use std::io;

/// Fetched when it is first used: by then both processes have joined everything.
///
/// The check costs the side that made the transport one predicted branch for each message.
pub struct Late<T> {
    end: Option<T>,
    fetch: Option<Fetch<T>>,
}

type Fetch<T> = Box<dyn FnOnce() -> io::Result<T>>;

impl<T> Late<T> {
    /// An end that is there.
    pub fn ready(end: T) -> Late<T> {
        Late { end: Some(end), fetch: None }
    }

    /// An end that `fetch` gets.
    pub fn new(fetch: impl FnOnce() -> io::Result<T> + 'static) -> Late<T> {
        Late { end: None, fetch: Some(Box::new(fetch)) }
    }

    /// The end.
    ///
    /// # Errors
    /// Those of the fetching, the first time; `NotConnected` after it has failed.
    #[inline(always)]
    pub fn get(&mut self) -> io::Result<&mut T> {
        if self.end.is_none() {
            self.fetch_it()?;
        }
        self.end.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    #[cold]
    #[inline(never)]
    fn fetch_it(&mut self) -> io::Result<()> {
        if let Some(fetch) = self.fetch.take() {
            self.end = Some(fetch()?);
        }
        Ok(())
    }
}
