//! Who is let in at the [`door`](super::door): whose key or certificate it is, and that it is not revoked.
//!
//! What always holds: an identity comes from a key or certificate whose signature russh has checked, never from the name;
//! whoever cannot be told from a revoked one is not let in; the ledger names a certificate before it opens anything; and
//! nothing is kept from one attempt to the next but the name and the reason that the log gives.
//!
//! It is apart from the door because it is over when somebody is in: it may wait, for the list of what is revoked and for
//! the ledger, and after it nothing may.

use super::{
    Ssh,
    name::{self, DoorName, Malformed},
};
use crate::authenticate::{Arrived, FactorError, Invitation, identity_of_certificate, identity_of_key};
use russh::{
    MethodKind, MethodSet,
    keys::{Algorithm, Certificate, HashAlg, PublicKey, ssh_key::public::KeyData},
    server::{Auth, PublicKeyOffer},
};
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tidegate_grants::{Access, Device, Event, IdentityName, guest::LentKey};
use tokio_util::sync::CancellationToken;

/// How far a connection has come, for the task that watches it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Its key was accepted.
    pub(super) admitted: CancellationToken,
    /// Its key was accepted, and a second factor is awaited.
    pub(super) proven: CancellationToken,
    /// It was shown where to log in elsewhere.
    pub(super) invited: CancellationToken,
    /// The last name that it gave.
    pub(super) name: Mutex<Option<String>>,
    /// Why a key or certificate that was proven was turned down, the last time.
    pub(super) why: Mutex<Option<String>>,
}

/// Who came in, and where to.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) identity: IdentityName,
    pub(super) name: Result<DoorName, Malformed>,
    /// By what.
    pub(super) device: Device,
}

/// The attempts of one connection, and what came of the last.
pub(super) struct Admission {
    ssh: Arc<Ssh>,
    source: IpAddr,
    progress: Arc<Progress>,
    admitted: Option<Admitted>,
    awaited: Option<Awaited>,
    guest: Option<Guest>,
    /// The first key that was proven and is nobody's, and the name that came with it: it may become theirs who log in elsewhere.
    nobodys: Option<(String, PublicKey)>,
}

/// Somebody who logs in elsewhere, under the name that they gave: another one begins anew.
#[derive(Debug)]
struct Guest {
    user: String,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// They were shown where.
    Invited(Invitation),
    /// They were told why not.
    Told,
}

/// Somebody whose key is proven, and whose second factor is awaited.
#[derive(Debug)]
struct Awaited {
    /// The name that they gave: another one begins anew.
    user: String,
    admitted: Admitted,
    /// What was wrong with the last code.
    wrong: Option<String>,
}

impl Admission {
    /// `source` is where the connection comes from.
    pub(super) fn new(ssh: Arc<Ssh>, source: IpAddr, progress: Arc<Progress>) -> Self {
        Self { ssh, source, progress, admitted: None, awaited: None, guest: None, nobodys: None }
    }

    /// Who is in, for the one that takes them further.
    pub(super) fn take(&mut self) -> Option<Admitted> {
        self.admitted.take()
    }

    /// Nothing was shown. Clients show their keys first, whatever else they could do.
    pub(super) fn none(&self, user: &str) -> Auth {
        self.note_name(user);
        if !self.ssh.elsewhere.is_open() {
            return Auth::reject();
        }
        let methods = MethodSet::from(&[MethodKind::PublicKey, MethodKind::KeyboardInteractive][..]);
        Auth::Reject { proceed_with_methods: Some(methods), partial_success: false }
    }

    /// Whether this key may sign. The answer depends on the key alone: it says nothing about names.
    ///
    /// russh shows of a certificate only the key in it. So where certificates are accepted every key may sign, and what
    /// was signed with is judged then. Here alone the algorithm of the signature is known for both.
    pub(super) fn offered(&self, user: &str, offer: &PublicKeyOffer<'_>) -> Auth {
        self.note_name(user);
        let sha1 = matches!(offer.algorithm, Algorithm::Rsa { hash: None } | Algorithm::Dsa);
        let may_be_certified = !self.ssh.gate.vouching.load().user_ca.is_empty();
        let may_become_theirs = self.may_become_theirs(user);
        if !sha1 && (may_be_certified || may_become_theirs || self.identity(offer.public_key).is_some()) {
            Auth::Accept
        } else {
            Auth::reject()
        }
    }

    /// It has signed with a key.
    pub(super) async fn key(&mut self, user: &str, key: &PublicKey) -> Auth {
        self.note_name(user);
        let judged = self.identity_unless_revoked(key).await;
        if judged.as_ref().is_err_and(String::is_empty) && self.may_become_theirs(user) {
            // It is theirs to whom it turns out to belong. A later key may still be one that is known: clients begin anew with all.
            self.nobodys = Some((user.to_owned(), key.clone()));
            let methods = MethodSet::from(&[MethodKind::PublicKey, MethodKind::KeyboardInteractive][..]);
            return Auth::Reject { proceed_with_methods: Some(methods), partial_success: true };
        }
        self.judge(user, judged, device(key.key_data(), false)).await
    }

