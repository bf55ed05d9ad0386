//! Certificates of `ssh gate cert`: psql without a password.

use crate::wire;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};
use std::{
    fs,
    io::{Read, Write},
    path::PathBuf,
    process::Command,
    sync::Arc,
};
use tidegate_tests::{
    Running, World,
    config::PUBLIC_NAME,
    running::{Output, run},
    secs, wait_until,
    world::{PATIENCE, Plan},
};

pub(crate) const EC: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

fn openssl(arguments: &[&str]) {
    let mut command = Command::new("openssl");
    command.args(arguments);
    run(command, PATIENCE).ok();
}

/// A request and its key, made by openssl: `NAME.csr`, `NAME.key`.
fn request(world: &World, name: &str, key: &[&str]) -> Vec<u8> {
    let file = |extension: &str| world.dir().join(format!("{name}.{extension}")).display().to_string();
    let (csr, private) = (file("csr"), file("key"));
    let common = ["req", "-new", "-nodes", "-subj", "/CN=somebody else/O=x", "-keyout", &private, "-out", &csr];
    openssl(&[&common, key].concat());
    fs::read(csr).unwrap()
}

/// `ssh gate cert` with this on its stdin.
fn ask(world: &World, person: &str, request: &[u8]) -> Output {
    let mut ssh = world.ssh_start(person, person, &["cert"]);
    // One that is too long is refused before it is read to its end.
    let mut stdin = ssh.take_stdin();
    let _ = stdin.write_all(request);
    drop(stdin);
    ssh.end(PATIENCE)
}

/// A certificate for this person, in `NAME.crt` beside its key.
pub(crate) fn certified(world: &World, person: &str, key: &[&str]) {
    let output = ask(world, person, &request(world, person, key)).ok();
    assert!(output.err().contains("good until"), "{}", output.err());
    fs::write(world.dir().join(format!("{person}.crt")), output.stdout).unwrap();
}

/// psql as this user, with the certificate and key of this name, and this password.
fn psql(world: &World, user: &str, name: &str, password: &str, more: &str) -> Output {
    let file = |extension: &str| world.dir().join(format!("{name}.{extension}")).display().to_string();
    let conninfo = world.conninfo(user, "orders/shop");
    let conninfo = format!("{conninfo} sslcert={} sslkey={} {more}", file("crt"), file("key"));
    run(world.psql_command(&conninfo, password, &["-w", "-c", "select count(*) from items"]), PATIENCE)
}

#[test]
fn psql_logs_in_with_a_certificate_on_a_key_of_each_kind() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let kinds: [&[&str]; 4] = [
        EC,
        &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
        &["-newkey", "rsa:2048"],
        &["-newkey", "ed25519"],
    ];
    for (count, kind) in (1..).zip(kinds) {
        certified(&world, "alice", kind);
        assert_eq!(psql(&world, "alice", "alice", "", "").ok().out(), "100", "{kind:?}");
        let ledger = world.gateway.until_ledger("certificate.used", count, PATIENCE);
        let (issued, used) = (ledger.all("certificate.issued"), ledger.all("certificate.used"));
        assert_eq!(issued[count - 1]["detail"]["serial"], used[count - 1]["detail"]["serial"]);
        assert_eq!((&issued[count - 1]["identity"], &used[count - 1]["identity"]), (&"alice".into(), &"alice".into()));
    }
    assert_eq!(psql(&world, "alice~readonly@orders", "alice", "", "dbname=shop").ok().out(), "100");
    world.gateway.until_no_lease(PATIENCE);
    world.gateway.verify_ledger().ok();
}

#[test]
fn a_certificate_opens_nothing_without_a_grant() {
    let world = World::postgres_only();
    certified(&world, "alice", EC);
    psql(&world, "alice", "alice", "", "").exited(2).says("you hold no grant");
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
}

