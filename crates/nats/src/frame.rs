//! The frames that the stream consists of: many messages of a pipe in one message of the stream, byte for byte.
//!
//! ```text
//! offset  bytes  all numbers little-endian
//!      0      8  magic "shmpnat1"
//!      8      4  CRC-32 of everything after it
//!     12      1  kind: 1 begin, 2 messages, 3 end
//!     13      3  0
//!     16      4  parts in the body
//!     20      4  0
//!     24      8  pipe: the identifier of the segment
//!     32      8  epoch: the number of the publisher's start, larger than that of every frame before
//!     40      8  session: a random number of the publisher's start
//!     48      8  start: the position in the pipe ...
//!     56      8         ... and the bytes of the message there that earlier frames have
//!     64      8  end: the same, behind this frame
//!     72      8
//!     80      8  ended: the claim of the producer whose end was published last, 0 for none
//!     88      8  time: nanoseconds since 1970, when the frame was made
//!     96         body
//!
//! begin      capacity (8), schema (8), the pipe (8) and place (16) where the stream ended, skipped (8): 0 or 1
//! messages   for each part: bytes (4), tag (4), the bytes
//! end        how (4): 1 closed, 2 aborted, 3 died; code (4); the producer's claim (8)
//! ```
//!
//! The start of each frame is the end of the one before it. A part is a whole message, except that the first one continues a message
//! if the offset of the start is not 0, and the last one is continued if that of the end is not 0.

use std::fmt;

use bytes::{Buf, Bytes};

const MAGIC: &[u8; 8] = b"shmpnat1";
const CRC_AT: usize = 8;
const CHECKED_FROM: usize = 12;
/// Bytes before the body.
pub const HEADER: usize = 96;
/// Bytes before each part.
pub const PART: usize = 8;

/// A place in the stream of a pipe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The position behind the last message that is whole.
    pub position: u64,
    /// Bytes of the next message that lie before this place.
    pub offset: u64,
}

impl Place {
    /// The place between two messages.
    pub const fn at(position: u64) -> Self {
        Place { position, offset: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.offset {
            0 => write!(f, "{}", self.position),
            offset => write!(f, "{} and {offset} bytes of the next message", self.position),
        }
    }
}

/// The number of a segment, as shmpipe prints it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PipeId(pub u64);

impl fmt::Display for PipeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// How a producer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Closed,
    Aborted { code: u32 },
    Died,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            How::Closed => f.write_str("closed"),
            How::Aborted { code } => write!(f, "aborted with code {code}"),
            How::Died => f.write_str("died"),
        }
    }
}

/// What every frame has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub pipe: PipeId,
    pub epoch: u64,
    pub session: u64,
    pub start: Place,
    pub end: Place,
    pub ended: u64,
    pub time: u64,
}

/// The first frame of a publisher: it takes the stream over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The bytes of the publisher's ring, and its schema: what a subscriber that creates the pipe uses.
    pub capacity: u64,
    pub schema: u64,
    /// Where the stream ended, as the publisher found it.
    pub after: (PipeId, Place),
    /// Whether the operator has allowed that messages are missing between that and the start of this frame.
    pub skipped: bool,
}

/// The parts of a frame with messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    count: usize,
    bytes: Bytes,
}

/// A message, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    pub tag: u32,
    pub bytes: &'a [u8],
}

impl Parts {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn iter(&self) -> impl Iterator<Item = Part<'_>> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let (part, after) = split_part(rest)?;
            rest = after;
            Some(part)
        })
    }
}

/// The first part of a body, and what follows it.
fn split_part(bytes: &[u8]) -> Option<(Part<'_>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (tag, rest) = rest.split_first_chunk::<4>()?;
    let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((Part { tag: u32::from_le_bytes(*tag), bytes }, rest))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Begin(Begin),
    Messages(Parts),
    End {
        how: How,
        /// The producer's claim.
        claim: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub header: Header,
    pub body: Body,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAFrame {
    /// They were written by something else, or by a later version.
    Magic,
    Checksum,
    /// The checksum is right and the contents are not: a fault of the publisher.
    Contents,
}

impl fmt::Display for NotAFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotAFrame::Magic => "it is not a frame of shmpipe-nats",
            NotAFrame::Checksum => "its checksum is wrong",
            NotAFrame::Contents => "its checksum is right and its contents are not",
        })
    }
}

