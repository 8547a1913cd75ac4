//! All files of the archive.

use std::fs;
use std::io;
use std::path::Path;

use super::identity::Cpu;
use super::row::{Kind, Report, Row};
use crate::errors::about;
use crate::placement::Placement;

/// A file and its name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) file: String,
    pub(super) report: Report,
}

impl Entry {
    /// The commit, with a mark if the measured code differs from it.
    pub(super) fn code(&self) -> String {
        let dirty = if self.report.dirty { ", changed" } else { "" };
        format!("{}{dirty}", self.report.commit)
    }
}

/// All files, sorted by day, time and name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Archive {
    pub(super) entries: Vec<Entry>,
}

/// A kind of processor in one placement, with its files, the oldest first.
pub(super) struct Machine<'a> {
    pub(super) cpu: &'a Cpu,
    pub(super) placement: Placement,
    pub(super) entries: Vec<&'a Entry>,
}

impl Archive {
    pub(super) fn new(mut entries: Vec<Entry>) -> Archive {
        entries.sort_by_cached_key(|Entry { file, report }| {
            (report.date.clone(), report.time.clone(), file.clone())
        });
        Archive { entries }
    }

    /// Reads every `.json` of the folder.
    ///
    /// # Errors
    /// Those of the system and of [`Report::from_json`], with the file's name; `InvalidData` if the name does not match the
    /// content.
    pub(super) fn read(folder: &Path) -> io::Result<Archive> {
        let mut entries = Vec::new();
        let listed =
            fs::read_dir(folder).map_err(|error| about(format_args!("{}", folder.display()), error))?;
        for found in listed {
            let path = found?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let failed = |error| about(format_args!("{}", path.display()), error);
            let report = Report::from_json(&fs::read_to_string(&path).map_err(failed)?).map_err(failed)?;
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if file != report.file_name() {
                let expected = report.file_name();
                let why = format!("its content is named {expected}: rename the file or correct its content");
                return Err(failed(io::Error::new(io::ErrorKind::InvalidData, why)));
            }
            entries.push(Entry { file, report });
        }
        Ok(Archive::new(entries))
    }

    /// Each kind of processor in each placement that was measured, sorted by the names of the processors.
    pub(super) fn machines(&self) -> Vec<Machine<'_>> {
        let mut machines: Vec<Machine<'_>> = Vec::new();
        for entry in &self.entries {
            let Report { cpu, placement, .. } = &entry.report;
            let same =
                |machine: &&mut Machine<'_>| machine.cpu.is_like(cpu) && machine.placement == *placement;
            match machines.iter_mut().find(same) {
                Some(machine) => machine.entries.push(entry),
                None => machines.push(Machine { cpu, placement: *placement, entries: vec![entry] }),
            }
        }
        let order =
            |machine: &Machine<'_>| (machine.cpu.vendor.clone(), machine.cpu.family, machine.cpu.model);
        machines.sort_by_key(|machine| (order(machine), machine.placement));
        machines
    }
}

impl<'a> Machine<'a> {
    /// The newest file with such rows.
    pub(super) fn newest(&self, has: impl Fn(&Report) -> bool) -> Option<&'a Entry> {
        self.entries.iter().rev().copied().find(|entry| has(&entry.report))
    }

    /// The rows of one transport in the newest file with any.
    pub(super) fn rows(
        &self,
        experiment: Kind,
        capacity: impl Fn(usize) -> bool,
        transport: &str,
    ) -> Vec<&'a Row> {
        let is_it = |row: &&Row| {
            row.experiment == experiment
                && row.transport == transport
                && row.to_classic.is_some()
                && row.capacity.is_some_and(&capacity)
        };
        let entry = self.newest(|report| report.rows.iter().any(|row| is_it(&row)));
        entry.map(|entry| entry.report.rows.iter().filter(is_it).collect()).unwrap_or_default()
    }

    /// A readable name: `Zen 3, far`.
    pub(super) fn describe(&self) -> String {
        format!("{}, {}", self.cpu.short(), self.placement)
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::{Folder, report, row};
    use super::*;

    #[test]
    fn processor_is_one_machine_in_each_placement() {
        let entry = |date: &str, placement, ratio| {
            let rows = vec![row(Kind::RoundTrip, 8, ratio, [ratio, ratio])];
            let report = report(date, "abc", placement, rows);
            Entry { file: report.file_name(), report }
        };
        let archive = Archive::new(vec![
            entry("2026-11-30", Placement::Near, 0.9),
            entry("2026-11-29", Placement::Near, 0.8),
            entry("2026-11-29", Placement::Far, 0.7),
        ]);
        let machines = archive.machines();
        assert_eq!(machines.iter().map(Machine::describe).collect::<Vec<_>>(), ["Zen 3, near", "Zen 3, far"]);
        let rows = machines[0].rows(Kind::RoundTrip, |capacity| capacity == 1 << 20, "shmpipe");
        assert_eq!(rows[0].to_classic, Some(0.9), "the newest");
        assert!(machines[0].rows(Kind::RoundTrip, |capacity| capacity == 1, "shmpipe").is_empty());
        assert!(machines[0].rows(Kind::Streaming, |_| true, "shmpipe").is_empty());
    }

    #[test]
    fn file_with_the_wrong_name_is_an_error() {
        let folder = Folder::new("archive");
        let report = report("2026-11-29", "abc", Placement::Near, Vec::new());
        let path = folder.join("amd.json");
        fs::write(&path, report.to_json().unwrap()).unwrap();
        let error = Archive::read(&folder).unwrap_err().to_string();
        assert!(
            error.contains("amd.json: its content is named amd-25-1-near-2026-11-29-abc.json"),
            "{error}"
        );
        fs::rename(&path, folder.join(report.file_name())).unwrap();
        assert_eq!(Archive::read(&folder).unwrap().entries.len(), 1);
        fs::write(folder.join(report.file_name()), "{").unwrap();
        assert!(Archive::read(&folder).unwrap_err().to_string().contains("abc.json: "));
    }

    #[test]
    fn files_of_this_project_match_their_generated_text() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(super::super::measure::RESULTS);
        let archive = Archive::read(&folder).unwrap();
        assert!(archive.entries.len() >= 5, "{}", archive.entries.len());
        for Entry { file, report } in &archive.entries {
            assert_eq!(fs::read_to_string(folder.join(file)).unwrap(), report.to_json().unwrap(), "{file}");
        }
    }
}
