//! The bridges of a file, each in a thread of its own; and signals.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::PoisonError;
use std::thread::{self, JoinHandle, ThreadId};

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::args::{Config, GRACE, Publish, Subscribe};
use crate::bridge::{self, Surroundings};
use crate::context;
use crate::exit::{Code, Failure, Outcome};
use crate::metrics::{self, Bridge, Bridges};
use crate::server::Login;
use crate::stats::Stats;
use crate::stop::Stop;

fn catch(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new(Code::Failure, format_args!("catching a signal: {error}")))
}

/// Asks for a stop when a signal arrives that ends a process.
pub fn stop_on_signals(runtime: &Runtime, stop: Stop) -> Result<(), Failure> {
    let _in_runtime = runtime.enter();
    let mut signals =
        [catch(SignalKind::interrupt())?, catch(SignalKind::terminate())?, catch(SignalKind::hangup())?];
    runtime.spawn(async move {
        let [interrupt, terminate, hangup] = &mut signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        stop.ask();
    });
    Ok(())
}

/// What a bridge of the file does.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Work {
    Publish(Publish),
    Subscribe(Subscribe),
}

impl Work {
    fn run(&self, around: &Surroundings) -> Outcome {
        match self {
            Work::Publish(settings) => bridge::publish(settings, around),
            Work::Subscribe(settings) => bridge::subscribe(settings, around),
        }
    }

    fn shown(&self, name: &str, stats: &Stats) -> Bridge {
        let (pipe, stream, direction) = match self {
            Work::Publish(settings) => (&settings.pipe, &settings.stream, "publish"),
            Work::Subscribe(settings) => (&settings.pipe, &settings.stream, "subscribe"),
        };
        let (name, pipe, stream) = (name.to_owned(), pipe.clone(), stream.clone());
        Bridge { name, pipe, stream, direction, stats: stats.clone() }
    }
}

/// A bridge that runs, or that has ended.
struct Running {
    work: Work,
    login: Login,
    stop: Stop,
    shown: Bridge,
    thread: JoinHandle<Outcome>,
}

/// What happens to the bridges.
enum Event {
    Reload,
    Stop,
    /// The bridge of this thread has ended.
    Ended(ThreadId),
}

type Wanted = BTreeMap<String, (Work, Login)>;

