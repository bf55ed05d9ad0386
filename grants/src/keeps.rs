//! What a recording keeps of the answers to SQL, and what must never be in it.

use regex::Regex;
use std::{collections::BTreeSet, fmt, str::FromStr, sync::Arc};

/// `results` and `mask` of an entitlement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keeps {
    /// Which rows of results.
    pub results: Results,
    /// What never.
    pub masks: Masks,
}

/// Which rows of results are kept. Their number always is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Results {
    /// None.
    #[default]
    None,
    /// The first of each result.
    Head,
    /// All.
    All,
}

/// Names of columns whose values must not be written down. Without one, nothing is masked.
#[derive(Debug, Clone, Default)]
pub struct Masks {
    names: Arc<[Mask]>,
    /// Any of them, and nothing else.
    pattern: Option<Regex>,
}

impl PartialEq for Masks {
    fn eq(&self, other: &Self) -> bool {
        self.names == other.names
    }
}

impl Eq for Masks {}

/// A name, in which `*` stands for any characters; small and capital letters are the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mask(String);

/// This is no rule for masking.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not a column's name of letters, digits and _, with * for any of them")]
pub struct InvalidMask;

impl FromStr for Mask {
    type Err = InvalidMask;

    fn from_str(text: &str) -> Result<Self, InvalidMask> {
        let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
        // What masks everything is no list of what is secret.
        let sound = text.chars().any(letter) && text.chars().all(|c| letter(c) || c == '*') && text.len() <= 63;
        if sound { Ok(Self(text.to_ascii_lowercase())) } else { Err(InvalidMask) }
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromIterator<Mask> for Masks {
    fn from_iter<I: IntoIterator<Item = Mask>>(masks: I) -> Self {
        let names: BTreeSet<_> = masks.into_iter().collect();
        let any: Vec<_> = names.iter().map(|mask| mask.0.replace('*', ".*")).collect();
        // Letters, digits, _ and .* make a pattern: were it refused for its size, nothing would be shown.
        let pattern = Regex::new(&format!("(?is)^(?:{})$", any.join("|"))).or_else(|_| Regex::new(""));
        Self { pattern: pattern.ok().filter(|_| !names.is_empty()), names: names.into_iter().collect() }
    }
}

impl Masks {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Mask> {
        self.names.iter()
    }

    /// Whether one of them means this name.
    pub fn mean(&self, name: &str) -> bool {
        self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(name))
    }

    /// How many of the words in this text they mean, whatever it is in which they stand.
    pub fn named_in(&self, text: &str) -> usize {
        if self.is_empty() {
            return 0;
        }
        let words = text.split(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && c != '_');
        // PostgreSQL before 15 reads `5password` as two.
        let meant = |word: &&str| self.mean(word) || self.mean(word.trim_start_matches(|c: char| c.is_ascii_digit()));
        words.filter(meant).count()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masks(names: &[&str]) -> Masks {
        names.iter().map(|name| name.parse::<Mask>().unwrap()).collect()
    }

    #[test]
    fn a_name_is_meant_whole_and_a_star_is_anything() {
        let masks = masks(&["password", "card_*", "*_key", "a*b*c"]);
        for meant in ["password", "PassWord", "card_", "card_number", "api_key", "_key", "abc", "a1b2b3c"] {
            assert!(masks.mean(meant), "{meant}");
        }
        for other in ["passwords", "pass", "card", "my_card_1", "key", "ab", "acb", ""] {
            assert!(!masks.mean(other), "{other}");
        }
        assert_eq!(masks.named_in("select Password, \"card_number\" from t -- api_key"), 3);
        assert_eq!(masks.named_in("select passwords from card"), 0);
    }

    #[test]
    fn what_would_mask_everything_or_is_no_name_is_refused() {
        for wrong in ["", "*", "**", "a b", "a.b", "a-b", "\u{e9}", &"a".repeat(64)] {
            assert_eq!(wrong.parse::<Mask>(), Err(InvalidMask), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn as_a_regular_expression_would(mask in "[ab*]{1,6}", name in "[ab]{0,8}") {
            prop_assume!(mask.contains(|c| c != '*'));
            let pattern = regex::Regex::new(&format!("^{}$", mask.replace('*', ".*"))).unwrap();
            prop_assert_eq!(masks(&[&mask]).mean(&name), pattern.is_match(&name));
        }
    }
}
