//! The ephemeral role: minted, disabled, cleaned, removed and looked for through the `tidegate` schema's functions.

use super::PostgresTarget;
use crate::{
    gate::Clock,
    issuer::{Issuer, TargetError, Teardown},
};
use futures::future::BoxFuture;
use std::{collections::BTreeMap, sync::Arc};
use tidegate_ca::Keys;
use tidegate_grants::{Lease, LeasePlan, Permit, Receipt, Store, TargetName};
use tokio::sync::Mutex;

/// What the relay needs to log in as the ephemeral role.
#[derive(Debug)]
pub struct RoleCredential {
    /// The role: the start-up packet's `user`.
    pub role: String,
    /// TLS to the target, verify-full, with a client certificate of a minute whose common name is the role.
    pub tls: Arc<rustls::ClientConfig>,
    /// Start-up settings that we add for the session, if any.
    pub settings: BTreeMap<String, String>,
}

/// Mints and removes ephemeral roles.
#[derive(Debug)]
pub struct PostgresIssuer {
    // store, keys, targets, clock, admin connections
}

impl PostgresIssuer {
    /// With the targets of the configuration.
    pub fn new(
        store: Arc<Store>,
        keys: Arc<Keys>,
        targets: BTreeMap<TargetName, PostgresTarget>,
        clock: Clock,
    ) -> Self {
        let _ = (store, keys, targets, clock);
        todo!()
    }
}

impl Teardown for PostgresIssuer {
    fn disable<'a>(&'a self, _lease: &'a Lease) -> BoxFuture<'a, Result<(), TargetError>> {
        todo!()
    }
    fn clean<'a>(&'a self, _lease: &'a Lease) -> BoxFuture<'a, Result<(), TargetError>> {
        todo!()
    }
    fn inspect<'a>(&'a self, _lease: &'a Lease) -> BoxFuture<'a, Result<Receipt, TargetError>> {
        todo!()
    }
}

impl Issuer for PostgresIssuer {
    type Credential = RoleCredential;
    fn plan(&self, _permit: &Permit) -> Result<LeasePlan, TargetError> {
        todo!()
    }
    async fn mint(&self, _permit: &Permit, _lease: &Mutex<Lease>) -> Result<RoleCredential, TargetError> {
        todo!()
    }
}
