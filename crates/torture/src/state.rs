//! The saved state of a run, to resume it after an interruption or a kill. A small file, written every few seconds and removed at
//! the verdict.

use serde::{Deserialize, Serialize};
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The progress of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// The harness with its options.
    pub what: String,
    pub seed: u64,
    /// The part of the goal that is done.
    pub done: u64,
    /// Running time.
    pub seconds: f64,
    /// The other counts, in the order of the verdict.
    #[serde(default)]
    pub counts: Vec<Count>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Count {
    pub what: String,
    pub number: u64,
}

impl State {
    /// Reads a state file.
    pub fn load(file: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(file)?;
        toml::from_str(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Replaces the file atomically: a kill leaves the old or the new one.
    pub fn save(&self, file: &Path) -> io::Result<()> {
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        let next = file.with_extension(format!("{}", std::process::id()));
        let text = toml::to_string(self).map_err(io::Error::other)?;
        fs::write(&next, text)?;
        fs::rename(&next, file)
    }

    /// The count with this name. Adds it if it is new.
    pub fn count(&mut self, what: &str) -> &mut u64 {
        let at = self.counts.iter().position(|count| count.what == what).unwrap_or_else(|| {
            self.counts.push(Count { what: what.to_owned(), number: 0 });
            self.counts.len() - 1
        });
        &mut self.counts[at].number
    }
}

/// The default state file. Its name depends on the options, so that runs with different options do not collide.
pub fn default_file(name: &str, what: &str) -> PathBuf {
    let home = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = home.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".local/state")));
    let options = shmpipe_testing::name::key_of(what);
    home.unwrap_or_else(env::temp_dir).join("shmpipe-torture").join(format!("{name}-{options:08x}.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_returns_what_save_wrote() {
        let file = env::temp_dir().join(format!("shmpipe-state-{}.toml", std::process::id()));
        let mut state =
            State { what: "Kill { rounds: 7 }".to_owned(), seed: i64::MAX as u64, ..State::default() };
        state.done = 5;
        *state.count("messages") += 3;
        *state.count("sleeps") += 4;
        *state.count("messages") += 3;
        state.save(&file).unwrap();
        let loaded = State::load(&file);
        fs::remove_file(&file).unwrap();
        assert_eq!(format!("{:?}", loaded.unwrap()), format!("{state:?}"));
    }
}
