//! What an SFTP client asks for (draft-ietf-secsh-filexfer-02 section 6, and OpenSSH's PROTOCOL section 4), and what right
//! it takes.
//!
//! What always holds: a request is either understood to its last byte, or malformed; one whose kind is not known here
//! ([`Act::Unknown`]) takes every right there is.

use super::wire::{Attributes, Fields, Malformed};

/// `SSH_FXF_READ` and so on (section 6.3).
const READ: u32 = 0x01;
const WRITE: u32 = 0x02;
const APPEND: u32 = 0x04;
const CREATE: u32 = 0x08;
const TRUNCATE: u32 = 0x10;
const EXCLUSIVE: u32 = 0x20;

/// The right that a request takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Need {
    /// Content leaves the target.
    pub(super) content: bool,
    /// Something changes on the target.
    pub(super) change: bool,
}

const NOTHING: Need = Need { content: false, change: false };
const CONTENT: Need = Need { content: true, change: false };
const CHANGE: Need = Need { content: false, change: true };
const ALL: Need = Need { content: true, change: true };

/// How a file is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ways(u32);

impl Ways {
    /// A server opens for reading whatever is not to be written: OpenSSH takes no flags at all for `O_RDONLY`. And
    /// `O_RDONLY | O_TRUNC` empties a file.
    pub(super) fn need(self) -> Need {
        let known = READ | WRITE | APPEND | CREATE | TRUNCATE | EXCLUSIVE;
        let strange = self.0 & !known != 0;
        Need {
            content: strange || self.0 & READ != 0 || self.0 & WRITE == 0,
            change: strange || self.0 & (known ^ READ) != 0,
        }
    }

    pub(super) fn appends(self) -> bool {
        self.0 & APPEND != 0
    }

    /// The file is empty at first.
    pub(super) fn starts_empty(self) -> bool {
        self.0 & TRUNCATE != 0 || self.0 & CREATE != 0 && self.0 & EXCLUSIVE != 0
    }

    fn words(self) -> String {
        let names = [
            (READ, "read"),
            (WRITE, "write"),
            (APPEND, "append"),
            (CREATE, "create"),
            (TRUNCATE, "truncate"),
            (EXCLUSIVE, "exclusive"),
        ];
        let mut words: Vec<String> =
            names.iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, name)| (*name).to_owned()).collect();
        let strange = self.0 & !names.iter().fold(0, |all, (bit, _)| all | bit);
        if strange != 0 {
            words.push(format!("{strange:#x}"));
        }
        if words.is_empty() { "no flags".to_owned() } else { words.join(", ") }
    }
}

/// What has to be known about a request beyond its right and its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act<'a> {
    Open(Ways),
    OpenFolder,
    Close,
    Read {
        offset: u64,
        length: u32,
    },
    Write {
        offset: u64,
        data: &'a [u8],
    },
    /// Attributes of an open file are set, its size among them if that is `Some`.
    SetOpen(Option<u64>),
    /// Its size will be in the answer.
    SizeOfOpen,
    /// The size of what the path names will be in the answer.
    SizeOfPath,
    /// Content goes on the target from the handle that the request is about to this one.
    Copy(&'a [u8]),
    Other,
    Unknown,
}

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About<'a> {
    Nothing,
    Path(&'a [u8]),
    Handle(&'a [u8]),
}

/// One request, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request<'a> {
    pub(super) id: u32,
    /// In a word, as the recording has it.
    pub(super) op: &'a str,
    pub(super) need: Need,
    pub(super) about: About<'a>,
    /// The other path.
    pub(super) to: Option<&'a [u8]>,
    pub(super) detail: Option<String>,
    pub(super) act: Act<'a>,
    /// Bytes behind the last field. They must not go on.
    pub(super) surplus: usize,
}

impl<'a> Request<'a> {
    /// Of a packet that is not `SSH_FXP_INIT`.
    pub(super) fn read(packet: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::of(packet);
        let kind = fields.byte()?;
        let id = fields.u32()?;
        let request = match kind {
            200 => extended(id, &mut fields)?,
            _ => plain(kind, id, &mut fields)?,
        };
        // Go's pkg/sftp (rclone, Terraform) sends the rest of its buffer behind the content of a short write, and OpenSSH
        // skips it.
        let surplus = if matches!(request.act, Act::Write { .. }) { fields.rest().len() } else { 0 };
        fields.end()?;
        Ok(Request { surplus, ..request })
    }

    /// Whether the recording names it: not where the sum of a transfer does, or where nothing is done.
    pub(super) fn is_told(&self) -> bool {
        match self.act {
            Act::Open(_) | Act::OpenFolder | Act::SetOpen(_) | Act::SizeOfPath | Act::Copy(_) | Act::Unknown => true,
            Act::Close | Act::Read { .. } | Act::Write { .. } | Act::SizeOfOpen => false,
            Act::Other => matches!(self.about, About::Path(_)),
        }
    }
}

fn of<'a>(id: u32, op: &'a str, need: Need, about: About<'a>, act: Act<'a>) -> Request<'a> {
    Request { id, op, need, about, to: None, detail: None, act, surplus: 0 }
}

/// Of two paths.
fn pair<'a>(id: u32, op: &'a str, fields: &mut Fields<'a>) -> Result<Request<'a>, Malformed> {
    let (first, second) = (fields.path()?, fields.path()?);
    Ok(Request { to: Some(second), ..of(id, op, CHANGE, About::Path(first), Act::Other) })
}

