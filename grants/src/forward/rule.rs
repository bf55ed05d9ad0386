//! One rule, as it stands in the configuration: `localhost:8000-8999`, `[fd00::7]:443`, `unix:/run/app.sock`.

use super::{
    destination::{Host, NoDestination, SocketPath},
    hazard::{self, Hazard},
};
use std::{fmt, str::FromStr};

/// Ports from the first to the last. Neither is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// The first of them.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last of them.
    pub fn last(self) -> u16 {
        self.last
    }

    /// How many.
    pub fn count(self) -> u32 {
        u32::from(self.last).saturating_sub(u32::from(self.first)).saturating_add(1)
    }

    pub(super) fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    pub(super) fn holds(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// In order, those that touch made one.
    pub(super) fn joined(mut all: Vec<Self>) -> Vec<Self> {
        all.sort_unstable();
        let mut joined: Vec<Self> = Vec::with_capacity(all.len());
        for ports in all {
            match joined.last_mut() {
                Some(before) if ports.first <= before.last.saturating_add(1) => {
                    before.last = before.last.max(ports.last)
                }
                _ => joined.push(ports),
            }
        }
        joined
    }
}

impl FromStr for Ports {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let port = |text: &str| -> Result<u16, InvalidRule> {
            // `u16::from_str` would take a sign.
            let digits = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|_| digits).ok_or(InvalidRule::Ports)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let ports = Self { first: port(first)?, last: port(last)? };
        if ports.first <= ports.last { Ok(ports) } else { Err(InvalidRule::Ports) }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// What one rule allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Ports of a host.
    Tcp {
        /// As it has to be asked for.
        host: Host,
        /// Which.
        ports: Ports,
    },
    /// A Unix socket.
    Socket(SocketPath),
}

/// A text that is no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    /// No colon, or an IPv6 address without brackets.
    #[error("is no rule: write HOST:PORT, HOST:PORT-PORT, [IPV6]:PORT or unix:/PATH")]
    Shape,
    /// Of the contract, and not there.
    #[error("not supported yet ({0})")]
    NotYet(&'static str),
    /// Not a port, nor a range of them.
    #[error("has no port or range of ports from 1 to 65535, like 5432 or 8000-8999")]
    Ports,
    /// There is no wildcard for hosts.
    #[error("names no host: * would be every host, the gateway's own network and all metadata services included")]
    AnyHost,
    /// Its host or path.
    #[error(transparent)]
    Destination(#[from] NoDestination),
    /// Nothing can be connected to there, or not to one host.
    #[error("names {0}, to which nothing is forwarded")]
    Nowhere(Hazard),
}

impl FromStr for Rule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        match text {
            "agent" => return Err(InvalidRule::NotYet("agent forwarding")),
            "x11" => return Err(InvalidRule::NotYet("X11 forwarding")),
            _ => {}
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Socket(path.parse()?));
        }
        if text.starts_with("remote:") {
            return Err(InvalidRule::NotYet("remote forwarding"));
        }
        let (host, ports) = text.rsplit_once(':').ok_or(InvalidRule::Shape)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if host.contains(':') != bracketed.is_some() {
            return Err(InvalidRule::Shape);
        }
        if host == "*" {
            return Err(InvalidRule::AnyHost);
        }
        let host = bracketed.unwrap_or(host).parse()?;
        if let Host::Address(address) = &host
            && let Some(nowhere @ (Hazard::Unspecified | Hazard::Multicast | Hazard::Reserved)) = hazard::of(*address)
        {
            return Err(InvalidRule::Nowhere(nowhere));
        }
        Ok(Self::Tcp { host, ports: ports.parse()? })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, ports } => write!(f, "{host}:{ports}"),
            Self::Socket(path) => write!(f, "unix:{}", path.as_str()),
        }
    }
}

/// A range with more ports than this is hardly a list of services.
const MANY_PORTS: u32 = 10_000;

impl Rule {
    /// What whoever writes this rule should know. Each a clause that goes on from "RULE …".
    pub fn dangers(&self) -> Vec<String> {
        let (host, ports) = match self {
            Self::Tcp { host, ports } => (host, *ports),
            Self::Socket(path) => return path_danger(path).map(str::to_owned).into_iter().collect(),
        };
        let mut dangers = Vec::new();
        if let Host::Address(address) = host {
            match hazard::of(*address) {
                Some(Hazard::LinkLocal | Hazard::Metadata) => dangers.push(
                    "is where clouds keep their metadata: whoever reaches it can take the machine's own credentials"
                        .to_owned(),
                ),
                Some(Hazard::Translated) => dangers.push("is an IPv6 address that stands for another one".to_owned()),
                _ => {}
            }
        }
        if ports.count() > MANY_PORTS {
            dangers.push(format!("opens {} ports: every service that ever listens there", ports.count()));
        }
        if ports.contains(22) {
            dangers.push("opens port 22: what is done over ssh through it is recorded as bytes only".to_owned());
        }
        dangers
    }
}

fn path_danger(path: &SocketPath) -> Option<&'static str> {
    let last = path.as_str().rsplit('/').next().unwrap_or_default();
    let root = ["docker.sock", "containerd.sock", "podman.sock", "crio.sock"].contains(&last);
    root.then_some("makes whoever reaches it root on the target")
}
