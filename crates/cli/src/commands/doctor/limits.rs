//! The limits on System V objects, and how close they are.

use shmpipe::SetupError;
use shmpipe::sysvipc::{OPERATIONS, Objects, SEGMENTS, SEMAPHORES};

use super::check::Check;
use super::sizes::{PIPE, page_size};
use crate::output::units;

const NAME: &str = "limits";

/// The limits of the IPC namespace.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Bytes of a segment.
    shmmax: u64,
    /// Pages of all segments together.
    shmall: u64,
    /// Segments.
    shmmni: u64,
    /// Semaphores of a set.
    semmsl: u64,
    /// Semaphores of all sets together.
    semmns: u64,
    /// Operations of one call.
    semopm: u64,
    /// Sets.
    semmni: u64,
}

/// The most identifiers of one kind in a namespace (IPCMNI of the kernel).
const IDENTIFIERS: u64 = 32768;

/// The objects that exist.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    segments: u64,
    pages: u64,
    sets: u64,
    semaphores: u64,
}

pub fn check(objects: Result<&Objects, &SetupError>) -> Check {
    match (Limits::now(), objects) {
        (Ok(limits), Ok(objects)) => judge(&limits, &Used::by(objects)),
        (Err(because), _) => Check::impossible(NAME, because),
        (_, Err(error)) => Check::impossible(NAME, error.to_string()),
    }
}

impl Limits {
    fn now() -> Result<Self, String> {
        let number = |file: &str, column: usize| {
            let path = format!("/proc/sys/kernel/{file}");
            let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
            let number = text.split_whitespace().nth(column).and_then(|number| number.parse().ok());
            number.ok_or_else(|| format!("{path}: {:?} cannot be parsed", text.trim()))
        };
        Ok(Limits {
            shmmax: number("shmmax", 0)?,
            shmall: number("shmall", 0)?,
            shmmni: number("shmmni", 0)?,
            semmsl: number("sem", 0)?,
            semmns: number("sem", 1)?,
            semopm: number("sem", 2)?,
            semmni: number("sem", 3)?,
        })
    }
}

impl Used {
    fn by(objects: &Objects) -> Self {
        let page = page_size();
        Used {
            segments: objects.segments.len() as u64,
            pages: objects.segments.iter().map(|segment| segment.size.div_ceil(page)).sum(),
            sets: objects.sets.len() as u64,
            semaphores: objects.sets.iter().map(|set| set.semaphores).sum(),
        }
    }
}

fn judge(limits: &Limits, used: &Used) -> Check {
    let Limits { shmmax, shmall, shmmni, semmsl, semmns, semopm, semmni } = *limits;
    let mut check = Check::new(NAME);
    for (key, value) in [
        ("shmmax_bytes", shmmax),
        ("shmall_pages", shmall),
        ("shmmni_segments", shmmni),
        ("semmsl_semaphores_per_set", semmsl),
        ("semmns_semaphores", semmns),
        ("semopm_operations", semopm),
        ("semmni_sets", semmni),
        ("used_segments", used.segments),
        ("used_pages", used.pages),
        ("used_sets", used.sets),
        ("used_semaphores", used.semaphores),
    ] {
        check.fact(key, value);
    }
    check
        .summary(format!("{} of {shmmni} segments, {} of {semmni} semaphore sets", used.segments, used.sets));

    let page = page_size();
    let pages = PIPE.div_ceil(page);
    if shmmax < PIPE {
        check.find(
            format!("a segment may have at most {shmmax} bytes (SHMMAX)"),
            format!("a pipe of the default capacity needs {PIPE}"),
            format!("sysctl -w kernel.shmmax={}", 64 * PIPE),
        );
    }
    if let Some(nearly) = nearly(used.pages, shmall, pages) {
        let all = units::show_size(shmall.saturating_mul(page));
        check.find(
            format!("{nearly} of the memory for all segments ({all}, SHMALL)"),
            "when it is used up, no pipe can be created",
            format!("sysctl -w kernel.shmall={}", (2 * shmall).max(64 * pages)),
        );
    }
    if let Some(nearly) = nearly(used.segments, shmmni, SEGMENTS) {
        check.find(
            format!("{nearly} of at most {shmmni} segments (SHMMNI)"),
            "when they are used up, no pipe can be created",
            if shmmni < IDENTIFIERS {
                format!("sysctl -w kernel.shmmni={}", raised(shmmni))
            } else {
                "ipcs -m -p   # shows their owners; then ipcrm -m ID".to_owned()
            },
        );
    }
    let (sets, semaphores) = (nearly(used.sets, semmni, 1), nearly(used.semaphores, semmns, SEMAPHORES));
    let too_small = semmsl < SEMAPHORES || semopm < OPERATIONS;
    // One command sets all four, so that fixing one finding fixes the others too.
    let sem = {
        let semmni = if sets.is_some() { raised(semmni) } else { semmni };
        let semmns =
            if semaphores.is_some() || sets.is_some() { semmns.max(SEMAPHORES * semmni) } else { semmns };
        let semmns = if semaphores.is_some() { semmns.max(2 * used.semaphores) } else { semmns };
        let (semmsl, semopm) = if too_small { (semmsl.max(250), semopm.max(32)) } else { (semmsl, semopm) };
        format!("sysctl -w kernel.sem=\"{semmsl} {semmns} {semopm} {semmni}\"")
    };
    if let Some(nearly) = sets {
        check.find(
            format!("{nearly} of at most {semmni} semaphore sets (SEMMNI)"),
            "when they are used up, no pipe can be created",
            if semmni < IDENTIFIERS {
                sem.clone()
            } else {
                "ipcs -s -c   # shows their owners; then ipcrm -s ID".to_owned()
            },
        );
    }
    if let Some(nearly) = semaphores {
        check.find(
            format!("{nearly} of at most {semmns} semaphores (SEMMNS)"),
            "when they are used up, no pipe can be created",
            sem.clone(),
        );
    }
    if too_small {
        check.find(
            format!(
                "a set may have at most {semmsl} semaphores (SEMMSL), a call {semopm} operations (SEMOPM)"
            ),
            format!("the set of a pipe has {SEMAPHORES}, and a call makes up to {OPERATIONS}"),
            sem,
        );
    }
    check
}

