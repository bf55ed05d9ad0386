//! The server's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), bound to the TLS channel by
//! `tls-server-end-point` (RFC 5929 section 4).
//!
//! Sans-IO: `client-first` in, `server-first` out; `client-final` in, the verdict out. Each step consumes the one
//! before. A client that knows of channel binding and believes that we do not was lied to on the way: refused
//! (RFC 5802 section 6).

use crate::authenticate::{Verifier, verifier::Hash};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Without channel binding.
pub(super) const PLAIN: &str = "SCRAM-SHA-256";
/// With channel binding.
pub(super) const PLUS: &str = "SCRAM-SHA-256-PLUS";
/// The one channel binding that PostgreSQL's clients know.
const BINDING: &str = "p=tls-server-end-point";
/// Longest nonce that we take from a client.
const LONGEST_NONCE: usize = 256;

/// The client broke the exchange. None of these is a guess at the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScramError {
    /// Not one that we offered.
    #[error("the SASL mechanism is not one that was offered")]
    Mechanism,
    /// Outside the grammar of RFC 5802 section 7.
    #[error("the SCRAM message is malformed")]
    Malformed,
    /// It asks for a binding that we do not have, or binds to another channel, or was told that we have none.
    #[error("the SCRAM channel binding does not fit: somebody may be between you and the gateway")]
    Binding,
    /// It would act as somebody else, or needs an extension.
    #[error("the SCRAM message asks for what is not supported")]
    Unsupported,
}

/// Waits for `client-final`.
#[derive(Debug)]
pub(super) struct Challenged {
    first_bare: String,
    server_first: String,
    nonce: String,
    /// What `c=` must be.
    binding: String,
}

/// What `client-final` proved.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The password is known; `server-final` says that so is the verifier.
    Proven(String),
    /// It is not.
    Wrong,
}

/// Answers `client-first`. `end_point` is the hash of our certificate, `nonce` random and printable.
pub(super) fn challenge(
    mechanism: &str,
    client_first: &[u8],
    verifier: &Verifier,
    end_point: &[u8],
    nonce: &str,
) -> Result<Challenged, ScramError> {
    let text = std::str::from_utf8(client_first).map_err(|_| ScramError::Malformed)?;
    let (flag, rest) = text.split_once(',').ok_or(ScramError::Malformed)?;
    let (authzid, first_bare) = rest.split_once(',').ok_or(ScramError::Malformed)?;
    let bound = match (mechanism, flag) {
        (PLUS, BINDING) => end_point,
        (PLAIN, "n") => &[],
        (PLAIN, "y") => return Err(ScramError::Binding),
        (PLUS, flag) if flag.starts_with("p=") => return Err(ScramError::Binding),
        (PLAIN | PLUS, _) => return Err(ScramError::Malformed),
        _ => return Err(ScramError::Mechanism),
    };
    if !authzid.is_empty() || first_bare.starts_with("m=") {
        return Err(ScramError::Unsupported);
    }
    let mut attributes = first_bare.split(',');
    // The name in here is empty or the start-up packet's again: PostgreSQL ignores it, and so do we.
    attributes.next().filter(|name| name.starts_with("n=")).ok_or(ScramError::Malformed)?;
    let theirs = attributes.next().and_then(|nonce| nonce.strip_prefix("r=")).ok_or(ScramError::Malformed)?;
    if theirs.is_empty() || theirs.len() > LONGEST_NONCE || !theirs.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(ScramError::Malformed);
    }
    let nonce = format!("{theirs}{nonce}");
    let server_first = format!("r={nonce},s={},i={}", STANDARD.encode(&verifier.salt), verifier.iterations);
    let binding = STANDARD.encode([flag.as_bytes(), b",,", bound].concat());
    Ok(Challenged { first_bare: first_bare.to_owned(), server_first, nonce, binding })
}

impl Challenged {
    /// `server-first`.
    pub(super) fn server_first(&self) -> &str {
        &self.server_first
    }

    /// Judges `client-final`.
    pub(super) fn judge(self, client_final: &[u8], verifier: &Verifier) -> Result<Outcome, ScramError> {
        let text = std::str::from_utf8(client_final).map_err(|_| ScramError::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|c| c.strip_prefix("c=")).ok_or(ScramError::Malformed)?;
        let nonce = attributes.next().and_then(|r| r.strip_prefix("r=")).ok_or(ScramError::Malformed)?;
        if binding != self.binding {
            return Err(ScramError::Binding);
        }
        if nonce != self.nonce {
            return Err(ScramError::Malformed);
        }
        let proof = STANDARD.decode(proof).ok().and_then(|proof| Hash::try_from(proof).ok());
        let proof = proof.ok_or(ScramError::Malformed)?;
        let (first, server) = (self.first_bare.as_bytes(), self.server_first.as_bytes());
        let exchange: [&[u8]; 5] = [first, b",", server, b",", without_proof.as_bytes()];
        if !verifier.proves(&proof, &exchange) {
            return Ok(Outcome::Wrong);
        }
        Ok(Outcome::Proven(format!("v={}", STANDARD.encode(verifier.server_signature(&exchange)))))
    }
}

