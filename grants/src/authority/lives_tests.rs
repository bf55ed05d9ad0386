#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test code")]

use super::*;
use crate::{
    Asking, Proof, RequestState, RequestView,
    asking::Clock,
    fixture::*,
    panel::{Queued, Standing},
    request::More,
};
use tempfile::TempDir;

fn name(name: &str) -> IdentityName {
    name.parse().unwrap()
}

fn by_leads() -> Asking {
    Asking { extend: true, ..asking(&[(&["leads"], 1, Proof::Attested)]) }
}

/// `shell` is asked for like this, and held by one at a time or not.
fn world(asking: Asking, exclusive: bool) -> (TempDir, Authority) {
    let (dir, authority) = authority();
    let mut policy = policy_asking(asking);
    policy.entitlements.get_mut(&"shell".parse().unwrap()).unwrap().conditions.exclusive = exclusive;
    authority.replace(policy);
    (dir, authority)
}

async fn approve(authority: &Authority, view: &RequestView, at: Timestamp) -> RequestView {
    authority.approve(&name("dave"), &view.wanted.id.to_string(), None, at).await.unwrap()
}

/// A grant of theirs for ten minutes from then on.
async fn granted(authority: &Authority, who: &str, at: Timestamp) -> GrantId {
    let view = authority.request(&name(who), wish("web-1"), at).await.unwrap();
    match view.grant {
        Some(grant) => grant,
        None => approve(authority, &view, at).await.grant.unwrap(),
    }
}

async fn extend(authority: &Authority, who: &str, id: GrantId, at: Timestamp) -> Result<RequestView, GrantError> {
    let more = More { duration: Some(Duration::from_secs(900)), ..More::default() };
    authority.extend(&name(who), &id.to_string(), more, at).await
}

async fn permit(authority: &Authority, who: &str, at: Timestamp) -> Result<Permit, Denied> {
    authority.authorize(&ssh(who, "deploy", "web-1"), at).await
}

fn why<T: std::fmt::Debug>(result: Result<T, GrantError>) -> String {
    result.unwrap_err().to_string()
}

#[tokio::test]
async fn an_extension_is_approved_like_the_grant_and_live_sessions_end_later_with_the_last_approval() {
    let (dir, authority) = world(by_leads(), false);
    let first = granted(&authority, "alice", now()).await;
    let live = permit(&authority, "alice", now()).await.unwrap();
    let mut moves = live.moves();
    let asked = extend(&authority, "alice", first, after(60)).await.unwrap();
    assert!(matches!(asked.standing, Some(Standing::Waiting(_))) && live.expires() == after(600));
    assert_eq!((asked.wanted.extends, asked.wanted.reason.as_deref()), (Some(first), Some("a reason")));
    assert!(
        why(authority.approve(&name("alice"), &asked.wanted.id.to_string(), None, after(60)).await)
            .contains("own request")
    );
    let second = approve(&authority, &asked, after(120)).await.grant.unwrap();
    moves.next().await;
    assert_eq!((live.expires(), live.grant()), (after(1020), first));
    authority.recheck(&live, after(1019)).await.unwrap();
    // One extension to a grant, and none to an extension; and it is the requester's own.
    assert!(why(extend(&authority, "alice", first, after(130)).await).contains("it was extended already"));
    assert!(why(extend(&authority, "alice", second, after(130)).await).contains("an extension already"));
    assert!(why(extend(&authority, "bob", first, after(130)).await).contains("no grant has this id"));
    assert!(why(extend(&authority, "alice", first, after(600)).await).contains("this grant is over"));
    // Who loses the one loses the other.
    authority.revoke(&name("carol"), &first.to_string(), None, after(200)).await.unwrap();
    assert!(matches!(live.ended().await, Ended::Revoked { .. }));
    assert!(permit(&authority, "alice", after(200)).await.is_err());
    let extended: Vec<_> = authority.store().tail(40).await.unwrap();
    let extended = extended.into_iter().find(|entry| entry.event.kind == "session.extended").unwrap().event;
    assert_eq!((extended.session, extended.grant), (Some(live.session()), Some(second)));
    drop((live, authority));
    assert!(crate::store::verify(dir.path(), ledger_public()).unwrap().intact());
}

#[tokio::test]
async fn what_is_denied_edited_or_not_extensible_moves_nothing() {
    let (_dir, authority) = world(by_leads(), false);
    let first = granted(&authority, "alice", now()).await;
    let live = permit(&authority, "alice", now()).await.unwrap();
    let asked = extend(&authority, "alice", first, now()).await.unwrap();
    let more = More { duration: Some(Duration::from_secs(1200)), ..More::default() };
    let edited = authority.extend(&name("alice"), &first.to_string(), more, now()).await.unwrap();
    let old = authority.approve(&name("dave"), &asked.wanted.id.to_string(), None, now()).await;
    assert!(why(old).contains("cancelled"));
    authority.deny(&name("dave"), &edited.wanted.id.to_string(), "enough".to_owned(), now()).await.unwrap();
    assert_eq!(live.expires(), after(600));
    // A request for another grant beside it is another one.
    let again = extend(&authority, "alice", first, now()).await.unwrap();
    let other = authority.request(&name("alice"), wish("web-1"), now()).await.unwrap();
    assert_eq!(
        authority.request_named(None, &again.wanted.id.to_string(), now()).await.unwrap().state,
        RequestState::Open
    );
    assert_ne!(again.wanted.id, other.wanted.id);
    authority.replace(policy_asking(Asking { extend: false, ..by_leads() }));
    assert!(why(extend(&authority, "alice", first, now()).await).contains("shell is not extended"));
}

