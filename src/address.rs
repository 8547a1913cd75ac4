//! Addresses: how a pipe is named, in code and on the command line.

use std::ffi::CString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where a pipe is to be found.
///
/// It parses from text and prints as the same text:
///
/// | text | segment |
/// |---|---|
/// | `ticks` | the System V segment of that name: its key is a 32-bit hash of the name, and the name itself stands in the segment, so that a collision of two names is an error and never a mix-up |
/// | `sysv:0x4d2`, `sysv:1234` | the System V segment with an agreed key |
/// | `sysv:ftok:PATH:65` | the same, with the key that `ftok(PATH, 65)` gives |
/// | `sysv:id:N` | the System V segment with the identifier `N` (`shmid`), which must exist |
/// | `sysv:private` | a new System V segment without a key (`IPC_PRIVATE`), for a parent that hands [`Pipe::address`](crate::Pipe::address) to its child |
/// | `posix:/ticks` | the POSIX shared memory object of that name: a file in `/dev/shm` |
/// | `file:PATH` | a file on a local file system |
/// | `memfd` | a new memfd, sealed against resizing, without a name |
/// | `fd:N` | the memfd that is open as descriptor `N`: inherited, or received |
/// | `memfd:PATH` | the memfd that is handed out at the Unix socket `PATH`, see [`handoff`](crate::handoff) |
///
/// What each kind is good for, and what is promised against whom, is in the README and in `docs/deployment.md`.
///
/// A name has 1 to 64 bytes, no white space, no control character, no `/`, no `:`, and does not start with `-`.
///
/// ```
/// use shmpipe::Address;
///
/// let address: Address = "sysv:1234".parse()?;
/// assert_eq!(address.to_string(), "sysv:0x4d2");
/// # Ok::<(), shmpipe::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address(pub(crate) Place);

/// What an [`Address`] says, taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Name(Name),
    Key(Key),
    Ftok {
        path: PathBuf,
        project: u8,
    },
    Id(i32),
    Private,
    /// A file in `/dev/shm`; the name without the slash.
    Posix(String),
    File(PathBuf),
    Memfd,
    /// A memfd, by the number of a descriptor of this process.
    Descriptor(i32),
    /// A memfd that is handed out at a Unix socket.
    Served(PathBuf),
}

/// A System V key other than `IPC_PRIVATE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(i32);

/// The name of a pipe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name(String);

impl Key {
    pub(crate) fn new(key: i32) -> Option<Self> {
        (key != libc::IPC_PRIVATE).then_some(Key(key))
    }

