//! Messages of the PostgreSQL protocol, as they come: a type byte, a length, a body (PostgreSQL chapter 55.7).
//!
//! Sans-IO. The framer walks a buffer that its owner fills and empties. What always holds: nothing is allocated for a
//! length that a peer claims, and what is released for forwarding ends where a message ends, unless the message is
//! larger than [`HOLD`]. So the gateway can put a message of its own between two of the peer's, and a parser of
//! ordinary messages sees them whole.

/// Messages up to this size wait until they are whole; larger ones go through in pieces.
pub(super) const HOLD: usize = 16 * 1024;
/// Type byte and length.
const HEADER: usize = 5;
/// PostgreSQL's own limit for messages that carry data (`PQ_LARGE_MESSAGE_LIMIT`).
const LARGE: u32 = 0x3fff_fffe;
/// PostgreSQL's own limit for the others (`PQ_SMALL_MESSAGE_LIMIT`).
const SMALL: u32 = 10_000;

/// Who sends: decides which types may come, and how large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// A logged-in client.
    Client,
    /// The target, until its first ReadyForQuery.
    TargetStarting,
    /// The target, after its start-up.
    Target,
}

impl Sender {
    /// The largest length word of this type, or why the type may not come at all.
    fn limit(self, tag: u8) -> Result<u32, FrameError> {
        match (self, tag) {
            (Self::Client, b'Q' | b'P' | b'B' | b'F' | b'd') => Ok(LARGE),
            (Self::Client, b'E' | b'D' | b'C' | b'S' | b'H' | b'X' | b'c' | b'f') => Ok(SMALL),
            (Self::Client, b'p') => Err(FrameError::Authentication),
            (Self::TargetStarting, b'R' | b'S' | b'K' | b'N' | b'E' | b'Z' | b'v') => Ok(SMALL),
            // Error and notice texts quote data, so they are as large as data.
            (Self::Target, b'D' | b'd' | b'E' | b'N' | b'A' | b'T' | b't' | b'V' | b'C' | b'S') => Ok(LARGE),
            (Self::Target, b'G' | b'H') => Ok(SMALL),
            (Self::Target, b'1' | b'2' | b'3' | b'I' | b'n' | b's' | b'c' | b'Z') => Ok(SMALL),
            (Self::Target, b'R' | b'K' | b'v') => Err(FrameError::Authentication),
            (_, b'W') => Err(FrameError::Replication),
            (_, tag) => Err(FrameError::Type(tag)),
        }
    }
}

/// The peer broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    /// No such message, or not from this side, or not now.
    #[error("a message of type 0x{0:02x} does not belong here")]
    Type(u8),
    /// Authentication is over.
    #[error("an authentication message came after authentication")]
    Authentication,
    /// Copy-both mode belongs to replication.
    #[error("replication is not carried")]
    Replication,
    /// Shorter than its own length word, or larger than PostgreSQL takes.
    #[error("a message of type 0x{tag:02x} claims a length of {length}")]
    Length {
        /// Its type.
        tag: u8,
        /// The length word.
        length: u32,
    },
}

/// A message, or a piece of one that is larger than [`HOLD`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece<'b> {
    /// The message's type.
    pub(super) tag: u8,
    /// Where `body` starts in the buffer.
    pub(super) at: usize,
    /// The body, or what is here of it.
    pub(super) body: &'b [u8],
    /// Nothing of this message came before.
    pub(super) first: bool,
    /// Nothing of it is still to come.
    pub(super) last: bool,
}

/// What one walk over the buffer found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Walk {
    /// This many bytes may be forwarded.
    pub(super) taken: usize,
    /// Behind them the peer broke the protocol.
    pub(super) fault: Option<FrameError>,
}

/// Whether to look at what comes behind a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Go {
    /// Yes.
    On,
    /// No: it was the last one.
    Stop,
}

/// Finds messages in a stream that comes in arbitrary pieces.
#[derive(Debug)]
pub(super) struct Framer {
    sender: Sender,
    /// Type and missing bytes of a large message that has begun.
    open: Option<(u8, usize)>,
}

impl Framer {
    pub(super) fn new(sender: Sender) -> Self {
        Self { sender, open: None }
    }

    /// Whether what has been released so far ends where a message ends.
    pub(super) fn between_messages(&self) -> bool {
        self.open.is_none()
    }

    /// Walks `buffer`, which starts where the last walk's `taken` ended, and shows each piece to `see`.
    pub(super) fn walk<'b>(&mut self, buffer: &'b [u8], mut see: impl FnMut(Piece<'b>) -> Go) -> Walk {
        let mut at = 0;
        loop {
            let rest = buffer.get(at..).unwrap_or_default();
            let piece = match self.piece(rest, at) {
                Ok(Some(piece)) => piece,
                Ok(None) => return Walk { taken: at, fault: None },
                Err(fault) => return Walk { taken: at, fault: Some(fault) },
            };
            at = piece.at + piece.body.len();
            if see(piece) == Go::Stop {
                return Walk { taken: at, fault: None };
            }
        }
    }