/// How a session ends that came in by an extension, when the grant that it extends is handed back.
async fn by_the_extension(authority: &Authority) -> Ended {
    let first = granted(authority, "bob", now()).await;
    let asked = extend(authority, "bob", first, now()).await.unwrap();
    let second = approve(authority, &asked, now()).await.grant.unwrap();
    let live = permit(authority, "bob", now()).await.unwrap();
    assert_eq!(live.grant(), second);
    authority.give_back(&name("bob"), &first.to_string(), false, None, now()).await.unwrap();
    live.ended().await
}

#[tokio::test]
async fn what_is_handed_back_ends_its_sessions_and_opens_nothing_more() {
    let (_dir, authority) = world(by_leads(), false);
    let first = granted(&authority, "alice", now()).await;
    let asked = extend(&authority, "alice", first, now()).await.unwrap();
    let second = approve(&authority, &asked, now()).await.grant.unwrap();
    let live = permit(&authority, "alice", now()).await.unwrap();
    let give = async |who: &str, force, reason: Option<&str>| {
        authority.give_back(&name(who), &second.to_string(), force, reason.map(str::to_owned), now()).await
    };
    assert!(why(give("bob", true, Some("x")).await).contains("no grant has this id"), "it is none of bob's business");
    assert!(why(give("dave", false, None).await).contains("it is alice's"));
    assert!(why(give("dave", true, Some(" ")).await).contains("say why"));
    give("alice", false, None).await.unwrap();
    assert_eq!(live.ended().await, Ended::Returned);
    assert!(why(give("alice", false, None).await).contains("over already"));
    assert_eq!(by_the_extension(&authority).await, Ended::Returned);
    assert!(permit(&authority, "alice", now()).await.is_err(), "neither the grant nor its extension");
    let third = granted(&authority, "alice", now()).await;
    let live = permit(&authority, "alice", now()).await.unwrap();
    authority.give_back(&name("dave"), &third.to_string(), true, Some("incident".to_owned()), now()).await.unwrap();
    assert_eq!(live.ended().await, Ended::Revoked { by: "dave".to_owned(), reason: Some("incident".to_owned()) });
}

fn queued(view: &RequestView) -> Queued {
    match &view.standing {
        Some(Standing::Queued(queued)) => queued.clone(),
        other => panic!("{:?} {other:?}", view.state),
    }
}

async fn look(authority: &Authority, view: &RequestView, at: Timestamp) -> RequestView {
    authority.request_named(None, &view.wanted.id.to_string(), at).await.unwrap()
}

#[tokio::test]
async fn one_holds_it_and_the_others_are_told_who_and_until_when_and_come_in_their_order() {
    let (dir, authority) = world(by_leads(), true);
    let held = granted(&authority, "alice", now()).await;
    let live = permit(&authority, "alice", now()).await.unwrap();
    let mut waiting = Vec::new();
    for who in ["bob", "carol"] {
        let asked = authority.request(&name(who), wish("web-1"), after(1)).await.unwrap();
        assert!(matches!(asked.standing, Some(Standing::Waiting(_))));
        waiting.push(approve(&authority, &asked, after(1)).await);
    }
    let alice = Some(name("alice"));
    assert_eq!(queued(&waiting[0]), Queued { by: alice.clone(), until: Some(after(600)), ahead: 0 });
    assert_eq!(queued(&waiting[1]), Queued { by: alice.clone(), until: Some(after(600)), ahead: 1 });
    assert_eq!(authority.pass_on(after(2)).await.unwrap(), Some(after(600)));
    // An admin's word is no way around it, nor is an extension held up by those who wait.
    let issued = authority.issue(&name("carol"), request("bob", "web-1", "shell"), after(2)).await;
    assert!(issued.is_err());
    let more = extend(&authority, "alice", held, after(3)).await.unwrap();
    assert!(approve(&authority, &more, after(3)).await.grant.is_some());
    assert_eq!(queued(&look(&authority, &waiting[0], after(3)).await).until, Some(after(903)));
    // Handed back, it is bob's once alice's session is gone.
    authority.give_back(&name("alice"), &held.to_string(), false, None, after(4)).await.unwrap();
    authority.pass_on(after(4)).await.unwrap();
    assert_eq!(queued(&look(&authority, &waiting[0], after(4)).await), Queued { by: alice, until: None, ahead: 0 });
    drop(live);
    authority.pass_on(after(4)).await.unwrap();
    assert_eq!(look(&authority, &waiting[0], after(4)).await.state, RequestState::Granted);
    assert_eq!(queued(&look(&authority, &waiting[1], after(4)).await).by, Some(name("bob")));
    permit(&authority, "bob", after(4)).await.unwrap();
    // Its end passes it on too.
    assert_eq!(authority.pass_on(after(4)).await.unwrap(), Some(after(604)));
    authority.pass_on(after(604)).await.unwrap();
    let carols = look(&authority, &waiting[1], after(604)).await;
    assert_eq!(
        authority.grant(&carols.grant.unwrap().to_string(), after(604)).await.unwrap().claims.exp,
        after(1204).as_second()
    );
    drop(authority);
    assert!(crate::store::verify(dir.path(), ledger_public()).unwrap().intact());
}