    /// It has signed with the key of a certificate.
    pub(super) async fn certificate(&mut self, user: &str, certificate: &Certificate) -> Auth {
        self.note_name(user);
        let judged = self.identity_by_certificate(certificate).await;
        self.judge(user, judged, device(certificate.public_key(), true)).await
    }

    /// Whose key this is by the configuration.
    fn identity(&self, key: &PublicKey) -> Option<IdentityName> {
        identity_of_key(&self.ssh.gate.authority.policy(), key).map(|identity| identity.name.clone())
    }

    /// Whose key was proven, unless it was revoked.
    async fn identity_unless_revoked(&self, key: &PublicKey) -> Result<IdentityName, String> {
        let Some(identity) = self.identity(key) else { return Err(String::new()) };
        match self.ssh.gate.is_revoked(key.key_data()).await {
            Ok(true) => Err(format!("a key of {identity} that is revoked")),
            Ok(false) => Ok(identity),
            Err(unknown) => Err(format!("whether it is revoked is not known: {unknown}")),
        }
    }

    /// Whose certificate was proven. The ledger says which one it was before it opens anything.
    async fn identity_by_certificate(&self, certificate: &Certificate) -> Result<IdentityName, String> {
        let (gate, source) = (&self.ssh.gate, self.source);
        let unknown = |unknown| format!("whether it is revoked is not known: {unknown}");
        let vouching = self.ssh.gate.vouching.load_full();
        let revoked = vouching.revoked_keys.now().await.map_err(unknown)?;
        let (policy, now) = (gate.authority.policy(), gate.now());
        let identity = identity_of_certificate(&policy, certificate, &vouching.user_ca, &revoked, source, now)
            .map_err(|why| format!("its certificate {}: {why}", named(certificate)))?;
        let detail = serde_json::json!({
            "serial": certificate.serial(),
            "key_id": cut(certificate.key_id()),
            "key": certificate.public_key().fingerprint(HashAlg::Sha256).to_string(),
            "authority": certificate.signature_key().fingerprint(HashAlg::Sha256).to_string(),
            "source": source,
        });
        let event = Event::new("door.certificate").identity(&identity.name).detail(detail);
        gate.store.append(event, now).await.map_err(|error| error.to_string())?;
        Ok(identity.name.clone())
    }

    /// Whether a key that is nobody's may sign: one on each connection, where people log in elsewhere.
    fn may_become_theirs(&self, user: &str) -> bool {
        self.ssh.elsewhere.is_open() && self.nobodys.as_ref().is_none_or(|(name, _)| name != user)
    }

    /// The key that somebody has signed with who has just logged in elsewhere is theirs, as long as their login is good. Who has shown
    /// none is in for this once.
    async fn take_for_theirs(&mut self, user: &str, arrived: Arrived) -> Result<IdentityName, String> {
        let Some((_, key)) = self.nobodys.take().filter(|(name, _)| name == user) else { return Ok(arrived.identity) };
        let gate = &self.ssh.gate;
        match gate.is_revoked(key.key_data()).await {
            Ok(true) => return Err("a key that is revoked".to_owned()),
            Ok(false) => {}
            Err(unknown) => return Err(format!("whether it is revoked is not known: {unknown}")),
        }
        let line = key.to_openssh().map_err(|error| error.to_string())?;
        let key = line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        let (identity, how, since) = (arrived.identity.clone(), "oidc".to_owned(), gate.now());
        let lent = LentKey { key, identity: identity.clone(), how, since, ends: arrived.ends };
        gate.authority.lend_key(lent, since).await.map_err(|error| error.to_string())?;
        Ok(identity)
    }

    /// Who has no key that is known may log in elsewhere: they are shown where, and awaited.
    async fn elsewhere(&mut self, user: &str, answered: bool) -> Auth {
        let ours = self.guest.take().filter(|guest| guest.user == user && answered);
        let user = user.to_owned();
        let stage = match ours.map(|guest| guest.stage) {
            None if answered || !self.ssh.elsewhere.is_open() => return Auth::reject(),
            None => self.ssh.elsewhere.invite(self.source).await,
            Some(Stage::Invited(invitation)) => {
                self.progress.invited.cancel();
                let shown = self.nobodys.as_ref().filter(|(name, _)| *name == user);
                let device = shown.map(|(_, key)| device(key.key_data(), false)).unwrap_or_default();
                let arrives = invitation.arrives.into_inner().unwrap_or_else(PoisonError::into_inner);
                let theirs = match arrives.await {
                    Ok(arrived) => self.take_for_theirs(&user, arrived).await,
                    Err(why) => Err(why),
                };
                match theirs {
                    Ok(identity) => return self.judge(&user, Ok(identity), device).await,
                    Err(why) => Err(why),
                }
            }
            Some(Stage::Told) => return only_keys(),
        };
        let (stage, text) = match stage {
            Ok(invitation) => {
                let text = invitation.text.clone();
                (Stage::Invited(invitation), text)
            }
            Err(why) => {
                self.note_why(&format!("it could not log in elsewhere: {why}"));
                (Stage::Told, why)
            }
        };
        self.guest = Some(Guest { user, stage });
        Auth::Partial {
            name: "".into(),
            instructions: format!("tidegate: {text}\n").into(),
            prompts: Vec::new().into(),
        }
    }

