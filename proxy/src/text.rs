//! Text for people: tables whose columns line up, and strings that cannot act on a terminal.

use std::{borrow::Cow, fmt::Write as _};

/// The text with every character that could act on a terminal or reorder a line written as `\u{…}`.
///
/// That is C0, DEL and C1 controls, line and paragraph separators, and the bidirectional controls (Unicode TR 9).
pub fn plain(text: &str) -> Cow<'_, str> {
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

/// JSON, pretty, with those characters as `\uXXXX` inside its strings: it may be looked at in a terminal.
pub fn json(value: &impl serde::Serialize) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string_pretty(value)?;
    let mut safe = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        // What begins a line is the format's own; inside strings it is escaped already.
        if acts(c) && c != '\n' { safe.push_str(&format!("\\u{:04x}", u32::from(c))) } else { safe.push(c) }
    }
    safe.push('\n');
    Ok(safe)
}

/// Rows under a heading, columns aligned, two spaces apart, no trailing blanks. Cells are made [`plain`].
pub fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
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
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let rows = [["a".to_owned(), "b".to_owned()], ["longer".to_owned(), String::new()]];
        assert_eq!(table(["ONE", "TWO"], &rows), "ONE     TWO\na       b\nlonger\n");
    }

    #[test]
    fn json_means_the_same_and_cannot_reach_a_terminal() {
        let hostile = "\u{1b}]0;x\u{7}\u{7f}\u{9b}2J\u{202e}\u{feff} \n\"\\ \u{fc}";
        let text = json(&serde_json::json!({ "reason": hostile })).unwrap();
        assert!(!text.chars().any(|c| acts(c) && c != '\n'), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["reason"], hostile);
    }

    #[test]
    fn control_characters_cannot_reach_a_terminal() {
        assert_eq!(plain("ok: \u{fc}n\u{ef}"), "ok: \u{fc}n\u{ef}");
        assert_eq!(plain("\u{1b}]52;c;\u{7}\n"), "\\u{1b}]52;c;\\u{7}\\u{a}");
        assert_eq!(plain("a\u{202e}b\u{9b}2J"), "a\\u{202e}b\\u{9b}2J");
    }
}
