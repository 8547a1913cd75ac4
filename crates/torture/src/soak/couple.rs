//! Two processes at a pipe: one is killed again and again, the other one stays.

use crate::fork_server::{ForkServer, Forked};
use crate::traffic::words::{BEGUN, DOUBTS, DUPLICATES, RELEASED, SENT, STOP, TAKEN};
use crate::traffic::{Orders, describe};
use crate::verdict::Failure;
use shmpipe::{Options, Wait, WakeMode, unlink};
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::journal::Journal;
use shmpipe_testing::rng::Rng;
use std::time::{Duration, Instant};

pub const NAMES: [&str; 2] = ["producer", "consumer"];

/// What has not happened by then, on however busy a machine, will never happen.
const STUCK: Duration = Duration::from_secs(60);

pub struct Couple {
    // Before the place, so that nobody uses it any more when that goes.
    processes: [Forked; 2],
    fork_server: ForkServer,
    place: Place,
    journal: Journal,
    rng: Rng,
    /// Which of the two is killed.
    which: usize,
    kills: u64,
    due: Instant,
    /// How many messages had been taken when that was last seen to be more, and when that was.
    progress: (u64, Instant),
}

/// What a couple has done.
pub struct Done {
    pub messages: u64,
    pub duplicates: u64,
    pub kills: u64,
    pub claims: u64,
    pub doubts: u64,
}

impl Couple {
    pub fn new(backend: Backend, mode: WakeMode, which: usize, mut rng: Rng) -> Result<Self, Failure> {
        let (place, journal) = (backend.place(), Journal::new());
        drop(place.create(&Options::new().capacity(1 << 16).wake_mode(mode))?);
        let mut fork_server = ForkServer::start("soak");
        let mut spawn = |side, staying| spawn(&mut fork_server, &place, &journal, &mut rng, side, 1, staying);
        let processes = [0, 1].map(|side| spawn(side, side != which));
        let now = Instant::now();
        let (due, progress) = (now + Duration::from_secs(1), (0, now));
        Ok(Couple { processes, fork_server, place, journal, rng, which, kills: 0, due, progress })
    }

    /// The process that stays.
    pub fn survivor(&self) -> i32 {
        self.processes[1 - self.which].pid()
    }

    pub fn name(&self) -> &'static str {
        NAMES[1 - self.which]
    }

    /// Kills one of the two, once a second, and starts its successor; both have to be alive, and to go on.
    pub fn kill_if_due(&mut self) {
        self.must_live();
        if Instant::now() < self.due {
            return;
        }
        self.kills += 1;
        let Couple { processes, fork_server, place, journal, rng, which, kills, .. } = self;
        processes[*which].signal(libc::SIGKILL);
        let _ = processes[*which].ends_within(STUCK);
        processes[*which] = spawn(fork_server, place, journal, rng, *which, *kills + 1, false);
        self.due += Duration::from_millis(700 + self.rng.below(600));
    }

    fn must_live(&mut self) {
        for (which, name) in NAMES.into_iter().enumerate() {
            if let Some(status) = self.processes[which].has_ended() {
                let why = self.fork_server.why(status);
                self.fail(&format!("the {name} has ended by itself: {why}"));
            }
        }
        let [taken, _] = self.journal.entry(TAKEN);
        if taken > self.progress.0 {
            self.progress = (taken, Instant::now());
        } else if self.progress.1.elapsed() > STUCK {
            self.fail(&format!("stuck: no message for {STUCK:?}"));
        }
    }

    fn fail(&self, what: &str) -> ! {
        let pids = self.processes.each_ref().map(|process| Some(process.pid()));
        let mut started = [1; 2];
        started[self.which] = self.kills + 1;
        describe(&self.place, &self.journal, started, pids);
        panic!("{:?}: {what}", self.place.backend())
    }

    /// Both end in good order, and nothing is left.
    pub fn end(mut self) -> Result<Done, Failure> {
        self.journal.set(STOP, 1);
        for side in [0, 1] {
            match self.processes[side].ends_within(STUCK) {
                Some(status) if status.success() => {}
                Some(status) => return Err(Failure::Failed(self.fork_server.why(status))),
                None => self.fail(&format!("stuck: the {} does not end", NAMES[side])),
            }
        }
        let [taken, _] = self.journal.entry(TAKEN);
        let (sent, released) = (self.journal.get(SENT), self.journal.get(RELEASED));
        if [taken, released] != [sent; 2] {
            return Err(Failure::Failed(format!("{sent} sent, {taken} taken, {released} released")));
        }
        if self.place.backend() != Backend::Memfd {
            unlink(&self.place)?;
            if !self.place.is_unused() {
                return Err(Failure::Failed(format!("something is left at {}", self.place)));
            }
        }
        let claims = self.journal.get(BEGUN[1 - self.which]);
        let [duplicates, doubts] = [DUPLICATES, DOUBTS].map(|word| self.journal.get(word));
        Ok(Done { messages: taken, duplicates, kills: self.kills, claims, doubts })
    }
}

/// Starts one of the two.
fn spawn(
    fork_server: &mut ForkServer,
    place: &Place,
    journal: &Journal,
    rng: &mut Rng,
    side: usize,
    ordinal: u64,
    staying: bool,
) -> Forked {
    let orders = Orders {
        address: place.as_str().to_owned(),
        journal: journal.path(),
        seed: rng.word(),
        ordinal,
        wait: Wait::Block,
        rival: false,
        trusting: rng.below(2) == 0,
        dawdling: rng.below(4) == 0,
        staying,
    };
    fork_server.spawn(NAMES[side], &orders.to_words().each_ref().map(String::as_str))
}
