//! Shell completions and man pages: they have every command and every option of `--help`.

use std::fs;
use std::process::{Command, Stdio};

use crate::process::{Directory, Running, ask};

/// A command and its options, as its help lists them.
struct Listed {
    name: String,
    options: Vec<String>,
}

fn help(words: &[&str]) -> String {
    String::from_utf8(ask(&[words, &["--help"]].concat()).code(0).out).unwrap()
}

/// The long options at the beginning of lines.
fn options(help: &str) -> Vec<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let words = lines.flat_map(|line| line.split_whitespace().take(2));
    let options = words.filter(|word| word.starts_with("--"));
    // A value that may be left out follows at once: `--watch[=<INTERVAL>]`.
    options.map(|option| option.split('[').next().unwrap_or_default().to_owned()).collect()
}

/// All commands but `help`.
fn commands() -> Vec<Listed> {
    let all = help(&[]);
    let list = all.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    let commands: Vec<Listed> = names
        .filter(|name| *name != "help")
        .map(|name| Listed { name: name.to_owned(), options: options(&help(&[name])) })
        .collect();
    // Otherwise the tests below would check nothing.
    assert!(commands.len() >= 12);
    assert!(commands.iter().all(|command| command.options.len() >= 2));
    commands
}

fn completions(shell: &str) -> String {
    String::from_utf8(ask(&["completions", shell]).code(0).quiet().out).unwrap()
}

/// The completions of bash for the last of these words, without file names.
fn in_bash(script: &str, words: &[&str]) -> Vec<String> {
    let last = words.len() - 1;
    let ask = format!(
        "{script}\nCOMP_WORDS=({})\nCOMP_CWORD={last}\n_shmpipe shmpipe '{}' '{}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.join(" "),
        words[last],
        words[last - 1]
    );
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", &ask]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let finished = Running::start(&mut bash).finish().code(0).quiet();
    String::from_utf8(finished.out).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_every_command_and_option() {
    if Command::new("bash").arg("--version").output().is_err() {
        eprintln!("skipped: needs bash");
        return;
    }
    let script = completions("bash");
    let names = in_bash(&script, &["shmpipe", ""]);
    for Listed { name, options } in commands() {
        assert!(names.contains(&name), "{name} is not among {names:?}");
        let completed = in_bash(&script, &["shmpipe", &name, "--"]);
        for option in options {
            assert!(completed.contains(&option), "{name}: {option} is not among {completed:?}");
        }
    }
    assert_eq!(in_bash(&script, &["shmpipe", "send", "--wait", "s"]), ["spin", "sleep"]);
}

#[test]
fn zsh_completes_every_command_and_option() {
    let script = completions("zsh");
    assert!(script.starts_with("#compdef shmpipe\n"));
    for Listed { name, options } in commands() {
        assert!(script.contains(&format!("'{name}:")), "{name}");
        let start = format!("({name})");
        let from = script.lines().map(str::trim).skip_while(|line| *line != start);
        let its: Vec<&str> = from.take_while(|line| *line != ";;").collect();
        for option in options {
            let wanted = [format!("{option}["), format!("{option}=[")];
            let found = its.iter().any(|line| wanted.iter().any(|wanted| line.contains(wanted)));
            assert!(found, "{name}: {option} is not in {its:?}");
        }
    }
}

#[test]
fn fish_completes_every_command_and_option() {
    let script = completions("fish");
    for Listed { name, options } in commands() {
        assert!(script.contains(&format!("-a \"{name}\"")), "{name}");
        let start = format!("complete -c shmpipe -n \"__fish_shmpipe_using_subcommand {name}\" ");
        let its: Vec<&str> = script.lines().filter(|line| line.starts_with(&start)).collect();
        for option in options {
            let wanted = format!(" -l {} ", option.trim_start_matches('-'));
            assert!(its.iter().any(|line| format!("{line} ").contains(&wanted)), "{name}: {option}");
        }
    }
}

#[test]
fn every_command_has_a_man_page_with_every_option() {
    let directory = Directory::new("man");
    let pages = directory.path().join("share/man1");
    ask(&["man", pages.to_str().unwrap()]).code(0).quiet().wrote(b"");
    let page = |name: &str| {
        let page = fs::read_to_string(pages.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        // A hyphen that is to be copied as one has a backslash.
        page.replace("\\-", "-")
    };
    let all = page("shmpipe.1");
    assert!(all.contains("\nExit codes:\n"));
    let commands = commands();
    assert_eq!(fs::read_dir(&pages).unwrap().count(), commands.len() + 1);
    for Listed { name, options } in commands {
        assert!(all.contains(&format!("shmpipe-{name}(1)")), "{name}");
        let its = page(&format!("shmpipe-{name}.1"));
        assert!(its.contains(&format!("\nshmpipe-{name} - ")), "{its}");
        assert!(its.contains("exit codes: shmpipe --help"), "{its}");
        let described = its.split("\n.SH OPTIONS\n").nth(1).unwrap();
        for option in options {
            assert!(
                described.contains(&format!("\\fB{option}\\fR")),
                "{name}: {option} is not in {described}"
            );
        }
    }
}

#[test]
fn wrong_arguments_and_unwritable_directories_are_errors() {
    ask(&["completions", "tcsh"]).code(2);
    ask(&["completions"]).code(2);
    ask(&["man", "/dev/null/man1"]).code(1).said(&["writing man pages to /dev/null/man1"]);
}
