//! An index of one recording: what can be found in it, so that it need not be opened again to say that something is not there.
//!
//! It is made by an auditor from the recording (the gateway cannot read that), lies beside it as `SESSION.tgi`, and says of
//! which recording it is, to the byte. What always holds: it is sealed under a key that follows from the recording's own, so
//! who cannot open the recording can neither read an index of it nor make one; one that is not whole, or not of this
//! recording as it is now, is none; and what is found in it is what would be found in the recording. `FORMAT.md` has its
//! bytes. Memory is one block of lines.

use crate::{
    frame::{HASH, Hash, TAG, hex, nonce},
    keys::Identities,
    preamble::Preamble,
    replay::{self, Replay},
    search::{ALL, Hit, Kind, Line, Lines},
    sieve::Sieve,
    storage,
    verify::ReadError,
};
use chacha20poly1305::{ChaCha20Poly1305, Tag, aead::AeadInOut as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Seek as _, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

const MAGIC: [u8; 8] = *b"tgidx\r\n\x1a";
const VERSION: u16 = 1;
const MAX_JSON: u32 = 4096;
/// A block of lines is closed when it has so many bytes.
const BLOCK: usize = 1 << 20;
/// What one opens to, at most: a single statement can be much longer than a block.
const MOST: u64 = 1 << 30;
/// zstd's usual one.
const LEVEL: i32 = 3;

/// Why there is no answer from an index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// There is none.
    #[error("it has no index")]
    Missing,
    /// It is of another recording, or of this one as it was before.
    #[error("its index is not of the recording as it is now")]
    Stale,
    /// Its bytes are not what was written.
    #[error("its index is damaged: {0}")]
    Damaged(&'static str),
    /// It goes on.
    #[error("its session is still live")]
    Live,
    /// The recording cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file cannot be.
    #[error("its index: {0}")]
    Io(#[from] io::Error),
}

/// Of which recording it is, in clear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Of {
    session: String,
    /// Bytes of the recording's file.
    bytes: u64,
    /// Its last 32 bytes, hex: of a whole recording, the hash of its last frame.
    last: String,
    /// Of this index alone, hex.
    salt: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Sieve,
    Lines,
    End,
}

impl Part {
    fn code(self) -> u8 {
        match self {
            Self::Sieve => 1,
            Self::Lines => 2,
            Self::End => 3,
        }
    }
}

/// Where the index of this recording is.
pub fn path_of(recording: &Path) -> PathBuf {
    recording.with_extension(storage::INDEX)
}

/// Whether this is the name of an index, or of one that is being made: they can be made again.
pub fn is_one(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| [storage::INDEX, storage::UNFINISHED_INDEX].contains(&extension))
}

/// Makes an index of a recording, in the place of one that there may be. How many lines it has.
///
/// The recording was verified before: an index of one that was changed would say what it says now.
pub fn make(recording: &Path, identities: &Identities) -> Result<u64, IndexError> {
    let (of, live) = look(recording)?;
    if live {
        return Err(IndexError::Live);
    }
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|error| io::Error::other(error.to_string()))?;
    let of = Of { salt: hex(&salt), ..of };
    let replay = replay::open(recording, identities, false)?;
    let (path, draft) = (path_of(recording), recording.with_extension(storage::UNFINISHED_INDEX));
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    let written = write(file, &of, &cipher(recording, identities, &of)?, replay);
    if written.is_err() {
        let _ = fs::remove_file(&draft); // half an index is none
    }
    let lines = written?;
    fs::rename(&draft, &path)?;
    Ok(lines)
}

fn write(file: File, of: &Of, cipher: &ChaCha20Poly1305, replay: Replay) -> Result<u64, IndexError> {
    let head = encode(of)?;
    let mut out = Writer { out: BufWriter::new(file), cipher, first: Sha256::digest(&head).into(), seq: 0 };
    out.out.write_all(&head)?;
    let (mut sieve, mut block, mut lines) = (Sieve::new(), Vec::new(), 0_u64);
    for line in Lines::new(replay, ALL.into(), |_: &str| true) {
        let line = line?;
        line.texts.iter().for_each(|text| sieve.add(text));
        serde_json::to_writer(&mut block, &line).map_err(io::Error::from)?;
        block.push(b'\n');
        lines += 1;
        if block.len() >= BLOCK {
            out.block(&std::mem::replace(&mut sieve, Sieve::new()), &std::mem::take(&mut block))?;
        }
    }
    out.block(&sieve, &block)?;
    out.part(Part::End, &lines.to_be_bytes())?;
    out.out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(lines)
}

