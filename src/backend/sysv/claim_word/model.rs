//! Every interleaving of claims with what happens to the processes that make them: killed, replaced by `exec`, moved to another
//! IPC namespace, forked; and with the removal of the pipe, as one thread of a remover does it.
//!
//! The steps are those of [`ClaimWord::take`](super::ClaimWord::take) and of `SysvRoleLock::claim`, each a load, a
//! compare-and-swap or a system call. The kernel is what `presence.rs` says about it. Watchers, the number of attachments and the
//! semaphore set do not occur: no step reads them, so that none of them can matter. The rules left out, one at a time, show that
//! the model would find a mistake.

use std::collections::HashSet;

/// A rule that a model may leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// A claim is a compare-and-swap, not a store.
    Exchange,
    /// A process that does not see its own presence asks about no other.
    OwnNamespace,
    /// A claim is followed by a look at whether the pipe was removed.
    StillThere,
    /// The kernel ties a presence to the memory of a process, not to the process, which keeps it across `exec`.
    TiedToMemory,
    /// A forked child does not inherit the presence.
    NotInherited,
    /// Leaving the namespace does not take the presence back, as it takes back what semaphores undo.
    KeptOnMove,
}

/// Where a process is in its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Idle,
    Load,
    Ask(u8),
    Exchange(u8),
    CheckRemoved,
    Holding,
    /// Removes the pipe, which it holds.
    Removing,
    GivenUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Process {
    step: Step,
    /// Whether it has its memory, and with it the ring.
    has_memory: bool,
    moved: bool,
    /// Whether a forked child lives.
    has_child: bool,
    /// Claims made so far.
    claims: u8,
}

const PROCESSES: usize = 3;

/// The last process does nothing but remove the pipe.
const REMOVER: usize = PROCESSES - 1;

/// Claims that each process makes.
const CLAIMS: [u8; PROCESSES] = [2, 2, 1];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct World {
    processes: [Process; PROCESSES],
    /// The claim of the role: 0, or a process and the number of its claim.
    word: u8,
    /// Which presences exist.
    presences: [bool; PROCESSES],
    removed: bool,
}

impl World {
    fn new() -> Self {
        let process =
            Process { step: Step::Idle, has_memory: true, moved: false, has_child: false, claims: 0 };
        World { processes: [process; PROCESSES], word: 0, presences: [true; PROCESSES], removed: false }
    }

    /// The word by which process `i` claims now.
    fn claim_of(&self, i: usize) -> u8 {
        (i as u8) << 4 | self.processes[i].claims | 8
    }

    /// What the kernel answers process `asker` about a claim.
    fn stands(&self, asker: usize, word: u8) -> bool {
        self.presences[usize::from(word >> 4)] && !self.processes[asker].moved
    }

    /// What may happen next, to any process.
    fn next(&self, without: Option<Rule>) -> Vec<World> {
        let mut next = vec![];
        for i in 0..PROCESSES {
            let mut after = *self;
            if after.advance(i, without) {
                next.push(after);
            }
            self.suffer(i, without, &mut next);
        }
        next
    }

    /// The next step of a program. `false` if there is none.
    fn advance(&mut self, i: usize, without: Option<Rule>) -> bool {
        let follows = |rule| without != Some(rule);
        let (claim, word) = (self.claim_of(i), self.word);
        let process = self.processes[i];
        if !process.has_memory {
            return false;
        }
        let step = match process.step {
            Step::Idle if process.claims < CLAIMS[i] => {
                let sees_itself = self.stands(i, claim);
                if sees_itself || !follows(Rule::OwnNamespace) { Step::Load } else { Step::GivenUp }
            }
            Step::Idle | Step::GivenUp => return false,
            Step::Load if word == 0 => Step::Exchange(0),
            Step::Load => Step::Ask(word),
            Step::Ask(found) if self.stands(i, found) => Step::GivenUp,
            Step::Ask(found) => Step::Exchange(found),
            Step::Exchange(found) if word == found || !follows(Rule::Exchange) => {
                self.word = claim;
                Step::CheckRemoved
            }
            Step::Exchange(_) => Step::Load,
            Step::CheckRemoved if self.removed && follows(Rule::StillThere) => {
                self.word = 0;
                Step::GivenUp
            }
            Step::CheckRemoved if i == REMOVER => Step::Removing,
            Step::CheckRemoved => Step::Holding,
            Step::Holding | Step::Removing => {
                self.removed |= process.step == Step::Removing;
                // Releases only its own claim.
                if word == claim {
                    self.word = 0;
                }
                self.processes[i].claims += 1;
                Step::Idle
            }
        };
        self.processes[i].step = step;
        true
    }

