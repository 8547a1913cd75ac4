//! The bridge between two pipes, through a server of its own.

mod support;

use shmpipe::{Options, RecvError, Tagged};
use std::time::Duration;
use support::{Name, Process, Server, bridge, wait_until};

/// Bytes that differ from message to message.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let byte = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    byte.take(length).collect()
}

/// A pair of bridges from one pipe to another.
fn pair(server: &Server, from: &str, to: &str, more: &[&str]) -> (Process, Process) {
    let publish = [&["publish", from, "--stream", "S"], more].concat();
    let subscribe = ["subscribe", to, "--stream", "S", "--follow"];
    (bridge(server, &publish), bridge(server, &subscribe))
}

/// Receives a message, with its tag.
#[track_caller]
fn recv(consumer: &mut shmpipe::Consumer) -> Result<(u32, Vec<u8>), RecvError> {
    consumer.recv().map(|message| (message.tag(), message.to_vec()))
}

#[test]
fn messages_of_all_lengths_and_their_tags_arrive_in_order_and_then_the_close() {
    let Some(server) = Server::start() else { return };
    let (from, to) = (Name::new(), Name::new());
    let options = Options::new().schema(7);
    let (source, sink) = (options.create(&*from).unwrap(), options.create(&*to).unwrap());
    let (mut publisher, _subscriber) = pair(&server, &from, &to, &[]);
    let longest = source.max_len();
    let lengths = [0, 1, 7, 8, 9, 64, 0, 4096, 70_000, 262_100, 262_200, longest, 3, longest - 1, 0];
    let messages: Vec<(u32, Vec<u8>)> =
        lengths.iter().zip(0..).map(|(length, n)| (u32::MAX - n, noise(*length, n.into()))).collect();
    let mut producer = source.producer().unwrap();
    let mut consumer = sink.consumer().unwrap();
    let sender = std::thread::spawn({
        let messages = messages.clone();
        move || {
            for (tag, bytes) in &messages {
                producer.send(Tagged(*tag, bytes)).unwrap();
            }
            producer.close().unwrap();
        }
    });
    for message in &messages {
        assert!(recv(&mut consumer).unwrap() == *message);
    }
    assert!(matches!(consumer.recv(), Err(RecvError::Closed)));
    sender.join().unwrap();
    assert_eq!(publisher.code(), 0, "{}", publisher.said());
}

#[test]
fn the_pipe_is_created_as_the_publishers_is() {
    let Some(server) = Server::start() else { return };
    let (from, to) = (Name::new(), Name::new());
    Options::new()
        .capacity(256 << 10)
        .schema(9)
        .create(&*from)
        .unwrap()
        .producer()
        .unwrap()
        .send(b"hello")
        .unwrap();
    let (mut publisher, _subscriber) = pair(&server, &from, &to, &[]);
    assert_eq!(publisher.code(), 0, "{}", publisher.said());
    wait_until("the pipe is there", || shmpipe::inspect(&*to).is_ok_and(|pipe| pipe.unread() == 1));
    let pipe = shmpipe::inspect(&*to).unwrap();
    assert_eq!((pipe.capacity, pipe.schema), (256 << 10, 9));
}

#[test]
fn a_message_that_is_too_long_for_the_receiving_pipe_is_an_error_with_both_numbers() {
    let Some(server) = Server::start() else { return };
    // The second one is longer than a frame, and refused before all of it is there.
    for (stream, length, known) in [("ONE", 5000, 5000), ("PARTS", 400_000, 262_040)] {
        let (from, to) = (Name::new(), Name::new());
        let source = Options::new().create(&*from).unwrap();
        source.producer().unwrap().send(&noise(length, 1)).unwrap();
        assert_eq!(bridge(&server, &["publish", &from, "--stream", stream]).code(), 0);
        let mut subscriber = bridge(&server, &["subscribe", &to, "--stream", stream, "--capacity", "8KiB"]);
        assert_eq!(subscriber.code(), 7, "{}", subscriber.said());
        let words = format!("has {known} bytes or more, and this pipe takes 4088 at most");
        assert!(subscriber.said().contains(&words), "{}", subscriber.said());
    }
}

