//! JSON with a line for each field of outer objects, and one line for each inner object.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// The text of `value`. Values more than `depth` objects or arrays deep stay on the line of their container.
pub(super) fn lines(value: &impl Serialize, depth: usize) -> io::Result<String> {
    let mut text = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut text, Lines { depth, level: 0 }))?;
    text.push(b'\n');
    String::from_utf8(text).map_err(io::Error::other)
}

struct Lines {
    depth: usize,
    level: usize,
}

impl Lines {
    fn begin<W: Write + ?Sized>(&mut self, writer: &mut W, bracket: &str) -> io::Result<()> {
        self.level += 1;
        writer.write_all(bracket.as_bytes())
    }

    fn end<W: Write + ?Sized>(&mut self, writer: &mut W, bracket: &str) -> io::Result<()> {
        self.level -= 1;
        if self.level < self.depth {
            self.new_line(writer)?;
        }
        writer.write_all(bracket.as_bytes())
    }

    fn separate<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        let inner = self.level > self.depth;
        writer.write_all(match (first, inner) {
            (true, _) => b"",
            (false, true) => b", ",
            (false, false) => b",",
        })?;
        if inner { Ok(()) } else { self.new_line(writer) }
    }

    fn new_line<W: Write + ?Sized>(&self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b"\n")?;
        (0..self.level).try_for_each(|_| writer.write_all(b"  "))
    }
}

impl Formatter for Lines {
    fn begin_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.begin(writer, "[")
    }

    fn end_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(writer, "]")
    }

    fn begin_array_value<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.separate(writer, first)
    }

    fn begin_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.begin(writer, "{")
    }

    fn end_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(writer, "}")
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.separate(writer, first)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_values_stay_on_one_line() {
        let value = serde_json::json!({ "a": 1, "b": [{ "c": [1, 2], "d": "x" }, { "c": [], "d": null }] });
        let expected = "{\n  \"a\": 1,\n  \"b\": [\n    {\"c\": [1, 2], \"d\": \"x\"},\n    {\"c\": [], \"d\": null}\n  ]\n}\n";
        assert_eq!(lines(&value, 2).unwrap(), expected);
        assert_eq!(serde_json::from_str::<serde_json::Value>(expected).unwrap(), value);
    }
}
