//! A kernel that accepts SEM_UNDO and ignores it, simulated by a library that removes the flag from every `semop`.

use shmpipe::Pipe;
use shmpipe_testing::name::Name;
use shmpipe_testing::process::Process;
use shmpipe_testing::{raw, reaper};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

const WITHOUT_UNDO: &str = r"
#define _GNU_SOURCE
#include <sys/sem.h>
#include <sys/syscall.h>
#include <unistd.h>

int semop(int set, struct sembuf *operations, size_t count)
{
    struct sembuf copy[8];
    for (size_t i = 0; i < count; i++) {
        copy[i] = operations[i];
        copy[i].sem_flg &= ~SEM_UNDO;
    }
    return syscall(SYS_semtimedop, set, copy, count, NULL);
}
";

/// The library, compiled once.
fn library() -> &'static PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = reaper::directory().join("without_undo.c");
        let library = source.with_extension("so");
        std::fs::write(&source, WITHOUT_UNDO).unwrap();
        let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
        assert!(compiled.expect("a C compiler, as for linking").success());
        library
    })
}

/// An end with such a kernel.
fn end_without_undo() -> Process {
    Process::start_under(&["env", &format!("LD_PRELOAD={}", library().display())], "end", &[])
}

#[test]
fn a_kernel_that_ignores_sem_undo_is_refused_and_nothing_is_left() {
    let name = Name::new();
    let mut end = end_without_undo();
    for attempt in ["create", "open_or_create"] {
        let refused = end.ask(format!("{attempt} {name}"));
        assert!(refused.starts_with("Kernel(Undo"), "{attempt}: {refused}");
        assert!(name.is_unused());
    }
    assert!(end.ask("create sysv:private").starts_with("Kernel(Undo"));
    // A pipe created where the kernel does undo is left unchanged.
    let pipe = Pipe::open_or_create(&name).unwrap();
    assert!(end.ask(format!("open {name}")).starts_with("Kernel(Undo"));
    assert!(end.ask(format!("open sysv:id:{}", name.segment().unwrap())).starts_with("Kernel(Undo"));
    assert_eq!(raw::semaphore(name.set().unwrap(), 0), 0, "its lock is free");
    assert!(Pipe::open(&name).is_ok_and(|again| again.id() == pipe.id()));
}

#[test]
fn roles_do_not_depend_on_undo() {
    let name = Name::new();
    let [mut first, mut second] = [end_without_undo(), end_without_undo()];
    for end in [&mut first, &mut second] {
        end.ask("allow_missing_undo");
        assert!(end.ask(format!("open_or_create {name}")).starts_with("pipe"));
    }
    assert_eq!(first.ask("producer"), "claimed");
    assert_eq!(first.ask("send first"), "sent");
    assert!(second.ask("producer").starts_with("RoleTaken"));
    first.kill();
    assert_eq!(second.ask("producer"), "claimed");
    assert_eq!(second.ask("send second"), "sent");
    assert_eq!(second.ask("consumer"), "claimed");
    assert_eq!(second.ask("recv"), "\"first\"");
    assert_eq!(second.ask("recv"), "\"second\"");
}
