//! `doctor`: everything that it finds is brought about here, and mended by the command that it gives.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use serde_json::Value;
use shmpipe::Role;

use crate::codes::Copy;
use crate::foreign::Foreign;
use crate::place::{Kind, Place};
use crate::process::{
    Finished, Name, Running, ask, eventually, ids, run, script, script_apart, shmpipe, start, wait_for_holder,
};

/// What the doctor said to programs.
struct Said(Vec<Value>);

impl Said {
    #[track_caller]
    fn of(finished: &Finished) -> Said {
        let text = std::str::from_utf8(&finished.out).unwrap();
        let objects: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for object in &objects {
            assert_eq!(object["schema"], 1, "{object}");
            let flat =
                object.as_object().unwrap().values().all(|value| !value.is_object() && !value.is_array());
            assert!(flat, "{object}");
        }
        let said = Said(objects);
        let head = said.of_kind("doctor").next().unwrap();
        assert_eq!(head["findings"], said.of_kind("finding").count());
        assert_eq!(head["checks"], said.of_kind("check").count());
        let code = if head["findings"] == 0 { 0 } else { 10 };
        assert_eq!(finished.status.code(), Some(code), "{text}{}", finished.err);
        said
    }

    /// About this machine, and that pipe.
    #[track_caller]
    fn about(address: &str) -> Said {
        Said::of(&ask(&["doctor", address, "--json"]).quiet())
    }

