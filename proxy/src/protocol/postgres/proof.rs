//! The client's side of SCRAM-SHA-256 and -PLUS (PostgreSQL chapter 55.3), for targets that take no certificate.
//!
//! What always holds: nothing but a SCRAM exchange is answered, so that a target which asks for the password in the clear, or
//! as MD5, is told nothing; the channel is bound to the certificate that was verified wherever the target offers it; no
//! message is longer than [`LONGEST`]; the client library refuses more than 100,000 iterations; and the target must prove that
//! it knows the verifier before it is believed.

use super::{
    fields::Fields,
    scram::{PLAIN, PLUS},
    target::{Greeting, No},
};
use crate::tls;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::client::TlsStream;

/// Longest message of the exchange.
const LONGEST: u32 = 4096;
/// Most of them: notices, a negotiated version, and the exchange itself.
const MOST: usize = 16;

/// What to bind to: the certificate that the target showed.
pub(super) fn end_point<S>(stream: &TlsStream<S>) -> Option<Vec<u8>> {
    stream.get_ref().1.peer_certificates()?.first().and_then(tls::end_point)
}

/// Proves the password, and hears that it is taken.
pub(super) async fn prove<S>(
    stream: &mut S,
    password: &SecretString,
    end_point: Option<Vec<u8>>,
    greeting: &mut Greeting,
) -> Result<(), No>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut exchange = Exchange { password, end_point, scram: None, proven: false };
    for _ in 0..MOST {
        let (tag, body) = message(stream).await?;
        let request = (tag == b'R').then(|| Fields(&body).u32()).flatten();
        let answer = match (request, body.get(4..)) {
            (Some(0), _) if exchange.proven => return greeting.hear(tag, &body).map(drop),
            (Some(0), _) => return Err(no("it let us in without the password: see its pg_hba.conf")),
            (Some(10), Some(offer)) => Some(exchange.begin(offer)?),
            (Some(11), Some(challenge)) => Some(exchange.respond(challenge)?),
            (Some(12), Some(outcome)) => {
                exchange.finish(outcome)?;
                None
            }
            _ if greeting.hear(tag, &body)? => return Err(no("it is ready before it has asked who we are")),
            _ => None,
        };
        if let Some(answer) = answer {
            stream.write_all(&super::answer::message(b'p', &[&answer])).await.map_err(No::Lost)?;
            stream.flush().await.map_err(No::Lost)?;
        }
    }
    Err(no("it talks without end before it is ready"))
}

/// How far it has come.
struct Exchange<'a> {
    password: &'a SecretString,
    end_point: Option<Vec<u8>>,
    scram: Option<ScramSha256>,
    proven: bool,
}

impl Exchange<'_> {
    /// SASLInitialResponse to the mechanisms that are offered.
    fn begin(&mut self, offer: &[u8]) -> Result<Vec<u8>, No> {
        if self.scram.is_some() {
            return Err(no("it began the password exchange twice"));
        }
        let offers = |name: &str| offer.split(|byte| *byte == 0).any(|offered| offered == name.as_bytes());
        let (mechanism, binding) = match self.end_point.take() {
            Some(end_point) if offers(PLUS) => (PLUS, ChannelBinding::tls_server_end_point(end_point)),
            // It says that it cannot bind, and will find out if somebody in between said so.
            Some(_) if offers(PLAIN) => (PLAIN, ChannelBinding::unrequested()),
            None if offers(PLAIN) => (PLAIN, ChannelBinding::unsupported()),
            _ => return Err(no("it offers no SCRAM-SHA-256")),
        };
        let scram = self.scram.insert(ScramSha256::new(self.password.expose_secret().as_bytes(), binding));
        let first = scram.message();
        let length = u32::try_from(first.len()).unwrap_or(u32::MAX).to_be_bytes();
        Ok([mechanism.as_bytes(), b"\0", &length, first].concat())
    }

    /// `client-final` to `server-first`.
    fn respond(&mut self, challenge: &[u8]) -> Result<Vec<u8>, No> {
        let scram = self.scram.as_mut().ok_or_else(|| no("it broke the password exchange"))?;
        scram.update(challenge).map_err(|error| No::Refused(error.to_string()))?;
        Ok(scram.message().to_vec())
    }

    /// `server-final`: it knows the verifier.
    fn finish(&mut self, outcome: &[u8]) -> Result<(), No> {
        let scram = self.scram.as_mut().ok_or_else(|| no("it broke the password exchange"))?;
        scram.finish(outcome).map_err(|error| No::Refused(error.to_string()))?;
        self.proven = true;
        Ok(())
    }
}

fn no(cause: &str) -> No {
    No::Refused(cause.to_owned())
}

/// The next message, exactly: what comes behind it stays in the stream.
async fn message<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(u8, Vec<u8>), No> {
    let tag = stream.read_u8().await.map_err(No::Lost)?;
    let length = stream.read_u32().await.map_err(No::Lost)?;
    let body = length.checked_sub(4).filter(|_| length <= LONGEST).and_then(|body| usize::try_from(body).ok());
    let mut bytes = vec![0; body.ok_or_else(|| no("a message of the password exchange has no sound length"))?];
    stream.read_exact(&mut bytes).await.map_err(No::Lost)?;
    Ok((tag, bytes))
}

#[cfg(test)]
#[path = "proof_tests.rs"]
mod tests;
