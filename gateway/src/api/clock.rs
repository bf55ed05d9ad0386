//! The clock over the API: a human says that it is right now, though the ledger has later times.

use super::{
    AcceptBody,
    peer::Action,
    routes::{Answer, Shared, Who, body},
};
use axum::{
    Extension, Json,
    extract::{Request, State},
};
use jiff::Timestamp;
use tidegate_grants::Sight;

/// Says that the clock is right now.
#[utoipa::path(post, path = "/v1/clock/accept", tag = "clock",
    request_body = AcceptBody, responses((status = 200, body = Timestamp, content_type = "application/json", description = "Done.")))]
pub(super) async fn accept(State(api): Shared, Extension(caller): Who, request: Request) -> Answer<Timestamp> {
    let _: Sight = caller.may(Action::Configure)?;
    let AcceptBody { reason } = body(request).await?;
    let now = api.gate.now();
    api.gate.store.accept_clock(caller.known()?, &reason, now).await?;
    tracing::warn!(%now, "the clock was accepted");
    Ok(Json(now))
}
