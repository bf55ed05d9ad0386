//! A client certificate of `ssh gate cert` instead of a password, like PostgreSQL's own `cert` method (chapter 21.12).
//!
//! What always holds: a certificate that we made counts only with TLS's proof of its key; it must name the identity that
//! the start-up packet names, and that identity must still be in the configuration. Any other certificate is nobody's,
//! and its sender is asked for a password as if there were none: libpq sends `~/.postgresql/postgresql.crt` to every
//! server that asks, and a handshake that failed over it would leave its owner without a word.

use super::{
    answer::{self, Fatal},
    door::Away,
    names::Names,
};
use crate::{gate::Gate, refusal::Refusal};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tidegate_ca::{
    Keys,
    people::{Person, PresentedError},
};
use tidegate_grants::Event;

/// TLS's side: asks for a certificate, and makes sure that whoever sends one of ours has its key. What it is worth is
/// judged afterwards, by [`identify`], where the answer can be a sentence.
#[derive(Debug)]
pub(super) struct Asking {
    keys: Arc<Keys>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Asking {
    pub(super) fn new(keys: Arc<Keys>) -> Self {
        Self { keys, algorithms: aws_lc_rs::default_provider().signature_verification_algorithms }
    }

    /// The proof of a key that we did not certify proves nothing here, and may be of a kind that rustls does not know.
    fn proven<T>(
        &self,
        certificate: &CertificateDer<'_>,
        verified: Result<T, Error>,
        nobody: impl FnOnce() -> T,
    ) -> Result<T, Error> {
        if self.keys.people.made(certificate) { verified } else { Ok(verified.unwrap_or_else(|_| nobody())) }
    }
}

type Signed = rustls::client::danger::HandshakeSignatureValid;

impl ClientCertVerifier for Asking {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.keys.people.hints()
    }

    fn verify_client_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<Signed, Error> {
        let verified = verify_tls12_signature(message, certificate, signature, &self.algorithms);
        self.proven(certificate, verified, Signed::assertion)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<Signed, Error> {
        let verified = verify_tls13_signature(message, certificate, signature, &self.algorithms);
        self.proven(certificate, verified, Signed::assertion)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether this certificate proves that its sender is who they name. False: it is nobody's, so a password must.
pub(super) async fn identify(
    gate: &Gate,
    keys: &Keys,
    certificate: &CertificateDer<'_>,
    names: &Names,
    source: IpAddr,
) -> Result<bool, Away> {
    let person = match keys.people.person(certificate, gate.now()) {
        Ok(person) => person,
        Err(PresentedError::Foreign) => return Ok(false),
        Err(error) => {
            let next = "get a new one: `ssh gate cert < request.csr`, or leave out sslcert and use a password";
            return Err(refused(names, Refusal::new(error.to_string()).next(next)));
        }
    };
    if person.name != names.identity.as_str() {
        let sentence = format!("this certificate is {}'s, and the user named is {}", person.name, names.identity);
        let next = format!("write user={}, or send the other's own certificate", person.name);
        return Err(refused(names, Refusal::new(sentence).next(next)));
    }
    if !gate.authority.policy().identities.contains_key(&names.identity) {
        let refusal = Refusal::new("you are no longer in the gateway's configuration").next("tell your admin");
        return Err(refused(names, refusal));
    }
    note(gate, &person, names, source).await?;
    Ok(true)
}

async fn note(gate: &Gate, person: &Person, names: &Names, source: IpAddr) -> Result<(), Away> {
    let detail = serde_json::json!({ "serial": person.serial, "source": source });
    let event = Event::new("certificate.used").identity(&names.identity).target(&names.target).detail(detail);
    let written = gate.store.append(event, gate.now()).await;
    written.map_err(|error| refused(names, Refusal::from(&error)))
}

fn refused(names: &Names, refusal: Refusal) -> Away {
    let fatal = Fatal::new(answer::REFUSED, refusal.by("certificate"));
    Away::Refused { fatal, name: Some(names.identity.to_string()), delay: Duration::ZERO }
}
