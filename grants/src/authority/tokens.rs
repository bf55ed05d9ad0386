//! Tokens: who may make and revoke them, and who is behind one.

use super::{GrantError, permit::Rules};
use crate::{
    grant::Revoked,
    name::{IdentityName, TokenId},
    pick,
    policy::Policy,
    store::{
        StoreError, fail,
        tokens::{self, TABLE, TokenRow},
        writer::{Writer, agrees},
    },
    text,
    token::{Bearer, TokenHash, TokenMade, TokenRefused, TokenRequest, TokenState, TokenView, secret},
};
use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;
use std::time::Duration;

/// A label keeps so many characters.
const LABEL: usize = 64;
/// Active tokens of one identity: more than anybody needs, and few enough to look through.
const MOST: usize = 100;

fn refused<T>(why: impl Into<String>) -> Result<T, GrantError> {
    Err(GrantError::Refused(why.into()))
}

fn is_admin(policy: &Policy, who: &IdentityName) -> bool {
    policy.identities.get(who).is_some_and(|person| !person.groups.is_disjoint(&policy.admins))
}

/// Admins for anyone, others for themselves. `most`: the longest life that the configuration allows.
pub(super) fn issue(
    writer: &mut Writer,
    rules: &Rules,
    by: &IdentityName,
    request: &TokenRequest,
    most: Duration,
    now: Timestamp,
) -> Result<TokenMade, GrantError> {
    let policy = rules.policy();
    let user = &request.user;
    if user != by && !is_admin(&policy, by) {
        return refused(format!("{by} makes tokens for {by} only: ask an admin (roles.admin)"));
    }
    if !policy.identities.contains_key(user) {
        return refused(format!("the configuration names no user {user}"));
    }
    if request.life.is_zero() || request.life > most {
        let most = SignedDuration::try_from(most).unwrap_or(SignedDuration::MAX);
        return refused(format!("a token lasts more than nothing and at most {most:#} (api.max_token_life)"));
    }
    let expires = now.checked_add(request.life).map_err(|_| GrantError::Refused("no such time".to_owned()))?;
    let (secret, hash) = secret().map_err(|error| StoreError::Database(format!("no randomness: {error}")))?;
    let row = TokenRow {
        id: TokenId::new(),
        identity: user.clone(),
        label: text::line(&request.label, LABEL),
        scope: request.scope,
        created_at: now,
        created_by: by.clone(),
        expires,
        revoked: None,
    };
    let made = writer.transact(now, |tx| {
        let active = tokens::list(tx.db(), Some(user))?.iter().filter(|row| stands(row, now)).count();
        if active >= MOST {
            return Ok(refused(format!("{user} has {active} tokens already: revoke some (`tidegate token list`)")));
        }
        tokens::insert(tx, &row, &hash)?;
        Ok(Ok(()))
    })?;
    made.map(|()| TokenMade { id: row.id, secret, expires })
}

fn stands(row: &TokenRow, now: Timestamp) -> bool {
    row.revoked.is_none() && now < row.expires
}

/// Who is behind this secret, by store and policy as they are now.
pub(super) fn verify(
    writer: &mut Writer,
    rules: &Rules,
    secret: &TokenHash,
    now: Timestamp,
) -> Result<Bearer, TokenRefused> {
    let found = writer.transact(now, |tx| {
        if let Err(error) = tx.trusted() {
            return Ok(Err(error));
        }
        let found = tokens::by_hash(tx.db(), secret)?;
        match found {
            Some(row) if tx.agrees(TABLE, &row.id.to_string())? => Ok(Ok(Some(row))),
            _ => Ok(Ok(None)),
        }
    });
    hold(rules, found??.ok_or(TokenRefused::Unknown)?, now)
}

/// Whether one that somebody came in with is good still.
pub(super) fn holds(db: &Connection, rules: &Rules, id: TokenId, now: Timestamp) -> Result<bool, StoreError> {
    let snapshot = db.unchecked_transaction().map_err(fail)?;
    let row = tokens::by_id(&snapshot, id)?;
    Ok(agrees(&snapshot, TABLE, &id.to_string())? && row.is_some_and(|row| hold(rules, row, now).is_ok()))
}

fn hold(rules: &Rules, row: TokenRow, now: Timestamp) -> Result<Bearer, TokenRefused> {
    let token = row.id;
    if row.revoked.is_some() {
        return Err(TokenRefused::Revoked { token });
    }
    if now >= row.expires {
        return Err(TokenRefused::Expired { token, at: row.expires });
    }
    if !rules.policy().identities.contains_key(&row.identity) {
        return Err(TokenRefused::Nobody { token });
    }
    Ok(Bearer { token, identity: row.identity, scope: row.scope, made_by: row.created_by })
}

