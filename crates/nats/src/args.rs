//! The command line's arguments. The options of a bridge are also its settings in a file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde::Deserialize;

use crate::exit::CODES;
use crate::publish::After;
use crate::server::Login;
use crate::values::{From, Size, Time};

const ADDRESSES: &str = "\
Addresses of pipes are those of shmpipe: ticks, sysv:0x4d2, posix:/ticks, file:PATH, memfd:PATH, ...
Sizes take suffixes: 64KiB, 1MiB, 1MB = 1,000,000 bytes. So do durations: 2s, 100ms, 5m.";

fn more() -> String {
    format!("{ADDRESSES}\n\n{CODES}")
}

/// A bridge between a pipe of shmpipe and a stream of NATS JetStream that loses nothing and repeats nothing.
#[derive(Debug, Parser)]
#[command(
    name = "shmpipe-nats",
    version,
    bin_name = "shmpipe nats",
    about = "A bridge between a pipe of shmpipe and a stream of NATS JetStream that loses nothing and repeats nothing",
    after_help = "Exit codes: shmpipe nats --help",
    after_long_help = more(),
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Arguments {
    /// Print JSON, also for notes and errors on standard error
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    pub login: LoginArguments,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "The server")]
pub struct LoginArguments {
    /// Where the server is: one address or several, with commas [default: nats://127.0.0.1:4222]
    #[arg(short, long, global = true, env = "NATS_URL", value_name = "URL")]
    server: Option<String>,
    /// The context of the nats tool that names the server and the login [default: the selected one]
    #[arg(long, global = true, env = "NATS_CONTEXT", value_name = "NAME")]
    context: Option<String>,
    /// The user
    #[arg(long, global = true, env = "NATS_USER", hide_short_help = true)]
    user: Option<String>,
    /// The user's password; better in the environment
    #[arg(long, global = true, env = "NATS_PASSWORD", hide_env_values = true, hide_short_help = true)]
    password: Option<String>,
    /// A token; better in the environment
    #[arg(long, global = true, env = "NATS_TOKEN", hide_env_values = true, hide_short_help = true)]
    token: Option<String>,
    /// A credentials file
    #[arg(long, global = true, env = "NATS_CREDS", value_name = "FILE", hide_short_help = true)]
    creds: Option<PathBuf>,
    /// A file with the seed of an nkey
    #[arg(long, global = true, env = "NATS_NKEY", value_name = "FILE", hide_short_help = true)]
    nkey: Option<PathBuf>,
    /// Certificates of those who may sign the server's
    #[arg(long, global = true, env = "NATS_CA", value_name = "FILE", hide_short_help = true)]
    tls_ca: Option<PathBuf>,
    /// The client's certificate
    #[arg(long, global = true, env = "NATS_CERT", value_name = "FILE", hide_short_help = true)]
    tls_cert: Option<PathBuf>,
    /// The key of the client's certificate
    #[arg(long, global = true, env = "NATS_KEY", value_name = "FILE", hide_short_help = true)]
    tls_key: Option<PathBuf>,
    /// Begin TLS before the server says anything
    #[arg(long, global = true, hide_short_help = true)]
    tls_first: bool,
    /// The server's monitoring port, such as http://127.0.0.1:8222: it tells how the server syncs
    #[arg(long, global = true, value_name = "URL", hide_short_help = true)]
    monitor: Option<String>,
}

