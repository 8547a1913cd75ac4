//! Two processes at a pipe: the harness kills one again and again, the other survives.

use crate::fork_server::{ForkServer, Forked};
use crate::traffic::words::{BEGUN, DUPLICATES, RETRIES, STOP, TAKEN};
use crate::traffic::{NAMES, Orders, all_taken, describe, remove};
use crate::verdict::Failure;
use shmpipe::{Options, Wait, WakeMode};
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::journal::Journal;
use shmpipe_testing::rng::Rng;
use std::time::{Duration, Instant};

/// A timeout that only a hang exceeds, even on a busy machine.
const STUCK: Duration = Duration::from_secs(60);

pub struct Couple {
    // Dropped before the place, so that no process uses it when it is removed.
    processes: [Forked; 2],
    fork_server: ForkServer,
    place: Place,
    journal: Journal,
    rng: Rng,
    /// The one to kill.
    which: usize,
    kills: u64,
    due: Instant,
    /// The number of messages taken, and when it last changed.
    progress: (u64, Instant),
}

/// The totals of a couple.
pub struct Done {
    pub messages: u64,
    pub duplicates: u64,
    pub kills: u64,
    pub claims: u64,
    pub retries: u64,
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

    /// The process that is never killed.
    pub fn survivor(&self) -> i32 {
        self.processes[1 - self.which].pid()
    }

    pub fn name(&self) -> &'static str {
        NAMES[1 - self.which]
    }

    /// Checks that both live and make progress. Once a second, kills one and starts its successor.
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
                self.fail(&format!("the {name} ended by itself: {why}"));
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
        let process = |side: usize| {
            let started = if side == self.which { self.kills + 1 } else { 1 };
            (NAMES[side], started, Some(self.processes[side].pid()))
        };
        describe(&self.place, &self.journal, [0, 1].map(process));
        panic!("{:?}: {what}", self.place.backend())
    }

    /// Makes both end normally, and checks that nothing is left over.
    pub fn end(mut self) -> Result<Done, Failure> {
        self.journal.set(STOP, 1);
        for side in [0, 1] {
            match self.processes[side].ends_within(STUCK) {
                Some(status) if status.success() => {}
                Some(status) => return Err(Failure::Failed(self.fork_server.why(status))),
                None => self.fail(&format!("stuck: the {} does not end", NAMES[side])),
            }
        }
        let messages = all_taken(&self.journal)?;
        remove(&self.place)?;
        let claims = self.journal.get(BEGUN[1 - self.which]);
        let [duplicates, retries] = [DUPLICATES, RETRIES].map(|word| self.journal.get(word));
        Ok(Done { messages, duplicates, kills: self.kills, claims, retries })
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
        seed: rng.word(),
        ordinal,
        wait: Wait::Block,
        rival: false,
        trusting: rng.below(2) == 0,
        dawdling: rng.below(4) == 0,
        staying,
        journals: vec![journal.path()],
    };
    fork_server.spawn(NAMES[side], &orders.to_words())
}
