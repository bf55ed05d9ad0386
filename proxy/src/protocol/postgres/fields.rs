//! Reads the fields of a message body. Whatever is missing reads as nothing: the bytes go on as they are, and whether
//! they make sense is between client and target. Here they only become records.

/// What is left of a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'b>(pub(super) &'b [u8]);

impl<'b> Fields<'b> {
    /// The next `count` bytes.
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'b [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    /// The next byte.
    pub(super) fn byte(&mut self) -> Option<u8> {
        self.bytes(1)?.first().copied()
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'b [u8] {
        std::mem::take(&mut self.0)
    }

    /// The next 16-bit number.
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// The next 32-bit number.
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// The next value behind its length, as far as it is here, and how many bytes of it are not; `Some(None)` is NULL (a length of −1).
    pub(super) fn counted(&mut self) -> Option<Option<(&'b [u8], usize)>> {
        let length = self.u32()?;
        if length == u32::MAX {
            return Some(None);
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let here = length.min(self.0.len());
        Some(Some((self.bytes(here).unwrap_or_default(), length - here)))
    }

    /// The next NUL-terminated string, or all the rest if the NUL is missing.
    pub(super) fn text(&mut self) -> &'b [u8] {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(self.0.len());
        let text = self.0.get(..end).unwrap_or_default();
        self.0 = self.0.get(end + 1..).unwrap_or_default();
        text
    }
}

/// Text of a peer for a record: lossily decoded, and past `most` bytes counted instead of kept.
pub(super) fn bounded(text: &[u8], most: usize) -> String {
    match text.get(..most).filter(|kept| kept.len() < text.len()) {
        None => String::from_utf8_lossy(text).into_owned(),
        Some(kept) => format!("{}{}", String::from_utf8_lossy(kept), not_kept(text.len() - kept.len())),
    }
}

/// What stands for bytes that were counted, not kept.
pub(super) fn not_kept(count: usize) -> String {
    format!("… ({count} bytes more)")
}
