//! The boundaries of messages in the bytes of standard input and output.

use std::fmt;
use std::io::{self, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use memchr::memmem::Finder;
use serde::Serialize;
use shmpipe::Record;

use crate::exit::{Code, Failure};
use crate::output::report::{self, SCHEMA};

/// Bytes of the length in front of each message of `--length-prefixed`: 32 bits, little-endian.
const PREFIX: usize = 4;

/// Bytes of the first read buffer; it grows with long messages.
const READ: usize = 128 << 10;

/// How input is cut into messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// At each of these texts, such as a newline, which are not part of a message. What follows the last one is a message too.
    At(Vec<u8>),
    /// Not at all: it is one message.
    Nowhere,
    /// After this many bytes; the last message may be shorter.
    Chunks(usize),
    /// At the end of each read, after at most this many bytes.
    Reads(usize),
    /// By the length in front of each message.
    Prefixed,
}

/// How messages are written to the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Join {
    /// Each followed by this text, such as a newline, and with its position and a tab in front if these are shown.
    With { delimiter: Vec<u8>, positions: bool },
    /// Each as a JSON object on a line.
    Json,
    /// Without separators.
    Raw,
    /// Each after its length.
    Prefixed,
}

/// Why the input cannot be cut into messages. Messages are counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A message exceeds the longest of the pipe. If it is not complete, it may become longer still.
    TooLong { what: &'static str, number: u64, length: usize, complete: bool, longest: usize },
    /// The input ended within a message.
    Truncated { number: u64, found: usize, expected: usize },
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::TooLong { what, number, length, complete, longest } => write!(
                f,
                "{what} {number} of the input has {}{length} bytes, more than the {longest} bytes of the longest message \
                 of this pipe; create a pipe with a larger capacity",
                if *complete { "" } else { "at least " }
            ),
            Malformed::Truncated { number, found, expected } => {
                write!(f, "the input ends within message {number}, after {found} of its {expected} bytes")
            }
        }
    }
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Failure::new(Code::Failure, malformed)
    }
}

/// Cuts input into messages.
///
/// All complete messages are taken before the next read, so that none waits for more input.
pub struct Cutter {
    cut: Cut,
    /// Finds the delimiter.
    finder: Finder<'static>,
    longest: usize,
    buffer: Vec<u8>,
    /// Bytes that are read and not yet taken: `buffer[start..end]`.
    start: usize,
    end: usize,
    /// Bytes from `start` on in which no delimiter starts.
    searched: usize,
    ended: bool,
    taken: u64,
}

impl Cutter {
    /// For messages of at most `longest` bytes.
    pub fn new(cut: Cut, longest: usize) -> Self {
        let finder = match &cut {
            Cut::At(delimiter) => Finder::new(delimiter).into_owned(),
            _ => Finder::new(b""),
        };
        let buffer = vec![0; READ];
        Cutter { cut, finder, longest, buffer, start: 0, end: 0, searched: 0, ended: false, taken: 0 }
    }

