//! Ends in different namespaces: PID namespaces, in which they share the memory, and namespaces of the address, in which
//! they do not.

use shmpipe::{Pipe, inspect};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::end;
use shmpipe_testing::process::Process;
use shmpipe_testing::until;
use std::process::Command;

/// Whether commands run under `command`. If not, stderr says that the test is skipped.
fn is_allowed(test: &str, command: &[&str]) -> bool {
    let tried = Command::new(command[0]).args(&command[1..]).arg("true").output();
    let allowed = tried.is_ok_and(|output| output.status.success());
    if !allowed {
        eprintln!("{test}: skipped, since {command:?} is not allowed");
    }
    allowed
}

pub fn roles_and_deaths_are_seen_across_pid_namespaces(backend: Backend) {
    let unshare = ["unshare", "--pid", "--fork", "--kill-child"];
    if !is_allowed("roles_and_deaths_are_seen_across_pid_namespaces", &unshare) {
        return;
    }
    let place = backend.place();
    let mut producer = end::producer(&place);
    let mut inside = Process::start_under(&unshare, "end", &[]);
    inside.ask(format!("open {place}"));
    assert_eq!(inside.ask("producer"), "RoleTaken { role: Producer, pid: None }", "not visible from there");
    assert_eq!(inside.ask("consumer"), "claimed");
    assert_eq!(producer.ask("send hello"), "sent");
    assert_eq!(inside.ask("recv"), "\"hello\"");
    assert_eq!(producer.ask("peer"), "Open");
    assert_eq!(producer.ask("fill"), "full after 255");
    assert_eq!(producer.ask("send 12345678 250"), "TimedOut");
    inside.kill();
    assert_eq!(producer.ask("send more"), "PeerDied");
    let mut consumer = end::consumer(&place);
    assert_eq!(consumer.ask("empty"), "empty after 255");
}

/// Two processes that are both PID 1 of their own namespace and use the same address.
pub fn two_processes_with_the_same_pid_are_distinguished(backend: Backend) {
    let unshare = ["unshare", "--pid", "--fork", "--kill-child"];
    if !is_allowed("two_processes_with_the_same_pid_are_distinguished", &unshare) {
        return;
    }
    let place = backend.place();
    let pipe = place.create(&shmpipe::Options::new().capacity(4096)).unwrap();
    let [mut one, mut other] = [(); 2].map(|()| Process::start_under(&unshare, "end", &[]));
    for process in [&mut one, &mut other] {
        process.ask(format!("open {place}"));
    }
    for role in ["producer", "consumer"] {
        assert_eq!(one.ask(role), "claimed");
        let refused = other.ask(role);
        assert!(refused.starts_with("RoleTaken"), "{refused}");
    }
    // `kill` waits for its parent. The process itself ends a moment later.
    one.kill();
    for role in ["producer", "consumer"] {
        until("a free role", || other.ask(role) == "claimed");
    }
    assert_eq!(other.ask("send again"), "sent");
    assert_eq!(other.ask("recv"), "\"again\"");
    assert!(pipe.producer().is_err());
}

pub fn an_address_in_another_namespace_finds_no_pipe(backend: Backend) {
    let place = backend.place();
    let elsewhere = place.elsewhere();
    let elsewhere: Vec<&str> = elsewhere.iter().map(String::as_str).collect();
    if !is_allowed("an_address_in_another_namespace_finds_no_pipe", &elsewhere) {
        return;
    }
    let producer = end::producer(&place);
    let mut inside = Process::start_under(&elsewhere, "end", &[]);
    for attempt in ["open", "inspect"] {
        let said = inside.ask(format!("{attempt} {place}"));
        assert!(said.starts_with("NotFound"), "{attempt}: {said}");
    }
    inside.end();
    assert_eq!(inspect(&place).unwrap().producer.pid, Some(producer.pid()));
}

pub fn an_address_in_another_namespace_may_name_another_pipe(backend: Backend) {
    let place = backend.place();
    let elsewhere = place.elsewhere();
    let elsewhere: Vec<&str> = elsewhere.iter().map(String::as_str).collect();
    if !is_allowed("an_address_in_another_namespace_may_name_another_pipe", &elsewhere) {
        return;
    }
    let mut consumer = end::consumer(&place);
    let id = inspect(&place).unwrap().segment_id;
    let mut inside = Process::start_under(&elsewhere, "end", &[]);
    for attempt in ["unlink", "unlink_force"] {
        let said = inside.ask(format!("{attempt} {place}"));
        assert!(said.starts_with("NotFound"), "{attempt}: {said}");
    }
    let created = inside.ask(format!("open_or_create {place}"));
    assert!(created.ends_with(" made") && !created.contains(&id.to_string()), "{created}");
    for role in ["producer", "consumer"] {
        assert_eq!(inside.ask(role), "claimed");
    }
    assert_eq!(inside.ask("send there"), "sent");
    assert_eq!(consumer.ask("recv 250"), "TimedOut");
    assert_eq!(inside.ask("recv"), "\"there\"");
    assert_eq!(inside.ask("drop"), "dropped");
    assert_eq!(inside.ask(format!("unlink {place}")), "unlinked");
    inside.end();
    assert_eq!(Pipe::open(&place).unwrap().id(), id);
}
