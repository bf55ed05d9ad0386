//! The password exchange inside TLS, as messages (PostgreSQL chapter 55.3).

use super::{
    answer::{self, Fatal},
    door::Away,
    fields::Fields,
    names::Names,
    scram::{self, Outcome, ScramError},
};
use crate::{
    authenticate::{PasswordError, Passwords},
    gate::Clock,
    refusal::Refusal,
};
use jiff::Timestamp;
use std::{net::IpAddr, time::Duration};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Longest SASL message that we read.
const LONGEST: u32 = 4096;

/// Who claims to be whom, over which channel.
pub(super) struct Claim<'a> {
    /// Identity and target.
    pub(super) names: &'a Names,
    /// From where.
    pub(super) source: IpAddr,
    /// The hash of the certificate that the client saw.
    pub(super) end_point: &'a [u8],
    /// The time.
    pub(super) clock: Clock,
}

/// Asks for the password and checks it: when the second factor was proven that it carries. A client that hangs up in between has guessed
/// nothing.
pub(super) async fn prove<S>(
    stream: &mut S,
    passwords: &Passwords,
    claim: &Claim<'_>,
) -> Result<Option<Timestamp>, Away>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Names { identity, target, .. } = claim.names;
    let expected = passwords.expected(identity, target, (claim.clock)()).await;
    let expected = expected.map_err(|error| refused(&error.into(), claim))?;
    send(stream, &answer::sasl()).await?;

    let initial = sasl_message(stream).await?;
    let (mechanism, client_first) = initial_response(&initial).ok_or_else(|| broken(ScramError::Malformed))?;
    let nonce = scram::random_nonce().ok_or(Away::Gone)?;
    let challenged = scram::challenge(&mechanism, client_first, &expected.verifier, claim.end_point, &nonce);
    let challenged = challenged.map_err(broken)?;
    send(stream, &answer::sasl_continue(challenged.server_first())).await?;

    let client_final = sasl_message(stream).await?;
    let outcome = challenged.judge(&client_final, &expected.verifier).map_err(broken)?;
    let now = (claim.clock)();
    let server_final = match outcome {
        Outcome::Wrong => return Err(refused(&passwords.wrong(expected, claim.source, now).await, claim)),
        Outcome::Proven(server_final) => server_final,
    };
    let factor = passwords.accept(expected, claim.source, now).await.map_err(|error| refused(&error, claim))?;
    send(stream, &answer::sasl_final(&server_final)).await?;
    Ok(factor)
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Result<(), Away> {
    stream.write_all(bytes).await?;
    Ok(stream.flush().await?)
}

/// The body of the next message, which must be one of the exchange.
async fn sasl_message<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, Away> {
    let tag = stream.read_u8().await?;
    if tag == b'X' {
        return Err(Away::Gone);
    }
    let length = stream.read_u32().await?;
    let body = length.checked_sub(4).filter(|_| tag == b'p' && length <= LONGEST);
    let body = body.and_then(|body| usize::try_from(body).ok()).ok_or_else(|| broken(ScramError::Malformed))?;
    let mut bytes = vec![0; body];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// SASLInitialResponse: a mechanism, and the client's first message with its length.
fn initial_response(body: &[u8]) -> Option<(String, &[u8])> {
    let mut fields = Fields(body);
    let mechanism = std::str::from_utf8(fields.text()).ok()?.to_owned();
    let length = usize::try_from(fields.u32()?).ok()?;
    (fields.0.len() == length).then_some((mechanism, fields.0))
}

fn broken(error: ScramError) -> Away {
    let code = if error == ScramError::Malformed { answer::VIOLATION } else { answer::REFUSED };
    Away::refused(Fatal::new(code, Refusal::new(error.to_string()).by("protocol")))
}

fn refused(error: &PasswordError, claim: &Claim<'_>) -> Away {
    let target = &claim.names.target;
    let new_one = format!("get a new one: `ssh gate password {target}`");
    let (delay, next) = match error {
        PasswordError::Wrong { delay, .. } => (*delay, new_one),
        PasswordError::Expired { .. } | PasswordError::Elsewhere => (Duration::ZERO, new_one),
        PasswordError::Store(cause) => {
            tracing::error!(%cause, "passwords cannot be checked");
            let refusal = Refusal::new("the gateway cannot read its records").by("store").next("tell your admin");
            return Away::refused(Fatal::new(answer::REFUSED, refusal));
        }
    };
    let fatal = Fatal::new(answer::REFUSED, Refusal::new(error.to_string()).by("password").next(next));
    Away::Refused { fatal, name: Some(claim.names.identity.to_string()), delay }
}
