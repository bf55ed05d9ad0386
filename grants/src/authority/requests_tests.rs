#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test code")]

use super::*;
use crate::{
    asking::{Asking, Clock, Escalation, Proof, TicketRule},
    fixture::*,
    panel::Standing,
    request::{LIFE, More, NAMESPACE, RequestState, RequestView, Wish},
};
use proptest::prelude::*;
use ssh_key::{HashAlg, LineEnding, PrivateKey};
use std::collections::BTreeMap;
use tempfile::TempDir;

const WITNESSED: Proof = Proof::Attested;

fn name(name: &str) -> IdentityName {
    name.parse().unwrap()
}

fn asked(asking: Asking) -> (TempDir, Authority) {
    let (dir, authority) = authority();
    authority.replace(policy_asking(asking));
    (dir, authority)
}

/// One lead, then two of security.
fn two_levels() -> Asking {
    asking(&[(&["leads"], 1, WITNESSED), (&["security"], 2, WITNESSED)])
}

async fn ask(authority: &Authority) -> RequestView {
    authority.request(&name("alice"), wish("web-1"), now()).await.unwrap()
}

async fn yes(authority: &Authority, by: &str, request: &RequestView) -> Result<RequestView, GrantError> {
    authority.approve(&name(by), &request.wanted.id.to_string(), None, now()).await
}

async fn opens(authority: &Authority) -> bool {
    authority.authorize(&ssh("alice", "deploy", "web-1"), now()).await.is_ok()
}

fn why<T: std::fmt::Debug>(result: Result<T, GrantError>) -> String {
    result.unwrap_err().to_string()
}

#[tokio::test]
async fn each_level_in_its_order_by_others_and_then_there_is_a_grant_that_says_who() {
    let (dir, authority) = asked(two_levels());
    let request = ask(&authority).await;
    assert!(
        matches!(&request.standing, Some(Standing::Waiting(awaited)) if awaited.level == 1 && awaited.missing == 1)
    );
    assert!(why(yes(&authority, "frank", &request).await).contains("level 1 comes first"));
    assert!(why(yes(&authority, "alice", &request).await).contains("nobody approves their own request"));
    assert!(why(yes(&authority, "mallory", &request).await).contains("no request has this id"));
    assert!(why(yes(&authority, "carol", &request).await).contains("not among those"), "an admin is nobody special");
    yes(&authority, "dave", &request).await.unwrap();
    assert!(why(yes(&authority, "dave", &request).await).contains("already, on level 1"));
    yes(&authority, "frank", &request).await.unwrap();
    assert!(!opens(&authority).await);
    let granted = yes(&authority, "grace", &request).await.unwrap();
    assert_eq!(granted.state, RequestState::Granted);
    let grant = authority.grant(&granted.grant.unwrap().to_string(), now()).await.unwrap();
    let said: Vec<_> = grant.claims.approvals.iter().map(|yes| (yes.by.as_str(), yes.level, yes.proof)).collect();
    assert_eq!(said, [("dave", 1, WITNESSED), ("frank", 2, WITNESSED), ("grace", 2, WITNESSED)]);
    assert_eq!(grant.claims.exp - grant.claims.iat, 600);
    assert!(opens(&authority).await);
    assert!(why(yes(&authority, "erin", &request).await).contains("it is granted"));
    let kinds: Vec<_> = authority.store().tail(20).await.unwrap().into_iter().map(|e| e.event.kind).collect();
    for kind in ["request.opened", "request.approved", "grant.issued", "request.granted"] {
        assert!(kinds.iter().any(|k| k == kind), "{kind}: {kinds:?}");
    }
    drop(authority);
    assert!(crate::store::verify(dir.path(), ledger_public()).unwrap().intact());
}

#[tokio::test]
async fn no_level_grants_at_once_and_no_approvals_key_only_by_an_admin() {
    let (_dir, authority) = asked(asking(&[]));
    let granted = ask(&authority).await;
    assert_eq!(granted.state, RequestState::Granted);
    assert!(opens(&authority).await);
    let mut wanted = wish("orders");
    wanted.entitlement = Some("readonly".parse().unwrap());
    assert!(why(authority.request(&name("alice"), wanted, now()).await).contains("an admin grants it"));
}

