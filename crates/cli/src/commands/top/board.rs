//! The pipes that `top` watches, and what the user has chosen to see of them.

use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use shmpipe::{Address, Location, SetupError, Snapshot};

use crate::commands::watched::{Flow, Watched};
use crate::output::description::{self, Way};
use crate::system::pipes;

/// How often to look for new pipes: that reads the mappings of all processes.
const SEARCH_INTERVAL: Duration = Duration::from_secs(3);

/// What the rows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Name,
    Messages,
    Bytes,
    Fill,
    Unread,
}

impl Sort {
    pub const ALL: [Sort; 5] = [Sort::Name, Sort::Messages, Sort::Bytes, Sort::Fill, Sort::Unread];

    pub fn name(self) -> &'static str {
        match self {
            Sort::Name => "name",
            Sort::Messages => "messages",
            Sort::Bytes => "bytes",
            Sort::Fill => "fill",
            Sort::Unread => "unread",
        }
    }

    fn next(self) -> Self {
        let at = Sort::ALL.iter().position(|&sort| sort == self).expect("one of them");
        Sort::ALL[(at + 1) % Sort::ALL.len()]
    }

    /// The number to sort by, the largest first.
    fn key(self, seen: &Seen<'_>) -> f64 {
        match self {
            Sort::Name => 0.0,
            Sort::Messages => seen.flow.sent_per_second,
            Sort::Bytes => seen.flow.bytes_per_second,
            Sort::Fill => seen.way.used as f64 / seen.latest.capacity.max(1) as f64,
            Sort::Unread => seen.way.unread as f64,
        }
    }
}

/// What to do after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Show,
    Quit,
}

/// The board of `top`.
pub struct Board {
    pipes: Vec<Watched>,
    /// The pipes that were named; none means all.
    named: Vec<Address>,
    pub interval: Duration,
    searched: Option<Instant>,
    /// Why pipes are missing.
    note: Option<String>,
    pub sort: Sort,
    pub reversed: bool,
    pub filter: String,
    /// The keys go into the filter.
    pub edits_filter: bool,
    /// The selected row, by the location of its pipe and its direction.
    selected: Option<(Location, usize)>,
    /// The selected pipe is shown in full.
    pub full: bool,
    /// The first line of the full view.
    pub scroll: u16,
}

/// A direction of a pipe, or a pipe that cannot be read.
pub struct Row<'a> {
    pub pipe: &'a Watched,
    direction: usize,
    /// What the pipe is called here.
    pub name: String,
    /// What there is to see, or why there is nothing.
    pub seen: Result<Seen<'a>, &'a SetupError>,
}

/// A direction of a pipe that can be read.
pub struct Seen<'a> {
    pub latest: &'a Snapshot,
    pub way: Way<'a>,
    pub flow: &'a Flow,
}

impl<'a> Row<'a> {
    /// The rows of a pipe.
    fn of(pipe: &'a Watched) -> Vec<Row<'a>> {
        let name = pipe.location.to_string();
        let latest = match &pipe.latest {
            Ok(latest) => latest,
            Err(error) => return vec![Row { pipe, direction: 0, name, seen: Err(error) }],
        };
        let ways = description::ways(latest).into_iter().zip(&pipe.flows).enumerate();
        let row = |(direction, (way, flow)): (usize, (Way<'a>, &'a Flow))| {
            let name = match way.name {
                Some(direction) => format!("{name} {}", direction.replace(" to ", ">")),
                None => name.clone(),
            };
            Row { pipe, direction, name, seen: Ok(Seen { latest, way, flow }) }
        };
        ways.map(row).collect()
    }
}

impl Board {
    pub fn new(named: &[Address], interval: Duration) -> Self {
        let mut board = Board {
            pipes: Vec::new(),
            named: named.to_vec(),
            interval,
            searched: None,
            note: None,
            sort: Sort::Name,
            reversed: false,
            filter: String::new(),
            edits_filter: false,
            selected: None,
            full: false,
            scroll: 0,
        };
        for address in named {
            let location = Location::Address(address.clone());
            if !board.pipes.iter().any(|pipe| pipe.location == location) {
                board.pipes.push(Watched::new(location, shmpipe::inspect(address)));
            }
        }
        board.look();
        board.tick(Instant::now());
        board
    }

