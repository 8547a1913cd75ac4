//! A session: this process and its partner, pinned, with all transports created and joined.

mod held;
mod start;

use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use self::held::{Leftovers, OnlyOne, Pinned};
use crate::checked::Checked;
use crate::cold::{self, Flood};
use crate::control::{Control, Order, Verb};
use crate::endpoint::{Endpoint, Work};
use crate::errors::{about, unfit};
use crate::floor::Floor;
use crate::limits::Ground;
use crate::partner::{self, Partner, Process};
use crate::placement::Placement;
use crate::settings::Settings;
use crate::statistics;
use crate::transports::Transport;

/// Round trips of the floor before and after each slice.
pub const FLOOR_TRIPS: u64 = 400;
/// The same for a shared CPU, where every trip takes two context switches.
const FLOOR_TRIPS_ON_ONE_CPU: u64 = 40;
/// If the two floors of a slice differ by more than this fraction, the machine moved, and the slice does not count.
pub const FLOOR_TOLERANCE: f64 = 0.1;

/// The use of messages in a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Experiment {
    /// A message goes to the partner, and one of the same size comes back before the next.
    RoundTrip,
    /// The partner sends messages as fast as they are received.
    Streaming,
}

impl fmt::Display for Experiment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Experiment::RoundTrip => "round trip",
            Experiment::Streaming => "streaming",
        })
    }
}

/// A configuration to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// The use of the messages.
    pub experiment: Experiment,
    /// The index of their transport in the session.
    pub transport: usize,
    /// Bytes of each message.
    pub size: usize,
}

/// A measured slice whose two floors agreed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slice {
    /// Nanoseconds of one message, or of one round trip.
    pub cost_ns: f64,
    /// Nanoseconds of one round trip of the floor: the mean of the two floors.
    pub floor_ns: f64,
    /// Where the two processes ran.
    pub placement: Placement,
}

/// A floor, with the placement if the floors before and after agree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bracket {
    before: f64,
    after: f64,
}

/// A check before every order; see [`Session::watch`].
type Watch = Box<dyn FnMut() -> io::Result<()>>;

/// This process and its partner.
///
/// It is not `Send`, because the partner ends with the thread that started it. A process can have one session at a time, since
/// all sessions would use the same two CPUs.
pub struct Session {
    // an ending session drops the fields in this order
    partner: Option<Partner>,
    endpoints: Vec<Endpoint>,
    transports: Vec<&'static dyn Transport>,
    pub(crate) floor: Floor,
    control: Rc<Control>,
    _leftovers: Leftovers,
    /// The process that cleans up, where the partner is a thread.
    guard: Option<Process>,
    _affinity: Pinned,
    only: OnlyOne,
    cpus: Option<(usize, usize)>,
    settings: Settings,
    flood: Flood,
    /// The memory for limits, created at the first use.
    pub(crate) ground: Option<Ground>,
    orders: u64,
    watch: Option<Watch>,
    /// The partner may be busy, so it cannot receive the order to quit.
    midway: bool,
}

impl Session {
    /// The transports. [`Config::transport`] is an index into them.
    pub fn transports(&self) -> &[&'static dyn Transport] {
        &self.transports
    }

    /// The index of the transport with this name.
    ///
    /// # Errors
    /// `InvalidInput` if the session has none.
    pub fn transport(&self, name: &str) -> io::Result<usize> {
        let found = self.transports.iter().position(|transport| transport.name() == name);
        found.ok_or_else(|| unfit(format!("no transport {name} in this session")))
    }

    /// The CPUs of this process and the partner, or `None` if there is only one and neither is pinned.
    pub fn cpus(&self) -> Option<(usize, usize)> {
        self.cpus
    }

    /// The possible placements.
    pub(crate) fn placements(&self) -> &'static [Placement] {
        match self.cpus {
            Some(_) => &Placement::OF_TWO_CPUS,
            None => &[Placement::OneCpu],
        }
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The partner's process id, which is our own if the partner is a thread.
    pub fn partner_id(&self) -> u32 {
        match &self.partner {
            Some(Partner::Process(process)) => process.id(),
            Some(Partner::Thread(_)) | None => std::process::id(),
        }
    }

