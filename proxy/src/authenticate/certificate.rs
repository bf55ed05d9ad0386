//! Who somebody is by a user certificate of an authority that the configuration names (`[ssh] user_ca`).
//!
//! The one rule: **exactly one** of the certificate's principals is the name of a user of the configuration, and that is who
//! it is. A certificate without principals would be anybody (Vault CVE-2024-7594) and is refused; further principals that
//! are nobody here (an address, a login of other hosts) do not matter; two users in one certificate are refused.
//!
//! Pure: time, source and lists are arguments. What always holds: `source-address` is kept to; every other critical option is
//! refused, `force-command` because the gate runs no command of its own and `verify-required` because it cannot see
//! whether it was met; extensions say what sshd may do, and mean nothing here: the entitlement decides.

use jiff::Timestamp;
use russh::keys::{Certificate, PublicKey, ssh_key::certificate::CertType};
use std::net::IpAddr;
use tidegate_ca::{Revoked, Unvouched, vouch};
use tidegate_grants::{Identity, IdentityName, Policy};

/// So much of what a certificate says of itself is written down.
const LONGEST: usize = 64;

/// Why a certificate is nobody's. For the ledger; who is at the door hears only that it did not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// Not made by one of our authorities for a user, or not now.
    #[error(transparent)]
    Unvouched(#[from] Unvouched),
    /// It, its key or its authority is on the list.
    #[error("it is revoked (revoked_keys)")]
    Revoked,
    /// It names no principal, which OpenSSH reads as all.
    #[error("it has no principals, so it would be anybody's")]
    Anybody,
    /// None of its principals is a user.
    #[error("none of its principals is a user of the configuration")]
    Nobody,
    /// It stands for several users.
    #[error("its principals name several users of the configuration: {0} and {1}")]
    Several(IdentityName, IdentityName),
    /// It may not be used from there.
    #[error("it may be used from {allowed} only, and was shown from {source_address}")]
    Elsewhere {
        /// Its `source-address`.
        allowed: String,
        /// Where it was shown.
        source_address: IpAddr,
    },
    /// `source-address` that cannot be read.
    #[error("its source-address is not a list of addresses")]
    Unreadable,
    /// A critical option that cannot be kept to.
    #[error("its critical option {0} cannot be kept to here")]
    Option(String),
}

/// The user whose certificate this is.
///
/// # Errors
/// [`NotAdmitted`]: nobody's.
pub fn identity_of_certificate<'p>(
    policy: &'p Policy,
    certificate: &Certificate,
    authorities: &[PublicKey],
    revoked: &Revoked,
    source: IpAddr,
    now: Timestamp,
) -> Result<&'p Identity, NotAdmitted> {
    vouch(certificate, CertType::User, authorities, now)?;
    if revoked.has_certificate(certificate) {
        return Err(NotAdmitted::Revoked);
    }
    for (option, value) in certificate.critical_options().iter() {
        match option.as_str() {
            "source-address" => check_source(value, source)?,
            other => return Err(NotAdmitted::Option(cut(other))),
        }
    }
    if certificate.valid_principals().is_empty() {
        return Err(NotAdmitted::Anybody);
    }
    let identity = |principal: &String| {
        let name: IdentityName = principal.parse().ok()?;
        policy.identities.get(&name)
    };
    let mut people = certificate.valid_principals().iter().filter_map(identity);
    let first = people.next().ok_or(NotAdmitted::Nobody)?;
    match people.find(|other| other.name != first.name) {
        Some(other) => Err(NotAdmitted::Several(first.name.clone(), other.name.clone())),
        None => Ok(first),
    }
}

/// A list of addresses and networks in CIDR form, as `ssh-keygen -O source-address=` takes it. A network with bits beyond its
/// prefix is a mistake, and OpenSSH refuses it too.
fn check_source(allowed: &str, source: IpAddr) -> Result<(), NotAdmitted> {
    let source = source.to_canonical();
    let networks: Option<Vec<(IpAddr, u32)>> = allowed.split(',').map(network).collect();
    let networks = networks.ok_or(NotAdmitted::Unreadable)?;
    if networks.iter().any(|(network, prefix)| within(source, *network, *prefix)) {
        return Ok(());
    }
    Err(NotAdmitted::Elsewhere { allowed: cut(allowed), source_address: source })
}

fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok()?,
        Some(_) => return None,
        None => longest,
    };
    let host_bits = bits(address) & !mask(address, prefix);
    (prefix <= longest && host_bits == 0).then_some((address, prefix))
}

fn within(address: IpAddr, network: IpAddr, prefix: u32) -> bool {
    address.is_ipv4() == network.is_ipv4() && bits(address) & mask(address, prefix) == bits(network)
}

/// The address from the highest bit on, whatever its family.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn mask(address: IpAddr, prefix: u32) -> u128 {
    let all = if address.is_ipv4() { u128::MAX << 96 } else { u128::MAX };
    let kept = u128::MAX.checked_shr(prefix).map_or(u128::MAX, |rest| !rest);
    all & kept
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
