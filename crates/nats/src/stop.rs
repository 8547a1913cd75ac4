//! Asking a bridge to stop, and what waits until then.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use shmpipe::CancelHandle;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::exit::Early;

/// Asks one bridge to stop. What is on its way to the server may still arrive there for a while.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    asked: watch::Sender<bool>,
    at: OnceLock<Instant>,
    /// How long what is on its way may take.
    grace: Duration,
    /// Of the bridge's endpoint, which it claims again and again.
    cancel: Mutex<Option<CancelHandle>>,
}

impl Stop {
    pub fn new(grace: Duration) -> Self {
        let (asked, _) = watch::channel(false);
        Stop(Arc::new(Shared { asked, at: OnceLock::new(), grace, cancel: Mutex::default() }))
    }

    pub fn ask(&self) {
        self.0.at.get_or_init(Instant::now);
        self.0.asked.send_replace(true);
        let cancel = self.0.cancel.lock().unwrap_or_else(PoisonError::into_inner);
        cancel.iter().for_each(CancelHandle::cancel);
    }

    pub fn is_asked(&self) -> bool {
        *self.0.asked.borrow()
    }

    /// Cancels the calls of this endpoint, too, in place of those of the one before.
    pub fn cancels(&self, handle: CancelHandle) {
        self.0.cancel.lock().unwrap_or_else(PoisonError::into_inner).replace(handle.clone());
        if self.is_asked() {
            handle.cancel();
        }
    }

    async fn asked(&self) {
        let mut asked = self.0.asked.subscribe();
        // The sender lives as long as this does.
        let _ = asked.wait_for(|asked| *asked).await;
    }

    /// Sleeps, but not once it is asked.
    pub fn sleep(&self, runtime: &Handle, time: Duration) {
        runtime.block_on(async {
            let _ = tokio::time::timeout(time, self.asked()).await;
        });
    }

    /// Runs a future to its end, or until the grace is over.
    pub fn run<T>(&self, runtime: &Handle, future: impl Future<Output = T>) -> Result<T, Early> {
        runtime.block_on(async {
            tokio::select! {
                output = future => Ok(output),
                () = self.over() => Err(Early::Stopped),
            }
        })
    }

    /// The same, or until it is asked.
    pub fn wait<T>(&self, runtime: &Handle, future: impl Future<Output = T>) -> Result<T, Early> {
        runtime.block_on(async {
            tokio::select! {
                output = future => Ok(output),
                () = self.asked() => Err(Early::Stopped),
            }
        })
    }

    async fn over(&self) {
        self.asked().await;
        if let Some(at) = self.0.at.get() {
            tokio::time::sleep_until((*at + self.0.grace).into()).await;
        }
    }
}