    pub fn pipes(&self) -> &[Watched] {
        &self.pipes
    }

    pub fn note(&self) -> Option<String> {
        self.note.clone()
    }

    /// Looks at every pipe, and now and then for new ones.
    pub fn look(&mut self) {
        for pipe in &mut self.pipes {
            pipe.look();
        }
        if self.named.is_empty() && self.searched.is_none_or(|moment| moment.elapsed() >= SEARCH_INTERVAL) {
            self.search();
            self.searched = Some(Instant::now());
        }
    }

    fn search(&mut self) {
        let (found, trouble) = pipes::all();
        self.note = trouble.map(|error| error.to_string());
        for found in found {
            let Ok(snapshot) = found.snapshot else { continue };
            match self.pipes.iter_mut().find(|pipe| pipe.is(snapshot.segment_id)) {
                // The process at whose descriptor it was found has ended, or it was renamed.
                Some(pipe) if pipe.latest.is_err() => pipe.move_to(found.location, snapshot),
                Some(_) => {}
                None => self.pipes.push(Watched::new(found.location, Ok(snapshot))),
            }
        }
        // A pipe that is gone stays on the board until then.
        self.pipes.retain(|pipe| pipe.latest.is_ok());
    }

    pub fn tick(&mut self, now: Instant) {
        self.pipes.iter_mut().for_each(|pipe| pipe.tick(now));
    }

    /// The rows to show, in order.
    pub fn rows(&self) -> Vec<Row<'_>> {
        let filter = self.filter.to_lowercase();
        let mut rows: Vec<Row<'_>> = self.pipes.iter().flat_map(Row::of).collect();
        rows.retain(|row| row.name.to_lowercase().contains(&filter));
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        let key = |row: &Row<'_>| row.seen.as_ref().map_or(-1.0, |seen| self.sort.key(seen));
        rows.sort_by(|a, b| key(b).total_cmp(&key(a)));
        if self.reversed {
            rows.reverse();
        }
        rows
    }

    /// The index of the selected row: the first if none was chosen, or if it is gone.
    pub fn selected(&self, rows: &[Row<'_>]) -> usize {
        let Some((location, direction)) = &self.selected else { return 0 };
        let is = |row: &Row<'_>| row.direction == *direction && row.pipe.location == *location;
        rows.iter().position(is).unwrap_or(0)
    }

    /// Selects another row, by the index of the selected one and that of the last.
    fn select(&mut self, another: impl FnOnce(usize, usize) -> usize) {
        let rows = self.rows();
        let chosen = rows.get(another(self.selected(&rows), rows.len().saturating_sub(1)));
        if let Some(chosen) = chosen.map(|row| (row.pipe.location.clone(), row.direction)) {
            self.selected = Some(chosen);
        }
    }

    /// Reacts to a key.
    pub fn press(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) && matches!(key.code, KeyCode::Char('c')) {
            return Next::Quit;
        }
        if self.edits_filter {
            match key.code {
                KeyCode::Enter => self.edits_filter = false,
                KeyCode::Esc => {
                    self.edits_filter = false;
                    self.filter.clear();
                }
                KeyCode::Backspace => drop(self.filter.pop()),
                KeyCode::Char(letter) => self.filter.push(letter),
                _ => {}
            }
            return Next::Show;
        }
        match key.code {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Esc if self.full => self.full = false,
            KeyCode::Esc => return Next::Quit,
            KeyCode::Up | KeyCode::Char('k') if self.full => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') if self.full => self.scroll = self.scroll.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => self.select(|at, _| at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(|at, last| (at + 1).min(last)),
            KeyCode::Home => self.select(|_, _| 0),
            KeyCode::End => self.select(|_, last| last),
            KeyCode::Enter => {
                self.select(|at, _| at);
                self.full = !self.full;
                self.scroll = 0;
            }
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('/') => {
                self.full = false;
                self.edits_filter = true;
            }
            _ => {}
        }
        Next::Show
    }
}