#[tokio::test]
async fn what_must_be_said_and_what_is_too_much() {
    let rules =
        Asking { ticket: Some(TicketRule::new("^INC-[0-9]+$").unwrap()), ..asking(&[(&["leads"], 1, WITNESSED)]) };
    let (_dir, authority) = asked(rules);
    let good = || Wish { ticket: Some("INC-1".to_owned()), ..wish("web-1") };
    let cases: [(Wish, &str); 9] = [
        (Wish { reason: None, ..good() }, "a reason must be given"),
        (Wish { reason: Some(" \u{1b} ".to_owned()), ..good() }, "a reason must be given"),
        (wish("web-1"), "name a ticket"),
        (Wish { ticket: Some("INC-x".to_owned()), ..good() }, "must look like ^INC"),
        (Wish { duration: Some(Duration::from_secs(3601)), ..good() }, "lasts at most"),
        (Wish { duration: Some(Duration::ZERO), ..good() }, "a second at least"),
        (Wish { login: Some("root".parse().unwrap()), ..good() }, "no target web-1 for you"),
        (Wish { entitlement: Some("readonly".parse().unwrap()), ..good() }, "no entitlement readonly for you"),
        (Wish { target: "web-9".parse().unwrap(), ..good() }, "no target web-9 for you"),
    ];
    for (wish, said) in cases {
        let refused = why(authority.request(&name("alice"), wish.clone(), now()).await);
        assert!(refused.contains(said), "{wish:?}: {refused}");
    }
    assert!(why(authority.request(&name("mallory"), good(), now()).await).contains("no target web-1 for you"));
    assert!(authority.requests(None, now()).await.unwrap().is_empty());
    authority.request(&name("alice"), good(), now()).await.unwrap();
}

#[tokio::test]
async fn what_could_never_be_granted_is_no_request_and_a_no_wakes_nobody() {
    let (_dir, authority) = asked(two_levels());
    let changes = authority.request_changes();
    let both =
        Wish { login: Some("deploy".parse().unwrap()), database: Some("shop".parse().unwrap()), ..wish("web-1") };
    assert!(why(authority.request(&name("alice"), both, now()).await).contains("web-1 has no databases"));
    let nowhere = Wish { target: "nowhere".parse().unwrap(), ..wish("web-1") };
    assert!(authority.request(&name("alice"), nowhere, now()).await.is_err());
    assert!(authority.requests(None, now()).await.unwrap().is_empty() && !changes.has_changed().unwrap());
    ask(&authority).await;
    assert!(changes.has_changed().unwrap());
    assert_eq!(authority.open_requests(&name("alice"), now()).await.unwrap().len(), 1);
    assert!(authority.open_requests(&name("dave"), now()).await.unwrap().is_empty(), "it is not theirs");
}

#[tokio::test]
async fn somebody_who_asks_and_asks_is_told_to_wait_and_nobody_else_is() {
    let (_dir, authority) = asked(two_levels());
    let again = |n: u32| Wish { reason: Some(format!("reason {n}")), ..wish("web-1") };
    for n in 0..1000 {
        authority.request(&name("alice"), again(n), now()).await.unwrap();
    }
    assert!(why(authority.request(&name("alice"), again(1000), now()).await).contains("within an hour"));
    authority.request(&name("alice"), again(1000), after(3600)).await.unwrap();
}

#[tokio::test]
async fn what_was_open_in_a_backup_is_not_open_in_what_it_is_restored_to() {
    let (dir, authority) = asked(two_levels());
    let request = ask(&authority).await;
    yes(&authority, "dave", &request).await.unwrap();
    drop(authority);
    std::fs::write(dir.path().join(crate::store::RESTORED), "{}").unwrap();
    let authority = authority_in(dir.path());
    authority.replace(policy_asking(two_levels()));
    assert!(authority.store().trusted().await.is_ok());
    let restored = authority.requests(None, now()).await.unwrap();
    assert_eq!(restored[0].state, RequestState::Cancelled);
    assert!(restored[0].decided.as_ref().unwrap().reason.as_ref().unwrap().contains("restored from a backup"));
    assert!(why(yes(&authority, "frank", &request).await).contains("not open any more"));
}

