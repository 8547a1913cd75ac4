//! Output, for people and for programs.

pub mod columns;
pub mod description;
pub mod process;
pub mod progress;
pub mod report;
pub mod units;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use os_display::Quotable;
use shmpipe::Address;

/// Text that is safe to print on a terminal: with characters escaped that move the cursor, or that change how the text around them
/// looks. Other users choose the names and paths of pipes.
pub fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if is_unsafe(c) { c.escape_default().collect() } else { vec![c] }).collect()
}

/// Whether a character is a control character, or an invisible one, such as those that reverse the direction of text.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// A path as text: what is not UTF-8 as `\xff`.
pub fn show_path(path: impl AsRef<OsStr>) -> String {
    let chunks = path.as_ref().as_bytes().utf8_chunks();
    let texts = chunks.map(|chunk| {
        let invalid = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
        chunk.valid().to_owned() + &invalid.collect::<String>()
    });
    texts.collect()
}

/// A word of a printed command, quoted where a shell needs it: a name may hold anything, and the reader may be root.
pub fn shell(word: impl AsRef<OsStr>) -> String {
    word.as_ref().maybe_quote().to_string()
}

/// [`shell`], for an address.
pub fn shell_address(address: &Address) -> String {
    shell(address.to_os_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_shell_reads_back_every_word() {
        for word in [
            &b"plain-1.x"[..],
            b"b;id>owned;",
            b"$(id)",
            b"`id`",
            b"a b",
            b"it's",
            b"~",
            b"#x",
            b"a\\b",
            b"\x1b[31m",
            b"two\nlines",
            b"not utf-8: \xff\xfe",
            "größe\u{202e}x".as_bytes(),
            b"*",
        ] {
            let quoted = shell(OsStr::from_bytes(word));
            assert_eq!(printable(&quoted), quoted, "it is safe to print");
            let output = Command::new("bash")
                .args(["-c", &format!("printf %s {quoted}")])
                .output()
                .expect("bash runs");
            assert_eq!(output.stdout, word, "{quoted}");
        }
    }

    #[test]
    fn what_moves_the_cursor_or_hides_is_escaped() {
        assert_eq!(printable("a\u{1b}[2J\r\n\u{7f}\u{9b}"), r"a\u{1b}[2J\r\n\u{7f}\u{9b}");
        assert_eq!(printable("\u{202e}x\u{200b}\u{2066}"), r"\u{202e}x\u{200b}\u{2066}");
        assert_eq!(printable("größe 日本"), "größe 日本");
        assert_eq!(show_path(OsStr::from_bytes(b"/a\xffb")), r"/a\xffb");
    }
}