impl Frame {
    /// Reads a frame, and checks all of it.
    pub fn parse(mut bytes: Bytes) -> Result<Frame, NotAFrame> {
        if bytes.len() < HEADER || &bytes[..CRC_AT] != MAGIC {
            return Err(NotAFrame::Magic);
        }
        let found = crc32fast::hash(&bytes[CHECKED_FROM..]);
        bytes.advance(CRC_AT);
        if bytes.get_u32_le() != found {
            return Err(NotAFrame::Checksum);
        }
        let kind = bytes.get_u8();
        let zero = bytes.get_uint_le(3);
        let count = bytes.get_u32_le() as usize;
        let zero = zero | u64::from(bytes.get_u32_le());
        let header = Header {
            pipe: PipeId(bytes.get_u64_le()),
            epoch: bytes.get_u64_le(),
            session: bytes.get_u64_le(),
            start: place(&mut bytes),
            end: place(&mut bytes),
            ended: bytes.get_u64_le(),
            time: bytes.get_u64_le(),
        };
        let body = match (kind, bytes.len()) {
            (1, 48) => begin(&mut bytes),
            (2, _) => messages(&header, count, bytes),
            (3, 16) => end(&mut bytes),
            _ => None,
        };
        // Only messages move on, and an end is between two messages.
        let is_placed = match body {
            Some(Body::Begin(_)) => header.start == header.end,
            Some(Body::End { .. }) => header.start == header.end && header.end.offset == 0,
            _ => true,
        };
        match body {
            Some(body) if zero == 0 && is_placed => Ok(Frame { header, body }),
            _ => Err(NotAFrame::Contents),
        }
    }
}

fn place(bytes: &mut Bytes) -> Place {
    Place { position: bytes.get_u64_le(), offset: bytes.get_u64_le() }
}

fn begin(bytes: &mut Bytes) -> Option<Body> {
    let (capacity, schema) = (bytes.get_u64_le(), bytes.get_u64_le());
    let after = (PipeId(bytes.get_u64_le()), place(bytes));
    let skipped = match bytes.get_u64_le() {
        0 => false,
        1 => true,
        _ => return None,
    };
    Some(Body::Begin(Begin { capacity, schema, after, skipped }))
}

fn messages(header: &Header, count: usize, bytes: Bytes) -> Option<Body> {
    let mut rest = &bytes[..];
    for _ in 0..count {
        (_, rest) = split_part(rest)?;
    }
    let moves = header.end.position > header.start.position
        || header.end.position == header.start.position && header.end.offset > header.start.offset;
    (rest.is_empty() && count > 0 && moves).then_some(Body::Messages(Parts { count, bytes }))
}

fn end(bytes: &mut Bytes) -> Option<Body> {
    let (how, code, claim) = (bytes.get_u32_le(), bytes.get_u32_le(), bytes.get_u64_le());
    let how = match how {
        1 => How::Closed,
        2 => How::Aborted { code },
        3 => How::Died,
        _ => return None,
    };
    Some(Body::End { how, claim })
}

/// A frame with messages that is being filled.
#[derive(Debug)]
pub struct Filling {
    bytes: Vec<u8>,
    parts: u32,
    limit: usize,
    is_full: bool,
}