#[tokio::test]
async fn the_same_again_is_the_same_request_and_anything_else_voids_it() {
    let (_dir, authority) = asked(asking(&[(&["leads"], 2, WITNESSED)]));
    let first = ask(&authority).await;
    yes(&authority, "dave", &first).await.unwrap();
    assert_eq!(ask(&authority).await.wanted.id, first.wanted.id);
    let longer = Wish { duration: Some(Duration::from_secs(601)), ..wish("web-1") };
    let second = authority.request(&name("alice"), longer, now()).await.unwrap();
    assert!(second.wanted.id != first.wanted.id && second.digest != first.digest && second.approvals.is_empty());
    assert!(why(yes(&authority, "erin", &first).await).contains("cancelled"));
    yes(&authority, "erin", &second).await.unwrap();
    assert!(!opens(&authority).await, "dave's yes was to the first");
    yes(&authority, "dave", &second).await.unwrap();
    assert!(opens(&authority).await);
}

#[tokio::test]
async fn denial_cancellation_and_time_end_a_request() {
    let (_dir, authority) = asked(two_levels());
    let id = |request: &RequestView| request.wanted.id.short();
    let denied = ask(&authority).await;
    for reason in ["", " \n"] {
        let refused = authority.deny(&name("dave"), &id(&denied), reason.to_owned(), now()).await;
        assert!(why(refused).contains("a denial needs a reason"));
    }
    let own = authority.deny(&name("alice"), &id(&denied), "x".to_owned(), now()).await;
    assert!(why(own).contains("cancel it"));
    let over = authority.deny(&name("frank"), &id(&denied), "not\u{7} today".to_owned(), now()).await.unwrap();
    assert_eq!((over.state, over.decided.unwrap().reason.unwrap().as_str()), (RequestState::Denied, "not  today"));
    let cancelled = ask(&authority).await;
    let others = authority.cancel(&name("dave"), &id(&cancelled), now()).await;
    assert!(why(others).contains("only who asked"));
    assert_eq!(authority.cancel(&name("alice"), &id(&cancelled), now()).await.unwrap().state, RequestState::Cancelled);
    let late = ask(&authority).await;
    let end = now() + LIFE;
    let after_it = authority.approve(&name("dave"), &id(&late), None, end).await;
    assert!(why(after_it).contains("it is expired"));
    assert_eq!(authority.expire_requests(end).await.unwrap(), 1);
    assert_eq!(authority.expire_requests(end).await.unwrap(), 0);
    let shown = authority.request_named(None, &id(&late), end).await.unwrap();
    assert_eq!(shown.state, RequestState::Expired);
    for request in [&denied, &cancelled, &late] {
        assert!(yes(&authority, "dave", request).await.is_err());
    }
    assert!(!opens(&authority).await);
}

#[tokio::test]
async fn somebody_who_is_needed_later_is_not_spent_earlier_and_too_few_is_said_at_once() {
    // erin is a lead too; with frank gone, security has two people left, and needs both.
    let (_dir, authority) = asked(two_levels());
    let mut policy = policy_asking(two_levels());
    policy.identities.remove(&name("frank"));
    authority.replace(policy.clone());
    let request = ask(&authority).await;
    assert!(why(yes(&authority, "erin", &request).await).contains("needed on level 2"));
    yes(&authority, "dave", &request).await.unwrap();
    yes(&authority, "erin", &request).await.unwrap();
    policy.identities.remove(&name("grace"));
    authority.replace(policy);
    let stuck = authority.request_named(None, &request.wanted.id.to_string(), now()).await.unwrap();
    assert_eq!(stuck.standing, Some(Standing::Stuck(2)));
    authority.cancel(&name("alice"), &request.wanted.id.to_string(), now()).await.unwrap();
    let refused = why(authority.request(&name("alice"), wish("web-1"), now()).await);
    assert!(refused.contains("level 2 needs 2 of security"), "{refused}");
}

#[tokio::test]
async fn an_approver_who_leaves_takes_their_yes_along() {
    let (_dir, authority) = asked(asking(&[(&["leads", "security"], 2, WITNESSED)]));
    let request = ask(&authority).await;
    yes(&authority, "dave", &request).await.unwrap();
    let mut policy = (*authority.policy()).clone();
    policy.identities.remove(&name("dave"));
    authority.replace(policy);
    yes(&authority, "erin", &request).await.unwrap();
    assert!(!opens(&authority).await);
    yes(&authority, "frank", &request).await.unwrap();
    assert!(opens(&authority).await);
}

