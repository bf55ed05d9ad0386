//! Guests, lent keys, and outside tokens that are exchanged for ours.
//!
//! What always holds: a name is one person's, and a person has one name, for ever, so that nobody approves their own request
//! under another one; a key says who one identity is; an outside token is exchanged once. Who comes is in the ledger
//! before anything opens for them.

use super::{GrantError, permit::Rules};
use crate::{
    guest::{Arrival, LentKey},
    ledger::Event,
    name::{IdentityName, TokenId},
    store::{
        StoreError,
        guests::{self, KEYS},
        tokens::{self, TokenRow},
        writer::Writer,
    },
    text,
    token::{TokenMade, TokenScope, secret},
};
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::time::Duration;

/// Keys that one identity may have lent at once.
const MOST_KEYS: usize = 16;
/// Tokens of exchanges that one identity may have at once.
const MOST_TOKENS: usize = 1000;

/// An outside token that was verified, and what is given for it.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Whose it is here.
    pub workload: IdentityName,
    /// Who signed it.
    pub issuer: String,
    /// What makes it one of a kind: its `jti`, or all of it that is signed.
    pub one_of_a_kind: String,
    /// Whom it names there, for the ledger.
    pub subject: String,
    /// When it ends.
    pub ends: Timestamp,
    /// For how long ours is good.
    pub life: Duration,
}

fn refused<T>(why: impl Into<String>) -> Result<T, GrantError> {
    Err(GrantError::Refused(why.into()))
}

/// Gives a token of scope `grants` for one from outside, once.
pub(super) fn exchange(
    writer: &mut Writer,
    rules: &Rules,
    outside: &Exchange,
    now: Timestamp,
) -> Result<TokenMade, GrantError> {
    let who = &outside.workload;
    if !rules.policy().identities.contains_key(who) {
        return refused(format!("the configuration names no workload {who}"));
    }
    let expires = now.checked_add(outside.life).map_err(|_| GrantError::Refused("no such time".to_owned()))?;
    let (secret, hash) = secret().map_err(|error| StoreError::Database(format!("no randomness: {error}")))?;
    let digest = digest(outside);
    let row = TokenRow {
        id: TokenId::new(),
        identity: who.clone(),
        label: text::line(&format!("workload {}", outside.subject), 64),
        scope: TokenScope::Grants,
        created_at: now,
        created_by: who.clone(),
        expires,
        revoked: None,
    };
    let detail = json!({
        "token": row.id, "issuer": outside.issuer, "subject": text::line(&outside.subject, text::LINE),
        "expires": expires,
    });
    let event = Event::new("workload.exchanged").identity(who).detail(detail);
    writer.transact(now, |tx| {
        tx.trusted()?;
        let active = tokens::list(tx.db(), Some(who))?.iter().filter(|row| now < row.expires).count();
        if active >= MOST_TOKENS {
            return Ok(refused(format!("{who} has {active} tokens already: wait until some have ended")));
        }
        if !guests::exchange(tx, &digest, row.id, event.clone(), expires.max(outside.ends))? {
            return Ok(refused("this token was exchanged already, and is good for one exchange"));
        }
        tokens::insert(tx, &row, &hash)?;
        Ok(Ok(()))
    })??;
    Ok(TokenMade { id: row.id, secret, expires })
}

