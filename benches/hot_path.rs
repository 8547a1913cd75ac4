//! Checks the machine code of the calls for a message, as compiled into a program. Fails on a locked instruction, a fence, a
//! system call, a division, a panic, or a call of anything but `memcpy` and the functions that are out of line on purpose.
//!
//! `cargo bench --bench hot_path` disassembles this program with objdump, and checks the functions below. It follows their calls,
//! except those that are listed as cold.

use shmpipe::{
    Consumer, Position, Producer, RecvError, SendError, Trusted, TryRecvError, TrySendError, Value,
};
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode};

use shmpipe_measure::both_ends;

/// The calls to check, each in a function of its own.
mod hot {
    use super::*;

    #[inline(never)]
    pub fn try_send(producer: &mut Producer, message: &[u8]) -> Result<Position, TrySendError> {
        producer.try_send(message)
    }

    #[inline(never)]
    pub fn send(producer: &mut Producer, message: &[u8]) -> Result<Position, SendError> {
        producer.send(message)
    }

    #[inline(never)]
    pub fn send_value(producer: &mut Producer, value: &u64) -> Result<Position, SendError> {
        producer.send(Value(value))
    }

    #[inline(never)]
    pub fn reserve(producer: &mut Producer, message: &[u8]) -> Result<Position, SendError> {
        let mut space = producer.reserve(message.len())?;
        space.write(0, message);
        Ok(space.commit())
    }

    #[inline(never)]
    pub fn reserve_in_place(producer: &mut Producer<Trusted>, length: usize) -> Result<Position, SendError> {
        let mut space = producer.reserve(length)?;
        space.iter_mut().for_each(|byte| *byte ^= 0xFF);
        Ok(space.commit())
    }

    #[inline(never)]
    pub fn batch(producer: &mut Producer, messages: &[&[u8]]) -> Result<(), SendError> {
        let mut batch = producer.batch();
        for message in messages {
            batch.push(message)?;
        }
        batch.commit();
        Ok(())
    }

    #[inline(never)]
    pub fn try_recv(consumer: &mut Consumer, to: &mut [u8]) -> Result<Option<usize>, TryRecvError> {
        Ok(consumer.try_recv()?.copy_to(to).ok())
    }

    #[inline(never)]
    pub fn recv(consumer: &mut Consumer, to: &mut [u8]) -> Result<Option<usize>, RecvError> {
        Ok(consumer.recv()?.copy_to(to).ok())
    }

    #[inline(never)]
    pub fn recv_value(consumer: &mut Consumer) -> Result<Option<u64>, RecvError> {
        Ok(consumer.recv()?.value().ok())
    }

    #[inline(never)]
    pub fn recv_in_place(consumer: &mut Consumer<Trusted>) -> Result<u8, RecvError> {
        Ok(consumer.recv()?.iter().fold(0, |sum, byte| sum ^ byte))
    }

    #[inline(never)]
    pub fn drain(consumer: &mut Consumer, to: &mut [u8]) -> Result<Option<usize>, RecvError> {
        let mut drain = consumer.drain(usize::MAX);
        while let Some(record) = drain.next()? {
            if record.copy_to(to).is_err() {
                return Ok(None);
            }
        }
        Ok(Some(drain.taken()))
    }
}

/// The functions of `hot`.
const HOT: [&str; 11] = [
    "try_send",
    "send",
    "send_value",
    "reserve",
    "reserve_in_place",
    "batch",
    "try_recv",
    "recv",
    "recv_value",
    "recv_in_place",
    "drain",
];

/// Functions of the library that a message calls only if something is out of the ordinary, by type and name. What they
/// do is their affair.
const COLD: [&str; 20] = [
    "Inner::begins_to_wait",  // the ring is empty
    "Inner::look",            // a wrap, an end, an empty ring
    "Inner::wait",            // still empty after some polls
    "Deadline::for_message",  // the same
    "Deadline::for_space",    // the ring is full
    "Inner::wait_for_space",  // the ring is full, or the consumer has gone
    "Reader::answer",         // the producer has gone to sleep, or got up
    "Reader::peek_slow",      // a wrap, nothing, nonsense, or half a ring since the last look
    "Reader::peek_next_slow", // the same, of a drain
    "Reader::poison",         // nonsense
    // A guard is dropped in a forked child, or when a panic is to leave its messages unread.
    "Inner::is_ours",
    "Inner::is_ours_and_takes_dropped",
    "Writer::answer",            // the consumer has gone to sleep, or got up
    "Writer::check_peer",        // the consumer has come or gone
    "Writer::refresh_head",      // the space last seen is used up
    "Sampling::stamp_crossings", // a message reaches over the end of the ring, or is sampled: two readings of the clock at most
    // From 4 KiB on, eight times a lap, or when the consumer has made room in a ring that is almost full: a store fence.
    "streaming::order_long_copy",
    // From 4 KiB on: what the processor is.
    "blocks::prefers_avx",
    // From 4 KiB, once in 256 KiB: three readings of the clock.
    "Distance::read",
    // From 4 KiB, to a distant consumer: non-temporal stores with a store fence.
    "streaming::to_shared_streaming",
];

