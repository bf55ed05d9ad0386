//! The last line that was entered in a live terminal, for lists: as it was seen, and never what was typed.
//!
//! What always holds: of each session there are so many bytes at most, and they are drawn only when somebody asks, on a small screen: a session
//! can make that neither large nor slow.

use crate::{
    inert,
    screen::bounded,
    stage::{ECHO, line_of},
};
use avt::Terminal;
use std::time::Duration;

/// The bytes of a line that are kept: its last ones.
const MOST: usize = 2048;
/// The screen that a line is drawn on.
const WIDEST: usize = 300;
const ROWS: usize = 8;
/// Programs that draw the whole screen have one of their own (xterm's private modes).
const SCREENS: [(&[u8], bool); 6] = [
    (b"\x1b[?1049h", true),
    (b"\x1b[?1049l", false),
    (b"\x1b[?1047h", true),
    (b"\x1b[?1047l", false),
    (b"\x1b[?47h", true),
    (b"\x1b[?47l", false),
];

/// What a terminal's current line is made of.
#[derive(Debug)]
pub(crate) struct Line {
    channel: u32,
    columns: u32,
    /// A program draws the whole screen.
    drawn: bool,
    /// Something was typed whose line break was not seen yet.
    typed: Option<Duration>,
    current: Vec<u8>,
    entered: Option<Entered>,
}

/// A line on which Enter was pressed, not drawn yet.
#[derive(Debug)]
pub(crate) struct Entered {
    /// Since the session began.
    pub(crate) elapsed: Duration,
    columns: u32,
    bytes: Vec<u8>,
}

impl Line {
    /// Of a terminal that was opened.
    pub(crate) fn new(channel: u32, columns: u32) -> Self {
        Self { channel, columns, drawn: false, typed: None, current: Vec::new(), entered: None }
    }

    pub(crate) fn is_of(&self, channel: u32) -> bool {
        self.channel == channel
    }

    pub(crate) fn resize(&mut self, columns: u32) {
        self.columns = columns;
    }

    /// Something was typed, and not what.
    pub(crate) fn typed(&mut self, elapsed: Duration) {
        self.typed = Some(elapsed);
    }

    /// This was seen.
    pub(crate) fn seen(&mut self, data: &[u8], elapsed: Duration) {
        let escapes = data.iter().enumerate().rev().filter(|(_, byte)| **byte == 0x1b).map(|(at, _)| at);
        let begins = |at: usize| data.get(at..).unwrap_or_default();
        let screen = |at| SCREENS.iter().find(|(sequence, _)| begins(at).starts_with(sequence));
        if let Some((_, drawn)) = escapes.into_iter().find_map(screen) {
            self.drawn = *drawn;
        }
        let awaited = self.typed.is_some_and(|typed| elapsed.saturating_sub(typed) <= ECHO);
        let mut lines = data.split(|byte| *byte == b'\n');
        let first = lines.next().unwrap_or_default();
        self.add(first);
        if let Some(last) = lines.next_back() {
            let line = std::mem::take(&mut self.current);
            if awaited && !self.drawn {
                self.entered = Some(Entered { elapsed, columns: self.columns, bytes: line });
                self.typed = None;
            }
            self.add(last);
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.current.extend_from_slice(bytes.get(bytes.len().saturating_sub(MOST)..).unwrap_or_default());
        let over = self.current.len().saturating_sub(MOST);
        self.current.drain(..over);
    }

    /// The line that was entered since the last one was taken.
    pub(crate) fn take(&mut self) -> Option<Entered> {
        self.entered.take()
    }
}

impl Entered {
    /// As it was seen, inert; empty: there was nothing on it.
    pub(crate) fn drawn(&self) -> String {
        let columns = bounded(self.columns, 24).0.min(WIDEST);
        let Ok(mut terminal) = Terminal::new(columns, ROWS) else { return String::new() };
        terminal.feed(without_repeats(&inert::Decoder::default().decode(&self.bytes)).as_str());
        line_of(&terminal)
    }
}

/// Without what repeats the last character so often as it likes (REP, ECMA-48 section 8.3.103).
fn without_repeats(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("\x1b[") {
        let end = behind.find(|c: char| !(c.is_ascii_digit() || c == ';')).unwrap_or(behind.len());
        let repeats = behind.get(end..).is_some_and(|after| after.starts_with('b'));
        out.push_str(before);
        if repeats {
            rest = behind.get(end + 1..).unwrap_or_default();
        } else {
            out.push_str("\x1b[");
            rest = behind;
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn entered(line: &mut Line) -> Option<String> {
        line.take().map(|entered| entered.drawn())
    }

    #[test]
    fn a_line_is_what_was_seen_when_enter_was_pressed() {
        let mut line = Line::new(1, 80);
        line.seen(b"welcome\r\n$ ", second(0));
        assert_eq!(entered(&mut line), None, "nobody had typed");
        for (echo, at) in [(&b"l"[..], 1), (b"x", 2), (b"\x08 \x08", 3), (b"s", 4), (b"\r\nout\r\n$ ", 5)] {
            line.typed(second(at));
            line.seen(echo, second(at));
        }
        assert_eq!(entered(&mut line).as_deref(), Some("$ ls"));
        line.seen(b"late output\r\n", second(60));
        assert_eq!(entered(&mut line), None, "a line break of a program's own");
    }

    #[test]
    fn neither_a_whole_screen_nor_a_line_without_end_is_kept() {
        let mut line = Line::new(1, u32::MAX);
        line.seen(b"$ vi\x1b[?1049h", second(0));
        line.typed(second(1));
        line.seen(b"text\r\n", second(1));
        assert_eq!(entered(&mut line), None);
        line.seen(b"\x1b[?1049l", second(2));
        for _ in 0..10_000 {
            line.seen(b"\x1b[J\x1b[H", second(2));
        }
        assert!(line.current.len() <= MOST, "{}", line.current.len());
        line.resize(0); // nobody said how wide it is
        line.typed(second(3));
        line.seen(b"\x1b[1;1Hmake\r\n", second(3));
        assert_eq!(entered(&mut line).as_deref(), Some("make"));
        line.typed(second(4));
        line.seen(&[b"x\x1b[65535b".repeat(200), b"\x1b[1;1H\x1b[Kmake\r\n".to_vec()].concat(), second(4));
        assert_eq!(entered(&mut line).as_deref(), Some("make"), "and it took no time");
    }
}
