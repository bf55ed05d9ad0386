//! The text of a statement without its values, for one that has a word in it which must not be seen with its value.
//!
//! What always holds: it hides more rather than less. What is not surely read as the target's lexer reads it (PostgreSQL chapter 4.1; a
//! backslash in a plain string, a quote that does not close) ends the text there.

use tidegate_grants::Masks;

/// How much of what comes of a statement is hidden: so many of its words are masked; `usize::MAX` where what it says does not tell.
/// `lent`: in this session SQL has given a name to such a statement, which others then use.
pub(super) fn named(masks: &Masks, text: &str, lent: &mut bool) -> usize {
    let named = masks.named_in(text);
    let lower = text.to_ascii_lowercase();
    let has = |words: [&str; 2]| lower.split(|c| !is_word(c)).any(|word| words.contains(&word));
    // A name may be written in escapes; a star stands for columns under their own names, beside which another may have another.
    let untold = lower.contains("u&\"") || *lent && has(["fetch", "execute"]) || named > 0 && text.contains('*');
    let named = if untold { usize::MAX } else { named };
    *lent |= named > 0 && has(["declare", "prepare"]);
    named
}

/// Stands for what was there.
pub(super) const MASKED: &str = "‹masked›";

/// `text` with strings, numbers and comments taken out.
pub(super) fn without_values(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // In other encodings than UTF-8 what seems a backslash may be a part of a character.
    let sure = text.find(char::REPLACEMENT_CHARACTER).unwrap_or(text.len());
    let mut rest = text.get(..sure).unwrap_or_default();
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '\'' => string(rest, escapes(&out)).inspect(|_| out.push_str(&format!("'{MASKED}'"))),
            '"' => quoted(rest).inspect(|taken| out.push_str(rest.get(..*taken).unwrap_or_default())),
            '$' => dollars(rest).inspect(|_| out.push_str(MASKED)).or_else(|| copied(rest, &mut out, is_word)),
            '-' if rest.starts_with("--") => {
                out.push_str("-- ‹masked›");
                Some(rest.find('\n').unwrap_or(rest.len()))
            }
            '/' if rest.starts_with("/*") => comment(rest).inspect(|_| out.push_str("/* ‹masked› */")),
            '0'..='9' => {
                out.push_str(MASKED);
                Some(number(rest))
            }
            _ if is_word(c) => copied(rest, &mut out, is_word),
            _ => {
                out.push(c);
                Some(c.len_utf8())
            }
        };
        let Some(taken) = taken.filter(|taken| *taken > 0) else {
            out.push_str("‹masked to its end›");
            break;
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    if sure < text.len() {
        out.push_str("‹masked to its end›");
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

fn copied(rest: &str, out: &mut String, which: impl Fn(char) -> bool) -> Option<usize> {
    let end = rest.find(|c| !which(c)).unwrap_or(rest.len());
    out.push_str(rest.get(..end)?);
    Some(end)
}

/// Whether the string that begins here is one of `E''`: its E was copied as a word of its own.
fn escapes(before: &str) -> bool {
    let mut last = before.chars().rev();
    matches!(last.next(), Some('e' | 'E')) && !last.next().is_some_and(is_word)
}

/// Its length with its quotes. None where it does not end, or is read in two ways (`standard_conforming_strings`).
fn string(rest: &str, escapes: bool) -> Option<usize> {
    let bytes = rest.as_bytes();
    let mut at = 1;
    loop {
        match (bytes.get(at)?, bytes.get(at + 1)) {
            (b'\\', _) if !escapes => return None,
            (b'\\', _) | (b'\'', Some(b'\'')) => at += 2,
            (b'\'', _) => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// A quoted name.
fn quoted(rest: &str) -> Option<usize> {
    rest.get(1..)?.find('"').map(|end| end + 2)
}

/// A dollar-quoted string, which is none where its tag does not close.
fn dollars(rest: &str) -> Option<usize> {
    let inner = rest.get(1..)?;
    let tag = inner.get(..inner.find('$')?)?;
    let first = tag.chars().next();
    if first.is_some_and(|c| c.is_ascii_digit()) || !tag.chars().all(|c| is_word(c) && c != '$') {
        return None;
    }
    let fence = rest.get(..tag.len() + 2)?;
    let body = rest.get(fence.len()..)?;
    Some(body.find(fence).map_or(rest.len(), |end| end + 2 * fence.len()))
}

/// Comments nest.
fn comment(rest: &str) -> Option<usize> {
    let (mut depth, mut at) = (0_u32, 0);
    loop {
        let ahead = rest.as_bytes().get(at..at + 2)?;
        match ahead {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return Some(at);
        }
    }
}

/// With a fraction, an exponent and its sign.
fn number(rest: &str) -> usize {
    let mut before = ' ';
    rest.find(|c: char| {
        let goes_on = is_word(c) || c == '.' || matches!((before, c), ('e' | 'E', '+' | '-'));
        before = c;
        !goes_on
    })
    .unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_stay_and_values_go() {
        for (text, left) in [
            ("select 1", "select ‹masked›"),
            ("set password = 'it''s', a1 = $1 where x=-1.5e-3", "set password = '‹masked›', a1 = $1 where x=-‹masked›"),
            ("select E'a\\'b', e'', \"pass'word\"", "select E'‹masked›', e'‹masked›', \"pass'word\""),
            ("select $$a'b$$, $t$ $$ $t$, a$b", "select ‹masked›, ‹masked›, a$b"),
            ("x -- it's\n'y' /* a /* b */ ' */ z", "x -- ‹masked›\n'‹masked›' /* ‹masked› */ z"),
            ("alter role a password 'x'; select b.c2", "alter role a password '‹masked›'; select b.c2"),
            ("caf\u{e9} 'x'", "caf\u{e9} '‹masked›'"),
        ] {
            assert_eq!(without_values(text), left);
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_ends_it() {
        for text in ["a 'x\\' , 'secret'", "a 'open secret", "a /* open secret", "a \"open secret", "a E'open\\"] {
            let left = without_values(text);
            assert!(!left.contains("secret") && left.ends_with("‹masked to its end›"), "{left}");
        }
        assert_eq!(without_values("a $x$ secret"), "a ‹masked›");
    }

    #[test]
    fn what_a_statement_does_not_tell_is_hidden() {
        let masks: Masks = ["password".parse()].into_iter().flatten().collect();
        let mut lent = false;
        let mut of = |text: &str| named(&masks, text, &mut lent);
        assert_eq!((of("select a"), of("select Password, \"password\"")), (0, 2));
        assert_eq!(
            (of("select *, password as p"), of("select U&\"p\\0061ssword\""), of("select *")),
            (usize::MAX, usize::MAX, 0)
        );
        assert_eq!((of("fetch all from c"), of("execute p")), (0, 0));
        assert_eq!(of("declare c cursor for select password as p from t"), 1);
        assert_eq!((of("fetch all from c"), of("execute p"), of("select 1")), (usize::MAX, usize::MAX, 0));
    }

    #[test]
    fn in_another_encoding_nothing_is_read_beyond_what_is_utf_8() {
        let sjis = String::from_utf8_lossy(b"set a = E'\x95\\', b = 's3cret'").into_owned();
        let left = without_values(&sjis);
        assert!(!left.contains("s3cret") && left.ends_with("‹masked to its end›"), "{left}");
    }

    proptest! {
        #[test]
        fn a_value_never_stays_whatever_stands_around_it(
            before in "[a-c ,(=\\-\\n/*.;]{0,8}", after in "[a-c ,)='\"$\\\\\\-\\n/*.;0-9]{0,12}", quote in 0..3,
        ) {
            // Opening and closing a comment or a line comment changes what is a string: then all of it is gone, too.
            let value = match quote { 0 => "'s3cret'", 1 => "E's3cret'", _ => "$q$s3cret$q$" };
            let left = without_values(&format!("{before} {value}{after}"));
            prop_assert!(!left.contains("s3cret"), "{left}");
        }

        #[test]
        fn any_text_is_read_to_its_end(text in ".{0,60}") {
            let _ = without_values(&text);
        }
    }
}
