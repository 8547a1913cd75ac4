//! `doctor`: every problem that it can find is caused here, and fixed by the command that it suggests.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use serde_json::Value;
use shmpipe::Role;

use crate::codes::Copy;
use crate::foreign::Foreign;
use crate::place::{Kind, Place};
use crate::process::{
    Finished, Name, Running, ask, eventually, ids, is_root, run, script, script_apart, shmpipe, start,
    wait_for_holder,
};

/// The output of the doctor as JSON.
#[derive(Debug)]
struct Diagnosis(Vec<Value>);

impl Diagnosis {
    #[track_caller]
    fn parse(finished: &Finished) -> Diagnosis {
        let text = std::str::from_utf8(&finished.out).unwrap();
        Diagnosis(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    #[track_caller]
    fn of(finished: &Finished) -> Diagnosis {
        let diagnosis = Diagnosis::parse(finished);
        for object in &diagnosis.0 {
            assert_eq!(object["schema"], 1, "{object}");
            let flat =
                object.as_object().unwrap().values().all(|value| !value.is_object() && !value.is_array());
            assert!(flat, "{object}");
        }
        let head = diagnosis.of_kind("doctor").next().unwrap();
        assert_eq!(head["findings"], diagnosis.of_kind("finding").count());
        assert_eq!(head["checks"], diagnosis.of_kind("check").count());
        let code = if head["findings"] == 0 { 0 } else { 10 };
        assert_eq!(finished.status.code(), Some(code), "{diagnosis:?}{}", finished.err);
        diagnosis
    }

    /// Of this machine and of that pipe.
    #[track_caller]
    fn about(address: &str) -> Diagnosis {
        Diagnosis::of(&ask(&["doctor", address, "--json"]).quiet())
    }

    /// Of this machine.
    #[track_caller]
    fn here() -> Diagnosis {
        Diagnosis::of(&ask(&["doctor", "--json"]).quiet())
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    #[track_caller]
    fn check(&self, name: &str) -> &Value {
        self.of_kind("check").find(|check| check["check"] == name).unwrap()
    }

    /// The findings of a check that mention all of these words.
    fn found(&self, check: &str, words: &[&str]) -> Vec<&Value> {
        let mentions = |finding: &&Value| {
            let what = finding["what"].as_str().unwrap();
            finding["check"] == check && words.iter().all(|word| what.contains(word))
        };
        self.of_kind("finding").filter(mentions).collect()
    }

    /// The command that fixes the only finding that mentions all of these words.
    #[track_caller]
    fn fix(&self, check: &str, words: &[&str]) -> String {
        match self.found(check, words)[..] {
            [finding] => finding["mend"].as_str().unwrap().to_owned(),
            _ => panic!("not one finding of {check} about {words:?} in {:#?}", self.0),
        }
    }

    /// Listings of other tests may have it open too.
    #[track_caller]
    fn is_open_in(&self, pid: &str) -> bool {
        self.check("pipe")["open_in_pids"].as_str().unwrap().split(' ').any(|its| its == pid)
    }

    #[track_caller]
    fn finds_nothing(&self, check: &str, words: &[&str]) {
        assert_eq!(self.found(check, words), [] as [&Value; 0]);
    }
}

/// Runs the command of a finding.
#[track_caller]
fn apply(command: &str) {
    script(command).finish().code(0);
}

#[test]
fn every_check_is_printed_as_text_and_as_json() {
    let diagnosis = Diagnosis::here();
    let names: Vec<&str> = diagnosis.of_kind("check").map(|check| check["check"].as_str().unwrap()).collect();
    let expected = [
        "namespaces",
        "limits",
        "/dev/shm",
        "logind",
        "undo",
        "shm_rmid_forced",
        "locks",
        "membarrier",
        "futex_waitv",
        "locked memory",
        "huge pages",
        "leftovers",
        "System V",
    ];
    assert_eq!(names, expected);
    // A check with an unknown verdict has a reason.
    for check in diagnosis.of_kind("check") {
        let reason = &check["unknown_because"];
        assert_eq!(
            check["verdict"] == "unknown",
            reason.is_string() && check["verdict"] != "finding",
            "{check}"
        );
    }
    assert_eq!(
        (&diagnosis.check("undo")["undone"], &diagnosis.check("locks")["freed_by_munmap"]),
        (&true.into(), &true.into())
    );

    let text = String::from_utf8(ask(&["doctor"]).quiet().out).unwrap();
    for name in expected {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is not in\n{text}");
    }
}

#[test]
fn every_key_is_documented() {
    let help = String::from_utf8(ask(&["doctor", "--help"]).code(0).quiet().out).unwrap();
    let (_, help) = help.split_once("With --json").unwrap();
    let words: Vec<&str> = help.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let place = Place::new(Kind::Name, "doctor-keys");
    for diagnosis in [Diagnosis::about(&place), {
        run(&["send", &place], b"").code(0);
        Diagnosis::about(&place)
    }] {
        for object in &diagnosis.0 {
            for key in object.as_object().unwrap().keys() {
                assert!(["schema", "kind"].contains(&&**key) || words.contains(&&**key), "{key} of {object}");
            }
        }
    }
}

#[test]
fn a_machine_without_problems_is_0_even_with_pipes_in_use() {
    let no_problems = "shmpipe doctor --json > /dev/null; shmpipe recv apart & recv=$!; \
                       until shmpipe stat apart 2>&1 | grep -q 'consumer *alive'; do sleep 0.05; done; \
                       shmpipe doctor apart; kill $recv";
    let Some(finished) = script_apart(no_problems).map(Running::finish) else { return };
    let text = String::from_utf8(finished.code(0).quiet().out).unwrap();
    assert!(!text.contains("finding") && text.contains("1 pipe, 1 open"), "{text}");
}

#[test]
fn exhausted_limits_are_found_and_raised() {
    let Some(doctor) = script_apart(
        "sysctl -qw kernel.shmmni=2; sysctl -qw kernel.sem='250 8 32 1'; shmpipe create one > /dev/null; \
         shmpipe doctor --json || [ $? = 10 ]",
    ) else {
        return;
    };
    let diagnosis = Diagnosis::parse(&doctor.finish().code(0).quiet());
    let fixes = ["SHMMNI", "SEMMNI", "SEMMNS"].map(|limit| diagnosis.fix("limits", &[limit]));
    let text = format!(
        "sysctl -qw kernel.shmmni=2; sysctl -qw kernel.sem='250 8 32 1'; {}; shmpipe create one; shmpipe create two; shmpipe doctor",
        fixes.join("; ")
    );
    script_apart(&text).unwrap().finish().code(0);
}

#[test]
fn problems_of_dev_shm_are_found_and_fixed() {
    for (wrong, word) in [
        ("mount -o remount,size=1m /dev/shm", "are free"),
        ("head -c 60m /dev/zero > /dev/shm/full", "are free"),
        ("mount -o remount,ro /dev/shm", "read-only"),
        ("chmod 777 /dev/shm", "sticky"),
        ("mount -t ramfs ramfs /dev/shm; chmod 1777 /dev/shm", "ramfs"),
    ] {
        let doctor = format!("{wrong}; shmpipe doctor --json || [ $? = 10 ]");
        let Some(doctor) = script_apart(&doctor).map(Running::finish) else { return };
        let diagnosis = Diagnosis::parse(&doctor.code(0).quiet());
        let fix = diagnosis.fix("/dev/shm", &[word]);
        // A container cannot be restarted here.
        if !fix.starts_with("docker") {
            script_apart(&format!("{wrong}; {fix}; shmpipe doctor")).unwrap().finish().code(0);
        }
    }
}

#[test]
fn a_limit_on_locked_memory_too_small_for_a_pipe_is_found() {
    let limited = |mut command: Command, kib: u64| {
        // SAFETY: `setrlimit` may be called between fork and exec.
        unsafe {
            command.pre_exec(move || {
                let limit = libc::rlimit { rlim_cur: kib << 10, rlim_max: kib << 10 };
                match libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) {
                    -1 => Err(std::io::Error::last_os_error()),
                    _ => Ok(()),
                }
            });
        }
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Diagnosis::of(&Running::start(command).finish())
    };
    let words = ["doctor", "--json"];
    let name = Name::new("memlock");
    let copy = Copy::new(&name);
    let unprivileged = || if is_root() { copy.as_nobody(&words) } else { shmpipe(&words) };
    limited(unprivileged(), 2048).finds_nothing("locked memory", &[]);
    let diagnosis = limited(unprivileged(), 64);
    diagnosis.fix("locked memory", &["64 KiB", "RLIMIT_MEMLOCK"]);
    assert_eq!(
        (&diagnosis.check("locked memory")["memlock_bytes"], &diagnosis.check("limits")["verdict"]),
        (&65536.into(), &"ok".into())
    );
    // It does not apply to root.
    let diagnosis = limited(shmpipe(&words), 64);
    if diagnosis.check("locked memory")["may_lock_all"] == true {
        diagnosis.finds_nothing("locked memory", &[]);
    }
}

#[test]
fn the_pipe_of_a_dead_pair_is_found_with_its_messages() {
    for kind in Kind::NAMED {
        let place = Place::new(kind, "doctor-left");
        let mut send = start(&["send", &place]);
        send.input().write_all(b"one\ntwo\n").unwrap();
        eventually(|| (shmpipe::inspect(&*place).ok()?.producer.messages == 2).then_some(()));
        Diagnosis::about(&place).finds_nothing("leftovers", &[&place]);
        send.signal(libc::SIGKILL);
        send.finish().killed();
        let diagnosis = Diagnosis::about(&place);
        assert_eq!(diagnosis.check("pipe")["unread_messages"], 2);
        let states = (&diagnosis.check("producer")["state"], &diagnosis.check("consumer")["state"]);
        assert_eq!(states, (&"died".into(), &"never_came".into()));
        let command = diagnosis.fix("leftovers", &[&place, "the producer died", "2 messages"]);
        let recv = script(&command).finish().code(6);
        recv.wrote(b"one\ntwo\n");
        // Now it is empty.
        let diagnosis = Diagnosis::about(&place);
        let found = diagnosis.found("leftovers", &["open in no process and empty"]);
        assert_eq!(found.len(), 1, "all such pipes are one finding");
        ask(&["rm", "--stale", &place]).code(0);
        ask(&["stat", &place]).code(3);
    }
}

#[test]
fn messages_for_a_later_consumer_are_not_a_finding() {
    for kind in Kind::NAMED {
        let place = Place::new(kind, "doctor-waiting");
        run(&["send", &place], b"for later\n").code(0);
        let diagnosis = Diagnosis::about(&place);
        diagnosis.finds_nothing("leftovers", &[&place]);
        assert!(diagnosis.check("leftovers")["waiting_for_a_consumer"].as_u64().unwrap() >= 1);
        assert_eq!(diagnosis.check("producer")["state"], "closed");
    }
}

/// Removes a segment, or a set, as other programs might.
fn remove_segment(shm_id: i32) {
    // SAFETY: IPC_RMID takes no pointer.
    assert_eq!(unsafe { libc::shmctl(shm_id, libc::IPC_RMID, std::ptr::null_mut()) }, 0);
}

fn remove_set(sem_id: i32) {
    // SAFETY: IPC_RMID takes no pointer.
    assert_eq!(unsafe { libc::semctl(sem_id, 0, libc::IPC_RMID) }, 0);
}

/// Removes a set if the test fails first.
struct RemoveSet(i32);

impl Drop for RemoveSet {
    fn drop(&mut self) {
        // SAFETY: IPC_RMID takes no pointer.
        unsafe { libc::semctl(self.0, 0, libc::IPC_RMID) };
    }
}

fn set_exists(sem_id: i32) -> bool {
    // SAFETY: GETVAL takes no pointer.
    unsafe { libc::semctl(sem_id, 0, libc::GETVAL) >= 0 }
}

#[test]
fn a_set_without_its_segment_is_found_and_removed() {
    let name = Name::new("doctor-set");
    for address in [&*name, "sysv:private"] {
        let made = ask(&["create", address, "--json"]).code(0);
        let made: Value = serde_json::from_slice(&made.out).unwrap();
        let (shm_id, sem_id) =
            (made["shm_id"].as_i64().unwrap() as i32, made["sem_id"].as_i64().unwrap() as i32);
        remove_segment(shm_id);
        let words = ["semaphore set", &sem_id.to_string(), "no segment"];
        let command = Diagnosis::here().fix("System V", &words);
        apply(&command);
        assert!(!set_exists(sem_id));
        Diagnosis::here().finds_nothing("System V", &words);
    }
}

#[test]
fn a_foreign_segment_under_the_key_of_a_pipe_is_found_and_left_alone() {
    let name = Name::new("doctor-foreign");
    ask(&["create", &name]).code(0);
    let pipe = ids(&name);
    remove_segment(pipe.shm_id);
    let foreign = Foreign::new(pipe.key, 8192);
    let diagnosis = Diagnosis::about(&name);
    diagnosis.fix("pipe", &["is not a pipe"]);
    let command = diagnosis.fix(
        "System V",
        &["is not a pipe", &format!("shmid {}", foreign.id), &format!("semid {}", pipe.sem_id)],
    );
    apply(&command);
    assert!(!set_exists(pipe.sem_id) && foreign.is_untouched());
    Diagnosis::here().finds_nothing("System V", &[&format!("shmid {}", foreign.id)]);
    // A foreign segment of a pipe's size is examined, and is not a finding.
    drop(foreign);
    let foreign = Foreign::new(pipe.key, 8192);
    Diagnosis::here().finds_nothing("System V", &[&format!("{:#x}", pipe.key)]);
    assert!(foreign.is_untouched());
}

#[test]
fn an_incomplete_pipe_is_found_and_removed() {
    // By LAYOUT.md: the set of a pipe in the stage MAKING that is not locked.
    let key = 0x5eed_0000 | std::process::id() as i32 & 0xffff;
    // SAFETY: takes numbers.
    let set = unsafe { libc::semget(key, 8, libc::IPC_CREAT | libc::IPC_EXCL | 0o600) };
    assert!(set >= 0);
    let cleaner = RemoveSet(set);
    // SAFETY: SETVAL takes an int, no pointer.
    assert_eq!(unsafe { libc::semctl(set, 3, libc::SETVAL, 0x5a4d) }, 0);
    apply(&Diagnosis::here().fix("System V", &["incomplete", &format!("{key:#x}")]));
    assert!(!set_exists(set));
    drop(cleaner);
}

#[test]
fn a_lost_set_is_found_with_the_processes_that_have_the_pipe_open() {
    let name = Name::new("doctor-lost");
    let recv = start(&["recv", &name]);
    wait_for_holder(&name, Role::Consumer, recv.id());
    // Stopped, so that it does not notice.
    recv.signal(libc::SIGSTOP);
    let pipe = ids(&name);
    remove_set(pipe.sem_id);
    let pid = recv.id().to_string();
    let diagnosis = Diagnosis::about(&name);
    diagnosis.fix("System V", &["semaphore set", &format!("{:#x}", pipe.key), &pid]);
    diagnosis.fix("pipe", &["semaphore set is gone"]);
    drop(recv);
    // Without users, the next one creates a new set.
    Diagnosis::here().fix("System V", &["semaphore set", &format!("{:#x}", pipe.key)]);
    run(&["send", &name], b"x\n").code(0);
    Diagnosis::here().finds_nothing("System V", &[&format!("{:#x}", pipe.key)]);
}

#[test]
fn a_pipe_removed_while_open_is_found_with_its_processes() {
    let name = Name::new("doctor-removed");
    let recv = start(&["recv", &name]);
    wait_for_holder(&name, Role::Consumer, recv.id());
    recv.signal(libc::SIGSTOP);
    ask(&["rm", "--force", &name]).code(0);
    let pid = recv.id().to_string();
    let diagnosis = Diagnosis::about(&name);
    assert!(diagnosis.fix("pipe", &["removed", &name, &pid]).starts_with(&format!("kill {pid}")));
    diagnosis.fix("pipe", &["no pipe at"]);
    // Even if there is a new one.
    ask(&["create", &name]).code(0);
    let diagnosis = Diagnosis::about(&name);
    diagnosis.fix("pipe", &["removed", &name, &pid]);
    diagnosis.finds_nothing("pipe", &["no pipe at"]);
    assert!(!diagnosis.is_open_in(&pid));
    drop(recv);
    Diagnosis::about(&name).finds_nothing("pipe", &[]);
}

#[test]
fn a_file_removed_while_open_is_found_with_its_processes() {
    for kind in [Kind::Posix, Kind::File] {
        let place = Place::created(kind, "doctor-unlinked", &[]);
        let recv = start(&["recv", &place]);
        wait_for_holder(&place, Role::Consumer, recv.id());
        recv.signal(libc::SIGSTOP);
        ask(&["rm", "--force", &place]).code(0);
        let pid = recv.id().to_string();
        let diagnosis = Diagnosis::about(&place);
        diagnosis.fix("leftovers", &["removed from", place.path(), &pid]);
        diagnosis.fix("pipe", &["no pipe at"]);
        ask(&["create", &place]).code(0);
        let diagnosis = Diagnosis::about(&place);
        let command = diagnosis.fix("leftovers", &["removed from", place.path(), &pid]);
        assert!(!diagnosis.is_open_in(&pid));
        apply(&format!("kill -CONT {pid}; {command}"));
        recv.finish();
        Diagnosis::about(&place).finds_nothing("leftovers", &[place.path()]);
    }
}

#[test]
fn a_pipe_from_before_the_last_boot_is_found() {
    let memfd = Place::with(Kind::Memfd, "doctor-trusting", &["--mode", "666"]);
    Diagnosis::about(&memfd).finds_nothing("pipe", &[]);
    let place = Place::created(Kind::File, "doctor-stale", &[]);
    Diagnosis::about(&place).finds_nothing("pipe", &[]);
    if !place.make_stale() {
        return;
    }
    let command = Diagnosis::about(&place).fix("pipe", &["before the last boot"]);
    let command = command.split('#').next().unwrap().trim().to_owned();
    script(&format!("{command} --timeout 100ms")).finish().code(5);
    Diagnosis::about(&place).finds_nothing("pipe", &[]);
}

#[test]
fn an_unusable_pipe_is_found_with_a_remedy() {
    let place = Place::created(Kind::File, "doctor-odd", &[]);
    let not_there = Place::new(Kind::Posix, "doctor-nothing");
    std::fs::write(place.path(), [b'x'; 10_000]).unwrap();
    for (address, error, what, helps) in [
        (&*place, "unfit_segment", "is not a pipe", "ls -l "),
        ("file:/tmp", "unfit_segment", "a directory", "ls -l /tmp"),
        (&*not_there, "not_found", "no pipe at", "shmpipe create posix:/"),
        ("memfd:/tmp/no-such-socket", "not_found", "no pipe at", "shmpipe serve /tmp/no-such-socket"),
    ] {
        let diagnosis = Diagnosis::about(address);
        assert_eq!(diagnosis.check("pipe")["error"], error, "{address}");
        let command = diagnosis.fix("pipe", &[what]);
        assert!(command.starts_with(helps), "{command}");
    }
}

#[test]
fn holders_are_shown_and_a_stopped_side_is_found() {
    for kind in Kind::ALL {
        let place = Place::new(kind, "doctor-stopped");
        let (send, recv) = (start(&["send", &place]), start(&["recv", &place]));
        wait_for_holder(&place, Role::Producer, send.id());
        wait_for_holder(&place, Role::Consumer, recv.id());
        let diagnosis = Diagnosis::about(&place);
        for (side, process) in [("producer", &send), ("consumer", &recv)] {
            let check = diagnosis.check(side);
            assert_eq!((&check["pid"], &check["state"]), (&process.id().into(), &"alive".into()));
            assert_eq!((&check["command"], &check["claims"]), (&"shmpipe".into(), &1.into()));
            assert!(check["process_age_seconds"].as_u64().unwrap() < 600);
            diagnosis.finds_nothing(side, &[]);
        }
        diagnosis.finds_nothing("pipe", &[]);
        assert!([&send, &recv].iter().all(|process| diagnosis.is_open_in(&process.id().to_string())));
        send.signal(libc::SIGSTOP);
        let command = eventually(|| {
            let diagnosis = Diagnosis::about(&place);
            (!diagnosis.found("producer", &[]).is_empty())
                .then(|| diagnosis.fix("producer", &["stopped", &send.id().to_string()]))
        });
        apply(&command);
        send.finish().code(0);
        recv.finish().code(0);
    }
}

#[test]
fn a_side_whose_peer_died_is_found() {
    let name = Name::new("doctor-half");
    let (send, recv) = (start(&["send", &name]), start(&["recv", &name, "--follow"]));
    wait_for_holder(&name, Role::Producer, send.id());
    wait_for_holder(&name, Role::Consumer, recv.id());
    send.signal(libc::SIGKILL);
    send.finish().killed();
    let command = Diagnosis::about(&name).fix("producer", &["died", "still attached"]);
    assert!(command.starts_with(&format!("shmpipe send {}", &*name)), "{command}");
    apply(&format!("{command} < /dev/null"));
    let diagnosis = Diagnosis::about(&name);
    diagnosis.finds_nothing("producer", &[]);
    assert_eq!(diagnosis.check("producer")["claims"], 2);
}

#[test]
fn a_pipe_that_every_user_may_use_is_found_and_fixed() {
    for kind in Kind::NAMED {
        let place = Place::new(kind, "doctor-mode");
        for (mode, may) in [("666", "write"), ("644", "read")] {
            ask(&["create", &place, "--mode", mode]).code(0);
            let command = Diagnosis::about(&place).fix("pipe", &["every user", may]);
            apply(&command);
            Diagnosis::about(&place).finds_nothing("pipe", &[]);
            ask(&["rm", &place]).code(0);
        }
    }
}
