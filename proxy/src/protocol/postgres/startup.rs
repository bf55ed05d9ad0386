//! The first packets of a connection (PostgreSQL chapter 55.2.1, 55.7): requests for encryption, a request to cancel,
//! or the start-up packet with the names and settings of a session.
//!
//! Sans-IO: packets in, values out. Settings are taken by allow-list, because the client could otherwise set
//! `post_auth_delay`, `role` or `search_path` before the gateway sees a statement (PgBouncer CVE-2025-12819).

use std::{collections::BTreeMap, ops::RangeInclusive};

/// PostgreSQL's own limit for a start-up packet (`MAX_STARTUP_PACKET_LENGTH`).
const LONGEST: u32 = 10_000;
/// Longest value of a setting.
const LONGEST_VALUE: usize = 1024;
/// Longest secret of a cancel key (chapter 55.7, BackendKeyData), and the shortest, which protocol 3.0 has.
const SECRET: RangeInclusive<usize> = 4..=256;

const CANCEL: u32 = (1234 << 16) | 5678;
const SSL: u32 = (1234 << 16) | 5679;
const GSSENC: u32 = (1234 << 16) | 5680;

/// Settings that a client may start with, as PostgreSQL spells them.
const SETTINGS: [&str; 19] = [
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "DateStyle",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "geqo",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "IntervalStyle",
    "jit",
    "lock_timeout",
    "standard_conforming_strings",
    "statement_timeout",
    "TimeZone",
    "transaction_timeout",
];

/// A minor version of protocol 3. From 3.2 on cancel keys are longer; all else that we carry is alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32);

impl Version {
    /// What every client speaks.
    pub(super) const OLDEST: Self = Self(3 << 16);
    /// The highest that we speak: 3.2, of PostgreSQL 18.
    pub(super) const NEWEST: Self = Self((3 << 16) | 2);

    /// As it stands in a start-up packet.
    pub(super) fn word(self) -> u32 {
        self.0
    }

    /// Bytes of a cancel key's secret.
    pub(super) fn secret_length(self) -> usize {
        if self < Self::NEWEST { 4 } else { 32 }
    }
}

/// What a client opened with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum First {
    /// SSLRequest.
    Ssl,
    /// GSSENCRequest.
    GssEnc,
    /// CancelRequest with a key that we may have given out.
    Cancel(CancelKey),
    /// A session.
    Start(Startup),
}

/// What a CancelRequest carries, and BackendKeyData announced.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct CancelKey {
    /// A number, unique among live sessions.
    pub(super) process: u32,
    /// The secret beside it: 4 bytes in protocol 3.0, up to 256 from 3.2 on.
    pub(super) secret: Vec<u8>,
}

impl CancelKey {
    /// As BackendKeyData and CancelRequest carry it.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (process, secret) = bytes.split_first_chunk::<4>()?;
        let process = u32::from_be_bytes(*process);
        SECRET.contains(&secret.len()).then(|| Self { process, secret: secret.to_vec() })
    }
}

impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelKey").field("process", &self.process).finish_non_exhaustive()
    }
}

/// A start-up packet that passed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Startup {
    /// What is spoken from here on: what the client asked for, or the highest of ours.
    pub(super) version: Version,
    /// `user`, as typed.
    pub(super) user: String,
    /// `database`, as typed.
    pub(super) database: Option<String>,
    /// Settings to be forwarded, as PostgreSQL spells them.
    pub(super) settings: BTreeMap<String, String>,
    /// Settings named `tidegate.*`, for us.
    pub(super) ours: BTreeMap<String, String>,
    /// A later minor version than ours was asked for, or protocol options (`_pq_.`) that we do not know: what
    /// NegotiateProtocolVersion must name.
    pub(super) negotiate: Option<Vec<String>>,
}

