//! The command line's arguments.

mod values;

use shmpipe::os::unix::OptionsExt;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use shmpipe::{Address, DuplexSide, Options, SetupError, Wait, WakeMode};
use shmpipe_measure::NEAR_BELOW_NS;

use crate::exit::{CODES, Code, Failure};
use values::Delimiter;

const ADDRESSES: &str = "\
Addresses:
  ticks                a System V pipe, by name
  sysv:0x4d2           a System V pipe, by key
  sysv:ftok:PATH:65    a System V pipe, by the key from ftok(PATH, 65)
  sysv:id:7            an existing System V pipe, by its segment's identifier (shmid)
  sysv:private         a new System V pipe without a key
  posix:/ticks         a POSIX shared memory object: a file in /dev/shm
  file:PATH            a file on a local file system
  memfd:PATH           the memfd that \"shmpipe serve PATH\" hands out
  fd:3                 a memfd that is open as descriptor 3

Sizes take suffixes: 64KiB, 1M = 1MiB, 1MB = 1,000,000 bytes. So do durations: 2s, 100ms, 5m.";

const PROGRAMS: &str = "\
Programs of their own, found in PATH: \"shmpipe NAME\" runs shmpipe-NAME, which has its own --help.
  nats                 a bridge to NATS JetStream: docs/bridge.md";

const SEE: &str = "Addresses, units and exit codes: shmpipe --help";

