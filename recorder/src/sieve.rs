//! Which lines cannot be in a block, without opening it: a bit for each three letters that follow each other somewhere in it.
//!
//! What always holds: what is in the block passes. Large and small letters count as the same, so that it passes for a
//! search that ignores them, too.

/// 2^18 bits: a megabyte of ordinary text sets a tenth of them.
const BYTES: usize = 1 << 15;

/// See the module.
pub(crate) struct Sieve(Vec<u8>);

impl Sieve {
    pub(crate) fn new() -> Self {
        Self(vec![0; BYTES])
    }

    /// From the bytes of one.
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() == BYTES).then_some(Self(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// This text is in the block.
    pub(crate) fn add(&mut self, text: &str) {
        for (byte, bit) in places(text) {
            if let Some(byte) = self.0.get_mut(byte) {
                *byte |= bit;
            }
        }
    }

    /// Whether a text with this in it can be in the block. What is shorter than three letters always can.
    pub(crate) fn passes(&self, part: &str) -> bool {
        places(part).all(|(byte, bit)| self.0.get(byte).is_some_and(|found| found & bit != 0))
    }
}

/// Byte and bit of each three.
fn places(text: &str) -> impl Iterator<Item = (usize, u8)> {
    let folded: Vec<u8> = text.chars().map(fold).collect::<String>().into_bytes();
    let three = move |at: usize| folded.get(at..at + 3).and_then(|three| three.first_chunk::<3>().copied());
    (0..).map_while(three).map(|[a, b, c]| {
        let hash = u32::from_be_bytes([0, a, b, c]).wrapping_mul(0x9e37_79b1) >> 14;
        let byte = usize::try_from(hash >> 3).unwrap_or_default();
        (byte, 1 << (hash & 7))
    })
}

/// Whatever is an ASCII letter to a search that ignores case is the small one: the long s and the Kelvin sign, too.
fn fold(c: char) -> char {
    match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_in_it_mostly_does_not_pass() {
        let mut sieve = Sieve::new();
        sieve.add("DROP TABLE customers");
        assert!(sieve.passes("drop table") && sieve.passes("cu") && sieve.passes("\u{17f}tomerS"));
        assert!(!sieve.passes("truncate") && !sieve.passes("drop tables"));
    }

    proptest! {
        #[test]
        fn what_is_in_it_passes(text in "\\PC{0,60}", other in "\\PC{0,60}", from in 0..60usize, length in 0..60usize) {
            let mut sieve = Sieve::new();
            sieve.add(&other);
            sieve.add(&text);
            let part: String = text.chars().skip(from).take(length).collect();
            prop_assert!(sieve.passes(&part));
            prop_assert!(sieve.passes(&part.to_ascii_uppercase()));
            let again = Sieve::from_bytes(sieve.bytes().to_vec());
            prop_assert!(again.is_some_and(|again| again.passes(&part)));
        }
    }
}
