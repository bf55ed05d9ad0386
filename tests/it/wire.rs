//! Raw PostgreSQL bytes at the gateway's door, for clients that do not behave.

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tidegate_tests::{World, config::PUBLIC_NAME};

/// SSLRequest (PostgreSQL chapter 55.7).
pub(crate) const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// A TCP connection to the PostgreSQL listener, with deadlines.
pub(crate) fn connect(world: &World) -> TcpStream {
    dial(world.gateway.postgres())
}

fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// All that comes until the other side closes.
pub(crate) fn read_to_close(stream: &mut impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return all,
            Ok(count) => all.extend_from_slice(&piece[..count]),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                panic!("the gateway did not hang up after {} bytes", all.len())
            }
            Err(_) => return all, // a reset is a close too
        }
    }
}

/// What trusts the gateway's own CA.
pub(crate) fn tls_config(world: &World) -> rustls::ClientConfig {
    trusting(&world.client_file("ca.pem"))
}

fn trusting(ca: &Path) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_root_certificates(roots).with_no_client_auth()
}

/// A connection that has done SSLRequest and TLS.
pub(crate) fn tls(world: &World) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    over(after_request(connect(world)), tls_config(world), PUBLIC_NAME)
}

/// The same to the target itself, past the gate.
pub(crate) fn tls_to_target(world: &World) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    let stream = dial(SocketAddr::from(([127, 0, 0, 1], world.pg().port())));
    over(after_request(stream), trusting(&world.pg().tls_ca()), "localhost")
}

fn after_request(mut stream: TcpStream) -> TcpStream {
    stream.write_all(&SSL_REQUEST).unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"S");
    stream
}

/// A connection that begins with TLS, unasked, and names these protocols (ALPN).
pub(crate) fn direct_tls(world: &World, alpn: &[&[u8]]) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    let mut config = tls_config(world);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    over(connect(world), config, PUBLIC_NAME)
}

/// TLS with a server of this name.
pub(crate) fn over(
    stream: TcpStream,
    config: rustls::ClientConfig,
    name: &'static str,
) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    let name = ServerName::try_from(name).unwrap();
    let client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    rustls::StreamOwned::new(client, stream)
}

/// A start-up packet of protocol 3.0 with these settings.
pub(crate) fn startup(settings: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut body = vec![0, 3, 0, 0];
    for (name, value) in settings {
        body.extend_from_slice(name);
        body.push(0);
        body.extend_from_slice(value);
        body.push(0);
    }
    body.push(0);
    sized(&body)
}

/// The body behind its length, which counts itself.
pub(crate) fn sized(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&length.to_be_bytes(), body].concat()
}