pub(super) fn list(db: &Connection, of: Option<&IdentityName>, now: Timestamp) -> Result<Vec<TokenView>, StoreError> {
    let snapshot = db.unchecked_transaction().map_err(fail)?;
    let rows = tokens::list(&snapshot, of)?;
    rows.into_iter().map(|row| view(&snapshot, row, now)).collect()
}

fn view(db: &Connection, row: TokenRow, now: Timestamp) -> Result<TokenView, StoreError> {
    let state = match agrees(db, TABLE, &row.id.to_string())? {
        false => TokenState::Invalid,
        true if row.revoked.is_some() => TokenState::Revoked,
        true if now >= row.expires => TokenState::Expired,
        true => TokenState::Active,
    };
    Ok(TokenView {
        id: row.id,
        identity: row.identity,
        label: row.label,
        scope: row.scope,
        created_at: row.created_at,
        created_by: row.created_by,
        expires: row.expires,
        state,
        revoked: row.revoked,
    })
}

/// Revokes the one with this id, prefix or suffix among those that `by` may see: an id of somebody else's is no different
/// from none. Revoking twice is fine.
pub(super) fn revoke(
    writer: &mut Writer,
    rules: &Rules,
    by: &IdentityName,
    id: &str,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<TokenId, GrantError> {
    let admin = is_admin(&rules.policy(), by);
    let revoked = Revoked::by(by, reason, now);
    writer.transact(now, |tx| {
        let all = tokens::list(tx.db(), (!admin).then_some(by))?;
        let row = match pick::one(all, id, |row| row.id.to_string()) {
            Ok(row) => row,
            Err(not_one) => return Ok(Err(GrantError::NotFound(not_one.sentence("token")))),
        };
        if row.revoked.is_none() {
            tokens::revoke(tx, &row, &revoked)?;
        }
        Ok(Ok(row.id))
    })?
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code")]
mod tests {
    use super::*;
    use crate::{authority::Authority, fixture::*, token::TokenScope};
    use secrecy::ExposeSecret;

    const DAY: Duration = Duration::from_secs(86400);

    async fn issue(authority: &Authority, by: &str, user: &str, life: Duration) -> Result<TokenMade, GrantError> {
        let label = "ci\u{1b}[2J".to_owned();
        let request = TokenRequest { user: user.parse().unwrap(), label, scope: TokenScope::Grants, life };
        authority.issue_token(&by.parse().unwrap(), request, DAY, now()).await
    }

    async fn bearer(authority: &Authority, secret: &str) -> Result<Bearer, TokenRefused> {
        authority.bearer(secret, now()).await
    }

    #[tokio::test]
    async fn admins_make_tokens_for_anyone_and_others_for_themselves() {
        let (_dir, authority) = authority();
        for (by, user, allowed) in [
            ("carol", "alice", true),
            ("carol", "carol", true),
            ("alice", "alice", true),
            ("alice", "bob", false),
            ("carol", "nobody", false),
            ("nobody", "nobody", false),
            ("nobody", "alice", false),
        ] {
            let made = issue(&authority, by, user, DAY).await;
            assert_eq!(made.is_ok(), allowed, "{by} for {user}: {made:?}");
            let Ok(made) = made else { continue };
            let found = bearer(&authority, made.secret.expose_secret()).await.unwrap();
            assert_eq!((found.identity.as_str(), found.made_by.as_str(), found.token), (user, by, made.id));
        }
        for life in [Duration::ZERO, DAY + Duration::from_secs(1), Duration::MAX] {
            assert!(matches!(issue(&authority, "carol", "alice", life).await, Err(GrantError::Refused(_))), "{life:?}");
        }
        let all = authority.tokens(None, now()).await.unwrap();
        assert_eq!(all.iter().map(|token| token.label.as_str()).collect::<Vec<_>>(), ["ci [2J"; 3]);
        assert_eq!(authority.tokens(Some(&"alice".parse().unwrap()), now()).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_token_ends_by_time_by_revocation_and_with_its_identity() {
        let (_dir, authority) = authority();
        let made = issue(&authority, "alice", "alice", DAY).await.unwrap();
        let secret = made.secret.expose_secret();
        let late = now() + DAY;
        assert!(matches!(authority.bearer(secret, late).await, Err(TokenRefused::Expired { .. })));
        let mut policy = (*authority.policy()).clone();
        policy.identities.remove(&"alice".parse::<IdentityName>().unwrap());
        authority.replace(policy);
        assert!(matches!(bearer(&authority, secret).await, Err(TokenRefused::Nobody { .. })));
        authority.replace(crate::fixture::policy());
        bearer(&authority, secret).await.unwrap();
        // An id of somebody else's is no different from none.
        let (bob, id) = ("bob".parse().unwrap(), made.id.to_string());
        assert!(matches!(authority.revoke_token(&bob, &id, None, now()).await, Err(GrantError::NotFound(_))));
        let carol = "carol".parse().unwrap();
        assert_eq!(authority.revoke_token(&carol, &id, Some("lost".to_owned()), now()).await.unwrap(), made.id);
        assert!(matches!(bearer(&authority, secret).await, Err(TokenRefused::Revoked { .. })));
        let other = issue(&authority, "alice", "alice", DAY).await.unwrap();
        let ended = authority.end_user(&carol, &"alice".parse().unwrap(), None, now()).await.unwrap();
        assert_eq!(ended.tokens, 1);
        assert!(matches!(bearer(&authority, other.secret.expose_secret()).await, Err(TokenRefused::Revoked { .. })));
    }

    #[tokio::test]
    async fn only_the_whole_secret_is_the_token_and_it_is_kept_nowhere() {
        let (dir, authority) = authority();
        let made = issue(&authority, "alice", "alice", DAY).await.unwrap();
        let secret = made.secret.expose_secret();
        assert!(secret.starts_with("tdg_") && secret.len() == 47, "{secret}");
        for at in 0..secret.len() {
            let mut flipped = secret.as_bytes().to_vec();
            for byte in flipped.iter_mut().skip(at).take(1) {
                *byte = if *byte == b'A' { b'B' } else { b'A' };
            }
            let flipped = String::from_utf8(flipped).unwrap();
            assert!(matches!(bearer(&authority, &flipped).await, Err(TokenRefused::Unknown)), "byte {at}");
        }
        for other in ["", "tdg_", &format!("{secret}="), &format!("{secret}A"), &secret.replace("tdg_", "")] {
            assert!(matches!(bearer(&authority, other).await, Err(TokenRefused::Unknown)), "{other:?}");
        }
        drop(authority);
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(secret.len() - 4).any(|part| Some(part) == secret.as_bytes().get(4..)));
        }
    }

    #[tokio::test]
    async fn a_token_that_somebody_wrote_into_the_store_opens_nothing() {
        let edits = [
            "UPDATE tokens SET expires = '2099-01-01T00:00:00Z'",
            "UPDATE tokens SET scope = 'all'",
            "UPDATE tokens SET identity = 'carol'",
            "UPDATE tokens SET id = '01999999-0000-7000-8000-000000000000'",
        ];
        for edit in edits {
            let (dir, authority) = authority();
            let made = issue(&authority, "alice", "alice", DAY).await.unwrap();
            rusqlite::Connection::open(dir.path().join("tidegate.db")).unwrap().execute(edit, []).unwrap();
            let found = bearer(&authority, made.secret.expose_secret()).await;
            assert!(matches!(found, Err(TokenRefused::Store(StoreError::Damaged(_)))), "{edit}: {found:?}");
            let listed = authority.tokens(None, now()).await.unwrap();
            assert!(listed.iter().all(|token| token.state == TokenState::Invalid), "{edit}");
        }
    }

    #[tokio::test]
    async fn one_key_grants_once_whatever_happens_between() {
        let (dir, authority) = authority();
        let carol = "carol".parse().unwrap();
        let ask = || request("alice", "web-1", "shell");
        let first = authority.issue_once(&carol, "key-1", ask(), now()).await.unwrap();
        assert_eq!(authority.issue_once(&carol, "key-1", ask(), after(5)).await.unwrap(), first);
        assert_ne!(authority.issue_once(&carol, "key-2", ask(), now()).await.unwrap(), first);
        drop(authority);
        let authority = authority_in(dir.path());
        authority.revoke(&carol, &first.to_string(), None, now()).await.unwrap();
        assert_eq!(
            authority.issue_once(&carol, "key-1", ask(), after(9)).await.unwrap(),
            first,
            "also when it is over"
        );
        for other in [
            request("bob", "web-1", "shell"),
            crate::authority::IssueRequest { duration: Duration::from_secs(601), ..ask() },
            crate::authority::IssueRequest { reason: None, ..ask() },
            crate::authority::IssueRequest { single_use: true, ..ask() },
        ] {
            let refused = authority.issue_once(&carol, "key-1", other, now()).await;
            assert!(matches!(refused, Err(GrantError::Refused(_))), "{refused:?}");
        }
    }
}