/// A pipe between two unrelated processes at the speed of shared memory.
#[derive(Debug, Parser)]
#[command(
    name = "shmpipe",
    version,
    about = "A pipe between two unrelated processes at the speed of shared memory",
    long_about = "A pipe between two unrelated processes at the speed of shared memory. One producer sends messages of up to \
                  half the ring less 8 bytes to one consumer, in order and without loss, through a ring buffer in System V \
                  memory, a POSIX object, a file or a memfd. Either side can start first, be killed and restart; sent \
                  messages stay until they are received.",
    after_help = SEE,
    after_long_help = addresses_and_codes(),
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Arguments {
    /// Print JSON, also for notes and errors on standard error
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

fn addresses_and_codes() -> String {
    format!("{ADDRESSES}\n\n{PROGRAMS}\n\n{CODES}")
}

const BENCH_OBJECTS: &str = "\
With --json, one object per line, distinguished by \"kind\", with units in the keys; null means not measured:
  bench               version, command, start time, duration, number of slices, settings
  machine, note       the machine, and remarks on the figures
  transport           a compared transport, and how it waits
  floor               one cache line there and back: one object per placement of the two CPUs; one that did not
                      occur has \"slices\":0
  round_trip          single round trips: percentiles, maximum, count
  one_way             delays of messages sent on a schedule, and whether the transport kept up
  wake_up             delays of messages to a sleeping receiver
  too_slow            a transport left out of one_way because it cannot carry that rate
  percentile          a point of the curve \"of\" one of these: one in \"one_in\" takes longer
  round_trip_by_size  median of the slices, quartiles, count, multiple of the floor
  throughput          the same for back-to-back messages, with messages and gigabytes (10^9 bytes) per second
  idle                CPU use of a receiver without messages
The report (--html) shows nothing that these objects do not have.";

fn bench_objects() -> String {
    format!("{BENCH_OBJECTS}\n\n{SEE}")
}

const DOCTOR_OBJECTS: &str = "\
With --json, one object per line, distinguished by \"kind\", with units in the keys; null means not known:
  doctor              version, address; checks, findings, unknown: how many checks there were, how many findings, and how many
                      checks without a finding could not be made in full
  finding             check: its check; what: the problem; why: why it matters; mend: the command that fixes it
  check               check: its name; verdict: ok, finding or unknown; summary; unknown_because; and, for each check:
    namespaces        ipc, mount, pid, user: machine, own or unknown; container
    limits            shmmax_bytes, shmall_pages, shmmni_segments, semmsl_semaphores_per_set, semmns_semaphores,
                      semopm_operations, semmni_sets; used_segments, used_pages, used_sets, used_semaphores
    /dev/shm          file_system, size_bytes, free_bytes, read_only, writable, mode
    logind            logind_is_running, remove_ipc, uid, lingers
    undo              undone
    shm_rmid_forced   forced
    locks             held_while_mapped, freed_by_munmap
    membarrier        global_expedited
    futex_waitv       futex_waitv
    locked memory     memlock_bytes, may_lock_all
    huge pages        huge_page_bytes, reserved, free, shm_group_gid, transparent_for_shared_memory
    leftovers         pipes, open, left_empty, left_with_messages, waiting_for_a_consumer
    System V          wrong
    pipe              used_bytes, capacity_bytes, unread_messages, age_seconds, owner_uid, creator_uid, mode, open_in_pids,
                      or error
    producer, consumer (of a duplex pipe: side A, side B)
                      state, abort_code, pid, command, uid, process_age_seconds, claims, messages, position_bytes";

fn doctor_objects() -> String {
    format!("{DOCTOR_OBJECTS}\n\n{SEE}")
}

/// Groups the options of a command, and leaves the rarer ones to `--help`, so that `-h` fits a screen. What an existing pipe ignores
/// has a heading of its own in commands that also open pipes.
fn group(option: Arg) -> Arg {
    match option.get_id().as_str() {
        "chunk" | "raw" | "length_prefixed" | "null" | "delimiter" | "whole" | "tag" | "show_position" => {
            option.help_heading("Messages")
        }
        "capacity" | "wake" | "measure_latency" | "remove_on_close" | "remove_leftover" => {
            option.help_heading("Only when this call creates the pipe").hide_short_help(true)
        }
        "wait" | "trust_uid" | "allow_missing_undo" | "allow_rmid_forced" | "mode" | "schema"
        | "huge_pages" | "lock" | "prefault" | "no_prefault" | "recreate_stale" => {
            option.help_heading("The pipe").hide_short_help(true)
        }
        _ => option,
    }
}

/// Leaves the rarer options of a command that always creates to `--help`.
fn shorten(option: Arg) -> Arg {
    let is_rare = matches!(
        option.get_id().as_str(),
        "schema"
            | "wake"
            | "measure_latency"
            | "lock"
            | "prefault"
            | "no_prefault"
            | "recreate_stale"
            | "uid"
            | "gid"
    );
    option.hide_short_help(is_rare)
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send standard input as messages, by default a line each
    ///
    /// A line is sent as soon as it is read, without its newline; text after the last newline is a message too. When the pipe is
    /// full, send blocks. When the consumer dies, send reports that and waits for the next consumer. When the consumer closes or
    /// aborts, send ends.
    ///
    /// A receiver learns whether the input ended: at its end send closes the pipe, before its end (a failure, a signal) it aborts.
    #[command(after_help = SEE, mut_args = group)]
    Send(Send),
    /// Write messages to standard output, by default a line each
    ///
    /// With --json each message is an object on a line, with position, tag, and its bytes as text, or in base64 if they are not UTF-8.
    ///
    /// A message is released only after it is written, so that none is lost however recv ends: the next recv continues there.
    /// After a kill -9 it repeats at most what was written last: less than 60 KiB, and one message more, however long that is.
    ///
    /// When a signal ends recv, or an error of the output, only whole messages are released, and the output is left with whole
    /// messages where that is possible. In a pipe, messages of up to 4096 bytes (with newline or length) are never cut. Of a
    /// longer one, and in a socket or a terminal, the rest is written if the reader accepts it within a second after the signal.
    /// In a file, a part is taken back, unless another program has written to the file since. Where none of this applies, a part
    /// of a message stays at the end of the output, and the next recv repeats that message whole. After a kill -9 that can happen
    /// in a file too.
    #[command(after_help = SEE, mut_args = group)]
    Recv(Recv),
    /// Send to the other side of a duplex pipe, and receive from it
    ///
    /// Two of these talk to each other, as two "nc" do through a Unix socket. At the end of its input duplex closes its direction and
    /// goes on receiving; it ends when the other side has closed its own, too. When the other side dies or aborts, or stops
    /// receiving, duplex ends at once.
    ///
    /// By default each line is a message, both ways. The options for the input cut it as in send, and messages are then written
    /// as by recv with the same option (--chunk, --whole: --raw). With --follow only a signal ends it. Messages are released, and a signal ends duplex in order, as in send and recv.
    #[command(after_help = SEE, mut_args = group)]
    Duplex(Duplex),
    /// Create a pipe and print its address
    #[command(after_help = SEE, mut_args = shorten)]
    Create(Create),
    /// Create a pipe in a memfd and hand it out at a Unix socket
    ///
    /// A memfd has no name: only processes that receive it can open it. Processes of root and of this user receive it when they
    /// open memfd:PATH, and keep it after serve ends.
    #[command(after_help = SEE, mut_args = shorten)]
    Serve(Serve),
    /// Keep a pipe open, so that it outlives sender and receiver
    ///
    /// For machines where the kernel removes a System V pipe as soon as no process has it open (kernel.shm_rmid_forced=1). There,
    /// send and recv refuse System V pipes unless --allow-rmid-forced says that a keeper runs. Creates the pipe if it does not
    /// exist, and prints its address. Takes no role, so send and recv can come and go. Ends with code 3 when the pipe is removed.
    #[command(after_help = SEE, mut_args = group)]
    Keep(Keep),
    /// List all pipes of this machine
    ///
    /// Lists pipes in System V memory, in files in /dev/shm, and in files and memfds that processes have open: of all processes
    /// for root, of this user's processes otherwise. Removes this user's pipes that were created with --remove-leftover and are left over.
    #[command(visible_alias = "list", after_help = SEE)]
    Ls,
    /// Show the state of a pipe, without disturbing it
    #[command(after_help = SEE)]
    Stat(Stat),
    /// Show the messages that pass through a pipe, without taking part
    ///
    /// A line for each: position, tag, length, and the message, with what is not text escaped, separated by tabs. With --json an object.
    /// Begins with the next message, and ends when the producer closes.
    ///
    /// The pipe is only read: neither side notices, and none waits for tap. So the producer may overwrite a message before tap has
    /// looked at it. What is shown is what was sent, and what was missed is reported in its place.
    #[command(after_help = SEE)]
    Tap(Tap),
    /// Show live what pipes do
    ///
    /// Rates, fill, who waits for whom, deaths, takeovers and drops, of all pipes of this machine, or of those named. HIGH is the
    /// highest fill in any look, ten a second; EVENTS counts deaths (d), takeovers (t) and dropped messages (x) since top started.
    /// Pipes are only read: neither side notices.
    ///
    /// Keys: up and down select a pipe, Enter shows it in full, s sorts by another column, r reverses, / filters by name, q quits.
    #[command(after_help = SEE)]
    Top(Top),
    /// Print the counters of pipes, or serve them to Prometheus
    ///
    /// As OpenMetrics text. Without addresses, of all pipes of this machine. A pipe that does not exist or cannot be read is
    /// reported, and has shmpipe_readable 0; the others are printed. Pipes are only read: neither side notices.
    ///
    /// For the textfile collector of node_exporter, use --format prometheus, write to another file and rename it to NAME.prom.
    /// The names and labels are in docs/operating.md. --json concerns the messages on standard error alone, and the URL of
    /// --listen.
    #[command(after_help = SEE)]
    Metrics(Metrics),
    /// Write the messages of a pipe to an MCAP file
    ///
    /// With their positions, tags and times. Takes the consumer's role. A message is released only after the chunk with it was
    /// written to the file: a recorder that is killed loses nothing, and the next one goes on in another file. Ends when the
    /// producer closes. See "replay", and docs/operating.md for the format.
    #[command(after_help = SEE, mut_args = group)]
    Record(Record),
    /// Send the messages of recordings again
    ///
    /// With their tags, at the pace at which they were recorded. Several MCAP files are one recording: messages that two of them have
    /// are sent once. Of a file that was never finished every whole chunk is sent. If none of the files goes on where it was cut
    /// off, replay then aborts, with exit code 9.
    #[command(
        after_help = SEE,
        mut_args = group,
        override_usage = "shmpipe replay [OPTIONS] <FILE>... <ADDRESS>\n       shmpipe replay --verify <FILE>..."
    )]
    Replay(Replay),
    /// Remove pipes and the messages in them
    ///
    /// Refuses to remove a pipe in use, unless forced. With --stale it removes only pipes that were used, are empty, and are not
    /// open in any process; it lists those with messages and those never used, and --force removes them too. Without addresses,
    /// --stale looks at all pipes of this user, or of all users for root. (A stale file, from before the last boot, is something
    /// else: see --recreate-stale of send, recv and create.)
    #[command(after_help = SEE)]
    Rm {
        /// The pipes
        #[arg(required_unless_present = "stale", value_name = "ADDRESS", value_parser = values::address())]
        addresses: Vec<Address>,
        /// Remove pipes in use too, and report who used them; with --stale, pipes that are unread or unused
        #[arg(long, short)]
        force: bool,
        /// Remove only pipes that were left behind: used, empty, and not open in any process
        #[arg(long)]
        stale: bool,
    },
    /// Look for problems on this machine, and say how to fix them
    ///
    /// Given an address, it also examines that pipe. A check that cannot be made is reported as unknown, not as a finding.
    /// Nothing is changed, except that pipes created with --remove-leftover are removed once they are left over.
    #[command(after_help = SEE, after_long_help = doctor_objects())]
    Doctor {
        /// A pipe to examine too
        #[arg(value_parser = values::address())]
        address: Option<Address>,
    },
    /// Show what this machine can do
    ///
    /// A million verified messages between two processes, then throughput and latency compared with a pipe and a Unix socket.
    #[command(after_help = SEE)]
    Demo(Demo),
    /// Compare the ring with other transports on this machine
    ///
    /// The others are pipes, sockets, message queues and polled memory. Two processes, each on its own CPU, alternate between all
    /// transports and measure single round trips, round trips and
    /// throughput by size, the CPU use of a waiting receiver, and how fast it wakes. Transports that poll and transports that
    /// sleep are compared separately. Beside every figure stands the floor, the time that one cache line takes there and back:
    /// it shows whether the two CPUs were near each other or far apart.
    #[command(after_help = SEE, after_long_help = bench_objects())]
    Bench(Bench),
    /// Print a completion script for a shell
    ///
    /// Put it where the shell looks for it:
    ///
    /// bash: ~/.local/share/bash-completion/completions/shmpipe
    ///
    /// zsh: a file _shmpipe in a directory of $fpath
    ///
    /// fish: ~/.config/fish/completions/shmpipe.fish
    #[command(after_help = SEE)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the man pages, one for each command, to a directory
    ///
    /// man looks in /usr/local/share/man/man1, and in ~/.local/share/man/man1 if ~/.local/bin is in $PATH.
    #[command(after_help = SEE)]
    Man {
        /// The directory; created if it does not exist
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

/// How the input is cut into messages.
#[derive(Debug, Args)]
pub struct Input {
    /// Binary: send messages of this size
    ///
    /// The last may be shorter.
    #[arg(long, value_name = "BYTES", value_parser = values::nonzero_size)]
    pub chunk: Option<u64>,
    /// Binary: send what each read(2) returns as one message
    ///
    /// At most 64 KiB. No effect with --chunk.
    #[arg(long, group = "framing", hide_short_help = true)]
    pub raw: bool,
    /// Binary: each message follows its length
    ///
    /// 32 bits, little-endian.
    #[arg(long, group = "framing", conflicts_with = "chunk", hide_short_help = true)]
    pub length_prefixed: bool,
    /// Messages end with NUL, not with a newline
    #[arg(long, short = '0', group = "framing", conflicts_with = "chunk")]
    pub null: bool,
    /// Messages end with this text, such as , or \r\n
    ///
    /// Escapes: \n, \r, \t, \0, \\, and \xHH for any byte. What follows the last one is a message too.
    #[arg(long, value_name = "TEXT", value_parser = values::delimiter, group = "framing", conflicts_with = "chunk")]
    pub delimiter: Option<Delimiter>,
    /// All of the input is one message
    ///
    /// An empty input is none.
    #[arg(long, group = "framing", conflicts_with = "chunk")]
    pub whole: bool,
}

/// What ends a message: a newline, unless `--null` or `--delimiter` says otherwise.
pub fn delimiter(null: bool, delimiter: Option<&Delimiter>) -> Vec<u8> {
    match delimiter {
        _ if null => b"\0".to_vec(),
        Some(Delimiter(text)) => text.clone(),
        None => b"\n".to_vec(),
    }
}

#[derive(Debug, Args)]
pub struct Send {
    #[command(flatten)]
    pub input: Input,
    /// Give every message this tag, a number of 32 bits
    #[arg(long, value_name = "N", value_parser = values::tag, default_value_t = 0, hide_default_value = true)]
    pub tag: u32,
    /// Send at most so many a second: 500, 10k/s
    #[arg(long, value_name = "RATE", value_parser = values::rate)]
    pub rate: Option<f64>,
    /// Skip what an earlier send of this input has sent
    ///
    /// The pipe must have carried nothing but this input, with the same framing, since it was created: send finds by the lengths of the
    /// messages where the last sender stopped, and fails where they do not agree. However that sender ended, no message is then sent
    /// twice. A pipe that was created with --remove-leftover is refused: what one before it has carried is not known.
    #[arg(long, conflicts_with = "remove_leftover")]
    pub resume: bool,
    /// Give up when there is no space for this long
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub timeout: Option<Duration>,
    #[command(flatten)]
    pub pipe: PipeArgs,
}

#[derive(Debug, Args)]
pub struct Recv {
    /// Write messages as bytes, without separators
    #[arg(long, group = "framing")]
    pub raw: bool,
    /// Write each message after its length
    ///
    /// 32 bits, little-endian.
    #[arg(long, group = "framing")]
    pub length_prefixed: bool,
    /// Write NUL after each message, not a newline
    #[arg(long, short = '0', group = "framing")]
    pub null: bool,
    /// Write this text after each message
    ///
    /// Escapes: \n, \r, \t, \0, \\, and \xHH for any byte.
    #[arg(long, value_name = "TEXT", value_parser = values::delimiter, group = "framing")]
    pub delimiter: Option<Delimiter>,
    /// Write position and tab before each message
    ///
    /// --json has the position anyway.
    #[arg(long, conflicts_with_all = ["raw", "length_prefixed"])]
    pub show_position: bool,
    /// End after N messages
    #[arg(long, short = 'n', value_name = "N")]
    pub count: Option<u64>,
    /// Give up when there is no message for this long
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub timeout: Option<Duration>,
    /// When the producer ends or dies, wait for the next
    #[arg(long, short)]
    pub follow: bool,
    #[command(flatten)]
    pub pipe: PipeArgs,
}

#[derive(Debug, Args)]
pub struct Duplex {
    #[command(flatten)]
    pub input: Input,
    /// The side to take [default: the first free one]
    #[arg(long)]
    pub side: Option<SideName>,
    /// Give up without message, or space, for this long
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub timeout: Option<Duration>,
    /// When the other side ends or dies, wait for the next
    #[arg(long, short)]
    pub follow: bool,
    #[command(flatten)]
    pub pipe: PipeArgs,
}

/// A side of a duplex pipe.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SideName {
    A,
    B,
}

