//! How a target proves that it is itself: by one of the keys that the configuration names, or by a host certificate of
//! an authority that it names. There is no trust on first use.
//!
//! What always holds: where an authority is named, a plain key is refused, whoever's it is; a certificate is good for
//! exactly one name (no patterns, and none without names); and only algorithms that can lead to a yes are offered.

use super::algorithms;
use jiff::Timestamp;
use russh::{
    Preferred,
    keys::{Certificate, HashAlg, PublicKey, PublicKeyOrCertificate, ssh_key::certificate::CertType},
};

/// What a target has to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostTrust {
    /// One of these keys. Several while a host's key is being changed.
    Keys(Vec<PublicKey>),
    /// A host certificate.
    Certificate {
        /// Signed by one of these.
        authorities: Vec<PublicKey>,
        /// With this among its principals: what is dialled, unless the configuration's `host_name` says otherwise.
        name: String,
    },
}

/// Why a target is not who it should be, with both sides, for the log and for admins.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Impostor(String);

impl HostTrust {
    /// What to offer in the handshake, so that the target shows what we can judge and nothing else.
    pub(super) fn preferred(&self) -> Preferred {
        match self {
            Self::Keys(keys) => algorithms::preferred(algorithms::of_host_keys(keys)),
            Self::Certificate { .. } => Preferred {
                host_key_certificates: algorithms::signatures_of_hosts().into(),
                ..algorithms::preferred(Vec::new())
            },
        }
    }

    /// Whether this is it.
    pub(super) fn check(&self, shown: &PublicKeyOrCertificate, now: Timestamp) -> Result<(), Impostor> {
        match (self, shown) {
            (Self::Keys(keys), PublicKeyOrCertificate::PublicKey { key, .. }) => {
                if keys.iter().any(|known| known.key_data() == key.key_data()) {
                    return Ok(());
                }
                let shown = key.fingerprint(HashAlg::Sha256);
                Err(Impostor(format!("it showed the host key {shown}, and the configuration has {}", prints(keys))))
            }
            (Self::Certificate { authorities, name }, PublicKeyOrCertificate::Certificate(certificate)) => {
                check_certificate(certificate, authorities, name, now)
            }
            (Self::Keys(keys), PublicKeyOrCertificate::Certificate(_)) => {
                Err(Impostor(format!("it showed a host certificate, and the configuration has {}", prints(keys))))
            }
            (Self::Certificate { authorities, .. }, PublicKeyOrCertificate::PublicKey { key, .. }) => {
                Err(Impostor(format!(
                    "it showed the plain host key {}, and the configuration wants a host certificate of {}",
                    key.fingerprint(HashAlg::Sha256),
                    prints(authorities)
                )))
            }
        }
    }

    /// In a few words, for an admin.
    pub(super) fn expected(&self) -> String {
        match self {
            Self::Keys(keys) => format!("the host key {}", prints(keys)),
            Self::Certificate { authorities, name } => {
                format!("a host certificate for {name} signed by {}", prints(authorities))
            }
        }
    }
}

fn check_certificate(
    certificate: &Certificate,
    authorities: &[PublicKey],
    name: &str,
    now: Timestamp,
) -> Result<(), Impostor> {
    let no = |why: String| Err(Impostor(format!("its host certificate is not accepted: {why}")));
    if let Err(why) = tidegate_ca::vouch(certificate, CertType::Host, authorities, now) {
        return no(format!("{why} (wanted: {})", prints(authorities)));
    }
    // Host names are compared without regard to case (RFC 4343).
    if !certificate.valid_principals().iter().any(|principal| principal.eq_ignore_ascii_case(name)) {
        let names: Vec<String> =
            certificate.valid_principals().iter().take(8).map(|n| n.escape_debug().to_string()).collect();
        return no(format!(
            "it is for {}, not for {name}",
            if names.is_empty() { "no name".to_owned() } else { names.join(", ") }
        ));
    }
    if let Some((option, _)) = certificate.critical_options().iter().next() {
        return no(format!("it has the critical option {}, which means nothing for a host", option.escape_debug()));
    }
    Ok(())
}

