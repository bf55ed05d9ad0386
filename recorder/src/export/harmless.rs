//! What psql surely takes as it seems, and values that it takes as nothing else.
//!
//! Auditors run exports with `psql -f`, where `\!` runs a shell and an open quote turns what follows inside out. So a
//! statement stands as one only if it is harmless to psql's own reading of it (PostgreSQL: psql, "Meta-Commands";
//! CVE-2025-8714 is the same mistake in pg_dump).

use crate::event::Parameter;

/// Whether psql surely takes this as statements that end where they seem to. Conservative: many a harmless one is not.
///
/// No backslash (commands); no colon but a cast's (psql's variables); no comments and no dollar quotes; quotes and
/// brackets that close; no COPY, after which psql takes the next lines for data; no function whose body BEGINs, in which
/// a semicolon does not end; and ASCII only, since the auditor's psql may read the file in another encoding.
pub(super) fn surely_harmless(text: &str) -> bool {
    let strange = |c: char| !c.is_ascii() || c == '\\';
    if text.contains(strange) || text.contains("--") || text.contains("/*") {
        return false;
    }
    let mut outside = String::with_capacity(text.len());
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None => outside.push(c),
        }
        if quote.is_some() && !outside.ends_with(' ') {
            outside.push(' '); // what stands on both sides of a quote does not touch
        }
    }
    let mut depth = 0_u32;
    let brackets_close = outside.chars().all(|c| match c {
        '(' => depth.checked_add(1).is_some_and(|deeper| {
            depth = deeper;
            true
        }),
        ')' => depth.checked_sub(1).is_some_and(|less| {
            depth = less;
            true
        }),
        _ => true,
    });
    let dollars = outside.split('$').skip(1).all(|after| after.starts_with(|c: char| c.is_ascii_digit()));
    let words = outside.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let has = |word: &'static str| words.clone().any(|found| found.eq_ignore_ascii_case(word));
    let swallows = has("copy") || has("create") && has("begin");
    quote.is_none() && brackets_close && depth == 0 && dollars && !outside.replace("::", "").contains(':') && !swallows
}

/// The statements in this text, as PostgreSQL tells them apart; none if psql might take it for something else.
pub(super) fn parts(text: &str) -> Option<Vec<&str>> {
    if !surely_harmless(text) {
        return None;
    }
    let (mut parts, mut from, mut depth, mut quote) = (Vec::new(), 0, 0_u32, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            (None, ';') if depth == 0 => {
                parts.extend(text.get(from..at));
                from = at + 1;
            }
            (None, _) => {}
        }
    }
    parts.extend(text.get(from..));
    Some(parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect())
}

/// A string of SQL that nothing reads otherwise: neither psql, whatever its encoding, nor a server with or without
/// `standard_conforming_strings`. None for what was not kept whole.
pub(super) fn literal(text: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || " _.,+@#%&=()[]{}<>!?".contains(c);
    if text.contains("… (") || text.contains(char::REPLACEMENT_CHARACTER) {
        return None;
    }
    if text.chars().all(plain) {
        return Some(format!("'{text}'"));
    }
    let mut string = String::from("E'");
    for c in text.chars() {
        match u32::from(c) {
            _ if plain(c) => string.push(c),
            code if code <= 0xffff => string += &format!("\\u{code:04X}"),
            code => string += &format!("\\U{code:08X}"),
        }
    }
    Some(string + "'")
}

/// A parameter as EXECUTE takes it: the text that its type's input function reads, as Bind brought it.
pub(super) fn argument(value: &Parameter, utf8: bool) -> Option<String> {
    match value {
        Parameter::Null => Some("NULL".to_owned()),
        Parameter::Text(text) | Parameter::Typed { text, .. } if text.is_ascii() || utf8 => literal(text),
        _ => None,
    }
}

