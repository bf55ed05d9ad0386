//! How a target proves that it is itself, and what becomes of one that does not, or that means harm.

use russh::{
    ChannelOpenFailure, Preferred, cipher, kex,
    keys::{Algorithm, PrivateKey},
    server,
};
use ssh_key::{getrandom::SysRng, rand_core::UnwrapErr};
use std::{
    borrow::Cow,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};
use tidegate_tests::{World, running::run, secs, sshd::keygen, world::Plan};

/// Signs the host key of `web-1` as its owner's host authority would, and has sshd show the certificate.
fn certify_host(world: &mut World, authority: &str, args: &[&str]) {
    let etc = world.sshd().etc();
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-s"]).arg(world.client_file(authority)).args(["-I", "web-1", "-h"]).args(args);
    command.arg(etc.join("host_key.pub"));
    run(command, secs(20)).ok();
    if !fs::read_to_string(etc.join("sshd_config")).unwrap().contains("HostCertificate") {
        world.sshd().configure_first("HostCertificate /etc/ssh/host_key-cert.pub");
    }
    world.sshd_mut().restart();
}

#[test]
fn a_host_certificate_proves_a_target_and_nothing_less_does() {
    let mut world = World::ssh_only();
    keygen(&world.client_file("host_ca"));
    keygen(&world.client_file("other_ca"));
    let key = world.sshd().host_key().to_owned();
    let authority = fs::read_to_string(world.client_file("host_ca.pub")).unwrap();
    world.config.change(&format!("host_key = \"{key}\""), &format!("host_ca = [{:?}]", authority.trim()));
    world.restart_gateway();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.exec("alice", "true").exited(1).says("did not prove"); // a plain key, the right one even
    let table: [(&str, &[&str], &str); 6] = [
        ("host_ca", &["-n", "127.0.0.1"], ""),
        ("host_ca", &["-n", "web-1.example.com"], "not for 127.0.0.1"),
        ("host_ca", &[], "no name"),
        ("host_ca", &["-n", "127.0.0.1", "-V", "-2h:-1h"], "valid until"),
        ("host_ca", &["-n", "127.0.0.1", "-V", "+1h:+2h"], "not valid before"),
        ("other_ca", &["-n", "127.0.0.1"], "not in the configuration"),
    ];
    for (nth, (authority, args, fault)) in table.into_iter().enumerate() {
        certify_host(&mut world, authority, args);
        if fault.is_empty() {
            world.exec("alice", "true").ok();
            continue;
        }
        world.exec("alice", "true").exited(1).says("did not prove");
        let ledger = world.gateway.until_ledger("target.refused", nth + 1, secs(20));
        let why = ledger.last("target.refused").unwrap()["detail"]["why"].to_string();
        assert!(why.contains(fault), "{args:?}: {why}");
    }
    certify_host(&mut world, "host_ca", &["-n", "web-1.example.com"]);
    world.config.change("host_ca = ", "host_name = \"web-1.example.com\"\nhost_ca = ");
    world.restart_gateway();
    world.exec("alice", "true").ok();
}

#[test]
fn a_host_key_can_be_changed_without_a_gap() {
    let mut world = World::ssh_only();
    let key = world.sshd().host_key().to_owned();
    let (old, new) = (world.sshd().etc().join("host_key"), world.client_file("new_host_key"));
    keygen(&new);
    let public = fs::read_to_string(new.with_extension("pub")).unwrap();
    world.config.change(&format!("host_key = \"{key}\""), &format!("host_key = [\"{key}\", {:?}]", public.trim()));
    world.restart_gateway();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.exec("alice", "true").ok();
    fs::copy(&new, &old).unwrap();
    world.sshd_mut().restart();
    world.exec("alice", "true").ok();
}

/// A target that is not a real one, on a port of its own; `talk` has each connection.
fn hostile(talk: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let talk = Arc::new(talk);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let talk = talk.clone();
            thread::spawn(move || talk(stream));
        }
    });
    port
}

