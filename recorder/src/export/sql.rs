//! Statements as they were run, each with its time, parameters, result and duration as comments. A prepared one stands where it
//! was executed, with its parameters in their places, if the recording says for sure which one that is; else only the comments stand.
//!
//! What always holds: a comment stays on its line whatever was recorded, so nothing that was bound or reported can turn
//! into a statement. Lines of ours begin with `--# `, and nothing recorded does: what begins with recorded words, and each
//! line of a statement that is not surely [`harmless`](super::harmless), is a comment that begins with `-- `. Memory is bounded:
//! of a session that prepares very much, some executions stand as comments only.

use super::{
    ExportError, Exporter,
    harmless::{expression, surely_harmless, with_values},
    title,
};
use crate::{
    Event, Header,
    event::Parameter,
    inert,
    replay::{Moment, What},
    sentence::{is_content, note, sentence, stream_name},
};
use std::{collections::BTreeMap, io::Write};

/// Bytes of statements and parameters that are held for their executions.
const MOST_HELD: usize = 16 * 1024 * 1024;

/// What a statement costs beside its text.
const ENTRY: usize = 64;

#[derive(Default)]
pub(super) struct Sql {
    /// By number: a name may stand for another statement by the time that it is bound.
    statements: BTreeMap<u64, String>,
    portals: BTreeMap<String, Portal>,
    held: usize,
}

/// What an execution runs.
struct Portal {
    /// The number of its statement.
    statement: u64,
    text: String,
    values: Vec<Option<String>>,
}

impl Exporter for Sql {
    fn begin(&mut self, header: &Header, out: &mut dyn Write) -> Result<(), ExportError> {
        Ok(writeln!(out, "--# {}", title(header))?)
    }

    fn take(&mut self, moment: Moment, out: &mut dyn Write) -> Result<(), ExportError> {
        let What::Event(event) = &moment.what else {
            return comment(&moment, "", out);
        };
        match event {
            Event::Statement { text, prepared: None, .. } => {
                head(&moment, "", out)?;
                let text = inert::lines(text.trim_end());
                if surely_harmless(&text) { run(&text, out) } else { commented(&text, out) }
            }
            Event::Statement { text, prepared: Some(name), number } => {
                head(&moment, &format!(" prepared \"{name}\""), out)?;
                self.prepare(*number, text);
                commented(&inert::lines(text.trim_end()), out)
            }
            Event::Bound { portal, parameters, statement, .. } => {
                self.bind(*statement, portal, parameters);
                comment(&moment, "", out)
            }
            Event::Executed { portal, statement, .. } => {
                head(&moment, "", out)?;
                comment(&moment, "", out)?;
                // Once: a portal that is executed on goes on, where a statement would begin anew.
                let runs = self.portals.remove(portal).filter(|runs| Some(runs.statement) == *statement);
                match runs.and_then(|Portal { text, values, .. }| with_values(&inert::lines(text.trim_end()), &values))
                {
                    Some(text) => run(&text, out),
                    None => Ok(()),
                }
            }
            Event::Completed { of, .. } | Event::Reported { of, .. } => {
                let of = of.map(|number| format!(" (#{number})")).unwrap_or_default();
                comment(&moment, &format!("{}{of}", after(&moment)), out)
            }
            Event::Cancelled => comment(&moment, &after(&moment), out),
            Event::Data { stream, data, .. } => {
                Ok(writeln!(out, "--# {}: {} bytes", stream_name(*stream), data.len())?)
            }
            _ => comment(&moment, "", out),
        }
    }
}

impl Sql {
    fn prepare(&mut self, number: Option<u64>, text: &str) {
        let Some(number) = number else { return };
        self.hold(ENTRY + text.len());
        self.statements.insert(number, text.to_owned());
    }

    fn bind(&mut self, statement: Option<u64>, portal: &str, parameters: &[Parameter]) {
        self.portals.remove(portal);
        let Some(statement) = statement else { return };
        let Some(text) = self.statements.get(&statement).cloned() else { return };
        let values: Vec<_> = parameters.iter().map(expression).collect();
        self.hold(portal.len() + text.len() + values.iter().flatten().map(String::len).sum::<usize>());
        self.portals.insert(portal.to_owned(), Portal { statement, text, values });
    }

    /// Makes room for so many bytes more, if need be by forgetting what waits for its execution.
    fn hold(&mut self, bytes: usize) {
        self.held += bytes;
        if self.held > MOST_HELD {
            let kept =
                |statements: &BTreeMap<u64, String>| statements.values().map(|text| ENTRY + text.len()).sum::<usize>();
            self.portals.clear();
            if kept(&self.statements) > MOST_HELD / 2 {
                self.statements.clear();
            }
            self.held = kept(&self.statements) + bytes;
        }
    }
}

/// When something was sent, and its number.
fn head(moment: &Moment, more: &str, out: &mut dyn Write) -> Result<(), ExportError> {
    let number = note(moment);
    let space = if number.is_empty() { "" } else { " " };
    Ok(writeln!(out, "\n--# {}{space}{number}{}", moment.at, inert::line(more))?)
}

fn after(moment: &Moment) -> String {
    moment.took.map(|took| format!(" after {:.3} ms", took.as_secs_f64() * 1000.0)).unwrap_or_default()
}

fn run(text: &str, out: &mut dyn Write) -> Result<(), ExportError> {
    Ok(writeln!(out, "{text}{}", if text.ends_with(';') { "" } else { ";" })?)
}

fn commented(text: &str, out: &mut dyn Write) -> Result<(), ExportError> {
    for line in text.split('\n') {
        writeln!(out, "-- {line}")?;
    }
    Ok(())
}

fn comment(moment: &Moment, suffix: &str, out: &mut dyn Write) -> Result<(), ExportError> {
    let what = &moment.what;
    match sentence(what) {
        Some(line) => Ok(writeln!(out, "{} {line}{suffix}", if is_content(what) { "--" } else { "--#" })?),
        None => Ok(()),
    }
}
