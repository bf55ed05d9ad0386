//! Sources of connections that tried keys and left without one that fits: each makes the next connection from there wait longer.
//!
//! What always holds: a connection counts once, however many keys it tried, and not at all if one of them fitted, so an
//! agent with forty keys is not slowed down; and nobody is ever kept out, only kept waiting for a few seconds.

use super::guesses::Guesses;
use jiff::Timestamp;
use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// The first connections without a key that fits cost nothing: people have several keys and several names.
const FREE: usize = 3;

/// The tally. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Sources(Arc<Mutex<Guesses<(IpAddr, usize)>>>);

impl Sources {
    /// How long a connection from there waits before it is answered. Zero for whoever has not failed.
    pub fn wait(&self, source: IpAddr, now: Timestamp) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).delay(&(network(source), FREE), now)
    }

    /// A connection from there tried keys, and none fitted.
    pub fn failed(&self, source: IpAddr, now: Timestamp) {
        let mut guesses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The free ones have tallies of their own, so that only what comes after them makes anybody wait.
        let source = network(source);
        let free = (0..FREE).find(|nth| guesses.delay(&(source, *nth), now).is_zero());
        guesses.wrong((source, free.unwrap_or(FREE)), false, now);
    }
}

/// Whoever has an IPv6 address has 2^64 of them.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    #[test]
    fn who_fails_again_and_again_waits_longer_and_nobody_else_does() {
        let (sources, now) = (Sources::default(), Timestamp::UNIX_EPOCH);
        let (guesser, other) = ("192.0.2.7".parse().unwrap(), "192.0.2.8".parse().unwrap());
        let mut waits = Vec::new();
        for _ in 0..20 {
            waits.push(sources.wait(guesser, now));
            sources.failed(guesser, now);
        }
        assert!(waits.iter().take(FREE + 1).all(Duration::is_zero), "{waits:?}");
        assert!(waits.is_sorted() && waits.last() == Some(&Duration::from_secs(5)), "{waits:?}");
        assert_eq!(sources.wait(other, now), Duration::ZERO);
        assert_eq!(sources.wait(guesser, now + SignedDuration::from_mins(16)), Duration::ZERO);
    }

    #[test]
    fn a_source_is_a_network_in_ipv6() {
        let (sources, now) = (Sources::default(), Timestamp::UNIX_EPOCH);
        for n in 0..10 {
            sources.failed(format!("2001:db8::{n}").parse().unwrap(), now);
        }
        assert!(!sources.wait("2001:db8::ffff:1".parse().unwrap(), now).is_zero());
        assert!(sources.wait("2001:db8:0:1::1".parse().unwrap(), now).is_zero());
    }
}
