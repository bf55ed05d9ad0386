//! Second factors: codes of an authenticator app (TOTP, RFC 6238), recovery codes for the day it is lost, and lines to be signed with
//! a security key.
//!
//! What always holds: a seed is in clear in the answer to the enrolment, and in memory while a code is compared, and nowhere else; a code
//! is taken once, by the store; wrong ones make the next wait longer, and too many are refused unseen for a while, whoever comes, since
//! six digits are few.

use super::guesses::Guesses;
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use sha2::{Digest as _, Sha256};
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tidegate_ca::Keys;
use tidegate_grants::{
    IdentityName, Store, StoreError,
    factor::{Factor, Proof},
};
use totp_rs::Totp;
use zeroize::Zeroizing;

/// Bytes of a seed: what RFC 4226 section 4 recommends.
const SEED: usize = 20;
/// Recovery codes that an enrolment gives, and the random bytes of each.
const RECOVERY: usize = 10;
const RECOVERY_BYTES: usize = 10;
/// Steps to either side whose codes are taken, for a phone whose clock is off (RFC 6238 section 5.2), and seconds of a step.
const SKEW: u16 = 1;
const STEP: u64 = 30;
/// So many wrong codes of one identity, and all are refused unseen until [`PAUSE`] after the last of them.
const MOST_WRONG: u32 = 10;
const PAUSE: jiff::SignedDuration = jiff::SignedDuration::from_mins(15);
/// Nobody types more.
const LONGEST: usize = 64;
/// Random bytes of a line to sign, and how long it is good.
const CHALLENGE: usize = 20;
const TO_SIGN: jiff::SignedDuration = jiff::SignedDuration::from_mins(2);

/// Enrols people, and checks what they type.
#[derive(Debug, Clone)]
pub struct Factors {
    store: Arc<Store>,
    keys: Arc<Keys>,
    gateway: String,
    guesses: Arc<Mutex<Guesses<(IdentityName, IpAddr)>>>,
    wrong: Arc<Mutex<HashMap<IdentityName, (u32, Timestamp)>>>,
    challenges: Arc<Mutex<Challenges>>,
}

/// Lines that are to be signed, and since when. Each has one for each address: whoever has a key of theirs and comes from elsewhere
/// takes none away.
type Challenges = HashMap<(IdentityName, IpAddr), (String, Timestamp)>;

/// What somebody was given, shown once.
#[derive(Debug)]
pub struct Enrolled {
    /// `otpauth://…`, for the app.
    pub uri: SecretString,
    /// Each good once, instead of a code.
    pub recovery: Vec<SecretString>,
}

/// Why what was typed proves nothing. The texts are for the person.
#[derive(Debug, thiserror::Error)]
pub enum FactorError {
    /// They have no second factor.
    #[error(
        "you have no codes here: ask an admin (`tidegate user mfa enroll`), or sign with a security key (`ssh gate help mfa`)"
    )]
    None,
    /// Not a code of now.
    #[error("that code is not right; look at the app again, and at the time on your phone")]
    Wrong,
    /// It was right, and somebody was quicker.
    #[error("that code was used already; wait for the next one")]
    Used,
    /// Nobody looks at codes now.
    #[error("too many wrong codes: none is taken for a quarter of an hour")]
    TooMany,
    /// The store, the key or the system's randomness failed.
    #[error("second factors cannot be checked now; tell your admin")]
    Ours(String),
}

impl From<StoreError> for FactorError {
    fn from(error: StoreError) -> Self {
        Self::Ours(error.to_string())
    }
}

impl Factors {
    /// `gateway` is what the app shows.
    pub fn new(store: Arc<Store>, keys: Arc<Keys>, gateway: String) -> Self {
        let (guesses, wrong, challenges) = (Arc::default(), Arc::default(), Arc::default());
        Self { store, keys, gateway, guesses, wrong, challenges }
    }

