//! The stream of a server: what a publisher appends to and a subscriber reads from.

use std::time::{Duration, Instant};

use async_nats::client::{Request, RequestErrorKind};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, RawMessageErrorKind, RetentionPolicy, StorageType,
};
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{Client, HeaderMap, header};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::exit::{Code, Early, Failure};
use crate::frame::{Frame, Header, PipeId, Place};
use crate::publish::{Appended, Log, Tail};
use crate::server::{Connected, Server};
use crate::subscribe::{Delivered, Source};

/// How long to wait for an answer that is not an acknowledgement.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a stream that was there may be missing: a server that starts may not have found it yet.
const MISSING_FOR: Duration = Duration::from_secs(20);

/// Frames that a subscriber has requested and not yet taken.
const AHEAD: usize = 16;

/// After this long without a request, the server forgets a subscriber, which then asks again.
const INACTIVE: Duration = Duration::from_secs(120);

/// What the request for an acknowledgement adds to a frame, and some more.
pub const OVERHEAD: usize = 256;

/// How to create a stream.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    pub replicas: Option<usize>,
    pub max_bytes: Option<u64>,
    pub max_age: Option<Duration>,
    pub memory: bool,
    /// Whether limits that discard frames are welcome.
    pub allow_discard: bool,
}

/// Why a request has no result.
enum RequestError {
    /// Another try may succeed.
    Passing(String),
    Final(Failure),
    /// The server's answer.
    Refused(jetstream::Error),
}

impl From<jetstream::Error> for RequestError {
    fn from(error: jetstream::Error) -> Self {
        // Five hundreds say that the server cannot now.
        match error.code() {
            500.. => RequestError::Passing(error.to_string()),
            _ => RequestError::Refused(error),
        }
    }
}

/// A stream with a name.
pub struct Stream {
    pub server: Server,
    pub name: String,
    /// The subject, for a publisher.
    subject: String,
    ack_timeout: Duration,
    /// When the stream was created, in nanoseconds since 1970; it tells it from a later one of the same name.
    pub created: Option<i128>,
}

async fn ask<V: DeserializeOwned>(
    client: &Client,
    subject: &str,
    payload: &impl Serialize,
) -> Result<V, RequestError> {
    let mut context = jetstream::new(client.clone());
    context.set_timeout(ANSWER_TIMEOUT);
    let response: Result<Response<V>, _> = context.request(subject.to_owned(), payload).await;
    match response {
        Ok(Response::Ok(value)) => Ok(value),
        Ok(Response::Err { error }) => Err(error.into()),
        Err(error) => Err(RequestError::Passing(match error.kind() {
            jetstream::context::RequestErrorKind::NoResponders => "JetStream does not answer".to_owned(),
            _ => error.to_string(),
        })),
    }
}

