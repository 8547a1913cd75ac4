//! The metric families. Their names, labels and meanings are listed in docs/operating.md, and stay as they are.

use std::fmt;
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use shmpipe::{Latency, Peer, Side, Snapshot};

use super::Pipe;
use crate::args::MetricsFormat;
use crate::output::description::{self, Way};
use crate::system::users;

type Labels = Vec<(&'static str, String)>;

/// Every state that a side can have, one series each.
const STATES: [&str; 6] = ["never came", "alive", "closed", "aborted", "died", "unknown"];

/// The pipes as text.
pub fn encode(pipes: Vec<Pipe>, format: MetricsFormat) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Pipes(pipes)));
    let mut text = String::new();
    match format {
        MetricsFormat::Openmetrics => text::encode(&mut text, &registry),
        MetricsFormat::Prometheus => prometheus_text::encode(&mut text, &registry),
    }
    .expect("a string takes everything");
    text
}

#[derive(Debug)]
struct Pipes(Vec<Pipe>);

/// A direction of a pipe, with its labels.
struct Directed<'a> {
    labels: Labels,
    way: Way<'a>,
}

impl Directed<'_> {
    /// Both ends, with their labels.
    fn sides(&self) -> [(Labels, &Side); 2] {
        [("producer", self.way.producer), ("consumer", self.way.consumer)].map(|(role, side)| {
            let role = ("role", role.to_owned());
            (self.labels.iter().cloned().chain([role]).collect(), side)
        })
    }
}

impl Pipes {
    fn readable(&self) -> impl Iterator<Item = (Labels, &Pipe, &Snapshot)> {
        self.0.iter().filter_map(|pipe| Some((of_pipe(pipe), pipe, pipe.snapshot.as_ref()?)))
    }

    fn directions(&self) -> impl Iterator<Item = Directed<'_>> {
        self.readable().flat_map(|(labels, _, snapshot)| {
            description::ways(snapshot).into_iter().zip(["forth", "back"]).map(move |(way, name)| {
                let direction = ("direction", name.to_owned());
                Directed { labels: labels.iter().cloned().chain([direction]).collect(), way }
            })
        })
    }
}

fn of_pipe(pipe: &Pipe) -> Labels {
    vec![("pipe", pipe.name.clone())]
}

impl Collector for Pipes {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families(encoder);
        self.encode_pipes(&mut families)?;
        self.encode_directions(&mut families)?;
        self.encode_sides(&mut families)
    }
}

impl Pipes {
    fn encode_pipes(&self, families: &mut Families<'_>) -> fmt::Result {
        let readable = self.0.iter().map(|pipe| (of_pipe(pipe), u64::from(pipe.snapshot.is_some())));
        families.gauge("shmpipe_readable", "Whether the pipe exists and can be read", None, readable)?;
        let info = self.readable().map(|(labels, pipe, snapshot)| {
            let more = [
                ("kind", pipe.kind.to_owned()),
                ("segment_id", snapshot.segment_id.to_string()),
                ("wake_mode", snapshot.wake_mode.to_string()),
                ("schema", snapshot.schema.to_string()),
                ("duplex", snapshot.duplex.to_string()),
                ("owner", users::name(snapshot.permissions.uid)),
            ];
            (labels.into_iter().chain(more).collect(), 1)
        });
        // A gauge, since the text format of Prometheus has no info.
        families.gauge(
            "shmpipe_pipe_info",
            "What does not change during the life of a pipe; always 1",
            None,
            info,
        )?;
        let of =
            |value: fn(&Snapshot) -> u64| self.readable().map(move |(labels, _, it)| (labels, value(it)));
        families.gauge(
            "shmpipe_capacity",
            "The ring, in each direction",
            Some(Unit::Bytes),
            of(|it| it.capacity),
        )?;
        families.gauge("shmpipe_segment", "The whole segment", Some(Unit::Bytes), of(|it| it.size))?;
        let resident = self.readable().filter_map(|(labels, _, it)| Some((labels, it.memory?.resident)));
        families.gauge(
            "shmpipe_resident",
            "The part of the segment that is in memory",
            Some(Unit::Bytes),
            resident,
        )?;
        let created = self.readable().map(|(labels, _, it)| {
            let since = it.created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            (labels, since.as_secs())
        });
        families.gauge("shmpipe_created_timestamp", "When the pipe was created", Some(Unit::Seconds), created)
    }

