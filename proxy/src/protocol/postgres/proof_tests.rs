//! Targets that know the password, and hostile ones.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::{
    authenticate::Verifier,
    protocol::postgres::{
        answer::{self, message as framed},
        scram::{Outcome, challenge},
    },
};
use tokio::io::{DuplexStream, duplex};

const END_POINT: [u8; 32] = [9; 32];

fn request(kind: u32, rest: &[u8]) -> Vec<u8> {
    framed(b'R', &[&kind.to_be_bytes(), rest])
}

/// What our side comes to, when this is what the target says and does.
async fn proven<F: Future<Output = ()>>(
    password: &str,
    target: impl FnOnce(DuplexStream) -> F,
) -> Result<Greeting, String> {
    let (mut ours, theirs) = duplex(64 * 1024);
    let (password, mut greeting) = (SecretString::from(password.to_owned()), Greeting::default());
    let us = async {
        let proven = prove(&mut ours, &password, Some(END_POINT.to_vec()), &mut greeting).await;
        drop(ours);
        proven
    };
    let (outcome, ()) = tokio::join!(us, target(theirs));
    match outcome {
        Ok(()) => Ok(greeting),
        Err(No::Refused(cause)) => Err(cause),
        Err(No::Answered { code, message }) => Err(format!("{code} {message}")),
        Err(No::Lost(error)) => Err(error.to_string()),
    }
}

/// A target that holds the verifier of `secret`, offering these mechanisms.
async fn honest(mut stream: DuplexStream, offer: &[u8], plus: bool) {
    let verifier = Verifier::new("secret", vec![5; 32]);
    stream.write_all(&request(10, offer)).await.unwrap();
    let Ok((b'p', initial)) = message(&mut stream).await else { return };
    let mechanism = if plus { PLUS } else { PLAIN };
    let first = &initial[mechanism.len() + 5..];
    assert!(initial.starts_with(mechanism.as_bytes()));
    let Ok(challenged) = challenge(mechanism, first, &verifier, &END_POINT, "nonce") else { return };
    stream.write_all(&answer::sasl_continue(challenged.server_first())).await.unwrap();
    let Ok((b'p', last)) = message(&mut stream).await else { return };
    let said = match challenged.judge(&last, &verifier).unwrap() {
        Outcome::Proven(server_final) => [answer::sasl_final(&server_final), answer::authentication_ok()].concat(),
        Outcome::Wrong => framed(b'E', &[b"SFATAL\0C28P01\0Mpassword authentication failed\0\0"]),
    };
    stream.write_all(&said).await.unwrap();
}

#[tokio::test]
async fn the_password_is_proven_with_the_channel_bound_where_that_is_offered() {
    let both = [PLUS.as_bytes(), b"\0", PLAIN.as_bytes(), b"\0\0"].concat();
    assert!(proven("secret", |stream| honest(stream, &both, true)).await.unwrap().authenticated);
    let wrong = proven("guess", |stream| honest(stream, &both, true)).await;
    assert_eq!(wrong.unwrap_err(), "28P01 password authentication failed");
}

#[tokio::test]
async fn a_target_that_asks_in_another_way_is_told_nothing() {
    for (asked, cause) in [
        (request(3, b""), "our credential"),
        (request(5, b"salt"), "our credential"),
        (request(10, b"SCRAM-SHA-1\0\0"), "no SCRAM-SHA-256"),
        (request(0, b""), "without the password"),
        (request(11, b"r=x,s=AAAA,i=1"), "broke"),
        (request(12, b"v=x"), "broke"),
        (framed(b'Z', &[b"I"]), "ready before"),
        (b"R\x7f\0\0\0".to_vec(), "no sound length"),
        (framed(b'N', &[b"SNOTICE\0\0"]).repeat(40), "without end"),
    ] {
        let said = proven("secret", async |mut stream: DuplexStream| {
            stream.write_all(&asked).await.ok();
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await.ok();
            assert_eq!(heard, b"", "it was told something");
        })
        .await;
        assert!(said.as_ref().unwrap_err().contains(cause), "{said:?}");
    }
}

#[tokio::test]
async fn a_target_cannot_make_us_count_for_ever_nor_end_the_exchange_without_knowing_the_verifier() {
    for (iterations, then, cause) in [
        ("4000000000", Vec::new(), "iteration"),
        ("1", answer::authentication_ok(), "without the password"),
        ("1", answer::sasl_final("v=AAAA"), ""),
        ("1", answer::sasl_final("e=other-error"), ""),
    ] {
        let said = proven("secret", async |mut stream: DuplexStream| {
            stream.write_all(&request(10, &[PLUS.as_bytes(), b"\0\0"].concat())).await.unwrap();
            let (_, initial) = message(&mut stream).await.ok().unwrap();
            let nonce = String::from_utf8_lossy(&initial).rsplit("r=").next().unwrap().to_owned();
            let first = format!("r={nonce}x,s=c2FsdA==,i={iterations}");
            stream.write_all(&answer::sasl_continue(&first)).await.unwrap();
            if message(&mut stream).await.is_ok() {
                stream.write_all(&then).await.unwrap();
            }
        })
        .await;
        assert!(said.as_ref().unwrap_err().contains(cause), "{said:?}");
    }
}