#[tokio::test]
async fn once_nobody_has_decided_others_may() {
    let escalate = Escalation { after: Duration::from_secs(600), to: ["duty".parse().unwrap()].into() };
    let (_dir, authority) = asked(Asking { escalate: Some(escalate), ..asking(&[(&["leads"], 1, WITNESSED)]) });
    let request = ask(&authority).await;
    let id = request.wanted.id.to_string();
    let early = authority.approve(&name("heidi"), &id, None, after(599)).await;
    assert!(why(early).contains("not among those"));
    let granted = authority.approve(&name("heidi"), &id, None, after(600)).await.unwrap();
    assert_eq!(granted.state, RequestState::Granted);
}

#[tokio::test]
async fn nobody_approves_what_somebody_asked_for_who_has_been_ended() {
    let (_dir, authority) = asked(asking(&[(&["leads"], 1, WITNESSED)]));
    let request = ask(&authority).await;
    authority.end_user(&name("carol"), &name("alice"), Some("left".to_owned()), now()).await.unwrap();
    assert!(why(yes(&authority, "dave", &request).await).contains("cancelled"));
    assert!(!opens(&authority).await);
}

#[tokio::test]
async fn each_sees_what_is_theirs_to_see() {
    let (_dir, authority) = asked(two_levels());
    let request = ask(&authority).await;
    for (who, sees) in
        [("alice", true), ("dave", true), ("frank", true), ("carol", true), ("bob", false), ("heidi", false)]
    {
        let seen = authority.requests(Some(&name(who)), now()).await.unwrap();
        assert_eq!(seen.len(), usize::from(sees), "{who}");
        let one = authority.request_named(Some(&name(who)), &request.wanted.id.short(), now()).await;
        assert_eq!(one.is_ok(), sees, "{who}");
    }
}

fn key(seed: u8) -> PrivateKey {
    let pair = ssh_key::private::Ed25519Keypair::from_seed(&[seed; 32]);
    PrivateKey::new(ssh_key::private::KeypairData::Ed25519(pair), "").unwrap()
}

fn signed(key: &PrivateKey, namespace: &str, line: &str) -> String {
    key.sign(namespace, HashAlg::Sha512, line.as_bytes()).unwrap().to_pem(LineEnding::LF).unwrap()
}

#[tokio::test]
async fn a_signed_level_takes_the_approvers_own_signature_over_exactly_this_and_nothing_else() {
    let (_dir, authority) = asked(asking(&[(&["leads"], 2, Proof::Signed)]));
    let mut policy = (*authority.policy()).clone();
    for (who, seed) in [("dave", 1), ("erin", 2)] {
        let line = key(seed).public_key().to_openssh().unwrap();
        policy.identities.get_mut(&name(who)).unwrap().ssh_keys.push(line.trim().to_owned());
    }
    authority.replace(policy);
    let request = ask(&authority).await;
    let line = request.line_to_sign();
    let longer = Wish { duration: Some(Duration::from_secs(60)), ..wish("web-1") };
    let edited = authority.request(&name("alice"), longer, now()).await.unwrap();
    let new = edited.line_to_sign();
    let wrong = [
        (None, "signed approvals only"),
        (Some("yes".to_owned()), "no signature"),
        (Some(signed(&key(2), NAMESPACE, &new)), "not by one of your own keys"),
        (Some(signed(&key(1), "file", &new)), "another purpose"),
        (Some(signed(&key(1), NAMESPACE, &line)), "not over the line that is to be signed now"),
        (Some(signed(&key(1), NAMESPACE, &new.replace("sha256=", "sha256=0"))), "not over the line"),
    ];
    let id = edited.wanted.id.to_string();
    for (signature, said) in wrong {
        let refused = why(authority.approve(&name("dave"), &id, signature, now()).await);
        assert!(refused.contains(said), "{refused}");
    }
    let lent = key(3).public_key().to_openssh().unwrap().trim().to_owned();
    let (identity, how) = (name("dave"), "oidc".to_owned());
    let lent = crate::guest::LentKey { key: lent, identity, how, since: now(), ends: after(3600) };
    authority.lend_key(lent, now()).await.unwrap();
    let dave = authority.policy().identities.get(&name("dave")).unwrap().ssh_keys.clone();
    assert_eq!(dave.len(), 2, "it is his key at the door");
    let refused = why(authority.approve(&name("dave"), &id, Some(signed(&key(3), NAMESPACE, &new)), now()).await);
    assert!(refused.contains("not by one of your own keys"), "a day's key signs nothing: {refused}");
    let ends_its_line = signed(&key(1), NAMESPACE, &format!("{new}\n"));
    authority.approve(&name("dave"), &id, Some(ends_its_line), now()).await.unwrap();
    let granted = authority.approve(&name("erin"), &id, Some(signed(&key(2), NAMESPACE, &new)), now()).await.unwrap();
    assert!(granted.approvals.iter().all(|yes| yes.proof == Proof::Signed && yes.signature.is_some()));
    let grant = authority.grant(&granted.grant.unwrap().to_string(), now()).await.unwrap();
    assert!(grant.claims.approvals.iter().all(|yes| yes.proof == Proof::Signed));
}