fn digest(outside: &Exchange) -> String {
    let mut hash = Sha256::new();
    for part in [&outside.issuer, &outside.one_of_a_kind] {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    HEXLOWER.encode(&hash.finalize())
}

/// Somebody has logged in elsewhere. From here on they are who they are, until their login ends.
pub(super) fn welcome(writer: &mut Writer, rules: &Rules, arrival: &Arrival, now: Timestamp) -> Result<(), GrantError> {
    let (name, declared) = (&arrival.identity, rules.declared(&arrival.identity).is_some());
    if arrival.declared && !declared {
        return refused(format!("the configuration names no user {name}"));
    }
    if !arrival.declared && declared {
        return refused(format!(
            "the configuration names a user {name}, and does not say that this login is theirs: an admin writes oidc = {:?} there",
            text::line(&arrival.subject, 128)
        ));
    }
    writer.transact(now, |tx| {
        tx.trusted()?;
        let before = guests::of_subject(tx.db(), &arrival.issuer, &arrival.subject)?;
        if arrival.declared {
            // They had another name before the configuration gave them this one: two would be two approvers.
            if let Some(guest) = before.filter(|guest| now < guest.ends) {
                guests::end(tx, &guest, "the configuration names them now", now)?;
            }
            let detail = json!({ "issuer": arrival.issuer, "subject": arrival.subject, "ends": arrival.ends });
            return tx.append(Event::new("user.arrived").identity(name).detail(detail)).map(Ok);
        }
        if let Some(guest) = before.filter(|guest| guest.identity != *name) {
            return Ok(refused(format!("this login is known here as {}, and nobody has two names", guest.identity)));
        }
        let namesake = guests::named(tx.db(), name)?;
        if namesake
            .is_some_and(|guest| (guest.issuer, guest.subject) != (arrival.issuer.clone(), arrival.subject.clone()))
        {
            return Ok(refused(format!("the name {name} is somebody else's here, for ever: ask an admin")));
        }
        guests::arrive(tx, arrival, now).map(Ok)
    })??;
    put_in_force(writer, rules, now)
}

/// From now on, for a while, this key (`ALGORITHM BASE64`) is theirs.
pub(super) fn lend(writer: &mut Writer, rules: &Rules, lent: &LentKey, now: Timestamp) -> Result<(), GrantError> {
    let (policy, who) = (rules.policy(), &lent.identity);
    if !policy.identities.contains_key(who) {
        return refused(format!("{who} is nobody here"));
    }
    let theirs = policy.identities.values().find(|identity| identity.ssh_keys.contains(&lent.key));
    if let Some(other) = theirs.filter(|other| other.name != *who) {
        // Whose it is, is not for whoever shows it.
        tracing::warn!(identity = %who, of = %other.name, "a key was shown that is somebody else's");
        return refused("that key is somebody else's here: make one of your own with ssh-keygen");
    }
    let algorithm = lent.key.split(' ').next().unwrap_or_default();
    let detail = json!({ "key": lent.key, "algorithm": algorithm, "how": lent.how, "ends": lent.ends });
    writer.transact(now, |tx| {
        tx.trusted()?;
        let others = guests::keys_of(tx.db(), who)?;
        let good = others.iter().filter(|other| now < other.ends && other.key != lent.key).count();
        if good >= MOST_KEYS {
            return Ok(refused(format!("{who} has {good} such keys already: wait until some have ended")));
        }
        if !tx.agrees(KEYS, &lent.key)? {
            return Err(StoreError::Damaged(format!("{KEYS}: a row was changed")));
        }
        guests::lend(tx, lent, detail.clone()).map(Ok)
    })??;
    put_in_force(writer, rules, now)
}

/// Who is here by what the store says now.
pub(super) fn put_in_force(writer: &mut Writer, rules: &Rules, now: Timestamp) -> Result<(), GrantError> {
    let guests = writer.transact(now, |tx| {
        tx.trusted()?;
        guests::all(tx.db())
    })?;
    rules.host(guests, now);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::{Authority, fixture::*, store::verify, token::TokenRefused};
    use secrecy::ExposeSecret as _;

    const ISSUER: &str = "https://login.example.com";

    fn arrival(subject: &str, name: &str) -> Arrival {
        Arrival {
            issuer: ISSUER.to_owned(),
            subject: subject.to_owned(),
            identity: name.parse().unwrap(),
            declared: false,
            groups: ["sre".parse().unwrap()].into(),
            ends: after(60),
        }
    }

    fn lent(key: &str, name: &str) -> LentKey {
        let (how, identity) = ("oidc".to_owned(), name.parse().unwrap());
        LentKey { key: key.to_owned(), identity, how, since: now(), ends: after(60) }
    }

    fn outside(one_of_a_kind: &str) -> Exchange {
        Exchange {
            workload: "alice".parse().unwrap(),
            issuer: ISSUER.to_owned(),
            one_of_a_kind: one_of_a_kind.to_owned(),
            subject: "repo:acme/shop".to_owned(),
            ends: after(60),
            life: Duration::from_secs(600),
        }
    }

    fn why<T: std::fmt::Debug>(refused: Result<T, GrantError>) -> String {
        refused.unwrap_err().to_string()
    }

    fn is_here(authority: &Authority, name: &str) -> bool {
        authority.policy().identities.contains_key(&name.parse::<IdentityName>().unwrap())
    }

    #[tokio::test]
    async fn an_outside_token_is_exchanged_once_also_when_many_try_at_once_and_after_a_restart() {
        let (dir, authority) = authority();
        let authority = std::sync::Arc::new(authority);
        let mut attempts = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let authority = authority.clone();
            attempts.spawn(async move { authority.exchange(outside("one"), now()).await });
        }
        let won: Vec<_> = attempts.join_all().await.into_iter().flatten().collect();
        assert_eq!(won.len(), 1);
        let bearer = authority.bearer(won[0].secret.expose_secret(), now()).await.unwrap();
        assert_eq!((bearer.identity.as_str(), bearer.scope), ("alice", TokenScope::Grants));
        drop(authority);
        let authority = authority_in(dir.path());
        assert!(why(authority.exchange(outside("one"), now()).await).contains("exchanged already"));
        // Once both have ended there is nothing to remember, but in the ledger.
        authority.exchange(outside("two"), after(600)).await.unwrap();
        let secret = won[0].secret.expose_secret();
        assert!(matches!(authority.bearer(secret, after(600)).await, Err(TokenRefused::Unknown)));
        assert_eq!(authority.tokens(None, after(600)).await.unwrap().len(), 1);
        assert_eq!(verify(dir.path(), ledger_public()).unwrap().faults, Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_guest_is_there_until_their_login_ends_and_again_with_what_they_are_then() {
        let (dir, authority) = authority();
        authority.welcome(arrival("4711", "zoe"), now()).await.unwrap();
        authority.lend_key(lent("ssh-ed25519 AAAA", "zoe"), now()).await.unwrap();
        let zoe: IdentityName = "zoe".parse().unwrap();
        assert_eq!(authority.policy().identities[&zoe].ssh_keys, ["ssh-ed25519 AAAA"]);
        drop(authority);
        let authority = authority_in(dir.path());
        assert!(!is_here(&authority, "zoe"));
        authority.host_guests(now()).await.unwrap();
        assert!(is_here(&authority, "zoe"));
        authority.replace(policy());
        assert!(is_here(&authority, "zoe"), "a reload shows nobody out");
        authority.see_guests_off(after(59));
        assert!(is_here(&authority, "zoe"));
        authority.see_guests_off(after(60));
        assert!(!is_here(&authority, "zoe"));
        let without = Arrival { groups: [].into(), ends: after(200), ..arrival("4711", "zoe") };
        authority.welcome(without, after(100)).await.unwrap();
        assert!(authority.policy().identities[&zoe].groups.is_empty());
        assert!(authority.policy().identities[&zoe].ssh_keys.is_empty(), "their key has ended");
    }

    #[tokio::test]
    async fn a_name_is_one_persons_and_a_person_has_one_name() {
        let (_dir, authority) = authority();
        authority.welcome(arrival("4711", "zoe"), now()).await.unwrap();
        // Long after their login has ended, too.
        assert!(why(authority.welcome(arrival("4712", "zoe"), after(9999)).await).contains("somebody else's"));
        assert!(why(authority.welcome(arrival("4711", "zoe2"), now()).await).contains("two names"));
        let elsewhere = Arrival { issuer: "https://other.example.com".to_owned(), ..arrival("4711", "zoe") };
        assert!(why(authority.welcome(elsewhere, now()).await).contains("somebody else's"));
        // Whom the configuration names is taken over by nobody.
        assert!(why(authority.welcome(arrival("4713", "alice"), now()).await).contains("oidc = \"4713\""));
        let tied = |name: &str| Arrival { declared: true, ..arrival("4711", name) };
        assert!(why(authority.welcome(tied("nobody"), now()).await).contains("names no user"));
        authority.welcome(tied("alice"), now()).await.unwrap();
        assert!(!is_here(&authority, "zoe"), "they are alice now, and nobody else");
    }

    #[tokio::test]
    async fn a_key_is_one_persons_and_an_end_of_all_they_hold_is_the_end_of_it() {
        let (dir, authority) = authority();
        authority.welcome(arrival("4711", "zoe"), now()).await.unwrap();
        authority.lend_key(lent("ssh-ed25519 AAAA", "zoe"), now()).await.unwrap();
        assert!(why(authority.lend_key(lent("ssh-ed25519 AAAA", "alice"), now()).await).contains("somebody else's"));
        assert!(why(authority.lend_key(lent("ssh-ed25519 BBBB", "nobody"), now()).await).contains("nobody here"));
        for n in 1..MOST_KEYS {
            authority.lend_key(lent(&format!("ssh-ed25519 B{n}"), "zoe"), now()).await.unwrap();
        }
        assert!(why(authority.lend_key(lent("ssh-ed25519 CCCC", "zoe"), now()).await).contains("16 such keys"));
        let (carol, zoe) = ("carol".parse().unwrap(), "zoe".parse().unwrap());
        authority.end_user(&carol, &zoe, None, now()).await.unwrap();
        assert!(!is_here(&authority, "zoe"));
        authority.welcome(arrival("4711", "zoe"), now()).await.unwrap();
        assert!(authority.policy().identities[&zoe].ssh_keys.is_empty());
        assert_eq!(verify(dir.path(), ledger_public()).unwrap().faults, Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_row_that_somebody_wrote_makes_nobody_a_guest() {
        for edit in [
            "UPDATE guests SET groups = 'dba'",
            "UPDATE lent_keys SET ends = ends + 1",
            "INSERT INTO guests VALUES ('eve', 'x', 'y', 'sre', 0, 9999999999)",
        ] {
            let (dir, authority) = authority();
            authority.welcome(arrival("4711", "zoe"), now()).await.unwrap();
            authority.lend_key(lent("ssh-ed25519 AAAA", "zoe"), now()).await.unwrap();
            drop(authority);
            rusqlite::Connection::open(dir.path().join("tidegate.db")).unwrap().execute(edit, []).unwrap();
            let authority = authority_in(dir.path());
            assert!(authority.host_guests(now()).await.is_err(), "{edit}");
            assert!(!is_here(&authority, "zoe") && !is_here(&authority, "eve"), "{edit}");
        }
    }
}
