//! Logging in elsewhere from within `ssh`: an address and a code are shown, and the key that was brought is good for a while.

use super::{
    Unproven,
    oidc::{Oidc, Provider},
};
use crate::text::plain;
use arc_swap::ArcSwapOption;
use futures::future::BoxFuture;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tidegate_proxy::{
    Gate,
    authenticate::{Arrived, Elsewhere, Invitation},
};

/// Logins that are awaited at once, and from one address.
const MOST: usize = 64;
const MOST_FROM_ONE: usize = 4;

/// What the SSH door offers whom it does not know, where there is `[oidc]`.
#[derive(Debug)]
pub(crate) struct DeviceLogins {
    gate: Gate,
    provider: Provider,
    /// A reload replaces it.
    pub(crate) oidc: ArcSwapOption<Oidc>,
    awaited: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A place among the logins that are awaited.
#[derive(Debug)]
struct Waits {
    source: IpAddr,
    awaited: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Drop for Waits {
    fn drop(&mut self) {
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        match awaited.get_mut(&self.source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(awaited.remove(&self.source)),
        }
    }
}

impl DeviceLogins {
    pub(crate) fn new(gate: Gate, provider: Provider, oidc: Option<Arc<Oidc>>) -> Self {
        Self { gate, provider, oidc: ArcSwapOption::new(oidc), awaited: Arc::default() }
    }

    fn wait(&self, source: IpAddr) -> Option<Waits> {
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, one) = (awaited.values().sum::<usize>(), awaited.get(&source).copied().unwrap_or(0));
        if all >= MOST || one >= MOST_FROM_ONE {
            return None;
        }
        awaited.insert(source, one + 1);
        Some(Waits { source, awaited: self.awaited.clone() })
    }

    async fn invited(&self, source: IpAddr) -> Result<Invitation, String> {
        let Some(oidc) = self.oidc.load_full() else { return Err("there is no login here but by key".to_owned()) };
        let Some(waits) = self.wait(source) else {
            return Err("too many logins are awaited already: try again in a few minutes".to_owned());
        };
        let device = self.provider.begin_device(&oidc).await.map_err(|why| why.to_string())?;
        let text = format!(
            "none of your keys is known here. To log in, open\n\n    {}\n\nand type the code\n\n    {}\n",
            plain(&device.verification_uri),
            plain(&device.user_code)
        );
        let (provider, gate) = (self.provider.clone(), self.gate.clone());
        let arrives = async move {
            let _waits = waits;
            let arrived = async {
                let token = provider.finish_device(&oidc, &device).await?;
                provider.who(&oidc, &token, None, gate.now()).await
            };
            let arrival = arrived.await.map_err(|why: Unproven| why.to_string())?;
            let (identity, ends) = (arrival.identity.clone(), arrival.ends);
            gate.authority.welcome(arrival, gate.now()).await.map_err(|why| why.to_string())?;
            Ok(Arrived { identity, ends })
        };
        Ok(Invitation { text, arrives: Mutex::new(Box::pin(arrives)) })
    }
}

impl Elsewhere for DeviceLogins {
    fn is_open(&self) -> bool {
        self.oidc.load().is_some()
    }

    fn invite(&self, source: IpAddr) -> BoxFuture<'_, Result<Invitation, String>> {
        Box::pin(self.invited(source))
    }
}
