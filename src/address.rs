//! Addresses: how a pipe is named, in code and on the command line.

mod location;

pub use location::Location;

use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The address of a pipe.
///
/// It parses from text and prints as the same text. A path need not be UTF-8: such an address parses from an [`OsStr`], prints with
/// each invalid byte as `\\xff`, and comes back unchanged from [`to_os_string`](Self::to_os_string).
///
/// | text | segment |
/// |---|---|
/// | `ticks` | the System V segment of that name: its key is a 32-bit hash of the name. The segment contains the name itself, so two names with the same hash cause an error and are never confused |
/// | `sysv:0x4d2`, `sysv:1234` | the System V segment with an agreed key |
/// | `sysv:ftok:PATH:65` | the same, with the key that `ftok(PATH, 65)` returns |
/// | `sysv:id:N` | the System V segment with the identifier `N` (`shmid`), which must exist |
/// | `sysv:private` | a new System V segment without a key (`IPC_PRIVATE`), for a parent that passes [`Pipe::address`](crate::Pipe::address) to its child |
/// | `posix:/ticks` | the POSIX shared memory object of that name: a file in `/dev/shm` |
/// | `file:PATH` | a file on a local file system |
/// | `memfd` | a new memfd, sealed against resizing, without a name |
/// | `fd:N` | the memfd that is open as descriptor `N`: inherited or received |
/// | `memfd:PATH` | the memfd that a process passes through the Unix socket `PATH`, see [`fd_passing`](crate::os::unix::fd_passing) |
///
/// The README and `docs/deployment.md` say when to use each kind, and from whom each protects the pipe.
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
pub struct Address(pub(crate) AddressForm);

/// The parts of an [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AddressForm {
    Name(Name),
    Key(Key),
    Ftok {
        path: PathBuf,
        project: u8,
    },
    Id(i32),
    Private,
    /// A file in `/dev/shm`; the name without the slash.
    Posix(OsString),
    File(PathBuf),
    Memfd,
    /// A memfd, by the number of a descriptor of this process.
    Descriptor(i32),
    /// A memfd that a process passes through the Unix socket at this path.
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

    /// The key of a name: its 32-bit FNV-1a hash (Fowler, Noll and Vo), or 1 if that is 0, which is `IPC_PRIVATE`.
    pub(crate) fn key(&self) -> Key {
        let hash = self
            .0
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        Key::new(hash as i32).unwrap_or(Key(1))
    }
}

/// The key that `ftok` returns; `None` if that is `IPC_PRIVATE`. The error is that of the system call in `ftok`.
pub(crate) fn ftok(path: &Path, project: u8) -> std::io::Result<Option<Key>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a C string that lives until the call returns.
    match unsafe { libc::ftok(path.as_ptr(), project.into()) } {
        -1 => Err(std::io::Error::last_os_error()),
        key => Ok(Key::new(key)),
    }
}

/// The directory of POSIX shared memory objects: where both C libraries look for `shm_open`.
pub(crate) const POSIX: &str = "/dev/shm";

