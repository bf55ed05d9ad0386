//! Who may do what until when.
//!
//! This crate holds the decisions: identities, targets and entitlements as the configuration describes them
//! ([`Policy`]), the signed permission to use one of them ([`grant`]), the proof of it that a live session holds
//! ([`Permit`]), and the durable records of what was decided and of what exists on targets ([`lease`], [`ledger`],
//! [`Store`]). It knows no network and no protocol, and no decision here reads the clock: time is an argument. (Only what
//! the store notes about itself, when it is opened or found to be damaged, is stamped with the time of day.)
//!
//! Architecture invariant: nothing opens without a [`Permit`], a `Permit` comes only from [`Authority::authorize`],
//! and a [`Lease`] comes only from the [`Store`], after the commit.

pub mod asking;
pub mod authority;
pub mod duration;
pub mod entitlement;
pub mod explain;
pub mod factor;
pub mod forward;
pub mod grant;
pub mod guest;
pub mod hours;
pub mod identity;
pub mod keeps;
pub mod lease;
pub mod ledger;
mod listing;
pub mod lock;
pub mod name;
pub mod panel;
pub mod pick;
pub mod policy;
pub mod reference;
pub mod request;
pub mod review;
pub mod sight;
mod signature;
pub mod store;
pub mod target;
mod text;
pub mod token;
pub mod when;

#[cfg(test)]
mod fixture;

pub use asking::{Asking, Proof};
pub use authority::{Ask, Authority, Denied, Ended, Permit};
pub use entitlement::{Conditions, Entitlement, Files, Leftovers, Terms};
pub use factor::{Factor, FactorView, Means, Mfa};
pub use forward::ForwardRules;
pub use grant::{Claims, GrantState, GrantView, Level, TrustedIssuer};
pub use identity::Identity;
pub use keeps::{Keeps, Masks, Results};
pub use lease::{Acceptance, Lease, LeaseKind, LeasePlan, LeaseState, Receipt};
pub use ledger::Event;
pub use listing::Listing;
pub use lock::{LockScope, LockState, LockView, Locked};
pub use name::{
    Access, DatabaseName, EntitlementName, GrantId, GroupName, IdentityName, InvalidName, LeaseId, LockId, Login,
    RequestId, RoleName, SessionId, TargetName, TokenId,
};
pub use policy::{Policy, SessionLimits};
pub use reference::Reference;
pub use request::{RequestState, RequestView};
pub use review::{ReviewState, ReviewView};
pub use sight::{Auditor, Sight};
pub use signature::signed_by;
pub use store::{LeftOn, Store, StoreError};
pub use target::{Kind, Target};
pub use token::{Bearer, TokenScope, TokenState, TokenView};
pub use when::Device;