#[test]
fn an_abort_and_a_death_travel_and_successors_go_on() {
    let Some(server) = Server::start() else { return };
    let (from, to) = (Name::new(), Name::new());
    let (source, sink) = (Options::new().create(&*from).unwrap(), Options::new().create(&*to).unwrap());
    let mut consumer = sink.consumer().unwrap();
    let (mut publisher, mut subscriber) = pair(&server, &from, &to, &["--follow"]);
    for code in [0, 7, 9] {
        let mut producer = source.producer().unwrap();
        producer.send(Tagged(code, b"before the end")).unwrap();
        producer.abort(code).unwrap();
        assert_eq!(recv(&mut consumer).unwrap(), (code, b"before the end".to_vec()));
        match recv(&mut consumer) {
            Err(RecvError::PeerAborted { code: found }) => assert_eq!(found, code),
            other => panic!("{other:?}: {} {}", publisher.said(), subscriber.said()),
        }
    }
    // A child that never closes.
    // SAFETY: the child uses only the pipe, of which it opens a handle of its own, and ends by a signal.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut producer = shmpipe::Pipe::open(&*from).unwrap().producer().unwrap();
        producer.send(b"the last words").unwrap();
        // SAFETY: no pointers.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
    let mut status = 0;
    // SAFETY: a pointer to a local.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(recv(&mut consumer).unwrap(), (0, b"the last words".to_vec()));
    assert!(matches!(recv(&mut consumer), Err(RecvError::PeerAborted { code: 137 })));
    // A stop ends both in order; the receiver hears that the stream is not over.
    for process in [&mut publisher, &mut subscriber] {
        process.signal(libc::SIGTERM);
        assert_eq!(process.code(), 0, "{}", process.said());
    }
}

#[test]
fn a_stop_publishes_what_is_in_the_pipe() {
    let Some(server) = Server::start() else { return };
    let (from, to) = (Name::new(), Name::new());
    let source = Options::new().create(&*from).unwrap();
    let mut producer = source.producer().unwrap();
    let mut publisher = bridge(&server, &["publish", &from, "--stream", "S", "--linger", "10s"]);
    // The first goes at once, the second waits for its time.
    publisher.wait_until_said("one copy");
    producer.send(b"one").unwrap();
    wait_until("the first is published", || shmpipe::inspect(&*from).unwrap().used == 0);
    producer.send(b"two").unwrap();
    publisher.signal(libc::SIGTERM);
    assert_eq!(publisher.code(), 0, "{}", publisher.said());
    assert_eq!(shmpipe::inspect(&*from).unwrap().used, 0);
    let mut consumer = Options::new().create(&*to).unwrap().consumer().unwrap();
    let _subscriber = bridge(&server, &["subscribe", &to, "--stream", "S"]);
    assert_eq!(recv(&mut consumer).unwrap().1, b"one");
    assert_eq!(recv(&mut consumer).unwrap().1, b"two");
}

#[test]
fn a_server_that_is_away_fills_the_pipe_and_loses_nothing() {
    let Some(mut server) = Server::start() else { return };
    let (from, to) = (Name::new(), Name::new());
    let source = Options::new().capacity(64 << 10).create(&*from).unwrap();
    let mut consumer = Options::new().create(&*to).unwrap().consumer().unwrap();
    let (publisher, _subscriber) = pair(&server, &from, &to, &["--follow"]);
    let mut producer = source.producer().unwrap();
    producer.send(b"first").unwrap();
    assert_eq!(recv(&mut consumer).unwrap().1, b"first");
    server.kill();
    let mut sent = 0u32;
    while producer.send_timeout(Tagged(sent, &[0; 1000]), Duration::from_millis(300)).is_ok() {
        sent += 1;
    }
    assert!(sent >= 60, "{sent}");
    std::thread::sleep(Duration::from_millis(500));
    server.restart();
    for number in 0..sent {
        assert_eq!(recv(&mut consumer).unwrap().0, number);
    }
    let said = publisher.said();
    assert_eq!(said.matches("trying again").count(), 1, "{said}");
    publisher.wait_until_said("the server answers again");
}