impl LoginArguments {
    /// What was said here, and the context's name.
    pub fn split(self) -> (Login, Option<String>) {
        let LoginArguments { server, context, user, password, token, creds, nkey, .. } = self;
        let LoginArguments { tls_ca, tls_cert, tls_key, tls_first, monitor, .. } = self;
        let login = Login {
            server,
            user,
            password,
            token,
            creds,
            nkey,
            tls_ca,
            tls_cert,
            tls_key,
            tls_first,
            monitor,
        };
        (login, context)
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Publish the messages of a pipe to a stream
    ///
    /// Frames of many messages go to the stream, one at a time. A message is released from the pipe when the server has acknowledged
    /// its frame. Creates the pipe and the stream if they do not exist. Ends when the producer has closed and the stream has all of it.
    Publish(Box<Publish>),
    /// Fill a pipe with the messages of a stream
    ///
    /// Any number of subscribers, on any machines, receive all of the stream. Each notes beside its pipe how far it is. Creates the pipe
    /// if it does not exist, as large as the publisher's.
    Subscribe(Subscribe),
    /// Show the end of a stream, and how far a pipe is
    Status(Status),
    /// Run the bridges of a file, until a signal ends it; SIGHUP reads the file again
    Run {
        /// The file, in TOML: docs/bridge.md describes it
        #[arg(value_name = "FILE")]
        config: PathBuf,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Args, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// The pipe
    #[arg(value_name = "ADDR")]
    pub pipe: String,
    /// The stream, which is this pipe's alone
    #[arg(long, value_name = "NAME")]
    pub stream: String,
    /// The subject of its messages [default: shmpipe.NAME]
    #[arg(long)]
    pub subject: Option<String>,
    /// Wait for the next producer when one has ended
    #[arg(long)]
    #[serde(default)]
    pub follow: bool,
    /// The least time from frame to frame, unless they are full [default: 1ms]
    #[arg(long, value_name = "TIME")]
    pub linger: Option<Time>,
    /// Bytes of a frame, at most; never more than a quarter of the ring [default: 256KiB]
    #[arg(long, value_name = "SIZE")]
    pub frame_size: Option<Size>,
    /// How long to wait for an acknowledgement before looking whether the frame is there [default: 5s]
    #[arg(long, value_name = "TIME", hide_short_help = true)]
    pub ack_timeout: Option<Time>,
    /// Go on at this position, where the pipe is, although the stream lacks messages before it
    #[arg(long, value_name = "POSITION", hide_short_help = true)]
    pub skip_to: Option<u64>,
    /// Continue the stream of another pipe: its identifier, or any
    #[arg(long, value_name = "ID", hide_short_help = true)]
    pub after: Option<After>,
    /// Refuse to start with a server that may lose acknowledged messages in a power failure, or does not say
    #[arg(long)]
    #[serde(default)]
    pub require_sync: bool,
    /// Accept a stream that discards frames at a limit, whether they were read or not
    #[arg(long, hide_short_help = true)]
    #[serde(default)]
    pub allow_discard: bool,
    /// When the stream is created: copies of it, on as many servers [default: 1]
    #[arg(long, value_name = "N", help_heading = "Only when this call creates the stream")]
    pub replicas: Option<usize>,
    /// When the stream is created: its size, at most. When it is full, the producer waits
    #[arg(long, value_name = "SIZE", help_heading = "Only when this call creates the stream")]
    pub max_bytes: Option<Size>,
    /// When the stream is created: how long frames stay, read or not
    #[arg(long, value_name = "TIME", help_heading = "Only when this call creates the stream")]
    pub max_age: Option<Time>,
    /// When the stream is created: keep it in the server's memory alone
    #[arg(long, help_heading = "Only when this call creates the stream")]
    #[serde(default)]
    pub memory: bool,
    /// When the pipe is created: the bytes of its ring [default: 1MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Only when this call creates the pipe")]
    pub capacity: Option<Size>,
}

#[derive(Clone, Debug, PartialEq, Eq, Args, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    /// The pipe
    #[arg(value_name = "ADDR")]
    pub pipe: String,
    /// The stream
    #[arg(long, value_name = "NAME")]
    pub stream: String,
    /// Go on when a producer has ended, and wait for the next consumer when one has; wait for a stream that does not exist yet
    #[arg(long)]
    #[serde(default)]
    pub follow: bool,
    /// Where a pipe begins that nothing is noted about: first, new, or a sequence [default: first, if the pipe is new]
    #[arg(long)]
    pub from: Option<From>,
    /// Go on at this position of the source although the stream lacks messages before it
    #[arg(long, value_name = "POSITION", hide_short_help = true)]
    pub skip_to: Option<u64>,
    /// The folder for the notes of how far a pipe is [default: $STATE_DIRECTORY, /var/lib/shmpipe-nats or ~/.local/state/shmpipe-nats]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// When the pipe is created: the bytes of its ring [default: as the publisher's]
    #[arg(long, value_name = "SIZE", help_heading = "Only when this call creates the pipe")]
    pub capacity: Option<Size>,
}

#[derive(Clone, Debug, Args)]
pub struct Status {
    /// The stream
    #[arg(long, value_name = "NAME")]
    pub stream: String,
    /// The pipe that is published, or that is filled
    #[arg(value_name = "ADDR")]
    pub pipe: Option<String>,
    /// The folder with the notes of a pipe that is filled, as for subscribe
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

/// How long what is on its way may take when a signal ends the program.
pub const GRACE: Duration = Duration::from_secs(5);

/// The bridges of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub server: Login,
    pub context: Option<String>,
    /// Where to answer GET /metrics.
    pub metrics: Option<SocketAddr>,
    pub publish: std::collections::BTreeMap<String, Publish>,
    pub subscribe: std::collections::BTreeMap<String, Subscribe>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_file_has_the_options_of_the_command_line() {
        let config: Config = toml::from_str(
            r#"
            metrics = "127.0.0.1:9465"
            [server]
            server = "nats://a:4222,nats://b:4222"
            creds = "/etc/bridge.creds"
            [publish.ticks]
            pipe = "ticks"
            stream = "TICKS"
            follow = true
            linger = "2ms"
            frame_size = 65536
            after = "any"
            [subscribe.orders]
            pipe = "posix:/orders"
            stream = "ORDERS"
            from = 17
            "#,
        )
        .unwrap();
        let publish = &config.publish["ticks"];
        assert_eq!(publish.linger, Some(Time(Duration::from_millis(2))));
        assert_eq!((publish.frame_size, publish.after), (Some(Size(65536)), Some(After::Any)));
        assert_eq!(config.subscribe["orders"].from, Some(From::Sequence(17)));
    }

    #[test]
    fn an_unknown_setting_is_refused() {
        let error = toml::from_str::<Config>("[publish.a]\npipe = \"a\"\nstream = \"A\"\nlingre = \"1ms\"")
            .unwrap_err();
        assert!(error.to_string().contains("lingre"), "{error}");
    }
}
