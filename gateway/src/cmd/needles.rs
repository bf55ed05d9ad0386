//! What must be in a text for a regular expression to match it: one of these, however large its letters are.

use regex_syntax::hir::{Hir, HirKind};

/// Shorter ones pass over nothing.
const SHORTEST: usize = 3;
/// More alternatives are not worth a look at each.
const MOST: usize = 64;

/// One of these ASCII texts is in whatever the pattern matches; none if that cannot be said of any.
pub(super) fn needles(pattern: &str) -> Option<Vec<String>> {
    required(&regex_syntax::parse(pattern).ok()?)
}

fn required(hir: &Hir) -> Option<Vec<String>> {
    match hir.kind() {
        // Other letters have more than one way to be large.
        HirKind::Literal(literal) => {
            let runs = literal.0.split(|byte| !byte.is_ascii()).filter(|run| run.len() >= SHORTEST);
            let longest = runs.max_by_key(|run| run.len())?;
            Some(vec![String::from_utf8_lossy(longest).into_owned()])
        }
        HirKind::Concat(parts) => parts.iter().filter_map(required).max_by_key(|any| shortest(any)),
        HirKind::Alternation(ways) => {
            let all: Option<Vec<Vec<String>>> = ways.iter().map(required).collect();
            Some(all?.into_iter().flatten().collect::<Vec<_>>()).filter(|any| any.len() <= MOST)
        }
        HirKind::Capture(capture) => required(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => required(&repetition.sub),
        _ => None,
    }
}

fn shortest(any: &[String]) -> usize {
    any.iter().map(String::len).min().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use regex::Regex;

    #[test]
    fn what_must_be_there_is_named() {
        for (pattern, wanted) in [
            ("DROP TABLE|rm -rf", Some(vec!["DROP TABLE", "rm -rf"])),
            ("se.*cret(key)+", Some(vec!["cret"])),
            (r"^\$ sudo\s+(cat|less) /etc/shadow$", Some(vec![" /etc/shadow"])),
            ("na\u{ef}ve", None),
            ("caf\u{e9} society", Some(vec![" society"])),
            ("(?i)password", None),
            ("a|password", None),
            ("(password)?", None),
            (".*", None),
            ("", None),
            ("ab", None),
            ("(", None),
        ] {
            let wanted = wanted.map(|wanted| wanted.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(needles(pattern), wanted, "{pattern}");
        }
    }

    #[test]
    fn whatever_matches_has_one_of_them() {
        let texts = ["DROP TABLE x", "x rm -rf /", "secretkey", "secret cretkeykey", "cat /etc/shadow", "none of them"];
        for pattern in
            ["DROP (TABLE|INDEX)|rm +-rf", "se.*cret(key)+", "(cat|less) /etc/(shadow|passwd)", "[dD]ROP TAB.E"]
        {
            let (regex, needles) = (Regex::new(pattern).ok(), needles(pattern));
            for text in texts.iter().filter(|text| regex.as_ref().is_some_and(|regex| regex.is_match(text))) {
                let found = needles.iter().flatten().any(|needle| text.contains(needle.as_str()));
                assert!(needles.is_none() || found, "{pattern} matches {text}, and {needles:?} are not in it");
            }
        }
    }
}