impl Filling {
    /// A frame of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        assert!(limit > HEADER + PART, "a frame holds a byte at least");
        Filling { bytes: vec![0; HEADER], parts: 0, limit, is_full: false }
    }

    pub fn is_empty(&self) -> bool {
        self.parts == 0
    }

    pub fn parts(&self) -> u32 {
        self.parts
    }

    /// Bytes of all parts.
    pub fn payload(&self) -> u64 {
        (self.bytes.len() - HEADER - self.parts() as usize * PART) as u64
    }

    /// Whether there was more than fits.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    pub fn set_full(&mut self) {
        self.is_full = true;
    }

    /// Bytes that another part may have; `None` if not even an empty one fits.
    pub fn room(&self) -> Option<usize> {
        self.limit.checked_sub(self.bytes.len() + PART)
    }

    /// Adds a part of `length` bytes, which `write` appends.
    pub fn push(&mut self, tag: u32, length: usize, write: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.extend_from_slice(&(length as u32).to_le_bytes());
        self.bytes.extend_from_slice(&tag.to_le_bytes());
        let before = self.bytes.len();
        write(&mut self.bytes);
        assert_eq!(self.bytes.len(), before + length, "the part has the length that was announced");
        self.parts += 1;
    }

    /// The finished frame.
    pub fn seal(self, header: &Header) -> Bytes {
        seal(2, self.parts, header, self.bytes)
    }
}

impl Begin {
    pub fn seal(&self, header: &Header) -> Bytes {
        let mut bytes = vec![0; HEADER];
        let (pipe, place) = self.after;
        let words =
            [self.capacity, self.schema, pipe.0, place.position, place.offset, u64::from(self.skipped)];
        words.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        seal(1, 0, header, bytes)
    }
}

impl How {
    pub fn seal(self, claim: u64, header: &Header) -> Bytes {
        let mut bytes = vec![0; HEADER];
        let (how, code) = match self {
            How::Closed => (1u32, 0),
            How::Aborted { code } => (2, code),
            How::Died => (3, 0),
        };
        bytes.extend_from_slice(&how.to_le_bytes());
        bytes.extend_from_slice(&code.to_le_bytes());
        bytes.extend_from_slice(&claim.to_le_bytes());
        seal(3, 0, header, bytes)
    }
}

