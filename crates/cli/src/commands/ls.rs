//! `shmpipe ls`: lists all pipes of this machine.

use crate::exit::Outcome;
use crate::output::columns;
use crate::output::description::{self, Description, Withheld};
use crate::output::report::{self, Report};
use crate::system::pipes;

/// All pipes of this machine, by name.
pub fn run(report: Report) -> Outcome {
    let (mut pipes, trouble) = pipes::find();
    if let Some(trouble) = trouble {
        report.note(trouble);
    }
    pipes.sort_by_cached_key(|pipe| {
        let name = pipe.snapshot.as_ref().ok().and_then(|snapshot| snapshot.name.clone());
        (name.is_none(), name, pipe.location.to_string())
    });
    let mut rows = vec![description::heads()];
    let mut objects = Vec::new();
    for pipe in &pipes {
        let withheld = pipe.snapshot.as_ref().map_err(|error| Withheld::new(pipe, error));
        if report.is_json() {
            objects.push(match withheld {
                Ok(snapshot) => report::json(&Description::found(&pipe.location, snapshot)),
                Err(withheld) => report::json(&withheld),
            });
        } else {
            rows.push(withheld.map_or_else(
                |withheld| withheld.row(),
                |snapshot| description::row(&pipe.location, snapshot),
            ));
        }
    }
    report::answer_and_end(&match report {
        Report::Programs => format!("[{}]\n", objects.join(",\n ")),
        Report::People => columns::align(&rows),
    })
}
