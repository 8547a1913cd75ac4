//! What a process does while one of its system calls fails, how it sees that it was done, and what it has open.

use shmpipe::{
    Consumer, Options, Pipe, Producer, RecvError, SetupError, handoff, inspect, unlink, unlink_force,
};
use shmpipe_testing::process::Line;
use shmpipe_testing::traced::{be_traced, mark};
use std::error::Error;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

pub const ALL: [Scenario; 17] = [
    Scenario::Create,
    Scenario::OpenOrCreate,
    Scenario::Open,
    Scenario::Reopen,
    Scenario::Inspect,
    Scenario::ClaimProducer,
    Scenario::ClaimConsumer,
    Scenario::WaitToSend,
    Scenario::WaitToReceive,
    Scenario::CloseProducer,
    Scenario::CloseConsumer,
    Scenario::DropPipe,
    Scenario::LeaveLast,
    Scenario::Unlink,
    Scenario::UnlinkForce,
    Scenario::Serve,
    Scenario::Accept,
];

impl Scenario {
    /// Whether there is to be a pipe before.
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

/// Seconds after which a process hangs: more than the library ever waits for others.
const HANGS: u32 = 15;

/// What a process has, to do it with.
#[derive(Default)]
struct Had {
    pipe: Option<Pipe>,
    producer: Option<Producer>,
    consumer: Option<Consumer>,
    server: Option<handoff::Server>,
}

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

impl Had {
    fn before(scenario: Scenario, address: &str, socket: &str) -> Result<Self> {
        let mut had = Had::default();
        match scenario {
            Scenario::Create
            | Scenario::OpenOrCreate
            | Scenario::Open
            | Scenario::Inspect
            | Scenario::Unlink
            | Scenario::UnlinkForce => {}
            // The second time it may be there still: nobody hears of what fails in a drop.
            Scenario::LeaveLast => had.pipe = Some(options().remove_on_close(true).open_or_create(address)?),
            Scenario::Serve => had.pipe = Some(options().create("memfd")?),
            Scenario::Accept => {
                let pipe = options().create("memfd")?;
                had.server = Some(handoff::serve(socket, &pipe)?);
                had.pipe = Some(pipe);
            }
            _ => had.pipe = Some(Pipe::open(address)?),
        }
        if let (true, Some(pipe)) = (
            matches!(scenario, Scenario::CloseProducer | Scenario::LeaveLast | Scenario::WaitToSend),
            &had.pipe,
        ) {
            let mut producer = pipe.producer()?;
            if scenario == Scenario::WaitToSend {
                while producer.try_send(&[1; 1000]).is_ok() {}
            }
            had.producer = Some(producer);
        }
        if let (true, Some(pipe)) = (
            matches!(scenario, Scenario::CloseConsumer | Scenario::LeaveLast | Scenario::WaitToReceive),
            &had.pipe,
        ) {
            had.consumer = Some(pipe.consumer()?);
        }
        if scenario == Scenario::LeaveLast {
            had.producer.take().map(Producer::close).transpose()?;
            had.consumer.take().map(Consumer::close).transpose()?;
        }
        Ok(had)
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
            Scenario::Serve => self.server = Some(handoff::serve(socket, pipe.expect("a pipe"))?),
            Scenario::Accept => drop(self.server.as_ref().expect("a server").accept()?),
        }
        Ok(())
    }

    /// Whether what was said to be done is done.
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
                drop(handoff::connect(self.server.as_ref().expect("a server").path(), &Options::new()))
            }
            _ => {}
        }
        Ok(())
    }
}

/// Long enough for a sleep, and for a look at the peer.
fn soon() -> Instant {
    Instant::now() + Duration::from_millis(2)
}

/// Both roles can be had, and a message gets through.
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

/// Descriptors, and mappings that others may share.
fn open_things() -> (usize, usize) {
    let descriptors = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let is_shared = |line: &&str| line.split(' ').nth(1).is_some_and(|rights| rights.ends_with('s'));
    (descriptors, maps.lines().filter(is_shared).count())
}

/// "ok", or the name of the error's variant, the number of the system's error in it, and what it says.
fn told(result: &Result) -> String {
    let Err(error) = result else { return "ok".to_owned() };
    let debug = format!("{error:?}");
    let variant: String = debug.chars().take_while(char::is_ascii_alphanumeric).collect();
    let (mut number, mut cause) = (0, Some(&**error as &dyn Error));
    while let Some(error) = cause {
        let os = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        number = os.unwrap_or(number);
        cause = error.source();
    }
    format!("{variant} {number} {}", error.to_string().replace('\n', " "))
}

/// Plays the process: does it once while it is traced, says what came of it, does it once more, and says how that went.
pub fn play(mut line: Line) {
    let [scenario, address, socket] = line.words.clone().try_into().unwrap();
    let scenario =
        *ALL.iter().find(|known| format!("{known:?}") == scenario).expect("a scenario that is known");
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::abort();
    }));
    // SAFETY: no pointers. Whatever hangs is ended by it.
    unsafe { libc::alarm(HANGS) };
    let without = open_things();
    let mut had = Had::before(scenario, &address, &socket).unwrap();
    be_traced(&mut line);
    mark();
    line.hear();
    mark();
    let result = had.act(scenario, &address, &socket);
    mark();
    line.say(told(&result));
    mark();
    // From here on nothing fails that should not.
    let afterwards = afterwards(scenario, &address, &socket, had, &result, without);
    line.say(afterwards.map_or_else(|why| why.to_string(), |()| "well".to_owned()));
    mark();
}

fn afterwards(
    scenario: Scenario,
    address: &str,
    socket: &str,
    mut had: Had,
    result: &Result,
    without: (usize, usize),
) -> Result {
    let leaks_nothing = |when: &str| match open_things() {
        now if now == without => Ok(()),
        now => Err(format!("descriptors and shared mappings: {without:?} at first, {now:?} {when}")),
    };
    if result.is_ok() {
        had.prove(scenario, address).map_err(|why| format!("it is not done: {why}"))?;
    }
    drop(had);
    leaks_nothing("afterwards")?;
    let again = |had: &mut Had| -> Result {
        match scenario {
            // It is there already, or gone already.
            Scenario::Create | Scenario::OpenOrCreate if result.is_ok() && address != "memfd" => {
                unlink(address)?
            }
            Scenario::Unlink | Scenario::UnlinkForce if result.is_ok() => drop(options().create(address)?),
            _ => {}
        }
        *had = Had::before(scenario, address, socket)?;
        if scenario == Scenario::Accept {
            return Ok(());
        }
        let done = had.act(scenario, address, socket);
        let is_expected = done.as_ref().err().is_some_and(|error| {
            error.is::<shmpipe::SendError>() || error.downcast_ref() == Some(&RecvError::TimedOut)
        });
        if is_expected { Ok(()) } else { done.and_then(|()| had.prove(scenario, address)) }
    };
    let mut had = Had::default();
    again(&mut had).map_err(|why| format!("not the second time: {why}"))?;
    drop(had);
    Ok(leaks_nothing("after the second time")?)
}