impl From<SideName> for DuplexSide {
    fn from(side: SideName) -> DuplexSide {
        match side {
            SideName::A => DuplexSide::A,
            SideName::B => DuplexSide::B,
        }
    }
}

/// A pipe that a command opens, created if it does not exist.
#[derive(Debug, Args)]
pub struct PipeArgs {
    /// The pipe; created if it does not exist
    #[arg(value_parser = values::address())]
    pub address: Address,
    #[command(flatten)]
    opening: Opening,
}

impl PipeArgs {
    pub fn options(&self) -> Options {
        self.opening.options()
    }
}

/// How a pipe is opened, or created if it does not exist.
#[derive(Debug, Args)]
pub struct Opening {
    /// How to wait [default: block, or yield if the wake mode of the pipe is never]
    #[arg(long, value_name = "STRATEGY")]
    pub wait: Option<WaitStrategy>,
    /// Also accept a pipe created or owned by this user; may be repeated
    #[arg(long, value_name = "UID")]
    pub trust_uid: Vec<u32>,
    /// Use System V pipes even where the kernel does not undo semaphores (gVisor): a process killed while it creates, opens or
    /// removes the pipe then leaves it locked, until `ipcrm -s`
    #[arg(long)]
    pub allow_missing_undo: bool,
    /// Use System V pipes even where the kernel removes them with the last process that has them open (kernel.shm_rmid_forced=1);
    /// you guarantee that one has, such as "shmpipe keep"
    #[arg(long)]
    pub allow_rmid_forced: bool,
    #[command(flatten)]
    pub creation: Creation,
    #[command(flatten)]
    pub lifetime: Lifetime,
}

