//! Tokens over the API: made on the gateway's own host only, since a token never makes a token.

use super::{
    ReasonBody, TokenBody, TokenGiven, TokenRevoked,
    page::{Listed, Order},
    peer::Action,
    problem::Problem,
    routes::{Answer, Id, ListQuery, Query, Shared, Who, body},
};
use crate::config::{self, ApiDoor};
use axum::{
    Extension, Json,
    extract::{Request, State},
};
use secrecy::ExposeSecret as _;
use tidegate_grants::{Sight, TokenView, token::TokenRequest};

/// Makes a token, on the gateway's own host only: a token never makes a token.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens",
    request_body = TokenBody, responses((status = 200, body = TokenGiven, description = "Done.")))]
pub(super) async fn issue(State(api): Shared, Extension(caller): Who, request: Request) -> Answer<TokenGiven> {
    let _: Sight = caller.may(Action::MakeTokens)?;
    let by = caller.known()?;
    let TokenBody { user, label, scope, duration } = body(request).await?;
    let life =
        config::duration(&duration).map_err(|wrong| Problem::refused(format!("for: {wrong}; write it like 30d")))?;
    let most = api.live.config().api.as_ref().map_or(ApiDoor::MAX_TOKEN_LIFE, |door| door.max_token_life);
    let request = TokenRequest { user: user.unwrap_or_else(|| by.clone()), label, scope, life };
    let made = api.gate.authority.issue_token(by, request, most, api.gate.now()).await?;
    // The one place where it leaves the gateway.
    Ok(Json(TokenGiven { id: made.id, secret: made.secret.expose_secret().to_owned(), expires: made.expires }))
}

/// Tokens, newest first, without their secrets.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens",
    params(ListQuery),
    responses((status = 200, body = Vec<TokenView>, description = "Done.")))]
pub(super) async fn list(
    State(api): Shared,
    Extension(caller): Who,
    Query(query): Query<ListQuery>,
) -> Result<Listed<TokenView>, Problem> {
    let all = caller.may(Action::ReadTokens)?.is_all();
    let of = (!all).then(|| caller.known()).transpose()?;
    let tokens = api.gate.authority.tokens(of, api.gate.now()).await?;
    query.part().of(tokens, Order::NewestFirst, |token| token.id.to_string(), "/v1/tokens", &caller)
}

/// Revokes a token.
#[utoipa::path(post, path = "/v1/tokens/{id}/revoke", tag = "tokens",
    params(("id" = String, Path, description = "The token: its id, or what that begins or ends with.")),
    request_body = ReasonBody, responses((status = 200, body = TokenRevoked, description = "Done.")))]
pub(super) async fn revoke(
    State(api): Shared,
    Extension(caller): Who,
    Id(id): Id,
    request: Request,
) -> Answer<TokenRevoked> {
    let _: Sight = caller.may(Action::RevokeTokens)?;
    let ReasonBody { reason } = body(request).await?;
    let id = api.gate.authority.revoke_token(caller.known()?, &id, reason, api.gate.now()).await?;
    Ok(Json(TokenRevoked { id }))
}
