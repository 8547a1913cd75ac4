//! A session: this process and its partner, pinned, with every transport made and joined.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};
use std::time::{Duration, Instant};

use crate::affinity::{self, Affinity};
use crate::checked::Checked;
use crate::control::{Control, Order, Verb};
use crate::endpoint::{Endpoint, Work};
use crate::errors::{about, unfit};
use crate::floor::Floor;
use crate::guard::SignalsHeld;
use crate::partner::{self, Partner};
use crate::placement::{NEAR_BELOW_NS, Placement};
use crate::statistics;
use crate::transports::{Invitation, Transport};

/// Round trips of the floor before and after each slice.
pub const FLOOR_TRIPS: u64 = 400;
/// The same where both processes share one CPU and every trip takes two context switches.
const FLOOR_TRIPS_ON_ONE_CPU: u64 = 40;
/// The two floors of a slice may differ by this fraction, or the slice does not count: the machine moved.
pub const FLOOR_TOLERANCE: f64 = 0.1;

/// What a session is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The CPU of this process and the partner's; by default the first two that this process may run on.
    pub cpus: Option<(usize, usize)>,
    /// Bytes of ring data, a power of two: of each direction of each transport that lies in memory.
    pub capacity: usize,
    /// Floors below this count as near; see [`NEAR_BELOW_NS`].
    pub near_below_ns: f64,
    /// Messages of a slice; by default as many as last for the time that a [`Plan`](crate::Plan) says. A slice that fits
    /// the ring measures a burst: the consumer follows close behind the producer all the way. One that laps it often
    /// measures a steady stream, in which the slower side sets the pace and the ring is mostly full, or mostly empty.
    pub burst: Option<u64>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { cpus: None, capacity: 1 << 20, near_below_ns: NEAR_BELOW_NS, burst: None }
    }
}

/// What is done with messages in a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Experiment {
    /// A message goes to the partner and one of the same size comes back; then the next.
    RoundTrip,
    /// Messages come from the partner one after another, as fast as they are taken.
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

/// One thing to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// What is done with the messages.
    pub experiment: Experiment,
    /// Which of the session's transports carries them.
    pub transport: usize,
    /// Bytes of each message.
    pub size: usize,
}

/// A measured slice whose two floors agreed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slice {
    /// Nanoseconds of one message, or of one round trip.
    pub cost_ns: f64,
    /// Nanoseconds of one round trip of the floor: the mean of before and after.
    pub floor_ns: f64,
    /// Where the two processes ran.
    pub placement: Placement,
}

/// A floor, and where it says that the processes ran, if the one before and the one after agree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bracket {
    before: f64,
    after: f64,
}

/// This process and its partner.
///
/// It must stay on the thread that started it, to which the partner's life is tied; it is not `Send`. One process can have
/// one session at a time, since all would be on the same two CPUs.
pub struct Session {
    // the order of the fields is the order in which an ending session lets go of them
    partner: Option<Partner>,
    endpoints: Vec<Endpoint>,
    transports: Vec<&'static dyn Transport>,
    floor: Floor,
    control: Rc<Control>,
    _leftovers: Leftovers,
    _affinity: Pinned,
    _only: OnlyOne,
    cpus: Option<(usize, usize)>,
    settings: Settings,
    orders: u64,
    /// The partner may be in the middle of something: it cannot be asked to quit.
    midway: bool,
}

