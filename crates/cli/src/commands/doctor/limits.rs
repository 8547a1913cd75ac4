//! The limits of System V objects, and how near they are.

use shmpipe::SetupError;
use shmpipe::sysvipc::{OPERATIONS, Objects, SEMAPHORES};

use super::PIPE;
use super::check::Check;
use crate::output::units;

const NAME: &str = "limits";

/// What the kernel allows an IPC namespace to have.
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

/// More identifiers of one kind than these no namespace has (IPCMNI of the kernel).
const IDENTIFIERS: u64 = 32768;

/// What there is.
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
            number.ok_or_else(|| format!("{path}: {:?} is not understood", text.trim()))
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
        let page = super::page_size();
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

    let page = super::page_size();
    let pages = PIPE.div_ceil(page);
    if shmmax < PIPE {
        check.find(
            format!("a segment may have {shmmax} bytes (SHMMAX)"),
            format!("a pipe of the default capacity needs {PIPE}"),
            format!("sysctl -w kernel.shmmax={}", 64 * PIPE),
        );
    }
    if let Some(nearly) = nearly(used.pages, shmall, pages) {
        let all = units::show_size(shmall.saturating_mul(page));
        check.find(
            format!("{nearly} of the memory that all segments together may have ({all}, SHMALL)"),
            "no further pipe can be made when it is used up",
            format!("sysctl -w kernel.shmall={}", (2 * shmall).max(64 * pages)),
        );
    }
    if let Some(nearly) = nearly(used.segments, shmmni, 1) {
        check.find(
            format!("{nearly} of the {shmmni} segments that there may be (SHMMNI)"),
            "no further pipe can be made when they are used up",
            if shmmni < IDENTIFIERS {
                format!("sysctl -w kernel.shmmni={}", raised(shmmni))
            } else {
                "ipcs -m -p   # shows whose they are; then ipcrm -m ID".to_owned()
            },
        );
    }
    let (sets, semaphores) = (nearly(used.sets, semmni, 1), nearly(used.semaphores, semmns, SEMAPHORES));
    let too_small = semmsl < SEMAPHORES || semopm < OPERATIONS;
    // All four are set at once, so that whichever finding is mended mends the others too.
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
            format!("{nearly} of the {semmni} semaphore sets that there may be (SEMMNI)"),
            "no further pipe can be made when they are used up",
            if semmni < IDENTIFIERS {
                sem.clone()
            } else {
                "ipcs -s -c   # shows whose they are; then ipcrm -s ID".to_owned()
            },
        );
    }
    if let Some(nearly) = semaphores {
        check.find(
            format!("{nearly} of the {semmns} semaphores that there may be (SEMMNS)"),
            "no further pipe can be made when they are used up",
            sem.clone(),
        );
    }
    if too_small {
        check.find(
            format!("a set may have {semmsl} semaphores (SEMMSL), a call {semopm} operations (SEMOPM)"),
            format!("the set of a pipe has {SEMAPHORES}, and a call takes up to {OPERATIONS}"),
            sem,
        );
    }
    check
}

/// In words how near a limit is, if less than a tenth of it is left, or less than one more pipe needs.
fn nearly(used: u64, limit: u64, needed: u64) -> Option<String> {
    let left = limit.saturating_sub(used);
    let some = used > 0 && left < limit.div_ceil(10);
    (some || left < needed).then(|| match left {
        0 => "nothing is left".to_owned(),
        _ => format!("{used} used, {left} left,"),
    })
}

/// Twice as many objects, as far as the kernel takes that.
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

    fn mended(limits: Limits, used: Used) -> Vec<String> {
        judge(&limits, &used).findings.into_iter().map(|finding| finding.mend).collect()
    }

    #[test]
    fn the_usual_limits_are_fine_until_a_tenth_is_left() {
        let used = |segments, sets| Used { segments, pages: 257 * segments, sets, semaphores: 8 * sets };
        assert_eq!(judge(&USUAL, &Used::default()).verdict(), Verdict::Ok);
        assert_eq!(judge(&USUAL, &used(3686, 28800)).verdict(), Verdict::Ok);
        assert_eq!(mended(USUAL, used(3687, 0)), ["sysctl -w kernel.shmmni=8192"]);
        assert_eq!(mended(USUAL, used(0, 28801)), ["sysctl -w kernel.sem=\"32000 1024000000 500 32768\""]);
        let most = Limits { shmmni: 32768, semmni: 32768, ..USUAL };
        let mends = mended(most, used(32768, 32768));
        assert!(mends[0].starts_with("ipcs -m") && mends[1].starts_with("ipcs -s"), "{mends:?}");
    }

    #[test]
    fn limits_that_no_pipe_fits_are_found() {
        let found = |limits| mended(limits, Used::default());
        assert_eq!(found(Limits { shmmax: PIPE, ..USUAL }), [] as [&str; 0]);
        assert_eq!(found(Limits { shmmax: PIPE - 1, ..USUAL }), ["sysctl -w kernel.shmmax=67371008"]);
        assert_eq!(found(Limits { shmall: 256, ..USUAL }), ["sysctl -w kernel.shmall=16448"]);
        assert_eq!(found(Limits { shmmni: 0, ..USUAL }), ["sysctl -w kernel.shmmni=128"]);
        let few = [Limits { semmsl: 7, ..USUAL }, Limits { semopm: 3, ..USUAL }];
        assert!(few.iter().all(|limits| found(*limits).len() == 1));
        assert_eq!(found(Limits { semmns: 7, ..USUAL }), ["sysctl -w kernel.sem=\"32000 256000 500 32000\""]);
        let small = Limits { semmns: 8, semmni: 1, semopm: 3, ..USUAL };
        let mends = mended(small, Used { sets: 1, semaphores: 8, ..Used::default() });
        assert_eq!(mends, ["sysctl -w kernel.sem=\"32000 1024 32 128\""; 3], "one command mends all");
    }
}
