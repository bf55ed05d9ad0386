//! What a verb answers: text for stdout, text for stderr, an exit status.

use crate::{protocol::ssh::line, refusal::Refusal, text};
use tidegate_grants::Reference;

/// An answer, whole. Lines end with `\n`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Reply {
    pub(in super::super) out: String,
    pub(in super::super) err: String,
    pub(in super::super) exit: u32,
    /// It is a no, which goes into the ledger before it is told.
    pub(in super::super) refusal: Option<Box<Refusal>>,
}

impl Reply {
    pub(super) fn text(out: String) -> Self {
        Self { out, ..Self::default() }
    }

    pub(in super::super) fn fault(exit: u32, sentence: &str) -> Self {
        Self { err: format!("tidegate: {}\n", text::plain(sentence)), exit, ..Self::default() }
    }

    pub(super) fn usage(sentence: &str) -> Self {
        Self::fault(2, &format!("{sentence} (`help` lists what there is)"))
    }

    pub(in super::super) fn refused(refusal: &Refusal) -> Self {
        Self { exit: refusal.exit, refusal: Some(Box::new(refusal.clone())), ..Self::default() }
    }

    /// With its no in words, under the reference by which the ledger has it.
    pub(in super::super) fn told(mut self, reference: Option<Reference>) -> Self {
        if let Some(refusal) = self.refusal.take() {
            self.err.push_str(&line::sentence(&refusal.marked(reference), false).replace("\r\n", "\n"));
        }
        self
    }

    pub(super) fn json(value: &impl serde::Serialize) -> Self {
        match text::json(value) {
            Ok(text) => Self::text(text),
            Err(error) => Self::fault(1, &error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_never_carries_control_characters() {
        let reply = Reply::fault(1, "bad \x1b]0;title\x07");
        assert_eq!(reply.err, "tidegate: bad \\u{1b}]0;title\\u{7}\n");
    }
}