    /// Reads once. To be called when [`next_message`](Cutter::next_message) returns nothing.
    pub fn read_from(&mut self, input: &mut impl Read) -> io::Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(2 * self.end, 0);
        }
        let read = input.read(&mut self.buffer[self.end..])?;
        self.ended = read == 0;
        self.end += read;
        Ok(())
    }

    /// Whether the input has ended and all of it is taken.
    pub fn is_over(&self) -> bool {
        self.ended && self.start == self.end
    }

    /// The next message, if all of it is read.
    pub fn next_message(&mut self) -> Result<Option<&[u8]>, Malformed> {
        let held = &self.buffer[self.start..self.end];
        // The start and the end of the message in `held`, and the bytes to take with it.
        let (from, to, consumed) = match self.cut {
            _ if held.is_empty() => return Ok(None),
            Cut::At(ref delimiter) => match self.finder.find(&held[self.searched..]) {
                Some(at) => (0, self.searched + at, self.searched + at + delimiter.len()),
                None if self.ended || held.len() > self.longest + delimiter.len() => {
                    (0, held.len(), held.len())
                }
                None => {
                    // It may have been read in part.
                    self.searched = (held.len() + 1).saturating_sub(delimiter.len());
                    return Ok(None);
                }
            },
            Cut::Nowhere if self.ended || held.len() > self.longest => (0, held.len(), held.len()),
            Cut::Nowhere => return Ok(None),
            Cut::Chunks(length) if held.len() < length && !self.ended => return Ok(None),
            Cut::Chunks(length) | Cut::Reads(length) => {
                let length = length.min(held.len());
                (0, length, length)
            }
            Cut::Prefixed => {
                let Some(prefix) = held.first_chunk::<PREFIX>() else {
                    return self.incomplete(held.len(), PREFIX);
                };
                let length = u32::from_le_bytes(*prefix) as usize;
                if length <= self.longest && held.len() < PREFIX + length {
                    return self.incomplete(held.len() - PREFIX, length);
                }
                (PREFIX, PREFIX + length, PREFIX + length)
            }
        };
        let length = to - from;
        if length > self.longest {
            let what = if self.cut == Cut::At(b"\n".to_vec()) { "line" } else { "message" };
            // One whose end is not found yet may become longer.
            let may_grow = consumed == to && matches!(self.cut, Cut::At(_) | Cut::Nowhere);
            let complete = self.ended || !may_grow;
            let (number, longest) = (self.taken + 1, self.longest);
            return Err(Malformed::TooLong { what, number, length, complete, longest });
        }
        let message = self.start + from..self.start + to;
        self.start += consumed;
        self.searched = 0;
        self.taken += 1;
        Ok(Some(&self.buffer[message]))
    }

    /// The message needs more bytes than are held: an error if the input has ended.
    fn incomplete(&self, found: usize, expected: usize) -> Result<Option<&[u8]>, Malformed> {
        match self.ended {
            true => Err(Malformed::Truncated { number: self.taken + 1, found, expected }),
            false => Ok(None),
        }
    }
}

/// A message, as a JSON object: its bytes as text if they are UTF-8, otherwise in base64.
#[derive(Serialize)]
pub struct Message<'a> {
    schema: u32,
    position: u64,
    tag: u32,
    length_bytes: usize,
    text: Option<&'a str>,
    base64: Option<String>,
}

impl<'a> Message<'a> {
    pub fn new(position: u64, tag: u32, bytes: &'a [u8]) -> Self {
        let text = std::str::from_utf8(bytes).ok();
        let base64 = text.is_none().then(|| BASE64.encode(bytes));
        Message { schema: SCHEMA, position, tag, length_bytes: bytes.len(), text, base64 }
    }
}

impl Join {
    /// Whether a terminal can show it.
    pub fn is_text(&self) -> bool {
        match self {
            Join::With { delimiter, .. } => delimiter == b"\n",
            Join::Json => true,
            Join::Raw | Join::Prefixed => false,
        }
    }

    /// Appends a message to the output.
    pub fn append<P>(&self, message: &Record<'_, P>, output: &mut Vec<u8>) {
        match self {
            Join::With { delimiter, positions } => {
                if *positions {
                    output.extend_from_slice(format!("{}\t", message.position()).as_bytes());
                }
                message.append_to(output);
                output.extend_from_slice(delimiter);
            }
            Join::Raw => message.append_to(output),
            Join::Prefixed => {
                let length = u32::try_from(message.len()).expect("the length of a message fits in 32 bits");
                output.extend_from_slice(&length.to_le_bytes());
                message.append_to(output);
            }
            Join::Json => {
                let bytes = message.to_vec();
                let object = Message::new(message.position().get(), message.tag(), &bytes);
                output.extend_from_slice(report::json(&object).as_bytes());
                output.push(b'\n');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Cut {
        Cut::At(b"\n".to_vec())
    }

    /// Returns one piece per read.
    struct Pieces<'a>(Vec<&'a [u8]>);

    impl Read for Pieces<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let Some(piece) = self.0.first_mut() else { return Ok(0) };
            let length = piece.len().min(to.len());
            to[..length].copy_from_slice(&piece[..length]);
            *piece = &piece[length..];
            if piece.is_empty() {
                self.0.remove(0);
            }
            Ok(length)
        }
    }

