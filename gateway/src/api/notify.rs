//! Notifications over the API: where each channel is, and another try for what was given up.

use super::{
    NotifyRetried, NotifyRetry,
    peer::Action,
    problem::Problem,
    routes::{Answer, Shared, Who, body},
};
use crate::notify::ChannelView;
use axum::{
    Extension, Json,
    extract::{Request, State},
    http::StatusCode,
};
use tidegate_grants::Sight;

/// How far each channel of notifications is.
#[utoipa::path(get, path = "/v1/notify", tag = "notify",
    responses((status = 200, body = Vec<ChannelView>, description = "Done.")))]
pub(super) async fn list(State(api): Shared, Extension(caller): Who) -> Answer<Vec<ChannelView>> {
    let _: Sight = caller.may(Action::ReadNotify)?;
    Ok(Json(api.notifier.list().await))
}

/// Tries again what was given up.
#[utoipa::path(post, path = "/v1/notify/retry", tag = "notify",
    request_body = NotifyRetry, responses((status = 200, body = NotifyRetried, description = "Done.")))]
pub(super) async fn retry(State(api): Shared, Extension(caller): Who, request: Request) -> Answer<NotifyRetried> {
    let _: Sight = caller.may(Action::RetryNotify)?;
    let NotifyRetry { channel } = body(request).await?;
    let named = |name: &String| api.live.config().notify.iter().any(|channel| channel.name == *name);
    if channel.as_ref().is_some_and(|name| !named(name)) {
        return Err(Problem::new(StatusCode::NOT_FOUND, "there is no such [[notify]] in the configuration"));
    }
    Ok(Json(NotifyRetried { letters: api.notifier.retry(channel.as_deref()).await? }))
}
