//! The bytes of SFTP version 3 (draft-ietf-secsh-filexfer-02, section 3): packets out of a stream, fields out of packets.
//!
//! What always holds: no length is believed before the bytes are there; a field that is not whole, a path with a NUL and
//! bytes behind the last field are malformed. A server in C would read each of them in its own way, and so see another
//! request than we do.

use bytes::{Bytes, BytesMut};

/// The largest packet, without its length: what OpenSSH takes (`SFTP_MAX_MSG_LENGTH`).
pub(super) const LARGEST: usize = 256 << 10;
/// Bytes of a packet's length.
const PREFIX: usize = 4;
/// The longest handle (section 6.2).
const LONGEST_HANDLE: usize = 256;
/// The longest path. (Linux takes 4 KiB, Windows 64 KiB at most.)
const LONGEST_PATH: usize = 64 << 10;

/// What arrived is not SFTP as we understand it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("a packet of SFTP is empty or larger than 256 KiB")]
    Length,
    #[error("a field of SFTP is not whole")]
    Short,
    #[error("a packet of SFTP has bytes behind its last field")]
    Trailing,
    #[error("a path has a NUL in it or is longer than any")]
    Path,
    #[error("a handle of SFTP is longer than any")]
    Handle,
    #[error("attributes of SFTP have fields that are unknown")]
    Attributes,
    #[error("a packet of SFTP is of a kind that does not belong there")]
    Kind,
    #[error("an id of SFTP is used twice at once")]
    Id,
    #[error("an answer of SFTP belongs to no request")]
    Unasked,
    #[error("an answer of SFTP does not fit its request")]
    Answer,
    #[error("the target speaks a version of SFTP that is not understood: only version 3 is")]
    Version,
}

/// A stream on its way to being packets. Holds less than one packet and the piece that came last.
#[derive(Debug, Default)]
pub(super) struct Packets(BytesMut);

impl Packets {
    pub(super) fn add(&mut self, piece: Bytes) {
        if self.0.is_empty() {
            self.0 = piece.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
        } else {
            self.0.extend_from_slice(&piece);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next whole packet, its length included.
    pub(super) fn next(&mut self) -> Result<Option<BytesMut>, Malformed> {
        let Some(length) = self.0.first_chunk::<PREFIX>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| Malformed::Length)?;
        if length == 0 || length > LARGEST {
            return Err(Malformed::Length);
        }
        let whole = PREFIX + length;
        Ok((self.0.len() >= whole).then(|| self.0.split_to(whole)))
    }
}

/// Takes so many bytes off the end of a whole packet.
pub(super) fn shorten(packet: &mut BytesMut, surplus: usize) -> Result<(), Malformed> {
    let length = packet.len().checked_sub(PREFIX + surplus).ok_or(Malformed::Short)?;
    packet.truncate(PREFIX + length);
    let length = u32::try_from(length).map_err(|_| Malformed::Length)?;
    packet.get_mut(..PREFIX).ok_or(Malformed::Short)?.copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// What is left of a packet to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Of a packet, its length included.
    pub(super) fn of(packet: &'a [u8]) -> Self {
        Self(packet.get(PREFIX..).unwrap_or_default())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.take().map(u64::from_be_bytes)
    }

    pub(super) fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.u32()?).map_err(|_| Malformed::Short)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn path(&mut self) -> Result<&'a [u8], Malformed> {
        let path = self.string()?;
        if path.len() > LONGEST_PATH || path.contains(&0) { Err(Malformed::Path) } else { Ok(path) }
    }

    pub(super) fn handle(&mut self) -> Result<&'a [u8], Malformed> {
        let handle = self.string()?;
        if handle.len() > LONGEST_HANDLE { Err(Malformed::Handle) } else { Ok(handle) }
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::Trailing) }
    }

    /// Takes what is left, whatever it is.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Of attributes, the size alone (section 5). For answers, of which nothing else matters here.
    pub(super) fn size(&mut self) -> Result<Option<u64>, Malformed> {
        if self.u32()? & SIZE == 0 { Ok(None) } else { self.u64().map(Some) }
    }

    /// Attributes, each of them known (section 5).
    pub(super) fn attributes(&mut self) -> Result<Attributes, Malformed> {
        let flags = self.u32()?;
        if flags & !(SIZE | OWNER | MODE | TIMES | EXTENDED) != 0 {
            return Err(Malformed::Attributes);
        }
        let mut attributes = Attributes::default();
        if flags & SIZE != 0 {
            attributes.size = Some(self.u64()?);
        }
        if flags & OWNER != 0 {
            attributes.owner = Some((self.u32()?, self.u32()?));
        }
        if flags & MODE != 0 {
            attributes.mode = Some(self.u32()?);
        }
        if flags & TIMES != 0 {
            attributes.times = Some((self.u32()?, self.u32()?));
        }
        if flags & EXTENDED != 0 {
            for _ in 0..self.u32()? {
                let (_name, _value) = (self.string()?, self.string()?);
                attributes.extended = attributes.extended.saturating_add(1);
            }
        }
        Ok(attributes)
    }
}

const SIZE: u32 = 0x1;
const OWNER: u32 = 0x2;
const MODE: u32 = 0x4;
const TIMES: u32 = 0x8;
const EXTENDED: u32 = 0x8000_0000;

/// What a client wants a file to be like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) size: Option<u64>,
    owner: Option<(u32, u32)>,
    mode: Option<u32>,
    times: Option<(u32, u32)>,
    extended: u32,
}

impl Attributes {
    /// In words; `None` if there are none.
    pub(super) fn words(&self) -> Option<String> {
        let mut words = Vec::new();
        words.extend(self.size.map(|size| format!("size {size}")));
        words.extend(self.mode.map(|mode| format!("mode {:o}", mode & 0o7777)));
        words.extend(self.owner.map(|(user, group)| format!("owner {user}:{group}")));
        words.extend(self.times.map(|(accessed, modified)| format!("accessed {accessed}, modified {modified}")));
        if self.extended > 0 {
            words.push(format!("{} extended", self.extended));
        }
        (!words.is_empty()).then(|| words.join(", "))
    }
}

/// `SSH_FXP_STATUS` (section 7): an answer of ours.
pub(super) fn status(id: u32, code: u32, sentence: &str) -> BytesMut {
    const STATUS: u8 = 101;
    let (sentence, language) = (sentence.as_bytes(), b"en");
    let mut body = vec![STATUS];
    body.extend_from_slice(&id.to_be_bytes());
    body.extend_from_slice(&code.to_be_bytes());
    for text in [sentence, language] {
        body.extend_from_slice(&length(text));
        body.extend_from_slice(text);
    }
    let mut packet = BytesMut::from(length(&body).as_slice());
    packet.extend_from_slice(&body);
    packet
}

/// Of what we wrote ourselves.
fn length(of: &[u8]) -> [u8; PREFIX] {
    u32::try_from(of.len()).unwrap_or(u32::MAX).to_be_bytes()
}

/// What a status code says (section 7).
pub(super) fn reason(code: u32) -> &'static str {
    match code {
        0 => "ok",
        1 => "end of file",
        2 => "no such file",
        3 => "permission denied",
        5 => "bad message",
        6 => "no connection",
        7 => "connection lost",
        8 => "not supported",
        _ => "failure",
    }
}