/// Calls of the C library. Their code is not checked.
const LIBRARY: [&str; 1] = [
    "memcpy", // more than 64 bytes
];

/// Functions that are out of line and are looked at all the same.
const OUT_OF_LINE: [&str; 12] = [
    "Producer::send_out_of_line", // longer messages, and those for which there is no runway
    "Batch::push_out_of_line",
    "Inner::slot",
    "Batch::slot",
    "Writer::commit_out_of_line",
    "Writer::follow_up", // after the last message on a runway
    "front::extend",
    "front::acquire_ahead",
    // From 4 KiB.
    "blocks::read_long",
    "Inner::is_far",
    // In landing pads.
    "drop of shmpipe::endpoint::message::Message",
    "drop of shmpipe::endpoint::drain::Drain",
];

/// The end of a landing pad. Only a panic in a called function leads there.
const UNWINDING: [&str; 3] =
    ["_Unwind_Resume", "core::panicking::panic_in_cleanup", "core::panicking::panic_cannot_unwind"];

/// Instructions that take too long for a message, or enter the kernel.
const FORBIDDEN: [&str; 11] =
    ["lock", "mfence", "lfence", "sfence", "cpuid", "syscall", "sysenter", "int", "div", "idiv", "ud2"];

const USAGE: &str = "\
options after `cargo bench --bench hot_path --`:
  --required  fail if there is no objdump";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let has = |word: &str| words.iter().any(|found| found == word);
    let done = match () {
        () if has("--help") => {
            println!("{USAGE}");
            Ok(())
        }
        () if has("--list") => Ok(()), // no tests with names of their own
        () if has("--bench") && words.iter().any(|word| word != "--bench" && word != "--required") => {
            Err(USAGE.into())
        }
        () if !has("--bench") => smoke(),
        () => smoke().and_then(|()| check(has("--required"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hot_path: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Calls every function once, so that the compiler keeps them.
fn smoke() -> Result<(), Box<dyn Error>> {
    let (mut producer, mut consumer) = both_ends(4096)?;
    let mut to = [0; 16];
    hot::try_send(&mut producer, b"try_send")?;
    hot::send(&mut producer, b"send")?;
    hot::reserve(&mut producer, b"reserve")?;
    hot::batch(&mut producer, &[b"one", b"two"])?;
    hot::send_value(&mut producer, &0x0102_0304)?;
    assert_eq!((hot::try_recv(&mut consumer, &mut to)?, &to[..8]), (Some(8), &b"try_send"[..]));
    assert_eq!((hot::recv(&mut consumer, &mut to)?, &to[..4]), (Some(4), &b"send"[..]));
    assert_eq!((hot::recv(&mut consumer, &mut to)?, &to[..7]), (Some(7), &b"reserve"[..]));
    assert_eq!((hot::recv(&mut consumer, &mut to)?, &to[..3]), (Some(3), &b"one"[..]));
    assert_eq!((hot::recv(&mut consumer, &mut to)?, &to[..3]), (Some(3), &b"two"[..]));
    assert_eq!(hot::recv_value(&mut consumer)?, Some(0x0102_0304));
    hot::batch(&mut producer, &[b"three", b"four"])?;
    assert_eq!((hot::drain(&mut consumer, &mut to)?, &to[..4]), (Some(2), &b"four"[..]));
    // SAFETY: both ends are in this thread, and obey the protocol.
    let (mut producer, mut consumer) = unsafe { (producer.trust_peer(), consumer.trust_peer()) };
    hot::reserve_in_place(&mut producer, 3)?;
    hot::recv_in_place(&mut consumer)?;
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
    println!("smoke run, hot_path: {} functions; every message as sent", HOT.len());
    Ok(())
}

/// Checks the functions of `hot`, and prints the result.
fn check(required: bool) -> Result<(), Box<dyn Error>> {
    if !cfg!(target_arch = "x86_64") {
        println!("hot_path: SKIPPED, nothing was looked at: the instructions known here are those of x86-64");
        return Ok(());
    }
    if let Err(error) = Command::new("objdump").arg("--version").output() {
        let what = format!("SKIPPED, nothing was looked at: objdump does not start ({error})");
        if required {
            return Err(what.into());
        }
        println!("hot_path: {what}");
        return Ok(());
    }
    let program = Program::disassemble(&env::current_exe()?)?;
    let mut faults = Vec::new();
    println!("\n{:<16} {:>12}   calls", "", "instructions");
    for name in HOT {
        let path = format!("hot_path::hot::{name}");
        let (called, followed) = (BTreeSet::new(), BTreeSet::new());
        let mut look = Look { program: &program, of: name, called, followed, faults: &mut faults };
        let instructions = look.at(program.find(&path).ok_or_else(|| format!("there is no {path} here"))?);
        let calls: Vec<_> =
            look.called.iter().map(|&name| name.rsplit("::").next().unwrap_or(name)).collect();
        println!("{name:<16} {instructions:>12}   {}", calls.join(", "));
    }
    println!();
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n          ").into()) }
}

/// The check of a function of `hot` and its callees.
struct Look<'a> {
    program: &'a Program,
    of: &'static str,
    called: BTreeSet<&'static str>,
    /// The addresses of the checked callees.
    followed: BTreeSet<u64>,
    faults: &'a mut Vec<String>,
}

impl Look<'_> {
    /// Checks a function. Returns the number of its instructions, including those of its callees.
    fn at(&mut self, function: &Function) -> usize {
        let mut instructions = function.code.len();
        for instruction in &function.code {
            if instruction.is_forbidden() {
                self.blame(function, instruction, "does not belong there");
            }
            let Some(target) = instruction.target(function) else { continue };
            let callees = self.program.resolve(&target, function);
            if callees.is_empty() {
                self.blame(function, instruction, "has an unknown target");
            }
            for (name, callee) in callees {
                let name = plain(name);
                let is_named = |known: &&&str| name == **known || name.ends_with(&format!("::{known}"));
                if let Some(known) = COLD.iter().chain(&LIBRARY).chain(&UNWINDING).find(is_named) {
                    self.called.insert(known);
                } else if let Some(known) = OUT_OF_LINE.iter().find(is_named) {
                    self.called.insert(known);
                    // Several functions may have the same name.
                    if let Some(callee) = callee.filter(|callee| self.followed.insert(callee.start())) {
                        instructions += self.at(callee);
                    }
                } else {
                    self.blame(function, instruction, &format!("calls {name}, which is not named here"));
                }
            }
        }
        instructions
    }

    fn blame(&mut self, function: &Function, instruction: &Instruction, what: &str) {
        let Instruction { address, text } = instruction;
        let at = address - function.start();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        self.faults.push(format!("{}: {}+{at:#x}: `{text}` {what}", self.of, function.name));
    }
}

/// The code of a program.
struct Program {
    functions: Vec<Function>,
    /// The slots of the global offset table, through which functions of other crates are called.
    slots: BTreeMap<u64, Callee>,
}

struct Function {
    name: String,
    code: Vec<Instruction>,
}

struct Instruction {
    address: u64,
    /// In Intel's syntax.
    text: String,
}

/// The target of a call or a jump.
enum Target<'a> {
    Address(u64),
    Slot(u64),
    Register(&'a str),
    Unknown,
}

enum Callee {
    Address(u64),
    Name(String),
}

impl Program {
    fn disassemble(path: &Path) -> Result<Program, Box<dyn Error>> {
        let listing = objdump(path, &["--disassemble", "--demangle", "--no-show-raw-insn", "-Mintel"])?;
        let mut functions: Vec<Function> = Vec::new();
        for line in listing.lines() {
            if let Some((_, name)) = line.strip_suffix(">:").and_then(|line| line.split_once(" <")) {
                functions.push(Function { name: name.to_owned(), code: Vec::new() });
            } else if let Some((address, text)) = line.split_once(":\t") {
                let address = u64::from_str_radix(address.trim(), 16)?;
                let function = functions.last_mut().ok_or("an instruction before the first function")?;
                function.code.push(Instruction { address, text: text.to_owned() });
            }
        }
        functions.retain(|function| !function.code.is_empty());
        let mut slots = BTreeMap::new();
        for line in objdump(path, &["--dynamic-reloc"])?.lines() {
            let [slot, kind, value] = line.split_whitespace().collect::<Vec<_>>()[..] else { continue };
            let Ok(slot) = u64::from_str_radix(slot, 16) else { continue };
            let callee = match value.strip_prefix("*ABS*+0x") {
                Some(address) => Callee::Address(u64::from_str_radix(address, 16)?),
                None if kind.ends_with("_GLOB_DAT") => Callee::Name(value.to_owned()),
                None => continue,
            };
            slots.insert(slot, callee);
        }
        Ok(Program { functions, slots })
    }

    fn find(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.name == name)
    }

    /// The possible targets of a call or jump in `function`: their names, and their code if it is in this program.
    fn resolve(&self, target: &Target<'_>, function: &Function) -> Vec<(&str, Option<&Function>)> {
        let at = |address: &u64| {
            let found = self.functions.iter().find(|function| function.start() == *address);
            found.map(|found| (found.name.as_str(), Some(found)))
        };
        let behind = |slot: &u64| match self.slots.get(slot)? {
            Callee::Name(name) => Some((name.as_str(), None)),
            Callee::Address(address) => at(address),
        };
        match target {
            Target::Address(address) => at(address).into_iter().collect(),
            Target::Slot(slot) => behind(slot).into_iter().collect(),
            // Before a loop, a slot is loaded into a register: there may be several.
            Target::Register(register) => {
                let load = format!("{register},QWORD PTR [rip");
                let loads =
                    function.code.iter().filter(|instruction| instruction.operands().starts_with(&load));
                loads.filter_map(|load| behind(&load.comment()?)).collect()
            }
            Target::Unknown => Vec::new(),
        }
    }
}

impl Function {
    fn start(&self) -> u64 {
        self.code[0].address
    }

    fn contains(&self, address: u64) -> bool {
        (self.start()..=self.code[self.code.len() - 1].address).contains(&address)
    }
}

impl Instruction {
    /// The first word that is not an irrelevant prefix.
    fn mnemonic(&self) -> &str {
        let harmless = |word: &&str| !matches!(*word, "bnd" | "notrack" | "cs" | "ds" | "data16");
        self.text.split_whitespace().find(harmless).unwrap_or_default()
    }

    fn operands(&self) -> &str {
        self.text.split_once(self.mnemonic()).map_or("", |(_, rest)| rest.trim_start())
    }

    /// The address that objdump shows for an operand relative to `rip`.
    fn comment(&self) -> Option<u64> {
        let (_, comment) = self.text.split_once("# ")?;
        u64::from_str_radix(comment.split_whitespace().next()?, 16).ok()
    }

    fn is_forbidden(&self) -> bool {
        // An exchange with memory is locked without a prefix.
        let locks_silently = self.mnemonic() == "xchg" && self.operands().contains('[');
        locks_silently || FORBIDDEN.contains(&self.mnemonic())
    }

    /// Its target, if that may be outside of `function`.
    fn target(&self, function: &Function) -> Option<Target<'_>> {
        if self.mnemonic() != "call" && !self.mnemonic().starts_with('j') {
            return None;
        }
        let operand = self.operands().split_whitespace().next().unwrap_or_default();
        if let Ok(address) = u64::from_str_radix(operand, 16) {
            return (!function.contains(address)).then_some(Target::Address(address));
        }
        Some(match self.comment() {
            Some(slot) => Target::Slot(slot),
            None if operand.chars().all(char::is_alphanumeric) => Target::Register(operand),
            None => Target::Unknown,
        })
    }
}

