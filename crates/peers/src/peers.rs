//! The peers: one file for each, which says what it needs and how it is set.

#[cfg(feature = "aeron")]
mod aeron;
#[cfg(feature = "cpp")]
mod boost;
mod crossbeam;
mod iceoryx2;
mod ipc_channel;
mod ipc_ring;
#[cfg(feature = "cpp")]
mod readerwriterqueue;
mod ringfire;
mod rtrb;
mod shaq;
mod shmem_ipc;
mod shmring;
mod std_mpsc;
#[cfg(feature = "tachyon")]
mod tachyon;

use std::fmt;

use clap::ValueEnum;
use shmpipe_measure::transports::{CLASSIC, PIPE, SHMPIPE, SHMPIPE_SPIN, SHMPIPE_TRUSTED, UNIX};
use shmpipe_measure::{Between, Transport};

use crate::slots::{SIZES, has_slot};

/// What can be compared with one another in one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Company {
    /// Between two processes.
    Processes,
    /// Between two processes with a third program beside them, which takes its share of the CPUs.
    #[cfg(feature = "aeron")]
    Driver,
    /// Between two threads, where queues of threads can take part.
    Threads,
}

impl Company {
    /// Every one that this build has.
    pub const ALL: &[Company] = &[
        Company::Processes,
        #[cfg(feature = "aeron")]
        Company::Driver,
        Company::Threads,
    ];

    /// Between what its messages go.
    pub fn between(self) -> Between {
        match self {
            Company::Threads => Between::Threads,
            _ => Between::Processes,
        }
    }

    /// What is compared at one message size. Peers with slots of one size are left out where there is no slot type of that
    /// size.
    pub fn at(self, size: usize) -> Vec<&'static dyn Transport> {
        let mut transports = vec![CLASSIC, SHMPIPE, SHMPIPE_SPIN, SHMPIPE_TRUSTED];
        match self {
            Company::Processes => transports.extend(between_processes(size)),
            #[cfg(feature = "aeron")]
            Company::Driver => transports.push(aeron::AERON),
            Company::Threads => transports.extend(between_threads(size)),
        }
        transports
    }

    /// Everything that a partner process may be told to join. It is told the size, too.
    pub fn joinable() -> Vec<&'static dyn Transport> {
        let companies = Company::ALL.iter().filter(|company| company.between() == Between::Processes);
        companies.flat_map(|company| company.at(SIZES[0])).collect()
    }
}

impl fmt::Display for Company {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Company::Processes => "between two processes",
            #[cfg(feature = "aeron")]
            Company::Driver => "between two processes, a media driver beside them",
            Company::Threads => "between two threads",
        })
    }
}

fn between_processes(size: usize) -> Vec<&'static dyn Transport> {
    let mut transports = Vec::new();
    if has_slot(size) {
        transports.extend(ringfire::at(size));
        transports.extend(shaq::at(size));
        transports.extend(shmem_ipc::at(size));
        #[cfg(feature = "cpp")]
        transports.push(boost::at(size));
        transports.push(iceoryx2::at(size));
    }
    #[cfg(feature = "tachyon")]
    transports.extend(tachyon::at(size));
    transports.extend([shmring::SHMRING, ipc_ring::IPC_RING, ipc_channel::IPC_CHANNEL, PIPE, UNIX]);
    transports
}

fn between_threads(size: usize) -> Vec<&'static dyn Transport> {
    let mut transports = Vec::new();
    if has_slot(size) {
        transports.push(rtrb::at(size));
        transports.extend(crossbeam::at(size));
        transports.extend(std_mpsc::at(size));
        #[cfg(feature = "cpp")]
        transports.extend(readerwriterqueue::at(size));
    }
    transports
}
