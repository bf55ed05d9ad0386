//! Things that are held for a while under a secret, and given out once. Time is an argument.

use data_encoding::BASE64URL_NOPAD;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// So long.
const LIFE: Duration = Duration::from_secs(10 * 60);
/// So many at once; past that the oldest go.
const MOST: usize = 1024;

/// Under a secret each. What nobody has fetched is forgotten.
#[derive(Debug)]
pub(super) struct Once<T>(Mutex<HashMap<String, (Instant, T)>>);

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// A new secret of 256 bits. An error where the system has no randomness.
pub(super) fn secret() -> Result<String, getrandom::Error> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes)?;
    Ok(BASE64URL_NOPAD.encode(&bytes))
}

impl<T> Once<T> {
    pub(super) fn hold(&self, secret: String, thing: T, now: Instant) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, (since, _)| now.duration_since(*since) < LIFE);
        if held.len() >= MOST
            && let Some(oldest) = held.iter().min_by_key(|(_, (since, _))| *since).map(|(secret, _)| secret.clone())
        {
            held.remove(&oldest);
        }
        held.insert(secret, (now, thing));
    }

    /// `None`: there is none under it, or no longer.
    pub(super) fn take(&self, secret: &str, now: Instant) -> Option<T> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(secret).filter(|(since, _)| now.duration_since(*since) < LIFE).map(|(_, thing)| thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_given_out_once_and_not_for_ever() {
        let (held, start) = (Once::default(), Instant::now());
        held.hold("a".to_owned(), 1, start);
        assert_eq!((held.take("a", start), held.take("a", start)), (Some(1), None));
        held.hold("b".to_owned(), 2, start);
        assert_eq!(held.take("b", start + LIFE), None);
        for n in 0..=MOST as u64 {
            held.hold(format!("many-{n}"), 3, start + Duration::from_millis(n));
        }
        assert_eq!((held.take("many-0", start), held.take("many-1", start)), (None, Some(3)));
    }
}
