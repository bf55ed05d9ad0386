//! Where the private keys are: one file each, mode 0600, in `state_dir/keys`.
//!
//! What always holds: a key is written once, to a file that nobody else can read, and synced before it is used; a file
//! that others can read is refused rather than used.

use crate::{
    CaError,
    people::PeopleAuthority,
    seal::{self, SealKeys},
    ssh::SshAuthority,
    x509::X509Authority,
};
use ed25519_dalek::{
    SigningKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, spki::der::pem::LineEnding},
};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use ssh_key::{Algorithm, PrivateKey, getrandom::SysRng, rand_core::UnwrapErr};
use std::{
    fs,
    io::{ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// A public part for `ca show`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// OpenSSH public key line of the SSH user CA.
    SshUser,
    /// OpenSSH public key line of the SSH host CA.
    SshHost,
    /// OpenSSH public key line of the gateway's own host key, for clients that know no host CA.
    SshHostKey,
    /// PEM certificate of the X.509 CA.
    X509,
    /// PEM certificate of the X.509 CA for people.
    X509People,
    /// Verification key of ledger and recordings (PEM, SubjectPublicKeyInfo).
    Ledger,
}

/// All keys of a gateway.
pub struct Keys {
    /// Signs user certificates for SSH targets.
    pub ssh_user: SshAuthority,
    /// Signs the gateway's own SSH host certificate.
    pub ssh_host: SshAuthority,
    /// The gateway's own SSH host key.
    pub host_key: PrivateKey,
    /// Signs TLS certificates: the gateway's listener, its admin login and session roles on PostgreSQL targets.
    pub x509: X509Authority,
    /// Signs the certificates with which people log in to PostgreSQL here. No target trusts it.
    pub people: PeopleAuthority,
    /// Signs our own grants.
    pub grants: SigningKey,
    /// Signs ledger heads and recordings.
    pub ledger: SigningKey,
    /// HMAC key for SCRAM salts.
    pub salt: SecretSlice<u8>,
    /// Seal the seeds of second factors.
    pub mfa: SealKeys,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

/// Every file of [`Keys`] with what it is for, as `tidegate check` lists them.
pub const FILES: [(&str, &str); 9] = [
    ("ssh_user_ca", "signs the certificate of each connection to an SSH target"),
    ("ssh_host_ca", "signs the gateway's own SSH host certificate"),
    ("ssh_host_key", "the gateway's own SSH host key"),
    ("x509_ca.key", "signs the certificates of sessions and of the gateway's login on PostgreSQL targets, and its own"),
    (
        "people_ca.key",
        "signs the certificates of minutes with which people log in to PostgreSQL here; no target trusts it",
    ),
    ("grants.key", "signs the grants that admins issue"),
    ("ledger.key", "signs the ledger and the recordings"),
    ("scram_salt", "makes the salts of short-lived passwords, so that unknown names look like known ones"),
    (MFA, "seals the seeds of people's second factors in the store (`tidegate ca rotate mfa` makes a new one)"),
];
const X509: &str = "x509_ca";
const PEOPLE: &str = "people_ca";
const MFA: &str = "mfa.key";

impl Keys {
    /// Makes what is missing in `dir` (0700) and leaves what is there. `name` goes into the CA's subject.
    ///
    /// # Errors
    /// [`CaError::KeyFile`] naming the file and what to do.
    pub fn create(dir: &Path, name: &str, now: Timestamp) -> Result<Self, CaError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| fault(dir, &e))?;
        for file in ["ssh_user_ca", "ssh_host_ca", "ssh_host_key"] {
            create_missing(dir, file, || generate_ssh(&format!("tidegate {file} of {name}")))?;
        }
        for file in ["grants.key", "ledger.key"] {
            create_missing(dir, file, generate_ed25519)?;
        }
        create_missing(dir, "scram_salt", || Ok(hex(&random()?).into()))?;
        create_missing(dir, MFA, seal::generate)?;
        create_x509(dir, X509, name, now)?;
        create_x509(dir, PEOPLE, &format!("{name} people"), now)?;
        fs::File::open(dir).and_then(|d| d.sync_all()).map_err(|e| fault(dir, &e))?;
        Self::open(dir)
    }

    /// Makes what a version before this one did not have: the key of the CA for people, on which nothing rests for longer than
    /// minutes, and the key that seals second factors, of which there were none. Whatever else is missing is a fault, and stays one.
    ///
    /// # Errors
    /// [`CaError::KeyFile`] naming the file and what to do.
    pub fn complete(dir: &Path, name: &str, now: Timestamp) -> Result<(), CaError> {
        if !dir.join("x509_ca.key").exists() {
            return Ok(()); // keys were never made here
        }
        create_missing(dir, MFA, seal::generate)?;
        create_x509(dir, PEOPLE, &format!("{name} people"), now)?;
        fs::File::open(dir).and_then(|d| d.sync_all()).map_err(|e| fault(dir, &e))
    }

    /// Reads all; a missing, too open (any bit of group or others) or damaged file is named with its fix.
    ///
    /// # Errors
    /// [`CaError::KeyFile`].
    pub fn open(dir: &Path) -> Result<Self, CaError> {
        Self::read(&Folder { dir, shared: 0o077 })
    }

    /// Like [`Keys::open`], from where a service manager has put copies for this process alone (`systemd.exec`, "Credentials"):
    /// an access list gives them to the service's account, which shows as a bit of the group's.
    ///
    /// # Errors
    /// [`CaError::KeyFile`].
    pub fn handed_over(dir: &Path) -> Result<Self, CaError> {
        Self::read(&Folder { dir, shared: 0o037 })
    }

    fn read(dir: &Folder<'_>) -> Result<Self, CaError> {
        Ok(Self {
            ssh_user: SshAuthority::new(read_ssh(dir, "ssh_user_ca")?),
            ssh_host: SshAuthority::new(read_ssh(dir, "ssh_host_ca")?),
            host_key: read_ssh(dir, "ssh_host_key")?,
            x509: read_x509(dir, X509)?,
            people: PeopleAuthority::new(read_x509(dir, PEOPLE)?)?,
            grants: read_ed25519(dir, "grants.key")?,
            ledger: read_ed25519(dir, "ledger.key")?,
            salt: read_salt(dir)?,
            mfa: read_mfa(dir)?,
        })
    }

    /// Puts a new key before those that seal second factors; with `drop_old`, the older ones go instead, and what they sealed opens
    /// no more. How many there are then.
    ///
    /// # Errors
    /// [`CaError::KeyFile`].
    pub fn rotate_mfa(dir: &Path, drop_old: bool) -> Result<usize, CaError> {
        let old = match dir.join(MFA).exists() {
            true => read(&Folder { dir, shared: 0o077 }, MFA)?,
            false => SecretString::default(), // of a version before this one, whose service manager hands keys over
        };
        let mut lines: Vec<&str> = old.expose_secret().lines().map(str::trim).collect();
        let new = seal::generate()?;
        if drop_old {
            lines.truncate(1);
        } else {
            lines.insert(0, new.expose_secret().trim());
        }
        let text = SecretString::from(lines.join("\n") + "\n");
        let keys = SealKeys::parse(&text).ok_or_else(|| damaged(dir, MFA, "not lines of 64 hexadecimal digits"))?;
        write_new(&dir.join(MFA), text.expose_secret().as_bytes(), false)?;
        fs::File::open(dir).and_then(|d| d.sync_all()).map_err(|e| fault(dir, &e))?;
        Ok(keys.count())
    }

    /// One public part, ready to redirect into a file.
    ///
    /// # Errors
    /// [`CaError::Sign`] if it cannot be encoded.
    pub fn show(&self, part: Part) -> Result<String, CaError> {
        let openssh = |key: &ssh_key::PublicKey| {
            key.to_openssh().map(|line| format!("{line}\n")).map_err(|e| CaError::Sign(e.to_string()))
        };
        match part {
            Part::SshUser => openssh(self.ssh_user.public_key()),
            Part::SshHost => openssh(self.ssh_host.public_key()),
            Part::SshHostKey => openssh(self.host_key.public_key()),
            Part::X509 => Ok(self.x509.certificate_pem().to_owned()),
            Part::X509People => Ok(self.people.certificate_pem().to_owned()),
            Part::Ledger => {
                self.ledger.verifying_key().to_public_key_pem(LineEnding::LF).map_err(|e| CaError::Sign(e.to_string()))
            }
        }
    }
}

