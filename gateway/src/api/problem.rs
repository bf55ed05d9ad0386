//! Errors as `application/problem+json` (RFC 9457).

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use tidegate_grants::{StoreError, authority::GrantError};
use utoipa::ToSchema;

/// What went wrong, in one plain sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Problem {
    /// The status in words.
    pub(crate) title: String,
    /// The sentence, for the person.
    pub(crate) detail: String,
    /// The HTTP status.
    pub(crate) status: u16,
    /// What is wrong, one by one, where it is several things.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) faults: Vec<String>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error").to_owned();
        Self { title, detail: detail.into(), status: status.as_u16(), faults: Vec::new() }
    }

    /// Understood, and not done.
    pub(crate) fn refused(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, sentence)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

impl From<GrantError> for Problem {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::Refused(sentence) => Self::refused(sentence),
            GrantError::TicketUnseen { .. } => Self::refused(error.to_string()),
            GrantError::FactorNeeded { .. } => {
                Self::refused(format!("{error}: `ssh gate request` takes its proof, the API has nowhere to"))
            }
            GrantError::NotFound(sentence) => Self::new(StatusCode::NOT_FOUND, sentence),
            GrantError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the API could not read or write the store");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}
