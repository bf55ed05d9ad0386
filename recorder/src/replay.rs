//! Reading: what happened, in order, for an auditor who holds a key.
//!
//! What always holds: nothing is yielded from a frame that does not follow from the one before or does not open under
//! its key; the last moment is [`What::End`] or [`What::Truncated`], so that no reader can take a part for the whole.
//! Signatures are the business of [`verify`](crate::verify::verify). Memory is one frame's records.

use crate::{
    Event, Header, Stream,
    frame::{Frame, Frames, Hash, Kind, MAX_PAYLOAD, Next},
    keys::{DataKey, Identities},
    packed::Unpacker,
    preamble::{Opening, Preamble, Version},
    records::{self, Record},
    sent::Sent,
    storage,
    verify::{Chain, ReadError},
};
use chacha20poly1305::ChaCha20Poly1305;
use jiff::Timestamp;
use std::{
    collections::VecDeque,
    fmt,
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
    time::Duration,
};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Moment {
    /// Number of its frame.
    pub frame: u64,
    /// Since the recording began, on the monotonic clock.
    pub elapsed: Duration,
    /// On the wall clock.
    pub at: Timestamp,
    /// Of a result or an error: since what it answers was sent, so with its time in the queue behind what was sent before.
    pub took: Option<Duration>,
    /// What.
    pub what: What,
}

/// What happened, as far as it was kept and this auditor may see it.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// An event; [`Event::Data`] with the bytes that were kept.
    Event(Event),
    /// Bytes that were counted and digested, not kept.
    Counted {
        /// Channel.
        channel: u32,
        /// Which way.
        stream: Stream,
        /// How many.
        bytes: u64,
        /// All bytes of the stream so far, kept or not.
        total: u64,
        /// SHA-256 of those.
        digest: Hash,
    },
    /// A stream is over.
    Total {
        /// Channel.
        channel: u32,
        /// Which way.
        stream: Stream,
        /// All its bytes.
        total: u64,
        /// Of which the content was kept.
        kept: u64,
        /// SHA-256 of all.
        digest: Hash,
    },
    /// Keystrokes that were not asked for, or that these identities do not open.
    Withheld {
        /// Sealed bytes.
        bytes: u64,
    },
    /// The end of a whole recording.
    End,
    /// The recording breaks off.
    Truncated {
        /// The last whole frame.
        after: u64,
    },
}

/// A recording being read: an iterator over [`Moment`]s. After an error it ends.
pub struct Replay<R = BufReader<File>> {
    bytes: R,
    header: Header,
    first: Hash,
    frames: Frames,
    chain: Chain,
    main: ChaCha20Poly1305,
    keystrokes: Option<ChaCha20Poly1305>,
    main_records: records::Reader,
    keystroke_records: records::Reader,
    /// Of main records, since version 2.
    unpacker: Option<Unpacker>,
    ready: VecDeque<Moment>,
    sent: Sent,
    /// Of the last frame.
    now: (Duration, Timestamp),
    over: bool,
}

impl<R> fmt::Debug for Replay<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("header", &self.header).field("chain", &self.chain).finish_non_exhaustive()
    }
}

/// Opens a recording's file. `keystrokes`: also what the person typed, passwords included.
pub fn open(path: &Path, identities: &Identities, keystrokes: bool) -> Result<Replay, ReadError> {
    Replay::from_reader(BufReader::new(File::open(path)?), identities, keystrokes)
}

/// Opens a recording's file with the key that its window keeps: all but keystrokes.
pub(crate) fn open_with(path: &Path, key: &DataKey) -> Result<Replay, ReadError> {
    let mut bytes = BufReader::new(File::open(path)?);
    let opening = Preamble::read(&mut bytes)?;
    Replay::begin(bytes, opening, key.cipher(), None)
}

/// A recording's file whose keys were unwrapped: it can be opened as often as one likes, and by other threads.
#[derive(Clone)]
pub struct Reel {
    path: PathBuf,
    main: ChaCha20Poly1305,
    keystrokes: Option<ChaCha20Poly1305>,
}

impl fmt::Debug for Reel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reel").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Reel {
    /// `keystrokes`: also what the person typed, passwords included, if these identities open it.
    pub fn new(path: &Path, identities: &Identities, keystrokes: bool) -> Result<Self, ReadError> {
        let Replay { main, keystrokes, .. } = open(path, identities, keystrokes)?;
        Ok(Self { path: path.to_owned(), main, keystrokes })
    }

    /// From its beginning.
    pub fn open(&self) -> Result<Replay, ReadError> {
        let mut bytes = BufReader::new(File::open(&self.path)?);
        let opening = Preamble::read(&mut bytes)?;
        Replay::begin(bytes, opening, self.main.clone(), self.keystrokes.clone())
    }

    /// Whether it shows what was typed.
    pub fn shows_keystrokes(&self) -> bool {
        self.keystrokes.is_some()
    }
}

