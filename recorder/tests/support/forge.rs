//! Where frames lie in a file, and chains made anew by who may not. Written from FORMAT.md, apart from the recorder's own code.
#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]

use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest, Sha256};
use std::ops::Range;

/// One frame in its file.
pub(crate) struct Laid {
    /// As it is hashed: a short frame's is not in the file.
    pub(crate) head: Vec<u8>,
    pub(crate) start: usize,
    pub(crate) payload: Range<usize>,
    pub(crate) end: usize,
}

impl Laid {
    pub(crate) fn kind(&self) -> u8 {
        self.head[4]
    }

    pub(crate) fn is_short(&self) -> bool {
        self.payload.start - self.start == 8
    }

    fn long(bytes: &[u8], start: usize) -> Self {
        let length = u32::from_be_bytes(bytes[start..start + 4].try_into().unwrap()) as usize - 57;
        let payload = start + 29..start + 29 + length;
        Self { head: bytes[start..start + 29].to_vec(), start, end: payload.end + 32, payload }
    }

    fn short(bytes: &[u8], start: usize, before: &Self) -> Self {
        let word = u16::from_be_bytes(bytes[start..start + 2].try_into().unwrap());
        let apart = 1000 * u64::from(u32::from_be_bytes(bytes[start + 2..start + 6].try_into().unwrap()));
        let drift = 1000 * i64::from(i16::from_be_bytes(bytes[start + 6..start + 8].try_into().unwrap()));
        let length = usize::from(word & 0x3fff);
        let eight = |at: usize| u64::from_be_bytes(before.head[at..at + 8].try_into().unwrap());
        let wall = eight(21).wrapping_add(apart).wrapping_add_signed(drift);
        let head = [
            &(57 + length as u32).to_be_bytes()[..],
            &[if word & 0x4000 == 0 { 1 } else { 2 }],
            &(eight(5) + 1).to_be_bytes(),
            &(eight(13) + apart).to_be_bytes(),
            &wall.to_be_bytes(),
        ]
        .concat();
        let payload = start + 8..start + 8 + length;
        Self { head, start, end: payload.end + 4, payload }
    }
}

/// The frames of a whole recording.
pub(crate) fn laid(bytes: &[u8]) -> Vec<Laid> {
    let mut at = 14 + u32::from_be_bytes(bytes[10..14].try_into().unwrap()) as usize;
    let mut frames: Vec<Laid> = Vec::new();
    while at < bytes.len() {
        let frame = match frames.last() {
            Some(before) if bytes[at] > 127 => Laid::short(bytes, at, before),
            _ => Laid::long(bytes, at),
        };
        at = frame.end;
        frames.push(frame);
    }
    frames
}

/// Makes all hashes from this frame on (0: the first) follow from what is there, and with a key the signatures too.
pub(crate) fn chain_anew(bytes: &mut [u8], from: usize, signer: Option<&SigningKey>) {
    let frames = laid(bytes);
    let mut hash: [u8; 32] = Sha256::digest(&bytes[..frames[0].start]).into();
    for (number, frame) in frames.iter().enumerate() {
        let forged = number >= from;
        if let (true, Some(signer), 3..) = (forged, signer, frame.kind()) {
            sign_anew(bytes, frame, &hash, signer);
        }
        let link = Sha256::new().chain_update(hash).chain_update(&frame.head);
        hash = link.chain_update(&bytes[frame.payload.clone()]).finalize().into();
        if forged {
            bytes[frame.payload.end..frame.end].copy_from_slice(&hash[..frame.end - frame.payload.end]);
        }
    }
}

fn sign_anew(bytes: &mut [u8], frame: &Laid, before: &[u8; 32], signer: &SigningKey) {
    let domain: &[u8] =
        if frame.kind() == 3 { b"tidegate recording checkpoint v1\0" } else { b"tidegate recording end v1\0" };
    let session = super::SESSION.as_bytes();
    let (length, place) = ((session.len() as u16).to_be_bytes(), frame.payload.end - 64);
    let parts = [domain, &length, session, before, frame.head.as_slice(), &bytes[frame.payload.start..place]];
    let signature = signer.sign(&parts.concat()).to_bytes();
    bytes[place..frame.payload.end].copy_from_slice(&signature);
}