#[tokio::test]
async fn an_admins_word_is_one_approval_and_a_foreign_grant_counts_only_where_it_may() {
    let (_dir, authority) = asked(two_levels());
    let issued = authority.issue(&name("carol"), request("alice", "web-1", "shell"), now()).await;
    assert!(why(issued).contains("not among those"));
    authority.replace(policy_asking(asking(&[(&["platform"], 1, WITNESSED)])));
    authority.issue(&name("carol"), request("alice", "web-1", "shell"), now()).await.unwrap();
    assert!(opens(&authority).await);
    // The terms become stricter: what was granted on fewer approvals opens nothing any more.
    let permit = authority.authorize(&ssh("alice", "deploy", "web-1"), now()).await.unwrap();
    authority.replace(policy_asking(asking(&[(&["platform"], 1, WITNESSED), (&["leads"], 1, WITNESSED)])));
    assert_eq!(permit.ended().await, Ended::Withdrawn);
    assert!(!opens(&authority).await);
    let mut policy = policy_asking(asking(&[]));
    let readonly = policy.entitlements.get_mut(&"readonly".parse().unwrap()).unwrap();
    readonly.asking = Some(asking(&[(&["leads"], 1, WITNESSED)]));
    authority.replace(policy.clone());
    let token = hs256(&claims("servicedesk", "1"));
    assert!(why(authority.import(&name("carol"), &token, now()).await).contains("asks for approvals"));
    policy.issuers.get_mut("servicedesk").unwrap().counts_as_approval = true;
    authority.replace(policy);
    authority.import(&name("carol"), &token, now()).await.unwrap();
    authority.authorize(&sql("alice", "shop", None), now()).await.unwrap();
}

#[tokio::test]
async fn what_somebody_wrote_into_the_store_decides_nothing() {
    let edits = [
        "UPDATE requests SET terms = replace(terms, '\"seconds\":600', '\"seconds\":900')",
        "UPDATE requests SET state = 'granted'",
        "UPDATE requests SET expires = '2099-01-01T00:00:00Z'",
        "UPDATE approvals SET approver = 'erin'",
        "DELETE FROM approvals",
        "INSERT INTO approvals SELECT request, 'grace', digest, at, 2, proof, signature FROM approvals",
    ];
    for edit in edits {
        let (dir, authority) = asked(asking(&[(&["leads", "security"], 2, WITNESSED)]));
        let request = ask(&authority).await;
        yes(&authority, "dave", &request).await.unwrap();
        let foreign = rusqlite::Connection::open(dir.path().join("tidegate.db")).unwrap();
        assert_eq!(foreign.execute(edit, []).unwrap(), 1, "{edit}");
        assert!(yes(&authority, "frank", &request).await.is_err(), "{edit}");
        assert!(!opens(&authority).await, "{edit}");
    }
}

const PEOPLE: [&str; 8] = ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"];

