//! A process that runs step by step under ptrace, and stops where we want it to.

#[cfg(target_arch = "x86_64")]
pub mod calls;

use super::process::{Line, Process};
use shmpipe::Pipe;

#[cfg(target_env = "musl")]
type Request = libc::c_int;
#[cfg(not(target_env = "musl"))]
type Request = libc::c_uint;

fn ptrace(request: Request, thread: i32) -> i64 {
    let null = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: these requests use no pointers.
    unsafe { libc::ptrace(request, thread, null, null) }
}

/// Puts this thread, and what it starts from here on, on the core of lowest number that it may use: a step is several times
/// faster if the two that take turns need not wake another core.
pub fn share_a_core() {
    // SAFETY: cpu_set_t is an array of integers; the calls read and write one.
    unsafe {
        let mut cores: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut cores);
        if let Some(first) = (0..libc::CPU_SETSIZE as usize).find(|&core| libc::CPU_ISSET(core, &cores)) {
            libc::CPU_ZERO(&mut cores);
            libc::CPU_SET(first, &mut cores);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const cores);
        }
    }
}

/// Lets our parent trace this thread, and says which it is, or that it cannot be.
pub fn be_traced(line: &mut Line) {
    match ptrace(libc::PTRACE_TRACEME, 0) {
        // SAFETY: no arguments.
        0 => line.say(unsafe { libc::gettid() }),
        _ => line.say("not traced"),
    }
}

/// The end of one thing, and the begin of the next.
pub fn mark() {
    // SAFETY: no pointers. The signal stops this thread for its tracer, who does not pass it on.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// Why a process has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It is about to make a system call, or has made one.
    Call,
    Mark,
    Signal(i32),
}

/// A process that stops where we want it to.
#[derive(Debug)]
pub struct Traced {
    pub process: Process,
    thread: i32,
}

impl Traced {
    /// Starts it; nothing if tracing is forbidden here.
    pub fn start(part: &str, words: &[&str]) -> Option<Self> {
        let traced = Self::of(Process::start(part, words));
        if traced.is_none() {
            eprintln!("steps: {part}: left out, since nobody may be traced here");
        }
        traced
    }

    /// A process that is going to [`be_traced`]; nothing if tracing is forbidden here.
    pub fn of(mut process: Process) -> Option<Self> {
        let thread = process.hear().parse().ok()?;
        let traced = Traced { process, thread };
        assert_eq!(traced.stopped_by(), libc::SIGSTOP);
        Some(traced)
    }

    /// Waits until it stops; the signal that it stopped by.
    fn stopped_by(&self) -> i32 {
        let mut status = 0;
        // SAFETY: the pointer is to one int.
        let waited = unsafe { libc::waitpid(self.thread, &raw mut status, libc::__WALL) };
        assert_eq!(waited, self.thread, "{}", std::io::Error::last_os_error());
        assert!(libc::WIFSTOPPED(status), "it has ended: {status:#x}");
        libc::WSTOPSIG(status)
    }

    /// Runs it for one instruction; whether it is still on the way to its next mark.
    pub fn step(&self) -> bool {
        assert_eq!(ptrace(libc::PTRACE_SINGLESTEP, self.thread), 0);
        match self.stopped_by() {
            libc::SIGTRAP => true,
            libc::SIGSTOP => false,
            signal => panic!("signal {signal}"),
        }
    }

    /// Lets it run to its next mark.
    pub fn go_on(&self) {
        assert_eq!(ptrace(libc::PTRACE_CONT, self.thread), 0);
        assert_eq!(self.stopped_by(), libc::SIGSTOP);
    }

    /// Tells it what to do, and has it stop before it does that.
    pub fn prepare(&mut self, command: &str) {
        self.process.say(command);
        self.go_on();
    }

    /// Has it do to the end what it was told; what came of it.
    pub fn finish(&mut self) -> String {
        self.go_on();
        self.result()
    }

    /// What came of what it has done.
    pub fn result(&mut self) -> String {
        assert_eq!(ptrace(libc::PTRACE_CONT, self.thread), 0);
        let result = self.process.hear();
        assert_eq!(self.stopped_by(), libc::SIGSTOP);
        result
    }

    /// Runs it until it enters or leaves a system call, or comes to its next mark.
    pub fn next_call(&self) -> bool {
        self.next_stop() == Stop::Call
    }

    /// Runs it until it enters or leaves a system call, comes to its next mark, or gets a signal.
    pub fn next_stop(&self) -> Stop {
        assert_eq!(ptrace(libc::PTRACE_SYSCALL, self.thread), 0);
        match self.stopped_by() {
            libc::SIGTRAP => Stop::Call,
            libc::SIGSTOP => Stop::Mark,
            signal => Stop::Signal(signal),
        }
    }
}

impl Drop for Traced {
    /// Kills it. A thread that is traced has to be waited for by its tracer before the process can end.
    fn drop(&mut self) {
        self.process.signal(libc::SIGKILL);
        let mut status = 0;
        // SAFETY: the pointer is to one int.
        while unsafe { libc::waitpid(self.thread, &raw mut status, libc::__WALL) } == self.thread
            && libc::WIFSTOPPED(status)
        {}
    }
}

/// An end that does one thing after the other, each between two marks, and says what came of it.
pub fn be_asked(mut line: Line) {
    let [name, role] = line.words.clone().try_into().unwrap();
    let pipe = Pipe::open(name.as_str()).unwrap();
    let mut producer = (role == "producer").then(|| pipe.producer().unwrap());
    let mut consumer = (role == "consumer").then(|| pipe.consumer().unwrap());
    be_traced(&mut line);
    mark();
    while let Some(command) = line.hear() {
        mark();
        let result = match command.as_str() {
            "try_recv" => {
                consumer.as_mut().unwrap().try_recv().map(|message| message.len()).map_err(|e| e.to_string())
            }
            "recv" => {
                consumer.as_mut().unwrap().recv().map(|message| message.len()).map_err(|e| e.to_string())
            }
            "send" => producer.as_mut().unwrap().send(&[1; 100]).map(|_| 100).map_err(|e| e.to_string()),
            command => panic!("{command}"),
        };
        mark();
        line.say(result.map_or_else(|error| error, |length| format!("{length} bytes")));
        mark();
    }
}