/// The kind of shared memory that an [`Address`] names.
///
/// ```
/// use shmpipe::{Address, AddressKind};
///
/// let address: Address = "posix:/ticks".parse()?;
/// assert_eq!(address.kind(), AddressKind::Posix);
/// # Ok::<(), shmpipe::AddressError>(())
/// ```
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
    /// Returns the kind of shared memory that the address names.
    #[must_use]
    pub fn kind(&self) -> AddressKind {
        match self.0 {
            AddressForm::Name(_)
            | AddressForm::Key(_)
            | AddressForm::Ftok { .. }
            | AddressForm::Id(_)
            | AddressForm::Private => AddressKind::SysV,
            AddressForm::Posix(_) => AddressKind::Posix,
            AddressForm::File(_) => AddressKind::File,
            AddressForm::Memfd | AddressForm::Descriptor(_) | AddressForm::Served(_) => AddressKind::Memfd,
        }
    }

    /// Returns the absolute path of the file that the address names, or `None` if it names none.
    ///
    /// ```
    /// let address: shmpipe::Address = "posix:/ticks".parse()?;
    /// assert_eq!(address.path()?, Some("/dev/shm/ticks".into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// An [`io::Error`](std::io::Error) if the path is relative and the working directory cannot be found.
    pub fn path(&self) -> std::io::Result<Option<PathBuf>> {
        match &self.0 {
            AddressForm::Posix(name) => Ok(Some(Path::new(POSIX).join(name))),
            AddressForm::File(path) => std::path::absolute(path).map(Some),
            _ => Ok(None),
        }
    }

    /// Returns the text that parses as this address, byte for byte.
    ///
    /// ```
    /// use shmpipe::Address;
    /// use std::ffi::OsStr;
    /// use std::os::unix::ffi::OsStrExt;
    ///
    /// let text = OsStr::from_bytes(b"posix:/ticks-\xff");
    /// let address = Address::try_from(text)?;
    /// assert_eq!(address.to_string(), r"posix:/ticks-\xff");
    /// assert_eq!(address.to_os_string(), text);
    /// # Ok::<(), shmpipe::AddressError>(())
    /// ```
    #[must_use]
    pub fn to_os_string(&self) -> OsString {
        let (kind, path, project) = match &self.0 {
            AddressForm::Ftok { path, project } => ("sysv:ftok:", path.as_os_str(), Some(project)),
            AddressForm::Posix(name) => ("posix:/", name.as_os_str(), None),
            AddressForm::File(path) => ("file:", path.as_os_str(), None),
            AddressForm::Served(path) => ("memfd:", path.as_os_str(), None),
            _ => return self.to_string().into(),
        };
        let mut text = OsString::from(kind);
        text.push(path);
        if let Some(project) = project {
            text.push(format!(":{project}"));
        }
        text
    }

    /// Returns the System V key that the address leads to.
    ///
    /// `None` if it leads to no key: for `sysv:id:N`, `sysv:private` and every other kind of shared memory. `sysv:ftok:PATH:65`
    /// costs a system call.
    ///
    /// ```
    /// let address: shmpipe::Address = "sysv:0x4d2".parse()?;
    /// assert_eq!(address.key()?, Some(1234));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// An [`io::Error`](std::io::Error) if `ftok` cannot read its file.
    pub fn key(&self) -> std::io::Result<Option<i32>> {
        let key = match &self.0 {
            AddressForm::Name(name) => Some(name.key()),
            AddressForm::Key(key) => Some(*key),
            AddressForm::Ftok { path, project } => ftok(path, *project)?,
            _ => None,
        };
        Ok(key.map(Key::get))
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        OsStr::new(text).try_into()
    }
}

/// Also takes paths that are not UTF-8.
impl TryFrom<&OsStr> for Address {
    type Error = AddressError;

    fn try_from(text: &OsStr) -> Result<Self, AddressError> {
        let Some((kind, rest)) = split(text, |bytes| bytes.iter().position(|&byte| byte == b':')) else {
            return match utf8(text)? {
                "memfd" => Ok(Address(AddressForm::Memfd)),
                name => Name::new(name).map(|name| Address(AddressForm::Name(name))),
            };
        };
        let location = match utf8(kind)? {
            "sysv" => parse_sysv(rest)?,
            "posix" => parse_posix(rest)?,
            "file" => AddressForm::File(parse_path("file", rest)?),
            "memfd" => AddressForm::Served(parse_path("memfd", rest)?),
            "fd" => AddressForm::Descriptor(parse_number(utf8(rest)?, rest)?),
            kind => return Err(AddressError::UnknownKind { found: kind.to_owned() }),
        };
        Ok(Address(location))
    }
}

/// The text before a byte and the text after it.
fn split(text: &OsStr, at: impl Fn(&[u8]) -> Option<usize>) -> Option<(&OsStr, &OsStr)> {
    let bytes = text.as_bytes();
    let at = at(bytes)?;
    Some((OsStr::from_bytes(&bytes[..at]), OsStr::from_bytes(&bytes[at + 1..])))
}

