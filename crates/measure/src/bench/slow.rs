//! The bench of a fast side whose partner is slow.

use std::io;
use std::time::Duration;

use super::Options;
use crate::session::Session;
use crate::slow;
use crate::transports::{PIPE, Transport};

pub(super) fn measure(chosen: &[&'static dyn Transport], options: &Options) -> io::Result<()> {
    let Options { settings, sizes, rates, .. } = options;
    let mut session = Session::start(settings, chosen)?;
    for &size in sizes {
        let all = slow::collect(&mut session, size, rates, options.duration()?)?;
        println!("messages of {size} bytes, {} bytes of ring\n", settings.capacity);
        println!("{}\n", slow::table(&all, PIPE.name()));
    }
    println!(
        "Medians over n slices. waiting side: processor time of the process that is not slow, all of it. its calls: time that the\n\
         slow side spends in the calls that send or receive. both: the two together, with the least and the most of all slices.\n\
         % of a cpu: of the waiting side. /{}: ratio of the medians of both.",
        PIPE.name()
    );
    Ok(())
}

/// One slice of everything.
pub(super) fn smoke(session: &mut Session, options: &Options) -> io::Result<()> {
    let all = slow::collect(session, options.sizes[0], &[1e4], Duration::ZERO)?;
    for cost in &all {
        assert!(cost.calls.iter().all(|&calls| calls > 0.0), "{cost:?}");
    }
    println!("smoke run, slow: {} slices over {} transports", all.len(), session.transports().len());
    Ok(())
}
