//! `tidegate why REF` over the API. Admins and auditors alone: what the ledger has about a refusal is more than its person
//! was told.

use super::{
    peer::Action,
    problem::Problem,
    routes::{Answer, Id, Shared, Who},
};
use crate::why::{Explanation, explain};
use axum::{Extension, Json, extract::State, http::StatusCode};
use tidegate_grants::{Listing, Reference, Sight};

/// Why somebody was refused.
#[utoipa::path(get, path = "/v1/refusals/{id}", tag = "refusals",
    params(("id" = String, Path, description = "The reference that the person was given.")),
    responses((status = 200, body = Explanation, description = "Done.")))]
pub(super) async fn show(State(api): Shared, Extension(caller): Who, Id(id): Id) -> Answer<Explanation> {
    let _: Sight = caller.may(Action::ReadRefusals)?;
    let unprocessable = |sentence: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, sentence);
    let reference: Reference = id.parse().map_err(|why| unprocessable(format!("{why}")))?;
    let entries = api.gate.store.refused(reference).await?;
    if entries.is_empty() {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            format!(
                "the ledger knows of no refusal {reference}: was it another gateway's? One that could not be written, for want \
                 of a disk, is in the gateway's log alone"
            ),
        ));
    }
    let whose = entries.iter().find_map(|entry| entry.event.identity.as_deref()?.parse().ok());
    let grants = match whose {
        Some(identity) => api.gate.authority.grants(Listing::of(&identity), api.gate.now()).await?,
        None => Vec::new(), // nobody's
    };
    Ok(Json(explain(reference, &entries, &api.gate.authority.policy(), &grants)))
}
