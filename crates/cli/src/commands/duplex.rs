//! `shmpipe duplex`: sends standard input to the other side of a duplex pipe and writes what it sends to standard output.
//!
//! Each direction is a `send` or a `recv`, the latter in a thread of its own. A direction that ends in order leaves the other alone;
//! one that fails ends both.

use std::thread;

use shmpipe::{CheckError, Duplex, Peer};

use crate::args;
use crate::commands::framing::Join;
use crate::commands::recv::Receiver;
use crate::commands::recv::sink::Sink;
use crate::commands::role;
use crate::commands::send::Sender;
use crate::exit::{Early, End, Outcome};
use crate::output::progress::{Data, Progress};
use crate::output::report::Report;
use crate::system::{signals, stdio};

pub fn run(arguments: &args::Duplex, report: Report) -> Outcome {
    signals::install()?;
    let (standard_input, output) = (stdio::standard_input()?, Sink::standard_output()?);
    let args::Duplex { input, side, pipe, .. } = arguments;
    let mut duplex = role::claim(&pipe.address, &pipe.options().duplex(true), report, |pipe| match side {
        Some(side) => pipe.duplex_as((*side).into()),
        None => pipe.duplex(),
    })?;
    let cancel = duplex.cancel_handle();
    signals::cancel_on_signal(cancel.clone());
    let has_closed = note_earlier_end(&mut duplex, report);

    let progress = Progress::new(duplex.pipe().address(), Data::Terminal);
    let (producer, consumer) = duplex.split();
    let mut sender = Sender::of_duplex(producer, arguments, progress, report);
    let join = join(input, report);
    let mut receiver = Receiver::of_duplex(consumer, output, join, arguments, has_closed, report);
    let stop = cancel.clone();
    let receiving = thread::spawn(move || {
        signals::interrupt_this_thread_too();
        match receiver.receive_all() {
            Ok(()) => (None, receiver.close().map_err(Early::from)),
            Err(early) => {
                stop.cancel();
                signals::interrupt();
                (Some(receiver), Err(early))
            }
        }
    });
    let (sender, sent) = match sender.send_input(standard_input, input) {
        Ok(()) => (None, sender.close().map_err(Early::from)),
        Err(early) => {
            cancel.cancel();
            (Some(sender), Err(early))
        }
    };
    let (receiver, received) = receiving.join().expect("the thread does not panic");

    // A direction that the other one stopped has nothing to say.
    let mut earlies = [received, sent].into_iter().filter_map(Result::err);
    let early = earlies.find(|early| !matches!(early, Early::Stopped));
    let outcome = early.map_or(Ok(End::Done), Early::outcome);
    if let Some(receiver) = receiver {
        receiver.end_early(&outcome);
    }
    if let Some(sender) = sender {
        sender.abort(&outcome);
    }
    outcome
}

fn join(input: &args::Input, report: Report) -> Join {
    match input {
        _ if report.is_json() => Join::Json,
        args::Input { length_prefixed: true, .. } => Join::Prefixed,
        args::Input { raw: true, .. }
        | args::Input { whole: true, .. }
        | args::Input { chunk: Some(_), .. } => Join::Raw,
        args::Input { null, delimiter, .. } => {
            Join::With { delimiter: args::delimiter(*null, delimiter.as_ref()), positions: false }
        }
    }
}

/// The end of a process that had the other side before, and left nothing to receive, does not concern this one. Returns whether that
/// process closed, which is reported again until the next one comes.
fn note_earlier_end(duplex: &mut Duplex, report: Report) -> bool {
    let how = match duplex.consumer().check() {
        Err(CheckError::PeerAborted { code }) => format!("aborted with code {code}"),
        Err(CheckError::PeerDied) => "died".to_owned(),
        // One that has closed only its direction still receives.
        Err(CheckError::Closed) if duplex.peer() == Peer::Closed => "closed".to_owned(),
        _ => return false,
    };
    report.note(format_args!("the last process at the other side {how}; waiting for the next one"));
    how == "closed"
}
