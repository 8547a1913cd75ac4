//! The connection to the server: how to log in, and a connection that is made again whenever it is lost.
//!
//! The client would reconnect, and then send what it has queued meanwhile. A publisher must know what was sent, so a connection that
//! was lost is replaced by a new client, whose queue is empty.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::exit::{Code, Early, Failure};
use crate::report::Report;
use crate::stats::Stats;
use crate::stop::Stop;

const SHORTEST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the server is, and how to log in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Login {
    /// One address or several, with commas.
    pub server: Option<String>,
    pub user: Option<String>,
    pub password: Option<String>,
    pub token: Option<String>,
    pub creds: Option<PathBuf>,
    pub nkey: Option<PathBuf>,
    pub tls_ca: Option<PathBuf>,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub tls_first: bool,
    /// The monitoring port of the server, such as http://127.0.0.1:8222, which tells its settings.
    pub monitor: Option<String>,
}

impl Login {
    /// The addresses without passwords, to show.
    pub fn shown(&self) -> String {
        let servers = self.server.as_deref().unwrap_or(DEFAULT_SERVER).split(',');
        let shown = servers.map(|server| match server.rsplit_once('@') {
            Some((before, host)) => {
                let scheme = before.split_once("://").map(|(scheme, _)| format!("{scheme}://"));
                scheme.unwrap_or_default() + host
            }
            None => server.to_owned(),
        });
        shown.collect::<Vec<_>>().join(",")
    }

    async fn options(&self) -> Result<ConnectOptions, Failure> {
        let unreadable = |path: &PathBuf, error: std::io::Error| {
            let code = match error.kind() {
                std::io::ErrorKind::PermissionDenied => Code::Denied,
                _ => Code::Failure,
            };
            Failure::new(code, format_args!("{}: {error}", path.display()))
        };
        let mut options = ConnectOptions::new().name("shmpipe-nats").connection_timeout(CONNECT_TIMEOUT);
        match (&self.user, &self.password) {
            (Some(user), password) => {
                options = options.user_and_password(user.clone(), password.clone().unwrap_or_default());
            }
            (None, Some(_)) => return Err(Failure::new(Code::Usage, "a password needs a user")),
            (None, None) => {}
        }
        if let Some(token) = &self.token {
            options = options.token(token.clone());
        }
        if let Some(path) = &self.creds {
            options = options.credentials_file(path).await.map_err(|error| unreadable(path, error))?;
        }
        if let Some(path) = &self.nkey {
            let seed = std::fs::read_to_string(path).map_err(|error| unreadable(path, error))?;
            options = options.nkey(seed.trim().to_owned());
        }
        if let Some(path) = &self.tls_ca {
            std::fs::metadata(path).map_err(|error| unreadable(path, error))?;
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => {
                for path in [cert, key] {
                    std::fs::metadata(path).map_err(|error| unreadable(path, error))?;
                }
                options = options.add_client_certificate(cert.clone(), key.clone()).require_tls(true);
            }
            (None, None) => {}
            _ => {
                return Err(Failure::new(
                    Code::Usage,
                    "a client certificate needs a key, and the key a certificate",
                ));
            }
        }
        if self.tls_first {
            options = options.tls_first();
        }
        Ok(options)
    }
}

pub const DEFAULT_SERVER: &str = "nats://127.0.0.1:4222";

/// A connection, and whether it is lost.
#[derive(Clone)]
pub struct Connected {
    pub client: Client,
    lost: watch::Receiver<bool>,
}

impl Connected {
    /// Waits until the connection is lost.
    pub async fn lost(&self) {
        let mut lost = self.lost.clone();
        // An error says that the client itself is gone.
        let _ = lost.wait_for(|lost| *lost).await;
    }
}

/// The server that a bridge is connected to, or will be again.
pub struct Server {
    login: Login,
    pub report: Report,
    pub stop: Stop,
    pub runtime: Handle,
    pub stats: Stats,
    connected: Option<Connected>,
    was_connected: bool,
    /// Since when there is no answer, and how long to wait for the next try.
    outage: Option<(Instant, Duration)>,
}

impl Server {
    pub fn new(login: Login, report: Report, stop: Stop, runtime: Handle, stats: Stats) -> Self {
        let (connected, was_connected, outage) = (None, false, None);
        Server { login, report, stop, runtime, stats, connected, was_connected, outage }
    }

    pub fn login(&self) -> &Login {
        &self.login
    }