    /// All messages, each with the number of reads before it, and the error that ended the input, if any.
    fn cut(cut: Cut, longest: usize, pieces: &[&[u8]]) -> (Vec<(usize, Vec<u8>)>, Option<Malformed>) {
        let mut cutter = Cutter::new(cut, longest);
        let mut input = Pieces(pieces.to_vec());
        let mut messages = Vec::new();
        for read in 0.. {
            loop {
                match cutter.next_message() {
                    Ok(Some(message)) => messages.push((read, message.to_vec())),
                    Ok(None) => break,
                    Err(malformed) => return (messages, Some(malformed)),
                }
            }
            if cutter.is_over() {
                break;
            }
            cutter.read_from(&mut input).unwrap();
        }
        (messages, None)
    }

    fn texts(messages: &[(usize, Vec<u8>)]) -> Vec<(usize, &str)> {
        messages.iter().map(|(read, text)| (*read, std::str::from_utf8(text).unwrap())).collect()
    }

    #[test]
    fn a_line_is_a_message_as_soon_as_it_is_read() {
        let (messages, end) = cut(lines(), 100, &[b"a\nb\nhal", b"f\n\n", b"\nlast"]);
        assert_eq!(texts(&messages), [(1, "a"), (1, "b"), (2, "half"), (2, ""), (3, ""), (4, "last")]);
        assert_eq!(end, None);
    }

    #[test]
    fn a_newline_at_the_end_is_not_a_message() {
        assert_eq!(texts(&cut(lines(), 100, &[b"a\n"]).0), [(1, "a")]);
        assert_eq!(texts(&cut(lines(), 100, &[b"\n"]).0), [(1, "")]);
        assert_eq!(texts(&cut(lines(), 100, &[]).0), []);
    }

    #[test]
    fn any_text_may_end_a_message_wherever_the_reads_end() {
        let at = |delimiter: &[u8]| Cut::At(delimiter.to_vec());
        assert_eq!(texts(&cut(at(b"\0"), 9, &[b"a\0b\n\0\0c"]).0), [(1, "a"), (1, "b\n"), (1, ""), (2, "c")]);
        let input = b"onee--two--";
        for size in 1..=input.len() {
            let pieces: Vec<&[u8]> = input.chunks(size).collect();
            let (messages, end) = cut(at(b"--"), 4, &pieces);
            assert_eq!(
                messages.iter().map(|(_, text)| &text[..]).collect::<Vec<_>>(),
                [&b"onee"[..], b"two"]
            );
            assert_eq!(end, None, "{size}");
        }
        assert_eq!(texts(&cut(at(b"--"), 9, &[b"a-", b"-b-"]).0), [(2, "a"), (3, "b-")]);
        assert!(cut(at(b"--"), 3, &[b"four--"]).1.is_some());
    }

    #[test]
    fn the_whole_input_may_be_a_message() {
        assert_eq!(texts(&cut(Cut::Nowhere, 9, &[b"a\nb", b"\n\0c"]).0), [(3, "a\nb\n\0c")]);
        assert_eq!(texts(&cut(Cut::Nowhere, 9, &[]).0), []);
        let (messages, end) = cut(Cut::Nowhere, 3, &[b"fo", b"ur"]);
        assert!(messages.is_empty());
        let expected =
            Malformed::TooLong { what: "message", number: 1, length: 4, complete: false, longest: 3 };
        assert_eq!(end, Some(expected));
    }

