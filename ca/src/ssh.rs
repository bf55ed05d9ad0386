//! SSH certificates (OpenSSH `PROTOCOL.certkeys`).
//!
//! What always holds: a certificate has exactly one principal (a host certificate: exactly its names), in a grammar
//! that OpenSSH cannot read as two (CVE-2026-35414) or as none, which would mean all (Vault CVE-2024-7594); its life is
//! bounded; a user certificate names the addresses that may use it and carries no extension that was not asked for.

use crate::CaError;
use jiff::{SignedDuration, Timestamp};
use ssh_key::{
    Algorithm, Certificate, PrivateKey, PublicKey,
    certificate::{Builder, CertType},
    getrandom::SysRng,
    rand_core::{Rng, UnwrapErr},
};

/// No user certificate lives longer than this.
const LONGEST_USER_LIFE: SignedDuration = SignedDuration::from_mins(10);

/// What to sign for one connection to a target.
#[derive(Debug, Clone)]
pub struct UserCertificate<'a> {
    /// The one principal. No comma, no whitespace, not empty.
    pub principal: &'a str,
    /// Names session, identity and grant; ends up in the target's log.
    pub key_id: &'a str,
    /// Not before.
    pub valid_after: Timestamp,
    /// Not after; at most 10 minutes after `valid_after`.
    pub valid_before: Timestamp,
    /// Addresses that may use it; never empty.
    pub source_addresses: &'a [String],
    /// E.g. `permit-pty`. None unless the session needs it.
    pub extensions: &'a [&'a str],
    /// The only command that it can run, if set.
    pub force_command: Option<&'a str>,
}

/// A fresh key with its certificate. Lives in memory only.
#[derive(Debug, Clone)]
pub struct SshCredential {
    /// Ed25519, made for this certificate.
    pub key: PrivateKey,
    /// Signed by us.
    pub certificate: Certificate,
}

/// An SSH certificate authority.
pub struct SshAuthority {
    key: PrivateKey,
}

impl std::fmt::Debug for SshAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SshAuthority({})", self.key.fingerprint(ssh_key::HashAlg::Sha256))
    }
}

impl SshAuthority {
    /// From its private key.
    pub fn new(key: PrivateKey) -> Self {
        Self { key }
    }

    /// Its public key.
    pub fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }

    /// A user certificate on a fresh key.
    ///
    /// # Errors
    /// [`CaError::Refused`] where the request breaks a rule of this module.
    pub fn issue_user(&self, spec: &UserCertificate<'_>) -> Result<SshCredential, CaError> {
        check_principal(spec.principal)?;
        if spec.source_addresses.is_empty() {
            return Err(CaError::Refused("a user certificate needs a source address".into()));
        }
        if spec.valid_before.duration_since(spec.valid_after) > LONGEST_USER_LIFE {
            return Err(CaError::Refused("a user certificate lives for ten minutes at most".into()));
        }
        let key = PrivateKey::random(&mut UnwrapErr(SysRng), Algorithm::Ed25519).map_err(sign_error)?;
        let mut builder = builder(key.public_key(), CertType::User, spec.key_id, spec.valid_after, spec.valid_before)?;
        builder.valid_principal(spec.principal).map_err(sign_error)?;
        // Options must be in lexical order (PROTOCOL.certkeys, "Critical options"); the builder's map sorts them.
        builder.critical_option("source-address", spec.source_addresses.join(",")).map_err(sign_error)?;
        if let Some(command) = spec.force_command {
            builder.critical_option("force-command", command).map_err(sign_error)?;
        }
        for extension in spec.extensions {
            builder.extension(*extension, "").map_err(sign_error)?;
        }
        let certificate = builder.sign(&self.key).map_err(sign_error)?;
        Ok(SshCredential { key, certificate })
    }

    /// A host certificate for exactly these names.
    ///
    /// # Errors
    /// [`CaError::Refused`] without names, or with one that is not a plain host name.
    pub fn issue_host(
        &self,
        host_key: &PublicKey,
        names: &[String],
        key_id: &str,
        valid_after: Timestamp,
        valid_before: Timestamp,
    ) -> Result<Certificate, CaError> {
        if names.is_empty() {
            return Err(CaError::Refused("a host certificate needs a name".into()));
        }
        let mut builder = builder(host_key, CertType::Host, key_id, valid_after, valid_before)?;
        for name in names {
            check_principal(name)?;
            builder.valid_principal(name.as_str()).map_err(sign_error)?;
        }
        builder.sign(&self.key).map_err(sign_error)
    }
}