impl<R: Read> Replay<R> {
    /// Opens a recording's bytes.
    pub fn from_reader(mut bytes: R, identities: &Identities, keystrokes: bool) -> Result<Self, ReadError> {
        let opening = Preamble::read(&mut bytes)?;
        let main = identities.unwrap(&opening.preamble.main_key)?;
        let keystrokes = if keystrokes { identities.unwrap(&opening.preamble.keystroke_key).ok() } else { None };
        Self::begin(bytes, opening, main, keystrokes)
    }

    fn begin(
        bytes: R,
        opening: Opening,
        main: ChaCha20Poly1305,
        keystrokes: Option<ChaCha20Poly1305>,
    ) -> Result<Self, ReadError> {
        let frames = opening.frames();
        let Opening { preamble: Preamble { header, .. }, version, first, .. } = opening;
        let unpacker = if version >= Version::Two { Some(Unpacker::new()?) } else { None };
        Ok(Self {
            bytes,
            now: (Duration::ZERO, header.start),
            header,
            first,
            frames,
            chain: Chain::new(first),
            main,
            keystrokes,
            main_records: records::Reader::default(),
            keystroke_records: records::Reader::default(),
            unpacker,
            ready: VecDeque::new(),
            sent: Sent::default(),
            over: false,
        })
    }

    /// What the recording says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    fn last(&mut self, what: What) -> Moment {
        self.over = true;
        self.moment(what)
    }

    fn moment(&mut self, what: What) -> Moment {
        let took = if let What::Event(event) = &what { self.sent.took(event, self.now.0) } else { None };
        Moment { frame: self.chain.frames, elapsed: self.now.0, at: self.now.1, took, what }
    }

    /// Takes in the next frame. The last moment comes back; others go to `ready`.
    fn advance(&mut self) -> Result<Option<Moment>, ReadError> {
        let number = self.chain.frames + 1;
        let fault = |fault: &dyn fmt::Display| ReadError::Frame { frame: number, fault: fault.to_string() };
        let frame = match self.frames.read(&mut self.bytes)? {
            Next::Frame(frame) => frame,
            Next::Nothing | Next::Torn(_) => {
                return Ok(Some(self.last(What::Truncated { after: self.chain.frames })));
            }
            Next::Malformed(malformed) => return Err(fault(&malformed)),
        };
        let hash = self.chain.check(&frame).map_err(|error| fault(&error))?;
        self.chain.accept(&frame, hash);
        let at = storage::timestamp(frame.head.wall).ok_or_else(|| fault(&"its time is outside the calendar"))?;
        self.now = (Duration::from_nanos(frame.head.elapsed), at);
        match frame.head.kind {
            Kind::Checkpoint => {}
            Kind::End => return Ok(Some(self.last(What::End))),
            Kind::Main | Kind::Keystrokes => self.take_in(&frame).map_err(|error| fault(&error))?,
        }
        Ok(None)
    }

    fn take_in(&mut self, frame: &Frame) -> Result<(), &'static str> {
        let (cipher, reader) = match (frame.head.kind, &self.keystrokes) {
            (Kind::Keystrokes, Some(cipher)) => (cipher, &mut self.keystroke_records),
            (Kind::Keystrokes, None) => {
                let bytes = frame.payload().len() as u64;
                let moment = self.moment(What::Withheld { bytes });
                self.ready.push_back(moment);
                return Ok(());
            }
            _ => (&self.main, &mut self.main_records),
        };
        let mut text = frame.open(cipher, &self.first).ok_or("it does not open under its key")?;
        if let (Kind::Main, Some(unpacker)) = (frame.head.kind, &mut self.unpacker) {
            text = unpacker.unpack(&text, MAX_PAYLOAD)?;
        }
        for record in reader.read(text)? {
            let what = match record {
                Record::Event(event) => What::Event(event),
                Record::Counted { channel, stream, bytes, total, digest } => {
                    What::Counted { channel, stream, bytes, total, digest }
                }
                Record::Total { channel, stream, total, kept, digest } => {
                    What::Total { channel, stream, total, kept, digest }
                }
            };
            let moment = self.moment(what);
            self.ready.push_back(moment);
        }
        Ok(())
    }
}

impl<R: Read> Iterator for Replay<R> {
    type Item = Result<Moment, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(moment) = self.ready.pop_front() {
                return Some(Ok(moment));
            }
            if self.over {
                return None;
            }
            match self.advance() {
                Ok(None) => {}
                Ok(Some(last)) => return Some(Ok(last)),
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
        }
    }
}
