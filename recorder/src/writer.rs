//! Puts events into frames, and frames onto the disk: the single-threaded inside of a live recording.
//!
//! What always holds: one call of [`Writer::append`] is one `write(2)`; the buffer holds plaintext only within a call (what
//! compresses the main records remembers its last 128 KiB); once a write has failed nothing is added any more, so a torn
//! tail stays the end of its file. Memory is one call's bytes, that window, and a digest per open stream, of which there
//! is a bound.

use crate::{
    Event, Keep, RecordError, Stream,
    frame::{self, CHECK, HASH, HEAD, Hash, Head, Kind, MAX_PAYLOAD, TAG, TICK},
    packed::{self, Packer},
    records::{self, CONTENT, CONTENT_PREFIX, COUNTED, EVENT, EVENT_PART, MAX_EVENT, PREFIX, TOTAL},
    seal::{self, FIGURES, SIGNATURE, SealKey, Totals},
    storage::Disk,
};
use bytes::Bytes;
use chacha20poly1305::ChaCha20Poly1305;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use zeroize::Zeroize;

/// A checkpoint is due after so many bytes,
const CHECKPOINT_BYTES: usize = 64 * 1024;
/// or so long, since the last: with the tick that comes next, what was written is signed within 5 s;
pub(crate) const CHECKPOINT_EVERY: Duration = Duration::from_millis(2500);
const _: () = assert!(CHECKPOINT_EVERY.as_millis() * 2 <= 5000);
/// and in silence so long: a recording that breaks off says how long its session was there.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(60);
/// Streams open at once. A proxy allows far fewer channels.
const MAX_STREAMS: usize = 4096;
/// The most content in one record.
const MAX_CONTENT: usize = 256 * 1024;
/// A frame takes no further record beyond this. An event's size is known only afterwards, so there is room for one.
const FULL: usize = MAX_PAYLOAD - TAG - packed::OVERHEAD - PREFIX - CONTENT_PREFIX - MAX_CONTENT;
/// A buffer that grew beyond this for one call is given back.
const KEPT_BUFFER: usize = 512 * 1024;
/// A session is idle when it has recorded nothing for so long.
const IDLE: Duration = Duration::from_secs(5);

/// What a writer is made of.
pub(crate) struct Parts {
    pub(crate) file: Box<dyn Disk>,
    pub(crate) preamble: Vec<u8>,
    pub(crate) session: String,
    pub(crate) main: ChaCha20Poly1305,
    pub(crate) keystrokes: ChaCha20Poly1305,
    pub(crate) signer: Arc<dyn SealKey>,
    pub(crate) stream_limit: u64,
    pub(crate) fsync: bool,
}

/// See the module.
pub(crate) struct Writer {
    file: Box<dyn Disk>,
    session: String,
    main: ChaCha20Poly1305,
    keystrokes: ChaCha20Poly1305,
    signer: Arc<dyn SealKey>,
    packer: Packer,
    /// When it was used last.
    packed_at: Duration,
    stream_limit: u64,
    fsync: bool,

    began: Instant,
    first: Hash,
    chain: Hash,
    /// Of the last frame.
    last: Head,
    totals: Totals,
    written: u64,
    /// Bytes written since the last signature.
    unsigned: usize,
    /// Where in `out` the last signed frame ends, if one is in it.
    signed_to: Option<usize>,
    signed_at: Duration,
    streams: BTreeMap<(u32, Stream), Digested>,
    /// Streams of which bytes were counted in this call.
    counted: Vec<(u32, Stream)>,
    out: Vec<u8>,
    /// The frame at the end of `out` that takes more records.
    open: Option<Open>,
}

/// A stream's account.
struct Digested {
    digest: Sha256,
    total: u64,
    kept: u64,
    /// Bytes counted in this call.
    fresh: u64,
    keep: Keep,
}

struct Open {
    at: usize,
    kind: Kind,
}

/// When a call happened.
#[derive(Clone, Copy)]
struct Moment {
    elapsed: Duration,
    wall: i64,
}

