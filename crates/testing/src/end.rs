//! The part of one end of a pipe, in a process of its own that obeys commands.
//!
//! It answers each command with one line: the result, or the error in `Debug` form.

use super::backend::{Backend, Place};
use super::name::Name;
use super::process::{Line, Process};
use shmpipe::os::unix::OptionsExt;
use shmpipe::os::unix::fd_passing;
use shmpipe::{
    Consumer, Duplex, DuplexSide, Options, Passed, Pipe, Producer, TryRecvError, TrySendError, Wait, WakeMode,
};
use std::fmt::{Debug, Display};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// Where ends meet.
pub trait Meet {
    /// The command to open or create the pipe there.
    fn opening(&self) -> String;
}

impl Meet for Name {
    fn opening(&self) -> String {
        format!("open_or_create {self}")
    }
}

impl Meet for Place {
    fn opening(&self) -> String {
        if self.backend() != Backend::Memfd {
            return format!("open_or_create {self}");
        }
        if !self.exists() {
            self.create(&Options::new().capacity(4096)).unwrap();
        }
        format!("open {self}")
    }
}

/// Starts an end that has no pipe yet.
pub fn start() -> Process {
    Process::start("end", &[])
}

/// A user without rights.
pub const NOBODY: u32 = 65_534;

/// Starts an end as that user.
pub fn nobody() -> Process {
    let mut process = start();
    assert_eq!(process.ask(format!("become {NOBODY}")), "done");
    process
}

/// Starts a producer of the pipe at a place. Creates the pipe, with 4096 bytes, if it does not exist.
pub fn producer(at: &impl Meet) -> Process {
    claim(at, "producer")
}

/// Starts a consumer in the same way.
pub fn consumer(at: &impl Meet) -> Process {
    claim(at, "consumer")
}

/// Starts a side of the duplex pipe at a place, which exists if it is a memfd.
pub fn side(at: &impl Meet, side: DuplexSide) -> Process {
    let mut end = start();
    end.ask("duplex");
    claim_by(end, at, &side.to_string())
}

fn claim(at: &impl Meet, role: &str) -> Process {
    claim_by(start(), at, role)
}

fn claim_by(mut end: Process, at: &impl Meet, role: &str) -> Process {
    end.ask("capacity 4096");
    let opened = end.ask(at.opening());
    assert!(opened.starts_with("pipe "), "{opened}");
    assert_eq!(end.ask(role), "claimed");
    end
}

/// The state of an end.
#[derive(Default)]
struct End {
    options: Options,
    pipe: Option<Pipe>,
    producer: Option<Producer>,
    consumer: Option<Consumer>,
    duplex: Option<Duplex>,
}

/// The main function of the process.
pub fn play(mut line: Line) {
    let mut end = End::default();
    while let Some(command) = line.hear() {
        let words: Vec<&str> = command.split_whitespace().collect();
        let answer = end.obey(&words);
        line.say(answer);
    }
}

fn answer<T: Display>(result: Result<T, impl Debug>) -> String {
    match result {
        Ok(done) => done.to_string(),
        Err(error) => format!("{error:?}"),
    }
}

/// A deadline in milliseconds from now, by default a minute.
fn deadline(milliseconds: Option<&&str>) -> Instant {
    let milliseconds = milliseconds.map_or(60_000, |text| text.parse().unwrap());
    Instant::now() + Duration::from_millis(milliseconds)
}

impl End {
    fn producer(&mut self) -> &mut Producer {
        self.duplex.as_mut().map(Duplex::producer).or(self.producer.as_mut()).expect("a producer")
    }

    fn consumer(&mut self) -> &mut Consumer {
        self.duplex.as_mut().map(Duplex::consumer).or(self.consumer.as_mut()).expect("a consumer")
    }

    fn opened(&mut self, result: Result<Pipe, shmpipe::SetupError>) -> String {
        answer(result.map(|pipe| {
            let said = format!("pipe {} {}", pipe.id(), if pipe.created() { "made" } else { "found" });
            self.pipe = Some(pipe);
            said
        }))
    }