    /// What happens to a process at any moment.
    fn suffer(&self, i: usize, without: Option<Rule>, next: &mut Vec<World>) {
        let follows = |rule| without != Some(rule);
        let process = self.processes[i];
        if process.has_memory {
            // Killed.
            let mut after = *self;
            after.processes[i].has_memory = false;
            after.presences[i] = process.has_child && !follows(Rule::NotInherited);
            next.push(after);
            // Replaced by another program.
            let mut after = *self;
            after.processes[i].has_memory = false;
            after.presences[i] = !follows(Rule::TiedToMemory);
            next.push(after);
            // Forked: one process is enough.
            if i == 0 {
                let mut after = *self;
                after.processes[i].has_child = true;
                next.push(after);
            }
            // Moved to another namespace: the thread that moves is the one that would claim, so it is not in the middle of that.
            if matches!(process.step, Step::Idle | Step::Holding) {
                let mut after = *self;
                after.processes[i].moved = true;
                after.presences[i] &= follows(Rule::KeptOnMove);
                next.push(after);
            }
        }
    }

    fn holds(&self, i: usize) -> bool {
        self.processes[i].has_memory && matches!(self.processes[i].step, Step::Holding | Step::Removing)
    }

    /// What is wrong, if anything.
    fn fault(&self) -> Option<&'static str> {
        let holders = (0..PROCESSES).filter(|&i| self.holds(i)).count();
        if holders > 1 {
            return Some("two holders");
        }
        let is_removed_under = (0..REMOVER).any(|i| self.holds(i)) && self.removed;
        if is_removed_under {
            return Some("a holder of a pipe that was removed in order");
        }
        // A process that has claimed, whether it knows that yet or not.
        let claims = |i: usize| {
            let Process { has_memory, step, .. } = self.processes[i];
            has_memory && matches!(step, Step::CheckRemoved | Step::Holding | Step::Removing)
        };
        let is_taken = self.word != 0 && self.presences[usize::from(self.word >> 4)];
        let is_stuck = is_taken && !claims(usize::from(self.word >> 4));
        is_stuck.then_some("a role that no process holds and none can claim")
    }
}

/// Runs every interleaving. Returns how many states there are, or the first fault.
fn explore(without: Option<Rule>) -> Result<usize, &'static str> {
    let start = World::new();
    let (mut seen, mut open) = (HashSet::from([start]), vec![start]);
    while let Some(world) = open.pop() {
        if let Some(fault) = world.fault() {
            return Err(fault);
        }
        open.extend(world.next(without).into_iter().filter(|&next| seen.insert(next)));
    }
    Ok(seen.len())
}

#[test]
fn a_role_has_one_holder_and_is_never_stuck() {
    let states = explore(None).unwrap();
    assert!(states > 10_000, "only {states} states");
}

#[test]
fn the_model_finds_each_missing_rule() {
    for (rule, fault) in [
        (Rule::Exchange, "two holders"),
        (Rule::OwnNamespace, "two holders"),
        (Rule::StillThere, "a holder of a pipe that was removed in order"),
        (Rule::TiedToMemory, "a role that no process holds and none can claim"),
        (Rule::NotInherited, "a role that no process holds and none can claim"),
        (Rule::KeptOnMove, "two holders"),
    ] {
        assert_eq!(explore(Some(rule)), Err(fault), "{rule:?}");
    }
}
