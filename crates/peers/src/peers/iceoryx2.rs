//! iceoryx2: publish and subscribe; a message stays in the publisher's segment, and a queue carries where it lies.
//!
//! No overflow, so nothing is lost: a publisher without room retries until it is delivered. That holds from when the
//! subscriber has looked for publishers, so both sides look before the first message. One publisher, one subscriber and two
//! nodes for each service, nothing kept for late subscribers, the segment preallocated.

use std::io;

use iceoryx2::config::Config;
use iceoryx2::node::{Node, NodeBuilder};
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::port::update_connections::UpdateConnections;
use iceoryx2::prelude::{BackpressureStrategy, FileName, LogLevel, Path, SemanticString, ipc, set_log_level};
use shmpipe_measure::{Endpoint, Invitation, Invited, Mode, Patience, Transport};

use crate::errors::{refused, refused_debug};
use crate::late::Late;
use crate::scratch;
use crate::slots::{self, Ends, Slots, with_slot_size};

/// Samples of that size, polled.
pub fn at(size: usize) -> &'static dyn Transport {
    Box::leak(Box::new(Iceoryx2 { size }))
}

struct Iceoryx2 {
    size: usize,
}

/// The most samples that a subscriber's buffer has. Of 2, 8, 64 and 1024, this is best: fewer make streams slower, more make
/// round trips slower by a tenth.
const MOST_SAMPLES: usize = 64;

impl Transport for Iceoryx2 {
    fn name(&self) -> &'static str {
        "iceoryx2"
    }

    fn mode(&self) -> Mode {
        Mode::Polls
    }

    fn about(&self) -> &'static str {
        "iceoryx2 0.10, publish-subscribe of values of the message's size, no overflow, RetryUntilDelivered, a buffer of up \
         to 64 samples; loan_uninit, write and send, receive polled"
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let samples = slots::count(invitation.capacity(), self.size).min(MOST_SAMPLES);
        let names =
            Names { prefix: scratch::name("iox2")?, root: scratch::path("iox2")?.display().to_string() };
        invitation.tell(self.size);
        invitation.tell(samples);
        invitation.tell(&names.prefix);
        invitation.tell(&names.root);
        let made = with_slot_size!(self.size, N => {
            let (publisher, subscriber, node) = names.ports::<N>(samples, "there", "back")?;
            let subscriber = Late::new(move || {
                subscriber.update_connections().map_err(refused_debug)?;
                Ok(subscriber)
            });
            Endpoint::new(Slots(Ports { publisher, subscriber, _node: node }))
        });
        made.ok_or_else(|| refused("no slot of that size"))
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        let (size, samples): (usize, usize) = (invited.word()?, invited.word()?);
        let names = Names { prefix: invited.word()?, root: invited.word()? };
        let joined = with_slot_size!(size, N => {
            let (publisher, subscriber, node) = names.ports::<N>(samples, "back", "there")?;
            subscriber.update_connections().map_err(refused_debug)?;
            Endpoint::new(Slots(Ports { publisher, subscriber: Late::ready(subscriber), _node: node }))
        });
        joined.ok_or_else(|| refused("no slot of that size"))
    }
}

/// Where this run's services are, apart from everybody else's.
struct Names {
    prefix: String,
    root: String,
}

type Service = ipc::Service;
type ValuePublisher<const N: usize> = Publisher<Service, [u8; N], ()>;
type ValueSubscriber<const N: usize> = Subscriber<Service, [u8; N], ()>;

impl Names {
    fn ports<const N: usize>(
        &self,
        samples: usize,
        out: &str,
        back: &str,
    ) -> io::Result<(ValuePublisher<N>, ValueSubscriber<N>, Node<Service>)> {
        set_log_level(LogLevel::Error);
        let mut config = Config::default();
        config.global.prefix =
            FileName::new(format!("{}_", self.prefix).as_bytes()).map_err(refused_debug)?;
        config.global.set_root_path(&Path::new(self.root.as_bytes()).map_err(refused_debug)?);
        let node = NodeBuilder::new().config(&config).create::<Service>().map_err(refused_debug)?;
        let service = |name: &str| {
            node.service_builder(&name.try_into().map_err(refused_debug)?)
                .publish_subscribe::<[u8; N]>()
                .enable_safe_overflow(false)
                .subscriber_max_buffer_size(samples)
                .subscriber_max_borrowed_samples(1)
                .history_size(0)
                .max_publishers(1)
                .max_subscribers(1)
                .max_nodes(2)
                .open_or_create()
                .map_err(refused_debug)
        };
        let publisher = service(out)?
            .publisher_builder()
            .max_loaned_samples(1)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()
            .map_err(refused_debug)?;
        let subscriber = service(back)?.subscriber_builder().create().map_err(refused_debug)?;
        Ok((publisher, subscriber, node))
    }
}

struct Ports<const N: usize> {
    publisher: ValuePublisher<N>,
    subscriber: Late<ValueSubscriber<N>>,
    /// Keeps the services alive.
    _node: Node<Service>,
}

impl<const N: usize> Ends<N> for Ports<N> {
    #[inline(always)]
    fn put(&mut self, message: &[u8; N]) -> io::Result<()> {
        self.subscriber.get()?; // has looked for the other side's publisher before that one sends
        let mut sample = self.publisher.loan_uninit().map_err(refused)?;
        sample.payload_mut().write(*message);
        // SAFETY: just written.
        unsafe { sample.assume_init() }.send().map_err(refused)?;
        Ok(())
    }

    #[inline(always)]
    fn take(&mut self, buffer: &mut [u8; N]) -> io::Result<()> {
        let subscriber = self.subscriber.get()?;
        let mut patience = Patience::new();
        loop {
            if let Some(sample) = subscriber.receive().map_err(refused)? {
                buffer.copy_from_slice(sample.payload());
                return Ok(());
            }
            patience.pause()?;
        }
    }
}