/// Writes the header in front of a body.
fn seal(kind: u8, parts: u32, header: &Header, mut bytes: Vec<u8>) -> Bytes {
    let Header { pipe, epoch, session, start, end, ended, time } = *header;
    bytes[..CRC_AT].copy_from_slice(MAGIC);
    bytes[12..16].copy_from_slice(&[kind, 0, 0, 0]);
    bytes[16..20].copy_from_slice(&parts.to_le_bytes());
    let words = [pipe.0, epoch, session, start.position, start.offset, end.position, end.offset, ended, time];
    for (word, place) in words.iter().zip(bytes[24..HEADER].chunks_exact_mut(8)) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    let checksum = crc32fast::hash(&bytes[CHECKED_FROM..]);
    bytes[CRC_AT..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn header() -> impl Strategy<Value = Header> {
        (any::<[u64; 5]>(), 0..u64::MAX / 2, any::<u64>(), 1..1_000_000u64).prop_map(
            |([pipe, epoch, session, ended, time], position, offset, moved)| Header {
                pipe: PipeId(pipe),
                epoch,
                session,
                start: Place { position, offset },
                end: Place::at(position + moved),
                ended,
                time,
            },
        )
    }

    fn messages() -> impl Strategy<Value = Vec<(u32, Vec<u8>)>> {
        vec((any::<u32>(), vec(any::<u8>(), 0..200)), 1..40)
    }

    fn filled(messages: &[(u32, Vec<u8>)], header: &Header) -> Bytes {
        let mut filling = Filling::new(1 << 20);
        for (tag, bytes) in messages {
            filling.push(*tag, bytes.len(), |to| to.extend_from_slice(bytes));
        }
        filling.seal(header)
    }

    proptest! {
        #[test]
        fn messages_come_back(header in header(), messages in messages()) {
            let frame = Frame::parse(filled(&messages, &header)).unwrap();
            prop_assert_eq!(frame.header, header);
            let Body::Messages(parts) = frame.body else { panic!("not messages") };
            prop_assert_eq!(parts.len(), messages.len());
            let parts: Vec<_> = parts.iter().map(|part| (part.tag, part.bytes.to_vec())).collect();
            prop_assert_eq!(parts, messages);
        }

        #[test]
        fn a_begin_comes_back(mut header in header(), words in any::<[u64; 5]>(), skipped: bool) {
            header.end = header.start;
            let [capacity, schema, pipe, position, offset] = words;
            let begin = Begin { capacity, schema, after: (PipeId(pipe), Place { position, offset }), skipped };
            let frame = Frame::parse(begin.seal(&header)).unwrap();
            prop_assert_eq!(frame, Frame { header, body: Body::Begin(begin) });
        }

        #[test]
        fn an_end_comes_back(mut header in header(), how in 0..3, code: u32, claim: u64) {
            header.start.offset = 0;
            header.end = header.start;
            let how = [How::Closed, How::Aborted { code }, How::Died][how as usize];
            let frame = Frame::parse(how.seal(claim, &header)).unwrap();
            prop_assert_eq!(frame, Frame { header, body: Body::End { how, claim } });
        }

        #[test]
        fn any_changed_bit_is_refused(header in header(), messages in messages(), at: prop::sample::Index, bit in 0..8u8) {
            let mut bytes = filled(&messages, &header).to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            let expected = if at < CRC_AT { NotAFrame::Magic } else { NotAFrame::Checksum };
            prop_assert_eq!(Frame::parse(bytes.into()), Err(expected));
        }

        #[test]
        fn any_cut_is_refused(header in header(), messages in messages(), at: prop::sample::Index) {
            let bytes = filled(&messages, &header);
            prop_assert!(Frame::parse(bytes.slice(..at.index(bytes.len()))).is_err());
        }

        #[test]
        fn arbitrary_contents_with_a_right_checksum_never_panic(mut bytes in vec(any::<u8>(), HEADER..400), kind in 0..5u8) {
            bytes[..CRC_AT].copy_from_slice(MAGIC);
            bytes[12] = kind;
            let checksum = crc32fast::hash(&bytes[CHECKED_FROM..]);
            bytes[CRC_AT..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
            if let Ok(Frame { body: Body::Messages(parts), .. }) = Frame::parse(bytes.into()) {
                prop_assert_eq!(parts.iter().count(), parts.len());
            }
        }
    }

    #[test]
    fn a_frame_is_laid_out_as_documented() {
        let header = Header {
            pipe: PipeId(0x0102),
            epoch: 3,
            session: 4,
            start: Place { position: 5, offset: 6 },
            end: Place { position: 7, offset: 8 },
            ended: 9,
            time: 10,
        };
        let frame = filled(&[(0xAABB_CCDD, b"hi".to_vec())], &header);
        assert_eq!(frame.len(), HEADER + PART + 2);
        assert_eq!(&frame[..8], b"shmpnat1");
        assert_eq!(frame[12..24], [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(frame[24..32], [2, 1, 0, 0, 0, 0, 0, 0]);
        let words: Vec<u64> = frame[32..96].chunks(8).map(|mut word| word.get_u64_le()).collect();
        assert_eq!(words, [3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(frame[96..], [2, 0, 0, 0, 0xDD, 0xCC, 0xBB, 0xAA, b'h', b'i']);
    }

    #[test]
    fn messages_that_move_nowhere_are_refused() {
        let header = Header::default();
        let frame = filled(&[(0, Vec::new())], &header);
        assert_eq!(Frame::parse(frame), Err(NotAFrame::Contents));
    }

    #[test]
    fn room_counts_all_bytes_of_a_frame() {
        let mut filling = Filling::new(HEADER + PART + 10);
        assert_eq!(filling.room(), Some(10));
        filling.push(0, 2, |to| to.extend_from_slice(b"hi"));
        assert_eq!(filling.room(), Some(0));
        filling.push(0, 0, |_| {});
        assert_eq!(filling.room(), None);
        let header = Header { end: Place::at(1), ..Header::default() };
        assert_eq!(filling.seal(&header).len(), HEADER + PART + 10);
    }
}
