//! The main records of a recording as Zstandard frames (RFC 8878) that are flushed with each frame of ours.
//!
//! What always holds: what was packed so far can be unpacked without anything that comes later, so a recording that breaks
//! off loses nothing of what is there; a session in which nothing happens holds no packer; unpacking takes no more memory than its window and one frame's bound, whatever the
//! bytes claim. Keystrokes never come here: the size of a compressed text says something about it.

use zstd::stream::raw::{Decoder, Encoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::{CParameter, DParameter};

/// The largest window that a reader makes room for: 2^17 bytes, 128 KiB.
const LARGEST_WINDOW_LOG: u32 = 17;
/// What we write needs 2^14 bytes. Each session holds a packer unless it is idle: with this window and table it is 101 KiB, where 2^17 at
/// level 3 took 761 KiB and made terminal text a seventh smaller, at little more than half the speed.
const WINDOW_LOG: u32 = 14;
const TABLE_LOG: u32 = 12;
const LEVEL: i32 = 1;
/// How each Zstandard frame begins (RFC 8878, section 3.1.1).
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// What packing can add to bytes that do not shrink: 3 for each block of 16 KiB, the frame's header, and a flush.
pub(crate) const OVERHEAD: usize = 256;

/// Packs the records of one recording.
#[derive(Default)]
pub(crate) struct Packer(Option<Encoder<'static>>);

impl Packer {
    /// All of `plain`, so that a reader needs nothing more to have it.
    pub(crate) fn pack(&mut self, plain: &[u8]) -> std::io::Result<Vec<u8>> {
        let encoder = match &mut self.0 {
            Some(encoder) => encoder,
            none => none.insert(encoder()?),
        };
        let mut packed = Vec::with_capacity(plain.len() / 2 + OVERHEAD);
        let mut input = InBuffer::around(plain);
        while input.pos() < plain.len() {
            grow(&mut packed, |out| encoder.run(&mut input, out))?;
        }
        while grow(&mut packed, |out| encoder.flush(out))? > 0 {}
        Ok(packed)
    }

    /// Holds nothing until more is packed, which then begins anew. The Zstandard frame so far is not ended: what begins with
    /// [`MAGIC`] cannot go on with it, because as the head of a block it would claim more than any block has.
    pub(crate) fn rest(&mut self) {
        self.0 = None;
    }
}

fn encoder() -> std::io::Result<Encoder<'static>> {
    let mut encoder = Encoder::new(LEVEL)?;
    for parameter in [
        CParameter::WindowLog(WINDOW_LOG),
        CParameter::HashLog(TABLE_LOG),
        CParameter::ContentSizeFlag(false),
        CParameter::ChecksumFlag(false),
    ] {
        encoder.set_parameter(parameter)?;
    }
    Ok(encoder)
}

/// One step of the library into fresh room at the end of `bytes`.
fn grow(
    bytes: &mut Vec<u8>,
    step: impl FnOnce(&mut OutBuffer<'_, Vec<u8>>) -> std::io::Result<usize>,
) -> std::io::Result<usize> {
    let at = bytes.len();
    bytes.reserve(1024);
    step(&mut OutBuffer::around_pos(bytes, at))
}

/// Unpacks the records of one recording.
pub(crate) struct Unpacker(Decoder<'static>);

impl Unpacker {
    pub(crate) fn new() -> std::io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(LARGEST_WINDOW_LOG))?;
        Ok(Self(decoder))
    }

    /// What one frame's plaintext holds, which is at most `most` bytes.
    pub(crate) fn unpack(&mut self, packed: &[u8], most: usize) -> Result<Vec<u8>, &'static str> {
        const BROKEN: &str = "what it holds cannot be decompressed";
        if packed.starts_with(&MAGIC) {
            self.0.reinit().map_err(|_| BROKEN)?;
        }
        let mut plain = Vec::with_capacity(packed.len().saturating_mul(4).min(most));
        let mut input = InBuffer::around(packed);
        loop {
            let (before, had) = (input.pos(), plain.len());
            let left = grow(&mut plain, |out| self.0.run(&mut input, out)).map_err(|_| BROKEN)?;
            if plain.len() > most {
                return Err("it decompresses to more than any frame holds");
            }
            if left == 0 {
                return Err("its compressed stream ends inside the recording");
            }
            // Everything was taken, and there was room left: nothing waits inside.
            if input.pos() == packed.len() && plain.len() < plain.capacity() {
                return Ok(plain);
            }
            if (input.pos(), plain.len()) == (before, had) {
                return Err(BROKEN);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bomb_is_stopped_at_the_bound_of_a_frame() {
        let packed = Packer::default().pack(&vec![0; 64 << 20]).unwrap();
        assert!(packed.len() < 64 << 10);
        assert!(Unpacker::new().unwrap().unpack(&packed, 1 << 20).unwrap_err().contains("more than any"));
    }

    #[test]
    fn a_wider_window_than_the_format_has_is_refused() {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.set_parameter(CParameter::WindowLog(LARGEST_WINDOW_LOG + 1)).unwrap();
        std::io::Write::write_all(&mut encoder, &[7; 300_000]).unwrap();
        let wide = encoder.finish().unwrap();
        assert!(Unpacker::new().unwrap().unpack(&wide, 1 << 20).unwrap_err().contains("cannot be decompressed"));
    }

    proptest! {
        #[test]
        fn each_piece_comes_out_at_once_and_noise_does_not_grow_much(
            pieces in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..4096), any::<bool>()), 0..12),
        ) {
            let (mut packer, mut unpacker) = (Packer::default(), Unpacker::new().unwrap());
            for (piece, rested) in pieces {
                if rested {
                    packer.rest();
                }
                let packed = packer.pack(&piece).unwrap();
                prop_assert!(packed.len() <= piece.len() + OVERHEAD);
                prop_assert_eq!(unpacker.unpack(&packed, 4096).unwrap(), piece);
            }
        }

        #[test]
        fn any_bytes_are_unpacked_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = Unpacker::new().unwrap().unpack(&bytes, 1 << 20);
        }
    }
}
