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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
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
    /// Sent as binary, of a type that is not known here; in hex.
    Binary(String),
    /// Sent as binary, and understood.
    Typed {
        /// Its type, e.g. `int4`, `text[]`.
        kind: String,
        /// As PostgreSQL would write it.
        text: String,
    },
    /// Sent as binary, of a type that is known but not understood.
    Raw {
        /// The type's OID.
        oid: u32,
        /// In hex.
        hex: String,
    },
    /// Not written down, by a rule.
    Masked,
}

impl Parameter {
    /// What it holds, as text.
    pub(crate) fn text_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::Null | Self::Masked => None,
            Self::Text(text) | Self::Binary(text) | Self::Typed { text, .. } | Self::Raw { hex: text, .. } => {
                Some(text)
            }
        }
    }
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// What it did stays.
    Committed,
    /// What it did is undone.
    RolledBack,
    /// It waits for its COMMIT PREPARED, outside the session.
    Prepared,
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
        /// Bytes that went on from the person in it. (Of what was typed the length shows anyway, and the content does not.)
        #[serde(default, skip_serializing_if = "is_zero")]
        up: u64,
        /// Bytes that went on to the person.
        #[serde(default, skip_serializing_if = "is_zero")]
        down: u64,
    },
    /// A statement was sent, simple (Query) or to be prepared (Parse).
    Statement {
        /// The SQL text, lossily decoded if it is not UTF-8.
        text: String,
        /// Its prepared name; `None` for a simple query, empty for the unnamed statement.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prepared: Option<String>,
        /// Its number among what was sent in this session: results say whose they are by it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        number: Option<u64>,
        /// Its values were taken out before it was written down, because it names what must not be seen.
        #[serde(default, skip_serializing_if = "is_false")]
        masked: bool,
    },
    /// Parameters were bound (Bind).
    Bound {
        /// The prepared statement.
        prepared: String,
        /// The portal.
        portal: String,
        /// Its parameters; past a bound they are counted, not kept.
        parameters: Vec<Parameter>,
        /// Its number among what was sent in this session: results say whose they are by it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        number: Option<u64>,
        /// The number of the statement, if it is known which one that is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        statement: Option<u64>,
        /// The types of its parameters in their order, as far as they are known; empty where one is not.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        types: Vec<String>,
    },
    /// A portal was executed.
    Executed {
        /// The portal.
        portal: String,
        /// At most this many rows; 0: all.
        rows: u32,
        /// Its number among what was sent in this session: results say whose they are by it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        number: Option<u64>,
        /// The number of the statement, if it is known which one that is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        statement: Option<u64>,
    },
    /// What the rows of a result look like that are kept: they follow.
    Columns {
        /// The number of what they answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<u64>,
        /// Each of them, in order.
        columns: Vec<Column>,
    },
    /// A row of a result.
    Row {
        /// The number of what it answers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<u64>,
        /// Its values. What was sent as binary and is understood is text here, too.
        values: Vec<Parameter>,
    },
    /// A statement completed.
    Completed {
        /// The command tag, e.g. `SELECT 3`.
        tag: String,
        /// DataRow messages sent for it.
        rows: u64,
        /// The number of what it answers; none if that is not known, or nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<u64>,
        /// It stopped at the most rows that were asked for: its portal can be executed on.
        #[serde(default, skip_serializing_if = "is_false")]
        suspended: bool,
    },
    /// The server reported an error or a notice.
    Reported {
        /// `ERROR`, `FATAL`, `NOTICE`, …
        severity: String,
        /// SQLSTATE.
        code: String,
        /// The message.
        message: String,
        /// The number of what it answers; none if that is not known, or nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<u64>,
    },
    /// The server passed a notification on (NOTIFY), at a time of its own.
    Notified {
        /// The name that was listened for.
        name: String,
        /// What came with it.
        payload: String,
        /// The backend that sent it.
        process: u32,
    },
    /// The transaction's state: `I` idle, `T` in a transaction, `E` in a failed one. Told when it has changed, when a transaction has
    /// ended, and where what was executed up to a Sync is over.
    Transaction {
        /// The status byte of ReadyForQuery.
        status: char,
        /// How the last one ended, if one did since the state was told before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ended: Option<Ended>,
    },
    /// The person cancelled the running statement.
    Cancelled,
    /// A sentence from the gateway, e.g. why the session was cut.
    Said {
        /// The sentence.
        text: String,
    },
}

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// What the result calls it.
    pub name: String,
    /// Its type, as in [`Event::Bound`].
    #[serde(rename = "type")]
    pub kind: String,
    /// Its values are not written down.
    #[serde(default, skip_serializing_if = "is_false")]
    pub masked: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn events_of_recordings_before_there_were_numbers_still_read() {
        for (json, event) in [
            (
                r#"{"event":"statement","text":"select 1","prepared":"s"}"#,
                Event::Statement {
                    text: "select 1".to_owned(),
                    prepared: Some("s".to_owned()),
                    number: None,
                    masked: false,
                },
            ),
            (
                r#"{"event":"bound","prepared":"s","portal":"p","parameters":["null",{"text":"a"},{"binary":"00"}]}"#,
                Event::Bound {
                    prepared: "s".to_owned(),
                    portal: "p".to_owned(),
                    parameters: vec![
                        Parameter::Null,
                        Parameter::Text("a".to_owned()),
                        Parameter::Binary("00".to_owned()),
                    ],
                    number: None,
                    statement: None,
                    types: Vec::new(),
                },
            ),
            (
                r#"{"event":"executed","portal":"p","rows":7}"#,
                Event::Executed { portal: "p".to_owned(), rows: 7, number: None, statement: None },
            ),
            (
                r#"{"event":"completed","tag":"SELECT 1","rows":1}"#,
                Event::Completed { tag: "SELECT 1".to_owned(), rows: 1, of: None, suspended: false },
            ),
            (
                r#"{"event":"reported","severity":"ERROR","code":"42601","message":"m"}"#,
                Event::Reported {
                    severity: "ERROR".to_owned(),
                    code: "42601".to_owned(),
                    message: "m".to_owned(),
                    of: None,
                },
            ),
            (r#"{"event":"transaction","status":"T"}"#, Event::Transaction { status: 'T', ended: None }),
        ] {
            assert_eq!(serde_json::from_str::<Event>(json).unwrap(), event);
            assert_eq!(serde_json::to_string(&event).unwrap(), json, "and what is not known is not written");
        }
    }
}