    /// The connection; makes one, for as long as that takes.
    pub fn connection(&mut self) -> Result<Connected, Early> {
        if let Some(connected) = &self.connected {
            if !*connected.lost.borrow() {
                return Ok(connected.clone());
            }
            self.lost("the connection was lost");
        }
        loop {
            let options = self.stop.run(&self.runtime, self.login.options())??;
            let addresses = self.login.server.as_deref().unwrap_or(DEFAULT_SERVER);
            let addresses: Vec<String> = addresses.split(',').map(|one| one.trim().to_owned()).collect();
            let (tell_lost, lost) = watch::channel(false);
            // The first connection counts each address that it tries.
            let options = options.max_reconnects(addresses.len()).event_callback(move |event| {
                let tell_lost = tell_lost.clone();
                async move {
                    if matches!(event, Event::Disconnected | Event::Closed | Event::LameDuckMode) {
                        tell_lost.send_replace(true);
                    }
                }
            });
            let connecting = options.connect(addresses);
            let connecting = async { tokio::time::timeout(2 * CONNECT_TIMEOUT, connecting).await };
            match self.stop.wait(&self.runtime, connecting)? {
                Ok(Ok(client)) => {
                    if self.was_connected {
                        self.stats.reconnected();
                    }
                    self.was_connected = true;
                    let connected = Connected { client, lost };
                    self.connected = Some(connected.clone());
                    return Ok(connected);
                }
                Ok(Err(error)) => {
                    let is_final = match error.kind() {
                        ConnectErrorKind::ServerParse => Some(Code::Usage),
                        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                            Some(Code::Denied)
                        }
                        ConnectErrorKind::Tls => Some(Code::Failure),
                        _ => None,
                    };
                    let shown = self.login.shown();
                    match is_final {
                        // Later, the server may be half way through a restart.
                        Some(code) if !self.was_connected => {
                            return Err(Failure::new(code, format_args!("{shown}: {error}")).into());
                        }
                        _ => self.lost(format_args!("no connection to {shown}: {error}")),
                    }
                }
                Err(_) => self.lost(format_args!("no connection to {}: no answer", self.login.shown())),
            }
            self.back_off();
        }
    }

    /// Gives up the connection, and says why once until something succeeds.
    pub fn lost(&mut self, why: impl std::fmt::Display) {
        self.connected = None;
        if self.outage.is_none() && !self.stop.is_asked() {
            self.report.note(format_args!("{why}; trying again for as long as it takes"));
            self.outage = Some((Instant::now(), SHORTEST_BACKOFF));
            self.stats.connected(false);
        }
    }

    /// Waits before the next try, longer each time.
    pub fn back_off(&mut self) {
        let wait = match &mut self.outage {
            Some((_, wait)) => {
                let now = *wait;
                *wait = (2 * now).min(LONGEST_BACKOFF);
                now
            }
            None => SHORTEST_BACKOFF,
        };
        // Bridges that lost the same server do not come back at the same moment.
        let jitter = wait / 4 * (random() as u32 % 1000) / 1000;
        self.stop.sleep(&self.runtime, wait - jitter);
    }

    /// Something succeeded.
    pub fn works(&mut self) {
        if let Some((since, _)) = self.outage.take() {
            let seconds = since.elapsed().as_secs_f64();
            self.report.note(format_args!("the server answers again, after {seconds:.1} s"));
        }
        self.stats.connected(true);
    }
}

/// A random number.
pub fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    #[test]
    fn passwords_are_not_shown() {
        let shown = |server: &str| Login { server: Some(server.to_owned()), ..Login::default() }.shown();
        assert_eq!(shown("nats://me:secret@example.com:4222"), "nats://example.com:4222");
        assert_eq!(shown("token@a,tls://me:p@ss@b:1"), "a,tls://b:1");
        assert_eq!(shown("nats://a:4222"), "nats://a:4222");
        assert_eq!(Login::default().shown(), DEFAULT_SERVER);
    }

    #[test]
    fn all_addresses_are_tried_before_a_pause() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let alive = listener.local_addr().unwrap();
        // Bound and not listening: they refuse connections, and no other program gets them.
        let dead: Vec<_> = (0..7).map(|_| nowhere()).collect();
        let dead_addresses = dead.iter().map(|socket| socket.local_addr().unwrap());
        let addresses: Vec<_> =
            dead_addresses.chain([alive]).map(|address| format!("nats://{address}")).collect();
        let server = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let info =
                r#"INFO {"server_id":"S","version":"2.10.0","max_payload":1048576,"headers":true,"proto":1}"#;
            write!(connection, "{info}\r\n").unwrap();
            let mut lines = BufReader::new(connection.try_clone().unwrap()).lines();
            while let Some(Ok(line)) = lines.next() {
                if line.starts_with("PING") {
                    write!(connection, "PONG\r\n").unwrap();
                }
            }
        });
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let login = Login { server: Some(addresses.join(",")), ..Login::default() };
        let (report, stop) = (Report::new(false), Stop::new(Duration::ZERO));
        let mut client = Server::new(login, report, stop, runtime.handle().clone(), Stats::default());
        assert!(client.connection().is_ok());
        assert!(client.outage.is_none());
        drop((client, runtime));
        server.join().unwrap();
    }

    /// A socket with an address that refuses connections.
    fn nowhere() -> tokio::net::TcpSocket {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket
    }
}
