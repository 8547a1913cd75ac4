//! The command line's arguments.

mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use shmpipe::{Address, Options, Wait, WakeMode};
use shmpipe_measure::NEAR_BELOW_NS;

use crate::exit::CODES;

const ADDRESSES: &str = "\
Addresses:
  ticks                a pipe by its name
  sysv:0x4d2           by an agreed System V key
  sysv:ftok:PATH:65    by the key that ftok(PATH, 65) gives
  sysv:id:7            by the identifier of its segment, which must exist
  sysv:private         a new one without a key
  posix:/ticks         a POSIX shared memory object: a file in /dev/shm
  file:PATH            a file on a local file system
  memfd:PATH           the memfd that \"shmpipe serve PATH\" hands out
  fd:3                 a memfd that is open as that descriptor

Sizes take suffixes (64KiB, 1M; kB and MB are decimal), durations too (2s, 100ms, 5m).";

/// A pipe between two unrelated processes at the speed of shared memory.
#[derive(Debug, Parser)]
#[command(
    name = "shmpipe",
    version,
    about,
    long_about = "A pipe between two unrelated processes at the speed of shared memory: one producer, one consumer, lossless, \
                  ordered messages of any length through a ring buffer in shared memory: System V, POSIX, a file, a memfd. Either side may start first, be \
                  killed and start again; what was sent stays until it was received.",
    after_help = CODES,
    after_long_help = addresses_and_codes(),
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Arguments {
    /// Speak JSON: answers on standard output, notes and errors on standard error
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

fn addresses_and_codes() -> String {
    format!("{ADDRESSES}\n\n{CODES}")
}

const BENCH_OBJECTS: &str = "\
Under --json, one object per line, told apart by \"kind\", with units in the keys; null is what could not be measured:
  bench               version, command, when, how long, how many slices, settings
  machine, note       what the figures were measured on, and what there is to know about them
  transport           what is compared, and how it waits
  floor               one cache line to and fro: one object for each placement of the two CPUs, those that did
                      not occur with \"slices\":0
  round_trip          round trips one by one: percentiles, maximum, how many
  one_way             delays of messages that were to be sent at given times, and whether the transport kept up
  wake_up             delays of messages that found their receiver asleep
  too_slow            what was left out of one_way, for it cannot carry so many
  percentile          a point of the curve \"of\" one of these: one in \"one_in\" takes longer
  round_trip_by_size  the median of the slices, quartiles, how many, how many times the floor
  throughput          the same for messages in a row, with messages and gigabytes (10^9 bytes) per second
  idle                the CPU of a receiver to which nothing comes
The report (--html) shows nothing that is not in these objects.";

fn bench_and_codes() -> String {
    format!("{BENCH_OBJECTS}\n\n{CODES}")
}

const DOCTOR_OBJECTS: &str = "\
Under --json, one object per line, told apart by \"kind\", with units in the keys; null is what is not known:
  doctor              version, address, checks: how many were made, findings, unknown: how many could not be made in full
  finding             the check that made it, what was found, why it matters, the command that mends it: mend
  check               check: its name, verdict: ok, finding or unknown, summary, unknown_because, and what it saw:
    namespaces        ipc, mount, pid, user: machine, own or unknown; container
    limits            shmmax_bytes, shmall_pages, shmmni_segments, semmsl_semaphores_per_set, semmns_semaphores,
                      semopm_operations, semmni_sets; used_segments, used_pages, used_sets, used_semaphores
    /dev/shm          file_system, size_bytes, free_bytes, read_only, writable, mode
    logind            logind_is_running, remove_ipc, uid, lingers
    undo              undone
    locks             held_while_mapped, freed_by_munmap
    membarrier        global_expedited
    locked memory     memlock_bytes, may_lock_all
    huge pages        huge_page_bytes, reserved, free, shm_group_gid, transparent_for_shared_memory
    leftovers         pipes, open, left_empty, left_with_messages, waiting_for_a_consumer
    System V          wrong
    pipe              used_bytes, capacity_bytes, unread_messages, age_seconds, owner_uid, creator_uid, mode, open_in_pids,
                      or error
    producer, consumer   state, pid, command, uid, process_age_seconds, claims, messages, position_bytes";

fn doctor_and_codes() -> String {
    format!("{ADDRESSES}\n\n{DOCTOR_OBJECTS}\n\n{CODES}")
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sends standard input as messages; by default one line is one message
    ///
    /// A line goes out as soon as it was read, without its newline; what follows the last newline is a message too. When the
    /// pipe is full, send waits; when the consumer has died, it says so and waits for its successor.
    #[command(after_help = addresses_and_codes())]
    Send(Send),
    /// Writes messages to standard output; by default each as a line
    ///
    /// A message is released after it was written out, never before, so that nothing is lost however recv ends: the next one
    /// goes on there. After a kill it repeats one batch at most, some 60 KiB.
    #[command(after_help = addresses_and_codes())]
    Recv(Recv),
    /// Makes a new pipe and prints its address
    #[command(after_help = addresses_and_codes())]
    Create(Create),
    /// Makes a pipe in a memfd and hands it out at a Unix socket, until it is interrupted
    ///
    /// A memfd has no name, and nobody gets it but those who are given it: processes of root and of this user that open
    /// memfd:PATH. Whoever has it keeps it when this ends.
    #[command(after_help = CODES)]
    Serve(Serve),
    /// Lists all pipes of this machine
    ///
    /// System V segments, files in /dev/shm, and the files and memfds that processes have open: for root those of all
    /// processes, otherwise of this user's.
    #[command(visible_alias = "list", after_help = CODES)]
    Ls,
    /// Shows what a pipe is like at this moment, without disturbing it
    #[command(after_help = addresses_and_codes())]
    Stat {
        /// The pipe
        address: Address,
    },
    /// Removes pipes, with all that is in them
    ///
    /// A pipe in use is refused. With --stale only those go that were used, that no process has open and in which there is
    /// nothing left to read; those with messages, and those not used yet, are listed, and go with --force. Without addresses that looks at all pipes of this
    /// user, for root at everybody's.
    #[command(after_help = addresses_and_codes())]
    Rm {
        /// The pipes
        #[arg(required_unless_present = "stale", value_name = "ADDRESS")]
        addresses: Vec<Address>,
        /// Remove them even while a producer or a consumer is there, and say so; with --stale, even what is unread or unused
        #[arg(long, short)]
        force: bool,
        /// Only what was left behind: pipes that nobody has open
        #[arg(long)]
        stale: bool,
    },
    /// Looks for what stands, or will stand, in the way of pipes on this machine, and says how to mend it
    ///
    /// Given an address, it looks at that pipe too. A check that cannot be made says so, and is no finding. Nothing is
    /// changed.
    #[command(after_help = CODES, after_long_help = doctor_and_codes())]
    Doctor {
        /// A pipe to look at as well
        address: Option<Address>,
    },
    /// Shows what this machine can do: a million checked messages between two processes, then throughput and latency
    /// beside a pipe and a Unix socket
    #[command(after_help = CODES)]
    Demo(Demo),
    /// Measures this machine: the ring beside pipes, sockets, message queues and polled memory, with a report
    ///
    /// Two processes, each on a CPU of its own, take turns with all transports: round trips one by one and by size,
    /// throughput by size, what a receiver costs that waits, and how soon it wakes. What polls and what sleeps are compared
    /// apart. The least that two CPUs need, one cache line to and fro, is measured beside every figure and tells whether
    /// they were near one another or far apart.
    #[command(after_help = CODES, after_long_help = bench_and_codes())]
    Bench(Bench),
    /// Writes completions for a shell to standard output
    ///
    /// Put them where the shell looks for them:
    ///
    /// bash: ~/.local/share/bash-completion/completions/shmpipe
    ///
    /// zsh: a file _shmpipe in a directory of $fpath
    ///
    /// fish: ~/.config/fish/completions/shmpipe.fish
    #[command(after_help = CODES)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Writes the man pages, one for each command, into a directory
    ///
    /// man looks for them in /usr/local/share/man/man1, and in ~/.local/share/man/man1 where ~/.local/bin is in $PATH.
    #[command(after_help = CODES)]
    Man {
        /// The directory; made if it is not there
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct Send {
    /// Binary input: every so many bytes are a message, the last may be shorter
    #[arg(long, value_name = "BYTES", value_parser = values::size_of_something)]
    pub chunk: Option<u64>,
    /// Binary input: whatever a read gives is a message, of 64 KiB at most (with --chunk the same as that alone)
    #[arg(long, group = "framing")]
    pub raw: bool,
    /// Binary input of messages, each with its length in front (32 bits, little-endian)
    #[arg(long, group = "framing", conflicts_with = "chunk")]
    pub length_prefixed: bool,
    /// Give up when there is no space for so long
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub timeout: Option<Duration>,
    #[command(flatten)]
    pub pipe: PipeArgs,
}

#[derive(Debug, Args)]
pub struct Recv {
    /// Write messages one right behind the other, as bytes
    #[arg(long, group = "framing")]
    pub raw: bool,
    /// Write each message with its length in front (32 bits, little-endian)
    #[arg(long, group = "framing")]
    pub length_prefixed: bool,
    /// End after so many messages
    #[arg(long, short = 'n', value_name = "N")]
    pub count: Option<u64>,
    /// Give up when there is no message for so long
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub timeout: Option<Duration>,
    /// When the producer has closed or died, wait for the next one
    #[arg(long, short)]
    pub follow: bool,
    #[command(flatten)]
    pub pipe: PipeArgs,
}

/// The pipe that a side opens, or makes if it is not there.
#[derive(Debug, Args)]
pub struct PipeArgs {
    /// The pipe; made if it is not there
    pub address: Address,
    /// How to wait [default: block, or yield on a pipe where nobody sleeps]
    #[arg(long, value_name = "STRATEGY")]
    pub wait: Option<Waiting>,
    /// Also accept a segment made or owned by this user; may be repeated
    #[arg(long, value_name = "UID")]
    pub trust_uid: Vec<u32>,
    /// Where the kernel does not give back what a killed process held (gVisor), use System V pipes all the same; you vouch that
    /// there is one sender and one receiver at a time
    #[arg(long)]
    pub assume_exclusive: bool,
    #[command(flatten)]
    pub making: Making,
    #[command(flatten)]
    pub lasting: Lasting,
}

impl PipeArgs {
    pub fn options(&self) -> Options {
        let mut options = self.lasting.apply(self.making.options()).assume_exclusive(self.assume_exclusive);
        if let Some(wait) = self.wait {
            options = options.wait(wait.into());
        }
        self.trust_uid.iter().fold(options, |options, &uid| options.trust_uid(uid))
    }
}

/// How a pipe is made.
#[derive(Debug, Args)]
pub struct Making {
    /// Bytes of the ring, rounded up to a power of two; the longest message has half of it less 8 [default: 1MiB]
    #[arg(long, value_name = "BYTES", value_parser = values::size_of_something)]
    pub capacity: Option<u64>,
    /// Permission bits, in octal; both sides need to read and write [default: 0600]
    #[arg(long, value_parser = values::mode)]
    pub mode: Option<u32>,
    /// A number for what the messages mean; a pipe with another one is refused [default: 0]
    #[arg(long, value_name = "ID", value_parser = values::number)]
    pub schema: Option<u64>,
    /// How sleepers are woken [default: membarrier where the kernel has it, else fence]
    #[arg(long, value_name = "MODE")]
    pub wake: Option<Waking>,
    /// Put it on huge pages, or fail: less to look up in a large ring
    #[arg(long)]
    pub huge_pages: bool,
    /// Keep it in memory, or fail: nothing of it is swapped out
    #[arg(long)]
    pub lock: bool,
    /// Touch all of it at once, so that the first lap is as fast as the others [default: when it is made]
    #[arg(long, overrides_with = "no_prefault")]
    pub prefault: bool,
    /// Leave that to the first lap
    #[arg(long, overrides_with = "prefault")]
    pub no_prefault: bool,
}

impl Making {
    pub fn options(&self) -> Options {
        let mut options = Options::new();
        if let Some(capacity) = self.capacity {
            options = options.capacity(capacity);
        }
        if let Some(mode) = self.mode {
            options = options.mode(mode);
        }
        if let Some(schema) = self.schema {
            options = options.schema(schema);
        }
        if let Some(wake) = self.wake {
            options = options.wake_mode(wake.into());
        }
        if self.prefault || self.no_prefault {
            options = options.prefault(self.prefault);
        }
        options.huge_pages(self.huge_pages).lock_memory(self.lock)
    }
}

/// How long a pipe with a name lasts.
#[derive(Debug, Args)]
pub struct Lasting {
    /// Remove the pipe when both sides have closed, with what was not received
    #[arg(long)]
    pub remove_on_close: bool,
    /// Make a pipe anew whose file is from before the last start of the machine; what is in it is lost
    #[arg(long)]
    pub remake_stale: bool,
}

impl Lasting {
    fn apply(&self, options: Options) -> Options {
        let options = if self.remove_on_close { options.remove_on_close(true) } else { options };
        options.remake_stale(self.remake_stale)
    }
}

#[derive(Debug, Args)]
pub struct Create {
    /// The pipe
    pub address: Address,
    #[command(flatten)]
    pub making: Making,
    #[command(flatten)]
    pub lasting: Lasting,
    /// Give it to this user (needs privilege)
    #[arg(long)]
    pub uid: Option<u32>,
    /// Give it to this group
    #[arg(long)]
    pub gid: Option<u32>,
}

impl Create {
    pub fn options(&self) -> Options {
        let mut options = self.lasting.apply(self.making.options());
        if let Some(uid) = self.uid {
            options = options.uid(uid);
        }
        if let Some(gid) = self.gid {
            options = options.gid(gid);
        }
        options
    }
}

#[derive(Debug, Args)]
pub struct Serve {
    /// The socket; one that a dead server has left there is replaced
    pub path: PathBuf,
    #[command(flatten)]
    pub making: Making,
    /// Also give the pipe to processes of this user, with mode 0666 unless another is asked for; may be repeated
    #[arg(long, value_name = "UID")]
    pub trust_uid: Vec<u32>,
}

impl Serve {
    pub fn options(&self) -> Options {
        let options = self.making.options();
        // Nobody reaches it but those who are given it, and they have to write to it.
        match self.making.mode {
            None if !self.trust_uid.is_empty() => options.mode(0o666),
            _ => options,
        }
    }
}

#[derive(Debug, Args)]
pub struct Demo {
    /// Checked messages to send
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub messages: u64,
    /// About how long the whole may take
    #[arg(long, value_name = "DURATION", value_parser = values::duration, default_value = "12s")]
    pub time: Duration,
}

#[derive(Debug, Args)]
pub struct Bench {
    /// Ten seconds: fewer sizes, fewer figures behind each number
    #[arg(long, group = "length")]
    pub quick: bool,
    /// Five minutes: all round trips one by one, and rare ones too
    #[arg(long, group = "length")]
    pub full: bool,
    /// About how long to measure [default: just under a minute]
    #[arg(long, group = "length", value_name = "DURATION", value_parser = values::duration)]
    pub time: Option<Duration>,
    /// Bytes of a message [default: 8,64,256,1KiB,8KiB,64KiB]
    #[arg(long, value_name = "BYTES,...", value_delimiter = ',', value_parser = values::size_of_something)]
    pub sizes: Vec<u64>,
    /// What to compare, by name [default: all but some; a wrong name lists them]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub transports: Vec<String>,
    /// The CPUs of the two processes [default: the first two allowed]
    #[arg(long, value_name = "A,B", value_parser = values::two_cpus)]
    pub pin: Option<(usize, usize)>,
    /// Two CPUs are near one another while a cache line goes to and fro in less than so many nanoseconds
    #[arg(long, value_name = "NS", value_parser = values::nanoseconds, default_value_t = NEAR_BELOW_NS)]
    pub near_below: f64,
    /// Also write a report with plots: one file that loads nothing
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Named by what the processor does meanwhile.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Waiting {
    /// Poll without pause: the lowest latency, a whole core
    Spin,
    /// Poll for a moment, then offer the core to others between two looks
    Yield,
    /// Poll for a moment, then sleep until woken
    Block,
}

impl From<Waiting> for Wait {
    fn from(waiting: Waiting) -> Wait {
        match waiting {
            Waiting::Spin => Wait::Spin,
            Waiting::Yield => Wait::Yield,
            Waiting::Block => Wait::Block,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Waking {
    /// Sleepers pay: a memory barrier on every processor, by the kernel
    Membarrier,
    /// Every message pays: a full fence
    Fence,
    /// Nobody ever sleeps
    Never,
}

impl From<Waking> for WakeMode {
    fn from(waking: Waking) -> WakeMode {
        match waking {
            Waking::Membarrier => WakeMode::Membarrier,
            Waking::Fence => WakeMode::Fence,
            Waking::Never => WakeMode::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_exit_code_is_in_the_help_of_every_command() {
        let mut command = Arguments::command();
        let helps: Vec<String> = command
            .get_subcommands_mut()
            .filter(|command| command.get_name() != "help")
            .map(|command| command.render_help().to_string())
            .collect();
        assert_eq!(helps.len(), 12);
        assert!(helps.iter().all(|help| help.contains(CODES)));
        assert!(command.render_help().to_string().contains(CODES));
        assert!(command.render_long_help().to_string().contains(CODES));
    }

    #[test]
    fn framings_exclude_one_another() {
        let parse = |words: &str| Arguments::try_parse_from(words.split(' '));
        for words in [
            "shmpipe send x --raw --length-prefixed",
            "shmpipe send x --chunk 9 --length-prefixed",
            "shmpipe send x --chunk 0",
            "shmpipe recv x --raw --length-prefixed",
            "shmpipe recv x --chunk 9",
            "shmpipe recv tcp:x",
            "shmpipe recv",
            "shmpipe",
        ] {
            assert!(parse(words).is_err(), "{words}");
        }
        assert!(parse("shmpipe send x --raw --chunk 64KiB --json").is_ok_and(|arguments| arguments.json));
    }
}
