//! The scenarios in which the harness kills a process.

use clap::ValueEnum;
use shmpipe::os::unix::fd_passing;
use shmpipe::{Options, Pipe, WakeMode, unlink, unlink_force};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::process::Line;
use shmpipe_testing::traced::{be_traced, mark};

/// What a process does with a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Scenario {
    /// Creates it, uses and closes both ends, opens it again, and removes it.
    Create,
    /// Creates one with `remove_on_close`, and closes both ends.
    Leave,
    /// Opens one, claims and closes both ends, twice.
    Open,
    /// Removes one that is in use.
    Force,
    /// Serves a memfd.
    Serve,
    /// Serves a memfd at the path of a dead server.
    Replace,
}

impl Scenario {
    pub fn backends(self) -> &'static [Backend] {
        match self {
            Scenario::Open => &[Backend::SysV, Backend::Posix, Backend::File, Backend::Memfd],
            Scenario::Serve | Scenario::Replace => &[Backend::Memfd],
            _ => &[Backend::SysV, Backend::Posix, Backend::File],
        }
    }

    /// Whether the pipe must exist before.
    pub fn needs_pipe(self) -> bool {
        matches!(self, Scenario::Open | Scenario::Force)
    }
}

pub fn play(mut line: Line) {
    let [scenario, address, wake_mode] = line.words.clone().try_into().unwrap();
    let scenario = Scenario::from_str(&scenario, false).expect("a known scenario");
    let mut options = Options::new().capacity(4096);
    if wake_mode == "fence" {
        options = options.wake_mode(WakeMode::Fence);
    }
    be_traced(&mut line);
    mark();
    run(scenario, &address, &options);
    mark();
}

fn run(scenario: Scenario, address: &str, options: &Options) {
    match scenario {
        Scenario::Create => {
            use_it(&options.open_or_create(address).unwrap());
            // The pipe exists now.
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
            drop(fd_passing::serve(path, &pipe).unwrap());
        }
    }
}

/// Claims both roles, sends and receives a message, and closes.
fn use_it(pipe: &Pipe) {
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    producer.send(b"alive").unwrap();
    while consumer.try_recv().is_ok() {}
    consumer.close().unwrap();
    producer.close().unwrap();
}
