//! `shmpipe top`: all pipes live, on a terminal, or as JSON for programs.

mod board;
mod view;

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use serde::Serialize;

use crate::args;
use crate::commands::watched::{self, FlowObject, LOOK_INTERVAL, UnreadableObject, look_until};
use crate::exit::{Code, End, Failure, Outcome};
use crate::output::columns;
use crate::output::report::{self, Report, SCHEMA};
use crate::system::signals;
use board::{Board, Next};

/// What `--json` prints at a tick.
#[derive(Serialize)]
struct Tick {
    schema: u32,
    unix_seconds: f64,
    interval_seconds: f64,
    /// Why pipes may be missing.
    note: Option<String>,
    pipes: Vec<FlowObject>,
    unreadable: Vec<UnreadableObject>,
}

pub fn run(arguments: &args::Top, report: Report) -> Outcome {
    signals::install()?;
    let interactive = !report.is_json() && !arguments.once;
    if interactive && !(io::stdout().is_terminal() && io::stdin().is_terminal()) {
        let text = "top needs a terminal; use --once for one interval as text, or --json";
        return Err(Failure::new(Code::Usage, text));
    }
    let mut board = Board::new(&arguments.addresses, arguments.interval);
    if interactive {
        let mut terminal =
            ratatui::try_init().map_err(|error| Failure::io("setting up the terminal", &error))?;
        let ended = show(&mut terminal, &mut board);
        ratatui::restore();
        return ended;
    }
    let mut next = Instant::now();
    loop {
        next += arguments.interval;
        if let Some(signal) = look_until(next, || board.look()) {
            return Ok(End::Signal(signal));
        }
        board.tick(Instant::now());
        let text = match report {
            Report::Json => json(&board, arguments.interval),
            Report::Text => {
                board.note().into_iter().for_each(|note| report.note(note));
                columns::align(&view::table(&board))
            }
        };
        if !report::print_to_reader(&text)? || arguments.once {
            return Ok(End::Done);
        }
    }
}

fn json(board: &Board, interval: Duration) -> String {
    report::json(&Tick {
        schema: SCHEMA,
        unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
        interval_seconds: interval.as_secs_f64(),
        note: board.note(),
        pipes: board.pipes().iter().flat_map(watched::objects).collect(),
        unreadable: board.pipes().iter().filter_map(UnreadableObject::of).collect(),
    }) + "\n"
}

/// Shows the board until a key or a signal ends it.
fn show(terminal: &mut DefaultTerminal, board: &mut Board) -> Outcome {
    let failed = |error: io::Error| Failure::io("the terminal", &error);
    let mut next_tick = Instant::now();
    let mut next_look = Instant::now();
    loop {
        if let Some(signal) = signals::received() {
            return Ok(End::Signal(signal));
        }
        let now = Instant::now();
        if now >= next_look {
            board.look();
            next_look = now + LOOK_INTERVAL;
        }
        if now >= next_tick {
            board.tick(now);
            next_tick = now + board.interval;
        }
        terminal.draw(|frame| view::draw(frame, board)).map_err(failed)?;
        // Until the next look, or a key. A resize of the terminal is an event too, and shown by the next turn.
        while event::poll(next_look.saturating_duration_since(Instant::now())).map_err(failed)? {
            match event::read().map_err(failed)? {
                Event::Key(key) if key.kind != KeyEventKind::Release => match board.press(key) {
                    Next::Quit => return Ok(End::Done),
                    Next::Show => break,
                },
                Event::Resize(..) => break,
                _ => {}
            }
        }
    }
}
