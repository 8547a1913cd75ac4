//! The partner: the same program, started again by exec, which does as it is told through the control segment.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Child, Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::affinity;
use crate::checked::{Lengths, Messages};
use crate::control::{Control, Order, Verb};
use crate::endpoint::{Endpoint, Work};
use crate::errors::{about, unfit};
use crate::floor::Floor;
use crate::guard::{hold, stand_guard};
use crate::transports::{Invited, Transport};

/// The environment variable that makes a process the partner and holds its invitation.
const INVITATION: &str = "SHMPIPE_MEASURE_PARTNER";

/// How long a partner that fails waits before it ends, for the sign that its parent has ended.
pub(crate) const GRACE: Duration = Duration::from_millis(200);

/// Whether this process was started as a partner, so that its `main` must call [`serve_if_partner`].
pub fn is_partner() -> bool {
    env::var_os(INVITATION).is_some()
}

/// Becomes the partner and does not return, if this process was started as one; returns at once otherwise.
///
/// Every program that starts a [`Session`](crate::Session) calls this at the start of `main`, before it looks at its
/// arguments, writes anything or starts a thread. `transports` must hold those of the session, more do not hurt.
pub fn serve_if_partner(transports: &[&dyn Transport]) {
    let Some(invitation) = env::var_os(INVITATION) else { return };
    match serve(&invitation, transports) {
        Ok(()) => process::exit(0),
        Err(error) => {
            // perhaps the parent is just dying and its ends of the transports went first: the signal is on its way, and
            // its handler cleans up
            thread::sleep(GRACE);
            eprintln!("shmpipe-measure: the partner gives up: {error}");
            process::exit(1)
        }
    }
}

/// The other process, where this one is the parent; 0 where it is the partner or alone.
static WATCHED: AtomicI32 = AtomicI32::new(0);

/// An error if the partner has ended. In the partner itself never: the kernel ends it with its parent.
pub(crate) fn still_lives() -> io::Result<()> {
    // Relaxed: written by the thread that waits
    let partner = WATCHED.load(Relaxed);
    if partner == 0 {
        return Ok(());
    }
    // SAFETY: siginfo_t is plain data, for which all zero is a value.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is live; WNOWAIT leaves the child to be waited for by its owner.
    let gone = unsafe { libc::waitid(libc::P_PID, partner as libc::id_t, &mut info, options) } == -1
        // SAFETY: waitid has filled it, or left it zero when the child has not ended.
        || unsafe { info.si_pid() } != 0;
    if gone {
        Err(io::Error::new(io::ErrorKind::BrokenPipe, "the partner process has ended"))
    } else {
        Ok(())
    }
}

/// The partner as its parent holds it: killed and reaped when dropped.
pub(crate) struct Partner {
    child: Child,
}

impl Partner {
    /// Starts the running program again. The descriptors are inherited and then closed here.
    pub(crate) fn start(
        control: &Control,
        cpu: Option<usize>,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<Partner> {
        let cpu = cpu.map_or("any".to_owned(), |cpu| cpu.to_string());
        // this very file, even if another has taken its name since
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0(env::args_os().next().as_deref().unwrap_or(OsStr::new("shmpipe-partner")))
            .env(INVITATION, format!("{} {} {cpu}", control.id(), process::id()))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        // SAFETY: between fork and exec the closure makes system calls only; it neither allocates nor locks.
        unsafe {
            command.pre_exec(move || {
                for &descriptor in &raw {
                    if libc::fcntl(descriptor, libc::F_SETFD, 0) == -1 {
                        return Err(io::Error::last_os_error());
                    }
                }
                // held back until the partner has its handler, by which it cleans up
                hold(libc::SIG_BLOCK, &[libc::SIGTERM])?;
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) == -1 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child =
            command.spawn().map_err(|error| about(format_args!("cannot start the partner"), error))?;
        WATCHED.store(child.id() as i32, Relaxed); // read by this thread
        Ok(Partner { child })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits a moment for it to end by itself, and tells how it did.
    pub(crate) fn ending(&mut self, patience: Duration) -> Option<process::ExitStatus> {
        let start = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if start.elapsed() < patience => thread::sleep(Duration::from_millis(1)),
                _ => return None,
            }
        }
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        WATCHED.store(0, Relaxed); // read by this thread
        // both fail for a partner that has ended and been waited for, which is as well
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(invitation: &OsStr, transports: &[&dyn Transport]) -> io::Result<()> {
    let invitation = invitation.to_str().ok_or_else(|| unfit(format!("{INVITATION} holds no invitation")))?;
    let mut invited = Invited::new(invitation);
    let control = Rc::new(Control::join(invited.word()?)?);
    stand_guard(&control, invited.word()?)?;
    // SAFETY: the name is a string with a terminator.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"shmpipe-partner".as_ptr()) };
    if let Ok(cpu) = invited.word() {
        affinity::pin(cpu)?;
    }
    let mut floor = Floor::new(Rc::clone(&control));
    floor.answer_untimed(1)?; // whatever the parent makes now, one of us removes
    floor.answer_untimed(1)?; // the letter is written
    let mut endpoints = Vec::new();
    for line in control.read_letter()?.lines() {
        let mut invited = Invited::new(line);
        let name: String = invited.word()?;
        let transport = transports
            .iter()
            .find(|transport| transport.name() == name)
            .ok_or_else(|| unfit(format!("this program was not told of the transport {name}")))?;
        endpoints.push(transport.join(&mut invited).map_err(|error| about(format_args!("{name}"), error))?);
    }
    floor.answer_untimed(1)?; // everything is joined
    obey(&control, &mut floor, &mut endpoints)
}

/// Carries out one order after another.
fn obey(control: &Control, floor: &mut Floor, endpoints: &mut [Endpoint]) -> io::Result<()> {
    for number in 1.. {
        let order = control.take(number)?;
        if order.verb == Verb::Quit {
            break;
        }
        floor.answer(order.floor)?;
        if order.verb == Verb::AnswerFloor {
            floor.answer_untimed(order.count)?;
        } else {
            let endpoint = endpoints.get_mut(order.transport).ok_or_else(|| unfit("a transport too many"))?;
            carry_out(&order, &mut *endpoint.0)?;
        }
        floor.answer(order.floor)?;
    }
    Ok(())
}

fn carry_out(order: &Order, work: &mut dyn Work) -> io::Result<()> {
    let &Order { size, count, .. } = order;
    match order.verb {
        Verb::Answer => work.answer(size, count),
        Verb::StreamOut => work.stream_out(size, count),
        Verb::SendChecked => work.send_checked(messages(order), size, count).map(drop),
        Verb::ReceiveChecked => work.receive_checked(messages(order), size, count).map(drop),
        Verb::Quit | Verb::AnswerFloor => Ok(()),
    }
}

/// The generated messages of an order, the same in both processes.
pub(crate) fn messages(order: &Order) -> Messages {
    Messages::new(
        order.seed,
        if order.mixed { Lengths::UpTo(order.size) } else { Lengths::Fixed(order.size) },
    )
}