fn builder(
    key: &PublicKey,
    cert_type: CertType,
    key_id: &str,
    valid_after: Timestamp,
    valid_before: Timestamp,
) -> Result<Builder, CaError> {
    let mut rng = UnwrapErr(SysRng);
    let mut builder = Builder::new_with_random_nonce(&mut rng, key, seconds(valid_after)?, seconds(valid_before)?)
        .map_err(sign_error)?;
    builder.cert_type(cert_type).map_err(sign_error)?;
    builder.serial(rng.next_u64()).map_err(sign_error)?;
    builder.key_id(key_id).map_err(sign_error)?;
    Ok(builder)
}

/// A principal that OpenSSH can read in one way only: printable ASCII without list, pattern or quoting characters.
fn check_principal(principal: &str) -> Result<(), CaError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-@:".contains(&b);
    if principal.is_empty() || principal.len() > 255 || !principal.bytes().all(plain) {
        return Err(CaError::Refused("a principal is 1 to 255 of A-Z a-z 0-9 . _ - @ :".into()));
    }
    Ok(())
}

fn seconds(at: Timestamp) -> Result<u64, CaError> {
    u64::try_from(at.as_second()).map_err(|_| CaError::Refused("a certificate cannot be valid before 1970".into()))
}

fn sign_error(error: ssh_key::Error) -> CaError {
    CaError::Sign(error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn authority() -> SshAuthority {
        SshAuthority::new(PrivateKey::random(&mut UnwrapErr(SysRng), Algorithm::Ed25519).unwrap())
    }

    fn spec<'a>(principal: &'a str, sources: &'a [String]) -> UserCertificate<'a> {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        UserCertificate {
            principal,
            key_id: "tidegate session=1 identity=alice grant=2",
            valid_after: now,
            valid_before: now + SignedDuration::from_secs(90),
            source_addresses: sources,
            extensions: &["permit-pty"],
            force_command: None,
        }
    }

    #[test]
    fn user_certificate_has_one_principal_and_its_limits() {
        let ca = authority();
        let sources = ["10.0.0.5".to_owned(), "10.0.0.6".to_owned()];
        let made = ca.issue_user(&spec("deploy@web-1", &sources)).unwrap();
        let certificate = &made.certificate;
        let fingerprint = ca.public_key().fingerprint(ssh_key::HashAlg::Sha256);
        certificate.validate_at(1_800_000_010, [&fingerprint]).unwrap();
        assert!(certificate.validate_at(1_800_000_091, [&fingerprint]).is_err());
        assert_eq!(certificate.valid_principals(), ["deploy@web-1"]);
        assert_eq!(certificate.cert_type(), CertType::User);
        assert_eq!(certificate.critical_options().get("source-address").unwrap(), "10.0.0.5,10.0.0.6");
        assert_eq!(certificate.critical_options().len(), 1);
        assert_eq!(certificate.extensions().keys().map(String::as_str).collect::<Vec<_>>(), ["permit-pty"]);
        assert_eq!(certificate.public_key(), made.key.public_key().key_data());
    }

    #[test]
    fn every_certificate_has_a_key_of_its_own() {
        let ca = authority();
        let sources = ["10.0.0.5".to_owned()];
        let [a, b] = [0, 1].map(|_| ca.issue_user(&spec("deploy", &sources)).unwrap());
        assert_ne!(a.key.public_key(), b.key.public_key());
        assert_ne!(a.certificate.serial(), b.certificate.serial());
    }

    #[test]
    fn principal_that_reads_as_several_or_as_none_is_refused() {
        let ca = authority();
        let sources = ["10.0.0.5".to_owned()];
        for principal in ["", "root,deploy", "deploy root", "deploy\n", "*", "de\"ploy", "dep\0loy", &"a".repeat(256)] {
            assert!(matches!(ca.issue_user(&spec(principal, &sources)), Err(CaError::Refused(_))), "{principal:?}");
        }
    }

    #[test]
    fn certificate_without_source_or_with_long_life_is_refused() {
        let ca = authority();
        assert!(matches!(ca.issue_user(&spec("deploy", &[])), Err(CaError::Refused(_))));
        let sources = ["10.0.0.5".to_owned()];
        let mut long = spec("deploy", &sources);
        long.valid_before = long.valid_after + SignedDuration::from_mins(11);
        assert!(matches!(ca.issue_user(&long), Err(CaError::Refused(_))));
    }

    #[test]
    fn host_certificate_names_exactly_its_hosts() {
        let ca = authority();
        let host = authority();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let names = ["gate.example.com".to_owned()];
        let end = now + SignedDuration::from_hours(24);
        let certificate = ca.issue_host(host.public_key(), &names, "gate", now, end).unwrap();
        assert_eq!(certificate.cert_type(), CertType::Host);
        assert_eq!(certificate.valid_principals(), ["gate.example.com"]);
        for bad in [vec![], vec!["*".to_owned()], vec!["a,b".to_owned()]] {
            assert!(matches!(ca.issue_host(host.public_key(), &bad, "gate", now, end), Err(CaError::Refused(_))));
        }
    }
}