fn context(client: &Client) -> Context {
    let mut context = jetstream::new(client.clone());
    context.set_timeout(ANSWER_TIMEOUT);
    context
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Ack {
    Refused { error: jetstream::Error },
    Stored { stream: String, seq: u64 },
}

impl Stream {
    pub fn new(server: Server, name: &str, subject: &str, ack_timeout: Duration) -> Self {
        Stream { server, name: name.to_owned(), subject: subject.to_owned(), ack_timeout, created: None }
    }

    /// Runs a request until it has a result, over a new connection each time that there is none.
    fn call<T>(&mut self, request: impl AsyncFn(&Connected) -> Result<T, RequestError>) -> Result<T, Early> {
        let mut missing_since = None;
        loop {
            let connected = self.server.connection()?;
            let result = self.server.stop.run(&self.server.runtime, async {
                tokio::select! {
                    result = request(&connected) => result,
                    () = connected.lost() => Err(RequestError::Passing("the connection was lost".to_owned())),
                }
            })?;
            match result {
                Ok(value) => {
                    self.server.works();
                    return Ok(value);
                }
                Err(RequestError::Final(failure)) => return Err(failure.into()),
                Err(RequestError::Refused(error)) if self.created.is_some() && is_missing(&error) => {
                    let since = *missing_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > MISSING_FOR {
                        let text = format!("the stream {} is gone from the server", self.name);
                        return Err(Failure::new(Code::Missing, text).into());
                    }
                    self.server.lost(format_args!("the stream {} is missing", self.name));
                }
                Err(RequestError::Refused(error)) => return Err(self.refused(&error).into()),
                Err(RequestError::Passing(why)) => self.server.lost(why),
            }
            self.server.back_off();
        }
    }

    fn refused(&self, error: &jetstream::Error) -> Failure {
        let code = match error.error_code() {
            ErrorCode::STREAM_NOT_FOUND => Code::NotFound,
            ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT | ErrorCode::JETSTREAM_NOT_ENABLED => Code::Unfit,
            _ => Code::Failure,
        };
        Failure::new(code, format_args!("stream {}: {error}", self.name))
    }

    /// What the server says about the stream; `None` if there is none of that name.
    pub fn find(&mut self) -> Result<Option<Info>, Early> {
        let subject = format!("STREAM.INFO.{}", self.name);
        let found =
            self.call(async |connected| match ask::<Info>(&connected.client, &subject, &()).await {
                Ok(info) => Ok(Some(info)),
                Err(RequestError::Refused(error)) if is_missing(&error) => Ok(None),
                Err(error) => Err(error),
            })?;
        if let Some(info) = &found {
            self.created.get_or_insert(info.created.unix_timestamp_nanos());
        }
        Ok(found)
    }

    /// The state of a stream that was found before.
    pub fn info(&mut self) -> Result<Info, Early> {
        let subject = format!("STREAM.INFO.{}", self.name);
        let info = self.call(async |connected| ask::<Info>(&connected.client, &subject, &()).await)?;
        let created = info.created.unix_timestamp_nanos();
        match self.created {
            Some(before) if before != created => Err(Failure::new(
                Code::Missing,
                format_args!("the stream {} was deleted and created again, at {}", self.name, info.created),
            )
            .into()),
            _ => Ok(info),
        }
    }

    /// Creates the stream.
    pub fn create(&mut self, parameters: &Parameters) -> Result<Info, Early> {
        let config = Config {
            name: self.name.clone(),
            subjects: vec![self.subject.clone()],
            description: Some("a pipe of shmpipe, as frames of shmpipe-nats".to_owned()),
            // A full stream refuses frames, so that the pipe fills and its producer waits.
            discard: DiscardPolicy::New,
            retention: RetentionPolicy::Limits,
            max_bytes: parameters.max_bytes.map_or(-1, |bytes| bytes as i64),
            max_messages: -1,
            max_messages_per_subject: -1,
            max_message_size: -1,
            max_age: parameters.max_age.unwrap_or_default(),
            storage: if parameters.memory { StorageType::Memory } else { StorageType::File },
            num_replicas: parameters.replicas.unwrap_or(1),
            deny_delete: true,
            ..Config::default()
        };
        let subject = format!("STREAM.CREATE.{}", self.name);
        let info = self.call(async |connected| ask::<Info>(&connected.client, &subject, &config).await)?;
        self.created = Some(info.created.unix_timestamp_nanos());
        Ok(info)
    }

    /// A message of the stream, from its leader; `None` if there is none with this number.
    pub fn message(&mut self, sequence: u64) -> Result<Option<Bytes>, Early> {
        let name = self.name.clone();
        self.call(async |connected| {
            let stream = context(&connected.client).get_stream_no_info(&name).await;
            let stream = stream.map_err(|error| RequestError::Final(Failure::new(Code::Usage, error)))?;
            match stream.get_raw_message(sequence).await {
                Ok(message) => Ok(Some(message.payload)),
                Err(error) => match error.kind() {
                    RawMessageErrorKind::NoMessageFound => Ok(None),
                    RawMessageErrorKind::JetStream(error) => Err(error.into()),
                    _ => Err(RequestError::Passing(error.to_string())),
                },
            }
        })
    }

    /// The header of a message; `None` if there is none with this number, or it is no frame.
    pub fn header(&mut self, sequence: u64) -> Result<Option<Header>, Early> {
        let message = if sequence > 0 { self.message(sequence)? } else { None };
        Ok(message.and_then(|bytes| Frame::parse(bytes).ok()).map(|frame| frame.header))
    }

    /// The sequence of the first frame that starts at a place, before a sequence; `None` if no frame does. Places grow with sequences
    /// as long as the stream has one pipe.
    pub fn sequence_of(&mut self, source: (PipeId, Place), before: u64) -> Result<Option<u64>, Early> {
        let (pipe, place) = source;
        let state = self.info()?.state;
        let (mut low, mut high) = (state.first_sequence, before.min(state.last_sequence + 1));
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let header = match self.header(middle)? {
                Some(header) if header.pipe == pipe => header,
                _ => return Ok(None),
            };
            if (header.start.position, header.start.offset) < (place.position, place.offset) {
                low = middle + 1;
            } else {
                found = (header.start == place).then_some(middle);
                high = middle;
            }
        }
        Ok(found)
    }

    /// The longest frame that the server and the stream take.
    pub fn longest(&mut self, info: &Info) -> Result<usize, Early> {
        let payload = self.server.connection()?.client.server_info().max_payload;
        let longest = match info.config.max_message_size {
            limit @ 0.. => payload.min(limit as usize),
            _ => payload,
        };
        Ok(longest.saturating_sub(OVERHEAD))
    }
}

