//! The examples that make a promise, run as programs.

use shmpipe::inspect;
use shmpipe_testing::backend::Backend;
use shmpipe_testing::until;
use std::env;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

/// An example that runs. Dropping it kills it.
struct Running(Child);

impl Running {
    fn start(name: &str, words: &[&str]) -> Self {
        let program = env::current_exe().unwrap().parent().unwrap().with_file_name("examples").join(name);
        let mut command = Command::new(&program);
        command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(command.spawn().unwrap_or_else(|error| {
            panic!("{}: {error}; `cargo build --examples` makes it", program.display())
        }))
    }

    /// Waits until it has succeeded, and returns what it said on standard error.
    fn end(&mut self) -> String {
        let mut said = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let status = self.0.wait().unwrap();
        assert!(status.success(), "{status}: {said}");
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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
    let mut worker = Running::start("logger", &["work", place.as_str()]);
    let mut is_shipped = vec![false; LINES];
    // Until lines are dropped: no shipper makes room.
    let mut overflow = || {
        let dropped = || inspect(&place).map_or(0, |seen| seen.dropped);
        let before = dropped();
        until("a full pipe", || dropped() > before || worker.0.try_wait().unwrap().is_some());
    };
    overflow();
    // Returns whether the shipper was killed.
    let mut ship = |most: Option<usize>| {
        let mut shipper = Running::start("logger", &["ship", place.as_str()]);
        let mut lines = BufReader::new(shipper.0.stdout.take().unwrap());
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
                shipper.0.kill().unwrap();
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
    let said = worker.end();
    let dropped = said.split_once("ns a line; ").and_then(|(_, rest)| rest.split_once(" lines dropped"));
    let dropped: usize = dropped.unwrap_or_else(|| panic!("{said}")).0.parse().unwrap();
    assert!(dropped > 0);
    let shipped = is_shipped.iter().filter(|&&shipped| shipped).count();
    assert_eq!(shipped + dropped, LINES, "{said}");
}
