//! Serves the API on the Unix socket. Accepting never waits for a peer, and a peer that dawdles is hung up on.
//!
//! What always holds: who the peer is comes before anything that it sends. Every local account may connect, so the
//! places are counted by account, and all accounts that map to nobody share a few: they cannot lock an admin out.

use super::{
    peer::{self, Caller},
    routes::{self, Api},
    stay::Stay,
};
use crate::metrics::{self, Outside};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{
    collections::BTreeMap,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::net::{UnixListener, UnixStream};

/// Connections at once: each takes a descriptor, and sessions need those.
const MOST_CONNECTIONS: usize = 256;
/// Of one account.
const MOST_OF_ONE: usize = 32;
/// Of one account that maps to nobody.
const MOST_OF_A_STRANGER: usize = 8;
/// Of all accounts that map to nobody: one person may have many (subordinate ids).
const MOST_STRANGERS: usize = 32;
/// A request's head must be here by then.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// A connection is hung up on after this, whatever it does but to show a live session.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(60);
/// After a failed accept: the process is out of descriptors, and spinning would not help.
const PAUSE: Duration = Duration::from_millis(100);

/// The socket's file; removed when dropped.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Listens. Only for who holds the store's lock: a socket that is there was left by a gateway that is no more.
pub(crate) fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Open to every local account: the peer's credentials decide.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok((listener, SocketFile(path.to_owned())))
}

/// The connections that are served now.
#[derive(Debug, Default)]
struct Places(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    strangers: usize,
    /// By uid; never 0.
    of: BTreeMap<u32, usize>,
}

/// One connection's place; free again when dropped.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    uid: u32,
    stranger: bool,
}

impl Places {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner) // counts are whole at any time
    }

    fn take(self: &Arc<Self>, uid: u32) -> Option<Place> {
        let mut taken = self.taken();
        let of_this = taken.of.get(&uid).copied().unwrap_or_default();
        if taken.all >= MOST_CONNECTIONS || of_this >= MOST_OF_ONE {
            return None;
        }
        taken.all += 1;
        taken.of.insert(uid, of_this + 1);
        Some(Place { places: self.clone(), uid, stranger: false })
    }
}

impl Place {
    /// What is left of it for an account that maps to nobody.
    fn of_a_stranger(mut self) -> Option<Self> {
        let mut taken = self.places.taken();
        let of_this = taken.of.get(&self.uid).copied().unwrap_or_default();
        if of_this > MOST_OF_A_STRANGER || taken.strangers >= MOST_STRANGERS {
            drop(taken); // before self, which takes the lock
            return None;
        }
        taken.strangers += 1;
        drop(taken);
        self.stranger = true;
        Some(self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all = taken.all.saturating_sub(1);
        taken.strangers = taken.strangers.saturating_sub(usize::from(self.stranger));
        let left = taken.of.get(&self.uid).map_or(0, |of_this| of_this.saturating_sub(1));
        if left == 0 {
            taken.of.remove(&self.uid);
        } else {
            taken.of.insert(self.uid, left);
        }
    }
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: UnixListener, api: Arc<Api>, outside: Arc<Outside>) {
    let router = routes::router(api.clone()).merge(metrics::router(outside));
    let places = Arc::new(Places::default());
    loop {
        match listener.accept().await {
            Ok((stream, _)) => begin(stream, &places, &api, &router),
            Err(error) => {
                tracing::error!(%error, "the API socket could not accept");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn begin(stream: UnixStream, places: &Arc<Places>, api: &Arc<Api>, router: &Router) {
    let uid = match stream.peer_cred() {
        Ok(credentials) => credentials.uid(),
        Err(error) => {
            tracing::error!(%error, "a peer of the API socket without credentials");
            return;
        }
    };
    let Some(place) = places.take(uid) else {
        tracing::debug!(uid, "too many connections to the API socket at once");
        return;
    };
    let (api, router) = (api.clone(), router.clone());
    tokio::spawn(async move {
        let stay = Stay::default();
        tokio::select! {
            () = connection(stream, place, api, router.layer(Extension(stay.clone()))) => {}
            () = stay.past(CONNECTION_DEADLINE) => {}
        }
    });
}

async fn connection(stream: UnixStream, mut place: Place, api: Arc<Api>, router: Router) {
    let uid = place.uid;
    let account = tokio::task::spawn_blocking(move || peer::account(uid)).await.unwrap_or_default();
    let caller = Caller::new(&api.gate.authority.policy(), uid, account);
    if caller.identity.is_none() {
        place = match place.of_a_stranger() {
            Some(place) => place,
            None => return tracing::debug!(uid, "too many connections of strangers to the API socket at once"),
        };
    }
    let _place = place;
    let service = TowerToHyperService::new(router.layer(axum::Extension(caller)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(64 << 10)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, uid, "a connection to the API socket ended badly");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_cannot_take_the_places_of_others() {
        let places = Arc::new(Places::default());
        let stranger = |uid| places.take(uid).and_then(Place::of_a_stranger);
        // One person with many subordinate ids.
        let held: Vec<_> = (0..10_000).map(|n| 100_000 + n / 100).filter_map(stranger).collect();
        assert_eq!(held.len(), MOST_STRANGERS);
        assert_eq!(held.iter().filter(|place| place.uid == 100_000).count(), MOST_OF_A_STRANGER);
        let admin: Vec<_> = (0..100).filter_map(|_| places.take(1000)).collect();
        assert_eq!(admin.len(), MOST_OF_ONE);
        assert!(places.take(1001).is_some());
        drop((held, admin));
        let taken = places.taken();
        assert_eq!((taken.all, taken.strangers, taken.of.len()), (0, 0, 0));
    }
}
