//! Names and ids: one type and one grammar each, parsed once at the edge.
//!
//! Anything that is not in its grammar is refused before it is used: no comma can become a second principal, no
//! slash a path, no quote a statement (OpenSSH CVE-2026-35414, Teleport CVE-2021-41395).

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use utoipa::ToSchema;
use uuid::Uuid;

/// A name outside its grammar. Its text says what the grammar is, and never repeats the input raw.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {what}: {rule}")]
pub struct InvalidName {
    /// What the name was meant to be, e.g. `target name`.
    pub what: &'static str,
    /// Its grammar in words.
    pub rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $ok:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let ok: fn(&str) -> bool = $ok;
                if ok(text) { Ok(Self(text.to_owned())) } else { Err(InvalidName { what: $what, rule: $rule }) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// `first` and then up to `max - 1` of `rest`.
fn shaped(text: &str, max: usize, first: fn(u8) -> bool, rest: fn(u8) -> bool) -> bool {
    text.len() <= max
        && text.as_bytes().split_first().is_some_and(|(head, tail)| first(*head) && tail.iter().all(|b| rest(*b)))
}

fn lower_or_digit(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

name!(
    /// A person or a workload: `^[a-z][a-z0-9_.-]{0,31}$`.
    IdentityName,
    "identity name",
    "a lower-case letter, then up to 31 of a-z 0-9 _ . -",
    |t| shaped(t, 32, |b| b.is_ascii_lowercase(), |b| lower_or_digit(b) || b"_.-".contains(&b))
);
name!(
    /// A group of identities; same grammar as [`IdentityName`].
    GroupName,
    "group name",
    "a lower-case letter, then up to 31 of a-z 0-9 _ . -",
    |t| shaped(t, 32, |b| b.is_ascii_lowercase(), |b| lower_or_digit(b) || b"_.-".contains(&b))
);
name!(
    /// An SSH host or a database server: `^[a-z0-9][a-z0-9.-]{0,62}$`.
    TargetName,
    "target name",
    "a lower-case letter or digit, then up to 62 of a-z 0-9 . -",
    |t| shaped(t, 63, lower_or_digit, |b| lower_or_digit(b) || b".-".contains(&b))
);
name!(
    /// An account on an SSH target: `^[A-Za-z_][A-Za-z0-9._-]{0,31}$`.
    Login,
    "login",
    "a letter or _, then up to 31 of A-Z a-z 0-9 . _ -",
    |t| shaped(t, 32, |b| b.is_ascii_alphabetic() || b == b'_', |b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
);
name!(
    /// An entitlement; same grammar as [`TargetName`], with `_`.
    EntitlementName,
    "entitlement name",
    "a lower-case letter or digit, then up to 62 of a-z 0-9 . _ -",
    |t| shaped(t, 63, lower_or_digit, |b| lower_or_digit(b) || b"._-".contains(&b))
);
name!(
    /// A database on a PostgreSQL target: up to 63 bytes (`NAMEDATALEN - 1`), printable, without `/`, `@`, `~`.
    DatabaseName,
    "database name",
    "1 to 63 printable ASCII characters without / @ ~ or quotes",
    |t| shaped(t, 63, |b| b.is_ascii_graphic() && !b"/@~'\"\\".contains(&b), |b| (b.is_ascii_graphic() || b == b' ')
        && !b"/@~'\"\\".contains(&b))
);
name!(
    /// A role on a PostgreSQL target: up to 63 bytes, letters, digits, `_`, `$`, `-`, `.`.
    RoleName,
    "role name",
    "a letter or _, then up to 62 of A-Z a-z 0-9 _ $ . -",
    |t| shaped(t, 63, |b| b.is_ascii_alphabetic() || b == b'_', |b| b.is_ascii_alphanumeric() || b"_$.-".contains(&b))
);

/// What is opened on the target: one login, or one database.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// An account on an SSH target.
    Login(Login),
    /// A database on a database server.
    Database(DatabaseName),
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Access::Login(login) => login.fmt(f),
            Access::Database(database) => database.fmt(f),
        }
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id (UUIDv7, RFC 9562 section 5.7: sorts by time).
            #[allow(clippy::new_without_default, reason = "two calls give two ids")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
            /// The last 8 digits, as lists show it.
            pub fn short(&self) -> String {
                let text = self.0.simple().to_string();
                text.chars().skip(24).collect()
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Uuid::parse_str(text).map(Self).map_err(|_| InvalidName { what: "id", rule: "a UUID" })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
    };
}

id!(
    /// One grant.
    GrantId
);
id!(
    /// One session.
    SessionId
);
id!(
    /// One lease.
    LeaseId
);
id!(
    /// One token.
    TokenId
);
id!(
    /// One lock.
    LockId
);
id!(
    /// One request.
    RequestId
);
