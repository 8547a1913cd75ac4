//! The identity of a segment: header words that its creator writes once. Attaching copies them into private memory and checks
//! the copy; nothing reads the originals again.

use crate::address::Name;
use crate::error::{Damage, Mismatch, SetupError, failed};
use crate::protocol::latency::Sampling;
use crate::protocol::layout::{HEADER, Header, IDENTITY_WORDS, MAX_CAPACITY, MIN_CAPACITY, VERSION};
use crate::protocol::sync::Ordering;
use crate::protocol::wakeup::WakeMode;
use bytemuck::{Pod, Zeroable};

/// `ready` of a complete segment: the bytes `shmpipe\0`. A machine of the other byte order reads them reversed.
pub(crate) const READY: u64 = u64::from_le_bytes(*b"shmpipe\0");

/// `ready` of a segment that is being created: the bytes `shmmake\0`.
pub(crate) const CREATING: u64 = u64::from_le_bytes(*b"shmmake\0");

/// `byte_order` in the byte order of its writer.
pub(crate) const BYTE_ORDER: u32 = 0x0102_0304;

/// `sem_id` of a segment without a semaphore set.
pub(crate) const NO_SET: i32 = -1;

/// Bit of `features`: a duplex pipe, with a second header and ring for the way back.
const DUPLEX: u64 = 1;

/// Bit of `hints`: the producer's counters have a word for the messages that it drops.
const COUNTS_DROPPED: u64 = 1;

/// Bit of `hints`: the producers announce up to where they write to the ring.
const ANNOUNCES_WRITES: u64 = 2;

/// Bit of `hints`: the two sides measure the latency of some messages.
const MEASURES_LATENCY: u64 = 4;

/// Bit of `flags`: the last handle removes the segment after both sides have closed.
const REMOVE_ON_CLOSE: u32 = 1;

/// Bit of `flags`: the next process that looks for the segment removes it once it is left over.
const REMOVE_LEFTOVER: u32 = 2;

/// The identity words, from byte 8 to byte 512 of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Identity {
    pub(crate) layout_version: u32,
    pub(crate) byte_order: u32,
    pub(crate) header_size: u64,
    pub(crate) capacity: u64,
    /// Features that a process must support to use the segment.
    pub(crate) features: u64,
    /// Features that a process may ignore.
    pub(crate) hints: u64,
    pub(crate) segment_id: u64,
    pub(crate) schema: u64,
    pub(crate) created_ns: u64,
    pub(crate) boot_id: [u8; 16],
    pub(crate) sem_id: i32,
    pub(crate) wake_mode: u32,
    pub(crate) flags: u32,
    pub(crate) name_length: u32,
    pub(crate) name: [u8; 64],
    pub(crate) reserved: [u64; 43],
}

// SAFETY: `repr(C)`, every field is an integer or an array of integers, and the assertion below shows that their sizes add up to
// the size of the struct, so it has no padding.
unsafe impl Zeroable for Identity {}
// SAFETY: as above; Copy, no pointers, every bit pattern is valid.
unsafe impl Pod for Identity {}

const _: () = {
    use memoffset::offset_of;
    assert!(4 * 2 + 8 * 7 + 16 + 4 * 4 + 64 + 8 * 43 == size_of::<Identity>());
    assert!(size_of::<Identity>() == 8 * IDENTITY_WORDS);
    assert!(offset_of!(Identity, layout_version) == 0);
    assert!(offset_of!(Identity, header_size) == 8);
    assert!(offset_of!(Identity, capacity) == 16);
    assert!(offset_of!(Identity, features) == 24);
    assert!(offset_of!(Identity, hints) == 32);
    assert!(offset_of!(Identity, segment_id) == 40);
    assert!(offset_of!(Identity, schema) == 48);
    assert!(offset_of!(Identity, created_ns) == 56);
    assert!(offset_of!(Identity, boot_id) == 64);
    assert!(offset_of!(Identity, sem_id) == 80);
    assert!(offset_of!(Identity, wake_mode) == 84);
    assert!(offset_of!(Identity, flags) == 88);
    assert!(offset_of!(Identity, name_length) == 92);
    assert!(offset_of!(Identity, name) == 96);
    assert!(offset_of!(Identity, reserved) == 160);
};

