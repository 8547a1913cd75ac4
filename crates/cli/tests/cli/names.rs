//! Names and paths that mislead a shell or a terminal, or that are not UTF-8.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::Value;

use crate::process::{Directory, Finished, Name, Running, ask, bash, shmpipe};

/// An address of any bytes; what is there is removed when the test ends.
struct Odd {
    address: OsString,
    /// The directory in which commands run, and in which `file:` pipes lie.
    directory: Directory,
}

impl Odd {
    /// `address` may have the directory in it, as DIR, and a unique name, as NAME.
    fn new(address: &[u8]) -> Odd {
        let name = Name::new("odd");
        let directory = Directory::new("odd");
        let replace =
            |text: Vec<u8>, what: &[u8], by: &[u8]| match text.windows(what.len()).position(|w| w == what) {
                Some(at) => [&text[..at], by, &text[at + what.len()..]].concat(),
                None => text,
            };
        let address = replace(address.to_owned(), b"DIR", directory.path().as_os_str().as_bytes());
        let address = replace(address, b"NAME", name.as_bytes());
        Odd { address: OsString::from_vec(address), directory }
    }

    fn start(&self, command: &str, options: &[&str], input: Stdio) -> Running {
        let mut tool = shmpipe(&[command]);
        tool.arg(&self.address).args(options).current_dir(self.directory.path());
        Running::start(tool.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    fn run(&self, command: &str, options: &[&str], input: Stdio) -> Finished {
        self.start(command, options, input).finish()
    }

    fn ask(&self, command: &str, options: &[&str]) -> Finished {
        self.run(command, options, Stdio::null())
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        let _ = shmpipe::Address::try_from(&*self.address).map(shmpipe::unlink_force);
    }
}

/// The command that the doctor prints for a pipe that every user may write to, as JSON and as text.
fn fix(odd: &Odd) -> String {
    let json = String::from_utf8(odd.ask("doctor", &["--json"]).out).unwrap();
    let objects = json.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let finding =
        objects.into_iter().find(|object| object["kind"] == "finding" && object["check"] == "pipe").unwrap();
    let fix = finding["mend"].as_str().unwrap().to_owned();
    let text = String::from_utf8(odd.ask("doctor", &[]).out).unwrap();
    assert!(text.contains(&format!("fix: {fix}\n")), "{fix}: {text}");
    fix
}

#[test]
fn a_printed_command_does_to_any_name_what_it_says_and_nothing_else() {
    for address in [
        &b"NAME;id>owned;"[..],
        b"NAME$(id>owned)",
        b"NAME`id>owned`",
        b"NAME'\"&&id>owned",
        b"posix:/NAME a b;id>owned",
        b"posix:/NAME\x1b[31m\n$(id>owned)",
        b"posix:/NAME \xff",
        b"file:DIR/a b;id>owned",
        b"file:DIR/\xff\xfe'",
    ] {
        let odd = Odd::new(address);
        let name = odd.address.to_string_lossy();
        odd.ask("create", &["--mode", "0662"]).code(0);
        let fix = fix(&odd);
        let directory = odd.directory.path().display();
        bash(&format!("cd {directory} && {fix}")).finish().code(0);
        assert!(!odd.directory.path().join("owned").exists(), "{fix} has run what {name:?} says");
        let snapshot = shmpipe::inspect(shmpipe::Address::try_from(&*odd.address).unwrap()).unwrap();
        assert_eq!(snapshot.permissions.mode, 0o660, "{fix}");
    }
}

#[test]
fn a_path_need_not_be_utf8() {
    for (address, shown) in [(&b"posix:/NAME-\xff"[..], r"-\xff"), (b"file:DIR/\xc3\xa9\xe9", r"/é\xe9")] {
        let odd = Odd::new(address);
        odd.ask("create", &[]).code(0).quiet();
        let lines = fs::File::create_new(odd.directory.path().join("lines")).unwrap();
        fs::write(odd.directory.path().join("lines"), "1\n2\n").unwrap();
        drop(lines);
        let input = fs::File::open(odd.directory.path().join("lines")).unwrap();
        odd.run("send", &[], input.into()).code(0).quiet();
        let stat = odd.ask("stat", &[]).code(0).quiet();
        assert!(String::from_utf8(stat.out).unwrap().contains(shown));
        let stat: Value = serde_json::from_slice(&odd.ask("stat", &["--json"]).code(0).out).unwrap();
        assert!(stat["address"].as_str().unwrap().ends_with(shown), "{stat}");
        assert!(stat["page_bytes"].is_u64(), "{stat}");
        let base64 = bash(&format!("printf %s {} | base64 -d", stat["address_base64"].as_str().unwrap()));
        base64.finish().code(0).wrote(odd.address.as_bytes());
        let watch = odd.start("stat", &["--watch=10ms", "--json"], Stdio::null());
        let said = watch.wait_for_output(|said| said.contains(&b'\n'));
        watch.signal(libc::SIGTERM);
        watch.finish().code(143).quiet();
        let line: Value = serde_json::from_slice(said.split(|&byte| byte == b'\n').next().unwrap()).unwrap();
        let top = |list: &str| {
            let tick = odd.ask("top", &["--once", "--interval", "10ms", "--json"]).code(0).quiet();
            serde_json::from_slice::<Value>(&tick.out).unwrap()[list][0].clone()
        };
        for object in [&line, &top("pipes")] {
            assert!(object["address"].as_str().unwrap().ends_with(shown), "{object}");
            assert_eq!(object["address_base64"], stat["address_base64"]);
        }
        if address.starts_with(b"posix") {
            let listed = String::from_utf8(ask(&["ls"]).code(0).out).unwrap();
            assert!(listed.contains(shown), "{listed}");
        }
        odd.ask("recv", &[]).code(0).quiet().wrote(b"1\n2\n");
        odd.ask("rm", &[]).code(0).quiet();
        odd.ask("stat", &[]).code(3).said(&[shown]);
        assert_eq!(top("unreadable")["address_base64"], stat["address_base64"]);
    }
    let name = Odd::new(b"NAME\xff");
    let refused = name.ask("create", &[]).code(2);
    assert!(refused.err.contains("not UTF-8"), "{}", refused.err);
}

#[test]
fn a_socket_need_not_be_utf8() {
    let odd = Odd::new(b"memfd:DIR/\xff.sock");
    let mut tool = shmpipe(&["serve"]);
    tool.arg(OsString::from_vec(odd.address.as_bytes()[b"memfd:".len()..].to_owned()));
    let server = Running::start(tool.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let said = server.wait_for_output(|said| said.ends_with(b"\n"));
    assert!(String::from_utf8(said).unwrap().ends_with("/\\xff.sock\n"));
    odd.ask("send", &[]).code(0).quiet();
    odd.ask("recv", &[]).code(0).quiet();
}

#[test]
fn a_word_of_the_user_is_escaped_in_an_error_about_it() {
    for words in [
        &["stat", "a\u{1b}[2Jb"][..],
        &["stat", "x\u{1b}:y"],
        &["send", "x", "--capacity", "\u{1b}[2J"],
        &["send", "x", "--\u{1b}[2J"],
        &["\u{1b}[2J\n"],
        &["create", "posix:/\u{202e}/x"],
    ] {
        let err = ask(words).code(2).err.clone();
        assert!(!err.contains(['\u{1b}', '\u{202e}']), "{err:?}");
    }
}

#[test]
fn created_addresses_are_printed_escaped() {
    let odd = Odd::new(b"posix:/NAME\x1b[2J");
    let out = odd.ask("create", &[]).code(0).quiet().out;
    assert!(String::from_utf8(out).unwrap().ends_with("\\u{1b}[2J\n"));
    assert_eq!(
        fs::metadata(format!("/dev/shm/{}", odd.address.to_str().unwrap().trim_start_matches("posix:/")))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
}