#[test]
fn a_stream_that_is_full_fills_the_pipe() {
    let Some(server) = Server::start() else { return };
    let from = Name::new();
    let source = Options::new().capacity(64 << 10).create(&*from).unwrap();
    let publisher = bridge(&server, &["publish", &from, "--stream", "S", "--max-bytes", "100kB", "--follow"]);
    publisher.wait_until_said("one copy");
    let mut producer = source.producer().unwrap();
    let mut sent = 0u32;
    while producer.send_timeout(&[0; 1000], Duration::from_millis(500)).is_ok() {
        sent += 1;
        assert!(sent < 1000);
    }
    publisher.wait_until_said("does not take a frame");
    assert!(sent >= 100, "{sent}");
}

#[test]
fn a_lost_store_is_an_error_with_positions() {
    let Some(mut server) = Server::start() else { return };
    let (from, to) = (Name::new(), Name::new());
    let source = Options::new().create(&*from).unwrap();
    source.producer().unwrap().send(b"acknowledged").unwrap();
    let publish = ["publish", &from, "--stream", "S"];
    assert_eq!(bridge(&server, &publish).code(), 0);
    let mut subscriber = bridge(&server, &["subscribe", &to, "--stream", "S"]);
    assert_eq!(subscriber.code(), 0, "{}", subscriber.said());
    server.kill();
    std::fs::remove_dir_all(server.store()).unwrap();
    server.restart();
    source.producer().unwrap().send(b"after the loss").unwrap();
    let mut publisher = bridge(&server, &publish);
    assert_eq!(publisher.code(), 9, "{}", publisher.said());
    assert!(publisher.said().contains("before position 24"), "{}", publisher.said());
    let mut publisher = bridge(&server, &[&publish[..], &["--skip-to", "24"]].concat());
    assert_eq!(publisher.code(), 0, "{}", publisher.said());
    // The subscriber knows that it is another stream.
    let mut subscriber = bridge(&server, &["subscribe", &to, "--stream", "S"]);
    assert_eq!(subscriber.code(), 9, "{}", subscriber.said());
}

#[test]
fn a_pipe_that_was_recreated_is_refused() {
    let Some(server) = Server::start() else { return };
    let (from, to) = (Name::new(), Name::new());
    let source = Options::new().create(&*from).unwrap();
    source.producer().unwrap().send(b"hello").unwrap();
    assert_eq!(bridge(&server, &["publish", &from, "--stream", "S"]).code(), 0);
    let subscribe = ["subscribe", &*to, "--stream", "S"];
    assert_eq!(bridge(&server, &subscribe).code(), 0);
    shmpipe::unlink_force(&*to).unwrap();
    let mut subscriber = bridge(&server, &subscribe);
    assert_eq!(subscriber.code(), 9, "{}", subscriber.said());
    assert!(subscriber.said().contains("recreated"), "{}", subscriber.said());
    let mut subscriber = bridge(&server, &[&subscribe[..], &["--from", "first"]].concat());
    assert_eq!(subscriber.code(), 0, "{}", subscriber.said());
    assert_eq!(shmpipe::inspect(&*to).unwrap().unread(), 1);
    // The same for the pipe of the publisher.
    shmpipe::unlink_force(&*from).unwrap();
    let source = Options::new().create(&*from).unwrap();
    source.producer().unwrap().send(b"recreated").unwrap();
    let mut publisher = bridge(&server, &["publish", &from, "--stream", "S"]);
    assert_eq!(publisher.code(), 7, "{}", publisher.said());
    let mut publisher = bridge(&server, &["publish", &from, "--stream", "S", "--after", "any"]);
    assert_eq!(publisher.code(), 0, "{}", publisher.said());
    assert_eq!(bridge(&server, &subscribe).code(), 0);
    assert_eq!(shmpipe::inspect(&*to).unwrap().unread(), 2);
}