/// A part of an address that is no path.
fn utf8(text: &OsStr) -> Result<&str, AddressError> {
    text.to_str().ok_or_else(|| AddressError::NotUtf8 { found: Escaped(text).to_string() })
}

fn parse_sysv(rest: &OsStr) -> Result<AddressForm, AddressError> {
    if let Some(file) = rest.as_bytes().strip_prefix(b"ftok:") {
        let file = OsStr::from_bytes(file);
        let bad = || AddressError::Ftok { found: Escaped(file).to_string() };
        let last_colon = |bytes: &[u8]| bytes.iter().rposition(|&byte| byte == b':');
        let (path, project) = split(file, last_colon).ok_or_else(bad)?;
        let project = project.to_str().and_then(|project| project.parse().ok());
        let project = project.filter(|&project| project != 0 && !path.is_empty());
        return Ok(AddressForm::Ftok { path: PathBuf::from(path), project: project.ok_or_else(bad)? });
    }
    let text = utf8(rest)?;
    if text == "private" {
        Ok(AddressForm::Private)
    } else if let Some(id) = text.strip_prefix("id:") {
        parse_number(id, rest).map(AddressForm::Id)
    } else {
        parse_key(text).map(AddressForm::Key)
    }
}

/// Parses the name of a POSIX shared memory object, which starts with a slash and contains no other.
fn parse_posix(text: &OsStr) -> Result<AddressForm, AddressError> {
    const LONGEST: usize = 255;
    let name = text.as_bytes().strip_prefix(b"/").unwrap_or_default();
    let is_special = matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, b'/' | 0));
    if is_special || name.len() > LONGEST {
        return Err(AddressError::Posix { found: Escaped(text).to_string() });
    }
    Ok(AddressForm::Posix(OsStr::from_bytes(name).to_owned()))
}

fn parse_path(kind: &str, text: &OsStr) -> Result<PathBuf, AddressError> {
    if text.is_empty() || text.as_bytes().contains(&0) {
        return Err(AddressError::Path { kind: kind.to_owned(), found: Escaped(text).to_string() });
    }
    Ok(PathBuf::from(text))
}

/// Parses an identifier or a descriptor: a number of 31 bits.
fn parse_number(text: &str, found: &OsStr) -> Result<i32, AddressError> {
    text.parse()
        .ok()
        .filter(|&number: &i32| number >= 0)
        .ok_or_else(|| AddressError::Number { found: Escaped(found).to_string() })
}

/// Parses a key in decimal (also negative, as `ipcs` and C programs print them) or, with `0x`, in hexadecimal.
fn parse_key(text: &str) -> Result<Key, AddressError> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok().map(|key| key as i32),
        None => text.parse::<i32>().ok().or_else(|| text.parse::<u32>().ok().map(|key| key as i32)),
    };
    let key = number.ok_or_else(|| AddressError::Number { found: text.to_owned() })?;
    Key::new(key).ok_or(AddressError::KeyZero)
}