    /// A new factor for somebody, in place of an older one only if `replace`. `None`: they have one.
    ///
    /// # Errors
    /// [`FactorError::Ours`].
    pub async fn enroll(
        &self,
        identity: &IdentityName,
        by: &IdentityName,
        replace: bool,
        now: Timestamp,
    ) -> Result<Option<Enrolled>, FactorError> {
        let seed = random::<SEED>()?;
        let uri =
            self.totp(identity, seed.as_slice())?.to_url().map_err(|error| FactorError::Ours(error.to_string()))?;
        let sealed = self.sealed(identity, &seed.to_vec().into())?;
        let mut recovery = Vec::new();
        for _ in 0..RECOVERY {
            recovery.push(SecretString::from(grouped(&BASE32_NOPAD.encode(random::<RECOVERY_BYTES>()?.as_slice()))));
        }
        let hashes: BTreeSet<String> = recovery.iter().map(|code| hash(code.expose_secret())).collect();
        let factor = Factor {
            identity: identity.clone(),
            seed: Some(sealed),
            recovery: hashes,
            added_at: now,
            added_by: by.clone(),
            last_step: 0,
            proven: None,
        };
        let added = self.store.add_factor(factor, replace, now).await?;
        Ok(added.then(|| Enrolled { uri: SecretString::from(uri), recovery }))
    }

    /// Whether what somebody from there typed proves their second factor; taken at once, so that it proves nothing more.
    ///
    /// # Errors
    /// [`FactorError`], after a wait that grows with the wrong ones.
    pub async fn check(
        &self,
        identity: &IdentityName,
        source: IpAddr,
        typed: &str,
        now: Timestamp,
    ) -> Result<(), FactorError> {
        if !self.try_once(identity, now) {
            return Err(FactorError::TooMany);
        }
        let enrolled = self.store.factor(identity).await?.filter(|factor| factor.seed.is_some());
        let factor = enrolled.ok_or(FactorError::None)?;
        let checked = match self.proof(&factor, typed, now)? {
            None => Err(FactorError::Wrong),
            Some(proof) => match self.store.take_proof(&factor, proof, source, now).await? {
                true => Ok(()),
                false => Err(FactorError::Used),
            },
        };
        if checked.is_ok() {
            self.wrong.lock().unwrap_or_else(PoisonError::into_inner).remove(identity);
        } else {
            let delay = self.delay(identity, source, now);
            tokio::time::sleep(delay).await;
        }
        checked
    }

    /// A line for somebody to sign with a security key of theirs, in the place of an earlier one from there.
    ///
    /// # Errors
    /// [`FactorError::Ours`].
    pub fn challenge(&self, identity: &IdentityName, source: IpAddr, now: Timestamp) -> Result<String, FactorError> {
        let once = BASE32_NOPAD.encode(random::<CHALLENGE>()?.as_slice()).to_lowercase();
        let line = format!("tidegate second-factor gateway={} user={identity} from={source} once={once}", self.gateway);
        let mut challenges = self.challenges.lock().unwrap_or_else(PoisonError::into_inner);
        challenges.retain(|_, (_, at)| now.duration_since(*at) < TO_SIGN);
        challenges.insert((identity.clone(), source), (line.clone(), now));
        Ok(line)
    }

    /// The line that they were given there, if it is still good; whatever comes of it, it is good no more.
    pub fn challenged(&self, identity: &IdentityName, source: IpAddr, now: Timestamp) -> Option<String> {
        let mut challenges = self.challenges.lock().unwrap_or_else(PoisonError::into_inner);
        let (line, at) = challenges.remove(&(identity.clone(), source))?;
        let age = now.duration_since(at);
        (!age.is_negative() && age < TO_SIGN).then_some(line)
    }

    /// Writes every seed sealed anew that an older key sealed. How many there were.
    ///
    /// # Errors
    /// [`FactorError::Ours`]: one of them opens with no key that is here.
    pub async fn reseal(&self, now: Timestamp) -> Result<usize, FactorError> {
        let ours = |factor: &Factor| factor.seed.as_ref().is_some_and(|seed| !self.keys.mfa.is_current(seed));
        let old = self.store.factors().await?.into_iter().filter(ours);
        let mut seeds = Vec::new();
        for factor in old {
            let sealed = self.sealed(&factor.identity, &self.opened(&factor)?)?;
            seeds.push((factor, sealed));
        }
        let count = seeds.len();
        self.store.reseal_factors(seeds, now).await?;
        Ok(count)
    }

