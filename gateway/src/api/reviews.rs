//! Reviews over the API: the twin of the control shell's `review`.

use super::{
    ReviewBody,
    page::{Listed, Order},
    peer::Action,
    problem::Problem,
    routes::{Answer, Id, ListQuery, Query, Shared, Who, body},
};
use axum::{
    Extension, Json,
    extract::{Request, State},
};
use tidegate_grants::{ReviewView, Sight};

/// Reviews, newest first: what was done without anybody's approval. Admins see all, auditors what they audit, others their own.
#[utoipa::path(get, path = "/v1/reviews", tag = "reviews",
    params(ListQuery),
    responses((status = 200, body = Vec<ReviewView>, description = "Done.")))]
pub(super) async fn list(
    State(api): Shared,
    Extension(caller): Who,
    Query(query): Query<ListQuery>,
) -> Result<Listed<ReviewView>, Problem> {
    let _: Sight = caller.may(Action::ReadReviews)?;
    let mut reviews = api.gate.authority.reviews(Some(caller.known()?)).await?;
    reviews.sort_unstable_by_key(|view| std::cmp::Reverse(view.id));
    query.part().of(reviews, Order::NewestFirst, |view| view.id.to_string(), "/v1/reviews", &caller)
}

/// Signs a review, once what it is about is over: never one's own.
#[utoipa::path(post, path = "/v1/reviews/{id}/sign", tag = "reviews",
    params(("id" = String, Path, description = "The review: its id, which is the grant's, or what that begins or ends with.")),
    request_body = ReviewBody, responses((status = 200, body = ReviewView, description = "Done.")))]
pub(super) async fn sign(
    State(api): Shared,
    Extension(caller): Who,
    Id(id): Id,
    request: Request,
) -> Answer<ReviewView> {
    let _: Sight = caller.may(Action::SignReviews)?;
    let ReviewBody { note } = body(request).await?;
    Ok(Json(api.gate.authority.sign_review(caller.own_voice()?, &id, note, api.gate.now()).await?))
}
