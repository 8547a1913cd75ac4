//! The machine of a measurement, without which a figure means nothing.

use std::ffi::CStr;
use std::fmt;
use std::fs;
use std::hint::black_box;
use std::mem;
use std::time::Instant;

use crate::session::Session;
use crate::settings::Between;

/// Lines of names and values for the head of a report. Omits what the system does not provide.
#[derive(Clone, Debug)]
pub struct Machine {
    lines: Vec<(&'static str, String)>,
}

impl Machine {
    /// The machine as the session uses it.
    pub fn of(session: &Session) -> Machine {
        let mut machine = Machine { lines: Vec::new() };
        machine.add("cpu", cpu_model());
        machine.add("cpus", Some(cpus(session)));
        machine.add("machine", Some(virtual_or_not()));
        machine.add("kernel", kernel());
        machine.add("clock", clock());
        machine.add("governor", session.cpus().and_then(|(a, _)| read_cpu(a, "cpufreq/scaling_governor")));
        machine.add("huge pages", huge_pages());
        machine
            .add("compiler", option_env!("MEASURE_RUSTC").filter(|text| !text.is_empty()).map(str::to_owned));
        let profile = if cfg!(debug_assertions) { "debug (no figure means anything)" } else { "release" };
        machine.add("build", Some(format!("{profile}, {}", std::env::consts::ARCH)));
        let capacity = session.settings().capacity;
        machine.add("ring", Some(format!("{capacity} bytes each way")));
        machine
    }

    fn add(&mut self, what: &'static str, how: Option<String>) {
        self.lines.extend(how.map(|how| (what, how)));
    }

    /// The lines: names and values.
    pub fn lines(&self) -> &[(&'static str, String)] {
        &self.lines
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (what, how)) in self.lines.iter().enumerate() {
            let end = if i == 0 { "" } else { "\n" };
            write!(f, "{end}{what:11}{how}")?;
        }
        Ok(())
    }
}

fn read(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// A file of a processor below `/sys/devices/system/cpu/cpuN`.
pub(crate) fn read_cpu(cpu: usize, file: &str) -> Option<String> {
    read(&format!("/sys/devices/system/cpu/cpu{cpu}/{file}"))
}

/// The value of the first of these keys in `/proc/cpuinfo`.
fn cpu_model() -> Option<String> {
    let text = read("/proc/cpuinfo")?;
    let field = |key: &str| {
        let line =
            text.lines().find(|line| line.split(':').next().is_some_and(|found| found.trim() == key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let numbers = [
        ("cpu family", "family"),
        ("model", "model"),
        ("CPU implementer", "implementer"),
        ("CPU part", "part"),
    ];
    let numbers: Vec<String> =
        numbers.iter().filter_map(|(key, word)| Some(format!("{word} {}", field(key)?))).collect();
    let name = field("model name").unwrap_or_else(|| "model unknown".to_owned());
    Some(if numbers.is_empty() { name } else { format!("{name} ({})", numbers.join(", ")) })
}

fn cpus(session: &Session) -> String {
    let Some((a, b)) = session.cpus() else {
        return "one for both sides, which are not pinned: figures are of context switches".to_owned();
    };
    let shares = |file: &str| {
        let list = read_cpu(a, file)?;
        Some(list_has(&list, b))
    };
    let side = match session.settings().between {
        Between::Processes => "process",
        Between::Threads => "thread",
    };
    let mut text = format!("{a} and {b}, one {side} pinned to each");
    let levels = [
        ("topology/thread_siblings_list", "core"),
        ("cache/index2/shared_cpu_list", "level-2 cache"),
        ("cache/index3/shared_cpu_list", "level-3 cache"),
        ("topology/package_cpus_list", "package"),
    ];
    match levels.iter().find_map(|(file, word)| shares(file)?.then_some(word)) {
        Some(word) => text += &format!("; the kernel says that they share a {word}"),
        None => text += "; the kernel does not say what they share",
    }
    text
}

/// Whether a list such as `0-3,8` contains the number.
fn list_has(list: &str, number: usize) -> bool {
    list.split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.trim().parse::<usize>(), last.trim().parse::<usize>()) {
            (Ok(first), Ok(last)) => (first..=last).contains(&number),
            _ => false,
        }
    })
}

/// Whether the processor reports a hypervisor. None where processors cannot.
pub(crate) fn hypervisor() -> Option<bool> {
    let text = read("/proc/cpuinfo")?;
    let flags = text.lines().find(|line| line.starts_with("flags"))?;
    Some(flags.split_whitespace().any(|flag| flag == "hypervisor"))
}

fn virtual_or_not() -> String {
    let kind = read("/sys/hypervisor/type");
    let product = read("/sys/class/dmi/id/product_name");
    let names = [kind, product].into_iter().flatten().collect::<Vec<_>>().join(", ");
    let names = if names.is_empty() { names } else { format!(" ({names})") };
    if hypervisor() == Some(true) {
        format!("virtual{names}; which cores the CPUs are may change at any moment")
    } else {
        format!("no hypervisor announced{names}")
    }
}

fn kernel() -> Option<String> {
    // SAFETY: utsname is arrays of characters, for which all zero is a value.
    let mut name: libc::utsname = unsafe { mem::zeroed() };
    // SAFETY: `name` is live; the kernel writes it.
    if unsafe { libc::uname(&mut name) } == -1 {
        return None;
    }
    // SAFETY: uname terminates each string inside its array.
    let text =
        |field: &[libc::c_char]| unsafe { CStr::from_ptr(field.as_ptr()) }.to_string_lossy().into_owned();
    Some(format!("{} {}", text(&name.sysname), text(&name.release)))
}

fn clock() -> Option<String> {
    const READS: u32 = 1000;
    let start = Instant::now();
    for _ in 0..READS {
        black_box(Instant::now());
    }
    let cost = start.elapsed() / READS;
    let source = read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let source = source.unwrap_or_else(|| "source unknown".to_owned());
    Some(format!("{source}, {} ns a reading", cost.as_nanos()))
}

fn huge_pages() -> Option<String> {
    let enabled = read("/sys/kernel/mm/transparent_hugepage/enabled")?;
    let shared = read("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    let shared = shared.map_or(String::new(), |shared| format!("; shared memory: {}", chosen(&shared)));
    Some(format!("transparent: {}{shared}", chosen(&enabled)))
}

/// The bracketed choice in a file such as `always [madvise] never`.
fn chosen(choices: &str) -> &str {
    choices.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or(choices, |(choice, _)| choice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_parsed() {
        assert!(list_has("0-3,8", 2));
        assert!(list_has("0-3,8", 8));
        assert!(!list_has("0-3,8", 4));
        assert!(!list_has("", 0));
    }

    #[test]
    fn choice_is_the_bracketed_word() {
        assert_eq!(chosen("always [madvise] never"), "madvise");
        assert_eq!(chosen("plain"), "plain");
    }

    #[test]
    fn kernel_has_a_name() {
        assert!(kernel().unwrap().starts_with("Linux "));
    }
}
