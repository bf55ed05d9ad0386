//! Tokens: how a program proves an identity to the HTTPS API.
//!
//! What always holds: the secret is random, shown once and kept nowhere, only its SHA-256; a token never does more than its
//! identity may do at that moment, and no more than its scope; a row that the ledger does not vouch for is no token.

use crate::name::{IdentityName, TokenId};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{fmt, str::FromStr, time::Duration};
use utoipa::ToSchema;
use zeroize::Zeroizing;

/// What each secret begins with, so that scanners for leaked secrets can find it.
const PREFIX: &str = "tdg_";
/// Random bytes in a secret.
const BYTES: usize = 32;

/// How far a token goes, at most. Each goes as far as the ones before, and further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenScope {
    /// Looks, and changes nothing.
    Read,
    /// Issues, imports, revokes and requests grants too.
    Grants,
    /// All that the identity may do, but make tokens.
    All,
}

impl TokenScope {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Grants => "grants",
            Self::All => "all",
        }
    }
}

impl fmt::Display for TokenScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No such scope.
#[derive(Debug, thiserror::Error)]
#[error("a scope is read, grants or all")]
pub struct NoScope;

impl FromStr for TokenScope {
    type Err = NoScope;
    fn from_str(text: &str) -> Result<Self, NoScope> {
        [Self::Read, Self::Grants, Self::All].into_iter().find(|scope| scope.as_str() == text).ok_or(NoScope)
    }
}

/// SHA-256 of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenHash(String);

impl TokenHash {
    /// `None`: no secret of ours looks like this.
    pub(crate) fn of(secret: &str) -> Option<Self> {
        let bytes = Zeroizing::new(BASE64URL_NOPAD.decode(secret.strip_prefix(PREFIX)?.as_bytes()).ok()?);
        (bytes.len() == BYTES).then(|| Self(HEXLOWER.encode(&Sha256::digest(secret))))
    }

    /// Lower-case hex.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A new secret, and what is kept of it. An error where the system has no randomness.
pub(crate) fn secret() -> Result<(SecretString, TokenHash), getrandom::Error> {
    let mut bytes = Zeroizing::new([0u8; BYTES]);
    getrandom::fill(bytes.as_mut())?;
    let secret = SecretString::from(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(bytes.as_ref())));
    let hash = TokenHash(HEXLOWER.encode(&Sha256::digest(secret.expose_secret())));
    Ok((secret, hash))
}

/// What somebody asks `token issue` for.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// Whose it will be.
    pub user: IdentityName,
    /// What it is for, in a word or two.
    pub label: String,
    /// How far it goes.
    pub scope: TokenScope,
    /// For how long from now.
    pub life: Duration,
}

/// A token that was just made. The only place where its secret ever is.
#[derive(Debug)]
pub struct TokenMade {
    /// Its id, to revoke it by.
    pub id: TokenId,
    /// What `Authorization: Bearer` takes.
    pub secret: SecretString,
    /// Not at or after.
    pub expires: Timestamp,
}

/// Where a token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenState {
    /// Good.
    Active,
    /// At or past its end.
    Expired,
    /// Taken back.
    Revoked,
    /// Its row is not what the ledger says: it opens nothing.
    Invalid,
}

/// A token as lists show it. The hash stays in the store.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Its id.
    pub id: TokenId,
    /// Whose.
    pub identity: IdentityName,
    /// What it is for.
    pub label: String,
    /// How far it goes.
    pub scope: TokenScope,
    /// Made when.
    pub created_at: Timestamp,
    /// And by whom.
    pub created_by: IdentityName,
    /// Not at or after.
    pub expires: Timestamp,
    /// At the moment of asking.
    pub state: TokenState,
    /// Taken back when, by whom and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<crate::grant::Revoked>,
}

/// Who is behind a token that was just verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// The token.
    pub token: TokenId,
    /// Whose it is.
    pub identity: IdentityName,
    /// How far it goes.
    pub scope: TokenScope,
    /// Who made it, and so may know its secret.
    pub made_by: IdentityName,
}

/// Why a token is none. Whoever has the secret is told; of any other text nothing is said.
#[derive(Debug, thiserror::Error)]
pub enum TokenRefused {
    /// No token, or one that the ledger does not vouch for.
    #[error("this is no token of this gateway")]
    Unknown,
    /// Past its end.
    #[error("this token expired at {at}: make a new one with `tidegate token issue`")]
    Expired {
        /// Which.
        token: TokenId,
        /// When.
        at: Timestamp,
    },
    /// Taken back.
    #[error("this token was revoked: make a new one with `tidegate token issue`")]
    Revoked {
        /// Which.
        token: TokenId,
    },
    /// Its identity left the configuration.
    #[error("the user of this token is no longer in the gateway's configuration")]
    Nobody {
        /// Which.
        token: TokenId,
    },
    /// The store disagrees with its ledger, or could not answer. An error denies.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

impl TokenRefused {
    /// The token, where the secret was right.
    pub fn token(&self) -> Option<TokenId> {
        match self {
            Self::Expired { token, .. } | Self::Revoked { token } | Self::Nobody { token } => Some(*token),
            Self::Unknown | Self::Store(_) => None,
        }
    }
}