    pub(crate) fn get(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Name {
    const LONGEST: usize = 64;

    pub(crate) fn new(text: &str) -> Result<Self, AddressError> {
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ':';
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.len() > Self::LONGEST {
            return Err(AddressError::NameTooLong { length: text.len(), longest: Self::LONGEST });
        }
        if let Some(found) = text.chars().find(|&c| bad(c)).or(text.starts_with('-').then_some('-')) {
            return Err(AddressError::NameCharacter { found });
        }
        Ok(Name(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of a name: its 32-bit FNV-1a hash (Fowler, Noll and Vo), or 1 where that is 0, which is `IPC_PRIVATE`.
    pub(crate) fn key(&self) -> Key {
        let hash = self
            .0
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        Key::new(hash as i32).unwrap_or(Key(1))
    }
}

/// The key that `ftok` gives, or the error of the system call that it makes.
pub(crate) fn ftok(path: &Path, project: u8) -> std::io::Result<Option<Key>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a string with a terminator that lives until the call returns.
    match unsafe { libc::ftok(path.as_ptr(), project.into()) } {
        -1 => Err(std::io::Error::last_os_error()),
        key => Ok(Key::new(key)),
    }
}

/// The directory of POSIX shared memory objects: where both C libraries look for `shm_open`.
pub(crate) const POSIX: &str = "/dev/shm";

/// The kind of shared memory that an [`Address`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddressKind {
    /// A System V segment.
    SysV,
    /// A POSIX shared memory object.
    Posix,
    /// A file.
    File,
    /// A memfd.
    Memfd,
}

impl Address {
    /// The kind of shared memory that it names.
    #[must_use]
    pub fn kind(&self) -> AddressKind {
        match self.0 {
            Place::Name(_) | Place::Key(_) | Place::Ftok { .. } | Place::Id(_) | Place::Private => {
                AddressKind::SysV
            }
            Place::Posix(_) => AddressKind::Posix,
            Place::File(_) => AddressKind::File,
            Place::Memfd | Place::Descriptor(_) | Place::Served(_) => AddressKind::Memfd,
        }
    }

    /// The absolute path of the file that it names. `None` if it names none.
    ///
    /// # Errors
    /// If the path is relative and the working directory cannot be found.
    pub fn path(&self) -> std::io::Result<Option<PathBuf>> {
        match &self.0 {
            Place::Posix(name) => Ok(Some(Path::new(POSIX).join(name))),
            Place::File(path) => std::path::absolute(path).map(Some),
            _ => Ok(None),
        }
    }

    /// The System V key that it leads to. `None` if it leads to none: by an identifier, or to another kind of shared memory.
    ///
    /// # Errors
    /// If `ftok` cannot read its file.
    pub fn key(&self) -> std::io::Result<Option<i32>> {
        let key = match &self.0 {
            Place::Name(name) => Some(name.key()),
            Place::Key(key) => Some(*key),
            Place::Ftok { path, project } => ftok(path, *project)?,
            _ => None,
        };
        Ok(key.map(Key::get))
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let Some((kind, rest)) = text.split_once(':') else {
            if text == "memfd" {
                return Ok(Address(Place::Memfd));
            }
            return Name::new(text).map(|name| Address(Place::Name(name)));
        };
        let place = match kind {
            "sysv" => parse_sysv(rest)?,
            "posix" => parse_posix(rest)?,
            "file" => Place::File(parse_path(kind, rest)?),
            "memfd" => Place::Served(parse_path(kind, rest)?),
            "fd" => Place::Descriptor(parse_number(rest, rest)?),
            _ => return Err(AddressError::UnknownKind { found: kind.to_owned() }),
        };
        Ok(Address(place))
    }
}

fn parse_sysv(rest: &str) -> Result<Place, AddressError> {
    if rest == "private" {
        Ok(Place::Private)
    } else if let Some(id) = rest.strip_prefix("id:") {
        parse_number(id, rest).map(Place::Id)
    } else if let Some(file) = rest.strip_prefix("ftok:") {
        let bad = || AddressError::Ftok { found: file.to_owned() };
        let (path, project) = file.rsplit_once(':').ok_or_else(bad)?;
        let project = project.parse().ok().filter(|&project| project != 0 && !path.is_empty());
        Ok(Place::Ftok { path: PathBuf::from(path), project: project.ok_or_else(bad)? })
    } else {
        parse_key(rest).map(Place::Key)
    }
}

/// The name of a POSIX shared memory object, which starts with a slash and has no other.
fn parse_posix(text: &str) -> Result<Place, AddressError> {
    const LONGEST: usize = 255;
    let name = text.strip_prefix('/').unwrap_or_default();
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) || name.len() > LONGEST {
        return Err(AddressError::Posix { found: text.to_owned() });
    }
    Ok(Place::Posix(name.to_owned()))
}

fn parse_path(kind: &str, text: &str) -> Result<PathBuf, AddressError> {
    if text.is_empty() || text.contains('\0') {
        return Err(AddressError::Path { kind: kind.to_owned(), found: text.to_owned() });
    }
    Ok(PathBuf::from(text))
}

/// An identifier or a descriptor: a number of 31 bits.
fn parse_number(text: &str, found: &str) -> Result<i32, AddressError> {
    text.parse()
        .ok()
        .filter(|&number: &i32| number >= 0)
        .ok_or_else(|| AddressError::Number { found: found.to_owned() })
}

/// A key in decimal (also negative, as `ipcs` and C programs print them) or with `0x` in hexadecimal.
fn parse_key(text: &str) -> Result<Key, AddressError> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok().map(|key| key as i32),
        None => text.parse::<i32>().ok().or_else(|| text.parse::<u32>().ok().map(|key| key as i32)),
    };
    let key = number.ok_or_else(|| AddressError::Number { found: text.to_owned() })?;
    Key::new(key).ok_or(AddressError::KeyZero)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Name(name) => f.write_str(name.as_str()),
            Place::Key(key) => write!(f, "sysv:{key}"),
            Place::Ftok { path, project } => write!(f, "sysv:ftok:{}:{project}", path.display()),
            Place::Id(id) => write!(f, "sysv:id:{id}"),
            Place::Private => f.write_str("sysv:private"),
            Place::Posix(name) => write!(f, "posix:/{name}"),
            Place::File(path) => write!(f, "file:{}", path.display()),
            Place::Memfd => f.write_str("memfd"),
            Place::Descriptor(number) => write!(f, "fd:{number}"),
            Place::Served(path) => write!(f, "memfd:{}", path.display()),
        }
    }
}

impl TryFrom<&str> for Address {
    type Error = AddressError;