impl Writer {
    /// Writes preamble and first checkpoint.
    pub(crate) fn begin(parts: Parts, now: Timestamp) -> Result<Self, RecordError> {
        let first: Hash = Sha256::digest(&parts.preamble).into();
        let mut writer = Self {
            file: parts.file,
            session: parts.session,
            main: parts.main,
            keystrokes: parts.keystrokes,
            signer: parts.signer,
            packer: Packer::default(),
            packed_at: Duration::ZERO,
            stream_limit: parts.stream_limit,
            fsync: parts.fsync,
            began: Instant::now(),
            first,
            chain: first,
            last: Head::default(),
            totals: Totals { frames: 0, records: 0, stream_bytes: 0, streams: 0 },
            written: 0,
            unsigned: 0,
            signed_to: None,
            signed_at: Duration::ZERO,
            streams: BTreeMap::new(),
            counted: Vec::new(),
            out: parts.preamble,
            open: None,
        };
        let moment = writer.moment(now)?;
        writer.sign(Kind::Checkpoint, moment)?;
        writer.write()?;
        Ok(writer)
    }

    /// Frames of these events in one write, with a checkpoint if one is due.
    pub(crate) fn append(&mut self, events: &[Event], now: Timestamp) -> Result<(), RecordError> {
        if events.is_empty() {
            return Ok(());
        }
        let moment = self.moment(now)?;
        for event in events {
            match event {
                Event::Data { channel, stream, keep, data } => self.data((*channel, *stream), *keep, data, moment)?,
                Event::Closed { channel, .. } => {
                    self.count(moment)?;
                    self.event(event, moment)?;
                    self.total(|place| place.0 == *channel, moment)?;
                }
                Event::Eof { channel, stream } => {
                    self.count(moment)?;
                    self.event(event, moment)?;
                    self.total(|place| *place == (*channel, *stream), moment)?;
                }
                other => self.event(other, moment)?,
            }
        }
        self.count(moment)?;
        self.close_frame(moment)?;
        if self.is_due(moment) {
            self.sign(Kind::Checkpoint, moment)?;
        }
        self.write()
    }

    /// A checkpoint, if one is due. Of a session in which nothing happens, nothing is held that can be made again.
    pub(crate) fn tick(&mut self, now: Timestamp) -> Result<(), RecordError> {
        let moment = self.moment(now)?;
        if moment.elapsed.saturating_sub(self.packed_at) >= IDLE {
            self.packer.rest();
            self.out.shrink_to_fit();
        }
        if !self.is_due(moment) {
            return Ok(());
        }
        self.sign(Kind::Checkpoint, moment)?;
        self.write()
    }

    /// Totals of the open streams and the signed end, on disk.
    pub(crate) fn end(&mut self, now: Timestamp) -> Result<(), RecordError> {
        let moment = self.moment(now)?;
        self.total(|_| true, moment)?;
        self.close_frame(moment)?;
        self.sign(Kind::End, moment)?;
        self.write()?;
        self.file.sync().map_err(not_written)
    }

    /// Frames, bytes and the last hash so far.
    pub(crate) fn figures(&self) -> (u64, u64, Hash) {
        (self.totals.frames, self.written, self.chain)
    }

    /// From now on the disk is this one.
    #[cfg(test)]
    pub(crate) fn move_to(&mut self, file: std::fs::File) {
        self.file = Box::new(file);
    }

    fn moment(&self, now: Timestamp) -> Result<Moment, RecordError> {
        // In whole ticks, so that frames can be short.
        let tick = i64::try_from(TICK).unwrap_or(1);
        let wall = i64::try_from(now.as_nanosecond())
            .map_err(|_| RecordError::Write(format!("a clock that shows {now} cannot be recorded")))?;
        let elapsed = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Ok(Moment { elapsed: Duration::from_nanos(elapsed - elapsed % TICK), wall: wall - wall % tick })
    }

    fn is_due(&self, moment: Moment) -> bool {
        let unsigned = self.unsigned + self.out.len();
        let since = moment.elapsed - self.signed_at;
        unsigned >= CHECKPOINT_BYTES || since >= if unsigned > 0 { CHECKPOINT_EVERY } else { HEARTBEAT_EVERY }
    }

    // ---- records

    fn event(&mut self, event: &Event, moment: Moment) -> Result<(), RecordError> {
        self.frame_for(Kind::Main, 256, moment)?;
        let at = self.out.len();
        self.prefix(EVENT, 0)?;
        serde_json::to_writer(&mut self.out, event).map_err(|error| RecordError::Write(error.to_string()))?;
        let length = self.out.len() - at - PREFIX;
        if length > MAX_CONTENT {
            return self.long_event(at, moment);
        }
        self.set_length(at + 1, length)
    }

