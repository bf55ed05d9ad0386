//! A recording in the formats of others. Each exporter takes moments one by one and writes as it goes.
//!
//! What always holds: `text` and `sql` are made to be read in a terminal, so nothing in them steers one. An asciicast is
//! made for players and holds what the terminal was sent, escaped as JSON strings: play foreign ones with `tidegate
//! recording play`, which is inert. A recording that breaks off says so in each format that has a place for it.

mod asciicast;
mod fate;
mod harmless;
mod jsonl;
mod png;
mod sql;
mod text;

pub use png::png;

use crate::{
    Header,
    replay::{Moment, Replay},
    verify::ReadError,
};
use std::{
    fmt,
    io::{self, Read, Write},
    str::FromStr,
};

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// asciicast version 3, of one terminal.
    Asciicast,
    /// asciicast version 2, of one terminal.
    AsciicastV2,
    /// Everything, one JSON object on each line.
    Jsonl,
    /// What stayed, as statements, with the rest as comments.
    Sql,
    /// A transcript.
    Text,
}

const NAMES: [(&str, Format); 5] = [
    ("asciicast", Format::Asciicast),
    ("asciicast-v2", Format::AsciicastV2),
    ("jsonl", Format::Jsonl),
    ("sql", Format::Sql),
    ("text", Format::Text),
];

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(_, format)| format == self).map_or("", |(name, _)| name);
        f.pad(name)
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || format!("there is no format {text:?}: asciicast, asciicast-v2, jsonl, sql, text");
        NAMES.iter().find(|(name, _)| *name == text).map(|(_, format)| *format).ok_or_else(unknown)
    }
}

/// Why there is no export, or only a part.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The recording cannot be read on.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The output takes no more.
    #[error("the export cannot be written: {0}")]
    Write(#[from] io::Error),
    /// An asciicast of a session without a terminal.
    #[error("no terminal was opened in this session: export it as text, sql or jsonl")]
    NoTerminal,
}

/// One format's writer.
trait Exporter {
    fn begin(&mut self, header: &Header, out: &mut dyn Write) -> Result<(), ExportError>;
    fn take(&mut self, moment: Moment, out: &mut dyn Write) -> Result<(), ExportError>;
    /// After the last moment.
    fn finish(&mut self, _out: &mut dyn Write) -> Result<(), ExportError> {
        Ok(())
    }
}

/// Writes a whole recording. `open` opens it: SQL is written once it is known what stayed, so it is read twice. `channel`: of
/// which terminal to make an asciicast; default: the first.
pub fn export<R: Read>(
    open: impl Fn() -> Result<Replay<R>, ReadError>,
    format: Format,
    channel: Option<u32>,
    out: &mut dyn Write,
) -> Result<(), ExportError> {
    let mut exporter: Box<dyn Exporter> = match format {
        Format::Asciicast => Box::new(asciicast::Asciicast::new(asciicast::Version::V3, channel)),
        Format::AsciicastV2 => Box::new(asciicast::Asciicast::new(asciicast::Version::V2, channel)),
        Format::Jsonl => Box::new(jsonl::Jsonl),
        Format::Sql => Box::new(sql::Sql::new(fate::Fates::of(open()?))),
        Format::Text => Box::new(text::Text::default()),
    };
    let replay = open()?;
    exporter.begin(replay.header(), out)?;
    for moment in replay {
        exporter.take(moment?, out)?;
    }
    exporter.finish(out)?;
    Ok(out.flush()?)
}

/// `session S of alice on web-1 (deploy), since T`, on one harmless line.
fn title(header: &Header) -> String {
    let Header { session, identity, target, access, start, .. } = header;
    crate::inert::line(&format!("session {session} of {identity} on {target} ({access}), since {start}"))
}