    async fn judge(&mut self, user: &str, judged: Result<IdentityName, String>, device: Device) -> Auth {
        (self.admitted, self.awaited) = (None, None);
        match judged {
            Ok(identity) => {
                let admitted = Admitted { identity, name: name::parse(user), device };
                if !self.wants_factor(&admitted).await {
                    self.admitted = Some(admitted);
                    return Auth::Accept;
                }
                self.awaited = Some(Awaited { user: user.to_owned(), admitted, wrong: None });
                self.progress.proven.cancel();
                self.note_why("its key was right, and no second factor came");
                let methods = MethodSet::from(&[MethodKind::KeyboardInteractive][..]);
                Auth::Reject { proceed_with_methods: Some(methods), partial_success: true }
            }
            Err(why) => {
                // A key that is nobody's is what every agent has several of: no reason of its own.
                if !why.is_empty() {
                    self.note_why(&why);
                }
                Auth::reject()
            }
        }
    }

    /// Whether the session that they want opens only with a second factor that they have. If that cannot be known now, the session is
    /// refused when it is authorized.
    async fn wants_factor(&self, admitted: &Admitted) -> bool {
        let Ok(DoorName::Target { login, entitlement, target }) = &admitted.name else { return false };
        let gate = &self.ssh.gate;
        let access = Access::Login(login.clone());
        let access = Some((&access, entitlement.as_ref()));
        gate.authority.wants_factor(&admitted.identity, target, access, self.source, gate.now()).await.unwrap_or(false)
    }

    /// RFC 4256: the question for a code, and the answer. Only behind a key that was right, under the same name. Whoever answers nothing
    /// has no terminal: they come in without the factor, and are told there what they lack.
    pub(super) async fn code(&mut self, user: &str, typed: Option<Option<String>>) -> Auth {
        self.note_name(user);
        let Some(mut awaited) = self.awaited.take().filter(|awaited| awaited.user == user) else {
            return self.elsewhere(user, typed.is_some()).await;
        };
        let Some(typed) = typed else {
            let question = question(&awaited);
            self.awaited = Some(awaited);
            return question;
        };
        let typed = typed.filter(|typed| !typed.is_empty());
        let (factors, identity) = (&self.ssh.factors, &awaited.admitted.identity);
        let checked = match &typed {
            Some(typed) => factors.check(identity, self.source, typed, self.ssh.gate.now()).await,
            None => Ok(()),
        };
        match checked {
            Ok(()) => {
                self.admitted = Some(awaited.admitted);
                Auth::Accept
            }
            Err(error) => {
                if let FactorError::Ours(cause) = &error {
                    tracing::error!(cause, "a second factor could not be checked");
                }
                self.note_why(&format!("its key was right, its second factor was not: {error}"));
                awaited.wrong = Some(error.to_string());
                self.awaited = Some(awaited);
                Auth::reject()
            }
        }
    }

    fn note_why(&self, why: &str) {
        *self.progress.why.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }

    fn note_name(&self, user: &str) {
        let name = user.chars().take(256).collect();
        *self.progress.name.lock().unwrap_or_else(PoisonError::into_inner) = Some(name);
    }
}

/// By which key somebody came in, for conditions. (That a security key was touched is not asked here.)
fn device(key: &KeyData, certificate: bool) -> Device {
    let hardware = matches!(key.algorithm(), Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256);
    let key = Some(key.fingerprint(HashAlg::Sha256).to_string());
    Device { key, hardware, certificate, password: false }
}

/// Nothing but another key is of use now.
fn only_keys() -> Auth {
    let methods = MethodSet::from(&[MethodKind::PublicKey][..]);
    Auth::Reject { proceed_with_methods: Some(methods), partial_success: false }
}

fn question(awaited: &Awaited) -> Auth {
    const PROMPT: &str = "Code of your authenticator app, or a recovery code: ";
    let instructions = awaited.wrong.as_ref().map(|wrong| format!("tidegate: {wrong}")).unwrap_or_default();
    let prompts = vec![(PROMPT.into(), false)];
    Auth::Partial { name: "".into(), instructions: instructions.into(), prompts: prompts.into() }
}

/// A certificate, for the ledger.
fn named(certificate: &Certificate) -> String {
    format!("{} {:?}", certificate.serial(), cut(certificate.key_id()))
}

/// So much of what a certificate says of itself is written down.
fn cut(text: &str) -> String {
    text.chars().take(128).collect()
}
