//! The generated program: its start by this process, and its main function, which runs one session.

use std::env;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use super::record::{self, Measured};
use super::{BENCHES, What};
use crate::bench::{Bench, Options, check, choose, is_known, with_all};
use crate::collected::Collected;
use crate::endpoint::Endpoint;
use crate::errors::{about, unfit};
use crate::invitation::{Invitation, Invited};
use crate::latency;
use crate::paced;
use crate::partner;
use crate::session::{Experiment, Session};
use crate::slices::{self, Plan, Until};
use crate::splitmix::SplitMix64;
use crate::transports::{Mode, Transport};

/// The default transports.
const DEFAULT: &str = "shmpipe";

/// Starts `program`, which measures for `length`, and returns what it writes.
pub(super) fn start(
    program: &Path,
    bench: Bench,
    round: u32,
    words: &[String],
    length: Duration,
) -> io::Result<String> {
    let mut command = Command::new(program);
    let named = BENCHES.iter().find(|(_, its)| *its == bench);
    let (name, _) = named.ok_or_else(|| unfit("--against: this bench does not compare"))?;
    command.args([*name, &round.to_string()]).args(words);
    command.args(["--seconds", &length.as_secs_f64().to_string()]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| about(format_args!("{}", program.display()), error))?;
    if !output.status.success() {
        return Err(io::Error::other(format!("{} ended with {}", program.display(), output.status)));
    }
    String::from_utf8(output.stdout).map_err(|_| record::unreadable("text that is no UTF-8"))
}