    /// An event that is cut over several records. Rare, so it may copy.
    fn long_event(&mut self, at: usize, moment: Moment) -> Result<(), RecordError> {
        let json = self.out.split_off(at + PREFIX);
        self.out.truncate(at);
        self.totals.records -= 1;
        if json.len() > MAX_EVENT {
            return Err(RecordError::Write(format!("an event of {} bytes is more than it takes", json.len())));
        }
        let mut parts = json.chunks(MAX_CONTENT).peekable();
        while let Some(part) = parts.next() {
            let tag = if parts.peek().is_some() { EVENT_PART } else { EVENT };
            self.frame_for(Kind::Main, part.len(), moment)?;
            self.prefix(tag, part.len())?;
            self.out.extend_from_slice(part);
        }
        Ok(())
    }

    fn data(&mut self, place: (u32, Stream), keep: Keep, data: &Bytes, moment: Moment) -> Result<(), RecordError> {
        if !self.streams.contains_key(&place) {
            if self.streams.len() >= MAX_STREAMS {
                return Err(RecordError::Write("too many streams are open in this session".to_owned()));
            }
            self.totals.streams += 1;
            let fresh = Digested { digest: Sha256::new(), total: 0, kept: 0, fresh: 0, keep };
            self.streams.insert(place, fresh);
        }
        let Some(account) = self.streams.get_mut(&place) else { return Ok(()) };
        let room = match keep {
            Keep::Whole => u64::MAX,
            Keep::UpToLimit => self.stream_limit.saturating_sub(account.kept),
            Keep::Count => 0,
        };
        let kept = usize::try_from(room).unwrap_or(usize::MAX).min(data.len());
        let (content, rest) = data.split_at(kept);
        account.digest.update(data);
        account.total += data.len() as u64;
        account.kept += content.len() as u64;
        account.keep = keep;
        self.totals.stream_bytes += data.len() as u64;
        if !rest.is_empty() {
            if account.fresh == 0 {
                self.counted.push(place);
            }
            account.fresh += rest.len() as u64;
        }
        for piece in content.chunks(MAX_CONTENT) {
            self.frame_for(kind_of(place.1), piece.len(), moment)?;
            self.prefix(CONTENT, CONTENT_PREFIX + piece.len())?;
            self.place(place);
            self.out.push(records::keep_code(keep));
            self.out.extend_from_slice(piece);
        }
        Ok(())
    }

    /// One record per stream for all the bytes that this call counts.
    fn count(&mut self, moment: Moment) -> Result<(), RecordError> {
        while let Some(place) = self.counted.pop() {
            let Some(account) = self.streams.get_mut(&place) else { continue };
            let (bytes, total, keep) = (std::mem::take(&mut account.fresh), account.total, account.keep);
            let digest: Hash = account.digest.clone().finalize().into();
            self.frame_for(kind_of(place.1), 64, moment)?;
            self.prefix(COUNTED, 6 + 8 + 8 + HASH)?;
            self.place(place);
            self.out.push(records::keep_code(keep));
            self.out.extend_from_slice(&bytes.to_be_bytes());
            self.out.extend_from_slice(&total.to_be_bytes());
            self.out.extend_from_slice(&digest);
        }
        Ok(())
    }

    /// The totals of these streams. Their accounts are closed.
    fn total(&mut self, which: impl Fn(&(u32, Stream)) -> bool, moment: Moment) -> Result<(), RecordError> {
        let ended: Vec<_> = self.streams.extract_if(.., |place, _| which(place)).collect();
        for (place, account) in ended {
            let digest: Hash = account.digest.finalize().into();
            self.frame_for(kind_of(place.1), 64, moment)?;
            self.prefix(TOTAL, 5 + 8 + 8 + HASH)?;
            self.place(place);
            self.out.extend_from_slice(&account.total.to_be_bytes());
            self.out.extend_from_slice(&account.kept.to_be_bytes());
            self.out.extend_from_slice(&digest);
        }
        Ok(())
    }

    fn prefix(&mut self, tag: u8, length: usize) -> Result<(), RecordError> {
        self.totals.records += 1;
        self.out.push(tag);
        self.out.extend_from_slice(&[0; 4]);
        self.set_length(self.out.len() - 4, length)
    }

    fn set_length(&mut self, at: usize, length: usize) -> Result<(), RecordError> {
        let bytes = u32::try_from(length).map_err(|_| RecordError::Failed)?.to_be_bytes();
        let place = self.out.get_mut(at..at + 4).ok_or(RecordError::Failed)?;
        place.copy_from_slice(&bytes);
        Ok(())
    }

    fn place(&mut self, (channel, stream): (u32, Stream)) {
        self.out.extend_from_slice(&channel.to_be_bytes());
        self.out.push(records::stream_code(stream));
    }

    // ---- frames

