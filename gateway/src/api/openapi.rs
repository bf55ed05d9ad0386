//! The OpenAPI 3.1 document of the API.
//!
//! What always holds: each route brings its own part of it (`routes!`), so the document has what the router serves and
//! nothing else. What holds for all of them (who may ask, how a refusal looks) is added here, once.

use super::{
    problem::Problem,
    routes::{Api, Who},
};
use axum::{Extension, Json, Router};
use std::sync::Arc;
use utoipa::{
    PartialSchema as _, ToSchema as _,
    openapi::{
        Components, ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, Ref, RefOr, ResponseBuilder,
        path::Operation,
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

/// The document, as it is served.
#[derive(Clone)]
struct Document(Arc<OpenApi>);

/// The routes, and what is known of all of them, at an address of its own.
pub(super) fn documented(routes: OpenApiRouter<Arc<Api>>) -> Router<Arc<Api>> {
    let (router, document) = whole(routes);
    router.layer(Extension(Document(Arc::new(document))))
}

fn whole(routes: OpenApiRouter<Arc<Api>>) -> (Router<Arc<Api>>, OpenApi) {
    let (router, mut document) = routes.routes(routes!(openapi)).split_for_parts();
    document.info = InfoBuilder::new()
        .title("tidegate")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "What the commands of tidegate speak: over HTTPS with a token, and on the gateway's host over a Unix socket, where \
             the account says who asks. Ids are UUIDv7; times are RFC 3339 in UTC, those of a grant's claims in seconds since \
             1970. What somebody may not see does not exist for them. Lists over HTTPS come in parts of at most 1000: \
             `Link: <…>; rel=\"next\"` says where the next one is.",
        ))
        .license(Some(LicenseBuilder::new().name(env!("CARGO_PKG_LICENSE")).build()))
        .build();
    let components = document.components.get_or_insert_with(Components::new);
    components.schemas.insert(Problem::name().into_owned(), Problem::schema());
    components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    document.security = Some(vec![SecurityRequirement::new("token", Vec::<String>::new())]);
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
            of_all(operation);
        }
    }
    (router, document)
}

/// Handlers of several files go by the same name, and each may refuse.
fn of_all(operation: &mut Operation) {
    let group = operation.tags.iter().flatten().next().cloned().unwrap_or_default();
    operation.operation_id = operation.operation_id.take().map(|name| format!("{group}_{name}"));
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name()))).build();
    let refusal = ResponseBuilder::new()
        .description("Not done, and why, in one plain sentence.")
        .content("application/problem+json", problem)
        .build();
    operation.responses.responses.insert("default".to_owned(), RefOr::T(refusal));
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "openapi",
    responses((status = 200, body = Object, description = "OpenAPI 3.1.")))]
async fn openapi(Extension(_): Who, Extension(Document(document)): Extension<Document>) -> Json<Arc<OpenApi>> {
    Json(document)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Written anew with the snapshots, by `INSTA_UPDATE=always`.
    #[test]
    fn the_document_that_is_checked_in_is_the_one_that_is_served() {
        let (_, document) = whole(super::super::routes::routes());
        let now = format!("{}\n", document.to_pretty_json().unwrap());
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/openapi.json");
        if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
            std::fs::write(&file, &now).unwrap();
        }
        let kept = std::fs::read_to_string(&file).unwrap();
        assert!(kept == now, "deploy/openapi.json is not what GET /v1/openapi.json answers: INSTA_UPDATE=always");
    }
}
