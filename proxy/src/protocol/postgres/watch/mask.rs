//! The text of a statement without its values, for one that has a word in it which must not be seen with its value.
//!
//! What always holds: it hides more rather than less. What is not surely read as the target's lexer reads it (PostgreSQL chapter 4.1; a
//! backslash in a plain string, a quote that does not close) ends the text there.

use tidegate_grants::Masks;

/// How much of what comes of a statement is hidden: so many of its words are masked; `usize::MAX` where what it says does not tell.
pub(super) fn named(masks: &Masks, text: &str) -> usize {
    let named = masks.named_in(text);
    let has = |words: &[&str]| has(text, words);
    // What FETCH and EXECUTE run was named before; a name may be written in escapes; and beside a star and TABLE, which stand for columns
    // under their own names, another may have another.
    let untold = has(&["fetch", "execute"])
        || text.contains("U&\"")
        || text.contains("u&\"")
        || named > 0 && (text.contains('*') || has(&["table"]));
    if untold { usize::MAX } else { named }
}

fn has(text: &str, words: &[&str]) -> bool {
    text.split(|c| !is_word(c)).any(|found| words.iter().any(|word| found.eq_ignore_ascii_case(word)))
}

/// Stands for what was there.
pub(super) const MASKED: &str = "‹masked›";

/// `text` with strings, numbers and comments taken out.
pub(super) fn without_values(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // In other encodings than UTF-8 what seems a backslash may be a part of a character.
    let sure = text.find(char::REPLACEMENT_CHARACTER).unwrap_or(text.len()).min(setting(text));
    let mut rest = text.get(..sure).unwrap_or_default();
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '\'' => string(rest, escapes(&out)).inspect(|_| out.push_str(&format!("'{MASKED}'"))),
            '"' => quoted(rest).inspect(|taken| out.push_str(rest.get(..*taken).unwrap_or_default())),
            '$' => dollars(rest).inspect(|_| out.push_str(MASKED)).or_else(|| {
                out.push('$');
                copied(rest.get(1..)?, &mut out, |c| c.is_ascii_digit()).map(|digits| digits + 1)
            }),
            '-' if rest.starts_with("--") => {
                out.push_str("-- ‹masked›");
                Some(rest.find(['\n', '\r']).unwrap_or(rest.len()))
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
        let Some(taken) = taken.filter(|taken| *taken > 0) else { break };
        rest = rest.get(taken..).unwrap_or_default();
    }
    if !rest.is_empty() || sure < text.len() {
        out.push_str("‹masked to its end›");
    }
    out
}

/// What a SET takes need not be in quotes: it ends where its value begins.
fn setting(text: &str) -> usize {
    let first = text.split(|c| !is_word(c)).find(|word| !word.is_empty()).unwrap_or_default();
    let alters = first.eq_ignore_ascii_case("alter") && has(text, &["set"]);
    if !alters && !first.eq_ignore_ascii_case("set") {
        return text.len();
    }
    let to = text.to_ascii_lowercase().find(" to ").map(|at| at + 4);
    let equals = text.find('=').map(|at| at + 1);
    to.into_iter().chain(equals).min().unwrap_or(text.len())
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
            // In some encodings it is the end of a character.
            (b'\\', _) if bytes.get(at - 1).is_some_and(|before| !before.is_ascii()) => return None,
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

/// With a fraction and an exponent; a sign in that stands for itself.
fn number(rest: &str) -> usize {
    rest.find(|c: char| !is_word(c) && c != '.').unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_stay_and_values_go() {
        for (text, left) in [
            ("select 1", "select ‹masked›"),
            (
                "update t set password = 'it''s', a1 = $1 where x=-1.5e-3",
                "update t set password = '‹masked›', a1 = $1 where x=-‹masked›-‹masked›",
            ),
            ("select E'a\\'b', e'', \"pass'word\"", "select E'‹masked›', e'‹masked›', \"pass'word\""),
            ("select $$a'b$$, $t$ $$ $t$, a$b", "select ‹masked›, ‹masked›, a$b"),
            ("x -- it's\n'y' /* a /* b */ ' */ z", "x -- ‹masked›\n'‹masked›' /* ‹masked› */ z"),
            ("alter role a password 'x'; select b.c2", "alter role a password '‹masked›'; select b.c2"),
            ("x --a\rb '\ns3cret', y", "x -- ‹masked›\rb '‹masked›', y"),
            ("set app.password = s3cret", "set app.password =‹masked to its end›"),
            ("alter role a set app.password to s3cret", "alter role a set app.password to ‹masked to its end›"),
            ("$1$$s3cret$$", "$1‹masked›"),
            ("1--it's\n,'s3cret'", "‹masked›-- ‹masked›\n,'‹masked›'"),
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
        for (text, so_many) in [("select a", 0), ("select Password, \"password\"", 2), ("select *", 0), ("table t", 0)]
        {
            assert_eq!(named(&masks, text), so_many, "{text}");
        }
        assert_eq!(named(&masks, "alter role a connection limit 5password 'x'"), 1, "as PostgreSQL 14 reads it");
        for text in [
            "select *, password as p",
            "select U&\"p\\0061ssword\"",
            "table users union all select password, id from users",
            "fetch all from c",
            "Execute p",
        ] {
            assert_eq!(named(&masks, text), usize::MAX, "{text}");
        }
    }

    #[test]
    fn in_another_encoding_nothing_is_read_beyond_what_is_utf_8() {
        let sjis = String::from_utf8_lossy(b"set a = E'\x95\\', b = 's3cret'").into_owned();
        let left = without_values(&sjis);
        assert!(!left.contains("s3cret") && left.ends_with("‹masked to its end›"), "{left}");
        let gbk = without_values("update t set a = E'\u{3042}\\', password='s3cret'");
        assert!(!gbk.contains("s3cret") && gbk.ends_with("‹masked to its end›"), "{gbk}");
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
