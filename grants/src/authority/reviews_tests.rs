#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test code")]

use super::*;
use crate::{
    Asking, RequestState,
    factor::{Means, Proof},
    fixture::*,
    request::Wish,
    review::{ReviewState, ReviewView},
};
use tempfile::TempDir;

fn name(name: &str) -> IdentityName {
    name.parse().unwrap()
}

/// `shell` breaks the glass, and alice has a second factor.
async fn glass() -> (TempDir, Authority) {
    let (dir, authority) = authority();
    authority.replace(policy_asking(Asking { break_glass: true, ..asking(&[]) }));
    assert!(authority.store().add_factor(factor(), false, now()).await.unwrap());
    (dir, authority)
}

async fn prove(authority: &Authority, step: u64) {
    let read = authority.store().factor(&name("alice")).await.unwrap().unwrap();
    let here = "192.0.2.7".parse().unwrap();
    assert!(authority.store().take_proof(&read, Proof::Step(step), here, now()).await.unwrap());
}

async fn ask(authority: &Authority, wish: Wish, at: Timestamp) -> Result<crate::RequestView, GrantError> {
    authority.request(&name("alice"), wish, at).await
}

async fn sign(authority: &Authority, by: &str, id: &str, at: Timestamp) -> Result<ReviewView, GrantError> {
    authority.sign_review(&name(by), id, "read all of it".to_owned(), at).await
}

async fn owed(authority: &Authority, by: Option<&str>) -> usize {
    let all = authority.reviews(by.map(name).as_ref()).await.unwrap();
    all.iter().filter(|view| view.state == ReviewState::Owed).count()
}

#[tokio::test]
async fn who_breaks_the_glass_has_proven_a_second_factor_there_and_said_why() {
    let (_dir, authority) = glass().await;
    let needed = |asked: Result<crate::RequestView, GrantError>, means: Means| {
        assert!(matches!(&asked, Err(GrantError::FactorNeeded { means: has, .. }) if *has == means), "{asked:?}");
    };
    needed(ask(&authority, wish("web-1"), now()).await, Means::Codes);
    prove(&authority, 7).await;
    let elsewhere = Wish { from: Some("198.51.100.9".parse().unwrap()), ..wish("web-1") };
    needed(ask(&authority, elsewhere, now()).await, Means::Codes);
    needed(ask(&authority, Wish { from: None, ..wish("web-1") }, now()).await, Means::Codes);
    needed(ask(&authority, wish("web-1"), after(600)).await, Means::Codes);
    needed(authority.request(&name("bob"), wish("web-1"), now()).await, Means::None);
    let silent = ask(&authority, Wish { reason: None, ..wish("web-1") }, now()).await.unwrap_err();
    assert!(silent.to_string().contains("a reason must be given"), "{silent}");
    assert_eq!(
        (owed(&authority, None).await, authority.grants(crate::Listing::all(), now()).await.unwrap().len()),
        (0, 0)
    );
    let granted = ask(&authority, wish("web-1"), after(599)).await.unwrap();
    assert_eq!((granted.state, owed(&authority, None).await), (RequestState::Granted, 1));
    authority.authorize(&ssh("alice", "deploy", "web-1"), after(599)).await.unwrap();
}

#[tokio::test]
async fn a_review_is_owed_with_the_grant_until_somebody_else_signs_it_when_it_is_over() {
    let (dir, authority) = glass().await;
    prove(&authority, 7).await;
    let id = ask(&authority, wish("web-1"), now()).await.unwrap().grant.unwrap().to_string();
    let permit = authority.authorize(&ssh("alice", "deploy", "web-1"), now()).await.unwrap();
    let why = async |by: &str, at| sign(&authority, by, &id, at).await.unwrap_err().to_string();
    assert!(why("alice", after(700)).await.contains("nobody signs the review of what they did themselves"));
    assert!(why("bob", after(700)).await.contains("no review has this id"));
    assert!(why("carol", now()).await.contains("not over yet"));
    let silent = authority.sign_review(&name("carol"), &id, " \n".to_owned(), after(700)).await.unwrap_err();
    assert!(silent.to_string().contains("a review needs a note"), "{silent}");
    for (who, sees) in [("alice", 1), ("bob", 0), ("carol", 1), ("mallory", 0)] {
        assert_eq!(owed(&authority, Some(who)).await, sees, "{who}");
    }
    // Revoked, it is over; but not while its session is still there.
    authority.revoke(&name("carol"), &id, None, now()).await.unwrap();
    assert!(matches!(permit.ended().await, Ended::Revoked { .. }));
    let signed = sign(&authority, "carol", &id[28..], now()).await.unwrap();
    assert_eq!((signed.state, signed.sessions.as_slice()), (ReviewState::Signed, &[permit.session()][..]));
    assert!(why("carol", now()).await.contains("carol has signed it already"));
    drop((permit, authority));
    let authority = authority_in(dir.path());
    assert_eq!(owed(&authority, None).await, 0);
    assert!(crate::store::verify(dir.path(), ledger_public()).unwrap().intact());
}

#[tokio::test]
async fn however_it_was_granted_it_owes_a_review_and_an_admin_does_not_sign_their_own() {
    let (_dir, authority) = glass().await;
    authority.issue(&name("carol"), request("alice", "web-1", "shell"), now()).await.unwrap();
    assert_eq!(owed(&authority, None).await, 1);
    let mut policy = (*authority.policy()).clone();
    policy.identities.get_mut(&name("alice")).unwrap().groups.insert("platform".parse().unwrap());
    authority.replace(policy);
    let id = authority.reviews(None).await.unwrap()[0].id.to_string();
    assert!(sign(&authority, "alice", &id, after(700)).await.is_err());
    sign(&authority, "carol", &id, after(700)).await.unwrap();
}

#[tokio::test]
async fn a_review_that_somebody_signs_in_the_store_is_found() {
    for edit in ["UPDATE reviews SET signed_at = opened, signed_by = 'carol', note = 'fine'", "DELETE FROM reviews"] {
        let (dir, authority) = glass().await;
        prove(&authority, 7).await;
        ask(&authority, wish("web-1"), now()).await.unwrap();
        let foreign = rusqlite::Connection::open(dir.path().join("tidegate.db")).unwrap();
        assert_eq!(foreign.execute(edit, []).unwrap(), 1, "{edit}");
        let shown = authority.reviews(None).await.unwrap();
        assert!(shown.iter().all(|view| view.state == ReviewState::Invalid), "{edit}");
        assert!(authority.authorize(&ssh("alice", "deploy", "web-1"), now()).await.is_err(), "{edit}");
    }
}