impl Opening {
    pub fn options(&self) -> Options {
        let mut options = self
            .lifetime
            .apply(self.creation.options())
            .allow_missing_undo(self.allow_missing_undo)
            .allow_rmid_forced(self.allow_rmid_forced);
        if let Some(wait) = self.wait {
            options = options.wait(wait.into());
        }
        self.trust_uid.iter().fold(options, |options, &uid| options.trust_uid(uid))
    }
}

/// How a pipe is created.
#[derive(Debug, Args)]
pub struct Creation {
    /// Ring size [default: 1MiB]
    ///
    /// Rounded up to a power of two. A message can have half of it less 8 bytes.
    #[arg(long, value_name = "BYTES", value_parser = values::nonzero_size)]
    pub capacity: Option<u64>,
    /// Permission bits of a new pipe, in octal [default: 0600]
    ///
    /// Both sides need read and write. An existing pipe keeps its own. One that every user may write to is opened only if this option requests such a mode.
    #[arg(long, value_parser = values::mode)]
    pub mode: Option<u32>,
    /// An id for the format of the messages [default: 0]
    ///
    /// It is set at creation. An existing pipe with another id is refused.
    #[arg(long, value_name = "ID", value_parser = values::number)]
    pub schema: Option<u64>,
    /// How sleepers are woken [default: membarrier if the kernel has it, else fence]
    #[arg(long, value_name = "MODE")]
    pub wake: Option<Wake>,
    /// Measure how long messages are under way
    ///
    /// Some messages, about 16 in each pass through the ring and each one that wakes the receiver: see stat and top.
    #[arg(long)]
    pub measure_latency: bool,
    /// Use huge pages, or fail
    ///
    /// They save a large ring TLB misses. Those who open the pipe later use them too.
    #[arg(long)]
    pub huge_pages: bool,
    /// Lock the pipe in memory, or fail
    ///
    /// Then it is never swapped out.
    #[arg(long)]
    pub lock: bool,
    /// Touch every page at once [default: at creation]
    ///
    /// Then the first pass through the ring is as fast as later ones.
    #[arg(long, overrides_with = "no_prefault")]
    pub prefault: bool,
    /// Touch each page when it is first used
    ///
    /// That makes the first pass through the ring slower.
    #[arg(long, overrides_with = "prefault")]
    pub no_prefault: bool,
}

