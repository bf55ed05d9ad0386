//! More of a grant, and less: the twins of the control shell's `extend` and `return`.

use super::{
    ExtendBody, GrantMade, ReturnBody,
    peer::Action,
    problem::Problem,
    routes::{Answer, Id, Shared, Who, body},
};
use crate::config;
use axum::{
    Extension, Json,
    extract::{Request, State},
};
use tidegate_grants::{RequestView, Sight, request::More};

/// Asks for more time under a grant of one's own; its live sessions go on.
#[utoipa::path(post, path = "/v1/grants/{id}/extend", tag = "grants",
    params(("id" = String, Path, description = "The grant: its id, or what that begins or ends with.")),
    request_body = ExtendBody, responses((status = 200, body = RequestView, description = "Done.")))]
pub(super) async fn extend(
    State(api): Shared,
    Extension(caller): Who,
    Id(id): Id,
    request: Request,
) -> Answer<RequestView> {
    let _: Sight = caller.may(Action::AskRequests)?;
    let ExtendBody { duration, reason, ticket } = body(request).await?;
    let wrong = |wrong| Problem::refused(format!("for: {wrong}; write it like 30m"));
    let duration = duration.as_deref().map(config::duration).transpose().map_err(wrong)?;
    let more = More { duration, reason, ticket, from: None, seen: None };
    Ok(Json(api.gate.extend(caller.known()?, &id, more).await?))
}

/// Hands a grant of one's own back, or as one who approves it somebody else's; its live sessions end.
#[utoipa::path(post, path = "/v1/grants/{id}/return", tag = "grants",
    params(("id" = String, Path, description = "The grant: its id, or what that begins or ends with.")),
    request_body = ReturnBody, responses((status = 200, body = GrantMade, description = "Done.")))]
pub(super) async fn give_back(
    State(api): Shared,
    Extension(caller): Who,
    Id(id): Id,
    request: Request,
) -> Answer<GrantMade> {
    let _: Sight = caller.may(Action::AskRequests)?;
    let ReturnBody { force, reason } = body(request).await?;
    let by = match force {
        true => {
            let _: Sight = caller.may(Action::DecideRequests)?;
            caller.own_voice()?
        }
        false => caller.known()?,
    };
    let id = api.gate.authority.give_back(by, &id, force, reason, api.gate.now()).await?;
    Ok(Json(GrantMade { id }))
}
