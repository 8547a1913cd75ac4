//! The counters of all bridges as text for Prometheus, by HTTP, in the form of `shmpipe metrics`.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tiny_http::{Header, Method, Request, Response, Server};

use crate::exit::{Code, Failure};
use crate::stats::{Counters, Stats};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One bridge, as its labels say it.
#[derive(Clone, Debug)]
pub struct Bridge {
    pub name: String,
    pub pipe: String,
    pub stream: String,
    /// `publish` or `subscribe`.
    pub direction: &'static str,
    pub stats: Stats,
}

/// The bridges that there are now.
pub type Bridges = Arc<Mutex<Vec<Bridge>>>;

type Labels = Vec<(&'static str, String)>;
type Read<T> = fn(&Counters) -> T;

const COUNTERS: [(&str, &str, Read<u64>); 5] = [
    ("frames", "Frames acknowledged by the server, or received into the pipe", |c| c.frames.load(Relaxed)),
    ("messages", "Messages in those, or parts of long ones", |c| c.messages.load(Relaxed)),
    ("bytes", "Their payload", |c| c.bytes.load(Relaxed)),
    ("reconnects", "Connections made after one was lost", |c| c.reconnects.load(Relaxed)),
    ("unknown_acknowledgements", "Frames without an answer, whose end was looked up", |c| {
        c.unknown.load(Relaxed)
    }),
];

const GAUGES: [(&str, &str, Read<f64>); 5] = [
    ("connected", "1 if the server answers, else 0", |c| f64::from(u8::from(c.connected.load(Relaxed)))),
    ("sequence", "The last message of the stream that is done", |c| c.sequence.load(Relaxed) as f64),
    ("position_bytes", "The position in the source that is done", |c| c.position.load(Relaxed) as f64),
    ("latest_seconds", "From the making of the last frame to its acknowledgement or arrival", |c| {
        c.latest_ns.load(Relaxed) as f64 / 1e9
    }),
    ("pending_frames", "Frames that the stream has and the subscriber has not", |c| {
        c.pending.load(Relaxed) as f64
    }),
];

/// The text, in OpenMetrics or in the older format of Prometheus.
pub fn encode(bridges: Vec<Bridge>, openmetrics: bool) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Shown(bridges)));
    let mut text = String::new();
    match openmetrics {
        true => text::encode(&mut text, &registry),
        false => prometheus_text::encode(&mut text, &registry),
    }
    .expect("a string takes everything");
    text
}

#[derive(Debug)]
struct Shown(Vec<Bridge>);

impl Shown {
    fn values<T>(&self, read: Read<T>) -> impl Iterator<Item = (Labels, T)> {
        self.0.iter().map(move |bridge| {
            let labels = vec![
                ("bridge", bridge.name.clone()),
                ("direction", bridge.direction.to_owned()),
                ("pipe", bridge.pipe.clone()),
                ("stream", bridge.stream.clone()),
            ];
            (labels, read(bridge.stats.counters()))
        })
    }
}

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, read) in COUNTERS {
            let name = format!("shmpipe_nats_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for (labels, value) in self.values(read) {
                family.encode_family(&labels)?.encode_counter::<Labels, u64, u64>(&value, None)?;
            }
        }
        for (name, help, read) in GAUGES {
            let name = format!("shmpipe_nats_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            for (labels, value) in self.values(read) {
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

/// Answers `GET /metrics` for as long as the process lives. Returns the URL.
pub fn serve(address: SocketAddr, bridges: Bridges) -> Result<String, Failure> {
    let server = Server::http(address)
        .map_err(|error| Failure::new(Code::Failure, format_args!("listening on {address}: {error}")))?;
    let url = format!("http://{}/metrics", server.server_addr());
    thread::spawn(move || {
        for request in server.incoming_requests() {
            let bridges = bridges.lock().unwrap_or_else(PoisonError::into_inner).clone();
            answer(request, bridges);
        }
    });
    Ok(url)
}

fn answer(request: Request, bridges: Vec<Bridge>) {
    let path = request.url().split('?').next().unwrap_or_default();
    let mut accepted = request.headers().iter().filter(|header| header.field.equiv("Accept"));
    let openmetrics = accepted.any(|header| header.value.as_str().contains("application/openmetrics-text"));
    let (status, kind, text) = match (request.method(), path) {
        (Method::Get | Method::Head, "/metrics") => {
            (200, if openmetrics { OPENMETRICS } else { PROMETHEUS }, encode(bridges, openmetrics))
        }
        (Method::Get | Method::Head, _) => (404, "text/plain", "the metrics are at /metrics\n".to_owned()),
        _ => (405, "text/plain", "only GET and HEAD are answered\n".to_owned()),
    };
    let header = Header::from_bytes("Content-Type", kind).expect("a header in ASCII");
    // A client that has left needs no answer.
    let _ = request.respond(Response::from_string(text).with_status_code(status).with_header(header));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_both_formats_name_the_counters() {
        let stats = Stats::default();
        stats.frame(3, 12);
        let bridge = Bridge {
            name: "a \"b\"".to_owned(),
            pipe: "ticks".to_owned(),
            stream: "TICKS".to_owned(),
            direction: "publish",
            stats,
        };
        let labels = r#"{bridge="a \"b\"",direction="publish",pipe="ticks",stream="TICKS"}"#;
        let text = encode(vec![bridge.clone()], true);
        assert!(text.contains(&format!("shmpipe_nats_messages_total{labels} 3\n")), "{text}");
        assert!(
            text.contains("# TYPE shmpipe_nats_messages counter\n") && text.ends_with("# EOF\n"),
            "{text}"
        );
        let text = encode(vec![bridge], false);
        assert!(text.contains("# TYPE shmpipe_nats_messages_total counter\n"), "{text}");
    }
}