fn is_missing(error: &jetstream::Error) -> bool {
    error.error_code() == ErrorCode::STREAM_NOT_FOUND
}

/// Why a stream cannot carry a pipe.
pub fn unfit(config: &Config, subject: &str, parameters: &Parameters) -> Vec<String> {
    let mut faults = Vec::new();
    if config.subjects != [subject] {
        let subjects = config.subjects.join(", ");
        faults.push(format!("it takes messages from {subjects}, and must take them from {subject} alone"));
    }
    if config.mirror.is_some() || config.sources.as_ref().is_some_and(|sources| !sources.is_empty()) {
        faults.push("it is fed by another stream".to_owned());
    }
    if config.sealed {
        faults.push("it is sealed".to_owned());
    }
    if config.no_ack {
        faults.push("it acknowledges nothing (no_ack)".to_owned());
    }
    if parameters.allow_discard {
        return faults;
    }
    let allow = "--allow-discard accepts that";
    if config.retention != RetentionPolicy::Limits {
        faults.push(format!(
            "its retention is {:?}, which removes frames for one reader that others need",
            config.retention
        ));
    }
    if config.max_age > Duration::ZERO && parameters.max_age != Some(config.max_age) {
        let age = humantime::format_duration(config.max_age);
        faults.push(format!("it discards frames after {age}, read or not (max_age); {allow}"));
    }
    if config.discard == DiscardPolicy::Old {
        let limits = [
            ("max_bytes", config.max_bytes),
            ("max_msgs", config.max_messages),
            ("max_msgs_per_subject", config.max_messages_per_subject),
        ];
        for (name, limit) in limits {
            if limit > 0 {
                faults.push(format!(
                    "it discards the oldest frames at its limit ({name} {limit}, discard old); {allow}"
                ));
            }
        }
    }
    faults
}

impl Log for Stream {
    fn tail(&mut self) -> Result<Tail, Early> {
        let sequence = self.info()?.state.last_sequence;
        let frame = match sequence {
            0 => None,
            sequence => self.frame(sequence)?,
        };
        Ok(Tail { sequence, frame })
    }

    fn frame(&mut self, sequence: u64) -> Result<Option<Header>, Early> {
        let message = self.message(sequence)?;
        Ok(message.map(|bytes| self.parse(sequence, bytes)).transpose()?)
    }

    fn append(&mut self, frame: &Bytes, after: u64) -> Result<Appended, Early> {
        loop {
            let connected = self.server.connection()?;
            match self.append_once(&connected, frame, after)? {
                Once::Appended(appended) => {
                    if let Appended::At(_) = appended {
                        self.server.works();
                    }
                    return Ok(appended);
                }
                Once::Unknown(why) => {
                    self.server.stats.unknown();
                    self.server.lost(why);
                    self.server.back_off();
                    return Ok(Appended::Unknown);
                }
                Once::Later(why) => {
                    self.server.lost(why);
                    self.server.back_off();
                    if self.server.stop.is_asked() {
                        return Err(Early::Stopped);
                    }
                }
            }
        }
    }
}