    /// The next piece at the start of `rest`, which lies at `at` in the buffer; none if more bytes are needed.
    fn piece<'b>(&mut self, rest: &'b [u8], at: usize) -> Result<Option<Piece<'b>>, FrameError> {
        if let Some((tag, missing)) = self.open {
            if rest.is_empty() {
                return Ok(None);
            }
            let body = rest.get(..missing).unwrap_or(rest);
            let last = body.len() == missing;
            self.open = (!last).then_some((tag, missing - body.len()));
            return Ok(Some(Piece { tag, at, body, first: false, last }));
        }
        let Some((tag, length)) = self.header(rest)? else { return Ok(None) };
        let behind = rest.get(HEADER..).unwrap_or_default();
        if let Some(body) = behind.get(..length) {
            return Ok(Some(Piece { tag, at: at + HEADER, body, first: true, last: true }));
        }
        if HEADER + length <= HOLD {
            return Ok(None);
        }
        self.open = Some((tag, length - behind.len()));
        Ok(Some(Piece { tag, at: at + HEADER, body: behind, first: true, last: false }))
    }

    /// Type and body length. The type is judged as soon as it is there.
    fn header(&self, rest: &[u8]) -> Result<Option<(u8, usize)>, FrameError> {
        let Some(&tag) = rest.first() else { return Ok(None) };
        let limit = self.sender.limit(tag)?;
        let Some(&word) = rest.get(1..).and_then(<[u8]>::first_chunk::<4>) else { return Ok(None) };
        let length = u32::from_be_bytes(word);
        let body = length.checked_sub(4).filter(|_| length <= limit).and_then(|body| usize::try_from(body).ok());
        body.map(|body| Some((tag, body))).ok_or(FrameError::Length { tag, length })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend((body.len() as u32 + 4).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    /// Feeds `stream` in pieces of `sizes`, as a relay would; returns the messages and all that was released.
    /// Tag and body.
    type Whole = (u8, Vec<u8>);

    fn feed(stream: &[u8], sizes: &[usize]) -> (Vec<Whole>, Vec<u8>, Option<FrameError>) {
        let (mut framer, mut buffer, mut released) = (Framer::new(Sender::Client), Vec::new(), Vec::new());
        let mut messages: Vec<(u8, Vec<u8>)> = Vec::new();
        let (mut left, mut sizes) = (stream, sizes.iter().cycle());
        loop {
            let size = (*sizes.next().unwrap()).clamp(1, 64 * 1024).min(left.len());
            buffer.extend(&left[..size]);
            left = &left[size..];
            let walk = framer.walk(&buffer, |piece| {
                if piece.first {
                    messages.push((piece.tag, Vec::new()));
                }
                messages.last_mut().unwrap().1.extend(piece.body);
                assert_eq!(piece.body, &buffer[piece.at..piece.at + piece.body.len()]);
                Go::On
            });
            released.extend(buffer.drain(..walk.taken));
            assert!(buffer.len() <= HOLD + 64 * 1024);
            if walk.fault.is_some() || left.is_empty() {
                return (messages, released, walk.fault);
            }
        }
    }

    fn any_message() -> impl Strategy<Value = (u8, Vec<u8>)> {
        let small = (prop::sample::select(b"QPBEDCSHdcfF".to_vec()), prop::collection::vec(any::<u8>(), 0..200));
        let large = (prop::sample::select(b"QPBd".to_vec()), prop::collection::vec(any::<u8>(), HOLD - 10..HOLD * 2));
        prop_oneof![8 => small, 1 => large]
    }

    proptest! {
        #[test]
        fn messages_are_the_same_at_every_split(
            messages in prop::collection::vec(any_message(), 0..12),
            sizes in prop::collection::vec(1usize..5000, 1..20),
        ) {
            let stream: Vec<u8> = messages.iter().flat_map(|(tag, body)| message(*tag, body)).collect();
            let (seen, released, fault) = feed(&stream, &sizes);
            prop_assert_eq!(fault, None);
            prop_assert_eq!(seen, messages);
            prop_assert_eq!(released, stream);
        }

        #[test]
        fn garbage_never_panics_and_never_grows(stream in prop::collection::vec(any::<u8>(), 0..3000), size in 1usize..50) {
            let (_, released, _) = feed(&stream, &[size]);
            prop_assert!(stream.starts_with(&released));
        }
    }

    #[test]
    fn every_single_byte_split_gives_the_same_messages() {
        let stream: Vec<u8> = [message(b'Q', b"select 1\0"), message(b'S', b""), message(b'X', b"")].concat();
        for cut in 1..stream.len() {
            let (messages, released, fault) = feed(&stream, &[cut, stream.len()]);
            assert_eq!((messages.len(), released == stream, fault), (3, true, None), "cut at {cut}");
        }
    }

    #[test]
    fn wrong_lengths_are_refused_behind_what_was_right() {
        for length in [0u32, 3, 0x4000_0000, 0x8000_0000, u32::MAX] {
            let mut stream = message(b'Q', b"select 1\0");
            let good = stream.len();
            stream.push(b'Q');
            stream.extend(length.to_be_bytes());
            let (messages, released, fault) = feed(&stream, &[7]);
            assert_eq!((messages.len(), released.len()), (1, good));
            assert_eq!(fault, Some(FrameError::Length { tag: b'Q', length }));
        }
        let (_, _, fault) = feed(&message(b'S', &[0; 20_000]), &[100]);
        assert_eq!(fault, Some(FrameError::Length { tag: b'S', length: 20_004 }));
    }

    #[test]
    fn types_of_other_phases_are_refused() {
        let fault = |sender, tag| Framer::new(sender).walk(&message(tag, b""), |_| Go::On).fault;
        assert_eq!(fault(Sender::Client, b'p'), Some(FrameError::Authentication));
        assert_eq!(fault(Sender::Client, b'Z'), Some(FrameError::Type(b'Z')));
        assert_eq!(fault(Sender::Target, b'R'), Some(FrameError::Authentication));
        assert_eq!(fault(Sender::Target, b'K'), Some(FrameError::Authentication));
        assert_eq!(fault(Sender::Target, b'W'), Some(FrameError::Replication));
        assert_eq!(fault(Sender::Target, b'Q'), Some(FrameError::Type(b'Q')));
    }
}
