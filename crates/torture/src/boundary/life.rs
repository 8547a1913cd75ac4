//! The lives of processes that are killed.

use shmpipe::{Options, Pipe, WakeMode, handoff, unlink, unlink_force};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::process::Line;
use shmpipe_testing::traced::{be_traced, mark};

/// What a process does with a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Makes it, has both ends, closes, opens it once more, and removes it.
    Make,
    /// Makes one that goes when both sides have closed, and closes both.
    Leave,
    /// Opens one, claims and gives back.
    Open,
    /// Removes one that is in use.
    Force,
    /// Hands one on.
    Serve,
    /// The same, where a server was that is dead.
    Replace,
}

pub const ALL: [Life; 6] = [Life::Make, Life::Leave, Life::Open, Life::Force, Life::Serve, Life::Replace];

impl Life {
    pub fn backends(self) -> &'static [Backend] {
        match self {
            Life::Open => &[Backend::SysV, Backend::Posix, Backend::File, Backend::Memfd],
            Life::Serve | Life::Replace => &[Backend::Memfd],
            _ => &[Backend::SysV, Backend::Posix, Backend::File],
        }
    }

    /// Whether there is to be a pipe before.
    pub fn needs_pipe(self) -> bool {
        matches!(self, Life::Open | Life::Force)
    }
}

pub fn play(mut line: Line) {
    let [life, address, wake_mode] = line.words.clone().try_into().unwrap();
    let life = *ALL.iter().find(|known| format!("{known:?}") == life).expect("a life that is known");
    let mut options = Options::new().capacity(4096);
    if wake_mode == "fence" {
        options = options.wake_mode(WakeMode::Fence);
    }
    be_traced(&mut line);
    mark();
    live(life, &address, &options);
    mark();
}

fn live(life: Life, address: &str, options: &Options) {
    match life {
        Life::Make => {
            use_it(&options.open_or_create(address).unwrap());
            // Now it is opened once more, and not made.
            drop(Pipe::open(address).unwrap());
            unlink(address).unwrap();
        }
        Life::Leave => use_it(&options.clone().remove_on_close(true).create(address).unwrap()),
        Life::Open => {
            use_it(&Pipe::open(address).unwrap());
            use_it(&Pipe::open(address).unwrap());
        }
        Life::Force => {
            let pipe = Pipe::open(address).unwrap();
            let _producer = pipe.producer().unwrap();
            unlink_force(address).unwrap();
        }
        Life::Serve | Life::Replace => {
            let pipe = options.create("memfd").unwrap();
            let path = address.strip_prefix("memfd:").unwrap();
            drop(handoff::serve(path, &pipe).unwrap());
        }
    }
}

/// Both roles, a message, and an end in good order.
fn use_it(pipe: &Pipe) {
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    producer.send(b"alive").unwrap();
    while consumer.try_recv().is_ok() {}
    consumer.close().unwrap();
    producer.close().unwrap();
}
