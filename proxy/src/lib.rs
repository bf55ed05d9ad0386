//! The way of a session, from accept to receipt. Read [`session`] first: it tells the whole story.
//!
//! Architecture invariant: wire bytes are interpreted only inside [`protocol`]; HTTP, configuration files and the
//! command line do not exist here. A protocol brings a [`Client`](session::Client) and an [`Issuer`](issuer::Issuer);
//! everything else is shared.

mod announce;
mod asking;
pub mod authenticate;
pub mod door;
pub mod drain;
pub mod gate;
pub mod issuer;
pub mod listener;
pub mod meter;
pub mod pause;
pub mod places;
pub mod protocol;
pub mod reaper;
pub mod refusal;
pub mod session;
pub mod sweep;
pub mod targets;
pub mod teardown;
pub mod text;
pub mod tls;
pub mod trial;
pub mod trust;
mod vanish;
pub mod waiting;
pub mod watching;

pub use door::{Door, TurnedAway};
pub use gate::{Clock, Gate};
#[cfg(fuzzing)]
pub use protocol::postgres::fuzzing;
pub use refusal::Refusal;
