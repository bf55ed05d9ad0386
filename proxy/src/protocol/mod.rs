//! One folder per protocol. Wire bytes are interpreted here and nowhere else.

pub mod postgres;
pub mod proxied;
pub mod ssh;
