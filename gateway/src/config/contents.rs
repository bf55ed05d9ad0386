//! What is in the files that a configuration names, as digests: another CA under the same name is a change like any other.
//!
//! The digest of a secret is slow to make and cut short: it tells that a secret was changed, and is of no use to who guesses.
//! Files are looked at before they are used, so that one that changes in between shows as changed at the next look.

use super::hex;
use pbkdf2::pbkdf2_hmac;
use sha2::{Digest as _, Sha256};
use std::{fs::File, io::Read as _, path::Path};
use toml::{Table, Value};
use zeroize::Zeroizing;

/// What of an entry is named by a file: the key, and whether it is a secret.
const NAMED: [(&str, bool); 5] = [
    ("password_file", true),
    ("tls_ca", false),
    ("jwks_file", false),
    ("secret_file", true),
    ("admin_password_file", true),
];
/// Of PBKDF2, for secrets: as many as in a SCRAM verifier of PostgreSQL, which `target trust` prints.
const ROUNDS: u32 = 4_096;
/// Longer files are not what a configuration names.
const LONGEST: u64 = 1 << 20;

/// Adds to each entry what is in the files that it names, and returns that, a line each.
pub(super) fn note(written: &mut Table, folder: &Path) -> Vec<String> {
    let mut noted = Vec::new();
    for section in ["target", "issuer", "workload"] {
        let entries = written.get_mut(section).and_then(Value::as_array_mut).into_iter().flatten();
        for entry in entries.filter_map(Value::as_table_mut) {
            for (key, secret) in NAMED {
                let file = entry.get(key).and_then(Value::as_str).map(|file| folder.join(file));
                // One that cannot be read is told where it is needed.
                let Some(digest) = file.and_then(|file| digest(&file, secret)) else { continue };
                noted.push(format!("{section} {} {key} {digest}", entry.get("name").unwrap_or(&Value::Boolean(false))));
                entry.insert(format!("{key} (contents)"), Value::String(digest));
            }
        }
    }
    noted
}

fn digest(file: &Path, secret: bool) -> Option<String> {
    if !std::fs::metadata(file).ok()?.is_file() {
        return None;
    }
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(file).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
    if !secret {
        return Some(format!("sha256 {}", hex(&Sha256::digest(&bytes))));
    }
    let mut short = [0; 8];
    pbkdf2_hmac::<Sha256>(&bytes, b"tidegate configuration", ROUNDS, &mut short);
    Some(format!("pbkdf2 {}", hex(&short)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn another_content_of_the_same_file_is_another_digest() {
        let dir = tempfile::tempdir().unwrap();
        let text = "[[target]]\nname = \"orders\"\ntls_ca = \"ca.pem\"\n[[issuer]]\nname = \"desk\"\nsecret_file = \"desk.key\"\n\
                    [[target]]\nname = \"gone\"\ntls_ca = \"nowhere.pem\"\n";
        let noted = || note(&mut text.parse().unwrap(), dir.path());
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("ca.pem", "one");
        write("desk.key", "secret");
        let (before, secret) = (noted(), "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b");
        assert_eq!(before.len(), 2);
        assert!(before.iter().all(|line| !line.contains(secret)), "no plain digest of a secret: {before:?}");
        write("desk.key", "secret2");
        let after = noted();
        assert_eq!(before.iter().zip(&after).filter(|(a, b)| a != b).count(), 1);
        write("ca.pem", "two");
        assert_eq!(before.iter().zip(&noted()).filter(|(a, b)| a != b).count(), 2);
    }
}