enum Once {
    Appended(Appended),
    /// It may be stored, now or later.
    Unknown(String),
    /// It is not stored, and may be later.
    Later(String),
}

impl Stream {
    fn parse(&self, sequence: u64, bytes: Bytes) -> Result<Header, Failure> {
        match Frame::parse(bytes) {
            Ok(frame) => Ok(frame.header),
            Err(error) => Err(Failure::new(
                Code::Unfit,
                format_args!("message {sequence} of the stream {}: {error}", self.name),
            )),
        }
    }

    fn append_once(&mut self, connected: &Connected, frame: &Bytes, after: u64) -> Result<Once, Early> {
        let mut headers = HeaderMap::new();
        // Alone, and not with a message id: the two together are unreliable on replicated streams.
        headers.insert(header::NATS_EXPECTED_LAST_SEQUENCE, after.to_string());
        let request = Request::new().headers(headers).payload(frame.clone()).timeout(Some(self.ack_timeout));
        let answer = self.server.stop.run(&self.server.runtime, async {
            tokio::select! {
                answer = connected.client.send_request(self.subject.clone(), request) => Some(answer),
                () = connected.lost() => None,
            }
        })?;
        let message = match answer {
            Some(Ok(message)) => message,
            Some(Err(error)) => {
                return Ok(match error.kind() {
                    RequestErrorKind::MaxPayloadExceeded | RequestErrorKind::InvalidSubject => {
                        return Err(
                            Failure::new(Code::Failure, format_args!("{}: {error}", self.subject)).into()
                        );
                    }
                    RequestErrorKind::NoResponders => {
                        Once::Unknown(format!("no stream takes messages from {}", self.subject))
                    }
                    RequestErrorKind::TimedOut => Once::Unknown("no acknowledgement in time".to_owned()),
                    RequestErrorKind::Other => Once::Unknown(error.to_string()),
                });
            }
            None => return Ok(Once::Unknown("the connection was lost".to_owned())),
        };
        let ack = serde_json::from_slice(&message.payload);
        Ok(match ack {
            Ok(Ack::Stored { stream, seq }) if stream == self.name => Once::Appended(Appended::At(seq)),
            Ok(Ack::Stored { stream, .. }) => {
                let text =
                    format!("messages to {} go to the stream {stream}, not to {}", self.subject, self.name);
                return Err(Failure::new(Code::Unfit, text).into());
            }
            Ok(Ack::Refused { error }) => match (error.error_code(), error.code()) {
                (
                    ErrorCode::STREAM_WRONG_LAST_SEQUENCE | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT,
                    _,
                ) => Once::Appended(Appended::WrongSequence),
                // It has no space, or cannot now.
                (ErrorCode::STREAM_STORE_FAILED, _) | (_, 500..) => {
                    Once::Later(format!("the server does not take a frame: {error}"))
                }
                _ => return Err(self.refused(&error).into()),
            },
            Err(error) => Once::Unknown(format!("an acknowledgement that cannot be read: {error}")),
        })
    }
}

/// A subscriber's side of the stream: its messages from a sequence on, in order.
pub struct Feed {
    stream: Stream,
    /// The sequence of the next message.
    next: u64,
    delivery: Option<Delivery>,
}

struct Delivery {
    connected: Connected,
    messages: pull::Stream,
    /// Messages delivered.
    count: u64,
}

impl Feed {
    pub fn new(stream: Stream, next: u64) -> Self {
        Feed { stream, next, delivery: None }
    }

