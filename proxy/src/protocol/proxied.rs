//! The PROXY protocol, version 2, binary: where a connection really comes from, as a load balancer before the gate says
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, section 2.2).
//!
//! What always holds: it is believed only of sources that the configuration names, and from those it must come, first of all;
//! no byte behind it is read here. Version 1, which is text, is not taken.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};
use tokio::io::{AsyncRead, AsyncReadExt as _};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Addresses and additions beyond this are nothing that we know.
const LONGEST: u16 = 536;

/// Why a header is not believed.
#[derive(Debug, thiserror::Error)]
pub enum NoHeader {
    /// Something else came first.
    #[error("it did not begin with a PROXY header, version 2")]
    Missing,
    /// It is one, and says something that we do not take.
    #[error("its PROXY header {0}")]
    Wrong(&'static str),
    /// They hung up.
    #[error("it hung up: {0}")]
    Gone(#[from] io::Error),
}

/// Reads the header and not a byte more. `None`: the balancer speaks for itself (a check of ours whether we are up).
///
/// # Errors
/// [`NoHeader`]; nothing that follows may be read then.
pub async fn read<R: AsyncRead + Unpin>(from: &mut R) -> Result<Option<SocketAddr>, NoHeader> {
    // Byte by byte as far as the signature goes: whoever speaks something else need not send as many.
    for expected in SIGNATURE {
        if from.read_u8().await? != expected {
            return Err(NoHeader::Missing);
        }
    }
    let mut rest = [0; 4];
    from.read_exact(&mut rest).await?;
    let [version, family, high, low] = rest;
    let length = u16::from_be_bytes([high, low]);
    if length > LONGEST {
        return Err(NoHeader::Wrong("is too long"));
    }
    let mut body = vec![0; usize::from(length)];
    from.read_exact(&mut body).await?;
    parse(version, family, &body)
}

fn parse(version: u8, family: u8, body: &[u8]) -> Result<Option<SocketAddr>, NoHeader> {
    match version {
        0x20 => return Ok(None), // LOCAL
        0x21 => {}
        _ => return Err(NoHeader::Wrong("has another version or command")),
    }
    let whole = match family {
        0x11 => 12,
        0x21 => 36,
        _ => return Err(NoHeader::Wrong("names no TCP connection")),
    };
    let short = || NoHeader::Wrong("is too short");
    let body = body.get(..whole).ok_or_else(short)?;
    let port = |at: usize| body.get(at..at + 2).and_then(|port| port.try_into().ok()).map(u16::from_be_bytes);
    // Source, destination, and the source's port behind them.
    let half = (whole - 4) / 2;
    let address = match body.get(..half) {
        Some(&[a, b, c, d]) => IpAddr::from([a, b, c, d]),
        Some(bytes) => IpAddr::from(<[u8; 16]>::try_from(bytes).map_err(|_| short())?),
        None => return Err(short()),
    };
    Ok(Some((address, port(2 * half).ok_or_else(short)?).into()))
}

/// Addresses that belong together: `10.0.0.0/8`, `192.0.2.7`, `fd00::/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    prefix: u32,
}

fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    }
}

impl Network {
    /// Whether this address is of it. (An IPv4 address in IPv6's clothes is an IPv4 address.)
    pub fn has(&self, address: IpAddr) -> bool {
        let ((address, width), (first, of)) = (bits(address.to_canonical()), bits(self.first));
        width == of && (address ^ first).checked_shr(width - self.prefix).unwrap_or(0) == 0
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "is neither an address nor a network like 10.0.0.0/8";
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let first: IpAddr = address.parse().map_err(|_| WRONG)?;
        let (value, width) = bits(first);
        let prefix = match prefix {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().map_err(|_| WRONG)?,
            Some(_) => return Err(WRONG),
            None => width,
        };
        if prefix > width {
            return Err(WRONG);
        }
        if prefix == 0 {
            return Err("is every address: anybody could say where they come from");
        }
        let host = (1u128 << (width - prefix)) - 1; // 127 bits at most
        if value & host != 0 { Err("has bits behind its prefix") } else { Ok(Self { first, prefix }) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(version: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[version, family], &length, body].concat()
    }

    fn told(bytes: &[u8]) -> (Result<Option<SocketAddr>, String>, usize) {
        let mut from = bytes;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let told = runtime.block_on(read(&mut from)).map_err(|error| error.to_string());
        (told, from.len())
    }

    #[test]
    fn the_source_is_read_and_not_a_byte_behind_it() {
        let v4 = header(0x21, 0x11, &[192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0x08, 0xae]);
        let (source, left) = told(&[&v4[..], b"SSH-2.0-x"].concat());
        assert_eq!((source.unwrap().unwrap().to_string().as_str(), left), ("192.0.2.7:12345", 9));
        let mut body = vec![0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        body.extend([0; 16]);
        body.extend([1, 0, 2, 0, 3, 0, 1, 9]); // two ports, and an addition of a type that nobody knows
        let (source, _) = told(&header(0x21, 0x21, &body));
        assert_eq!(source.unwrap().unwrap().to_string(), "[2001:db8::9]:256");
        assert_eq!(told(&header(0x20, 0, &[])).0, Ok(None));
    }

    #[test]
    fn anything_else_is_refused() {
        for wrong in [
            header(0x11, 0x11, &[0; 12]),
            header(0x22, 0x11, &[0; 12]),
            header(0x21, 0x31, &[0; 216]),
            header(0x21, 0x00, &[]),
            header(0x21, 0x11, &[0; 11]),
            header(0x21, 0x21, &[0; 34]),
            header(0x21, 0x11, &[0; 537]),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(),
            b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
            b"\r\n\r\n\0\r\nQUIT".to_vec(),
            Vec::new(),
        ] {
            assert!(told(&wrong).0.is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn networks_have_their_addresses_and_no_others() {
        let network = |text: &str| text.parse::<Network>();
        let has = |text: &str, address: &str| network(text).unwrap().has(address.parse().unwrap());
        assert!(has("10.0.0.0/8", "10.255.0.1") && has("10.0.0.0/8", "::ffff:10.1.2.3") && has("10.0.0.7", "10.0.0.7"));
        assert!(has("fd00::/8", "fdff::1") && has("::1", "::1"));
        assert!(!has("10.0.0.0/8", "11.0.0.1") && !has("10.0.0.7", "10.0.0.8") && !has("fd00::/8", "10.0.0.1"));
        for wrong in
            ["", "10.0.0.0/33", "10.0.0.1/8", "0.0.0.0/0", "::/0", "ten", "10.0.0.0/+8", "::1/129", "10.0.0.0/"]
        {
            assert!(network(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600), proper: bool) {
            let bytes = if proper { [&SIGNATURE[..], &bytes].concat() } else { bytes };
            let _ = told(&bytes);
        }
    }
}