/// Why a first packet is refused. The texts are for the person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum StartupError {
    /// Not a length that a start-up packet can have.
    #[error("a start-up packet cannot be {0} bytes long")]
    Length(u32),
    /// Protocol 2, or something else that we do not speak.
    #[error("protocol {0}.{1} is not spoken here, only 3.0 to 3.2")]
    Protocol(u32, u32),
    /// The packet does not follow its grammar.
    #[error("the start-up packet is malformed")]
    Malformed,
    /// `user` is missing.
    #[error("the start-up packet names no user")]
    NoUser,
    /// A parameter came twice, perhaps once inside `options`.
    #[error("the start-up parameter {0:?} was given twice")]
    Duplicate(String),
    /// Not on the list.
    #[error("the start-up parameter {0:?} is not accepted here")]
    Parameter(String),
    /// Control characters, or longer than any use of it.
    #[error("the value of the start-up parameter {0:?} is not accepted")]
    Value(String),
    /// `options` with something else than settings.
    #[error("start-up options are accepted only as -c NAME=VALUE or --NAME=VALUE")]
    Options,
}

impl StartupError {
    /// What to do next.
    pub(super) fn next(&self) -> Option<&'static str> {
        match self {
            Self::Length(_) | Self::Malformed | Self::Protocol(..) => None,
            Self::NoUser => Some("write user=YOU dbname=TARGET/DATABASE"),
            Self::Duplicate(_) => Some("give it once"),
            Self::Parameter(name) if name == "replication" => {
                Some("replication does not go through the gate, only sessions with statements do")
            }
            Self::Parameter(_) | Self::Value(_) | Self::Options => {
                Some("connect without it, and use SET in the session where the role may")
            }
        }
    }

    /// SQLSTATE (PostgreSQL appendix A).
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Length(_) | Self::Malformed => "08P01",
            Self::Protocol(..) => "0A000",
            Self::NoUser | Self::Duplicate(_) | Self::Parameter(_) | Self::Value(_) | Self::Options => "28000",
        }
    }
}

/// How many bytes follow the length word of a first packet.
pub(super) fn body_length(word: [u8; 4]) -> Result<usize, StartupError> {
    let length = u32::from_be_bytes(word);
    let fits = (8..=LONGEST).contains(&length);
    let body = length.checked_sub(4).filter(|_| fits).and_then(|body| usize::try_from(body).ok());
    body.ok_or(StartupError::Length(length))
}

/// Reads what follows the length word.
pub(super) fn parse(body: &[u8]) -> Result<First, StartupError> {
    let (code, rest) = body.split_first_chunk::<4>().ok_or(StartupError::Malformed)?;
    match (u32::from_be_bytes(*code), rest) {
        (SSL, []) => Ok(First::Ssl),
        (GSSENC, []) => Ok(First::GssEnc),
        (CANCEL, rest) => CancelKey::read(rest).map(First::Cancel).ok_or(StartupError::Malformed),
        (SSL | GSSENC, _) => Err(StartupError::Malformed),
        (version, rest) if version >> 16 == 3 => startup(version, rest).map(First::Start),
        (version, _) => Err(StartupError::Protocol(version >> 16, version & 0xffff)),
    }
}

/// The bytes of a CancelRequest.
pub(super) fn cancel_request(key: &CancelKey) -> Vec<u8> {
    // A key's secret has at most 256 bytes.
    let length = u32::try_from(key.secret.len()).unwrap_or(u32::MAX).saturating_add(12);
    let head = [length, CANCEL, key.process].into_iter().flat_map(u32::to_be_bytes);
    head.chain(key.secret.iter().copied()).collect()
}

/// The bytes of an SSLRequest.
pub(super) fn ssl_request() -> Vec<u8> {
    [8, SSL].into_iter().flat_map(u32::to_be_bytes).collect()
}

