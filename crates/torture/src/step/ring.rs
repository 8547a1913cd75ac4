//! A ring with one end traced in a process of its own.

use super::act::{Act, Message, Way};
use super::judge::{CHANGING, Judge, changing, take_all};
use crate::verdict::Failure;
use shmpipe::{Consumer, Options, Pipe, Producer, Role, WakeMode};
use shmpipe_testing::layout::{HEAD, TAIL};
use shmpipe_testing::name::Name;
use shmpipe_testing::process::Process;
use shmpipe_testing::raw::Attached;
use shmpipe_testing::traced::Traced;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How to create a ring, and the build of this program for its end.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    pub program: &'a Path,
    pub capacity: usize,
    pub wake_mode: WakeMode,
    /// The first position.
    pub position: u64,
}

/// The work done in a ring.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Instructions after which a kill could hit.
    pub boundaries: u64,
    /// Those of them that changed the segment.
    pub states: u64,
}

/// A traced end, and the memory that it changes.
#[derive(Debug)]
pub struct Ring<'a> {
    traced: Traced,
    memory: Attached,
    judge: &'a Judge,
    pub capacity: usize,
    /// The address of the end's receive buffer.
    copy: u64,
    /// The state judged last.
    state: Vec<u8>,
    /// Instructions between two marks without an act.
    idle: u64,
    pub done: Done,
    pipe: Pipe,
    _name: Name,
}

impl<'a> Ring<'a> {
    pub fn new(setting: Setting<'_>, role: Role, judge: &'a Judge) -> Result<Self, Failure> {
        let Setting { program, capacity, wake_mode, position } = setting;
        let name = Name::new();
        let pipe = Options::new().capacity(capacity as u64).wake_mode(wake_mode).create(&name)?;
        let memory = Attached::new(name.segment().unwrap());
        memory.set(HEAD, position);
        memory.set(TAIL, position);
        let process = Process::start_from(program, &format!("step: {role}"), &[name.as_str()]);
        let mut traced = Traced::of(process).ok_or_else(Failure::untraceable)?;
        let copy = traced.process.hear().parse()?;
        let state = vec![0; changing(capacity)];
        let mut ring = Ring {
            traced,
            memory,
            judge,
            capacity,
            copy,
            state,
            idle: 0,
            done: Done::default(),
            pipe,
            _name: name,
        };
        ring.traced.prepare(&Act::of(Way::Nothing).to_words());
        while ring.traced.step() {
            ring.idle += 1;
        }
        Ok(ring)
    }

    /// The index of the next record, unless it wraps.
    pub fn index(&self) -> usize {
        self.memory.get(TAIL) as usize % self.capacity
    }

    /// Bytes of the ring in use.
    pub fn used(&self) -> usize {
        self.memory.get(TAIL).wrapping_sub(self.memory.get(HEAD)) as usize
    }

    /// Runs an act without judging it.
    pub fn pass(&mut self, act: &Act) {
        self.traced.prepare(&act.to_words());
        self.traced.go_on();
    }

    /// Runs an act, and judges every state of the segment on the way. Successors must find the messages `before` up to some state, and
    /// the messages `after` from there to the end.
    pub fn step(&mut self, act: &Act, before: &[Message], after: &[Message]) -> Result<(), String> {
        let (mut steps, index) = (0, self.index());
        let judged = self.each_step(act, before, after, &mut steps);
        self.done.boundaries += steps.saturating_sub(self.idle);
        judged.map_err(|why| {
            let (what, capacity) = (act.to_words(), self.capacity);
            format!("killed after instruction {steps} of \"{what}\" at index {index} of {capacity}: {why}")
        })
    }

    fn each_step(
        &mut self,
        act: &Act,
        before: &[Message],
        after: &[Message],
        steps: &mut u64,
    ) -> Result<(), String> {
        self.traced.prepare(&act.to_words());
        let mut is_done = before == after;
        self.judge_now(before, after, &mut is_done)?;
        while self.traced.step() {
            *steps += 1;
            if self.memory.differs(CHANGING, &self.state) {
                self.judge_now(before, after, &mut is_done)?;
            }
        }
        if is_done {
            Ok(())
        } else {
            Err("the act is complete, and successors do not find its effect".to_owned())
        }
    }