#[tokio::test]
async fn what_becomes_exclusive_while_two_have_it_opens_for_the_first_and_a_locked_one_is_passed_over() {
    let (_dir, authority) = world(asking(&[]), false);
    granted(&authority, "alice", now()).await;
    let bobs = granted(&authority, "bob", now()).await;
    let mut policy = (*authority.policy()).clone();
    policy.entitlements.get_mut(&"shell".parse().unwrap()).unwrap().conditions.exclusive = true;
    authority.replace(policy);
    let refused = permit(&authority, "bob", now()).await;
    assert!(matches!(&refused, Err(Denied::HeldBy { by, .. }) if *by == name("alice")), "{refused:?}");
    permit(&authority, "alice", now()).await.unwrap();
    authority.give_back(&name("bob"), &bobs.to_string(), false, None, now()).await.unwrap();
    let bob = authority.request(&name("bob"), wish("web-1"), now()).await.unwrap();
    let carol = authority.request(&name("carol"), wish("web-1"), now()).await.unwrap();
    assert_eq!((queued(&bob).ahead, queued(&carol).ahead), (0, 1));
    let scope = crate::LockScope::User(name("bob"));
    let lock = LockRequest { scope, reason: "lost laptop".to_owned(), until: None };
    authority.lock(&name("carol"), lock, now()).await.unwrap();
    authority.pass_on(after(600)).await.unwrap();
    assert_eq!(look(&authority, &carol, after(600)).await.state, RequestState::Granted);
    assert_eq!(look(&authority, &bob, after(600)).await.state, RequestState::Open);
}

#[tokio::test]
async fn what_others_wait_for_is_kept_for_a_first_session_no_longer_than_it_was_asked_for() {
    let (_dir, authority) = world(Asking { clock: Clock::FirstUse, ..asking(&[]) }, true);
    let never_comes = granted(&authority, "alice", now()).await;
    assert_eq!(authority.grant(&never_comes.to_string(), now()).await.unwrap().ends, after(600));
    let bob = authority.request(&name("bob"), wish("web-1"), now()).await.unwrap();
    assert_eq!(queued(&bob).ahead, 0);
    authority.pass_on(after(599)).await.unwrap();
    assert_eq!(look(&authority, &bob, after(599)).await.state, RequestState::Open);
    authority.pass_on(after(600)).await.unwrap();
    assert_eq!(look(&authority, &bob, after(600)).await.state, RequestState::Granted);
    let first = permit(&authority, "bob", after(1199)).await.unwrap();
    assert_eq!(first.expires(), after(1799));
}

/// So many attempts at once.
const CROWD: usize = 10_000;
/// By so many people.
const PEOPLE: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_thousand_attempts_at_once_to_have_what_one_holds_exactly_one_persons_come_through() {
    let (dir, authority) = world(asking(&[]), true);
    let mut policy = (*authority.policy()).clone();
    for number in 0..PEOPLE {
        let name: IdentityName = format!("p{number}").parse().unwrap();
        let groups = ["sre".parse().unwrap()].into();
        policy.identities.insert(name.clone(), crate::Identity { name, groups, ssh_keys: Vec::new(), unix_user: None });
    }
    authority.replace(policy);
    let authority = Arc::new(authority);
    let mut trying = tokio::task::JoinSet::new();
    for number in 0..CROWD {
        let authority = authority.clone();
        trying.spawn(async move {
            let who = format!("p{}", number % PEOPLE);
            // Half of them ask, half of them just try the door.
            let through = match (number / PEOPLE) % 2 {
                0 => authority.request(&name(&who), wish("web-1"), now()).await.unwrap().state == RequestState::Granted,
                _ => permit(&authority, &who, now()).await.is_ok(),
            };
            through.then_some(who)
        });
    }
    let through: BTreeSet<String> = trying.join_all().await.into_iter().flatten().collect();
    // Who has it may ask again, as long as nobody waits.
    let holders: BTreeSet<_> =
        authority.grants(crate::Listing::all(), now()).await.unwrap().into_iter().map(|it| it.claims.sub).collect();
    assert_eq!((through.len(), holders.len()), (1, 1), "{through:?} {holders:?}");
    assert!(crate::store::verify(dir.path(), ledger_public()).unwrap().intact());
}