/// 18 random bytes, printable, as PostgreSQL's own.
pub(super) fn random_nonce() -> Option<String> {
    let mut bytes = [0u8; 18];
    getrandom::fill(&mut bytes).ok()?;
    Some(STANDARD.encode(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use proptest::prelude::*;

    const END_POINT: [u8; 32] = [9; 32];

    fn verifier(password: &str) -> Verifier {
        Verifier::new(password, vec![5; 32])
    }

    /// A whole exchange with the client that tokio-postgres uses.
    fn exchange(mechanism: &str, binding: ChannelBinding, typed: &str, real: &str) -> Result<Outcome, ScramError> {
        let verifier = verifier(real);
        let mut client = ScramSha256::new(typed.as_bytes(), binding);
        let challenged = challenge(mechanism, client.message(), &verifier, &END_POINT, &random_nonce().unwrap())?;
        client.update(challenged.server_first().as_bytes()).unwrap();
        let outcome = challenged.judge(client.message(), &verifier)?;
        if let Outcome::Proven(server_final) = &outcome {
            client.finish(server_final.as_bytes()).unwrap();
        }
        Ok(outcome)
    }

    #[test]
    fn the_client_of_tokio_postgres_logs_in_with_and_without_binding() {
        let bound = || ChannelBinding::tls_server_end_point(END_POINT.to_vec());
        assert!(matches!(exchange(PLUS, bound(), "secret", "secret"), Ok(Outcome::Proven(_))));
        assert!(matches!(exchange(PLAIN, ChannelBinding::unsupported(), "secret", "secret"), Ok(Outcome::Proven(_))));
        assert_eq!(exchange(PLUS, bound(), "guess", "secret"), Ok(Outcome::Wrong));
        assert_eq!(exchange(PLAIN, ChannelBinding::unsupported(), "guess", "secret"), Ok(Outcome::Wrong));
    }

    #[test]
    fn a_client_that_was_downgraded_or_is_bound_elsewhere_is_refused() {
        let elsewhere = ChannelBinding::tls_server_end_point(vec![1; 32]);
        assert_eq!(exchange(PLUS, elsewhere, "secret", "secret"), Err(ScramError::Binding));
        // `y`: the client would have bound its channel, had we offered it. We did.
        assert_eq!(exchange(PLAIN, ChannelBinding::unrequested(), "secret", "secret"), Err(ScramError::Binding));
        let first =
            |mechanism, message: &str| challenge(mechanism, message.as_bytes(), &verifier("x"), &END_POINT, "n").err();
        assert_eq!(first(PLUS, "n,,n=,r=abc"), Some(ScramError::Malformed));
        assert_eq!(first(PLAIN, "p=tls-server-end-point,,n=,r=abc"), Some(ScramError::Malformed));
        assert_eq!(first(PLUS, "p=tls-unique,,n=,r=abc"), Some(ScramError::Binding));
        assert_eq!(first("SCRAM-SHA-1", "n,,n=,r=abc"), Some(ScramError::Mechanism));
        assert_eq!(first(PLAIN, "n,a=postgres,n=,r=abc"), Some(ScramError::Unsupported));
        assert_eq!(first(PLAIN, "n,,m=x,n=,r=abc"), Some(ScramError::Unsupported));
        assert_eq!(first(PLAIN, "n,,n=,r="), Some(ScramError::Malformed));
    }

    #[test]
    fn the_final_message_must_carry_our_nonce_and_a_whole_proof() {
        let verifier = verifier("x");
        let challenged = || challenge(PLAIN, b"n,,n=,r=abc", &verifier, &END_POINT, "XYZ").unwrap();
        let judge = |text: &str| challenged().judge(text.as_bytes(), &verifier);
        let proof = STANDARD.encode([0u8; 32]);
        assert_eq!(judge(&format!("c=biws,r=abcXYZ,p={proof}")), Ok(Outcome::Wrong));
        assert_eq!(judge(&format!("c=biws,r=abc,p={proof}")), Err(ScramError::Malformed));
        assert_eq!(judge(&format!("c=eSws,r=abcXYZ,p={proof}")), Err(ScramError::Binding));
        assert_eq!(judge("c=biws,r=abcXYZ,p=AAAA"), Err(ScramError::Malformed));
        assert_eq!(judge("c=biws,r=abcXYZ"), Err(ScramError::Malformed));
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_never_proves(first in "[npy=,ar]{0,3}.{0,40}", last in ".{0,60}") {
            let verifier = verifier("x");
            for mechanism in [PLAIN, PLUS] {
                let _ = challenge(mechanism, first.as_bytes(), &verifier, &END_POINT, "n");
            }
            let challenged = challenge(PLAIN, b"n,,n=,r=abc", &verifier, &END_POINT, "XYZ").unwrap();
            prop_assert!(!matches!(challenged.judge(last.as_bytes(), &verifier), Ok(Outcome::Proven(_))));
        }
    }
}
