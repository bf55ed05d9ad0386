//! Text for people: tables whose columns line up, and strings that cannot act on a terminal.

use std::{borrow::Cow, fmt::Write as _};

/// The text with every character that could act on a terminal or reorder a line written as `\u{…}`.
///
/// That is C0, DEL and C1 controls, line and paragraph separators, and the bidirectional controls (Unicode TR 9).
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) { safe.extend(c.escape_unicode()) } else { safe.push(c) }
    }
    Cow::Owned(safe)
}

fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Rows under a heading, columns aligned, two spaces apart, no trailing blanks. Cells are made [`plain`].
pub(crate) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let rows: Vec<Vec<Cow<'_, str>>> = std::iter::once(heading.iter().map(|cell| Cow::Borrowed(*cell)).collect())
        .chain(rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()))
        .collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let rows = [["a".to_owned(), "b".to_owned()], ["longer".to_owned(), String::new()]];
        assert_eq!(table(["ONE", "TWO"], &rows), "ONE     TWO\na       b\nlonger\n");
    }

    #[test]
    fn control_characters_cannot_reach_a_terminal() {
        assert_eq!(plain("ok: \u{fc}n\u{ef}"), "ok: \u{fc}n\u{ef}");
        assert_eq!(plain("\u{1b}]52;c;\u{7}\n"), "\\u{1b}]52;c;\\u{7}\\u{a}");
        assert_eq!(plain("a\u{202e}b\u{9b}2J"), "a\\u{202e}b\\u{9b}2J");
    }
}
