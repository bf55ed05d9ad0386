//! `ssh-keygen` is the oracle: it writes the lists, and its `-Q` says what is revoked.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::*;
use proptest::prelude::*;
use ssh_key::Certificate;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn keygen(args: &[&str], files: &[&Path]) -> bool {
    let mut command = Command::new("ssh-keygen");
    command.args(args).args(files).output().unwrap().status.success()
}

fn made(folder: &Path, name: &str) -> PathBuf {
    let file = folder.join(name);
    assert!(keygen(&["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"], &[&file]));
    file
}

fn public(file: &Path) -> PathBuf {
    file.with_extension("pub")
}

/// A certificate of this authority for a key of its own.
fn certified(folder: &Path, authority: &Path, name: &str, serial: u64) -> PathBuf {
    let key = made(folder, name);
    let (ca, serial) = (authority.to_str().unwrap(), serial.to_string());
    assert!(keygen(&["-q", "-s", ca, "-I", name, "-n", "alice", "-z", &serial], &[&public(&key)]));
    folder.join(format!("{name}-cert.pub"))
}

fn certificate(file: &Path) -> Certificate {
    Certificate::from_openssh(&fs::read_to_string(file).unwrap()).unwrap()
}

/// What `ssh-keygen -Q` says.
fn oracle(krl: &Path, file: &Path) -> bool {
    let output = Command::new("ssh-keygen").arg("-Qf").args([krl, file]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // At its end: the file's own name may have either word in it.
    match (said.trim_end().ends_with(": REVOKED"), said.trim_end().ends_with(": ok")) {
        (true, false) => true,
        (false, true) => false,
        _ => panic!("{said}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

struct Pki {
    folder: tempfile::TempDir,
    authorities: [PathBuf; 2],
    /// Of both authorities, with these serials.
    certificates: Vec<PathBuf>,
}

const SERIALS: [u64; 8] = [0, 1, 2, 5, 63, 64, 1000, u64::MAX];

fn pki() -> Pki {
    let folder = tempfile::tempdir().unwrap();
    let authorities = ["ca1", "ca2"].map(|name| made(folder.path(), name));
    let mut certificates = Vec::new();
    for (nth, authority) in authorities.iter().enumerate() {
        for serial in SERIALS {
            certificates.push(certified(folder.path(), authority, &format!("c{nth}-{serial}"), serial));
        }
    }
    Pki { folder, authorities, certificates }
}

impl Pki {
    /// The KRL that `ssh-keygen` writes from this; of the first authority's certificates, or of any.
    fn krl(&self, spec: &str, of_first: bool) -> PathBuf {
        let (source, krl) = (self.folder.path().join("spec"), self.folder.path().join("krl"));
        fs::write(&source, spec).unwrap();
        let authority = public(&self.authorities[0]);
        let authority = if of_first { authority.to_str().unwrap() } else { "none" };
        let args = ["-q", "-kf", krl.to_str().unwrap(), "-s", authority];
        assert!(keygen(&args, &[&source]), "{spec}");
        krl
    }

    fn assert_as_the_oracle_says(&self, krl: &Path) -> usize {
        let revoked = Revoked::parse(&fs::read(krl).unwrap()).unwrap();
        let mut count = 0;
        for file in &self.certificates {
            let ours = revoked.has_certificate(&certificate(file));
            assert_eq!(ours, oracle(krl, file), "{}", file.display());
            count += usize::from(ours);
        }
        count
    }
}

#[test]
fn every_kind_of_entry_revokes_what_ssh_keygen_says_that_it_does() {
    let pki = pki();
    let text = |file: &Path| fs::read_to_string(file).unwrap();
    let (one, two) = (&pki.certificates[3], &pki.certificates[12]);
    let key = |certificate: &Path| {
        let name = certificate.file_name().unwrap().to_str().unwrap().replace("-cert.pub", ".pub");
        text(&certificate.with_file_name(name))
    };
    let sha256 = certificate(one).public_key().fingerprint(HashAlg::Sha256);
    let table = [
        ("serial: 5\n".to_owned(), true, 1),
        ("serial: 1\nserial: 5\nserial: 1000\n".to_owned(), true, 3),
        ("serial: 1-64\n".to_owned(), true, 5),
        ("serial: 18446744073709551615\n".to_owned(), true, 1),
        ("serial: 60\nserial: 62\nserial: 63\nserial: 64\nserial: 66\nserial: 70\n".to_owned(), true, 2),
        ("serial: 5\n".to_owned(), false, 2),
        ("id: c0-5\nid: c1-64\n".to_owned(), true, 1),
        ("id: c0-5\nid: c1-64\n".to_owned(), false, 2),
        (format!("key: {}", key(one)), false, 1),
        (format!("sha1: {}", key(two)), false, 1),
        (format!("sha256: {}", key(two)), false, 1),
        (format!("hash: {sha256}\n"), false, 1),
        (format!("key: {}", text(&public(&pki.authorities[1]))), false, 8),
        (format!("sha256: {}", text(&public(&pki.authorities[0]))), false, 8),
        (text(one), false, 1),
        (String::new(), false, 0),
    ];
    for (spec, of_first, expected) in table {
        // Without an authority only those of wildcard KRLs can be numbered.
        let krl = pki.krl(&spec, of_first);
        assert_eq!(pki.assert_as_the_oracle_says(&krl), expected, "{spec}");
    }
}

#[test]
fn a_plain_list_revokes_its_keys_and_what_they_signed() {
    let pki = pki();
    let text = |file: &Path| fs::read_to_string(file).unwrap();
    let list =
        format!("# stolen\n\n{}  {}", text(&public(&pki.authorities[0])), text(&pki.folder.path().join("c1-5.pub")));
    let revoked = Revoked::parse(list.as_bytes()).unwrap();
    let count = pki.certificates.iter().filter(|file| revoked.has_certificate(&certificate(file))).count();
    assert_eq!(count, 9);
    assert!(revoked.has_key(PublicKey::from_openssh(&text(&pki.folder.path().join("c1-5.pub"))).unwrap().key_data()));
    assert!(!revoked.has_key(PublicKey::from_openssh(&text(&pki.folder.path().join("c1-2.pub"))).unwrap().key_data()));
}

#[test]
fn a_list_that_is_not_understood_whole_is_an_error() {
    let pki = pki();
    let whole = fs::read(pki.krl("serial: 1-64\nserial: 900\nid: x\n", true)).unwrap();
    let header = 8 + 4 + 3 * 8 + 4 + 4;
    for cut in 1..whole.len() {
        let verdict = Revoked::parse(whole.get(..cut).unwrap());
        assert!(verdict.is_err() || cut == header, "cut at {cut}: {verdict:?}");
    }
    for garbage in ["ssh-ed25519 AAAA\n", "revoke everything\n", "\u{0}", "-----BEGIN OPENSSH PRIVATE KEY-----\n"] {
        assert_eq!(Revoked::parse(garbage.as_bytes()).unwrap_err(), RevokedError::Line(1), "{garbage:?}");
    }
    let certificate = fs::read(&pki.certificates[0]).unwrap();
    assert_eq!(Revoked::parse(&certificate).unwrap_err(), RevokedError::Line(1));
    // An unknown section, a signature, a critical extension.
    let extension = [&[255_u8, 0, 0, 0, 10][..], &[0, 0, 0, 1, b'x', 1, 0, 0, 0, 0]].concat();
    for tail in [vec![9_u8, 0, 0, 0, 0], vec![4, 0, 0, 0, 0], extension] {
        assert!(Revoked::parse(&[whole.clone(), tail.clone()].concat()).is_err(), "{tail:?}");
    }
    let harmless = [&[255_u8, 0, 0, 0, 10][..], &[0, 0, 0, 1, b'x', 0, 0, 0, 0, 0]].concat();
    assert!(Revoked::parse(&[whole, harmless].concat()).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Random lists of serials, which `ssh-keygen` packs into lists, ranges and bitmaps as it sees fit.
    #[test]
    fn random_serials_are_revoked_as_ssh_keygen_says(
        ranges in prop::collection::vec((1_u64..70, 0_u64..4), 1..20),
        far in prop::option::of(990_u64..1010),
    ) {
        let pki = shared();
        let line = |(from, more): &(u64, u64)| match more {
            0 => format!("serial: {from}\n"),
            more => format!("serial: {from}-{}\n", from + more),
        };
        let mut spec: String = ranges.iter().map(line).collect();
        if let Some(far) = far {
            spec.push_str(&format!("serial: {far}\n"));
        }
        let krl = pki.krl(&spec, true);
        let revoked = Revoked::parse(&fs::read(&krl).unwrap()).unwrap();
        for file in pki.certificates.iter().filter(|file| file.to_str().unwrap().contains("c0-")) {
            prop_assert_eq!(revoked.has_certificate(&certificate(file)), oracle(&krl, file), "{} {:?}", spec, file);
        }
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Revoked::parse(&bytes);
        let _ = Revoked::parse(&[MAGIC, &1_u32.to_be_bytes(), &[0; 32], &bytes].concat());
    }
}

/// Made once: nothing in it changes but the files `spec` and `krl`, which one test uses.
fn shared() -> &'static Pki {
    static SHARED: std::sync::OnceLock<Pki> = std::sync::OnceLock::new();
    SHARED.get_or_init(pki)
}