/// What is found of these kinds that `matches`, from the index of this recording. `parts`: one of these is in whatever
/// matches, large or small letters; none: that is not known, and nothing can be passed over.
pub fn search(
    recording: &Path,
    identities: &Identities,
    kinds: &BTreeSet<Kind>,
    parts: Option<&[String]>,
    matches: &impl Fn(&str) -> bool,
) -> Result<Vec<Hit>, IndexError> {
    let mut reader = Reader::open(recording, identities)?;
    let (mut hits, mut passes) = (Vec::new(), true);
    loop {
        match reader.next(passes)? {
            (Part::Sieve, bytes) => {
                let sieve = Sieve::from_bytes(bytes).ok_or(IndexError::Damaged("a sieve has another size"))?;
                passes = parts.is_none_or(|parts| parts.iter().any(|part| sieve.passes(part)));
            }
            (Part::Lines, bytes) if passes => {
                for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    let line: Line = serde_json::from_slice(line).map_err(|_| IndexError::Damaged("a line is none"))?;
                    hits.extend(line.is_wanted(kinds, matches).then(|| line.hit()));
                }
            }
            (Part::Lines, _) => passes = true,
            (Part::End, _) => return Ok(hits),
        }
    }
}

/// Whether there is an index of this recording as it is now. It may still turn out to be damaged, or for another key.
pub fn is_fresh(recording: &Path) -> bool {
    File::open(path_of(recording))
        .map_err(IndexError::from)
        .and_then(|file| of(&mut BufReader::new(file), recording))
        .is_ok()
}

struct Writer<'a> {
    out: BufWriter<File>,
    cipher: &'a ChaCha20Poly1305,
    first: Hash,
    seq: u64,
}

impl Writer<'_> {
    fn block(&mut self, sieve: &Sieve, lines: &[u8]) -> io::Result<()> {
        self.part(Part::Sieve, &zstd::bulk::compress(sieve.bytes(), LEVEL)?)?;
        self.part(Part::Lines, &zstd::bulk::compress(lines, LEVEL)?)
    }

    fn part(&mut self, part: Part, plain: &[u8]) -> io::Result<()> {
        let mut sealed = plain.to_vec();
        let data = associated(&self.first, part);
        let tag = self.cipher.encrypt_inout_detached(&nonce(self.seq), &data, sealed.as_mut_slice().into());
        let tag = tag.map_err(|_| io::Error::other("it cannot be sealed"))?;
        self.seq += 1;
        let length = u32::try_from(sealed.len() + TAG).map_err(io::Error::other)?;
        self.out.write_all(&[part.code()])?;
        self.out.write_all(&length.to_be_bytes())?;
        self.out.write_all(&sealed)?;
        self.out.write_all(&tag)
    }
}

struct Reader {
    file: BufReader<File>,
    cipher: ChaCha20Poly1305,
    first: Hash,
    seq: u64,
}

impl Reader {
    fn open(recording: &Path, identities: &Identities) -> Result<Self, IndexError> {
        let mut file = match File::open(path_of(recording)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(IndexError::Missing),
            other => BufReader::new(other?),
        };
        let (of, first) = of(&mut file, recording)?;
        Ok(Self { file, cipher: cipher(recording, identities, &of)?, first, seq: 0 })
    }

