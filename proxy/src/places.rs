//! Places of connections at a door: how many there are in all, from one source, and how many may be unknown yet.
//!
//! What always holds: a limit is reached by those who cause it first. Where too many connections have not said who they
//! are, the oldest of them from the source that has most is hung up on, and the new one gets its place: whoever opens
//! connections and says nothing pushes out their own, and a client that logs in at once is done before it would be its
//! turn. Somebody who is known keeps their place. An IPv6 source is a network of 64 bits, since that is what one host gets.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// `[limits]` of the configuration, as far as a door goes. Each door counts for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, whatever their state.
    pub connections: usize,
    /// Of one source.
    pub connections_per_source: usize,
    /// Connections at once of which it is not known yet who they are.
    pub handshakes: usize,
    /// Of one source.
    pub handshakes_per_source: usize,
    /// From the first byte to knowing who it is.
    pub handshake_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_source: 1024,
            handshakes: 1024,
            handshakes_per_source: 128,
            handshake_timeout: Duration::from_secs(20),
        }
    }
}

/// Where connections come from, as far as they are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self(Ipv6Addr::from(u128::from(address) >> 64 << 64).into()),
            address => Self(address),
        }
    }
}

/// No place is free. Who is told so is somebody that nothing is known of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// All places of the door are taken by people who are known.
    #[error("the gateway has as many connections as it takes")]
    Door,
    /// Those of this source are.
    #[error("there are as many connections from your address as the gateway takes")]
    Source,
}

/// The places of one door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Places {
    limits: Limits,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    /// By number, in the order of their coming.
    all: BTreeMap<u64, Source>,
    of: HashMap<Source, usize>,
    unknown: BTreeMap<u64, CancellationToken>,
    unknown_of: HashMap<Source, BTreeSet<u64>>,
    next: u64,
    pushed_out: u64,
}

impl Taken {
    fn count(&self, source: Source) -> usize {
        self.of.get(&source).copied().unwrap_or_default()
    }

    fn unknown_count(&self, source: Source) -> usize {
        self.unknown_of.get(&source).map_or(0, BTreeSet::len)
    }

    fn no_longer_unknown(&mut self, number: u64, source: Source) -> Option<CancellationToken> {
        let pushed = self.unknown.remove(&number)?;
        if let Some(numbers) = self.unknown_of.get_mut(&source) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.unknown_of.remove(&source);
            }
        }
        Some(pushed)
    }

    /// Idempotent: one that was pushed out leaves once more when its task ends.
    fn leave(&mut self, number: u64) {
        let Some(source) = self.all.remove(&number) else { return };
        self.no_longer_unknown(number, source);
        match self.of.get_mut(&source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.of.remove(&source)),
        }
    }

    /// Hangs up on the oldest unknown one of this source. False if it has none.
    fn push_out(&mut self, source: Source) -> bool {
        let oldest = self.unknown_of.get(&source).and_then(|numbers| numbers.first().copied());
        let Some(number) = oldest else { return false };
        if let Some(pushed) = self.no_longer_unknown(number, source) {
            pushed.cancel();
        }
        self.leave(number);
        self.pushed_out += 1;
        true
    }

    fn push_out_of_most(&mut self) -> bool {
        let most = self.unknown_of.iter().max_by_key(|(source, numbers)| (numbers.len(), **source));
        let Some(source) = most.map(|(source, _)| *source) else { return false };
        self.push_out(source)
    }
}

/// How many places are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// By people who are known.
    pub known: usize,
    /// By those of whom it is not known yet who they are.
    pub unknown: usize,
    /// Hung up on for others, since the start.
    pub pushed_out: u64,
}

impl Places {
    /// As many as this.
    pub fn new(limits: Limits) -> Self {
        Self { limits, taken: Arc::default() }
    }

    /// How long somebody may be unknown.
    pub fn handshake_timeout(&self) -> Duration {
        self.limits.handshake_timeout
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are taken now.
    pub fn count(&self) -> Count {
        let taken = self.lock();
        let unknown = taken.unknown.len();
        Count { known: taken.all.len().saturating_sub(unknown), unknown, pushed_out: taken.pushed_out }
    }

    /// A place for somebody new, of whom nothing is known but where they come from.
    ///
    /// # Errors
    /// [`Full`]: all are taken by people who are known.
    pub fn take(&self, address: IpAddr) -> Result<Place, Full> {
        let (source, limits, mut taken) = (Source::from(address), self.limits, self.lock());
        if taken.count(source) >= limits.connections_per_source && !taken.push_out(source) {
            return Err(Full::Source);
        }
        if taken.unknown_count(source) >= limits.handshakes_per_source {
            taken.push_out(source);
        }
        if taken.all.len() >= limits.connections && !taken.push_out_of_most() {
            return Err(Full::Door);
        }
        if taken.unknown.len() >= limits.handshakes {
            taken.push_out_of_most();
        }
        let (number, pushed_out) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.all.insert(number, source);
        *taken.of.entry(source).or_default() += 1;
        taken.unknown.insert(number, pushed_out.clone());
        taken.unknown_of.entry(source).or_default().insert(number);
        drop(taken);
        Ok(Place { places: self.clone(), number, source, pushed_out })
    }
}

/// One connection's place; free again when dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    number: u64,
    source: Source,
    pushed_out: CancellationToken,
}

