//! The scenarios of processes that are killed.

use shmpipe::{Options, Pipe, WakeMode, handoff, unlink, unlink_force};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::process::Line;
use shmpipe_testing::traced::{be_traced, mark};

/// What a process does with a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
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

pub const ALL: [Scenario; 6] =
    [Scenario::Make, Scenario::Leave, Scenario::Open, Scenario::Force, Scenario::Serve, Scenario::Replace];

impl Scenario {
    pub fn backends(self) -> &'static [Backend] {
        match self {
            Scenario::Open => &[Backend::SysV, Backend::Posix, Backend::File, Backend::Memfd],
            Scenario::Serve | Scenario::Replace => &[Backend::Memfd],
            _ => &[Backend::SysV, Backend::Posix, Backend::File],
        }
    }

    /// Whether there is to be a pipe before.
    pub fn needs_pipe(self) -> bool {
        matches!(self, Scenario::Open | Scenario::Force)
    }
}

pub fn play(mut line: Line) {
    let [scenario, address, wake_mode] = line.words.clone().try_into().unwrap();
    let scenario =
        *ALL.iter().find(|known| format!("{known:?}") == scenario).expect("a scenario that is known");
    let mut options = Options::new().capacity(4096);
    if wake_mode == "fence" {
        options = options.wake_mode(WakeMode::Fence);
    }
    be_traced(&mut line);
    mark();
    live(scenario, &address, &options);
    mark();
}

fn live(scenario: Scenario, address: &str, options: &Options) {
    match scenario {
        Scenario::Make => {
            use_it(&options.open_or_create(address).unwrap());
            // Now it is opened once more, and not made.
            drop(Pipe::open(address).unwrap());
            unlink(address).unwrap();
        }
        Scenario::Leave => use_it(&options.clone().remove_on_close(true).create(address).unwrap()),
        Scenario::Open => {
            use_it(&Pipe::open(address).unwrap());
            use_it(&Pipe::open(address).unwrap());
        }
        Scenario::Force => {
            let pipe = Pipe::open(address).unwrap();
            let _producer = pipe.producer().unwrap();
            unlink_force(address).unwrap();
        }
        Scenario::Serve | Scenario::Replace => {
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