#[test]
fn a_certificate_is_good_for_its_own_identity_alone() {
    let mut world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    world.gateway.grant("bob", "orders", "readonly", "30m");
    certified(&world, "alice", EC);
    psql(&world, "bob", "alice", "", "").exited(2).says("this certificate is alice's, and the user named is bob");
    assert_eq!(psql(&world, "alice", "alice", "", "").ok().out(), "100");
    // The client has its say, as with PostgreSQL's own `cert`: nothing binds the channel.
    psql(&world, "alice", "alice", "", "channel_binding=require").exited(2).says("channel binding");
    world.gateway.until_ledger("door.refused", 1, PATIENCE);
    world.config.without("name = \"alice\"");
    world.gateway.configure(&world.config);
    world.gateway.terminate();
    world.gateway.start();
    psql(&world, "alice", "alice", "", "").exited(2).says("no longer in the gateway's configuration");
}

#[test]
fn a_certificate_that_has_ended_is_told_so() {
    let world = Plan::new().only_postgres().change("[postgres]\n", "[postgres]\npassword_window = \"1s\"\n").start();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    certified(&world, "alice", EC);
    let made = std::time::Instant::now();
    wait_until(PATIENCE, "it has ended", || (made.elapsed() > secs(2)).then_some(()));
    psql(&world, "alice", "alice", "", "").exited(2).says("your certificate expired at").says("ssh gate cert");
    let refused = world.gateway.until_ledger("door.refused", 1, PATIENCE);
    assert!(refused.one("door.refused")["detail"].to_string().contains("expired"), "{}", refused.story());
}