/// Points the gateway's `web-1` at this port.
pub(crate) fn move_target(world: &mut World, port: u16) {
    let before = format!("127.0.0.1:{}", world.sshd().port());
    let text = world.config.text();
    let now = text.split("address = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or(&before).to_owned();
    world.config.change(&now, &format!("127.0.0.1:{port}"));
    world.restart_gateway();
}

#[test]
fn targets_that_break_the_handshake_are_given_up_with_a_clear_sentence() {
    type Talk = fn(TcpStream);
    let talks: [(&str, Talk); 6] = [
        ("garbage", |mut stream| {
            let _ = stream.write_all(&[0xff; 4096]);
            let _ = stream.read(&mut [0; 64]);
        }),
        ("an endless banner", |mut stream| while stream.write_all(&[b'x'; 1 << 16]).is_ok() {}),
        ("endless lines before the banner", |mut stream| while stream.write_all(b"hello\r\n").is_ok() {}),
        ("a close after the banner", |mut stream| drop(stream.write_all(b"SSH-2.0-x\r\n"))),
        ("a huge packet", |mut stream| {
            let _ = stream.write_all(b"SSH-2.0-x\r\n\xff\xff\xff\xff");
            let _ = stream.read_to_end(&mut Vec::new());
        }),
        ("silence", |mut stream| drop(stream.read_to_end(&mut Vec::new()))),
    ];
    let mut world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    for (nth, (name, talk)) in talks.into_iter().enumerate() {
        move_target(&mut world, hostile(talk));
        let output = world.exec("alice", "true").exited(1).says("web-1 cannot be reached");
        assert!(!output.err().contains("panic") && !output.err().contains("127.0.0.1:"), "{name}: {}", output.err());
        let ledger = world.gateway.until_ledger("target.refused", nth + 1, secs(20));
        assert!(ledger.last("target.refused").unwrap()["detail"]["why"].is_string(), "{name}");
        world.gateway.assert_alive();
    }
    world.gateway.until_no_lease(secs(90));
    assert!(world.gateway.vm_hwm() < 200 << 10, "{} KiB", world.gateway.vm_hwm());
    world.gateway.verify_ledger().ok();
}

#[test]
fn weak_algorithms_are_refused_and_nothing_is_shown_to_them() {
    let table = [
        ("KexAlgorithms diffie-hellman-group14-sha1", "did not accept the session"),
        ("KexAlgorithms diffie-hellman-group1-sha1", "did not accept the session"),
        ("Ciphers aes128-cbc,3des-cbc", "did not accept the session"),
        ("MACs hmac-sha1\nCiphers aes256-ctr", "did not accept the session"),
        ("HostKeyAlgorithms ssh-rsa\nHostKey /etc/ssh/rsa_key", "did not prove"),
    ];
    let mut world = World::ssh_only();
    let mut rsa = Command::new("ssh-keygen");
    rsa.args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f"]).arg(world.sshd().etc().join("rsa_key"));
    run(rsa, secs(60)).ok();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let config = world.sshd().etc().join("sshd_config");
    let sound = fs::read_to_string(&config).unwrap();
    for (lines, said) in table {
        if lines.contains("rsa_key") {
            // The host has the RSA key that is pinned, and would sign with SHA-1 alone.
            let public = fs::read_to_string(world.sshd().etc().join("rsa_key.pub")).unwrap();
            let public = public.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
            let key = world.sshd().host_key().to_owned();
            world.config.change(&key, &public);
            world.restart_gateway();
        }
        fs::write(&config, &sound).unwrap();
        world.sshd().configure_first(lines);
        world.sshd_mut().restart();
        world.exec("alice", "true").exited(1).says(said);
    }
    assert!(!world.sshd().log().contains("Accepted"), "{}", world.sshd().log());
    let ledger = world.gateway.until_ledger("target.refused", table.len(), secs(20));
    assert!(ledger.last("target.refused").unwrap()["detail"]["why"].as_str().unwrap().contains("ssh-rsa"));
    world.gateway.until_no_lease(secs(90));
}

/// What a hostile server saw of us.
#[derive(Debug, Default)]
struct Seen {
    authenticated: bool,
    opened: Vec<&'static str>,
}

/// A server that lets anybody in, and then reaches for the gateway.
#[derive(Clone)]
struct Grabbing(Arc<Mutex<Seen>>);

impl server::Handler for Grabbing {
    type Error = russh::Error;

    async fn auth_openssh_certificate(
        &mut self,
        _: &str,
        _: &russh::keys::Certificate,
    ) -> Result<server::Auth, russh::Error> {
        self.0.lock().unwrap().authenticated = true;
        Ok(server::Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: russh::Channel<server::Msg>,
        reply: server::ChannelOpenHandle,
        session: &mut server::Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        let (handle, seen) = (session.handle(), self.0.clone());
        let id = channel.id();
        tokio::spawn(async move {
            let note = |name, opened: Result<_, russh::Error>| {
                let _: Option<russh::Channel<server::Msg>> = opened
                    .inspect_err(|error| {
                        let refused = russh::Error::ChannelOpenFailure(ChannelOpenFailure::AdministrativelyProhibited);
                        assert_eq!(format!("{error:?}"), format!("{refused:?}"), "{name}");
                    })
                    .inspect(|_| seen.lock().unwrap().opened.push(name))
                    .ok();
            };
            note("forwarded-tcpip", handle.channel_open_forwarded_tcpip("127.0.0.1", 22, "127.0.0.1", 1).await);
            note("x11", handle.channel_open_x11("127.0.0.1", 1).await);
            note("agent", handle.channel_open_agent().await);
            note("direct-tcpip", handle.channel_open_direct_tcpip("127.0.0.1", 22, "127.0.0.1", 1).await);
            note("session", handle.channel_open_session().await);
            let _ = handle.data(id, bytes::Bytes::from_static(b"done\n")).await;
            let _ = handle.exit_status_request(id, 0).await;
            let _ = handle.eof(id).await;
            let _ = handle.close(id).await;
        });
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: russh::ChannelId,
        _: &[u8],
        session: &mut server::Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)
    }
}

/// Runs such a server with this key and these algorithms; its port and what it saw.
fn grabbing(key: PrivateKey, preferred: Preferred) -> (u16, Arc<Mutex<Seen>>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    (serve(key, preferred, Grabbing(seen.clone())), seen)
}

/// A server of our own on a port of its own, until the test's process ends.
pub(crate) fn serve<H>(key: PrivateKey, preferred: Preferred, handler: H) -> u16
where
    H: server::Handler<Error = russh::Error> + Clone + Send + 'static,
{
    let (sender, receiver) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap().port()).unwrap();
            let config = Arc::new(server::Config {
                keys: vec![key],
                preferred,
                auth_rejection_time: Duration::ZERO,
                ..server::Config::default()
            });
            while let Ok((stream, _)) = listener.accept().await {
                let (config, handler) = (config.clone(), handler.clone());
                tokio::spawn(async move {
                    if let Ok(running) = server::run_stream(config, stream, handler).await {
                        let _ = running.await;
                    }
                });
            }
        });
    });
    receiver.recv().unwrap()
}

