//! Where grants, sessions, leases, passwords and the ledger live: one SQLite file, WAL, `synchronous=FULL`.
//!
//! Every change of state goes through one function that writes the row and the ledger entry that describes it in one
//! transaction. One thread owns the writing connection.

use crate::{
    authority::Permit,
    lease::{Lease, LeasePlan, Receipt},
    ledger::{Entry, Event, Verdict},
    name::{IdentityName, SessionId, TargetName},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The store could not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// SQLite said no.
    #[error("the store failed: {0}")]
    Database(String),
    /// The file and its ledger disagree: somebody else wrote to it.
    #[error("the store does not agree with its ledger: {0}")]
    Damaged(String),
    /// Its format is newer than this program.
    #[error("the store was written by a newer tidegate (format {found}, this one knows {known})")]
    TooNew {
        /// In the file.
        found: u32,
        /// In this program.
        known: u32,
    },
    /// Another gateway holds it.
    #[error("another tidegate is running on this state directory")]
    Busy,
}

/// A short-lived password for one identity on one target, as its SCRAM verifier only.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Password {
    /// Whose.
    pub identity: IdentityName,
    /// Good at this target alone.
    pub target: TargetName,
    /// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey` (PostgreSQL chapter 53.17).
    pub verifier: String,
    /// Not at or after.
    pub expires: Timestamp,
    /// The first address that used it; none other may.
    pub source: Option<std::net::IpAddr>,
}

/// One session as lists show it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionRow {
    /// Its id.
    pub id: SessionId,
    /// Who.
    pub identity: IdentityName,
    /// Where to.
    pub target: TargetName,
    /// As what.
    pub access: String,
    /// Under which grant.
    pub grant: crate::name::GrantId,
    /// From where.
    pub source: std::net::IpAddr,
    /// When it opened.
    pub start: Timestamp,
    /// When its receipt was in, or it was given to the reaper.
    pub end: Option<Timestamp>,
    /// How it ended, in a word or two.
    pub outcome: Option<String>,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    // sender to the thread that owns the connection
}

/// Signs ledger heads.
pub type HeadSigner = std::sync::Arc<dyn signature::Signer<ed25519_dalek::Signature> + Send + Sync>;

impl Store {
    /// Opens or creates `DIR/tidegate.db`, takes the lock, migrates, and verifies the whole ledger against the state.
    /// A store that does not verify opens all the same, for teardown: [`Store::trusted`] is then false for good.
    /// `node` and `config` go into each row.
    pub fn open(
        dir: &Path,
        node: &str,
        config: &str,
        signer: HeadSigner,
        public: [u8; 32],
    ) -> Result<Self, StoreError> {
        let _ = (dir, node, config, signer, public);
        todo!()
    }

    /// Ok while store and ledger agree. If anybody but us has written to the file since the last look
    /// (`PRAGMA data_version`), everything is verified again first.
    pub async fn trusted(&self) -> Result<(), StoreError> {
        todo!()
    }

    /// The hash of the configuration that later rows carry.
    pub fn set_config(&self, config: &str) {
        let _ = config;
        todo!()
    }

    /// An entry that changes no other table.
    pub async fn append(&self, event: Event, now: Timestamp) -> Result<(), StoreError> {
        let _ = (event, now);
        todo!()
    }

    /// The lease, on disk (fsync) when this returns. Deadline: the permit's end.
    pub async fn lease(&self, permit: &Permit, plan: LeasePlan, now: Timestamp) -> Result<Lease, StoreError> {
        let _ = (permit, plan, now);
        todo!()
    }

    /// Changes the issuer's notes on a lease and logs `event`; on disk when this returns. The caller's lease is
    /// brought up to date.
    pub async fn note(
        &self,
        lease: &mut Lease,
        detail: serde_json::Value,
        event: Event,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let _ = (lease, detail, event, now);
        todo!()
    }

    /// The target confirmed that the account is disabled.
    pub async fn disabled(&self, lease: &mut Lease, now: Timestamp) -> Result<(), StoreError> {
        let _ = (lease, now);
        todo!()
    }

    /// Cleaning begins.
    pub async fn cleaning(&self, lease: &mut Lease, now: Timestamp) -> Result<(), StoreError> {
        let _ = (lease, now);
        todo!()
    }

    /// An attempt at teardown failed; it will be tried again.
    pub async fn failed(&self, lease: &mut Lease, error: &str, now: Timestamp) -> Result<(), StoreError> {
        let _ = (lease, error, now);
        todo!()
    }

    /// Something needs a human: the receipt says what.
    pub async fn held(&self, lease: &mut Lease, why: &str, receipt: Receipt, now: Timestamp) -> Result<(), StoreError> {
        let _ = (lease, why, receipt, now);
        todo!()
    }

    /// Closes a lease by its receipt. Refused unless `receipt.clean`.
    pub async fn closed(&self, lease: &mut Lease, receipt: Receipt, now: Timestamp) -> Result<(), StoreError> {
        let _ = (lease, receipt, now);
        todo!()
    }

    /// Leases that are not closed, oldest first; with `all`, the closed ones too.
    pub async fn leases(&self, all: bool) -> Result<Vec<Lease>, StoreError> {
        let _ = all;
        todo!()
    }

    /// The session is over.
    pub async fn session_closed(&self, session: SessionId, outcome: &str, now: Timestamp) -> Result<(), StoreError> {
        let _ = (session, outcome, now);
        todo!()
    }

    /// Sessions, newest first.
    pub async fn sessions(&self) -> Result<Vec<SessionRow>, StoreError> {
        todo!()
    }

    /// Replaces the password of this identity at this target.
    pub async fn set_password(&self, password: Password, now: Timestamp) -> Result<(), StoreError> {
        let _ = (password, now);
        todo!()
    }

    /// The password of this identity at this target, if its row agrees with the ledger and it has not expired.
    pub async fn password(
        &self,
        identity: &IdentityName,
        target: &TargetName,
        now: Timestamp,
    ) -> Result<Option<Password>, StoreError> {
        let _ = (identity, target, now);
        todo!()
    }

    /// Binds a password to the first address that used it. False if another one came first.
    pub async fn bind_password(
        &self,
        password: &Password,
        source: std::net::IpAddr,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let _ = (password, source, now);
        todo!()
    }

    /// The last `count` entries, oldest first.
    pub async fn tail(&self, count: u64) -> Result<Vec<Entry>, StoreError> {
        let _ = count;
        todo!()
    }
}

/// Verifies a store's ledger and every row of state against it, read-only, without a running gateway (`ledger verify`).
pub fn verify(dir: &Path, public: [u8; 32]) -> Result<Verdict, StoreError> {
    let _ = (dir, public);
    todo!()
}

/// The last `count` entries (all, if none), oldest first, read-only, without a running gateway (`ledger tail`).
pub fn read(dir: &Path, count: Option<u64>) -> Result<Vec<Entry>, StoreError> {
    let _ = (dir, count);
    todo!()
}