#[test]
fn requests_that_prove_nothing_or_are_too_weak_are_refused() {
    let world = World::postgres_only();
    let good = request(&world, "alice", EC);
    let mut forged = String::from_utf8(good.clone()).unwrap().into_bytes();
    let middle = forged.len() / 2;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    let cases: [(Vec<u8>, &str); 7] = [
        (request(&world, "weak", &["-newkey", "rsa:1024"]), "its key is of no kind that is certified here"),
        (request(&world, "p521", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"]), "its key is of no kind"),
        (request(&world, "sha1", &[EC, &["-sha1"]].concat()), "not signed with its own key by SHA-256"),
        (forged, "tidegate: "),
        (Vec::new(), "no certificate request"),
        (b"\x1b]0;x\x07 -----BEGIN CERTIFICATE REQUEST-----".to_vec(), "no certificate request"),
        ([&good[..], &vec![b'\n'; 1 << 20]].concat(), "no certificate request"),
    ];
    for (request, why) in cases {
        let output = ask(&world, "alice", &request).exited(1).says(why);
        assert!(output.out().is_empty() && !output.err().contains('\u{1b}'), "{:?}", output.err());
    }
    ask(&world, "alice", &good).ok();
    assert_eq!(world.gateway.ledger().count("certificate.issued"), 1);
}

/// `NAME.crt` over a new key for this subject, signed by the CA of these files. Of version 1, or 3.
fn signed_by(world: &World, name: &str, subject: &str, ca: &PathBuf, ca_key: &PathBuf, version_3: bool) {
    request(world, name, EC);
    let file = |extension: &str| world.dir().join(format!("{name}.{extension}")).display().to_string();
    fs::write(file("ext"), "extendedKeyUsage=clientAuth\nkeyUsage=digitalSignature\n").unwrap();
    let (csr, crt, ext) = (file("csr"), file("crt"), file("ext"));
    let mut command = Command::new("openssl");
    command.args(["x509", "-req", "-days", "1", "-in", &csr, "-out", &crt, "-set_serial", "77"]);
    command.arg("-CA").arg(ca).arg("-CAkey").arg(ca_key).arg("-subj").arg(subject);
    if version_3 {
        command.args(["-extfile", &ext]);
    }
    run(command, PATIENCE).ok();
}

#[test]
fn certificates_of_others_are_nobodys_and_stand_in_nobodys_way() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let keys = world.gateway.state().join("keys");
    let file = |name: &str| world.dir().join(name);
    let (foreign, foreign_key) = (file("foreign.pem"), file("foreign.key"));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-nodes", "-days", "1", "-subj", "/CN=gate people tidegate CA"]).args(EC);
    run(
        {
            command.arg("-keyout").arg(&foreign_key).arg("-out").arg(&foreign);
            command
        },
        PATIENCE,
    )
    .ok();
    signed_by(&world, "twin", "/CN=alice", &foreign, &foreign_key, true);
    signed_by(&world, "first", "/CN=alice", &foreign, &foreign_key, false);
    // The CA that targets trust makes nobody a person.
    signed_by(&world, "target", "/CN=alice", &keys.join("x509_ca.pem"), &keys.join("x509_ca.key"), true);
    let password = world.password("alice", "orders");
    for name in ["twin", "first", "target"] {
        let refused = psql(&world, "alice", name, "", "").exited(2);
        assert!(refused.err().contains("no password supplied"), "{name}: {}", refused.err());
        psql(&world, "alice", name, "wrong", "").exited(2).says("not accepted");
        assert_eq!(psql(&world, "alice", name, &password, "channel_binding=require").ok().out(), "100", "{name}");
    }
    assert_eq!(world.gateway.ledger().count("certificate.used"), 0);
}

#[test]
fn a_persons_certificate_is_nothing_to_a_target() {
    let world = World::postgres_only();
    let keys = world.gateway.state().join("keys");
    let (ca, key) = (keys.join("people_ca.pem"), keys.join("people_ca.key"));
    signed_by(&world, "admin", "/CN=tidegate", &ca, &key, true);
    let file = |extension: &str| world.dir().join(format!("admin.{extension}")).display().to_string();
    let direct = format!(
        "host=127.0.0.1 port={} user=tidegate dbname=postgres sslmode=require sslcert={} sslkey={}",
        world.pg().port(),
        file("crt"),
        file("key")
    );
    let refused = run(world.psql_command(&direct, "", &["-w", "-c", "select 1"]), PATIENCE).exited(2);
    assert!(refused.err().contains("unknown ca") || refused.err().contains("certificate"), "{}", refused.err());
    let shown = world.gateway.cli(&["ca", "show", "x509-people"]).ok().out();
    assert_eq!(shown.trim(), fs::read_to_string(ca).unwrap().trim());
    assert_ne!(shown, world.gateway.cli(&["ca", "show", "x509"]).ok().out());
}

/// What the door says to a client that shows alice's certificate and signs with another key.
fn with_another_key(world: &World) -> Vec<u8> {
    let certificate = CertificateDer::from_pem_file(world.dir().join("alice.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(world.dir().join("other.key")).unwrap();
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let identity = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
    let mut config = wire::tls_config(world);
    config.client_auth_cert_resolver = Arc::new(identity);
    let mut stream = wire::connect(world);
    stream.write_all(&wire::SSL_REQUEST).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    let name = ServerName::try_from(PUBLIC_NAME).unwrap();
    let client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut tls = rustls::StreamOwned::new(client, stream);
    let _ = tls.write_all(&wire::startup(&[(b"user", b"alice"), (b"database", b"orders/shop")]));
    wire::read_to_close(&mut tls)
}

#[test]
fn a_certificate_without_its_key_is_worth_nothing() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    certified(&world, "alice", EC);
    request(&world, "other", EC);
    assert_eq!(with_another_key(&world), b"", "the handshake fails before a word");
    let ledger = world.gateway.until_ledger("door.refused", 1, PATIENCE);
    assert!(ledger.one("door.refused")["detail"].to_string().contains("TLS"), "{}", ledger.story());
    assert_eq!(ledger.count("session.opened"), 0);
    assert_eq!(psql(&world, "alice", "alice", "", "").ok().out(), "100");
}

#[test]
fn a_gateway_from_before_there_were_certificates_gets_what_it_needs() {
    let mut world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    world.gateway.terminate();
    for file in ["people_ca.key", "people_ca.pem"] {
        fs::remove_file(world.gateway.state().join("keys").join(file)).unwrap();
    }
    world.gateway.start();
    certified(&world, "alice", EC);
    psql(&world, "alice", "alice", "", "").ok();
}

#[test]
fn a_gateway_without_postgresql_makes_no_certificates() {
    let world = Plan::new().only_ssh().change("[postgres]\nlisten = \"127.0.0.1:0\"\n", "").start();
    let mut ssh: Running = world.ssh_start("alice", "alice", &["cert"]);
    ssh.close_stdin();
    ssh.end(PATIENCE).exited(1).says("does not listen for PostgreSQL");
}
