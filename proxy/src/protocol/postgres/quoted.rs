//! Names and texts as SQL, psql, connection strings and `pg_hba.conf` take them: quoted, whatever their grammar allows.

/// A name in SQL.
pub(super) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in SQL. (`standard_conforming_strings` is on, as by default: a backslash is one.)
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// An array of texts in SQL.
pub(super) fn text_array<'t>(texts: impl Iterator<Item = &'t str>) -> String {
    format!("array[{}]::text[]", texts.map(literal).collect::<Vec<_>>().join(", "))
}

/// An argument of a psql command in single quotes: backslashes escape there.
pub(super) fn psql_argument(text: &str) -> String {
    let plain = text.chars().filter(|c| !c.is_control()).collect::<String>();
    format!("'{}'", plain.replace('\\', "\\\\").replace('\'', "''"))
}

/// A value of a connection string in single quotes.
pub(super) fn conninfo_value(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A name in `pg_hba.conf`: in quotes, `all` and `replication` are names like others.
pub(super) fn hba_name(name: &str) -> String {
    let plain = name.chars().filter(|c| !c.is_control()).collect::<String>();
    format!("\"{}\"", plain.replace('"', "\"\""))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As psql reads an argument in single quotes.
    fn psql_reads(quoted: &str) -> Option<String> {
        let mut rest = quoted.strip_prefix('\'')?.chars().peekable();
        let mut value = String::new();
        loop {
            match rest.next()? {
                '\'' if rest.peek() == Some(&'\'') => value.push(rest.next()?),
                '\'' => return rest.next().is_none().then_some(value),
                '\\' => value.push(rest.next()?),
                c => value.push(c),
            }
        }
    }

    proptest! {
        #[test]
        fn a_quoted_argument_is_one_argument(text in "[ -~]{0,40}") {
            prop_assert_eq!(psql_reads(&psql_argument(&text)), Some(text));
        }

        #[test]
        fn a_quoted_name_stays_on_its_line_and_in_its_quotes(name in any::<String>()) {
            let quoted = hba_name(&name);
            prop_assert!(!quoted.contains('\n') && !quoted.contains('\r'));
            let inside = quoted.strip_prefix('"').and_then(|q| q.strip_suffix('"')).unwrap();
            prop_assert!(!inside.replace("\"\"", "").contains('"'));
        }
    }
}
