//! Answers `GET /metrics`.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use shmpipe::Address;
use tiny_http::{Header, Method, Request, Response, Server};

use super::{families, look};
use crate::args::MetricsFormat;
use crate::exit::{Code, End, Failure, Outcome};
use crate::output::report::{self, Report, SCHEMA};
use crate::system::signals;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How often to check for a signal.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Serialize)]
struct Listening {
    schema: u32,
    url: String,
}

/// Answers until a signal ends it.
pub fn serve(address: SocketAddr, pipes: &[Address], report: Report) -> Outcome {
    signals::install()?;
    let server = Server::http(address).map_err(|error| {
        let code = match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
            Some(std::io::ErrorKind::PermissionDenied) => Code::Denied,
            _ => Code::Failure,
        };
        Failure::new(code, format_args!("listening on {address}: {error}"))
    })?;
    let url = format!("http://{}/metrics", server.server_addr());
    report::print(&match report {
        Report::Json => report::json(&Listening { schema: SCHEMA, url }) + "\n",
        Report::Text => url + "\n",
    })?;
    loop {
        if let Some(signal) = signals::received() {
            return Ok(End::Signal(signal));
        }
        match server.recv_timeout(CHECK_INTERVAL) {
            Ok(Some(request)) => answer(request, pipes),
            Ok(None) => {}
            Err(error) => return Err(Failure::io("accepting a connection", &error)),
        }
    }
}

/// As Prometheus does; a browser or curl does not.
fn asks_for_openmetrics(request: &Request) -> bool {
    let mut accepted = request.headers().iter().filter(|header| header.field.equiv("Accept"));
    accepted.any(|header| header.value.as_str().contains("application/openmetrics-text"))
}

fn answer(request: Request, pipes: &[Address]) {
    let path = request.url().split('?').next().unwrap_or_default();
    let (status, kind, text) = match (request.method(), path) {
        (Method::Get | Method::Head, "/metrics") => {
            let (kind, format) = match asks_for_openmetrics(&request) {
                true => (OPENMETRICS, MetricsFormat::Openmetrics),
                false => (PROMETHEUS, MetricsFormat::Prometheus),
            };
            (200, kind, families::encode(look(pipes).0, format))
        }
        (Method::Get | Method::Head, _) => (404, "text/plain", "the metrics are at /metrics\n".to_owned()),
        _ => (405, "text/plain", "only GET and HEAD are answered\n".to_owned()),
    };
    let header = Header::from_bytes("Content-Type", kind).expect("a header in ASCII");
    // A client that has left needs no answer.
    let _ = request.respond(Response::from_string(text).with_status_code(status).with_header(header));
}