impl Creation {
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
        if self.measure_latency {
            options = options.measure_latency(true);
        }
        if self.prefault || self.no_prefault {
            options = options.prefault(self.prefault);
        }
        options.huge_pages(self.huge_pages).lock_memory(self.lock)
    }
}

/// How many directions a pipe has.
#[derive(Debug, Args)]
pub struct Directions {
    /// With two directions, for "shmpipe duplex"
    ///
    /// An existing pipe must match.
    #[arg(long)]
    pub duplex: bool,
}

/// How long a pipe with a name lives.
#[derive(Debug, Args)]
pub struct Lifetime {
    /// Remove the pipe when both sides have closed
    ///
    /// Unread messages are lost.
    #[arg(long)]
    pub remove_on_close: bool,
    /// Let the next who looks remove the pipe once it is left
    ///
    /// It is left once it was used, is empty, and is open in no process, also because both sides were killed. Who opens the pipe, or
    /// runs ls or doctor, looks.
    #[arg(long)]
    pub remove_leftover: bool,
    /// Recreate a pipe from before the last boot
    ///
    /// Such a file may be damaged; its messages are lost. (Not what rm --stale looks for.)
    #[arg(long)]
    pub recreate_stale: bool,
}

impl Lifetime {
    fn apply(&self, options: Options) -> Options {
        let options = if self.remove_on_close { options.remove_on_close(true) } else { options };
        let options = if self.remove_leftover { options.remove_leftover(true) } else { options };
        options.recreate_stale(self.recreate_stale)
    }
}