    fn judge_now(&mut self, before: &[Message], after: &[Message], is_done: &mut bool) -> Result<(), String> {
        self.memory.copy_to(CHANGING, &mut self.state);
        self.done.states += 1;
        let found = self.judge.judge(&self.state)?;
        if found == after {
            let first = !std::mem::replace(is_done, true);
            return if first { self.is_copied(before, after) } else { Ok(()) };
        }
        let named = |messages: &[Message]| -> String {
            let named: Vec<String> =
                messages.iter().map(|(tag, bytes)| format!("{tag} of {} bytes", bytes.len())).collect();
            format!("[{}]", named.join(", "))
        };
        if *is_done || found != before {
            let torn = found.iter().any(|message| !before.contains(message) && !after.contains(message));
            let (found, before, after) = (named(&found), named(before), named(after));
            let torn = if torn { ", one of them torn" } else { "" };
            return Err(format!("found {found}{torn}, expected {before} or later {after}"));
        }
        Ok(())
    }

    /// Checks that the process has a copy of the last message that it has just released.
    fn is_copied(&self, before: &[Message], after: &[Message]) -> Result<(), String> {
        let Some(last) = before.len().checked_sub(after.len() + 1) else { return Ok(()) };
        let (tag, bytes) = &before[last];
        let mut copy = vec![0; bytes.len()];
        let memory = File::open(format!("/proc/{}/mem", self.traced.process.pid()));
        let read = memory.and_then(|memory| memory.read_exact_at(&mut copy, self.copy));
        read.map_err(|error| format!("reading the memory of the process: {error}"))?;
        match copy == *bytes {
            true => Ok(()),
            false => {
                Err(format!("message {tag} of {} bytes is released and was not copied before", bytes.len()))
            }
        }
    }
}

/// A ring with a traced producer. We are its consumer.
#[derive(Debug)]
pub struct Sending<'a> {
    pub ring: Ring<'a>,
    consumer: Consumer,
    /// The messages in the ring.
    there: Vec<Message>,
}

impl<'a> Sending<'a> {
    pub fn new(setting: Setting<'_>, judge: &'a Judge) -> Result<Self, Failure> {
        let ring = Ring::new(setting, Role::Producer, judge)?;
        let consumer = ring.pipe.consumer()?;
        Ok(Sending { ring, consumer, there: vec![] })
    }

    /// Empties the ring, and moves the tail to an index.
    pub fn move_to(&mut self, index: usize) -> Result<(), String> {
        self.take()?;
        for _ in 0..8 {
            let (now, capacity) = (self.ring.index(), self.ring.capacity);
            let to_go = (index + capacity - now) % capacity;
            if to_go == 0 {
                return Ok(());
            }
            let record = to_go.min(capacity - now).min(capacity / 2);
            self.ring.pass(&Act::new(Way::Send, record as u32, [record - 8]));
            take_all(&mut self.consumer)?;
        }
        Err(format!("the tail stays at index {}", self.ring.index()))
    }

    /// Receives all messages.
    pub fn take(&mut self) -> Result<(), String> {
        let taken = take_all(&mut self.consumer)?;
        if taken == std::mem::take(&mut self.there) {
            return Ok(());
        }
        Err("the living consumer received other messages".to_owned())
    }

    pub fn step(&mut self, act: &Act) -> Result<(), String> {
        if self.ring.used() + act.room() > self.ring.capacity {
            self.take()?;
        }
        let before = self.there.clone();
        self.there.extend(act.sent());
        self.ring.step(act, &before, &self.there)
    }
}

/// A ring with a traced consumer. We are its producer.
#[derive(Debug)]
pub struct Receiving<'a> {
    pub ring: Ring<'a>,
    producer: Producer,
    there: Vec<Message>,
}

impl<'a> Receiving<'a> {
    pub fn new(setting: Setting<'_>, judge: &'a Judge) -> Result<Self, Failure> {
        let ring = Ring::new(setting, Role::Consumer, judge)?;
        let producer = ring.pipe.producer()?;
        Ok(Receiving { ring, producer, there: vec![] })
    }

    /// The number of messages in the ring.
    pub fn there(&self) -> usize {
        self.there.len()
    }

    /// Sends a message if there is space.
    pub fn send(&mut self, message: Message) {
        let sent = self.producer.try_reserve(message.1.len()).map(|mut space| {
            space.write(0, &message.1);
            space.tag(message.0);
            space.commit();
        });
        if sent.is_ok() {
            self.there.push(message);
        }
    }

    pub fn step(&mut self, act: &Act) -> Result<(), String> {
        let after = self.there[act.taken(self.there.len())..].to_vec();
        let before = std::mem::replace(&mut self.there, after);
        self.ring.step(act, &before, &self.there)
    }
}