impl Session {
    /// Makes the transports, starts the partner and waits until it has joined them all. As many bytes as a ring holds then
    /// go each way through each of them, checked, so that no page is touched for the first time while the clock runs.
    ///
    /// # Errors
    /// `ResourceBusy` while another session of this process lives; those of the system, with what was tried in front.
    pub fn start(settings: &Settings, transports: &[&'static dyn Transport]) -> io::Result<Session> {
        if partner::is_partner() {
            return Err(unfit("a partner cannot have one: main must call serve_if_partner first"));
        }
        let only = OnlyOne::claim()?;
        let before = Affinity::current()?;
        let cpus = affinity::choose(settings.cpus, &before.cpus())?;
        let signals = SignalsHeld::new()?;
        let control = Rc::new(Control::create()?);
        let mut session = Session {
            partner: None,
            endpoints: Vec::new(),
            transports: transports.to_vec(),
            floor: Floor::new(Rc::clone(&control)),
            control: Rc::clone(&control),
            _leftovers: Leftovers(Rc::clone(&control)),
            _affinity: Pinned(before),
            _only: only,
            cpus,
            settings: settings.clone(),
            orders: 0,
            midway: true,
        };
        let mut made: Vec<Option<(Endpoint, String)>> = transports.iter().map(|_| None).collect();
        let mut descriptors = Vec::new();
        session.make(transports, true, &mut made, &mut descriptors)?;
        session.partner = Some(Partner::start(&control, cpus.map(|(_, theirs)| theirs), descriptors)?);
        if let Some((ours, _)) = cpus {
            affinity::pin(ours)?;
        }
        let ready = session.floor.ask_untimed(1);
        session.explained(ready)?;
        let mut none = Vec::new();
        session.make(transports, false, &mut made, &mut none)?;
        if !none.is_empty() {
            return Err(unfit("a transport passes descriptors and does not say so"));
        }
        let mut letter = String::new();
        for (transport, (endpoint, words)) in transports.iter().zip(made.into_iter().flatten()) {
            letter += &format!("{}{words}\n", transport.name());
            session.endpoints.push(endpoint);
        }
        control.write_letter(&letter)?;
        let joined = session.floor.ask_untimed(2); // one throws the letter, the next comes back when it has been followed
        session.explained(joined)?;
        session.midway = false;
        drop(signals);
        for transport in 0..transports.len() {
            let size = session.endpoints[transport].0.max_len().clamp(1, 4096);
            session.check_both_ways(transport, size, settings.capacity.div_ceil(size) as u64)?;
        }
        Ok(session)
    }

    /// Makes the transports that pass descriptors, or the others.
    fn make(
        &self,
        transports: &[&'static dyn Transport],
        pass: bool,
        made: &mut [Option<(Endpoint, String)>],
        descriptors: &mut Vec<OwnedFd>,
    ) -> io::Result<()> {
        for (transport, made) in transports.iter().zip(made) {
            if transport.passes_descriptors() == pass {
                let mut invitation = Invitation::new(self.settings.capacity, &self.control);
                let endpoint = transport.make(&mut invitation);
                let endpoint =
                    endpoint.map_err(|error| about(format_args!("{}", transport.name()), error))?;
                let (words, passed) = invitation.into_parts();
                *made = Some((endpoint, words));
                descriptors.extend(passed);
            }
        }
        Ok(())
    }

    /// The transports, in the order in which [`Config::transport`] counts them.
    pub fn transports(&self) -> &[&'static dyn Transport] {
        &self.transports
    }

    /// The number of the transport of that name.
    ///
    /// # Errors
    /// `InvalidInput` if the session has none.
    pub fn transport(&self, name: &str) -> io::Result<usize> {
        let found = self.transports.iter().position(|transport| transport.name() == name);
        found.ok_or_else(|| unfit(format!("no transport {name} in this session")))
    }

    /// The CPU of this process and the partner's, or `None` if there is only one and neither is pinned.
    pub fn cpus(&self) -> Option<(usize, usize)> {
        self.cpus
    }

    /// What it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The partner's process id.
    pub fn partner_id(&self) -> u32 {
        self.partner.as_ref().map_or(0, Partner::id)
    }

    /// Whether a message of `size` bytes fits the transport.
    pub fn fits(&self, transport: usize, size: usize) -> bool {
        self.endpoints.get(transport).is_some_and(|endpoint| size <= endpoint.0.max_len())
    }

    /// Measures one slice of `count` messages, or gives `None` if the machine moved meanwhile.
    ///
    /// # Errors
    /// `InvalidInput` for a message that does not fit; the transport's; `BrokenPipe` when the partner has ended. After any
    /// error but the first the session is of no more use.
    pub fn slice(&mut self, config: Config, count: u64) -> io::Result<Option<Slice>> {
        let Config { experiment, transport, size } = config;
        let verb = match experiment {
            Experiment::RoundTrip => Verb::Answer,
            Experiment::Streaming => Verb::StreamOut,
        };
        let (took, bracket) = self.bracketed(self.order(verb, transport, size, count)?, |work| {
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

    /// Measures each of `count` round trips: appends their nanoseconds to `took` and tells where the processes ran, or
    /// gives `None` and appends nothing if the machine moved meanwhile. `transport` `None` measures the floor itself.
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
        let already = took.len();
        took.reserve(count as usize); // not while the clock runs
        let bracket = match transport {
            Some(transport) => {
                let order = self.order(Verb::Answer, transport, size, count)?;
                self.bracketed(order, |work| work.ask_each(size, count, took))?.1
            }
            None => {
                let order =
                    Order { verb: Verb::AnswerFloor, transport: 0, size: 0, ..self.floor_order(count) };
                self.between_floors(order, |session| session.floor.ask_each(count, took))?.1
            }
        };
        let placed = self.placed(bracket);
        if placed.is_none() {
            took.truncate(already);
        }
        Ok(placed.map(|(placement, _)| placement))
    }

    /// Has the partner send `count` generated messages of 0 to `max_len` bytes, short ones as often as long ones
    /// (log-uniform), and compares the sequence number, the length and every byte of each.
    ///
    /// # Errors
    /// `InvalidData` naming the first message and byte that differ; as [`slice`](Session::slice).
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

    /// Sends `count` generated messages of `size` bytes each way and has every byte compared on the other side.
    ///
    /// # Errors
    /// As [`checked_stream`](Session::checked_stream); of the way to the partner it reports what is wrong itself, on its
    /// standard error, and ends.
    pub fn check_both_ways(&mut self, transport: usize, size: usize, count: u64) -> io::Result<()> {
        let seed = self.orders;
        let order = Order { seed, ..self.order(Verb::ReceiveChecked, transport, size, count)? };
        self.bracketed(order, |work| work.send_checked(partner::messages(&order), size, count))?;
        let order = Order { seed, ..self.order(Verb::SendChecked, transport, size, count)? };
        self.bracketed(order, |work| work.receive_checked(partner::messages(&order), size, count))?;
        Ok(())
    }

    fn floor_order(&self, count: u64) -> Order {
        let floor = if self.cpus.is_some() { FLOOR_TRIPS } else { FLOOR_TRIPS_ON_ONE_CPU };
        Order { count, floor, ..Order::QUIT }
    }

    fn order(&self, verb: Verb, transport: usize, size: usize, count: u64) -> io::Result<Order> {
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

    fn bracketed<T>(
        &mut self,
        order: Order,
        work: impl FnOnce(&mut dyn Work) -> io::Result<T>,
    ) -> io::Result<(T, Bracket)> {
        self.between_floors(order, |session| work(&mut *session.endpoints[order.transport].0))
    }

    /// Gives an order, does this process's part of it, and measures the floor before and after.
    fn between_floors<T>(
        &mut self,
        order: Order,
        part: impl FnOnce(&mut Session) -> io::Result<T>,
    ) -> io::Result<(T, Bracket)> {
        if self.midway {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "this session has failed before"));
        }
        self.midway = true;
        self.orders += 1;
        self.control.give(self.orders, order);
        let done = self.floor.ask(order.floor).and_then(|before| {
            let done = part(self)?;
            let after = self.floor.ask(order.floor)?;
            Ok((done, Bracket { before, after }))
        });
        let done = self.explained(done)?;
        self.midway = false;
        Ok(done)
    }

    fn placed(&self, bracket: Bracket) -> Option<(Placement, f64)> {
        let Bracket { before, after } = bracket;
        let floor_ns = (before + after) / 2.0;
        let placement = Placement::of(floor_ns, self.settings.near_below_ns, self.cpus.is_none());
        statistics::agree(before, after, FLOOR_TOLERANCE).then_some((placement, floor_ns))
    }

    /// Adds to an error how the partner ended, if that is what has happened.
    fn explained<T>(&mut self, done: io::Result<T>) -> io::Result<T> {
        done.map_err(|error| {
            let ending = self.partner.as_mut().and_then(|partner| partner.ending(2 * partner::GRACE));
            match ending {
                Some(status) => about(format_args!("the partner process ended early ({status})"), error),
                None => error,
            }
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // a partner midway is killed when it is dropped, as is one that does not quit
        if let (false, Some(partner)) = (self.midway, &mut self.partner) {
            self.control.give(self.orders + 1, Order::QUIT);
            partner.ending(Duration::from_secs(1));
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

/// Removes what the transports have left, when both processes have let go of it.
struct Leftovers(Rc<Control>);

impl Drop for Leftovers {
    fn drop(&mut self) {
        self.0.words().remove_leftovers();
    }
}

/// Gives the thread its CPUs back.
struct Pinned(Affinity);

impl Drop for Pinned {
    fn drop(&mut self) {
        // a CPU that has gone away meanwhile is nothing that a destructor could mend
        let _ = self.0.restore();
    }
}

static CLAIMED: AtomicBool = AtomicBool::new(false);

/// The right to have a session.
struct OnlyOne(());

impl OnlyOne {
    fn claim() -> io::Result<OnlyOne> {
        // ORDERING: Acquire, with the Release store in `drop`: the session before has let go of everything.
        if CLAIMED.swap(true, Acquire) {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "this process has a session already"));
        }
        Ok(OnlyOne(()))
    }
}

impl Drop for OnlyOne {
    fn drop(&mut self) {
        // ORDERING: Release, with the Acquire swap in `claim`.
        CLAIMED.store(false, Release);
    }
}