fn generate_ssh(comment: &str) -> Result<SecretString, CaError> {
    let sign = |e: ssh_key::Error| CaError::Sign(e.to_string());
    let mut key = PrivateKey::random(&mut UnwrapErr(SysRng), Algorithm::Ed25519).map_err(sign)?;
    key.set_comment(comment);
    Ok(key.to_openssh(ssh_key::LineEnding::LF).map_err(sign)?.as_str().to_owned().into())
}

fn generate_ed25519() -> Result<SecretString, CaError> {
    let key = SigningKey::generate(&mut UnwrapErr(SysRng));
    let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|e| CaError::Sign(e.to_string()))?;
    Ok(pem.as_str().to_owned().into())
}

fn random() -> Result<[u8; 32], CaError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| CaError::Sign(e.to_string()))?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn create_missing(
    dir: &Path,
    file: &str,
    generate: impl FnOnce() -> Result<SecretString, CaError>,
) -> Result<(), CaError> {
    let path = dir.join(file);
    if path.exists() { Ok(()) } else { write_new(&path, generate()?.expose_secret().as_bytes(), false) }
}

/// Whole or not at all: written beside, synced, then renamed.
fn write_new(path: &Path, content: &[u8], public: bool) -> Result<(), CaError> {
    let beside = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(if public { 0o644 } else { 0o600 });
    let mut file = options.open(&beside).map_err(|e| fault(&beside, &e))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(|e| fault(&beside, &e))?;
    fs::rename(&beside, path).map_err(|e| fault(path, &e))
}

