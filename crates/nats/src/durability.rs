//! What a server promises about acknowledged messages, as far as it says so.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use async_nats::jetstream::stream::{Info, StorageType};
use serde::Deserialize;

const TIMEOUT: Duration = Duration::from_secs(3);

/// Versions from the first to before the second that are known to lose acknowledged messages, and how.
const FAULTY: [([u64; 3], [u64; 3], &str); 3] = [
    ([0, 0, 0], [2, 10, 23], "may lose a whole stream when it is killed (fixed in 2.10.23)"),
    (
        [2, 12, 0],
        [2, 12, 1],
        "does not always check the expected last sequence of a stream without replicas (fixed in 2.12.1)",
    ),
    (
        [2, 12, 1],
        [2, 12, 3],
        "may lose acknowledged messages when a server's files are damaged (fixed in 2.12.3)",
    ),
];

/// What speaks against a server and a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Doubts {
    /// What may lose acknowledged messages when the power fails.
    pub sync: Vec<String>,
    pub others: Vec<String>,
}

impl Doubts {
    pub fn of(info: &Info, version: &str, monitor: Option<&str>) -> Self {
        let mut doubts = Doubts::default();
        if info.config.storage == StorageType::Memory {
            doubts.sync.push(
                "the stream is in the server's memory alone: a restart of the server loses it".to_owned(),
            );
        } else {
            match monitor.map(sync_of) {
                None => doubts.sync.push(
                    "how the server syncs is not known: by default it acknowledges at once and syncs every 2 minutes; --monitor asks it"
                        .to_owned(),
                ),
                Some(Err(why)) => doubts.sync.push(format!("how the server syncs is not known: {why}")),
                Some(Ok(Sync { sync_always: true, .. })) => {}
                Some(Ok(Sync { sync_interval: Some(ns), .. })) => {
                    let interval = humantime::format_duration(Duration::from_nanos(ns));
                    doubts.sync.push(format!(
                        "the server syncs every {interval}: what it acknowledged since is lost if the power fails (sync_interval: always)"
                    ));
                }
                Some(Ok(_)) => doubts.sync.push(
                    "the server syncs every 2 minutes and cannot do otherwise (before 2.10): what it acknowledged since is lost if the \
                     power fails"
                        .to_owned(),
                ),
            }
        }
        if info.config.num_replicas < 2 {
            doubts
                .others
                .push("the stream has one copy (replicas 1): it is lost with the server's disk".to_owned());
        }
        if let Some(version) = parse_version(version) {
            for (from, to, fault) in FAULTY {
                if (from..to).contains(&version) {
                    let [major, minor, patch] = version;
                    doubts.others.push(format!("the server {major}.{minor}.{patch} {fault}"));
                }
            }
        }
        doubts
    }
}

fn parse_version(text: &str) -> Option<[u64; 3]> {
    let mut parts = text.split(['.', '-', '+']).map(|part| part.parse().ok());
    Some([parts.next()??, parts.next()??, parts.next()??])
}

#[derive(Debug, Default, Deserialize)]
struct Sync {
    #[serde(default)]
    sync_always: bool,
    sync_interval: Option<u64>,
}

#[derive(Deserialize)]
struct Jsz {
    config: Sync,
}

/// Asks the monitoring port.
fn sync_of(monitor: &str) -> Result<Sync, String> {
    let host =
        monitor.strip_prefix("http://").ok_or_else(|| format!("{monitor} does not begin with http://"))?;
    let host = host.trim_end_matches('/');
    let failed = |error: std::io::Error| format!("{monitor}: {error}");
    let address =
        host.to_socket_addrs().map_err(failed)?.next().ok_or_else(|| format!("{monitor} has no address"))?;
    let mut connection = TcpStream::connect_timeout(&address, TIMEOUT).map_err(failed)?;
    connection.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
    let request = format!("GET /jsz HTTP/1.0\r\nHost: {host}\r\n\r\n");
    connection.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    connection.take(1 << 20).read_to_end(&mut answer).map_err(failed)?;
    let answer = String::from_utf8_lossy(&answer);
    let (_, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| format!("{monitor} does not answer as a server of NATS"))?;
    let jsz: Jsz = serde_json::from_str(body).map_err(|error| format!("{monitor}/jsz: {error}"))?;
    Ok(jsz.config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_parse() {
        assert_eq!(parse_version("2.9.10"), Some([2, 9, 10]));
        assert_eq!(parse_version("2.12.0-RC.1"), Some([2, 12, 0]));
        assert_eq!(parse_version("next"), None);
    }
}