/// Reads the file.
fn read(path: &Path, login: &Login) -> Result<(Config, Wanted), Failure> {
    let about = |error: &dyn std::fmt::Display| {
        Failure::new(Code::Usage, format_args!("{}: {error}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| about(&error))?;
    // Not the error as it prints itself: that shows the line, which may have a password.
    let config: Config = toml::from_str(&text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        about(&format_args!("line {line}: {}", error.message()))
    })?;
    let server = match config.server == Login::default() && config.context.is_none() {
        true => login.clone(),
        false => context::complete(config.server.clone(), config.context.as_deref())?,
    };
    let publish = config.publish.iter().map(|(name, settings)| (name, Work::Publish(settings.clone())));
    let subscribe = config.subscribe.iter().map(|(name, settings)| (name, Work::Subscribe(settings.clone())));
    let mut wanted = Wanted::new();
    for (name, work) in publish.chain(subscribe) {
        if wanted.insert(name.clone(), (work, server.clone())).is_some() {
            return Err(about(&format!("two bridges have the name {name}")));
        }
    }
    if wanted.is_empty() {
        return Err(about(&"it has no bridge: it needs a table [publish.NAME] or [subscribe.NAME]"));
    }
    Ok((config, wanted))
}

/// Runs the bridges of a file until a signal ends it. One that fails leaves the others; then the program ends with its exit code.
pub fn run(path: &Path, around: Surroundings, runtime: &Runtime) -> Outcome {
    let (config, wanted) = read(path, &around.login)?;
    let shown = Bridges::default();
    if let Some(address) = config.metrics {
        let url = metrics::serve(address, shown.clone())?;
        around.report.note(format_args!("metrics: {url}"));
    }
    let (tell, mut events) = mpsc::unbounded_channel();
    forward_signals(runtime, tell.clone())?;
    let mut supervisor = Supervisor { around, tell, shown, running: BTreeMap::new(), first_failure: Ok(()) };
    supervisor.change_to(wanted);
    loop {
        match runtime.block_on(events.recv()) {
            Some(Event::Reload) => match read(path, &supervisor.around.login) {
                Ok((_, wanted)) => {
                    supervisor.around.report.note(format_args!("read {} again", path.display()));
                    supervisor.change_to(wanted);
                }
                Err(failure) => {
                    supervisor.around.report.note(format_args!("goes on as before: {}", failure.message));
                }
            },
            Some(Event::Ended(thread)) => supervisor.collect(thread),
            Some(Event::Stop) | None => {
                supervisor.change_to(Wanted::new());
                return supervisor.first_failure;
            }
        }
        if supervisor.running.is_empty() {
            return supervisor.first_failure;
        }
    }
}

fn forward_signals(runtime: &Runtime, tell: mpsc::UnboundedSender<Event>) -> Result<(), Failure> {
    let _in_runtime = runtime.enter();
    let (mut interrupt, mut terminate) = (catch(SignalKind::interrupt())?, catch(SignalKind::terminate())?);
    let mut hangup = catch(SignalKind::hangup())?;
    runtime.spawn(async move {
        loop {
            let event = tokio::select! {
                _ = interrupt.recv() => Event::Stop,
                _ = terminate.recv() => Event::Stop,
                _ = hangup.recv() => Event::Reload,
            };
            if tell.send(event).is_err() {
                return;
            }
        }
    });
    Ok(())
}

struct Supervisor {
    around: Surroundings,
    tell: mpsc::UnboundedSender<Event>,
    shown: Bridges,
    running: BTreeMap<String, Running>,
    first_failure: Outcome,
}

impl Supervisor {
    /// Stops the bridges that are not wanted so, and starts those that are wanted and do not run.
    fn change_to(&mut self, wanted: Wanted) {
        let unwanted = |name: &String, running: &Running| match wanted.get(name) {
            Some((work, login)) => (work, login) != (&running.work, &running.login),
            None => true,
        };
        let stopped = self.take(unwanted);
        stopped.iter().for_each(|(_, running)| running.stop.ask());
        for (name, running) in stopped {
            self.join(&name, running);
        }
        for (name, (work, login)) in wanted {
            if !self.running.contains_key(&name) {
                let running = self.start(&name, work, login);
                self.running.insert(name, running);
            }
        }
        self.show();
    }

    fn start(&self, name: &str, work: Work, login: Login) -> Running {
        let (stop, stats) = (Stop::new(GRACE), Stats::default());
        let around = Surroundings {
            login: login.clone(),
            report: self.around.report.about(name),
            stop: stop.clone(),
            stats: stats.clone(),
            runtime: self.around.runtime.clone(),
        };
        let shown = work.shown(name, &stats);
        let (tell, mine) = (self.tell.clone(), work.clone());
        let thread = thread::spawn(move || {
            /// Tells of the end also when a panic ends the thread.
            struct Tell(mpsc::UnboundedSender<Event>);
            impl Drop for Tell {
                fn drop(&mut self) {
                    // The receiver is gone once the program ends.
                    let _ = self.0.send(Event::Ended(thread::current().id()));
                }
            }
            let _tell = Tell(tell);
            let outcome = mine.run(&around);
            if let Err(failure) = &outcome {
                around.report.failure(failure);
            }
            outcome
        });
        Running { work, login, stop, shown, thread }
    }

    /// Removes the bridges for which this holds.
    fn take(&mut self, is_so: impl Fn(&String, &Running) -> bool) -> Vec<(String, Running)> {
        let names: Vec<String> = self
            .running
            .iter()
            .filter(|(name, running)| is_so(name, running))
            .map(|(name, _)| name.clone())
            .collect();
        names.into_iter().filter_map(|name| self.running.remove_entry(&name)).collect()
    }

    /// Removes the bridge of this thread, which has ended or is about to. A change of the file may have removed it before.
    fn collect(&mut self, thread: ThreadId) {
        let ended = self.take(|_, running| running.thread.thread().id() == thread);
        for (name, running) in ended {
            self.join(&name, running);
        }
        self.show();
    }

    fn join(&mut self, name: &str, running: Running) {
        let outcome = running.thread.join().unwrap_or_else(|_| Err(Failure::new(Code::Failure, "panicked")));
        if let Err(failure) = outcome
            && self.first_failure.is_ok()
        {
            self.first_failure = Err(failure.about(name));
        }
    }

    fn show(&self) {
        let bridges = self.running.values().map(|running| running.shown.clone()).collect();
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = bridges;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;
    use std::time::Duration;

    #[test]
    fn an_error_in_the_file_names_the_line_and_does_not_show_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bridges.toml");
        for (wrong, word) in
            [("\"secret\" \"", "line 3: "), ("[\"secret\"]", "line 3: "), ("secret", "line 3: ")]
        {
            std::fs::write(&path, format!("[server]\nuser = \"me\"\npassword = {wrong}\n")).unwrap();
            let error = read(&path, &Login::default()).err().unwrap();
            assert_eq!(error.code, Code::Usage);
            assert!(error.message.contains(word), "{}", error.message);
            assert!(!error.message.contains("secret"), "{}", error.message);
        }
    }

    #[test]
    fn a_bridge_that_has_ended_is_removed_however_long_its_thread_still_takes() {
        let runtime = Runtime::new().unwrap();
        let around = Surroundings {
            login: Login::default(),
            report: Report::new(false),
            stop: Stop::new(Duration::ZERO),
            stats: Stats::default(),
            runtime: runtime.handle().clone(),
        };
        let (tell, mut events) = mpsc::unbounded_channel();
        let mut supervisor = Supervisor {
            around,
            tell,
            shown: Bridges::default(),
            running: BTreeMap::new(),
            first_failure: Ok(()),
        };
        let publish: Publish = toml::from_str("pipe = \"p\"\nstream = \"S\"").unwrap();
        let work = Work::Publish(publish);
        let tell = supervisor.tell.clone();
        let thread = thread::spawn(move || {
            tell.send(Event::Ended(thread::current().id())).unwrap();
            thread::sleep(Duration::from_millis(200));
            Err(Failure::new(Code::Missing, "why"))
        });
        let shown = work.shown("one", &Stats::default());
        let running =
            Running { work, login: Login::default(), stop: Stop::new(Duration::ZERO), shown, thread };
        supervisor.running.insert("one".to_owned(), running);
        let Some(Event::Ended(thread)) = events.blocking_recv() else { panic!("another event") };
        supervisor.collect(thread);
        assert!(supervisor.running.is_empty());
        assert_eq!(supervisor.first_failure, Err(Failure::new(Code::Missing, "one: why")));
    }
}
