//! The harness: throwaway OpenSSH and PostgreSQL servers, a gateway between, and the people's own clients.
//!
//! What always holds: servers listen on loopback only and live in a temporary folder; each is killed when its owner is
//! dropped, and by the kernel when the test process dies in any other way. `sshd` runs in namespaces of its own (mounts,
//! processes), so its account, its `/etc/ssh` and whatever a session left running vanish with it, and the machine's own
//! accounts are never touched. That is why these tests want root.
//!
//! A harness says what went wrong by panicking: that is what fails the test.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a harness fails the test by panicking"
)]

pub mod agent;
pub mod cable;
pub mod config;
pub mod daemon;
pub mod driver;
pub mod evidence;
pub mod gateway;
pub mod in_process;
pub mod master;
pub mod postgres;
pub mod running;
pub mod scratch;
pub mod sshd;
pub mod wait;
pub mod world;

pub use cable::Cable;
pub use config::Config;
pub use driver::{Driver, Lane, Route};
pub use evidence::Ledger;
pub use gateway::Gateway;
pub use master::Master;
pub use postgres::Postgres;
pub use running::{Output, Running};
pub use sshd::Sshd;
pub use wait::{secs, wait_until};
pub use world::World;
