//! `tidegate recording …`

use super::{Json, Later};
use clap::{Subcommand, ValueEnum};
use std::{path::PathBuf, time::Duration};
use tidegate_recorder::export::Format;

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
    /// Play a recording in this terminal
    Play {
        /// The session (any unique prefix or suffix of its id) or the file
        #[arg(value_name = "SESSION|FILE")]
        recording: String,
        /// The auditor's private key: an age identity or an OpenSSH ed25519 key
        #[arg(long, value_name = "FILE")]
        identity: PathBuf,
        /// 2 is twice as fast
        #[arg(long, default_value_t = 1.0, value_parser = speed)]
        speed: f64,
        /// No pause is longer than this many seconds
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        idle_limit: Option<Duration>,
        /// Which terminal, if the session had several [default: the first]
        #[arg(long)]
        channel: Option<u32>,
        /// The verification key (`tidegate ca show ledger`) [default: the state directory's]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Show it even if it was changed or is not by this key
        #[arg(long)]
        unverified: bool,
    },
    /// Write a recording in another format
    Export {
        /// The session (any unique prefix or suffix of its id) or the file
        #[arg(value_name = "SESSION|FILE")]
        recording: String,
        /// How
        #[arg(long)]
        format: ExportFormat,
        /// The auditor's private key: an age identity or an OpenSSH ed25519 key
        #[arg(long, value_name = "FILE")]
        identity: PathBuf,
        /// Where [default: stdout]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// What the person typed too: it may hold passwords
        #[arg(long)]
        keystrokes: bool,
        /// Which terminal, for asciicast [default: the first]
        #[arg(long)]
        channel: Option<u32>,
        /// The verification key (`tidegate ca show ledger`) [default: the state directory's]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Show it even if it was changed or is not by this key
        #[arg(long)]
        unverified: bool,
    },
    /// (not supported yet) Find text in recordings
    #[command(hide = true)]
    Search(Later),
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
}

impl From<ExportFormat> for Format {
    fn from(format: ExportFormat) -> Self {
        match format {
            ExportFormat::Asciicast => Self::Asciicast,
            ExportFormat::AsciicastV2 => Self::AsciicastV2,
            ExportFormat::Jsonl => Self::Jsonl,
            ExportFormat::Sql => Self::Sql,
            ExportFormat::Text => Self::Text,
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
