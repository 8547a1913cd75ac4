//! The start of a session.
//!
//! 1. Create the transports that pass descriptors, before the process that inherits them.
//! 2. Start the other process: the partner, or the guard for a partner thread.
//! 3. When it can clean up, create the other transports.
//! 4. Send all invitations to the partner, which joins the transports.
//! 5. Send as many bytes through each as its ring holds, both ways.

use std::io;
use std::mem;
use std::rc::Rc;

use super::Session;
use super::held::{Leftovers, OnlyOne, Pinned};
use crate::affinity::{self, Affinity};
use crate::cold::Flood;
use crate::control::Control;
use crate::endpoint::Endpoint;
use crate::errors::{about, unfit};
use crate::floor::Floor;
use crate::guard::SignalsHeld;
use crate::invitation::{Invitation, Letter};
use crate::partner::{self, Partner, Process, Role, Start, Thread};
use crate::patience::sides_are_alone;
use crate::settings::{Between, Settings};
use crate::transports::Transport;

/// For each transport this side's end and the invitation, once it is created.
type Made = Vec<Option<(Endpoint, Letter)>>;

impl Session {
    /// Creates the transports, starts the partner and waits until it has joined them all. Then sends as many checked bytes as a
    /// ring holds each way through each of them, so that no page is touched for the first time in a timed slice.
    ///
    /// # Errors
    /// `ResourceBusy` while another session of this process lives; those of the system, prefixed with the attempt.
    pub fn start(settings: &Settings, transports: &[&'static dyn Transport]) -> io::Result<Session> {
        if partner::is_partner() {
            return Err(unfit("a partner cannot have one: main must call serve_if_partner first"));
        }
        let only = OnlyOne::claim()?;
        partner::begin();
        let before = Affinity::current()?;
        let cpus = affinity::choose(settings.cpus, &before.cpus())?;
        sides_are_alone(cpus.is_some());
        let signals = SignalsHeld::new()?;
        let control = Rc::new(Control::create()?);
        let mut session = Session {
            partner: None,
            endpoints: Vec::new(),
            transports: transports.to_vec(),
            floor: Floor::new(Rc::clone(&control)),
            control: Rc::clone(&control),
            _leftovers: Leftovers(Rc::clone(&control)),
            guard: None,
            _affinity: Pinned(before),
            only,
            cpus,
            settings: settings.clone(),
            flood: Flood::new(),
            ground: None,
            orders: 0,
            watch: None,
            midway: true,
        };
        let mut made = transports.iter().map(|_| None).collect();
        session.make(true, &mut made)?;
        session.start_process(&mut made)?;
        if let Some((ours, _)) = cpus {
            affinity::pin(ours)?;
        }
        let ready = session.floor.ask_untimed(1); // whatever is made from now on, one of us removes
        session.explained(ready)?;
        session.make(false, &mut made)?;
        let (endpoints, letters) = made.into_iter().flatten().unzip();
        session.endpoints = endpoints;
        session.invite(letters)?;
        let joined = session.floor.ask_untimed(2); // one throws the letter, the next comes back when it has been followed
        session.explained(joined)?;
        session.midway = false;
        drop(signals);
        for (number, transport) in transports.iter().enumerate() {
            let size = session.endpoints[number].0.max_len().clamp(1, 4096);
            let messages = transport.warm_up_bytes(settings.capacity).div_ceil(size);
            session.check_both_ways(number, size, messages as u64)?;
        }
        Ok(session)
    }

    /// Creates the transports that pass descriptors, or the others.
    fn make(&self, passing: bool, made: &mut Made) -> io::Result<()> {
        for (transport, made) in self.transports.iter().zip(made) {
            if transport.passes_descriptors() == passing {
                let name = transport.name();
                let mut invitation = Invitation::new(&self.settings, &self.control);
                let endpoint = transport.make(&mut invitation);
                let endpoint = endpoint.map_err(|error| about(format_args!("{name}"), error))?;
                let letter = invitation.into_letter();
                if !passing && !letter.passed.is_empty() {
                    return Err(unfit(format!("{name} passes descriptors and does not say so")));
                }
                *made = Some((endpoint, letter));
            }
        }
        Ok(())
    }

    /// Starts the other process, which inherits the descriptors if it is the partner.
    fn start_process(&mut self, made: &mut Made) -> io::Result<()> {
        match self.settings.between {
            Between::Processes => {
                let letters = made.iter_mut().flatten();
                let inherited = letters.flat_map(|(_, letter)| mem::take(&mut letter.passed)).collect();
                let role = Role::Partner(self.cpus.map(|(_, theirs)| theirs));
                self.partner = Some(Partner::Process(Process::start(&self.control, role, inherited)?));
            }
            Between::Threads => {
                self.guard = Some(Process::start(&self.control, Role::Guard, Vec::new())?);
            }
        }
        Ok(())
    }

    /// Sends the invitations to the partner, and starts it if it is a thread.
    fn invite(&mut self, letters: Vec<Letter>) -> io::Result<()> {
        let letters = self.transports.iter().copied().zip(letters);
        match self.settings.between {
            Between::Processes => {
                let lines =
                    letters.map(|(transport, letter)| format!("{}{}\n", transport.name(), letter.text));
                self.control.write_letter(&lines.collect::<String>())
            }
            Between::Threads => {
                let start = Start {
                    control: self.control.id(),
                    thrown: self.floor.thrown(),
                    cpu: self.cpus.map(|(_, theirs)| theirs),
                    letters: letters.collect(),
                };
                // it inherits the blocked signals, so they always arrive at this thread
                self.partner = Some(Partner::Thread(Thread::start(start)?));
                Ok(())
            }
        }
    }
}
