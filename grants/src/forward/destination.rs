//! Where a forwarding goes, as its client wrote it: one strict grammar for host names, addresses and socket paths.
//!
//! What always holds: a text has one meaning or none. A resolver and a firewall that read `0177.0.0.1`, `2130706433`,
//! `127.1` or `fe80::1%eth0` differently are how policies are walked around, so every odd spelling is refused; names
//! are compared in lower case, addresses as addresses (an IPv4-mapped IPv6 address is the IPv4 address).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A text that is no destination. It never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoDestination {
    /// Neither a host name nor an address.
    #[error(
        "is no host: write a name (letters, digits, - and dots; no dot at the end), an IPv4 address like 10.0.0.7 or an IPv6 address like fd00::7"
    )]
    Host,
    /// A number that some programs read as an address.
    #[error("is an odd spelling of an address: write it as four decimal numbers, like 10.0.0.7")]
    OddAddress,
    /// RFC 6761 section 6.3 says that these are loopback, and not every resolver does.
    #[error("ends in .localhost: write localhost")]
    UnderLocalhost,
    /// Zero, or past 65535.
    #[error("has no port from 1 to 65535")]
    Port,
    /// Not absolute, not normal, or too long.
    #[error(
        "is no socket path: write an absolute path of up to 107 printable characters, without spaces, empty parts, . and .."
    )]
    Path,
}

/// A name that has to be resolved: labels of letters, digits and hyphens (RFC 1123 section 2.1), in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

impl HostName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A host as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// `localhost`: the target's own loopback.
    Localhost,
    /// An address, in its plain form.
    Address(IpAddr),
    /// Any other name.
    Name(HostName),
}

/// RFC 1035 section 2.3.4.
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

impl FromStr for Host {
    type Err = NoDestination;

    fn from_str(text: &str) -> Result<Self, NoDestination> {
        if text.is_empty() || text.len() > LONGEST_NAME || !text.is_ascii() {
            return Err(NoDestination::Host);
        }
        if text.contains(':') {
            // The standard parser knows no zone (`%eth0`).
            let address: Ipv6Addr = text.parse().map_err(|_| NoDestination::Host)?;
            return Ok(Self::Address(IpAddr::V6(address).to_canonical()));
        }
        let name = text.to_ascii_lowercase();
        if numeric(name.trim_end_matches('.').rsplit('.').next().unwrap_or_default()) {
            // The standard parser takes four decimal numbers without leading zeros, and nothing else.
            let address: Ipv4Addr = text.parse().map_err(|_| NoDestination::OddAddress)?;
            return Ok(Self::Address(IpAddr::V4(address)));
        }
        if !name.split('.').all(is_label) {
            return Err(NoDestination::Host);
        }
        match name.as_str() {
            "localhost" => Ok(Self::Localhost),
            under if under.ends_with(".localhost") => Err(NoDestination::UnderLocalhost),
            _ => Ok(Self::Name(HostName(name))),
        }
    }
}

/// A last label that is a number, decimal or hexadecimal, makes a host an address for some programs (URL Standard, "ends
/// in a number").
fn numeric(label: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    digits(label) && !label.is_empty() || label.strip_prefix("0x").is_some_and(hex)
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= LONGEST_LABEL
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Localhost => f.write_str("localhost"),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Name(name) => f.write_str(&name.0),
        }
    }
}

/// The path of a Unix socket on the target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketPath(String);

/// `sun_path` is 108 bytes, the last one a zero (unix(7)).
const LONGEST_PATH: usize = 107;

impl SocketPath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SocketPath {
    type Err = NoDestination;

    fn from_str(text: &str) -> Result<Self, NoDestination> {
        let parts = text.strip_prefix('/').ok_or(NoDestination::Path)?;
        let normal = parts.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if text.len() > LONGEST_PATH || !normal || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(NoDestination::Path);
        }
        Ok(Self(text.to_owned()))
    }
}

/// Where one forwarding goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// A TCP port (RFC 4254 section 7.2, `direct-tcpip`).
    Tcp {
        /// On which host.
        host: Host,
        /// Not zero.
        port: u16,
    },
    /// A Unix socket (OpenSSH `PROTOCOL` section 2.4, `direct-streamlocal@openssh.com`).
    Socket(SocketPath),
}

impl Destination {
    /// As a client asks for it.
    ///
    /// # Errors
    /// [`NoDestination`] for anything that could be read in more than one way.
    pub fn tcp(host: &str, port: u32) -> Result<Self, NoDestination> {
        let port = u16::try_from(port).ok().filter(|port| *port != 0).ok_or(NoDestination::Port)?;
        Ok(Self::Tcp { host: host.parse()?, port })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Socket(path) => write!(f, "unix:{}", path.0),
        }
    }
}
