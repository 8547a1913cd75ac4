//! `shmpipe ls`, `stat` and `create`: the commands that describe pipes.

use shmpipe::Address;

use crate::args;
use crate::columns;
use crate::description::{self, Description, Withheld};
use crate::exit::{Code, Failure, Outcome};
use crate::pipes;
use crate::processes::Shared;
use crate::report::{self, Report};

/// All pipes of this machine, by name.
pub fn list(report: Report) -> Outcome {
    let (mut pipes, trouble) = pipes::find(&Shared::now());
    if let Some(trouble) = trouble {
        report.note(trouble);
    }
    pipes.sort_by_cached_key(|pipe| {
        let name = pipe.snapshot.as_ref().ok().and_then(|snapshot| snapshot.name.clone());
        (name.is_none(), name, pipe.place.to_string())
    });
    let mut rows = vec![description::heads()];
    let mut objects = Vec::new();
    for pipe in &pipes {
        let withheld = pipe.snapshot.as_ref().map_err(|error| Withheld::new(pipe, error));
        if report.is_json() {
            objects.push(match withheld {
                Ok(snapshot) => report::json(&Description::found(&pipe.place, snapshot)),
                Err(withheld) => report::json(&withheld),
            });
        } else {
            rows.push(
                withheld.map_or_else(
                    |withheld| withheld.row(),
                    |snapshot| description::row(&pipe.place, snapshot),
                ),
            );
        }
    }
    report::answer_and_end(&match report {
        Report::Programs => format!("[{}]\n", objects.join(",\n ")),
        Report::People => columns::align(&rows),
    })
}

/// One pipe in full.
pub fn stat(address: &Address, report: Report) -> Outcome {
    let snapshot = shmpipe::inspect(address)?;
    report::answer_and_end(&match report {
        Report::Programs => report::json(&Description::of(&snapshot)) + "\n",
        Report::People => columns::align(&description::in_full(&snapshot)),
    })
}

/// Makes a pipe and says where it is.
pub fn create(arguments: &args::Create, report: Report) -> Outcome {
    if arguments.address.to_string() == "memfd" {
        let text =
            "a memfd goes with the process that makes it; \"shmpipe serve PATH\" makes one and keeps it";
        return Err(Failure::new(Code::Usage, text));
    }
    let pipe = arguments.options().create(&arguments.address)?;
    let address = pipe.address().clone();
    // What is described is what others find, without us.
    drop(pipe);
    report::answer_and_end(&match report {
        Report::Programs => {
            report::json(&Description::of(&shmpipe::inspect(&address).map_err(Failure::from)?)) + "\n"
        }
        Report::People => format!("{address}\n"),
    })
}