/// The main function of the program. `sides` has a label and the transports of each tree. The first is this tree, whose label
/// is empty.
pub fn serve(sides: &[(&'static str, &'static [&'static dyn Transport])]) -> ExitCode {
    let sides: Vec<Side> = sides.iter().map(|(label, transports)| Side::new(label, transports)).collect();
    // the transports of the trees come first, and hide those over this crate's own copy of the library
    let ours: Vec<&'static dyn Transport> = sides.iter().flat_map(|side| side.transports.clone()).collect();
    let known = with_all(&ours);
    partner::serve_if_partner(&known);
    match measure(&sides, &known).and_then(|text| io::stdout().write_all(text.as_bytes())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The transports of one tree, renamed unless it is this one.
struct Side {
    label: &'static str,
    transports: Vec<&'static dyn Transport>,
}

impl Side {
    fn new(label: &'static str, transports: &[&'static dyn Transport]) -> Side {
        let transports = transports.iter().map(|&transport| match label {
            "" => transport,
            _ => renamed(transport, label),
        });
        Side { label, transports: transports.collect() }
    }
}

/// The name of the transport of another tree.
pub(super) fn name_at(transport: &str, label: &str) -> String {
    format!("{transport}@{label}")
}

fn renamed(inner: &'static dyn Transport, label: &str) -> &'static dyn Transport {
    // leaked on purpose: they are few, and used until the program ends
    let name = Box::leak(name_at(inner.name(), label).into_boxed_str());
    Box::leak(Box::new(Renamed { name, inner }))
}

/// A transport under another name.
struct Renamed {
    name: &'static str,
    inner: &'static dyn Transport,
}

impl Transport for Renamed {
    fn name(&self) -> &'static str {
        self.name
    }

    fn mode(&self) -> Mode {
        self.inner.mode()
    }

    fn about(&self) -> &'static str {
        self.inner.about()
    }

    fn passes_descriptors(&self) -> bool {
        self.inner.passes_descriptors()
    }

    fn warm_up_bytes(&self, capacity: usize) -> usize {
        self.inner.warm_up_bytes(capacity)
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        self.inner.make(invitation)
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        self.inner.join(invited)
    }
}

/// The transports to measure, in the order of the tables, and the pairs to compare.
struct Chosen {
    transports: Vec<&'static dyn Transport>,
    /// The name in this tree, and the name in the other.
    pairs: Vec<(&'static str, &'static str)>,
}

impl Chosen {
    /// The requested ones. Each one of this library is followed by those of the other trees.
    fn new(sides: &[Side], known: &[&'static dyn Transport], wanted: &[String]) -> io::Result<Chosen> {
        let Some((this, others)) = sides.split_first() else { return Err(unfit("a program without trees")) };
        let default = [DEFAULT.to_owned()];
        let wanted = if wanted.is_empty() { &default } else { wanted };
        let mut chosen = Chosen { transports: Vec::new(), pairs: Vec::new() };
        let mut add = |transport: &'static dyn Transport| {
            if !is_known(&chosen.transports, transport.name()) {
                chosen.transports.push(transport);
            }
        };
        for transport in choose(&[], known, wanted)? {
            add(transport);
            if !is_known(&this.transports, transport.name()) {
                continue;
            }
            for other in others {
                let name = name_at(transport.name(), other.label);
                if let Some(found) = other.transports.iter().find(|found| found.name() == name) {
                    add(*found);
                    chosen.pairs.push((transport.name(), found.name()));
                }
            }
        }
        if chosen.pairs.is_empty() {
            return Err(unfit("--against: --transports names nothing that all trees have"));
        }
        Ok(chosen)
    }
}

/// Measures by the command line, and returns lines for [`Report::read`](record::Report::read).
fn measure(sides: &[Side], known: &[&'static dyn Transport]) -> io::Result<String> {
    let mut words = env::args().skip(1);
    let bench = words.next().and_then(|word| BENCHES.into_iter().find(|(name, _)| *name == word));
    let round: Option<u64> = words.next().and_then(|word| word.parse().ok());
    let (Some((_, bench)), Some(round)) = (bench, round) else {
        return Err(unfit(
            "this program is started by the option --against of ping_pong, throughput and paced",
        ));
    };
    let options = Options::parse(bench, words)?;
    let chosen = Chosen::new(sides, known, &options.transports)?;
    if let Some(baseline) = &options.baseline {
        choose(&[], &chosen.transports, std::slice::from_ref(baseline))?;
    }
    let mut order = chosen.transports.clone();
    shuffle(&mut order, round);
    let mut session = Session::start(&options.settings, &order)?;
    check(&mut session, &options.sizes)?;
    let (sizes, duration) = (&options.sizes[..], options.duration()?);
    let measured = match What::of(bench, &options)? {
        What::Slices(experiment) => {
            Measured::Slices(slices_of(&mut session, experiment, sizes, duration, round)?)
        }
        What::Latency => Measured::Latency(latency::collect(&mut session, sizes, duration)?),
        What::Paced => Measured::Paced(paced::collect(&mut session, sizes, &options.rates, duration)?),
    };
    Ok(record::write(&chosen.transports, &chosen.pairs, &measured))
}

/// The order in which the rings are created decides which memory they get. So each round has its own order, and every second
/// round reverses the one before.
fn shuffle<T>(items: &mut [T], round: u64) {
    SplitMix64::new(round / 2).shuffle(items);
    if round % 2 == 1 {
        items.reverse();
    }
}

fn slices_of(
    session: &mut Session,
    experiment: Experiment,
    sizes: &[usize],
    duration: Duration,
    round: u64,
) -> io::Result<Collected> {
    let mut plan = Plan::new(Until::Elapsed(duration)).with(session, experiment, sizes);
    plan.seed += round;
    slices::collect(session, &plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transports::{self, SHMPIPES};

    fn sides() -> Vec<Side> {
        vec![Side::new("", SHMPIPES), Side::new("HEAD", SHMPIPES), Side::new("old", &SHMPIPES[..1])]
    }

    fn chosen(wanted: &[&str]) -> io::Result<Chosen> {
        let sides = sides();
        let ours: Vec<_> = sides.iter().flat_map(|side| side.transports.clone()).collect();
        let wanted: Vec<String> = wanted.iter().map(|name| name.to_string()).collect();
        Chosen::new(&sides, &with_all(&ours), &wanted)
    }

    fn names(chosen: &Chosen) -> Vec<&'static str> {
        chosen.transports.iter().map(|transport| transport.name()).collect()
    }

    #[test]
    fn each_transport_is_followed_by_those_of_the_other_trees() {
        let all = chosen(&["classic", "shmpipe", "shmpipe-batch"]).unwrap();
        let expected =
            ["classic", "shmpipe", "shmpipe@HEAD", "shmpipe@old", "shmpipe-batch", "shmpipe-batch@HEAD"];
        assert_eq!(names(&all), expected);
        let pairs = [(1, 2), (1, 3), (4, 5)].map(|(this, other)| (expected[this], expected[other]));
        assert_eq!(all.pairs, pairs);
        assert_eq!(names(&chosen(&[]).unwrap()), expected[1..4]);
        let expected = ["shmpipe@HEAD", "shmpipe", "shmpipe@old"];
        assert_eq!(names(&chosen(&["shmpipe@HEAD", "shmpipe"]).unwrap()), expected);
    }

    #[test]
    fn nothing_to_compare_is_an_error() {
        assert!(chosen(&["classic"]).err().unwrap().to_string().contains("nothing that all trees have"));
        assert!(chosen(&["shmpipe@new"]).err().unwrap().to_string().contains("no transport shmpipe@new"));
    }

    #[test]
    fn renamed_transport_is_otherwise_the_same() {
        for transport in transports::ALL {
            let renamed = renamed(*transport, "x");
            assert_eq!(renamed.name(), format!("{}@x", transport.name()));
            assert_eq!(
                (renamed.mode(), renamed.about(), renamed.passes_descriptors()),
                (transport.mode(), transport.about(), transport.passes_descriptors())
            );
            assert_eq!(renamed.warm_up_bytes(4096), transport.warm_up_bytes(4096));
        }
    }

    #[test]
    fn two_rounds_are_balanced() {
        for pair in 0..10 {
            let mut rounds = [[0, 1, 2, 3, 4]; 2];
            shuffle(&mut rounds[0], 2 * pair);
            shuffle(&mut rounds[1], 2 * pair + 1);
            rounds[1].reverse();
            assert_eq!(rounds[0], rounds[1]);
        }
    }
}
