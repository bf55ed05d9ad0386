//! Our own cancel keys (PostgreSQL chapter 55.2.8): the client never sees the target's, and a key that we did not give
//! out does nothing, without the sender being told so.

use super::startup::{CancelKey, Version};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use subtle::ConstantTimeEq as _;
use tokio::sync::{mpsc, oneshot};

/// libpq waits until the cancelling connection closes, so it stays open until the target has been told; no longer.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Requests that wait while one is on its way. More change nothing.
const WAITING: usize = 2;

/// One wish to cancel. Dropping it says that it was dealt with.
#[derive(Debug)]
pub(super) struct Wish {
    #[allow(dead_code, reason = "dropping it is the answer")]
    done: oneshot::Sender<()>,
}

/// The keys of live sessions.
#[derive(Debug, Clone, Default)]
pub(super) struct Cancels {
    live: Arc<Mutex<HashMap<u32, Live>>>,
}

#[derive(Debug)]
struct Live {
    secret: Vec<u8>,
    wishes: mpsc::Sender<Wish>,
}

/// A session's key. Dropping it makes the key void.
#[derive(Debug)]
pub(super) struct Cancellable {
    cancels: Cancels,
    /// What BackendKeyData announces.
    pub(super) key: CancelKey,
    /// What comes for it.
    pub(super) wishes: mpsc::Receiver<Wish>,
}

impl Cancels {
    /// A new random key, as long as this version of the protocol allows. None if the system gives no randomness.
    pub(super) fn register(&self, version: Version) -> Option<Cancellable> {
        let (sender, wishes) = mpsc::channel(WAITING);
        let mut secret = vec![0; version.secret_length()];
        getrandom::fill(&mut secret).ok()?;
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // Some drivers take it for a process id: positive.
            let process = (getrandom::u32().ok()? & 0x7fff_ffff).max(1);
            if let Entry::Vacant(place) = live.entry(process) {
                place.insert(Live { secret: secret.clone(), wishes: sender });
                return Some(Cancellable { cancels: self.clone(), key: CancelKey { process, secret }, wishes });
            }
        }
    }

    /// Passes a CancelRequest on, if its key is one of ours, and waits until the target has been told.
    pub(super) async fn cancel(&self, key: &CancelKey) {
        let Some(wishes) = self.session(key) else { return };
        let (done, told) = oneshot::channel();
        if wishes.try_send(Wish { done }).is_ok() {
            let _ = tokio::time::timeout(LONGEST_WAIT, told).await;
        }
    }

    fn session(&self, key: &CancelKey) -> Option<mpsc::Sender<Wish>> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let session = live.get(&key.process)?;
        let same: bool = session.secret.as_slice().ct_eq(&key.secret).into(); // other lengths are never the same
        same.then(|| session.wishes.clone())
    }
}

impl Drop for Cancellable {
    fn drop(&mut self) {
        self.cancels.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key.process);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_key_reaches_its_session_and_only_while_it_lives() {
        for (version, length) in [(Version::OLDEST, 4), (Version::NEWEST, 32)] {
            let cancels = Cancels::default();
            let (mut one, mut other) = (cancels.register(version).unwrap(), cancels.register(version).unwrap());
            let key = one.key.clone();
            assert_eq!(key.secret.len(), length);
            let mut wrong = key.clone();
            *wrong.secret.last_mut().unwrap() ^= 1;
            cancels.cancel(&wrong).await;
            let longer = CancelKey { secret: [&key.secret[..], &[0]].concat(), ..key };
            cancels.cancel(&longer).await;
            cancels.cancel(&CancelKey { secret: key.secret[..length - 1].to_vec(), ..key }).await;
            cancels.cancel(&CancelKey { process: key.process ^ 1, ..key.clone() }).await;
            assert!(one.wishes.try_recv().is_err());
            let (_, wished) = tokio::join!(cancels.cancel(&key), async { one.wishes.recv().await.is_some() });
            assert!(wished && other.wishes.try_recv().is_err());
            drop(one);
            assert!(cancels.session(&key).is_none());
        }
    }
}