    fn encode_directions(&self, families: &mut Families<'_>) -> fmt::Result {
        let of = |value: fn(&Way<'_>) -> u64| {
            self.directions().map(move |Directed { labels, way }| (labels, value(&way)))
        };
        families.gauge(
            "shmpipe_used",
            "Bytes of the ring between the read and the write position",
            Some(Unit::Bytes),
            of(|way| way.used),
        )?;
        families.gauge(
            "shmpipe_unread_messages",
            "Messages sent and not yet released",
            None,
            of(|way| way.unread),
        )?;
        families.counter("shmpipe_sent_messages", "Messages sent", None, of(|way| way.producer.messages))?;
        families.counter("shmpipe_sent", "Payload sent", Some(Unit::Bytes), of(|way| way.producer.bytes))?;
        families.counter(
            "shmpipe_released_messages",
            "Messages released",
            None,
            of(|way| way.consumer.messages),
        )?;
        families.counter(
            "shmpipe_released",
            "Payload released",
            Some(Unit::Bytes),
            of(|way| way.consumer.bytes),
        )?;
        families.counter(
            "shmpipe_dropped_messages",
            "Messages that producers did not send and counted as dropped",
            None,
            of(|way| way.dropped),
        )?;
        families.latencies(
            self.directions().filter_map(|directed| Some((directed.labels, directed.way.latency?))),
        )
    }

    fn encode_sides(&self, families: &mut Families<'_>) -> fmt::Result {
        let sides = || self.directions().flat_map(|directed| directed.sides().map(|(l, s)| (l, s.clone())));
        let of = |value: fn(&Side) -> u64| sides().map(move |(labels, side)| (labels, value(&side)));
        families.counter("shmpipe_claims", "How often the role was claimed", None, of(|side| side.epoch))?;
        families.counter(
            "shmpipe_waits",
            "Calls that had to wait, for space or for messages",
            None,
            of(|side| side.waits),
        )?;
        families.counter("shmpipe_wakeups", "Wake-ups of the other side", None, of(|side| side.wakeups))?;
        let states = sides().flat_map(|(labels, side)| {
            STATES.map(|state| {
                let is = description::state(&side) == state;
                (labels.iter().cloned().chain([("state", state.to_owned())]).collect(), u64::from(is))
            })
        });
        families.gauge("shmpipe_side_state", "1 for the state that the side is in, else 0", None, states)?;
        let aborts = sides().filter_map(|(labels, side)| Some((labels, side.peer.abort_code()?.into())));
        families.gauge("shmpipe_abort_code", "The code of a side that has aborted", None, aborts)?;
        let holders = sides().filter(|(_, side)| side.peer == Peer::Open).filter_map(|(mut labels, side)| {
            labels.push(("pid", side.pid?.to_string()));
            Some((labels, 1))
        });
        families.gauge("shmpipe_holder_info", "The process that holds the role; always 1", None, holders)
    }
}

/// The upper bounds of the latencies that are counted together, in seconds: powers of two from 128 ns to 1.07 s, and the rest.
fn latency_bounds() -> impl Iterator<Item = (Duration, f64)> {
    let powers = (7..=30).map(|power| Duration::from_nanos(1 << power));
    powers.map(|bound| (bound, bound.as_secs_f64())).chain([(Duration::MAX, f64::INFINITY)])
}

/// Writes one family after the other.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn latencies<'a>(&mut self, of: impl Iterator<Item = (Labels, &'a Latency)>) -> fmt::Result {
        let mut family = self.0.encode_descriptor(
            "shmpipe_latency",
            "From the commit of sampled messages to their receipt",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (labels, latency) in of {
            let mut counted = latency.buckets().peekable();
            let buckets: Vec<(f64, u64)> = latency_bounds()
                .map(|(bound, seconds)| {
                    let within = std::iter::from_fn(|| counted.next_if(|(longest, _)| *longest <= bound));
                    (seconds, within.map(|(_, count)| count).sum())
                })
                .collect();
            let samples = latency.samples();
            let sum = latency.sum().as_secs_f64();
            family.encode_family(&labels)?.encode_histogram::<Labels>(sum, samples, &buckets, None)?;
        }
        Ok(())
    }

    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        samples: impl Iterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        samples
            .into_iter()
            .try_for_each(|(labels, value)| family.encode_family(&labels)?.encode_gauge(&value))
    }

    fn counter(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        samples: impl Iterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        for (labels, value) in samples {
            family.encode_family(&labels)?.encode_counter::<Labels, u64, u64>(&value, None)?;
        }
        Ok(())
    }
}