/// With attributes that are set.
fn with(request: Request<'_>, attributes: Attributes) -> Request<'_> {
    Request { detail: attributes.words(), ..request }
}

/// Of a kind that the draft has.
fn plain<'a>(kind: u8, id: u32, fields: &mut Fields<'a>) -> Result<Request<'a>, Malformed> {
    let request = match kind {
        3 => {
            let (path, ways) = (About::Path(fields.path()?), Ways(fields.u32()?));
            let attributes = fields.attributes()?.words().map(|words| format!(", {words}")).unwrap_or_default();
            let detail = Some(format!("{}{attributes}", ways.words()));
            Request { detail, ..of(id, "open", ways.need(), path, Act::Open(ways)) }
        }
        4 => of(id, "close", NOTHING, About::Handle(fields.handle()?), Act::Close),
        5 => {
            let handle = About::Handle(fields.handle()?);
            let act = Act::Read { offset: fields.u64()?, length: fields.u32()? };
            of(id, "read", CONTENT, handle, act)
        }
        6 => {
            let handle = About::Handle(fields.handle()?);
            let act = Act::Write { offset: fields.u64()?, data: fields.string()? };
            of(id, "write", CHANGE, handle, act)
        }
        7 | 17 => of(id, "stat", NOTHING, About::Path(fields.path()?), Act::SizeOfPath),
        8 => of(id, "stat", NOTHING, About::Handle(fields.handle()?), Act::SizeOfOpen),
        9 => {
            let path = About::Path(fields.path()?);
            with(of(id, "set", CHANGE, path, Act::Other), fields.attributes()?)
        }
        10 => {
            let (handle, attributes) = (About::Handle(fields.handle()?), fields.attributes()?);
            with(of(id, "set", CHANGE, handle, Act::SetOpen(attributes.size)), attributes)
        }
        11 => of(id, "list", NOTHING, About::Path(fields.path()?), Act::OpenFolder),
        12 => of(id, "list", NOTHING, About::Handle(fields.handle()?), Act::Other),
        13 => of(id, "remove", CHANGE, About::Path(fields.path()?), Act::Other),
        14 => {
            let path = About::Path(fields.path()?);
            with(of(id, "make-folder", CHANGE, path, Act::Other), fields.attributes()?)
        }
        15 => of(id, "remove-folder", CHANGE, About::Path(fields.path()?), Act::Other),
        16 => of(id, "resolve", NOTHING, About::Path(fields.path()?), Act::Other),
        18 => pair(id, "rename", fields)?,
        19 => of(id, "read-link", NOTHING, About::Path(fields.path()?), Act::Other),
        // OpenSSH, and whoever works with it, has the draft's two arguments the other way round.
        20 => {
            let (leads_to, link) = (fields.path()?, fields.path()?);
            Request { to: Some(leads_to), ..of(id, "link-symbolic", CHANGE, About::Path(link), Act::Other) }
        }
        _ => return Err(Malformed::Kind),
    };
    Ok(request)
}

/// `SSH_FXP_EXTENDED`.
fn extended<'a>(id: u32, fields: &mut Fields<'a>) -> Result<Request<'a>, Malformed> {
    let name = fields.string()?;
    let request = match name {
        b"posix-rename@openssh.com" => pair(id, "rename", fields)?,
        b"hardlink@openssh.com" => pair(id, "link", fields)?,
        b"statvfs@openssh.com" => of(id, "stat-volume", NOTHING, About::Path(fields.path()?), Act::Other),
        b"fstatvfs@openssh.com" => of(id, "stat-volume", NOTHING, About::Handle(fields.handle()?), Act::Other),
        b"fsync@openssh.com" => of(id, "sync", CHANGE, About::Handle(fields.handle()?), Act::Other),
        b"lsetstat@openssh.com" => {
            let path = About::Path(fields.path()?);
            with(of(id, "set", CHANGE, path, Act::Other), fields.attributes()?)
        }
        b"limits@openssh.com" => of(id, "limits", NOTHING, About::Nothing, Act::Other),
        b"expand-path@openssh.com" => of(id, "resolve", NOTHING, About::Path(fields.path()?), Act::Other),
        b"home-directory" => of(id, "home", NOTHING, About::Path(fields.path()?), Act::Other),
        b"users-groups-by-id@openssh.com" => {
            let (_users, _groups) = (fields.string()?, fields.string()?);
            of(id, "names", NOTHING, About::Nothing, Act::Other)
        }
        b"copy-data" => {
            let from = About::Handle(fields.handle()?);
            let (offset, length) = (fields.u64()?, fields.u64()?);
            let (to, at) = (fields.handle()?, fields.u64()?);
            let length = if length == 0 { "all".to_owned() } else { format!("{length} bytes") };
            let detail = Some(format!("{length} from {offset} to {at}"));
            Request { detail, ..of(id, "copy", ALL, from, Act::Copy(to)) }
        }
        _ => {
            fields.rest();
            let name = name.get(..name.len().min(256)).unwrap_or_default();
            of(id, "extension", ALL, About::Path(name), Act::Unknown)
        }
    };
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_server_would_open_for_reading_counts_as_reading() {
        assert_eq!(Ways(READ).need(), CONTENT);
        assert_eq!(Ways(0).need(), CONTENT);
        assert_eq!(Ways(WRITE).need(), CHANGE);
        assert_eq!(Ways(WRITE | CREATE | TRUNCATE).need(), CHANGE);
        for ways in [READ | WRITE, CREATE, TRUNCATE, APPEND, EXCLUSIVE, READ | TRUNCATE, 0x40, READ | 0x40, 0x8000_0000]
        {
            assert_eq!(Ways(ways).need(), ALL, "{ways:#x}");
        }
    }
}