    /// Calls `watch` before every order to the partner, outside of timed code. Its error ends the current call, which returns it.
    /// The session stays usable.
    pub fn watch(&mut self, watch: impl FnMut() -> io::Result<()> + 'static) {
        self.watch = Some(Box::new(watch));
    }

    /// Whether a message of `size` bytes fits the transport.
    pub fn fits(&self, transport: usize, size: usize) -> bool {
        self.endpoints.get(transport).is_some_and(|endpoint| size <= endpoint.0.max_len())
    }

    /// Measures one slice of `count` messages, or of fewer if it is [cold](Settings::cold). Returns `None` if the machine moved
    /// meanwhile.
    ///
    /// # Errors
    /// `InvalidInput` for a message that does not fit; those of the transport; `BrokenPipe` if the partner has ended. After any
    /// error but the first, the session is unusable.
    pub fn slice(&mut self, config: Config, count: u64) -> io::Result<Option<Slice>> {
        let Config { experiment, transport, size } = config;
        let verb = match experiment {
            Experiment::RoundTrip => Verb::Answer,
            Experiment::Streaming => Verb::StreamOut,
        };
        let count = self.slice_len(size, count);
        let order = Order { cold: self.settings.cold, ..self.order(verb, transport, size, count)? };
        let (took, bracket) = self.bracketed(order, |work| {
            let start = Instant::now();
            match experiment {
                Experiment::RoundTrip => work.ask(size, count)?,
                Experiment::Streaming => work.stream_in(size, count)?,
            }
            Ok(start.elapsed())
        })?;
        let cost_ns = took.as_nanos() as f64 / count.max(1) as f64;
        Ok(self.placed(bracket).map(|(placement, floor_ns)| Slice { cost_ns, floor_ns, placement }))
    }

    /// Measures each of `count` round trips. Appends their nanoseconds to `took` and returns the placement. If the machine moved
    /// meanwhile, returns `None` and appends nothing. With `transport` `None` it measures the floor itself.
    ///
    /// # Errors
    /// As [`slice`](Session::slice).
    pub fn each_round_trip(
        &mut self,
        transport: Option<usize>,
        size: usize,
        count: u64,
        took: &mut Vec<u64>,
    ) -> io::Result<Option<Placement>> {
        let count = self.slice_len(size, count);
        let cold = self.settings.cold;
        let already = took.len();
        took.reserve(count as usize); // not while the clock runs
        let bracket = match transport {
            Some(transport) => {
                let order = Order { cold, ..self.order(Verb::Answer, transport, size, count)? };
                self.bracketed(order, |work| work.ask_each(size, count, took))?.1
            }
            None => {
                let order = Order { verb: Verb::AnswerFloor, cold, ..self.floor_order(count) };
                self.between_floors(order, |session| session.floor.ask_each(count, took))?.1
            }
        };
        let placed = self.placed(bracket);
        if placed.is_none() {
            took.truncate(already);
        }
        Ok(placed.map(|(placement, _)| placement))
    }

    /// Makes the partner send `count` generated messages of 0 to `max_len` bytes (log-uniform), and compares the sequence number,
    /// the length and every byte of each.
    ///
    /// # Errors
    /// `InvalidData` with the first message and byte that differ; as [`slice`](Session::slice).
    pub fn checked_stream(
        &mut self,
        transport: usize,
        count: u64,
        max_len: usize,
        seed: u64,
    ) -> io::Result<Checked> {
        let order = self.order(Verb::SendChecked, transport, max_len, count)?;
        let order = Order { mixed: true, seed, ..order };
        let ((bytes, elapsed), _) = self.bracketed(order, |work| {
            let start = Instant::now();
            let bytes = work.receive_checked(partner::messages(&order), max_len, count)?;
            Ok((bytes, start.elapsed()))
        })?;
        let transport = self.transports[transport].name().to_owned();
        Ok(Checked { transport, messages: count, bytes, max_len, seed, elapsed })
    }

    /// Sends `count` generated messages of `size` bytes each way. The other side compares every byte.
    ///
    /// # Errors
    /// As [`checked_stream`](Session::checked_stream). On the way to the partner, the partner itself reports the difference on
    /// standard error, and ends.
    pub fn check_both_ways(&mut self, transport: usize, size: usize, count: u64) -> io::Result<()> {
        let seed = self.orders;
        let order = Order { seed, ..self.order(Verb::ReceiveChecked, transport, size, count)? };
        self.bracketed(order, |work| work.send_checked(partner::messages(&order), size, count))?;
        let order = Order { seed, ..self.order(Verb::SendChecked, transport, size, count)? };
        self.bracketed(order, |work| work.receive_checked(partner::messages(&order), size, count))?;
        Ok(())
    }

