//! Eight pipes in, eight out, in one event loop: each line that comes in goes out in upper case. Ends on Ctrl-C, or when every pipe in
//! has ended.
//!
//! ```sh
//! cargo run --example epoll &
//! shmpipe recv out3 &
//! echo hello | shmpipe send in3
//! ```

use shmpipe::{Consumer, Pipe, Producer, RecvError, SendError, WithDescriptor};
use std::collections::VecDeque;
use std::error::Error;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

const PIPES: usize = 8;

/// The number of Ctrl-C's descriptor in the loop. Pipe n in has 2 n, pipe n out 2 n + 1.
const INTERRUPTED: u64 = u64::MAX;

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

struct Epoll(OwnedFd);

impl Epoll {
    fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the descriptor is new.
        unsafe { Ok(Epoll(OwnedFd::from_raw_fd(checked(libc::epoll_create1(libc::EPOLL_CLOEXEC))?))) }
    }

    fn add(&self, descriptor: RawFd, number: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: number };
        let epoll = self.0.as_raw_fd();
        // SAFETY: the pointer is to one event.
        checked(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, descriptor, &raw mut event) })?;
        Ok(())
    }

    fn remove(&self, descriptor: RawFd) -> io::Result<()> {
        let (epoll, none) = (self.0.as_raw_fd(), std::ptr::null_mut());
        // SAFETY: no event is needed to remove a descriptor.
        checked(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, descriptor, none) })?;
        Ok(())
    }

    fn wait(&self) -> io::Result<Vec<u64>> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
        // SAFETY: the pointer is to 64 events.
        let found = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), 64, -1) };
        match checked(found) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(vec![]),
            found => Ok(events[..found? as usize].iter().map(|event| event.u64).collect()),
        }
    }
}

/// A descriptor that is readable after Ctrl-C or SIGTERM.
fn signals() -> io::Result<OwnedFd> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the first call writes the set; the descriptor is new.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
        libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        Ok(OwnedFd::from_raw_fd(checked(libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC))?))
    }
}

/// A line in, and the lines that its way out has no space for yet.
struct Line {
    input: Option<WithDescriptor<Consumer>>,
    output: WithDescriptor<Producer>,
    waiting: VecDeque<Vec<u8>>,
}

/// The most lines that wait for a way out. Beyond, they stay in the pipe, whose sender then waits.
const MOST_WAITING: usize = 1000;

impl Line {
    /// Moves what can be moved. Returns whether the input has ended.
    fn advance(&mut self) -> Result<bool, Box<dyn Error>> {
        loop {
            while let Some(line) = self.waiting.front() {
                match self.output.try_send(line) {
                    Ok(Some(_)) => drop(self.waiting.pop_front()),
                    Ok(None) => break,
                    // The next reader gets it.
                    Err(SendError::PeerDied | SendError::PeerAborted { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let Some(input) = &mut self.input else { return Ok(false) };
            if self.waiting.len() >= MOST_WAITING {
                return Ok(false);
            }
            match input.try_recv() {
                Ok(Some(message)) => self.waiting.push_back(message.to_vec().to_ascii_uppercase()),
                Ok(None) => return Ok(false),
                Err(RecvError::Closed) => return Ok(true),
                Err(RecvError::PeerDied | RecvError::PeerAborted { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (epoll, signals) = (Epoll::new()?, signals()?);
    epoll.add(signals.as_raw_fd(), INTERRUPTED)?;
    let mut lines = vec![];
    for number in 0..PIPES as u64 {
        let input = Pipe::open_or_create(format!("in{number}").as_str())?.consumer()?.with_descriptor()?;
        let output = Pipe::open_or_create(format!("out{number}").as_str())?.producer()?.with_descriptor()?;
        epoll.add(input.as_raw_fd(), 2 * number)?;
        epoll.add(output.as_raw_fd(), 2 * number + 1)?;
        lines.push(Line { input: Some(input), output, waiting: VecDeque::new() });
    }
    let mut open = PIPES;
    while open > 0 || lines.iter().any(|line| !line.waiting.is_empty()) {
        for event in epoll.wait()? {
            if event == INTERRUPTED {
                return Ok(());
            }
            let line = &mut lines[event as usize / 2];
            if line.advance()? {
                if let Some(ended) = line.input.take() {
                    epoll.remove(ended.as_raw_fd())?;
                    open -= 1;
                }
            }
        }
    }
    Ok(())
}
