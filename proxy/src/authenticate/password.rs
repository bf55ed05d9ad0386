//! The short-lived passwords of `ssh gate password`, bound to identity, target and the first address that used them.
//!
//! What always holds: a password exists in clear only in the answer to the one who asked for it. What the door tells
//! somebody who does not know it is the same whether it exists, has expired or never was: the salt is an HMAC of the
//! names, and a verifier that nothing fits stands in.

use super::{
    guesses::Guesses,
    verifier::{Hash, Verifier, hmac},
};
use data_encoding::{Encoding, Specification};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use std::{
    net::IpAddr,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};
use tidegate_grants::{Authority, Denied, IdentityName, StoreError, TargetName, store::Password};
use zeroize::Zeroizing;

/// Random bytes in a password: 24 letters and digits.
const ENTROPY: usize = 15;
/// A password that expired within this time is told so, to one who knows it.
const RECENTLY: SignedDuration = SignedDuration::from_hours(1);

/// Base32 without letters that look like digits (after RFC 4648 section 6, in lower case).
static LETTERS: LazyLock<Option<Encoding>> = LazyLock::new(|| {
    let mut spec = Specification::new();
    spec.symbols.push_str("abcdefghijkmnpqrstuvwxyz23456789");
    spec.encoding().ok()
});

type Guessed = (IdentityName, TargetName);

/// Makes and checks short-lived passwords. They are stored as SCRAM verifiers only.
#[derive(Debug, Clone)]
pub struct Passwords {
    authority: Arc<Authority>,
    salt: Arc<SecretSlice<u8>>,
    window: Duration,
    guesses: Arc<Mutex<Guesses<Guessed>>>,
}

/// What a client must prove.
#[derive(Debug)]
pub struct Expected {
    /// Of the password, or one that nothing fits.
    pub verifier: Verifier,
    identity: IdentityName,
    target: TargetName,
    password: Option<Password>,
}

/// Why a password opens nothing. The texts are for the person.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Wrong, or there is none: they look alike.
    #[error("that password is not accepted for {identity} on {target}")]
    Wrong {
        /// As typed.
        identity: IdentityName,
        /// As typed.
        target: TargetName,
        /// The answer is to wait so long.
        delay: Duration,
    },
    /// It was right, and its time is over.
    #[error("that password expired at {at}")]
    Expired {
        /// When.
        at: Timestamp,
    },
    /// It was right, and another address used it first.
    #[error("that password is in use from another address")]
    Elsewhere,
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Passwords {
    /// `salt` is the HMAC key for salts, `window` the life of a password (never beyond the grant).
    pub fn new(authority: Arc<Authority>, salt: SecretSlice<u8>, window: Duration) -> Self {
        Self { authority, salt: Arc::new(salt), window, guesses: Arc::default() }
    }

    /// The life of a password, and of a certificate of `ssh gate cert`.
    pub fn window(&self) -> Duration {
        self.window
    }

    /// A new password for this identity at this target, in place of an older one. `factor`: when they proved a second factor, which
    /// the password carries from then on. Returns it with its expiry.
    pub async fn issue(
        &self,
        identity: &IdentityName,
        target: &TargetName,
        factor: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(SecretString, Timestamp), Denied> {
        let ends = self.authority.foresee(identity, target, now).await?;
        let window = SignedDuration::try_from(self.window).unwrap_or(SignedDuration::MAX);
        let expires = now.checked_add(window).map_or(ends, |until| until.min(ends));
        let password = random_password().ok_or_else(no_randomness)?;
        let verifier = Verifier::new(password.expose_secret(), self.salt(identity, target)).to_text();
        let row = Password { identity: identity.clone(), target: target.clone(), verifier, expires, source: None };
        self.authority.store().set_password(row, factor, now).await?;
        self.forget(identity, target);
        Ok((password, expires))
    }

    /// What a client that gives these names must prove. Names that are unknown get an answer too.
    pub async fn expected(
        &self,
        identity: &IdentityName,
        target: &TargetName,
        now: Timestamp,
    ) -> Result<Expected, StoreError> {
        let since = now.checked_sub(RECENTLY).unwrap_or(now);
        let password = self.authority.store().password(identity, target, since).await?;
        let mut noise = Hash::default();
        getrandom::fill(&mut noise).map_err(|_| StoreError::Database("no randomness".to_owned()))?;
        let stored = password.as_ref().and_then(|password| Verifier::parse(&password.verifier));
        let verifier = stored.unwrap_or_else(|| Verifier::unmatched(self.salt(identity, target), noise));
        Ok(Expected { verifier, identity: identity.clone(), target: target.clone(), password })
    }

    /// The client's proof was right: is the password good, now and from there? When the second factor was proven that it carries.
    pub async fn accept(
        &self,
        expected: Expected,
        source: IpAddr,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, PasswordError> {
        let Some(password) = expected.password.as_ref() else {
            return Err(self.wrong(expected, source, now).await);
        };
        if password.expires <= now {
            return Err(PasswordError::Expired { at: password.expires });
        }
        if !self.authority.store().bind_password(password, source, now).await? {
            return Err(PasswordError::Elsewhere);
        }
        self.forget(&expected.identity, &expected.target);
        Ok(self.authority.store().factor_of(password).await?)
    }

    /// The client's proof was wrong. Too many from the address that it is bound to, and the password is void. Guesses from
    /// elsewhere cannot void it, nor can those before it is bound, which may be anybody's: they only make guessers wait, and
    /// 120 random bits are not guessed.
    pub async fn wrong(&self, expected: Expected, source: IpAddr, now: Timestamp) -> PasswordError {
        let Expected { identity, target, password, .. } = expected;
        let at_stake = password.filter(|p| p.expires > now && p.source == Some(source));
        let key = (identity.clone(), target.clone());
        let verdict = self.lock().wrong(key, at_stake.is_some(), now);
        if let Some(password) = at_stake.filter(|_| verdict.void) {
            // What was read at the start of the exchange may have been bound or replaced since: the store looks again.
            match self.authority.store().void_password(&password, source, now).await {
                Ok(true) => tracing::warn!(%identity, %target, "too many wrong passwords: the right one is void now"),
                Ok(false) => {}
                Err(error) => return error.into(),
            }
        }
        PasswordError::Wrong { identity, target, delay: verdict.delay }
    }

    /// The same for the same names, always, whether anybody has them or not. NUL is in neither grammar.
    fn salt(&self, identity: &IdentityName, target: &TargetName) -> Vec<u8> {
        let names: [&[u8]; 3] = [identity.as_str().as_bytes(), b"\0", target.as_str().as_bytes()];
        hmac(self.salt.expose_secret(), &names).to_vec()
    }

    fn forget(&self, identity: &IdentityName, target: &TargetName) {
        self.lock().forget(&(identity.clone(), target.clone()));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Guesses<Guessed>> {
        self.guesses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn random_password() -> Option<SecretString> {
    let mut bytes = Zeroizing::new([0u8; ENTROPY]);
    getrandom::fill(bytes.as_mut()).ok()?;
    Some(SecretString::from(LETTERS.as_ref()?.encode(bytes.as_ref())))
}

fn no_randomness() -> Denied {
    Denied::Store(StoreError::Database("the system gives no randomness".to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_long_random_and_easy_to_type() {
        let [one, other] = [random_password().unwrap(), random_password().unwrap()];
        assert_eq!(one.expose_secret().len(), 24);
        assert!(one.expose_secret().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
        assert_ne!(one.expose_secret(), other.expose_secret());
    }
}
