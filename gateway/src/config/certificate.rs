//! `tls_cert` and `tls_key` of a door: a certificate that somebody else makes and renews.

use super::{
    secret::{Secret, SecretPlace, of_file},
    section::Section,
};
use jiff::Timestamp;
use tidegate_proxy::tls::CertificateFiles;

/// Both keys, or neither (`None` inside). `None` has said what is wrong.
pub(super) fn certificate(section: &Section<'_>) -> Option<Option<CertificateFiles>> {
    const FIX: &str = "name a PEM file with the certificate and its chain, and one of mode 0600 with its key";
    let (chain, key) = match (section.text("tls_cert"), section.text("tls_key")) {
        (None, None) => return (!section.has("tls_cert") && !section.has("tls_key")).then_some(None),
        (Some(chain), Some(key)) => (chain, key),
        (Some(one), None) | (None, Some(one)) => {
            one.fault("stands alone: tls_cert and tls_key belong together", FIX);
            return None;
        }
    };
    if let Err(wrong) = of_file(&key.path()) {
        key.fault(wrong, FIX);
        return None;
    }
    let files = CertificateFiles { chain: chain.path(), key: key.path() };
    if let Err(wrong) = files.check(Timestamp::now()) {
        chain.fault(format!("is nothing to serve with: {wrong}"), FIX);
        return None;
    }
    Some(Some(files))
}

/// What they make the gateway hold.
pub(super) fn secret(files: &CertificateFiles, door: &str) -> Secret {
    Secret { place: SecretPlace::File(files.key.clone()), why: format!("proves the listener ({door}.tls_key)") }
}