/// How close a limit is, in words, if less than a tenth of it is left, or less than one more pipe needs.
fn nearly(used: u64, limit: u64, needed: u64) -> Option<String> {
    let left = limit.saturating_sub(used);
    let some = used > 0 && left < limit.div_ceil(10);
    (some || left < needed).then(|| match left {
        0 => "none left".to_owned(),
        _ => format!("{used} used, {left} left,"),
    })
}

/// Twice as many objects, up to the maximum of the kernel.
fn raised(limit: u64) -> u64 {
    (2 * limit).clamp(128, IDENTIFIERS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::check::Verdict;

    const USUAL: Limits = Limits {
        shmmax: 18446744073692774399,
        shmall: 18446744073692774399,
        shmmni: 4096,
        semmsl: 32000,
        semmns: 1_024_000_000,
        semopm: 500,
        semmni: 32000,
    };

    fn fixes(limits: Limits, used: Used) -> Vec<String> {
        judge(&limits, &used).findings.into_iter().map(|finding| finding.fix).collect()
    }

    #[test]
    fn usual_limits_are_fine_until_a_tenth_is_left() {
        let used = |segments, sets| Used { segments, pages: 257 * segments, sets, semaphores: 8 * sets };
        assert_eq!(judge(&USUAL, &Used::default()).verdict(), Verdict::Ok);
        assert_eq!(judge(&USUAL, &used(3686, 28800)).verdict(), Verdict::Ok);
        assert_eq!(fixes(USUAL, used(3687, 0)), ["sysctl -w kernel.shmmni=8192"]);
        assert_eq!(fixes(USUAL, used(0, 28801)), ["sysctl -w kernel.sem=\"32000 1024000000 500 32768\""]);
        let most = Limits { shmmni: 32768, semmni: 32768, ..USUAL };
        let fixes = fixes(most, used(32768, 32768));
        assert!(fixes[0].starts_with("ipcs -m") && fixes[1].starts_with("ipcs -s"), "{fixes:?}");
    }

    #[test]
    fn limits_too_small_for_a_pipe_are_found() {
        let found = |limits| fixes(limits, Used::default());
        assert_eq!(found(Limits { shmmax: PIPE, ..USUAL }), [] as [&str; 0]);
        assert_eq!(found(Limits { shmmax: PIPE - 1, ..USUAL }), ["sysctl -w kernel.shmmax=67371008"]);
        assert_eq!(found(Limits { shmall: 256, ..USUAL }), ["sysctl -w kernel.shmall=16448"]);
        assert_eq!(found(Limits { shmmni: 0, ..USUAL }), ["sysctl -w kernel.shmmni=128"]);
        let few = [Limits { semmsl: 7, ..USUAL }, Limits { semopm: 1, ..USUAL }];
        assert!(few.iter().all(|limits| found(*limits).len() == 1));
        assert_eq!(found(Limits { semmns: 7, ..USUAL }), ["sysctl -w kernel.sem=\"32000 256000 500 32000\""]);
        let small = Limits { semmns: 8, semmni: 1, semopm: 1, ..USUAL };
        let fixes = fixes(small, Used { sets: 1, semaphores: 8, ..Used::default() });
        assert_eq!(fixes, ["sysctl -w kernel.sem=\"32000 1024 32 128\""; 3], "one command fixes all");
    }
}
