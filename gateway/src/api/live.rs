//! The configuration over the API: what another one would change, and its reload.

use super::{
    DiffBody, LARGEST_CONFIG,
    peer::Action,
    problem::Problem,
    routes::{Answer, Api, Shared, Who, body},
};
use crate::{
    config::{ConfigError, Faults},
    live::Plan,
};
use axum::{
    Extension, Json,
    extract::{DefaultBodyLimit, Request, State},
    http::StatusCode,
};
use std::sync::Arc;
use tidegate_grants::Sight;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt as _},
    routes,
};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    // JSON's escapes make text longer.
    let whole_file = DefaultBodyLimit::max(LARGEST_CONFIG * 2);
    OpenApiRouter::default().routes(routes!(diff).layer(whole_file)).routes(routes!(reload))
}

/// Faults of a file are listed, each on a line of its own wherever they are shown.
fn refused(error: &anyhow::Error) -> Problem {
    let of_file = match error.downcast_ref() {
        Some(ConfigError::Faults(faults)) => Some(faults),
        _ => error.downcast_ref::<Faults>(),
    };
    let faults: Vec<String> =
        of_file.map(Faults::to_string).iter().flat_map(|all| all.lines()).map(str::to_owned).collect();
    match faults.len() {
        0 => Problem::refused(format!("{error:#}")),
        count => Problem { faults, ..Problem::refused(format!("the configuration has {count} fault(s)")) },
    }
}

/// What a reload of this configuration would change, and which sessions it would end.
#[utoipa::path(post, path = "/v1/config/diff", tag = "config",
    request_body = DiffBody, responses((status = 200, body = Plan, description = "Done.")))]
async fn diff(State(api): Shared, Extension(caller): Who, request: Request) -> Answer<Plan> {
    let _: Sight = caller.may(Action::Configure)?;
    let DiffBody { text, name } = body(request).await?;
    api.live.plan(text, name).await.map(Json).map_err(|error| refused(&error))
}

/// Reads the configuration again, and puts it into force whole or not at all.
#[utoipa::path(post, path = "/v1/config/reload", tag = "config",
    responses((status = 200, body = Plan, description = "Done.")))]
async fn reload(State(api): Shared, Extension(caller): Who) -> Answer<Plan> {
    let _: Sight = caller.may(Action::Configure)?;
    let by = caller.known()?.to_string();
    // On its own: whoever asked may hang up, and half a reload is none.
    let (live, task) = (api.live.clone(), api.gate.tasks.clone());
    match task.spawn(async move { live.reload(&by).await }).await {
        Ok(changed) => changed.map(Json).map_err(|error| refused(&error)),
        Err(_) => {
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the reload ended in a fault of the gateway's own"))
        }
    }
}
