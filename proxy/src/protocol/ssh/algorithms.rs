//! What both sides of the gateway offer: post-quantum key exchange first, AES-GCM before ChaCha20 (it is faster where
//! there is AES in hardware), no SHA-1, no CBC, no compression.

use russh::{
    Preferred, cipher, compression, kex,
    keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey},
    mac,
};
use std::borrow::Cow;

/// The last four are no key exchanges: without them neither extensions nor strict key exchange (the answer to
/// CVE-2023-48795) would be offered.
const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::DH_G16_SHA512,
    kex::DH_G18_SHA512,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

const CIPHERS: &[cipher::Name] =
    &[cipher::AES_256_GCM, cipher::AES_128_GCM, cipher::CHACHA20_POLY1305, cipher::AES_256_CTR, cipher::AES_128_CTR];

const MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM];

/// The last two are for clients on libssh2 before 1.11 (Debian 12's curl, PHP), which know neither AES-GCM nor
/// encrypt-then-MAC. RFC 6668's SHA-2 with AES-CTR is old, and sound; OpenSSH offers it too.
const CLIENT_MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM, mac::HMAC_SHA256, mac::HMAC_SHA512];

/// With these algorithms for host keys and signatures: what targets are offered.
pub(super) fn preferred(keys: Vec<Algorithm>) -> Preferred {
    Preferred {
        kex: Cow::Borrowed(KEX),
        key: Cow::Owned(keys),
        cipher: Cow::Borrowed(CIPHERS),
        mac: Cow::Borrowed(MACS),
        compression: Cow::Borrowed(&[compression::NONE]),
        ..Preferred::DEFAULT
    }
}

/// What clients are offered.
pub(super) fn for_clients() -> Preferred {
    Preferred { mac: Cow::Borrowed(CLIENT_MACS), ..preferred(signatures()) }
}

/// Everything that people's keys may sign with: all but `ssh-rsa`, which is SHA-1.
fn signatures() -> Vec<Algorithm> {
    Preferred::DEFAULT.key.iter().filter(|a| !matches!(a, Algorithm::Rsa { hash: None })).cloned().collect()
}

/// The ways in which pinned host keys can prove themselves: a target must not show another one of its keys.
pub(super) fn of_host_keys(keys: &[PublicKey]) -> Vec<Algorithm> {
    let mut algorithms = Vec::new();
    for key in keys {
        let ways = match key.algorithm() {
            Algorithm::Rsa { .. } => rsa().to_vec(),
            other => vec![other],
        };
        for way in ways {
            if !algorithms.contains(&way) {
                algorithms.push(way);
            }
        }
    }
    algorithms
}

/// What a host may prove its certificate with: all but SHA-1.
pub(super) fn signatures_of_hosts() -> Vec<Algorithm> {
    let curve = |curve| Algorithm::Ecdsa { curve };
    let curves = [EcdsaCurve::NistP256, EcdsaCurve::NistP384, EcdsaCurve::NistP521].map(curve);
    [Algorithm::Ed25519].into_iter().chain(curves).chain(rsa()).collect()
}

fn rsa() -> [Algorithm; 2] {
    [HashAlg::Sha512, HashAlg::Sha256].map(|hash| Algorithm::Rsa { hash: Some(hash) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_offered_rests_on_sha1_or_cbc() {
        let preferred = for_clients();
        let ciphers = preferred.cipher.iter().map(AsRef::<str>::as_ref);
        let macs = preferred.mac.iter().map(AsRef::<str>::as_ref);
        let kex = preferred.kex.iter().map(AsRef::<str>::as_ref);
        for name in ciphers.chain(macs).chain(kex) {
            assert!(!name.contains("cbc") && !name.contains("sha1") && name != "none", "{name}");
        }
        assert!(!preferred.key.contains(&Algorithm::Rsa { hash: None }));
        assert!(preferred.kex.contains(&kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER));
        assert!(preferred.kex.contains(&kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT));
    }
}
