//! What is in a recording, at a glance: how long it is, where something was done, and the statements with what came of them.
//!
//! What always holds: what comes out is inert and short; of a session in which very much was done it has the first so many,
//! and says how many more there are.

use crate::{
    Event, inert,
    replay::{Moment, Replay, What},
    sentence::sentence,
    stage::Stage,
    verify::ReadError,
};
use std::{collections::BTreeMap, io::Read, time::Duration};

/// So many marks, and so many statements, are kept.
const MOST: usize = 100_000;
/// So much is kept of the text of one.
const LONGEST: usize = 160;
/// Prepared statements and portals whose text is known at once.
const MOST_PREPARED: usize = 4096;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// When the last thing happened, since the beginning.
    pub length: Duration,
    /// Where something was done, in order.
    pub marks: Vec<Mark>,
    /// SQL, in order.
    pub statements: Vec<Row>,
    /// Marks and statements that are left out.
    pub more: u64,
}

/// Where something was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Since the beginning.
    pub elapsed: Duration,
    /// What it was.
    pub kind: MarkKind,
    /// What was done, on one line.
    pub text: String,
}

/// Of what kind a mark is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkKind {
    /// A channel was opened, or Enter was pressed on a line of its terminal.
    Command,
    /// SQL.
    Statement,
    /// The server, or a program's exit status, reported a failure.
    Failure,
    /// A file was asked for or moved.
    File,
    /// The gateway said something.
    Said,
}

/// A statement and what came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// When it was sent, since the beginning.
    pub elapsed: Duration,
    /// Its text on one line, cut.
    pub text: String,
    /// Rows that were sent for it, once it was completed.
    pub rows: Option<u64>,
    /// What the server said that it did, like `INSERT 0 5`: of several in one text, the last.
    pub tag: Option<String>,
    /// From its sending to the last of its results.
    pub took: Option<Duration>,
    /// The error, with its SQLSTATE.
    pub error: Option<String>,
    /// The number that its results name.
    pub number: Option<u64>,
    /// The number of the statement that was run.
    pub statement: Option<u64>,
    /// The number of the parameters that were bound to it.
    pub bound: Option<u64>,
    /// The frame that has its text.
    pub frame: u64,
}

impl Outline {
    /// Of a recording, from its beginning to its end. `channel`: whose terminal is looked at.
    pub fn read<R: Read>(replay: Replay<R>, channel: Option<u32>) -> Result<Self, ReadError> {
        let mut reading = Reading { outline: Self::default(), stage: Stage::new(channel), sql: Sql::default() };
        for moment in replay {
            reading.take(&moment?);
        }
        Ok(reading.outline)
    }

    /// The whole text of a statement with its parameters, inert, over several lines; empty if it is not there.
    pub fn whole<R: Read>(replay: Replay<R>, row: &Row) -> Result<String, ReadError> {
        let mut text = String::new();
        for moment in replay {
            let moment = moment?;
            match &moment.what {
                What::Event(Event::Statement { text: whole, number, .. }) if row.is_of(*number, moment.frame) => {
                    text = inert::lines(whole);
                    if row.bound.is_none() {
                        break;
                    }
                }
                // What is bound comes after the statement that it is bound to.
                What::Event(Event::Bound { number: Some(number), .. }) if row.bound == Some(*number) => {
                    text.extend(sentence(&moment.what).map(|line| format!("\n\n{line}")));
                    break;
                }
                _ => {}
            }
        }
        Ok(text)
    }
}

impl Row {
    fn is_of(&self, number: Option<u64>, frame: u64) -> bool {
        if number.is_some() { number == self.statement } else { self.statement.is_none() && frame == self.frame }
    }
}

struct Reading {
    outline: Outline,
    stage: Stage,
    sql: Sql,
}

/// Prepared statements and portals, as far as they matter for the table.
#[derive(Default)]
struct Sql {
    /// By number: the text, and its frame.
    prepared: BTreeMap<u64, (String, u64)>,
    /// By name: the number of what was bound, and of its statement.
    portals: BTreeMap<String, (Option<u64>, Option<u64>)>,
    /// By the number that results have: the row.
    rows: BTreeMap<u64, usize>,
}

impl Reading {
    fn take(&mut self, moment: &Moment) {
        // What a server answers may be written down before what another frame has of a moment earlier.
        self.outline.length = self.outline.length.max(moment.elapsed);
        if let Some(line) = self.stage.take(moment) {
            self.mark(moment, MarkKind::Command, &line);
        }
        let What::Event(event) = &moment.what else { return };
        let kind = match event {
            Event::Opened { .. } => MarkKind::Command,
            Event::File(_) => MarkKind::File,
            Event::Said { .. } => MarkKind::Said,
            Event::Exited { status, .. } if *status != Some(0) => MarkKind::Failure,
            Event::Statement { .. }
            | Event::Bound { .. }
            | Event::Executed { .. }
            | Event::Completed { .. }
            | Event::Reported { .. } => return self.sql(moment, event),
            _ => return,
        };
        let line = sentence(&moment.what).unwrap_or_default();
        self.mark(moment, kind, &line);
    }

