//! `tidegate review …`

use super::{moment, print, print_json};
use crate::{
    api::{
        ReviewBody,
        client::{Client, segment},
    },
    cli::ReviewCommand,
    text::{self, plain},
};
use std::process::ExitCode;
use tidegate_grants::{ReviewState, ReviewView};

pub(super) fn run(client: &Client, command: ReviewCommand) -> anyhow::Result<ExitCode> {
    match command {
        ReviewCommand::List { all, json } => list(client, all, json.json),
        ReviewCommand::Sign { id, note } => {
            let view: ReviewView = client.post(&format!("/v1/reviews/{}/sign", segment(&id)), &ReviewBody { note })?;
            print(&format!("{}\n", view.id))
        }
    }
}

fn list(client: &Client, all: bool, json: bool) -> anyhow::Result<ExitCode> {
    let mut reviews: Vec<ReviewView> = client.list("/v1/reviews")?;
    reviews.retain(|view| all || view.state != ReviewState::Signed);
    if json {
        return print_json(&reviews);
    }
    let row = |view: &ReviewView| {
        let sessions: Vec<String> = view.sessions.iter().map(|session| session.short()).collect();
        let signed = view.signed.as_ref().map(|signed| format!("{}: {}", signed.by, signed.note)).unwrap_or_default();
        [
            view.id.short(),
            view.identity.to_string(),
            view.target.to_string(),
            view.entitlement.to_string(),
            moment(view.opened),
            view.state.to_string(),
            sessions.join(" "),
            view.reason.clone().unwrap_or_default(),
            signed,
        ]
    };
    let rows: Vec<[String; 9]> = reviews.iter().map(row).collect();
    print(&text::table(["ID", "USER", "TARGET", "ENTITLEMENT", "AT", "STATE", "SESSIONS", "REASON", "SIGNED"], &rows))
}

/// For the top of every list: the reviews that are owed, one line each.
pub(super) fn owed(client: &Client) -> anyhow::Result<String> {
    let reviews: Vec<ReviewView> = client.list("/v1/reviews")?;
    let owed = reviews.iter().filter(|view| view.state != ReviewState::Signed);
    Ok(owed.map(|view| format!("! {}\n", plain(&view.owed()))).collect())
}