    fn open(&mut self) -> Result<(), Early> {
        let last = self.stream.info()?.state.last_sequence;
        if last + 1 < self.next {
            let text = format!(
                "the server has lost messages: this pipe has received the stream {} up to message {}, and the stream ends at {last}",
                self.stream.name,
                self.next - 1
            );
            return Err(Failure::new(Code::Missing, text).into());
        }
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.next.max(1) },
            // The subscriber itself knows what it has.
            ack_policy: AckPolicy::None,
            inactive_threshold: INACTIVE,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let name = self.stream.name.clone();
        let (connected, messages) = self.stream.call(async |connected| {
            let consumer = context(&connected.client).create_consumer_on_stream(config.clone(), &name).await;
            let consumer = consumer.map_err(|error| RequestError::Passing(error.to_string()))?;
            let messages = consumer.stream().max_messages_per_batch(AHEAD).messages().await;
            messages
                .map(|messages| (connected.clone(), messages))
                .map_err(|error| RequestError::Passing(error.to_string()))
        })?;
        self.delivery = Some(Delivery { connected, messages, count: 0 });
        Ok(())
    }
}

impl Source for Feed {
    fn next(&mut self, wait: Duration) -> Result<Option<Delivered>, Early> {
        if self.delivery.is_none() {
            self.open()?;
        }
        let Some(Delivery { connected, messages, count }) = &mut self.delivery else { return Ok(None) };
        let server = &mut self.stream.server;
        let found = server.stop.wait(&server.runtime, async {
            tokio::select! {
                message = messages.next() => Ok(Some(message)),
                () = connected.lost() => Err("the connection was lost"),
                () = tokio::time::sleep(wait) => Ok(None),
            }
        })?;
        let why = match found {
            Ok(None) => return Ok(None),
            Ok(Some(Some(Ok(message)))) => match message.info() {
                Ok(info) if info.consumer_sequence == *count + 1 && info.stream_sequence >= self.next => {
                    *count += 1;
                    self.next = info.stream_sequence + 1;
                    let (sequence, pending) = (info.stream_sequence, info.pending);
                    return Ok(Some(Delivered { sequence, pending, bytes: message.message.payload }));
                }
                // Delivered once and lost on the way: ask for it again.
                _ => "a message was lost on the way".to_owned(),
            },
            Ok(Some(Some(Err(error)))) => error.to_string(),
            Ok(Some(None)) => "the delivery ended".to_owned(),
            Err(why) => why.to_owned(),
        };
        server.lost(why);
        server.back_off();
        self.delivery = None;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            subjects: vec!["ticks".to_owned()],
            discard: DiscardPolicy::New,
            max_bytes: -1,
            max_messages: -1,
            max_messages_per_subject: -1,
            ..Config::default()
        }
    }

    #[track_caller]
    fn assert_unfit(config: &Config, word: &str) {
        let faults = unfit(config, "ticks", &Parameters::default());
        assert!(faults.len() == 1 && faults[0].contains(word), "{faults:?}");
    }

    #[test]
    fn a_stream_that_keeps_everything_is_fit() {
        assert_eq!(unfit(&config(), "ticks", &Parameters::default()), Vec::<String>::new());
        // Full, it refuses.
        assert_eq!(
            unfit(&Config { max_bytes: 9, ..config() }, "ticks", &Parameters::default()),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_stream_that_discards_in_silence_is_unfit() {
        assert_unfit(&Config { discard: DiscardPolicy::Old, max_bytes: 9, ..config() }, "max_bytes");
        assert_unfit(&Config { discard: DiscardPolicy::Old, max_messages: 9, ..config() }, "max_msgs 9");
        assert_unfit(&Config { max_age: Duration::from_secs(60), ..config() }, "max_age");
        assert_unfit(&Config { retention: RetentionPolicy::WorkQueue, ..config() }, "WorkQueue");
        assert_unfit(&Config { no_ack: true, ..config() }, "no_ack");
        assert_unfit(&Config { subjects: vec!["ticks".to_owned(), "other".to_owned()], ..config() }, "other");
    }

    #[test]
    fn what_was_asked_for_is_fit() {
        let age = Duration::from_secs(60);
        let parameters = Parameters { max_age: Some(age), ..Parameters::default() };
        let config = Config { max_age: age, ..config() };
        assert_eq!(unfit(&config, "ticks", &parameters), Vec::<String>::new());
        let parameters = Parameters { allow_discard: true, ..Parameters::default() };
        let config = Config { discard: DiscardPolicy::Old, max_messages: 9, ..config };
        assert_eq!(unfit(&config, "ticks", &parameters), Vec::<String>::new());
    }
}