/// Keys are small; a larger file is no key.
const LARGEST: u64 = 16 << 10;

/// Where keys are read from.
struct Folder<'a> {
    dir: &'a Path,
    /// A file with any of these bits is others' too, and refused.
    shared: u32,
}

fn read(from: &Folder<'_>, file: &str) -> Result<SecretString, CaError> {
    let path = from.dir.join(file);
    let opened = fs::File::open(&path).map_err(|e| fault(&path, &e))?;
    let mode = opened.metadata().map_err(|e| fault(&path, &e))?.permissions().mode();
    if mode & from.shared != 0 {
        let fault = format!("others can read this key (mode {:03o}): chmod 600 it", mode & 0o777);
        return Err(CaError::KeyFile { path, fault });
    }
    let mut text = String::new();
    opened.take(LARGEST).read_to_string(&mut text).map_err(|e| fault(&path, &e))?;
    Ok(text.into())
}

fn read_ssh(from: &Folder<'_>, file: &str) -> Result<PrivateKey, CaError> {
    PrivateKey::from_openssh(read(from, file)?.expose_secret()).map_err(|e| damaged(from.dir, file, &e.to_string()))
}

fn read_ed25519(from: &Folder<'_>, file: &str) -> Result<SigningKey, CaError> {
    SigningKey::from_pkcs8_pem(read(from, file)?.expose_secret()).map_err(|e| damaged(from.dir, file, &e.to_string()))
}

fn certificate(dir: &Path, stem: &str) -> PathBuf {
    dir.join(format!("{stem}.pem"))
}

fn create_x509(dir: &Path, stem: &str, name: &str, now: Timestamp) -> Result<(), CaError> {
    let file = dir.join(format!("{stem}.key"));
    if file.exists() {
        return Ok(());
    }
    let (key, pem) = X509Authority::generate(name, now)?;
    // The certificate first: without its key it is harmless, and the next run makes both anew.
    write_new(&certificate(dir, stem), pem.as_bytes(), true)?;
    write_new(&file, key.expose_secret().as_bytes(), false)
}

fn read_x509(from: &Folder<'_>, stem: &str) -> Result<X509Authority, CaError> {
    let file = format!("{stem}.key");
    let key = read(from, &file)?;
    let path = certificate(from.dir, stem);
    let pem = fs::read_to_string(&path).map_err(|e| fault(&path, &e))?;
    X509Authority::from_pem(key.expose_secret(), &pem).map_err(|e| damaged(from.dir, &file, &e.to_string()))
}