/// Something that happens to alice's request.
#[derive(Debug, Clone)]
enum Step {
    Yes(usize),
    No(usize),
    Edit(u64),
    Cancel,
    Leaves(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 0..PEOPLE.len();
    let step = prop_oneof![
        8 => who.clone().prop_map(Step::Yes),
        1 => who.clone().prop_map(Step::No),
        2 => (600u64..603).prop_map(Step::Edit),
        1 => Just(Step::Cancel),
        1 => (3..PEOPLE.len()).prop_map(Step::Leaves),
    ];
    proptest::collection::vec(step, 1..24)
}

fn any_levels() -> impl Strategy<Value = Asking> {
    let groups = prop_oneof![Just(&["leads"][..]), Just(&["security"][..]), Just(&["leads", "security", "sre"][..])];
    let levels = proptest::collection::vec((groups, 1u32..3), 1..4);
    levels.prop_map(|levels| {
        asking(&levels.into_iter().map(|(from, count)| (from, count, WITNESSED)).collect::<Vec<_>>())
    })
}

/// Plays them; whatever is granted at the end must be right by a count of its own.
async fn play(rules: Asking, steps: Vec<Step>) {
    let (_dir, authority) = asked(rules.clone());
    let alice = name("alice");
    let Ok(mut current) = authority.request(&alice, wish("web-1"), now()).await else { return };
    // Who has said yes to which request, as far as we were told that it counts.
    let mut said: BTreeMap<String, Vec<(String, u32)>> = BTreeMap::new();
    for step in steps {
        let id = current.wanted.id.to_string();
        match step {
            Step::Yes(who) => {
                let members = authority.policy();
                if let Ok(view) = yes(&authority, PEOPLE[who], &current).await {
                    let level = view.approvals.iter().find(|yes| yes.by.as_str() == PEOPLE[who]).unwrap().level;
                    let from = &rules.levels[usize::try_from(level).unwrap() - 1].from;
                    assert!(!members.identities[&name(PEOPLE[who])].groups.is_disjoint(from));
                    said.entry(id).or_default().push((PEOPLE[who].to_owned(), level));
                }
            }
            Step::No(who) => drop(authority.deny(&name(PEOPLE[who]), &id, "no".to_owned(), now()).await),
            Step::Cancel => drop(authority.cancel(&alice, &id, now()).await),
            Step::Edit(seconds) => {
                let other = Wish { duration: Some(Duration::from_secs(seconds)), ..wish("web-1") };
                if let Ok(view) = authority.request(&alice, other, now()).await {
                    current = view;
                }
            }
            Step::Leaves(who) => {
                let mut policy = (*authority.policy()).clone();
                policy.identities.remove(&name(PEOPLE[who]));
                authority.replace(policy);
            }
        }
    }
    for grant in authority.grants(crate::Listing::all(), now()).await.unwrap() {
        let id = grant.claims.jti.strip_prefix("request-").unwrap().to_owned();
        let to_this = &said[&id];
        let mut once = std::collections::BTreeSet::new();
        assert!(to_this.iter().all(|(by, _)| by != "alice" && once.insert(by)), "{to_this:?}");
        for (number, rule) in (1..).zip(&rules.levels) {
            let here = to_this.iter().filter(|(_, level)| *level == number).count();
            assert!(here >= usize::try_from(rule.count).unwrap(), "level {number} of {rules:?}: {to_this:?}");
        }
        let in_it: std::collections::BTreeSet<_> = grant.claims.approvals.iter().map(|yes| yes.by.clone()).collect();
        assert_eq!(in_it, to_this.iter().map(|(by, _)| by.clone()).collect());
    }
    authority.store().trusted().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_events_opens_a_grant_without_every_level_satisfied_by_distinct_others(
        rules in any_levels(), steps in steps()
    ) {
        tokio::runtime::Runtime::new().unwrap().block_on(play(rules, steps));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_approvers_at_once_exactly_one_makes_the_grant() {
    let (_dir, authority) = asked(asking(&[(&["leads", "security", "duty"], 3, WITNESSED)]));
    let request = ask(&authority).await;
    let authority = Arc::new(authority);
    let mut approving = tokio::task::JoinSet::new();
    for by in ["dave", "erin", "frank", "grace", "heidi"] {
        for _ in 0..4 {
            let (authority, request) = (authority.clone(), request.clone());
            approving.spawn(async move { yes(&authority, by, &request).await });
        }
    }
    let counted = approving.join_all().await.into_iter().filter(Result::is_ok).count();
    assert_eq!((counted, authority.grants(crate::Listing::all(), now()).await.unwrap().len()), (3, 1));
}

#[tokio::test]
async fn what_does_not_hold_where_somebody_asks_from_is_not_asked_of_anybody() {
    let (_dir, authority) = asked(asking(&[(&["leads"], 1, WITNESSED)]));
    let mut policy = authority.policy().as_ref().clone();
    let when = |text: &str| Some(crate::when::When::new(text).unwrap());
    let shell: crate::EntitlementName = "shell".parse().unwrap();
    let condition = r#"context.ip.isInRange(ip("192.0.2.0/24"))"#;
    policy.entitlements.get_mut(&shell).unwrap().conditions.when = when(condition);
    authority.replace(policy);
    let from = |from: Option<&str>| Wish { from: from.map(|from| from.parse().unwrap()), ..wish("web-1") };
    let refused = authority.request(&name("alice"), from(Some("198.51.100.7")), now()).await.unwrap_err();
    assert!(refused.to_string().contains("is open to you only when"), "{refused}");
    authority.request(&name("alice"), from(Some("192.0.2.7")), now()).await.unwrap();
    // Whence they will come is not known yet: each use is judged.
    authority.request(&name("bob"), from(None), now()).await.unwrap();
}

/// A grant whose time starts with its first session, for ten minutes.
async fn waiting_for_its_first_session() -> (TempDir, Authority, GrantId) {
    let (dir, authority) = asked(Asking { clock: Clock::FirstUse, extend: true, ..asking(&[]) });
    let grant = ask(&authority).await.grant.unwrap();
    (dir, authority, grant)
}

#[tokio::test]
async fn time_that_starts_with_the_first_session_runs_from_there_for_every_session() {
    const DAY: u64 = 24 * 3600;
    let (_dir, authority, grant) = waiting_for_its_first_session().await;
    let view = async |at| authority.grant(&grant.to_string(), at).await.unwrap();
    assert_eq!(view(now()).await.ends, after(DAY));
    let early = authority.extend(&name("alice"), &grant.to_string(), More::default(), now()).await.unwrap_err();
    assert!(early.to_string().contains("starts with its first session"), "{early}");
    let ask = ssh("alice", "deploy", "web-1");
    let first = authority.authorize(&ask, after(3600)).await.unwrap();
    assert_eq!((first.expires(), view(after(3600)).await.ends), (after(4200), after(4200)));
    assert!(first.left() <= Duration::from_secs(600));
    let second = authority.authorize(&ask, after(4000)).await.unwrap();
    assert_eq!(second.expires(), after(4200));
    authority.recheck(&first, after(4199)).await.unwrap();
    let over = authority.recheck(&first, after(4200)).await;
    assert!(matches!(&over, Err(Denied::Expired { at, .. }) if *at == after(4200)), "{over:?}");
    let over = authority.authorize(&ask, after(4200)).await;
    assert!(matches!(&over, Err(Denied::Expired { at, .. }) if *at == after(4200)), "{over:?}");
    assert_eq!(view(after(4200)).await.state, crate::GrantState::Expired);
}

#[tokio::test]
async fn time_that_has_not_started_within_a_day_ends_all_the_same() {
    const DAY: u64 = 24 * 3600;
    let ask = ssh("alice", "deploy", "web-1");
    let (_dir, authority, _) = waiting_for_its_first_session().await;
    let late = authority.authorize(&ask, after(DAY - 1)).await.unwrap();
    assert_eq!(late.expires(), after(DAY + 599), "all of its time");
    let (_dir, authority, grant) = waiting_for_its_first_session().await;
    assert!(matches!(authority.authorize(&ask, after(DAY)).await, Err(Denied::Expired { .. })));
    assert_eq!(authority.grant(&grant.to_string(), after(DAY)).await.unwrap().state, crate::GrantState::Expired);
}

#[tokio::test]
async fn a_session_that_never_reached_its_target_starts_no_time_unless_another_has_begun() {
    let (_dir, authority, grant) = waiting_for_its_first_session().await;
    let ends = async |at| authority.grant(&grant.to_string(), at).await.unwrap().ends;
    let ask = ssh("alice", "deploy", "web-1");
    let failed = authority.authorize(&ask, now()).await.unwrap();
    authority.store().session_closed(failed.session(), "failed: no route to host", after(1)).await.unwrap();
    assert_eq!(ends(after(1)).await, after(24 * 3600));
    let failed = authority.authorize(&ask, after(2)).await.unwrap();
    let _other = authority.authorize(&ask, after(3)).await.unwrap();
    authority.store().session_closed(failed.session(), "failed: no route to host", after(4)).await.unwrap();
    assert_eq!(ends(after(4)).await, after(602));
}

#[tokio::test]
async fn an_extension_moves_the_end_of_time_that_started_with_the_first_session() {
    let (_dir, authority, grant) = waiting_for_its_first_session().await;
    let permit = authority.authorize(&ssh("alice", "deploy", "web-1"), after(60)).await.unwrap();
    let more = More { duration: Some(Duration::from_secs(600)), ..More::default() };
    authority.extend(&name("alice"), &grant.to_string(), more, after(500)).await.unwrap();
    assert_eq!(permit.expires(), after(1100));
}