    #[test]
    fn lines_need_not_be_text() {
        let (messages, _) = cut(lines(), 100, &[b"\xff\0\xfe\n\r\n"]);
        assert_eq!(messages, [(1, b"\xff\0\xfe".to_vec()), (1, b"\r".to_vec())]);
    }

    #[test]
    fn a_line_too_long_is_refused_with_both_lengths_after_the_lines_before_it() {
        let (messages, end) = cut(lines(), 4, &[b"fits\n", b"fits too"]);
        assert_eq!(texts(&messages), [(1, "fits")]);
        let error = end.unwrap();
        assert_eq!(
            error,
            Malformed::TooLong { what: "line", number: 2, length: 8, complete: false, longest: 4 }
        );
        assert!(
            error.to_string().starts_with("line 2 of the input has at least 8 bytes, more than the 4 bytes")
        );
        let (_, end) = cut(lines(), 4, &[b"12345\n"]);
        assert_eq!(
            end,
            Some(Malformed::TooLong { what: "line", number: 1, length: 5, complete: true, longest: 4 })
        );
    }

    #[test]
    fn long_lines_grow_across_reads() {
        let line = vec![b'x'; 3 * READ + 17];
        let pieces: Vec<&[u8]> = line.chunks(1000).chain([&b"\nshort\n"[..]]).collect();
        let (messages, end) = cut(lines(), line.len(), &pieces);
        assert_eq!(messages.iter().map(|(_, text)| text.len()).collect::<Vec<_>>(), [line.len(), 5]);
        assert_eq!(end, None);
        assert!(cut(lines(), line.len() - 1, &pieces).1.is_some());
    }

    #[test]
    fn chunks_span_reads_and_raw_messages_do_not() {
        let pieces: [&[u8]; 3] = [b"abc", b"defgh", b"i"];
        assert_eq!(texts(&cut(Cut::Chunks(4), 4, &pieces).0), [(2, "abcd"), (2, "efgh"), (4, "i")]);
        assert_eq!(texts(&cut(Cut::Reads(4), 4, &pieces).0), [(1, "abc"), (2, "defg"), (2, "h"), (3, "i")]);
        assert_eq!(texts(&cut(Cut::Chunks(9), 9, &pieces).0), [(3, "abcdefghi")]);
        assert_eq!(texts(&cut(Cut::Chunks(4), 4, &[]).0), []);
    }

    #[test]
    fn prefixes_keep_any_bytes_apart() {
        let input = b"\x02\0\0\0\n\n\0\0\0\0\x01\0\0\0\xff";
        for size in 1..=input.len() {
            let pieces: Vec<&[u8]> = input.chunks(size).collect();
            let (messages, end) = cut(Cut::Prefixed, 2, &pieces);
            let messages: Vec<&[u8]> = messages.iter().map(|(_, bytes)| bytes.as_slice()).collect();
            assert_eq!(messages, [&b"\n\n"[..], b"", b"\xff"]);
            assert_eq!(end, None);
        }
    }

    #[test]
    fn input_that_ends_within_a_prefixed_message_is_refused() {
        let truncated = |found, expected| Some(Malformed::Truncated { number: 2, found, expected });
        assert_eq!(cut(Cut::Prefixed, 9, &[b"\0\0\0\0\x01\0"]).1, truncated(2, 4));
        assert_eq!(cut(Cut::Prefixed, 9, &[b"\0\0\0\0\x03\0\0\0"]).1, truncated(0, 3));
        assert_eq!(cut(Cut::Prefixed, 9, &[b"\0\0\0\0\x03\0\0\0ab"]).1, truncated(2, 3));
    }

    #[test]
    fn a_prefix_too_large_is_refused_before_the_message_is_read() {
        let (_, end) = cut(Cut::Prefixed, 9, &[b"\xff\xff\xff\xff"]);
        let expected = Malformed::TooLong {
            what: "message",
            number: 1,
            length: u32::MAX as usize,
            complete: true,
            longest: 9,
        };
        assert_eq!(end, Some(expected));
    }
}