    /// The next part; lines that are not `wanted` stay sealed, and come back empty.
    fn next(&mut self, wanted: bool) -> Result<(Part, Vec<u8>), IndexError> {
        let mut head = [0; 5];
        self.file.read_exact(&mut head).map_err(|_| IndexError::Damaged("it has no end"))?;
        let [code, length @ ..] = head;
        let part = [Part::Sieve, Part::Lines, Part::End].into_iter().find(|part| part.code() == code);
        let part = part.ok_or(IndexError::Damaged("a part of it is of no kind"))?;
        let length = u32::from_be_bytes(length);
        let seq = self.seq;
        self.seq += 1;
        if part == Part::Lines && !wanted {
            self.file.seek_relative(length.into())?;
            return Ok((part, Vec::new()));
        }
        let mut sealed = Vec::new();
        self.file.by_ref().take(length.into()).read_to_end(&mut sealed)?;
        let opened = sealed.split_last_chunk::<TAG>().filter(|_| Some(sealed.len()) == usize::try_from(length).ok());
        let (text, tag) = opened.ok_or(IndexError::Damaged("it has no end"))?;
        let mut text = text.to_vec();
        let data = associated(&self.first, part);
        self.cipher
            .decrypt_inout_detached(&nonce(seq), &data, text.as_mut_slice().into(), &Tag::from(*tag))
            .map_err(|_| IndexError::Damaged("a part of it does not open under its key"))?;
        Ok((part, if part == Part::End { text } else { unpack(&text)? }))
    }
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, IndexError> {
    let mut plain = Vec::new();
    let read = zstd::stream::read::Decoder::new(packed).and_then(|it| it.take(MOST).read_to_end(&mut plain));
    read.map_err(|_| IndexError::Damaged("a part of it does not unpack"))?;
    Ok(plain)
}

fn encode(of: &Of) -> Result<Vec<u8>, IndexError> {
    let json = serde_json::to_vec(of).map_err(io::Error::from)?;
    let length = u32::try_from(json.len()).ok().filter(|length| *length <= MAX_JSON);
    let length = length.ok_or_else(|| io::Error::other("its header is too long"))?;
    Ok([&MAGIC[..], &VERSION.to_be_bytes(), &length.to_be_bytes(), &json].concat())
}

/// What an index says that it is of, if that is this recording as it is now; and the hash that its parts are bound to.
fn of(file: &mut impl Read, recording: &Path) -> Result<(Of, Hash), IndexError> {
    let mut head = Vec::new();
    file.take(14).read_to_end(&mut head)?;
    let known = head.starts_with(&[&MAGIC[..], &VERSION.to_be_bytes()].concat());
    let length = head.last_chunk::<4>().copied().map(u32::from_be_bytes).filter(|length| *length <= MAX_JSON);
    let length = length.filter(|_| known && head.len() == 14).ok_or(IndexError::Damaged("it begins as none does"))?;
    file.take(length.into()).read_to_end(&mut head)?;
    let said: Of = serde_json::from_slice(head.get(14..).unwrap_or_default())
        .map_err(|_| IndexError::Damaged("it does not say of what it is"))?;
    let (is, _) = look(recording)?;
    if (Of { salt: said.salt.clone(), ..is }) != said {
        return Err(IndexError::Stale);
    }
    Ok((said, Sha256::digest(&head).into()))
}

/// What an index of this recording has to say, but for the salt; and whether the recording goes on.
fn look(recording: &Path) -> Result<(Of, bool), IndexError> {
    let file = File::open(recording)?;
    let live = storage::is_live(&file)?;
    let bytes = file.metadata()?.len();
    let mut reader = BufReader::new(file);
    let session = Preamble::read(&mut reader)?.preamble.header.session;
    let mut last = Vec::with_capacity(HASH);
    reader.seek(SeekFrom::Start(bytes.saturating_sub(HASH as u64)))?;
    reader.take(HASH as u64).read_to_end(&mut last)?;
    Ok((Of { session, bytes, last: hex(&last), salt: String::new() }, live))
}

/// The key of an index follows from the recording's main key, and serves it alone.
fn cipher(recording: &Path, identities: &Identities, of: &Of) -> Result<ChaCha20Poly1305, IndexError> {
    let opening = Preamble::read(&mut BufReader::new(File::open(recording)?))?;
    let main = identities.data_key(&opening.preamble.main_key)?;
    Ok(main.derive(b"tidegate index v1\0", of.salt.as_bytes()).cipher())
}

fn associated(first: &Hash, part: Part) -> Vec<u8> {
    [&first[..], &[part.code()]].concat()
}
