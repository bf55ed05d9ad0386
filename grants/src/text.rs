//! Text from people and peers, made fit for records: bounded, one line, nothing that moves a terminal's cursor.

/// The most characters that a reason, an error or an outcome keeps.
pub(crate) const LINE: usize = 500;

/// One printable line of at most `max` characters; what was cut is shown by `…`.
///
/// Besides control characters the invisible ones go that reorder or hide what follows (Unicode general category Cf,
/// as far as it has been used for that: Trojan Source, CVE-2021-42574).
pub(crate) fn line(text: &str, max: usize) -> String {
    let mut kept = String::new();
    for (count, c) in text.trim().chars().map(plain).enumerate() {
        if count + 1 >= max && text.trim().chars().count() > max {
            kept.push('…');
            break;
        }
        kept.push(c);
    }
    kept
}

/// Whether `line` would leave it as it is.
pub(crate) fn is_line(text: &str, max: usize) -> bool {
    text.len() <= max && text.chars().all(|c| plain(c) == c)
}

fn plain(c: char) -> char {
    let hidden = matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    if c.is_control() || hidden { ' ' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_overlong_text_do_not_pass() {
        assert_eq!(line("a\u{1b}[2Jb\r\nc\u{202e}d", 100), "a [2Jb  c d");
        assert_eq!(line(&"x".repeat(600), 500).chars().count(), 500);
        assert!(line(&"x".repeat(600), 500).ends_with('…'));
        assert_eq!(line(&"x".repeat(500), 500), "x".repeat(500));
        assert!(!is_line("a\nb", 10));
        assert!(is_line("servicedesk", 64));
    }
}
