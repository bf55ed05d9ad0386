//! A terminal's screen, drawn again in harmless bytes.
//!
//! The recorded bytes go into a terminal emulator and nowhere else. What comes out is written here from the emulator's
//! cells: characters that do not steer, colours and styles (SGR), cursor positions, and erasing. So clipboard writes
//! (OSC 52), titles, device queries (DECRQSS) and whatever else a terminal may answer or obey never reach the auditor's.

use crate::inert::is_steering;
use avt::{Cell, Color, Pen, Terminal, observer::DirtyRows};
use std::fmt::Write as _;

/// A person's client says how large its terminal is: larger than this is not believed.
const MOST_COLUMNS: usize = 1000;
const MOST_ROWS: usize = 500;

/// Neither is smaller: nobody works in it, and one cell would show an auditor nothing. `ssh -tt` without a terminal sends
/// 0x0, and zero means that the size is not known (RFC 4254 section 6.2).
const FEWEST_COLUMNS: u32 = 20;
const FEWEST_ROWS: u32 = 5;
/// What programs take for the size when they are told none.
const USUAL: (usize, usize) = (80, 24);

/// Bounds a size that a peer claimed.
pub(crate) fn bounded(columns: u32, rows: u32) -> (usize, usize) {
    if columns < FEWEST_COLUMNS || rows < FEWEST_ROWS {
        return USUAL;
    }
    let bound = |n: u32, most: usize| usize::try_from(n).unwrap_or(most).min(most);
    (bound(columns, MOST_COLUMNS), bound(rows, MOST_ROWS))
}

/// An emulated terminal and what of it was drawn.
pub(crate) struct Screen {
    terminal: Terminal,
    dirty: DirtyRows,
    /// Columns and rows that the auditor's terminal has.
    view: (usize, usize),
}

impl Screen {
    /// `view`: what does not fit into it is clipped.
    pub(crate) fn new(columns: u32, rows: u32, view: Option<(u16, u16)>) -> Option<Self> {
        let (columns, rows) = bounded(columns, rows);
        let view = view.map_or((usize::MAX, usize::MAX), |(columns, rows)| (columns.into(), rows.into()));
        Some(Self { terminal: Terminal::new(columns, rows).ok()?, dirty: DirtyRows::new(), view })
    }

    /// Feeds output, and draws what changed.
    pub(crate) fn feed(&mut self, text: &str) -> String {
        let changed = self.terminal.feed_with(text, &mut self.dirty);
        self.draw(changed.into_iter().collect())
    }

    /// Changes the size, and draws everything.
    pub(crate) fn resize(&mut self, columns: u32, rows: u32) -> String {
        let (columns, rows) = bounded(columns, rows);
        let _ = self.terminal.resize_with(columns, rows, &mut self.dirty);
        self.whole()
    }

    /// Draws everything.
    pub(crate) fn whole(&self) -> String {
        "\x1b[0m\x1b[2J".to_owned() + &self.draw((0..self.terminal.size().1).collect())
    }

    /// To the line below the screen.
    pub(crate) fn leave(&self) -> String {
        format!("\x1b[0m\x1b[{};1H\r\n", self.terminal.size().1.min(self.view.1))
    }

    fn draw(&self, rows: Vec<usize>) -> String {
        let mut out = String::new();
        for row in rows.into_iter().filter(|row| *row < self.view.1) {
            if let Some(line) = self.terminal.screen().line(row) {
                self.draw_row(&mut out, row, line.cells());
            }
        }
        let cursor = self.terminal.cursor();
        place(&mut out, cursor.row.min(self.view.1.saturating_sub(1)), cursor.col.min(self.view.0.saturating_sub(1)));
        out
    }

    fn draw_row(&self, out: &mut String, row: usize, cells: &[Cell]) {
        place(out, row, 0);
        out.push_str("\x1b[0m");
        let blank = |cell: &Cell| cell.char() == ' ' && cell.pen().is_default();
        let used = cells.iter().rposition(|cell| !blank(cell)).map_or(0, |last| last + 1);
        let mut pen = Pen::default();
        for (column, cell) in cells.iter().enumerate().take(used) {
            let width = usize::from(cell.width());
            if width == 0 || column + width > self.view.0 {
                continue; // the right half of a wide character, or outside the view
            }
            if *cell.pen() != pen {
                pen = *cell.pen();
                style(out, &pen);
            }
            let c = cell.char();
            out.push(if is_steering(c) { char::REPLACEMENT_CHARACTER } else { c });
            if !c.is_ascii() {
                place(out, row, column + width); // terminals differ on the width of such characters
            }
        }
        if used < self.view.0 {
            out.push_str("\x1b[0m\x1b[K");
        }
    }
}

/// Cursor position (CUP), from zero.
fn place(out: &mut String, row: usize, column: usize) {
    let _ = write!(out, "\x1b[{};{}H", row + 1, column + 1); // a String takes everything
}

/// Colours and styles (SGR), from none.
fn style(out: &mut String, pen: &Pen) {
    out.push_str("\x1b[0");
    let styles = [
        (pen.is_bold(), ";1"),
        (pen.is_faint(), ";2"),
        (pen.is_italic(), ";3"),
        (pen.is_underline(), ";4"),
        (pen.is_blink(), ";5"),
        (pen.is_inverse(), ";7"),
        (pen.is_strikethrough(), ";9"),
    ];
    styles.iter().filter(|(on, _)| *on).for_each(|(_, code)| out.push_str(code));
    for (color, ground) in [(pen.foreground(), 38), (pen.background(), 48)] {
        let _ = match color {
            Some(Color::Indexed(index)) => write!(out, ";{ground};5;{index}"),
            Some(Color::RGB(rgb)) => write!(out, ";{ground};2;{};{};{}", rgb.r, rgb.g, rgb.b),
            None => Ok(()),
        };
    }
    out.push('m');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_no_terminal_has_are_not_believed() {
        for (claimed, believed) in [
            ((0, 0), (80, 24)),
            ((1, 1), (80, 24)),
            ((0, 50), (80, 24)),
            ((19, 24), (80, 24)),
            ((20, 5), (20, 5)),
            ((132, 43), (132, 43)),
            ((u32::MAX, u32::MAX), (1000, 500)),
        ] {
            assert_eq!(bounded(claimed.0, claimed.1), believed, "{claimed:?}");
        }
    }
}
