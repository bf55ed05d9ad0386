//! tidegate against real OpenSSH and real PostgreSQL. Each module is about one thing that is promised.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test fails by panicking"
)]

mod access;
mod anchor;
mod asking;
mod auditors;
mod backup;
mod certificate;
mod channels;
mod clients;
mod clock;
mod conditions;
mod crash;
mod database_login;
mod database_trial;
mod disk;
mod doctor;
mod door;
mod drain;
mod editing;
mod elsewhere;
mod events;
mod factors;
mod faults;
mod files;
mod flow;
mod forward;
mod glass;
mod grants;
mod hosts;
mod https;
mod identity;
mod idle;
mod installing;
mod inventory;
mod keeping;
mod killing;
mod leases;
mod leftovers;
mod limits;
mod lives;
mod locks;
mod managed;
mod many;
mod memberships;
mod notify;
mod outage;
mod outside;
mod partition;
mod peers;
mod player;
mod postgres;
mod proof;
mod protocol;
mod rate;
mod raw;
mod recording;
mod rekey;
mod reload;
mod replay;
mod replayed;
mod replica;
mod results;
mod rogue_target;
mod roles;
mod sameness;
mod servers;
mod shell;
mod sql;
mod ssh;
mod startup;
mod suffering;
mod tamper;
mod terminal;
mod tokens;
mod transparency;
mod trial;
mod trust;
mod volume;
mod waiting;
mod watching;
mod whole_session;
mod why;
mod wire;
mod wrong_input;