#[test]
fn a_second_publisher_of_the_stream_fences_the_first() {
    let Some(server) = Server::start() else { return };
    let (ours, theirs) = (Name::new(), Name::new());
    let mut producer = Options::new().create(&*ours).unwrap().producer().unwrap();
    Options::new().create(&*theirs).unwrap();
    let mut first = bridge(&server, &["publish", &ours, "--stream", "S", "--follow"]);
    producer.send(b"one").unwrap();
    wait_until("it is published", || shmpipe::inspect(&*ours).unwrap().used == 0);
    let _second = bridge(&server, &["publish", &theirs, "--stream", "S", "--follow", "--after", "any"]);
    let id = shmpipe::inspect(&*theirs).unwrap().segment_id.to_string();
    wait_until("the second has the stream", || {
        let status = support::command(&server.url(), server.folder.path())
            .args(["status", "--stream", "S", "--json"])
            .output()
            .unwrap();
        String::from_utf8(status.stdout).unwrap().contains(&id)
    });
    producer.send(b"two").unwrap();
    assert_eq!(first.code(), 4, "{}", first.said());
    assert_eq!(producer.send(b"three"), Err(shmpipe::SendError::PeerAborted { code: 4 }));
    assert!(first.said().contains("fenced"), "{}", first.said());
    assert_eq!(shmpipe::inspect(&*ours).unwrap().unread(), 1);
}