/// One of the two directions of a duplex pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From side A to side B: the first header and ring, and the only ones of a one-way pipe.
    Forth,
    /// From side B to side A.
    Back,
}

/// The properties of a segment that its creator chooses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameters {
    pub(crate) capacity: u64,
    pub(crate) duplex: bool,
    pub(crate) schema: u64,
    pub(crate) wake_mode: WakeMode,
    pub(crate) remove_on_close: bool,
    pub(crate) remove_leftover: bool,
    pub(crate) measure_latency: bool,
}

impl Parameters {
    /// Bytes that the segment needs.
    pub(crate) fn size(&self) -> u64 {
        size(self.capacity, self.duplex)
    }
}

/// Bytes of a segment: a header and a ring for each direction.
pub(crate) fn size(capacity: u64, duplex: bool) -> u64 {
    (HEADER + capacity) * if duplex { 2 } else { 1 }
}

impl Identity {
    /// The identity of a segment created now, whose roles are claimed in the semaphore set `sem_id`, or [`NO_SET`].
    pub(crate) fn new(parameters: &Parameters, name: Option<&Name>, sem_id: i32) -> Result<Self, SetupError> {
        let name = name.map_or("", Name::as_str);
        let mut identity = Identity {
            layout_version: VERSION,
            byte_order: BYTE_ORDER,
            header_size: HEADER,
            capacity: parameters.capacity,
            features: if parameters.duplex { DUPLEX } else { 0 },

            hints: COUNTS_DROPPED
                | ANNOUNCES_WRITES
                | if parameters.measure_latency { MEASURES_LATENCY } else { 0 },
            segment_id: random().map_err(failed("getrandom"))?,
            schema: parameters.schema,
            created_ns: std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_nanos() as u64),
            boot_id: boot_id(),
            sem_id,
            wake_mode: parameters.wake_mode.code(),
            flags: if parameters.remove_on_close { REMOVE_ON_CLOSE } else { 0 }
                | if parameters.remove_leftover { REMOVE_LEFTOVER } else { 0 },
            name_length: name.len() as u32,
            ..Identity::zeroed()
        };
        identity.name[..name.len()].copy_from_slice(name.as_bytes());
        Ok(identity)
    }

    /// Copies the words out of a header. Everything later uses the copy.
    pub(crate) fn read(header: &Header) -> Self {
        // Relaxed: the Acquire load of `ready` in `Ready::of`, which precedes this, orders it.
        bytemuck::cast(core::array::from_fn::<u64, IDENTITY_WORDS, _>(|i| {
            header.identity[i].load(Ordering::Relaxed)
        }))
    }

    /// Writes the words into a header that no other process uses yet.
    pub(crate) fn write(self, header: &Header) {
        let words: [u64; IDENTITY_WORDS] = bytemuck::cast(self);
        for (to, word) in header.identity.iter().zip(words) {
            // Relaxed: the Release store of `ready` that follows publishes them.
            to.store(word, Ordering::Relaxed);
        }
    }

    /// Replaces the semaphore set in a header that other processes use. `false` if it names another set by now.
    pub(crate) fn replace(&self, header: &Header, new: &Identity) -> bool {
        const WORD: usize = memoffset::offset_of!(Identity, sem_id) / 8;
        let [before, after] =
            [*self, *new].map(|identity| bytemuck::cast::<_, [u64; IDENTITY_WORDS]>(identity)[WORD]);
        // Relaxed: a set is believed only if it names the segment too.
        header.identity[WORD].compare_exchange(before, after, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Rejects a segment that this version of the crate cannot use; `size` is the size of the segment in bytes.
    pub(crate) fn check(&self, size: u64) -> Result<(), SetupError> {
        if self.byte_order != BYTE_ORDER {
            return Err(SetupError::Incompatible(Mismatch::ByteOrder));
        }
        if self.layout_version != VERSION {
            return Err(SetupError::Incompatible(Mismatch::LayoutVersion {
                found: self.layout_version,
                expected: VERSION,
            }));
        }
        let unknown = self.features & !DUPLEX;
        if unknown != 0 {
            return Err(SetupError::Incompatible(Mismatch::Features { unknown }));
        }
        let bad = |word, found| Err(SetupError::Damaged(Damage::Header { word, found }));
        if self.header_size != HEADER {
            return bad("header size", self.header_size);
        }
        if !self.capacity.is_power_of_two() || !(MIN_CAPACITY..=MAX_CAPACITY).contains(&self.capacity) {
            return bad("capacity", self.capacity);
        }
        if size < self.size() {
            return Err(SetupError::Damaged(Damage::TooSmall { size, needed: self.size() }));
        }
        if self.wake_mode().is_none() {
            return bad("wake mode", self.wake_mode.into());
        }
        if self.name().is_none() {
            return bad("name length, or the name,", self.name_length.into());
        }
        Ok(())
    }

    /// How sleepers are woken; `None` if the word holds no known mode.
    pub(crate) fn wake_mode(&self) -> Option<WakeMode> {
        WakeMode::from_code(self.wake_mode)
    }

    /// The name under which the segment was created; empty if it was created under a key. `None` if the bytes are not a valid
    /// name: control characters, for example, would reach the terminal that prints it.
    pub(crate) fn name(&self) -> Option<&str> {
        let name = core::str::from_utf8(self.name.get(..self.name_length as usize)?).ok()?;
        (name.is_empty() || Name::new(name).is_ok()).then_some(name)
    }

    /// Whether the segment was created under another boot id than the current one. False if either is unknown.
    pub(crate) fn has_other_boot_id(&self) -> bool {
        let now = boot_id();
        self.boot_id != now && self.boot_id != [0; 16] && now != [0; 16]
    }

    /// Whether the pipe has two directions.
    pub(crate) fn is_duplex(&self) -> bool {
        self.features & DUPLEX != 0
    }

    /// Bytes that the pipe takes of its segment.
    pub(crate) fn size(&self) -> u64 {
        size(self.capacity, self.is_duplex())
    }

    /// The offset of a direction's header, which its ring follows.
    pub(crate) fn start(&self, way: Way) -> u64 {
        match way {
            Way::Forth => 0,
            Way::Back => HEADER + self.capacity,
        }
    }

    /// Whether the producer counts the messages that it drops. Otherwise the word has no meaning, and stays zero.
    pub(crate) fn counts_dropped(&self) -> bool {
        self.hints & COUNTS_DROPPED != 0
    }

    /// Whether producers announce up to where they write, so that a watcher can tell what they overwrote.
    pub(crate) fn announces_writes(&self) -> bool {
        self.hints & ANNOUNCES_WRITES != 0
    }

    /// Which messages are sampled for their latency.
    pub(crate) fn sampling(&self) -> Sampling {
        Sampling::new(self.capacity, self.hints & MEASURES_LATENCY != 0)
    }

    pub(crate) fn remove_on_close(&self) -> bool {
        self.flags & REMOVE_ON_CLOSE != 0
    }

    pub(crate) fn remove_leftover(&self) -> bool {
        self.flags & REMOVE_LEFTOVER != 0
    }
}

/// What the `ready` word says about a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    Yes,
    /// The creator is still at work, or died. Without the mark (`marked` false: the word is 0) the segment may also belong to an
    /// unrelated program.
    NotYet {
        marked: bool,
    },
    OtherByteOrder,
    Foreign(u64),
}

impl Ready {
    pub(crate) fn of(header: &Header) -> Self {
        // ORDERING: Acquire, pairs with the Release stores of READY in `file::create::initialize` and `sysv::open::create`: a
        // process that sees READY sees the whole identity and the zeroed words behind it.
        match header.ready.load(Ordering::Acquire) {
            READY => Ready::Yes,
            0 => Ready::NotYet { marked: false },
            CREATING => Ready::NotYet { marked: true },
            other if other == READY.swap_bytes() => Ready::OtherByteOrder,
            other => Ready::Foreign(other),
        }
    }
}

/// A random number.
pub(crate) fn random() -> std::io::Result<u64> {
    let mut bytes = [0u8; 8];
    // SAFETY: the buffer is writable for its length, which is passed.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got != bytes.len() as isize {
        return Err(std::io::Error::last_os_error());
    }
    Ok(u64::from_ne_bytes(bytes))
}

/// The kernel's boot id, or zeros if it is not available.
fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut digits = text.bytes().filter_map(|b| (b as char).to_digit(16));
    core::array::from_fn(|_| match (digits.next(), digits.next()) {
        (Some(high), Some(low)) => (high << 4 | low) as u8,
        _ => 0,
    })
}
