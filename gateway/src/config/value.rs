//! The grammars of single values: durations, sizes, addresses, keys.

pub(crate) use tidegate_grants::duration::{parse as duration, show as show_duration};

use ssh_key::{Algorithm, PublicKey};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Of these, what somebody who wrote this has most likely meant, if one is near enough.
pub(super) fn nearest<'a>(wrote: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |name: &str| strsim::damerau_levenshtein(&wrote.to_lowercase(), &name.to_lowercase());
    let begins = |name: &str| wrote.len() >= 3 && (name.starts_with(wrote) || wrote.starts_with(name));
    let near = |name: &&str| begins(name) || distance(name) <= wrote.chars().count().max(name.chars().count()) / 3;
    known.filter(near).min_by_key(|name| distance(name))
}

/// What to write for a duration.
pub(super) const DURATION_FIX: &str = "write it like \"30m\", \"10s\", \"1h\" or \"1d\"";

/// A duration that is not zero.
pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|d| if d.is_zero() { Err("is no time at all".to_owned()) } else { Ok(d) })
}

/// `1MiB`, `64KiB`, `512B`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("is not a size".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "is not a size".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "is too large".to_owned())
}

/// Where to listen: an address of this host with a port.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is not an address of this host with a port".to_owned())
}

/// `host:port`, the host a DNS name or an address (IPv6 in brackets).
pub(super) fn address(text: &str) -> Result<String, String> {
    if text.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0) {
        return Ok(text.to_owned());
    }
    let (host, port) = text.rsplit_once(':').ok_or("has no port")?;
    if port.parse::<u16>().is_ok_and(|port| port != 0) && dns_name(host) {
        Ok(text.to_owned())
    } else {
        Err("is not a host with a port".to_owned())
    }
}

/// A DNS name (RFC 1123 section 2.1) or an IP address.
pub(super) fn public_name(text: &str) -> Result<String, String> {
    if text.parse::<IpAddr>().is_ok() || dns_name(text) {
        Ok(text.to_owned())
    } else {
        Err("is neither a DNS name nor an address".to_owned())
    }
}

fn dns_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // All digits and dots would be a mistyped address.
    text.len() <= 253 && text.split('.').all(label) && !text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// The gateway's, a node's or an issuer's name: it stands in tokens, records and certificates.
pub(super) fn plain_name(text: &str) -> Result<String, String> {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let fits = (1..=32).contains(&text.len())
        && text.bytes().next().is_some_and(ok)
        && text.bytes().all(|b| ok(b) || b"._-".contains(&b));
    if fits { Ok(text.to_owned()) } else { Err("is not a valid name".to_owned()) }
}

/// What to write for such a name.
pub(super) const PLAIN_NAME_FIX: &str = "use a lower-case letter or digit, then up to 31 of a-z 0-9 . _ -";

/// An SSH public key that we can verify: Ed25519, ECDSA, RSA of 2048 bits and more, or one in a security key.
pub(crate) fn ssh_key(text: &str) -> Result<PublicKey, String> {
    if text.split_whitespace().next().unwrap_or_default().contains("-cert-v01@") {
        return Err("is a certificate, not a key".to_owned());
    }
    if text.contains("PRIVATE KEY") {
        return Err("is a private key".to_owned());
    }
    let key = PublicKey::from_openssh(text).map_err(|_| "is not an OpenSSH public key".to_owned())?;
    match key.algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256 => Ok(key),
        Algorithm::Rsa { .. } => {
            let bits = key.key_data().rsa().map_or(0, |rsa| rsa.n().as_positive_bytes().map_or(0, |n| n.len() * 8));
            if bits >= 2048 { Ok(key) } else { Err("is an RSA key of less than 2048 bits".to_owned()) }
        }
        _ => Err("is of a kind that is not accepted here".to_owned()),
    }
}

/// The same, but none in a security key: a host has nobody who touches it.
pub(super) fn host_key(text: &str) -> Result<PublicKey, String> {
    let key = ssh_key(text)?;
    match key.algorithm() {
        Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256 => Err("is a security key, which no host has".to_owned()),
        _ => Ok(key),
    }
}

/// What to write for a key.
pub(super) const SSH_KEY_FIX: &str = "paste the one line of the .pub file: ssh-ed25519 AAAA…";

/// An auditor's public key that a recording can be wrapped for.
pub(super) fn recipient(text: &str) -> Result<String, String> {
    let ours = match text.split_whitespace().next() {
        Some("ssh-ed25519") => text.parse::<age::ssh::Recipient>().is_ok(),
        _ => text.parse::<age::x25519::Recipient>().is_ok(),
    };
    if ours {
        return Ok(text.to_owned());
    }
    Err(match text {
        private if private.starts_with("AGE-SECRET-KEY-") => "is a private key, which the gateway must never have",
        _ => "is neither an age public key (age1…) nor an ssh-ed25519 one",
    }
    .to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_number_and_unit() {
        for (text, seconds) in [("10s", 10), ("30m", 1800), ("1h", 3600), ("1d", 86400), ("1h30m", 5400), ("0s", 0)] {
            assert_eq!(duration(text).unwrap().as_secs(), seconds, "{text}");
        }
        for text in ["", "30", "m", "-1h", "1.5h", "1 h", "1H", "4000d", "99999999999999999999s", "1hh"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(show_duration(Duration::from_secs(5400)), "1h30m");
        assert_eq!(show_duration(Duration::ZERO), "0s");
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(size("1MiB").unwrap(), 1 << 20);
        assert_eq!(size("0B").unwrap(), 0);
        for text in ["1MB", "1", "MiB", "-1B", "99999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_need_a_host_and_a_port() {
        for text in ["10.0.0.1:22", "db-1.example.com:5432", "[2001:db8::1]:22", "localhost:1"] {
            assert!(address(text).is_ok(), "{text}");
        }
        for text in ["10.0.0.1", "db:0", "db:70000", "2001:db8::1:22", "a b:1", "-a:1", "10.0.0.300:22", ":22", "u@h:1"]
        {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