#[derive(Debug, Args)]
pub struct Create {
    /// The pipe
    #[arg(value_parser = values::address())]
    pub address: Address,
    #[command(flatten)]
    pub directions: Directions,
    #[command(flatten)]
    pub creation: Creation,
    #[command(flatten)]
    pub lifetime: Lifetime,
    /// Owner of the pipe (needs privilege)
    #[arg(long)]
    pub uid: Option<u32>,
    /// Group of the pipe
    #[arg(long)]
    pub gid: Option<u32>,
}

impl Create {
    pub fn options(&self) -> Options {
        let mut options = self.lifetime.apply(self.creation.options()).duplex(self.directions.duplex);
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
pub struct Stat {
    /// The pipe
    #[arg(value_parser = values::address())]
    pub address: Address,
    /// Print a line per interval, and one per direction of a duplex pipe, until interrupted
    #[arg(
        long,
        value_name = "INTERVAL",
        value_parser = values::interval,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1s"
    )]
    pub watch: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct Tap {
    /// The pipe
    #[arg(value_parser = values::address())]
    pub address: Address,
    /// Show the bytes in hexadecimal, 16 to a line
    #[arg(long)]
    pub hex: bool,
    /// Show at most so many bytes of each message
    #[arg(long, value_name = "BYTES", value_parser = values::nonzero_size)]
    pub limit: Option<u64>,
    /// Begin with the messages that were not released yet
    #[arg(long)]
    pub unread: bool,
    /// End after N messages
    #[arg(long, short = 'n', value_name = "N")]
    pub count: Option<u64>,
    /// Show a line of rates per interval instead of the messages
    #[arg(
        long,
        value_name = "INTERVAL",
        value_parser = values::interval,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1s",
        conflicts_with_all = ["hex", "limit"]
    )]
    pub rate: Option<Duration>,
    /// When the producer ends or dies, wait for the next
    #[arg(long, short)]
    pub follow: bool,
}

#[derive(Debug, Args)]
pub struct Top {
    /// The pipes [default: all]
    #[arg(value_name = "ADDRESS", value_parser = values::address())]
    pub addresses: Vec<Address>,
    /// How often to show new figures
    #[arg(long, value_name = "INTERVAL", value_parser = values::interval, default_value = "1s")]
    pub interval: Duration,
    /// Print one interval as text, and end; with --json, as one object
    #[arg(long)]
    pub once: bool,
}

#[derive(Debug, Args)]
pub struct Record {
    #[command(flatten)]
    pub pipe: PipeArgs,
    /// The file, which must not exist
    ///
    /// With rotation FILE-000001.mcap and so on, from the first free number.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Send the messages on to this pipe too, once they are in the file
    ///
    /// The options of the pipe are those of both.
    #[arg(long, value_name = "ADDRESS", value_parser = values::address())]
    pub tee: Option<Address>,
    /// End after N messages
    #[arg(long, short = 'n', value_name = "N")]
    pub count: Option<u64>,
    /// Give up when there is no message for this long
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub timeout: Option<Duration>,
    /// When the producer closes, aborts or dies, wait for the next one
    #[arg(long, short)]
    pub follow: bool,
    /// Write a chunk when it has this many bytes, or takes a quarter of the ring [default: 1MiB]
    #[arg(long, value_name = "BYTES", value_parser = values::nonzero_size, hide_short_help = true)]
    pub flush_size: Option<u64>,
    /// Write a chunk when its first message is this old [default: 1s; with --tee 10ms]
    #[arg(long, value_name = "DURATION", value_parser = values::duration, hide_short_help = true)]
    pub flush_interval: Option<Duration>,
    /// Start the next file when this one has about this many bytes
    #[arg(long, value_name = "BYTES", value_parser = values::nonzero_size)]
    pub rotate_size: Option<u64>,
    /// Start the next file when this one is this old
    #[arg(long, value_name = "DURATION", value_parser = values::interval)]
    pub rotate_time: Option<Duration>,
    /// When to wait for the disk
    ///
    /// What is not on the disk can be lost with the power, not with the recorder.
    #[arg(long, value_name = "WHEN", default_value = "file", hide_short_help = true)]
    pub fsync: Fsync,
    /// What the messages are, for other programs that read the file: json, cdr, protobuf, ... [default: not said]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, hide_short_help = true)]
    pub encoding: String,
}

/// When a recorder waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fsync {
    /// Never
    Never,
    /// Before messages are released: what was released survives a power failure
    Chunk,
    /// At the end of each file
    File,
}