/// Text whose bytes that are not UTF-8 print as `\xff`.
pub(crate) struct Escaped<'a>(pub(crate) &'a OsStr);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_bytes().utf8_chunks().try_for_each(|chunk| {
            f.write_str(chunk.valid())?;
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            AddressForm::Name(name) => f.write_str(name.as_str()),
            AddressForm::Key(key) => write!(f, "sysv:{key}"),
            AddressForm::Ftok { path, project } => {
                write!(f, "sysv:ftok:{}:{project}", Escaped(path.as_os_str()))
            }
            AddressForm::Id(id) => write!(f, "sysv:id:{id}"),
            AddressForm::Private => f.write_str("sysv:private"),
            AddressForm::Posix(name) => write!(f, "posix:/{}", Escaped(name)),
            AddressForm::File(path) => write!(f, "file:{}", Escaped(path.as_os_str())),
            AddressForm::Memfd => f.write_str("memfd"),
            AddressForm::Descriptor(number) => write!(f, "fd:{number}"),
            AddressForm::Served(path) => write!(f, "memfd:{}", Escaped(path.as_os_str())),
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

impl TryFrom<OsString> for Address {
    type Error = AddressError;

    fn try_from(text: OsString) -> Result<Self, AddressError> {
        text.as_os_str().try_into()
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Self {
        address.clone()
    }
}

/// Why a text is not an [`Address`].
///
/// ```
/// use shmpipe::{Address, AddressError};
///
/// let parsed: Result<Address, AddressError> = "file:".parse();
/// assert!(matches!(parsed, Err(AddressError::Path { .. })));
/// ```
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
    /// The name contains a character that is not allowed there.
    NameCharacter {
        /// The character.
        found: char,
    },
    /// A part other than a path is not UTF-8.
    NotUtf8 {
        /// The part, with its invalid bytes as `\xff`.
        found: String,
    },
    /// The part before the first colon is not a known kind of shared memory.
    UnknownKind {
        /// The part before the colon.
        found: String,
    },
    /// A key or an identifier is not a number of 32 bits.
    Number {
        /// The text in its place.
        found: String,
    },
    /// The key is 0, which the kernel takes as a request for a new segment.
    KeyZero,
    /// The text is not the name of a POSIX shared memory object.
    Posix {
        /// The text in its place.
        found: String,
    },
    /// The text is not a path.
    Path {
        /// The part before the colon.
        kind: String,
        /// The text in place of the path.
        found: String,
    },
    /// The text is not of the form `PATH:PROJECT` with a project from 1 to 255.
    Ftok {
        /// The text in its place.
        found: String,
    },
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressError::Empty => f.write_str("the address is empty; give a name or sysv:KEY"),
            AddressError::NameTooLong { length, longest } => {
                write!(f, "the name has {length} bytes, expected at most {longest}; choose a shorter one")
            }
            AddressError::NameCharacter { found } => write!(
                f,
                "the name contains {found:?}, expected no white space, control character, '/' or ':', and no '-' at the start; \
                 choose another name"
            ),
            AddressError::NotUtf8 { found } => {
                write!(f, "\"{found}\" is not UTF-8, which only a path may be; choose another name")
            }
            AddressError::UnknownKind { found } => {
                write!(
                    f,
                    "{found:?} is not a known kind of shared memory; expected a name without ':', sysv:..., posix:/..., \
                     file:..., memfd, memfd:... or fd:..."
                )
            }
            AddressError::Number { found } => {
                write!(
                    f,
                    "{found:?} is not a key or identifier; expected a number of 32 bits such as 1234 or 0x4d2"
                )
            }
            AddressError::KeyZero => {
                f.write_str("key 0 always creates a new segment; use sysv:private for one, or another key")
            }
            AddressError::Posix { found } => write!(
                f,
                "{found:?} is not the name of a POSIX shared memory object; expected '/' and 1 to 255 bytes without another '/'"
            ),
            AddressError::Path { kind, found } => {
                write!(f, "{found:?} is not a path; expected {kind}:PATH")
            }
            AddressError::Ftok { found } => {
                write!(
                    f,
                    "{found:?} is not a path and project; expected PATH:PROJECT with a project from 1 to 255"
                )
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
            assert_eq!(address.to_os_string(), printed);
        }
    }

    #[test]
    fn paths_need_not_be_utf8() {
        for (text, printed) in [
            (&b"posix:/a\xffb"[..], r"posix:/a\xffb"),
            (b"file:/tmp/\xc3", r"file:/tmp/\xc3"),
            (b"memfd:\xfe\xff.sock", r"memfd:\xfe\xff.sock"),
            (b"sysv:ftok:/tmp/\xff:7:65", r"sysv:ftok:/tmp/\xff:7:65"),
        ] {
            let text = OsStr::from_bytes(text);
            let address = Address::try_from(text).unwrap();
            assert_eq!(address.to_string(), printed);
            assert_eq!(address.to_os_string(), text);
        }
        for text in [&b"tick\xffs"[..], b"\xff:/x", b"sysv:\xff", b"fd:\xff"] {
            let refused = Address::try_from(OsStr::from_bytes(text));
            assert!(matches!(&refused, Err(AddressError::NotUtf8 { found }) if found.contains(r"\xff")));
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