#[test]
fn status_shows_how_far_a_pipe_is_from_notes_in_a_folder_of_their_own() {
    let Some(server) = Server::start() else { return };
    let (from, to) = (Name::new(), Name::new());
    Options::new().create(&*from).unwrap().producer().unwrap().send(b"hello").unwrap();
    assert_eq!(bridge(&server, &["publish", &from, "--stream", "S"]).code(), 0);
    let state = server.folder.path().join("state");
    let state = ["--state", state.to_str().unwrap()];
    assert_eq!(bridge(&server, &[&["subscribe", &*to, "--stream", "S"], &state[..]].concat()).code(), 0);
    let mut status = support::command(&server.url(), server.folder.path());
    let shown = status.args(["status", &to, "--stream", "S", "--json"]).args(state).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains(r#""frames_behind":0"#), "{shown}");
}

#[test]
fn an_age_of_part_of_a_second_limits_the_stream() {
    let Some(server) = Server::start() else { return };
    let from = Name::new();
    Options::new().create(&*from).unwrap().producer().unwrap().close().unwrap();
    let mut publisher = bridge(&server, &["publish", &from, "--stream", "S", "--max-age", "1500ms"]);
    assert_eq!(publisher.code(), 0, "{}", publisher.said());
    let age = with_stream(&server, "S", async |stream| stream.get_info().await.unwrap().config.max_age);
    assert_eq!(age, Duration::from_millis(1500));
}

#[test]
fn a_role_that_is_taken_and_a_stream_that_is_missing_are_refused() {
    let Some(server) = Server::start() else { return };
    let (from, to) = (Name::new(), Name::new());
    let source = Options::new().create(&*from).unwrap();
    let _consumer = source.consumer().unwrap();
    assert_eq!(bridge(&server, &["publish", &from, "--stream", "S"]).code(), 4);
    assert_eq!(bridge(&server, &["subscribe", &to, "--stream", "MISSING"]).code(), 3);
    assert_eq!(bridge(&server, &["status", "--stream", "MISSING"]).code(), 3);
    assert_eq!(bridge(&server, &["publish", "--stream", "S"]).code(), 2);
}

#[test]
fn sync_that_is_required_must_be_shown() {
    let Some(server) = Server::start() else { return };
    let from = Name::new();
    Options::new().create(&*from).unwrap();
    let mut publisher = bridge(&server, &["publish", &from, "--stream", "S", "--require-sync"]);
    assert_eq!(publisher.code(), 7);
    assert!(publisher.said().contains("--monitor"), "{}", publisher.said());
}

#[test]
fn a_login_that_is_wrong_is_refused_and_a_right_one_works() {
    let Some(server) = Server::start_with("authorization { user: me, password: secret }") else { return };
    let from = Name::new();
    Options::new().create(&*from).unwrap().producer().unwrap().send(b"hello").unwrap();
    let publish = ["publish", &*from, "--stream", "S"];
    let mut publisher = bridge(&server, &[&publish[..], &["--user", "me", "--password", "wrong"]].concat());
    assert_eq!(publisher.code(), 8, "{}", publisher.said());
    assert!(!publisher.said().contains("wrong"), "{}", publisher.said());
    let mut publisher = bridge(&server, &[&publish[..], &["--user", "me", "--password", "secret"]].concat());
    assert_eq!(publisher.code(), 0, "{}", publisher.said());
}

#[test]
fn the_permissions_of_the_documentation_are_enough() {
    // As docs/bridge.md has them.
    let user = |name: &str, subject: &str, requests: &[&str]| {
        let requests: Vec<String> = requests.iter().map(|name| format!("\"$JS.API.{name}\"")).collect();
        format!(
            "{{ user: {name}, password: {name}, permissions: {{ publish: [{subject}{}], subscribe: \"_INBOX.>\" }} }}",
            requests.join(", ")
        )
    };
    let requests = ["STREAM.INFO.S", "STREAM.MSG.GET.S", "STREAM.CREATE.S"];
    let publisher = user("publisher", "\"shmpipe.S\", ", &requests);
    let requests = ["STREAM.INFO.S", "STREAM.MSG.GET.S", "CONSUMER.CREATE.S", "CONSUMER.MSG.NEXT.S.>"];
    let subscriber = user("subscriber", "", &requests);
    let Some(server) = Server::start_with(&format!("authorization {{ users: [{publisher}, {subscriber}] }}"))
    else {
        return;
    };
    let (from, to) = (Name::new(), Name::new());
    Options::new().create(&*from).unwrap().producer().unwrap().send(b"hello").unwrap();
    for (direction, pipe) in [("publish", &from), ("subscribe", &to)] {
        let name = if direction == "publish" { "publisher" } else { "subscriber" };
        let mut process =
            bridge(&server, &[direction, pipe, "--stream", "S", "--user", name, "--password", name]);
        assert_eq!(process.code(), 0, "{}", process.said());
    }
    let mut consumer = shmpipe::Pipe::open(&*to).unwrap().consumer().unwrap();
    assert_eq!(recv(&mut consumer).unwrap().1, b"hello");
}

#[test]
fn a_token_and_a_context_log_in() {
    let Some(server) = Server::start_with("authorization { token: secret }") else { return };
    let from = Name::new();
    let source = Options::new().create(&*from).unwrap();
    let publish = ["publish", &*from, "--stream", "S"];
    let contexts = server.folder.path().join("nats/context");
    std::fs::create_dir_all(&contexts).unwrap();
    std::fs::write(contexts.join("here.json"), r#"{"url": "", "token": "secret"}"#).unwrap();
    for login in [["--token", "secret"], ["--context", "here"]] {
        source.producer().unwrap().send(b"hello").unwrap();
        let mut publisher = bridge(&server, &[&publish[..], &login].concat());
        assert_eq!(publisher.code(), 0, "{login:?}: {}", publisher.said());
    }
    assert_eq!(bridge(&server, &publish).code(), 8);
}

#[test]
fn tls_needs_an_authority_that_signed_the_servers_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("certificate.pem"), path("key.pem"));
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=here -addext subjectAltName=IP:127.0.0.1"
            .split(' '),
    );
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", &key, "-out", &certificate]);
    if !openssl.output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: needs openssl");
        return;
    }
    let settings = format!("tls {{ cert_file: \"{certificate}\", key_file: \"{key}\" }}");
    let Some(server) = Server::start_with(&settings) else { return };
    let from = Name::new();
    Options::new().create(&*from).unwrap().producer().unwrap().send(b"hello").unwrap();
    let publish = ["publish", &*from, "--stream", "S"];
    let mut publisher = bridge(&server, &[&publish[..], &["--tls-ca", &certificate]].concat());
    assert_eq!(publisher.code(), 0, "{}", publisher.said());
    // No authority that this machine trusts has signed it.
    let mut publisher = bridge(&server, &publish);
    publisher.wait_until_said("certificate");
    publisher.kill();
}

