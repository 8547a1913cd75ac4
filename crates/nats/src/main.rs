//! `shmpipe nats`: a bridge between pipes of shmpipe and streams of NATS JetStream.

mod args;
mod bridge;
mod context;
mod durability;
mod exit;
mod failpoint;
mod frame;
mod jetstream;
mod metrics;
mod note;
mod publish;
mod report;
mod run;
mod server;
mod stats;
mod status;
mod stop;
mod subscribe;
mod values;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::{Arguments, Command, GRACE};
use bridge::Surroundings;
use exit::{Code, Failure, Outcome};
use report::Report;
use stats::Stats;
use stop::Stop;

fn main() -> ExitCode {
    let (report, outcome) = match Arguments::try_parse() {
        Ok(arguments) => {
            let report = Report::new(arguments.json);
            let outcome = run(arguments, &report);
            (report, outcome)
        }
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // There is nowhere to report a closed standard output.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            if !std::env::args_os().any(|word| word == "--json") {
                let _ = error.print();
                return ExitCode::from(Code::Usage as u8);
            }
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            (Report::new(true), Err(Failure::new(Code::Usage, line)))
        }
    };
    if let Err(failure) = &outcome {
        report.failure(failure);
    }
    exit::code(&outcome)
}

fn run(arguments: Arguments, report: &Report) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Failure, error))?;
    let stop = Stop::new(GRACE);
    let (login, context) = arguments.login.split();
    let login = context::complete(login, context.as_deref())?;
    let around = Surroundings {
        login,
        report: report.clone(),
        stop: stop.clone(),
        stats: Stats::default(),
        runtime: runtime.handle().clone(),
    };
    let outcome = match &arguments.command {
        Command::Publish(settings) => {
            run::stop_on_signals(&runtime, stop)?;
            bridge::publish(settings, &around)
        }
        Command::Subscribe(settings) => {
            run::stop_on_signals(&runtime, stop)?;
            bridge::subscribe(settings, &around)
        }
        Command::Status(settings) => {
            run::stop_on_signals(&runtime, stop)?;
            status::show(settings, &around)
        }
        Command::Run { config } => run::run(config, around, &runtime),
    };
    // A name that is being looked up may keep a thread.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
#[test]
fn part() {
    shmpipe_testing::process::part(&[("filling", subscribe::tests::fill)]);
}
