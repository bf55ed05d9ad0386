//! Log-ins at targets that behave, and at hostile ones.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::protocol::postgres::answer::message;
use tokio::io::duplex;

async fn logged_in(answer: Vec<u8>) -> Result<Greeting, TargetError> {
    let (mut ours, mut theirs) = duplex(512 * 1024);
    theirs.write_all(&answer).await.unwrap();
    theirs.shutdown().await.unwrap();
    hear_out(&mut ours, Greeting::default(), "orders").await
}

fn refused(result: Result<Greeting, TargetError>) -> String {
    match result {
        Err(TargetError::Refused { cause, .. }) => cause,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_target_that_takes_the_certificate_is_heard_to_its_ready() {
    let status = message(b'S', b"TimeZone\0UTC\0".as_slice().chunks(99).collect::<Vec<_>>().as_slice());
    let key = message(b'K', &[&7u32.to_be_bytes(), &9u32.to_be_bytes()]);
    let ready = message(b'Z', &[b"I"]);
    let notice = message(b'N', &[b"SNOTICE\0\0"]);
    let said = [message(b'R', &[&[0; 4]]), status.clone(), key, ready.clone(), notice.clone()].concat();
    let greeting = logged_in(said).await.unwrap();
    assert_eq!(greeting.messages, status);
    assert_eq!(greeting.key, Some(CancelKey { process: 7, secret: vec![0, 0, 0, 9] }));
    assert_eq!(greeting.rest, [ready, notice].concat());
}

#[tokio::test]
async fn a_target_that_asks_for_a_password_is_told_nothing() {
    for request in [3u32, 5, 10] {
        let (mut ours, mut theirs) = duplex(1024);
        theirs.write_all(&message(b'R', &[&request.to_be_bytes()])).await.unwrap();
        assert!(refused(hear_out(&mut ours, Greeting::default(), "orders").await).contains("our credential"));
        drop(ours);
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"");
    }
}

#[tokio::test]
async fn errors_endless_talk_and_wrong_frames_are_refused() {
    let error = message(b'E', &[b"SFATAL\0C28000\0Mno pg_hba.conf entry\0\0"]);
    assert_eq!(refused(logged_in(error).await), "28000 no pg_hba.conf entry");
    let talk = message(b'N', &[&[b'x'; 9000]]).repeat(20);
    assert!(refused(logged_in(talk).await).contains("without end"));
    assert!(refused(logged_in(b"S\0\0\0\x03".to_vec()).await).contains("length"));
    assert!(refused(logged_in(b"S\x7f\0\0\0".to_vec()).await).contains("length"));
    assert!(refused(logged_in(message(b'D', &[])).await).contains("does not belong"));
    assert_eq!(refused(logged_in(Vec::new()).await), "it hung up");
}

#[tokio::test]
async fn what_a_target_says_of_the_session_itself_is_for_the_person() {
    let (welcome, full) = (message(b'R', &[&[0; 4]]), message(b'E', &[b"SFATAL\0C53300\0Mtoo many\x1b clients\0\0"]));
    let unknown = message(b'E', &[b"C3D000\0Mdatabase \"x\" does not exist\0\0"]);
    for (said, code, words) in [
        (full, "53300", "too many  clients"),
        ([&welcome[..], &unknown].concat(), "3D000", "database \"x\" does not exist"),
        ([&welcome[..], &message(b'E', &[b"Ctoo long\0Mm\0\0"])].concat(), "XX000", "m"),
    ] {
        let Err(TargetError::Answered { code: own, message, .. }) = logged_in(said).await else { panic!() };
        assert_eq!((own.as_str(), message.as_str()), (code, words));
    }
    assert!(refused(logged_in(unknown).await).contains("3D000"), "before it has taken the credential");
}

#[test]
fn hosts_are_read_from_addresses() {
    for (address, name) in
        [("db.example.com:5432", "db.example.com"), ("10.0.0.1:5432", "10.0.0.1"), ("[::1]:5432", "::1")]
    {
        assert_eq!(host(address), ServerName::try_from(name).ok());
    }
    assert_eq!(host("no-port"), None);
}
