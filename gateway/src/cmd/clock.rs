//! `tidegate clock …`

use super::print;
use crate::api::{AcceptBody, client::Client};
use std::process::ExitCode;

pub(super) fn accept(client: &Client, reason: String) -> anyhow::Result<ExitCode> {
    let accepted: String = client.post("/v1/clock/accept", &AcceptBody { reason })?;
    print(&format!("{accepted}\n"))
}
