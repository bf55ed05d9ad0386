//! `tidegate user …`

use super::{print, print_json};
use crate::api::{ReasonBody, client::Client};
use std::process::ExitCode;
use tidegate_grants::{IdentityName, authority::UserEnded};

pub(super) fn end(
    client: &Client,
    name: &IdentityName,
    reason: Option<String>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let ended: UserEnded = client.post(&format!("/v1/users/{name}/end"), &ReasonBody { reason })?;
    if json {
        return print_json(&ended);
    }
    anyhow::ensure!(
        ended.known,
        "nobody is called {name}: the configuration names no such user, and they held nothing"
    );
    let UserEnded { user, grants, passwords, tokens, sessions, .. } = ended;
    print(&format!(
        "{user}: {sessions} live session(s) ended, {grants} grant(s) revoked, {passwords} password(s) void, {tokens} token(s) revoked\n\
         take {user} out of the configuration too, and reload: nobody can be granted anything then\n"
    ))
}
