//! `shmpipe ls`: lists all pipes of this machine.

use crate::exit::Outcome;
use crate::output::columns;
use crate::output::description::{self, Description, Unreadable};
use crate::output::report::{self, Report};
use crate::system::pipes;

/// Lists all pipes, sorted by name.
pub fn run(report: Report) -> Outcome {
    let (mut pipes, trouble) = pipes::find();
    if let Some(trouble) = trouble {
        report.note(trouble);
    }
    pipes.sort_by_cached_key(|pipe| {
        let name = pipe.snapshot.as_ref().ok().and_then(|snapshot| snapshot.name.clone());
        (name.is_none(), name, pipe.location.to_string())
    });
    let mut rows = vec![description::headers()];
    let mut objects = Vec::new();
    for pipe in &pipes {
        let unreadable = pipe.snapshot.as_ref().map_err(|error| Unreadable::new(pipe, error));
        if report.is_json() {
            objects.push(match unreadable {
                Ok(snapshot) => report::json(&Description::found(&pipe.location, snapshot)),
                Err(unreadable) => report::json(&unreadable),
            });
        } else {
            rows.push(unreadable.map_or_else(
                |unreadable| unreadable.row(),
                |snapshot| description::row(&pipe.location, snapshot),
            ));
        }
    }
    report::print_and_end(&match report {
        Report::Json => format!("[{}]\n", objects.join(",\n ")),
        Report::Text => columns::align(&rows),
    })
}
