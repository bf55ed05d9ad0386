//! Recordings over the API: what is held stays, whatever the rules for keeping say.
//!
//! Admins and auditors hold; only auditors release, so that who runs the gateway cannot let evidence go. An auditor of a part does so
//! within it.

use super::{
    AcceptBody,
    peer::{Action, Caller},
    problem::Problem,
    routes::{Answer, Api, Id, Shared, Who, body},
};
use axum::{
    Extension, Json,
    extract::{Request, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use tidegate_grants::{Event, SessionId, Sight, ledger::Entry};
use utoipa::ToSchema;

/// What holding or releasing a recording answers.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct RecordingHeld {
    /// Whose recording it is.
    pub(crate) session: SessionId,
}

/// `POST /v1/recordings/opened`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenedBody {
    /// How.
    pub(crate) how: How,
    /// Whose recording; none: of several, as a search does.
    #[serde(default)]
    pub(crate) session: Option<SessionId>,
    /// In what format, or what was looked for.
    #[serde(default)]
    pub(crate) what: Option<String>,
}

/// How a recording was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum How {
    /// In a terminal.
    Played,
    /// To a file, or a program.
    Exported,
    /// To find something.
    Searched,
    /// So that something is found more quickly.
    Indexed,
    /// With all others, by what is in clear.
    Listed,
    /// Into a bundle of evidence.
    Bundled,
}

impl How {
    const ALL: [Self; 6] = [Self::Played, Self::Exported, Self::Searched, Self::Indexed, Self::Listed, Self::Bundled];

    /// What the ledger calls it.
    fn kind(self) -> &'static str {
        match self {
            Self::Played => "recording.played",
            Self::Exported => "recording.exported",
            Self::Searched => "recording.searched",
            Self::Indexed => "recording.indexed",
            Self::Listed => "recording.listed",
            Self::Bundled => "recording.bundled",
        }
    }

    /// Whether the entry says that somebody looked at a recording, and nothing of its session.
    pub(crate) fn tells_of(entry: &Entry) -> bool {
        Self::ALL.iter().any(|how| how.kind() == entry.event.kind)
    }
}

/// Longer is not written down.
const LONGEST: usize = 300;

/// Says that somebody has opened a recording from its file, so that the ledger has it too. The commands do it where a gateway runs.
#[utoipa::path(post, path = "/v1/recordings/opened", tag = "recordings",
    request_body = OpenedBody, responses((status = 200, body = Option<SessionId>, content_type = "application/json", description = "Done.")))]
pub(super) async fn opened(State(api): Shared, Extension(caller): Who, request: Request) -> Answer<Option<SessionId>> {
    let _: Sight = caller.may(Action::NoteRecordings)?;
    let OpenedBody { how, session, what } = body(request).await?;
    let what = what.map(|what| what.chars().take(LONGEST).collect::<String>());
    let detail = serde_json::json!({ "from": "file", "account": caller.account, "what": what });
    let event = Event::new(how.kind()).identity(caller.known()?).detail(detail);
    let event = match session {
        Some(session) => event.session(session),
        None => event,
    };
    api.gate.store.append(event, api.gate.now()).await?;
    Ok(Json(session))
}

/// Holds a recording: it stays until it is released.
#[utoipa::path(post, path = "/v1/recordings/{id}/hold", tag = "recordings",
    params(("id" = String, Path, description = "The session: its id, or what that begins or ends with.")),
    request_body = AcceptBody, responses((status = 200, body = RecordingHeld, description = "Done.")))]
pub(super) async fn hold(
    State(api): Shared,
    Extension(caller): Who,
    Id(id): Id,
    request: Request,
) -> Answer<RecordingHeld> {
    let sight = caller.may(Action::HoldRecordings)?;
    let AcceptBody { reason } = body(request).await?;
    held(&api, &caller, &sight, &id, &reason, true).await
}

/// Releases a recording that is held: the rules have it again.
#[utoipa::path(post, path = "/v1/recordings/{id}/release", tag = "recordings",
    params(("id" = String, Path, description = "The session: its id, or what that begins or ends with.")),
    request_body = AcceptBody, responses((status = 200, body = RecordingHeld, description = "Done.")))]
pub(super) async fn release(
    State(api): Shared,
    Extension(caller): Who,
    Id(id): Id,
    request: Request,
) -> Answer<RecordingHeld> {
    let _: Sight = caller.may(Action::HoldRecordings)?;
    if caller.audits().is_nothing() {
        return Err(Problem::new(StatusCode::FORBIDDEN, "only an auditor releases a recording (roles.auditor)"));
    }
    let AcceptBody { reason } = body(request).await?;
    held(&api, &caller, caller.audits(), &id, &reason, false).await
}

/// From now on it is held, or it is not.
async fn held(api: &Api, caller: &Caller, sight: &Sight, id: &str, reason: &str, hold: bool) -> Answer<RecordingHeld> {
    let session = api.keeper.hold(caller.known()?, sight, id, reason, hold).await;
    Ok(Json(RecordingHeld { session: session.map_err(|why| Problem::refused(why.to_string()))? }))
}