    fn try_from(text: &str) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl TryFrom<&String> for Address {
    type Error = AddressError;

    fn try_from(text: &String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Self {
        address.clone()
    }
}

/// Why a text is not an [`Address`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressError {
    /// The text is empty.
    Empty,
    /// The name has more bytes than fit into a segment.
    NameTooLong {
        /// Bytes of the name.
        length: usize,
        /// Bytes that a name may have.
        longest: usize,
    },
    /// The name holds a character that a name may not hold.
    NameCharacter {
        /// The character.
        found: char,
    },
    /// The part before the first colon names no kind of shared memory that is known.
    UnknownKind {
        /// What stood there.
        found: String,
    },
    /// A key or an identifier that is not a number of 32 bits.
    Number {
        /// What stood there.
        found: String,
    },
    /// Key 0, which means "a new segment" to the kernel.
    KeyZero,
    /// Not the name of a POSIX shared memory object.
    Posix {
        /// What stood there.
        found: String,
    },
    /// Not a path.
    Path {
        /// What stood before it.
        kind: String,
        /// What stood there.
        found: String,
    },
    /// Not of the form `PATH:PROJECT` with a project from 1 to 255.
    Ftok {
        /// What stood there.
        found: String,
    },
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressError::Empty => f.write_str("the address is empty; give a name or sysv:KEY"),
            AddressError::NameTooLong { length, longest } => {
                write!(f, "the name has {length} bytes, {longest} at most fit; choose a shorter one")
            }
            AddressError::NameCharacter { found } => write!(
                f,
                "{found:?} may not stand in a name; no white space, control character, '/' or ':', no '-' at the start"
            ),
            AddressError::UnknownKind { found } => {
                write!(
                    f,
                    "{found:?} is no kind of shared memory known here; expected a name without ':', sysv:..., posix:/..., \
                     file:..., memfd, memfd:... or fd:..."
                )
            }
            AddressError::Number { found } => {
                write!(
                    f,
                    "{found:?} is no key or identifier; expected a number of 32 bits such as 1234 or 0x4d2"
                )
            }
            AddressError::KeyZero => {
                f.write_str("key 0 always makes a new segment; use sysv:private for one, or another key")
            }
            AddressError::Posix { found } => write!(
                f,
                "{found:?} is no name of a POSIX shared memory object; expected '/' and 1 to 255 bytes without another '/'"
            ),
            AddressError::Path { kind, found } => {
                write!(f, "{found:?} is no path; expected {kind}:PATH")
            }
            AddressError::Ftok { found } => {
                write!(f, "{found:?} does not have the form PATH:PROJECT with a project from 1 to 255")
            }
        }
    }
}

impl std::error::Error for AddressError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_prints_as_it_parses() {
        for (text, printed) in [
            ("ticks", "ticks"),
            ("größe.1_a", "größe.1_a"),
            ("sysv:0x4d2", "sysv:0x4d2"),
            ("sysv:1234", "sysv:0x4d2"),
            ("sysv:-1", "sysv:0xffffffff"),
            ("sysv:4294967295", "sysv:0xffffffff"),
            ("sysv:ftok:/tmp/a:b:65", "sysv:ftok:/tmp/a:b:65"),
            ("sysv:id:7", "sysv:id:7"),
            ("sysv:private", "sysv:private"),
            ("posix:/ticks", "posix:/ticks"),
            ("file:/tmp/a:b", "file:/tmp/a:b"),
            ("file:ticks", "file:ticks"),
            ("memfd", "memfd"),
            ("memfd:/run/ticks.sock", "memfd:/run/ticks.sock"),
            ("fd:3", "fd:3"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), printed);
            assert_eq!(printed.parse::<Address>().unwrap(), address);
        }
    }

    #[test]
    fn bad_addresses_are_refused_with_the_reason() {
        let too_long = "n".repeat(65);
        for (text, error) in [
            ("", AddressError::Empty),
            (too_long.as_str(), AddressError::NameTooLong { length: 65, longest: 64 }),
            ("a b", AddressError::NameCharacter { found: ' ' }),
            ("a/b", AddressError::NameCharacter { found: '/' }),
            ("-a", AddressError::NameCharacter { found: '-' }),
            ("tcp:1", AddressError::UnknownKind { found: "tcp".into() }),
            ("sysv:0", AddressError::KeyZero),
            ("sysv:0x1ffffffff", AddressError::Number { found: "0x1ffffffff".into() }),
            ("sysv:id:-1", AddressError::Number { found: "id:-1".into() }),
            ("posix:ticks", AddressError::Posix { found: "ticks".into() }),
            ("posix:/a/b", AddressError::Posix { found: "/a/b".into() }),
            ("posix:/..", AddressError::Posix { found: "/..".into() }),
            ("file:", AddressError::Path { kind: "file".into(), found: "".into() }),
            ("memfd:", AddressError::Path { kind: "memfd".into(), found: "".into() }),
            ("fd:-1", AddressError::Number { found: "-1".into() }),
            ("fd:x", AddressError::Number { found: "x".into() }),
            ("sysv:ftok:/tmp", AddressError::Ftok { found: "/tmp".into() }),
            ("sysv:ftok:/tmp:0", AddressError::Ftok { found: "/tmp:0".into() }),
            ("sysv:ftok:/tmp:256", AddressError::Ftok { found: "/tmp:256".into() }),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn key_of_a_name_is_its_fnv_1a_hash() {
        // The published test vectors of FNV-1a, 32 bits.
        for (name, hash) in [("a", 0xe40c_292c_u32), ("foobar", 0xbf9c_f968)] {
            assert_eq!(Name::new(name).unwrap().key().get(), hash as i32);
        }
    }
}
