//! The partner: carries out the orders in the control segment, in a process or a thread of its own.

mod process;
mod thread;

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::affinity;
use crate::checked::{Lengths, Messages};
use crate::cold::Flood;
use crate::control::{Control, Order, Verb};
use crate::endpoint::Endpoint;
use crate::errors::{about, unfit};
use crate::floor::Floor;
use crate::guard::stand_guard;
use crate::invitation::{Invited, Letter};
use crate::limits;
use crate::paced::Schedule;
use crate::patience::sides_are_alone;
use crate::transports::Transport;

pub(crate) use self::process::Process;
pub(crate) use self::thread::{Start, Thread, begin};

/// The environment variable with the invitation, which makes a process the partner.
const INVITATION: &str = "SHMPIPE_MEASURE_PARTNER";

/// How long a failing partner waits for the signal that its parent has ended.
pub(crate) const GRACE: Duration = Duration::from_millis(200);

/// The role of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The partner, on this CPU if any. It also cleans up after the parent.
    Partner(Option<usize>),
    /// Only cleans up after the parent: the partner is a thread, which dies with the parent.
    Guard,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Partner(Some(cpu)) => write!(f, "{cpu}"),
            Role::Partner(None) => f.write_str("any"),
            Role::Guard => f.write_str("guard"),
        }
    }
}

impl Role {
    fn of_word(word: &str) -> io::Result<Role> {
        match word {
            "any" => Ok(Role::Partner(None)),
            "guard" => Ok(Role::Guard),
            cpu => cpu
                .parse()
                .map(|cpu| Role::Partner(Some(cpu)))
                .map_err(|_| unfit(format!("{INVITATION} names no role: {cpu}"))),
        }
    }
}

/// The other side of a session.
pub(crate) enum Partner {
    Process(Process),
    Thread(Thread),
}

impl Partner {
    /// Waits a moment for it to end by itself, and returns how it ended.
    pub(crate) fn ending(&mut self, patience: Duration) -> Option<String> {
        match self {
            Partner::Process(process) => {
                let status = process.ending(patience)?;
                Some(format!("the partner process ended early ({status})"))
            }
            Partner::Thread(thread) => {
                let how = thread.ending(patience)?;
                Some(format!("the partner thread ended early ({how})"))
            }
        }
    }
}

/// Whether this process was started as a partner, so that its `main` must call [`serve_if_partner`].
pub fn is_partner() -> bool {
    env::var_os(INVITATION).is_some()
}

/// Becomes the partner and does not return, if this process was started as one. Otherwise returns at once.
///
/// Every program that starts a [`Session`](crate::Session) must call this at the start of `main`, before it reads its
/// arguments, writes anything or starts a thread. `transports` must contain those of the session, and may contain more.
pub fn serve_if_partner(transports: &[&dyn Transport]) {
    let Some(invitation) = env::var_os(INVITATION) else { return };
    match serve(&invitation, transports) {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            // perhaps the parent is dying, and its ends of the transports went first: then the signal is on its way, and its
            // handler cleans up
            std::thread::sleep(GRACE);
            eprintln!("shmpipe-measure: the partner gives up: {error}");
            std::process::exit(1)
        }
    }
}

/// An error if the other side is known to have ended.
pub(crate) fn still_lives() -> io::Result<()> {
    thread::still_lives()?;
    process::still_lives()
}

fn serve(invitation: &OsStr, transports: &[&dyn Transport]) -> io::Result<()> {
    let invitation = invitation.to_str().ok_or_else(|| unfit(format!("{INVITATION} holds no invitation")))?;
    let mut invited = Invited::process(invitation);
    let control = Rc::new(Control::join(invited.word()?)?);
    stand_guard(&control, invited.word()?)?;
    // SAFETY: the name has a terminator.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"shmpipe-partner".as_ptr()) };
    let mut floor = Floor::new(Rc::clone(&control));
    match Role::of_word(&invited.word::<String>()?)? {
        Role::Partner(Some(cpu)) => {
            affinity::pin(cpu)?;
            sides_are_alone(true);
        }
        Role::Partner(None) => {}
        Role::Guard => {
            floor.answer_untimed(1)?;
            loop {
                // SAFETY: no arguments. The handler of the signal does not return.
                unsafe { libc::pause() };
            }
        }
    }
    floor.answer_untimed(1)?; // whatever the parent makes now, one of us removes
    floor.answer_untimed(1)?; // the letter is written
    let mut endpoints = Vec::new();
    for line in control.read_letter()?.lines() {
        let mut invited = Invited::process(line);
        let name: String = invited.word()?;
        let transport = transports
            .iter()
            .find(|transport| transport.name() == name)
            .ok_or_else(|| unfit(format!("this program does not have the transport {name}")))?;
        endpoints.push(join(*transport, &mut invited)?);
    }
    floor.answer_untimed(1)?; // everything is joined
    obey(&control, &mut floor, &mut endpoints)
}

fn join(transport: &dyn Transport, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
    transport.join(invited).map_err(|error| about(format_args!("{}", transport.name()), error))
}

/// The partner's ends, in a thread of the same process.
fn join_all(letters: Vec<(&'static dyn Transport, Letter)>) -> io::Result<Vec<Endpoint>> {
    let ends = letters.into_iter().map(|(transport, letter)| match letter.handed {
        Some(handed) => Ok(Endpoint(handed)),
        None => join(transport, &mut Invited::thread(&letter.text, letter.passed)),
    });
    ends.collect()
}

/// Carries out one order after another.
fn obey(control: &Control, floor: &mut Floor, endpoints: &mut [Endpoint]) -> io::Result<()> {
    let (mut flood, mut ground) = (Flood::new(), None);
    for number in 1.. {
        let order = control.take(number)?;
        if order.verb == Verb::Quit {
            break;
        }
        if order.cold {
            flood.run();
        }
        floor.answer(order.floor)?;
        if order.verb == Verb::Limit {
            limits::answer(&mut ground, &order)?;
        } else {
            carry_out(&order, floor, endpoints)?;
        }
        floor.answer(order.floor)?;
    }
    Ok(())
}

fn carry_out(order: &Order, floor: &mut Floor, endpoints: &mut [Endpoint]) -> io::Result<()> {
    let &Order { size, count, interval, .. } = order;
    let end = endpoints.get_mut(order.transport).ok_or_else(|| unfit("a transport too many"));
    match order.verb {
        Verb::Quit | Verb::Limit => Ok(()),
        Verb::AnswerFloor => floor.answer_untimed(count),
        Verb::PaceFloor => {
            floor.throw_paced(Schedule::soon(count, interval));
            Ok(())
        }
        Verb::Answer => end?.0.answer(size, count),
        Verb::StreamOut => end?.0.stream_out(size, count),
        Verb::StreamIn => end?.0.stream_in(size, count),
        Verb::PaceOut => end?.0.pace_out(size, Schedule::soon(count, interval)),
        Verb::SendChecked => end?.0.send_checked(messages(order), size, count).map(drop),
        Verb::ReceiveChecked => end?.0.receive_checked(messages(order), size, count).map(drop),
    }
}

/// The generated messages of an order, which are the same on both sides.
pub(crate) fn messages(order: &Order) -> Messages {
    Messages::new(
        order.seed,
        if order.mixed { Lengths::UpTo(order.size) } else { Lengths::Fixed(order.size) },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_round_trips_through_the_environment() {
        for role in [Role::Partner(None), Role::Partner(Some(17)), Role::Guard] {
            assert_eq!(Role::of_word(&role.to_string()).unwrap(), role);
        }
        assert!(Role::of_word("cook").is_err());
    }
}