    fn totp(&self, identity: &IdentityName, seed: &[u8]) -> Result<Totp, FactorError> {
        totp_rs::Builder::new()
            .with_secret(seed)
            .with_skew(SKEW)
            .with_step_duration(STEP)
            .with_issuer(Some(self.gateway.as_str()))
            .with_account_name(identity.as_str())
            .build()
            .map_err(|error| FactorError::Ours(error.to_string()))
    }

    fn sealed(&self, identity: &IdentityName, seed: &SecretSlice<u8>) -> Result<String, FactorError> {
        self.keys.mfa.seal(identity.as_str(), seed).map_err(|error| FactorError::Ours(error.to_string()))
    }

    fn opened(&self, factor: &Factor) -> Result<SecretSlice<u8>, FactorError> {
        let opened = factor.seed.as_ref().and_then(|seed| self.keys.mfa.open(factor.identity.as_str(), seed));
        opened.ok_or_else(|| FactorError::Ours(format!("no key here opens the seed of {}", factor.identity)))
    }

    fn proof(&self, factor: &Factor, typed: &str, now: Timestamp) -> Result<Option<Proof>, FactorError> {
        let typed: String = typed.chars().take(LONGEST).filter(|c| !c.is_whitespace() && *c != '-').collect();
        if typed.len() == 6 && typed.bytes().all(|b| b.is_ascii_digit()) {
            let totp = self.totp(&factor.identity, self.opened(factor)?.expose_secret())?;
            let second = u64::try_from(now.as_second()).unwrap_or_default();
            return Ok(totp.check(&typed, second).map(Proof::Step));
        }
        let hash = hash(&typed);
        Ok(factor.recovery.contains(&hash).then_some(Proof::Recovery(hash)))
    }

    /// Counts it before it is looked at, so that many at once are no more than one after the other. (Who is here has shown a key: there
    /// are no made-up names to count.)
    fn try_once(&self, identity: &IdentityName, now: Timestamp) -> bool {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.retain(|_, (_, last)| now.duration_since(*last) < PAUSE);
        let (count, last) = wrong.entry(identity.clone()).or_insert((0, now));
        if *count >= MOST_WRONG {
            return false;
        }
        (*count, *last) = (*count + 1, now);
        true
    }

