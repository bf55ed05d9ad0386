//! What a screen shows at one moment, as cells: for the player, for copying out, and for a PNG.
//!
//! What always holds: it was read off the terminal emulator, so no byte of the recording is in it, and no character of it
//! steers a terminal. Its size is bounded, whatever size a client claimed.

use crate::inert::is_steering;
use avt::{Cell, Color, Pen, Terminal};

/// Columns and rows of a session that has no terminal.
const LINES: (usize, usize) = (132, 50);

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    columns: usize,
    rows: Vec<Vec<Glyph>>,
    cursor: Option<(usize, usize)>,
}

/// What stands in one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glyph {
    /// The character.
    pub character: char,
    /// Columns that it takes: 1 or 2; 0 for the right half of the one before.
    pub width: u8,
    /// How it is drawn.
    pub look: Look,
}

/// Colours and styles of a cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// Of the character; none: the terminal's own.
    pub foreground: Option<Ink>,
    /// Behind it; none: the terminal's own.
    pub background: Option<Ink>,
    /// Bold.
    pub bold: bool,
    /// Faint.
    pub faint: bool,
    /// Italic.
    pub italic: bool,
    /// Underlined.
    pub underline: bool,
    /// Struck through.
    pub strikethrough: bool,
    /// Foreground and background change places.
    pub inverse: bool,
}

/// A colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Of the terminal's palette: 0 to 15 are its own, 16 to 255 xterm's.
    Indexed(u8),
    /// Red, green, blue.
    Rgb(u8, u8, u8),
}

impl From<Color> for Ink {
    fn from(color: Color) -> Self {
        match color {
            Color::Indexed(index) => Self::Indexed(index),
            Color::RGB(rgb) => Self::Rgb(rgb.r, rgb.g, rgb.b),
        }
    }
}

impl From<&Pen> for Look {
    fn from(pen: &Pen) -> Self {
        Self {
            foreground: pen.foreground().map(Ink::from),
            background: pen.background().map(Ink::from),
            bold: pen.is_bold(),
            faint: pen.is_faint(),
            italic: pen.is_italic(),
            underline: pen.is_underline(),
            strikethrough: pen.is_strikethrough(),
            inverse: pen.is_inverse(),
        }
    }
}

impl From<&Cell> for Glyph {
    fn from(cell: &Cell) -> Self {
        let character = cell.char();
        let character = if is_steering(character) { char::REPLACEMENT_CHARACTER } else { character };
        Self { character, width: cell.width(), look: Look::from(cell.pen()) }
    }
}

impl Picture {
    /// Of what this terminal shows now.
    pub(crate) fn of(terminal: &Terminal) -> Self {
        let (columns, rows) = terminal.size();
        let screen = terminal.screen();
        let row = |row| screen.line(row).map(|line| line.cells().iter().map(Glyph::from).collect()).unwrap_or_default();
        let cursor = terminal.cursor();
        Self {
            columns,
            rows: (0..rows).map(row).collect(),
            cursor: cursor.visible.then_some((cursor.col.min(columns.saturating_sub(1)), cursor.row)),
        }
    }

    /// Of the last of these lines, which are inert, as a terminal would show them.
    pub(crate) fn of_lines<'a>(lines: impl IntoIterator<Item = &'a String>) -> Self {
        let mut terminal = Terminal::new(LINES.0, LINES.1).expect("neither is zero");
        for line in lines {
            terminal.feed("\r\n");
            terminal.feed(line.as_str());
        }
        terminal.feed("\x1b[?25l");
        Self::of(&terminal)
    }

    /// Columns of the screen.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Its rows, from the top.
    pub fn rows(&self) -> &[Vec<Glyph>] {
        &self.rows
    }

    /// Column and row of the cursor, from zero, if it is shown.
    pub fn cursor(&self) -> Option<(usize, usize)> {
        self.cursor
    }

    /// As plain text: its lines without the blanks at their ends, and without the empty lines at the bottom.
    pub fn text(&self) -> String {
        let line = |row: &Vec<Glyph>| {
            let text: String = row.iter().filter(|glyph| glyph.width > 0).map(|glyph| glyph.character).collect();
            text.trim_end().to_owned()
        };
        let lines: Vec<String> = self.rows.iter().map(line).collect();
        lines.join("\n").trim_end_matches('\n').to_owned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    #[test]
    fn a_picture_has_what_is_seen_and_nothing_that_steers() {
        let mut terminal = Terminal::new(20, 5).unwrap();
        terminal.feed("\x1b]0;title\x07\x1b[1;31mré\u{202e}\x1b[0m 界\r\n\x1b]52;c;eA==\x07end");
        let picture = Picture::of(&terminal);
        assert_eq!(picture.text().lines().nth(1), Some("end"));
        assert!(!picture.text().contains(is_steering_but_lines) && !picture.text().contains("title"), "{picture:?}");
        let first = picture.rows()[0][0];
        assert_eq!((first.character, first.look.bold, first.look.foreground), ('r', true, Some(Ink::Indexed(1))));
        let widths: Vec<u8> = picture.rows()[0].iter().map(|glyph| glyph.width).collect();
        assert!(widths.windows(2).any(|pair| pair == [2, 0]), "{widths:?}");
        assert_eq!(picture.cursor(), Some((3, 1)));
    }

    fn is_steering_but_lines(c: char) -> bool {
        c != '\n' && is_steering(c)
    }
}
