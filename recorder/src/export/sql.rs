//! Statements as they were sent, each with its time, parameters, result and duration as comments.
//!
//! What always holds: a comment stays on its line whatever was recorded, so nothing that was bound or reported can turn
//! into a statement. Lines of ours begin with `--# `, and nothing recorded does: what begins with recorded words, and each
//! line of a statement that is not surely harmless, is a comment that begins with `-- `.
//!
//! Auditors run such files with `psql -f`, where `\!` runs a shell and an open quote turns what follows inside out. So a
//! statement stands as one only if it is [`surely_harmless`] to psql's own reading of it (PostgreSQL: psql, "Meta-Commands";
//! CVE-2025-8714 is the same mistake in pg_dump).

use super::{ExportError, Exporter, title};
use crate::{
    Event, Header, inert,
    replay::{Moment, What},
    sentence::{is_content, sentence, stream_name},
};
use std::{io::Write, time::Duration};

#[derive(Default)]
pub(super) struct Sql {
    /// When what is running was sent.
    since: Option<Duration>,
}

impl Exporter for Sql {
    fn begin(&mut self, header: &Header, out: &mut dyn Write) -> Result<(), ExportError> {
        Ok(writeln!(out, "--# {}", title(header))?)
    }

    fn take(&mut self, moment: Moment, out: &mut dyn Write) -> Result<(), ExportError> {
        let What::Event(event) = &moment.what else {
            if let Some(line) = sentence(&moment.what) {
                writeln!(out, "--# {line}")?;
            }
            return Ok(());
        };
        match event {
            Event::Statement { text, prepared } => {
                self.since = Some(moment.elapsed);
                let prepared = prepared.as_ref().map(|name| format!(" prepared \"{name}\"")).unwrap_or_default();
                writeln!(out, "\n--# {}{}", moment.at, inert::line(&prepared))?;
                let text = inert::lines(text.trim_end());
                if surely_harmless(&text) {
                    writeln!(out, "{}", if text.ends_with(';') { text } else { text + ";" })?;
                } else {
                    for line in text.split('\n') {
                        writeln!(out, "-- {line}")?;
                    }
                }
            }
            Event::Executed { .. } => {
                self.since = Some(moment.elapsed);
                comment(&moment.what, "", out)?;
            }
            Event::Completed { .. } | Event::Reported { .. } | Event::Cancelled => {
                let took = self.since.map(|since| moment.elapsed.saturating_sub(since));
                let took = took.map(|took| format!(" after {:.3} ms", took.as_secs_f64() * 1000.0));
                comment(&moment.what, &took.unwrap_or_default(), out)?;
            }
            Event::Data { stream, data, .. } => {
                writeln!(out, "--# {}: {} bytes", stream_name(*stream), data.len())?;
            }
            _ => comment(&moment.what, "", out)?,
        }
        Ok(())
    }
}

fn comment(what: &What, suffix: &str, out: &mut dyn Write) -> Result<(), ExportError> {
    match sentence(what) {
        Some(line) => Ok(writeln!(out, "{} {line}{suffix}", if is_content(what) { "--" } else { "--#" })?),
        None => Ok(()),
    }
}

/// Whether psql surely takes this as statements that end where they seem to. Conservative: many a harmless one is not.
///
/// No backslash (commands); no colon but a cast's (psql's variables); no comments and no dollar quotes; quotes and
/// brackets that close; no COPY, after which psql takes the next lines for data; no function whose body BEGINs, in which
/// a semicolon does not end; and ASCII only, since the auditor's psql may read the file in another encoding.
fn surely_harmless(text: &str) -> bool {
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
}