#[test]
fn a_hole_in_the_stream_is_an_error_that_names_the_positions() {
    let Some(server) = Server::start() else { return };
    let (from, to) = (Name::new(), Name::new());
    let source = Options::new().create(&*from).unwrap();
    let (publish, subscribe) = (["publish", &*from, "--stream", "S"], ["subscribe", &*to, "--stream", "S"]);
    let round = |message: &[u8]| {
        source.producer().unwrap().send(message).unwrap();
        assert_eq!(bridge(&server, &publish).code(), 0);
    };
    round(b"received");
    assert_eq!(bridge(&server, &subscribe).code(), 0);
    round(b"missing");
    round(b"after it");
    // Each round is a begin, a message and an end.
    purge_before(&server, "S", 7);
    let mut subscriber = bridge(&server, &subscribe);
    assert_eq!(subscriber.code(), 9, "{}", subscriber.said());
    let said = subscriber.said();
    assert!(said.contains("up to position 16,") && said.contains("continues at position 32 "), "{said}");
    let mut subscriber = bridge(&server, &[&subscribe[..], &["--skip-to", "31"]].concat());
    assert_eq!(subscriber.code(), 9);
    let mut subscriber = bridge(&server, &[&subscribe[..], &["--skip-to", "32"]].concat());
    assert_eq!(subscriber.code(), 0, "{}", subscriber.said());
    let mut consumer = shmpipe::Pipe::open(&*to).unwrap().consumer().unwrap();
    assert_eq!(recv(&mut consumer).unwrap().1, b"received");
    assert_eq!(recv(&mut consumer).unwrap().1, b"after it");
}

#[test]
fn a_subscriber_that_has_more_than_a_server_that_lost_frames_goes_on_without_a_loss() {
    let Some(mut server) = Server::start() else { return };
    let (from, to) = (Name::new(), Name::new());
    let source = Options::new().create(&*from).unwrap();
    let (publish, subscribe) = (["publish", &*from, "--stream", "S"], ["subscribe", &*to, "--stream", "S"]);
    let code = |server: &Server, arguments: &[&str]| bridge(server, arguments).code();
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let status = std::process::Command::new("cp").arg("-r").args([from, to]).status().unwrap();
        assert!(status.success());
    };
    source.producer().unwrap().send(b"stored").unwrap();
    assert_eq!(code(&server, &publish), 0);
    server.kill();
    let backup = server.folder.path().join("backup");
    copy(&server.store(), &backup);
    server.restart();
    source.producer().unwrap().send(b"received and lost").unwrap();
    assert_eq!(code(&server, &publish), 0);
    for _ in 0..2 {
        let mut subscriber = bridge(&server, &subscribe);
        assert_eq!(subscriber.code(), 0, "{}", subscriber.said());
        assert!(!subscriber.said().contains("lost messages"), "{}", subscriber.said());
    }
    server.kill();
    std::fs::remove_dir_all(server.store()).unwrap();
    copy(&backup, &server.store());
    server.restart();
    // The stream is to grow beyond what it was.
    for _ in 0..3 {
        source.producer().unwrap().send(b"after the loss").unwrap();
        assert_eq!(code(&server, &[&publish[..], &["--skip-to", "48"]].concat()), 0);
    }
    for _ in 0..3 {
        let mut subscriber = bridge(&server, &subscribe);
        assert_eq!(subscriber.code(), 0, "{}", subscriber.said());
    }
    let mut consumer = shmpipe::Pipe::open(&*to).unwrap().consumer().unwrap();
    for message in ["stored", "received and lost", "after the loss", "after the loss", "after the loss"] {
        assert_eq!(recv(&mut consumer).unwrap().1, message.as_bytes());
    }
}

