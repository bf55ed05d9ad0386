//! asciicast versions 2 and 3 (docs.asciinema.org/manual/asciicast), of one terminal.
//!
//! Version 3 counts time from the event before, version 2 from the start; both start when the terminal opened.

use super::{ExportError, Exporter, title};
use crate::{
    Event, Header, Stream, inert,
    replay::{Moment, What},
    screen::bounded,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{io::Write, time::Duration};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V2,
    V3,
}

pub(super) struct Asciicast {
    version: Version,
    wanted: Option<u32>,
    title: String,
    /// The channel, and the time from which the next interval counts.
    open: Option<(u32, Duration)>,
    output: inert::Decoder,
    errors: inert::Decoder,
    input: inert::Decoder,
    closed: bool,
}

impl Asciicast {
    pub(super) fn new(version: Version, wanted: Option<u32>) -> Self {
        Self {
            version,
            wanted,
            title: String::new(),
            open: None,
            output: inert::Decoder::default(),
            errors: inert::Decoder::default(),
            input: inert::Decoder::default(),
            closed: false,
        }
    }

    fn head(&self, term: &str, columns: u32, rows: u32, at: Timestamp) -> Value {
        let (columns, rows) = bounded(columns, rows);
        match self.version {
            Version::V2 => json!({
                "version": 2, "width": columns, "height": rows, "timestamp": at.as_second(),
                "title": self.title, "env": { "TERM": term },
            }),
            Version::V3 => json!({
                "version": 3, "term": { "cols": columns, "rows": rows, "type": term },
                "timestamp": at.as_second(), "title": self.title,
            }),
        }
    }

    /// Code and data of an event line.
    fn line(&mut self, event: &Event) -> Option<(&'static str, String)> {
        Some(match event {
            Event::Data { stream: Stream::Stdout, data, .. } => ("o", self.output.decode(data)),
            Event::Data { stream: Stream::Stderr, data, .. } => ("o", self.errors.decode(data)),
            Event::Data { stream: Stream::Stdin, data, .. } => ("i", self.input.decode(data)),
            Event::Resized { columns, rows, .. } => {
                let (columns, rows) = bounded(*columns, *rows);
                ("r", format!("{columns}x{rows}"))
            }
            Event::Exited { status: Some(status), .. } if self.version == Version::V3 => ("x", status.to_string()),
            _ => return None,
        })
    }

    fn write(&mut self, elapsed: Duration, code: &str, data: &str, out: &mut dyn Write) -> Result<(), ExportError> {
        let Some((_, since)) = &mut self.open else { return Ok(()) };
        let time = elapsed.saturating_sub(*since);
        if self.version == Version::V3 {
            *since = elapsed;
        }
        let line = json!([time.as_secs_f64(), code, data]);
        Ok(writeln!(out, "{}", inert::json(&line))?)
    }
}

/// The channel that an event is about.
fn channel_of(event: &Event) -> Option<u32> {
    match event {
        Event::Opened { channel, .. }
        | Event::Resized { channel, .. }
        | Event::Data { channel, .. }
        | Event::Exited { channel, .. }
        | Event::Closed { channel, .. } => Some(*channel),
        _ => None,
    }
}

impl Exporter for Asciicast {
    fn begin(&mut self, header: &Header, _: &mut dyn Write) -> Result<(), ExportError> {
        self.title = title(header);
        Ok(())
    }

    fn take(&mut self, moment: Moment, out: &mut dyn Write) -> Result<(), ExportError> {
        let open = self.open.map(|(channel, _)| channel);
        match &moment.what {
            What::Event(Event::Opened { channel, terminal: Some((term, columns, rows)), .. })
                if open.is_none() && self.wanted.is_none_or(|wanted| wanted == *channel) =>
            {
                writeln!(out, "{}", inert::json(&self.head(term, *columns, *rows, moment.at)))?;
                self.open = Some((*channel, moment.elapsed));
            }
            What::Event(Event::Closed { channel, .. }) if open == Some(*channel) => self.closed = true,
            What::Event(event) if open.is_some() && open == channel_of(event) && !self.closed => {
                if let Some((code, data)) = self.line(event).filter(|(_, data)| !data.is_empty()) {
                    self.write(moment.elapsed, code, &data, out)?;
                }
            }
            What::Truncated { after } => {
                self.write(moment.elapsed, "m", &format!("TRUNCATED after frame {after}"), out)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, _: &mut dyn Write) -> Result<(), ExportError> {
        if self.open.is_some() { Ok(()) } else { Err(ExportError::NoTerminal) }
    }
}