    /// About this machine.
    #[track_caller]
    fn here() -> Said {
        Said::of(&ask(&["doctor", "--json"]).quiet())
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    #[track_caller]
    fn check(&self, name: &str) -> &Value {
        self.of_kind("check").find(|check| check["check"] == name).unwrap()
    }

    /// The findings of a check that speak of all of these.
    fn found(&self, check: &str, words: &[&str]) -> Vec<&Value> {
        let speaks = |finding: &&Value| {
            let what = finding["what"].as_str().unwrap();
            finding["check"] == check && words.iter().all(|word| what.contains(word))
        };
        self.of_kind("finding").filter(speaks).collect()
    }

    /// The one command that mends the one finding of that kind.
    #[track_caller]
    fn mend(&self, check: &str, words: &[&str]) -> String {
        match self.found(check, words)[..] {
            [finding] => finding["mend"].as_str().unwrap().to_owned(),
            _ => panic!("not one finding of {check} about {words:?} in {:#?}", self.0),
        }
    }

    /// Others, who look at all pipes at this moment, may be there too.
    #[track_caller]
    fn is_open_in(&self, pid: &str) -> bool {
        self.check("pipe")["open_in_pids"].as_str().unwrap().split(' ').any(|its| its == pid)
    }

    #[track_caller]
    fn finds_nothing(&self, check: &str, words: &[&str]) {
        assert_eq!(self.found(check, words), [] as [&Value; 0]);
    }
}

/// Does what a finding says.
#[track_caller]
fn mend(command: &str) {
    script(command).finish().code(0);
}

#[test]
fn every_check_is_told_to_people_and_to_programs() {
    let said = Said::here();
    let names: Vec<&str> = said.of_kind("check").map(|check| check["check"].as_str().unwrap()).collect();
    let expected = [
        "namespaces",
        "limits",
        "/dev/shm",
        "logind",
        "undo",
        "locks",
        "membarrier",
        "locked memory",
        "huge pages",
        "leftovers",
        "System V",
    ];
    assert_eq!(names, expected);
    // What has no verdict of its own says why.
    for check in said.of_kind("check") {
        let reason = &check["unknown_because"];
        assert_eq!(
            check["verdict"] == "unknown",
            reason.is_string() && check["verdict"] != "finding",
            "{check}"
        );
    }
    assert_eq!(
        (&said.check("undo")["undone"], &said.check("locks")["freed_by_munmap"]),
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
    let (_, help) = help.split_once("Under --json").unwrap();
    let words: Vec<&str> = help.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let place = Place::new(Kind::Name, "doctor-keys");
    for said in [Said::about(&place), {
        run(&["send", &place], b"").code(0);
        Said::about(&place)
    }] {
        for object in &said.0 {
            for key in object.as_object().unwrap().keys() {
                assert!(["schema", "kind"].contains(&&**key) || words.contains(&&**key), "{key} of {object}");
            }
        }
    }
}

#[test]
fn a_machine_on_which_all_is_well_is_0_and_pipes_in_use_are() {
    let all_is_well = "shmpipe doctor --json > /dev/null; shmpipe recv apart & recv=$!; \
                       until shmpipe stat apart 2>&1 | grep -q 'consumer *alive'; do sleep 0.05; done; \
                       shmpipe doctor apart; kill $recv";
    let Some(finished) = script_apart(all_is_well).map(Running::finish) else { return };
    let text = String::from_utf8(finished.code(0).quiet().out).unwrap();
    assert!(!text.contains("finding") && text.contains("1 pipe, 1 open"), "{text}");
}

#[test]
fn limits_that_are_reached_are_found_and_raised() {
    let Some(doctor) = script_apart(
        "sysctl -qw kernel.shmmni=1; sysctl -qw kernel.sem='250 8 32 1'; shmpipe create one > /dev/null; \
         shmpipe doctor --json || [ $? = 10 ]",
    ) else {
        return;
    };
    let text = doctor.finish().code(0).quiet();
    let objects: Vec<Value> = std::str::from_utf8(&text.out)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let said = Said(objects);
    let mends = ["SHMMNI", "SEMMNI", "SEMMNS"].map(|limit| said.mend("limits", &[limit]));
    let text = format!(
        "sysctl -qw kernel.shmmni=1; sysctl -qw kernel.sem='250 8 32 1'; {}; shmpipe create one; shmpipe create two; shmpipe doctor",
        mends.join("; ")
    );
    script_apart(&text).unwrap().finish().code(0);
}

#[test]
fn what_is_wrong_with_dev_shm_is_found_and_mended() {
    for (wrong, word) in [
        ("mount -o remount,size=1m /dev/shm", "are free"),
        ("head -c 60m /dev/zero > /dev/shm/full", "are free"),
        ("mount -o remount,ro /dev/shm", "read-only"),
        ("chmod 777 /dev/shm", "sticky"),
        ("mount -t ramfs ramfs /dev/shm; chmod 1777 /dev/shm", "ramfs"),
    ] {
        let doctor = format!("{wrong}; shmpipe doctor --json || [ $? = 10 ]");
        let Some(doctor) = script_apart(&doctor).map(Running::finish) else { return };
        let doctor = doctor.code(0).quiet();
        let text = std::str::from_utf8(&doctor.out).unwrap();
        let said = Said(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect());
        let mend = said.mend("/dev/shm", &[word]);
        // What starts a container anew cannot be done here.
        if !mend.starts_with("docker") {
            script_apart(&format!("{wrong}; {mend}; shmpipe doctor")).unwrap().finish().code(0);
        }
    }
}

#[test]
fn a_limit_on_locked_memory_that_no_pipe_fits_is_found() {
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
        Said::of(&Running::start(command).finish())
    };
    let words = ["doctor", "--json"];
    let name = Name::new("memlock");
    let copy = Copy::new(&name);
    // SAFETY: takes nothing and cannot fail.
    let as_anybody = || match unsafe { libc::geteuid() } {
        0 => copy.as_nobody(&words),
        _ => shmpipe(&words),
    };
    limited(as_anybody(), 2048).finds_nothing("locked memory", &[]);
    let said = limited(as_anybody(), 64);
    said.mend("locked memory", &["64 KiB", "RLIMIT_MEMLOCK"]);
    assert_eq!(
        (&said.check("locked memory")["memlock_bytes"], &said.check("limits")["verdict"]),
        (&65536.into(), &"ok".into())
    );
    // Void for root.
    let said = limited(shmpipe(&words), 64);
    if said.check("locked memory")["may_lock_all"] == true {
        said.finds_nothing("locked memory", &[]);
    }
}

#[test]
fn a_pipe_of_a_dead_pair_is_found_with_its_messages() {
    for kind in Kind::NAMED {
        let place = Place::new(kind, "doctor-left");
        let mut send = start(&["send", &place]);
        send.input().write_all(b"one\ntwo\n").unwrap();
        eventually(|| (shmpipe::inspect(&*place).ok()?.producer.messages == 2).then_some(()));
        Said::about(&place).finds_nothing("leftovers", &[&place]);
        send.signal(libc::SIGKILL);
        send.finish().killed();
        let said = Said::about(&place);
        assert_eq!(said.check("pipe")["unread_messages"], 2);
        let states = (&said.check("producer")["state"], &said.check("consumer")["state"]);
        assert_eq!(states, (&"died".into(), &"never_came".into()));
        let command = said.mend("leftovers", &[&place, "the producer has died", "2 messages"]);
        let recv = script(&command).finish().code(6);
        recv.wrote(b"one\ntwo\n");
        // Now there is nothing left to read.
        let said = Said::about(&place);
        let found = said.found("leftovers", &["nothing left to read"]);
        assert_eq!(found.len(), 1, "all such pipes are one finding");
        ask(&["rm", "--stale", &place]).code(0);
        ask(&["stat", &place]).code(3);
    }
}

#[test]
fn what_waits_for_a_consumer_is_no_finding() {
    for kind in Kind::NAMED {
        let place = Place::new(kind, "doctor-waiting");
        run(&["send", &place], b"for later\n").code(0);
        let said = Said::about(&place);
        said.finds_nothing("leftovers", &[&place]);
        assert!(said.check("leftovers")["waiting_for_a_consumer"].as_u64().unwrap() >= 1);
        assert_eq!(said.check("producer")["state"], "closed");
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

/// Removes a set when the test fails before somebody else has.
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
        let command = Said::here().mend("System V", &words);
        mend(&command);
        assert!(!set_exists(sem_id));
        Said::here().finds_nothing("System V", &words);
    }
}

#[test]
fn a_segment_that_is_not_ours_under_a_pipes_key_is_found_and_left_alone() {
    let name = Name::new("doctor-foreign");
    ask(&["create", &name]).code(0);
    let pipe = ids(&name);
    remove_segment(pipe.shm_id);
    let foreign = Foreign::new(pipe.key, 8192);
    let said = Said::about(&name);
    said.mend("pipe", &["is no pipe"]);
    let command = said.mend(
        "System V",
        &["is no pipe", &format!("shmid {}", foreign.id), &format!("semid {}", pipe.sem_id)],
    );
    mend(&command);
    assert!(!set_exists(pipe.sem_id) && foreign.is_untouched());
    Said::here().finds_nothing("System V", &[&format!("shmid {}", foreign.id)]);
    // A segment of a pipe's size that is none is looked into, and is no finding.
    drop(foreign);
    let foreign = Foreign::new(pipe.key, 8192);
    Said::here().finds_nothing("System V", &[&format!("{:#x}", pipe.key)]);
    assert!(foreign.is_untouched());
}

#[test]
fn a_pipe_whose_creator_died_is_found_and_removed() {
    // As LAYOUT.md has it: the set of a pipe in the stage MAKING, which nobody has locked.
    let key = 0x5eed_0000 | std::process::id() as i32 & 0xffff;
    // SAFETY: takes numbers.
    let set = unsafe { libc::semget(key, 8, libc::IPC_CREAT | libc::IPC_EXCL | 0o600) };
    assert!(set >= 0);
    let cleaner = RemoveSet(set);
    // SAFETY: SETVAL takes an int, no pointer.
    assert_eq!(unsafe { libc::semctl(set, 3, libc::SETVAL, 0x5a4d) }, 0);
    mend(&Said::here().mend("System V", &["half-made", &format!("{key:#x}")]));
    assert!(!set_exists(set));
    drop(cleaner);
}

#[test]
fn a_lost_set_is_found_with_who_has_the_pipe_open() {
    let name = Name::new("doctor-lost");
    let recv = start(&["recv", &name]);
    wait_for_holder(&name, Role::Consumer, recv.id());
    // So that it does not find out.
    recv.signal(libc::SIGSTOP);
    let pipe = ids(&name);
    remove_set(pipe.sem_id);
    let pid = recv.id().to_string();
    let said = Said::about(&name);
    said.mend("System V", &["semaphore set", &format!("{:#x}", pipe.key), &pid]);
    said.mend("pipe", &["semaphore set is gone"]);
    drop(recv);
    // With nobody there the next one makes a new set.
    Said::here().mend("System V", &["semaphore set", &format!("{:#x}", pipe.key)]);
    run(&["send", &name], b"x\n").code(0);
    Said::here().finds_nothing("System V", &[&format!("{:#x}", pipe.key)]);
}

#[test]
fn a_pipe_removed_under_a_side_is_found_with_who_has_it_open() {
    let name = Name::new("doctor-removed");
    let recv = start(&["recv", &name]);
    wait_for_holder(&name, Role::Consumer, recv.id());
    recv.signal(libc::SIGSTOP);
    ask(&["rm", "--force", &name]).code(0);
    let pid = recv.id().to_string();
    let said = Said::about(&name);
    assert!(said.mend("pipe", &["removed", &name, &pid]).starts_with(&format!("kill {pid}")));
    said.mend("pipe", &["there is no pipe"]);
    // Also where there is a new one.
    ask(&["create", &name]).code(0);
    let said = Said::about(&name);
    said.mend("pipe", &["removed", &name, &pid]);
    said.finds_nothing("pipe", &["there is no pipe"]);
    assert!(!said.is_open_in(&pid));
    drop(recv);
    Said::about(&name).finds_nothing("pipe", &[]);
}

#[test]
fn a_file_removed_under_a_side_is_found_with_who_has_it_open() {
    for kind in [Kind::Posix, Kind::File] {
        let place = Place::made(kind, "doctor-unlinked", &[]);
        let recv = start(&["recv", &place]);
        wait_for_holder(&place, Role::Consumer, recv.id());
        recv.signal(libc::SIGSTOP);
        ask(&["rm", "--force", &place]).code(0);
        let pid = recv.id().to_string();
        let said = Said::about(&place);
        said.mend("leftovers", &["removed from", place.path(), &pid]);
        said.mend("pipe", &["there is no pipe"]);
        ask(&["create", &place]).code(0);
        let said = Said::about(&place);
        let command = said.mend("leftovers", &["removed from", place.path(), &pid]);
        assert!(!said.is_open_in(&pid));
        mend(&format!("kill -CONT {pid}; {command}"));
        recv.finish();
        Said::about(&place).finds_nothing("leftovers", &[place.path()]);
    }
}

#[test]
fn a_pipe_from_before_the_last_start_is_found() {
    let memfd = Place::with(Kind::Memfd, "doctor-trusting", &["--mode", "666"]);
    Said::about(&memfd).finds_nothing("pipe", &[]);
    let place = Place::made(Kind::File, "doctor-stale", &[]);
    Said::about(&place).finds_nothing("pipe", &[]);
    if !place.make_stale() {
        return;
    }
    let command = Said::about(&place).mend("pipe", &["before the machine was last started"]);
    let command = command.split('#').next().unwrap().trim().to_owned();
    script(&format!("{command} --timeout 100ms")).finish().code(5);
    Said::about(&place).finds_nothing("pipe", &[]);
}

#[test]
fn what_cannot_be_used_is_found_with_what_helps() {
    let place = Place::made(Kind::File, "doctor-odd", &[]);
    let not_there = Place::new(Kind::Posix, "doctor-nothing");
    std::fs::write(place.path(), [b'x'; 10_000]).unwrap();
    for (address, error, what, helps) in [
        (&*place, "unfit_segment", "is no pipe", "ls -l "),
        ("file:/tmp", "unfit_segment", "a directory", "ls -l /tmp"),
        (&*not_there, "not_found", "there is no pipe", "shmpipe create posix:/"),
        ("memfd:/tmp/no-such-socket", "not_found", "there is no pipe", "shmpipe serve /tmp/no-such-socket"),
    ] {
        let said = Said::about(address);
        assert_eq!(said.check("pipe")["error"], error, "{address}");
        let command = said.mend("pipe", &[what]);
        assert!(command.starts_with(helps), "{command}");
    }
}

#[test]
fn who_holds_what_is_told_and_a_stopped_side_is_found() {
    for kind in Kind::ALL {
        let place = Place::new(kind, "doctor-stopped");
        let (send, recv) = (start(&["send", &place]), start(&["recv", &place]));
        wait_for_holder(&place, Role::Producer, send.id());
        wait_for_holder(&place, Role::Consumer, recv.id());
        let said = Said::about(&place);
        for (side, process) in [("producer", &send), ("consumer", &recv)] {
            let check = said.check(side);
            assert_eq!((&check["pid"], &check["state"]), (&process.id().into(), &"alive".into()));
            assert_eq!((&check["command"], &check["claims"]), (&"shmpipe".into(), &1.into()));
            assert!(check["process_age_seconds"].as_u64().unwrap() < 600);
            said.finds_nothing(side, &[]);
        }
        said.finds_nothing("pipe", &[]);
        assert!([&send, &recv].iter().all(|process| said.is_open_in(&process.id().to_string())));
        send.signal(libc::SIGSTOP);
        let command = eventually(|| {
            let said = Said::about(&place);
            (!said.found("producer", &[]).is_empty())
                .then(|| said.mend("producer", &["stopped", &send.id().to_string()]))
        });
        mend(&command);
        send.finish().code(0);
        recv.finish().code(0);
    }
}

#[test]
fn a_side_whose_other_side_has_died_is_found() {
    let name = Name::new("doctor-half");
    let (send, recv) = (start(&["send", &name]), start(&["recv", &name, "--follow"]));
    wait_for_holder(&name, Role::Producer, send.id());
    wait_for_holder(&name, Role::Consumer, recv.id());
    send.signal(libc::SIGKILL);
    send.finish().killed();
    let command = Said::about(&name).mend("producer", &["has died", "still there"]);
    assert!(command.starts_with(&format!("shmpipe send {}", &*name)), "{command}");
    mend(&format!("{command} < /dev/null"));
    let said = Said::about(&name);
    said.finds_nothing("producer", &[]);
    assert_eq!(said.check("producer")["claims"], 2);
}

#[test]
fn a_pipe_that_everybody_may_use_is_found_and_made_anew() {
    for kind in Kind::NAMED {
        let place = Place::new(kind, "doctor-mode");
        for (mode, may) in [("666", "write"), ("644", "read")] {
            ask(&["create", &place, "--mode", mode]).code(0);
            let command = Said::about(&place).mend("pipe", &["everybody", may]);
            mend(&command);
            Said::about(&place).finds_nothing("pipe", &[]);
            ask(&["rm", &place]).code(0);
        }
    }
}
