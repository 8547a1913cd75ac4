//! `shmpipe rm`.

use serde::Serialize;
use shmpipe::{Address, Peer, SetupError, Side};

use crate::exit::{End, Failure, Outcome};
use crate::report::{self, Report, SCHEMA};

#[derive(Serialize)]
struct Removed {
    schema: u32,
    removed: String,
}

/// Removes all of them, and then fails for the first one that could not be removed.
pub fn remove(addresses: &[Address], force: bool, report: Report) -> Outcome {
    let mut first = None;
    for address in addresses {
        match remove_one(address, force, report) {
            Ok(()) if report.is_json() => {
                let removed = Removed { schema: SCHEMA, removed: address.to_string() };
                report::answer(&(report::json(&removed) + "\n"))?;
            }
            Ok(()) => {}
            Err(failure) => {
                // The last failure is told at the very end, by whoever called us.
                if let Some(before) = first.replace(failure) {
                    report.failure(&before);
                    first = first.map(|failure| Failure { code: before.code, ..failure });
                }
            }
        }
    }
    first.map_or(Ok(End::Done), Err)
}

fn remove_one(address: &Address, force: bool, report: Report) -> Result<(), Failure> {
    if !force {
        return shmpipe::unlink(address).map_err(|error| {
            let held = matches!(error, SetupError::RoleTaken { .. });
            let failure = Failure::from(error).about(address);
            match held {
                true => {
                    Failure { message: failure.message + " (--force removes it all the same)", ..failure }
                }
                false => failure,
            }
        });
    }
    // A hint: they may come and go while we remove it.
    let holders = shmpipe::inspect(address).map(|snapshot| {
        let holder = |role, side: &Side| match (side.peer, side.pid) {
            (Peer::Open, Some(pid)) => Some(format!("process {pid} was its {role}")),
            (Peer::Open, None) => Some(format!("it had a {role}")),
            _ => None,
        };
        [holder("producer", &snapshot.producer), holder("consumer", &snapshot.consumer)]
    });
    shmpipe::unlink_force(address).map_err(|error| Failure::from(error).about(address))?;
    let holders: Vec<String> = holders.into_iter().flatten().flatten().collect();
    if !holders.is_empty() {
        report.note(format_args!("{address}: removed while {}", holders.join(" and ")));
    }
    Ok(())
}
