//! The examples, as their users run them, and `make install` with programs that find the library by pkg-config.

use crate::compiler::{C99, built, compile_if_possible, folder, has, run, soname};
use shmpipe::{Options, Peer, inspect};
use shmpipe_testing::name::Name;
use shmpipe_testing::running::Running;
use shmpipe_testing::{LONG, until};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

fn example(name: &str, flags: &[&str]) -> Command {
    let source = format!("examples/{name}.c");
    let program = compile_if_possible(C99, &source, &format!("example-{name}"), flags);
    Command::new(program.unwrap_or_else(|error| panic!("{error}")))
}

#[test]
fn shmwrite_and_shmread() {
    let name = Name::new();
    let mut writer = example("shmwrite", &[]);
    let mut writer = Running::start(writer.arg(name.as_str()).stdin(Stdio::piped()));
    let lines = "one\ntwo\nthree\n";
    writer.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let mut reader = example("shmread", &[]);
    let reader = Running::start(reader.arg(name.as_str()).stdout(Stdio::piped()));
    writer.end();
    assert_eq!(reader.end().stdout, lines);
}

#[test]
fn feed() {
    let name = Name::new();
    let mut subscriber = example("feed", &[]);
    let subscriber = Running::start(subscriber.args(["subscribe", name.as_str()]).stdout(Stdio::piped()));
    let mut publisher = Command::new(Path::new(env!("CARGO_TARGET_TMPDIR")).join("example-feed"));
    publisher.args(["publish", name.as_str(), "100000"]);
    until("a subscriber", || inspect(&name).is_ok_and(|pipe| pipe.consumer.peer == Peer::Open));
    let numbers = |said: &str| -> Vec<u64> {
        said.split([' ', ',', '\n']).filter_map(|word| word.parse().ok()).take(2).collect()
    };
    let [sent, dropped] = numbers(&run(&mut publisher))[..] else { panic!() };
    let [received, missed] = numbers(&subscriber.end().stdout)[..] else { panic!() };
    assert_eq!((sent + dropped, received), (100_000, sent));
    // A drop after the last one that was sent leaves no gap to see.
    assert!(missed <= dropped, "{missed} of {dropped}");
}

#[test]
fn epoll() {
    let names = [Name::new(), Name::new()];
    let mut loop_ = example("epoll", &["-D_DEFAULT_SOURCE"]);
    let loop_ = Running::start(loop_.args(names.iter().map(Name::as_str)).stdout(Stdio::piped()));
    for (name, text) in names.iter().zip(["buy", "sell"]) {
        let mut producer = Options::new().open_or_create(name).unwrap().producer().unwrap();
        producer.send_timeout(text, LONG).unwrap();
        producer.close().unwrap();
    }
    let said = loop_.end().stdout;
    for (name, text) in names.iter().zip(["buy", "sell"]) {
        assert!(said.contains(&format!("{name}: {text}\n{name}: the producer closed the pipe")), "{said}");
    }
}

#[test]
fn make_install_gives_what_pkg_config_needs() {
    let test = "make_install_gives_what_pkg_config_needs";
    if !has("make", test) || !has("pkg-config", test) {
        return;
    }
    let destination = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c-installed");
    let _ = std::fs::remove_dir_all(&destination);
    let make = |target: &str| {
        let mut make = Command::new("make");
        make.arg("-C").arg(folder()).arg(target).arg("PREFIX=/usr/test");
        make.arg(format!("DESTDIR={}", destination.display()));
        run(make.arg(format!("BUILT={}", built("libshmpipe_c.so").parent().unwrap().display())));
    };
    make("install");
    let prefix = destination.join("usr/test");
    let version = env!("CARGO_PKG_VERSION");
    for file in [
        "include/shmpipe.h",
        "include/shmpipe.hpp",
        "lib/libshmpipe.a",
        "lib/libshmpipe.so",
        &format!("lib/{}", soname()),
        &format!("lib/libshmpipe.so.{version}"),
        "lib/pkgconfig/shmpipe.pc",
    ] {
        assert!(prefix.join(file).exists(), "{file}");
    }
    let pkg_config = |options: &[&str]| -> Vec<String> {
        let mut command = Command::new("pkg-config");
        command.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
        command.env("PKG_CONFIG_SYSROOT_DIR", &destination);
        run(command.args(options).arg("shmpipe")).split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(pkg_config(&["--modversion"]), [version]);
    let program = destination.join("alone");
    let link = |flags: &[String], files: &[&Path]| {
        let mut cc = Command::new("cc");
        cc.arg(folder().join("tests/c/alone.c")).args(files).args(flags).arg("-o").arg(&program);
        run(&mut cc);
    };
    link(&pkg_config(&["--cflags", "--libs"]), &[]);
    run(Command::new(&program).env("LD_LIBRARY_PATH", prefix.join("lib")));
    // Static: the archive and the libraries that it needs.
    let private: Vec<_> = pkg_config(&["--cflags", "--libs", "--static"])
        .into_iter()
        .filter(|flag| flag != "-lshmpipe")
        .collect();
    link(&private, &[&prefix.join("lib/libshmpipe.a")]);
    run(&mut Command::new(&program));
    make("uninstall");
    assert!(!prefix.join("include/shmpipe.h").exists() && !prefix.join("lib/libshmpipe.a").exists());
    std::fs::remove_dir_all(&destination).unwrap();
}
