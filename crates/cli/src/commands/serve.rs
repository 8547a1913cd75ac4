//! `shmpipe serve`: creates a pipe in a memfd and hands it out at a Unix socket.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::thread;
use std::time::Duration;

use shmpipe::os::unix::fd_passing;
use shmpipe::{Address, Location, SetupError};

use crate::args;
use crate::exit::{End, Failure, Outcome};
use crate::output::description::Description;
use crate::output::printable;
use crate::output::report::{self, Report};
use crate::system::signals;

/// The pause after a failure that is not the client's, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

pub fn run(arguments: &args::Serve, report: Report) -> Outcome {
    signals::install()?;
    let pipe = arguments.options().create("memfd")?;
    let mut server = fd_passing::serve(&arguments.path, &pipe)?;
    for &uid in &arguments.trust_uid {
        server = server.trust_uid(uid)?;
    }
    let mut address = OsString::from("memfd:");
    address.push(server.path());
    let address = Address::try_from(address).map_err(SetupError::from)?;
    report::print(&match report {
        Report::Text => format!("{}\n", printable(&address.to_string())),
        Report::Json => {
            let snapshot = shmpipe::inspect(pipe.address())?;
            report::json(&Description::found(&Location::Address(address), &snapshot)) + "\n"
        }
    })?;
    loop {
        if let Some(signal) = signals::received() {
            return Ok(End::Signal(signal));
        }
        match server.accept() {
            Ok(_) => {}
            // A signal, or a client that is already gone.
            Err(SetupError::Os { call: "accept4", source }) if source.kind() != ErrorKind::Interrupted => {
                report.note(Failure::io("accept4", &source).message);
                thread::sleep(PAUSE);
            }
            Err(SetupError::Os { .. }) => {}
            // A client that was refused.
            Err(error) => report.note(error),
        }
    }
}
