//! The progress bar. Its updates are also where a signal is noticed.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::system::signals;

/// How often the bar is redrawn, in hertz: each time takes some microseconds between two slices.
const FRAMES: u8 = 5;

/// The progress of the measurements: a bar on standard error, if that is a terminal.
#[derive(Clone)]
pub struct Bar(Rc<Drawn>);

struct Drawn {
    bar: ProgressBar,
    start: Instant,
}

impl Bar {
    /// A bar that is full after `time`.
    pub fn new(time: Duration) -> Bar {
        let target = ProgressDrawTarget::stderr_with_hz(FRAMES);
        let bar = ProgressBar::with_draw_target(Some(time.as_millis() as u64), target);
        let style = ProgressStyle::with_template("[{bar:30}] {percent:>3}%  {elapsed:>3}  {msg}");
        bar.set_style(style.expect("the template is well-formed").progress_chars("=> "));
        Bar(Rc::new(Drawn { bar, start: Instant::now() }))
    }

    /// Shows the current step.
    pub fn set_step(&self, step: impl Into<String>) {
        let step: String = step.into();
        self.0.bar.set_message(step);
    }

    /// Shows the elapsed time. To be called between slices, where nothing is timed.
    ///
    /// # Errors
    /// `Interrupted` after a signal.
    pub fn update(&self) -> io::Result<()> {
        let Drawn { bar, start } = &*self.0;
        bar.set_position(start.elapsed().as_millis() as u64);
        match signals::received() {
            Some(_) => Err(io::ErrorKind::Interrupted.into()),
            None => Ok(()),
        }
    }
}

impl Drop for Drawn {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