type Stream = async_nats::jetstream::stream::Stream;

/// Does something with a stream.
fn with_stream<T>(server: &Server, stream: &str, act: impl AsyncFnOnce(Stream) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(server.url()).await.unwrap();
        act(async_nats::jetstream::new(client).get_stream(stream).await.unwrap()).await
    })
}

/// Removes the messages of a stream before this one.
fn purge_before(server: &Server, stream: &str, sequence: u64) {
    with_stream(server, stream, async |stream| stream.purge().sequence(sequence).await.unwrap());
}

/// How many subscribers have asked for messages of a stream.
fn subscribers(server: &Server, stream: &str) -> usize {
    with_stream(server, stream, async |stream| stream.get_info().await.unwrap().state.consumer_count)
}

#[test]
fn a_subscriber_from_new_that_is_killed_while_idle_goes_on_where_it_began() {
    let Some(server) = Server::start() else { return };
    let (from, to) = (Name::new(), Name::new());
    let source = Options::new().create(&*from).unwrap();
    let mut consumer = Options::new().create(&*to).unwrap().consumer().unwrap();
    let publish = |message: &[u8]| {
        source.producer().unwrap().send(message).unwrap();
        assert_eq!(bridge(&server, &["publish", &from, "--stream", "S"]).code(), 0);
    };
    publish(b"old");
    let subscribe = ["subscribe", &*to, "--stream", "S", "--follow", "--from", "new"];
    let mut subscriber = bridge(&server, &subscribe);
    wait_until("it waits for messages", || subscribers(&server, "S") == 1);
    subscriber.kill();
    publish(b"while it was away");
    let _subscriber = bridge(&server, &subscribe);
    wait_until("it waits for messages", || subscribers(&server, "S") == 2);
    publish(b"while it is there");
    assert_eq!(recv(&mut consumer).unwrap().1, b"while it was away");
}

#[test]
fn bridges_of_a_file_change_with_it() {
    let Some(server) = Server::start() else { return };
    let names: Vec<Name> = (0..4).map(|_| Name::new()).collect();
    let [from, to, other_from, other_to] = &names[..] else { panic!() };
    let config = server.folder.path().join("bridges.toml");
    let bridges = |from: &str, to: &str, number: u32| {
        format!(
            "[publish.out{number}]\npipe = \"{from}\"\nstream = \"S{number}\"\nfollow = true\n\
             [subscribe.in{number}]\npipe = \"{to}\"\nstream = \"S{number}\"\nfollow = true\n"
        )
    };
    let first = bridges(from, to, 1);
    std::fs::write(&config, &first).unwrap();
    let mut run = bridge(&server, &["run", config.to_str().unwrap()]);
    let carries = |from: &str, to: &str| {
        let mut producer = shmpipe::Pipe::open_or_create(from).unwrap().producer().unwrap();
        producer.send(b"hello").unwrap();
        producer.close().unwrap();
        wait_until("it arrives", || shmpipe::inspect(to).is_ok_and(|pipe| pipe.unread() == 1));
    };
    carries(from, to);
    std::fs::write(&config, first.clone() + "nonsense").unwrap();
    run.signal(libc::SIGHUP);
    run.wait_until_said("goes on as before");
    std::fs::write(&config, bridges(other_from, other_to, 2)).unwrap();
    run.signal(libc::SIGHUP);
    run.wait_until_said("again");
    carries(other_from, other_to);
    // The first ones have stopped.
    let _consumer = shmpipe::Pipe::open(&**from).unwrap().consumer().unwrap();
    run.signal(libc::SIGTERM);
    assert_eq!(run.code(), 0, "{}", run.said());
}