#[derive(Debug, Args)]
pub struct Replay {
    /// The files, in order, and then the pipe, created if it does not exist
    #[arg(value_name = "FILE", required = true, num_args = 1..)]
    words: Vec<OsString>,
    #[command(flatten)]
    pub opening: Opening,
    /// How fast: 2x, 0.5x, or max, without waiting
    #[arg(long, value_name = "FACTOR", value_parser = values::speed, default_value = "1x")]
    pub speed: values::Speed,
    /// Start this long after the first message
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub from: Option<Duration>,
    /// End this long after the first message
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub to: Option<Duration>,
    /// Start again at the end, until interrupted
    #[arg(long = "loop")]
    pub repeats: bool,
    /// Succeed, and close the pipe, also if the recording is cut off
    #[arg(long)]
    pub allow_unfinished: bool,
    /// Send nothing: check files
    ///
    /// Reads them whole: the checksums of all chunks, positions and sections, and whether any messages are missing between the first
    /// and the last. Prints what they have.
    #[arg(long, conflicts_with_all = ["speed", "from", "to", "repeats"])]
    verify: bool,
}

impl Replay {
    /// The files, and where to send their messages: nowhere if they are to be verified.
    pub fn files_and_address(&self) -> Result<(Vec<PathBuf>, Option<Address>), Failure> {
        let (files, address) = match &self.words[..] {
            words if self.verify => (words, None),
            [files @ .., address] if !files.is_empty() => {
                (files, Some(Address::try_from(address.clone()).map_err(SetupError::from)?))
            }
            _ => return Err(Failure::new(Code::Usage, "expected files, and then the address of a pipe")),
        };
        Ok((files.iter().map(PathBuf::from).collect(), address))
    }
}

#[derive(Debug, Args)]
pub struct Metrics {
    /// The pipes [default: all]
    #[arg(value_name = "ADDRESS", value_parser = values::address())]
    pub addresses: Vec<Address>,
    /// Answer GET /metrics at this address of this machine until interrupted, and print the URL; port 0 takes a free one
    ///
    /// There is no password and no encryption: each process that reaches the port reads the names, users and counters of pipes, but no
    /// messages.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// The text format on standard output; a client of --listen gets the one that it accepts
    #[arg(long, value_name = "FORMAT", default_value = "openmetrics", conflicts_with = "listen")]
    pub format: MetricsFormat,
}

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MetricsFormat {
    /// OpenMetrics 1.0
    Openmetrics,
    /// The text format of Prometheus, 0.0.4, which the textfile collector of node_exporter reads
    Prometheus,
}

#[derive(Debug, Args)]
pub struct Keep {
    /// The pipe; created if it does not exist
    #[arg(value_parser = values::address())]
    pub address: Address,
    /// Also accept a pipe created or owned by this user; may be repeated
    #[arg(long, value_name = "UID")]
    pub trust_uid: Vec<u32>,
    #[command(flatten)]
    pub directions: Directions,
    #[command(flatten)]
    pub creation: Creation,
    #[command(flatten)]
    pub lifetime: Lifetime,
}

impl Keep {
    pub fn options(&self) -> Options {
        // A keeper is what makes that safe.
        let options = self.lifetime.apply(self.creation.options()).allow_rmid_forced(true);
        let options = options.duplex(self.directions.duplex);
        self.trust_uid.iter().fold(options, |options, &uid| options.trust_uid(uid))
    }
}

#[derive(Debug, Args)]
pub struct Serve {
    /// The socket; one left by a dead server is replaced
    pub path: PathBuf,
    #[command(flatten)]
    pub directions: Directions,
    #[command(flatten)]
    pub creation: Creation,
    /// Also hand the pipe to processes of this user; the default mode is then 0666; may be repeated
    #[arg(long, value_name = "UID")]
    pub trust_uid: Vec<u32>,
}

impl Serve {
    pub fn options(&self) -> Options {
        let options = self.creation.options().duplex(self.directions.duplex);
        // Only processes that receive the memfd can reach it, and they must be able to write to it.
        match self.creation.mode {
            None if !self.trust_uid.is_empty() => options.mode(0o666),
            _ => options,
        }
    }
}

#[derive(Debug, Args)]
pub struct Demo {
    /// Verified messages to send
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub messages: u64,
    /// Approximate duration
    #[arg(long, value_name = "DURATION", value_parser = values::duration, default_value = "12s")]
    pub time: Duration,
}

