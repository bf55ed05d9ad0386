//! `tidegate recording …`

use super::Json;
use crate::config::duration;
use clap::{Args, Subcommand, ValueEnum};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use std::{path::PathBuf, time::Duration};
use tidegate_grants::{IdentityName, TargetName};
use tidegate_recorder::{export::Format, search::Kind};

#[derive(Debug, Subcommand)]
pub(crate) enum RecordingCommand {
    /// List recordings, oldest first
    List {
        #[command(flatten)]
        json: Json,
    },
    /// Verify recordings with the public key alone; works without a gateway
    Verify {
        /// Sessions (any unique prefix or suffix of the id) or files
        #[arg(value_name = "SESSION|FILE", required_unless_present = "all")]
        recordings: Vec<String>,
        /// All of the state directory
        #[arg(long, conflicts_with = "recordings")]
        all: bool,
        /// The verification key (`tidegate ca show ledger`) [default: the state directory's]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Play a recording in this terminal: back and forth, with marks and a search (? there says the keys)
    Play(Play),
    /// Write a recording in another format
    Export(Export),
    /// Keep a recording whatever the rules say, until an auditor releases it
    Hold(Hold),
    /// Let the rules have a recording again that is held; for auditors
    Release(Hold),
    /// List what is held, from the ledger; works without a gateway
    Holds {
        #[command(flatten)]
        json: Json,
    },
    /// Say what is there of a recording that breaks off: what is proven, and what is not. Changes nothing; exit 0 whole, 4 cut, 1 changed
    Recover {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The verification key (`tidegate ca show ledger`) [default: the state directory's]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Find what was seen, sent or moved in sessions; exit 1 if nothing is found
    Search(Search),
    /// Make what search finds things quickly with, for recordings that have none yet or that have changed
    Reindex(Reindex),
}

#[derive(Debug, Args)]
pub(crate) struct Hold {
    /// The session (any unique prefix or suffix of its id)
    #[arg(value_name = "SESSION")]
    pub(crate) recording: String,
    /// Why; it is in the ledger
    #[arg(long)]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct Play {
    /// The session (any unique prefix or suffix of its id) or the file
    #[arg(value_name = "SESSION|FILE")]
    pub(crate) recording: String,
    /// The auditor's private key: an age identity or an OpenSSH ed25519 key
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: PathBuf,
    /// 2 is twice as fast
    #[arg(long, default_value_t = 1.0, value_parser = speed)]
    pub(crate) speed: f64,
    /// No pause is longer than this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) idle_limit: Option<Duration>,
    /// From this moment on: seconds from the beginning, H:MM:SS, or a time of day with its date
    #[arg(long, value_name = "MOMENT", value_parser = place)]
    pub(crate) at: Option<Place>,
    /// Which terminal, if the session had several [default: the first]
    #[arg(long)]
    pub(crate) channel: Option<u32>,
    /// From the beginning to the end without keys, as into a pipe or where there is no terminal
    #[arg(long)]
    pub(crate) plain: bool,
    /// What the person typed too: it may hold passwords
    #[arg(long, conflicts_with = "plain")]
    pub(crate) keystrokes: bool,
    /// Where the key c copies screens to, as plain text [default: printed when the player ends]
    #[arg(long, value_name = "FILE", conflicts_with = "plain")]
    pub(crate) copy: Option<PathBuf>,
    /// The verification key (`tidegate ca show ledger`) [default: the state directory's]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Show it even if it was changed or is not by this key
    #[arg(long)]
    pub(crate) unverified: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The session (any unique prefix or suffix of its id) or the file
    #[arg(value_name = "SESSION|FILE")]
    pub(crate) recording: String,
    /// How
    #[arg(long)]
    pub(crate) format: ExportFormat,
    /// The auditor's private key: an age identity or an OpenSSH ed25519 key
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: PathBuf,
    /// Where [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// What the person typed too: it may hold passwords
    #[arg(long)]
    pub(crate) keystrokes: bool,
    /// Which moment, for png: seconds from the beginning, H:MM:SS, or a time of day with its date
    #[arg(long, value_name = "MOMENT", value_parser = place, required_if_eq("format", "png"))]
    pub(crate) at: Option<Place>,
    /// Which terminal, for asciicast and png [default: the first]
    #[arg(long)]
    pub(crate) channel: Option<u32>,
    /// The verification key (`tidegate ca show ledger`) [default: the state directory's]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Show it even if it was changed or is not by this key
    #[arg(long)]
    pub(crate) unverified: bool,
}

/// A moment of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Since its beginning.
    After(Duration),
    /// On the wall clock.
    At(Timestamp),
}

impl Place {
    /// Since the beginning of a recording that began then.
    pub(crate) fn since(self, start: Timestamp) -> Duration {
        match self {
            Self::After(elapsed) => elapsed,
            Self::At(at) => at.duration_since(start).try_into().unwrap_or_default(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Search {
    /// A regular expression, like 'DROP TABLE|rm -rf'
    #[arg(value_name = "PATTERN")]
    pub(crate) pattern: String,
    /// The auditor's private key: an age identity or an OpenSSH ed25519 key
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: PathBuf,
    /// Only sessions of this person
    #[arg(long)]
    pub(crate) user: Option<IdentityName>,
    /// Only sessions on this target
    #[arg(long)]
    pub(crate) target: Option<TargetName>,
    /// Only what happened since: a time, a date, or a duration before now, like 7d
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) since: Option<Timestamp>,
    /// Only what happened until then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) until: Option<Timestamp>,
    /// Only this kind; may be repeated [default: all]
    #[arg(long = "kind", value_name = "KIND")]
    pub(crate) kinds: Vec<SearchKind>,
    /// Small letters match large ones
    #[arg(short = 'i', long)]
    pub(crate) ignore_case: bool,
    /// The verification key (`tidegate ca show ledger`) [default: the state directory's]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct Reindex {
    /// Sessions (any unique prefix or suffix of the id) [default: all of the state directory]
    #[arg(value_name = "SESSION")]
    pub(crate) recordings: Vec<String>,
    /// The auditor's private key: an age identity or an OpenSSH ed25519 key
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: PathBuf,
    /// The verification key (`tidegate ca show ledger`) [default: the state directory's]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SearchKind {
    /// What was on a terminal's screen, or written where there was none
    Text,
    /// Statements, parameters and errors
    Sql,
    /// Names of files
    File,
    /// Command lines, and where was forwarded to
    Command,
}

impl From<SearchKind> for Kind {
    fn from(kind: SearchKind) -> Self {
        match kind {
            SearchKind::Text => Self::Text,
            SearchKind::Sql => Self::Sql,
            SearchKind::File => Self::File,
            SearchKind::Command => Self::Command,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// asciicast version 3, for asciinema
    Asciicast,
    /// asciicast version 2
    AsciicastV2,
    /// JSON Lines
    Jsonl,
    /// An SQL script with comments
    Sql,
    /// Plain text
    Text,
    /// A picture of one moment
    Png,
}

impl ExportFormat {
    /// None for a picture, which is of one moment and not of the whole.
    pub(crate) fn whole(self) -> Option<Format> {
        match self {
            Self::Asciicast => Some(Format::Asciicast),
            Self::AsciicastV2 => Some(Format::AsciicastV2),
            Self::Jsonl => Some(Format::Jsonl),
            Self::Sql => Some(Format::Sql),
            Self::Text => Some(Format::Text),
            Self::Png => None,
        }
    }
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if (0.01..=1000.0).contains(&speed) => Ok(speed),
        _ => Err("not a number between 0.01 and 1000".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "not a number of seconds".to_owned())
}

/// A time, the beginning of a day in UTC, or so long ago.
fn moment(text: &str) -> Result<Timestamp, String> {
    let day = |date: Date| date.to_zoned(TimeZone::UTC).ok().map(|start| start.timestamp());
    let ago = || duration(text).ok().and_then(|ago| Timestamp::now().checked_sub(ago).ok());
    let time = text.parse().ok().or_else(|| text.parse().ok().and_then(day)).or_else(ago);
    time.ok_or_else(|| "write it like 2026-11-22T10:00:00Z, 2026-11-22 or 7d".to_owned())
}

/// Seconds, H:MM:SS or MM:SS since the beginning, or a time.
fn place(text: &str) -> Result<Place, String> {
    let fix = || "write it like 90, 1:30, 0:01:30 or 2026-11-22T10:00:00Z".to_owned();
    if let Ok(at) = text.parse() {
        return Ok(Place::At(at));
    }
    let mut total = 0.0;
    for part in text.split(':') {
        let number = part.parse::<f64>().ok().filter(|number| (0.0..=1e9).contains(number)).ok_or_else(fix)?;
        total = total * 60.0 + number;
    }
    Duration::try_from_secs_f64(total).map(Place::After).map_err(|_| fix())
}