fn startup(version: u32, mut rest: &[u8]) -> Result<Startup, StartupError> {
    let asked = Version(version);
    let (user, database, settings, ours) = (String::new(), None, BTreeMap::new(), BTreeMap::new());
    let mut start = Startup { version: asked.min(Version::NEWEST), user, database, settings, ours, negotiate: None };
    let (mut unknown, mut user) = (Vec::new(), None);
    loop {
        let name = text(&mut rest)?;
        if name.is_empty() {
            break;
        }
        let value = text(&mut rest)?;
        match name {
            "user" => once(&mut user, name, value)?,
            "database" => once(&mut start.database, name, value)?,
            "options" => options(value, &mut start.settings)?,
            name if name.starts_with("_pq_.") => unknown.push(plain("_pq_", name)?.to_owned()),
            name => setting(name, value, &mut start.settings)?,
        }
    }
    if !rest.is_empty() {
        return Err(StartupError::Malformed);
    }
    start.user = user.filter(|user| !user.is_empty()).ok_or(StartupError::NoUser)?;
    start.database = start.database.filter(|database| !database.is_empty());
    start.negotiate = (asked > Version::NEWEST || !unknown.is_empty()).then_some(unknown);
    (start.ours, start.settings) = start.settings.into_iter().partition(|(name, _)| is_ours(name));
    Ok(start)
}

/// The next NUL-terminated string.
fn text<'b>(rest: &mut &'b [u8]) -> Result<&'b str, StartupError> {
    let end = rest.iter().position(|b| *b == 0).ok_or(StartupError::Malformed)?;
    let (text, behind) = rest.split_at_checked(end).ok_or(StartupError::Malformed)?;
    *rest = behind.get(1..).unwrap_or_default();
    std::str::from_utf8(text).map_err(|_| StartupError::Malformed)
}

fn once(slot: &mut Option<String>, name: &str, value: &str) -> Result<(), StartupError> {
    let value = plain(name, value)?;
    if slot.replace(value.to_owned()).is_some() { Err(StartupError::Duplicate(name.to_owned())) } else { Ok(()) }
}

/// No control characters, and not too long.
fn plain<'v>(name: &str, value: &'v str) -> Result<&'v str, StartupError> {
    if value.len() > LONGEST_VALUE || value.chars().any(char::is_control) {
        return Err(StartupError::Value(shown(name)));
    }
    Ok(value)
}

/// A peer's name in a message: the start of it. The message escapes what is not printable.
fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

/// Settings named `tidegate.*` are ours and are not forwarded.
fn is_ours(name: &str) -> bool {
    name.starts_with("tidegate.")
}

fn setting(name: &str, value: &str, settings: &mut BTreeMap<String, String>) -> Result<(), StartupError> {
    let ours = is_ours(name).then_some(name);
    let known = SETTINGS.iter().copied().find(|known| known.eq_ignore_ascii_case(name)).or(ours);
    let known = known.ok_or_else(|| StartupError::Parameter(shown(name)))?;
    let value = plain(known, value)?;
    match settings.insert(known.to_owned(), value.to_owned()) {
        None => Ok(()),
        Some(_) => Err(StartupError::Duplicate(shown(known))),
    }
}

/// `options` as the server would split it (`pg_split_opts`): at white space, with `\` before what is meant literally.
fn options(text: &str, settings: &mut BTreeMap<String, String>) -> Result<(), StartupError> {
    let words = words(text)?;
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let assignment = match word {
            "-c" => words.next().ok_or(StartupError::Options)?,
            word => word.strip_prefix("--").or_else(|| word.strip_prefix("-c")).ok_or(StartupError::Options)?,
        };
        let (name, value) = assignment.split_once('=').ok_or(StartupError::Options)?;
        setting(&name.replace('-', "_"), value, settings)?;
    }
    Ok(())
}

fn words(text: &str) -> Result<Vec<String>, StartupError> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().push(letters.next().ok_or(StartupError::Options)?),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Ok(words)
}

/// The start-up packet that we send to the target. Names and values hold no NUL: they came out of strings that end in
/// one, or of our own grammars; one that does is refused.
pub(super) fn start_packet<'a>(
    version: Version,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Vec<u8>, StartupError> {
    let mut body = version.word().to_be_bytes().to_vec();
    for (name, value) in parameters {
        if name.is_empty() || name.contains('\0') || value.contains('\0') {
            return Err(StartupError::Value(shown(name)));
        }
        for text in [name, value] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).map_err(|_| StartupError::Malformed)?;
    if length > LONGEST {
        return Err(StartupError::Length(length));
    }
    Ok([length.to_be_bytes().as_slice(), &body].concat())
}

#[cfg(test)]
#[path = "startup_tests.rs"]
mod tests;
