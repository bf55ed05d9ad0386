//! Statements that stayed, so that running them does to an empty copy of the database what the session did; all else as
//! comments, each with its time, parameters, result and duration.
//!
//! What always holds: a statement stands as one only if it was surely committed ([`Fate::Stays`]), and if psql surely takes
//! it as it seems ([`harmless`](super::harmless)); every other is a comment with the reason. One with parameters stands as
//! PREPARE and EXECUTE, so that its parameters keep their types and can be nothing but values. What one Query held stays
//! one (`\;`). A comment stays on its line whatever was recorded. Lines of ours begin with `--# `, and nothing recorded
//! does: what begins with recorded words is a comment that begins with `-- `. Memory is bounded: of a session that prepares
//! very much, some executions stand as comments only.

use super::{
    ExportError, Exporter,
    fate::{Fate, Fates},
    harmless::{argument, literal, parts, type_name},
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

pub(super) struct Sql {
    fates: Fates,
    /// By number: a name may stand for another statement by the time that it is bound.
    statements: BTreeMap<u64, Prepared>,
    /// What they run; nothing once that stands.
    portals: BTreeMap<String, Option<Portal>>,
    held: usize,
    /// What the client sends is in UTF-8, as the recording takes it to be.
    utf8: bool,
    /// Statements that stayed, or may have, and stand as comments only.
    missing: u64,
}

#[derive(Clone, Default)]
struct Prepared {
    text: String,
    masked: bool,
}

/// What an execution runs.
struct Portal {
    /// The number of its statement.
    statement: u64,
    prepared: Prepared,
    parameters: Vec<Parameter>,
    types: Vec<String>,
}

/// Why a statement is a comment, and whether the copy misses it.
struct Why(&'static str, bool);

const ABOUT: &str = "\
--# What stayed of this session is written as statements: on a copy of the database as it was before the session,
--#   psql -X -v ON_ERROR_STOP=1 -f FILE
--# does the same again. What failed or was rolled back stands in comments, so what a rollback does not undo (sequences, SQL's own
--# PREPARE) may differ, as may what depends on the time, on chance, on other sessions, or on the role that runs it.";

impl Exporter for Sql {
    fn begin(&mut self, header: &Header, out: &mut dyn Write) -> Result<(), ExportError> {
        writeln!(out, "--# {}", title(header))?;
        Ok(writeln!(out, "{ABOUT}")?)
    }

    fn take(&mut self, moment: Moment, out: &mut dyn Write) -> Result<(), ExportError> {
        let What::Event(event) = &moment.what else {
            return comment(&moment, "", out);
        };
        match event {
            Event::Opened { environment, .. } => {
                comment(&moment, "", out)?;
                self.settings(environment, out)
            }
            Event::Statement { text, prepared: None, number, masked } => {
                head(&moment, "", out)?;
                self.mind_the_encoding(text);
                self.simple(text, *masked, *number, out)
            }
            Event::Statement { text, prepared: Some(name), number, masked } => {
                head(&moment, &format!(" prepared \"{name}\""), out)?;
                self.mind_the_encoding(text);
                self.prepare(*number, text, *masked);
                commented(text, out)
            }
            Event::Bound { portal, parameters, statement, types, .. } => {
                self.bind(*statement, portal, parameters, types);
                comment(&moment, "", out)
            }
            Event::Executed { portal, statement, number, .. } => {
                head(&moment, "", out)?;
                comment(&moment, "", out)?;
                if self.fates.begins(*number) {
                    writeln!(out, "BEGIN;")?;
                }
                let written = self.execution(portal, *statement, *number);
                self.write(written, None, out)?;
                if self.fates.ends(*number) {
                    writeln!(out, "COMMIT;")?;
                }
                Ok(())
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

    fn finish(&mut self, out: &mut dyn Write) -> Result<(), ExportError> {
        match self.missing {
            0 => writeln!(out, "--# All that is known to have stayed is written as statements.")?,
            missing => writeln!(
                out,
                "--# NOT ALL OF IT: {missing} that stayed, or may have, stand in comments only. Search for `MISSING`."
            )?,
        }
        Ok(())
    }
}

impl Sql {
    pub(super) fn new(fates: Fates) -> Self {
        let (statements, portals) = (BTreeMap::new(), BTreeMap::new());
        Self { fates, statements, portals, held: 0, utf8: false, missing: 0 }
    }

    /// What the session started with changes what its statements mean.
    fn settings(&mut self, settings: &BTreeMap<String, String>, out: &mut dyn Write) -> Result<(), ExportError> {
        writeln!(out, "SET client_encoding = 'UTF8';")?;
        for (name, value) in settings {
            if name == "client_encoding" {
                self.utf8 = ["utf8", "utf-8", "unicode"].iter().any(|utf8| value.eq_ignore_ascii_case(utf8));
            } else if let (Some(name), Some(value)) = (literal(name), literal(value)) {
                writeln!(out, "SELECT pg_catalog.set_config({name}, {value}, false);")?;
            }
        }
        Ok(())
    }

    /// Once it may have changed it is not known any more.
    fn mind_the_encoding(&mut self, text: &str) {
        let text = text.to_ascii_lowercase();
        self.utf8 &= !["client_encoding", "names", "reset", "discard"].iter().any(|word| text.contains(word));
    }

    fn simple(
        &mut self,
        text: &str,
        masked: bool,
        number: Option<u64>,
        out: &mut dyn Write,
    ) -> Result<(), ExportError> {
        let written = match (fate(self.fates.told(number)), parts(text)) {
            (Err(why), _) => Err(why),
            (Ok(()), _) if masked => Err(MASKED),
            (Ok(()), None) => Err(UNLIKE),
            (Ok(()), Some(parts)) => {
                let told = self.fates.told(number);
                let whole = told.len() == parts.len();
                let stays = |fate: Option<&Fate>| fate == Some(&Fate::Stays) || whole && fate == Some(&Fate::Answered);
                let unsure = (0..parts.len().max(told.len())).any(|nth| match told.get(nth) {
                    Some(Fate::Answered) => !whole,
                    Some(fate) => *fate == Fate::Unsure || nth >= parts.len(),
                    // What stands behind an error was not run.
                    None => told.last() != Some(&Fate::Failed),
                });
                let stay: Vec<&str> =
                    parts.iter().enumerate().filter(|(nth, _)| stays(told.get(*nth))).map(|(_, part)| *part).collect();
                match (unsure, stay.is_empty()) {
                    (true, _) => Err(UNSURE),
                    (false, true) => Err(fate(told).err().unwrap_or(UNSURE)),
                    (false, false) => {
                        let all = stay.len() == parts.len();
                        let stay = stay.iter().map(|part| inert::lines(part)).collect::<Vec<_>>().join(" \\;\n");
                        // Of the rest the text says what it was.
                        if !all {
                            writeln!(out, "--# not run here: what failed or was rolled back of")?;
                            commented(text, out)?;
                        }
                        Ok(stay + ";")
                    }
                }
            }
        };
        self.write(written, Some(text), out)
    }

    fn execution(&mut self, portal: &str, statement: Option<u64>, number: Option<u64>) -> Result<String, Why> {
        fate(self.fates.told(number))?;
        let unknown = || Why("which statement that was is not known for sure", true);
        // Once: a portal that is executed on goes on, where a statement would begin anew.
        let slot = self.portals.get_mut(portal).ok_or_else(unknown)?;
        let runs = slot.take().ok_or(Why("it goes on with what stands above", false))?;
        let Portal { prepared: Prepared { text, masked }, parameters, types, .. } =
            Some(runs).filter(|runs| Some(runs.statement) == statement).ok_or_else(unknown)?;
        let text = match parts(&text).as_deref() {
            _ if masked => return Err(MASKED),
            Some([one]) => inert::lines(one),
            Some([]) => return Err(Why("it is empty", false)),
            _ => return Err(UNLIKE),
        };
        if parameters.is_empty() {
            return Ok(format!("{text};"));
        }
        let word = text.split(|c: char| !c.is_ascii_alphabetic()).find(|word| !word.is_empty()).unwrap_or_default();
        if !["select", "insert", "update", "delete", "merge", "values", "with"]
            .iter()
            .any(|known| word.eq_ignore_ascii_case(known))
        {
            return Err(Why("SQL's own PREPARE does not take it", true));
        }
        let values: Option<Vec<_>> = parameters.iter().map(|value| argument(value, self.utf8)).collect();
        let names = parameters.iter().enumerate().map(|(nth, value)| type_name(types.get(nth), value));
        match (values, names.collect::<Option<Vec<_>>>()) {
            (Some(values), Some(names)) => Ok(format!(
                "PREPARE tidegate_export ({}) AS\n{text};\nEXECUTE tidegate_export ({});\nDEALLOCATE tidegate_export;",
                names.join(", "),
                values.join(", ")
            )),
            _ => Err(Why("a parameter's value, type or encoding is not known", true)),
        }
    }

    /// The statement; or why not, and its text where it does not stand above.
    fn write(
        &mut self,
        written: Result<String, Why>,
        text: Option<&str>,
        out: &mut dyn Write,
    ) -> Result<(), ExportError> {
        match written {
            Ok(statement) => Ok(writeln!(out, "{statement}")?),
            Err(Why(why, missing)) => {
                self.missing += u64::from(missing);
                writeln!(out, "--# {}: {why}", if missing { "MISSING" } else { "not run here" })?;
                text.map_or(Ok(()), |text| commented(text, out))
            }
        }
    }

    fn prepare(&mut self, number: Option<u64>, text: &str, masked: bool) {
        let Some(number) = number else { return };
        self.hold(ENTRY + text.len());
        // One that is cut over several events is no statement that psql would take.
        let statement = self.statements.entry(number).or_default();
        statement.text.push_str(text);
        statement.masked |= masked;
    }

    fn bind(&mut self, statement: Option<u64>, portal: &str, parameters: &[Parameter], types: &[String]) {
        self.portals.remove(portal);
        let Some(statement) = statement else { return };
        let Some(prepared) = self.statements.get(&statement).cloned() else { return };
        let size = |value: &Parameter| match value {
            Parameter::Null | Parameter::Masked => 0,
            Parameter::Text(text) | Parameter::Binary(text) => text.len(),
            Parameter::Typed { kind, text } => kind.len() + text.len(),
            Parameter::Raw { hex, .. } => hex.len(),
        };
        self.hold(
            ENTRY
                + portal.len()
                + prepared.text.len()
                + parameters.iter().map(|value| ENTRY + size(value)).sum::<usize>(),
        );
        let (parameters, types) = (parameters.to_vec(), types.to_vec());
        self.portals.insert(portal.to_owned(), Some(Portal { statement, prepared, parameters, types }));
    }

    /// Makes room for so many bytes more, if need be by forgetting what waits for its execution.
    fn hold(&mut self, bytes: usize) {
        self.held += bytes;
        if self.held > MOST_HELD {
            let kept = |statements: &BTreeMap<u64, Prepared>| {
                statements.values().map(|statement| ENTRY + statement.text.len()).sum::<usize>()
            };
            self.portals.clear();
            if kept(&self.statements) > MOST_HELD / 2 {
                self.statements.clear();
            }
            self.held = kept(&self.statements) + bytes;
        }
    }
}

const UNSURE: Why = Why("whether it was committed is not known", true);

const UNLIKE: Why = Why("psql might take it for something else than a statement", true);
const MASKED: Why = Why("its values are masked", true);

/// Why what was answered like this is not run again at all, if so.
fn fate(told: &[Fate]) -> Result<(), Why> {
    match told {
        [] => Err(Why("no answer to it is recorded, or it is not known whose that was", true)),
        told if told.iter().any(|fate| matches!(fate, Fate::Stays | Fate::Answered)) => Ok(()),
        told if told.contains(&Fate::Unsure) => Err(UNSURE),
        told if told.contains(&Fate::Skipped) => Err(Why("an error came before it", false)),
        told if told.contains(&Fate::Failed) => Err(Why("it ended in an error", false)),
        _ => Err(Why("its transaction was rolled back", false)),
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

fn commented(text: &str, out: &mut dyn Write) -> Result<(), ExportError> {
    for line in inert::lines(text.trim_end()).split('\n') {
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
