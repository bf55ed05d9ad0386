#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use proptest::prelude::*;
use russh::keys::{
    Algorithm, PrivateKey,
    ssh_key::{certificate::Builder, getrandom::SysRng, rand_core::UnwrapErr},
};
use std::collections::{BTreeMap, BTreeSet};

const NOW: i64 = 1_800_000_000;

fn key() -> PrivateKey {
    PrivateKey::random(&mut UnwrapErr(SysRng), Algorithm::Ed25519).unwrap()
}

fn policy() -> Policy {
    let person = |name: &str| {
        let name: IdentityName = name.parse().unwrap();
        let identity = Identity { name: name.clone(), groups: BTreeSet::new(), ssh_keys: Vec::new(), unix_user: None };
        (name, identity)
    };
    Policy {
        gateway: "gate".to_owned(),
        node: "a".to_owned(),
        config: String::new(),
        identities: ["alice", "bob"].map(person).into(),
        targets: BTreeMap::new(),
        entitlements: BTreeMap::new(),
        issuers: BTreeMap::new(),
        admins: BTreeSet::new(),
        auditors: BTreeSet::new(),
        scoped_auditors: Vec::new(),
        limits: tidegate_grants::SessionLimits::default(),
    }
}

struct Spec {
    kind: CertType,
    principals: &'static [&'static str],
    options: &'static [(&'static str, &'static str)],
    extensions: &'static [&'static str],
}

const ALICE: Spec = Spec { kind: CertType::User, principals: &["alice"], options: &[], extensions: &[] };

fn signed(authority: &PrivateKey, spec: &Spec) -> Certificate {
    let (from, until) = (NOW.unsigned_abs() - 60, NOW.unsigned_abs() + 60);
    let mut builder = Builder::new_with_random_nonce(&mut UnwrapErr(SysRng), key().public_key(), from, until).unwrap();
    builder.cert_type(spec.kind).unwrap();
    for principal in spec.principals {
        builder.valid_principal(*principal).unwrap();
    }
    if spec.principals.is_empty() {
        builder.all_principals_valid().unwrap();
    }
    for (option, value) in spec.options {
        builder.critical_option(*option, *value).unwrap();
    }
    for extension in spec.extensions {
        builder.extension(*extension, "").unwrap();
    }
    builder.sign(authority).unwrap()
}

fn asked(certificate: &Certificate, authority: &PrivateKey, source: &str, second: i64) -> Result<String, NotAdmitted> {
    let (policy, now) = (policy(), Timestamp::from_second(second).unwrap());
    let (source, authorities) = (source.parse().unwrap(), [authority.public_key().clone()]);
    identity_of_certificate(&policy, certificate, &authorities, &Revoked::default(), source, now)
        .map(|identity| identity.name.to_string())
}

#[test]
fn exactly_one_principal_is_a_user_and_nothing_critical_is_left_open() {
    let authority = key();
    let table: [(Spec, &str); 15] = [
        (ALICE, "alice"),
        (Spec { extensions: &["permit-pty", "permit-port-forwarding", "no-touch-required"], ..ALICE }, "alice"),
        (Spec { principals: &["alice", "alice@example.com", "root", "ALICE"], ..ALICE }, "alice"),
        (Spec { principals: &["alice", "alice"], ..ALICE }, "alice"),
        (Spec { options: &[("source-address", "192.0.2.0/24")], ..ALICE }, "alice"),
        (Spec { principals: &[], ..ALICE }, "anybody"),
        (Spec { principals: &["root", "alice,bob", "alice ", "*"], ..ALICE }, "none of its principals"),
        (Spec { principals: &["alice", "bob"], ..ALICE }, "several users"),
        (Spec { kind: CertType::Host, ..ALICE }, "a host certificate"),
        (Spec { options: &[("source-address", "192.0.2.8,2001:db8::/32")], ..ALICE }, "may be used from"),
        (Spec { options: &[("source-address", "192.0.2.7/24")], ..ALICE }, "not a list"),
        (Spec { options: &[("source-address", "")], ..ALICE }, "not a list"),
        (Spec { options: &[("force-command", "/bin/true")], ..ALICE }, "force-command"),
        (Spec { options: &[("verify-required", "")], ..ALICE }, "verify-required"),
        (Spec { options: &[("x@example.com", "y")], ..ALICE }, "x@example.com"),
    ];
    for (spec, expected) in table {
        let certificate = signed(&authority, &spec);
        match asked(&certificate, &authority, "192.0.2.7", NOW) {
            Ok(name) => assert_eq!(name, expected, "{:?} {:?}", spec.principals, spec.options),
            Err(why) => assert!(why.to_string().contains(expected), "{:?} {:?}: {why}", spec.principals, spec.options),
        }
    }
}

#[test]
fn our_clock_our_authorities_and_the_list_decide() {
    let (authority, other) = (key(), key());
    let certificate = signed(&authority, &ALICE);
    assert!(matches!(asked(&certificate, &other, "192.0.2.7", NOW), Err(NotAdmitted::Unvouched(_))));
    assert!(matches!(asked(&certificate, &authority, "192.0.2.7", NOW + 60), Err(NotAdmitted::Unvouched(_))));
    assert!(matches!(asked(&certificate, &authority, "192.0.2.7", NOW - 61), Err(NotAdmitted::Unvouched(_))));
    let listed = PublicKey::from(certificate.public_key().clone()).to_openssh().unwrap();
    let revoked = Revoked::parse(listed.as_bytes()).unwrap();
    let (policy, now) = (policy(), Timestamp::from_second(NOW).unwrap());
    let authorities = [authority.public_key().clone()];
    let verdict =
        identity_of_certificate(&policy, &certificate, &authorities, &revoked, "192.0.2.7".parse().unwrap(), now);
    assert!(matches!(verdict, Err(NotAdmitted::Revoked)));
}

#[test]
fn networks_are_read_as_openssh_reads_them() {
    let fits = |list: &str, source: &str| check_source(list, source.parse().unwrap()).is_ok();
    assert!(
        fits("0.0.0.0/0", "203.0.113.9") && fits("::/0", "2001:db8::1") && fits("10.0.0.0/8,192.0.2.7", "192.0.2.7")
    );
    assert!(fits("192.0.2.7", "::ffff:192.0.2.7") && fits("2001:db8::/32", "2001:db8:ffff::1"));
    assert!(!fits("0.0.0.0/0", "2001:db8::1") && !fits("::/0", "192.0.2.7") && !fits("192.0.2.0/25", "192.0.2.128"));
    for wrong in
        ["10.0.0.0/33", "10.0.0.1/8", "::/129", "10.0.0.0/", "10.0.0.0/+8", "all", "10.0.0.0/8,", "!10.0.0.1", "*"]
    {
        assert!(!fits(wrong, "10.0.0.1"), "{wrong}");
    }
}

proptest! {
    #[test]
    fn an_address_is_within_its_own_networks_alone(address: u32, other: u32, prefix in 0_u32..=32) {
        let shift = |bits: u32| bits.checked_shr(32 - prefix).unwrap_or(0);
        let start = shift(address).checked_shl(32 - prefix).unwrap_or(0);
        let list = format!("{}/{prefix}", std::net::Ipv4Addr::from(start));
        let source = IpAddr::from(std::net::Ipv4Addr::from(other));
        prop_assert_eq!(check_source(&list, source).is_ok(), shift(address) == shift(other), "{} {}", list, source);
    }
}