fn prints(keys: &[PublicKey]) -> String {
    let prints: Vec<String> = keys.iter().map(|key| key.fingerprint(HashAlg::Sha256).to_string()).collect();
    prints.join(" or ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use russh::keys::{
        Algorithm, PrivateKey,
        ssh_key::{certificate::Builder, getrandom::SysRng, rand_core::UnwrapErr},
    };

    fn key() -> PrivateKey {
        PrivateKey::random(&mut UnwrapErr(SysRng), Algorithm::Ed25519).unwrap()
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    struct Spec {
        kind: CertType,
        names: &'static [&'static str],
        option: Option<&'static str>,
    }

    const SOUND: Spec = Spec { kind: CertType::Host, names: &["web-1.example.com", "10.0.0.11"], option: None };

    fn shown(authority: &PrivateKey, spec: &Spec) -> PublicKeyOrCertificate {
        let (from, until) = (1_800_000_000 - 60, 1_800_000_000 + 60);
        let mut builder =
            Builder::new_with_random_nonce(&mut UnwrapErr(SysRng), key().public_key(), from, until).unwrap();
        builder.cert_type(spec.kind).unwrap();
        for name in spec.names {
            builder.valid_principal(*name).unwrap();
        }
        if spec.names.is_empty() {
            builder.all_principals_valid().unwrap();
        }
        if let Some(option) = spec.option {
            builder.critical_option(option, "x").unwrap();
        }
        builder.sign(authority).unwrap().into()
    }

    #[test]
    fn a_host_certificate_is_good_for_its_names_alone() {
        let authority = key();
        let trust = |name: &str| HostTrust::Certificate {
            authorities: vec![authority.public_key().clone()],
            name: name.to_owned(),
        };
        let table = [
            (SOUND, "web-1.example.com", ""),
            (SOUND, "WEB-1.example.com", ""),
            (SOUND, "10.0.0.11", ""),
            (SOUND, "web-2.example.com", "not for web-2"),
            (Spec { names: &[], ..SOUND }, "web-1.example.com", "no name"),
            (Spec { names: &["*.example.com"], ..SOUND }, "web-1.example.com", "not for"),
            (Spec { kind: CertType::User, ..SOUND }, "web-1.example.com", "a user certificate"),
            (Spec { option: Some("force-command"), ..SOUND }, "web-1.example.com", "critical option"),
        ];
        for (spec, name, fault) in table {
            match trust(name).check(&shown(&authority, &spec), now()) {
                Ok(()) => assert_eq!(fault, "", "{:?} for {name} was taken", spec.names),
                Err(why) => assert!(!fault.is_empty() && why.to_string().contains(fault), "{why}"),
            }
        }
        assert!(trust("10.0.0.11").check(&shown(&authority, &SOUND), now() + SignedDuration::from_mins(1)).is_err());
        assert!(trust("10.0.0.11").check(&shown(&key(), &SOUND), now()).is_err());
    }

    #[test]
    fn a_plain_key_never_stands_in_for_a_certificate_nor_the_other_way_round() {
        let (authority, host) = (key(), key());
        let by_ca =
            HostTrust::Certificate { authorities: vec![authority.public_key().clone()], name: "web-1".to_owned() };
        let plain = |key: &PrivateKey| PublicKeyOrCertificate::from(key.public_key().clone());
        assert!(by_ca.check(&plain(&host), now()).is_err());
        assert!(by_ca.check(&plain(&authority), now()).is_err());
        let by_key = HostTrust::Keys(vec![key().public_key().clone(), host.public_key().clone()]);
        assert_eq!(by_key.check(&plain(&host), now()), Ok(()));
        let why = by_key.check(&plain(&authority), now()).unwrap_err().to_string();
        assert!(why.contains(&authority.fingerprint(HashAlg::Sha256).to_string()), "{why}");
        assert!(why.contains(&host.fingerprint(HashAlg::Sha256).to_string()), "{why}");
        assert!(by_key.check(&shown(&authority, &SOUND), now()).is_err());
    }

    #[test]
    fn only_what_can_lead_to_a_yes_is_offered() {
        let by_key = HostTrust::Keys(vec![key().public_key().clone()]).preferred();
        assert_eq!((by_key.key.to_vec(), by_key.host_key_certificates.to_vec()), (vec![Algorithm::Ed25519], vec![]));
        let by_ca = HostTrust::Certificate { authorities: vec![], name: String::new() }.preferred();
        assert!(by_ca.key.is_empty() && !by_ca.host_key_certificates.is_empty());
        assert!(!by_ca.host_key_certificates.contains(&Algorithm::Rsa { hash: None }));
    }
}
