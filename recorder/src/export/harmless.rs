//! What psql surely takes as it seems, and statements with their parameters in their places.
//!
//! Auditors run exports with `psql -f`, where `\!` runs a shell and an open quote turns what follows inside out. So a
//! statement stands as one only if it is harmless to psql's own reading of it (PostgreSQL: psql, "Meta-Commands";
//! CVE-2025-8714 is the same mistake in pg_dump).

use crate::{event::Parameter, sentence::quote};

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

/// A parameter as an expression of SQL that has its value; none if it was not kept whole, or has none.
pub(super) fn expression(value: &Parameter) -> Option<String> {
    let string = |text: &str| match text {
        cut if cut.contains("… (") || cut.contains(char::REPLACEMENT_CHARACTER) => None,
        plain if surely_harmless(&quote(plain)) && !plain.contains(char::is_control) => Some(quote(plain)),
        other => Some(format!("convert_from(decode('{}', 'hex'), 'UTF8')", crate::frame::hex(other.as_bytes()))),
    };
    match value {
        Parameter::Null => Some("NULL".to_owned()),
        Parameter::Text(text) => string(text),
        Parameter::Typed { kind, text } if kind == "bytea" => {
            text.strip_prefix("\\x").map(|hex| format!("decode('{hex}', 'hex')"))
        }
        Parameter::Typed { kind, text } => string(text).map(|string| format!("{string}::{kind}")),
        Parameter::Binary(_) | Parameter::Raw { .. } => None,
    }
}

/// The statement with `values` in the places of `$1`, `$2`, …, if psql surely takes it as it seems before and afterwards, and each value
/// that it needs is there.
pub(super) fn with_values(text: &str, values: &[Option<String>]) -> Option<String> {
    if !surely_harmless(text) {
        return None;
    }
    let (mut out, mut rest, mut quote) = (String::with_capacity(text.len()), text, None);
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..)?;
        let in_a_name = out.ends_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$'));
        if quote.is_none() && c == '$' && !in_a_name {
            let behind = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            let number: usize = rest.strip_suffix(behind)?.parse().ok()?;
            if out.ends_with('\'') {
                out.push(' '); // two strings that touch are one with a quote in it
            }
            out.push_str(values.get(number.checked_sub(1)?)?.as_ref()?);
            rest = behind;
            continue;
        }
        quote = match quote {
            Some(open) if c == open => None,
            None if c == '\'' || c == '"' => Some(c),
            same => same,
        };
        out.push(c);
    }
    surely_harmless(&out).then_some(out)
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

    fn filled(text: &str, values: &[Parameter]) -> Option<String> {
        with_values(text, &values.iter().map(expression).collect::<Vec<_>>())
    }

    fn text(text: &str) -> Parameter {
        Parameter::Text(text.to_owned())
    }

    #[test]
    fn parameters_stand_in_their_places_as_what_they_were() {
        let typed = |kind: &str, text: &str| Parameter::Typed { kind: kind.to_owned(), text: text.to_owned() };
        for (statement, values, result) in [
            ("select $2, $1", vec![text("a"), Parameter::Null], "select NULL, 'a'"),
            ("select $1::int + $11", (1..=11).map(|n| text(&n.to_string())).collect(), "select '1'::int + '11'"),
            ("select '$1', \"$1\", a$1, $1", vec![text("it's")], "select '$1', \"$1\", a$1, 'it''s'"),
            ("select $1", vec![typed("int4[]", "{1,2}")], "select '{1,2}'::int4[]"),
            ("select $1", vec![typed("bytea", "\\x00ff")], "select decode('00ff', 'hex')"),
            ("select $1", vec![text("\u{e9}")], "select convert_from(decode('c3a9', 'hex'), 'UTF8')"),
            ("select $1", vec![text("a\n;")], "select convert_from(decode('610a3b', 'hex'), 'UTF8')"),
            ("select 'a'$1", vec![text("b")], "select 'a' 'b'"),
        ] {
            assert_eq!(filled(statement, &values).as_deref(), Some(result));
        }
    }

    #[test]
    fn what_is_not_whole_or_could_be_more_than_a_value_stands_nowhere() {
        for value in [text("head… (7 bytes more)"), text("\u{fffd}"), Parameter::Binary("00".to_owned())] {
            assert_eq!(filled("select $1", &[value]), None);
        }
        assert_eq!(filled("select $2", &[text("a")]), None);
        assert_eq!(filled("select $0", &[text("a")]), None);
        let hostile = Parameter::Typed { kind: "int4; drop table t; --".to_owned(), text: "1".to_owned() };
        assert_eq!(filled("select $1", &[hostile]), None);
        for tried in ["'; drop table t; --", "\\! touch /tmp/PWNED", "a\n\\q", ":x", "/*"] {
            let filled = filled("select $1", &[text(tried)]).unwrap_or_default();
            assert!(surely_harmless(&filled) && !filled.contains(';'), "{filled}");
        }
    }
}
