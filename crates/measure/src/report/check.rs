//! Regressions.
//!
//! A ratio to the classic ring is worse if it is more than a tenth above an older one of the same kind of processor in the same
//! placement, and the quartiles of the sessions' ratios do not overlap: three quarters of the new sessions are above three
//! quarters of the old ones. The bound of a tenth is the effect of code placement on short messages. For a figure from a
//! document the sessions are unknown, and the bound is a quarter.

use super::archive::{Archive, Entry, Machine};
use super::row::{Kind, Row, Source};

/// A ratio above an older one by this factor is worse.
const NOISE: f64 = 1.1;
/// The same if one of the two was copied from a document.
const NOISE_OF_OLD: f64 = 1.25;

/// A line for each figure that is worse in the newest files than in older ones, and for each accepted one without a row.
pub(super) fn regressions(archive: &Archive) -> Vec<String> {
    let mut found = Vec::new();
    for machine in archive.machines() {
        let mut names: Vec<String> = Vec::new();
        for row in machine.entries.iter().flat_map(|entry| &entry.report.rows).filter(|row| counts(row)) {
            let name = row.name();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        found.extend(names.iter().filter_map(|name| regression(&machine, name)));
    }
    for Entry { file, report } in &archive.entries {
        for accepted in &report.accepted {
            if !report.rows.iter().any(|row| counts(row) && row.name() == accepted.row) {
                found.push(format!("{file} accepts \"{}\", which none of its rows is named", accepted.row));
            }
        }
    }
    found
}

/// Whether it is ours, and has a ratio to the classic ring.
fn counts(row: &Row) -> bool {
    matches!(row.experiment, Kind::RoundTrip | Kind::Streaming)
        && row.transport.starts_with("shmpipe")
        && row.to_classic.is_some()
}

/// The row with this name in its newest file, if it is worse than in the best of the older files.
fn regression(machine: &Machine<'_>, name: &str) -> Option<String> {
    let mut known: Vec<(&Entry, &Row)> = Vec::new();
    for entry in &machine.entries {
        let Some(row) = entry.report.rows.iter().find(|row| counts(row) && row.name() == name) else {
            continue;
        };
        if entry.report.accepted.iter().any(|accepted| accepted.row == name) {
            known.clear(); // what was before is no measure for what comes
        }
        known.push((entry, row));
    }
    let (newest, now) = known.pop()?;
    let worse = known
        .into_iter()
        .filter(|(older, before)| older.code() != newest.code() && is_worse((newest, now), (older, before)));
    let (older, before) =
        worse.min_by(|(_, a), (_, b)| a.to_classic.unwrap_or(0.0).total_cmp(&b.to_classic.unwrap_or(0.0)))?;
    let more = 100.0 * (now.to_classic? / before.to_classic? - 1.0);
    Some(format!(
        "{}: {name}: {} the classic ring's in {}, {} in {}: {more:.0} % more",
        machine.describe(),
        figure(now),
        newest.file,
        figure(before),
        older.file
    ))
}

fn is_worse((newest, now): (&Entry, &Row), (older, before): (&Entry, &Row)) -> bool {
    let (Some(ratio), Some(old_ratio)) = (now.to_classic, before.to_classic) else { return false };
    let copied = [newest, older].iter().any(|entry| entry.report.source == Source::Transcribed);
    let noise = if copied { NOISE_OF_OLD } else { NOISE };
    ratio > noise * old_ratio && range(now)[0] > range(before)[1]
}

/// The quartiles of the sessions' ratios, or the ratio itself where they are unknown.
fn range(row: &Row) -> [f64; 2] {
    let ratio = row.to_classic.unwrap_or(f64::NAN);
    row.sessions_to_classic.or(row.to_classic_range).unwrap_or([ratio, ratio])
}

fn figure(row: &Row) -> String {
    let ratio = row.to_classic.unwrap_or(f64::NAN);
    match range(row) {
        [low, high] if low < high => format!("{ratio:.2} ({low:.2} to {high:.2})"),
        _ => format!("{ratio:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::{report, row};
    use super::super::row::{Accepted, Report};
    use super::*;
    use crate::placement::Placement;

    fn older(ratio: f64, sessions: [f64; 2]) -> Report {
        report("2026-11-29", "aaaaaaa", Placement::Near, vec![row(Kind::RoundTrip, 8, ratio, sessions)])
    }

    fn newer(ratio: f64, sessions: [f64; 2]) -> Report {
        Report { date: "2026-11-30".into(), commit: "bbbbbbb".into(), ..older(ratio, sessions) }
    }

    fn check(reports: &[Report]) -> Vec<String> {
        let entry = |report: &Report| Entry { file: report.file_name(), report: report.clone() };
        regressions(&Archive::new(reports.iter().map(entry).collect()))
    }

    #[test]
    fn regression_is_found() {
        let found = check(&[older(0.7, [0.68, 0.72]), newer(0.9, [0.85, 0.95])]);
        let expected = "Zen 3, near: round trip, 8 B, shmpipe, ring of 1048576 B: 0.90 (0.85 to 0.95) the classic ring's in \
                        amd-25-1-near-2026-11-30-bbbbbbb.json, 0.70 (0.68 to 0.72) in \
                        amd-25-1-near-2026-11-29-aaaaaaa.json: 29 % more";
        assert_eq!(found, [expected]);
    }

    #[test]
    fn time_orders_files_of_one_day() {
        let at = |time: &str, commit: &str, ratio| Report {
            time: Some(time.into()),
            commit: commit.into(),
            ..older(ratio, [ratio, ratio])
        };
        assert_eq!(check(&[at("22:51", "bbbbbbb", 0.9), at("23:25", "aaaaaaa", 0.7)]), [""; 0], "better");
        assert_eq!(check(&[at("22:51", "bbbbbbb", 0.7), at("23:25", "aaaaaaa", 0.9)]).len(), 1, "worse");
    }

    #[test]
    fn noise_is_no_regression() {
        assert_eq!(check(&[older(0.7, [0.69, 0.71]), newer(0.76, [0.75, 0.77])]), [""; 0], "below a tenth");
        assert_eq!(check(&[older(0.7, [0.6, 0.88]), newer(0.9, [0.87, 0.95])]), [""; 0], "sessions meet");
        assert_eq!(check(&[older(0.9, [0.89, 0.91]), newer(0.7, [0.69, 0.71])]), [""; 0], "better");
    }

    #[test]
    fn only_equal_configurations_are_compared() {
        let far = Report { placement: Placement::Far, ..newer(0.9, [0.9, 0.9]) };
        assert_eq!(check(&[older(0.7, [0.7, 0.7]), far]), [""; 0]);
        let mut other = newer(0.9, [0.9, 0.9]);
        other.cpu.model = Some(17);
        assert_eq!(check(&[older(0.7, [0.7, 0.7]), other]), [""; 0]);
        let same = Report { commit: "aaaaaaa".into(), ..newer(0.9, [0.9, 0.9]) };
        assert_eq!(check(&[older(0.7, [0.7, 0.7]), same]), [""; 0], "the same commit");
        let mut classic = [older(0.7, [0.7, 0.7]), newer(0.9, [0.9, 0.9])];
        classic.iter_mut().for_each(|report| report.rows[0].transport = "pipe".into());
        assert_eq!(check(&classic), [""; 0], "not ours");
    }

    #[test]
    fn fixed_regression_is_none() {
        let newest = Report { date: "2026-12-01".into(), commit: "ccccccc".into(), ..older(0.7, [0.7, 0.7]) };
        assert_eq!(check(&[older(0.7, [0.7, 0.7]), newer(0.9, [0.9, 0.9]), newest]), [""; 0]);
    }

    #[test]
    fn loss_by_small_steps_is_found() {
        let newest =
            Report { date: "2026-12-01".into(), commit: "ccccccc".into(), ..older(0.84, [0.84, 0.84]) };
        let found = check(&[older(0.7, [0.7, 0.7]), newer(0.77, [0.77, 0.77]), newest]);
        assert!(found.len() == 1 && found[0].contains("0.70 in amd-25-1-near-2026-11-29"), "{found:?}");
    }

    #[test]
    fn transcribed_figures_have_a_larger_bound() {
        let copied = |ratio| Report { source: Source::Transcribed, ..older(ratio, [ratio, ratio]) };
        assert_eq!(check(&[copied(0.7), newer(0.85, [0.85, 0.85])]), [""; 0]);
        assert_eq!(check(&[copied(0.7), newer(0.9, [0.9, 0.9])]).len(), 1);
        let mut ranged = copied(0.7);
        (ranged.rows[0].sessions_to_classic, ranged.rows[0].to_classic_range) = (None, Some([0.5, 0.95]));
        assert_eq!(check(&[ranged, newer(0.9, [0.9, 0.9])]), [""; 0]);
    }

    #[test]
    fn accepted_figure_is_the_new_baseline() {
        let name = row(Kind::RoundTrip, 8, 1.0, [1.0, 1.0]).name();
        let mut accepting = newer(0.9, [0.9, 0.9]);
        accepting.accepted = vec![Accepted { row: name, why: "64 B won more".into() }];
        assert_eq!(check(&[older(0.7, [0.7, 0.7]), accepting.clone()]), [""; 0]);
        let later = |ratio| Report {
            date: "2026-12-01".into(),
            commit: "ccccccc".into(),
            ..older(ratio, [ratio, ratio])
        };
        assert_eq!(check(&[older(0.7, [0.7, 0.7]), accepting.clone(), later(0.9)]), [""; 0]);
        assert_eq!(check(&[older(0.7, [0.7, 0.7]), accepting.clone(), later(1.1)]).len(), 1);
        accepting.accepted[0].row = "round trip".into();
        let found = check(&[accepting]);
        assert!(found.len() == 1 && found[0].contains("accepts \"round trip\", which none"), "{found:?}");
    }
}
