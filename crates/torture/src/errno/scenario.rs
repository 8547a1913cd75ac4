//! Operations on a pipe for a process whose system calls fail, with checks of their effect and of open resources.

use clap::ValueEnum;
use shmpipe::os::unix::fd_passing;
use shmpipe::{
    Consumer, Options, Pipe, Producer, RecvTimeoutError, SetupError, inspect, unlink, unlink_force,
};
use shmpipe_testing::process::Line;
use shmpipe_testing::traced::{abort_on_panic, be_traced, mark};
use std::error::Error;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Scenario {
    Create,
    OpenOrCreate,
    Open,
    Reopen,
    Inspect,
    ClaimProducer,
    ClaimConsumer,
    WaitToSend,
    WaitToReceive,
    CloseProducer,
    CloseConsumer,
    DropPipe,
    LeaveLast,
    Unlink,
    UnlinkForce,
    Serve,
    Accept,
}

impl Scenario {
    /// Whether the pipe must exist before.
    pub fn needs_pipe(self) -> bool {
        !matches!(
            self,
            Scenario::Create
                | Scenario::OpenOrCreate
                | Scenario::LeaveLast
                | Scenario::Serve
                | Scenario::Accept
        )
    }
}

fn options() -> Options {
    Options::new().capacity(4096)
}

/// Seconds after which a process counts as hung: more than the library ever waits for others.
const HANGS: u32 = 15;

/// The resources of the process.
#[derive(Default)]
struct Resources {
    pipe: Option<Pipe>,
    producer: Option<Producer>,
    consumer: Option<Consumer>,
    server: Option<fd_passing::Server>,
}

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

impl Resources {
    fn before(scenario: Scenario, address: &str, socket: &str) -> Result<Self> {
        let mut resources = Resources::default();
        match scenario {
            Scenario::Create
            | Scenario::OpenOrCreate
            | Scenario::Open
            | Scenario::Inspect
            | Scenario::Unlink
            | Scenario::UnlinkForce => {}
            // The pipe may still exist the second time: drop does not report errors.
            Scenario::LeaveLast => {
                resources.pipe = Some(options().remove_on_close(true).open_or_create(address)?)
            }
            Scenario::Serve => resources.pipe = Some(options().create("memfd")?),
            Scenario::Accept => {
                let pipe = options().create("memfd")?;
                resources.server = Some(fd_passing::serve(socket, &pipe)?);
                resources.pipe = Some(pipe);
            }
            _ => resources.pipe = Some(Pipe::open(address)?),
        }
        if let (true, Some(pipe)) = (
            matches!(scenario, Scenario::CloseProducer | Scenario::LeaveLast | Scenario::WaitToSend),
            &resources.pipe,
        ) {
            let mut producer = pipe.producer()?;
            if scenario == Scenario::WaitToSend {
                while producer.try_send(&[1; 1000]).is_ok() {}
            }
            resources.producer = Some(producer);
        }
        if let (true, Some(pipe)) = (
            matches!(scenario, Scenario::CloseConsumer | Scenario::LeaveLast | Scenario::WaitToReceive),
            &resources.pipe,
        ) {
            resources.consumer = Some(pipe.consumer()?);
        }
        if scenario == Scenario::LeaveLast {
            resources.producer.take().map(Producer::close).transpose()?;
            resources.consumer.take().map(Consumer::close).transpose()?;
        }
        Ok(resources)
    }

    fn act(&mut self, scenario: Scenario, address: &str, socket: &str) -> Result {
        let pipe = self.pipe.as_ref();
        match scenario {
            Scenario::Create => self.pipe = Some(options().create(address)?),
            Scenario::OpenOrCreate => self.pipe = Some(options().open_or_create(address)?),
            Scenario::Open => self.pipe = Some(Pipe::open(address)?),
            Scenario::Reopen => self.pipe = Some(pipe.expect("a pipe").reopen()?),
            Scenario::Inspect => drop(inspect(address)?),
            Scenario::ClaimProducer => self.producer = Some(pipe.expect("a pipe").producer()?),
            Scenario::ClaimConsumer => self.consumer = Some(pipe.expect("a pipe").consumer()?),
            Scenario::WaitToSend => {
                let sent = self.producer.as_mut().expect("a producer").send_deadline(&[2; 1000], soon());
                return Err(sent.expect_err("there is no room").into());
            }
            Scenario::WaitToReceive => {
                let received = self.consumer.as_mut().expect("a consumer").recv_deadline(soon());
                return Err(received.expect_err("there is no message").into());
            }
            Scenario::CloseProducer => self.producer.take().expect("a producer").close()?,
            Scenario::CloseConsumer => self.consumer.take().expect("a consumer").close()?,
            Scenario::DropPipe | Scenario::LeaveLast => self.pipe = None,
            Scenario::Unlink => unlink(address)?,
            Scenario::UnlinkForce => unlink_force(address)?,
            Scenario::Serve => self.server = Some(fd_passing::serve(socket, pipe.expect("a pipe"))?),
            Scenario::Accept => drop(self.server.as_ref().expect("a server").accept()?),
        }
        Ok(())
    }