    /// The number of messages in a slice for which `count` were requested.
    fn slice_len(&self, size: usize, count: u64) -> u64 {
        if self.settings.cold { count.min(cold::lap(self.settings.capacity, size)) } else { count }
    }

    pub(crate) fn floor_order(&self, count: u64) -> Order {
        let floor = if self.cpus.is_some() { FLOOR_TRIPS } else { FLOOR_TRIPS_ON_ONE_CPU };
        Order { count, floor, ..Order::QUIT }
    }

    pub(crate) fn order(&self, verb: Verb, transport: usize, size: usize, count: u64) -> io::Result<Order> {
        let Some(endpoint) = self.endpoints.get(transport) else {
            return Err(unfit(format!("no transport number {transport} in this session")));
        };
        let (name, longest) = (self.transports[transport].name(), endpoint.0.max_len());
        if size > longest {
            return Err(unfit(format!(
                "{name} takes {longest} bytes at most with this capacity, not {size}"
            )));
        }
        Ok(Order { verb, transport, size, ..self.floor_order(count) })
    }

    pub(crate) fn bracketed<T>(
        &mut self,
        order: Order,
        work: impl FnOnce(&mut dyn Work) -> io::Result<T>,
    ) -> io::Result<(T, Bracket)> {
        self.between_floors(order, |session| work(&mut *session.endpoints[order.transport].0))
    }

    /// Gives an order, does this process's part of it, and measures the floors before and after.
    pub(crate) fn between_floors<T>(
        &mut self,
        order: Order,
        part: impl FnOnce(&mut Session) -> io::Result<T>,
    ) -> io::Result<(T, Bracket)> {
        if self.midway {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "this session has failed before"));
        }
        if let Some(watch) = &mut self.watch {
            watch()?;
        }
        self.midway = true;
        self.orders += 1;
        self.control.give(self.orders, order);
        if order.cold {
            self.flood.run();
        }
        let done = self.floor.ask(order.floor).and_then(|before| {
            let done = part(self)?;
            let after = self.floor.ask(order.floor)?;
            Ok((done, Bracket { before, after }))
        });
        let done = self.explained(done)?;
        self.midway = false;
        Ok(done)
    }

    pub(crate) fn placed(&self, bracket: Bracket) -> Option<(Placement, f64)> {
        let Bracket { before, after } = bracket;
        let floor_ns = (before + after) / 2.0;
        let placement = Placement::of(floor_ns, self.settings.near_below_ns, self.cpus.is_none());
        statistics::agree(before, after, FLOOR_TOLERANCE).then_some((placement, floor_ns))
    }

    /// Adds to an error how the partner ended, if it has.
    fn explained<T>(&mut self, done: io::Result<T>) -> io::Result<T> {
        done.map_err(|error| {
            let patience = 2 * partner::GRACE;
            let ending = match (&mut self.partner, &mut self.guard) {
                (Some(partner), _) => partner.ending(patience),
                (None, Some(guard)) => guard
                    .ending(patience)
                    .map(|status| format!("the guarding process ended early ({status})")),
                (None, None) => None,
            };
            match ending {
                Some(how) => about(format_args!("{how}"), error),
                None => error,
            }
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let (false, Some(partner)) = (self.midway, &mut self.partner) {
            self.control.give(self.orders + 1, Order::QUIT);
            partner.ending(Duration::from_secs(1));
        }
        // dropping it kills a process that is busy or does not quit, but a thread must be made to end
        if let Some(Partner::Thread(thread)) = &mut self.partner {
            self.endpoints.clear();
            self.control.words().remove_leftovers();
            if !thread.end(Duration::from_secs(2)) {
                self.only.keep();
            }
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.transports.iter().map(|transport| transport.name()).collect();
        f.debug_struct("Session")
            .field("partner", &self.partner_id())
            .field("cpus", &self.cpus)
            .field("transports", &names)
            .finish_non_exhaustive()
    }
}
