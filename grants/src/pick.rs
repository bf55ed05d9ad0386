//! Ids as people give them: whole, or any unique first or last digits.

/// Why the digits name no one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotOne {
    /// They are no digits of an id.
    Malformed,
    /// Nothing fits.
    None,
    /// Several things fit.
    Several,
}

impl NotOne {
    /// In a sentence about `what`, e.g. `session`.
    pub fn sentence(self, what: &str) -> String {
        match self {
            Self::Malformed => format!("name the {what} by its id, or by the first or last digits of it"),
            Self::None => format!("no {what} has this id"),
            Self::Several => format!("several {what}s fit: give more digits"),
        }
    }
}

/// The one thing whose id is, begins or ends with `wanted` (digits of the simple form; dashes and case do not count).
pub fn one<T>(all: impl IntoIterator<Item = T>, wanted: &str, id: impl Fn(&T) -> String) -> Result<T, NotOne> {
    let digits = |text: &str| text.replace('-', "").to_ascii_lowercase();
    let wanted = digits(wanted);
    if wanted.is_empty() || wanted.len() > 32 || !wanted.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(NotOne::Malformed);
    }
    let fits = |item: &T| {
        let id = digits(&id(item));
        id.starts_with(&wanted) || id.ends_with(&wanted)
    };
    let mut fitting = all.into_iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some(item), None) => Ok(item),
        (None, _) => Err(NotOne::None),
        (Some(_), Some(_)) => Err(NotOne::Several),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn unique_prefix_or_suffix_names_one() {
        let ids = || vec!["0199a000-0000-7000-8000-00000000abcd", "0199b000-0000-7000-8000-00000000abce"];
        let find = |wanted: &str| one(ids(), wanted, |id| (*id).to_owned());
        assert_eq!(find("0000abcd").unwrap(), ids()[0]);
        assert_eq!(find("0199B").unwrap(), ids()[1]);
        assert_eq!(find("0199b000-0000").unwrap(), ids()[1]);
        assert_eq!(find("0199").unwrap_err(), NotOne::Several);
        assert_eq!(find("ffff").unwrap_err(), NotOne::None);
        for wanted in ["-", "", "x", "0199 b", "0199b\u{7f}", &"0".repeat(33)] {
            assert_eq!(find(wanted).unwrap_err(), NotOne::Malformed, "{wanted:?}");
        }
        assert_eq!(NotOne::Several.sentence("lease"), "several leases fit: give more digits");
    }
}