    fn obey(&mut self, words: &[&str]) -> String {
        let options = self.options.clone();
        match words {
            // Options, and the objects.
            ["capacity", bytes] => self.set(options.capacity(bytes.parse().unwrap())),
            ["duplex"] => self.set(options.duplex(true)),
            ["mode", mode] => self.set(options.mode(u32::from_str_radix(mode, 8).unwrap())),
            ["schema", id] => self.set(options.schema(id.parse().unwrap())),
            ["remove_on_close"] => self.set(options.remove_on_close(true)),
            ["trust", uid] => self.set(options.trust_uid(uid.parse().unwrap())),
            ["allow_missing_undo"] => self.set(options.allow_missing_undo(true)),
            ["prefault", value] => self.set(options.prefault(*value == "on")),
            ["recreate_stale"] => self.set(options.recreate_stale(true)),
            ["wait", strategy] => self.set(options.wait(strategy_of(strategy))),
            ["wake", "never"] => self.set(options.wake_mode(WakeMode::Never)),
            ["wake", "fence"] => self.set(options.wake_mode(WakeMode::Fence)),
            ["create", address] => self.opened(options.create(*address)),
            ["open", address] => self.opened(options.open(*address)),
            ["open_or_create", address] => self.opened(options.open_or_create(*address)),
            ["unlink", address] => answer(shmpipe::unlink(*address).map(|()| "unlinked")),
            ["unlink_force", address] => answer(shmpipe::unlink_force(*address).map(|()| "unlinked")),
            ["inspect", address] => answer(shmpipe::inspect(*address).map(|seen| {
                let (producer, consumer) = (seen.producer.peer, seen.consumer.peer);
                format!("producer {producer:?}, consumer {consumer:?}, {} used", seen.used)
            })),

            ["tap", address] => {
                answer(shmpipe::Tap::open(*address).map(|tap| match tap.with_unread().next() {
                    Ok(Some(Passed::Message { bytes, .. })) => String::from_utf8_lossy(bytes).into_owned(),
                    other => format!("{other:?}"),
                }))
            }

            // Both roles.
            ["producer"] => answer(self.pipe.as_ref().expect("a pipe").producer().map(|producer| {
                self.producer = Some(producer);
                "claimed"
            })),
            ["consumer"] => answer(self.pipe.as_ref().expect("a pipe").consumer().map(|consumer| {
                self.consumer = Some(consumer);
                "claimed"
            })),
            ["side", side] => {
                let side = if *side == "A" { DuplexSide::A } else { DuplexSide::B };
                answer(self.pipe.as_ref().expect("a pipe").duplex_as(side).map(|duplex| {
                    self.duplex = Some(duplex);
                    "claimed"
                }))
            }
            // From here on both halves are there, and the commands for both roles go to the producer.
            ["split"] => {
                let (producer, consumer) = self.duplex.take().expect("a side").split();
                (self.producer, self.consumer) = (Some(producer), Some(consumer));
                "split".to_owned()
            }
            ["close", "producer"] => {
                answer(self.producer.take().expect("a producer").close().map(|()| "closed"))
            }
            ["close", "consumer"] => {
                answer(self.consumer.take().expect("a consumer").close().map(|()| "closed"))
            }
            ["peer"] => match (&self.duplex, &self.producer, &self.consumer) {
                (Some(duplex), ..) => format!("{:?}", duplex.peer()),
                (_, Some(producer), _) => format!("{:?}", producer.peer()),
                (.., Some(consumer)) => format!("{:?}", consumer.peer()),
                _ => panic!("no role"),
            },
            ["wait_for_peer", rest @ ..] => {
                let deadline = Some(deadline(rest.first()));
                match (&mut self.duplex, &mut self.producer) {
                    (Some(duplex), _) => answer(duplex.wait_for_peer(deadline).map(|()| "there")),
                    (_, Some(producer)) => answer(producer.wait_for_peer(deadline).map(|()| "there")),
                    _ => answer(self.consumer().wait_for_peer(deadline).map(|()| "there")),
                }
            }
            ["close"] => {
                let closed = match (self.duplex.take(), self.producer.take(), self.consumer.take()) {
                    (Some(duplex), ..) => duplex.close(),
                    (_, Some(producer), _) => producer.close(),
                    (.., Some(consumer)) => consumer.close(),
                    _ => panic!("no role"),
                };
                self.pipe = None;
                answer(closed.map(|()| "closed"))
            }
            ["abort", code] => {
                let code = code.parse().unwrap();
                let aborted = match (self.duplex.take(), self.producer.take(), self.consumer.take()) {
                    (Some(duplex), ..) => duplex.abort(code),
                    (_, Some(producer), _) => producer.abort(code),
                    (.., Some(consumer)) => consumer.abort(code),
                    _ => panic!("no role"),
                };
                self.pipe = None;
                answer(aborted.map(|()| "aborted"))
            }
            // A panic drops everything.
            ["panic"] => {
                let held = std::mem::take(self);
                let panicked = catch_unwind(AssertUnwindSafe(move || {
                    let _held = held;
                    resume_unwind(Box::new("without a message on stderr"));
                }));
                assert!(panicked.is_err());
                "panicked".to_owned()
            }
            ["check"] => match (&mut self.duplex, &mut self.producer, &mut self.consumer) {
                (Some(duplex), ..) => answer(duplex.check().map(|()| "fine")),
                (_, Some(producer), _) => answer(producer.check().map(|()| "fine")),
                (.., Some(consumer)) => answer(consumer.check().map(|()| "fine")),
                _ => panic!("no role"),
            },
            ["drop"] => {
                *self = End::default();
                "dropped".to_owned()
            }

            // The producer.
            ["send", message, rest @ ..] => {
                let deadline = deadline(rest.first());
                answer(self.producer().send_deadline(message.as_bytes(), deadline).map(|_| "sent"))
            }
            ["send_at", message] => {
                answer(self.producer().send(message.as_bytes()).map(|at| format!("sent at {at}")))
            }
            ["try_send", message] => answer(self.producer().try_send(message.as_bytes()).map(|_| "sent")),
            // Sends numbers in eight bytes each, as many as fit.
            ["fill"] => {
                let mut count = 0u64;
                loop {
                    match self.producer().try_send(format!("{count:08}").as_bytes()) {
                        Ok(_) => count += 1,
                        Err(TrySendError::Full) => return format!("full after {count}"),
                        Err(error) => return format!("{error:?} after {count}"),
                    }
                }
            }
            ["reserve", bytes] => answer(self.producer().reserve(bytes.parse().unwrap()).map(|mut space| {
                space.write(0, &vec![0xFF; space.len()]);
                "reserved"
            })),

            // The consumer.
            ["recv", rest @ ..] => {
                let deadline = deadline(rest.first());
                answer(self.consumer().recv_deadline(deadline).map(|message| text(&message.to_vec())))
            }
            ["recv_at"] => answer(
                self.consumer()
                    .recv()
                    .map(|message| format!("{} at {}", text(&message.to_vec()), message.position())),
            ),
            ["try_recv"] => answer(self.consumer().try_recv().map(|message| text(&message.to_vec()))),
            ["keep"] => answer(self.consumer().recv().map(|message| {
                let said = text(&message.to_vec());
                message.requeue();
                said
            })),
            // Takes messages and does not release them.
            ["take", count] => {
                let mut drain = self.consumer().drain(count.parse().unwrap());
                while drain.next().unwrap().is_some() {}
                let taken = drain.taken();
                std::mem::forget(drain);
                format!("took {taken}")
            }
            // Takes all messages; answers how many, and why no more.
            ["empty"] => {
                let mut count = 0;
                loop {
                    match self.consumer().try_recv() {
                        Ok(_) => count += 1,
                        Err(TryRecvError::Empty) => return format!("empty after {count}"),
                        Err(error) => return format!("{error:?} after {count}"),
                    }
                }
            }

            // The process.
            ["make_set", key, count] => {
                let set = super::raw::make_set(key.parse().unwrap(), count.parse().unwrap());
                super::raw::set_mode_of_set(set, 0o666);
                "made".to_owned()
            }
            ["semaphore", set, number, value] => {
                super::raw::set_semaphore(
                    set.parse().unwrap(),
                    number.parse().unwrap(),
                    value.parse().unwrap(),
                );
                "set".to_owned()
            }
            ["umask", mask] => {
                // SAFETY: no pointers.
                unsafe { libc::umask(u32::from_str_radix(mask, 8).unwrap()) };
                "done".to_owned()
            }
            ["chdir", directory] => answer(std::env::set_current_dir(directory).map(|()| "done")),
            // The names in a directory.
            ["list", directory] => {
                let found = std::fs::read_dir(directory).unwrap();
                let mut names: Vec<_> = found.map(|file| file.unwrap().file_name()).collect();
                names.sort();
                format!("{names:?}")
            }
            // Fills a file system.
            ["hog", path] => {
                let mut file = std::fs::File::create(path).unwrap();
                while file.write_all(&[0; 4096]).is_ok() {}
                "full".to_owned()
            }
            // Creates a pipe in a memfd and passes it on to trusted users.
            ["serve", path] => {
                let server = options
                    .create("memfd")
                    .and_then(|pipe| fd_passing::serve(path, &pipe))
                    .and_then(|server| server.trust_uid(0));
                answer(server.map(|server| {
                    std::thread::spawn(move || {
                        loop {
                            let _ = server.accept();
                        }
                    });
                    "serving"
                }))
            }
            ["become", uid] => become_user(uid.parse().unwrap()),
            ["unshare_ipc"] => {
                // SAFETY: no pointers.
                let moved = unsafe { libc::unshare(libc::CLONE_NEWIPC) } == 0;
                if moved { "moved" } else { "not allowed" }.to_owned()
            }
            // From now on the kernel does not say whether a role is held.
            ["forbid_questions"] => {
                super::seccomp::forbid(libc::SYS_shmctl, None, libc::EPERM);
                super::seccomp::forbid(libc::SYS_fcntl, None, libc::EPERM);
                "forbidden".to_owned()
            }
            ["exit"] => std::process::exit(0),
            ["fork"] => fork_and_wait(),
            // As a C library's vfork: the child shares the memory until its exec.
            ["spawn", seconds] => {
                std::process::Command::new("sleep").arg(seconds).spawn().unwrap().id().to_string()
            }
            ["share_memory"] => share_memory(),
            ["exec", seconds] => {
                use std::os::unix::process::CommandExt;
                panic!("{}", std::process::Command::new("sleep").arg(seconds).exec());
            }
            _ => panic!("unknown command {words:?}"),
        }
    }