    /// Checks that an operation that succeeded took effect.
    fn prove(&mut self, scenario: Scenario, address: &str) -> Result {
        let exists = || match inspect(address) {
            Err(SetupError::NotFound { .. }) => Ok(false),
            seen => seen.map(|_| true),
        };
        match scenario {
            Scenario::Create | Scenario::OpenOrCreate | Scenario::Open | Scenario::Reopen => {
                works(self.pipe.as_ref().expect("a pipe"))?;
            }
            Scenario::ClaimProducer => {
                let again = self.pipe.as_ref().expect("a pipe").producer();
                let Err(SetupError::RoleTaken { .. }) = again else { return Err("a second producer".into()) };
            }
            Scenario::ClaimConsumer => {
                let again = self.pipe.as_ref().expect("a pipe").consumer();
                let Err(SetupError::RoleTaken { .. }) = again else { return Err("a second consumer".into()) };
            }
            Scenario::CloseProducer | Scenario::CloseConsumer => works(self.pipe.as_ref().expect("a pipe"))?,
            Scenario::Unlink | Scenario::UnlinkForce if exists()? => return Err("it is still there".into()),
            Scenario::Serve => {
                drop(fd_passing::connect(self.server.as_ref().expect("a server").path(), &Options::new()))
            }
            _ => {}
        }
        Ok(())
    }
}

/// Long enough for a sleep, and for a check of the peer.
fn soon() -> Instant {
    Instant::now() + Duration::from_millis(2)
}

/// Checks that both roles are free, and that a message gets through.
fn works(pipe: &Pipe) -> Result {
    let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    while consumer.try_recv().is_ok() {}
    producer.try_send(b"well")?;
    match consumer.try_recv() {
        Ok(message) if message.to_vec() == b"well" => Ok(()),
        Ok(_) => Err("another message".into()),
        Err(error) => Err(error.into()),
    }
}

/// The numbers of descriptors and shared mappings.
fn open_resources() -> (usize, usize) {
    let descriptors = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let is_shared = |line: &&str| line.split(' ').nth(1).is_some_and(|rights| rights.ends_with('s'));
    (descriptors, maps.lines().filter(is_shared).count())
}

/// "ok", or an error's variant, its OS error number and its message.
fn describe(result: &Result) -> String {
    let Err(error) = result else { return "ok".to_owned() };
    let debug = format!("{error:?}");
    let variant = innermost_variant(&debug);
    let (mut number, mut cause) = (0, Some(&**error as &dyn Error));
    while let Some(error) = cause {
        let os = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        number = os.unwrap_or(number);
        cause = error.source();
    }
    format!("{variant} {number} {}", error.to_string().replace('\n', " "))
}

/// The main function of the process: runs the operation while traced, sends the result, then runs it again and sends that result.
pub fn play(mut line: Line) {
    let [scenario, address, socket] = line.words.clone().try_into().unwrap();
    let scenario = Scenario::from_str(&scenario, false).expect("a known scenario");
    abort_on_panic();
    // SAFETY: no pointers. It ends a hung process.
    unsafe { libc::alarm(HANGS) };
    let without = open_resources();
    let mut resources = Resources::before(scenario, &address, &socket).unwrap();
    be_traced(&mut line);
    mark();
    line.hear();
    mark();
    let result = resources.act(scenario, &address, &socket);
    mark();
    line.say(describe(&result));
    mark();
    // From here on no call is made to fail.
    let afterwards = afterwards(scenario, &address, &socket, resources, &result, without);
    line.say(afterwards.map_or_else(|why| why.to_string(), |()| "well".to_owned()));
    mark();
}

fn afterwards(
    scenario: Scenario,
    address: &str,
    socket: &str,
    mut resources: Resources,
    result: &Result,
    without: (usize, usize),
) -> Result {
    let leaks_nothing = |when: &str| match open_resources() {
        now if now == without => Ok(()),
        now => Err(format!("descriptors and shared mappings: {without:?} at first, {now:?} {when}")),
    };
    if result.is_ok() {
        resources.prove(scenario, address).map_err(|why| format!("it took no effect: {why}"))?;
    }
    drop(resources);
    leaks_nothing("afterwards")?;
    let again = |resources: &mut Resources| -> Result {
        match scenario {
            // It exists already, or is gone already.
            Scenario::Create | Scenario::OpenOrCreate if result.is_ok() && address != "memfd" => {
                unlink(address)?
            }
            Scenario::Unlink | Scenario::UnlinkForce if result.is_ok() => drop(options().create(address)?),
            _ => {}
        }
        *resources = Resources::before(scenario, address, socket)?;
        if scenario == Scenario::Accept {
            return Ok(());
        }
        let done = resources.act(scenario, address, socket);
        let is_expected = done.as_ref().err().is_some_and(|error| {
            error.is::<shmpipe::SendTimeoutError>()
                || error.downcast_ref() == Some(&RecvTimeoutError::TimedOut)
        });
        if is_expected { Ok(()) } else { done.and_then(|()| resources.prove(scenario, address)) }
    };
    let mut resources = Resources::default();
    again(&mut resources).map_err(|why| format!("not the second time: {why}"))?;
    drop(resources);
    Ok(leaks_nothing("after the second time")?)
}

/// The most specific variant of an error: `Unsealed` of `Untrusted(Unsealed { .. })`, `Removed` of `Lost { .., lost: Removed }`.
fn innermost_variant(debug: &str) -> &str {
    let word = |text: &'_ str| text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    let (outer, rest) = debug.split_at(word(debug));
    let inner = match (outer, rest.strip_prefix('(')) {
        (_, Some(inner)) => inner,
        ("Lost", None) => rest.split_once("lost: ").map_or("", |(_, lost)| lost),
        _ => "",
    };
    match &inner[..word(inner)] {
        "" => outer,
        inner => inner,
    }
}
