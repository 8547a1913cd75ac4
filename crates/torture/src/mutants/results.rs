//! The fates of mutants, kept from run to run: what neither the sources nor the mutant's file changed is not run again.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// One finished mutant, or a command without a mutant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Stands for all that the fate depends on.
    pub key: String,
    pub fate: Fate,
    /// The checks that caught it, or what went wrong.
    pub by: String,
    pub seconds: u64,
}

/// How a mutant ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    Caught,
    /// As its file says.
    Survived,
    /// Not what its file says.
    Wrong,
}

/// The file of all records.
#[derive(Debug)]
pub struct Results {
    file: PathBuf,
    records: BTreeMap<String, Record>,
}

impl Results {
    /// Reads the file. A missing or unreadable one holds no results.
    pub fn load(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap_or_default();
        Results { file: file.to_owned(), records: toml::from_str(&text).unwrap_or_default() }
    }

    /// The record of `name`, whatever its key.
    pub fn last(&self, name: &str) -> Option<&Record> {
        self.records.get(name)
    }

    /// The record of `name`, if it has this key.
    pub fn get(&self, name: &str, key: &str) -> Option<&Record> {
        self.last(name).filter(|record| record.key == key)
    }

    /// Adds a record and saves all: a kill leaves the old file or the new one.
    pub fn add(&mut self, name: &str, record: Record) -> Result<(), String> {
        self.records.insert(name.to_owned(), record);
        let next = self.file.with_extension("new");
        let save = || {
            fs::write(&next, toml::to_string(&self.records).map_err(io::Error::other)?)?;
            fs::rename(&next, &self.file)
        };
        save().map_err(|e| format!("{}: {e}", self.file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_only_with_its_key() {
        let file = std::env::temp_dir().join(format!("shmpipe-results-{}.toml", std::process::id()));
        let record = Record { key: "1".into(), fate: Fate::Caught, by: "a \"test\"".into(), seconds: 3 };
        Results::load(&file).add("kill/no-walk", record.clone()).unwrap();
        let loaded = Results::load(&file);
        fs::remove_file(&file).unwrap();
        assert_eq!(loaded.get("kill/no-walk", "1"), Some(&record));
        assert_eq!(loaded.get("kill/no-walk", "2"), None);
        assert_eq!(loaded.last("kill/no-walk"), Some(&record));
    }
}