fn read_salt(from: &Folder<'_>) -> Result<SecretSlice<u8>, CaError> {
    let text = read(from, "scram_salt")?;
    let text = text.expose_secret().trim();
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(damaged(from.dir, "scram_salt", "not 64 hexadecimal digits"));
    }
    // The digits carry the entropy as they are: no decoding that could go wrong.
    Ok(text.as_bytes().to_vec().into())
}

fn read_mfa(from: &Folder<'_>) -> Result<SealKeys, CaError> {
    let keys = SealKeys::parse(&read(from, MFA)?);
    keys.ok_or_else(|| damaged(from.dir, MFA, "not lines of 64 hexadecimal digits"))
}

fn fault(path: &Path, error: &std::io::Error) -> CaError {
    let hint = if error.kind() == ErrorKind::NotFound { "; `tidegate init` makes the keys" } else { "" };
    CaError::KeyFile { path: path.to_owned(), fault: format!("{error}{hint}") }
}

fn damaged(dir: &Path, file: &str, why: &str) -> CaError {
    let path: PathBuf = dir.join(file);
    CaError::KeyFile { path, fault: format!("damaged ({why}): restore it from a backup") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    #[test]
    fn keys_are_made_once_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        let made = Keys::create(&keys, "gate", now()).unwrap();
        let again = Keys::create(&keys, "gate", now()).unwrap();
        for part in [Part::SshUser, Part::SshHost, Part::SshHostKey, Part::X509, Part::X509People, Part::Ledger] {
            assert_eq!(made.show(part).unwrap(), again.show(part).unwrap());
        }
        assert!(made.show(Part::SshUser).unwrap().starts_with("ssh-ed25519 "));
        assert!(made.show(Part::X509).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(made.show(Part::Ledger).unwrap().starts_with("-----BEGIN PUBLIC KEY-----"));
        for (file, _) in FILES {
            assert_eq!(fs::metadata(keys.join(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn an_older_gateway_gets_the_ca_for_people_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let made = Keys::create(dir.path(), "gate", now()).unwrap();
        Keys::complete(dir.path(), "gate", now()).unwrap();
        assert_eq!(Keys::open(dir.path()).unwrap().people.certificate_pem(), made.people.certificate_pem());
        for file in ["people_ca.key", "people_ca.pem"] {
            fs::remove_file(dir.path().join(file)).unwrap();
        }
        Keys::complete(dir.path(), "gate", now()).unwrap();
        let again = Keys::open(dir.path()).unwrap();
        assert_eq!(again.x509.certificate_pem(), made.x509.certificate_pem());
        fs::remove_file(dir.path().join("x509_ca.key")).unwrap();
        Keys::complete(dir.path(), "gate", now()).unwrap();
        assert!(Keys::open(dir.path()).is_err(), "what targets trust is never made anew");
    }

    #[test]
    fn key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Keys::create(dir.path(), "gate", now()).unwrap();
        for (file, _) in FILES {
            let path = dir.path().join(file);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            let refused = Keys::open(dir.path()).unwrap_err().to_string();
            assert!(refused.contains(file) && refused.contains("chmod 600"), "{refused}");
            assert!(Keys::handed_over(dir.path()).is_ok(), "{file} has the mode of a credential of systemd's");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
            assert!(Keys::handed_over(dir.path()).unwrap_err().to_string().contains(file));
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    #[test]
    fn missing_or_damaged_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        Keys::create(dir.path(), "gate", now()).unwrap();
        for (file, _) in FILES {
            let path = dir.path().join(file);
            let whole = fs::read(&path).unwrap();
            fs::write(&path, "nonsense").unwrap();
            let damaged = Keys::open(dir.path()).unwrap_err().to_string();
            assert!(damaged.contains(file) && damaged.contains("damaged"), "{damaged}");
            fs::remove_file(&path).unwrap();
            let missing = Keys::open(dir.path()).unwrap_err().to_string();
            assert!(missing.contains(file) && missing.contains("tidegate init"), "{missing}");
            write_new(&path, &whole, false).unwrap();
        }
        Keys::open(dir.path()).unwrap();
    }
}