/// The type of a parameter as PREPARE takes it: `unknown` leaves it to the statement, as Parse does.
pub(super) fn type_name(declared: Option<&String>, value: &Parameter) -> Option<String> {
    let name = match (declared.map(String::as_str).filter(|name| !name.is_empty()), value) {
        (Some(name), _) => name,
        (None, Parameter::Typed { kind, .. }) => kind,
        (None, _) => "unknown",
    };
    let bare = name.trim_end_matches("[]");
    let word = bare.strip_prefix('"').and_then(|bare| bare.strip_suffix('"')).unwrap_or(bare);
    let sound = word.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    sound.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_psql_surely_takes_as_it_seems_is_a_statement() {
        for harmless in [
            "select 1",
            "select 1; delete from \"a;b\" where c = 'it''s'",
            "select $1::int, array[(1)]",
            "select 'a:b (', \"(\"",
            "begin",
            "select copy_of from t",
        ] {
            assert!(surely_harmless(harmless), "{harmless}");
        }
        for not_surely in [
            "select 1;\n\\! touch /tmp/PWNED",
            "select 'a\\'",
            "select 'open",
            "select \"open",
            "select /* open",
            "select 1 -- the semicolon would be in it",
            "select '\n--# end of the recording'",
            "select $$a$$",
            "select $1$$",
            "select $a$'$a$",
            "select :HOST, :'x'",
            "select ::'x', a:::b",
            "select (1",
            "select 1)(",
            "COPY t FROM stdin",
            "select 1; copy t from stdin",
            "create function f() begin; select 1",
            "select '\u{e9}'",
        ] {
            assert!(!surely_harmless(not_surely), "{not_surely}");
        }
    }

    #[test]
    fn statements_are_told_apart_as_postgresql_does() {
        let text =
            "commit; insert into t values ('a;b');;create rule r as on delete to t do (select 1; select 2) ; \"x;\"";
        let rule = "create rule r as on delete to t do (select 1; select 2)";
        assert_eq!(parts(text), Some(vec!["commit", "insert into t values ('a;b')", rule, "\"x;\""]));
        assert_eq!((parts("select '\u{e9}'"), parts(" ; ")), (None, Some(vec![])));
    }

    #[test]
    fn a_literal_is_ascii_without_anything_that_is_read_in_two_ways() {
        for (text, literal) in [
            ("plain text, (1) {2}", "'plain text, (1) {2}'"),
            ("it's", "E'it\\u0027s'"),
            ("\\x00ff", "E'\\u005Cx00ff'"),
            ("\u{e9}\n\u{1f600}", "E'\\u00E9\\u000A\\U0001F600'"),
            ("2026-11-22 :x $1 /*", "E'2026\\u002D11\\u002D22 \\u003Ax \\u00241 \\u002F\\u002A'"),
        ] {
            assert_eq!(super::literal(text).as_deref(), Some(literal));
        }
        assert_eq!((super::literal("head… (7 bytes more)"), super::literal("\u{fffd}")), (None, None));
    }

    #[test]
    fn a_parameter_is_an_argument_only_if_it_is_whole_and_its_encoding_is_known() {
        let text = |text: &str| Parameter::Text(text.to_owned());
        assert_eq!(argument(&text("\u{e9}"), true).as_deref(), Some("E'\\u00E9'"));
        assert_eq!(
            (argument(&text("\u{e9}"), false), argument(&Parameter::Binary("00".to_owned()), true)),
            (None, None)
        );
        assert_eq!(argument(&Parameter::Null, false).as_deref(), Some("NULL"));
    }

    #[test]
    fn a_type_is_named_as_it_was_declared_or_left_to_the_statement() {
        let typed = |kind: &str| Parameter::Typed { kind: kind.to_owned(), text: "1".to_owned() };
        let name = |declared: &str, value: &Parameter| type_name(Some(&declared.to_owned()), value);
        assert_eq!(name("int4[]", &Parameter::Null).as_deref(), Some("int4[]"));
        assert_eq!(name("", &typed("\"char\"")).as_deref(), Some("\"char\""));
        assert_eq!(type_name(None, &Parameter::Null).as_deref(), Some("unknown"));
        for hostile in ["int4; drop table t; --", "oid 16432", "\"a\"\"b\"", "Int4", "\\", "[]"] {
            assert_eq!((name(hostile, &Parameter::Null), name("", &typed(hostile))), (None, None), "{hostile}");
        }
    }
}
