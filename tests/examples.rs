//! The examples that make a promise, run as programs.

use shmpipe::inspect;
use shmpipe_testing::backend::Backend;
use shmpipe_testing::running::Running;
use shmpipe_testing::until;
use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Starts an example.
fn start(name: &str, words: &[&str]) -> Running {
    let program = env::current_exe().unwrap().parent().unwrap().with_file_name("examples").join(name);
    assert!(program.exists(), "{}: `cargo build --examples` makes it", program.display());
    Running::start(Command::new(program).args(words).stdout(Stdio::piped()).stderr(Stdio::piped()))
}

/// The number in `INFO logger: order NUMBER filled at PRICE`. None if the line is cut short.
fn order(line: &str) -> Option<usize> {
    let (_, rest) = line.strip_suffix('\n')?.split_once(": order ")?;
    let (number, price) = rest.split_once(" filled at ")?;
    let number: usize = number.parse().unwrap();
    assert_eq!(price.parse(), Ok(10_842 + number % 7), "{line}");
    Some(number)
}

#[test]
fn a_line_is_shipped_or_counted_as_dropped_although_a_shipper_is_killed() {
    const LINES: usize = 1_000_000;
    let place = Backend::SysV.place();
    let mut worker = start("logger", &["work", place.as_str()]);
    let mut is_shipped = vec![false; LINES];
    // Until lines are dropped: no shipper makes room.
    let mut overflow = || {
        let dropped = || inspect(&place).map_or(0, |seen| seen.dropped);
        let before = dropped();
        until("a full pipe", || dropped() > before || worker.has_ended().is_some());
    };
    overflow();
    // Returns whether the shipper was killed.
    let mut ship = |most: Option<usize>| {
        let mut shipper = start("logger", &["ship", place.as_str()]);
        let mut lines = BufReader::new(shipper.stdout.take().unwrap());
        let (mut line, mut count, mut last) = (String::new(), 0, None);
        while lines.read_line(&mut line).unwrap() > 0 {
            let number = order(&line);
            // A shipper that was killed may have written a part of its last line.
            assert!(number.is_some() || most.is_some(), "{line}");
            if let Some(number) = number {
                assert!(last < Some(number), "{number} after {last:?}");
                is_shipped[number] = true;
                last = Some(number);
            }
            line.clear();
            count += 1;
            if most == Some(count) {
                // It is in the middle of writing.
                overflow();
                shipper.kill();
            }
        }
        let is_killed = most.is_some_and(|most| count >= most);
        if !is_killed {
            shipper.end();
        }
        is_killed
    };
    let lives = [Some(1000), Some(20_000), None];
    assert!(lives.into_iter().any(|most| !ship(most)));
    let said = worker.end().stderr;
    let dropped = said.split_once("ns a line; ").and_then(|(_, rest)| rest.split_once(" lines dropped"));
    let dropped: usize = dropped.unwrap_or_else(|| panic!("{said}")).0.parse().unwrap();
    assert!(dropped > 0);
    let shipped = is_shipped.iter().filter(|&&shipped| shipped).count();
    assert_eq!(shipped + dropped, LINES, "{said}");
}
