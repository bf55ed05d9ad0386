//! Recorded text made harmless for the eyes and the terminal of whoever reads it.
//!
//! What always holds: what comes out has no control character of C0 or C1 but the line breaks and tabs that were asked
//! for, and none of the invisible characters that reorder or hide text.

use std::fmt::Write as _;

/// Whether a character could steer a terminal, or make text look like other text.
pub(crate) fn is_steering(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// On one line: line breaks and tabs are escaped like everything that steers.
pub(crate) fn line(text: &str) -> String {
    escape(text, |_| false)
}

/// Over several lines: line feeds and tabs stay, and a carriage return before a line feed goes.
pub(crate) fn lines(text: &str) -> String {
    escape(&text.replace("\r\n", "\n"), |c| matches!(c, '\n' | '\t'))
}

fn escape(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if !is_steering(c) || stays(c) => clean.push(c),
            '\n' => clean.push_str("\\n"),
            '\r' => clean.push_str("\\r"),
            '\t' => clean.push_str("\\t"),
            c if u32::from(c) < 0x100 => {
                let _ = write!(clean, "\\x{:02x}", u32::from(c)); // a String takes everything
            }
            c => {
                let _ = write!(clean, "\\u{{{:x}}}", u32::from(c));
            }
        }
    }
    clean
}

/// Begins each line of recorded content where lines of ours stand beside it: none of it can pass for one of ours.
pub(crate) const CONTENT: &str = "| ";

/// Text of several lines with [`CONTENT`] before each that begins in it.
pub(crate) fn marked(text: &str, at_line_start: bool) -> String {
    let mut out = String::with_capacity(text.len() + CONTENT.len());
    for (n, line) in text.split_inclusive('\n').enumerate() {
        if n > 0 || at_line_start {
            out.push_str(CONTENT);
        }
        out.push_str(line);
    }
    out
}

/// JSON in which steering characters are escaped too: serde_json leaves those above U+007E as they are.
pub(crate) fn json(value: &serde_json::Value) -> String {
    let text = value.to_string();
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if is_steering(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(clean, "\\u{unit:04x}");
            }
        } else {
            clean.push(c);
        }
    }
    clean
}

/// Decodes UTF-8 that comes in pieces; a character may be cut between two of them.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// The beginning of a character: at most three bytes.
    rest: Vec<u8>,
}

impl Decoder {
    /// The characters that are whole now; what can be none becomes U+FFFD.
    pub(crate) fn decode(&mut self, piece: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.rest);
        bytes.extend_from_slice(piece);
        let mut text = String::with_capacity(bytes.len());
        let mut left = bytes.as_slice();
        while let Err(error) = std::str::from_utf8(left) {
            let (valid, from_fault) = left.split_at(error.valid_up_to());
            text.push_str(&String::from_utf8_lossy(valid));
            let Some(length) = error.error_len() else {
                self.rest = from_fault.to_vec();
                return text;
            };
            text.push(char::REPLACEMENT_CHARACTER);
            left = from_fault.get(length..).unwrap_or_default();
        }
        text.push_str(&String::from_utf8_lossy(left));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_steers_is_shown_as_what_it_is() {
        assert_eq!(line("a\x1b]52;c;aGk=\x07\u{9b}2J\u{202e}\n"), "a\\x1b]52;c;aGk=\\x07\\x9b2J\\u{202e}\\n");
        assert_eq!(lines("a\r\n\tb\rc"), "a\n\tb\\rc");
        assert_eq!(json(&serde_json::json!({ "a": "\u{9b}\u{7f}" })), r#"{"a":"\u009b\u007f"}"#);
    }

    #[test]
    fn content_is_marked_once_in_each_line() {
        assert_eq!(marked("a\n\nb", true), "| a\n| \n| b");
        assert_eq!(marked("c\nd\n", false), "c\n| d\n");
        assert_eq!(marked("", true), "");
    }

    proptest! {
        #[test]
        fn pieces_decode_like_the_whole(text in "\\PC{0,40}", bytes in proptest::collection::vec(any::<u8>(), 0..20), cut in 0..60usize) {
            let whole = [text.as_bytes(), &bytes, b"end"].concat();
            let (one, two) = whole.split_at(cut.min(whole.len()));
            let mut decoder = Decoder::default();
            let decoded = decoder.decode(one) + &decoder.decode(two);
            prop_assert_eq!(decoded, String::from_utf8_lossy(&whole));
        }

        #[test]
        fn nothing_that_steers_comes_through(text in any::<String>()) {
            prop_assert!(!line(&text).contains(is_steering));
            prop_assert!(!lines(&text).contains(|c| is_steering(c) && c != '\n' && c != '\t'));
        }
    }
}