    /// How long the answer to a wrong one waits.
    fn delay(&self, identity: &IdentityName, source: IpAddr, now: Timestamp) -> Duration {
        let mut guesses = self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
        guesses.wrong((identity.clone(), source), false, now).delay
    }
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, FactorError> {
    let mut bytes = Zeroizing::new([0u8; N]);
    getrandom::fill(bytes.as_mut()).map_err(|error| FactorError::Ours(error.to_string()))?;
    Ok(bytes)
}

/// In fours, to be read and typed.
fn grouped(code: &str) -> String {
    let letters: Vec<char> = code.to_lowercase().chars().collect();
    letters.chunks(4).map(|four| four.iter().collect::<String>()).collect::<Vec<_>>().join("-")
}

/// Of a recovery code as typed: dashes and case do not count. It has 80 random bits, so a plain hash tells nothing of it.
fn hash(code: &str) -> String {
    let code = Zeroizing::new(code.replace('-', "").to_lowercase());
    HEXLOWER.encode(&Sha256::digest(code.as_bytes()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code")]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000; // the first second of a step

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(NOW + second).unwrap()
    }

    struct Here {
        factors: Factors,
        alice: IdentityName,
        totp: Totp,
        recovery: Vec<SecretString>,
        _dir: tempfile::TempDir,
    }

    async fn here() -> Here {
        let dir = tempfile::tempdir().unwrap();
        let keys = Arc::new(Keys::create(&dir.path().join("keys"), "gate", at(0)).unwrap());
        let public = keys.ledger.verifying_key().to_bytes();
        let store = Store::open(dir.path(), "a", "", Arc::new(keys.ledger.clone()), public).unwrap();
        let factors = Factors::new(Arc::new(store), keys, "gate".to_owned());
        let (alice, carol) = ("alice".parse().unwrap(), "carol".parse().unwrap());
        let enrolled = factors.enroll(&alice, &carol, false, at(0)).await.unwrap().unwrap();
        let totp = Totp::from_url(enrolled.uri.expose_secret()).unwrap();
        Here { factors, alice, totp, recovery: enrolled.recovery, _dir: dir }
    }

    impl Here {
        /// The code of this second.
        fn code(&self, second: i64) -> String {
            self.totp.generate(u64::try_from(NOW + second).unwrap()).to_string()
        }

        async fn check(&self, typed: &str, second: i64) -> Result<(), FactorError> {
            self.factors.check(&self.alice, "192.0.2.7".parse().unwrap(), typed, at(second)).await
        }
    }

    #[tokio::test]
    async fn a_code_is_good_one_step_early_or_late_and_none_before_a_used_one_is() {
        let here = here().await;
        assert!(matches!(here.check(&here.code(60), 0).await, Err(FactorError::Wrong)), "two steps early");
        here.check(&here.code(30), 29).await.unwrap();
        assert!(matches!(here.check(&here.code(0), 29).await, Err(FactorError::Used)), "an earlier step");
        assert!(matches!(here.check(&here.code(30), 59).await, Err(FactorError::Used)));
        here.check(&here.code(60), 119).await.unwrap();
        assert!(matches!(here.check(&here.code(90), 150).await, Err(FactorError::Wrong)), "two steps late");
        let spaced = format!(" {} ", here.code(150));
        here.check(&spaced, 150).await.unwrap();
        assert!(matches!(here.check("", 180).await, Err(FactorError::Wrong)));
    }

    #[tokio::test]
    async fn a_line_to_sign_is_good_once_for_two_minutes_and_where_it_was_asked_for() {
        let here = here().await;
        let (home, elsewhere) = ("192.0.2.7".parse().unwrap(), "198.51.100.9".parse().unwrap());
        let give = |second: i64| here.factors.challenge(&here.alice, home, at(second)).unwrap();
        let take = |from: IpAddr, second: i64| here.factors.challenged(&here.alice, from, at(second));
        let (first, second) = (give(0), give(1));
        assert_ne!(first, second);
        assert_eq!(take(home, 120), Some(second), "the newest");
        assert_eq!(take(home, 120), None, "once");
        let third = give(200);
        assert_eq!(take(elsewhere, 201), None, "asked for elsewhere");
        assert_eq!(take(home, 201), Some(third), "and not taken away by that");
        give(300);
        assert_eq!(take(home, 420), None, "too late");
        give(500);
        assert_eq!(take(home, 499), None, "the clock was set back");
    }

    #[tokio::test]
    async fn after_ten_wrong_codes_the_right_one_is_refused_too_until_some_time_has_passed() {
        let here = here().await;
        let mallory: IpAddr = "198.51.100.9".parse().unwrap();
        let mut guessing = tokio::task::JoinSet::new();
        for _ in 0..MOST_WRONG {
            let (factors, alice) = (here.factors.clone(), here.alice.clone());
            guessing.spawn(async move { factors.check(&alice, mallory, "no code", at(0)).await });
        }
        assert!(guessing.join_all().await.iter().all(|guess| matches!(guess, Err(FactorError::Wrong))));
        let code = here.recovery.first().unwrap().expose_secret();
        assert!(matches!(here.check(code, 899).await, Err(FactorError::TooMany)));
        here.check(code, 900).await.unwrap();
        assert!(matches!(here.check(code, 901).await, Err(FactorError::Wrong)), "it is used");
    }
}
