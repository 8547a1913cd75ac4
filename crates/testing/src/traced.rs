//! Processes that run step by step under ptrace.

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

/// Pins this thread, and all that it starts from here on, to its first core. A step is several times faster when tracer and
/// tracee do not have to wake another core.
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

/// Lets our parent trace this thread. Sends it the thread's number, or "not traced" where tracing is forbidden.
pub fn be_traced(line: &mut Line) {
    match ptrace(libc::PTRACE_TRACEME, 0) {
        // SAFETY: no arguments.
        0 => line.say(unsafe { libc::gettid() }),
        _ => line.say("not traced"),
    }
}

/// Stops this thread for its tracer, between two actions.
pub fn mark() {
    // SAFETY: no pointers. The tracer does not pass the signal on.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// Makes a panic abort the process at once, without unwinding through traced code.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::abort();
    }));
}

/// Why a process has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// At the entry or exit of a system call.
    Call,
    Mark,
    Signal(i32),
}

/// A traced process.
#[derive(Debug)]
pub struct Traced {
    pub process: Process,
    thread: i32,
}

impl Traced {
    /// Starts a process with a part. None where tracing is forbidden.
    pub fn start(part: &str, words: &[&str]) -> Option<Self> {
        let traced = Self::of(Process::start(part, words));
        if traced.is_none() {
            eprintln!("steps: {part}: skipped, tracing is forbidden here");
        }
        traced
    }

    /// Traces a process that calls [`be_traced`] next. None where tracing is forbidden.
    pub fn of(mut process: Process) -> Option<Self> {
        let thread = process.hear().parse().ok()?;
        let traced = Traced { process, thread };
        assert_eq!(traced.stopped_by(), libc::SIGSTOP);
        Some(traced)
    }

    /// Waits until it stops, and returns the signal.
    fn stopped_by(&self) -> i32 {
        let mut status = 0;
        // SAFETY: the pointer is to one int.
        let waited = unsafe { libc::waitpid(self.thread, &raw mut status, libc::__WALL) };
        assert_eq!(waited, self.thread, "{}", std::io::Error::last_os_error());
        assert!(libc::WIFSTOPPED(status), "it has ended: {status:#x}");
        libc::WSTOPSIG(status)
    }

    /// Runs one instruction. False if the process has reached its next mark.
    pub fn step(&self) -> bool {
        assert_eq!(ptrace(libc::PTRACE_SINGLESTEP, self.thread), 0);
        match self.stopped_by() {
            libc::SIGTRAP => true,
            libc::SIGSTOP => false,
            signal => panic!("signal {signal}"),
        }
    }

    /// Runs it to its next mark.
    pub fn go_on(&self) {
        assert_eq!(ptrace(libc::PTRACE_CONT, self.thread), 0);
        assert_eq!(self.stopped_by(), libc::SIGSTOP);
    }

    /// Sends a command, and runs the process to the mark before it acts.
    pub fn prepare(&mut self, command: &str) {
        self.process.say(command);
        self.go_on();
    }

    /// Runs it to the end of its action, and returns the result.
    pub fn finish(&mut self) -> String {
        self.go_on();
        self.result()
    }

    /// Receives the result of its action.
    pub fn result(&mut self) -> String {
        assert_eq!(ptrace(libc::PTRACE_CONT, self.thread), 0);
        let result = self.process.hear();
        assert_eq!(self.stopped_by(), libc::SIGSTOP);
        result
    }

    /// Runs it to the next entry or exit of a system call. False if the process has reached its next mark.
    pub fn next_call(&self) -> bool {
        self.next_stop() == Stop::Call
    }

    /// Runs it to the next entry or exit of a system call, mark or signal.
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
    /// Kills it. Its tracer must wait for a traced thread before the process can end.
    fn drop(&mut self) {
        self.process.signal(libc::SIGKILL);
        let mut status = 0;
        // SAFETY: the pointer is to one int.
        while unsafe { libc::waitpid(self.thread, &raw mut status, libc::__WALL) } == self.thread
            && libc::WIFSTOPPED(status)
        {}
    }
}

/// The part of an end that runs each command between two marks, and sends the result.
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