    fn set(&mut self, options: Options) -> String {
        self.options = options;
        "noted".to_owned()
    }
}

fn text(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(bytes))
}

fn strategy_of(text: &str) -> Wait {
    match text {
        "spin" => Wait::Spin,
        "yield" => Wait::Yield,
        "block" => Wait::Block,
        _ => panic!("{text}"),
    }
}

fn become_user(uid: u32) -> String {
    // SAFETY: no pointers but a null one for an empty list.
    let done = unsafe {
        libc::setgroups(0, std::ptr::null()) == 0
            && libc::setgid(uid) == 0
            && libc::setuid(uid) == 0
            // setuid clears this.
            && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0
    };
    assert!(done, "{}", std::io::Error::last_os_error());
    "done".to_owned()
}

/// Forks a child that lives until our parent is gone.
/// Starts a process that shares our memory (and so keeps all mappings) and waits for a signal.
fn share_memory() -> String {
    extern "C" fn wait(_: *mut libc::c_void) -> libc::c_int {
        // SAFETY: no pointers.
        unsafe {
            libc::alarm(60);
            loop {
                libc::pause();
            }
        }
    }
    let stack = Box::leak(vec![0u128; 4096].into_boxed_slice());
    // SAFETY: the child has the stack for itself, whose end is passed since it grows down, and makes system calls only.
    let child = unsafe {
        libc::clone(
            wait,
            stack.as_mut_ptr_range().end.cast(),
            libc::CLONE_VM | libc::SIGCHLD,
            std::ptr::null_mut(),
        )
    };
    assert!(child > 0, "{}", std::io::Error::last_os_error());
    child.to_string()
}

fn fork_and_wait() -> String {
    // SAFETY: the child makes system calls only.
    match unsafe { libc::fork() } {
        0 => loop {
            let mut byte = 0u8;
            // SAFETY: one byte is written; then the process ends.
            unsafe {
                libc::alarm(60);
                if libc::read(0, (&raw mut byte).cast(), 1) <= 0 {
                    libc::_exit(0);
                }
            }
        },
        child => child.to_string(),
    }
}