    fn mark(&mut self, moment: &Moment, kind: MarkKind, text: &str) {
        if self.outline.marks.len() < MOST {
            self.outline.marks.push(Mark { elapsed: moment.elapsed, kind, text: cut(text) });
        } else {
            self.outline.more += 1;
        }
    }

    fn sql(&mut self, moment: &Moment, event: &Event) {
        let row = Row { elapsed: moment.elapsed, frame: moment.frame, ..Row::default() };
        match event {
            Event::Statement { text, prepared: None, number, .. } => {
                self.sent(moment, Row { text: cut(text), number: *number, statement: *number, ..row });
            }
            Event::Statement { text, prepared: Some(_), number, .. } => {
                if let Some(number) = number {
                    self.sql.prepared.insert(*number, (cut(text), moment.frame));
                    forget(&mut self.sql.prepared, MOST_PREPARED);
                } else {
                    self.sent(moment, Row { text: cut(text), ..row });
                }
            }
            Event::Bound { portal, number, statement, .. } => {
                self.sql.portals.insert(portal.clone(), (*number, *statement));
                forget(&mut self.sql.portals, MOST_PREPARED);
            }
            Event::Executed { portal, number: Some(number), statement, .. } => {
                let (bound, of) = self.sql.portals.get(portal).copied().unwrap_or_default();
                let statement = statement.or(of);
                let known = statement.and_then(|number| self.sql.prepared.get(&number)).cloned();
                let (text, frame) = known.unwrap_or_else(|| (sentence(&moment.what).unwrap_or_default(), row.frame));
                self.sent(moment, Row { text, number: Some(*number), statement, bound, frame, ..row });
            }
            Event::Completed { rows, of, tag, .. } => {
                let (took, tag) = (moment.took, cut(tag));
                self.answered(*of, |row| {
                    row.tag = Some(tag);
                    row.rows = Some(row.rows.unwrap_or_default().saturating_add(*rows));
                    row.took = took;
                });
            }
            Event::Reported { severity, code, message, of } if is_failure(severity) => {
                self.failed(moment, *of, &format!("{code} {message}"));
            }
            _ => {}
        }
    }

    fn sent(&mut self, moment: &Moment, row: Row) {
        self.mark(moment, MarkKind::Statement, &row.text);
        if self.outline.statements.len() >= MOST {
            self.outline.more += 1;
            return;
        }
        if let Some(number) = row.number {
            self.sql.rows.insert(number, self.outline.statements.len());
            forget(&mut self.sql.rows, MOST_PREPARED * 8);
        }
        self.outline.statements.push(row);
    }

    /// The row that a result with this number answers; without numbers, the last.
    fn answered(&mut self, of: Option<u64>, change: impl FnOnce(&mut Row)) -> bool {
        let row = match of {
            Some(number) => self.sql.rows.get(&number).and_then(|row| self.outline.statements.get_mut(*row)),
            None => self.outline.statements.last_mut().filter(|row| row.number.is_none()),
        };
        row.map(change).is_some()
    }

    fn failed(&mut self, moment: &Moment, of: Option<u64>, error: &str) {
        self.mark(moment, MarkKind::Failure, error);
        let took = moment.took;
        let known = self.answered(of, |row| {
            row.error = Some(cut(error));
            row.took = took;
        });
        // What was only prepared has no row of its own, unless that failed.
        let prepared = of.and_then(|number| self.sql.prepared.get(&number).cloned());
        if let (false, Some((text, frame))) = (known, prepared)
            && self.outline.statements.len() < MOST
        {
            let error = Some(cut(error));
            let row =
                Row { elapsed: moment.elapsed, text, error, took, number: of, statement: of, frame, ..Row::default() };
            self.outline.statements.push(row);
        }
    }
}

fn is_failure(severity: &str) -> bool {
    matches!(severity, "ERROR" | "FATAL" | "PANIC")
}

/// On one line, inert, and not too long.
fn cut(text: &str) -> String {
    let words = text.split_whitespace().take(LONGEST).collect::<Vec<_>>().join(" ");
    let short: String = inert::line(&words).chars().take(LONGEST).collect();
    if short.len() < words.len() && short.chars().count() == LONGEST { short + "…" } else { short }
}

/// The lowest go when there are too many: of what has numbers, the oldest.
fn forget<K: Ord, V>(map: &mut BTreeMap<K, V>, most: usize) {
    if map.len() > most {
        map.pop_first();
    }
}
