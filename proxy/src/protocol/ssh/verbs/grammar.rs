//! The one grammar of the control shell's command lines: plain words with spaces between them, options behind the verb.
//!
//! There is no quoting, so nothing can be quoted wrongly; there are no abbreviations, so nothing can be taken for
//! something else; and what a verb does not name in its [`Verb`] it does not get.

use super::reply::Reply;
use std::{borrow::Cow, ops::RangeInclusive};

/// Longest command line.
pub(super) const LONGEST: usize = 4096;

/// The options whose value is all words up to the next option.
const SENTENCES: [&str; 2] = ["--reason", "--note"];

/// One verb: what it takes, and what `help` says of it.
#[derive(Debug)]
pub(super) struct Verb {
    pub(super) name: &'static str,
    /// What is typed behind it.
    pub(super) usage: &'static str,
    /// In a line.
    pub(super) about: &'static str,
    /// The rest, for `help VERB`.
    pub(super) more: &'static str,
    /// How many words it takes, options apart.
    pub(super) words: RangeInclusive<usize>,
    /// Options without a value.
    pub(super) flags: &'static [&'static str],
    /// Options with a value behind them.
    pub(super) options: &'static [&'static str],
}

/// What was typed behind a verb, checked against it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments<'a> {
    words: Vec<&'a str>,
    flags: Vec<&'a str>,
    options: Vec<(&'a str, Cow<'a, str>)>,
}

impl<'a> Arguments<'a> {
    /// The word at this place.
    pub(super) fn word(&self, place: usize) -> Option<&'a str> {
        self.words.get(place).copied()
    }

    /// Whether the option was given.
    pub(super) fn has(&self, flag: &str) -> bool {
        self.flags.contains(&flag)
    }

    /// The value of an option, if it was given.
    pub(super) fn value(&self, option: &str) -> Option<&str> {
        self.options.iter().find(|(name, _)| *name == option).map(|(_, value)| value.as_ref())
    }
}

impl Verb {
    /// How to type it.
    pub(super) fn typed(&self) -> String {
        format!("{} {}", self.name, self.usage).trim_end().to_owned()
    }

    /// Sorts what was typed behind the verb. An option given twice, unknown or without its value is refused.
    pub(super) fn arguments<'a>(&self, typed: &[&'a str]) -> Result<Arguments<'a>, Reply> {
        let wrong = || Reply::usage(&format!("type: {}", self.typed()));
        let mut sorted = Arguments::default();
        let mut rest = typed.iter().copied().peekable();
        while let Some(word) = rest.next() {
            if self.flags.contains(&word) && !sorted.has(word) {
                sorted.flags.push(word);
            } else if self.options.contains(&word) && sorted.value(word).is_none() {
                let first = rest.next().ok_or_else(wrong)?;
                let mut value = Cow::Borrowed(first);
                // A shell has taken the quotes off, if there were any: a sentence goes on to the next option.
                while SENTENCES.contains(&word)
                    && let Some(more) = rest.next_if(|word| !self.flags.contains(word) && !self.options.contains(word))
                {
                    value = Cow::Owned(format!("{value} {more}"));
                }
                sorted.options.push((word, value));
            } else if word.starts_with('-') {
                return Err(wrong());
            } else {
                sorted.words.push(word);
            }
        }
        if self.words.contains(&sorted.words.len()) { Ok(sorted) } else { Err(wrong()) }
    }
}

/// Tells words apart by spaces.
pub(in super::super) fn words(command: &[u8]) -> Result<Vec<String>, Reply> {
    if command.len() > LONGEST {
        return Err(Reply::usage("that command is too long"));
    }
    let text = command.trim_ascii();
    if !text.iter().all(|b| (0x20..=0x7e).contains(b)) {
        return Err(Reply::usage("a command is plain words with spaces between them"));
    }
    let text = String::from_utf8_lossy(text);
    Ok(text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    const PLAY: Verb = Verb {
        name: "play",
        usage: "SESSION [--speed X] [--json]",
        about: "",
        more: "",
        words: 1..=1,
        flags: &["--json"],
        options: &["--speed"],
    };

    #[test]
    fn words_are_told_apart_by_spaces_alone() {
        assert_eq!(words(b"  password   orders\n").unwrap(), ["password", "orders"]);
        assert_eq!(words(b"a\"b c\"").unwrap(), ["a\"b", "c\""]);
        assert!(words(b"").unwrap().is_empty());
    }

    #[test]
    fn control_characters_make_no_command() {
        for command in [&b"help\x1b[2J"[..], b"password\torders", b"a\0b", b"caf\xc3\xa9", &[b'a'; 5000]] {
            assert_eq!(words(command).unwrap_err().exit, 2);
        }
    }

    #[test]
    fn a_reason_goes_on_to_the_next_option() {
        const ASK: Verb = Verb { options: &["--reason", "--for"], ..PLAY };
        let typed = ["web-1", "--reason", "fix", "-", "the", "--disk", "--for", "5m", "--json"];
        let sorted = ASK.arguments(&typed).unwrap();
        assert_eq!((sorted.value("--reason"), sorted.value("--for")), (Some("fix - the --disk"), Some("5m")));
        assert_eq!((sorted.word(0), sorted.has("--json")), (Some("web-1"), true));
        assert!(ASK.arguments(&["web-1", "--reason"]).is_err());
    }

    #[test]
    fn options_stand_anywhere_and_nothing_unknown_passes() {
        let sorted = PLAY.arguments(&["--speed", "2", "0199", "--json"]).unwrap();
        assert_eq!((sorted.word(0), sorted.value("--speed"), sorted.has("--json")), (Some("0199"), Some("2"), true));
        for typed in [
            &[][..],
            &["a", "b"],
            &["a", "--speed"],
            &["a", "--speed", "1", "--speed", "2"],
            &["a", "--json", "--json"],
            &["a", "--jso"],
            &["a", "--speed=2"],
            &["a", "-"],
            &["--", "a"],
        ] {
            let refused = PLAY.arguments(typed).unwrap_err();
            assert_eq!(refused.exit, 2, "{typed:?}");
            assert!(refused.err.contains("type: play SESSION [--speed X] [--json]"), "{}", refused.err);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_typed_is_sorted_or_refused(line in "[ -~]{0,60}") {
            let words = words(line.as_bytes()).unwrap();
            let typed: Vec<&str> = words.iter().map(String::as_str).collect();
            if let Ok(sorted) = PLAY.arguments(&typed) {
                prop_assert!(sorted.words.len() == 1 && !sorted.words[0].starts_with('-'));
                prop_assert_eq!(typed.len(), 1 + sorted.flags.len() + 2 * sorted.options.len());
            }
        }
    }
}
