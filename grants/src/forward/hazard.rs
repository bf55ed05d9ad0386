//! Addresses that a *name* must never lead to: whoever controls the name would choose what the target is made to talk to.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Why an address is not for forwarding. (An address that a rule names is.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hazard {
    /// The target's own loopback, under another name than `localhost`.
    Loopback,
    /// `0.0.0.0/8` and `::`, which most systems take for themselves.
    Unspecified,
    /// `169.254.0.0/16`, where clouds keep their metadata, and `fe80::/10`.
    LinkLocal,
    /// A cloud's metadata service outside of the link-local range.
    Metadata,
    /// To many.
    Multicast,
    /// `240.0.0.0/4` with the broadcast address.
    Reserved,
    /// An IPv6 address that stands for an IPv4 one in a way that cannot be looked through.
    Translated,
    /// The gateway's own.
    Ours,
}

impl fmt::Display for Hazard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::Unspecified => "the unspecified address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a cloud's metadata address",
            Self::Multicast => "a multicast address",
            Self::Reserved => "a reserved or broadcast address",
            Self::Translated => "an address for translation",
            Self::Ours => "an address of the gateway",
        })
    }
}

/// Metadata services that are not link-local: Azure's wire server, Oracle, Alibaba; AWS and Google over IPv6.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// What is wrong with an address by itself.
pub(super) fn of(address: IpAddr) -> Option<Hazard> {
    let address = address.to_canonical();
    if METADATA.contains(&address) {
        return Some(Hazard::Metadata);
    }
    match address {
        IpAddr::V4(address) => of_v4(address),
        IpAddr::V6(address) => of_v6(address),
    }
}

fn of_v4(address: Ipv4Addr) -> Option<Hazard> {
    match address.octets() {
        [127, ..] => Some(Hazard::Loopback),
        [0, ..] => Some(Hazard::Unspecified),
        [169, 254, ..] => Some(Hazard::LinkLocal),
        [224..=239, ..] => Some(Hazard::Multicast),
        [240..=255, ..] => Some(Hazard::Reserved),
        _ => None,
    }
}

fn of_v6(address: Ipv6Addr) -> Option<Hazard> {
    let within = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        of(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(Hazard::Unspecified),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(Hazard::Loopback),
        // IPv4-compatible (RFC 4291 section 2.5.5.1) and IPv4-translated (RFC 2765): nobody has an honest one.
        [0, 0, 0, 0, 0 | 0xffff, 0, _, _] => Some(Hazard::Translated),
        // The local translation prefix (RFC 8215) and Teredo (RFC 4380): the IPv4 address is at a place of their own.
        [0x64, 0xff9b, 1, ..] | [0x2001, 0, ..] => Some(Hazard::Translated),
        // NAT64 (RFC 6052), which DNS64 answers with on networks without IPv4; and 6to4 (RFC 3056).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => within(high, low),
        [0xfe80..=0xfebf, ..] => Some(Hazard::LinkLocal),
        [0xff00..=0xffff, ..] => Some(Hazard::Multicast),
        _ => None,
    }
}
