//! What of a target's network a session may reach: `forward = ["localhost:8000-8999", "db-1:5432"]`.
//!
//! Pure: who resolves names and opens channels asks here. The order of questions is [`Destination::tcp`] (does it have
//! one meaning?), [`ForwardRules::allows`] (does a rule name it, as it was written?), and for a name, once it is resolved,
//! [`ForwardRules::judge`] for each of its addresses.
//!
//! What always holds: a rule for a name says nothing about an address, nor the other way round, and no rule says anything
//! about a [`Target`](crate::Target) of the same name. The one exception is `localhost`, which is the target's loopback by
//! each of its three usual names: `localhost`, `127.0.0.1` and `::1`.

mod destination;
mod hazard;
mod rule;
#[cfg(test)]
mod tests;

pub use destination::{Destination, Host, HostName, NoDestination, SocketPath};
pub use hazard::Hazard;
pub use rule::{InvalidRule, Ports, Rule};

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The rules of one entitlement. Empty: nothing is forwarded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ForwardRules {
    /// Ports by host: in order, apart from each other by at least one port.
    tcp: BTreeMap<Host, Vec<Ports>>,
    sockets: BTreeSet<SocketPath>,
}

impl FromIterator<Rule> for ForwardRules {
    fn from_iter<T: IntoIterator<Item = Rule>>(rules: T) -> Self {
        let mut all = Self::default();
        for rule in rules {
            match rule {
                Rule::Tcp { host, ports } => all.tcp.entry(host).or_default().push(ports),
                Rule::Socket(path) => drop(all.sockets.insert(path)),
            }
        }
        all.tcp.values_mut().for_each(|ports| *ports = Ports::joined(std::mem::take(ports)));
        all
    }
}

impl ForwardRules {
    /// Whether nothing is forwarded.
    pub fn is_empty(&self) -> bool {
        self.tcp.is_empty() && self.sockets.is_empty()
    }

    /// The rules, adjoining ports of one host joined.
    pub fn rules(&self) -> impl Iterator<Item = Rule> + '_ {
        let tcp = self
            .tcp
            .iter()
            .flat_map(|(host, all)| all.iter().map(|ports| Rule::Tcp { host: host.clone(), ports: *ports }));
        tcp.chain(self.sockets.iter().cloned().map(Rule::Socket))
    }

    /// Whether a rule names this destination, as it was written. A name is not resolved: see [`ForwardRules::judge`].
    pub fn allows(&self, destination: &Destination) -> bool {
        match destination {
            Destination::Tcp { host, port } => self.reach(host).iter().any(|ports| ports.contains(*port)),
            Destination::Socket(path) => self.sockets.contains(path),
        }
    }

    /// Whether a name may lead to this address. `ours`: it is one of the gateway's own.
    ///
    /// # Errors
    /// The [`Hazard`], unless a rule names that very address and port.
    pub fn judge(&self, address: IpAddr, port: u16, ours: bool) -> Result<(), Hazard> {
        let address = address.to_canonical();
        let hazard = if ours { Some(Hazard::Ours) } else { hazard::of(address) };
        match hazard {
            Some(hazard) if !self.allows(&Destination::Tcp { host: Host::Address(address), port }) => Err(hazard),
            _ => Ok(()),
        }
    }

    /// Whether all that `other` allows is allowed.
    pub fn covers(&self, other: &Self) -> bool {
        let within = |reach: &[Ports], ports: &Ports| reach.iter().any(|all| all.holds(*ports));
        let ports = other.tcp.iter().all(|(host, all)| {
            let reach = self.reach(host);
            all.iter().all(|ports| within(&reach, ports))
        });
        ports && self.sockets.is_superset(&other.sockets)
    }

    fn reach(&self, host: &Host) -> Vec<Ports> {
        let mut all = self.tcp.get(host).cloned().unwrap_or_default();
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        if matches!(host, Host::Address(address) if loopback.contains(address)) {
            all.extend(self.tcp.get(&Host::Localhost).into_iter().flatten());
        }
        Ports::joined(all)
    }
}

impl fmt::Display for ForwardRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, rule) in self.rules().enumerate() {
            write!(f, "{}{rule}", if nth == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
