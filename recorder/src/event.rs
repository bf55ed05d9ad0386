//! What happened in a session, in words that fit every protocol.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which way bytes went, and on which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// From the person: keystrokes, an upload. Sealed under the keystroke key.
    Stdin,
    /// To the person.
    Stdout,
    /// To the person, as errors.
    Stderr,
    /// `COPY … FROM STDIN`.
    CopyIn,
    /// `COPY … TO STDOUT`.
    CopyOut,
    /// Protocol bytes from the client whose meaning is recorded by other events.
    FromClient,
    /// Protocol bytes from the target whose meaning is recorded by other events (result rows).
    FromTarget,
}

/// How much of a stream's content is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// All of it: terminals.
    Whole,
    /// Up to `stream_limit`, then counted and digested to its end.
    UpToLimit,
    /// Nothing: counted and digested from the first byte.
    Count,
}

/// A parameter bound to a prepared statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Parameter {
    /// NULL.
    Null,
    /// Sent as text.
    Text(String),
    /// Sent as binary, in hex.
    Binary(String),
}

/// Something that was asked of the target's files, or the sum of what was moved to or from one of them.
///
/// An operation is told when it is asked for, before it goes on. A second event with a `fault` says that it did not succeed;
/// without one the target has said that it did. `download` and `upload` come when the transfer is over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEvent {
    /// The channel.
    pub channel: u32,
    /// `open`, `list`, `stat`, `rename`, `remove`, …; `download` and `upload` sum up a transfer.
    pub op: String,
    /// What it is about, as it was named there: often relative to a folder that the channel's command or login decides.
    pub path: String,
    /// The other path: what it is renamed to, where a link leads, the operand that an upload goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// How: ways to open it, attributes that are set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Of a transfer: bytes of content that were moved, as far as the receiver has not refused them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Of a transfer: the file's size in bytes, where it became known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Of a transfer that is not complete: which bytes were moved, from (inclusive) to (exclusive), if not too scattered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranges: Option<Vec<(u64, u64)>>,
    /// Of a complete transfer, in which each byte of the file was moved exactly once: SHA-256 of them all, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Why it did not succeed. Begins with `refused` (by the gate), `failed` (by the target) or `unanswered`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A channel opened and something was started in it. PostgreSQL has one channel, 0.
    Opened {
        /// Its number in this recording.
        channel: u32,
        /// `shell`, `exec`, `subsystem`, `sql`, `forward`.
        what: String,
        /// The command line, subsystem, database, or destination.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<String>,
        /// `TERM`, columns, rows, if it has a terminal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        terminal: Option<(String, u32, u32)>,
        /// Accepted environment or start-up settings.
        #[serde(default)]
        environment: BTreeMap<String, String>,
        /// The connection to the target that it uses, if it shares one with other channels of the session: the serial of
        /// its certificate, as in the ledger.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        connection: Option<u64>,
        /// The address that the target was asked to connect to, for a forwarding (what was asked for is the `command`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reached: Option<String>,
    },
    /// The terminal changed its size.
    Resized {
        /// Channel.
        channel: u32,
        /// Columns.
        columns: u32,
        /// Rows.
        rows: u32,
    },
    /// Bytes.
    Data {
        /// Channel.
        channel: u32,
        /// Which way.
        stream: Stream,
        /// How much of the content is kept.
        keep: Keep,
        /// The bytes.
        #[serde(skip)]
        data: Bytes,
    },
    /// No more bytes will come this way: the stream's total follows. What comes later all the same, as the next COPY does, is
    /// a stream of its own.
    Eof {
        /// Channel.
        channel: u32,
        /// Which way.
        stream: Stream,
    },
    /// The person sent a signal.
    Signal {
        /// Channel.
        channel: u32,
        /// E.g. `INT`.
        name: String,
    },
    /// The remote program ended.
    Exited {
        /// Channel.
        channel: u32,
        /// Exit status, if it exited.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u32>,
        /// Signal, if one killed it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<String>,
    },
    /// The channel's bytes are understood: [`Event::File`] tells what they mean.
    Decoded {
        /// Channel.
        channel: u32,
        /// As what: `sftp`, `scp`.
        protocol: String,
    },
    /// Something about the target's files.
    File(FileEvent),
    /// The channel closed.
    Closed {
        /// Channel.
        channel: u32,
    },
    /// A statement was sent, simple (Query) or to be prepared (Parse).
    Statement {
        /// The SQL text, lossily decoded if it is not UTF-8.
        text: String,
        /// Its prepared name; `None` for a simple query, empty for the unnamed statement.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prepared: Option<String>,
    },
    /// Parameters were bound (Bind).
    Bound {
        /// The prepared statement.
        prepared: String,
        /// The portal.
        portal: String,
        /// Its parameters; past a bound they are counted, not kept.
        parameters: Vec<Parameter>,
    },
    /// A portal was executed.
    Executed {
        /// The portal.
        portal: String,
        /// At most this many rows; 0: all.
        rows: u32,
    },
    /// A statement completed.
    Completed {
        /// The command tag, e.g. `SELECT 3`.
        tag: String,
        /// DataRow messages sent for it.
        rows: u64,
    },
    /// The server reported an error or a notice.
    Reported {
        /// `ERROR`, `FATAL`, `NOTICE`, …
        severity: String,
        /// SQLSTATE.
        code: String,
        /// The message.
        message: String,
    },
    /// The transaction's state changed: `I` idle, `T` in a transaction, `E` in a failed one.
    Transaction {
        /// The status byte of ReadyForQuery.
        status: char,
    },
    /// The person cancelled the running statement.
    Cancelled,
    /// A sentence from the gateway, e.g. why the session was cut.
    Said {
        /// The sentence.
        text: String,
    },
}