#[derive(Debug, Args)]
pub struct Bench {
    /// Ten seconds: fewer sizes, fewer samples
    #[arg(long, group = "length")]
    pub quick: bool,
    /// Five minutes: single round trips of all sizes, and rare outliers
    #[arg(long, group = "length")]
    pub full: bool,
    /// Approximate duration [default: just under a minute]
    #[arg(long, group = "length", value_name = "DURATION", value_parser = values::duration)]
    pub time: Option<Duration>,
    /// Message sizes [default: 8,64,256,1KiB,8KiB,64KiB]
    #[arg(long, value_name = "BYTES,...", value_delimiter = ',', value_parser = values::nonzero_size)]
    pub sizes: Vec<u64>,
    /// Transports to compare, by name [default: most; an unknown name lists them all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub transports: Vec<String>,
    /// The CPUs of the two processes [default: the first two allowed]
    #[arg(long, value_name = "A,B", value_parser = values::two_cpus)]
    pub pin: Option<(usize, usize)>,
    /// Two CPUs are near each other if a cache line goes there and back in less than this
    #[arg(long, value_name = "NS", value_parser = values::nanoseconds, default_value_t = NEAR_BELOW_NS)]
    pub near_below: f64,
    /// Also write a self-contained HTML report with plots
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// How a blocked call waits.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum WaitStrategy {
    /// Poll without pause: lowest latency, a whole core
    Spin,
    /// Poll briefly, then yield the core between polls
    Yield,
    /// Poll briefly, then sleep until woken
    Block,
    /// Look every millisecond: the other side never has to wake this one
    Sleep,
}

impl From<WaitStrategy> for Wait {
    fn from(strategy: WaitStrategy) -> Wait {
        match strategy {
            WaitStrategy::Spin => Wait::Spin,
            WaitStrategy::Yield => Wait::Yield,
            WaitStrategy::Block => Wait::Block,
            WaitStrategy::Sleep => Wait::Sleep(Duration::from_millis(1)),
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Wake {
    /// Costs each sleep about half a microsecond: the kernel runs a memory barrier on every processor
    Membarrier,
    /// Costs each message a full fence
    Fence,
    /// Costs messages nothing; neither side ever sleeps, so a wait keeps a core busy
    Never,
}

impl From<Wake> for WakeMode {
    fn from(wake: Wake) -> WakeMode {
        match wake {
            Wake::Membarrier => WakeMode::Membarrier,
            Wake::Fence => WakeMode::Fence,
            Wake::Never => WakeMode::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definitions_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_exit_codes_are_in_one_place_to_which_every_help_leads() {
        let mut command = Arguments::command();
        assert!(command.render_long_help().to_string().contains(CODES));
        assert!(command.render_help().to_string().contains(SEE));
        for command in command.get_subcommands_mut().filter(|command| command.get_name() != "help") {
            let helps = [command.render_help(), command.render_long_help()].map(|help| help.to_string());
            for help in helps {
                assert!(help.contains(SEE) && !help.contains("Exit codes:"), "{}", command.get_name());
            }
        }
    }

    #[test]
    fn short_help_fits_a_screen_and_long_help_a_terminal() {
        let mut command = Arguments::command().term_width(80);
        command.build();
        // That of help lists all commands.
        for command in command.get_subcommands_mut().filter(|command| command.get_name() != "help") {
            let help = command.render_help().to_string();
            assert!(
                help.lines().count() <= 24,
                "{}: {} lines\n{help}",
                command.get_name(),
                help.lines().count()
            );
            // A table is not wrapped.
            let long = command.render_long_help().to_string();
            let text = long.split("With --json, one object").next().unwrap_or_default();
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        }
        // A line for each command.
        let commands = command.get_subcommands().count();
        let help = command.render_help().to_string();
        assert!(help.lines().count() <= commands + 12, "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    }

    #[test]
    fn what_an_existing_pipe_ignores_is_set_apart() {
        let mut command = Arguments::command();
        for (name, expected) in [
            ("send", true),
            ("recv", true),
            ("duplex", true),
            ("keep", true),
            ("create", false),
            ("serve", false),
        ] {
            let help = command.find_subcommand_mut(name).unwrap().render_long_help().to_string();
            let (_, apart) = help.split_once("\nOnly when this call creates the pipe:\n").unwrap_or_default();
            for option in ["--capacity", "--wake", "--remove-on-close"] {
                assert_eq!(apart.contains(option), expected, "{name} {option}");
            }
            assert!(!apart.contains("--schema") && !apart.contains("--prefault"), "{name}");
        }
    }

    #[test]
    fn framings_exclude_each_other() {
        let parse = |words: &str| Arguments::try_parse_from(words.split(' '));
        for words in [
            "shmpipe send x --raw --length-prefixed",
            "shmpipe send x --chunk 9 --length-prefixed",
            "shmpipe send x --chunk 0",
            "shmpipe recv x --raw --length-prefixed",
            "shmpipe recv x --chunk 9",
            "shmpipe duplex x --raw --length-prefixed",
            "shmpipe duplex x --side c",
            "shmpipe send x -0 --raw",
            "shmpipe send x -0 --chunk 9",
            "shmpipe send x --whole --delimiter ,",
            "shmpipe send x --rate fast",
            "shmpipe recv x -0 --raw",
            "shmpipe recv x --show-position --raw",
            "shmpipe recv tcp:x",
            "shmpipe recv",
            "shmpipe",
        ] {
            assert!(parse(words).is_err(), "{words}");
        }
        assert!(parse("shmpipe send x --raw --chunk 64KiB --json").is_ok_and(|arguments| arguments.json));
    }
}