    /// Sees to it that an open frame of this kind has room for `more` bytes.
    fn frame_for(&mut self, kind: Kind, more: usize, moment: Moment) -> Result<(), RecordError> {
        if let Some(open) = &self.open {
            let payload = self.out.len() - open.at - HEAD;
            if open.kind == kind && payload + more <= FULL {
                return Ok(());
            }
            self.close_frame(moment)?;
        }
        self.open = Some(Open { at: self.out.len(), kind });
        self.out.extend_from_slice(&[0; HEAD]);
        Ok(())
    }

    /// Seals the open frame and puts it into the chain.
    fn close_frame(&mut self, moment: Moment) -> Result<(), RecordError> {
        let Some(Open { at, kind }) = self.open.take() else { return Ok(()) };
        let head = self.head(kind, moment);
        if kind == Kind::Main {
            self.pack(at + HEAD)?;
            self.packed_at = moment.elapsed;
        }
        let payload = self.out.len() - at - HEAD;
        let bytes = head.encode(payload + TAG).ok_or(RecordError::Failed)?;
        let cipher = if kind == Kind::Keystrokes { &self.keystrokes } else { &self.main };
        let text = self.out.get_mut(at + HEAD..).ok_or(RecordError::Failed)?;
        let tag = frame::seal_payload(cipher, &self.first, &bytes, head.seq, text).ok_or(RecordError::Failed)?;
        self.out.extend_from_slice(&tag);
        let sealed = self.out.get(at + HEAD..).ok_or(RecordError::Failed)?;
        self.chain = frame::link(&self.chain, &bytes, sealed);
        let short = head.short(&self.last, payload + TAG);
        let (begins, hash) = short.as_ref().map_or((&bytes[..], HASH), |short| (&short[..], CHECK));
        drop(self.out.splice(at..at + HEAD, begins.iter().copied()));
        self.out.extend_from_slice(self.chain.get(..hash).unwrap_or_default());
        self.last = head;
        Ok(())
    }

    /// Compresses the open frame's records where they are.
    fn pack(&mut self, at: usize) -> Result<(), RecordError> {
        let plain = self.out.get_mut(at..).ok_or(RecordError::Failed)?;
        let packed = self.packer.pack(plain).map_err(not_written)?;
        plain.zeroize();
        self.out.truncate(at);
        self.out.extend_from_slice(&packed);
        Ok(())
    }

    fn sign(&mut self, kind: Kind, moment: Moment) -> Result<(), RecordError> {
        let head = self.head(kind, moment);
        let figures = if kind == Kind::End { self.totals.encode().to_vec() } else { Vec::new() };
        let bytes = head.encode(figures.len() + SIGNATURE).ok_or(RecordError::Failed)?;
        let message = seal::message(kind, &self.session, &self.chain, &bytes, &figures).ok_or(RecordError::Failed)?;
        let signature = self.signer.try_sign(&message).map_err(|error| RecordError::Write(error.to_string()))?;
        let payload = [figures.as_slice(), &signature.to_bytes()].concat();
        self.chain = frame::link(&self.chain, &bytes, &payload);
        for part in [&bytes[..], &payload, &self.chain] {
            self.out.extend_from_slice(part);
        }
        self.last = head;
        self.signed_to = Some(self.out.len());
        self.signed_at = moment.elapsed;
        Ok(())
    }

    fn head(&mut self, kind: Kind, moment: Moment) -> Head {
        self.totals.frames += 1;
        let elapsed = u64::try_from(moment.elapsed.as_nanos()).unwrap_or(u64::MAX);
        Head { kind, seq: self.totals.frames, elapsed, wall: moment.wall }
    }

    fn write(&mut self) -> Result<(), RecordError> {
        self.file.append(&self.out).map_err(not_written)?;
        if self.fsync {
            self.file.sync().map_err(not_written)?;
        }
        self.written += self.out.len() as u64;
        self.unsigned = match self.signed_to.take() {
            Some(end) => self.out.len() - end,
            None => self.unsigned + self.out.len(),
        };
        self.out.clear();
        self.out.shrink_to(KEPT_BUFFER);
        Ok(())
    }
}

impl Drop for Writer {
    /// A call that failed half-way may have left plaintext.
    fn drop(&mut self) {
        self.out.zeroize();
    }
}

fn not_written(error: std::io::Error) -> RecordError {
    RecordError::Write(error.to_string())
}

/// Which key seals a stream.
fn kind_of(stream: Stream) -> Kind {
    match stream {
        Stream::Stdin => Kind::Keystrokes,
        _ => Kind::Main,
    }
}

const _: () = assert!(FULL > 2 * MAX_CONTENT && FIGURES == 32);