impl Place {
    /// It is known who this is: nobody takes the place away any more. False if somebody just has.
    pub fn known(&self) -> bool {
        self.places.lock().no_longer_unknown(self.number, self.source).is_some() || !self.pushed_out.is_cancelled()
    }

    /// Waits until the place is somebody else's.
    pub async fn lost(&self) {
        self.pushed_out.cancelled().await;
    }

    /// From the first byte to knowing who it is.
    pub fn handshake_timeout(&self) -> Duration {
        self.places.handshake_timeout()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().leave(self.number);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use super::*;

    fn places() -> Places {
        Places::new(Limits {
            connections: 10,
            connections_per_source: 6,
            handshakes: 5,
            handshakes_per_source: 3,
            ..Limits::default()
        })
    }

    fn from(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn the_oldest_of_those_who_say_nothing_makes_room_for_who_comes_from_there() {
        let places = places();
        let silent: Vec<Place> = (0..3).map(|_| places.take(from(1)).unwrap()).collect();
        let new = places.take(from(1)).unwrap();
        assert!(silent[0].pushed_out.is_cancelled() && !silent[1].pushed_out.is_cancelled());
        assert!(new.known() && !silent[0].known());
        assert_eq!(places.count(), Count { known: 1, unknown: 2, pushed_out: 1 });
    }

    #[test]
    fn the_source_that_has_most_makes_room_for_the_others() {
        let places = places();
        let flood: Vec<Place> = (0..3).map(|_| places.take(from(1)).unwrap()).collect();
        let other: Vec<Place> = (2..4).map(|last| places.take(from(last)).unwrap()).collect();
        let new = places.take(from(9)).unwrap();
        assert!(flood[0].pushed_out.is_cancelled());
        assert!(other.iter().chain([&new]).all(|place| !place.pushed_out.is_cancelled()));
    }

    #[test]
    fn who_is_known_is_never_pushed_out_and_then_the_new_one_is_refused() {
        let places = places();
        let known: Vec<Place> =
            (0..6).map(|_| places.take(from(1)).unwrap()).inspect(|place| assert!(place.known())).collect();
        assert_eq!(places.take(from(1)).unwrap_err(), Full::Source);
        let others: Vec<Place> =
            (2..6).map(|last| places.take(from(last)).unwrap()).inspect(|p| assert!(p.known())).collect();
        assert_eq!(places.take(from(9)).unwrap_err(), Full::Door);
        assert!(known.iter().chain(&others).all(|place| !place.pushed_out.is_cancelled()));
        drop(known);
        assert!(places.take(from(9)).is_ok());
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let places = places();
        let flood: Vec<Place> =
            (0..4u16).map(|n| places.take(format!("2001:db8::{n}").parse().unwrap()).unwrap()).collect();
        assert!(flood[0].pushed_out.is_cancelled());
        assert!(places.take("2001:db8:0:1::1".parse().unwrap()).is_ok());
        assert!(!flood[1].pushed_out.is_cancelled());
    }

    #[test]
    fn whatever_comes_and_goes_nothing_is_left_counted() {
        let places = places();
        let mut held: Vec<Place> = Vec::new();
        for step in 0..10_000u32 {
            let last = u8::try_from(step * 7 % 13).unwrap();
            if let Ok(place) = places.take(from(last)) {
                if step % 3 == 0 {
                    place.known();
                }
                held.push(place);
            }
            if step % 2 == 0 && !held.is_empty() {
                held.swap_remove(step as usize * 31 % held.len());
            }
            let Count { known, unknown, .. } = places.count();
            assert!(known + unknown <= 10 && unknown <= 5);
        }
        drop(held);
        let taken = places.lock();
        assert!(taken.all.is_empty() && taken.of.is_empty() && taken.unknown.is_empty() && taken.unknown_of.is_empty());
    }
}
