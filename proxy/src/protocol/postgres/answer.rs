//! The messages that the gateway itself sends to a client (PostgreSQL chapter 55.7).

use super::{
    scram,
    startup::{CancelKey, Version},
};
use crate::{issuer::TargetError, refusal::Refusal};
use std::borrow::Cow;

/// A refusal (PostgreSQL appendix A, class 28).
pub(super) const REFUSED: &str = "28000";
/// `too_many_connections`: what PostgreSQL itself says at a limit, so that a pool waits instead of giving up.
pub(super) const FULL: &str = "53300";
/// `admin_shutdown`: what PostgreSQL itself says when a session is ended from outside.
pub(super) const CUT: &str = "57P01";
/// `warning`.
pub(super) const WARNING: &str = "01000";
/// `protocol_violation`.
pub(super) const VIOLATION: &str = "08P01";
/// `connection_failure`.
pub(super) const UNREACHABLE: &str = "08006";
/// `system_error`.
const OURS: &str = "58000";

/// A last word to the person: SQLSTATE, one sentence, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fatal {
    /// SQLSTATE.
    pub(super) code: Cow<'static, str>,
    pub(super) refusal: Refusal,
}

impl Fatal {
    pub(super) fn new(code: impl Into<Cow<'static, str>>, refusal: Refusal) -> Self {
        Self { code: code.into(), refusal }
    }

    /// The session could not reach its target.
    pub(super) fn of_target(error: &TargetError) -> Self {
        let code: Cow<'static, str> = match error {
            TargetError::Unreachable { .. } | TargetError::Impostor { .. } | TargetError::Later(_) => {
                UNREACHABLE.into()
            }
            TargetError::Refused { .. } | TargetError::Held { .. } | TargetError::Unknown(_) => REFUSED.into(),
            TargetError::Answered { code, .. } => code.clone().into(),
            TargetError::Ours(_) => OURS.into(),
        };
        Self::new(code, Refusal::from(error))
    }

    /// ErrorResponse (chapter 55.8 for its fields).
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.to_message(b'E', "FATAL")
    }

    /// NoticeResponse: the session goes on.
    pub(super) fn to_notice(&self) -> Vec<u8> {
        self.to_message(b'N', "WARNING")
    }

    fn to_message(&self, tag: u8, severity: &str) -> Vec<u8> {
        let mut body = Vec::new();
        let marked = self.refusal.reference.map(|reference| format!("ref {reference}")).unwrap_or_default();
        let fields = [
            (b'S', severity),
            (b'V', severity),
            (b'C', &self.code),
            (b'M', &self.refusal.sentence),
            (b'D', &marked),
            (b'H', self.refusal.next.as_deref().unwrap_or_default()),
        ];
        for (field, text) in fields.into_iter().filter(|(_, text)| !text.is_empty()) {
            body.push(field);
            // A reason or a name may be in it: nothing that a terminal would act on.
            body.extend(text.chars().filter(|c| !c.is_control()).collect::<String>().into_bytes());
            body.push(0);
        }
        body.push(0);
        message(tag, &[&body])
    }
}

/// NoticeResponse: a line for the person, who goes on.
pub(super) fn notice(line: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (field, text) in [(b'S', "NOTICE"), (b'V', "NOTICE"), (b'C', "00000"), (b'M', line)] {
        body.push(field);
        body.extend(text.chars().filter(|c| !c.is_control()).collect::<String>().into_bytes());
        body.push(0);
    }
    body.push(0);
    message(b'N', &[&body])
}

/// A message of these parts.
pub(super) fn message(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>().saturating_add(4);
    let mut bytes = vec![tag];
    // Our own messages are far below the limit of a length word.
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// AuthenticationSASL: the mechanisms that we offer, best first.
pub(super) fn sasl() -> Vec<u8> {
    let [plus, plain] = [scram::PLUS, scram::PLAIN].map(str::as_bytes);
    message(b'R', &[&10u32.to_be_bytes(), plus, b"\0", plain, b"\0\0"])
}

/// AuthenticationSASLContinue.
pub(super) fn sasl_continue(server_first: &str) -> Vec<u8> {
    message(b'R', &[&11u32.to_be_bytes(), server_first.as_bytes()])
}

/// AuthenticationSASLFinal.
pub(super) fn sasl_final(server_final: &str) -> Vec<u8> {
    message(b'R', &[&12u32.to_be_bytes(), server_final.as_bytes()])
}

/// AuthenticationOk.
pub(super) fn authentication_ok() -> Vec<u8> {
    message(b'R', &[&0u32.to_be_bytes()])
}

/// BackendKeyData with a key of ours.
pub(super) fn backend_key(key: &CancelKey) -> Vec<u8> {
    message(b'K', &[&key.process.to_be_bytes(), &key.secret])
}

/// NegotiateProtocolVersion: what is spoken from here on, and which protocol options we do not know.
pub(super) fn negotiate(version: Version, unknown: &[String]) -> Vec<u8> {
    let count = u32::try_from(unknown.len()).unwrap_or(u32::MAX).to_be_bytes();
    let names: Vec<u8> = unknown.iter().flat_map(|name| [name.as_bytes(), b"\0"].concat()).collect();
    message(b'v', &[&version.word().to_be_bytes(), &count, &names])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use postgres_protocol::message::backend::Message;

    #[test]
    fn a_refusal_reads_as_an_error_with_its_code_and_hint() {
        use fallible_iterator::FallibleIterator as _;
        use postgres_protocol::message::backend::ErrorFields;
        let refusal = Refusal::new("no target x\x1b[2J for you here").next("`ssh gate targets`");
        let refusal = refusal.marked("7K3F-9Q2M".parse::<tidegate_grants::Reference>().ok());
        let mut bytes = BytesMut::from(&Fatal::new(REFUSED, refusal).to_bytes()[..]);
        let Some(Message::ErrorResponse(body)) = Message::parse(&mut bytes).unwrap() else { panic!() };
        let mut said: ErrorFields<'_> = body.fields();
        let mut fields: Vec<(u8, String)> = Vec::new();
        while let Some(field) = said.next().unwrap() {
            fields.push((field.type_(), String::from_utf8_lossy(field.value_bytes()).into_owned()));
        }
        let field = |tag| fields.iter().find(|(t, _)| *t == tag).map(|(_, text)| text.as_str());
        assert_eq!(field(b'S'), Some("FATAL"));
        assert_eq!(field(b'C'), Some("28000"));
        assert_eq!(field(b'M'), Some("no target x[2J for you here"));
        assert_eq!(field(b'D'), Some("ref 7K3F-9Q2M"));
        assert_eq!(field(b'H'), Some("`ssh gate targets`"));
    }

    #[test]
    fn the_offer_and_the_key_read_back() {
        let mut bytes =
            BytesMut::from(&[sasl(), backend_key(&CancelKey { process: 7, secret: vec![0, 0, 0, 9] })].concat()[..]);
        assert!(matches!(Message::parse(&mut bytes), Ok(Some(Message::AuthenticationSasl(_)))));
        let Ok(Some(Message::BackendKeyData(key))) = Message::parse(&mut bytes) else { panic!() };
        assert_eq!((key.process_id(), key.secret_key()), (7, 9));
    }
}