/// The output of objdump for a program.
fn objdump(path: &Path, options: &[&str]) -> Result<String, Box<dyn Error>> {
    let run = Command::new("objdump").args(options).arg(path).output()?;
    if !run.status.success() {
        return Err(format!("objdump: {}\n{}", run.status, String::from_utf8_lossy(&run.stderr)).into());
    }
    Ok(String::from_utf8(run.stdout)?)
}

/// The path of a function without generic arguments: `a::B<C>::d` and `<a::B<C>>::d` are both `a::B::d`. Drop glue has had
/// several names.
fn plain(name: &str) -> String {
    // After an `@` comes the version of a symbol, or a mark of a stub that jumps there.
    let name = name.split('@').next().unwrap_or(name).replace("::<", "<");
    for glue in ["core::ptr::drop_in_place<", "core::ptr::drop_glue<"] {
        if let Some(dropped) = name.strip_prefix(glue).and_then(|rest| rest.strip_suffix('>')) {
            return format!("drop of {}", plain(dropped));
        }
    }
    // Brackets around a leading type hold no arguments.
    let (mut plain, mut depth) = (String::new(), if name.starts_with('<') { -1 } else { 0 });
    for letter in name.chars() {
        match letter {
            '<' => depth += 1,
            '>' => depth = (depth - 1).max(0),
            _ if depth == 0 => plain.push(letter),
            _ => {}
        }
    }
    plain
}
