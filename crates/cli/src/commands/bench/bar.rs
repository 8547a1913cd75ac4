//! The progress bar, and with it the moments at which a signal is heard.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::system::signals;

/// How often the bar is drawn anew, in hertz: each time costs some microseconds between two slices.
const FRAMES: u8 = 5;

/// How far the measuring has come: a bar on standard error, if that is a terminal.
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

    /// Says what is being done now.
    pub fn says(&self, what: impl Into<String>) {
        let what: String = what.into();
        self.0.bar.set_message(what);
    }

    /// Shows how much time has passed. To be called between slices, where nothing is timed.
    ///
    /// # Errors
    /// `Interrupted` when a signal asks for an end.
    pub fn look_around(&self) -> io::Result<()> {
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