pub(crate) fn host_key() -> (PrivateKey, String) {
    let key = PrivateKey::random(&mut UnwrapErr(SysRng), Algorithm::Ed25519).unwrap();
    let line = key.public_key().to_openssh().unwrap();
    (key, line)
}

#[test]
fn a_target_that_opens_channels_towards_the_gateway_gets_none() {
    let (key, line) = host_key();
    let (port, seen) = grabbing(key, Preferred::DEFAULT);
    let mut world = Plan::new().only_ssh().start();
    let pinned = world.sshd().host_key().to_owned();
    world.config.change(&pinned, line.trim());
    move_target(&mut world, port);
    world.gateway.grant("alice", "web-1", "shell", "30m");
    assert_eq!(world.exec("alice", "true").ok().out(), "done");
    let seen = seen.lock().unwrap();
    assert!(seen.authenticated && seen.opened.is_empty(), "{seen:?}");
}

#[test]
fn chacha20_without_strict_key_exchange_is_refused_before_the_certificate_is_shown() {
    let (key, line) = host_key();
    let preferred = Preferred {
        kex: Cow::Borrowed(&[kex::CURVE25519]),
        cipher: Cow::Borrowed(&[cipher::CHACHA20_POLY1305]),
        ..Preferred::DEFAULT
    };
    let (port, seen) = grabbing(key, preferred);
    let mut world = Plan::new().only_ssh().start();
    let pinned = world.sshd().host_key().to_owned();
    world.config.change(&pinned, line.trim());
    move_target(&mut world, port);
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.exec("alice", "true").exited(1).says("did not accept the session");
    world.gateway.until_ledger("target.refused", 1, secs(20));
    assert!(!seen.lock().unwrap().authenticated);
}
